//! The OpenTelemetry Collector and its supervisor: built from their Go modules, and handed to the tests that run them.
//!
//! Outside the other suites, because compiling a collector from nothing takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{INTEROP, close, interop, rust, single};
use crate::go::Go;
use crate::process::Program;
use crate::report::{Report, Step};
use crate::suite::MissingInterop;
use crate::workspace::{Workspace, WorkspaceError};

/// The name of the test program.
pub(super) const TESTS: &str = "collector";

/// The Go module with the collector.
const MODULE: &str = "interop/collector";

/// What is built: the name of a program, the Go module, the package in it, and the variable that tells the tests where
/// the program is.
const PROGRAMS: [(&str, &str, &str, &str); 2] = [
    ("otelcol-opamp", MODULE, "./otelcol", "OTEL_COLLECTOR"),
    (
        "opampsupervisor",
        "interop/collector/supervisor",
        "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/opampsupervisor",
        "OPAMP_SUPERVISOR",
    ),
];

/// Compiling from nothing, modules to be downloaded before, on a slow machine.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);

/// Builds the collector and its supervisor, and runs the tests with them. The answer says whether all of it held; without
/// Go it did not.
///
/// # Errors
///
/// Cargo or Go cannot be run at all.
pub fn collector(workspace: &Workspace) -> Result<bool, WorkspaceError> {
    let go = Go::detect();
    if let Go::Unusable(reason) = &go {
        println!("The tests with the OpenTelemetry Collector did not run: {reason}.");
        return Ok(false);
    }
    let mut report = Report::default();
    let directory = workspace.metadata()?.target_directory().join("interop");
    fs::create_dir_all(&directory)
        .map_err(|error| WorkspaceError(format!("{}: {error}", directory.display())))?;
    interop::go_sources(workspace, MODULE, &mut report)?;
    let mut variables = Vec::new();
    for (name, module, package, variable) in PROGRAMS {
        variables.push((variable, build(workspace, &directory, name, module, package, &mut report)?));
    }
    if report.counts().failed == 0 {
        let subjects = rust::build_subjects(workspace, &mut report)?;
        let tests = ["--package", INTEROP, "--test", TESTS];
        if let Some(programs) = rust::compile(workspace, &tests, &mut report)? {
            let programs = programs.with_subjects(subjects).with_variables(variables);
            for program in programs.tests() {
                report.add(rust::run(&programs, program, true)?);
            }
        }
    }
    Ok(close(&report, &go, MissingInterop::Skip))
}

/// Says that these tests are not among those that ran.
pub(super) fn mention() {
    println!("left out: {INTEROP} tests/{TESTS}, which `cargo xtask interop --collector` runs");
}

/// Go keeps what has not changed, so that this takes a second unless it is the first time.
fn build(
    workspace: &Workspace,
    directory: &Path,
    name: &str,
    module: &str,
    package: &str,
    report: &mut Report,
) -> Result<PathBuf, WorkspaceError> {
    let program = directory.join(name);
    let finished = Program::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(package)
        .env("GOWORK", "off")
        .directory(&workspace.path(module))
        .deadline(COMPILE_DEADLINE)
        .capture()?;
    let step = single(format!("build {name}"), &finished);
    report.add(Step {
        evidence: step.evidence,
        ..Step::preparation(step.name, finished.succeeded(), finished.took)
    });
    Ok(program)
}
