//! Peers that are too slow: each is closed with its reason within its deadline and counted, and the others do not notice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use opamp_server::{
    AdmissionStage, Desired, DisconnectReason, Event, FrameReader, InsecureAcceptEveryone, Liveness,
    OpampServer, RefusalReason, RemoteConfigOffer, ServerSettings, SlowPeer, TlsSource,
};
use opamp_testkit::certs::Authority;
use prost::Message as _;
use rustls::ClientConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::common::{Agent, PATIENCE, TestServer, full, numbered, uid};
use super::{answered, closed, poll_head, said, upgrade_request};

/// Long enough for those who are there in time, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// A server, and an agent on it that is to be served whatever the others do.
async fn server(settings: ServerSettings) -> (TestServer, Agent) {
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let mut witness = server.connect(None).await;
    witness.say(uid(100), full()).await;
    (server, witness)
}

async fn is_served(witness: &mut Agent) {
    assert!(witness.say(uid(100), pb::AgentToServer::default()).await.error_response.is_none());
}

fn count(server: &TestServer, slow: SlowPeer) -> u64 {
    server.handle.stats().admission.slow_peers_closed[slow.index()]
}

/// That one peer was too slow with this, and with nothing else.
fn only(server: &TestServer, slow: SlowPeer) {
    let counts = server.handle.stats().admission.slow_peers_closed;
    let expected = std::array::from_fn(|index| u64::from(index == slow.index()));
    assert_eq!(counts, expected, "{}", slow.as_str());
    assert_eq!(server.handle.stats().frames_rejected[RefusalReason::Timeout.index()], 1);
}

/// A refusal for lateness that says this.
async fn told(server: &TestServer, what: &str) {
    let fits = |event| match event {
        Event::Refused(refusal) if refusal.reason == RefusalReason::Timeout => Some(refusal.detail),
        _ => None,
    };
    let detail = server.event("a refusal", fits).await;
    assert!(detail.contains(what), "{detail}");
}

/// Sends a byte now and then until the other end has enough of it.
async fn drips(mut stream: TcpStream, byte: u8) {
    while stream.write_all(&[byte]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

fn offer(bytes: usize) -> Desired {
    let object = pb::AgentConfigObject { body: Bytes::from(vec![7; bytes]), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    Desired::remote_config(1, RemoteConfigOffer::new(ConfigHash::new(vec![1]), &config))
}

#[tokio::test]
async fn a_peer_that_connects_and_says_nothing_is_closed() {
    let (server, mut witness) =
        server(ServerSettings { handshake_timeout: SHORT, ..ServerSettings::default() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    is_served(&mut witness).await;
    closed(&mut silent).await;
    told(&server, "nothing was sent").await;
    only(&server, SlowPeer::Handshake);
    assert_eq!(server.handle.stats().admission.rejected[AdmissionStage::Handshake.index()], 1);
    is_served(&mut witness).await;
}

#[tokio::test]
async fn a_peer_whose_headers_drip_is_closed_and_one_that_rests_between_two_requests_is_not_blamed() {
    let (server, mut witness) =
        server(ServerSettings { header_read_timeout: SHORT, ..ServerSettings::default() }).await;
    let message = numbered(uid(1), 1, full()).encode_to_vec();
    let mut resting = said(&server, [poll_head(None, message.len()).into_bytes(), message].concat()).await;
    assert_eq!(answered(&mut resting).await.0, 200);
    let dripping = tokio::spawn(drips(said(&server, "GET /v1/opamp HTTP/1.1\r\nx: ").await, b'a'));
    tokio::time::timeout(PATIENCE, dripping).await.expect("it is closed").unwrap();
    is_served(&mut witness).await;
    closed(&mut resting).await;
    told(&server, "headers").await;
    only(&server, SlowPeer::Headers);
}

#[tokio::test]
async fn a_peer_whose_body_drips_is_answered_408() {
    let (server, mut witness) =
        server(ServerSettings { body_timeout: SHORT, ..ServerSettings::default() }).await;
    let (mut reading, mut writing) = said(&server, poll_head(None, 1 << 20)).await.into_split();
    let dripping = tokio::spawn(async move {
        while writing.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    is_served(&mut witness).await;
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, reading.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    told(&server, "body").await;
    only(&server, SlowPeer::Body);
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    dripping.abort();
    is_served(&mut witness).await;
}

#[tokio::test]
async fn a_peer_that_upgrades_and_says_nothing_of_an_agent_is_closed_whatever_else_it_sends() {
    let (server, mut witness) = server(ServerSettings::default()).await;
    let mut silent = said(&server, upgrade_request(None)).await;
    assert_eq!(answered(&mut silent).await.0, 101);
    for _ in 0..29 {
        server.clock.advance(1);
        silent.write_all(&frame(0x8a, b"")).await.unwrap(); // a pong
        is_served(&mut witness).await;
    }
    assert_eq!(count(&server, SlowPeer::FirstMessage), 0);
    server.clock.advance(1);
    closed(&mut silent).await;
    told(&server, "deadline").await;
    only(&server, SlowPeer::FirstMessage);
    is_served(&mut witness).await;
}

#[tokio::test]
async fn a_message_that_never_becomes_whole_ends_its_socket_though_the_peer_lives() {
    for frames in [FrameReader::Lean, FrameReader::Tungstenite] {
        let (server, mut witness) = server(ServerSettings { frames, ..ServerSettings::default() }).await;
        let mut agent = server.connect(None).await;
        agent.say(uid(1), full()).await;
        let socket = agent.socket.get_mut();
        socket.write_all(&frame(0x02, &[0; 10])).await.unwrap();
        // It is in the hands of the server before the clock moves.
        server.until("a part is held", |handle| handle.stats().admission.buffered.used_bytes > 0).await;
        for _ in 0..29 {
            server.clock.advance(1);
            socket.write_all(&frame(0x00, b"a")).await.unwrap();
            socket.write_all(&frame(0x8a, b"")).await.unwrap();
            is_served(&mut witness).await;
        }
        assert_eq!(count(&server, SlowPeer::Message), 0, "{frames:?}");
        server.clock.advance(2);
        let gone = server.change("closed", |change| change.snapshot.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
        assert_eq!(agent.close_code().await, 1008);
        only(&server, SlowPeer::Message);
        is_served(&mut witness).await;
    }
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed() {
    let (server, witness) = server(ServerSettings::default()).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    let witness = witness.keep_alive();
    for _ in 0..6 {
        server.clock.advance(15);
        server
            .until("the one that answers is heard", |handle| {
                let seen = handle.agent(&uid(100)).unwrap().last_seen;
                handle.now().wall.0 - seen.0 < 60_000
            })
            .await;
    }
    let gone = server.change("closed", |change| change.snapshot.liveness == Liveness::Disconnected).await;
    assert_eq!((gone.snapshot.uid, gone.snapshot.disconnect.unwrap().0), (uid(1), DisconnectReason::Timeout));
    only(&server, SlowPeer::Silent);
    let (mut witness, _) = witness.stop().await;
    is_served(&mut witness).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed() {
    let (server, mut witness) = server(ServerSettings::default()).await;
    let mut agent = server.connect(None).await;
    agent.say(uid(1), full()).await;
    server.handle.set_desired(&uid(1), offer(32 << 20));
    server
        .until("the write began", |handle| handle.agent(&uid(1)).unwrap().remote_config.offered.is_some())
        .await;
    // While the buffers of both kernels still take some of it, its time begins anew.
    for _ in 0..4 {
        server.clock.advance(20);
        is_served(&mut witness).await;
        let closing = async {
            while count(&server, SlowPeer::Write) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(SHORT, closing).await.is_ok() {
            break;
        }
    }
    let gone = server.change("closed", |change| change.snapshot.liveness == Liveness::Disconnected).await;
    assert_eq!(gone.snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
    only(&server, SlowPeer::Write);
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    is_served(&mut witness).await;
}

#[tokio::test]
async fn a_peer_that_does_not_take_the_answer_to_its_poll_is_closed() {
    let (server, mut witness) =
        server(ServerSettings { write_timeout: SHORT, ..ServerSettings::default() }).await;
    server.handle.set_desired(&uid(1), offer(32 << 20));
    let message = numbered(uid(1), 1, full()).encode_to_vec();
    let poll = said(&server, [poll_head(None, message.len()).into_bytes(), message].concat()).await;
    is_served(&mut witness).await;
    told(&server, "not taken").await;
    only(&server, SlowPeer::Write);
    server.until("nothing is held", |handle| handle.stats().admission.buffered.used_bytes == 0).await;
    is_served(&mut witness).await;
    drop(poll);
}

#[tokio::test]
async fn a_peer_that_does_not_end_its_tls_handshake_is_closed() {
    let authority = Authority::new("ca");
    let config = Authority::server_config(&authority.server(&["localhost"]));
    let settings = ServerSettings { handshake_timeout: SHORT, ..ServerSettings::default() };
    let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings);
    let (service, handle, _driver) = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(opamp_server::serve(listener, Some(TlsSource::new(config)), service));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut hello = Vec::new();
    let mut client =
        ClientConnection::new(authority.client_config(), "localhost".try_into().unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut dripping = TcpStream::connect(address).await.unwrap();
    let dripping = tokio::spawn(async move {
        for byte in hello {
            if dripping.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was let through the whole of it");
    });
    closed(&mut silent).await;
    tokio::time::timeout(PATIENCE, dripping).await.expect("it is closed").unwrap();
    let admission = handle.stats().admission;
    assert_eq!(admission.rejected[AdmissionStage::Handshake.index()], 2);
    assert_eq!(admission.slow_peers_closed[SlowPeer::Handshake.index()], 2);
}
