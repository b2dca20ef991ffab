//! The reference handler of packages: downloads, verifies, installs, switches, checks, and goes back where that fails.

mod board;
mod builder;
mod run;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use self::board::Locals;
pub use self::builder::InstallerBuilder;
use self::run::Run;
use super::fetch::{DownloadSettings, Fetcher};
use super::files::FileSystem;
use super::handler::{PackageHandler, PackageProgress};
use super::hooks::{InstallPackage, PackageAt, PackageHook};
use super::offer::PackagesOffer;
use super::signature::SignaturePolicy;
use super::status::{PackageStatuses, PackagesRejected};
use super::store::Store;
use crate::net::client::Client;
use crate::net::clock::Clock;

/// Installs packages below a directory of its own. Cheap to clone.
///
/// For each package of an offer whose hash differs from that of the one installed (R-PKG-43), in the order of names:
///
/// 1. the signature is verified, unless the [`SignaturePolicy`] says otherwise,
/// 2. the file is downloaded, unless the content is the one installed (R-PKG-42), and its SHA-256 verified as it lies on disk,
/// 3. it is laid out in a directory that nobody uses yet, by an [`InstallPackage`], and made durable,
/// 4. the link `current` is led there by renaming another one over it, which is atomic on POSIX systems: whoever opens
///    something below it finds the old version or the new one,
/// 5. the activation hook is called, then the health check. If one of them fails or takes too long, `current` is led back
///    and the version before activated again.
///
/// A package that fails leaves the one before it in use and holds up no other. When everything offered is there, packages
/// that came from a server and are not offered any more are removed; never others, and never before (R-PKG-10). An offer that came to
/// an end is not processed again (R-PKG-44), whatever came of it; a package that failed is tried again with the next offer that
/// has another hash. A newer offer ends the work on the one before at any step.
///
/// So assigning the same packages once more does not repeat an installation that failed for a reason that has passed, such as a
/// download server that was away for all of [`DownloadSettings::fruitless_max`] attempts: the hash is the same, and a server may
/// not even send it. To try again, offer something else first, for example what was offered before, and then these again.
///
/// A crash or power loss at any moment leaves every package whole, in the old version or the new one; what was not
/// confirmed by its health check is taken back at the next start. An offer that was not finished is not told as received, so
/// that the server sends it again. A package during whose installation the agent ended three times has failed.
///
/// One file at a time is downloaded, so that the disk holds at most that, what is installed, and one version more.
#[derive(Clone)]
pub struct Installer(Arc<Inner>);

/// How long the steps of an installation may take, and the limits of downloads.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallerSettings {
    /// Limits and habits of downloads.
    pub download: DownloadSettings,
    /// How long laying out one package may take. Default 10 min. Then it has failed.
    pub install_timeout: Duration,
    /// How long activating may take, also that of the version before when going back. Default 60 s. Then it has failed.
    pub activate_timeout: Duration,
    /// How long the health check may take. Default 60 s. Then it has failed, and the version before is activated again.
    pub check_timeout: Duration,
}

/// Why an installer cannot work in a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What says what is installed cannot be read. Restore it from a backup, or remove the directory; then everything offered
    /// is installed anew.
    #[error(
        "{0}: not a list of installed packages; restore it from a backup, or remove the directory to install everything anew"
    )]
    Corrupt(String),
    /// Something cannot be read or written. The text says what.
    #[error("{0}")]
    Disk(String),
    /// Another agent works there. Give each agent a directory of its own.
    #[error("{0}: another running agent installs packages here; each agent needs a directory of its own")]
    InUse(String),
}

struct Inner {
    policy: SignaturePolicy,
    fetcher: Fetcher,
    install: Box<dyn InstallPackage>,
    activate: Option<Box<dyn PackageHook>>,
    check: Option<Box<dyn PackageHook>>,
    deactivate: Option<Box<dyn PackageHook>>,
    settings: InstallerSettings,
    clock: Arc<dyn Clock>,
    files: Arc<dyn FileSystem>,
    locals: Locals,
    store: Arc<Mutex<Store>>,
    /// One offer at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held as long as this exists.
    _lock: Lock,
}

/// The directory is ours.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // A child process that is just being started holds a copy of the descriptor for a moment.
        let _ = self.0.unlock();
    }
}

impl Default for InstallerSettings {
    fn default() -> Self {
        Self {
            download: DownloadSettings::default(),
            install_timeout: Duration::from_secs(600),
            activate_timeout: Duration::from_secs(60),
            check_timeout: Duration::from_secs(60),
        }
    }
}

impl Installer {
    /// Begins an installer that works below this directory, which is made for its owner only if it is missing.
    pub fn builder(directory: impl Into<PathBuf>, policy: SignaturePolicy) -> InstallerBuilder {
        InstallerBuilder::new(directory.into(), policy)
    }

    /// Does what an offer wants, as [`PackageHandler::sync`] does; for those who have no [`Client`].
    ///
    /// May be dropped: what is going on is then ended as if a newer offer had arrived.
    ///
    /// # Errors
    ///
    /// [`PackagesRejected`] if what became of it could not be kept.
    pub async fn apply(
        &self,
        offer: PackagesOffer,
        progress: PackageProgress,
    ) -> Result<(), PackagesRejected> {
        let (_wanted, dropped) = watch::channel(());
        let inner = Arc::clone(&self.0);
        // A task of its own, so that it comes to a whole point also if this is dropped.
        let task = tokio::spawn(async move {
            let _turn = Arc::clone(&inner.turn).lock_owned().await;
            Run::new(&inner, &offer, &progress, dropped).complete().await
        });
        match task.await {
            Ok(result) => result,
            Err(_) => Err("the installer of packages failed; look into the log of the agent".into()),
        }
    }

    /// What is installed, and what became of the last offer. Waits for the one being worked on.
    pub async fn statuses(&self) -> PackageStatuses {
        let inner = Arc::clone(&self.0);
        let recovering = tokio::spawn(async move {
            let turn = Arc::clone(&inner.turn).lock_owned().await;
            inner.recover().await;
            turn
        });
        let _turn = recovering.await;
        board::at_rest(&self.0.store(), &self.0.locals)
    }

    /// Where the package of this name is, if it came from the server and is there.
    #[must_use]
    pub fn installed(&self, name: &str) -> Option<PackageAt> {
        let store = self.0.store();
        let version = store.entry(name)?.installed.as_ref()?;
        Some(store.at(name, version))
    }
}

impl PackageHandler for Installer {
    fn installed(&self) -> BoxFuture<'_, PackageStatuses> {
        Box::pin(self.statuses())
    }

    fn sync(
        &self,
        offer: PackagesOffer,
        progress: PackageProgress,
        _client: Client,
    ) -> BoxFuture<'_, Result<(), PackagesRejected>> {
        Box::pin(self.apply(offer, progress))
    }
}

impl Inner {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installer")
            .field("policy", &self.0.policy)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}
