//! Handlers that never end, and servers that never stop: neither takes the agent with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opamp_client::{Client, ClientSettings, EffectiveConfig, Event, FailureKind, RemoteConfig};
use opamp_proto::pb;

use crate::common::{Agent, builder, until, within};
use crate::stub::{HttpStub, Reply, WsPeer, WsStub, ack, answer, status};

fn offer(hash: u8) -> pb::ServerToAgent {
    let object = pb::AgentConfigObject { body: vec![hash].into(), ..Default::default() };
    let config = Some(pb::AgentConfigMap { config_map: [(String::new(), object)].into() });
    let offer = pb::AgentRemoteConfig { config, config_hash: vec![hash].into() };
    pb::ServerToAgent { remote_config: Some(offer), ..ack() }
}

/// The next status of a remote configuration, while time passes.
async fn config_status(agent: &Agent, peer: &mut WsPeer) -> (u8, i32, String) {
    let passing = async {
        loop {
            agent.clock.advance(Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let next = async {
        loop {
            if let Some(status) = peer.acknowledge().await.remote_config_status {
                return (status.last_remote_config_hash[0], status.status, status.error_message);
            }
        }
    };
    tokio::select! {
        status = next => status,
        () = passing => unreachable!(),
    }
}

fn failed_handlers(agent: &Agent) -> Vec<&'static str> {
    let name = |event: &Event| match event {
        Event::HandlerFailed { handler, .. } => Some(*handler),
        _ => None,
    };
    agent.events.all().iter().filter_map(name).collect()
}

#[tokio::test]
async fn a_provider_that_never_ends_delays_the_start_by_a_bounded_time() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()).effective_config(std::future::pending::<EffectiveConfig>));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agent.client.stats().connects_failed, 0);
    assert!(!agent.client.stats().is_connected);
    agent.advance(10);
    let mut peer = stub.accept().await;
    assert_eq!(peer.acknowledge().await.effective_config, None);
    assert_eq!(failed_handlers(&agent), ["effective config"]);
}

#[tokio::test]
async fn the_outcome_of_a_configuration_waits_for_no_provider() {
    let stub = WsStub::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let provider = move || {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { EffectiveConfig::single("a") } else { std::future::pending().await } }
    };
    let settings = ClientSettings { provider_timeout: Duration::from_secs(3_600), ..Default::default() };
    let agent = Agent::start(
        builder(&stub.url())
            .settings(settings)
            .effective_config(provider)
            .on_remote_config(|_: RemoteConfig, _| async { Ok(()) }),
    );
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    assert_eq!(config_status(&agent, &mut peer).await, (1, 1, String::new()));
    assert!(agent.clock_seconds() < 60, "{}", agent.clock_seconds());
}

#[tokio::test]
async fn a_configuration_handler_that_never_ends_has_failed_and_the_next_configuration_is_applied() {
    let stub = WsStub::start().await;
    let settings = ClientSettings { handler_timeout: Duration::from_secs(7), ..Default::default() };
    let agent = Agent::start(builder(&stub.url()).settings(settings).on_remote_config(
        |config: RemoteConfig, _| async move {
            if config.single().is_some_and(|body| body[0] == 1) {
                std::future::pending::<()>().await;
            }
            Ok(())
        },
    ));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    let (hash, failed, text) = config_status(&agent, &mut peer).await;
    assert_eq!((hash, failed), (1, 3));
    assert!(text.contains("did not end within 7 s"), "{text}");
    assert_eq!(failed_handlers(&agent), ["remote config"]);
    peer.send(&offer(2)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    assert_eq!(config_status(&agent, &mut peer).await, (2, 1, String::new()));
}

#[tokio::test]
async fn a_restart_under_way_is_not_begun_again_and_one_that_never_ends_is_given_up() {
    let stub = WsStub::start().await;
    let restarts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&restarts);
    let settings = ClientSettings { handler_timeout: Duration::from_secs(7), ..Default::default() };
    let agent = Agent::start(builder(&stub.url()).settings(settings).on_restart(move |_: Client| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    }));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let command =
        pb::ServerToAgent { command: Some(pb::ServerToAgentCommand::default()), ..Default::default() };
    for _ in 0..3 {
        peer.send(&command).await;
    }
    agent.received(4).await;
    until("the restart has begun", || restarts.load(Ordering::SeqCst) == 1).await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(restarts.load(Ordering::SeqCst), 1);
    agent.advance(8);
    until("given up", || failed_handlers(&agent) == ["restart"]).await;
    let again = async {
        while restarts.load(Ordering::SeqCst) < 2 {
            peer.send(&command).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("begun again", again).await;
}

#[tokio::test]
async fn a_server_that_changes_the_identity_over_and_over_is_left() {
    let stub = WsStub::start().await;
    let agent = Agent::start(builder(&stub.url()));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    for number in 1..=4 {
        let identification = Some(pb::AgentIdentification { new_instance_uid: vec![number; 16].into() });
        let message = pb::ServerToAgent { agent_identification: identification, ..ack() };
        let bytes =
            pb::ServerToAgent { instance_uid: agent.client.uid().as_bytes().to_vec().into(), ..message };
        peer.send(&bytes).await;
        agent.received(u64::from(number) + 1).await;
        if number <= 3 {
            until("taken over", || agent.client.uid().as_bytes() == &[number; 16]).await;
        }
    }
    let (kind, text) = agent.failure().await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(text.contains("identity of this agent over and over"), "{text}");
    assert_eq!(agent.client.uid().as_bytes(), &[3; 16]);
}

#[tokio::test]
async fn a_server_whose_messages_make_no_sense_is_left_before_it_fills_the_log() {
    let without_hash =
        || pb::ServerToAgent { remote_config: Some(pb::AgentRemoteConfig::default()), ..Default::default() };
    let refusal = || pb::ServerToAgent {
        error_response: Some(pb::ServerErrorResponse { r#type: 1, ..Default::default() }),
        ..Default::default()
    };
    for nonsense in [without_hash(), refusal()] {
        let stub = WsStub::start().await;
        let agent =
            Agent::start(builder(&stub.url()).on_remote_config(|_: RemoteConfig, _| async { Ok(()) }));
        let mut peer = stub.accept().await;
        peer.acknowledge().await;
        for _ in 0..10 {
            peer.send(&nonsense).await;
        }
        assert_eq!(peer.close_code().await, Some(1002));
        let (kind, text) = agent.failure().await;
        assert_eq!(kind, FailureKind::Protocol, "{text}");
        assert!(agent.events.all().len() <= 12, "{:?}", agent.events.all());
    }
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_acknowledges_nothing() {
    let stub = HttpStub::start(|number, _| match number {
        0 => status("200 OK", "content-type: text/html; charset=utf-8\r\n", b""),
        _ => answer(&ack()),
    })
    .await;
    let agent = Agent::start(builder(&stub.url("http")));
    let (kind, text) = agent.failure().await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(text.contains("text/html"), "{text}");
    agent.reconnect_until("an answer", || agent.client.stats().is_connected).await;
    assert!(stub.requests()[1].message().agent_description.is_some(), "reported again");
}

#[tokio::test]
async fn a_request_that_crosses_with_the_end_of_an_idle_connection_is_repeated_without_a_word() {
    let stub = HttpStub::start(|number, _| if number == 1 { Reply::Hangup } else { answer(&ack()) }).await;
    let agent = Agent::start(builder(&stub.url("http")));
    agent.connected().await;
    agent.advance(30);
    stub.request(2).await;
    agent.received(2).await;
    let (first, again) = (stub.requests()[1].message(), stub.requests()[2].message());
    assert_eq!(first, again, "the same number, by which the server knows it");
    assert_eq!(agent.events.all().len(), 1, "connected, and nothing since: {:?}", agent.events.all());
    assert_eq!(agent.client.stats().heartbeats_failed, 0);
}

#[tokio::test]
async fn frames_of_any_size_may_be_asked_for() {
    let stub = WsStub::start().await;
    let settings = ClientSettings { frame_bytes: usize::MAX, ..Default::default() };
    let config = EffectiveConfig::single(vec![b'x'; 100_000]);
    let agent = Agent::start(builder(&stub.url()).settings(settings).initial_effective_config(config));
    let mut peer = stub.accept().await;
    assert!(peer.acknowledge().await.effective_config.is_some());
    agent.received(1).await;
}

#[tokio::test]
async fn the_time_connected_grows_while_nothing_happens() {
    let stub = HttpStub::acknowledging().await;
    let agent = Agent::start(builder(&stub.url("http")));
    agent.connected().await;
    let before = agent.client.stats().connected;
    agent.advance(7);
    assert_eq!(agent.client.stats().connected - before, Duration::from_secs(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_and_is_given_up_never_runs_beside_the_next() {
    let stub = WsStub::start().await;
    let (release, at_once) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let (blocked, running) = (Arc::clone(&release), Arc::clone(&at_once));
    let settings = ClientSettings { handler_timeout: Duration::from_secs(7), ..Default::default() };
    let agent = Agent::start(builder(&stub.url()).settings(settings).on_remote_config(
        move |config: RemoteConfig, _| {
            let (blocked, running) = (Arc::clone(&blocked), Arc::clone(&running));
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                if config.single().is_some_and(|body| body[0] == 1) {
                    tokio::task::block_in_place(|| blocked.wait());
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        },
    ));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    peer.send(&offer(1)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    assert_eq!(config_status(&agent, &mut peer).await.1, 3, "given up");
    peer.send(&offer(2)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    let (hash, failed, text) = config_status(&agent, &mut peer).await;
    assert!((hash, failed) == (2, 3) && text.contains("still at work on an earlier one"), "{text}");
    peer.send(&offer(3)).await;
    assert_eq!(config_status(&agent, &mut peer).await.1, 2);
    tokio::task::spawn_blocking(move || release.wait().is_leader()).await.unwrap();
    assert_eq!(config_status(&agent, &mut peer).await, (3, 1, String::new()));
    assert_eq!(at_once.load(Ordering::SeqCst), 0);
}
