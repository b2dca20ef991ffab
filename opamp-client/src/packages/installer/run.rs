//! Working on one offer, from the first look to the last report.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::Inner;
use super::board::{Board, Phase, at_rest};
use crate::config::Rejected;
use crate::packages::handler::PackageProgress;
use crate::packages::hooks::{PackageAt, PackageHook, VerifiedFile};
use crate::packages::manifest::{Entry, Failed, Version};
use crate::packages::offer::{OfferedFile, OfferedPackage, PackagesOffer};
use crate::packages::status::{DownloadDetails, PackagesRejected};
use crate::packages::store::{DiskError, Store, interrupt};

/// How often the agent may end while it installs a package before the package is held for the cause.
const ATTEMPTS_MAX: u32 = 3;

/// One offer being worked on.
pub(super) struct Run<'a> {
    inner: &'a Inner,
    progress: &'a PackageProgress,
    dropped: watch::Receiver<()>,
    board: Board<'a>,
}

/// Why the work on a package ended before its end.
enum Stop {
    /// It has failed.
    Failed(Rejected),
    /// Another offer has arrived.
    Unwanted,
}

type Step<T> = Result<T, Stop>;

impl<'a> Run<'a> {
    pub(super) const fn new(
        inner: &'a Inner,
        offer: &'a PackagesOffer,
        progress: &'a PackageProgress,
        dropped: watch::Receiver<()>,
    ) -> Self {
        let board = Board { offer, active: None, settled: BTreeMap::new() };
        Self { inner, progress, dropped, board }
    }

    pub(super) async fn complete(mut self) -> Result<(), PackagesRejected> {
        let (inner, offer) = (self.inner, self.board.offer);
        inner.recover().await;
        if inner.store().manifest().received == offer.hash().as_bytes() {
            // It came to an end before, whatever that was.
            self.progress.report(at_rest(&inner.store(), &inner.locals));
            return Ok(());
        }
        self.report();
        // What earlier offers have left goes now: one that never comes to an end must not fill the disk with the next.
        match self.unless_interrupted(Box::pin(inner.fetcher.settled())).await {
            Ok(true) => {
                let files = offer.packages().filter_map(|(_, package)| package.file().ok());
                let wanted: Vec<_> = files.map(|file| *file.content_hash()).collect();
                let swept = inner.disk(move |store| {
                    store.sweep_downloads(&wanted);
                    Ok(())
                });
                drop(swept.await);
            }
            // The disk hangs: what is written there now is swept before another offer.
            Ok(false) => {}
            Err(_) => {
                self.report();
                return Ok(());
            }
        }
        for (name, package) in offer.packages() {
            match self.package(name, package).await {
                Ok(()) => drop(self.board.settled.insert(name.to_owned(), None)),
                Err(Stop::Failed(why)) => drop(self.board.settled.insert(name.to_owned(), Some(why))),
                Err(Stop::Unwanted) => {
                    self.board.active = None;
                    // Nothing is going on any more.
                    self.report();
                    return Ok(());
                }
            }
            self.board.active = None;
            self.report();
        }
        if self.board.settled.values().all(Option::is_none) {
            let removed = self.remove_unoffered().await;
            if removed.is_err() {
                self.report();
                return removed;
            }
        }
        if self.unless_unwanted().is_err() {
            return Ok(());
        }
        self.finish().await
    }

    /// Brings one package to what is offered, or to where it was.
    async fn package(&mut self, name: &str, package: &OfferedPackage) -> Step<()> {
        self.unless_unwanted()?;
        let offered = package.version();
        let installed = self.inner.store().entry(name).and_then(|entry| entry.installed.clone());
        if installed.as_ref().is_some_and(|installed| installed.is(offered)) {
            return Ok(());
        }
        let result = self.install(name, package, installed).await;
        if let Err(Stop::Failed(why)) = &result {
            tracing::warn!(
                package = name,
                version = offered.version(),
                reason = why.reason(),
                "package failed"
            );
            let failed = Failed::new(offered, why);
            let (name, entry_of) = (name.to_owned(), move |entry: &mut Entry| entry.failed = Some(failed));
            let kept = self.inner.disk(move |store| {
                store.update(|manifest| entry_of(manifest.entries.entry(name).or_default()))
            });
            if let Err(error) = kept.await {
                tracing::warn!(%error, "the failure of a package is not kept over a restart");
            }
        }
        result
    }

    async fn install(
        &mut self,
        name: &str,
        package: &OfferedPackage,
        installed: Option<Version>,
    ) -> Step<()> {
        let file = package.file().map_err(failed)?;
        let (version, content) = (package.version().version(), file.content_hash());
        self.inner.policy.verify(name, version, content, file.signature()).map_err(failed)?;
        self.unless_worn_out(name, package)?;
        if let Some(installed) = installed
            && installed.content_hash == content[..]
        {
            return self.rename(name, Version::new(package, file, installed.id)).await;
        }
        self.show(name, Phase::Downloading(None));
        let path = self.download(name, file).await?;
        self.show(name, Phase::Installing);
        self.unless_unwanted()?;
        let tried = self.put_into_place(name, Version::new(package, file, 0), path.clone()).await;
        if let Err(stop) = tried {
            return Err(self.take_back(name, stop).await);
        }
        self.inner.fetcher.discard(&path).await; // an archive is not needed any more
        self.inner
            .disk(|store| {
                store.sweep();
                Ok(())
            })
            .await
            .map_err(failed)?;
        tracing::info!(package = name, version, "package installed");
        Ok(())
    }

    /// The content is the one installed, under another version or hash: nothing is fetched and nothing changes place.
    async fn rename(&self, name: &str, version: Version) -> Step<()> {
        let name = name.to_owned();
        let renamed = self.inner.disk(move |store| {
            store.update(|manifest| {
                let entry = manifest.entries.entry(name).or_default();
                *entry = Entry { installed: Some(version), ..Entry::default() };
            })
        });
        renamed.await.map_err(failed)
    }

    /// A package that brings the agent down must not do so for ever.
    fn unless_worn_out(&self, name: &str, package: &OfferedPackage) -> Step<()> {
        let store = self.inner.store();
        let interrupted = store.entry(name).and_then(|entry| entry.interrupted.as_ref());
        let count = interrupted.filter(|known| known.hash == package.version().hash().as_bytes());
        match count.map_or(0, |known| known.count) {
            count if count >= ATTEMPTS_MAX => {
                Err(failed(format!("the agent ended {count} times while it installed this package")))
            }
            _ => Ok(()),
        }
    }

    /// Fetches a file and verifies it as it lies on disk.
    async fn download(&mut self, name: &str, file: &OfferedFile) -> Step<PathBuf> {
        let inner = self.inner;
        let path = inner.store().download(file.content_hash());
        // What was put together of several pieces may not fit together; then it is fetched once more from its beginning.
        for is_last in [false, true] {
            let is_whole = self.fetch(name, file, &path).await?;
            // Beside the store, which others look at meanwhile.
            if inner.fetcher.hash(&path).await.map_err(failed)? == *file.content_hash() {
                return Ok(path);
            }
            inner.fetcher.discard(&path).await;
            if is_whole || is_last {
                break;
            }
        }
        Err(failed("the file is not the one offered: its SHA-256 differs from the content_hash"))
    }

    async fn fetch(&mut self, name: &str, file: &OfferedFile, path: &std::path::Path) -> Step<bool> {
        let (inner, progress, offer) = (self.inner, self.progress, self.board.offer);
        let settled = self.board.settled.clone();
        let tell = |details: DownloadDetails| {
            let active = Some((name.to_owned(), Phase::Downloading(Some(details))));
            let board = Board { offer, active, settled: settled.clone() };
            progress.report(board.statuses(&inner.store(), &inner.locals));
        };
        let fetching = inner.fetcher.fetch(file, path, &tell);
        match self.unless_interrupted(Box::pin(fetching)).await? {
            Ok(is_whole) => Ok(is_whole),
            Err(why) => Err(failed(why)),
        }
    }

    /// Lays out, switches, activates, checks and commits.
    async fn put_into_place(&mut self, name: &str, version: Version, file: PathBuf) -> Step<()> {
        let inner = self.inner;
        let (begun, of) = (name.to_owned(), version);
        let staging = inner.disk(move |store| store.begin(&begun, of)).await.map_err(failed)?;
        let package = inner.trying(name).ok_or_else(|| failed("nothing is being installed"))?;
        let laid_out = inner.install.install(VerifiedFile {
            package: package.clone(),
            file,
            directory: staging,
            files: Arc::clone(&inner.files),
        });
        let timeout = inner.settings.install_timeout;
        self.unless_interrupted(inner.bounded("laying it out", timeout, laid_out))
            .await?
            .map_err(Stop::Failed)?;
        self.disk_step(name, Store::place).await?;
        self.unless_unwanted()?;
        self.disk_step(name, Store::switch).await?;
        let activated =
            inner.hook("activation", inner.activate.as_deref(), inner.settings.activate_timeout, &package);
        self.unless_interrupted(activated).await?.map_err(Stop::Failed)?;
        let checked =
            inner.hook("the health check", inner.check.as_deref(), inner.settings.check_timeout, &package);
        self.unless_interrupted(checked).await?.map_err(Stop::Failed)?;
        let committed = self.disk_step(name, Store::commit).await;
        match committed {
            // Visible, and perhaps not durable: after a power loss it is tried again.
            Err(Stop::Failed(why)) if inner.trying(name).is_none() => {
                tracing::warn!(
                    package = name,
                    reason = why.reason(),
                    "an installation may not survive a power loss"
                );
                Ok(())
            }
            other => other,
        }
    }

    /// Puts the version before back into use.
    async fn take_back(&self, name: &str, stop: Stop) -> Stop {
        let why = match &stop {
            Stop::Failed(why) => why.reason().to_owned(),
            Stop::Unwanted => String::new(),
        };
        match self.inner.undo(name, |_| {}).await {
            Ok(()) => stop,
            // It is tried again before the next offer, and at the next start.
            Err(error) => failed(
                format!("{why}; and that is not taken back completely: {error}").trim_start_matches("; "),
            ),
        }
    }

    async fn remove_unoffered(&mut self) -> Result<(), PackagesRejected> {
        let inner = self.inner;
        let gone: Vec<_> = {
            let store = inner.store();
            let unoffered =
                store.manifest().entries.iter().filter(|(name, _)| self.board.offer.package(name).is_none());
            unoffered
                .map(|(name, entry)| {
                    (name.clone(), entry.installed.as_ref().map(|version| store.at(name, version)))
                })
                .collect()
        };
        for (name, package) in gone {
            if self.unless_unwanted().is_err() {
                return Ok(());
            }
            let timeout = inner.settings.activate_timeout;
            if let Some(package) = &package {
                let ended = inner.hook("deactivation", inner.deactivate.as_deref(), timeout, package).await;
                if let Err(why) = ended {
                    tracing::warn!(package = name, reason = why.reason(), "package is removed all the same");
                }
            }
            let of = name.clone();
            let removed = inner.disk(move |store| store.forget(&of)).await;
            if let (Err(_), Some(package)) = (&removed, &package)
                && inner.store().entry(&name).is_some()
            {
                // It stays, then it is to work.
                let again = inner.hook("activation", inner.activate.as_deref(), timeout, package).await;
                if let Err(why) = again {
                    tracing::warn!(package = name, reason = why.reason(), "package stays, deactivated");
                }
            }
            removed.map_err(|error| PackagesRejected::new(error.to_string()))?;
        }
        Ok(())
    }

    /// Notes that the offer came to an end, and tells it.
    async fn finish(&mut self) -> Result<(), PackagesRejected> {
        let received = self.board.offer.hash().to_bytes();
        let failed = self.board.settled.iter().filter(|(_, why)| why.is_some());
        let failed: BTreeSet<_> = failed.map(|(name, _)| name.clone()).collect();
        // What there is of a file that broke off is worth keeping.
        let unfinished = failed.iter().filter_map(|name| self.board.offer.package(name)?.file().ok());
        let wanted: Vec<_> = unfinished.map(|file| *file.content_hash()).collect();
        let kept = self.inner.disk(move |store| {
            store.sweep();
            store.sweep_downloads(&wanted);
            store.update(|manifest| {
                manifest.received = received;
                for (name, entry) in &mut manifest.entries {
                    if !failed.contains(name) {
                        // What failed before is not wanted any more, or is there.
                        (entry.failed, entry.interrupted) = (None, None);
                    }
                }
            })
        });
        let kept = kept.await;
        self.report();
        kept.map_err(|error| PackagesRejected::new(error.to_string()))
    }

    async fn disk_step(
        &self,
        name: &str,
        step: impl FnOnce(&mut Store, &str) -> Result<(), DiskError> + Send + 'static,
    ) -> Step<()> {
        let name = name.to_owned();
        self.inner.disk(move |store| step(store, &name)).await.map_err(failed)
    }

    fn show(&mut self, name: &str, phase: Phase) {
        self.board.active = Some((name.to_owned(), phase));
        self.report();
    }

    fn report(&self) {
        self.progress.report(self.board.statuses(&self.inner.store(), &self.inner.locals));
    }

    fn unless_unwanted(&self) -> Step<()> {
        let unwanted = self.progress.is_cancelled() || self.dropped.has_changed().is_err();
        if unwanted { Err(Stop::Unwanted) } else { Ok(()) }
    }

    /// Waits for something that may be dropped where it waits.
    async fn unless_interrupted<T>(&self, future: BoxFuture<'_, T>) -> Step<T> {
        let mut dropped = self.dropped.clone();
        tokio::select! {
            biased;
            () = self.progress.cancelled() => Err(Stop::Unwanted),
            _ = dropped.changed() => Err(Stop::Unwanted),
            done = future => Ok(done),
        }
    }
}

impl Inner {
    /// Makes whole what an earlier process, or a disk that did not answer, has left. What cannot be mended now is tried again
    /// with the next offer.
    pub(super) async fn recover(&self) {
        let left: Vec<_> = {
            let store = self.store();
            let entries = store.manifest().entries.iter();
            entries.filter(|(_, entry)| entry.trying.is_some()).map(|(name, _)| name.clone()).collect()
        };
        for name in left {
            tracing::warn!(package = name, "an installation was interrupted and is taken back");
            if let Err(error) = self.undo(&name, interrupt).await {
                tracing::warn!(package = name, %error, "what was before could not be put back");
            }
        }
    }

    /// Takes back what is being tried of a package: the link, what is activated, and last the note of it, with what is
    /// noted in its place.
    async fn undo(
        &self,
        name: &str,
        then: impl FnOnce(&mut Entry) + Send + 'static,
    ) -> Result<(), DiskError> {
        let (package, before) = {
            let store = self.store();
            let at = |version: &Version| store.at(name, version);
            let entry = store.entry(name);
            (
                entry.and_then(|entry| entry.trying.as_ref().map(at)),
                entry.and_then(|entry| entry.installed.as_ref().map(at)),
            )
        };
        let Some(package) = package else { return Ok(()) };
        let of = name.to_owned();
        let restored = self.disk(move |store| store.switch_back(&of)).await?;
        // After a restart nobody knows whether it had been activated; once more does no harm.
        let timeout = self.settings.activate_timeout;
        let ended = match (&before, restored) {
            (Some(before), _) => self.hook("activation", self.activate.as_deref(), timeout, before).await,
            (None, _) => self.hook("deactivation", self.deactivate.as_deref(), timeout, &package).await,
        };
        if let Err(why) = ended {
            tracing::warn!(
                package = name,
                reason = why.reason(),
                "taking back an installation is not complete"
            );
        }
        let of = name.to_owned();
        self.disk(move |store| {
            store.drop_trial(&of, then)?;
            store.sweep();
            Ok(())
        })
        .await
    }

    fn trying(&self, name: &str) -> Option<PackageAt> {
        let store = self.store();
        let version = store.entry(name)?.trying.as_ref()?;
        Some(store.at(name, version))
    }

    fn hook<'a>(
        &'a self,
        what: &'static str,
        hook: Option<&'a dyn PackageHook>,
        timeout: Duration,
        package: &PackageAt,
    ) -> BoxFuture<'a, Result<(), Rejected>> {
        match hook {
            None => Box::pin(async { Ok(()) }),
            Some(hook) => self.bounded(what, timeout, hook.run(package.clone())),
        }
    }

    /// What somebody else wrote: its silence and its panic are failures like others.
    fn bounded<'a>(
        &'a self,
        what: &'static str,
        timeout: Duration,
        future: BoxFuture<'a, Result<(), Rejected>>,
    ) -> BoxFuture<'a, Result<(), Rejected>> {
        let too_late = self.clock.sleep_until(self.clock.now().mono + timeout);
        Box::pin(async move {
            let of = |why: &str| Rejected::new(format!("{what} failed: {why}"));
            tokio::select! {
                biased;
                done = AssertUnwindSafe(future).catch_unwind() => match done {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(why)) => Err(of(why.reason())),
                    Err(_) => Err(of("it panicked")),
                },
                () = too_late => Err(of(&format!("it did not end within {} s", timeout.as_secs()))),
            }
        })
    }

    /// Does what blocks where that is allowed, to its end.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let store = Arc::clone(&self.store);
        let work = move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => Err(DiskError::gone(error)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` wants it")]
fn failed(why: impl ToString) -> Stop {
    Stop::Failed(Rejected::new(why.to_string()))
}
