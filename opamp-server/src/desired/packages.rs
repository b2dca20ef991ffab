//! Packages to offer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{ConfigHash, hash, pb};
use prost::Message;

use super::Offered;
use super::validate::{self, InvalidOffer};

/// Packages ready to be offered: checked, hashed, encoded once, shared by every agent they are meant for.
///
/// An offer of no packages is one too: it takes away from the agent what this server gave it (R-PKG-10, R-PKG-46).
#[derive(Clone)]
pub struct PackagesOffer(Arc<Inner>);

struct Inner {
    hash: ConfigHash,
    packages: pb::PackagesAvailable,
    encoded: Bytes,
}

impl PackagesOffer {
    /// Checks an offer, fills in the hash of every package that has none (R-PKG-51) and the aggregate hash (R-PKG-46), and
    /// encodes it.
    ///
    /// # Errors
    ///
    /// [`InvalidOffer`] for a package without its file, a file without an HTTP URL (R-PKG-04) or without the SHA-256 of its
    /// content (R-PKG-49), and headers that HTTP cannot carry. It names the field, never its value.
    pub fn new(mut packages: pb::PackagesAvailable) -> Result<Self, InvalidOffer> {
        validate::packages(&packages)?;
        for package in packages.packages.values_mut() {
            if package.hash.is_empty() {
                package.hash = hash::package_hash(package).to_bytes();
            }
        }
        if packages.all_packages_hash.is_empty() {
            packages.all_packages_hash = hash::all_packages_hash(&packages.packages).to_bytes();
        }
        Ok(Self::restored(packages))
    }

    /// An offer that was accepted once and comes back from storage: taken as it is, hashes included.
    pub fn restored(packages: pb::PackagesAvailable) -> Self {
        let hash = match packages.all_packages_hash.is_empty() {
            true => hash::all_packages_hash(&packages.packages),
            false => ConfigHash::new(packages.all_packages_hash.clone()),
        };
        let packages = pb::PackagesAvailable { all_packages_hash: hash.to_bytes(), ..packages };
        let encoded = packages.encode_to_vec().into();
        Self(Arc::new(Inner { hash, encoded, packages }))
    }

    /// The aggregate hash, which the agent reports back.
    pub fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }

    /// The offer in full, hashes filled in. Its headers may hold secrets; their `Debug` hides them.
    pub fn packages(&self) -> &pb::PackagesAvailable {
        &self.0.packages
    }

    /// The encoded `PackagesAvailable`.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }
}

impl Offered for PackagesOffer {
    fn hash(&self) -> &ConfigHash {
        &self.0.hash
    }
}

/// Shows hash and names, never URLs or headers.
impl fmt::Debug for PackagesOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackagesOffer")
            .field("hash", &self.0.hash)
            .field("packages", &self.0.packages.packages.keys())
            .finish()
    }
}
