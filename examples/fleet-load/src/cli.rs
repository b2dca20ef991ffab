//! The command line of `fleet-load`.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{phase, plan::Plan};

/// What the user wants.
#[derive(Debug)]
pub enum Action {
    /// Put load on a server: the plan file, if there is one, and the flags.
    Run {
        /// `-` is standard input.
        plan_file: Option<String>,
        /// What the flags say.
        flags: Box<Plan>,
    },
    /// Be a worker process.
    Worker,
}

const EXAMPLE: &str = "\
Example, against the reference server in another terminal:
  fleet-load run --target ws://127.0.0.1:4320/v1/opamp --pid $(pidof reference-server) \\
    --control rest+http://127.0.0.1:4321 --admin-token-file token \\
    --phase connect:agents=1000,state=10k --phase idle --phase heartbeat:saturated --phase push:4096";

/// Reads the command line. Prints help or the mistake and exits where clap does.
#[must_use]
pub fn parse() -> Action {
    understand(&command().get_matches())
}

fn understand(matches: &ArgMatches) -> Action {
    let Some(("run", matches)) = matches.subcommand() else { return Action::Worker };
    let texts = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).map(|values| values.cloned().collect()).unwrap_or_default()
    };
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let flags = Plan {
        target: texts("target"),
        pid: matches.get_many::<u32>("pid").map(|pids| pids.copied().collect()).unwrap_or_default(),
        control: texts("control"),
        phases: texts("phase"),
        ca: text("ca").map(Into::into),
        agent_token_file: text("agent-token-file").map(Into::into),
        admin_token_file: text("admin-token-file").map(Into::into),
        json: text("json").map(Into::into),
        server: text("server"),
        round: matches.get_one::<u32>("round").copied(),
        seed: matches.get_one::<u32>("seed").copied(),
        workers: matches.get_one::<u32>("workers").copied(),
        answer_timeout_ms: matches.get_one::<u32>("answer-timeout-ms").copied().map(u64::from),
        allow_remote: matches.get_flag("allow-remote"),
        strict: matches.get_flag("strict"),
    };
    Action::Run { plan_file: text("plan"), flags: Box::new(flags) }
}

fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(clap::value_parser!(u32)).help(help)
    };
    let run = Command::new("run")
        .about("Put load on a server, phase by phase, and report what it cost")
        .after_help(format!("{}\n\n{EXAMPLE}", phase::HELP))
        .args([
            text("plan", "FILE", "Read the run from a TOML file, `-` for standard input; flags come on top"),
            text("target", "URL", "OpAMP endpoint: ws://, wss://, http:// or https://; several times for several servers")
                .action(ArgAction::Append),
            number("pid", "Process of the server, to measure its CPU time and memory; one for each target")
                .value_name("PID")
                .action(ArgAction::Append),
            text("control", "URL", "How configs get to the server: rest+http:// (the reference server) or plain+http://; one for each target")
                .action(ArgAction::Append),
            text("phase", "PHASE", "What to do, in order; see below").action(ArgAction::Append),
            text("ca", "FILE", "PEM file with the authority that issued the server's certificate (wss, https)"),
            text("agent-token-file", "FILE", "File whose first line is the token that agents present"),
            text("admin-token-file", "FILE", "File whose first line is the token for the REST API"),
            text("json", "FILE", "Append one line of JSON for each phase"),
            text("server", "NAME", "Name of the server in the report").alias("name"),
            number("round", "Number of the repetition in the report"),
            number("seed", "Another number makes other agents; the same number the same ones"),
            number("workers", "Worker processes; by default one for every 19,500 agents"),
            number("answer-timeout-ms", "How long the last answers of a phase are waited for before they count as lost; default 10000"),
            Arg::new("strict")
                .long("strict")
                .action(ArgAction::SetTrue)
                .help("End with status 2 if anything failed between agents and server; otherwise only the report says so"),
            Arg::new("allow-remote")
                .long("allow-remote")
                .action(ArgAction::SetTrue)
                .help("Allow servers that are not on this machine"),
        ]);
    let worker = Command::new("worker").about("What `run` starts; not for use by hand").hide(true);
    Command::new("fleet-load")
        .about("Many OpAMP agents from few processes, and what they cost a server")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([run, worker])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_make_a_plan() {
        let matches = command().get_matches_from([
            "fleet-load",
            "run",
            "--target",
            "ws://127.0.0.1:1",
            "--phase",
            "connect:agents=5",
            "--phase",
            "idle",
            "--pid",
            "7",
        ]);
        let Action::Run { plan_file: None, flags } = understand(&matches) else { panic!("not a run") };
        assert_eq!(flags.phases, ["connect:agents=5", "idle"]);
        assert_eq!(flags.pid, [7]);
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        command().debug_assert();
    }
}
