//! Encoded messages of any type, made from a tape of random bytes.
//!
//! What comes out is what the encoding allows and encoders rarely do: fields in any order and any number of times, numbers in
//! long forms, unknown fields of every wire type at every level. A shorter tape makes a smaller message, so that failing
//! cases shrink. On demand some of it is malformed.

use bytes::BufMut;
use opamp_proto::encode;
use proptest::prelude::*;
use protox::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

const TEXTS: [&str; 8] =
    ["", "a", "b", "status", "service.name", "é☃𝄞", "\u{0}", "0123456789abcdef0123456789abcdef"];
const NUMBERS: [u64; 8] = [0, 1, 2, 127, 300, u32::MAX as u64, 1 << 63, u64::MAX];
const DEPTH_MAX: u32 = 8;

/// Well-formed messages of this type.
pub(crate) fn valid(message: &'static str) -> impl Strategy<Value = Vec<u8>> {
    soup(message, false)
}

/// Messages of this type that are mostly well-formed, with a fault here and there.
pub(crate) fn faulty(message: &'static str) -> impl Strategy<Value = Vec<u8>> {
    soup(message, true)
}

/// Bytes with a few of them changed, taken out, put in, or repeated.
pub(crate) fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 0..4);
    (bytes, edits).prop_map(|(mut bytes, edits)| {
        for (place, edit, value) in edits {
            let at = place.index(bytes.len() + 1);
            match (edit, bytes.get(at).copied()) {
                (0, Some(_)) => bytes[at] ^= 1 << (value % 8),
                (1, Some(_)) => {
                    bytes.remove(at);
                }
                (2, Some(_)) => bytes.truncate(at),
                (3, Some(_)) => bytes.extend_from_within(at..),
                _ => bytes.insert(at, value),
            }
        }
        bytes
    })
}

fn soup(message: &'static str, faults: bool) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(move |tape| {
        let mut out = Vec::new();
        Soup { tape: &tape, faults }.message(&super::message(message), DEPTH_MAX, &mut out);
        out
    })
}

struct Soup<'a> {
    tape: &'a [u8],
    faults: bool,
}

impl Soup<'_> {
    fn message(&mut self, message: &MessageDescriptor, depth: u32, out: &mut Vec<u8>) {
        let fields: Vec<_> = message.fields().collect();
        for _ in 0..self.below(7) {
            match self.below(32) {
                0 => {
                    let beyond = [fields.len() as u32 + 1, 1000, (1 << 29) - 1];
                    let number = beyond[self.below(beyond.len())];
                    self.unknown(number, depth, out);
                }
                1 if self.faults => self.fault(out),
                _ if fields.is_empty() => {}
                _ => {
                    let field = &fields[self.below(fields.len())];
                    self.field(field, depth, out);
                }
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32, out: &mut Vec<u8>) {
        let number = u64::from(field.number()) << 3;
        match field.kind() {
            Kind::Double | Kind::Fixed64 => {
                self.varint(number | 1, out);
                let bits = self.number().rotate_left(8);
                out.put_u64_le(bits);
            }
            Kind::String => {
                let text = TEXTS[self.below(TEXTS.len())].as_bytes();
                let text = if self.fault_now() { &[0xff, 0x41][..] } else { text };
                self.delimited(number, text, out);
            }
            Kind::Bytes => {
                let len = self.below(20).min(self.tape.len());
                let (content, tape) = self.tape.split_at(len);
                self.tape = tape;
                self.delimited(number, content, out);
            }
            Kind::Message(message) => {
                let mut content = Vec::new();
                if depth > 0 {
                    self.message(&message, depth - 1, &mut content);
                }
                self.delimited(number, &content, out);
            }
            _ => {
                self.varint(number, out);
                let value = self.number();
                self.varint(value, out);
            }
        }
    }

    fn unknown(&mut self, number: u32, depth: u32, out: &mut Vec<u8>) {
        let number = u64::from(number) << 3;
        match self.below(5) {
            0 => {
                self.varint(number, out);
                let value = self.number();
                self.varint(value, out);
            }
            1 => {
                self.varint(number | 1, out);
                out.extend([0xff; 8]);
            }
            2 => self.delimited(number | 2, b"\xffanything", out),
            3 => {
                self.varint(number | 5, out);
                out.extend([0xff; 4]);
            }
            _ => {
                self.varint(number | 3, out);
                for _ in 0..self.below(3) {
                    let inner = 1 + u32::from(self.next());
                    if depth > 0 {
                        self.unknown(inner, depth - 1, out);
                    }
                }
                self.varint(number | 4, out);
            }
        }
    }

    /// Something that is well-formed nowhere, or not where it stands.
    fn fault(&mut self, out: &mut Vec<u8>) {
        let number = 1 + u64::from(self.next() % 8);
        match self.below(6) {
            0 => out.extend([0x00, 0x00]),
            1 => out.push((number << 3) as u8 | 6 | (self.next() & 1)),
            2 => out.push((number << 3) as u8 | 4),
            3 => out.extend([[0x80; 10].as_slice(), &[0]].concat()),
            4 => {
                let wire_type = self.next() % 6;
                out.extend([(number << 3) as u8 | wire_type, self.next() % 4]);
            }
            _ => out.extend([(number << 3) as u8 | 2, 0x7f]),
        }
    }

    fn delimited(&mut self, key: u64, content: &[u8], out: &mut Vec<u8>) {
        let key = if self.fault_now() { key } else { key | 2 };
        self.varint(key, out);
        let len = if self.fault_now() { content.len() + 1 } else { content.len() };
        self.varint(len as u64, out);
        out.extend_from_slice(content);
    }

    /// A number, sometimes in more bytes than it takes.
    fn varint(&mut self, value: u64, out: &mut Vec<u8>) {
        encode::varint(value, out);
        if self.below(16) == 1 && encode::varint_len(value) < 10 {
            if let Some(last) = out.last_mut() {
                *last |= 0x80;
            }
            out.push(0);
        }
    }

    fn number(&mut self) -> u64 {
        NUMBERS[self.below(NUMBERS.len())]
    }

    fn fault_now(&mut self) -> bool {
        self.faults && self.below(64) == 1
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    /// The next random byte; zeros after the end, which choose nothing.
    fn next(&mut self) -> u8 {
        let Some((&byte, tape)) = self.tape.split_first() else { return 0 };
        self.tape = tape;
        byte
    }
}
