//! The labels of one agent in a few bytes.

use super::intern::{Interned, Interner, KeyId, ValueId};
use crate::labels::{LabelScope, LabelValue, Labels};
use crate::selector::LabelFact;

/// Labels as a run of entries: key number (2 bytes), scope and kind (1 byte), then by kind a value number
/// (4 bytes), a length (2 bytes) with text, or nothing.
///
/// The numbers count as uses in the interner they were packed with, and go back to it by [`Packed::release`].
#[derive(Clone, Debug)]
pub(super) struct Packed(Box<[u8]>);

const KIND_SHARED: u8 = 0;
const KIND_INLINE: u8 = 1;
const KIND_OPAQUE: u8 = 2;

impl Packed {
    /// Packs labels, and says whether some did not fit in the interner's key table.
    pub(super) fn new(labels: &Labels, interner: &mut Interner) -> (Self, bool) {
        let mut bytes = Vec::new();
        let mut dropped = false;
        for (scope, name, value) in labels.iter() {
            let Some(key) = interner.key(name) else {
                dropped = true;
                continue;
            };
            bytes.extend_from_slice(&key.0.to_le_bytes());
            let mut tag = |kind: u8| bytes.push(kind | (scope.index() as u8) << 2);
            match value.as_text() {
                None => tag(KIND_OPAQUE),
                Some(text) => match interner.value(key, text) {
                    Interned::Shared(ValueId(id)) => {
                        tag(KIND_SHARED);
                        bytes.extend_from_slice(&id.to_le_bytes());
                    }
                    Interned::Inline => {
                        tag(KIND_INLINE);
                        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
                        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
                        bytes.extend_from_slice(text.as_bytes());
                    }
                },
            }
        }
        (Self(bytes.into_boxed_slice()), dropped)
    }

    /// The label `key` of `scope`, or of the first scope that has it.
    pub(super) fn find<'a>(
        &'a self,
        interner: &'a Interner,
        scope: Option<LabelScope>,
        key: &str,
    ) -> Option<LabelFact<'a>> {
        let key = interner.find_key(key)?;
        // Entries are in the order of scopes, so that the first hit is the one with precedence.
        let entry = self
            .entries()
            .find(|entry| entry.key == key && scope.is_none_or(|scope| entry.scope == scope))?;
        Some(match entry.value {
            Stored::Inline(text) => LabelFact::Text(text),
            Stored::Opaque => LabelFact::Opaque,
            Stored::Shared(id) => LabelFact::Text(interner.value_text(id)),
        })
    }

    /// The labels again.
    pub(super) fn unpack(&self, interner: &Interner) -> Labels {
        let mut labels = Labels::default();
        for entry in self.entries() {
            let value = match entry.value {
                Stored::Inline(text) => LabelValue::Text(text.to_owned()),
                Stored::Opaque => LabelValue::Opaque,
                Stored::Shared(id) => LabelValue::Text(interner.value_text(id).to_owned()),
            };
            labels.insert(entry.scope, interner.key_name(entry.key).to_owned(), value);
        }
        labels
    }

    /// Gives the numbers back.
    pub(super) fn release(&self, interner: &mut Interner) {
        for entry in self.entries() {
            let value = match entry.value {
                Stored::Shared(id) => Some(id),
                Stored::Inline(_) | Stored::Opaque => None,
            };
            interner.release(entry.key, value);
        }
    }

    fn entries(&self) -> Entries<'_> {
        Entries(&self.0)
    }
}

struct Entry<'a> {
    scope: LabelScope,
    key: KeyId,
    value: Stored<'a>,
}

enum Stored<'a> {
    Inline(&'a str),
    Opaque,
    Shared(ValueId),
}

struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let key = KeyId(u16::from_le_bytes(self.take()?));
        let [tag] = self.take()?;
        let scope = *LabelScope::ALL.get(usize::from(tag >> 2))?;
        let value = match tag & 3 {
            KIND_SHARED => Stored::Shared(ValueId(u32::from_le_bytes(self.take()?))),
            KIND_INLINE => {
                let length = usize::from(u16::from_le_bytes(self.take()?));
                let (text, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Stored::Inline(str::from_utf8(text).ok()?)
            }
            _ => Stored::Opaque,
        };
        Some(Entry { scope, key, value })
    }
}
