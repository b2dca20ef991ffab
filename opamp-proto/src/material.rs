//! Whether a status has changed in a way that matters.
//!
//! Agents repeat themselves: health with a new timestamp every second, attributes in another order each time, because the
//! maps of their language have none. A *material* change is one of a status, hash, label, version, capability or health bit. The
//! digests here are equal exactly when nothing material differs, up to the chance of a 64-bit collision: they are for telling
//! a repetition from a change, not for security. Nothing is allocated. Digests are stable across versions of this crate, so
//! they may be stored.
//!
//! Not material: start and status times and the attributes of health at every level (a change of the start time is a fact
//! of its own), details of a download in progress, the order of map entries, attributes, key/value lists and capability
//! names, unknown fields, and the difference between absent and default where the protocol knows none.

use crate::part::Part;
use crate::schema::{AGENT_TO_SERVER, COMPONENT_HEALTH, Field, Kind, Message, Shape};
use crate::wire::{self, Value};

/// Odd constants with about half of their bits set: the fractions of the square roots of 2, 3, 5 and 7.
const KEYS: [u64; 4] =
    [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];
/// Accepted messages never nest deeper. Below, bytes count as they are.
const DEPTH_MAX: u32 = 100;

/// The top of a health report, without what lies below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthSummary<'a> {
    /// Up and well.
    pub healthy: bool,
    /// When the agent started, in nanoseconds since the Unix epoch; 0 if it is not running.
    pub start_time_unix_nano: u64,
    /// The agent's own word for its state.
    pub status: &'a str,
    /// What went wrong last.
    pub last_error: &'a str,
}

/// The digest of an encoded part of `AgentToServer`. Of malformed bytes, which no accepted message holds, it is the digest
/// of what they say before that, and of the rest as it is.
#[must_use]
pub fn digest(part: Part, encoded: &[u8]) -> u64 {
    match AGENT_TO_SERVER.field(part.field_number()) {
        Some(Field { kind: Kind::Message(schema), .. }) => message_digest(schema, encoded, DEPTH_MAX),
        _ => bytes_digest(encoded),
    }
}

/// The digest of an encoded `ComponentHealth`; the same as [`digest`] of [`Part::Health`].
#[must_use]
pub fn health_digest(encoded: &[u8]) -> u64 {
    message_digest(&COMPONENT_HEALTH, encoded, DEPTH_MAX)
}

/// The top of an encoded `ComponentHealth`; fields that are malformed read as absent.
#[must_use]
pub fn health_summary(encoded: &[u8]) -> HealthSummary<'_> {
    let mut summary = HealthSummary::default();
    for (number, value) in wire::fields(encoded) {
        match (number, value) {
            (1, Value::Varint(healthy)) => summary.healthy = healthy != 0,
            (2, Value::Fixed64(time)) => summary.start_time_unix_nano = time,
            (3, Value::Bytes(text)) => summary.last_error = std::str::from_utf8(text).unwrap_or_default(),
            (4, Value::Bytes(text)) => summary.status = std::str::from_utf8(text).unwrap_or_default(),
            _ => {}
        }
    }
    summary
}

fn message_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let Some(depth) = depth.checked_sub(1) else { return bytes_digest(encoded) };
    match schema.shape {
        Shape::Entry => entry_digest(schema, encoded, depth),
        Shape::OneOf | Shape::Plain => set_digest(schema, encoded, depth),
    }
}

/// A sum over the fields does not depend on their order, and unlike an exclusive or it counts repetitions.
fn set_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let mut sum = 0_u64;
    let mut place = 0;
    let mut fields = wire::fields(encoded);
    for (number, value) in fields.by_ref() {
        let Some(field) = schema.field(number).filter(|field| field.material) else { continue };
        let keeps_default = schema.shape == Shape::OneOf;
        let Some(mut digest) = value_digest(field.kind, value, keeps_default, depth) else { continue };
        if let Kind::MessageSequence(_) = field.kind {
            place += 1;
            digest = fold(digest ^ KEYS[1], place ^ KEYS[2]);
        }
        sum = sum.wrapping_add(fold(digest ^ KEYS[0], u64::from(number).wrapping_mul(KEYS[3])));
    }
    if !fields.rest.is_empty() {
        sum = sum.wrapping_add(bytes_digest(fields.rest));
    }
    fold(sum ^ KEYS[2], KEYS[1])
}

/// A missing key is the empty one, a missing value the empty message.
fn entry_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let (mut key, mut content): (&[u8], &[u8]) = (&[], &[]);
    for (number, value) in wire::fields(encoded) {
        match (number, value) {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => content = bytes,
            _ => {}
        }
    }
    let content = match schema.field(2) {
        Some(Field { kind: Kind::Message(schema), .. }) => message_digest(schema, content, depth),
        _ => bytes_digest(content),
    };
    fold(bytes_digest(key) ^ KEYS[3], content ^ KEYS[0])
}

/// `None` for a default that is the same as absent, and for a value that the field cannot have.
#[inline]
fn value_digest(kind: Kind, value: Value<'_>, keeps_default: bool, depth: u32) -> Option<u64> {
    match (kind, value) {
        (Kind::Varint, Value::Varint(number)) | (Kind::Fixed64, Value::Fixed64(number)) => {
            (keeps_default || number != 0).then(|| fold(number ^ KEYS[1], KEYS[3]))
        }
        (Kind::Bytes | Kind::Text, Value::Bytes(bytes)) => {
            (keeps_default || !bytes.is_empty()).then(|| bytes_digest(bytes))
        }
        (Kind::TextList, Value::Bytes(bytes)) => Some(bytes_digest(bytes)),
        (
            Kind::Message(schema)
            | Kind::MessageList(schema)
            | Kind::MessageSequence(schema)
            | Kind::Map(schema),
            Value::Bytes(bytes),
        ) => Some(message_digest(schema, bytes, depth)),
        _ => None,
    }
}

#[inline]
fn bytes_digest(bytes: &[u8]) -> u64 {
    let mut digest = KEYS[0] ^ (bytes.len() as u64).wrapping_mul(KEYS[1]);
    let (pairs, tail) = bytes.as_chunks::<16>();
    for pair in pairs {
        digest = mix_pair(digest, pair);
    }
    if !tail.is_empty() {
        // The length is part of the digest, so zeros at the end are told from none.
        let mut pair = [0; 16];
        pair[..tail.len()].copy_from_slice(tail);
        digest = mix_pair(digest, &pair);
    }
    fold(digest ^ KEYS[3], KEYS[2])
}

#[inline]
fn mix_pair(digest: u64, pair: &[u8; 16]) -> u64 {
    let number = u128::from_le_bytes(*pair);
    let (low, high) = (number as u64, (number >> 64) as u64);
    fold(low ^ KEYS[1], high ^ digest).wrapping_add(digest.rotate_left(23))
}

/// Both halves of the product: every bit of either factor reaches every bit of the result.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}
