//! The workspace as cargo and git describe it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::graph::{Edge, EdgeKind};
use crate::licence::Package;
use crate::process::{ProcessError, Program};

/// A checkout of the project.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this crate was built in.
    #[must_use]
    pub fn here() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: own.parent().unwrap_or(own).to_owned() }
    }

    /// Its top directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the top directory.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The text of a file below the top directory.
    ///
    /// # Errors
    ///
    /// The file is missing or not UTF-8.
    pub fn text(&self, relative: &str) -> Result<String, WorkspaceError> {
        fs::read_to_string(self.path(relative))
            .map_err(|source| WorkspaceError(format!("cannot read {relative}: {source}")))
    }

    /// Replaces the text of a file below the top directory.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, relative: &str, text: &str) -> Result<(), WorkspaceError> {
        fs::write(self.path(relative), text)
            .map_err(|source| WorkspaceError(format!("cannot write {relative}: {source}")))
    }

    /// Cargo in this workspace, with `--locked` where the lock file must not change (`CI` is set).
    #[must_use]
    pub fn cargo(&self, subcommand: &str) -> Program {
        let cargo = Program::cargo().directory(&self.root).arg(subcommand);
        if std::env::var_os("CI").is_some() { cargo.arg("--locked") } else { cargo }
    }

    /// What `cargo metadata` says, with every feature on.
    ///
    /// # Errors
    ///
    /// Cargo fails.
    pub fn metadata(&self) -> Result<Metadata, WorkspaceError> {
        let finished = self.cargo("metadata").args(["--format-version", "1", "--all-features"]).capture()?;
        if !finished.succeeded() {
            return Err(WorkspaceError(format!(
                "cargo metadata: {}\n{}",
                finished.ending(),
                finished.stderr
            )));
        }
        let value = serde_json::from_str(&finished.stdout)
            .map_err(|source| WorkspaceError(format!("cargo metadata printed no JSON: {source}")))?;
        Ok(Metadata(value))
    }

    /// Names of the crates that `package` is built from, itself left out, for every target.
    ///
    /// # Errors
    ///
    /// Cargo fails.
    pub fn tree(&self, package: &str, features: &[&str]) -> Result<Vec<String>, WorkspaceError> {
        let finished = self
            .cargo("tree")
            .args(["--package", package, "--edges", "normal,build", "--target", "all", "--prefix", "none"])
            .args(features)
            .capture()?;
        if !finished.succeeded() {
            return Err(WorkspaceError(format!("cargo tree: {}\n{}", finished.ending(), finished.stderr)));
        }
        Ok(crate::graph::tree_names(&finished.stdout).into_iter().filter(|name| name != package).collect())
    }

    /// Paths of all files that belong to the project, relative, tracked or about to be.
    ///
    /// # Errors
    ///
    /// Git fails, or this is no checkout.
    pub fn files(&self) -> Result<Vec<String>, WorkspaceError> {
        let finished = Program::new("git")
            .directory(&self.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .capture()?;
        if !finished.succeeded() {
            return Err(WorkspaceError(format!("git ls-files: {}\n{}", finished.ending(), finished.stderr)));
        }
        let mut files: Vec<String> =
            finished.stdout.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        // A file that was deleted and not yet committed is listed and gone.
        files.retain(|path| self.path(path).is_file());
        Ok(files)
    }
}

/// The answer of `cargo metadata`.
#[derive(Clone, Debug)]
pub struct Metadata(Value);

impl Metadata {
    /// Wraps an answer.
    #[must_use]
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// The directory cargo builds in.
    #[must_use]
    pub fn target_directory(&self) -> PathBuf {
        PathBuf::from(self.0["target_directory"].as_str().unwrap_or("target"))
    }

    /// Dependencies of workspace members on workspace members.
    #[must_use]
    pub fn internal_edges(&self) -> Vec<Edge> {
        let members: Vec<&Value> = self.members().collect();
        let names: Vec<&str> = members.iter().filter_map(|member| member["name"].as_str()).collect();
        let mut edges = Vec::new();
        for member in &members {
            for dependency in array(&member["dependencies"]) {
                let (Some(from), Some(to)) = (member["name"].as_str(), dependency["name"].as_str()) else {
                    continue;
                };
                if names.contains(&to) {
                    let kind = match (dependency["kind"].as_str(), dependency["optional"].as_bool()) {
                        (Some("dev"), _) => EdgeKind::Dev,
                        (_, Some(true)) => EdgeKind::Optional,
                        _ => EdgeKind::Always,
                    };
                    edges.push(Edge::new(from, to, kind));
                }
            }
        }
        edges
    }

    /// Names of the workspace members.
    #[must_use]
    pub fn member_names(&self) -> Vec<String> {
        self.members().filter_map(|member| member["name"].as_str()).map(str::to_owned).collect()
    }

    /// The directory of each workspace member, by name.
    #[must_use]
    pub fn member_directories(&self) -> BTreeMap<String, PathBuf> {
        self.members()
            .filter_map(|member| {
                let directory = Path::new(member["manifest_path"].as_str()?).parent()?.to_owned();
                Some((member["name"].as_str()?.to_owned(), directory))
            })
            .collect()
    }

    /// Every package that is built into some workspace member, on any platform, with any feature; members left out.
    #[must_use]
    pub fn foreign_packages(&self) -> Vec<Package> {
        let nodes: BTreeMap<&str, &Value> = array(&self.0["resolve"]["nodes"])
            .iter()
            .filter_map(|node| Some((node["id"].as_str()?, node)))
            .collect();
        let members: Vec<&str> =
            array(&self.0["workspace_members"]).iter().filter_map(Value::as_str).collect();
        let mut reached = std::collections::BTreeSet::new();
        let mut open = members.clone();
        while let Some(id) = open.pop() {
            if reached.insert(id)
                && let Some(node) = nodes.get(id)
            {
                open.extend(array(&node["deps"]).iter().filter_map(|dependency| dependency["pkg"].as_str()));
            }
        }
        array(&self.0["packages"])
            .iter()
            .filter(|package| {
                package["id"].as_str().is_some_and(|id| reached.contains(id) && !members.contains(&id))
            })
            .map(|package| Package {
                name: package["name"].as_str().unwrap_or_default().to_owned(),
                version: package["version"].as_str().unwrap_or_default().to_owned(),
                licence: package["license"].as_str().map(str::to_owned),
            })
            .collect()
    }

    fn members(&self) -> impl Iterator<Item = &Value> {
        let ids: Vec<&str> = array(&self.0["workspace_members"]).iter().filter_map(Value::as_str).collect();
        array(&self.0["packages"])
            .iter()
            .filter(move |p| p["id"].as_str().is_some_and(|id| ids.contains(&id)))
    }
}

/// Cargo, git or a file did not answer.
#[derive(Debug)]
pub struct WorkspaceError(pub(crate) String);

impl fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WorkspaceError {}

impl From<ProcessError> for WorkspaceError {
    fn from(error: ProcessError) -> Self {
        Self(error.to_string())
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
