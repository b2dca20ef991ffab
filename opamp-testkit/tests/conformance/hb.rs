//! R-HB: heartbeats and liveness.

use std::time::Duration;

use opamp_server::{DisconnectReason, Liveness};

use super::common::*;

const SECOND: Duration = Duration::from_secs(1);

fn with_heartbeats(number: u32) -> Persona {
    Persona::new(number).and(AgentCapabilities::REPORTS_HEARTBEAT)
}

/// Answers the next ping of the server and waits until that was taken as a sign of life.
async fn answer_ping(server: &TestServer, agent: &mut ScriptedAgent) {
    let ping = match agent.ws().next().await.unwrap() {
        Received::Ping(payload) => payload,
        other => panic!("{other:?} instead of a ping"),
    };
    agent.ws().send_frame(&Frame::new(Opcode::PONG, ping)).await.unwrap();
    let now = server.handle.now().wall;
    server.until(agent.persona.uid, |agent| agent.last_seen == now).await;
}

on_both_transports! {
    /// R-HB-08.
    async fn every_message_counts_as_a_heartbeat(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, with_heartbeats(1)).await;
        let uid = agent.persona.uid;
        for _ in 0..10 {
            server.clock.advance(SECOND * 40);
            let health = agent.persona.health.clone();
            agent.report(|message| message.health = Some(health)).await.unwrap();
            let snapshot = server.snapshot(uid);
            assert_eq!(snapshot.liveness, Liveness::Connected);
            assert_eq!(snapshot.last_seen, server.handle.now().wall);
        }
        // Not even the known state has to be repeated: an identity is enough.
        server.clock.advance(SECOND * 40);
        let mut bare = agent.persona.heartbeat();
        (bare.capabilities, bare.sequence_num) = (0, 0);
        agent.exchange(&bare).await.unwrap();
        assert_eq!(server.snapshot(uid).last_seen, server.handle.now().wall);
    }

    /// R-HB-10: who falls silent without leaving is stale, and back with the next message.
    async fn a_silent_agent_becomes_stale_and_comes_back(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, with_heartbeats(1)).await;
        let uid = agent.persona.uid;
        let stale_after = if wire == Wire::WebSocket { 60 } else { 90 };
        server.pass(SECOND * (stale_after - 1)).await;
        assert_eq!(server.snapshot(uid).liveness, Liveness::Connected);
        server.clock.advance(SECOND);
        let snapshot = server.until(uid, |agent| agent.liveness == Liveness::Stale).await;
        assert!(snapshot.disconnect.is_none());
        assert!(server.changes(uid).iter().any(|change| change.snapshot.liveness == Liveness::Stale), "told");

        assert!(says_nothing(&agent.heartbeat().await.unwrap()));
        assert_eq!(server.snapshot(uid).liveness, Liveness::Connected);
    }
}

/// R-HB-11, R-HB-16: no bit, or an interval of its own: the connection's own signs of life are enough.
#[tokio::test]
async fn a_websocket_agent_without_heartbeats_lives_as_long_as_it_answers_pings() {
    let server = TestServer::start().await;
    for persona in [Persona::new(1), with_heartbeats(2)] {
        let mut agent = server.agent(Wire::WebSocket, persona).await;
        for _ in 0..20 {
            server.clock.advance(SECOND * 30);
            answer_ping(&server, &mut agent).await;
            assert_eq!(server.snapshot(agent.persona.uid).liveness, Liveness::Connected);
        }
        agent.disconnect().await.unwrap();
    }
}

/// R-HB-10: a peer that answers no ping is given up in the end.
#[tokio::test]
async fn a_websocket_that_answers_no_ping_is_closed() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1)).await;
    let uid = agent.persona.uid;
    agent.ws().auto_pong = false;
    server.clock.advance(SECOND * 30);
    assert!(matches!(agent.ws().next().await.unwrap(), Received::Ping(_)));
    server.clock.advance(SECOND * 59);
    server.until(uid, |agent| agent.liveness == Liveness::Stale).await;
    server.clock.advance(SECOND);
    let close = agent.ws().expect_close().await.unwrap();
    assert_eq!(close.code, Some(1008));
    let snapshot = server.until(uid, |agent| agent.liveness == Liveness::Disconnected).await;
    assert_eq!(snapshot.disconnect.unwrap().0, DisconnectReason::Timeout);
}

/// R-HB-16: a poller at 120 s is not given up before the server knows its pace, and not even stale afterwards.
#[tokio::test]
async fn a_slow_poller_is_judged_by_its_own_pace() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
    let uid = agent.persona.uid;
    server.clock.advance(SECOND * 120);
    server.until(uid, |agent| agent.liveness == Liveness::Stale).await;
    assert!(says_nothing(&agent.heartbeat().await.unwrap()));
    assert_eq!(server.snapshot(uid).sticky.disconnects, 0);
    for _ in 0..5 {
        server.pass(SECOND * 120).await;
        assert_eq!(server.snapshot(uid).liveness, Liveness::Connected);
        agent.heartbeat().await.unwrap();
    }
}

/// R-HB-16: how fast an agent reports a change says nothing about how often it polls.
#[tokio::test]
async fn a_burst_of_messages_does_not_make_a_poller_stale_early() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::Http, Persona::new(1)).await;
    for _ in 0..20 {
        agent.heartbeat().await.unwrap();
    }
    for _ in 0..5 {
        server.pass(SECOND * 30).await;
        assert_eq!(server.snapshot(agent.persona.uid).liveness, Liveness::Connected);
        for _ in 0..10 {
            agent.heartbeat().await.unwrap();
        }
    }
}
