//! The pace at which connections are let in.

use std::sync::Arc;
use std::time::Duration;

use opamp_server::{InsecureAcceptEveryone, OpampServer, ServerSettings};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::common::{PATIENCE, TestServer, full, numbered, uid};
use super::{answered, closed, poll_head, said, upgrade_request};

async fn paced(accept_rate: u32, accept_burst: u32, accept_queue_max: usize) -> TestServer {
    let settings =
        ServerSettings { accept_rate, accept_burst, accept_queue_max, ..ServerSettings::default() };
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await
}

#[tokio::test]
async fn beyond_the_burst_connections_wait_their_turn_and_none_is_lost() {
    let server = paced(2, 3, 100).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(said(&server, upgrade_request(None)).await);
    }
    for (second, open) in [(0, 3), (1, 5), (2, 7), (3, 8)] {
        if second > 0 {
            server.clock.advance(1);
        }
        server.until("the next are let in", |handle| handle.stats().websocket_active == open).await;
        server.until("and no more", |handle| handle.stats().admission.connections_waiting == 8 - open).await;
    }
    for peer in &mut peers {
        assert_eq!(answered(peer).await.0, 101);
    }
    let admission = server.handle.stats().admission;
    assert_eq!((admission.connections_admitted, admission.connections_deferred), (8, 5));
    // Three at once, two within a second, two within two, one within five.
    assert_eq!(admission.queue_wait.counts, [3, 0, 0, 0, 2, 2, 1, 0, 0]);
    assert!((admission.queue_wait.sum_s - 9.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_peer_that_goes_away_while_it_waits_costs_nobody_a_turn() {
    let server = paced(1, 1, 100).await;
    let mut first = said(&server, upgrade_request(None)).await;
    assert_eq!(answered(&mut first).await.0, 101);
    let mut impatient = Vec::new();
    for number in 1..=5 {
        impatient.push(said(&server, upgrade_request(None)).await);
        server.until("it waits", |handle| handle.stats().admission.connections_waiting == number).await;
    }
    let mut patient = said(&server, upgrade_request(None)).await;
    server.until("it waits", |handle| handle.stats().admission.connections_waiting == 6).await;
    drop(impatient);
    server.until("they are let go", |handle| handle.stats().admission.connections_gone == 5).await;
    server.clock.advance(1);
    assert_eq!(answered(&mut patient).await.0, 101);
    assert_eq!(server.handle.stats().admission.connections_admitted, 2);
}

#[tokio::test]
async fn when_the_queue_is_full_the_rest_waits_in_the_backlog_of_the_listener() {
    let server = paced(1, 1, 2).await;
    let mut peers = Vec::new();
    for _ in 0..7 {
        peers.push(said(&server, upgrade_request(None)).await);
    }
    for open in 1..=7 {
        server.until("one more", |handle| handle.stats().websocket_active == open).await;
        assert!(server.handle.stats().admission.connections_waiting <= 2);
        server.clock.advance(1);
    }
    for peer in &mut peers {
        assert_eq!(answered(peer).await.0, 101);
    }
}

#[tokio::test]
async fn sockets_of_every_kind_share_one_bound_and_who_comes_beyond_it_waits_for_the_next_that_is_free() {
    let settings = ServerSettings { sockets_max: Some(3), ..ServerSettings::default() };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let admitted = || server.handle.stats().admission.connections_admitted;
    let mut websocket = said(&server, upgrade_request(None)).await;
    assert_eq!(answered(&mut websocket).await.0, 101);
    let silent = [TcpStream::connect(server.address).await, TcpStream::connect(server.address).await];
    server.until("they are let in", |handle| handle.stats().admission.connections_admitted == 3).await;
    let mut late = said(&server, upgrade_request(None)).await;
    let mut byte = [0];
    let waits = tokio::time::timeout(Duration::from_millis(200), late.peek(&mut byte)).await;
    assert!(waits.is_err() && admitted() == 3, "it is not even accepted");
    assert_eq!(server.handle.stats().admission.connections_waiting, 0);
    drop(silent);
    assert_eq!(answered(&mut late).await.0, 101);
    // WebSockets that end make room like any other.
    let third = TcpStream::connect(server.address).await;
    server.until("it is let in", |handle| handle.stats().admission.connections_admitted == 5).await;
    drop((websocket, third));
    let mut last = said(&server, upgrade_request(None)).await;
    assert_eq!(answered(&mut last).await.0, 101);
}

#[tokio::test]
async fn a_small_fleet_never_waits() {
    let server = TestServer::start().await;
    let mut peers = Vec::new();
    for _ in 0..200 {
        peers.push(said(&server, upgrade_request(None)).await);
    }
    for peer in &mut peers {
        assert_eq!(answered(peer).await.0, 101);
    }
    let admission = server.handle.stats().admission;
    assert_eq!((admission.connections_admitted, admission.queue_wait.counts[0]), (200, 200));
}

#[tokio::test]
async fn a_drain_ends_the_wait_of_those_who_are_not_let_in() {
    let settings = ServerSettings { accept_rate: 1, accept_burst: 1, ..ServerSettings::default() };
    let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings);
    // On a clock that stands still, so that nobody's turn comes.
    let builder = builder.clock(Arc::new(super::common::HandClock::default()));
    let (service, handle, driver) = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(driver.run());
    let serving = tokio::spawn(opamp_server::serve(listener, None, service));
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(TcpStream::connect(address).await.unwrap());
    }
    while handle.stats().admission.connections_waiting < 3 {
        tokio::task::yield_now().await;
    }
    assert!(handle.drain(PATIENCE).await);
    tokio::time::timeout(PATIENCE, serving).await.expect("it ends").unwrap();
    for peer in &mut peers {
        closed(peer).await;
    }
    assert_eq!(handle.stats().admission.connections_waiting, 0);
}

/// R-THROT-07.
#[tokio::test]
async fn who_is_sent_away_is_told_to_come_back_when_the_others_are_through() {
    let settings = ServerSettings {
        connections_max: 1,
        accept_rate: 1,
        retry_after: Duration::from_secs(2),
        retry_after_max: Duration::from_secs(30),
        ..ServerSettings::default()
    };
    let server = TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await;
    let _only = server.connect(None).await;
    let told = async || {
        let (status, retry_after) = answered(&mut said(&server, upgrade_request(None)).await).await;
        assert_eq!(status, 503);
        retry_after.unwrap().as_secs()
    };
    // As many seconds as were sent away before, at least two and at most thirty; then up to twice as long.
    for before in 0..40u64 {
        let (least, told) = (before.clamp(2, 30), told().await);
        assert!((least..=2 * least + 1).contains(&told), "{before} were sent away before: {told}");
    }
    server.clock.advance(100);
    assert!(told().await <= 5, "they had the time to come back");
    let rejected = server.handle.stats().admission.rejected;
    assert_eq!(rejected[opamp_server::AdmissionStage::Connections.index()], 41);
}

/// Polls on a connection that may be kept; the head of the answer.
async fn polled(stream: &mut TcpStream, number: u64) -> String {
    let message = numbered(uid(1), number, full()).encode_to_vec();
    stream.write_all(poll_head(None, message.len()).as_bytes()).await.unwrap();
    stream.write_all(&message).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer");
        head.push(byte.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap()]).await.unwrap();
    head
}

async fn with_places(http_connections_max: usize) -> TestServer {
    let settings =
        ServerSettings { http_connections_max, accept_rate: 1, accept_burst: 2, ..ServerSettings::default() };
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await
}

#[tokio::test]
async fn a_peer_that_went_away_while_it_waited_for_a_place_costs_nobody_a_turn() {
    let server = with_places(1).await;
    let mut poller = TcpStream::connect(server.address).await.unwrap();
    polled(&mut poller, 1).await;
    let impatient = said(&server, upgrade_request(None)).await;
    server.until("it waits", |handle| handle.stats().admission.connections_waiting == 1).await;
    let mut patient = said(&server, upgrade_request(None)).await;
    server.until("both wait", |handle| handle.stats().admission.connections_waiting == 2).await;
    drop(impatient);
    drop(poller);
    assert_eq!(answered(&mut patient).await.0, 101, "the second of two turns is its own");
    let admission = server.handle.stats().admission;
    assert_eq!((admission.connections_admitted, admission.connections_gone), (2, 1));
}

#[tokio::test]
async fn who_polls_on_does_not_keep_its_place_while_others_wait_for_one() {
    let server = with_places(1).await;
    let mut poller = TcpStream::connect(server.address).await.unwrap();
    for number in 1..4 {
        assert!(!polled(&mut poller, number).await.contains("connection: close"), "nobody waits");
    }
    let mut other = said(&server, upgrade_request(None)).await;
    server.until("it waits", |handle| handle.stats().admission.connections_waiting == 1).await;
    assert!(polled(&mut poller, 4).await.contains("connection: close"));
    closed(&mut poller).await;
    assert_eq!(answered(&mut other).await.0, 101);
    // It comes back, and may stay as long as nobody else wants the place.
    server.clock.advance(1);
    let mut poller = TcpStream::connect(server.address).await.unwrap();
    for number in 5..8 {
        assert!(!polled(&mut poller, number).await.contains("connection: close"), "nobody waits any more");
    }
}
