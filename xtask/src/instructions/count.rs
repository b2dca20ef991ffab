//! Counting: the program of the scenarios under callgrind, one process for each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Program;
use crate::workspace::{Workspace, WorkspaceError};

use super::baseline::Toolchain;

const PACKAGE: &str = "opamp-benches";
const PROGRAM: &str = "instructions";
/// The function of the program that is counted with all it calls.
const COUNTED: &str = "--toggle-collect=instructions::counted*";
/// Compiling everything from nothing on a slow machine.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);
/// One scenario takes less than a second.
const COUNT_DEADLINE: Duration = Duration::from_secs(120);

/// What can be counted, and how many rounds are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: String,
    rounds: u64,
}

/// The program, built.
pub(super) struct Counter {
    program: PathBuf,
    valgrind: PathBuf,
    /// Where callgrind leaves what `callgrind_annotate` reads.
    details: PathBuf,
}

impl Counter {
    /// Builds the program; none if it does not compile, which cargo has said then.
    pub(super) fn build(workspace: &Workspace, valgrind: PathBuf) -> Result<Option<Self>, WorkspaceError> {
        let built = workspace
            .cargo("build")
            .args(["--quiet", "--release", "--package", PACKAGE, "--bin", PROGRAM])
            .deadline(COMPILE_DEADLINE)
            .show()?;
        if !built.succeeded() {
            return Ok(None);
        }
        let target = workspace.metadata()?.target_directory();
        let details = target.join("instructions");
        fs::create_dir_all(&details)
            .map_err(|error| WorkspaceError(format!("cannot create {}: {error}", details.display())))?;
        Ok(Some(Self { program: target.join("release").join(PROGRAM), valgrind, details }))
    }

    pub(super) fn scenarios(&self) -> Result<Vec<Scenario>, WorkspaceError> {
        let answer = Program::new(&self.program).arg("--list").capture()?;
        let listed = answer.stdout.lines().map(listed).collect::<Option<Vec<_>>>();
        listed.filter(|all| !all.is_empty() && answer.succeeded()).ok_or_else(|| {
            WorkspaceError(format!("{PROGRAM} --list: {}\n{}", answer.ending(), answer.stdout))
        })
    }

    /// Instructions of one round.
    pub(super) fn count(&self, scenario: &Scenario) -> Result<u64, WorkspaceError> {
        let name = &scenario.name;
        let out = self.details.join(name.replace('/', "-")).with_extension("callgrind");
        // The environment lies on the stack: another one is another alignment.
        let finished = Program::new("env")
            .arg("-i")
            .arg(&self.valgrind)
            .args(["--tool=callgrind", "--collect-atstart=no", COUNTED])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(&self.program)
            .arg(name)
            .deadline(COUNT_DEADLINE)
            .capture()?;
        if !finished.succeeded() {
            let said = finished.stderr.trim();
            return Err(WorkspaceError(format!("{name} under callgrind: {}\n{said}", finished.ending())));
        }
        let text = fs::read_to_string(&out)
            .map_err(|error| WorkspaceError(format!("cannot read {}: {error}", out.display())))?;
        per_round(&text, scenario.rounds).ok_or_else(|| {
            WorkspaceError(format!(
                "callgrind counted nothing in {name}: the program has lost the names of its functions; \
                 does a profile strip them?"
            ))
        })
    }

    /// What callgrind wrote about one scenario, for a person who wants to see where it is.
    pub(super) fn details(&self) -> &Path {
        &self.details
    }
}

/// `codec/decode_heartbeat 1000`
fn listed(line: &str) -> Option<Scenario> {
    let (name, rounds) = line.split_once(' ')?;
    let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0)?;
    Some(Scenario { name: name.to_owned(), rounds })
}

/// The total of a callgrind file, divided; none if nothing was counted.
fn per_round(text: &str, rounds: u64) -> Option<u64> {
    let total: u64 = text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()?;
    Some((total + rounds / 2) / rounds).filter(|count| *count > 0)
}

/// What compiles here, and what is linked to and chosen at run time: the C library and the widest registers that its copies
/// and comparisons use, which under valgrind are AVX2 or less.
pub(super) fn toolchain() -> Result<Toolchain, WorkspaceError> {
    let answer = Program::new("rustc").arg("-vV").capture()?;
    let flags = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].map(|name| std::env::var(name).unwrap_or_default());
    let library = Program::new("getconf").arg("GNU_LIBC_VERSION").capture().map(|answer| answer.stdout);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    described(&answer.stdout, &flags.join(" "), &library.unwrap_or_default(), &processor)
        .ok_or_else(|| WorkspaceError(format!("`rustc -vV` is not understood: {}", answer.stdout)))
}

fn described(version: &str, flags: &str, library: &str, processor: &str) -> Option<Toolchain> {
    let rustc = version.lines().next()?.trim();
    let target = version.lines().find_map(|line| line.strip_prefix("host: "))?.trim();
    // A quote would end the value in the file.
    let flags = flags.replace(['"', '\u{1f}'], " ");
    let rustc = [rustc, flags.trim()].join(" ").trim().to_owned();
    let wide = processor.split_whitespace().any(|flag| flag == "avx2");
    let parts = [target, library.trim(), if wide { "avx2" } else { "" }];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Some(Toolchain { rustc, platform: parts.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_the_total_by_rounds_and_nothing_is_no_count() {
        assert_eq!(per_round("events: Ir\nsummary: 5\ntotals: 319018\n", 1_000), Some(319));
        assert_eq!(per_round("totals: 1500\n", 1_000), Some(2));
        assert_eq!(per_round("totals: 0\n", 1_000), None);
        assert_eq!(per_round("events: Ir\n", 1_000), None);
    }

    #[test]
    fn scenarios_are_listed_with_their_rounds() {
        assert_eq!(listed("codec/a 20"), Some(Scenario { name: "codec/a".into(), rounds: 20 }));
        assert!(listed("codec/a").is_none() && listed("codec/a 0").is_none());
    }

    #[test]
    fn flags_library_and_registers_are_part_of_the_toolchain() {
        let version = "rustc 1.95.0 (abc 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        let plain = described(version, " ", "", "").unwrap();
        assert_eq!(plain.rustc, "rustc 1.95.0 (abc 2026-04-14)");
        assert_eq!(plain.platform, "x86_64-unknown-linux-gnu");
        let flagged =
            described(version, "-Ctarget-cpu=native ", "glibc 2.36\n", "flags : sse2 avx2\n").unwrap();
        assert_eq!(flagged.platform, "x86_64-unknown-linux-gnu, glibc 2.36, avx2");
        assert_eq!(flagged.rustc, "rustc 1.95.0 (abc 2026-04-14) -Ctarget-cpu=native");
    }
}
