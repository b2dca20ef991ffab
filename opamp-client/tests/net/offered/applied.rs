//! Settings that work.

use std::sync::Arc;

use opamp_client::{Event, FileState};
use opamp_proto::pb::{self, ConnectionSettingsStatuses::Applied};
use opamp_server::{Liveness, ServerSettings, StaticToken, StaticTokens};

use super::{UID, headers, opamp, settable, with_endpoint};
use crate::common::{Agent, Directory, Memory, TestServer, builder, until};
use crate::stub::{HttpStub, WsStub};

async fn with_token(token: &str) -> TestServer {
    let tokens = StaticTokens::new(vec![StaticToken::new("agent", token)]);
    TestServer::with(Arc::new(tokens), ServerSettings::default(), None).await
}

on_both_transports! {
    /// R-CONN-03, R-CONN-06, R-CONN-10, R-CONN-11, R-CONN-27, R-CRED-05, R-CRED-07.
    async fn an_agent_moves_to_another_server_with_the_credentials_it_was_given(scheme) {
        let (first, second) = (TestServer::start().await, with_token("individual").await);
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&first.url(scheme), &memory));
        agent.connected().await;
        let settings = pb::OpAmpConnectionSettings {
            headers: headers(&[("Authorization", "Bearer individual")]),
            heartbeat_interval_seconds: 7,
            ..with_endpoint(&second.url(scheme))
        };
        first.offer(1, opamp(settings));
        if scheme == "http" {
            agent.advance(30);
        }
        second.told(Applied).await;
        agent.applied(1).await;
        let left = first.handle.agent(&UID).unwrap();
        assert_eq!(left.liveness, Liveness::Disconnected, "it said goodbye");
        let saved = memory.saved().unwrap().connections;
        assert!(saved.accepted.is_some() && saved.candidate.is_none());
        agent.stop().await;
        // Another process, configured as the first was.
        let before = first.handle.agent(&UID).unwrap().sticky.connects;
        let agent = Agent::start(settable(&first.url(scheme), &memory));
        second.sees(UID, "back with what it was given", |agent| agent.sticky.connects == 2).await;
        assert_eq!(first.handle.agent(&UID).unwrap().sticky.connects, before, "and nowhere else");
        agent.stop().await;
    }

    /// A query may be what lets the agent in, so an address without it is proven like any other.
    async fn the_configured_address_without_its_query_is_tried_before_it_is_used(scheme) {
        let server = TestServer::start().await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&format!("{}?token=secret", server.url(scheme)), &memory));
        agent.connected().await;
        server.offer(1, opamp(pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 7, ..with_endpoint(&server.url(scheme)) }));
        if scheme == "http" {
            agent.advance(30);
        }
        agent.applied(1).await;
        agent.stop().await;
    }

    /// R-TLS-14: one after the other, repeated ones too.
    async fn headers_keep_their_order_and_repetition_and_replace_those_configured(scheme) {
        let first = TestServer::start().await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&first.url(scheme), &memory).header("X-Old", "1").bearer_token("old"));
        agent.connected().await;
        let settings = |url: &str| pb::OpAmpConnectionSettings {
            headers: headers(&[("X-A", "2"), ("X-B", "b"), ("x-a", "1"), ("X-A", "2")]),
            ..with_endpoint(url)
        };
        let seen = if scheme == "ws" {
            let stub = WsStub::start().await;
            first.offer(1, opamp(settings(&stub.url())));
            let mut peer = stub.accept().await;
            peer.acknowledge().await;
            peer.headers
        } else {
            let stub = HttpStub::acknowledging().await;
            first.offer(1, opamp(settings(&stub.url(scheme))));
            agent.advance(30);
            stub.request(0).await.headers
        };
        let of = |name: &str| seen.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
        assert_eq!((of("x-a"), of("x-b")), (vec!["2", "1", "2"], vec!["b"]));
        assert!(of("authorization").is_empty() && of("x-old").is_empty(), "{seen:?}");
    }

    /// Credentials of the configuration are for the configured server.
    async fn configured_credentials_are_shown_to_the_configured_server_alone(scheme) {
        let first = with_token("configured").await;
        let elsewhere = HttpStub::acknowledging().await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&first.url(scheme), &memory).bearer_token("configured"));
        agent.connected().await;
        // The same server under another path of it: with the token, and refused for the path.
        first.offer(1, opamp(with_endpoint(&first.url(scheme).replace("/v1/opamp", "/elsewhere"))));
        if scheme == "http" {
            agent.advance(30);
        }
        let (kind, text) = agent.comes_back().await;
        assert_eq!(kind, opamp_client::FailureKind::Status(404), "{text}");
        first.told(pb::ConnectionSettingsStatuses::Failed).await;
        first.offer(2, opamp(with_endpoint(&elsewhere.url("http"))));
        if scheme == "http" {
            agent.advance(30);
        }
        let request = elsewhere.request(0).await;
        assert_eq!(request.header("authorization"), None);
    }

    /// R-HB-04, R-HB-12: without leaving, if nothing else changes.
    async fn another_interval_for_the_connection_in_use_is_taken_at_once(scheme) {
        let server = TestServer::start().await;
        let memory = Memory::of(UID);
        let agent = Agent::start(settable(&server.url(scheme), &memory));
        agent.connected().await;
        let settings = pb::OpAmpConnectionSettings { heartbeat_interval_seconds: 3, ..with_endpoint(&server.url(scheme)) };
        server.offer(1, opamp(settings));
        if scheme == "http" {
            agent.advance(30);
        }
        server.told(Applied).await;
        assert_eq!(server.handle.agent(&UID).unwrap().sticky.connects, 1);
        let (before, at) = (agent.client.stats().messages_received, agent.clock_seconds());
        agent.polls_until("three messages", || agent.client.stats().messages_received >= before + 3).await;
        assert!(agent.clock_seconds() - at < 29, "sooner than every 30 seconds");
    }

    /// R-SEC of the state: a file for its owner alone, old ones too.
    async fn what_is_accepted_is_in_a_file_for_the_owner_alone(scheme) {
        let (first, second) = (TestServer::start().await, with_token("individual").await);
        let directory = Directory::new(&format!("settings-{scheme}"));
        let path = directory.write("state", &format!("opamp-agent-state 1\nuid {UID}\nuid-assigned no\nsequence 3\nend\n"));
        let build = || {
            builder(&first.url(scheme))
                .settings(crate::offered::patient())
                .state(FileState::new(&path))
                .accept_connection_settings(opamp_client::connection::SettingsPolicy::strict())
        };
        let agent = Agent::start(build());
        agent.connected().await;
        let settings = pb::OpAmpConnectionSettings {
            headers: headers(&[("Authorization", "Bearer individual")]),
            ..with_endpoint(&second.url(scheme))
        };
        first.offer(1, opamp(settings));
        if scheme == "http" {
            agent.advance(30);
        }
        agent.applied(1).await;
        agent.stop().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("opamp-agent-state 2") && !text.contains("individual"), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let agent = Agent::start(build());
        second.sees(UID, "back with what it was given", |agent| agent.sticky.connects == 2).await;
        agent.stop().await;
    }
}

/// R-LIFE-16, R-CONN-07: what is said on the old connection, in order, and nothing on the new one before that is over.
#[tokio::test]
async fn the_old_connection_is_told_and_closed_before_the_new_one_is_begun() {
    let (first, second) = (WsStub::start().await, WsStub::start().await);
    let memory = Memory::of(UID);
    let agent = Agent::start(settable(&first.url(), &memory));
    let mut old = first.accept().await;
    old.acknowledge().await;
    let offers =
        pb::ConnectionSettingsOffers { hash: b"hash"[..].into(), ..opamp(with_endpoint(&second.url())) };
    old.send(&pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }).await;
    let report = old.receive().await.connection_settings_status.unwrap();
    assert_eq!(
        (report.status(), &report.last_connection_settings_hash[..]),
        (pb::ConnectionSettingsStatuses::Applying, &b"hash"[..])
    );
    assert!(old.receive().await.agent_disconnect.is_some());
    assert!(agent.events.all().iter().filter(|event| matches!(event, Event::Connected { .. })).count() == 1);
    let saved = memory.saved().unwrap().connections;
    assert!(saved.candidate.is_some(), "saved before anything else happens");
    assert_eq!(old.close_code().await, Some(1000));
    let mut new = second.accept().await;
    let first_report = new.receive().await;
    assert!(first_report.agent_description.is_some());
    assert_eq!(
        first_report.connection_settings_status.unwrap().status(),
        pb::ConnectionSettingsStatuses::Applying
    );
    assert!(memory.saved().unwrap().connections.accepted.is_none(), "no answer yet");
    new.send(&crate::stub::ack()).await;
    let report = new.receive().await.connection_settings_status.unwrap();
    assert_eq!(report.status(), Applied);
    until("kept", || memory.saved().unwrap().connections.accepted.is_some()).await;
    agent.stop_with(&mut new).await;
}
