//! Who is let in, how fast, at whose cost, and who is sent away: through real sockets, with the clock in the test's hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

#[path = "../common/mod.rs"]
mod common;

mod accepting;
mod encrypted;
mod identities;
mod memory;
mod resync;
mod returning;
mod slow;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use common::{PATIENCE, TestServer};

/// The request that opens a WebSocket.
fn upgrade_request(token: Option<&str>) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "GET /v1/opamp HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{token}\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The head of a poll whose body has this many bytes.
fn poll_head(token: Option<&str>, length: usize) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST /v1/opamp HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n{token}content-length: {length}\r\n\r\n"
    )
}

/// A connection on which this was sent.
async fn said(server: &TestServer, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    stream
}

/// The head of an answer: status and `Retry-After`.
async fn answered(stream: &mut TcpStream) -> (u16, Option<Duration>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer");
        head.push(byte.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
    (status, retry_after.map(Duration::from_secs))
}

/// Waits until the peer has closed.
async fn closed(stream: &mut TcpStream) {
    let mut rest = vec![0; 64 << 10];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut rest)).await.expect("it is closed") {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}
