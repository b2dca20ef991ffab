//! Requests over plain HTTP, as a server of any make sees them: what stands in each, what is refused, what is limited.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::GzDecoder;
use opamp_client::{
    ClientSettings, EffectiveConfig, Event, FailureKind, Health, InstanceUid, RemoteConfig, Wall,
};
use opamp_proto::pb;
use prost::Message as _;

use crate::common::{Agent, Memory, TestServer, builder, session, until};
use crate::stub::{HttpStub, Reply, Request, ack, answer, status};

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The message in a request, inflated if the header says so.
fn message(request: &Request) -> pb::AgentToServer {
    let mut plain = request.body.clone();
    if request.header("content-encoding") == Some("gzip") {
        plain.clear();
        GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
    }
    pb::AgentToServer::decode(&plain[..]).unwrap()
}

fn offer(bytes: usize) -> pb::ServerToAgent {
    let object = pb::AgentConfigObject { body: vec![b'x'; bytes].into(), ..Default::default() };
    let config = Some(pb::AgentConfigMap { config_map: [(String::new(), object)].into() });
    let offer = pb::AgentRemoteConfig { config, config_hash: vec![1].into() };
    pb::ServerToAgent { remote_config: Some(offer), ..ack() }
}

fn effective(message: &pb::AgentToServer) -> Option<&[u8]> {
    let map = message.effective_config.as_ref()?.config_map.as_ref()?;
    map.config_map.get("").map(|file| &file.body[..])
}

/// Lets a message pass when the debounce of health and the last answer are over.
async fn settled(agent: &Agent, answers: u64) {
    agent.received(answers).await;
    agent.advance(2);
}

#[tokio::test]
async fn every_request_of_a_session_has_its_headers_and_says_truly_whether_it_is_compressed() {
    let identification = pb::AgentIdentification { new_instance_uid: vec![9; 16].into() };
    let assign = pb::ServerToAgent { agent_identification: Some(identification), ..ack() };
    let stub =
        HttpStub::start(move |number, _| if number == 2 { answer(&assign) } else { answer(&ack()) }).await;
    let settings = ClientSettings { compress: true, compress_min_bytes: 200, ..Default::default() };
    let agent = Agent::start(builder(&stub.url("http")).state(Memory::of(UID)).settings(settings));
    settled(&agent, 1).await;
    agent.client.set_effective_config(EffectiveConfig::single("a: 1\n".repeat(1_000))).unwrap();
    settled(&agent, 2).await;
    agent.client.set_health(Health::healthy(Wall(1))).unwrap();
    settled(&agent, 4).await;
    agent.advance(30);
    settled(&agent, 5).await;
    agent.stop().await;

    let requests = stub.requests();
    assert_eq!(requests.len(), 6, "report, configuration, health, new identity, poll, goodbye");
    for (number, request) in requests.iter().enumerate() {
        let message = message(request);
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/opamp"));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"), "{number}");
        let compressed = request.body.starts_with(&GZIP_MAGIC);
        assert_eq!(
            request.header("content-encoding").is_some(),
            compressed,
            "{number}: {:?}",
            request.headers
        );
        let uid = InstanceUid::try_from(&message.instance_uid[..]).unwrap();
        assert_eq!(request.header("opamp-instance-uid"), Some(uid.to_string().as_str()), "{number}");
        assert_eq!(uid, if number < 3 { UID } else { InstanceUid::from_bytes([9; 16]) }, "{number}");
        assert_eq!(message.sequence_num, number as u64 + 1);
    }
    let compressed = |request: &&Request| request.body.starts_with(&GZIP_MAGIC);
    assert!(requests.iter().filter(compressed).count() >= 1, "the large one");
    assert!(message(&requests[5]).agent_disconnect.is_some());
}

#[tokio::test]
async fn a_body_refused_with_413_does_not_come_again_and_later_changes_do() {
    let stub = HttpStub::start(|_, request| {
        let too_large = effective(&message(request)).is_some_and(|body| body.len() > 1_000);
        if too_large { status("413 Content Too Large", "", b"") } else { answer(&ack()) }
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")));
    settled(&agent, 1).await;
    agent.client.set_effective_config(EffectiveConfig::single("x".repeat(5_000))).unwrap();
    assert_eq!(agent.failure().await.0, FailureKind::TooLarge);
    let seen = stub.requests().len();
    agent.reconnect_until("it comes back", || stub.requests().len() > seen).await;
    for _ in 0..3 {
        let polls = agent.client.stats().messages_received;
        until("answered", || agent.client.stats().is_connected).await;
        agent.advance(30);
        agent.received(polls + 1).await;
    }
    agent.client.set_effective_config(EffectiveConfig::single("small")).unwrap();
    until("the change arrives", || {
        stub.requests().iter().any(|request| effective(&message(request)) == Some(b"small"))
    })
    .await;
    let large = stub.requests().iter().filter(|request| request.body.len() > 1_000).count();
    assert_eq!(large, 1, "the refused one, once");
}

#[tokio::test]
async fn what_is_too_large_before_compression_is_not_sent_however_small_it_gets() {
    let stub = HttpStub::acknowledging().await;
    let settings = ClientSettings { compress: true, ..session(|session| session.send_bytes_max = 10_000) };
    let agent = Agent::start(builder(&stub.url("http")).settings(settings));
    settled(&agent, 1).await;
    agent.client.set_effective_config(EffectiveConfig::single("x".repeat(20_000))).unwrap();
    let told = agent.event("recorded", |event| matches!(event, Event::Discarded { .. })).await;
    assert!(told.to_string().contains("10000") || told.to_string().contains("10,000"), "{told}");
    agent.client.set_effective_config(EffectiveConfig::single("y".repeat(9_000))).unwrap();
    settled(&agent, 2).await;
    let requests = stub.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(effective(&message(&requests[1])).map(|body| body[0]), Some(b'y'), "what fits is sent");
    assert_eq!(agent.client.stats().discarded_outgoing, 1);
}

#[tokio::test]
async fn a_body_up_to_the_receive_limit_is_taken_to_the_byte_and_one_above_is_not_used() {
    let limit = 100_000;
    let overhead = offer(99_000).encoded_len() - 99_000;
    for (bytes, fits) in [(limit - overhead, true), (limit - overhead + 1, false)] {
        assert_eq!(offer(bytes).encoded_len() == limit, fits);
        let stub =
            HttpStub::start(move |number, _| answer(&if number == 1 { offer(bytes) } else { ack() })).await;
        let applied = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&applied);
        let settings = ClientSettings { receive_bytes_max: limit, ..Default::default() };
        let agent = Agent::start(builder(&stub.url("http")).settings(settings).on_remote_config(
            move |_: RemoteConfig, _| {
                count.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            },
        ));
        settled(&agent, 1).await;
        agent.advance(30);
        if fits {
            until("applied", || applied.load(Ordering::SeqCst) == 1).await;
            assert!(agent.events.failures().is_empty());
        } else {
            assert_eq!(agent.failure().await.0, FailureKind::Oversize);
            agent.reconnect_until("it polls on", || stub.requests().len() >= 3).await;
            assert_eq!(applied.load(Ordering::SeqCst), 0, "nothing of it is used");
            assert_eq!(agent.client.stats().discarded_incoming, 1);
        }
    }
}

#[tokio::test]
async fn nothing_of_an_oversized_answer_is_used_and_it_acknowledges_nothing() {
    // The first answer holds an offer and fits the limit only as it is packed.
    let bomb = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&offer(50 << 20).encode_to_vec()).unwrap();
        encoder.finish().unwrap()
    };
    assert!(bomb.len() < 100_000);
    let stub = HttpStub::start(move |number, _| match number {
        0 => status("200 OK", "content-encoding: gzip\r\n", &bomb),
        _ => answer(&ack()),
    })
    .await;
    let applied = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&applied);
    let settings = ClientSettings { receive_bytes_max: 100_000, ..Default::default() };
    let agent = Agent::start(builder(&stub.url("http")).settings(settings).on_remote_config(
        move |_: RemoteConfig, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        },
    ));
    assert_eq!(agent.failure().await.0, FailureKind::Oversize);
    agent.reconnect_until("it polls on", || stub.requests().len() >= 2).await;
    let again = message(&stub.request(1).await);
    assert!(again.agent_description.is_some(), "the report it answered comes again");
    assert_eq!(again.remote_config_status.unwrap_or_default(), pb::RemoteConfigStatus::default());
    assert_eq!(applied.load(Ordering::SeqCst), 0);
}

on_both_transports! {
    async fn without_a_path_it_is_v1_opamp(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(builder(&format!("{scheme}://{}", server.address)).state(Memory::of(UID)));
        server.sees(UID, "the first report", |agent| agent.sequence_num.0 >= 1).await;
        agent.stop().await;
        assert!(agent.events.failures().is_empty());
    }

    async fn a_default_agent_takes_nothing_from_its_server(scheme) {
        let server = TestServer::start().await;
        let _agent = Agent::start(builder(&server.url(scheme)).state(Memory::of(UID)));
        let seen = server.sees(UID, "the first report", |agent| agent.sequence_num.0 >= 1).await;
        // Neither remote configuration nor restart nor packages nor connection settings.
        let accepts = 0x2 | 0x8 | 0x100 | 0x200 | 0x400;
        assert_eq!(seen.capabilities.bits() & accepts, 0);
    }
}

#[tokio::test]
async fn the_same_story_is_told_with_and_without_connections_that_last() {
    let mut told = Vec::new();
    for closing in [false, true] {
        let stub = HttpStub::start(move |_, _| {
            let Reply::Bytes(bytes) = answer(&ack()) else { unreachable!() };
            let close: &[u8] = if closing { b"\r\nconnection: close" } else { b"" };
            Reply::Bytes([&bytes[..15], close, &bytes[15..]].concat())
        })
        .await;
        let agent =
            Agent::start(builder(&stub.url("http")).state(Memory::of(UID)).health(Health::healthy(Wall(1))));
        settled(&agent, 1).await;
        agent.client.set_health(Health::unhealthy(Wall(1), "x")).unwrap();
        settled(&agent, 2).await;
        agent.advance(30);
        agent.received(3).await;
        agent.stop().await;
        let connections = stub.connections.load(Ordering::SeqCst);
        assert_eq!(connections, if closing { 4 } else { 1 });
        told.push(
            stub.requests().iter().map(message).map(|message| format!("{message:?}")).collect::<Vec<_>>(),
        );
        assert!(agent.events.failures().is_empty(), "{:?}", agent.events.all());
    }
    assert_eq!(told[0], told[1]);
}
