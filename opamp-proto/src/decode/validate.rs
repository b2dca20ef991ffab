//! Checks the bytes of a message against the schema, without allocation and without building anything.
//!
//! What passes is what prost decodes, as long as it keeps within the limits. The only exception is an entry of a map with
//! a wrong wire type, see [`DecodeErrorKind::WireType`].

use super::error::{DecodeError, DecodeErrorKind, expect};
use crate::limits::Limits;
use crate::part::Part;
use crate::schema::{AGENT_TO_SERVER, Field, Kind, Message};
use crate::wire::{self, WireType};

/// A walk over one message, with what its limits have left.
pub(crate) struct Validator<'a> {
    limits: &'a Limits,
    nesting_max: u32,
    map_entries: u32,
    list_entries: u32,
}

impl<'a> Validator<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            nesting_max: limits.nesting_max.min(Limits::NESTING_CEILING),
            map_entries: limits.map_entries_max,
            list_entries: limits.list_entries_max,
        }
    }

    /// Checks a part of an `AgentToServer`.
    pub(crate) fn part(&mut self, part: Part, encoded: &[u8]) -> Result<(), DecodeError> {
        match AGENT_TO_SERVER.field(part.field_number()) {
            Some(Field { kind: Kind::Message(schema), name, .. }) => {
                self.message(schema, encoded, 1).map_err(|error| error.within(name))
            }
            // Every part is a message.
            _ => Err(DecodeErrorKind::WireType.into()),
        }
    }

    /// Checks a message whose place is `depth` levels below the top.
    pub(crate) fn message(
        &mut self,
        schema: &'static Message,
        mut rest: &[u8],
        depth: u32,
    ) -> Result<(), DecodeError> {
        self.enter(depth)?;
        while !rest.is_empty() {
            let (number, wire_type) = key(&mut rest)?;
            let Some(field) = schema.field(number) else {
                rest = self
                    .skip_unknown(number, wire_type, rest, depth)
                    .map_err(|error| error.within_unknown(number))?;
                continue;
            };
            self.value(field.kind, wire_type, &mut rest, depth).map_err(|error| error.within(field.name))?;
        }
        Ok(())
    }

    /// What follows a field that the schema does not know. By value, so that the walk over known fields stays in registers.
    #[cold]
    pub(super) fn skip_unknown<'m>(
        &self,
        number: u32,
        wire_type: WireType,
        mut rest: &'m [u8],
        depth: u32,
    ) -> Result<&'m [u8], DecodeError> {
        self.skip(number, wire_type, &mut rest, depth)?;
        Ok(rest)
    }

    /// Skips a field that the schema does not know (R-INTEROP-01), whatever it holds.
    pub(crate) fn skip(
        &self,
        number: u32,
        wire_type: WireType,
        rest: &mut &[u8],
        depth: u32,
    ) -> Result<(), DecodeError> {
        let len = match wire_type {
            WireType::Varint => {
                wire::varint(rest)?;
                return Ok(());
            }
            WireType::Fixed64 => 8,
            WireType::Fixed32 => 4,
            WireType::Bytes => wire::varint(rest)?,
            WireType::GroupStart => return self.skip_group(number, rest, depth + 1),
            WireType::GroupEnd => return Err(DecodeErrorKind::GroupEnd.into()),
        };
        take(rest, len).map(|_| ())
    }

    fn skip_group(&self, group: u32, rest: &mut &[u8], depth: u32) -> Result<(), DecodeError> {
        self.enter(depth)?;
        loop {
            match key(rest)? {
                (number, WireType::GroupEnd) if number == group => return Ok(()),
                (number, wire_type) => self.skip(number, wire_type, rest, depth)?,
            }
        }
    }

    #[inline]
    fn value(
        &mut self,
        kind: Kind,
        wire_type: WireType,
        rest: &mut &[u8],
        depth: u32,
    ) -> Result<(), DecodeError> {
        // By wire type first: that the next step depends on this byte alone, and not on a table, is what makes it fast.
        match wire_type {
            WireType::Bytes => {
                let len = wire::varint(rest)?;
                let content = take(rest, len)?;
                self.content(kind, content, depth)
            }
            WireType::Varint if matches!(kind, Kind::Varint) => {
                wire::varint(rest)?;
                Ok(())
            }
            WireType::Fixed64 if matches!(kind, Kind::Fixed64) => take(rest, 8).map(|_| ()),
            _ => Err(DecodeErrorKind::WireType.into()),
        }
    }

    #[inline]
    fn content(&mut self, kind: Kind, content: &[u8], depth: u32) -> Result<(), DecodeError> {
        match kind {
            Kind::Bytes => Ok(()),
            Kind::Text => self.text(content),
            Kind::Message(schema) => self.message(schema, content, depth + 1),
            Kind::TextList => {
                self.count_list_entry()?;
                self.text(content)
            }
            Kind::MessageList(schema) | Kind::MessageSequence(schema) => {
                self.count_list_entry()?;
                self.message(schema, content, depth + 1)
            }
            Kind::Map(entry) => {
                self.count_map_entry()?;
                self.message(entry, content, depth + 1)
            }
            Kind::Varint | Kind::Fixed64 => Err(DecodeErrorKind::WireType.into()),
        }
    }

    #[inline]
    pub(super) fn text(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let max = self.limits.string_bytes_max;
        if bytes.len() > max {
            return Err(DecodeErrorKind::TextTooLong { len: bytes.len(), max }.into());
        }
        if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() {
            Ok(())
        } else {
            Err(DecodeErrorKind::Text.into())
        }
    }

    pub(super) fn count_list_entry(&mut self) -> Result<(), DecodeError> {
        let max = self.limits.list_entries_max;
        self.list_entries = self.list_entries.checked_sub(1).ok_or(DecodeErrorKind::ListEntries { max })?;
        Ok(())
    }

    pub(super) fn count_map_entry(&mut self) -> Result<(), DecodeError> {
        let max = self.limits.map_entries_max;
        self.map_entries = self.map_entries.checked_sub(1).ok_or(DecodeErrorKind::MapEntries { max })?;
        Ok(())
    }

    #[inline]
    pub(super) fn enter(&self, depth: u32) -> Result<(), DecodeError> {
        if depth > self.nesting_max { Err(self.too_deep()) } else { Ok(()) }
    }

    #[cold]
    fn too_deep(&self) -> DecodeError {
        DecodeErrorKind::Nesting { max: self.nesting_max }.into()
    }
}

/// Field number and wire type of the next field.
#[inline]
pub(crate) fn key(rest: &mut &[u8]) -> Result<(u32, WireType), DecodeError> {
    wire::key(rest).map_err(DecodeError::from)
}

/// The bytes of a length-delimited field.
#[inline]
pub(crate) fn delimited<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    expect(WireType::Bytes, wire_type)?;
    let len = wire::varint(rest)?;
    take(rest, len)
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], DecodeError> {
    wire::take(rest, len).ok_or_else(|| DecodeErrorKind::Truncated.into())
}
