//! Reading the protobuf wire format from a slice, without allocation.

/// How a field's value is laid out (protobuf encoding guide, "Message Structure").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// Why there is no varint at the start of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The slice ends before the varint does.
    Truncated,
    /// More than 10 bytes, or a value that does not fit into 64 bits.
    Overlong,
}

impl WireType {
    /// The wire type in the low three bits of a key; two of the eight numbers have no meaning.
    pub(crate) const fn from_key(key: u32) -> Option<Self> {
        match key & 0x07 {
            0 => Some(Self::Varint),
            1 => Some(Self::Fixed64),
            2 => Some(Self::Bytes),
            3 => Some(Self::GroupStart),
            4 => Some(Self::GroupEnd),
            5 => Some(Self::Fixed32),
            _ => None,
        }
    }
}

/// Why there is no key at the start of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    Varint(VarintError),
    /// Field number 0, or one beyond 29 bits, or a wire type without meaning.
    Meaningless,
}

/// Field number and wire type of the next field.
#[inline]
pub(crate) fn key(rest: &mut &[u8]) -> Result<(u32, WireType), KeyError> {
    // Field numbers below 16 take one byte, and the schema has no others.
    let key = match *rest {
        [byte, tail @ ..] if *byte < 0x80 => {
            *rest = tail;
            u32::from(*byte)
        }
        _ => long_key(rest)?,
    };
    match WireType::from_key(key) {
        Some(wire_type) if key >= 8 => Ok((key >> 3, wire_type)),
        _ => Err(KeyError::Meaningless),
    }
}

#[cold]
fn long_key(rest: &mut &[u8]) -> Result<u32, KeyError> {
    let key = varint(rest).map_err(KeyError::Varint)?;
    u32::try_from(key).map_err(|_| KeyError::Meaningless)
}

/// Takes a varint of 1 to 10 bytes off the start of `rest`; long forms of small numbers are fine.
#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, VarintError> {
    match *rest {
        [byte, tail @ ..] if *byte < 0x80 => {
            *rest = tail;
            Ok(u64::from(*byte))
        }
        [first, second, tail @ ..] if *second < 0x80 => {
            *rest = tail;
            Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, VarintError> {
    let mut value = 0;
    for (at, &byte) in rest.iter().take(10).enumerate() {
        // The tenth byte holds bit 63 alone.
        if at == 9 && byte > 1 {
            return Err(VarintError::Overlong);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    Err(VarintError::Truncated)
}

/// Takes `len` bytes off the start of `rest`; `None` if there are fewer.
#[inline]
pub(crate) fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(taken)
}

/// A value as the wire format has it, without knowledge of the schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
    Group,
}

/// The fields of a message that has been checked before. At the first malformed field it ends, and what is left stays in
/// `rest`.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) rest: &'a [u8],
}

/// Walks the fields of a message.
pub(crate) const fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut rest = self.rest;
        let field = next_field(&mut rest)?;
        self.rest = rest;
        Some(field)
    }
}

#[inline]
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let (number, wire_type) = key(rest).ok()?;
    let value = match wire_type {
        WireType::GroupStart => {
            skip_group(rest)?;
            Value::Group
        }
        WireType::GroupEnd => return None,
        other => plain_value(other, rest)?,
    };
    Some((number, value))
}

/// Skips to the end of a group whose start has been read. Counts instead of recursing, as nothing here bounds the depth.
fn skip_group(rest: &mut &[u8]) -> Option<()> {
    let mut open = 1_u32;
    while open > 0 {
        match key(rest).ok()?.1 {
            WireType::GroupStart => open += 1,
            WireType::GroupEnd => open -= 1,
            other => {
                plain_value(other, rest)?;
            }
        }
    }
    Some(())
}

#[inline]
fn plain_value<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Option<Value<'a>> {
    Some(match wire_type {
        WireType::Varint => Value::Varint(varint(rest).ok()?),
        WireType::Fixed64 => Value::Fixed64(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        WireType::Bytes => {
            let len = varint(rest).ok()?;
            Value::Bytes(take(rest, len)?)
        }
        WireType::Fixed32 => {
            take(rest, 4)?;
            Value::Fixed32
        }
        WireType::GroupStart | WireType::GroupEnd => return None,
    })
}
