//! Putting an installer together.

use std::fs::{self, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::board::Locals;
use super::{Inner, Installer, InstallerSettings, Lock, OpenError};
use crate::net::clock::{Clock, SystemClock};
use crate::net::proxy::Proxy;
use crate::net::tls::TlsSource;
use crate::packages::fetch::Fetcher;
use crate::packages::files::{FileSystem, LocalFiles};
use crate::packages::hooks::{InstallPackage, PackageHook, PlainFile};
use crate::packages::signature::SignaturePolicy;
use crate::packages::status::PackageVersion;
use crate::packages::store::{LoadError, Store};

/// An installer to be.
#[must_use = "an installer begins with `open`"]
pub struct InstallerBuilder {
    directory: PathBuf,
    policy: SignaturePolicy,
    install: Box<dyn InstallPackage>,
    activate: Option<Box<dyn PackageHook>>,
    check: Option<Box<dyn PackageHook>>,
    deactivate: Option<Box<dyn PackageHook>>,
    settings: InstallerSettings,
    tls: Option<TlsSource>,
    proxy: Option<Proxy>,
    clock: Option<Arc<dyn Clock>>,
    files: Arc<dyn FileSystem>,
    locals: Locals,
}

impl InstallerBuilder {
    pub(super) fn new(directory: PathBuf, policy: SignaturePolicy) -> Self {
        Self {
            directory,
            policy,
            install: Box::new(PlainFile::default()),
            activate: None,
            check: None,
            deactivate: None,
            settings: InstallerSettings::default(),
            tls: None,
            proxy: None,
            clock: None,
            files: Arc::new(LocalFiles),
            locals: Locals::new(),
        }
    }

    /// Who lays out a package. Default: [`PlainFile`], which leaves the file as it is.
    pub fn install(mut self, install: impl InstallPackage) -> Self {
        self.install = Box::new(install);
        self
    }

    /// Who puts a package to use once `current` leads to it, for example by restarting a service. Called for the version
    /// before when an installation is taken back. Default: nobody.
    pub fn on_activate(mut self, hook: impl PackageHook) -> Self {
        self.activate = Some(Box::new(hook));
        self
    }

    /// Who says whether a package works, after it was activated. Default: nobody; then it works.
    pub fn health_check(mut self, hook: impl PackageHook) -> Self {
        self.check = Some(Box::new(hook));
        self
    }

    /// Who takes a package out of use: before one is removed that is not offered any more, and when an installation is taken
    /// back that had none before it. Default: nobody.
    pub fn on_deactivate(mut self, hook: impl PackageHook) -> Self {
        self.deactivate = Some(Box::new(hook));
        self
    }

    /// Limits and timeouts.
    pub fn settings(mut self, settings: InstallerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Whom downloads trust, and what certificate they show. Needed for https.
    pub fn tls(mut self, tls: TlsSource) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The proxy for downloads. Default: what the environment says, see [`Proxy::from_env`].
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Where the time comes from. Default: the machine's clocks.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What lies between the installer and the disk. Default: [`LocalFiles`].
    pub fn file_system(mut self, files: Arc<dyn FileSystem>) -> Self {
        self.files = files;
        self
    }

    /// A package that is on this machine without the server's doing. It is reported, and never removed (R-PKG-20). One of the
    /// same name that is offered is installed beside it and reported in its place.
    pub fn local_package(mut self, name: impl Into<String>, version: PackageVersion) -> Self {
        self.locals.insert(name.into(), version);
        self
    }

    /// Takes over the directory: reads what is installed, makes whole what a crash has left, sweeps the rest. Blocks for as long
    /// as that takes.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: why it cannot work there.
    pub fn open(self) -> Result<Installer, OpenError> {
        let lock = self.lock()?;
        let store = Store::open(self.directory, Arc::clone(&self.files)).map_err(|error| match error {
            LoadError::Corrupt(path) => OpenError::Corrupt(path.display().to_string()),
            LoadError::Disk(error) => OpenError::Disk(error.to_string()),
        })?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let fetcher = Fetcher::new(
            self.settings.download.clone(),
            self.tls,
            self.proxy.unwrap_or_default(),
            Arc::clone(&clock),
            Arc::clone(&self.files),
        );
        Ok(Installer(Arc::new(Inner {
            policy: self.policy,
            fetcher,
            install: self.install,
            activate: self.activate,
            check: self.check,
            deactivate: self.deactivate,
            settings: self.settings,
            clock,
            files: self.files,
            locals: self.locals,
            store: Arc::new(Mutex::new(store)),
            turn: Arc::default(),
            _lock: lock,
        })))
    }

    fn lock(&self) -> Result<Lock, OpenError> {
        let failed = |error: std::io::Error| {
            let path = self.directory.display();
            OpenError::Disk(format!("cannot work in {path}: {error}; check the path and its permissions"))
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.directory).map_err(failed)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).open(self.directory.join("lock"));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            // Some network file systems have no locks; what can be had without is had.
            Err(TryLockError::Error(error)) if error.kind() != std::io::ErrorKind::Unsupported => {
                Err(failed(error))
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(self.directory.display().to_string())),
            _ => Ok(Lock(lock)),
        }
    }
}
