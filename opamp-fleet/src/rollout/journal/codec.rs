//! Values as bytes: what records of a rollout are made of.
//!
//! Numbers are variable-length, seven bits a byte, the lowest first; signed ones alternate in sign. Text and lists are
//! preceded by their length, options by 0 or 1, words of a closed set and the kinds of a choice are one byte. Nothing in it
//! says which field is which: a record begins with its version.
//!
//! Reading trusts nothing: a length never reserves more than there are bytes left, and what is no value is an error.

use std::time::Duration;

use crate::rollout::RestoreError;

/// A value that can be written and read back.
pub(super) trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes it from the front.
    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError>;
}

/// Structs, field by field in the order given.
macro_rules! records {
    ($( $name:ty { $($field:ident),+ $(,)? } )+) => {$(
        impl $crate::rollout::journal::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $( $crate::rollout::journal::codec::Wire::put($field, out); )+
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, $crate::rollout::RestoreError> {
                Ok(Self { $($field: $crate::rollout::journal::codec::Wire::take(bytes)?),+ })
            }
        }
    )+};
}

/// Enums with content: one byte for the kind, then its fields.
macro_rules! choices {
    ($( $name:ident { $(
        $tag:literal = $variant:ident $( ( $($item:ident),+ ) )? $( { $($field:ident),+ } )?
    ),+ $(,)? } )+) => {$(
        impl $crate::rollout::journal::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant $( ( $($item),+ ) )? $( { $($field),+ } )? => {
                        out.push($tag);
                        $( $( $crate::rollout::journal::codec::Wire::put($item, out); )+ )?
                        $( $( $crate::rollout::journal::codec::Wire::put($field, out); )+ )?
                    } )+
                }
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, $crate::rollout::RestoreError> {
                match <u8 as $crate::rollout::journal::codec::Wire>::take(bytes)? {
                    $( $tag => {
                        $( $( let $item = $crate::rollout::journal::codec::Wire::take(bytes)?; )+ )?
                        $( $( let $field = $crate::rollout::journal::codec::Wire::take(bytes)?; )+ )?
                        Ok(Self::$variant $( ( $($item),+ ) )? $( { $($field),+ } )?)
                    } )+
                    _ => Err($crate::rollout::RestoreError::Invalid { what: stringify!($name) }),
                }
            }
        }
    )+};
}

/// Closed sets: one byte, their position. Here they stand once more, in the order of the records: where a word has moved
/// this does not compile. A new word goes to the end of both, or the records get a new version.
macro_rules! words {
    ($($name:ident = $words:literal;)+) => {$(
        const _: () = {
            let (mut left, mut at) = ($words, 0);
            while at < $name::ALL.len() {
                left = $crate::rollout::journal::codec::after_word(left, $name::ALL[at].as_str());
                at += 1;
            }
            assert!(left.is_empty(), "a word of the records is gone");
        };

        impl $crate::rollout::journal::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(self.index() as u8);
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, $crate::rollout::RestoreError> {
                let code = <u8 as $crate::rollout::journal::codec::Wire>::take(bytes)?;
                let word = $name::ALL.get(usize::from(code)).copied();
                word.ok_or($crate::rollout::RestoreError::Invalid { what: stringify!($name) })
            }
        }
    )+};
}

pub(super) use {choices, records, words};

/// What follows after a word and a blank at the beginning of a text.
pub(super) const fn after_word<'a>(text: &'a str, word: &str) -> &'a str {
    let (found, wanted) = (text.as_bytes(), word.as_bytes());
    let mut at = 0;
    while at < wanted.len() {
        assert!(at < found.len() && found[at] == wanted[at], "a word of the records has moved");
        at += 1;
    }
    if at == found.len() {
        return "";
    }
    assert!(found[at] == b' ', "a word of the records has changed");
    text.split_at(at + 1).1
}

/// Takes so many bytes from the front.
pub(super) fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], RestoreError> {
    let (front, rest) = bytes.split_at_checked(length).ok_or(RestoreError::Truncated)?;
    *bytes = rest;
    Ok(front)
}

/// Appends a list: its length, then its items.
pub(super) fn put_list<'a, T: Wire + 'a>(items: impl ExactSizeIterator<Item = &'a T>, out: &mut Vec<u8>) {
    items.len().put(out);
    items.for_each(|item| item.put(out));
}

/// Takes a list. Each item takes a byte or more, so that a length beyond the bytes left is refused at once.
pub(super) fn take_list<T: Wire, C: FromIterator<T>>(bytes: &mut &[u8]) -> Result<C, RestoreError> {
    let length = usize::take(bytes)?;
    if length > bytes.len() {
        return Err(RestoreError::Truncated);
    }
    (0..length).map(|_| T::take(bytes)).collect()
}

/// Nothing may be left of a record.
pub(super) fn at_end(bytes: &[u8]) -> Result<(), RestoreError> {
    if bytes.is_empty() { Ok(()) } else { Err(RestoreError::Invalid { what: "end of a record" }) }
}

impl Wire for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        take_slice(bytes, 1).map(|front| front[0])
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        match u8::take(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Invalid { what: "truth value" }),
        }
    }
}

impl Wire for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = u8::take(bytes)?;
            let part = Self::from(byte & 0x7f);
            if part << shift >> shift != part || byte == 0 && shift > 0 {
                return Err(RestoreError::Invalid { what: "number" });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RestoreError::Invalid { what: "number" })
    }
}

macro_rules! smaller_numbers {
    ($($name:ty),+) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                (*self as u64).put(out);
            }

            fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
                Self::try_from(u64::take(bytes)?).map_err(|_| RestoreError::Invalid { what: "number" })
            }
        }
    )+};
}

smaller_numbers!(u16, u32, usize);

/// A signed number as an unsigned one that is small where the number is near zero.
pub(super) const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The inverse of [`zigzag`].
pub(super) const fn unzigzag(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

impl Wire for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        zigzag(*self).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        u64::take(bytes).map(unzigzag)
    }
}

impl Wire for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        i64::from(*self).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Self::try_from(i64::take(bytes)?).map_err(|_| RestoreError::Invalid { what: "number" })
    }
}

impl Wire for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_secs().put(out);
        self.subsec_nanos().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        let (seconds, nanos) = (u64::take(bytes)?, u32::take(bytes)?);
        if nanos >= 1_000_000_000 {
            return Err(RestoreError::Invalid { what: "duration" });
        }
        Ok(Self::new(seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::Selector;

    fn round_trip<T: Wire + PartialEq + std::fmt::Debug>(value: &T) {
        let mut out = Vec::new();
        value.put(&mut out);
        for end in 0..out.len() {
            let mut cut = &out[..end];
            assert!(T::take(&mut cut).is_err(), "{value:?} cut at {end}");
        }
        let mut bytes = &out[..];
        assert_eq!(T::take(&mut bytes).as_ref(), Ok(value));
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_no_part_of_it_is_taken_for_the_whole(
            numbers in proptest::collection::vec(any::<u64>(), 0..8),
            signed: i64,
            text in ".{0,12}",
            span: (u32, u32),
            maybe: Option<u16>,
        ) {
            round_trip(&numbers);
            round_trip(&signed);
            round_trip(&Box::<str>::from(text));
            round_trip(&Duration::new(span.0.into(), span.1 % 1_000_000_000));
            round_trip(&(maybe, signed as i32));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(junk in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Vec::<u64>::take(&mut &junk[..]);
            let _ = Vec::<Option<Box<str>>>::take(&mut &junk[..]);
            let _ = BTreeMap::<u32, Selector>::take(&mut &junk[..]);
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_reserved() {
        let mut out = Vec::new();
        usize::MAX.put(&mut out);
        assert_eq!(Vec::<u8>::take(&mut &out[..]), Err(RestoreError::Truncated));
        assert_eq!(Box::<str>::take(&mut &out[..]), Err(RestoreError::Truncated));
    }

    #[test]
    fn a_number_has_one_form() {
        let invalid = Err(RestoreError::Invalid { what: "number" });
        assert_eq!(u64::take(&mut &[0x80, 0x00][..]), invalid);
        assert_eq!(u64::take(&mut &[0xff; 10][..]), invalid);
        assert_eq!(u16::take(&mut &[0x80, 0x80, 0x04][..]), Err(RestoreError::Invalid { what: "number" }));
        for value in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
