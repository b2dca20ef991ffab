//! Custom messages, components, and connection settings, by the program itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[macro_use]
mod support;

use opamp_proto::pb;
use opamp_proto::pb::ConnectionSettingsStatuses::{Applied, Failed};
use opamp_server::{AgentSnapshot, CustomMessage, Liveness};
use self_agent::diagnostics::CAPABILITY;
use support::{Offerer, Process, TempDir};

fn start(server: &Offerer, scheme: &str) -> (TempDir, Process) {
    let directory = TempDir::new();
    directory.write(
        "agent.yaml",
        &format!(
            "\
server:
  endpoint: {}
  heartbeat_interval: 100ms
  poll_interval: 100ms
  retry: {{first_interval: 20ms}}
capabilities:
  accepts_opamp_connection_settings: true
  diagnostics: true
  reports_available_components: true
storage:
  directory: state
",
            server.url(scheme)
        ),
    );
    let process = Process::start(&directory);
    (directory, process)
}

fn message(kind: &str, data: &[u8]) -> CustomMessage {
    CustomMessage { capability: CAPABILITY.to_owned(), kind: kind.to_owned(), data: data.to_vec().into() }
}

fn settings_status(agent: &AgentSnapshot) -> Option<i32> {
    agent.connection_settings.report.as_ref().map(|report| report.status)
}

fn leading_to(endpoint: &str) -> pb::ConnectionSettingsOffers {
    let opamp = pb::OpAmpConnectionSettings {
        destination_endpoint: endpoint.to_owned(),
        heartbeat_interval_seconds: 1,
        ..Default::default()
    };
    pb::ConnectionSettingsOffers { opamp: Some(opamp), ..Default::default() }
}

on_both_transports! {
    async fn questions_of_the_diagnostics_are_answered_in_order_and_others_ignored(scheme) {
        let server = Offerer::start().await;
        let (_directory, mut process) = start(&server, scheme);
        let uid = process.uid().await;
        server.sees(uid, "announced", |agent| agent.custom_capabilities() == [CAPABILITY]).await;
        server.handle().send_custom(&uid, message("nonsense", b"")).unwrap();
        for number in 0..5_u8 {
            server.handle().send_custom(&uid, message("ping", &[number])).unwrap();
        }
        server.handle().send_custom(&uid, message("stats", b"")).unwrap();
        for number in 0..5_u8 {
            let answer = server.custom().await.message;
            assert_eq!((answer.kind.as_str(), &answer.data[..]), ("pong", &[number][..]));
        }
        let stats = server.custom().await.message;
        let text = String::from_utf8(stats.data.to_vec()).unwrap();
        assert_eq!(stats.kind, "stats");
        assert!(text.starts_with("{\"messages_sent\":") && text.ends_with('}'), "{text}");
    }

    async fn what_is_built_in_is_told(scheme) {
        let server = Offerer::start().await;
        let (_directory, mut process) = start(&server, scheme);
        let uid = process.uid().await;
        let told = |agent: &AgentSnapshot| agent.components.is_some();
        let seen = server.sees(uid, "the components", told).await;
        let listed = <pb::AvailableComponents as prost::Message>::decode(seen.components.unwrap()).unwrap();
        let names: Vec<_> = listed.components.keys().map(String::as_str).collect();
        assert_eq!(names, ["diagnostics", "own_metrics", "packages", "remote_config"]);
    }

    async fn the_agent_follows_its_server_to_another_one_and_stays_there_over_a_restart(scheme) {
        let (server, other) = (Offerer::start().await, Offerer::start().await);
        let (directory, mut process) = start(&server, scheme);
        let uid = process.uid().await;
        server.connected(uid).await;
        server.begin_settings(uid, 1, leading_to(&other.url(scheme)));
        let applied = |agent: &AgentSnapshot| settings_status(agent) == Some(Applied as i32);
        other.sees(uid, "it has followed", applied).await;
        process.stop().await;
        let before = other.handle().agent(&uid).unwrap().sticky.connects;
        let mut again = Process::start(&directory);
        assert_eq!(again.uid().await, uid);
        other.sees(uid, "it comes there at once", |agent| agent.sticky.connects > before && applied(agent)).await;
        let here = server.handle().agent(&uid).unwrap();
        assert_eq!((here.liveness, here.sticky.connects), (Liveness::Disconnected, 1), "and not here");
    }

    async fn a_way_that_leads_nowhere_is_given_up_and_told(scheme) {
        let server = Offerer::start().await;
        let (_directory, mut process) = start(&server, scheme);
        let uid = process.uid().await;
        server.connected(uid).await;
        server.begin_settings(uid, 1, leading_to(&format!("{scheme}://127.0.0.1:1/v1/opamp")));
        let failed = |agent: &AgentSnapshot| agent.liveness == Liveness::Connected && settings_status(agent) == Some(Failed as i32);
        let seen = server.sees(uid, "it is back", failed).await;
        assert!(!seen.connection_settings.report.unwrap().error.is_empty());
    }
}
