//! The private seam between connections and the WebSocket implementation: read a message, write a message, close.

use std::future::Future;

use crate::refusal::CloseCode;

/// A WebSocket as the connection's task needs it.
pub(super) trait MessageStream: Send {
    /// Waits for what comes next and lends it to the listener in the poll that returns what it made of it: so this is cancel
    /// safe, and a message need not be kept. Answers pings itself.
    fn read<L: Listener>(
        &mut self,
        listener: &mut L,
    ) -> impl Future<Output = Result<L::Answer, StreamError>> + Send;

    /// Writes one binary message and flushes it; tells `progress` when the peer has taken some of it, at the latest once
    /// it has made the writer wait. Not cancel safe: a message that was begun and dropped leaves nothing to do but [`MessageStream::shutdown`].
    fn write(
        &mut self,
        message: impl Pieces,
        progress: impl Fn() + Send + Sync,
    ) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Sends a ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Sends a Close frame and waits for the peer's, discarding what else arrives. The caller bounds the time.
    fn close(&mut self, code: CloseCode, reason: &str) -> impl Future<Output = ()> + Send;

    /// Ends the transport in an orderly way, with `close_notify` where it is TLS. The caller bounds the time.
    fn shutdown(&mut self) -> impl Future<Output = ()> + Send;
}

/// Whoever handles what a stream reads.
pub(super) trait Listener: Send {
    /// What becomes of it.
    type Answer: Send;

    /// Something arrived. Called at most once in a read, and then the read is over.
    fn incoming(&mut self, incoming: Incoming<'_>) -> Self::Answer;

    /// From now on the beginning of something is held whose rest is to come, or no longer.
    fn holding(&mut self, holding: bool);
}

/// A message to be written, wherever its bytes are.
pub(crate) trait Pieces: Send + Sync {
    /// Bytes in all.
    fn len(&self) -> usize;

    /// Fills `out` with the bytes that begin at `from`.
    fn copy_at(&self, from: usize, out: &mut [u8]);
}

impl Pieces for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_at(&self, from: usize, out: &mut [u8]) {
        out.copy_from_slice(&self[from..from + out.len()]);
    }
}

/// What a peer sent.
#[derive(PartialEq, Eq)]
pub(super) enum Incoming<'a> {
    Binary(&'a [u8]),
    /// Ping or pong: a sign of life. Several in a row may count as one.
    Control,
    /// A text message, which OpAMP has none of.
    Text,
    /// The peer closes; its Close frame is answered.
    Closed,
}

/// Why a stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The transport broke.
    Io,
    /// What would have to be kept exceeds the byte budget.
    NoRoom,
    /// A message over the limit.
    Oversize,
    /// The peer broke RFC 6455.
    Protocol,
}
