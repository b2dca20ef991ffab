//! The structure of the project, as a list of named checks.
//!
//! `cargo xtask check` prints them; the tests of this crate run the same list, so that `cargo test` alone proves it.

use std::path::Path;

use crate::graph::{self, Purity};
use crate::licence;
use crate::source;
use crate::workspace::{Workspace, WorkspaceError};

/// Crates with a part that must be pure: no clock, no IO, no randomness outside the modules behind a feature.
const PURE_CRATES: &[&str] = &["opamp-proto", "opamp-client", "opamp-server", "opamp-fleet"];

/// One rule over the whole workspace.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// What holds when it passes.
    pub name: &'static str,
    run: fn(&Workspace) -> Result<Vec<String>, WorkspaceError>,
}

impl Check {
    /// Every check.
    pub const ALL: &'static [Self] = &[
        Self { name: "dependencies point the way of the layers", run: direction },
        Self { name: "pure crates are built from pure crates", run: purity },
        Self { name: "pure code reads no clock and does no IO", run: clocks },
        Self { name: "libraries are broken on purpose in one way only", run: faults },
        Self { name: "rollouts are decided alike in every run and on every machine", run: steadiness },
        Self { name: "licences are on the list", run: licences },
        Self { name: "no banned crate is built in", run: bans },
        Self { name: "source files stay within their length", run: lengths },
        Self { name: "no file names a path of one machine", run: machine_paths },
        Self { name: "links between documents lead somewhere", run: links },
    ];

    /// Everything that breaks the rule; empty when it holds.
    ///
    /// # Errors
    ///
    /// Cargo or git does not answer, or a file cannot be read.
    pub fn violations(&self, workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
        (self.run)(workspace)
    }
}

/// Source files that are allowed, and longer than is comfortable, longest first.
///
/// # Errors
///
/// Git does not answer, or a file cannot be read.
pub fn long_files(workspace: &Workspace) -> Result<Vec<(usize, String)>, WorkspaceError> {
    let mut long = Vec::new();
    for path in sources(workspace)? {
        let text = workspace.text(&path)?;
        let lines = text.lines().count();
        if lines > source::LINES_COMFORTABLE && !source::is_generated(&text) {
            long.push((lines, path));
        }
    }
    long.sort_by(|a, b| b.cmp(a));
    Ok(long)
}

fn direction(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    Ok(graph::direction_violations(&workspace.metadata()?.internal_edges()))
}

fn purity(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    for selection in Purity::ALL {
        let tree = workspace.tree(selection.package, selection.features)?;
        if tree.is_empty() {
            // Every one of them has dependencies: an empty tree means that its output was not understood.
            found.push(format!("{selection}: cargo tree lists nothing"));
        }
        found.extend(selection.violations(&tree));
    }
    Ok(found)
}

fn clocks(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let files = workspace.files()?;
    let mut found = Vec::new();
    for name in PURE_CRATES {
        let source = format!("{name}/src/");
        for path in files.iter().filter(|path| path.starts_with(&source) && has_extension(path, "rs")) {
            if is_pure(workspace, &files, &source, &path[source.len()..])? {
                found.extend(source::impure_lines(path, &workspace.text(path)?));
            }
        }
    }
    Ok(found)
}

/// Where what can be broken on purpose is declared.
const FAULTS: &str = "opamp-fleet/src/faults.rs";

fn faults(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    for path in workspace.files()?.iter().filter(|path| has_extension(path, "rs") && path.as_str() != FAULTS)
    {
        let library =
            PURE_CRATES.iter().chain(&["opamp-store"]).any(|name| path.starts_with(&format!("{name}/src/")));
        if library {
            found.extend(source::stray_faults(path, &workspace.text(path)?));
        }
    }
    Ok(found)
}

/// Where rollouts are decided, and where they are simulated.
const STEADY: &[&str] =
    &["opamp-fleet/src/rollout/", "opamp-fleet/src/coordinator/", "opamp-testkit/src/sim/"];

/// Where rounding decides nothing at run time: limits that become part of a plan, what only people read, and percentages in files.
const ROUNDING: &[&str] =
    &["opamp-fleet/src/rollout/stats/", "opamp-fleet/src/rollout/preview/", "opamp-testkit/src/sim/"];

fn steadiness(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    let is_in = |path: &str, places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let files = workspace.files()?;
    let decides = files.iter().filter(|path| has_extension(path, "rs") && is_in(path, STEADY));
    for path in decides {
        found.extend(source::unsteady_lines(path, &workspace.text(path)?, is_in(path, ROUNDING)));
    }
    Ok(found)
}

/// Whether a source file is compiled without any feature: every module on the way to it is.
fn is_pure(
    workspace: &Workspace,
    files: &[String],
    source: &str,
    inside: &str,
) -> Result<bool, WorkspaceError> {
    let mut parent = format!("{source}lib.rs");
    let mut directory = source.to_owned();
    for module in inside.trim_end_matches(".rs").split('/').filter(|module| !["lib", "mod"].contains(module))
    {
        if files.contains(&parent) && !source::pure_modules(&workspace.text(&parent)?).contains(module) {
            return Ok(false);
        }
        directory = format!("{directory}{module}/");
        parent = format!("{directory}mod.rs");
    }
    Ok(true)
}

fn licences(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    Ok(licence::licence_violations(&workspace.metadata()?.foreign_packages()))
}

fn bans(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    Ok(licence::banned(&workspace.metadata()?.foreign_packages()))
}

fn lengths(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    for path in sources(workspace)? {
        found.extend(source::too_long(&path, &workspace.text(&path)?));
    }
    Ok(found)
}

fn machine_paths(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    for path in workspace.files()? {
        // What is no text has no lines to look at.
        if let Ok(text) = workspace.text(&path) {
            found.extend(source::machine_paths(&path, &text));
        }
    }
    Ok(found)
}

fn links(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    let mut found = Vec::new();
    for path in workspace.files()?.iter().filter(|path| has_extension(path, "md")) {
        let directory = Path::new(path).parent().unwrap_or(Path::new(""));
        for link in source::relative_links(&workspace.text(path)?) {
            if !workspace.root().join(directory).join(&link).exists() {
                found.push(format!("{path}: {link} does not exist"));
            }
        }
    }
    Ok(found)
}

fn sources(workspace: &Workspace) -> Result<Vec<String>, WorkspaceError> {
    Ok(workspace
        .files()?
        .into_iter()
        .filter(|path| has_extension(path, "rs") || has_extension(path, "go"))
        .collect())
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}
