//! Messages of agents, decoded no further than somebody asks for.

mod digested;
mod error;
mod held;
mod validate;

use std::borrow::Cow;
use std::fmt;

use prost::Message as _;

use self::error::expect;
pub use self::error::{DecodeError, DecodeErrorKind};
use self::held::{COMPARED, Nothing};
pub use self::held::{Held, HeldPart};
use self::validate::{Validator, delimited, key};
use crate::bits::{AgentCapabilities, AgentToServerFlags};
use crate::id::{InstanceUid, UidError};
use crate::limits::Limits;
use crate::material;
use crate::part::{Part, PartSet};
use crate::pb;
use crate::schema::{AGENT_TO_SERVER, COMPONENT_HEALTH};
use crate::sequence::SequenceNum;
use crate::wire::{self, WireType};

/// A received `AgentToServer`: the fields of every message decoded, the sub-messages checked and kept as the bytes they came
/// in.
///
/// Decoding allocates nothing. Every present sub-message is checked against the schema and the [`Limits`], so that a message
/// which is accepted here decodes in full, and one that is malformed anywhere is refused before anything acts on it.
///
/// A sub-message that occurs twice has to be merged, as the protobuf encoding demands; no known client sends that. Such a
/// message is decoded in full and encoded again, which allocates, and the value owns the result.
#[derive(Clone)]
pub struct AgentMessage<'a> {
    bytes: Cow<'a, [u8]>,
    fields: Fields,
}

/// What one scan over the top level finds.
#[derive(Clone, Debug, Default)]
struct Fields {
    instance_uid: Span,
    sequence_num: u64,
    capabilities: u64,
    flags: u64,
    present: PartSet,
    spans: [Span; Part::COUNT],
    /// A part occurred more than once.
    repeated: bool,
    /// What was found out about health while it was compared with what is held.
    health: Option<KnownHealth>,
}

/// What is known of health without another walk over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownHealth {
    digest: u64,
    start_time_unix_nano: u64,
}

/// A range of a message of at most 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl<'a> AgentMessage<'a> {
    /// Decodes the bytes of one protobuf message, without the WebSocket frame header.
    ///
    /// Unknown fields are skipped, unknown enum numbers and capability bits kept (R-INTEROP-01, -02, -07). No bytes at all are a
    /// message with nothing set.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not an `AgentToServer`, or beyond the limits. The length of the `instance_uid` is
    /// not judged here, see [`AgentMessage::instance_uid`].
    pub fn decode(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        Self::decode_knowing(bytes, limits, |_| None::<Nothing>)
    }

    /// Decodes the same way and to the same result, with less work where the agent repeats itself. `held` is asked at most once,
    /// and only if there are parts, for what is held of the agent with this identity; see [`Held`] for what that must be. A part
    /// that repeats what is held, or health of which nothing but the times moved, is compared instead of checked.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn decode_knowing<H: Held>(
        bytes: &'a [u8],
        limits: &Limits,
        held: impl FnOnce(InstanceUid) -> Option<H>,
    ) -> Result<Self, DecodeError> {
        let max = limits.message_bytes_max.min(u32::MAX as usize);
        if bytes.len() > max {
            return Err(DecodeErrorKind::MessageTooLong { len: bytes.len(), max }.into());
        }
        let mut fields = Fields::default();
        fields.scan(bytes, limits)?;
        if fields.repeated {
            return Self::merged(bytes, limits);
        }
        if !fields.present.is_empty() {
            fields.check(bytes, limits, held)?;
        }
        Ok(Self { bytes: Cow::Borrowed(bytes), fields })
    }

    /// The identity of the agent.
    ///
    /// # Errors
    ///
    /// [`UidError::Length`] if it is absent or not 16 bytes (spec section "AgentToServer.instance_uid").
    pub fn instance_uid(&self) -> Result<InstanceUid, UidError> {
        self.instance_uid_bytes().try_into()
    }

    /// The bytes of `instance_uid` as they came, of any length; none if absent.
    #[must_use]
    pub fn instance_uid_bytes(&self) -> &[u8] {
        self.fields.instance_uid.of(&self.bytes)
    }

    /// The message counter; 0 if absent.
    #[must_use]
    pub fn sequence_num(&self) -> SequenceNum {
        SequenceNum(self.fields.sequence_num)
    }

    /// What the agent can do, unknown bits included; none if absent.
    #[must_use]
    pub fn capabilities(&self) -> AgentCapabilities {
        AgentCapabilities::from_bits(self.fields.capabilities)
    }

    /// What the agent asks for, unknown bits included.
    #[must_use]
    pub fn flags(&self) -> AgentToServerFlags {
        AgentToServerFlags::from_bits(self.fields.flags)
    }

    /// The sub-messages that are present, the empty ones among them.
    #[must_use]
    pub fn parts(&self) -> PartSet {
        self.fields.present
    }

    /// The encoded bytes of a sub-message, which are valid; `None` if it is absent. A slice of the received message: what
    /// is to be kept has to be copied.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&[u8]> {
        self.fields.present.contains(part).then(|| self.fields.spans[part.index()].of(&self.bytes))
    }

    /// The [material digest](material::digest) of `health`, 0 if it is absent. Costs nothing if the message was compared with
    /// what is held and told nothing new.
    #[must_use]
    pub fn health_digest(&self) -> u64 {
        let known = self.fields.health.map(|health| health.digest);
        known.or_else(|| self.part(Part::Health).map(material::health_digest)).unwrap_or_default()
    }

    /// `start_time_unix_nano` at the top of `health`, 0 if it is absent. Costs as little.
    #[must_use]
    pub fn start_time_unix_nano(&self) -> u64 {
        let known = self.fields.health.map(|health| health.start_time_unix_nano);
        let read = |health| material::health_summary(health).start_time_unix_nano;
        known.or_else(|| self.part(Part::Health).map(read)).unwrap_or_default()
    }

    /// Decodes everything.
    ///
    /// # Errors
    ///
    /// None for a message that was accepted; the signature does not rely on it.
    pub fn to_full(&self) -> Result<pb::AgentToServer, DecodeError> {
        Ok(pb::AgentToServer::decode(&*self.bytes)?)
    }

    /// Checks a message in which a part occurs twice, and makes it one in which none does.
    #[cold]
    fn merged(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        // Every occurrence is held against the limits; merging adds nothing.
        Validator::new(limits).message(&AGENT_TO_SERVER, bytes, 0)?;
        let bytes = pb::AgentToServer::decode(bytes)?.encode_to_vec();
        let mut fields = Fields::default();
        fields.scan(&bytes, limits)?;
        Ok(Self { bytes: Cow::Owned(bytes), fields })
    }
}

/// Names the parts and shows nothing of them: they hold what must not get into logs.
impl fmt::Debug for AgentMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("AgentMessage");
        match self.instance_uid() {
            Ok(uid) => fields.field("instance_uid", &uid),
            Err(error) => fields.field("instance_uid", &error),
        };
        fields
            .field("sequence_num", &self.sequence_num())
            .field("capabilities", &self.capabilities())
            .field("flags", &self.flags())
            .field("parts", &self.parts())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

impl Fields {
    /// Reads the top level. Parts are found, and not looked into.
    fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), DecodeError> {
        let validator = Validator::new(limits);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire_type) = key(&mut rest)?;
            self.field(number, wire_type, bytes.len(), &mut rest, &validator).map_err(|error| {
                match AGENT_TO_SERVER.field(number) {
                    Some(field) => error.within(field.name),
                    None => error.within_unknown(number),
                }
            })?;
        }
        Ok(())
    }

    /// Takes one field off the start of `rest`, which is the end of a message of `total` bytes.
    #[inline]
    fn field(
        &mut self,
        number: u32,
        wire_type: WireType,
        total: usize,
        rest: &mut &[u8],
        validator: &Validator<'_>,
    ) -> Result<(), DecodeError> {
        match number {
            1 => {
                let uid = delimited(wire_type, rest)?;
                self.instance_uid = Span::before(rest, uid.len(), total);
            }
            2 => self.sequence_num = number_value(wire_type, rest)?,
            4 => self.capabilities = number_value(wire_type, rest)?,
            10 => self.flags = number_value(wire_type, rest)?,
            _ => {
                let Some(part) = Part::from_field_number(number) else {
                    return validator.skip(number, wire_type, rest, 0);
                };
                let encoded = delimited(wire_type, rest)?;
                self.spans[part.index()] = Span::before(rest, encoded.len(), total);
                self.repeated |= !self.present.insert(part);
            }
        }
        Ok(())
    }

    /// Checks every part, but for what is held already.
    fn check<H: Held>(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        held: impl FnOnce(InstanceUid) -> Option<H>,
    ) -> Result<(), DecodeError> {
        let mut validator = Validator::new(limits);
        // What is compared is not counted. An entry takes two bytes: in so many there cannot be too many.
        let countless = bytes.len() / 2 <= limits.map_entries_max.min(limits.list_entries_max) as usize;
        let worthwhile = countless && !self.present.intersection(COMPARED).is_empty();
        let uid = InstanceUid::try_from(self.instance_uid.of(bytes));
        let held = uid.ok().filter(|_| worthwhile).and_then(held);
        for part in self.present.iter() {
            let encoded = self.spans[part.index()].of(bytes);
            let before = held.as_ref().filter(|_| COMPARED.contains(part)).and_then(|held| held.part(part));
            if part == Part::Health && held.is_some() {
                let repeated = before.and_then(|before| before.health_but_for_times(encoded));
                self.health = Some(match repeated {
                    Some(known) => known,
                    None => KnownHealth::checked(encoded, &mut validator)?,
                });
            } else if before.is_none_or(|before| before.encoded != encoded) {
                validator.part(part, encoded)?;
            }
        }
        Ok(())
    }
}

impl KnownHealth {
    /// Checks health, and looks for what will be asked of it.
    fn checked(encoded: &[u8], validator: &mut Validator<'_>) -> Result<Self, DecodeError> {
        let digest = validator.digested(&COMPONENT_HEALTH, encoded, 1);
        let digest = digest.map_err(|error| error.within(Part::Health.name()))?;
        let start_time_unix_nano = material::health_summary(encoded).start_time_unix_nano;
        Ok(Self { digest, start_time_unix_nano })
    }
}

impl Span {
    /// The `len` bytes that end where `rest` begins, in a message of `total` bytes.
    #[inline]
    fn before(rest: &[u8], len: usize, total: usize) -> Self {
        let end = total - rest.len();
        // No message is longer than `u32::MAX`.
        Self { start: (end - len) as u32, end: end as u32 }
    }

    #[inline]
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

#[inline]
fn number_value(wire_type: WireType, rest: &mut &[u8]) -> Result<u64, DecodeError> {
    expect(WireType::Varint, wire_type)?;
    Ok(wire::varint(rest)?)
}
