//! The WebSocket as RFC 6455 has it, told by bytes: a server without WebSocket code on it.

use opamp_client::retry::Pace;
use opamp_client::{ClientSettings, FailureKind, RemoteConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::common::{Agent, builder, until, within};
use crate::stub::Request;

async fn request(stream: &mut TcpStream) -> Request {
    within("a request", Request::read(stream)).await.unwrap()
}

/// What a server that read the request answers.
fn accept_key(request: &Request) -> String {
    derive_accept_key(request.header("sec-websocket-key").unwrap().as_bytes())
}

/// An agent whose first connection the test holds, and the request that came over it.
async fn dialled(settings: ClientSettings) -> (Agent, TcpStream, Request) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/opamp", listener.local_addr().unwrap());
    let agent = Agent::start(
        builder(&url).settings(settings).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
    );
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    let upgrade = request(&mut stream).await;
    (agent, stream, upgrade)
}

async fn accept(stream: &mut TcpStream, accept_key: &str, extra: &str) {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-accept: {accept_key}\r\n{extra}\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// The next frame of the agent, unmasked: its first byte and its payload.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let (first, second) = (stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap());
        assert_ne!(second & 0x80, 0, "frames of a client are masked");
        let size = match second & 0x7f {
            126 => usize::from(stream.read_u16().await.unwrap()),
            127 => usize::try_from(stream.read_u64().await.unwrap()).unwrap(),
            small => usize::from(small),
        };
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; size];
        stream.read_exact(&mut payload).await.unwrap();
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        (first, payload)
    };
    within("a frame", read).await
}

/// The code of the Close frame that comes next.
async fn close_code(stream: &mut TcpStream) -> u16 {
    loop {
        let (first, payload) = frame(stream).await;
        if first & 0x0f == 8 {
            return u16::from_be_bytes([payload[0], payload[1]]);
        }
    }
}

#[tokio::test]
async fn the_upgrade_is_the_one_of_rfc_6455_and_asks_for_no_extension() {
    let (agent, mut stream, upgrade) = dialled(ClientSettings::default()).await;
    assert_eq!((upgrade.method.as_str(), upgrade.target.as_str()), ("GET", "/v1/opamp"));
    assert_eq!(upgrade.header("host"), Some(stream.local_addr().unwrap().to_string().as_str()));
    assert!(upgrade.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(upgrade.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(upgrade.header("sec-websocket-version"), Some("13"));
    let key = upgrade.header("sec-websocket-key").unwrap();
    assert!(key.len() == 24 && key.ends_with("=="), "16 bytes in base64: {key}");
    assert_eq!(upgrade.header("sec-websocket-extensions"), None, "so nothing on it can inflate");
    assert_eq!(upgrade.header("content-type"), None, "nothing a server would take for a poll");
    accept(&mut stream, &accept_key(&upgrade), "").await;
    let (first, payload) = frame(&mut stream).await;
    assert_eq!((first, payload[0]), (0x82, 0), "a final binary frame that begins with header 0");
    until("connected", || agent.client.stats().is_connected).await;
}

#[tokio::test]
async fn each_connection_has_a_key_of_its_own() {
    let key =
        async || dialled(ClientSettings::default()).await.2.header("sec-websocket-key").unwrap().to_owned();
    assert_ne!(key().await, key().await);
}

#[tokio::test]
async fn a_server_that_did_not_read_the_request_is_no_websocket_server() {
    let (agent, mut stream, _) = dialled(ClientSettings::default()).await;
    accept(&mut stream, "dGhlIHNhbXBsZSBub25jZQ==", "").await;
    assert_eq!(agent.failure().await.0, FailureKind::Protocol);
    assert!(!agent.client.stats().is_connected);
}

#[tokio::test]
async fn a_compressed_frame_that_nobody_asked_for_ends_the_connection_unread() {
    let (agent, mut stream, upgrade) = dialled(ClientSettings::default()).await;
    accept(&mut stream, &accept_key(&upgrade), "").await;
    frame(&mut stream).await;
    // RSV1, as permessage-deflate sets it.
    stream.write_all(&[0xc2, 3, 0, 0, 0]).await.unwrap();
    assert_eq!(close_code(&mut stream).await, 1002);
    assert_eq!(agent.failure().await.0, FailureKind::Protocol);
    assert_eq!(agent.client.stats().messages_received, 0);
}

#[tokio::test]
async fn an_oversized_message_is_refused_by_its_length_alone() {
    // As soon as the length is known: not one byte of the message has to come.
    for announced in [100_001, 1 << 40, u64::MAX >> 1] {
        let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
        let (agent, mut stream, upgrade) = dialled(settings).await;
        accept(&mut stream, &accept_key(&upgrade), "").await;
        frame(&mut stream).await;
        stream.write_all(&[0x82, 127]).await.unwrap();
        stream.write_all(&announced.to_be_bytes()).await.unwrap();
        assert_eq!(close_code(&mut stream).await, 1009, "{announced}");
        assert_eq!(agent.failure().await.0, FailureKind::Oversize);
        assert_eq!(agent.client.stats().messages_received, 0);
    }
}

#[tokio::test]
async fn fragments_are_counted_together_as_they_arrive() {
    let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
    let (agent, mut stream, upgrade) = dialled(settings).await;
    accept(&mut stream, &accept_key(&upgrade), "").await;
    frame(&mut stream).await;
    for number in 0..11 {
        // 10,000 bytes each; the message never ends.
        let first = if number == 0 { 0x02 } else { 0x00 };
        stream.write_all(&[first, 126, 0x27, 0x10]).await.unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
    }
    assert_eq!(close_code(&mut stream).await, 1009);
    assert_eq!(agent.failure().await.0, FailureKind::Oversize);
}

/// A field of number 15 that no message has, so that it is skipped, of so many bytes in all.
fn filler(bytes: usize) -> Vec<u8> {
    // Key, a length in four bytes, the content.
    let length = bytes - 5;
    let mut filler = vec![0x7a];
    filler.extend((0..4).map(|byte| (length >> (7 * byte)) as u8 & 0x7f | if byte < 3 { 0x80 } else { 0 }));
    filler.resize(bytes, 0);
    filler
}

#[tokio::test]
async fn the_receive_limit_is_64_mib_unless_told_otherwise() {
    const MIB_64: usize = 67_108_864;
    let (agent, mut stream, upgrade) = dialled(ClientSettings::default()).await;
    accept(&mut stream, &accept_key(&upgrade), "").await;
    frame(&mut stream).await;
    let message = [vec![0], filler(MIB_64 - 1)].concat();
    stream.write_all(&[0x82, 127]).await.unwrap();
    stream.write_all(&(message.len() as u64).to_be_bytes()).await.unwrap();
    within("it is read", stream.write_all(&message)).await.unwrap();
    agent.received(1).await;
    assert!(agent.events.failures().is_empty(), "{:?}", agent.events.all());
    stream.write_all(&[0x82, 127]).await.unwrap();
    stream.write_all(&(MIB_64 as u64 + 1).to_be_bytes()).await.unwrap();
    assert_eq!(close_code(&mut stream).await, 1009);
}

#[tokio::test]
async fn the_limit_of_an_answer_is_64_mib_unless_told_otherwise() {
    const MIB_64: usize = 67_108_864;
    let head = |bytes: usize| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {bytes}\r\n\r\n")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/opamp", listener.local_addr().unwrap());
    let agent = Agent::start(builder(&url));
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    request(&mut stream).await;
    stream.write_all(head(MIB_64).as_bytes()).await.unwrap();
    within("it is read", stream.write_all(&filler(MIB_64))).await.unwrap();
    agent.received(1).await;
    assert!(agent.events.failures().is_empty(), "{:?}", agent.events.all());
    agent.advance(30);
    request(&mut stream).await;
    stream.write_all(head(MIB_64 + 1).as_bytes()).await.unwrap();
    assert_eq!(agent.failure().await.0, FailureKind::Oversize);
}

#[tokio::test]
async fn a_server_that_hangs_up_before_it_answers_the_upgrade_is_tried_again_soon() {
    let (agent, stream, _upgrade) = dialled(ClientSettings::default()).await;
    drop(stream);
    let (kind, text) = agent.failure().await;
    assert_eq!(kind, FailureKind::Closed, "{text}");
    assert_eq!(kind.pace(), Pace::Usual);
}
