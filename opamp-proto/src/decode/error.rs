//! Why bytes are not an acceptable message.

use std::fmt;

use crate::wire::{KeyError, VarintError, WireType};

/// How many steps of a path are shown from its start, and from its end.
const SHOWN: usize = 4;

/// Why a message is refused: what is wrong, and the path of the field where.
///
/// Whatever the reason, the message as a whole is malformed, to be answered with `BadRequest` (spec section
/// "ServerErrorResponse"). The texts hold no content of the message, so they may be sent to the peer and logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}", Path(&.0.path), if .0.path.is_empty() { "" } else { ": " }, .0.kind)]
pub struct DecodeError(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: DecodeErrorKind,
    /// Innermost first.
    path: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Known(&'static str),
    Unknown(u32),
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The group of an unknown field ends with another number than it began with, or ends without a beginning.
    #[error("a group ends that did not begin")]
    GroupEnd,
    /// A field has number 0 or one beyond 29 bits, or a wire type that does not exist.
    #[error("not a field key")]
    Key,
    /// The lists of the message have more elements than [`crate::Limits::list_entries_max`].
    #[error("more than {max} list elements in one message")]
    ListEntries {
        /// The limit.
        max: u32,
    },
    /// The maps of the message have more entries than [`crate::Limits::map_entries_max`].
    #[error("more than {max} map entries in one message")]
    MapEntries {
        /// The limit.
        max: u32,
    },
    /// The whole message is longer than [`crate::Limits::message_bytes_max`].
    #[error("message of {len} bytes, more than {max}")]
    MessageTooLong {
        /// Length of the message in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Messages, map entries or groups nest deeper than [`crate::Limits::nesting_max`].
    #[error("nested deeper than {max} levels")]
    Nesting {
        /// The limit.
        max: u32,
    },
    /// The full decoder refuses the message. Not for a message that [`crate::AgentMessage::decode`] accepted.
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    /// A string is not UTF-8.
    #[error("not UTF-8")]
    Text,
    /// A string is longer than [`crate::Limits::string_bytes_max`].
    #[error("string of {len} bytes, more than {max}")]
    TextTooLong {
        /// Length of the string in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The message, or the part of it that a length announces, ends within a field.
    #[error("ends within a field")]
    Truncated,
    /// A varint is longer than 10 bytes, or does not fit into 64 bits.
    #[error("not a 64-bit varint")]
    Varint,
    /// A known field does not have the wire type of the schema. Unlike prost, which reads an entry of a map whatever
    /// its wire type says, this holds for maps too.
    #[error("wrong wire type")]
    WireType,
}

impl DecodeError {
    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> &DecodeErrorKind {
        &self.0.kind
    }

    /// The names of the fields that lead to where it is wrong, separated by dots, such as
    /// `health.component_health_map.value.status`; empty if the message as a whole is wrong. A field that the schema does
    /// not know is `field` and its number. The middle of a very long path is left out.
    #[must_use]
    pub fn path(&self) -> String {
        Path(&self.0.path).to_string()
    }

    /// Adds the field that leads to the path so far.
    #[cold]
    pub(crate) fn within(mut self, field: &'static str) -> Self {
        self.0.path.push(Step::Known(field));
        self
    }

    /// Adds the number of a field that the schema does not know.
    #[cold]
    pub(crate) fn within_unknown(mut self, number: u32) -> Self {
        self.0.path.push(Step::Unknown(number));
        self
    }
}

impl From<DecodeErrorKind> for DecodeError {
    #[cold]
    fn from(kind: DecodeErrorKind) -> Self {
        Self(Box::new(Inner { kind, path: Vec::new() }))
    }
}

impl From<VarintError> for DecodeError {
    #[cold]
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => DecodeErrorKind::Truncated.into(),
            VarintError::Overlong => DecodeErrorKind::Varint.into(),
        }
    }
}

impl From<KeyError> for DecodeError {
    #[cold]
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Varint(error) => error.into(),
            KeyError::Meaningless => DecodeErrorKind::Key.into(),
        }
    }
}

impl From<prost::DecodeError> for DecodeError {
    #[cold]
    fn from(error: prost::DecodeError) -> Self {
        DecodeErrorKind::Protobuf(error).into()
    }
}

struct Path<'a>(&'a [Step]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().rev().enumerate() {
            let left_out = self.0.len() > 2 * SHOWN && (SHOWN..self.0.len() - SHOWN).contains(&at);
            if left_out {
                if at == SHOWN {
                    f.write_str(".…")?;
                }
                continue;
            }
            let dot = if at == 0 { "" } else { "." };
            match step {
                Step::Known(name) => write!(f, "{dot}{name}")?,
                Step::Unknown(number) => write!(f, "{dot}field {number}")?,
            }
        }
        Ok(())
    }
}

/// The wire type that was expected is not the one that is there.
#[inline]
pub(crate) fn expect(expected: WireType, found: WireType) -> Result<(), DecodeError> {
    if expected == found { Ok(()) } else { Err(DecodeErrorKind::WireType.into()) }
}
