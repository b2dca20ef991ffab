//! The command line. Its flags are made from the table of configuration keys.

use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};

use crate::config::{
    Inputs,
    keys::{KEYS, Kind},
};

/// What the user wants.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Print the documentation of the configuration keys.
    ConfigDocs,
    /// Print the OpenAPI document.
    OpenApi,
    /// Print the configuration in effect.
    PrintConfig,
    /// Run the server.
    Serve,
    /// Make, list or revoke API tokens while no server runs on the data directory.
    Token(TokenAction),
    /// Print the version.
    Version,
}

/// What to do with API tokens.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenAction {
    /// Make one and print it.
    Create {
        /// What it is called.
        name: String,
        /// `viewer`, `operator` or `admin`.
        role: String,
    },
    /// List all, without their secrets.
    List,
    /// Revoke the one with this id.
    Revoke {
        /// The id.
        id: String,
    },
}

/// Reads the command line. Prints help or the mistake and exits where clap does.
pub fn parse() -> (Action, Inputs) {
    understand(&command().get_matches())
}

fn understand(matches: &ArgMatches) -> (Action, Inputs) {
    let mut inputs = Inputs::from_process_env();
    inputs.file = matches.get_one::<String>("config").map(Into::into);
    for key in KEYS {
        if let Some(values) = matches.get_many::<String>(key.name) {
            inputs.flags.push((key.name, values.cloned().collect()));
        }
    }
    let text =
        |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let action = match matches.subcommand() {
        Some(("config-docs", _)) => Action::ConfigDocs,
        Some(("openapi", _)) => Action::OpenApi,
        Some(("version", _)) => Action::Version,
        Some(("token", token)) => Action::Token(match token.subcommand() {
            Some(("create", create)) => {
                TokenAction::Create { name: text(create, "name"), role: text(create, "role") }
            }
            Some(("revoke", revoke)) => TokenAction::Revoke { id: text(revoke, "id") },
            _ => TokenAction::List,
        }),
        _ if matches.get_flag("print-config") => Action::PrintConfig,
        _ => Action::Serve,
    };
    (action, inputs)
}

fn command() -> Command {
    let mut command = Command::new("reference-server")
        .about(
            "A complete OpAMP fleet server. Without arguments: everything on loopback, data in ./opamp-data",
        )
        .version(env!("CARGO_PKG_VERSION"))
        // Of a flag given twice the last one counts, so that a wrapper's flags can be overridden.
        .args_override_self(true)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .global(true)
                .help("Configuration file [env: OPAMP_CONFIG] [default: ./opamp-server.toml if it is there]"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the configuration in effect, secrets redacted, and exit"),
        );
    for key in KEYS {
        let mut arg = Arg::new(key.name)
            .long(key.flag())
            .value_name(value_name(key.kind))
            .help(format!("{} [env: {}]{}", key.help.replace('`', ""), key.env(), default_note(key.default)))
            .hide_possible_values(true);
        if let Kind::Choice(words) = key.kind {
            arg = arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(false);
        }
        if key.kind == Kind::Switch {
            arg = arg.value_parser(PossibleValuesParser::new(["true", "false"])).hide_possible_values(false);
        }
        if key.kind == Kind::List {
            arg = arg.action(ArgAction::Append);
        }
        // The data directory is what the token commands work on.
        command = command.arg(arg.global(key.name == "server.data_dir"));
    }
    command
        .subcommand(Command::new("serve").about("Run the server (the default)"))
        .subcommand(token_command())
        .subcommand(
            Command::new("config-docs")
                .about("Print the documentation of every configuration key as Markdown"),
        )
        .subcommand(Command::new("openapi").about("Print the OpenAPI document of the REST API"))
        .subcommand(Command::new("version").about("Print the version"))
}

fn token_command() -> Command {
    let name = Arg::new("name")
        .long("name")
        .required(true)
        .help("What the token is called in listings and audit log");
    let role = Arg::new("role")
        .long("role")
        .default_value("viewer")
        .value_parser(PossibleValuesParser::new(["viewer", "operator", "admin"]))
        .help("What it may do");
    Command::new("token")
        .about("API tokens of the admin port, offline: no server may run on the data directory")
        .subcommand_required(true)
        .subcommand(Command::new("create").about("Make a token and print it once").args([name, role]))
        .subcommand(Command::new("list").about("List the tokens, without their secrets"))
        .subcommand(
            Command::new("revoke")
                .about("Revoke a token")
                .arg(Arg::new("id").required(true).help("Id from the list")),
        )
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "ADDRESS:PORT",
        Kind::Choice(_) => "WORD",
        Kind::Count => "NUMBER",
        Kind::Duration => "DURATION",
        Kind::List => "LIST",
        Kind::Path => "PATH",
        Kind::Size => "SIZE",
        Kind::Switch => "BOOL",
        Kind::Text => "TEXT",
    }
}

fn default_note(default: &str) -> String {
    if default.is_empty() { String::new() } else { format!(" [default: {default}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_key_has_a_flag_that_reaches_the_inputs() {
        for key in KEYS {
            let value = match key.kind {
                Kind::Choice(words) => words[words.len() - 1],
                Kind::Switch => "false",
                _ => "x",
            };
            let flag = format!("--{}={value}", key.flag());
            let (_, inputs) = understand(&command().get_matches_from(["reference-server", flag.as_str()]));
            assert_eq!(inputs.flags, [(key.name, vec![value.to_owned()])]);
        }
    }

    #[test]
    fn token_commands_take_the_data_directory_after_the_command() {
        let line =
            ["reference-server", "token", "create", "--name", "ci", "--role", "operator", "--data-dir", "/d"];
        let (action, inputs) = understand(&command().get_matches_from(line));
        assert!(
            matches!(action, Action::Token(TokenAction::Create { name, role }) if name == "ci" && role == "operator")
        );
        assert_eq!(inputs.flags, [("server.data_dir", vec!["/d".to_owned()])]);
    }
}
