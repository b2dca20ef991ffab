//! A port that answers nobody any more.

use std::{
    net::{SocketAddr, TcpListener},
    time::SystemTime,
};

use opamp_proto::Wall;
use tokio::net::TcpStream;

/// Connections that a port has a place for, see `opamp.http_connections_max`: with that many silent ones it accepts no
/// further ones.
pub const PLACES: &str = "4";

/// Silent connections that take all places of a port until they are dropped.
pub struct Wedge {
    _silent: Vec<TcpStream>,
    /// When the last place was taken.
    pub since: Wall,
}

impl Wedge {
    /// Takes the [`PLACES`] of a port, and more, so that one that becomes free is taken at once.
    pub async fn of(port: SocketAddr) -> Self {
        let places: usize = PLACES.parse().unwrap();
        let mut silent = Vec::new();
        for _ in 0..4 * places {
            silent.push(TcpStream::connect(port).await.unwrap());
        }
        Wedge { _silent: silent, since: wall_clock() }
    }
}

/// The time on this machine, which is that of a server in this process.
pub fn wall_clock() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Wall(since.as_millis().try_into().unwrap())
}

/// An address that is free now, for those who must know a server's before it starts.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
