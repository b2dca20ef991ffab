//! A port that answers nobody any more.

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
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

/// An address that is free now, for those who must know a server's before it starts. Below the ports that systems give to those
/// who ask for any, or another test would be given it in between.
pub fn free_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 97).unwrap() * 100;
    (0..100)
        .map(|_| 20_000 + first + TAKEN.fetch_add(1, Ordering::Relaxed) % 100)
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok())
        .expect("a free port")
}
