//! The Go programs: formatted, vetted, tested; or named one by one when they cannot be.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::single;
use crate::go::Go;
use crate::libtest::Counts;
use crate::process::{Finished, Program};
use crate::report::{Report, Step};
use crate::workspace::{Workspace, WorkspaceError};

/// The Go module of the interop programs.
const MODULE: &str = "interop/opamp-go";

/// Checks and tests the Go programs, or counts their tests as skipped.
pub(super) fn go_programs(workspace: &Workspace, go: &Go, report: &mut Report) -> Result<(), WorkspaceError> {
    let directory = workspace.path(MODULE);
    if let Go::Unusable(reason) = go {
        let skipped = declared_tests(workspace)?;
        report.add(Step {
            name: format!("{MODULE} go test"),
            counts: Counts { skipped: skipped.len(), ..Counts::default() },
            took: Duration::ZERO,
            skipped: skipped.into_iter().map(|name| format!("{name} ({reason})")).collect(),
            evidence: String::new(),
        });
        return Ok(());
    }
    go_sources(workspace, MODULE, report)?;
    report.add(tests(&run_go(&directory, &["test", "-json", "-count=1", "./..."])?));
    Ok(())
}

/// Checks the sources of a Go module.
pub(super) fn go_sources(
    workspace: &Workspace,
    module: &str,
    report: &mut Report,
) -> Result<(), WorkspaceError> {
    let directory = workspace.path(module);
    let formatted = Program::new("gofmt").args(["-l", "."]).directory(&directory).capture()?;
    let passed = formatted.succeeded() && formatted.stdout.trim().is_empty();
    report.add(Step::single(format!("{module} gofmt"), passed, formatted.took, formatted.stdout));
    report.add(single(format!("{module} go vet"), &run_go(&directory, &["vet", "./..."])?));
    Ok(())
}

fn run_go(directory: &Path, arguments: &[&str]) -> Result<Finished, WorkspaceError> {
    // The module's own directory decides; a workspace file or flags of the machine do not.
    Ok(Program::new("go").args(arguments).env("GOWORK", "off").directory(directory).capture()?)
}

fn tests(finished: &Finished) -> Step {
    let (mut counts, skipped, output) = read_events(&finished.stdout);
    if !finished.succeeded() && counts.failed == 0 {
        counts += Counts::ONE_FAILED;
    }
    let evidence = format!("{output}{}{}", finished.stderr, finished.ending());
    Step { name: format!("{MODULE} go test"), counts, took: finished.took, skipped, evidence }
}

/// Counts the tests in the events of `go test -json`. A test with subtests is only their heading and does not count.
fn read_events(events: &str) -> (Counts, Vec<String>, String) {
    let mut results: BTreeMap<String, String> = BTreeMap::new();
    let mut output = String::new();
    for event in events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        match (event["Action"].as_str(), event["Test"].as_str()) {
            (Some(action @ ("pass" | "fail" | "skip")), Some(test)) => {
                let package = event["Package"].as_str().unwrap_or_default();
                results.insert(format!("{package} {test}"), action.to_owned());
            }
            (Some("output" | "build-output"), _) => {
                output.push_str(event["Output"].as_str().unwrap_or_default())
            }
            _ => {}
        }
    }
    let mut counts = Counts::default();
    let mut skipped = Vec::new();
    for (name, action) in &results {
        let heading = format!("{name}/");
        if results.keys().any(|other| other.starts_with(&heading)) {
            continue;
        }
        match action.as_str() {
            "pass" => counts.passed += 1,
            "fail" => counts.failed += 1,
            _ => {
                counts.skipped += 1;
                skipped.push(name.clone());
            }
        }
    }
    (counts, skipped, output)
}

/// Names of the tests in the Go files, for a machine that cannot run them.
fn declared_tests(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut names = Vec::new();
    for path in
        workspace.files()?.iter().filter(|path| path.starts_with(MODULE) && path.ends_with("_test.go"))
    {
        for line in workspace.text(path)?.lines() {
            if let Some((name, _)) = line.strip_prefix("func Test").and_then(|rest| rest.split_once('(')) {
                names.push(format!("{MODULE} Test{name}"));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests_of_interop {
    use super::*;

    #[test]
    fn leaves_of_go_tests_are_counted() {
        let events = r#"
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/ws"}
{"Action":"fail","Package":"p","Test":"TestA/http"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestA/http","Output":"a_test.go:3: no\n"}
{"Action":"fail","Package":"p"}
"#;
        let (counts, skipped, output) = read_events(events);
        assert_eq!(counts, Counts { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(skipped, ["p TestB"]);
        assert_eq!(output, "a_test.go:3: no\n");
    }

    #[test]
    fn without_go_every_test_is_still_named() {
        let names = declared_tests(&Workspace::here()).unwrap();
        assert!(
            names.contains(&"interop/opamp-go TestTwoFilesAreAppliedAndReported".to_owned()),
            "{names:?}"
        );
    }
}
