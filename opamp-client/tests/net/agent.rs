//! An agent against the real server, over both transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opamp_client::{Client, EffectiveConfig, Event, Health, InstanceUid, RemoteConfig, Wall};
use opamp_proto::{Part, material, pb};
use opamp_server::{DisconnectReason, Liveness};
use prost::Message as _;

use crate::common::{Agent, Memory, TestServer, builder, desired, hash, until, within};

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

fn applied(agent: &opamp_server::AgentSnapshot, generation: u64) -> bool {
    let status = pb::RemoteConfigStatuses::Applied as i32;
    agent
        .remote_config
        .report
        .as_ref()
        .is_some_and(|report| report.hash == hash(generation) && report.status == status)
}

#[tokio::test]
async fn the_clock_of_the_machine_drives_it_as_well() {
    let server = TestServer::start().await;
    let settings =
        crate::common::session(|session| session.heartbeat = Some(std::time::Duration::from_millis(20)));
    let client = builder(&server.url("ws")).state(Memory::of(UID)).settings(settings).start().unwrap();
    server.sees(UID, "heartbeats", |agent| agent.sequence_num.0 >= 5).await;
    client.stop();
    within("the agent stops", client.stopped()).await;
    assert!(client.stats().heartbeats_sent >= 4);
}

#[tokio::test]
async fn fresh_agents_have_identities_of_their_own() {
    let start = || builder("ws://127.0.0.1:1").start().unwrap().uid();
    let before = opamp_client::Clock::now(&opamp_client::SystemClock::new()).wall.0;
    let uids: std::collections::BTreeSet<_> = (0..200).map(|_| start()).collect();
    assert_eq!(uids.len(), 200);
    for uid in uids {
        let bytes = uid.as_bytes();
        assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (7, 2), "version 7 of the usual variant");
        let time = bytes[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
        assert!((before..before + 60_000).contains(&time), "made now: {time}");
    }
}

on_both_transports! {
    async fn another_path_may_be_used(scheme) {
        let service = opamp_server::OpampServer::builder(Arc::new(opamp_server::InsecureAcceptEveryone));
        let (service, handle, driver) = service.path("/fleet/agents").build();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}/fleet/agents", listener.local_addr().unwrap());
        tokio::spawn(driver.run());
        tokio::spawn(opamp_server::serve(listener, None, service));
        let agent = Agent::start(builder(&url).state(Memory::of(UID)));
        agent.connected().await;
        until("the report", || handle.agent(&UID).is_some()).await;
    }

    async fn there_is_one_connection_at_a_time(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(builder(&server.url(scheme)).state(Memory::of(UID)));
        for count in 0..5 {
            until("reached", || agent.client.stats().reconnects == count).await;
            agent.received(count + 1).await;
            assert!(server.handle.stats().websocket_active <= 1);
            agent.client.reconnect().unwrap();
        }
        let seen = server.sees(UID, "the last one", |agent| agent.sticky.connects == 6).await;
        assert_eq!(seen.sticky.disconnects, 5, "each was left before the next began");
    }

    async fn a_server_sees_who_the_agent_is_how_it_is_and_what_it_runs(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(
            builder(&server.url(scheme))
                .state(Memory::of(UID))
                .health(Health::healthy(Wall(1)).status("fine"))
                .effective_config(|| async { EffectiveConfig::single("a: 1") }),
        );
        let seen = server.sees(UID, "the first report", |agent| agent.state.part(Part::EffectiveConfig).is_some()).await;
        assert_eq!(seen.liveness, Liveness::Connected);
        assert_eq!(material::health_summary(seen.state.part(Part::Health).unwrap()).status, "fine");
        let effective = pb::EffectiveConfig::decode(&seen.state.part(Part::EffectiveConfig).unwrap()[..]).unwrap();
        assert_eq!(&effective.config_map.unwrap().config_map[""].body[..], b"a: 1");
        assert_eq!(seen.capabilities.bits(), 0x1 | 0x4 | 0x800 | 0x2000);

        agent.advance(2);
        agent.client.set_health(Health::unhealthy(Wall(1), "disk full")).unwrap();
        let sick = |agent: &opamp_server::AgentSnapshot| {
            material::health_summary(agent.state.part(Part::Health).unwrap()).last_error == "disk full"
        };
        server.sees(UID, "the change of health", sick).await;
        agent.client.set_effective_config(EffectiveConfig::single("a: 2")).unwrap();
        server.sees(UID, "the change of configuration", |agent| {
            agent.state.part(Part::EffectiveConfig).unwrap().windows(4).any(|window| window == b"a: 2")
        }).await;
        assert_eq!(agent.events.all().len(), 1, "connected, and nothing else: {:?}", agent.events.all());
        agent.stop().await;
        let gone = server.sees(UID, "the goodbye", |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.disconnect.unwrap().0, DisconnectReason::Graceful);
        assert_eq!(gone.sticky.gaps, 0, "no number is missing");
    }

    async fn a_remote_configuration_is_applied_and_what_came_of_it_reported(scheme) {
        let server = TestServer::start().await;
        let runs = Arc::new(std::sync::Mutex::new("a: 0".to_owned()));
        let (written, read) = (Arc::clone(&runs), Arc::clone(&runs));
        let agent = Agent::start(
            builder(&server.url(scheme))
                .state(Memory::of(UID))
                .effective_config(move || {
                    let now = EffectiveConfig::single(read.lock().unwrap().clone());
                    async move { now }
                })
                .on_remote_config(move |config: RemoteConfig, _| {
                    let body = String::from_utf8(config.single().unwrap().to_vec()).unwrap();
                    let result = if body == "broken" { Err("no such exporter".into()) } else { Ok(()) };
                    if result.is_ok() {
                        *written.lock().unwrap() = body;
                    }
                    async move { result }
                }),
        );
        agent.connected().await;
        server.handle.set_desired(&UID, desired(1, b"a: 1"));
        if scheme == "http" {
            server.sees(UID, "the first poll", |agent| agent.sequence_num.0 >= 1).await;
            until("the poll is over", || agent.client.stats().messages_received >= 1).await;
            agent.advance(30);
        }
        let seen = server.sees(UID, "applied", |agent| applied(agent, 1)).await;
        assert!(seen.state.part(Part::EffectiveConfig).unwrap().windows(4).any(|window| window == b"a: 1"));
        server.handle.set_desired(&UID, desired(2, b"broken"));
        if scheme == "http" {
            until("the report is answered", || agent.client.stats().messages_received >= seen.sequence_num.0).await;
            agent.advance(30);
        }
        let failed = |agent: &opamp_server::AgentSnapshot| {
            let report = agent.remote_config.report.as_ref().unwrap();
            report.hash == hash(2) && report.status == pb::RemoteConfigStatuses::Failed as i32
        };
        let seen = server.sees(UID, "failed", failed).await;
        assert_eq!(seen.remote_config.report.unwrap().error, "no such exporter");
        assert!(seen.state.part(Part::EffectiveConfig).unwrap().windows(4).any(|window| window == b"a: 1"), "still");
    }

    async fn identity_and_last_configuration_are_kept_over_a_restart(scheme) {
        let server = TestServer::start().await;
        let state = Memory::of(UID);
        let applications = Arc::new(AtomicUsize::new(0));
        server.handle.set_desired(&UID, desired(1, b"a: 1"));
        for round in 1..=3 {
            let counted = Arc::clone(&applications);
            let agent = Agent::start(builder(&server.url(scheme)).state(state.clone()).on_remote_config(
                move |_: RemoteConfig, _| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    async { Ok(()) }
                },
            ));
            server.sees(UID, "applied", |agent| applied(agent, 1) && agent.sticky.connects >= round).await;
            agent.stop().await;
        }
        let seen = server.sees(UID, "gone", |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(applications.load(Ordering::SeqCst), 1);
        assert_eq!((seen.sticky.gaps, seen.sticky.full_state_requests), (0, 0), "nothing had to be asked");
    }

    async fn a_restart_command_reaches_the_handler_which_may_stop_the_agent(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(builder(&server.url(scheme)).state(Memory::of(UID)).on_restart(
            |client: Client| async move {
                client.stop();
                // From within a handler, and to the very end.
                client.stopped().await;
            },
        ));
        server.sees(UID, "it can restart", |agent| agent.capabilities.bits() & 0x400 != 0).await;
        until("the report is answered", || agent.client.stats().messages_received >= 1).await;
        server.handle.restart_agent(&UID).unwrap();
        if scheme == "http" {
            agent.advance(30);
        }
        within("the agent stops", agent.client.stopped()).await;
        let gone = server.sees(UID, "gone", |agent| agent.liveness == Liveness::Disconnected).await;
        assert_eq!(gone.disconnect.unwrap().0, DisconnectReason::Graceful);
    }

    async fn an_identity_from_the_server_is_used_and_kept(scheme) {
        let server = TestServer::start().await;
        let state = Memory::default();
        let settings = crate::common::session(|session| session.request_uid = true);
        let agent = Agent::start(builder(&server.url(scheme)).state(state.clone()).settings(settings));
        let first = agent.client.uid();
        assert_eq!(first.as_bytes()[6] >> 4, 7, "a UUID of version 7 until then");
        let assigned = agent.event("an identity", |event| matches!(event, Event::IdentityAssigned { .. })).await;
        let Event::IdentityAssigned { from, to } = assigned else { unreachable!() };
        assert_eq!(from, first);
        until("it is in use", || agent.client.uid() == to).await;
        assert_eq!(state.saved().unwrap().uid, to);
        server.sees(to, "the new identity", |agent| agent.liveness == Liveness::Connected).await;
        assert_eq!(server.handle.agents().len(), 1, "one agent and not two");
        agent.stop().await;
        let again = Agent::start(builder(&server.url(scheme)).state(state));
        assert_eq!(again.client.uid(), to);
    }

    async fn heartbeats_come_at_their_time_and_are_counted(scheme) {
        let server = TestServer::start().await;
        let agent = Agent::start(builder(&server.url(scheme)).state(Memory::of(UID)));
        for beats in 1..=5 {
            let expected = beats + 1;
            until("the last message is answered", || agent.client.stats().messages_received >= beats).await;
            agent.advance(30);
            server.sees(UID, "a heartbeat", |agent| agent.sequence_num.0 == expected).await;
        }
        until("counted", || agent.client.stats().heartbeats_sent == 5).await;
        assert_eq!(agent.client.stats().connected, std::time::Duration::from_secs(150));
    }
}
