//! What peers can make the server hold.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use opamp_server::{
    AdmissionStage, Desired, Event, FrameReader, InsecureAcceptEveryone, RefusalReason, RemoteConfigOffer,
    ServerSettings, StaticToken, StaticTokens,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::common::{PATIENCE, TestServer, full, numbered, uid};
use super::{answered, poll_head, said, upgrade_request};

async fn with_room_for(buffered_bytes_max: usize, frames: FrameReader) -> TestServer {
    let settings = ServerSettings { buffered_bytes_max, frames, ..ServerSettings::default() };
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await
}

/// A report with a configuration of this many bytes.
fn large(bytes: usize) -> pb::AgentToServer {
    let object = pb::AgentConfigObject { body: vec![7; bytes].into(), ..Default::default() };
    let config_map = Some(pb::AgentConfigMap { config_map: [(String::new(), object)].into() });
    pb::AgentToServer { effective_config: Some(pb::EffectiveConfig { config_map }), ..full() }
}

fn desired(bytes: usize) -> Desired {
    let object = pb::AgentConfigObject { body: Bytes::from(vec![7; bytes]), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    Desired::remote_config(1, RemoteConfigOffer::new(ConfigHash::new(vec![1]), &config))
}

/// The beginning of a masked binary frame that says it has this many bytes.
fn announcing(length: u64) -> Vec<u8> {
    let mut head = vec![0x82, 0x80 | 127];
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    head
}

/// R-THROT-06, R-THROT-07.
#[tokio::test]
async fn a_poll_that_there_is_no_room_for_is_answered_503_and_the_one_that_has_it_is_served() {
    let server = with_room_for(1 << 20, FrameReader::Lean).await;
    let message = numbered(uid(1), 1, large(900_000)).encode_to_vec();
    let mut first = said(&server, poll_head(None, message.len())).await;
    first.write_all(&message[..800_000]).await.unwrap();
    server.until("it is held", |handle| handle.stats().admission.buffered.used_bytes >= 800_000).await;

    let mut second = said(&server, poll_head(None, message.len())).await;
    second.write_all(&message[..600_000]).await.unwrap();
    let (status, retry_after) = answered(&mut second).await;
    assert!(status == 503 && retry_after.unwrap().as_secs() >= 15, "{status} {retry_after:?}");
    // What is small enough to come at once needs no room.
    assert_eq!(server.poll(None, &numbered(uid(2), 1, full())).await.status, 200);

    first.write_all(&message[800_000..]).await.unwrap();
    assert_eq!(answered(&mut first).await.0, 200);
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    let stats = server.handle.stats();
    assert!(stats.admission.buffered.denied >= 1 && stats.admission.buffered.peak_bytes <= 1 << 20);
    assert_eq!(stats.admission.rejected[AdmissionStage::Memory.index()], 1);
    assert_eq!(stats.frames_rejected[RefusalReason::Unavailable.index()], 1);
}

/// R-THROT-01, R-THROT-03.
#[tokio::test]
async fn a_message_that_there_is_no_room_for_is_answered_unavailable_and_its_socket_closed_with_1013() {
    let server = with_room_for(200 << 10, FrameReader::Lean).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    let mut other = server.connect(None).await;
    other.say(uid(2), full()).await;
    let socket = agent.socket.get_mut();
    socket.write_all(&announcing(1 << 20)).await.unwrap();
    socket.write_all(&[0; 400 << 10]).await.unwrap();
    let answer = agent.receive().await.error_response.expect("an error response");
    assert_eq!(answer.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    let Some(pb::server_error_response::Details::RetryInfo(retry)) = answer.details else {
        panic!("it says when to come back");
    };
    assert!(retry.retry_after_nanoseconds >= 15_000_000_000);
    assert_eq!(agent.close_code().await, 1013);
    other.say(uid(2), pb::AgentToServer::default()).await;
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    let admission = server.handle.stats().admission;
    assert_eq!(admission.rejected[AdmissionStage::Memory.index()], 1);
    assert!(admission.buffered.peak_bytes <= 200 << 10);
}

#[tokio::test]
async fn announcing_64_mib_costs_what_has_arrived() {
    const PEERS: usize = 50;
    let server = with_room_for(256 << 20, FrameReader::Lean).await;
    let mut other = server.connect(None).await;
    other.say(uid(1), full()).await;
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let mut poll = said(&server, poll_head(None, 64 << 20)).await;
        poll.write_all(&[0; 1_000]).await.unwrap();
        let mut socket = said(&server, upgrade_request(None)).await;
        assert_eq!(answered(&mut socket).await.0, 101);
        socket.write_all(&announcing(64 << 20)).await.unwrap();
        socket.write_all(&[0; 1_000]).await.unwrap();
        peers.extend([poll, socket]);
    }
    let used = |used: u64| used >= (2 * PEERS * 1_000) as u64;
    server.until("all is there", |handle| used(handle.stats().admission.buffered.used_bytes)).await;
    other.say(uid(1), pb::AgentToServer::default()).await;
    let buffered = server.handle.stats().admission.buffered;
    assert!(buffered.peak_bytes < (2 * PEERS * 20_000) as u64, "{buffered:?}");
    assert_eq!((buffered.denied, server.handle.stats().websocket_active), (0, PEERS as u64 + 1));
    drop(peers);
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
}

/// A frame reader that reserves what is announced must not do so beyond the budget.
#[tokio::test]
async fn whatever_reads_the_frames_announcements_stay_within_the_budget() {
    for frames in [FrameReader::Lean, FrameReader::Tungstenite] {
        let server = with_room_for(100 << 20, frames).await;
        let mut other = server.connect(None).await;
        let config = pb::AgentConfigObject { body: vec![7; 10_000].into(), ..Default::default() };
        let config_map = Some(pb::AgentConfigMap { config_map: [(String::new(), config)].into() });
        let large =
            pb::AgentToServer { effective_config: Some(pb::EffectiveConfig { config_map }), ..full() };
        other.say(uid(1), large.clone()).await;
        let mut peers = Vec::new();
        for _ in 0..10 {
            let mut socket = said(&server, upgrade_request(None)).await;
            assert_eq!(answered(&mut socket).await.0, 101);
            socket.write_all(&announcing(60 << 20)).await.unwrap();
            let _ = socket.write_all(&[0; 10_000]).await; // it may be closed already
            peers.push(socket);
        }
        assert!(other.say(uid(1), large.clone()).await.error_response.is_none());
        server
            .until("what came of each is held", |handle| {
                let buffered = handle.stats().admission.buffered;
                handle.stats().websocket_opened == 11 && buffered.used_bytes >= 10 * 10_000
            })
            .await;
        let stats = server.handle.stats();
        assert_eq!(
            (stats.websocket_active, stats.admission.rejected[AdmissionStage::Memory.index()]),
            (11, 0)
        );
        assert!(stats.admission.buffered.peak_bytes <= 1 << 20, "{}", stats.admission.buffered.peak_bytes);
        assert!(other.say(uid(1), large.clone()).await.error_response.is_none());
        drop(peers);
        server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_holds_its_room_and_what_found_none_is_offered_again() {
    const OFFER: usize = 16 << 20;
    let server = with_room_for(20 << 20, FrameReader::Lean).await;
    for number in [1, 2] {
        server.handle.set_desired(&uid(number), desired(OFFER));
    }
    let message = numbered(uid(1), 1, full()).encode_to_vec();
    let mut slow = said(&server, [poll_head(None, message.len()).into_bytes(), message].concat()).await;
    server.until("it is held", |handle| handle.stats().admission.buffered.used_bytes >= OFFER as u64).await;

    let refused = server.poll(None, &numbered(uid(2), 1, full())).await;
    assert!(refused.status == 503 && refused.retry_after.unwrap() >= 15, "{}", refused.status);
    assert_eq!(
        server.poll(None, &numbered(uid(3), 1, full())).await.status,
        200,
        "a small answer needs none"
    );

    let mut taken = 0;
    let mut chunk = vec![0; 1 << 20];
    while taken < OFFER {
        let read = tokio::time::timeout(PATIENCE, slow.read(&mut chunk)).await.expect("the answer").unwrap();
        assert!(read > 0, "cut off after {taken}");
        taken += read;
    }
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    let offered = server.poll(None, &numbered(uid(2), 2, pb::AgentToServer::default())).await;
    assert!(offered.message.unwrap().remote_config.is_some());
}

#[tokio::test]
async fn the_head_of_a_request_has_its_limit() {
    let head =
        |bytes: usize| format!("GET /v1/opamp HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(bytes));
    let server = TestServer::start().await;
    assert_eq!(answered(&mut said(&server, head(30 << 10)).await).await.0, 426);
    assert_eq!(answered(&mut said(&server, head(70 << 10)).await).await.0, 431);
    let settings = ServerSettings { http_buffer_bytes: 128 << 10, ..ServerSettings::default() };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    assert_eq!(answered(&mut said(&server, head(70 << 10)).await).await.0, 426);
}

#[tokio::test]
async fn a_message_that_cannot_be_kept_until_it_is_known_whose_it_is_costs_its_agent_and_not_the_socket() {
    let server = with_room_for(0, FrameReader::Lean).await;
    let mut incumbent = server.connect(None).await;
    incumbent.say(uid(1), full()).await;
    let mut gateway = server.connect(None).await;
    gateway.say(uid(2), full()).await;
    gateway.send_numbered(uid(1), 90, full()).await;
    let error = gateway.receive().await.error_response.expect("it is sent away");
    assert_eq!(error.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    assert!(matches!(error.details, Some(pb::server_error_response::Details::RetryInfo(_))));
    assert!(gateway.say(uid(2), full()).await.error_response.is_none(), "the other agent is served on");
    assert!(incumbent.say(uid(1), full()).await.error_response.is_none());
    assert_eq!(server.handle.stats().admission.buffered.denied, 1);
}

#[tokio::test]
async fn a_poll_that_there_is_no_room_for_is_told_with_the_name_of_its_sender() {
    let tokens = StaticTokens::new(vec![StaticToken::new("one", "secret-one")]);
    let settings = ServerSettings { buffered_bytes_max: 0, ..ServerSettings::default() };
    let server = TestServer::with(Arc::new(tokens), settings).await;
    let mut stream = said(&server, poll_head(Some("secret-one"), 1 << 20)).await;
    stream.write_all(&[0; 600 << 10]).await.unwrap();
    assert_eq!(answered(&mut stream).await.0, 503);
    let principal = server.event("a refusal", |event| match event {
        Event::Refused(refusal) => Some(refusal.principal),
        _ => None,
    });
    assert_eq!(principal.await.as_deref(), Some("token:one"));
}
