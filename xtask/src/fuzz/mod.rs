//! Fuzzing: libFuzzer on the stable toolchain.
//!
//! The targets are the programs of the package `opamp-fuzz`. They are built with coverage counters, which LLVM puts in on
//! every toolchain, in a target directory of their own, so that no ordinary build is instrumented or thrown away. What a run
//! finds worth keeping stays there too, and the next run begins with it.

mod build;
mod options;
mod outcome;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use options::{Options, OptionsError};

use crate::process::Program;
use crate::workspace::{Workspace, WorkspaceError};

use self::outcome::{Outcome, Summary};

/// Where the sources of the programs are.
const PROGRAMS: &str = "fuzz/fuzz_targets";
/// Where the inputs are that every run begins with.
const SEEDS: &str = "fuzz/seeds";

/// One input may take this many seconds before it counts as an endless loop.
const INPUT_SECONDS: u32 = 10;
/// A target may hold this much memory before it counts as without limits.
const MEMORY_MB: u32 = 1_024;
/// Beyond the time a target was given: to start, to read what earlier runs left, to finish its last input.
const GRACE: Duration = Duration::from_secs(120);

/// The names of all targets, in alphabetical order.
///
/// # Errors
///
/// The directory of their sources cannot be read.
pub fn targets(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let unreadable = |error| WorkspaceError(format!("cannot read {PROGRAMS}: {error}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.path(PROGRAMS)).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Fuzzes what the options ask for. The answer says whether nothing was found.
///
/// # Errors
///
/// A program that is needed is missing, cargo cannot be run, or a directory cannot be written.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool, WorkspaceError> {
    build::check_compiler()?;
    let place = Place { root: workspace.metadata()?.target_directory().join("fuzz") };
    let Some(programs) = build::programs(workspace, &place.root, options.target.as_deref())? else {
        return Ok(false);
    };
    if let (Some(input), Some(target)) = (&options.replay, &options.target) {
        let finished = Program::new(programs.join(target))
            .arg(input)
            .env("RUST_BACKTRACE", "1")
            .deadline(GRACE)
            .show()?;
        println!("{target}: {}", if finished.succeeded() { "nothing found" } else { "found again" });
        return Ok(finished.succeeded());
    }
    let chosen = match &options.target {
        Some(target) => vec![target.clone()],
        None => targets(workspace)?,
    };
    let mut summary = Summary::default();
    println!("{}", Summary::HEADING);
    for target in chosen {
        let outcome = fuzz(workspace, &place, &programs, &target, options.seconds)?;
        println!("{}", summary.line(&target, &outcome));
        if let Some(finding) = outcome.finding(&target) {
            println!("\n{finding}\n");
        }
        summary.add(&outcome);
    }
    println!("{}", summary.total());
    Ok(summary.findings == 0)
}

/// Where everything is that runs leave behind.
struct Place {
    root: PathBuf,
}

impl Place {
    fn made(&self, kind: &str, target: &str) -> Result<PathBuf, WorkspaceError> {
        let path = self.root.join(kind).join(target);
        fs::create_dir_all(&path)
            .map_err(|error| WorkspaceError(format!("cannot create {}: {error}", path.display())))?;
        Ok(path)
    }
}

fn fuzz(
    workspace: &Workspace,
    place: &Place,
    programs: &Path,
    target: &str,
    seconds: u32,
) -> Result<Outcome, WorkspaceError> {
    let corpus = place.made("corpus", target)?;
    let artifacts = place.made("artifacts", target)?;
    let finished = Program::new(programs.join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB}"))
        // A directory, so the separator at its end counts.
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .arg(corpus)
        .arg(workspace.path(SEEDS).join(target))
        // What was found is shown by its message; where it came from is shown when it is run again.
        .env("RUST_BACKTRACE", "0")
        .deadline(Duration::from_secs(seconds.into()) + GRACE)
        .capture()?;
    Ok(Outcome::read(&finished.stderr, finished.succeeded(), &finished.ending()))
}
