//! What stands on the wire: frames, headers, compression, limits.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::SinkExt as _;
use opamp_client::{
    Client, ClientSettings, EffectiveConfig, Event, FailureKind, Health, RemoteConfig, RemoteConfigHandler,
    Wall,
};
use opamp_proto::pb;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::common::{Agent, TestServer, builder, until};
use crate::stub::{HttpStub, Reply, WsStub, ack, answer, status};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn offer(bytes: usize) -> pb::ServerToAgent {
    let object = pb::AgentConfigObject { body: vec![b'x'; bytes].into(), ..Default::default() };
    let config = Some(pb::AgentConfigMap { config_map: [(String::new(), object)].into() });
    let offer = pb::AgentRemoteConfig { config, config_hash: vec![1].into() };
    pb::ServerToAgent { remote_config: Some(offer), ..ack() }
}

/// Takes every configuration, and counts them.
fn counting(applied: Arc<AtomicUsize>) -> impl RemoteConfigHandler {
    move |_: RemoteConfig, _: Client| {
        applied.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    }
}

#[tokio::test]
async fn a_poll_has_the_headers_and_the_body_it_should_have() {
    let stub = HttpStub::acknowledging().await;
    let agent = Agent::start(builder(&stub.url("http")));
    let request = stub.request(0).await;
    let uid = agent.client.uid();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/opamp"));
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    assert_eq!(request.header("opamp-instance-uid"), Some(uid.to_string().as_str()));
    assert_eq!(
        request.message().instance_uid[..],
        uid.as_bytes()[..],
        "no frame header, and the same identity"
    );
}

#[tokio::test]
async fn the_identity_in_the_header_follows_the_one_in_the_body() {
    let identification = pb::AgentIdentification { new_instance_uid: vec![9; 16].into() };
    let assign = pb::ServerToAgent { agent_identification: Some(identification), ..ack() };
    let stub =
        HttpStub::start(move |number, _| if number == 0 { answer(&assign) } else { answer(&ack()) }).await;
    let _agent = Agent::start(builder(&stub.url("http")));
    let request = stub.request(1).await;
    assert_eq!(request.header("opamp-instance-uid"), Some("09090909-0909-0909-0909-090909090909"));
    assert_eq!(request.message().instance_uid[..], [9; 16]);
}

#[tokio::test]
async fn requests_are_compressed_if_that_is_wanted_and_worth_it() {
    let stub = HttpStub::acknowledging().await;
    let settings = ClientSettings { compress: true, ..Default::default() };
    let agent = Agent::start(builder(&stub.url("http")).settings(settings));
    let small = stub.request(0).await;
    assert_eq!(small.header("content-encoding"), None);
    small.message();
    agent.client.set_effective_config(EffectiveConfig::single("a: 1\n".repeat(1_000))).unwrap();
    let large = stub.request(1).await;
    assert_eq!(large.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    GzDecoder::new(&large.body[..]).read_to_end(&mut plain).unwrap();
    assert!(pb::AgentToServer::decode(&plain[..]).unwrap().effective_config.is_some());
    // And the real server takes it.
    let server = TestServer::start().await;
    let settings = ClientSettings { compress: true, compress_min_bytes: 1, ..Default::default() };
    let agent =
        Agent::start(builder(&server.url("http")).settings(settings).health(Health::healthy(Wall(1))));
    server.sees(agent.client.uid(), "the report", |agent| agent.sequence_num.0 == 1).await;
}

#[tokio::test]
async fn compressed_answers_are_read() {
    let body = gzip(&offer(100_000).encode_to_vec());
    let stub = HttpStub::start(move |_, _| status("200 OK", "content-encoding: gzip\r\n", &body)).await;
    let agent =
        Agent::start(builder(&stub.url("http")).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }));
    let applied = |request: &crate::stub::Request| {
        request.message().remote_config_status.is_some_and(|status| status.status == 1)
    };
    until("applied", || stub.requests().iter().any(applied)).await;
    assert!(agent.events.failures().is_empty());
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_used_however_it_is_packed() {
    let plain = offer(200_000).encode_to_vec();
    let bomb = gzip(&offer(50 << 20).encode_to_vec());
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let chunked = [format!("{:x}\r\n", plain.len()).as_bytes(), &plain, b"\r\n0\r\n\r\n"].concat();
    let answers = [
        ("content-length", status("200 OK", "", &plain)),
        ("gzip", status("200 OK", "content-encoding: gzip\r\n", &bomb)),
        (
            "chunked",
            Reply::Bytes([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &chunked[..]].concat()),
        ),
    ];
    for (name, reply) in answers {
        let Reply::Bytes(bytes) = reply else { unreachable!() };
        let stub = HttpStub::start(
            move |number, _| {
                if number == 1 { Reply::Bytes(bytes.clone()) } else { answer(&ack()) }
            },
        )
        .await;
        let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
        let applied = Arc::new(AtomicUsize::new(0));
        let agent = Agent::start(
            builder(&stub.url("http")).settings(settings).on_remote_config(counting(Arc::clone(&applied))),
        );
        agent.connected().await;
        agent.advance(30);
        assert_eq!(agent.failure().await.0, FailureKind::Oversize, "{name}");
        agent.reconnect_until("it polls on", || stub.requests().len() >= 3).await;
        assert_eq!(agent.client.stats().discarded_incoming, 1, "{name}");
        assert_eq!(applied.load(Ordering::SeqCst), 0, "{name}");
    }
}

#[tokio::test]
async fn an_oversized_websocket_message_is_refused_with_1009() {
    for fragmented in [false, true] {
        let stub = WsStub::start().await;
        let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
        let applied = Arc::new(AtomicUsize::new(0));
        let agent = Agent::start(
            builder(&stub.url()).settings(settings).on_remote_config(counting(Arc::clone(&applied))),
        );
        let mut peer = stub.accept().await;
        peer.acknowledge().await;
        let bytes = [&[0], &offer(8 << 20).encode_to_vec()[..]].concat();
        let send = async {
            if fragmented {
                send_fragmented(&mut peer, &bytes, 100_000).await;
            } else {
                let _ = peer.socket.send(Message::Binary(bytes.into())).await;
            }
        };
        crate::common::within("it is taken, whatever becomes of it", send).await;
        assert_eq!(peer.close_code().await, Some(1009));
        assert_eq!(agent.failure().await.0, FailureKind::Oversize);
        until("recorded", || agent.client.stats().discarded_incoming == 1).await;
        drop(peer);
        until("it waits", || {
            agent.clock.advance(std::time::Duration::from_secs(1));
            agent.client.stats().reconnects == 1
        })
        .await;
        assert_eq!(applied.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn messages_up_to_the_limit_are_taken_to_the_byte() {
    assert_eq!(ClientSettings::default().receive_bytes_max, 67_108_864, "unless told otherwise");
    // Lengths take as many bytes for a little less, so the rest is a constant.
    let overhead = offer(99_000).encode_to_vec().len() - 99_000 + 1;
    for (bytes, fits) in [(100_000 - overhead, true), (100_000 - overhead + 1, false)] {
        let stub = WsStub::start().await;
        let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
        let agent = Agent::start(
            builder(&stub.url()).settings(settings).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
        );
        let mut peer = stub.accept().await;
        peer.acknowledge().await;
        peer.send(&offer(bytes)).await;
        if fits {
            assert!(peer.receive().await.remote_config_status.is_some());
        } else {
            assert_eq!(peer.close_code().await, Some(1009));
        }
        drop(agent);
    }
}

/// Sends one binary message in frames of so many bytes.
async fn send_fragmented(peer: &mut crate::stub::WsPeer, bytes: &[u8], frame: usize) {
    let chunks: Vec<&[u8]> = bytes.chunks(frame).collect();
    for (number, chunk) in chunks.iter().enumerate() {
        let kind = if number == 0 { Data::Binary } else { Data::Continue };
        let last = number + 1 == chunks.len();
        let frame = Frame::message(chunk.to_vec(), OpCode::Data(kind), last);
        if peer.socket.send(Message::Frame(frame)).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn fragmented_messages_are_put_together() {
    let stub = WsStub::start().await;
    let _agent = Agent::start(builder(&stub.url()).on_remote_config(|config: RemoteConfig, _| async move {
        assert_eq!(config.single().unwrap().len(), 50_000);
        Ok(())
    }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let bytes = [&[0], &offer(50_000).encode_to_vec()[..]].concat();
    send_fragmented(&mut peer, &bytes, 7).await;
    assert_eq!(peer.acknowledge().await.remote_config_status.unwrap().status, 2);
    assert_eq!(peer.acknowledge().await.remote_config_status.unwrap().status, 1);
}

#[tokio::test]
async fn outgoing_frames_are_no_larger_than_configured() {
    for frame_bytes in [100, 4_096] {
        // A socket without WebSocket code on it, so that the frames themselves are seen.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let settings = ClientSettings { frame_bytes, ..Default::default() };
        let config = EffectiveConfig::single("x".repeat(20_000));
        let _agent = Agent::start(builder(&url).settings(settings).initial_effective_config(config));
        let (stream, _) = listener.accept().await.unwrap();
        let (sizes, message) = crate::common::within("a message", frames(stream)).await;
        assert!(sizes.len() > 4 && sizes.iter().all(|size| *size <= frame_bytes), "{sizes:?}");
        assert_eq!(message[0], 0);
        let message = pb::AgentToServer::decode(&message[1..]).unwrap();
        let config = message.effective_config.unwrap().config_map.unwrap();
        assert_eq!(config.config_map[""].body.len(), 20_000);
    }
}

#[tokio::test]
async fn a_server_in_the_middle_of_an_oversized_message_gets_to_read_why_it_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
    let _agent = Agent::start(builder(&url).settings(settings));
    let (mut stream, _) = listener.accept().await.unwrap();
    let story = async {
        upgrade(&mut stream).await;
        // A binary message of 16 MiB, which is refused as soon as its length is known.
        let announced: u64 = 16 << 20;
        stream.write_all(&[0x82, 127]).await.unwrap();
        stream.write_all(&announced.to_be_bytes()).await.unwrap();
        for _ in 0..16 {
            stream.write_all(&vec![0; 1 << 20]).await.expect("it is read to its end");
        }
        stream.write_all(&[0x88, 0x00]).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("the stream ends in good order");
        // The last frame is a masked Close of two bytes, the code.
        let close = &all[all.len() - 8..];
        assert_eq!(close[..2], [0x88, 0x82], "{close:x?}");
        let code = [close[6] ^ close[2], close[7] ^ close[3]];
        assert_eq!(u16::from_be_bytes(code), 1009);
    };
    crate::common::within("the end of the story", story).await;
}

/// Answers an upgrade.
async fn upgrade(stream: &mut tokio::net::TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| {
        line.strip_prefix("sec-websocket-key: ").or(line.strip_prefix("Sec-WebSocket-Key: "))
    });
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.expect(&head).as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Answers the upgrade and reads the frames of one message: their sizes, and the message.
async fn frames(mut stream: tokio::net::TcpStream) -> (Vec<usize>, Vec<u8>) {
    upgrade(&mut stream).await;
    let (mut sizes, mut message) = (Vec::new(), Vec::new());
    loop {
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
        message.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        sizes.push(size);
        assert_eq!(first & 0x0f, if sizes.len() == 1 { 2 } else { 0 }, "binary, then continued");
        if first & 0x80 != 0 {
            return (sizes, message);
        }
    }
}

#[tokio::test]
async fn a_text_message_is_not_opamp_and_ends_the_connection() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(peer.close_code().await, Some(1003));
    assert_eq!(agent.failure().await.0, FailureKind::Protocol);
}

#[tokio::test]
async fn after_the_goodbye_comes_a_close_frame_and_the_handshake_is_completed() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    agent.client.stop();
    assert!(peer.receive().await.agent_disconnect.is_some());
    assert_eq!(peer.close_code().await, Some(1000));
    crate::common::within("the agent stops", agent.client.stopped()).await;
    assert!(peer.next().await.is_none(), "and nothing after it");
}

#[tokio::test]
async fn a_close_frame_of_the_server_is_answered() {
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let frame = CloseFrame { code: 1001_u16.into(), reason: "bye".into() };
    peer.socket.send(Message::Close(Some(frame))).await.unwrap();
    assert!(peer.close_code().await.is_some());
    let event = agent.event("told", |event| matches!(event, Event::Disconnected { .. })).await;
    assert!(event.to_string().contains("shutting down: bye"), "{event}");
}

#[tokio::test]
async fn pings_of_the_server_are_answered() {
    let stub = WsStub::start().await;
    let _agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.socket.send(Message::Ping(vec![1, 2, 3].into())).await.unwrap();
    match peer.next().await {
        Some(Message::Pong(data)) => assert_eq!(data[..], [1, 2, 3]),
        other => panic!("{other:?}"),
    }
}
