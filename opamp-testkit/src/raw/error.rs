//! What can go wrong while a script runs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A script did not get what it waited for. All variants but the first two carry the transcript so far, so that a failed
/// test shows the conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RawError {
    /// No TCP connection.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake: {source}")]
    Tls {
        /// What rustls or the peer said.
        source: io::Error,
    },
    /// The stream ended while more was expected.
    #[error("the server closed the connection while the script waited for {waiting_for}\n{transcript}")]
    Closed {
        /// What the script waited for.
        waiting_for: &'static str,
        /// What was said so far.
        transcript: String,
    },
    /// Reading or writing failed, for example on a reset connection.
    #[error("{source} while the script waited for {waiting_for}\n{transcript}")]
    Io {
        /// What the script waited for.
        waiting_for: &'static str,
        /// What the system said.
        source: io::Error,
        /// What was said so far.
        transcript: String,
    },
    /// The server broke HTTP, WebSocket or OpAMP framing, or said something else than the script allows.
    #[error("{what}\n{transcript}")]
    Unexpected {
        /// What it did.
        what: String,
        /// What was said so far.
        transcript: String,
    },
    /// Nothing came in time.
    #[error("nothing within {after:?} while the script waited for {waiting_for}\n{transcript}")]
    Timeout {
        /// What the script waited for.
        waiting_for: &'static str,
        /// How long.
        after: Duration,
        /// What was said so far.
        transcript: String,
    },
}

impl RawError {
    /// Whether the wait ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the server ended or reset the connection.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Io { source, .. } => stream_ended(source),
            _ => false,
        }
    }
}

/// The kinds of error that mean: the peer is gone.
pub(super) fn stream_ended(fault: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(fault.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}
