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
use crate::wire::{self, WireType};

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

/// What a report about a remote configuration says, without the error message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteConfigSummary<'a> {
    /// `last_remote_config_hash`: the configuration that is meant.
    pub hash: &'a [u8],
    /// A [`RemoteConfigStatuses`](crate::pb::RemoteConfigStatuses), or a number none of them has.
    pub status: i32,
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
    let mut rest = encoded;
    while !rest.is_empty() {
        let Ok((number, wire_type)) = wire::key(&mut rest) else { break };
        let read = match (number, wire_type) {
            (1, WireType::Varint) => {
                wire::varint(&mut rest).ok().map(|healthy| summary.healthy = healthy != 0)
            }
            (2, WireType::Fixed64) => {
                wire::fixed64(&mut rest).map(|time| summary.start_time_unix_nano = time)
            }
            (3, WireType::Bytes) => wire::delimited(&mut rest)
                .map(|text| summary.last_error = std::str::from_utf8(text).unwrap_or_default()),
            (4, WireType::Bytes) => wire::delimited(&mut rest)
                .map(|text| summary.status = std::str::from_utf8(text).unwrap_or_default()),
            (_, WireType::Bytes) => wire::delimited(&mut rest).map(|_| ()),
            (_, other) => wire::skip(other, rest).map(|tail| rest = tail),
        };
        if read.is_none() {
            break;
        }
    }
    summary
}

/// The top of an encoded `RemoteConfigStatus`: of an accepted message what the decoder reads, none of bytes that cannot be
/// read to their end. The error message is not looked at.
#[must_use]
pub fn remote_config_summary(encoded: &[u8]) -> Option<RemoteConfigSummary<'_>> {
    let mut summary = RemoteConfigSummary::default();
    let mut rest = encoded;
    while !rest.is_empty() {
        match wire::key(&mut rest).ok()? {
            (1, WireType::Bytes) => summary.hash = wire::delimited(&mut rest)?,
            (2, WireType::Varint) => summary.status = wire::varint(&mut rest).ok()? as i32,
            (1 | 2, _) => return None,
            (_, other) => rest = wire::skip(other, rest)?,
        }
    }
    Some(summary)
}

fn message_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let Some(depth) = depth.checked_sub(1) else { return bytes_digest(encoded) };
    match schema.shape {
        Shape::Entry => entry_digest(schema, encoded, depth),
        Shape::OneOf | Shape::Plain => set_digest(schema, encoded, depth),
    }
}

/// Digests of the fields of a message, put together. A sum does not depend on their order, and unlike an exclusive or it counts
/// repetitions.
#[derive(Default)]
pub(crate) struct Fields {
    sum: u64,
    place: u64,
}

impl Fields {
    /// Adds a field that is material and not the same as absent.
    #[inline]
    pub(crate) fn add(&mut self, number: u32, digest: u64) {
        self.sum = self.sum.wrapping_add(fold(digest ^ KEYS[0], u64::from(number).wrapping_mul(KEYS[3])));
    }

    /// Adds one whose place among its like counts.
    #[inline]
    pub(crate) fn add_in_sequence(&mut self, number: u32, digest: u64) {
        self.place += 1;
        self.add(number, fold(digest ^ KEYS[1], self.place ^ KEYS[2]));
    }

    /// The digest of the message.
    #[inline]
    pub(crate) fn digest(&self) -> u64 {
        fold(self.sum ^ KEYS[2], KEYS[1])
    }
}

fn set_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let keeps_default = schema.shape == Shape::OneOf;
    let mut fields = Fields::default();
    let mut rest = encoded;
    while !rest.is_empty() {
        let begin = rest;
        match field_digest(schema, &mut rest, keeps_default, depth) {
            Some((number, Some((digest, false)))) => fields.add(number, digest),
            Some((number, Some((digest, true)))) => fields.add_in_sequence(number, digest),
            Some((_, None)) => {}
            None => {
                fields.sum = fields.sum.wrapping_add(bytes_digest(begin));
                break;
            }
        }
    }
    fields.digest()
}

/// Number and digest of the next field, and whether its place among its like counts. No digest for what is not material, for
/// a default that is the same as absent, and for a value that the field cannot have. `None` if the field is malformed.
#[inline]
fn field_digest(
    schema: &Message,
    rest: &mut &[u8],
    keeps_default: bool,
    depth: u32,
) -> Option<(u32, Option<(u64, bool)>)> {
    let (number, wire_type) = wire::key(rest).ok()?;
    let material = schema.field(number).filter(|field| field.material);
    // By wire type first, as the validator does: what comes next depends on this byte alone, and not on a table.
    let digest = match wire_type {
        WireType::Bytes => {
            let content = wire::delimited(rest)?;
            material.and_then(|field| content_digest(field.kind, content, keeps_default, depth))
        }
        WireType::Varint => {
            let value = wire::varint(rest).ok()?;
            let fits = material.is_some_and(|field| matches!(field.kind, Kind::Varint));
            (fits && (keeps_default || value != 0)).then(|| (number_digest(value), false))
        }
        WireType::Fixed64 => {
            let value = wire::fixed64(rest)?;
            let fits = material.is_some_and(|field| matches!(field.kind, Kind::Fixed64));
            (fits && (keeps_default || value != 0)).then(|| (number_digest(value), false))
        }
        other => {
            *rest = wire::skip(other, rest)?;
            None
        }
    };
    Some((number, digest))
}

#[inline]
fn content_digest(kind: Kind, content: &[u8], keeps_default: bool, depth: u32) -> Option<(u64, bool)> {
    match kind {
        Kind::Bytes | Kind::Text if content.is_empty() && !keeps_default => None,
        Kind::Bytes | Kind::Text | Kind::TextList => Some((bytes_digest(content), false)),
        Kind::Message(schema) | Kind::MessageList(schema) | Kind::Map(schema) => {
            Some((message_digest(schema, content, depth), false))
        }
        Kind::MessageSequence(schema) => Some((message_digest(schema, content, depth), true)),
        Kind::Varint | Kind::Fixed64 => None,
    }
}

#[inline]
pub(crate) const fn number_digest(number: u64) -> u64 {
    fold(number ^ KEYS[1], KEYS[3])
}

/// A missing key is the empty one, a missing value the empty message.
fn entry_digest(schema: &Message, encoded: &[u8], depth: u32) -> u64 {
    let (mut key, mut content): (&[u8], &[u8]) = (&[], &[]);
    let mut rest = encoded;
    while !rest.is_empty() {
        let Ok((number, wire_type)) = wire::key(&mut rest) else { break };
        let taken = match wire_type {
            WireType::Bytes => wire::delimited(&mut rest).map(|bytes| match number {
                1 => key = bytes,
                2 => content = bytes,
                _ => {}
            }),
            other => wire::skip(other, rest).map(|tail| rest = tail),
        };
        if taken.is_none() {
            break;
        }
    }
    let content = match schema.field(2) {
        Some(Field { kind: Kind::Message(schema), .. }) => message_digest(schema, content, depth),
        _ => bytes_digest(content),
    };
    pair_digest(bytes_digest(key), content)
}

/// The digest of a key and a value.
#[inline]
pub(crate) const fn pair_digest(key: u64, value: u64) -> u64 {
    fold(key ^ KEYS[3], value ^ KEYS[0])
}

/// Sixteen bytes at a time; the last ones overlap those before. The length is part of the digest.
#[inline]
pub(crate) fn bytes_digest(bytes: &[u8]) -> u64 {
    let mut digest = KEYS[0] ^ (bytes.len() as u64).wrapping_mul(KEYS[1]);
    if let Some(last) = bytes.last_chunk::<16>() {
        let (pairs, tail) = bytes.as_chunks::<16>();
        for pair in pairs {
            digest = mix(digest, halves(*pair));
        }
        if !tail.is_empty() {
            digest = mix(digest, halves(*last));
        }
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        digest = mix(digest, (u64::from_le_bytes(*first), u64::from_le_bytes(*last)));
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        digest = mix(digest, (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()));
    } else if let (Some(first), Some(middle), Some(last)) =
        (bytes.first(), bytes.get(bytes.len() / 2), bytes.last())
    {
        digest = mix(digest, (u64::from(*first) << 8 | u64::from(*middle), (*last).into()));
    }
    fold(digest ^ KEYS[3], KEYS[2])
}

#[inline]
fn halves(pair: [u8; 16]) -> (u64, u64) {
    let number = u128::from_le_bytes(pair);
    (number as u64, (number >> 64) as u64)
}

#[inline]
fn mix(digest: u64, (low, high): (u64, u64)) -> u64 {
    fold(low ^ KEYS[1], high ^ digest).wrapping_add(digest.rotate_left(23))
}

/// Both halves of the product: every bit of either factor reaches every bit of the result.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}
