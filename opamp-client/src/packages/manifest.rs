//! What is installed, as it is kept on disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use opamp_proto::ConfigHash;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::offer::{OfferedFile, OfferedPackage, PackageKind};
use super::status::PackageVersion;
use crate::config::Rejected;

/// What the file begins with; a checksum and the message follow.
const HEADER: &[u8] = b"opamp-packages 1\n";

/// All packages that came from the server.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Manifest {
    /// The offer that came to an end last.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) received: Bytes,
    /// Number of the last directory that was made for a version.
    #[prost(uint64, tag = "2")]
    pub(super) last_id: u64,
    #[prost(btree_map = "string, message", tag = "3")]
    pub(super) entries: BTreeMap<String, Entry>,
}

/// One package.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    /// In use.
    #[prost(message, optional, tag = "1")]
    pub(super) installed: Option<Version>,
    /// Being put into place. Whether the link leads to it already is not said here: after a crash it is put back.
    #[prost(message, optional, tag = "2")]
    pub(super) trying: Option<Version>,
    /// The last offer, if it failed.
    #[prost(message, optional, tag = "3")]
    pub(super) failed: Option<Failed>,
    /// The agent ended while it was at this.
    #[prost(message, optional, tag = "4")]
    pub(super) interrupted: Option<Interrupted>,
}

/// A version of a package in a directory of its own.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Version {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) hash: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) content_hash: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) kind: i32,
    /// Names its directory.
    #[prost(uint64, tag = "5")]
    pub(super) id: u64,
}

/// An offer that failed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Failed {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) hash: Bytes,
    #[prost(string, tag = "3")]
    pub(super) why: String,
}

/// How often the agent ended while it installed what has this hash.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Interrupted {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) hash: Bytes,
    #[prost(uint32, tag = "2")]
    pub(super) count: u32,
}

impl Manifest {
    pub(super) fn to_file(&self) -> Vec<u8> {
        let message = self.encode_to_vec();
        [HEADER, &Sha256::digest(&message), &message].concat()
    }

    /// `None` for what was not written by [`Manifest::to_file`].
    pub(super) fn from_file(file: &[u8]) -> Option<Self> {
        let (checksum, message) = file.strip_prefix(HEADER)?.split_at_checked(32)?;
        (Sha256::digest(message)[..] == *checksum).then(|| Self::decode(message).ok()).flatten()
    }
}

impl Entry {
    /// Whether nothing is known of the package any more.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Version {
    pub(super) fn new(package: &OfferedPackage, file: &OfferedFile, id: u64) -> Self {
        Self {
            version: package.version().version().to_owned(),
            hash: package.version().hash().to_bytes(),
            content_hash: file.content_hash().to_vec().into(),
            kind: match package.kind() {
                PackageKind::TopLevel => 0,
                PackageKind::Addon => 1,
                PackageKind::Unknown(other) => other,
            },
            id,
        }
    }

    pub(super) fn told(&self) -> PackageVersion {
        PackageVersion::new(self.version.clone(), ConfigHash::new(self.hash.clone()))
    }

    pub(super) const fn kind(&self) -> PackageKind {
        match self.kind {
            0 => PackageKind::TopLevel,
            1 => PackageKind::Addon,
            other => PackageKind::Unknown(other),
        }
    }

    pub(super) fn is(&self, offered: &PackageVersion) -> bool {
        self.hash == offered.hash().as_bytes()
    }
}

impl Failed {
    pub(super) fn new(offered: &PackageVersion, why: &Rejected) -> Self {
        Self {
            version: offered.version().to_owned(),
            hash: offered.hash().to_bytes(),
            why: why.reason().to_owned(),
        }
    }

    pub(super) fn told(&self) -> PackageVersion {
        PackageVersion::new(self.version.clone(), ConfigHash::new(self.hash.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_written_and_anything_else_is_none() {
        let entry = Entry {
            installed: Some(Version { version: "1".into(), id: 7, ..Version::default() }),
            ..Entry::default()
        };
        let manifest = Manifest {
            received: Bytes::from_static(b"a"),
            last_id: 7,
            entries: [(String::new(), entry)].into(),
        };
        let file = manifest.to_file();
        assert_eq!(Manifest::from_file(&file), Some(manifest));
        for cut in 0..file.len() {
            assert_eq!(Manifest::from_file(&file[..cut]), None, "cut at {cut}");
        }
        for position in 0..file.len() {
            let mut other = file.clone();
            other[position] ^= 1;
            assert_eq!(Manifest::from_file(&other), None, "changed at {position}");
        }
    }
}
