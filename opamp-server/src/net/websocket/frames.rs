//! The private seam between connections and the WebSocket implementation: read a message, write a message, close.

use std::future::Future;

use bytes::Bytes;

use crate::refusal::CloseCode;

/// A WebSocket as the connection's task needs it.
pub(super) trait MessageStream: Send {
    /// The next message. Cancel safe. Answers pings itself.
    fn read(&mut self) -> impl Future<Output = Result<Incoming, StreamError>> + Send;

    /// Writes one binary message and flushes it; tells `progress` whenever the peer has taken some of it.
    fn write(
        &mut self,
        message: &[u8],
        progress: impl Fn() + Send,
    ) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Sends a ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Sends a Close frame and waits for the peer's, discarding what else arrives. The caller bounds the time.
    fn close(&mut self, code: CloseCode, reason: &str) -> impl Future<Output = ()> + Send;

    /// Ends the transport in an orderly way, with `close_notify` where it is TLS. The caller bounds the time.
    fn shutdown(&mut self) -> impl Future<Output = ()> + Send;
}

/// What a peer sent.
#[derive(Debug)]
pub(super) enum Incoming {
    Binary(Bytes),
    /// Ping or pong: a sign of life.
    Control,
    /// A text message, which OpAMP has none of.
    Text,
    /// The peer closes; its Close frame is answered.
    Closed,
}

/// Why a stream failed.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The transport broke.
    Io,
    /// A message over the limit.
    Oversize,
    /// The peer broke RFC 6455.
    Protocol,
}
