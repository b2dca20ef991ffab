//! What comes in at the server's door: heads, bodies and, after an upgrade, frames, byte for byte over a stream in memory.
//!
//! Everything between the socket and the session takes part: hyper, the service, authentication, inflation, WebSocket.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use opamp_proto::{Limits, Mono, Now, Wall, frame, pb};
use opamp_server::{Clock, InsecureAcceptEveryone, OpampServer, ServerSettings};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tower_service::Service as _;

use crate::memory::measured;
use crate::messages;
use crate::tape::Tape;

/// Largest message the server takes here, after inflation.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// A server, its connection and what it answers: buffers of hyper, of the stream in memory, of inflation, of WebSocket.
const MEMORY_BYTES_MAX: u64 = 600_000;
/// What a peer can make the server answer to one input.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Statuses the server, or hyper below it, answers with.
const STATUSES: [u16; 15] = [101, 200, 400, 401, 403, 404, 405, 408, 413, 414, 415, 426, 429, 431, 503];

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let pieces = match tape.below(3) {
        0 => vec![tape.rest().to_vec()],
        1 => polls(&mut tape),
        _ => upgraded(&mut tape),
    };
    let (answer, allocated) = measured(|| exchange(pieces));
    assert!(allocated.bytes_max < MEMORY_BYTES_MAX, "{} bytes at one time", allocated.bytes_max);
    assert!(answer.len() < ANSWER_BYTES_MAX, "{} bytes of answers", answer.len());
    if let Some(head) = answer.strip_prefix(b"HTTP/1.") {
        let status = head.get(2..5).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        assert!(status.is_some_and(|status| STATUSES.contains(&status)), "answered {status:?}");
    } else {
        assert!(answer.is_empty(), "no HTTP: {:?}", answer.get(..40));
    }
}

/// Sends the pieces one after the other, hangs up when nothing more comes of it, and reads until the server is through.
fn exchange(pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { panic!("a runtime without IO needs nothing") };
    let answer = runtime.block_on(async {
        let limits = Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() };
        let settings = ServerSettings { compress_min_bytes: 64, ..ServerSettings::default() };
        let (service, _handle, _driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone))
            .limits(limits)
            .settings(settings)
            .clock(Arc::new(Standing))
            .build();
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let serving = async move {
            let service = hyper::service::service_fn(move |request| service.clone().call(request));
            // What is wrong on a connection is the peer's affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(theirs), service)
                .with_upgrades()
                .await;
        };
        // Time stands still while anything is to be done, and then jumps to the next deadline.
        let patience = Duration::from_secs(24 * 3600);
        let both = async { tokio::join!(serving, converse(ours, pieces)).1 };
        match tokio::time::timeout(patience, both).await {
            Ok(answer) => answer,
            Err(_) => panic!("a connection that nobody uses any more is still there after a day"),
        }
    });
    runtime.shutdown_background();
    answer
}

async fn converse(stream: DuplexStream, pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let write = async {
        for piece in pieces {
            // The server may have hung up; what it said before that still counts.
            if writing.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Time moves when nothing else does: the server has answered what it will. A server need not answer who hung up.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = writing.shutdown().await;
    };
    let read = async {
        let mut answer = Vec::new();
        let mut buffer = [0; 4 << 10];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            assert!(answer.len() < ANSWER_BYTES_MAX, "answers without end");
        }
        answer
    };
    tokio::join!(write, read).1
}

/// Requests that are nearly right.
fn polls(tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while pieces.len() < 9 && !tape.is_empty() {
        let message = match tape.below(8) {
            0 => vec![0; 12 << 10],
            1 => messages::agent_to_server(tape).encode_to_vec().repeat(8),
            _ => messages::agent_to_server(tape).encode_to_vec(),
        };
        let message = messages::damaged(tape, message);
        let zipped = tape.flag();
        let body = if zipped { messages::damaged(tape, gzip(&message)) } else { message };
        let method = tape.pick(&["POST", "POST", "POST", "GET", "PUT", "OPTIONS", "B\u{0}D"]);
        let path = tape.pick(&["/v1/opamp", "/v1/opamp", "/v1/opamp?x=1", "/", "http://h/v1/opamp", "*"]);
        let kind = tape.pick(&[
            "application/x-protobuf",
            "Application/X-Protobuf; charset=\"a;b\"",
            "application/json",
            "",
            ";",
        ]);
        let coding = match (zipped, tape.below(8)) {
            (true, 0..=5) => "Content-Encoding: gzip\r\n",
            (_, 6) => "Content-Encoding: gzip, gzip\r\n",
            (_, 7) => "Content-Encoding: br\r\nAccept-Encoding: gzip;q=\r\n",
            (true, _) => "content-encoding: x-GZIP\r\nAccept-Encoding: *;q=0.1, gzip\r\n",
            (false, _) => "Accept-Encoding: gzip\r\n",
        };
        let (length, body) = match tape.below(6) {
            0 => ("Transfer-Encoding: chunked\r\n".to_owned(), chunked(tape, &body)),
            1 => (format!("Content-Length: {}\r\n", tape.number()), body),
            2 => (format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", body.len()), body),
            _ => (format!("Content-Length: {}\r\n", body.len()), body),
        };
        let more = tape.text();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n{coding}{length}X-More: {more}\r\n\r\n"
        );
        pieces.push(messages::damaged(tape, head.into_bytes()));
        let at = usize::from(tape.short()) % (body.len() + 1);
        let (first, second) = body.split_at(at);
        pieces.extend([first.to_vec(), second.to_vec()]);
    }
    pieces
}

/// An upgrade, and frames that are nearly right.
fn upgraded(tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let version = tape.pick(&["13", "13", "13", "13", "12", ""]);
    let head = format!(
        "GET /v1/opamp HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut pieces = vec![messages::damaged(tape, head.into_bytes())];
    while pieces.len() < 24 && !tape.is_empty() {
        let payload = match tape.below(8) {
            0 => tape.bytes(130).to_vec(),
            1 => vec![0; 9 << 10],
            _ => {
                let mut framed = Vec::new();
                frame::encode(&messages::agent_to_server(tape).encode_to_vec(), &mut framed);
                messages::damaged(tape, framed)
            }
        };
        let opcode = tape.pick(&[2, 2, 2, 2, 0, 1, 8, 9, 10, 3]);
        let first =
            opcode | if tape.below(4) == 1 { 0 } else { 0x80 } | if tape.below(16) == 1 { 0x40 } else { 0 };
        let mask = [tape.byte(), 2, 3, tape.byte()];
        pieces.push(messages::damaged(tape, masked(first, mask, &payload)));
    }
    pieces
}

fn masked(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn chunked(tape: &mut Tape<'_>, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(1 + usize::from(tape.short()) % 5_000) {
        out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        out.extend_from_slice(chunk);
        out.extend(b"\r\n");
    }
    out.extend(tape.pick(&[&b"0\r\n\r\n"[..], b"0\r\nX: y\r\n\r\n", b"ffffffffffffffffff\r\n", b""]));
    messages::damaged(tape, out)
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(data).and_then(|()| encoder.finish()) {
        Ok(zipped) => zipped,
        Err(error) => panic!("writing into a vector: {error}"),
    }
}

/// A clock that stands still: how long something takes is no matter here.
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Now {
        Now { mono: Mono(1_000), wall: Wall(1_700_000_000_000) }
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let message = pb::AgentToServer {
        instance_uid: crate::UID.as_bytes().to_vec().into(),
        capabilities: 1,
        ..Default::default()
    }
    .encode_to_vec();
    let post = |headers: &str, body: &[u8]| {
        let length = body.len();
        let head = format!(
            "POST /v1/opamp HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        [&[0], head.as_bytes(), body].concat()
    };
    let upgrade = "GET /v1/opamp HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut framed = Vec::new();
    frame::encode(&message, &mut framed);
    let frames = [masked(0x82, [1, 2, 3, 4], &framed), masked(0x88, [0; 4], &[3, 232])].concat();
    vec![
        ("poll", post("", &message)),
        ("poll-gzip", post("Content-Encoding: gzip\r\n", &gzip(&message))),
        ("poll-bomb", post("Content-Encoding: gzip\r\n", &gzip(&vec![0; 1 << 20]))),
        ("get", b"\0GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("websocket", [&[0], upgrade.as_bytes(), &frames].concat()),
        ("drawn-polls", [&[1][..], &[2; 80]].concat()),
        ("drawn-frames", [&[2][..], &[3; 120]].concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_really_asked() {
        let answer = |name: &str| {
            let seed = seeds().into_iter().find(|(found, _)| *found == name).unwrap().1;
            exchange(vec![seed[1..].to_vec()])
        };
        for (name, expected) in [
            ("poll", "HTTP/1.1 200"),
            ("poll-gzip", "HTTP/1.1 200"),
            ("poll-bomb", "HTTP/1.1 413"),
            ("get", "HTTP/1.0 404"),
            ("websocket", "HTTP/1.1 101"),
        ] {
            let answer = answer(name);
            assert!(answer.starts_with(expected.as_bytes()), "{name}: {}", String::from_utf8_lossy(&answer));
        }
        let socket = answer("websocket");
        let frames = &socket[socket.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4..];
        assert_eq!(frames[0], 0x82, "a message");
        assert!(frames.windows(4).any(|end| end == [0x88, 2, 3, 232]), "and an answer to the goodbye");
    }
}
