//! WebSocket frames (RFC 6455, section 5.2) as both sides of a load test need them: heads read from a buffer, heads written, masks
//! applied. Neither side compresses, and neither checks more than it needs to count messages rightly.

use sha1::{Digest as _, Sha1};

/// First byte of an unfragmented binary message.
pub const BINARY: u8 = 0x82;
/// First byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping.
pub const PING: u8 = 0x89;
/// First byte of a pong.
pub const PONG: u8 = 0x8a;

/// What a server answers to the `Sec-WebSocket-Key` of an upgrade (RFC 6455, section 4.2.2).
#[must_use]
pub fn accept(key: &[u8]) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    data_encoding::BASE64.encode(&digest)
}

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whether it is the last frame of its message.
    pub last: bool,
    /// 0 for a continuation, 2 for binary, 8 close, 9 ping, 10 pong.
    pub opcode: u8,
    /// Bytes of the head itself.
    pub head_bytes: usize,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// The mask of an agent's frame; servers send none.
    pub mask: Option<[u8; 4]>,
}

/// The head at the start of `bytes`, none as long as it is incomplete.
#[must_use]
#[inline]
pub fn head(bytes: &[u8]) -> Option<Head> {
    let [first, second, rest @ ..] = bytes else { return None };
    let (length_bytes, payload_bytes) = match second & 0x7f {
        126 => (2, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (8, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (0, u64::from(short)),
    };
    let masked = second & 0x80 != 0;
    let mask = if masked { Some(*rest.get(length_bytes..)?.first_chunk()?) } else { None };
    let head_bytes = 2 + length_bytes + if masked { 4 } else { 0 };
    Some(Head { last: first & 0x80 != 0, opcode: first & 0x0f, head_bytes, payload_bytes, mask })
}

/// Appends a head: its first byte, the length of the payload, and the mask of an agent's frame.
pub fn write_head(first: u8, payload_bytes: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    out.push(first);
    match payload_bytes {
        0..=125 => out.push(bit | payload_bytes as u8),
        126..=0xffff => {
            out.push(bit | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Applies a mask to bytes that stand `offset` bytes after the start of their payload.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let word = u64::from(u32::from_ne_bytes(key)) << 32 | u64::from(u32::from_ne_bytes(key));
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for eight in words {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_accepted_as_in_the_example_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_head_is_read_as_it_was_written_in_every_length_form() {
        for payload in [0, 1, 125, 126, 65_535, 65_536, 1 << 26] {
            for key in [None, Some([1, 2, 3, 4])] {
                let mut out = Vec::new();
                write_head(BINARY, payload, key, &mut out);
                for end in 0..out.len() {
                    assert_eq!(head(&out[..end]), None);
                }
                let read = head(&out).unwrap();
                assert_eq!((read.head_bytes, read.payload_bytes), (out.len(), payload as u64));
                assert_eq!((read.last, read.opcode, read.mask), (true, 2, key));
            }
        }
    }

    #[test]
    fn a_mask_applied_piecewise_is_the_mask_applied_at_once() {
        let key = [0xa1, 0x5c, 0x37, 0xee];
        let plain: Vec<u8> = (0..=255).collect();
        let expected: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        for cut in 0..40 {
            let mut masked = plain.clone();
            let (head, tail) = masked.split_at_mut(cut);
            mask(head, key, 0);
            mask(tail, key, cut);
            assert_eq!(masked, expected);
        }
    }
}
