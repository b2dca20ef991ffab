//! The header in front of every OpAMP message on WebSocket.
//!
//! A WebSocket message is a header, an unsigned 64-bit varint of value 0, followed by the bytes of one protobuf message; the
//! data's length is what remains of the WebSocket message (spec section "WebSocket Message Format"; R-WS-01 to R-WS-06).
//! Plain HTTP has no such header.

use crate::wire;

/// The only defined header value; all others are reserved for future versions.
pub const HEADER: u8 = 0;

/// Why a WebSocket message is not an OpAMP message. In each case the message as a whole is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header decodes, but not to 0: the peer speaks a future version, or one from before OpAMP 0.7, which had no header
    /// (R-WS-03).
    #[error("the frame header is {value}, not 0")]
    Header {
        /// What the header decodes to.
        value: u64,
    },
    /// The header is longer than 10 bytes, or its value does not fit into 64 bits (R-WS-04).
    #[error("the frame header is not a 64-bit varint")]
    Overlong,
    /// The message ends before the header does.
    #[error("the message ends within the frame header")]
    Truncated,
}

/// The protobuf bytes of a binary WebSocket message: what follows its header. They may be none, which is a message with
/// nothing set (R-WS-06).
///
/// # Errors
///
/// [`FrameError`] if the header is not a varint of 1 to 10 bytes with the value 0. Any length of it is accepted, also
/// `80 00`.
pub fn decode(message: &[u8]) -> Result<&[u8], FrameError> {
    // Everyone sends the shortest form.
    if let [HEADER, payload @ ..] = message {
        return Ok(payload);
    }
    let mut rest = message;
    match wire::varint(&mut rest) {
        Ok(0) => Ok(rest),
        Ok(value) => Err(FrameError::Header { value }),
        Err(wire::VarintError::Truncated) => Err(FrameError::Truncated),
        Err(wire::VarintError::Overlong) => Err(FrameError::Overlong),
    }
}

/// Whether messages on one WebSocket have the header.
///
/// Peers from before OpAMP 0.7 neither send nor expect it. A message tells by its first byte: no protobuf message starts
/// with the byte of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Every message has it, as the specification demands.
    #[default]
    Header,
    /// No message has it: what the peer sent first had none.
    Headerless,
}

/// Like [`decode`], for those who also talk to peers from before OpAMP 0.7: what does not begin with a header is taken for a
/// message without one. Answer in the framing that is returned.
///
/// # Errors
///
/// [`FrameError`] if the message is neither: it is empty.
pub fn decode_either(message: &[u8]) -> Result<(&[u8], Framing), FrameError> {
    match decode(message) {
        Ok(payload) => Ok((payload, Framing::Header)),
        Err(error) if message.is_empty() => Err(error),
        Err(_) => Ok((message, Framing::Headerless)),
    }
}

/// Appends header and payload to `out`: the content of one binary WebSocket message.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(1 + payload.len());
    out.push(HEADER);
    out.extend_from_slice(payload);
}
