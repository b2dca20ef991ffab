//! A stream whose frames are counted against the byte budget as they pass, for a reader that reserves what is announced.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::StreamError;
use super::header::{HEADER_BYTES_MAX, Header};
use crate::net::admission::budget::{Budget, Charge};

/// The stream below tokio-tungstenite.
///
/// tungstenite keeps what arrives of a message until it is whole, without asking. So headers are looked at before it sees them, and
/// what passes of a message that has to wait for its rest is drawn from the budget. Where that has no more, or the length that is
/// announced exceeds the limit, the stream fails, with what came before delivered. An announced length costs nothing: the
/// room that tungstenite reserves for it takes up memory as it is filled.
pub(super) struct Metered<S> {
    io: S,
    meter: Meter,
    /// Said once everything before it was read.
    failed: Option<StreamError>,
}

struct Meter {
    message_bytes_max: usize,
    /// A message of one frame with at most this many bytes costs nothing: the reader's own buffer has room for it.
    free_bytes: usize,
    header: [u8; HEADER_BYTES_MAX],
    /// How much of a header is there.
    header_bytes: usize,
    /// Payload of the frame that is still to come.
    left: usize,
    /// Bytes announced of the message that has begun.
    message: Option<usize>,
    /// The last frame of a message, other than control frames, ended it or will.
    fin: bool,
    /// What passes of this frame is drawn from the budget.
    costs: bool,
    charge: Charge,
    /// How much of the charge is for messages that have passed whole.
    passed: usize,
}

impl<S> Metered<S> {
    pub(super) fn new(io: S, budget: &Budget, message_bytes_max: usize, free_bytes: usize) -> Self {
        let meter = Meter {
            message_bytes_max,
            free_bytes,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            left: 0,
            message: None,
            fin: false,
            costs: false,
            charge: budget.nothing(),
            passed: 0,
        };
        Self { io, meter, failed: None }
    }

    /// Looks at bytes that were read before; how many of them may be handed on.
    pub(super) fn already_read(&mut self, bytes: &[u8]) -> usize {
        let (may_pass, passed) = self.meter.pass(bytes);
        self.failed = passed.err();
        may_pass
    }

    /// Why the stream failed, if it was for what passed.
    pub(super) fn failed(&self) -> Option<StreamError> {
        self.failed
    }

    /// The stream as it is.
    pub(super) fn io(&mut self) -> &mut S {
        &mut self.io
    }

    /// Whether the beginning of something has passed and its rest has not.
    pub(super) fn is_amid(&self) -> bool {
        self.meter.message.is_some() || self.meter.left > 0 || self.meter.header_bytes > 0
    }

    /// The messages that have passed were handed out.
    pub(super) fn delivered(&mut self) {
        self.meter.charge.shrink(std::mem::take(&mut self.meter.passed));
    }
}

impl Meter {
    /// Looks at what passes: how much of it may, and what is wrong with what is behind that.
    fn pass(&mut self, bytes: &[u8]) -> (usize, Result<(), StreamError>) {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let payload = self.left.min(bytes.len() - at);
                if self.costs && !self.charge.grow(payload) {
                    return (at, Err(StreamError::NoRoom));
                }
                (at, self.left) = (at + payload, self.left - payload);
            } else {
                self.header[self.header_bytes] = bytes[at];
                (at, self.header_bytes) = (at + 1, self.header_bytes + 1);
                let header = Header::parse(&self.header[..self.header_bytes]);
                let begun = match header {
                    Ok(None) => continue,
                    Ok(Some(header)) => self.begin(&header),
                    Err(violation) => Err(violation.into()),
                };
                if begun.is_err() {
                    return (at.saturating_sub(self.header_bytes), begun);
                }
                self.header_bytes = 0;
            }
            if self.left == 0 && self.message.is_some() && self.fin {
                self.message = None;
                self.passed = self.charge.bytes();
            }
        }
        (at, Ok(()))
    }

    /// A frame begins.
    fn begin(&mut self, header: &Header) -> Result<(), StreamError> {
        if header.opcode.is_control() {
            self.costs = false;
        } else {
            let before = self.message.unwrap_or(0);
            if header.payload > self.message_bytes_max.saturating_sub(before) {
                return Err(StreamError::Oversize);
            }
            self.costs = !header.fin || self.message.is_some() || header.payload > self.free_bytes;
            (self.message, self.fin) = (Some(before + header.payload), header.fin);
        }
        self.left = header.payload;
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let metered = self.get_mut();
        let before = buf.filled().len();
        if metered.failed.is_none() {
            ready!(Pin::new(&mut metered.io).poll_read(cx, buf))?;
            let (may_pass, passed) = metered.meter.pass(&buf.filled()[before..]);
            buf.set_filled(before + may_pass);
            metered.failed = passed.err();
        }
        if metered.failed.is_some() && buf.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
