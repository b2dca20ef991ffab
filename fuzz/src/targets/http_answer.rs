//! What a server answers a client, byte for byte over a stream in memory: answers to polls, refusals, upgrades and frames.
//!
//! Whatever comes, the client ends with a message or a reason, holds no more than it may, and opens no other connection.

use std::time::Duration;

use opamp_client::fuzzing;
use opamp_proto::pb;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http_request::gzip;
use crate::memory::measured;
use crate::messages;
use crate::tape::Tape;

/// Largest message the client takes here, after inflation.
const RECEIVE_BYTES_MAX: usize = 8 << 10;
/// A connection and what comes over it: buffers of hyper, of the stream in memory, of inflation, of WebSocket.
const MEMORY_BYTES_MAX: u64 = 600_000;

pub(crate) fn run(input: &[u8]) {
    let mut tape = Tape::new(input);
    let (outcome, allocated) = match tape.below(4) {
        0 => measured(|| polled(vec![tape.rest().to_vec()])),
        1 => {
            let answer = answer(&mut tape);
            measured(|| polled(answer))
        }
        2 => measured(|| upgraded(None, vec![tape.rest().to_vec()])),
        _ => {
            let status =
                tape.pick(&["101 Switching Protocols", "101 Switching Protocols", "200 OK", "503 No"]);
            let more = tape.pick(&["", "", "", "Sec-WebSocket-Protocol: x\r\n", "Retry-After: 5\r\n"]);
            let frames = frames(&mut tape);
            measured(|| upgraded(Some((status, more)), frames))
        }
    };
    assert!(allocated.bytes_max < MEMORY_BYTES_MAX, "{} bytes at one time", allocated.bytes_max);
    match outcome {
        Ok(lengths) => assert!(lengths.iter().all(|length| *length <= RECEIVE_BYTES_MAX), "{lengths:?}"),
        Err(reason) => {
            let line = !reason.is_empty() && reason.len() < 4_000 && !reason.contains(char::is_control);
            assert!(line, "a reason fit for one line of a log: {reason:?}");
        }
    }
}

type Outcome = Result<Vec<usize>, String>;

fn polled(pieces: Vec<Vec<u8>>) -> Outcome {
    in_time(async {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let ask = fuzzing::poll_answer(ours, b"message", RECEIVE_BYTES_MAX);
        let (answer, ()) = tokio::join!(ask, say(theirs, |_| pieces));
        answer.map(|body| vec![body.len()])
    })
}

fn upgraded(head: Option<(&str, &str)>, pieces: Vec<Vec<u8>>) -> Outcome {
    in_time(async {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let ask = fuzzing::upgrade_answer(ours, RECEIVE_BYTES_MAX);
        let respond = |request: &str| match head {
            Some((status, more)) => [vec![accepted(request, status, more)], pieces].concat(),
            None => pieces,
        };
        tokio::join!(ask, say(theirs, respond)).0
    })
}

/// Time stands still while anything is to be done, and then jumps to the next deadline.
fn in_time(client: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { panic!("a runtime without IO needs nothing") };
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(Duration::from_secs(24 * 3600), client).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("the client waits for a server that has hung up"),
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Reads a request, answers it, hangs up.
async fn say(stream: DuplexStream, answer: impl FnOnce(&str) -> Vec<Vec<u8>>) {
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut request = Vec::new();
    let mut buffer = [0; 2 << 10];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match reading.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let pieces = answer(&String::from_utf8_lossy(&request));
    let write = async {
        for piece in pieces {
            // The client may have had enough.
            if writing.write_all(&piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = writing.shutdown().await;
    };
    let read = async { while let Ok(1..) = reading.read(&mut buffer).await {} };
    tokio::join!(write, read);
}

fn accepted(request: &str, status: &str, more: &str) -> Vec<u8> {
    let key = request
        .lines()
        .find_map(|line| {
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        })
        .map_or("", |(_, key)| key.trim());
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    format!("HTTP/1.1 {status}\r\n{upgrade}Sec-WebSocket-Accept: {accept}\r\n{more}\r\n").into_bytes()
}

/// An answer that is nearly right.
fn answer(tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let status = tape.pick(&[
        "200 OK",
        "200 OK",
        "200 OK",
        "204 No Content",
        "100 Continue",
        "308 Permanent Redirect",
        "400 Bad Request",
        "401 Unauthorized",
        "429 Too Many Requests",
        "503 Service Unavailable",
        "999 ",
    ]);
    let message = match tape.below(8) {
        0 => vec![0; 12 << 10],
        1 => tape.bytes(200).to_vec(),
        _ => messages::server_to_agent(tape).encode_to_vec(),
    };
    let zipped = tape.flag();
    let body = if zipped { gzip(&message) } else { message };
    let body = messages::damaged(tape, body);
    let coding = match (zipped, tape.below(8)) {
        (_, 7) => "Content-Encoding: br\r\n",
        (true, 6) => "content-encoding:  X-Gzip \r\n",
        (true, _) => "Content-Encoding: gzip\r\n",
        (false, _) => "",
    };
    let kind = tape.pick(&[
        "application/x-protobuf",
        "application/x-protobuf",
        "text/plain",
        "text/html; \u{e9}",
        "",
    ]);
    let more = match tape.below(8) {
        0 => format!("Retry-After: {}\r\n", tape.number()),
        1 => "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(),
        2 => {
            format!("Location: {}\r\n", tape.pick(&["/other", "http://h/", "//x", "ftp://x", "http://[", ""]))
        }
        _ => String::new(),
    };
    let length = match tape.below(6) {
        0 => "Transfer-Encoding: chunked\r\n".to_owned(),
        1 => format!("Content-Length: {}\r\n", tape.number()),
        2 => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{coding}{length}{more}\r\n");
    let at = usize::from(tape.short()) % (body.len() + 1);
    let (first, second) = body.split_at(at);
    vec![messages::damaged(tape, head.into_bytes()), first.to_vec(), second.to_vec()]
}

/// Frames that are nearly right; those of a server are not masked.
fn frames(tape: &mut Tape<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while pieces.len() < 24 && !tape.is_empty() {
        let payload = match tape.below(8) {
            0 => tape.bytes(130).to_vec(),
            1 => vec![0; 9 << 10],
            2 => vec![0; 5 << 10],
            _ => [vec![0], messages::server_to_agent(tape).encode_to_vec()].concat(),
        };
        let opcode = tape.pick(&[2, 2, 2, 2, 0, 1, 8, 9, 10, 3]);
        let mut frame = vec![opcode | if tape.below(4) == 1 { 0 } else { 0x80 }];
        match payload.len() {
            len @ 0..126 => frame.push(len as u8),
            len => {
                frame.push(126);
                frame.extend((len as u16).to_be_bytes());
            }
        }
        frame.extend(payload);
        pieces.push(messages::damaged(tape, frame));
    }
    pieces
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let message = pb::ServerToAgent { capabilities: 3, ..Default::default() }.encode_to_vec();
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
        [&[0], head.as_bytes(), body].concat()
    };
    let protobuf = "Content-Type: application/x-protobuf\r\n";
    let zipped = format!("{protobuf}Content-Encoding: gzip\r\n");
    vec![
        ("answer", answer("200 OK", protobuf, &message)),
        ("answer-gzip", answer("200 OK", &zipped, &gzip(&message))),
        ("answer-bomb", answer("200 OK", &zipped, &gzip(&vec![0; 1 << 20]))),
        (
            "later",
            answer("503 Service Unavailable", "Retry-After: 7\r\nContent-Type: text/plain\r\n", b"later"),
        ),
        ("elsewhere", answer("307 Temporary Redirect", "Location: http://other/\r\n", b"")),
        ("not-upgraded", [&[2], &answer("403 Forbidden", "", b"no")[1..]].concat()),
        ("frames", vec![3, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 2, 0, 5, 1]),
        ("drawn-answer", [&[1][..], &[2; 60]].concat()),
        ("drawn-frames", [&[3, 0, 0][..], &[3; 90]].concat()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str) -> Outcome {
        let seed = seeds().into_iter().find(|(found, _)| *found == name).unwrap().1;
        polled(vec![seed[1..].to_vec()])
    }

    #[test]
    fn the_client_is_really_asked() {
        assert_eq!(outcome("answer"), Ok(vec![2]));
        assert_eq!(outcome("answer-gzip"), Ok(vec![2]));
        assert!(outcome("answer-bomb").unwrap_err().contains("Oversize"));
        assert!(outcome("elsewhere").unwrap_err().contains("redirect"));
        let frames = vec![vec![0x82, 2, 0, 0], vec![0x82, 126, 0x27, 0x10]];
        assert_eq!(upgraded(Some(("101 Switching Protocols", "")), frames), Ok(vec![2]));
        assert!(upgraded(None, vec![b"HTTP/1.1 101 X\r\n\r\n".to_vec()]).is_err());
    }
}
