//! From received bytes to messages, without IO.

use std::ops::Range;

use crate::net::admission::budget::{Budget, Charge};
use crate::net::websocket::frames::StreamError;
use crate::net::websocket::header::{Header, Opcode, Violation, unmask};

/// Frames looked at before the caller is asked whether others want to run.
const FRAMES_AT_ONCE: usize = 64;

/// Finds messages in what arrives.
///
/// ```text
///            FIN, all of it there: Message
///          ┌──────┐
///          │      ▼      Binary, not whole                  payload arrives
///          └─── between ──────────────────▶ in a frame ◀────────────────────┐
///                 ▲  ▲                        │     │                       │
///                 │  └── FIN: Assembled ──────┘     │ no FIN          Continuation
///                 │                                 ▼                       │
///                 └── FIN, empty ──────────── between fragments ────────────┘
/// ```
///
/// Control frames may come between frames, in every state but "in a frame", and change none.
pub(super) struct Decoder {
    message_bytes_max: usize,
    /// The message that has begun and is not whole. Boxed: most of the time there is none.
    unfinished: Option<Box<Unfinished>>,
}

struct Unfinished {
    bytes: Vec<u8>,
    charge: Charge,
    /// The frame whose payload arrives; none between two fragments.
    frame: Option<Arriving>,
}

struct Arriving {
    left: usize,
    /// As it applies to the next byte.
    mask: [u8; 4],
    fin: bool,
}

/// What was found. Ranges are of the input, unmasked.
pub(super) enum Found {
    /// A message that was put together of what came in several pieces.
    Assembled(Assembled),
    Close(Range<usize>),
    /// A message that lies whole in the input.
    Message(Range<usize>),
    /// Nothing more that is whole; what is left of the input has to be given again with what follows it.
    More,
    /// Much was looked at and no message found; there may be more.
    Pause,
    Ping(Range<usize>),
    Pong,
    /// A text message begins.
    Text,
}

/// A message on its own, drawn from the budget until it is dropped.
pub(super) struct Assembled {
    pub(super) bytes: Vec<u8>,
    _charge: Charge,
}

impl Decoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, unfinished: None }
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_amid(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Forgets the message that has begun.
    pub(super) fn give_up(&mut self) {
        self.unfinished = None;
    }

    /// Finds what comes next in `input` from `at` on, and moves `at` behind what was looked at.
    ///
    /// What is left with [`Found::More`] is less than a header and a control frame.
    pub(super) fn next(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        budget: &Budget,
    ) -> Result<Found, StreamError> {
        for _ in 0..FRAMES_AT_ONCE {
            if let Some(unfinished) = &mut self.unfinished
                && unfinished.frame.is_some()
            {
                *at += unfinished.take(&mut input[*at..], self.message_bytes_max)?;
                if unfinished.frame.as_ref().is_some_and(|frame| frame.left > 0) {
                    return Ok(Found::More);
                }
                let fin = unfinished.frame.take().is_some_and(|frame| frame.fin);
                if fin && let Some(whole) = self.unfinished.take() {
                    return Ok(Found::Assembled(Assembled { bytes: whole.bytes, _charge: whole.charge }));
                }
                continue;
            }
            let Some(header) = Header::parse(&input[*at..])? else { return Ok(Found::More) };
            if header.opcode.is_control() {
                return Ok(control(&header, input, at));
            }
            let so_far = match (&self.unfinished, header.opcode) {
                (None, Opcode::Text) => return Ok(Found::Text),
                (None, Opcode::Binary) => 0,
                (Some(unfinished), Opcode::Continuation) => unfinished.bytes.len(),
                _ => return Err(StreamError::Protocol),
            };
            if header.payload > self.message_bytes_max - so_far {
                return Err(StreamError::Oversize);
            }
            if self.unfinished.is_none()
                && let Some(message) = self.in_place(&header, input, at)
            {
                return Ok(Found::Message(message));
            }
            *at += header.bytes;
            let frame = Arriving { left: header.payload, mask: header.mask, fin: header.fin };
            match &mut self.unfinished {
                Some(unfinished) => unfinished.frame = Some(frame),
                None => {
                    let (bytes, charge) = (Vec::new(), budget.nothing());
                    self.unfinished = Some(Box::new(Unfinished { bytes, charge, frame: Some(frame) }));
                }
            }
        }
        Ok(Found::Pause)
    }

    /// The message that begins at `at` with `first`, if all its frames are there with nothing between them: its payloads
    /// are moved together where they are.
    fn in_place(&self, first: &Header, input: &mut [u8], at: &mut usize) -> Option<Range<usize>> {
        let (mut header, mut next, mut payload) = (*first, *at, 0);
        loop {
            let begin = next + header.bytes;
            if header.payload > input.len() - begin {
                return None;
            }
            (next, payload) = (begin + header.payload, payload + header.payload);
            if header.fin {
                break;
            }
            header = Header::parse(&input[next..]).ok()??;
            if header.opcode != Opcode::Continuation {
                return None;
            }
        }
        if payload > self.message_bytes_max {
            return None;
        }
        let begin = *at + first.bytes;
        (header, next) = (*first, *at);
        let mut end = begin;
        loop {
            let piece = next + header.bytes..next + header.bytes + header.payload;
            next = piece.end;
            unmask(&mut input[piece.clone()], header.mask);
            if piece.start != end {
                input.copy_within(piece, end);
            }
            end += header.payload;
            if header.fin {
                break;
            }
            header = Header::parse(&input[next..]).ok()??;
        }
        *at = next;
        Some(begin..end)
    }
}

impl Unfinished {
    /// Takes what has arrived of the frame; how much it was.
    fn take(&mut self, input: &mut [u8], message_bytes_max: usize) -> Result<usize, StreamError> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let taken = frame.left.min(input.len());
        let needed = self.bytes.len() + taken;
        if needed > self.bytes.capacity() {
            // Room for half as much again as arrived, so that many small pieces are not moved each time, but not for more
            // than the message may come to. What was only announced takes none.
            let most = if frame.fin { self.bytes.len() + frame.left } else { message_bytes_max };
            let capacity = (needed + needed / 2).min(most);
            if !self.charge.grow(capacity - self.bytes.capacity()) {
                return Err(StreamError::NoRoom);
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        let piece = &mut input[..taken];
        unmask(piece, frame.mask);
        self.bytes.extend_from_slice(piece);
        frame.left -= taken;
        frame.mask.rotate_left(taken % 4);
        Ok(taken)
    }
}

/// A control frame, if it is whole.
fn control(header: &Header, input: &mut [u8], at: &mut usize) -> Found {
    let begin = *at + header.bytes;
    if header.payload > input.len() - begin {
        return Found::More;
    }
    let payload = begin..begin + header.payload;
    *at = payload.end;
    unmask(&mut input[payload.clone()], header.mask);
    match header.opcode {
        Opcode::Close => Found::Close(payload),
        Opcode::Ping => Found::Ping(payload),
        _ => Found::Pong,
    }
}

impl From<Violation> for StreamError {
    fn from(_: Violation) -> Self {
        Self::Protocol
    }
}

#[cfg(test)]
mod tests {
    use opamp_testkit::raw::{Frame, Opcode};

    use super::*;

    #[test]
    fn many_small_fragments_move_the_message_seldom() {
        const FRAGMENTS: usize = 20_000;
        let (mut decoder, budget) = (Decoder::new(1 << 20), Budget::new(1 << 20));
        let fragment = |number| Frame {
            fin: number + 1 == FRAGMENTS,
            ..Frame::new(if number == 0 { Opcode::BINARY } else { Opcode::CONTINUATION }, vec![number as u8])
        };
        let mut frames: Vec<_> = (0..FRAGMENTS).map(|number| fragment(number).encode()).collect();
        let mut whole = None;
        let report = allocation_counter::measure(|| {
            for frame in &mut frames {
                match decoder.next(frame, &mut 0, &budget) {
                    Ok(Found::More) => {}
                    Ok(Found::Assembled(message)) => whole = Some(message),
                    _ => panic!("one message"),
                }
            }
        });
        let expected: Vec<u8> = (0..FRAGMENTS).map(|number| number as u8).collect();
        assert_eq!(whole.map(|message| message.bytes), Some(expected));
        assert!(report.count_total < 50, "{} allocations", report.count_total);
        assert_eq!(budget.current(), 0);
    }
}
