//! Own telemetry and other connections, handed to handlers.

use std::sync::{Arc, Mutex};

use opamp_client::connection::{OtherSettings, Signal, TelemetrySettings};
use opamp_client::{Client, Event, Rejected};
use opamp_proto::pb::{self, ConnectionSettingsStatuses as Status};

use super::{UID, patient};
use crate::common::{Agent, Memory, TestServer, builder, until};
use crate::stub::WsStub;

type Given<K, S> = Arc<Mutex<Vec<(K, Arc<S>)>>>;

fn to(endpoint: &str) -> Option<pb::TelemetryConnectionSettings> {
    let headers = super::headers(&[("authorization", "Bearer sink")]);
    Some(pb::TelemetryConnectionSettings {
        destination_endpoint: endpoint.into(),
        headers,
        ..Default::default()
    })
}

on_both_transports! {
    /// R-OWN-06, R-OWN-07, R-OWN-12, R-CONN-27: each signal to its handler, once, and again after a restart.
    async fn destinations_of_own_telemetry_reach_the_handler_and_outlive_a_restart(scheme) {
        let server = TestServer::start().await;
        let memory = Memory::of(UID);
        let given: Given<Signal, TelemetrySettings> = Arc::default();
        let start = || {
            let given = Arc::clone(&given);
            let take = move |signal, settings, _: Client| {
                given.lock().unwrap().push((signal, settings));
                std::future::ready(Ok(()))
            };
            Agent::start(builder(&server.url(scheme)).state(memory.clone()).settings(patient()).on_own_telemetry(Signal::ALL, take))
        };
        let agent = start();
        agent.connected().await;
        server.offer(1, pb::ConnectionSettingsOffers {
            own_metrics: to("https://m/v1/metrics"), own_logs: to("https://l/v1/logs"), ..Default::default()
        });
        if scheme == "http" {
            agent.advance(30);
        }
        server.told(Status::Applied).await;
        let taken = || given.lock().unwrap().iter().map(|(signal, settings)| (*signal, settings.endpoint.clone())).collect::<Vec<_>>();
        let expected = [(Signal::Logs, "https://l/v1/logs".to_owned()), (Signal::Metrics, "https://m/v1/metrics".to_owned())];
        assert_eq!(taken(), expected);
        assert_eq!(given.lock().unwrap()[0].1.headers[0].value.expose(), b"Bearer sink");
        let before = agent.client.stats().messages_received;
        agent.polls_until("more messages", || agent.client.stats().messages_received >= before + 3).await;
        assert_eq!(taken().len(), 2, "messages without settings change nothing");
        agent.stop().await;
        given.lock().unwrap().clear();
        let agent = start();
        until("given again", || taken().len() == 2).await;
        assert_eq!(taken(), expected);
        agent.stop().await;
    }

    /// R-CONN-35, R-CONN-38.
    async fn other_connections_reach_the_handler_whole_and_what_it_refuses_is_reported(scheme) {
        let server = TestServer::start().await;
        let given: Given<String, OtherSettings> = Arc::default();
        let kept = Arc::clone(&given);
        let take = move |name: String, settings, _: Client| {
            let result = if name == "bad" { Err(Rejected::new("not like this")) } else { Ok(()) };
            kept.lock().unwrap().push((name, settings));
            std::future::ready(result)
        };
        let agent = Agent::start(builder(&server.url(scheme)).state(Memory::of(UID)).settings(patient()).on_other_connections(take));
        agent.connected().await;
        let other = |endpoint: &str| pb::OtherConnectionSettings {
            destination_endpoint: endpoint.into(),
            other_settings: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        let others = [("db".to_owned(), other("host:1234")), ("bad".to_owned(), other("?"))].into();
        server.offer(1, pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() });
        if scheme == "http" {
            agent.advance(30);
        }
        let why = server.told(Status::Failed).await;
        assert_eq!(why, "other_connections[\"bad\"]: not like this");
        let part = pb::OtherConnectionSettings { headers: crate::offered::headers(&[("a", "b")]), ..Default::default() };
        let others = [("db".to_owned(), part)].into();
        server.offer(2, pb::ConnectionSettingsOffers { other_connections: others, ..Default::default() });
        if scheme == "http" {
            agent.advance(30);
        }
        server.told(Status::Applied).await;
        let given = given.lock().unwrap();
        let (name, db) = given.last().unwrap();
        assert_eq!((name.as_str(), db.endpoint.as_str(), db.headers.len(), db.other.len()), ("db", "host:1234", 1, 1));
    }
}

/// Heartbeats and offers go on while a handler hangs; it is given up in the end.
#[tokio::test]
async fn a_handler_that_hangs_holds_up_nothing_and_counts_as_failed() {
    let stub = WsStub::start().await;
    let take = |_: Signal, _: Arc<TelemetrySettings>, _: Client| std::future::pending();
    let agent =
        Agent::start(builder(&stub.url()).state(Memory::of(UID)).on_own_telemetry([Signal::Logs], take));
    let mut peer = stub.accept().await;
    peer.acknowledge().await;
    let offers = pb::ConnectionSettingsOffers {
        hash: b"h"[..].into(),
        own_logs: to("https://l/"),
        ..Default::default()
    };
    peer.send(&pb::ServerToAgent { connection_settings: Some(offers), ..Default::default() }).await;
    let report = peer.acknowledge().await.connection_settings_status.unwrap();
    assert_eq!(report.status(), Status::Applying);
    let mut beats = 0;
    let report = loop {
        agent.received(beats + 3).await;
        agent.advance(30);
        match peer.acknowledge().await.connection_settings_status {
            Some(report) => break report,
            None => beats += 1,
        }
    };
    assert!((15..=25).contains(&beats), "{beats}");
    assert_eq!(report.status(), Status::Failed);
    assert!(report.error_message.contains("did not end"), "{}", report.error_message);
    agent.event("told", |event| matches!(event, Event::HandlerFailed { handler: "own telemetry", .. })).await;
    agent.stop_with(&mut peer).await;
}
