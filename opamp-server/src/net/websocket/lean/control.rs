//! Control frames of the server's, and those that wait to be taken.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::net::admission::budget::Charge;
use crate::net::websocket::frames::StreamError;
use crate::net::websocket::header::{CONTROL_BYTES_MAX, Opcode, encode};
use crate::refusal::CloseCode;

/// A control frame as it goes to the wire.
pub(super) struct ControlFrame {
    bytes: [u8; 2 + CONTROL_BYTES_MAX],
    length: usize,
}

impl ControlFrame {
    /// With at most [`CONTROL_BYTES_MAX`] bytes; what is more is left out.
    pub(super) fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
        let mut bytes = [0; 2 + CONTROL_BYTES_MAX];
        let header = encode(&mut bytes, true, opcode, payload.len());
        let length = header + payload.len();
        bytes[header..length].copy_from_slice(payload);
        Self { bytes, length }
    }

    pub(super) fn close(code: CloseCode, reason: &str) -> Self {
        let mut payload = (code as u16).to_be_bytes().to_vec();
        let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - payload.len());
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        Self::new(Opcode::Close, &payload)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Writes it from `sent` on, and flushes.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &self,
        io: &mut S,
        cx: &mut Context<'_>,
        sent: &mut usize,
    ) -> Poll<Result<(), StreamError>> {
        while *sent < self.length {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes()[*sent..])) {
                Ok(taken @ 1..) => *sent += taken,
                Ok(0) | Err(_) => return Poll::Ready(Err(StreamError::Io)),
            }
        }
        Pin::new(io).poll_flush(cx).map_err(|_| StreamError::Io)
    }
}

/// Answers that the peer has not taken yet: one that may be under way, and the latest.
///
/// Answering the latest of several pings is enough (RFC 6455 §5.5.3), so a peer that pings and does not read makes no more
/// wait than this.
pub(super) struct Replies {
    current: ControlFrame,
    sent: usize,
    next: Option<ControlFrame>,
    _charge: Charge,
}

impl Replies {
    pub(super) fn new(current: ControlFrame, sent: usize, charge: Charge) -> Self {
        Self { current, sent, next: None, _charge: charge }
    }

    /// Has a later one wait, in the place of an earlier one that has not begun.
    pub(super) fn put(&mut self, frame: ControlFrame) {
        if self.sent == 0 {
            self.current = frame;
        } else {
            self.next = Some(frame);
        }
    }

    /// Sends them all.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            ready!(self.current.poll_send(io, cx, &mut self.sent))?;
            match self.next.take() {
                Some(next) => (self.current, self.sent) = (next, 0),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}
