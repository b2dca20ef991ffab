//! Content addresses.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// The name of a blob: SHA-256 of its bytes. Shown and serialised as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; 32]);

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// An id from the 32 bytes of a digest that is already known.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Bytes with their content address, which is computed once however often they are handed on.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    pub(crate) id: BlobId,
    pub(crate) bytes: Bytes,
}

impl Blob {
    /// These bytes under their address.
    pub fn new(bytes: Bytes) -> Self {
        Self { id: BlobId::of(&bytes), bytes }
    }

    /// The address.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// What it counts for in [`WriteBatch::bytes`](crate::WriteBatch::bytes).
    pub fn weight(&self) -> usize {
        crate::WriteBatch::blob_weight(&self.bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

/// Shows address and length: there may be secrets in it.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("id", &self.id).field("bytes", &self.bytes.len()).finish()
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        let digest = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| BlobIdError)?;
        Ok(Self(digest.try_into().map_err(|_| BlobIdError)?))
    }
}

impl TryFrom<&[u8]> for BlobId {
    type Error = BlobIdError;

    fn try_from(digest: &[u8]) -> Result<Self, BlobIdError> {
        Ok(Self(digest.try_into().map_err(|_| BlobIdError)?))
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Text or bytes that are not a SHA-256 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a blob id is 32 bytes, written as 64 hexadecimal digits")]
pub struct BlobIdError;
