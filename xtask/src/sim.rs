//! Simulated rollouts: `cargo xtask sim`. It builds the simulator with the profile `sim`, so that the engine checks itself, and
//! runs it.
//!
//! Seeded bugs need a build of their own, with `cfg(opamp_faults)`, so that no ordinary one can be broken on purpose. Cargo has
//! the crates of this workspace alone compiled by this program, which adds that: all others are as they were.

use std::ffi::OsString;
use std::fmt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::process::Program;
use crate::workspace::{Workspace, WorkspaceError};

/// How the command is used.
const USAGE: &str = "\
cargo xtask sim [--seeds N] [--first-seed S] [--frames]
cargo xtask sim --replay FILE [--frames]
cargo xtask sim --bugs [NAME]
cargo xtask sim --exhaustive
cargo xtask sim --quality RUNS [--fleets N,N] [--rates P,P] [--first-seed S] [--markdown FILE]";

/// Optimised, with assertions: see the workspace's manifest.
const CHECKED: &str = "sim";
/// What seeded bugs are compiled with.
const FAULTS: [&str; 2] = ["--cfg", "opamp_faults"];
/// Is set where this program is called by cargo to compile a crate.
const COMPILES: &str = "OPAMP_XTASK_COMPILES_FAULTS";
/// A table of many runs takes hours.
const DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// What is to be simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    mode: Mode,
    /// Words for the simulator behind its command.
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Bugs,
    Exhaustive,
    Quality,
    Replay,
    Seeds,
}

/// The command line asks for what there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsError(String);

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nusage:\n{USAGE}", self.0)
    }
}

impl std::error::Error for OptionsError {}

impl Options {
    /// Reads the words behind `sim`.
    ///
    /// # Errors
    ///
    /// [`OptionsError`], which says what is wrong and what would be right.
    pub fn parse(words: &[&str]) -> Result<Self, OptionsError> {
        let mut rest = words.iter().copied().peekable();
        let mut options = Self { mode: Mode::Seeds, words: Vec::new() };
        let mode = |options: &mut Self, mode: Mode| {
            if options.mode != Mode::Seeds || !options.words.is_empty() {
                return Err(OptionsError("only one thing at a time".to_owned()));
            }
            options.mode = mode;
            Ok(())
        };
        while let Some(word) = rest.next() {
            let mut value = || match rest.next_if(|next| !next.starts_with('-')) {
                Some(value) => Ok(value.to_owned()),
                None => Err(OptionsError(format!("{word} needs a value behind it"))),
            };
            match (word, options.mode) {
                ("--replay", _) => {
                    mode(&mut options, Mode::Replay)?;
                    options.words.push(value()?);
                }
                ("--bugs", _) => {
                    mode(&mut options, Mode::Bugs)?;
                    options.words.extend(value());
                }
                ("--exhaustive", _) => mode(&mut options, Mode::Exhaustive)?,
                ("--quality", _) => {
                    mode(&mut options, Mode::Quality)?;
                    options.words.extend(["--runs".to_owned(), value()?]);
                }
                ("--fleets" | "--rates" | "--markdown", Mode::Quality)
                | ("--seeds", Mode::Seeds)
                | ("--first-seed", Mode::Quality | Mode::Seeds) => {
                    options.words.extend([word.to_owned(), value()?]);
                }
                ("--frames", Mode::Seeds | Mode::Replay) => options.words.push(word.to_owned()),
                (other, _) => return Err(OptionsError(format!("{other} does not belong here"))),
            }
        }
        Ok(options)
    }
}

/// Simulates what the options ask for. The answer says whether everything held.
///
/// # Errors
///
/// Cargo cannot be run.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool, WorkspaceError> {
    let target = workspace.metadata()?.target_directory();
    let program = match options.mode {
        Mode::Exhaustive => workspace
            .cargo("test")
            .args(["--profile", CHECKED, "--package", "opamp-fleet", "--test", "exhaustive"])
            .args(["--", "--include-ignored", "--nocapture"]),
        Mode::Bugs => simulator(workspace)
            .env("RUSTC_WORKSPACE_WRAPPER", this_program()?)
            .env(COMPILES, "1")
            // What the engine asserts of itself would notice some before the invariants had a look at them.
            .env("CARGO_PROFILE_SIM_DEBUG_ASSERTIONS", "false")
            .args(["--", "bugs"])
            .args(&options.words),
        Mode::Quality => simulator(workspace).args(["--", "quality"]).args(&options.words),
        Mode::Replay => simulator(workspace).args(["--", "replay"]).args(&options.words),
        Mode::Seeds => {
            simulator(workspace).args(["--", "seeds", "--out"]).arg(target.join("sim")).args(&options.words)
        }
    };
    Ok(program.deadline(DEADLINE).show()?.succeeded())
}

fn simulator(workspace: &Workspace) -> Program {
    workspace.cargo("run").args([
        "--quiet",
        "--profile",
        CHECKED,
        "--package",
        "opamp-testkit",
        "--features",
        "sim",
        "--bin",
        "sim",
    ])
}

/// The path of this program.
fn this_program() -> Result<OsString, WorkspaceError> {
    let path = std::env::current_exe();
    path.map(Into::into)
        .map_err(|source| WorkspaceError(format!("where xtask is cannot be found out: {source}")))
}

/// Whether cargo has called this program to compile a crate with [`compile`].
#[must_use]
pub fn compiles() -> bool {
    std::env::var_os(COMPILES).is_some()
}

/// Compiles a crate that can be broken on purpose: the words are the compiler and what it is told.
pub fn compile(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let Some(compiler) = words.next() else { return ExitCode::FAILURE };
    match Command::new(&compiler).args(words).args(FAULTS).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}: {error}", compiler.display());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Mode, String), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let options = Options::parse(&words).map_err(|error| error.to_string())?;
        Ok((options.mode, options.words.join(" ")))
    }

    #[test]
    fn each_form_becomes_a_command_of_the_simulator() {
        for (line, mode, words) in [
            ("", Mode::Seeds, ""),
            ("--first-seed 7 --seeds 1 --frames", Mode::Seeds, "--first-seed 7 --seeds 1 --frames"),
            ("--replay a.toml --frames", Mode::Replay, "a.toml --frames"),
            ("--bugs", Mode::Bugs, ""),
            ("--bugs lock-leak", Mode::Bugs, "lock-leak"),
            ("--exhaustive", Mode::Exhaustive, ""),
            ("--quality 100 --markdown page.md", Mode::Quality, "--runs 100 --markdown page.md"),
            (
                "--quality 5 --fleets 10,100 --rates 0.5",
                Mode::Quality,
                "--runs 5 --fleets 10,100 --rates 0.5",
            ),
            ("--quality 5 --first-seed 7", Mode::Quality, "--runs 5 --first-seed 7"),
        ] {
            assert_eq!(parse(line), Ok((mode, words.to_owned())), "{line}");
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        for (line, expected) in [
            ("--seeds", "--seeds needs a value"),
            ("--seeds --frames", "--seeds needs a value"),
            ("--bugs --seeds 1", "--seeds does not belong"),
            ("--seeds 1 --bugs", "only one thing"),
            ("--exhaustive --quality 1", "only one thing"),
            ("--markdown page.md", "--markdown does not belong"),
            ("--seeds 5 --fleets 10", "--fleets does not belong"),
            ("--bugs --frames", "--frames does not belong"),
            ("seeds", "seeds does not belong"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected) && error.contains("cargo xtask sim"), "{line}: {error}");
        }
    }
}
