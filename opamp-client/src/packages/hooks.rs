//! What installing means: who lays out a package, who puts it to use, who says that it works.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use super::files::FileSystem;
use super::offer::PackageKind;
use super::status::PackageVersion;
use crate::config::Rejected;

/// Lays out a package: makes of its one file what will be in its directory. [`PlainFile`] leaves it as it is; an
/// implementation for archives unpacks it (R-PKG-05).
pub trait InstallPackage: Send + Sync + 'static {
    /// Fills the directory [`VerifiedFile::directory`], which is empty and used by nobody yet. Nothing else is to be changed.
    ///
    /// Hash and signature of the file are verified. All the same an archive is to be unpacked with care: names in it may
    /// lead out of the directory, and it may be larger than it looks.
    ///
    /// May be dropped where it waits, when it takes too long or another offer has arrived; what it made is removed then.
    fn install(&self, file: VerifiedFile) -> BoxFuture<'_, Result<(), Rejected>>;
}

/// Is called when a package has changed. Closures will do.
pub trait PackageHook: Send + Sync + 'static {
    /// Does what is to be done. An error, and taking too long, counts as the failure of what it was called for. It may be
    /// called more than once for the same package, and must not mind.
    fn run(&self, package: PackageAt) -> BoxFuture<'_, Result<(), Rejected>>;
}

impl<F, R> PackageHook for F
where
    F: Fn(PackageAt) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Rejected>> + Send + 'static,
{
    fn run(&self, package: PackageAt) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self(package))
    }
}

/// A file whose hash and signature are verified, and where it is to be laid out.
#[derive(Clone)]
pub struct VerifiedFile {
    pub(super) package: PackageAt,
    pub(super) file: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) files: Arc<dyn FileSystem>,
}

/// A package on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageAt {
    /// Its name; may be empty.
    pub name: String,
    /// Its version.
    pub version: PackageVersion,
    /// What it is to the agent.
    pub kind: PackageKind,
    /// The directory of this very version.
    pub directory: PathBuf,
    /// The link that leads to the version in use, and stays the same over versions. Where links need privileges it is a
    /// file that holds the name of the directory.
    pub current: PathBuf,
}

/// The file as it is, under a fixed name.
#[derive(Clone, Debug)]
pub struct PlainFile {
    name: String,
    executable: bool,
}

impl VerifiedFile {
    /// Whose it is. The directories in there are where it will be.
    #[must_use]
    pub const fn package(&self) -> &PackageAt {
        &self.package
    }

    /// The file. It may be moved away, and is removed otherwise.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The directory to fill.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl PlainFile {
    /// The file under this name in the package's directory.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), executable: false }
    }

    /// It may be executed.
    #[must_use]
    pub const fn executable(mut self) -> Self {
        self.executable = true;
        self
    }
}

/// Under the name `package`.
impl Default for PlainFile {
    fn default() -> Self {
        Self::new("package")
    }
}

impl InstallPackage for PlainFile {
    fn install(&self, file: VerifiedFile) -> BoxFuture<'_, Result<(), Rejected>> {
        let to = file.directory.join(&self.name);
        let executable = self.executable;
        Box::pin(async move {
            // It is not needed where it is any more: moved, it takes no room twice.
            let place = move || {
                file.files.rename(&file.file, &to)?;
                file.files.publish(&to, executable)
            };
            match tokio::task::spawn_blocking(place).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Rejected::new(format!(
                    "cannot lay out the file: {error}; check permissions and free space"
                ))),
                Err(_) => Err(Rejected::new("the agent is ending")),
            }
        })
    }
}
