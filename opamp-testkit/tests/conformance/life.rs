//! R-LIFE: connecting, disconnecting, reconnecting.

use std::time::Duration;

use opamp_server::{CommandError, Desired, DisconnectReason, Dispatch, Liveness};

use super::common::*;

on_both_transports! {
    /// R-LIFE-08.
    async fn who_says_good_bye_is_disconnected_at_once(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let uid = agent.persona.uid;
        let bye = agent.persona.disconnect();
        // Without the closing handshake: the message alone decides.
        let answer = agent.exchange(&bye).await.unwrap();
        assert!(answer.error_response.is_none(), "A-05");
        let snapshot = server.snapshot(uid);
        assert_eq!(snapshot.liveness, Liveness::Disconnected);
        let (reason, at) = snapshot.disconnect.unwrap();
        assert!(reason.is_graceful());
        assert_eq!(at, server.handle.now().wall);
        assert_eq!(snapshot.sticky.disconnects, 1);
    }

    /// R-LIFE-08: what else the last message says is taken.
    async fn the_last_report_of_an_agent_counts(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1)).await;
        let mut bye = agent.persona.disconnect();
        bye.health = Some(opamp_proto::pb::ComponentHealth { status: "stopped".into(), ..Default::default() });
        agent.exchange(&bye).await.unwrap();
        assert_eq!(server.health(agent.persona.uid), bye.health);
    }
}

/// R-LIFE-06.
#[tokio::test]
async fn a_server_that_stops_closes_its_websockets_in_order() {
    let server = TestServer::start().await;
    let mut agents = Vec::new();
    for number in 0..3 {
        agents.push(server.agent(Wire::WebSocket, Persona::new(number)).await);
    }
    let handle = server.handle.clone();
    let draining = tokio::spawn(async move { handle.drain(Duration::from_secs(10)).await });
    for agent in &mut agents {
        let close = agent.ws().expect_close().await.unwrap();
        assert_eq!(close.code, Some(1001));
        assert_eq!(agent.ws().answer_close(&close).await.unwrap(), Ending::Eof);
        let snapshot = server.snapshot(agent.persona.uid);
        assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::ServerShutdown);
    }
    assert!(draining.await.unwrap(), "in time");
}

/// R-LIFE-06: a peer that never answers the close does not keep the server.
#[tokio::test]
async fn a_peer_that_does_not_answer_the_close_is_not_waited_for_long() {
    let server = TestServer::with(|setup| setup.settings.close_timeout = Duration::from_millis(50)).await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let handle = server.handle.clone();
    let draining = tokio::spawn(async move { handle.drain(Duration::from_secs(10)).await });
    assert_eq!(agent.ws().expect_close().await.unwrap().code, Some(1001));
    agent.ws().expect_end().await.unwrap();
    assert!(draining.await.unwrap());
}

/// R-LIFE-06: on the application's order too.
#[tokio::test]
async fn an_agent_can_be_disconnected_on_order() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = agent.persona.uid;
    assert!(server.handle.disconnect(&uid));
    let close = agent.ws().expect_close().await.unwrap();
    agent.ws().answer_close(&close).await.unwrap();
    let snapshot = server.until(uid, |agent| agent.liveness == Liveness::Disconnected).await;
    assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Requested);
    assert!(!server.handle.disconnect(&uid));
}

/// R-LIFE-06: the answer to a client's close frame is a close frame.
#[tokio::test]
async fn a_clients_close_is_answered() {
    let server = TestServer::start().await;
    for code in [1000, 1001, 4000] {
        let mut ws = server.ws().await;
        let mut persona = Persona::new(u32::from(code));
        ws.exchange(&persona.full_state()).await.unwrap();
        assert_eq!(ws.close(code, "bye").await.unwrap().code, Some(code));
        let snapshot = server.until(persona.uid, |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(
            snapshot.disconnect.unwrap().0,
            DisconnectReason::Closed,
            "not graceful without agent_disconnect"
        );
    }
}

/// R-LIFE-09: documented as three intervals until stale and six until disconnected, 30 s assumed at first.
#[tokio::test]
async fn a_poller_that_vanished_is_given_up_after_a_while() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
    let uid = agent.persona.uid;
    agent.vanish();
    server.pass(Duration::from_secs(89)).await;
    assert_eq!(server.snapshot(uid).liveness, Liveness::Connected, "HTTP has no connection to lose");
    server.clock.advance(Duration::from_secs(1));
    server.until(uid, |agent| agent.liveness == Liveness::Stale).await;
    server.pass(Duration::from_secs(89)).await;
    assert_eq!(server.snapshot(uid).liveness, Liveness::Stale);
    server.clock.advance(Duration::from_secs(1));
    let snapshot = server.until(uid, |agent| agent.liveness == Liveness::Disconnected).await;
    assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
}

/// R-LIFE-10.
#[tokio::test]
async fn keep_alive_has_no_influence_on_the_protocol() {
    let mut said = Vec::new();
    for keep_alive in [true, false] {
        let server = TestServer::start().await;
        let connector = server.connector(Wire::Http);
        let connector = if keep_alive { connector } else { connector.without_keep_alive() };
        let mut agent = connector.connect(restartable(1)).await.unwrap();
        scenario(&server, &mut agent).await;
        let snapshot = server.snapshot(agent.persona.uid);
        said.push((agent.transcript().messages(), snapshot.sticky, snapshot.liveness));
    }
    assert_eq!(said[0], said[1]);
}

/// R-LIFE-10: an idle connection may go, and the agent stays.
#[tokio::test]
async fn the_end_of_an_http_connection_is_no_disconnect() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
    agent.vanish();
    agent.reconnect().await.unwrap();
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    let snapshot = server.snapshot(agent.persona.uid);
    assert_eq!((snapshot.sticky.connects, snapshot.sticky.disconnects), (1, 0));
}

/// R-LIFE-11.
#[tokio::test]
async fn an_agent_that_left_a_shared_socket_is_not_associated_with_it() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    let (mut left, mut stays) = (restartable(1), restartable(2));
    for persona in [&mut left, &mut stays] {
        ws.exchange(&persona.full_state()).await.unwrap();
    }
    ws.exchange(&left.disconnect()).await.unwrap();

    let (_, dispatch) = server.assign(left.uid, &yaml("for: left\n"));
    assert_eq!(dispatch, Dispatch::NoSession);
    assert_eq!(server.handle.restart_agent(&left.uid), Err(CommandError::NoSession));
    assert!(!server.handle.disconnect(&left.uid), "the socket is not its own any more");
    let (_, dispatch) = server.assign(stays.uid, &yaml("for: stays\n"));
    assert_eq!(dispatch, Dispatch::Pushed);
    let offer = ws.receive().await.unwrap();
    assert_eq!(&offer.instance_uid[..], stays.uid.as_bytes());
    assert_eq!(ws.fence().await.unwrap(), []);

    // Signs of life of the socket are none of the agent that left.
    let last_seen = server.snapshot(left.uid).last_seen;
    server.clock.advance(Duration::from_secs(10));
    ws.fence().await.unwrap();
    assert!(says_nothing(&ws.exchange(&stays.heartbeat()).await.unwrap()) || stays.sequence_num > 0);
    assert_eq!(server.snapshot(left.uid).last_seen, last_seen);
    assert_eq!(server.snapshot(left.uid).disconnect.unwrap().0, DisconnectReason::Graceful);

    // And the end of the socket is not another disconnect of it.
    ws.into_stream().reset();
    server.until(stays.uid, |agent| agent.liveness == Liveness::Disconnected).await;
    let snapshot = server.snapshot(left.uid);
    assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Graceful);
    assert_eq!(snapshot.sticky.disconnects, 1);
}

/// R-LIFE-12.
#[tokio::test]
async fn the_end_of_a_stream_disconnects_all_its_agents() {
    let server = TestServer::start().await;
    for (number, cut) in [(0, true), (100, false)] {
        let mut ws = server.ws().await;
        let mut personas: Vec<Persona> = (number..number + 5).map(Persona::new).collect();
        for persona in &mut personas {
            ws.exchange(&persona.full_state()).await.unwrap();
        }
        if cut {
            ws.into_stream().reset();
        } else {
            ws.stream_mut().half_close().await.unwrap();
        }
        for persona in &personas {
            let snapshot = server.until(persona.uid, |agent| agent.liveness == Liveness::Disconnected).await;
            assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Closed);
            assert_eq!(server.assign(persona.uid, &yaml("a: 1\n")).1, Dispatch::NoSession);
        }
    }
    assert_eq!(server.handle.stats().websocket_active, 0);
}

/// R-LIFE-12: the late end of an old connection leaves the new one alone, also when the old one was stuck in a write
/// and learns of nothing else before its end.
#[tokio::test]
async fn a_late_close_does_not_evict_the_new_connection() {
    for stuck in [false, true] {
        let server = TestServer::start().await;
        let mut first = server.agent(Wire::WebSocket, Persona::new(1)).await;
        let uid = first.persona.uid;
        if stuck {
            // More than the buffers of both sockets take, and nobody reads it.
            server.assign_as(uid, &any_hash(), &yaml(&"x".repeat(32 << 20)));
            server.eventually(|| (server.handle.stats().offers_sent == 1).then_some(())).await.unwrap();
            server.handle.set_desired(&uid, Desired::default());
        }
        let mut second = server.connector(Wire::WebSocket).connect(first.persona.clone()).await.unwrap();
        second.heartbeat().await.unwrap();
        first.vanish();
        server.eventually(|| (server.handle.stats().websocket_active == 1).then_some(())).await.unwrap();
        assert_eq!(server.snapshot(uid).liveness, Liveness::Connected, "stuck: {stuck}");
        assert_eq!(server.assign(uid, &yaml("a: 1\n")).1, Dispatch::Pushed);
        assert!(second.next_offer().await.is_ok());
    }
}

/// R-LIFE-01 from the server's side: a socket on which nothing is said does not stay for ever.
#[tokio::test]
async fn a_websocket_without_a_first_message_is_closed() {
    let server = TestServer::start().await;
    let mut ws = server.ws().await;
    server.clock.advance(Duration::from_secs(30));
    assert_eq!(ws.expect_close().await.unwrap().code, Some(1008));
}

/// R-TRANS-08: who reads nothing is given up after the write deadline, and nobody waits for him.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_given_up_and_stalls_nobody() {
    let server = TestServer::start().await;
    let slow = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let mut other = server.agent(Wire::WebSocket, Persona::new(2)).await;
    let uid = slow.persona.uid;
    // More than the buffers of both sockets take.
    server.assign_as(uid, &any_hash(), &yaml(&"x".repeat(32 << 20)));
    for _ in 0..10 {
        assert!(says_nothing(&other.heartbeat().await.unwrap()));
    }
    server.clock.advance(Duration::from_secs(20));
    let snapshot = server.until(uid, |agent| agent.liveness == Liveness::Disconnected).await;
    assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
    assert!(says_nothing(&other.heartbeat().await.unwrap()));
}
