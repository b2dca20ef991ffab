//! The suites: everything that `cargo xtask test` proves, and the part of it that `cargo xtask interop` does.

mod collector;
mod interop;
mod rust;

pub use collector::collector;
pub use rust::VARIANTS;

use crate::go::Go;
use crate::libtest::Counts;
use crate::prerequisite;
use crate::report::{Report, Step};
use crate::workspace::{Workspace, WorkspaceError};

/// How the names of the steps begin that are required to have run where interoperability is.
const INTEROP_STEPS: [&str; 2] = ["interop tests/", "interop/opamp-go go test"];

/// The package whose tests need Go. They are ignored by default, so that `cargo test` works without it.
const INTEROP: &str = "interop";

/// What to do when the interop tests cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingInterop {
    /// Name and count them as skipped.
    Skip,
    /// Count that as a failure.
    Fail,
}

/// Proves everything. The answer says whether all of it held.
///
/// # Errors
///
/// Cargo or git cannot be run at all.
pub fn test(workspace: &Workspace, missing: MissingInterop) -> Result<bool, WorkspaceError> {
    let lacking = prerequisite::missing();
    if !lacking.is_empty() {
        for sentence in lacking {
            println!("{sentence}");
        }
        return Ok(false);
    }
    let go = Go::detect();
    let mut report = Report::default();
    if let Some(programs) = rust::compile(workspace, &["--workspace", "--all-targets"], &mut report)? {
        for program in programs.tests().filter(|program| program.is_for_everyone()) {
            let with_go = program.package == INTEROP && go == Go::Usable;
            report.add(rust::run(&programs, program, with_go)?);
        }
        report.add(rust::doctests(workspace)?);
        rust::variants(workspace, &mut report)?;
    }
    interop::go_programs(workspace, &go, &mut report)?;
    collector::mention();
    Ok(close(&report, &go, missing))
}

/// Builds and tests the interop programs alone.
///
/// # Errors
///
/// Cargo or Go cannot be run at all.
pub fn interop(workspace: &Workspace, missing: MissingInterop) -> Result<bool, WorkspaceError> {
    let go = Go::detect();
    let mut report = Report::default();
    interop::go_programs(workspace, &go, &mut report)?;
    let subjects = rust::build_subjects(workspace, &mut report)?;
    if let Some(programs) =
        rust::compile(workspace, &["--package", INTEROP, "--lib", "--tests"], &mut report)?
    {
        let programs = programs.with_subjects(subjects);
        for program in programs.tests().filter(|program| program.is_for_everyone()) {
            report.add(rust::run(&programs, program, go == Go::Usable)?);
        }
    }
    collector::mention();
    Ok(close(&report, &go, missing))
}

fn close(report: &Report, go: &Go, missing: MissingInterop) -> bool {
    let mut held = report.counts().failed == 0;
    if let Go::Unusable(reason) = go {
        println!("\nThe interoperability tests did not run: {reason}.");
        if missing == MissingInterop::Fail {
            println!("Here that is a failure.");
            held = false;
        }
    } else if missing == MissingInterop::Fail {
        for beginning in INTEROP_STEPS {
            for gap in report.missing_proof(beginning) {
                println!("\nThe interoperability tests prove too little: {gap}.");
                held = false;
            }
        }
    }
    report.close();
    held && ran_anything(report.counts())
}

/// A run without a single test proves nothing and must not look like one that does.
fn ran_anything(counts: Counts) -> bool {
    counts.passed > 0
}

/// Adds a step for a command that is one check by itself.
fn single(name: impl Into<String>, finished: &crate::process::Finished) -> Step {
    let evidence = format!("{}{}{}", finished.stdout, finished.stderr, finished.ending());
    Step::single(name, finished.succeeded(), finished.took, evidence)
}
