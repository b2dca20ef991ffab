//! Where and of what a measurement was made: without that its figures mean nothing later.

use std::fmt::Write as _;
use std::fs;
use std::thread;

use crate::process::Program;
use crate::workspace::Workspace;

use super::programs::MODULE;

/// What is not known is said to be so.
const UNKNOWN: &str = "unknown";

/// The setting of a measurement, as name and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting(Vec<(&'static str, String)>);

impl Setting {
    /// Of this machine, this checkout and this command line.
    #[must_use]
    pub(crate) fn here(workspace: &Workspace, built: bool) -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let cores =
            thread::available_parallelism().map_or_else(|_| UNKNOWN.to_owned(), |cores| cores.to_string());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let module = workspace.text(&format!("{MODULE}/go.mod")).unwrap_or_default();
        Self(vec![
            ("command", command(&words)),
            ("commit", commit(workspace)),
            (
                "programs",
                if built { "built for this run" } else { "built before this run, of unknown state" }
                    .to_owned(),
            ),
            ("cores", cores),
            ("kernel", kernel.map_or_else(|| UNKNOWN.to_owned(), |kernel| kernel.trim().to_owned())),
            ("rustc", said(Program::new("rustc").arg("--version"))),
            ("Go", said(Program::new("go").args(["env", "GOVERSION"]))),
            (
                "opamp-go",
                required(&module, "github.com/open-telemetry/opamp-go").unwrap_or(UNKNOWN).to_owned(),
            ),
        ])
    }

    /// For a page.
    #[must_use]
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push('\n');
        text
    }
}

/// The commit, and whether something differs from it.
fn commit(workspace: &Workspace) -> String {
    let git = |words: &[&str]| {
        let answer = Program::new("git").args(words).directory(workspace.root()).capture().ok()?;
        answer.succeeded().then(|| answer.stdout.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return UNKNOWN.to_owned() };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        Some(_) => format!("{commit}, with changes"),
        None => format!("{commit}, with or without changes"),
    }
}

/// The first line that a program says.
fn said(program: Program) -> String {
    let answer = program.capture().ok().filter(crate::process::Finished::succeeded);
    let line = answer.and_then(|answer| answer.stdout.lines().next().map(|line| line.trim().to_owned()));
    line.filter(|line| !line.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// As it would be given again; where the page is written has nothing to do with what is measured.
fn command(words: &[String]) -> String {
    let mut text = "cargo xtask".to_owned();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--markdown" {
            words.next();
        } else {
            text.push(' ');
            text.push_str(word);
        }
    }
    format!("`{text}`")
}

/// The version that a `go.mod` requires of a module.
fn required<'a>(module: &'a str, path: &str) -> Option<&'a str> {
    module.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(path)).then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_where_and_of_what_it_is() {
        let page = Setting::here(&Workspace::here(), false).markdown();
        for name in ["command", "commit", "programs", "cores", "kernel", "rustc", "Go", "opamp-go"] {
            assert!(page.contains(&format!("- {name}: ")), "{name}: {page}");
        }
        assert!(page.contains("rustc 1.") && page.contains("opamp-go: v0."), "{page}");
        assert!(page.contains("built before this run"));
        assert!(Setting::here(&Workspace::here(), true).markdown().contains("built for this run"));
    }

    #[test]
    fn the_command_is_the_one_that_measures_the_same_again() {
        let words = ["load", "slow", "--markdown", "page.md", "--quick"].map(str::to_owned);
        assert_eq!(command(&words), "`cargo xtask load slow --quick`");
    }

    #[test]
    fn the_version_of_a_module_is_the_required_one() {
        let module = "module a\n\nrequire (\n\tb.org/c v1.2.3\n\tb.org/c/d v0.1.0 // indirect\n)\nrequire e.org/f v2.0.0\n";
        assert_eq!(required(module, "b.org/c"), Some("v1.2.3"));
        assert_eq!(required(module, "e.org/f"), Some("v2.0.0"));
        assert_eq!(required(module, "b.org"), None);
    }
}
