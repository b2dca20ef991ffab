//! A WebSocket, seen from the client: both directions at once, nothing ever waits for the other.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink as _, Stream as _};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode as WireCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::classify::source_failure;
use super::connector::{BoxedIo, Refusal};
use super::endpoint::Endpoint;
use super::exchange;
use super::link::LinkEvent;
use super::settings::ClientSettings;
use crate::failure::{Failure, FailureKind};
use crate::session::{CloseCode, Unusable};

/// The largest frames that messages are split into.
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Read at a time.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// Gathered before a write goes to the socket, so that the frames of a usual message leave in one send.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// An open WebSocket.
pub(crate) struct Socket {
    stream: WebSocketStream<BoxedIo>,
    frame_bytes: usize,
    outgoing: Option<Outgoing>,
    ping: bool,
    close: Option<CloseFrame>,
    unflushed: bool,
    /// A whole message is among what is not flushed yet.
    message_unflushed: bool,
    /// Our Close frame is on its way; what arrives is no longer looked at.
    closing: bool,
    /// The stream gave up reading frames.
    deaf: bool,
}

/// A message on its way out, and how much of it is.
struct Outgoing {
    bytes: Bytes,
    at: usize,
}

/// Opens a WebSocket on a stream (RFC 6455 §4.1). The inner error is an answer other than the upgrade.
pub(crate) async fn upgrade(
    io: BoxedIo,
    target: &Endpoint,
    headers: HeaderMap,
    settings: &ClientSettings,
) -> Result<Result<Socket, Refusal>, Failure> {
    let bad_request = |error: http::Error| Failure::new(FailureKind::Local, error.to_string());
    let uri = target.path_and_query.as_str();
    let mut request = Request::get(uri).body(Empty::new()).map_err(bad_request)?;
    *request.headers_mut() = headers;
    let mut set = |name, value: &str| -> Result<(), Failure> {
        let value = HeaderValue::from_str(value).map_err(|error| bad_request(error.into()))?;
        request.headers_mut().insert(name, value);
        Ok(())
    };
    set(header::HOST, &target.host_header())?;
    set(header::CONNECTION, "Upgrade")?;
    set(header::UPGRADE, "websocket")?;
    set(header::SEC_WEBSOCKET_VERSION, "13")?;
    let key = generate_key();
    set(header::SEC_WEBSOCKET_KEY, &key)?;
    let failed = |error: hyper::Error| {
        exchange::failure(
            "the WebSocket handshake failed",
            FailureKind::Protocol,
            FailureKind::Closed,
            &error,
        )
    };
    let answer = exchange::ask(io, request).await.map_err(failed)?;
    if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Err(answer.into_refusal().await));
    }
    check_accepted(answer.response.headers(), &key)?;
    let io = answer.into_stream().await.map_err(failed)?;
    // More than a message may have makes no difference.
    let frame_bytes = settings.frame_bytes.clamp(1, FRAME_BYTES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // Frames are fed one by one as the buffer drains, so one frame beyond the threshold is the most it holds.
        .max_write_buffer_size(WRITE_BUFFER_BYTES + 2 * frame_bytes + 1024)
        .max_message_size(Some(settings.receive_bytes_max))
        .max_frame_size(Some(settings.receive_bytes_max));
    let stream = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    Ok(Ok(Socket::new(stream, frame_bytes)))
}

/// Whether the upgrade is the answer to this very request (RFC 6455 §4.1).
fn check_accepted(headers: &HeaderMap, key: &str) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::new(FailureKind::Protocol, format!("no WebSocket: {what}")));
    let is = |name, wanted: &str| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
            .is_some_and(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted)))
    };
    if !is(header::UPGRADE, "websocket") || !is(header::CONNECTION, "upgrade") {
        return wrong("the server switches to another protocol");
    }
    let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|value| value.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
        return wrong("the server accepts another request than the one it was sent");
    }
    if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
        || headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
    {
        return wrong("the server wants an extension or a subprotocol that was not offered");
    }
    Ok(())
}

impl Socket {
    fn new(stream: WebSocketStream<BoxedIo>, frame_bytes: usize) -> Self {
        Self {
            stream,
            frame_bytes,
            outgoing: None,
            ping: false,
            close: None,
            unflushed: false,
            message_unflushed: false,
            closing: false,
            deaf: false,
        }
    }

    /// Begins to send a message; [`LinkEvent::Written`] tells when it has left.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.outgoing = Some(Outgoing { bytes: Bytes::copy_from_slice(message), at: 0 });
    }

    /// Begins to send a ping.
    pub(crate) fn ping(&mut self) {
        self.ping = true;
    }

    /// Begins the closing handshake; [`LinkEvent::Closed`] tells when it is over.
    pub(crate) fn close(&mut self, code: CloseCode) {
        self.outgoing = None;
        self.close = Some(CloseFrame { code: WireCode::from(code as u16), reason: "".into() });
        self.closing = true;
    }

    /// What happens next. Nothing is lost if the caller gives up waiting.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(LinkEvent::Written),
            Poll::Ready(Err(_)) if self.closing => return Poll::Ready(closed(None)),
            Poll::Ready(Err(error)) => return Poll::Ready(failed(&error)),
            Poll::Pending => {}
        }
        loop {
            if self.deaf {
                return self.poll_discard(cx);
            }
            let event = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Close(frame))) => {
                    self.hang_up(cx);
                    closed(frame)
                }
                None => closed(None),
                Some(Ok(_)) if self.closing => continue,
                Some(Err(_)) if self.closing => {
                    self.deaf = true;
                    continue;
                }
                Some(Ok(Message::Binary(bytes))) => LinkEvent::Received(bytes),
                Some(Ok(Message::Text(_))) => LinkEvent::Unusable(Unusable::Text),
                Some(Ok(Message::Frame(_) | Message::Ping(_) | Message::Pong(_))) => LinkEvent::Alive,
                Some(Err(error)) => {
                    // From here on the stream reads no frames; a closing handshake goes on without looking at them.
                    self.deaf = true;
                    failed(&error)
                }
            };
            return Poll::Ready(event);
        }
    }

    /// Writes what there is; ready when a message has left completely.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let message = if std::mem::take(&mut self.ping) {
                Some(Message::Ping(Bytes::new()))
            } else if self.outgoing.is_some() {
                ready!(Pin::new(&mut self.stream).poll_ready(cx))?;
                self.next_frame()
            } else {
                self.close.take().map(|frame| Message::Close(Some(frame)))
            };
            match message {
                Some(message) => {
                    Pin::new(&mut self.stream).start_send(message)?;
                    self.unflushed = true;
                }
                None if self.unflushed => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    self.unflushed = false;
                    if std::mem::take(&mut self.message_unflushed) {
                        return Poll::Ready(Ok(()));
                    }
                }
                None => return Poll::Pending,
            }
        }
    }

    fn next_frame(&mut self) -> Option<Message> {
        let outgoing = self.outgoing.as_mut()?;
        let end = outgoing.bytes.len().min(outgoing.at + self.frame_bytes);
        let kind = if outgoing.at == 0 { Data::Binary } else { Data::Continue };
        let (payload, last) = (outgoing.bytes.slice(outgoing.at..end), end == outgoing.bytes.len());
        outgoing.at = end;
        if last {
            self.outgoing = None;
            self.message_unflushed = true;
        }
        Some(Message::Frame(Frame::message(payload, OpCode::Data(kind), last)))
    }

    /// Reads on without looking, so that the peer gets to our Close frame instead of a reset; its own, or the end of the
    /// stream, ends this.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        if !self.closing {
            // The failure is told; the owner decides what becomes of the connection.
            return Poll::Pending;
        }
        let mut space = [0; 2048];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(self.stream.get_mut()).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() || ends_in_close_frame(buffer.filled()) {
                self.hang_up(cx);
                return Poll::Ready(closed(None));
            }
        }
    }

    /// Ends the stream as far as that is possible without waiting: the answering Close, and `close_notify` of TLS.
    fn hang_up(&mut self, cx: &mut Context<'_>) {
        let _ = Pin::new(&mut self.stream).poll_flush(cx);
        let _ = Pin::new(self.stream.get_mut()).poll_shutdown(cx);
    }
}

fn closed(frame: Option<CloseFrame>) -> LinkEvent {
    match frame {
        Some(frame) => {
            LinkEvent::Closed { code: Some(frame.code.into()), reason: frame.reason.as_str().to_owned() }
        }
        None => LinkEvent::Closed { code: None, reason: String::new() },
    }
}

fn failed(error: &Error) -> LinkEvent {
    match error {
        Error::Capacity(tokio_tungstenite::tungstenite::error::CapacityError::MessageTooLong {
            max_size,
            ..
        }) => LinkEvent::Unusable(Unusable::Oversize { limit: *max_size }),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => LinkEvent::Failed(Failure::new(
            FailureKind::Closed,
            "the connection ended without a closing handshake",
        )),
        Error::Protocol(error) => LinkEvent::Unusable(Unusable::Violation(format!("not WebSocket: {error}"))),
        Error::Utf8(_) | Error::AttackAttempt => LinkEvent::Unusable(Unusable::Violation(error.to_string())),
        error => LinkEvent::Failed(source_failure("the connection broke", FailureKind::Closed, error)),
    }
}

/// Whether these bytes end in a Close frame of a server. Seen in the middle of something else it ends the wait
/// early, which costs nothing: the connection is over either way.
fn ends_in_close_frame(bytes: &[u8]) -> bool {
    let is_close =
        |frame: &[u8]| matches!(frame, [0x88, length, ..] if frame.len() == usize::from(*length) + 2);
    let longest = bytes.len().saturating_sub(2 + 125);
    (longest..bytes.len()).any(|start| is_close(&bytes[start..]))
}
