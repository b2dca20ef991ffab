//! Rust: compile once, run every test program, and count what libtest says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{INTEROP, collector, single};
use crate::libtest::{self, Counts};
use crate::process::{Finished, Program};
use crate::report::{Report, Step};
use crate::workspace::{Workspace, WorkspaceError};

/// Selections of features that the workspace build does not cover, because it unites the features of all members.
pub const VARIANTS: &[(&str, &[&str])] = &[
    ("opamp-proto", &[]),
    ("opamp-client", &[]),
    ("opamp-client", &["--no-default-features"]),
    ("opamp-server", &["--no-default-features"]),
    ("opamp-store", &["--no-default-features"]),
    ("opamp-fleet", &[]),
    ("opamp-fleet", &["--features", "collector"]),
    ("opamp-testkit", &[]),
];

/// The programs that the interop tests run, and the variables that say where they are.
const SUBJECTS: [(&str, &str); 2] = [("reference-server", "REFERENCE_SERVER"), ("self-agent", "SELF_AGENT")];

/// One test program may take this long before it counts as hanging.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(600);

/// Compiling everything from nothing on a slow machine.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);

/// What `cargo test --no-run` made.
#[derive(Debug, Default)]
pub(super) struct Programs {
    tests: Vec<TestProgram>,
    binaries: BTreeMap<String, PathBuf>,
    /// What else the tests find in their environment.
    variables: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    /// The test programs, those that need the most from outside last.
    pub(super) fn tests(&self) -> impl Iterator<Item = &TestProgram> {
        let last = |program: &&TestProgram| program.package == INTEROP;
        self.tests.iter().filter(move |p| !last(p)).chain(self.tests.iter().filter(last))
    }

    /// Adds programs where compiling the tests did not make them.
    pub(super) fn with_subjects(mut self, subjects: Self) -> Self {
        self.binaries.extend(subjects.binaries);
        self
    }

    /// Adds programs that cargo does not build, by the variables that say where they are.
    pub(super) fn with_variables(mut self, variables: Vec<(&'static str, PathBuf)>) -> Self {
        self.variables = variables;
        self
    }

    /// Reads the messages of cargo, one JSON object a line.
    fn read(messages: &str) -> Self {
        let mut programs = Self::default();
        for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let (Some("compiler-artifact"), Some(executable)) =
                (message["reason"].as_str(), message["executable"].as_str())
            else {
                continue;
            };
            let target = &message["target"];
            let name = target["name"].as_str().unwrap_or_default().to_owned();
            let kind = target["kind"][0].as_str().unwrap_or_default().to_owned();
            if message["profile"]["test"].as_bool() == Some(true) {
                let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
                programs.tests.push(TestProgram {
                    package: package_name(message["package_id"].as_str().unwrap_or_default(), manifest),
                    directory: manifest.parent().unwrap_or(Path::new(".")).to_owned(),
                    name,
                    kind,
                    executable: executable.into(),
                });
            } else if kind == "bin" {
                programs.binaries.insert(name, executable.into());
            }
        }
        programs
    }
}

/// One test program.
#[derive(Debug)]
pub(super) struct TestProgram {
    pub(super) package: String,
    directory: PathBuf,
    name: String,
    kind: String,
    executable: PathBuf,
}

impl TestProgram {
    /// Whether it is part of what everybody runs; the other one has a command of its own.
    pub(super) fn is_for_everyone(&self) -> bool {
        (self.package.as_str(), self.name.as_str()) != (INTEROP, collector::TESTS)
    }

    fn title(&self) -> String {
        match self.kind.as_str() {
            "test" => format!("{} tests/{}", self.package, self.name),
            "bench" => format!("{} benches/{}, each once", self.package, self.name),
            "bin" => format!("{} program {}", self.package, self.name),
            _ => self.package.clone(),
        }
    }
}

/// Builds the programs that the interop tests run, as their users build them.
pub(super) fn build_subjects(workspace: &Workspace, report: &mut Report) -> Result<Programs, WorkspaceError> {
    let finished = workspace
        .cargo("build")
        .args(SUBJECTS.iter().flat_map(|(name, _)| ["--package", name, "--bin", name]))
        .args(["--message-format", "json-render-diagnostics"])
        .deadline(COMPILE_DEADLINE)
        .capture_stdout()?;
    report.add(Step::preparation("compile the programs", finished.succeeded(), finished.took));
    Ok(Programs::read(&finished.stdout))
}

/// Compiles all test programs in one go, so that every crate is built once with one set of features.
pub(super) fn compile(
    workspace: &Workspace,
    selection: &[&str],
    report: &mut Report,
) -> Result<Option<Programs>, WorkspaceError> {
    let finished = workspace
        .cargo("test")
        .args(selection)
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .deadline(COMPILE_DEADLINE)
        .capture_stdout()?;
    report.add(Step::preparation("compile all test programs", finished.succeeded(), finished.took));
    Ok(finished.succeeded().then(|| Programs::read(&finished.stdout)))
}

/// Runs one test program as cargo would: in the directory of its package.
pub(super) fn run(
    programs: &Programs,
    program: &TestProgram,
    with_ignored: bool,
) -> Result<Step, WorkspaceError> {
    let mut command = Program::new(&program.executable)
        .directory(&program.directory)
        .env("CARGO_MANIFEST_DIR", &program.directory)
        .env("CARGO_PKG_NAME", &program.package)
        .deadline(PROGRAM_DEADLINE);
    for (name, variable) in SUBJECTS {
        if let Some(path) = programs.binaries.get(name) {
            command = command.env(variable, path);
        }
    }
    for (variable, path) in &programs.variables {
        command = command.env(variable, path);
    }
    if program.kind == "bench" {
        // Criterion takes it for "each once, no measurement"; libtest would not know it.
        command = command.arg("--test");
    } else if with_ignored {
        command = command.arg("--include-ignored");
    }
    let finished = command.capture()?;
    Ok(step(program.title(), &finished, 1))
}

/// Runs the examples in the documentation, among them those that must not compile.
pub(super) fn doctests(workspace: &Workspace) -> Result<Step, WorkspaceError> {
    let finished = workspace
        .cargo("test")
        .args(["--workspace", "--doc", "--no-fail-fast"])
        .deadline(COMPILE_DEADLINE)
        .capture()?;
    Ok(step("examples in the documentation".to_owned(), &finished, 0))
}

/// Compiles the selections of features that nothing else compiles. A warning is a failure: code that only one
/// selection uses is dead in the others. Libraries only: their tests ran with all features, and compiling those again
/// would mean compiling their tools again.
pub(super) fn variants(workspace: &Workspace, report: &mut Report) -> Result<(), WorkspaceError> {
    for (package, features) in VARIANTS {
        let finished = workspace
            .cargo("check")
            .args(["--package", package, "--lib", "--message-format", "json"])
            .args(*features)
            .deadline(COMPILE_DEADLINE)
            .capture()?;
        let name = format!("{package} alone {}", features.join(" "));
        let complaints = diagnostics(&finished.stdout);
        let passed = finished.succeeded() && complaints.is_empty();
        let evidence = format!("{}{}", complaints, if passed { "" } else { &finished.stderr });
        report.add(Step::single(name.trim_end(), passed, finished.took, evidence));
    }
    Ok(())
}

fn step(name: String, finished: &Finished, programs_min: usize) -> Step {
    let outcome = libtest::parse(&finished.stdout);
    let mut counts = outcome.counts;
    if outcome.results == 0 && programs_min > 0 {
        // Not a libtest program: a benchmark, or a program that died. Its exit status is its one result.
        return single(name, finished);
    }
    if !finished.succeeded() && counts.failed == 0 {
        counts += Counts::ONE_FAILED;
    }
    let evidence = format!("{}{}{}", finished.stdout, finished.stderr, finished.ending());
    Step { name, counts, took: finished.took, skipped: outcome.skipped, evidence }
}

/// Errors and warnings about crates of this workspace, as the compiler renders them.
fn diagnostics(messages: &str) -> String {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"].as_str() == Some("compiler-message"))
        .filter(|message| matches!(message["message"]["level"].as_str(), Some("warning" | "error")))
        .filter_map(|message| message["message"]["rendered"].as_str().map(str::to_owned))
        .collect()
}

/// `path+file:///somewhere/opamp-proto#0.1.0` or `path+file:///somewhere/x#opamp-proto@0.1.0`
fn package_name(id: &str, manifest: &Path) -> String {
    if let Some((name, _)) = id.rsplit_once('#').and_then(|(_, rest)| rest.split_once('@')) {
        return name.to_owned();
    }
    let directory = manifest.parent().and_then(Path::file_name).unwrap_or_default();
    directory.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_and_binaries_are_read_from_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///a/opamp-proto#0.1.0","manifest_path":"/a/opamp-proto/Cargo.toml","target":{"kind":["lib"],"name":"opamp_proto"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///a/opamp-proto#0.1.0","manifest_path":"/a/opamp-proto/Cargo.toml","target":{"kind":["test"],"name":"golden"},"profile":{"test":true},"executable":"/t/golden-1"}
{"reason":"compiler-artifact","package_id":"path+file:///a/benches#opamp-benches@0.1.0","manifest_path":"/a/benches/Cargo.toml","target":{"kind":["bench"],"name":"codec"},"profile":{"test":true},"executable":"/t/codec-1"}
{"reason":"compiler-artifact","package_id":"path+file:///a/rs#reference-server@0.1.0","manifest_path":"/a/rs/Cargo.toml","target":{"kind":["bin"],"name":"reference-server"},"profile":{"test":false},"executable":"/t/reference-server"}
{"reason":"build-finished","success":true}
not json
"#;
        let programs = Programs::read(messages);
        let titles: Vec<String> = programs.tests().map(TestProgram::title).collect();
        assert_eq!(titles, ["opamp-proto tests/golden", "opamp-benches benches/codec, each once"]);
        assert_eq!(programs.binaries["reference-server"], Path::new("/t/reference-server"));
    }

    #[test]
    fn tests_that_need_a_collector_are_for_their_own_command_alone() {
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///a/interop#0.1.0","manifest_path":"/a/interop/Cargo.toml","target":{"kind":["test"],"name":"collector"},"profile":{"test":true},"executable":"/t/collector-1"}
{"reason":"compiler-artifact","package_id":"path+file:///a/interop#0.1.0","manifest_path":"/a/interop/Cargo.toml","target":{"kind":["test"],"name":"walk"},"profile":{"test":true},"executable":"/t/walk-1"}
{"reason":"compiler-artifact","package_id":"path+file:///a/other#0.1.0","manifest_path":"/a/other/Cargo.toml","target":{"kind":["test"],"name":"collector"},"profile":{"test":true},"executable":"/t/collector-2"}
"#;
        let programs = Programs::read(messages);
        let everyone = programs.tests().filter(|program| program.is_for_everyone());
        let titles: Vec<String> = everyone.map(TestProgram::title).collect();
        assert_eq!(titles, ["other tests/collector", "interop tests/walk"]);
    }

    #[test]
    fn a_warning_in_a_variant_is_shown() {
        let messages = r#"
{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: unused import\n"}}
{"reason":"compiler-message","message":{"level":"note","rendered":"note: only that\n"}}
"#;
        assert_eq!(diagnostics(messages), "warning: unused import\n");
    }
}
