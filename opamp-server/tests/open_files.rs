//! What happens when the process has no file descriptors left. Alone in its process, whose limit it changes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "support of tests")]

mod common;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use common::{TestServer, full, numbered, uid};

fn limit_open_files(current: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

/// The lowest number that is free, which is the least limit that lets nothing more be opened.
fn next_descriptor() -> u64 {
    use std::os::fd::AsRawFd as _;
    let file = std::fs::File::open("/dev/null").unwrap();
    u64::try_from(file.as_raw_fd()).unwrap()
}

#[tokio::test]
async fn without_open_files_connections_wait_others_are_served_and_it_is_counted() {
    let before = getrlimit(Resource::Nofile).current;
    let server = TestServer::start().await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;

    // The sockets of the peers are there before the limit; those of the server are not.
    let sockets: Vec<TcpSocket> = (0..5).map(|_| TcpSocket::new_v4().unwrap()).collect();
    limit_open_files(Some(next_descriptor()));
    let mut peers = Vec::new();
    for socket in sockets {
        peers.push(socket.connect(server.address).await.unwrap());
    }
    server.until("accepting fails", |handle| handle.stats().admission.accept_failures >= 3).await;
    agent.say(uid(1), common::full()).await;
    let admission = server.handle.stats().admission;
    assert_eq!((admission.connections_admitted, admission.connections_waiting), (1, 0));

    limit_open_files(before);
    for peer in &mut peers {
        peer.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    server.until("all are let in", |handle| handle.stats().admission.connections_admitted == 6).await;
    assert_eq!(server.poll(None, &numbered(uid(2), 1, full())).await.status, 200);
}
