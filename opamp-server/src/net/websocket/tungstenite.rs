//! The frame seam on tokio-tungstenite.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode as WireCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::frames::{Incoming, MessageStream, StreamError};
use crate::refusal::CloseCode;

/// Read at a time; a socket holds this much while it is idle.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Gathered before a write goes to the socket, so that the frames of a usual message leave in one send.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

pub(super) struct Tungstenite<S> {
    stream: WebSocketStream<S>,
    frame_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Tungstenite<S> {
    /// Takes over a socket after the upgrade, with what was already read from it.
    pub(super) async fn new(
        io: S,
        already_read: Bytes,
        message_bytes_max: usize,
        frame_bytes: usize,
    ) -> Self {
        let frame_bytes = frame_bytes.max(1);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            // Frames are fed one by one as the buffer drains, so one frame beyond the threshold is the most it holds.
            .max_write_buffer_size(WRITE_BUFFER_BYTES + 2 * frame_bytes + 1024)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let stream =
            WebSocketStream::from_partially_read(io, already_read.into(), Role::Server, Some(config)).await;
        Self { stream, frame_bytes }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> MessageStream for Tungstenite<S> {
    async fn read(&mut self) -> Result<Incoming, StreamError> {
        match self.stream.next().await {
            Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Binary(bytes)),
            Some(Ok(Message::Text(_))) => Ok(Incoming::Text),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Incoming::Control),
            Some(Ok(Message::Close(_))) => {
                // The answering Close is queued by now; flushing sends it.
                let _ = self.stream.flush().await;
                Ok(Incoming::Closed)
            }
            Some(Err(error)) => Err(classify(&error)),
            None => Ok(Incoming::Closed),
        }
    }

    async fn write(&mut self, message: &[u8], progress: impl Fn() + Send) -> Result<(), StreamError> {
        let mut chunks = message.chunks(self.frame_bytes).peekable();
        let mut kind = Data::Binary;
        while let Some(chunk) = chunks.next() {
            let last = chunks.peek().is_none();
            let frame = Frame::message(Bytes::copy_from_slice(chunk), OpCode::Data(kind), last);
            self.stream.feed(Message::Frame(frame)).await.map_err(|error| classify(&error))?;
            progress();
            kind = Data::Continue;
        }
        self.stream.flush().await.map_err(|error| classify(&error))
    }

    async fn ping(&mut self) -> Result<(), StreamError> {
        self.stream.send(Message::Ping(Bytes::new())).await.map_err(|error| classify(&error))
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame { code: WireCode::from(code as u16), reason: reason.into() };
        if self.stream.close(Some(frame)).await.is_err() {
            return;
        }
        // The peer may be in the middle of a message that was refused. Reading on, unlooked at, lets it get to the
        // Close frame instead of a reset; its own Close, or its end of the stream, ends this.
        let io = self.stream.get_mut();
        let mut discarded = vec![0; 4096]; // on the heap: the idle task must not carry it
        while let Ok(read @ 1..) = io.read(&mut discarded).await {
            if ends_in_close_frame(&discarded[..read]) {
                break;
            }
        }
        self.shutdown().await;
    }

    async fn shutdown(&mut self) {
        // It may be broken already; then there is nothing to end.
        let _ = self.stream.get_mut().shutdown().await;
    }
}

/// Whether these bytes end in a masked Close frame. Seen in the middle of something else it ends the wait early,
/// which costs nothing: the connection is over either way.
fn ends_in_close_frame(bytes: &[u8]) -> bool {
    let is_close = |frame: &[u8]| matches!(frame, [0x88, length, ..] if length & 0x80 != 0 && frame.len() == usize::from(length & 0x7f) + 6);
    let longest = bytes.len().saturating_sub(6 + 125);
    (longest..bytes.len()).any(|start| is_close(&bytes[start..]))
}

fn classify(error: &Error) -> StreamError {
    match error {
        Error::Capacity(_) => StreamError::Oversize,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => StreamError::Io,
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => StreamError::Protocol,
        _ => StreamError::Io,
    }
}
