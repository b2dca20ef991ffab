//! A message as the frames that carry it: any stretch of their bytes, from the message itself.

use crate::net::websocket::frames::Pieces;
use crate::net::websocket::header::{HEADER_BYTES_MAX, Opcode, encode, encoded_bytes};

/// Where the frames of a message begin and end. So an offset is all that is remembered of what is still to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    message: usize,
    frame_bytes: usize,
    frames: usize,
}

impl Layout {
    /// A message of `message` bytes in frames of at most `frame_bytes`.
    pub(super) fn new(message: usize, frame_bytes: usize) -> Self {
        Self { message, frame_bytes, frames: message.div_ceil(frame_bytes).max(1) }
    }

    /// Bytes on the wire.
    pub(super) fn total(&self) -> usize {
        let last = self.payload(self.frames - 1);
        (self.frames - 1) * self.full() + encoded_bytes(last) + last
    }

    /// Fills `out` with what is on the wire from `from` on; how much of it was filled.
    pub(super) fn fill(&self, message: &impl Pieces, from: usize, out: &mut [u8]) -> usize {
        let (first, mut within) = (from / self.full(), from % self.full());
        let mut filled = 0;
        for frame in first..self.frames {
            let payload = self.payload(frame);
            let mut header = [0; HEADER_BYTES_MAX];
            let opcode = if frame == 0 { Opcode::Binary } else { Opcode::Continuation };
            let header_bytes = encode(&mut header, frame + 1 == self.frames, opcode, payload);
            if within < header_bytes {
                let header = &header[within..header_bytes];
                let taken = header.len().min(out.len() - filled);
                out[filled..filled + taken].copy_from_slice(&header[..taken]);
                (filled, within) = (filled + taken, within + taken);
            }
            let done = within.saturating_sub(header_bytes);
            let taken = (payload - done).min(out.len() - filled);
            message.copy_at(frame * self.frame_bytes + done, &mut out[filled..filled + taken]);
            filled += taken;
            if filled == out.len() {
                break;
            }
            within = 0;
        }
        filled
    }

    fn payload(&self, frame: usize) -> usize {
        self.frame_bytes.min(self.message - frame * self.frame_bytes)
    }

    /// Bytes on the wire of a frame that is not the last.
    fn full(&self) -> usize {
        encoded_bytes(self.frame_bytes) + self.frame_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frame by frame, as the RFC draws them.
    fn plainly(message: &[u8], frame_bytes: usize) -> Vec<u8> {
        let mut chunks: Vec<&[u8]> = message.chunks(frame_bytes).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let mut wire = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut header = [0; HEADER_BYTES_MAX];
            let opcode = if index == 0 { Opcode::Binary } else { Opcode::Continuation };
            let bytes = encode(&mut header, index + 1 == chunks.len(), opcode, chunk.len());
            wire.extend_from_slice(&header[..bytes]);
            wire.extend_from_slice(chunk);
        }
        wire
    }

    proptest! {
        #[test]
        fn any_stretch_of_the_frames_can_be_written_from_its_offset_alone(
            bytes in 0usize..2_000, frame_bytes in prop_oneof![1usize..300, Just(70_000)], stretches in proptest::collection::vec(1usize..700, 1..20),
        ) {
            let message: Vec<u8> = (0..bytes).map(|byte| byte as u8).collect();
            let layout = Layout::new(bytes, frame_bytes);
            let expected = plainly(&message, frame_bytes);
            prop_assert_eq!(layout.total(), expected.len());
            let (mut wire, mut stretches) = (Vec::new(), stretches.into_iter().cycle());
            while wire.len() < layout.total() {
                let mut out = vec![0; stretches.next().unwrap()];
                let filled = layout.fill(&&message[..], wire.len(), &mut out);
                prop_assert!(filled > 0);
                wire.extend_from_slice(&out[..filled]);
            }
            prop_assert_eq!(wire, expected);
        }
    }
}
