//! Peers that are dead, or as good as dead.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use opamp_client::{EffectiveConfig, Event, FailureKind, Health, Wall};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{Agent, builder, session, until};
use crate::stub::{HttpStub, Reply, WsStub, ack, answer};

async fn timeout(agent: &Agent, seconds: u64) {
    agent.clock.advance(Duration::from_secs(seconds) - Duration::from_millis(1));
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.events.failures(), [], "not a moment earlier");
    agent.clock.advance(Duration::from_millis(1));
    assert_eq!(agent.failure().await.0, FailureKind::Timeout);
}

on_both_transports! {
    async fn a_server_that_accepts_and_says_nothing_is_noticed(scheme) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = Agent::start(builder(&format!("{scheme}://{}", listener.local_addr().unwrap())));
        let _silent = listener.accept().await.unwrap();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        timeout(&agent, 30).await;
    }
}

#[tokio::test]
async fn a_poll_without_an_answer_is_noticed() {
    let stub = HttpStub::start(|number, _| if number == 0 { answer(&ack()) } else { Reply::Silence }).await;
    let agent = Agent::start(builder(&stub.url("http")));
    agent.connected().await;
    agent.advance(30);
    stub.request(1).await;
    timeout(&agent, 30).await;
    agent.reconnect_until("it tries again", || stub.requests().len() >= 3).await;
}

#[tokio::test]
async fn a_dead_websocket_is_noticed_by_the_pings_that_nobody_answers() {
    let stub = WsStub::start().await;
    let settings = session(|session| session.heartbeat = None);
    let agent = Agent::start(builder(&stub.url()).settings(settings));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    until("acknowledged", || agent.client.stats().messages_received == 1).await;
    for _ in 0..4 {
        let start = agent.clock_seconds();
        let ping = loop {
            agent.advance(1);
            assert!(agent.clock_seconds() - start < 60, "no ping");
            // Reading it answers it.
            if let Ok(next) = tokio::time::timeout(Duration::from_millis(5), peer.socket.next()).await {
                break next.unwrap().unwrap();
            }
        };
        assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
        peer.socket.flush().await.unwrap();
    }
    assert!(agent.events.failures().is_empty());
    // From here on nobody reads, as if the machine were stopped.
    until("given up", || {
        agent.clock.advance(Duration::from_secs(1));
        !agent.events.failures().is_empty()
    })
    .await;
    assert_eq!(agent.events.failures(), [FailureKind::Timeout]);
    assert!(
        agent.events.all()[1].to_string().contains("no sign of life for 90 s"),
        "{:?}",
        agent.events.all()
    );
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_noticed_and_meanwhile_still_heard() {
    let stub = WsStub::start().await;
    let agent = Agent::start(
        builder(&stub.url()).on_remote_config(|_: opamp_client::RemoteConfig, _| async { Ok(()) }),
    );
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    until("acknowledged", || agent.client.stats().messages_received == 1).await;
    // More than the sockets hold.
    agent.client.set_effective_config(EffectiveConfig::single(vec![7; 32 << 20])).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    peer.send(&ack()).await;
    until("the server is heard", || agent.client.stats().messages_received == 2).await;
    assert_eq!(agent.client.stats().messages_sent, 1, "the report is stuck");
    timeout(&agent, 20).await;
}

#[tokio::test]
async fn setters_and_stop_do_not_wait_for_a_stuck_server() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    agent.client.set_effective_config(EffectiveConfig::single(vec![7; 32 << 20])).unwrap();
    for round in 0..1_000 {
        agent.client.set_health(Health::healthy(Wall(1)).status(round.to_string())).unwrap();
    }
    agent.client.stop();
    until("the stop is taken", || {
        agent.clock.advance(Duration::from_millis(100));
        agent.events.all().iter().any(|event| matches!(event, Event::Disconnected { .. }))
    })
    .await;
    crate::common::within("the agent stops", agent.client.stopped()).await;
    assert!(agent.clock_seconds() <= 10, "{}", agent.clock_seconds());
}

#[tokio::test]
async fn an_abrupt_end_is_noticed_at_once_and_the_agent_comes_back_with_everything() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()).health(Health::healthy(Wall(1))));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    drop(peer);
    assert_eq!(agent.failure().await.0, FailureKind::Closed);
    agent.advance(1);
    let mut peer = stub.accept().await;
    let message = peer.acknowledge().await;
    assert!(message.agent_description.is_some() && message.health.is_some());
    assert_eq!(message.sequence_num, 2);
    until("counted", || agent.client.stats().reconnects == 1).await;
}
