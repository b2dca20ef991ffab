//! Packages on disk, and how one takes the place of another.
//!
//! ```text
//! lock                        one installer at a time
//! manifest                    what is installed; replaced as a whole
//! downloads/<content>.part    on their way; continued after a restart
//! staging/<id>/               being laid out; not used by anybody
//! packages/<name>/<id>/       a version, complete and synced before it gets here
//! packages/<name>/current     leads to the version in use: renamed over the one before, which is the switch
//! ```
//!
//! A version goes through these steps. The agent may end, and the power fail, between any two of them:
//!
//! ```text
//! begin    manifest: trying the new version          ── crash: the old version is in use, the new one swept away
//! place    staging/<id> becomes packages/<name>/<id> ── crash: the same
//! switch   current leads to it                       ── crash: current is led back, the old version activated
//! commit   manifest: the new version is installed    ── crash: the new version is in use, the old one swept away
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opamp_proto::ConfigHash;
use sha2::{Digest as _, Sha256};

use super::files::FileSystem;
use super::hooks::PackageAt;
use super::manifest::{Entry, Interrupted, Manifest, Version};

/// The largest manifest that is read. Its texts are bounded one by one.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// What is on disk. Every method leaves something whole, also where it fails.
pub(super) struct Store {
    root: PathBuf,
    pub(super) files: Arc<dyn FileSystem>,
    manifest: Manifest,
    /// Packages whose link leads to the version being tried.
    switched: BTreeSet<String>,
}

/// What could not be done to the disk.
#[derive(Debug)]
pub(super) struct DiskError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DiskError {
    /// The runtime is ending, or the disk's work panicked.
    pub(super) fn gone(error: tokio::task::JoinError) -> Self {
        Self { what: "work on", path: PathBuf::from("packages"), source: io::Error::other(error) }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, path, source) = (self.what, self.path.display(), &self.source);
        write!(f, "cannot {what} {path}: {source}; check permissions and free space")
    }
}

/// Why the manifest cannot be had.
pub(super) enum LoadError {
    Corrupt(PathBuf),
    Disk(DiskError),
}

impl Store {
    /// Takes what is there, makes whole what a crash has left, and sweeps away what nothing leads to.
    pub(super) fn open(root: PathBuf, files: Arc<dyn FileSystem>) -> Result<Self, LoadError> {
        let mut store = Self { root, files, manifest: Manifest::default(), switched: BTreeSet::new() };
        for directory in ["downloads", "staging", "packages"] {
            let path = store.root.join(directory);
            let made = store.files.create_directory(&path);
            made.map_err(|error| LoadError::Disk(disk("make", &path)(error)))?;
        }
        store.load()?;
        store.restore().map_err(LoadError::Disk)?;
        store.sweep();
        Ok(store)
    }

    fn load(&mut self) -> Result<(), LoadError> {
        let path = self.root.join("manifest");
        let failed = |error| LoadError::Disk(disk("read", &path)(error));
        if self.files.length(&path).map_err(failed)?.is_none() {
            return Ok(());
        }
        let mut file = Vec::new();
        let reader = self.files.read(&path).map_err(failed)?;
        reader.take(MANIFEST_BYTES_MAX).read_to_end(&mut file).map_err(failed)?;
        self.manifest = Manifest::from_file(&file).ok_or_else(|| LoadError::Corrupt(path.clone()))?;
        Ok(())
    }

    /// Leads every link to the version that counts. What was tried and not committed does not.
    pub(super) fn restore(&mut self) -> Result<(), DiskError> {
        let mut gone = Vec::new();
        for (name, entry) in &self.manifest.entries {
            let installed = entry.installed.as_ref();
            if let Some(version) = installed
                && !self.is_there(name, version)?
            {
                // Somebody has removed it; then it is not there, and what follows from that is the server's to say.
                gone.push(name.clone());
                continue;
            }
            let link = self.current(name);
            let linked = self.files.linked(&link).map_err(disk("read", &link))?;
            if linked != installed.map(|version| id_name(version.id)) {
                self.lead(name, installed.map(|version| version.id))?;
            }
        }
        for name in &gone {
            self.lead(name, None)?;
        }
        self.switched.clear();
        if gone.is_empty() {
            return Ok(());
        }
        self.update(|manifest| {
            manifest.received.clear();
            for name in &gone {
                if let Some(entry) = manifest.entries.get_mut(name) {
                    entry.installed = None;
                }
            }
        })
    }

    /// Removes whatever nothing leads to: what was being laid out, versions that nobody uses, half-written files. That it
    /// cannot be removed is no failure of anything; it is tried again.
    pub(super) fn sweep(&self) {
        let remove = |path: PathBuf| {
            if let Err(error) = self.files.remove(&path) {
                tracing::debug!(%error, path = %path.display(), "leftover of a package stays");
            }
        };
        remove(self.root.join("manifest.new"));
        for name in self.files.entries(&self.root.join("staging")).unwrap_or_default() {
            remove(self.root.join("staging").join(name));
        }
        let kept: BTreeSet<_> = self
            .manifest
            .entries
            .iter()
            .filter(|(_, entry)| entry.installed.is_some() || entry.trying.is_some())
            .map(|(name, _)| OsString::from(folder_name(name)))
            .collect();
        let packages = self.root.join("packages");
        for folder in self.files.entries(&packages).unwrap_or_default() {
            if !kept.contains(&folder) {
                remove(packages.join(folder));
            }
        }
        for (name, entry) in &self.manifest.entries {
            let used = [&entry.installed, &entry.trying];
            let used: Vec<_> = used.into_iter().flatten().map(|version| id_name(version.id)).collect();
            let folder = self.folder(name);
            for inside in self.files.entries(&folder).unwrap_or_default() {
                if inside != "current" && !used.contains(&inside) {
                    remove(folder.join(inside));
                }
            }
        }
    }

    /// Removes downloads of contents that nobody wants any more.
    pub(super) fn sweep_downloads(&self, wanted: &[[u8; 32]]) {
        let wanted: Vec<_> = wanted.iter().map(|hash| hex(hash)).collect();
        let downloads = self.root.join("downloads");
        for name in self.files.entries(&downloads).unwrap_or_default() {
            let stays = name.to_str().is_some_and(|name| wanted.iter().any(|hash| name.starts_with(hash)));
            if !stays {
                // It is tried again with the next offer.
                let _ = self.files.remove(&downloads.join(name));
            }
        }
    }

    pub(super) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.manifest.entries.get(name)
    }

    /// What the link leads to, which is what this machine has.
    pub(super) fn has(&self, name: &str) -> Option<&Version> {
        let entry = self.entry(name)?;
        if self.switched.contains(name) { entry.trying.as_ref() } else { entry.installed.as_ref() }
    }

    /// Changes the manifest, on disk first: what could not be written has not changed.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<(), DiskError> {
        let mut manifest = self.manifest.clone();
        change(&mut manifest);
        manifest.entries.retain(|_, entry| !entry.is_empty());
        if manifest == self.manifest {
            return Ok(());
        }
        let (path, new) = (self.root.join("manifest"), self.root.join("manifest.new"));
        self.files.write(&new, &manifest.to_file()).map_err(disk("write", &new))?;
        self.files.sync(&new).map_err(disk("sync", &new))?;
        self.files.rename(&new, &path).map_err(disk("replace", &path))?;
        // In place, whether it is durable or not: what is believed here and what is read after a restart agree.
        self.manifest = manifest;
        self.files.sync(&self.root).map_err(disk("sync", &self.root))
    }

    /// Begins with a version; the directory to lay it out in. Counts how often that was interrupted before.
    pub(super) fn begin(&mut self, name: &str, mut version: Version) -> Result<PathBuf, DiskError> {
        let id = self.manifest.last_id + 1;
        version.id = id;
        self.update(|manifest| {
            manifest.last_id = id;
            manifest.entries.entry(name.to_owned()).or_default().trying = Some(version);
        })?;
        let staging = self.root.join("staging").join(id_name(id));
        self.files.create_directory(&staging).map_err(disk("make", &staging))?;
        Ok(staging)
    }

    /// Makes what was laid out durable and puts it beside the version in use.
    pub(super) fn place(&mut self, name: &str) -> Result<(), DiskError> {
        let Some(id) = self.trying(name) else { return Ok(()) };
        let staging = self.root.join("staging");
        let (from, folder) = (staging.join(id_name(id)), self.folder(name));
        self.files.sync_tree(&from).map_err(disk("sync", &from))?;
        self.files.create_directory(&folder).map_err(disk("make", &folder))?;
        let packages = self.root.join("packages");
        self.files.sync(&packages).map_err(disk("sync", &packages))?;
        let to = folder.join(id_name(id));
        self.files.rename(&from, &to).map_err(disk("place", &to))?;
        self.files.sync(&folder).map_err(disk("sync", &folder))
    }

    /// Leads the link to the version being tried: the switch.
    pub(super) fn switch(&mut self, name: &str) -> Result<(), DiskError> {
        let Some(id) = self.trying(name) else { return Ok(()) };
        let led = self.lead(name, Some(id));
        // Where it leads now is what counts, also if it could not be made durable.
        if led.is_ok() || self.leads_to(name, Some(id)) {
            self.switched.insert(name.to_owned());
        }
        led
    }

    /// The version being tried is the one installed from now on.
    pub(super) fn commit(&mut self, name: &str) -> Result<(), DiskError> {
        let committed = self.update(|manifest| {
            if let Some(entry) = manifest.entries.get_mut(name) {
                entry.installed = entry.trying.take();
                entry.failed = None;
                entry.interrupted = None;
            }
        });
        if self.trying(name).is_none() {
            self.switched.remove(name);
        }
        committed
    }

    /// Leads the link back to the version installed, if it led elsewhere; whether it did.
    pub(super) fn switch_back(&mut self, name: &str) -> Result<bool, DiskError> {
        if !self.switched.contains(name) {
            return Ok(false);
        }
        let id = self.entry(name).and_then(|entry| entry.installed.as_ref()).map(|version| version.id);
        let led = self.lead(name, id);
        // Where it leads now is what counts, also if it could not be made durable.
        if led.is_ok() || self.leads_to(name, id) {
            self.switched.remove(name);
        }
        led.map(|()| true)
    }

    /// Notes that the version being tried is not tried any more, and `then` what became of it. Only after
    /// [`Store::switch_back`], as long as the link leads to it.
    pub(super) fn drop_trial(&mut self, name: &str, then: impl FnOnce(&mut Entry)) -> Result<(), DiskError> {
        self.update(|manifest| {
            let entry = manifest.entries.entry(name.to_owned()).or_default();
            then(entry);
            entry.trying = None;
        })
    }

    /// Takes a package away: nothing leads to it any more, then it is no longer known, then it is gone.
    pub(super) fn forget(&mut self, name: &str) -> Result<(), DiskError> {
        let before = self.entry(name).and_then(|entry| entry.installed.as_ref()).map(|version| version.id);
        let forgotten =
            self.lead(name, None).and_then(|()| self.update(|manifest| drop(manifest.entries.remove(name))));
        if forgotten.is_err() && self.entry(name).is_some() {
            // Known, so it is led to; if that does not work now, it does at the next start.
            let _ = self.lead(name, before);
        }
        forgotten?;
        self.sweep();
        Ok(())
    }

    /// Where the content of this hash is downloaded to.
    pub(super) fn download(&self, content_hash: &[u8; 32]) -> PathBuf {
        self.root.join("downloads").join(format!("{}.part", hex(content_hash)))
    }

    /// Where a version is, and how it is found over versions.
    pub(super) fn at(&self, name: &str, version: &Version) -> PackageAt {
        PackageAt {
            name: name.to_owned(),
            version: version.told(),
            kind: version.kind(),
            directory: self.folder(name).join(id_name(version.id)),
            current: self.current(name),
        }
    }

    fn trying(&self, name: &str) -> Option<u64> {
        self.entry(name)?.trying.as_ref().map(|version| version.id)
    }

    fn is_there(&self, name: &str, version: &Version) -> Result<bool, DiskError> {
        let path = self.folder(name).join(id_name(version.id));
        self.files.is_directory(&path).map_err(disk("read", &path))
    }

    fn leads_to(&self, name: &str, id: Option<u64>) -> bool {
        self.files.linked(&self.current(name)).is_ok_and(|linked| linked == id.map(id_name))
    }

    fn lead(&self, name: &str, id: Option<u64>) -> Result<(), DiskError> {
        let (folder, current) = (self.folder(name), self.current(name));
        if let Some(id) = id {
            let new = folder.join("current.new");
            self.files.remove(&new).map_err(disk("remove", &new))?;
            self.files.link(&new, &id_name(id)).map_err(disk("make", &new))?;
            self.files.rename(&new, &current).map_err(disk("switch", &current))?;
        } else {
            self.files.remove(&current).map_err(disk("remove", &current))?;
            if !self.files.is_directory(&folder).map_err(disk("read", &folder))? {
                return Ok(());
            }
        }
        self.files.sync(&folder).map_err(disk("sync", &folder))
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.join("packages").join(folder_name(name))
    }

    fn current(&self, name: &str) -> PathBuf {
        self.folder(name).join("current")
    }
}

/// What is noted of a version that was under way when the agent ended.
pub(super) fn interrupt(entry: &mut Entry) {
    if let Some(trying) = entry.trying.take() {
        let before = entry.interrupted.take().filter(|before| before.hash == trying.hash);
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        entry.interrupted = Some(Interrupted { hash: trying.hash, count });
    }
}

/// The directory of a package. Names are arbitrary text, also such as lead elsewhere or differ by case alone: what tells them
/// apart is a hash, what a person recognises comes before it.
fn folder_name(name: &str) -> String {
    let readable = name.chars().filter(|character| character.is_ascii_alphanumeric() || *character == '-');
    let readable: String = readable.take(40).map(|character| character.to_ascii_lowercase()).collect();
    format!("{readable}-{}", hex(&Sha256::digest(name)[..16]))
}

fn id_name(id: u64) -> OsString {
    id.to_string().into()
}

fn hex(bytes: &[u8]) -> String {
    ConfigHash::new(bytes.to_vec()).to_hex()
}

fn disk(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_name_its_folder_is_one_plain_name_of_its_own() {
        let names = [
            "",
            ".",
            "..",
            "../../etc",
            "/etc/passwd",
            "a\0b",
            "A",
            "a",
            "CON",
            "ü/ö",
            "a b",
            &"x".repeat(256),
        ];
        let folders: BTreeSet<_> = names.iter().map(|name| folder_name(name)).collect();
        assert_eq!(folders.len(), names.len(), "{folders:?}");
        for folder in folders {
            assert!(folder.len() < 80, "{folder}");
            let plain = |character: char| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
            };
            assert!(folder.chars().all(plain), "{folder}");
        }
    }
}
