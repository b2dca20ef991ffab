//! What a machine must have before anything can be proven, and what to do when it has not.

use std::path::{Path, PathBuf};

use crate::process::{Program, find};
use crate::workspace::WorkspaceError;

/// One program that the tests need.
#[derive(Clone, Copy, Debug)]
struct Prerequisite {
    any_of: &'static [&'static str],
    used_for: &'static str,
    remedy: &'static str,
}

const PREREQUISITES: &[Prerequisite] = &[
    Prerequisite {
        any_of: &["cc", "gcc", "clang"],
        used_for: "compiling SQLite and ring",
        remedy: "install a C compiler, for example `apt-get install build-essential`",
    },
    Prerequisite {
        any_of: &["git"],
        used_for: "listing the project's files",
        remedy: "install git, for example `apt-get install git`",
    },
];

/// Only counting instructions needs it.
const VALGRIND: Prerequisite = Prerequisite {
    any_of: &["valgrind"],
    used_for: "counting instructions",
    remedy: "install valgrind, for example `apt-get install valgrind`",
};

/// What is missing, one sentence each; empty when everything is there.
///
/// Cargo itself refuses a compiler that is too old and says so; it is asked here to have that first and alone.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing: Vec<String> = PREREQUISITES
        .iter()
        .filter(|one| !one.any_of.iter().any(|name| find(name).is_some()))
        .map(sentence)
        .collect();
    let needed = env!("CARGO_PKG_RUST_VERSION");
    match Program::new("rustc").arg("--version").capture() {
        Ok(answer) if older(&answer.stdout, needed) => {
            missing.push(format!("rustc {needed} or newer is needed; run `rustup update stable`"));
        }
        Ok(_) => {}
        Err(error) => missing.push(error.to_string()),
    }
    missing
}

/// Where valgrind is. It is installed where that can be done without asking: by root on Debian.
///
/// # Errors
///
/// It is not there and was not installed; the text says what it is needed for and what to do.
pub fn valgrind() -> Result<PathBuf, WorkspaceError> {
    if let Some(found) = find(VALGRIND.any_of[0]) {
        return Ok(found);
    }
    if Path::new("/etc/debian_version").exists() && is_root() {
        println!("installing valgrind, which is needed for {}", VALGRIND.used_for);
        for arguments in [
            &["update", "--quiet"][..],
            &["install", "--yes", "--quiet", "--no-install-recommends", "valgrind"],
        ] {
            let installed =
                Program::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").capture()?;
            if !installed.succeeded() {
                let said = installed.stderr.trim();
                return Err(WorkspaceError(format!("{}; apt-get failed: {said}", sentence(&VALGRIND))));
            }
        }
    }
    find(VALGRIND.any_of[0]).ok_or_else(|| WorkspaceError(sentence(&VALGRIND)))
}

fn is_root() -> bool {
    Program::new("id").arg("-u").capture().is_ok_and(|answer| answer.stdout.trim() == "0")
}

fn sentence(one: &Prerequisite) -> String {
    format!("{} is needed for {}; {}", one.any_of.join(" or "), one.used_for, one.remedy)
}

/// Whether `rustc 1.94.0 (abc 2026-01-01)` is older than `1.95`. What cannot be read is left to cargo.
fn older(version_line: &str, needed: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let found = version_line.split_whitespace().nth(1).and_then(numbers);
    matches!((found, numbers(needed)), (Some(found), Some(needed)) if found < needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compiler_is_told_apart_from_a_new_one() {
        assert!(older("rustc 1.94.1 (abc 2026-01-01)", "1.95"));
        assert!(older("rustc 1.9.0 (abc 2016-01-01)", "1.95"));
        assert!(!older("rustc 1.95.0 (abc 2026-04-14)", "1.95"));
        assert!(!older("rustc 2.0.0-nightly (abc 2030-04-14)", "1.95"));
        assert!(!older("something else", "1.95"));
    }

    #[test]
    fn what_is_missing_comes_with_a_remedy() {
        for one in PREREQUISITES.iter().chain([&VALGRIND]) {
            let text = sentence(one);
            assert!(text.contains("needed for") && text.contains("install"), "{text}");
        }
    }
}
