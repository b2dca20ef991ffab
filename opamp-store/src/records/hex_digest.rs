//! Serialisation of 32-byte digests as hexadecimal text, for `#[serde(with = …)]`.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serializer, de};

pub(super) fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&HEXLOWER.encode(digest))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let digest = HEXLOWER.decode(text.as_bytes()).map_err(de::Error::custom)?;
    digest.try_into().map_err(|_| de::Error::custom("a SHA-256 digest is 32 bytes"))
}
