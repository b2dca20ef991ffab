//! The package catalogue.

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use opamp_proto::Wall;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hex_digest;
use crate::Revision;

/// Which version of which package. Ordered by name, then by version, both by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageKey {
    /// Name of the package; the sole top-level package of an agent may have the empty one (R-PKG-02).
    pub name: String,
    /// The version, 1 to 255 bytes.
    pub version: String,
}

impl PackageKey {
    /// A key of these.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into() }
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.name.len() + self.version.len()
    }
}

impl fmt::Display for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// One version of a package: one file. It never changes; it can be deleted while no agent is meant to have it.
///
/// The content lies in blobs of [`chunk_bytes`](PackageVersion::chunk_bytes) each, the last one perhaps shorter, so that
/// any range of it is read without the rest. Which blobs these are is read with
/// [`package_chunks`](crate::PackageStore::package_chunks).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageVersion {
    /// Which.
    #[serde(flatten)]
    pub key: PackageKey,
    /// Top-level or an add-on.
    pub kind: PackageKind,
    /// Length of the content, at least 1.
    pub size_bytes: u64,
    /// SHA-256 of the content.
    #[serde(with = "hex_digest")]
    pub content_sha256: [u8; 32],
    /// A signature of the content, in whatever way agents verify it.
    #[serde(default, with = "base64_bytes", skip_serializing_if = "Option::is_none")]
    pub signature: Option<Bytes>,
    /// Length of every chunk but the last.
    pub chunk_bytes: u32,
    /// When it was published.
    pub created_at: Wall,
    /// By whom.
    pub created_by: String,
    /// The commit that wrote this record. Set by the store.
    #[serde(default)]
    pub revision: Revision,
}

impl PackageVersion {
    /// How many package versions a store keeps; one more is refused.
    pub const PACKAGES_MAX: usize = 10_000;
    /// The most chunks one version can have: 16 GiB in chunks of 1 MiB.
    pub const CHUNKS_MAX: usize = 16_384;
    /// The longest signature, in bytes.
    pub const SIGNATURE_BYTES_MAX: usize = 16 << 10;

    /// How many chunks content of this size has.
    pub fn chunk_count(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.chunk_bytes.max(1)))
    }
}

/// Shows the length of the signature only.
impl fmt::Debug for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageVersion")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("size_bytes", &self.size_bytes)
            .field("content_sha256", &data_encoding::HEXLOWER.encode(&self.content_sha256))
            .field("signature_bytes", &self.signature.as_ref().map(Bytes::len))
            .field("chunk_bytes", &self.chunk_bytes)
            .field("created_at", &self.created_at)
            .field("created_by", &self.created_by)
            .field("revision", &self.revision)
            .finish()
    }
}

/// What a package is to its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageKind {
    /// An add-on, also called sub-package.
    AddOn,
    /// The agent itself, or something of the same rank.
    TopLevel,
}

impl PackageKind {
    /// `add_on` or `top_level`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddOn => "add_on",
            Self::TopLevel => "top_level",
        }
    }
}

/// Bytes as base64 text.
mod base64_bytes {
    use super::{BASE64, Bytes, Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let decoded = text.map(|text| BASE64.decode(text.as_bytes())).transpose();
        Ok(decoded.map_err(de::Error::custom)?.map(Bytes::from))
    }
}
