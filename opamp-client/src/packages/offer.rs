//! Packages as a server offers them: checked, bounded, and each for itself where one is no good.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};

use super::status::PackageVersion;

/// Bounds on an offer of packages. What would have to be repeated in reports and is beyond one fails the whole offer;
/// what concerns a single file fails that package (R-SEC-01).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferLimits {
    /// Packages of one offer. Default 256. Each is reported with every change of any.
    pub packages_max: usize,
    /// Length of a name or version in bytes. Default 256.
    pub name_bytes_max: usize,
    /// Length of the hash of all packages, or of one, in bytes. Default 1,024. They are kept and reported as they are.
    pub hash_bytes_max: usize,
    /// Length of a download address in bytes. Default 8,192.
    pub url_bytes_max: usize,
    /// Headers of one download. Default 64.
    pub headers_max: usize,
    /// Names and values of the headers of one download together, in bytes. Default 16,384.
    pub header_bytes_max: usize,
    /// Length of a signature in bytes. Default 16,384. Ed25519 needs 64; other handlers may have certificates in it.
    pub signature_bytes_max: usize,
}

/// All packages that a server wants an agent to have (spec section "Packages").
///
/// Trust nothing in it: where its files come from and what is in them is the word of the server alone, until a
/// signature says otherwise (R-SEC-10).
#[derive(Clone, Debug, PartialEq)]
pub struct PackagesOffer {
    hash: ConfigHash,
    packages: BTreeMap<String, OfferedPackage>,
}

/// One offered package. Its name is the key under which it stands in the [`PackagesOffer`].
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedPackage {
    version: PackageVersion,
    kind: PackageKind,
    file: Result<OfferedFile, FileProblem>,
}

/// What a package is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackageKind {
    /// Something that extends the agent.
    Addon,
    /// The agent itself. A sole one may have the empty name (R-PKG-02).
    TopLevel,
    /// Of a later version of the protocol.
    Unknown(i32),
}

/// The file of a package, and where to get it.
#[derive(Clone, PartialEq)]
pub struct OfferedFile {
    url: String,
    content_hash: [u8; 32],
    signature: Bytes,
    headers: Vec<(String, String)>,
}

/// Why an offer as a whole cannot be processed; the text is reported (R-PKG-26).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPackagesOffer {
    /// It has no hash to be known by.
    #[error("the offer of packages has no all_packages_hash")]
    NoHash,
    /// A package has no hash to be known by.
    #[error("the offered package {name:?} has no hash")]
    NoPackageHash {
        /// Which.
        name: String,
    },
    /// Something is longer than this agent takes.
    #[error("{what} of an offered package has {bytes} bytes; this agent takes {max} at most")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// It has more packages than this agent takes.
    #[error("{count} packages are offered; this agent takes {max} at most")]
    TooMany {
        /// How many.
        count: usize,
        /// The bound.
        max: usize,
    },
}

/// Why the file of one package cannot be had; the others of the offer can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// What should be the SHA-256 of the content has another length.
    #[error("the offered content_hash has {0} bytes; a SHA-256 has 32")]
    ContentHash(usize),
    /// There is no file.
    #[error("the offer names no file")]
    Missing,
    /// There is no address.
    #[error("the offer has no download_url")]
    NoUrl,
    /// Something is longer than this agent takes.
    #[error("the offered {what} is too long: {size}; this agent takes {max} at most")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How many or how long.
        size: usize,
        /// The bound.
        max: usize,
    },
}

impl Default for OfferLimits {
    fn default() -> Self {
        Self {
            packages_max: 256,
            name_bytes_max: 256,
            hash_bytes_max: 1_024,
            url_bytes_max: 8 << 10,
            headers_max: 64,
            header_bytes_max: 16 << 10,
            signature_bytes_max: 16 << 10,
        }
    }
}

impl PackagesOffer {
    /// Takes an offer as it was received. What is kept of it are copies, so that a message is not kept for the sake of a hash.
    ///
    /// # Errors
    ///
    /// [`InvalidPackagesOffer`] if it cannot be processed at all. A file that is no good is none: see
    /// [`OfferedPackage::file`].
    pub fn new(offer: pb::PackagesAvailable, limits: &OfferLimits) -> Result<Self, InvalidPackagesOffer> {
        let hash = hash("the hash of all packages", &offer.all_packages_hash, limits)?;
        if hash.is_empty() {
            return Err(InvalidPackagesOffer::NoHash);
        }
        let (count, max) = (offer.packages.len(), limits.packages_max);
        if count > max {
            return Err(InvalidPackagesOffer::TooMany { count, max });
        }
        let mut packages = BTreeMap::new();
        for (name, package) in offer.packages {
            bounded("the name", name.len(), limits.name_bytes_max)?;
            let package = OfferedPackage::new(&name, package, limits)?;
            packages.insert(name, package);
        }
        Ok(Self { hash, packages })
    }

    /// The hash the server knows it by; opaque (R-PKG-41).
    #[must_use]
    pub const fn hash(&self) -> &ConfigHash {
        &self.hash
    }

    /// The packages by name, in the order of names; the name may be empty (R-PKG-02).
    pub fn packages(&self) -> impl ExactSizeIterator<Item = (&str, &OfferedPackage)> {
        self.packages.iter().map(|(name, package)| (name.as_str(), package))
    }

    /// The package of this name.
    #[must_use]
    pub fn package(&self, name: &str) -> Option<&OfferedPackage> {
        self.packages.get(name)
    }
}

impl OfferedPackage {
    fn new(
        name: &str,
        package: pb::PackageAvailable,
        limits: &OfferLimits,
    ) -> Result<Self, InvalidPackagesOffer> {
        bounded("the version", package.version.len(), limits.name_bytes_max)?;
        let hash = hash("the hash", &package.hash, limits)?;
        if hash.is_empty() {
            return Err(InvalidPackagesOffer::NoPackageHash { name: name.to_owned() });
        }
        let kind = match pb::PackageType::try_from(package.r#type) {
            Ok(pb::PackageType::Addon) => PackageKind::Addon,
            Ok(pb::PackageType::TopLevel) => PackageKind::TopLevel,
            Err(_) => PackageKind::Unknown(package.r#type),
        };
        let file = package.file.ok_or(FileProblem::Missing).and_then(|file| OfferedFile::new(file, limits));
        Ok(Self { version: PackageVersion::new(package.version, hash), kind, file })
    }

    /// Version and hash, as they are reported back.
    #[must_use]
    pub const fn version(&self) -> &PackageVersion {
        &self.version
    }

    /// What the package is to the agent.
    #[must_use]
    pub const fn kind(&self) -> PackageKind {
        self.kind
    }

    /// Its file.
    ///
    /// # Errors
    ///
    /// [`FileProblem`] if that cannot be had from what was offered. The package failed then, and no other.
    pub const fn file(&self) -> Result<&OfferedFile, &FileProblem> {
        self.file.as_ref()
    }
}

impl OfferedFile {
    fn new(file: pb::DownloadableFile, limits: &OfferLimits) -> Result<Self, FileProblem> {
        let bounded = |what, size, max| {
            if size > max { Err(FileProblem::TooLong { what, size, max }) } else { Ok(()) }
        };
        if file.download_url.is_empty() {
            return Err(FileProblem::NoUrl);
        }
        bounded("download_url", file.download_url.len(), limits.url_bytes_max)?;
        bounded("signature", file.signature.len(), limits.signature_bytes_max)?;
        let headers = file.headers.unwrap_or_default().headers;
        bounded("list of headers", headers.len(), limits.headers_max)?;
        let bytes = headers.iter().map(|header| header.key.len() + header.value.len()).sum();
        bounded("text of headers", bytes, limits.header_bytes_max)?;
        let content_hash = file.content_hash.as_ref().try_into();
        Ok(Self {
            content_hash: content_hash.map_err(|_| FileProblem::ContentHash(file.content_hash.len()))?,
            url: file.download_url,
            signature: Bytes::copy_from_slice(&file.signature),
            headers: headers.into_iter().map(|header| (header.key, header.value)).collect(),
        })
    }

    /// Where it is fetched from, by GET (R-PKG-13). May hold credentials, so it belongs into no log.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The SHA-256 of the content (R-PKG-49).
    #[must_use]
    pub const fn content_hash(&self) -> &[u8; 32] {
        &self.content_hash
    }

    /// The detached signature; empty if there is none (R-PKG-50).
    #[must_use]
    pub const fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// Headers for the GET, in the order offered (R-PKG-14). Their values are secrets.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Shows neither the address, which may hold a token, nor values of headers.
impl fmt::Debug for OfferedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers().map(|(name, _)| name).collect();
        f.debug_struct("OfferedFile")
            .field("content_hash", &ConfigHash::new(self.content_hash.to_vec()))
            .field("signature_bytes", &self.signature.len())
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

fn hash(what: &'static str, bytes: &Bytes, limits: &OfferLimits) -> Result<ConfigHash, InvalidPackagesOffer> {
    bounded(what, bytes.len(), limits.hash_bytes_max)?;
    Ok(ConfigHash::new(bytes.to_vec()))
}

const fn bounded(what: &'static str, bytes: usize, max: usize) -> Result<(), InvalidPackagesOffer> {
    if bytes > max { Err(InvalidPackagesOffer::TooLong { what, bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> pb::PackageAvailable {
        pb::PackageAvailable {
            version: "1.2".into(),
            hash: Bytes::from_static(b"p"),
            file: Some(pb::DownloadableFile {
                download_url: "https://h/secret-path?token=secret-token".into(),
                content_hash: vec![7; 32].into(),
                headers: Some(pb::Headers {
                    headers: vec![pb::Header { key: "authorization".into(), value: "secret-value".into() }],
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn offer(packages: impl IntoIterator<Item = (String, pb::PackageAvailable)>) -> pb::PackagesAvailable {
        pb::PackagesAvailable {
            packages: packages.into_iter().collect(),
            all_packages_hash: Bytes::from_static(b"a"),
        }
    }

    fn taken(offer: pb::PackagesAvailable) -> Result<PackagesOffer, InvalidPackagesOffer> {
        PackagesOffer::new(offer, &OfferLimits::default())
    }

    fn file_of(change: impl FnOnce(&mut pb::DownloadableFile)) -> Result<OfferedFile, FileProblem> {
        let mut package = available();
        change(package.file.as_mut().unwrap());
        let offer = taken(offer([("x".to_owned(), package), ("y".to_owned(), available())])).unwrap();
        assert!(offer.package("y").unwrap().file().is_ok(), "the other package is none the worse for it");
        offer.package("x").unwrap().file().cloned().map_err(Clone::clone)
    }

    #[test]
    fn hashes_of_any_length_names_and_headers_pass_through_untouched() {
        let mut package = available();
        package.hash = vec![0; 33].into();
        let mut offer = offer([(String::new(), package)]);
        offer.all_packages_hash = vec![1, 2, 3].into();
        let taken = taken(offer).unwrap();
        assert_eq!(taken.hash().as_bytes(), [1, 2, 3]);
        let package = taken.package("").unwrap();
        assert_eq!(package.version().hash().as_bytes(), [0; 33]);
        let file = package.file().unwrap();
        assert_eq!(file.headers().collect::<Vec<_>>(), [("authorization", "secret-value")]);
        assert!(file.url().ends_with("secret-token"));
    }

    #[test]
    fn what_has_no_hash_or_is_beyond_a_bound_fails_the_whole_offer() {
        let limits = OfferLimits::default();
        let mut nameless = offer([]);
        nameless.all_packages_hash = Bytes::new();
        assert_eq!(taken(nameless), Err(InvalidPackagesOffer::NoHash));
        let no_hash = pb::PackageAvailable { hash: Bytes::new(), ..available() };
        let refused = taken(offer([("x".to_owned(), no_hash)]));
        assert_eq!(refused, Err(InvalidPackagesOffer::NoPackageHash { name: "x".into() }));
        let many = (0..=limits.packages_max).map(|number| (number.to_string(), available()));
        assert_eq!(
            taken(offer(many)),
            Err(InvalidPackagesOffer::TooMany { count: limits.packages_max + 1, max: limits.packages_max })
        );
        let most = (0..limits.packages_max).map(|number| (number.to_string(), available()));
        assert!(taken(offer(most)).is_ok());
        let too_long = |offer| matches!(taken(offer), Err(InvalidPackagesOffer::TooLong { .. }));
        assert!(too_long(offer([("n".repeat(limits.name_bytes_max + 1), available())])));
        let version = pb::PackageAvailable { version: "v".repeat(257), ..available() };
        assert!(too_long(offer([("x".to_owned(), version)])));
        let hash = pb::PackageAvailable { hash: vec![0; limits.hash_bytes_max + 1].into(), ..available() };
        assert!(too_long(offer([("x".to_owned(), hash)])));
        let mut all = offer([]);
        all.all_packages_hash = vec![0; limits.hash_bytes_max + 1].into();
        assert!(too_long(all));
    }

    #[test]
    fn a_file_that_is_no_good_fails_its_package_alone() {
        assert_eq!(file_of(|file| file.download_url.clear()), Err(FileProblem::NoUrl));
        assert_eq!(file_of(|file| file.content_hash = Bytes::new()), Err(FileProblem::ContentHash(0)));
        assert_eq!(file_of(|file| file.content_hash = vec![0; 31].into()), Err(FileProblem::ContentHash(31)));
        let too_long = |file| matches!(file, Err(FileProblem::TooLong { .. }));
        assert!(too_long(file_of(|file| file.download_url = format!("https://{}", "h".repeat(8 << 10)))));
        assert!(too_long(file_of(|file| file.signature = vec![0; (16 << 10) + 1].into())));
        let header = || pb::Header { key: "x".into(), value: "y".into() };
        assert!(too_long(file_of(|file| {
            file.headers = Some(pb::Headers { headers: vec![header(); 65] });
        })));
        assert!(too_long(file_of(|file| {
            let long = pb::Header { value: "y".repeat(16 << 10), ..header() };
            file.headers = Some(pb::Headers { headers: vec![long] });
        })));
        let missing = pb::PackageAvailable { file: None, ..available() };
        let offer = taken(offer([("x".to_owned(), missing)])).unwrap();
        assert_eq!(offer.package("x").unwrap().file(), Err(&FileProblem::Missing));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", taken(offer([("x".to_owned(), available())])).unwrap());
        assert!(shown.contains("authorization") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn kinds_of_later_versions_are_kept_apart() {
        let kind = |number| {
            let package = pb::PackageAvailable { r#type: number, ..available() };
            taken(offer([("x".to_owned(), package)])).unwrap().package("x").unwrap().kind()
        };
        assert_eq!(
            [kind(0), kind(1), kind(7)],
            [PackageKind::TopLevel, PackageKind::Addon, PackageKind::Unknown(7)]
        );
    }
}
