//! The command line.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::overwrite::{Named, lost};

/// The code of a run that came to no end because things happen all the time and no time passes: a bug.
pub const STUCK: u8 = 3;
/// The code of a rollout that did not succeed, if it has to.
pub const NO_SUCCESS: u8 = 4;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The plan file; `-` is standard input.
    pub plan: String,
    /// Where the result goes as JSON.
    pub json: Option<PathBuf>,
    /// Where the picture goes.
    pub svg: Option<PathBuf>,
    /// Another seed than the file's.
    pub seed: Option<u64>,
    /// Another number of agents than the file's.
    pub agents: Option<u32>,
    /// Whether the whole preview is printed.
    pub preview: bool,
    /// Whether a rollout that does not succeed is a failure of the program.
    pub require_success: bool,
}

/// Reads the command line. Prints help or the mistake and exits where clap does.
#[must_use]
pub fn parse() -> Options {
    let options = understand(&command().get_matches());
    if let Some(what) = options.lost() {
        command().error(ErrorKind::ArgumentConflict, what).exit();
    }
    options
}

impl Options {
    /// The files that are written, with their flags.
    pub fn written(&self) -> impl Iterator<Item = Named<'_>> {
        let (json, svg) = (self.json.as_deref(), self.svg.as_deref());
        [("--json", json), ("--svg", svg)].into_iter().filter_map(|(flag, path)| Some(Named(flag, path?)))
    }

    /// What would be lost by writing over the plan, or over what was just written.
    fn lost(&self) -> Option<String> {
        // A file can be standard input, where the system tells which.
        let plan = if self.plan == "-" { "/dev/stdin" } else { &*self.plan };
        let plan = Named("the plan", Path::new(plan));
        let both = self.json.as_deref().zip(self.svg.as_deref());
        let both = both.and_then(|(json, svg)| lost(Named("--svg", svg), Named("--json", json)));
        self.written().find_map(|file| lost(file, plan)).or(both)
    }
}

fn understand(matches: &ArgMatches) -> Options {
    let path = |name: &str| matches.get_one::<String>(name).map(PathBuf::from);
    Options {
        plan: matches.get_one::<String>("plan").cloned().unwrap_or_default(),
        json: path("json"),
        svg: path("svg"),
        seed: matches.get_one::<u64>("seed").copied(),
        agents: matches.get_one::<u32>("agents").copied(),
        preview: matches.get_flag("preview"),
        require_success: matches.get_flag("require-success"),
    }
}

fn command() -> Command {
    let file =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("FILE").help(help);
    Command::new("fleet-sim")
        .about("What would this rollout do? A plan, run over a simulated fleet")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Plans to begin with: examples/fleet-sim/plans. A file that ends in .json is JSON with the same keys.\n\n\
             Exit codes: 0 the plan was played, whatever came of it; 1 it is refused, or a file cannot be read or written; \
             2 the command line is wrong; 3 the run came to no end, which is a bug; 4 the rollout did not succeed (--require-success).",
        )
        .arg_required_else_help(true)
        .args([
            Arg::new("plan").value_name("PLAN").required(true).help("The plan file, `-` for standard input (TOML)"),
            file("json", "Write plan, preview, changes, timeline, marks, acts, verdicts, gates and result as JSON; docs/rollouts.md has the keys"),
            file("svg", "Draw the rollout over time"),
            Arg::new("preview")
                .long("preview")
                .action(ArgAction::SetTrue)
                .help("Print all that can be said beforehand: waves, duration, blast radius, chances to notice a fault"),
            Arg::new("require-success")
                .long("require-success")
                .action(ArgAction::SetTrue)
                .help("Exit with 4 unless the rollout succeeds, also if it is paused, held or not over yet"),
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help("Another seed makes other agents fail, at other times"),
            Arg::new("agents")
                .long("agents")
                .value_name("N")
                .value_parser(clap::value_parser!(u32))
                .help("Another number of agents than the plan's, at most 4000000"),
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_on_top_of_the_plan() {
        let words = ["fleet-sim", "plan.toml", "--seed", "7", "--agents", "100", "--svg", "out.svg"];
        let options = understand(&command().get_matches_from(words));
        assert_eq!(options.plan, "plan.toml");
        assert_eq!((options.seed, options.agents, options.json), (Some(7), Some(100), None));
        assert_eq!((options.svg, options.preview), (Some("out.svg".into()), false));
        assert!(understand(&command().get_matches_from(["fleet-sim", "plan.toml", "--preview"])).preview);
    }

    #[test]
    fn files_that_are_read_or_written_already_are_not_written() {
        let lost = |words: &[&str]| {
            let all = ["fleet-sim", "Cargo.toml"].iter().chain(words);
            understand(&command().get_matches_from(all)).lost()
        };
        let plan = Some("--svg ./src/../Cargo.toml would overwrite the plan".to_owned());
        assert_eq!(lost(&["--svg", "./src/../Cargo.toml", "--json", "new.json"]), plan);
        let json = Some("--svg ./new would overwrite --json".to_owned());
        assert_eq!(lost(&["--json", "new", "--svg", "./new"]), json);
        assert_eq!(lost(&["--json", "new.json", "--svg", "new.svg"]), None);
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        command().debug_assert();
    }
}
