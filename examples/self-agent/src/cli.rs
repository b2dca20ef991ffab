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
    /// Run the agent by a configuration file.
    Run(PathBuf),
}

/// Reads the command line. Prints help, version or the mistake and exits where clap does.
#[must_use]
pub fn parse() -> Action {
    understand(&command().get_matches())
}

fn understand(matches: &ArgMatches) -> Action {
    let file = |matches: &ArgMatches| matches.get_one::<PathBuf>("config").cloned().unwrap_or_default();
    match matches.subcommand() {
        Some(("config-docs", _)) => Action::ConfigDocs,
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
        assert!(parsed(&["self-agent"]).unwrap_err().to_string().contains("--config <FILE>"));
        assert!(parsed(&["self-agent", "check"]).is_err());
    }
}
