//! Reading protobuf fields from a slice, as little as the check of a reply needs.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Bytes(&'a [u8]),
    /// A 32- or 64-bit number, which nothing here looks at.
    Fixed,
    Number(u64),
}

/// The message ends within a field, or has a key without meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

/// The next field, none at the end.
#[inline]
pub(crate) fn field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Value<'a>)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
    let value = match key & 7 {
        0 => Value::Number(varint(rest)?),
        1 => skip(rest, 8)?,
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            let (bytes, tail) = rest.split_at_checked(length).ok_or(Malformed)?;
            *rest = tail;
            Value::Bytes(bytes)
        }
        5 => skip(rest, 4)?,
        _ => return Err(Malformed),
    };
    if number == 0 {
        return Err(Malformed);
    }
    Ok(Some((number, value)))
}

fn skip<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<Value<'a>, Malformed> {
    *rest = rest.get(bytes..).ok_or(Malformed)?;
    Ok(Value::Fixed)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (at, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}
