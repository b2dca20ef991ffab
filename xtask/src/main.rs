//! `cargo xtask <command>`.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xtask::check::{Check, long_files};
use xtask::process::Program;
use xtask::suite::{self, MissingInterop};
use xtask::workspace::{Workspace, WorkspaceError};

const USAGE: &str = "\
cargo xtask <command>

  test [--require-interop]     prove everything: all tests, examples in the documentation, feature selections, interop
  check                        the structure of the project alone: layers, purity, licences, lengths, links
  interop [--require-interop]  the tests between processes alone: opamp-go, self-agent, reference server
  bench [<criterion options>]  measure codec and session
  docs                         write the generated pages anew
  ci                           what a change must pass before it is merged

--require-interop makes it a failure when the tests against opamp-go cannot run for want of Go 1.25 or newer.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::here();
    let outcome = match words.as_slice() {
        ["test"] => suite::test(&workspace, MissingInterop::Skip),
        ["test", "--require-interop"] => suite::test(&workspace, MissingInterop::Fail),
        ["check"] => check(&workspace),
        ["interop"] => suite::interop(&workspace, MissingInterop::Skip),
        ["interop", "--require-interop"] => suite::interop(&workspace, MissingInterop::Fail),
        ["bench", options @ ..] => bench(&workspace, options),
        ["docs"] => docs(&workspace),
        ["ci"] => shown(Program::new("bash").arg(".ci/run").directory(workspace.root()).env("CI", "true")),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("unknown command: {}\n\n{USAGE}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(workspace: &Workspace) -> Result<bool, WorkspaceError> {
    let mut held = true;
    for check in Check::ALL {
        let begun = Instant::now();
        let violations = check.violations(workspace)?;
        let mark = if violations.is_empty() { "ok" } else { "FAILED" };
        println!("{mark:<6}  {} ({:.1} s)", check.name, begun.elapsed().as_secs_f64());
        for violation in &violations {
            println!("        {violation}");
        }
        held &= violations.is_empty();
    }
    let long = long_files(workspace)?;
    if !long.is_empty() {
        println!("\nlonger than is comfortable");
        for (lines, path) in long {
            println!("  {lines:>4}  {path}");
        }
    }
    Ok(held)
}

fn bench(workspace: &Workspace, options: &[&str]) -> Result<bool, WorkspaceError> {
    shown(workspace.cargo("bench").args(["--package", "opamp-benches", "--bench", "*", "--"]).args(options))
}

/// The conformance page is written by the test that compares it, the others by the program they describe. Tests compare
/// all of them with what is committed.
fn docs(workspace: &Workspace) -> Result<bool, WorkspaceError> {
    let conformance = workspace
        .cargo("test")
        .args(["--package", "opamp-testkit", "--test", "registry"])
        .env("UPDATE_CONFORMANCE", "1");
    if !shown(conformance)? {
        return Ok(false);
    }
    for (command, page) in [("config-docs", "docs/configuration.md"), ("openapi", "docs/openapi.json")] {
        let printed = workspace
            .cargo("run")
            .args(["--quiet", "--package", "reference-server", "--", command])
            .deadline(Duration::from_secs(3600))
            .capture_stdout()?;
        if !printed.succeeded() {
            return Ok(false);
        }
        workspace.write(page, &printed.stdout)?;
        println!("{page}");
    }
    Ok(true)
}

fn shown(program: Program) -> Result<bool, WorkspaceError> {
    Ok(program.deadline(Duration::from_secs(4 * 3600)).show()?.succeeded())
}
