//! `cargo xtask <command>`.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xtask::check::{Check, long_files};
use xtask::fuzz::{self, Options};
use xtask::instructions;
use xtask::load;
use xtask::process::Program;
use xtask::sim;
use xtask::suite::{self, MissingInterop};
use xtask::workspace::{Workspace, WorkspaceError};

const USAGE: &str = "\
cargo xtask <command>

  test [--require-interop]     prove everything: all tests, examples in the documentation, feature selections, interop
  check                        the structure of the project alone: layers, purity, licences, lengths, links
  interop [--require-interop]  the tests between processes alone: opamp-go, self-agent, reference server
  interop --collector          the tests with the OpenTelemetry Collector and its supervisor, which it builds first
  bench [<criterion options>]  measure codec, session and rollouts
  instructions [--update] [PART]
                               count instructions of codec, session and rollouts, and compare with benches/instructions.toml
  load [--rounds N] [--quick] [--markdown FILE] [--only ours,floor,opamp-go,ws,wss] [--store memory|sqlite] [--no-build]
                               the reference server beside a bare epoll server and opamp-go: memory, CPU, latency
  load scale|storm|slow|announce|steady [--quick] [--markdown FILE] [--store memory|sqlite] [--no-build]
                               claims about the reference server under load, one verdict each
  fuzz [--seconds N] [TARGET]  look for inputs that break a rule: every target, or one, N seconds each (default 10)
  fuzz --replay FILE TARGET    run one input again
  sim [--seeds N] [--first-seed S] [--frames]
                               simulate rollouts with faults of everything, and check what must always hold
  sim --replay FILE [--frames] run one scenario again that was made smaller
  sim --bugs [NAME]            break the engine on purpose, in each way, and see that it is noticed
  sim --exhaustive             every order of events of a small rollout
  sim --quality RUNS [--markdown FILE]
                               how often rollouts stop, by fault rate and fleet size
  docs                         write the generated pages anew
  ci                           what a change must pass before it is merged

--require-interop makes it a failure when the tests against opamp-go cannot run for want of Go 1.25 or newer.
";

fn main() -> ExitCode {
    if sim::compiles() {
        return sim::compile(env::args_os().skip(1));
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let Some(("attend", program)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return load::attend(program);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::here();
    let outcome = match words.as_slice() {
        ["test"] => suite::test(&workspace, MissingInterop::Skip),
        ["test", "--require-interop"] => suite::test(&workspace, MissingInterop::Fail),
        ["check"] => check(&workspace),
        ["interop"] => suite::interop(&workspace, MissingInterop::Skip),
        ["interop", "--require-interop"] => suite::interop(&workspace, MissingInterop::Fail),
        ["interop", "--collector"] => suite::collector(&workspace),
        ["bench", options @ ..] => bench(&workspace, options),
        ["fuzz", options @ ..] => match fuzz_options(&workspace, options) {
            Ok(options) => fuzz::run(&workspace, &options),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
        ["instructions", options @ ..] => match instructions::Options::parse(options) {
            Ok(options) => instructions::run(&workspace, &options),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
        ["load", options @ ..] => match load::Options::parse(options) {
            Ok(options) => load::run(&workspace, &options),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
        ["sim", options @ ..] => match sim::Options::parse(options) {
            Ok(options) => sim::run(&workspace, &options),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
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

fn fuzz_options(workspace: &Workspace, words: &[&str]) -> Result<Options, Box<dyn std::error::Error>> {
    Ok(Options::parse(words, &fuzz::targets(workspace)?)?)
}

/// The pages on conformance and protocol are written by the tests that compare them, the others by the program they
/// describe. Tests compare all of them with what is committed.
fn docs(workspace: &Workspace) -> Result<bool, WorkspaceError> {
    for (test, update) in [("registry", "UPDATE_CONFORMANCE"), ("protocol", "UPDATE_PROTOCOL")] {
        let written =
            workspace.cargo("test").args(["--package", "opamp-testkit", "--test", test]).env(update, "1");
        if !shown(written)? {
            return Ok(false);
        }
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
