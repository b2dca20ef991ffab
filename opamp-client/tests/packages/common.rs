//! Offers, signatures, a directory, and an installer that works in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opamp_client::packages::{
    DownloadSettings, Installer, InstallerBuilder, InstallerSettings, OfferLimits, PackageKey,
    PackageProgress, PackageReports, PackageStatus, PackageStatuses, PackagesOffer, PackagesRejected,
    PlainFile, SignaturePolicy, statement,
};
use opamp_client::{ConfigHash, Proxy};
use opamp_proto::pb;
use rustls::crypto::CryptoProvider;
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};

/// Long enough for a loaded machine, short enough for a person.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The file that [`PlainFile`] makes of a package in these tests.
pub(crate) const FILE: &str = "content";

/// A directory of one test, removed at its end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("opamp-packages-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Names below it, sorted.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join(below));
        let entries =
            entries.map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        let mut names: Vec<_> = entries.map_or_else(|_| Vec::new(), Iterator::collect);
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Who signs packages.
pub(crate) struct Signer(Arc<dyn SigningKey>);

impl Signer {
    /// The key that the tests' installers trust has seed 1.
    pub(crate) fn new(seed: u8) -> Self {
        // RFC 8410 §7: a private key is the seed in two octet strings.
        let info = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from([&info[..], &[seed; 32]].concat()));
        Self(provider().key_provider.load_private_key(der).unwrap())
    }

    pub(crate) fn key(&self) -> PackageKey {
        let info = self.0.public_key().unwrap();
        PackageKey::from_bytes(info[info.len() - 32..].try_into().unwrap())
    }

    pub(crate) fn sign(&self, name: &str, version: &str, content: &[u8]) -> Vec<u8> {
        let scheme = [rustls::SignatureScheme::ED25519];
        self.0.choose_scheme(&scheme).unwrap().sign(&statement(name, version, &sha256(content))).unwrap()
    }
}

pub(crate) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

pub(crate) fn sha256(content: &[u8]) -> [u8; 32] {
    Sha256::digest(content).into()
}

/// A package as a server offers it, signed.
pub(crate) fn package(url: &str, name: &str, version: &str, content: &[u8]) -> pb::PackageAvailable {
    let hash = Sha256::digest([url.as_bytes(), name.as_bytes(), version.as_bytes(), content].concat());
    pb::PackageAvailable {
        version: version.into(),
        hash: hash.to_vec().into(),
        file: Some(pb::DownloadableFile {
            download_url: url.into(),
            content_hash: sha256(content).to_vec().into(),
            signature: Signer::new(1).sign(name, version, content).into(),
            headers: None,
        }),
        r#type: 0,
    }
}

/// An offer under a hash of its own.
pub(crate) fn offer<'a>(
    hash: &str,
    packages: impl IntoIterator<Item = (&'a str, pb::PackageAvailable)>,
) -> PackagesOffer {
    let packages = packages.into_iter().map(|(name, package)| (name.to_owned(), package)).collect();
    let offer = pb::PackagesAvailable { packages, all_packages_hash: hash.as_bytes().to_vec().into() };
    PackagesOffer::new(offer, &OfferLimits::default()).unwrap()
}

pub(crate) fn settings() -> InstallerSettings {
    InstallerSettings {
        download: DownloadSettings {
            allow_plain_http: true,
            retry_delay: Duration::from_millis(1),
            retry_delay_max: Duration::from_millis(2),
            ..DownloadSettings::default()
        },
        ..InstallerSettings::default()
    }
}

pub(crate) fn policy() -> SignaturePolicy {
    SignaturePolicy::require(&provider(), [Signer::new(1).key()]).unwrap()
}

/// An installer to be, in a directory, that trusts the tests' key and takes plain HTTP.
pub(crate) fn builder(directory: &Directory) -> InstallerBuilder {
    Installer::builder(directory.path().join("packages"), policy())
        .install(PlainFile::new(FILE))
        .proxy(Proxy::none())
        .settings(settings())
}

pub(crate) fn installer(directory: &Directory) -> Installer {
    builder(directory).open().unwrap()
}

/// Applies an offer to its end. Every report on the way is looked at.
pub(crate) async fn apply(
    installer: &Installer,
    offer: PackagesOffer,
) -> Result<PackageStatuses, PackagesRejected> {
    let (progress, mut reports) = PackageProgress::channel();
    let received = offer.hash().clone();
    let names: Vec<_> = offer.packages().map(|(name, _)| name.to_owned()).collect();
    let applying = tokio::time::timeout(PATIENCE, installer.apply(offer, progress));
    let watching = async {
        let mut last = None;
        while let Some(statuses) = reports.next().await {
            check(&statuses, &received, &names);
            last = Some(statuses);
        }
        last
    };
    let (applied, last) = tokio::join!(applying, watching);
    applied.expect("an offer comes to an end")?;
    Ok(last.expect("the last word on every package"))
}

/// What every report holds, whatever happens.
fn check(statuses: &PackageStatuses, received: &ConfigHash, names: &[String]) {
    assert_eq!(statuses.received(), received, "R-PKG-23");
    for name in names {
        assert!(statuses.get(name).is_some(), "{name} is missing in {statuses:?} (R-PKG-19)");
    }
    for (name, status) in &statuses.to_message().packages {
        assert_eq!(*name, status.name, "R-PKG-21");
        assert_eq!(
            status.agent_has_version.is_empty(),
            status.agent_has_hash.is_empty(),
            "R-PKG-27, R-PKG-28"
        );
    }
}

/// Cancels nothing, tells nobody.
pub(crate) fn silent() -> (PackageProgress, PackageReports) {
    PackageProgress::channel()
}

/// What is in use of a package, as whoever follows the link finds it.
pub(crate) fn in_use(installer: &Installer, name: &str) -> Option<Vec<u8>> {
    let at = installer.installed(name)?;
    Some(std::fs::read(at.current.join(FILE)).unwrap())
}

pub(crate) fn has(statuses: &PackageStatuses, name: &str) -> Option<String> {
    Some(statuses.get(name)?.has()?.version().to_owned())
}

pub(crate) fn is_installed(statuses: &PackageStatuses, name: &str, version: &str) -> bool {
    matches!(statuses.get(name), Some(PackageStatus::Installed { has, .. }) if has.version() == version)
}

/// Why a package failed.
pub(crate) fn why(statuses: &PackageStatuses, name: &str) -> String {
    match statuses.get(name) {
        Some(PackageStatus::Failed { why, .. }) => why.reason().to_owned(),
        other => panic!("{name} has not failed: {other:?}"),
    }
}
