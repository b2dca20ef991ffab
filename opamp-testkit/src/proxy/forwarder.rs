//! Forwarding bytes to one server.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::relay::Relay;
use super::{Direction, Mode};

/// Forwards each connection to one server and knows nothing of what it carries.
#[derive(Debug)]
pub struct Forwarder(Relay);

impl Forwarder {
    /// Begins to forward from a free loopback port to `server`.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let connect = move || async move {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        Ok(Self(Relay::start(connect).await?))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// Changes its manners.
    pub fn set(&self, mode: Mode) {
        self.0.set(mode);
    }

    /// How many bytes have passed in this direction so far, over all connections.
    #[must_use]
    pub fn passed(&self, direction: Direction) -> u64 {
        self.0.passed(direction)
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections()
    }
}
