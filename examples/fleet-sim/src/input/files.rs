//! Configurations that stand in files: what is rolled out, and what agents run before. What stands in none is made up, since
//! for a simulation any configuration will do; it cannot be compared then.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use opamp_fleet::{ConfigLimits, ConfigMap};
use opamp_proto::{Fingerprint, pb};

use super::{Input, InputError};

/// Configurations from files.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What is rolled out.
    pub target: Option<ConfigMap>,
    /// What agents run before, by name.
    pub before: BTreeMap<Box<str>, ConfigMap>,
}

impl Input {
    /// The files that it names, relative to a directory, with the keys that name them.
    pub fn paths(&self, directory: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let target = self.rollout.file.iter().map(|path| ("rollout.file", path));
        let before = self.fleet.files.values().map(|path| ("fleet.files", path));
        target.chain(before).map(move |(key, path)| (key, directory.join(path)))
    }

    /// Reads the files that it names, relative to a directory.
    ///
    /// # Errors
    /// [`InputError`] for a file that cannot be read or is too large, and for one of a configuration that nobody runs.
    pub fn files(&self, directory: &Path) -> Result<Files, InputError> {
        let mut files = Files::default();
        if let Some(path) = &self.rollout.file {
            files.target = Some(read("rollout.file", &directory.join(path))?);
        }
        for (name, path) in &self.fleet.files {
            if !self.fleet.configs.contains_key(name) {
                return Err(InputError::value("fleet.files", format!("{name} is none of fleet.configs")));
            }
            files.before.insert(name.clone(), read("fleet.files", &directory.join(path))?);
        }
        Ok(files)
    }
}

impl Files {
    /// The configuration of this fingerprint, if it is in one of the files.
    #[must_use]
    pub fn config(&self, fingerprint: Fingerprint) -> Option<ConfigMap> {
        let mut all = self.target.iter().chain(self.before.values());
        all.find(|config| config.hash().fingerprint() == fingerprint).cloned()
    }
}

fn read(key: &'static str, path: &Path) -> Result<ConfigMap, InputError> {
    let body =
        fs::read(path).map_err(|error| InputError::value(key, format!("{}: {error}", path.display())))?;
    let content_type = "text/yaml".to_owned();
    let file = pb::AgentConfigObject { body: body.into(), content_type, role: String::new() };
    let map = pb::AgentConfigMap { config_map: [(String::new(), file)].into() };
    ConfigMap::new(map, &ConfigLimits::default())
        .map_err(|error| InputError::value(key, format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(keys: &str) -> Result<Files, InputError> {
        let text =
            format!("[fleet]\nagents = 1\nconfigs = {{ v1 = 100 }}\n{keys}\n[rollout]\ntitle = \"v2\"\n");
        Input::from_toml(&text).unwrap().files(Path::new(env!("CARGO_MANIFEST_DIR")))
    }

    #[test]
    fn a_configuration_is_found_by_its_fingerprint() {
        let files = files("files = { v1 = \"plans/collector/v1.yaml\" }").unwrap();
        let config = files.before.get("v1").unwrap();
        assert_eq!(files.config(config.hash().fingerprint()).as_ref(), Some(config));
        assert_eq!(files.config(Fingerprint::from_bytes([7; 16])), None);
    }

    #[test]
    fn a_file_that_is_not_there_or_that_nobody_runs_is_refused() {
        let missing = files("files = { v1 = \"nowhere.yaml\" }").unwrap_err().to_string();
        assert!(missing.starts_with("fleet.files: ") && missing.contains("nowhere.yaml"), "{missing}");
        let unused = files("files = { v2 = \"plans/collector/v1.yaml\" }").unwrap_err().to_string();
        assert_eq!(unused, "fleet.files: v2 is none of fleet.configs");
    }
}
