//! The command line.

use std::path::PathBuf;

use clap::builder::PathBufValueParser;
use clap::{Arg, ArgMatches, Command};

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Validate a configuration file and show what is in effect.
    Check(PathBuf),
    /// Print the documentation of the configuration keys.
    ConfigDocs,
    /// Make a key to sign packages with.
    MakeKey(PathBuf),
    /// Run the agent by a configuration file.
    Run(PathBuf),
    /// Sign a file as a package.
    Sign {
        /// The private key.
        key: PathBuf,
        /// The name of the package.
        name: String,
        /// Its version.
        version: String,
        /// The file.
        file: PathBuf,
    },
}

/// Reads the command line. Prints help, version or the mistake and exits where clap does.
#[must_use]
pub fn parse() -> Action {
    understand(&command().get_matches())
}

fn understand(matches: &ArgMatches) -> Action {
    let file = |matches: &ArgMatches| matches.get_one::<PathBuf>("config").cloned().unwrap_or_default();
    let path =
        |matches: &ArgMatches, name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let text =
        |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    match matches.subcommand() {
        Some(("config-docs", _)) => Action::ConfigDocs,
        Some(("make-key", make)) => Action::MakeKey(path(make, "file")),
        Some(("sign", sign)) => Action::Sign {
            key: path(sign, "key"),
            name: text(sign, "name"),
            version: text(sign, "version"),
            file: path(sign, "file"),
        },
        Some((_, check)) => Action::Check(file(check)),
        None => Action::Run(file(matches)),
    }
}

fn command() -> Command {
    let config = || {
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(PathBufValueParser::new())
            .required(true)
            .help("Configuration file (YAML)")
    };
    Command::new("self-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A standalone OpAMP agent")
        .after_help(
            "Signals: INT and TERM say goodbye and end, a second one ends at once; HUP reads the configuration \
             file and certificates again.\nExit codes: 0 after a goodbye, 1 after an error, 2 for a mistake on \
             the command line.",
        )
        .arg(config())
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .subcommand(Command::new("config-docs").about("Print all configuration keys as Markdown"))
        .subcommand(
            Command::new("check")
                .about("Validate a configuration file and print the settings in effect, without secrets")
                .arg(config()),
        )
        .subcommand(
            Command::new("make-key")
                .about("Make an Ed25519 key to sign packages with: FILE, and FILE.pub for the agents")
                .arg(file("file", "FILE", "Where the private key goes; it belongs on no server").required(true)),
        )
        .subcommand(
            Command::new("sign")
                .about("Sign a file as a package, and print its SHA-256 and signature for the upload")
                .disable_version_flag(true)
                .arg(file("key", "KEY", "The private key").long("key").required(true))
                .arg(
                    Arg::new("name")
                        .long("name")
                        .value_name("NAME")
                        .help("The name it is offered under; a sole top-level package may have none"),
                )
                .arg(
                    Arg::new("version")
                        .long("version")
                        .value_name("VERSION")
                        .required(true)
                        .help("The version it is offered as"),
                )
                .arg(file("file", "FILE", "The file").required(true)),
        )
}

fn file(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(shown).value_parser(PathBufValueParser::new()).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Action, clap::Error> {
        command().try_get_matches_from(arguments).map(|matches| understand(&matches))
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn running_and_checking_need_a_file() {
        assert_eq!(parsed(&["self-agent", "--config", "a"]).unwrap(), Action::Run("a".into()));
        assert_eq!(parsed(&["self-agent", "check", "--config", "a"]).unwrap(), Action::Check("a".into()));
        assert_eq!(parsed(&["self-agent", "config-docs"]).unwrap(), Action::ConfigDocs);
        let sign = parsed(&["self-agent", "sign", "--key", "k", "--version", "1", "f"]).unwrap();
        let (key, file, version) = ("k".into(), "f".into(), "1".to_owned());
        assert_eq!(sign, Action::Sign { key, name: String::new(), version, file });
        assert_eq!(parsed(&["self-agent", "make-key", "k"]).unwrap(), Action::MakeKey("k".into()));
        assert!(parsed(&["self-agent", "sign", "--key", "k", "f"]).is_err());
        assert!(parsed(&["self-agent"]).unwrap_err().to_string().contains("--config <FILE>"));
        assert!(parsed(&["self-agent", "check"]).is_err());
    }
}
