//! The frame seam on tokio-tungstenite.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode as WireCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::closing;
use super::frames::{Incoming, Listener, MessageStream, Pieces, StreamError};
use super::metered::Metered;
use crate::net::admission::budget::Budget;
use crate::refusal::CloseCode;

/// Read at a time; a socket holds this much while it is idle.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Gathered before a write goes to the socket, so that the frames of a usual message leave in one send.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

pub(super) struct Tungstenite<S> {
    stream: WebSocketStream<Metered<S>>,
    budget: Budget,
    frame_bytes: usize,
    /// The listener knows that the beginning of something is held.
    holding: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Tungstenite<S> {
    /// Takes over a socket after the upgrade, with what was already read from it.
    pub(super) async fn new(
        io: S,
        already_read: Bytes,
        message_bytes_max: usize,
        frame_bytes: usize,
        budget: &Budget,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            // Frames are fed one by one as the buffer drains, so one frame beyond the threshold is the most it holds.
            .max_write_buffer_size(WRITE_BUFFER_BYTES + 2 * frame_bytes + 1024)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let mut io = Metered::new(io, budget, message_bytes_max, READ_BUFFER_BYTES);
        let may_pass = io.already_read(&already_read);
        let already_read = already_read.slice(..may_pass).into();
        let stream = WebSocketStream::from_partially_read(io, already_read, Role::Server, Some(config)).await;
        Self { stream, budget: budget.clone(), frame_bytes, holding: false }
    }

    async fn feed(&mut self, message: &impl Pieces, progress: impl Fn()) -> Result<(), StreamError> {
        let mut from = 0;
        while from < message.len() {
            let mut chunk = vec![0; self.frame_bytes.min(message.len() - from)];
            message.copy_at(from, &mut chunk);
            let kind = if from == 0 { Data::Binary } else { Data::Continue };
            from += chunk.len();
            let frame = Frame::message(Bytes::from(chunk), OpCode::Data(kind), from == message.len());
            self.stream.feed(Message::Frame(frame)).await.map_err(|error| classify(&error))?;
            progress();
        }
        self.stream.flush().await.map_err(|error| classify(&error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> MessageStream for Tungstenite<S> {
    async fn read<L: Listener>(&mut self, listener: &mut L) -> Result<L::Answer, StreamError> {
        let next = poll_fn(|cx| {
            let next = self.stream.poll_next_unpin(cx);
            let holding = match &next {
                Poll::Pending => self.stream.get_ref().is_amid(),
                // Control frames between the frames of a message do not make it whole.
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => self.holding,
                Poll::Ready(_) => false,
            };
            if holding != self.holding {
                self.holding = holding;
                listener.holding(holding);
            }
            next
        });
        match next.await {
            Some(Ok(Message::Binary(bytes))) => {
                let answer = listener.incoming(Incoming::Binary(&bytes));
                drop(bytes);
                self.stream.get_mut().delivered();
                Ok(answer)
            }
            Some(Ok(Message::Text(_))) => Ok(listener.incoming(Incoming::Text)),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                Ok(listener.incoming(Incoming::Control))
            }
            Some(Ok(Message::Close(_))) => {
                // The answering Close is queued by now; flushing sends it.
                let _ = self.stream.flush().await;
                Ok(listener.incoming(Incoming::Closed))
            }
            Some(Err(error)) => Err(self.stream.get_ref().failed().unwrap_or_else(|| classify(&error))),
            None => Ok(listener.incoming(Incoming::Closed)),
        }
    }

    async fn write(
        &mut self,
        message: impl Pieces,
        progress: impl Fn() + Send + Sync,
    ) -> Result<(), StreamError> {
        let (budget, mut waits) = (self.budget.clone(), None);
        let mut write = pin!(self.feed(&message, progress));
        poll_fn(|cx| {
            let written = write.as_mut().poll(cx);
            if written.is_pending() && waits.is_none() {
                waits = budget.try_charge(message.len());
                if waits.is_none() {
                    return Poll::Ready(Err(StreamError::NoRoom));
                }
            }
            written
        })
        .await
    }

    async fn ping(&mut self) -> Result<(), StreamError> {
        self.stream.send(Message::Ping(Bytes::new())).await.map_err(|error| classify(&error))
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: WireCode::from(code as u16), reason: reason.into() };
        if self.stream.close(Some(frame)).await.is_err() {
            return;
        }
        closing::until_closed(self.stream.get_mut().io()).await;
        self.shutdown().await;
    }

    async fn shutdown(&mut self) {
        // It may be broken already; then there is nothing to end.
        let _ = self.stream.get_mut().shutdown().await;
    }
}

fn classify(error: &Error) -> StreamError {
    match error {
        Error::Capacity(_) => StreamError::Oversize,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => StreamError::Io,
        // The TLS layer below had no room for a record.
        Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => StreamError::NoRoom,
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => StreamError::Protocol,
        _ => StreamError::Io,
    }
}
