//! What may stand between an agent and its server: a forwarder of bytes, and an HTTP proxy. Both listen on a loopback
//! port and change their manners while they run, see [`Mode`].
//!
//! ```text
//! let path = Forwarder::start(server).await?;      // the agent connects to path.addr()
//! path.set(Mode::Stall(Direction::ToAgent));       // what the server says gets lost on the way
//!
//! let proxy = HttpProxy::builder()                 // the agent uses proxy.url()
//!     .require("x-proxy-token", "sesame", 403)
//!     .start().await?;
//! ```
//!
//! They run on the tokio runtime that starts them and end, with every connection they carry, when they are dropped.

mod forwarder;
mod http;
mod relay;

pub use forwarder::Forwarder;
pub use http::{Asked, HttpProxy, HttpProxyBuilder};

/// What becomes of the bytes that pass. It holds for connections that are open and for those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each connection carries this many more bytes in this direction and then ends, on both sides, instead of carrying the
    /// next one. `bytes: 0` with [`Direction::ToAgent`] lets a request through and loses its answer.
    Cut {
        /// What counts; in [`Direction::Both`] the sum does.
        direction: Direction,
        /// How many bytes still pass, from when the mode is set or the connection begins. Up to 16 KiB that were on the way
        /// when it was set are not counted.
        bytes: u64,
    },
    /// Everything passes.
    Pass,
    /// Connections are accepted and closed at once, and open ones end.
    Refuse,
    /// In this direction nothing passes, not even the end of a stream; connections are accepted and kept. Nothing is lost:
    /// it arrives when another mode lets it.
    Stall(Direction),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Either way.
    Both,
    /// From the server to the agent.
    ToAgent,
    /// From the agent to the server.
    ToServer,
}

impl Direction {
    const fn opposite(self) -> Self {
        match self {
            Self::Both => Self::Both,
            Self::ToAgent => Self::ToServer,
            Self::ToServer => Self::ToAgent,
        }
    }

    const fn covers(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Both, _) | (Self::ToAgent, Self::ToAgent) | (Self::ToServer, Self::ToServer)
        )
    }
}
