//! Building the targets with coverage.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Program, find};
use crate::workspace::{Workspace, WorkspaceError};

/// What libFuzzer is steered by: a counter on every edge, a table of their places, and the two sides of comparisons. All of
/// these are passes of LLVM, which every toolchain has; only the switch with a name of its own, `-Z sanitizer`, is not on
/// stable. One unit for each crate, since counters of a function that several units hold would be several.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Fast code that still checks itself.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
    // The counters are put in crate by crate.
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
];

/// Compiling everything from nothing on a slow machine.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);

/// libFuzzer is C++.
///
/// # Errors
///
/// There is no compiler for it; the text says what to install.
pub(super) fn check_compiler() -> Result<(), WorkspaceError> {
    let named = std::env::var_os("CXX").is_some();
    if named || ["c++", "g++", "clang++"].iter().any(|name| find(name).is_some()) {
        return Ok(());
    }
    Err(WorkspaceError(
        "c++, g++ or clang++ is needed for compiling libFuzzer; install a C++ compiler, for example `apt-get install g++`"
            .to_owned(),
    ))
}

/// Builds one target or all of them; the directory of the programs, or none if that fails.
///
/// # Errors
///
/// Cargo or rustc cannot be run.
pub(super) fn programs(
    workspace: &Workspace,
    directory: &Path,
    target: Option<&str>,
) -> Result<Option<PathBuf>, WorkspaceError> {
    let platform = platform()?;
    let selection = match target {
        Some(name) => vec!["--bin", name],
        None => vec!["--bins"],
    };
    let mut cargo = workspace
        .cargo("build")
        .args(["--package", "opamp-fuzz", "--features", "libfuzzer", "--release"])
        // Named even though it is this machine: so that build scripts and macros are not instrumented.
        .args(["--target", &platform])
        .args(selection)
        .arg("--target-dir")
        .arg(directory)
        // Goes before whatever flags the environment or a configuration of cargo asks for.
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}"))
        .deadline(COMPILE_DEADLINE);
    for (key, value) in PROFILE {
        cargo = cargo.env(key, value);
    }
    let finished = cargo.show()?;
    Ok(finished.succeeded().then(|| directory.join(platform).join("release")))
}

/// The platform that rustc compiles for by default.
fn platform() -> Result<String, WorkspaceError> {
    let answer = Program::new("rustc").arg("-vV").capture()?;
    host(&answer.stdout).ok_or_else(|| WorkspaceError("`rustc -vV` names no host".to_owned()))
}

fn host(version: &str) -> Option<String> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(|host| host.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_read_from_what_rustc_says() {
        let version =
            "rustc 1.95.0 (abc 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(host(version).as_deref(), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host("rustc 1.95.0"), None);
    }
}
