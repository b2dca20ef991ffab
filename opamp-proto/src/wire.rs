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
        _ => {
            let (key, tail) = long_key(rest)?;
            *rest = tail;
            key
        }
    };
    match WireType::from_key(key) {
        Some(wire_type) if key >= 8 => Ok((key >> 3, wire_type)),
        _ => Err(KeyError::Meaningless),
    }
}

#[cold]
fn long_key(rest: &[u8]) -> Result<(u32, &[u8]), KeyError> {
    let (key, tail) = long_varint(rest).map_err(KeyError::Varint)?;
    Ok((u32::try_from(key).map_err(|_| KeyError::Meaningless)?, tail))
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
        _ => {
            let (value, tail) = long_varint(rest)?;
            *rest = tail;
            Ok(value)
        }
    }
}

/// Takes and returns slices by value: one whose address is passed on could not stay in registers.
fn long_varint(rest: &[u8]) -> Result<(u64, &[u8]), VarintError> {
    let mut value = 0;
    for (at, &byte) in rest.iter().take(10).enumerate() {
        // The tenth byte holds bit 63 alone.
        if at == 9 && byte > 1 {
            return Err(VarintError::Overlong);
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok((value, &rest[at + 1..]));
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

/// The content of a length-delimited field whose key has been read; `None` if it is cut.
#[inline]
pub(crate) fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint(rest).ok()?;
    take(rest, len)
}

/// The value of a 64-bit field whose key has been read; `None` if it is cut.
#[inline]
pub(crate) fn fixed64(rest: &mut &[u8]) -> Option<u64> {
    let (value, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u64::from_le_bytes(*value))
}

/// What follows the value of a field whose key has been read; `None` if it is malformed.
#[inline(never)]
pub(crate) fn skip(wire_type: WireType, rest: &[u8]) -> Option<&[u8]> {
    let mut rest = rest;
    match wire_type {
        WireType::GroupStart => skip_group(&mut rest)?,
        other => skip_value(other, &mut rest)?,
    }
    Some(rest)
}

/// Skips to the end of a group whose start has been read. Counts instead of recursing, as nothing here bounds the depth.
fn skip_group(rest: &mut &[u8]) -> Option<()> {
    let mut open = 1_u32;
    while open > 0 {
        match key(rest).ok()?.1 {
            WireType::GroupStart => open += 1,
            WireType::GroupEnd => open -= 1,
            other => skip_value(other, rest)?,
        }
    }
    Some(())
}

fn skip_value(wire_type: WireType, rest: &mut &[u8]) -> Option<()> {
    match wire_type {
        WireType::Varint => varint(rest).ok().map(|_| ()),
        WireType::Fixed64 => fixed64(rest).map(|_| ()),
        WireType::Bytes => delimited(rest).map(|_| ()),
        WireType::Fixed32 => take(rest, 4).map(|_| ()),
        WireType::GroupStart | WireType::GroupEnd => None,
    }
}
