//! What happens over TLS to a peer for whose records there is no room.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use opamp_proto::pb;
use opamp_server::{AdmissionStage, Event, FrameReader, RefusalReason, ServerSettings};
use opamp_testkit::certs::Authority;
use prost::Message as _;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use super::common::{PATIENCE, TestServer};
use super::poll_head;

/// Less than what is left of a record when its end is missing.
const ROOM: usize = 2_000;

async fn with_little_room(frames: FrameReader) -> (TestServer, Arc<ClientConfig>) {
    let settings = ServerSettings { buffered_bytes_max: ROOM, frames, ..ServerSettings::default() };
    with_settings(settings).await
}

async fn with_settings(settings: ServerSettings) -> (TestServer, Arc<ClientConfig>) {
    let authority = Authority::new("ca");
    let config = Authority::server_config(&authority.server(&["localhost"]));
    (TestServer::over_tls(config, settings).await, authority.client_config())
}

async fn connect(server: &TestServer, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// One record with this plaintext, for whoever sends it piece by piece.
fn record(stream: &mut TlsStream<TcpStream>, plaintext: &[u8]) -> Vec<u8> {
    let connection = stream.get_mut().1;
    connection.writer().write_all(plaintext).unwrap();
    let mut record = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut record).unwrap();
    }
    record
}

/// Sends what is left after the server said all it had to say: it must still be taken, and answered by no reset.
async fn is_listened_to_until_it_ends(stream: &mut TcpStream, rest: &[u8]) {
    ends(stream).await;
    for piece in rest.chunks(200) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.shutdown().await.unwrap();
    ends(stream).await;
}

/// Waits for the end of what the server says.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    ended.expect("the server ends it").expect("no reset");
}

/// The beginning of a masked binary frame, and its payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x82, 0x80 | 126, length[0], length[1], 0, 0, 0, 0], payload].concat()
}

async fn was_refused_for_lack_of_room(server: &TestServer) {
    let refusal = server.event("a refusal", |event| match event {
        Event::Refused(refusal) => Some(refusal),
        _ => None,
    });
    assert_eq!(refusal.await.reason, RefusalReason::Unavailable);
    let stats = server.handle.stats();
    assert_eq!(stats.admission.rejected[AdmissionStage::Memory.index()], 1);
    assert_eq!(stats.frames_rejected.iter().sum::<u64>(), 1);
    assert_eq!(stats.admission.slow_peers_closed.iter().sum::<u64>(), 0);
}

/// R-THROT-01, R-THROT-03.
#[tokio::test]
async fn an_agent_over_wss_without_room_is_told_unavailable_and_1013_and_no_reset_takes_it_away() {
    for frames in [FrameReader::Lean, FrameReader::Tungstenite] {
        let (server, config) = with_little_room(frames).await;
        let stream = connect(&server, config).await;
        let (mut socket, _) = client_async("ws://localhost/v1/opamp", stream).await.unwrap();
        let report = record(socket.get_mut(), &frame(&[0; 10_000]));
        let (first, rest) = report.split_at(5_000);
        socket.get_mut().get_mut().0.write_all(first).await.unwrap();

        let next = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| {
            let next = tokio::time::timeout(PATIENCE, socket.next()).await.expect("nothing came");
            next.expect("the stream ended").unwrap()
        };
        let Message::Binary(answer) = next(&mut socket).await else { panic!("no answer") };
        let answer = pb::ServerToAgent::decode(&answer[1..]).unwrap();
        let error = answer.error_response.expect("an error response");
        assert_eq!(error.r#type, pb::ServerErrorResponseType::Unavailable as i32);
        let Some(pb::server_error_response::Details::RetryInfo(retry)) = error.details else {
            panic!("it says when to come back");
        };
        assert!(retry.retry_after_nanoseconds >= 15_000_000_000);
        let Message::Close(Some(close)) = next(&mut socket).await else { panic!("no Close frame") };
        assert_eq!(u16::from(close.code), 1013);

        is_listened_to_until_it_ends(socket.get_mut().get_mut().0, rest).await;
        was_refused_for_lack_of_room(&server).await;
        server.until("it is gone", |handle| handle.stats().websocket_active == 0).await;
        assert_eq!(server.handle.stats().admission.buffered.used_bytes, 0);
    }
}

/// Sends a poll up to the middle of a record of its body; the rest of that.
async fn begin_poll(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    stream.write_all(poll_head(None, 10_000).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut body = record(stream, &[0; 10_000]);
    let rest = body.split_off(5_000);
    stream.get_mut().0.write_all(&body).await.unwrap();
    rest
}

/// R-THROT-06, R-THROT-07.
#[tokio::test]
async fn a_poll_over_tls_whose_body_has_no_room_is_answered_503_and_no_reset_takes_it_away() {
    let (server, config) = with_little_room(FrameReader::Lean).await;
    let mut stream = connect(&server, config).await;
    let rest = begin_poll(&mut stream).await;
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("an answer").expect("its end is told");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let retry_after = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
    assert!(retry_after >= Some(15_u64), "{answer}");
    is_listened_to_until_it_ends(stream.get_mut().0, &rest).await;
    was_refused_for_lack_of_room(&server).await;
}

#[tokio::test]
async fn a_request_over_tls_whose_head_has_no_room_is_counted() {
    for begun in ["", "POST /v1/opamp HTTP/1.1\r\nhost: x\r\n"] {
        let (server, config) = with_little_room(FrameReader::Lean).await;
        let mut stream = connect(&server, config).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let head = record(&mut stream, &[b'a'; 10_000]);
        stream.get_mut().0.write_all(&head[..5_000]).await.unwrap();
        let mut said = Vec::new();
        // With or without a reset: there is nothing that it could take away.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok() && said.is_empty(), "the server ends it without a word");
        drop(stream);
        was_refused_for_lack_of_room(&server).await;
    }
}

#[tokio::test]
async fn who_was_refused_and_does_not_close_is_not_waited_for_without_end_and_counts_as_refused_alone() {
    let write_timeout = Duration::from_millis(50);
    let settings = ServerSettings { buffered_bytes_max: ROOM, write_timeout, ..ServerSettings::default() };
    let (server, config) = with_settings(settings).await;
    let mut stream = connect(&server, config).await;
    begin_poll(&mut stream).await;
    ends(&mut stream).await;
    let stays = async {
        while stream.get_mut().0.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stays).await.expect("it is closed");
    was_refused_for_lack_of_room(&server).await;
}
