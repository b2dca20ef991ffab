//! WebSocket frames as RFC 6455 §5.2 draws them, and as it forbids them.

use bytes::{BufMut, Bytes, BytesMut};

/// The four bits that say what a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode(pub u8);

impl Opcode {
    /// Next part of a fragmented message.
    pub const CONTINUATION: Self = Self(0x0);
    /// Text message.
    pub const TEXT: Self = Self(0x1);
    /// Binary message, the only kind OpAMP uses.
    pub const BINARY: Self = Self(0x2);
    /// Close.
    pub const CLOSE: Self = Self(0x8);
    /// Ping.
    pub const PING: Self = Self(0x9);
    /// Pong.
    pub const PONG: Self = Self(0xA);

    /// Control frames: close, ping, pong and what is reserved beside them.
    pub fn is_control(self) -> bool {
        self.0 & 0x8 != 0
    }
}

/// How a frame's length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// In the shortest form, as the RFC demands.
    Shortest,
    /// In 16 bits, however short; lengths above are cut off.
    Sixteen,
    /// In 64 bits, however short.
    SixtyFour,
    /// In 64 bits, saying something else than the length of the payload.
    Claimed(u64),
}

/// One frame from client to server, every bit of it under control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Last frame of its message.
    pub fin: bool,
    /// The three reserved bits, RSV1 highest: 0 to 7.
    pub rsv: u8,
    /// What the frame is.
    pub opcode: Opcode,
    /// Masking key; clients must use one, servers must not.
    pub mask: Option<[u8; 4]>,
    /// How the length is written.
    pub length: Length,
    /// The payload before masking.
    pub payload: Bytes,
}

impl Frame {
    /// A correct, whole, masked frame.
    pub fn new(opcode: Opcode, payload: impl Into<Bytes>) -> Self {
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        Self { fin: true, rsv: 0, opcode, mask, length: Length::Shortest, payload: payload.into() }
    }

    /// A correct binary message in one frame.
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self::new(Opcode::BINARY, payload)
    }

    /// A close frame with status code and reason.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = BytesMut::with_capacity(2 + reason.len());
        payload.put_u16(code);
        payload.put_slice(reason.as_bytes());
        Self::new(Opcode::CLOSE, payload)
    }

    /// A binary message cut into frames of `size` payload bytes.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn fragments(payload: &Bytes, size: usize) -> Vec<Self> {
        assert!(size > 0, "fragments of no bytes never end");
        let count = payload.len().div_ceil(size).max(1);
        let piece = |n: usize| payload.slice(n * size..payload.len().min((n + 1) * size));
        (0..count)
            .map(|n| {
                let opcode = if n == 0 { Opcode::BINARY } else { Opcode::CONTINUATION };
                Self { fin: n + 1 == count, ..Self::new(opcode, piece(n)) }
            })
            .collect()
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(14 + self.payload.len());
        self.encode_into(&mut out);
        out
    }

    /// Appends the bytes on the wire.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | (self.rsv & 0x7) << 4 | self.opcode.0 & 0xF);
        let masked = u8::from(self.mask.is_some()) << 7;
        let len = self.payload.len() as u64;
        match self.length {
            Length::Shortest if len < 126 => out.push(masked | len as u8),
            Length::Shortest if len <= 0xFFFF => {
                out.push(masked | 126);
                out.put_u16(len as u16);
            }
            Length::Sixteen => {
                out.push(masked | 126);
                out.put_u16(len as u16);
            }
            Length::Shortest | Length::SixtyFour => {
                out.push(masked | 127);
                out.put_u64(len);
            }
            Length::Claimed(claimed) => {
                out.push(masked | 127);
                out.put_u64(claimed);
            }
        }
        match self.mask {
            None => out.put_slice(&self.payload),
            // A key of zeros changes nothing; huge messages use it to save the work.
            Some([0, 0, 0, 0]) => {
                out.put_slice(&[0; 4]);
                out.put_slice(&self.payload);
            }
            Some(key) => {
                out.put_slice(&key);
                out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            }
        }
    }
}

/// What a close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Status code; none if the frame was empty.
    pub code: Option<u16>,
    /// Text for people; may be empty.
    pub reason: String,
}

impl CloseFrame {
    /// Reads the payload of a close frame.
    ///
    /// # Errors
    ///
    /// What is wrong with it: one byte, a code that must not be sent, or a reason that is not UTF-8.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        match payload {
            [] => Ok(Self { code: None, reason: String::new() }),
            [_] => Err("a close frame of one byte".to_owned()),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !(1000..5000).contains(&code) || matches!(code, 1004..=1006 | 1015) {
                    return Err(format!("close code {code}, which must not be sent"));
                }
                let reason =
                    std::str::from_utf8(reason).map_err(|_| "a close reason that is not UTF-8".to_owned())?;
                Ok(Self { code: Some(code), reason: reason.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frames_of_the_rfc_have_its_bytes() {
        // RFC 6455 §5.7: a single-frame masked text message "Hello", and an unmasked fragmented one.
        assert_eq!(
            Frame::new(Opcode::TEXT, "Hello").encode(),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        let first = Frame { fin: false, mask: None, ..Frame::new(Opcode::TEXT, "Hel") };
        let last = Frame { mask: None, ..Frame::new(Opcode::CONTINUATION, "lo") };
        assert_eq!(first.encode(), [0x01, 0x03, 0x48, 0x65, 0x6c]);
        assert_eq!(last.encode(), [0x80, 0x02, 0x6c, 0x6f]);
    }

    #[test]
    fn lengths_are_written_in_every_form() {
        let header = |length, len: usize| {
            let frame = Frame { mask: None, length, ..Frame::binary(vec![0; len]) };
            let bytes = frame.encode();
            bytes[1..bytes.len() - len].to_vec()
        };
        assert_eq!(header(Length::Shortest, 125), [125]);
        assert_eq!(header(Length::Shortest, 126), [126, 0, 126]);
        assert_eq!(header(Length::Shortest, 65_536), [127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(header(Length::Sixteen, 5), [126, 0, 5]);
        assert_eq!(header(Length::SixtyFour, 5), [127, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(header(Length::Claimed(1 << 62), 5), [127, 0x40, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn fragments_join_to_the_message() {
        let payload = Bytes::from_static(b"0123456789");
        for size in 1..12 {
            let frames = Frame::fragments(&payload, size);
            let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.payload.to_vec()).collect();
            assert_eq!(joined, &payload[..]);
            assert_eq!(frames.iter().filter(|frame| frame.fin).count(), 1);
            assert!(frames.last().unwrap().fin);
            assert_eq!(frames[0].opcode, Opcode::BINARY);
            assert!(frames[1..].iter().all(|frame| frame.opcode == Opcode::CONTINUATION));
        }
        assert_eq!(Frame::fragments(&Bytes::new(), 4).len(), 1);
    }

    #[test]
    fn close_codes_that_must_not_be_sent_are_refused() {
        assert_eq!(CloseFrame::parse(&[]).unwrap().code, None);
        assert_eq!(
            CloseFrame::parse(&[3, 241, b'x']).unwrap(),
            CloseFrame { code: Some(1009), reason: "x".into() }
        );
        for payload in [&[3][..], &[3, 237], &[3, 238], &[0, 5], &[3, 232, 0xff]] {
            assert!(CloseFrame::parse(payload).is_err(), "{payload:?}");
        }
    }
}
