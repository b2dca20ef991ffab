//! Frame headers and control payloads (RFC 6455 §5.2, §5.5, §7.4), from bytes and to bytes.

/// The longest header: two bytes, a 64-bit length, a masking key.
pub(super) const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

/// The peer broke the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation;

/// The header of a frame that a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    /// Bytes of payload; what does not fit the machine's address space counts as the most that does.
    pub(super) payload: usize,
    /// Bytes of the header itself.
    pub(super) bytes: usize,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    fn of(first: u8) -> Result<Self, Violation> {
        match first & 0xF {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(Violation),
        }
    }
}

impl Header {
    /// Reads the header that `bytes` begin with; None if it is not whole yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (fin, reserved) = (first & 0x80 != 0, first & 0x70);
        let opcode = Opcode::of(*first)?;
        let masked = second & 0x80 != 0;
        let short = second & 0x7F;
        if reserved != 0 || !masked || opcode.is_control() && (!fin || usize::from(short) > CONTROL_BYTES_MAX)
        {
            return Err(Violation);
        }
        let (payload, length_bytes) = match (short, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            _ => (u64::from(short), 0),
        };
        // The shortest form is the only one allowed, and the top bit of the longest is 0.
        let least = [0, 0, 126, 0, 0, 0, 0, 0, 1 << 16][length_bytes];
        if payload < least || payload >> 63 != 0 {
            return Err(Violation);
        }
        let Some([a, b, c, d]) = rest.get(length_bytes..length_bytes + 4) else { return Ok(None) };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        Ok(Some(Self { fin, opcode, mask: [*a, *b, *c, *d], payload, bytes: 2 + length_bytes + 4 }))
    }
}

/// Writes the header of a frame of the server's, which has no mask, to the beginning of `out`; its length.
pub(super) fn encode(out: &mut [u8], fin: bool, opcode: Opcode, payload: usize) -> usize {
    out[0] = u8::from(fin) << 7 | opcode as u8;
    match payload {
        0..126 => {
            out[1] = payload as u8;
            2
        }
        126..=0xFFFF => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    }
}

/// How many bytes [`encode`] writes for a payload of this length.
pub(super) fn encoded_bytes(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Takes the mask off. The first byte is that of the payload the mask begins at.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// The payload of a Close frame: its code, if it has one.
pub(super) fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // What is registered and may be on the wire, and what libraries and applications may use.
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            (allowed && std::str::from_utf8(reason).is_ok()).then_some(Some(code)).ok_or(Violation)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_masked_frame_of_the_rfc_is_read() {
        // RFC 6455 §5.7.
        let mut frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let header = Header::parse(&frame).unwrap().unwrap();
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(header, Header { fin: true, opcode: Opcode::Text, mask, payload: 5, bytes: 6 });
        unmask(&mut frame[6..], header.mask);
        assert_eq!(&frame[6..], b"Hello");
    }

    #[test]
    fn a_length_in_a_longer_form_than_needed_is_a_violation() {
        let header = |length: &[u8]| {
            let mut bytes = vec![0x82];
            bytes.extend_from_slice(length);
            bytes.extend_from_slice(&[1, 2, 3, 4]);
            Header::parse(&bytes).map(|header| header.unwrap().payload)
        };
        assert_eq!(header(&[0x80 | 125]), Ok(125));
        assert_eq!(header(&[0x80 | 126, 0, 125]), Err(Violation));
        assert_eq!(header(&[0x80 | 126, 0, 126]), Ok(126));
        assert_eq!(header(&[0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(Violation));
        assert_eq!(header(&[0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]), Ok(65_536));
        assert_eq!(header(&[0x80 | 127, 0x80, 0, 0, 0, 0, 1, 0, 0]), Err(Violation));
    }

    proptest! {
        #[test]
        fn masking_is_undone_at_every_length_and_from_every_start(
            payload in proptest::collection::vec(any::<u8>(), 0..200), mask: [u8; 4], split in 0usize..200,
        ) {
            let mut masked: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            let split = split.min(masked.len());
            let mut rotated = mask;
            rotated.rotate_left(split % 4);
            let (first, second) = masked.split_at_mut(split);
            unmask(first, mask);
            unmask(second, rotated);
            prop_assert_eq!(masked, payload);
        }

        #[test]
        fn no_header_is_longer_than_the_longest_and_every_one_needs_all_its_bytes(bytes: [u8; 16]) {
            if let Ok(Some(header)) = Header::parse(&bytes) {
                prop_assert!(header.bytes <= HEADER_BYTES_MAX);
                prop_assert_eq!(Header::parse(&bytes[..header.bytes]), Ok(Some(header)));
                for short in 0..header.bytes {
                    prop_assert_eq!(Header::parse(&bytes[..short]), Ok(None));
                }
            }
        }

        #[test]
        fn a_header_is_written_in_the_length_it_is_said_to_have(fin: bool, payload in prop_oneof![0usize..300, 65_530usize..65_540]) {
            let mut out = [0; HEADER_BYTES_MAX];
            let written = encode(&mut out, fin, Opcode::Binary, payload);
            prop_assert_eq!(written, encoded_bytes(payload));
            // Read back as a client's, which has a mask behind the length.
            out[1] |= 0x80;
            let read = Header::parse(&out).unwrap().unwrap();
            prop_assert_eq!((read.fin, read.payload, read.bytes), (fin, payload, written + 4));
        }
    }
}
