//! Records as rows.
//!
//! What queries need are columns. The rest of a record is one JSON text (`body`) with a `format` number beside it, and
//! the status parts, which are large and binary, are packed apart: part number (1 byte), length (4 bytes, big endian),
//! bytes, for each part that is present. A reader of this release refuses a format it does not know.

use std::collections::BTreeSet;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use opamp_proto::{AgentId, ConfigHash, Part, Wall};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::{
    AgentRecord, ApiToken, AuditEntry, BlobId, BlobPins, ChainHead, ConfigVersion, Lease, PackageKey,
    PackageVersion, ReadError, Revision, StoredParts,
};

/// The version of `body` and `parts` written by this release.
pub(super) const FORMAT: i64 = 1;

/// An agent's record, ready to be bound.
pub(super) struct EncodedAgent {
    pub(super) body: String,
    pub(super) parts: Vec<u8>,
}

impl EncodedAgent {
    /// Encodes a record, in the task of the caller and not in that of the writer.
    pub(super) fn of(record: &AgentRecord) -> Self {
        let mut body = record.clone();
        let parts = std::mem::take(&mut body.parts);
        body.revision = Revision::default();
        Self { body: encode_body(&body), parts: pack_parts(&parts) }
    }
}

/// JSON of a record. Strings, numbers and maps with string keys cannot fail to serialise.
#[expect(clippy::expect_used, reason = "record types contain nothing that JSON cannot represent")]
pub(super) fn encode_body<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).expect("records serialise")
}

pub(super) fn agent(row: &SqliteRow) -> Result<AgentRecord, ReadError> {
    let id: AgentId = id(row, "id")?;
    let name = || format!("agent {id}");
    let mut record: AgentRecord = body(row, name)?;
    record.revision = revision(row, "revision")?;
    record.parts =
        unpack_parts(row.try_get("parts")?).ok_or_else(|| corrupt(name(), "parts are cut short"))?;
    Ok(record)
}

pub(super) fn config_version(row: &SqliteRow) -> Result<ConfigVersion, ReadError> {
    let (config, version): (String, i64) = (row.try_get("config")?, row.try_get("version")?);
    let mut record: ConfigVersion = body(row, || format!("version {version} of config {config}"))?;
    record.revision = revision(row, "revision")?;
    Ok(record)
}

pub(super) fn package(row: &SqliteRow) -> Result<PackageVersion, ReadError> {
    let key = PackageKey::new(row.try_get::<String, _>("name")?, row.try_get::<String, _>("version")?);
    let mut record: PackageVersion = body(row, || format!("package version {key}"))?;
    record.revision = revision(row, "revision")?;
    Ok(record)
}

/// The column `packages`.
pub(super) fn package_pins(row: &SqliteRow) -> Result<BTreeSet<PackageKey>, ReadError> {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(row.try_get("packages")?).map_err(|error| corrupt("column packages", &error))?;
    Ok(pairs.into_iter().map(|(name, version)| PackageKey { name, version }).collect())
}

pub(super) fn pack_package_pins(keys: &BTreeSet<PackageKey>) -> String {
    let pairs: Vec<_> = keys.iter().map(|key| (&key.name, &key.version)).collect();
    encode_body(&pairs)
}

pub(super) fn token(row: &SqliteRow) -> Result<ApiToken, ReadError> {
    let id: String = row.try_get("id")?;
    body(row, || format!("token {id}"))
}

pub(super) fn audit_entry(row: &SqliteRow) -> Result<AuditEntry, ReadError> {
    let seq = row.try_get::<i64, _>("seq")?.cast_unsigned();
    let json = |column: &str| -> Result<Option<serde_json::Value>, ReadError> {
        let text: Option<String> = row.try_get(column)?;
        let parsed = text.map(|text| serde_json::from_str(&text)).transpose();
        parsed.map_err(|error| corrupt(format!("audit entry {seq}"), &error))
    };
    Ok(AuditEntry {
        seq,
        writer: row.try_get("writer")?,
        at: wall(row, "at")?,
        actor: row.try_get("actor")?,
        role: row.try_get("role")?,
        action: row.try_get("action")?,
        entity: row.try_get("entity")?,
        before: json("before")?,
        after: json("after")?,
        source: row.try_get("source")?,
        trace_id: row.try_get("trace_id")?,
        prev_hash: digest(row, "prev_hash")?,
        hash: digest(row, "hash")?,
    })
}

pub(super) fn chain(row: &SqliteRow) -> Result<(String, ChainHead), ReadError> {
    let head = ChainHead {
        length: row.try_get::<i64, _>("length")?.cast_unsigned(),
        seq: row.try_get::<i64, _>("seq")?.cast_unsigned(),
        hash: digest(row, "hash")?,
    };
    Ok((row.try_get("writer")?, head))
}

pub(super) fn lease(row: &SqliteRow) -> Result<Lease, ReadError> {
    Ok(Lease {
        role: row.try_get("role")?,
        holder: row.try_get("holder")?,
        epoch: row.try_get::<i64, _>("epoch")?.cast_unsigned(),
        expires_at: wall(row, "expires_at")?,
        store_time: wall(row, "store_time")?,
    })
}

pub(super) fn revision(row: &SqliteRow, column: &str) -> Result<Revision, ReadError> {
    Ok(Revision(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

/// An id of fixed length: of an agent, of an instance, of a blob.
pub(super) fn id<T: for<'a> TryFrom<&'a [u8]>>(row: &SqliteRow, column: &str) -> Result<T, ReadError> {
    let bytes: &[u8] = row.try_get(column)?;
    T::try_from(bytes).map_err(|_| corrupt(format!("column {column}"), "wrong length"))
}

pub(super) fn digest(row: &SqliteRow, column: &str) -> Result<[u8; 32], ReadError> {
    id(row, column)
}

/// The columns `pins`, `known_good_hash` and `known_good_blob`.
pub(super) fn pins(row: &SqliteRow) -> Result<BlobPins, ReadError> {
    let packed: &[u8] = row.try_get("pins")?;
    let (ids, rest) = packed.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(corrupt("column pins", "cut short"));
    }
    let blobs = ids.iter().map(|id| BlobId::from_bytes(*id)).collect();
    let hash: Option<Vec<u8>> = row.try_get("known_good_hash")?;
    let known_good = match hash {
        Some(hash) => Some((ConfigHash::new(hash), id(row, "known_good_blob")?)),
        None => None,
    };
    Ok(BlobPins { blobs, known_good })
}

pub(super) fn pack_pins(blobs: &BTreeSet<BlobId>) -> Vec<u8> {
    blobs.iter().flat_map(|id| *id.as_bytes()).collect()
}

/// A JSON array of hexadecimal ids, for `json_each` and `unhex`.
pub(super) fn hex_list<T: AsRef<[u8]>>(ids: impl IntoIterator<Item = T>) -> String {
    let mut list = String::from("[");
    for id in ids {
        list.push_str(if list.len() > 1 { ",\"" } else { "\"" });
        HEXLOWER.encode_append(id.as_ref(), &mut list);
        list.push('"');
    }
    list.push(']');
    list
}

/// A JSON array of texts, for `json_each`.
pub(super) fn text_list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts.into_iter().map(|text| serde_json::Value::from(text.as_ref()));
    serde_json::Value::Array(texts.collect()).to_string()
}

pub(super) fn corrupt(what: impl Into<String>, reason: &(impl ToString + ?Sized)) -> ReadError {
    ReadError::Corrupt { what: what.into(), reason: reason.to_string() }
}

fn wall(row: &SqliteRow, column: &str) -> Result<Wall, ReadError> {
    Ok(Wall(row.try_get::<i64, _>(column)?.cast_unsigned()))
}

fn body<T: DeserializeOwned>(row: &SqliteRow, name: impl Fn() -> String) -> Result<T, ReadError> {
    let format: i64 = row.try_get("format")?;
    if format != FORMAT {
        return Err(corrupt(name(), &format!("format {format}, this release reads {FORMAT}")));
    }
    serde_json::from_str(row.try_get("body")?).map_err(|error| corrupt(name(), &error))
}

fn pack_parts(parts: &StoredParts) -> Vec<u8> {
    let mut packed = Vec::with_capacity(parts.len_bytes() + 5 * StoredParts::PARTS.len());
    for (part, bytes) in parts.iter() {
        // Part numbers are field numbers below 256, and a batch of 64 MiB bounds the length.
        packed.push(part.field_number().to_be_bytes()[3]);
        packed.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        packed.extend(bytes);
    }
    packed
}

fn unpack_parts(packed: &[u8]) -> Option<StoredParts> {
    let mut parts = StoredParts::default();
    let mut rest = packed;
    while let Some((number, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk::<4>()?;
        let (bytes, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let part = Part::from_field_number(u32::from(*number))?;
        parts.set(part, Some(Bytes::copy_from_slice(bytes))).then_some(())?;
        rest = after;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_parts_read_back(contents in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), 7)) {
            let mut parts = StoredParts::default();
            for (part, bytes) in StoredParts::PARTS.into_iter().zip(contents) {
                parts.set(part, bytes.map(Bytes::from));
            }
            prop_assert_eq!(unpack_parts(&pack_parts(&parts)), Some(parts));
        }

        #[test]
        fn cut_or_arbitrary_parts_are_an_error_or_parts(packed in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(parts) = unpack_parts(&packed) {
                prop_assert!(parts.len_bytes() <= packed.len());
            }
        }
    }

    #[test]
    fn lists_are_json_arrays_of_hexadecimal_text() {
        assert_eq!(hex_list::<[u8; 0]>([]), "[]");
        assert_eq!(hex_list([[0_u8, 255], [16, 1]]), r#"["00ff","1001"]"#);
    }
}
