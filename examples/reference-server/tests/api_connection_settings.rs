//! Connection settings through the REST API: offered to one agent, shown without their secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use opamp_proto::{AgentCapabilities, ServerCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    certs::Authority,
    raw::Endpoint,
};
use serde_json::{Value, json};
use support::{TempDir, TestServer, config, connect, path_of};

const SECRET: &str = "s3cret-of-the-test";

fn accepting(number: u32) -> Persona {
    Persona::new(number)
        .and(AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS)
        .and(AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS)
        .and(AgentCapabilities::REPORTS_OWN_METRICS)
        .and(AgentCapabilities::REPORTS_OWN_TRACES)
        .and(AgentCapabilities::REPORTS_OWN_LOGS)
        .and(AgentCapabilities::REPORTS_HEARTBEAT)
        .and(AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS)
}

/// Settings of every kind, with a secret wherever one can be.
fn everything() -> Value {
    let certificate = Authority::new("fleet").client("agent-1", &[]);
    let header =
        json!([{"key": "Authorization", "value": SECRET}, {"key": "Authorization", "value": "second"}]);
    json!({
        "opamp": {
            "destination_endpoint": "wss://opamp.example.com/v1/opamp",
            "headers": header,
            "heartbeat_interval_seconds": 45,
            "certificate": {
                "cert": certificate.cert_pem,
                "private_key": certificate.key_pem,
                "ca_cert": Authority::new("fleet").pem(),
            },
            "tls": {"min_version": "1.3"},
            "proxy": {"url": format!("http://me:{SECRET}@proxy:3128"), "connect_headers": header},
        },
        "own_metrics": {"destination_endpoint": "https://otlp.example.com/v1/metrics", "headers": header},
        "other_connections": {
            "warehouse": {"destination_endpoint": "db:5432", "other_settings": {"password": SECRET}},
        },
    })
}

fn status(
    offer: &pb::ConnectionSettingsOffers,
    status: pb::ConnectionSettingsStatuses,
    error: &str,
) -> pb::ConnectionSettingsStatus {
    pb::ConnectionSettingsStatus {
        last_connection_settings_hash: offer.hash.clone(),
        status: status as i32,
        error_message: error.into(),
    }
}

/// R-CONN-02, R-HB-12, R-TLS-14
#[tokio::test]
async fn settings_reach_the_agent_as_they_were_given_and_are_shown_without_secrets() {
    for wire in [Wire::WebSocket, Wire::Http] {
        let server = TestServer::start().await;
        let (mut agent, agent_path) = connect(&server, wire, accepting(1)).await;
        let path = format!("{agent_path}/connection-settings");
        let nothing = server.admin.get(&path).await.expect(200);
        assert_eq!((&nothing["desired"], &nothing["drift"]), (&Value::Null, &json!("unmanaged")));

        let set = server.admin.put(&path, everything()).await.expect(200);
        assert_eq!(set["dispatch"], if wire == Wire::WebSocket { "pushed" } else { "next_poll" });
        assert_eq!(set["desired"]["set_by"], "first-admin");
        let message = agent.until(|message| message.connection_settings.is_some()).await.unwrap();
        let offer = message.connection_settings.unwrap();
        assert_eq!(set["desired"]["hash"], data_encoding::HEXLOWER.encode(&offer.hash).as_str());
        let opamp = offer.opamp.as_ref().unwrap();
        let headers = &opamp.headers.as_ref().unwrap().headers;
        let values: Vec<_> = headers.iter().map(|header| header.value.as_str()).collect();
        assert_eq!(values, [SECRET, "second"], "order and repetition");
        assert_eq!(opamp.heartbeat_interval_seconds, 45);
        assert!(opamp.certificate.as_ref().unwrap().private_key.starts_with(b"-----BEGIN"));
        assert_eq!(
            offer.own_metrics.as_ref().unwrap().destination_endpoint,
            "https://otlp.example.com/v1/metrics"
        );
        assert_eq!(offer.other_connections["warehouse"].other_settings["password"], SECRET);
        assert!(offer.own_traces.is_none() && offer.own_logs.is_none());

        let applying = status(&offer, pb::ConnectionSettingsStatuses::Applying, "");
        agent.report(|report| report.connection_settings_status = Some(applying)).await.unwrap();
        server.eventually(&path, |shown| shown["drift"] == "applying").await;
        let applied = status(&offer, pb::ConnectionSettingsStatuses::Applied, "");
        agent.report(|report| report.connection_settings_status = Some(applied)).await.unwrap();
        let shown = server.eventually(&path, |shown| shown["drift"] == "in_sync").await;
        assert_eq!(
            shown["reported"],
            json!({"hash": set["desired"]["hash"], "status": "APPLIED", "error": ""})
        );
        assert_eq!(shown["offered"]["hash"], set["desired"]["hash"]);
        assert_eq!(
            shown["settings"]["opamp"]["headers"][1],
            json!({"key": "Authorization", "value": "<redacted>"})
        );
        assert_eq!(shown["settings"]["opamp"]["certificate"]["private_key"], "<redacted>");
        assert_eq!(shown["settings"]["opamp"]["tls"]["min_version"], "1.3");

        let detail = server.admin.get(&agent_path).await.expect(200);
        let audit = server.admin.get("/api/v1/audit?limit=1000").await.expect(200);
        for (place, text) in [("settings", shown), ("agent", detail), ("audit log", audit)] {
            let text = text.to_string();
            assert!(
                !text.contains(SECRET) && !text.contains("BEGIN PRIVATE"),
                "a secret is in the {place}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn settings_that_fail_are_offered_once_and_again_when_they_are_set_anew() {
    let server = TestServer::start().await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let path = format!("{agent_path}/connection-settings");
    let wanted = json!({"own_logs": {"destination_endpoint": "https://otlp.example.com/v1/logs"}});
    server.admin.put(&path, wanted.clone()).await.expect(200);
    let message = agent.until(|message| message.connection_settings.is_some()).await.unwrap();
    let failed = status(
        &message.connection_settings.unwrap(),
        pb::ConnectionSettingsStatuses::Failed,
        "no route to otlp.example.com",
    );
    let answer = agent.report(|report| report.connection_settings_status = Some(failed)).await.unwrap();
    assert_eq!(answer.connection_settings, None);
    let shown = server.eventually(&path, |shown| shown["failed"] == true).await;
    assert_eq!((&shown["drift"], &shown["reported"]["status"]), (&json!("failed"), &json!("FAILED")));
    assert_eq!(shown["last_failure"]["error"], "no route to otlp.example.com");
    assert_eq!(agent.heartbeat().await.unwrap().connection_settings, None, "not again by itself");

    server.admin.put(&path, wanted).await.expect(200);
    agent.until(|message| message.connection_settings.is_some()).await.unwrap();
    let entries = server.audit("agent.set_connection_settings").await;
    assert_eq!(entries.len(), 2);

    let cleared = server.admin.delete(&path).await.expect(200);
    assert_eq!(cleared["desired"], Value::Null);
    let shown = server.admin.get(&path).await.expect(200);
    assert_eq!((&shown["desired"], &shown["settings"]), (&Value::Null, &Value::Null));
    assert_eq!(agent.heartbeat().await.unwrap().connection_settings, None);
    assert_eq!(server.audit("agent.clear_connection_settings").await.len(), 1);
}

/// R-CONN-25, R-CONN-32, R-CONN-33, R-TLS-12, R-TLS-16, R-TLS-17, R-TLS-18
#[tokio::test]
async fn settings_that_no_agent_could_use_are_refused_by_the_name_of_the_field() {
    let server = TestServer::start().await;
    let (_agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let path = format!("{agent_path}/connection-settings");
    let identity = Authority::new("fleet").client("agent-1", &[]);
    let opamp = |change: Value| {
        let mut opamp = json!({"destination_endpoint": "wss://h/v1/opamp"});
        opamp.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"opamp": opamp})
    };
    for (field, wanted) in [
        ("at least one part", json!({})),
        ("opamp.destination_endpoint", opamp(json!({"destination_endpoint": ""}))),
        ("opamp.destination_endpoint", opamp(json!({"destination_endpoint": format!("ftp://{SECRET}")}))),
        ("opamp.proxy.url", opamp(json!({"proxy": {"url": ""}}))),
        ("opamp.headers", opamp(json!({"headers": [{"key": "a b", "value": SECRET}]}))),
        ("opamp.certificate.cert", opamp(json!({"certificate": {"cert": SECRET, "private_key": SECRET}}))),
        (
            "opamp.certificate.private_key",
            opamp(
                json!({"certificate": {"cert": identity.cert_pem, "private_key": "", "ca_cert": Authority::new("x").pem()}}),
            ),
        ),
        (
            "opamp.certificate.ca_cert",
            opamp(json!({"certificate": {"cert": identity.cert_pem, "private_key": identity.key_pem}})),
        ),
        ("own_traces.destination_endpoint", json!({"own_traces": {"destination_endpoint": "https://h"}})),
        (
            "own_metrics.destination_endpoint",
            json!({"own_metrics": {"destination_endpoint": "http://h/v1/metrics"}}),
        ),
    ] {
        let (_, message) = server.admin.put(&path, wanted).await.error(400);
        assert!(message.contains(field), "{field}: {message}");
        assert!(!message.contains(SECRET), "{message}");
    }
    let unknown = json!({"opamp": {"destination_endpoint": "wss://h", "header": []}});
    let (code, message) = server.admin.put(&path, unknown).await.error(400);
    assert!(code == "unknown_field" && message.contains("nearest known one is `headers`"), "{message}");
    assert_eq!(server.admin.get(&path).await.expect(200)["desired"], Value::Null);
    assert_eq!(server.audit("agent.set_connection_settings").await.len(), 0);

    let missing = "/api/v1/agents/01890000-0000-7000-8000-000000000000/connection-settings";
    server.admin.put(missing, everything()).await.error(404);
    server.admin.get(missing).await.error(404);
    server.admin.delete(missing).await.error(404);
    let (_other, deaf) = connect(&server, Wire::WebSocket, Persona::new(2)).await;
    let (_, message) =
        server.admin.put(&format!("{deaf}/connection-settings"), everything()).await.error(409);
    assert!(message.contains("does not accept"), "{message}");
}

/// R-CONN-04
#[tokio::test]
async fn settings_survive_a_restart_and_reach_the_agent_that_comes_back() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let settings = [("server.store", "sqlite"), ("server.data_dir", data.to_str().unwrap())];
    let server = TestServer::start_with(config(&settings)).await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    agent.vanish();
    server.eventually(&agent_path, |agent| agent["liveness"] == "disconnected").await;
    let path = format!("{agent_path}/connection-settings");
    let set = server.admin.put(&path, everything()).await.expect(200);
    assert_eq!(set["dispatch"], "no_session");
    let before = server.admin.get(&path).await.expect(200);
    let token = server.token.clone();
    assert!(server.running.shutdown().await);

    let running = reference_server::Server::start(config(&settings)).await.unwrap();
    let admin = support::Client::new(running.admin_addr(), Some(&token));
    assert_eq!(admin.get(&path).await.expect(200), before);
    let connector = Connector::new(Endpoint::plain(running.opamp_addr()), Wire::WebSocket);
    let (_agent, answer) = connector.start(agent.persona.clone()).await.unwrap();
    let offer = answer.connection_settings.expect("in the very first answer");
    assert_eq!(data_encoding::HEXLOWER.encode(&offer.hash), set["desired"]["hash"].as_str().unwrap());
    assert_eq!(offer.other_connections["warehouse"].other_settings["password"], SECRET);
    assert!(running.shutdown().await);
}

/// R-CONN-33
#[tokio::test]
async fn plain_http_destinations_of_telemetry_are_offered_only_where_that_is_allowed() {
    let wanted = json!({"own_metrics": {"destination_endpoint": "http://h:4318/v1/metrics"}});
    for (allowed, status) in [("false", 400), ("true", 200)] {
        let server =
            TestServer::start_with(config(&[("connection_settings.plain_http_telemetry", allowed)])).await;
        let (_agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
        let answer = server.admin.put(&format!("{agent_path}/connection-settings"), wanted.clone()).await;
        let answer = answer.expect(status);
        let hint = answer["error"]["hint"].as_str().unwrap_or("connection_settings.plain_http_telemetry");
        assert!(hint.contains("connection_settings.plain_http_telemetry"), "{hint}");
    }
}

/// R-CAP-30
#[tokio::test]
async fn switched_off_connection_settings_are_neither_announced_nor_taken() {
    for (enabled, status, announced) in [("true", 200, true), ("false", 409, false)] {
        let server = TestServer::start_with(config(&[("connection_settings.enabled", enabled)])).await;
        let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), Wire::WebSocket);
        let (agent, first) = connector.start(accepting(1)).await.unwrap();
        let offers = ServerCapabilities::from_bits(first.capabilities);
        assert_eq!(offers.contains(ServerCapabilities::OFFERS_CONNECTION_SETTINGS), announced, "{offers:?}");
        let agent_path = path_of(&server, &agent.persona.uid).await;
        let answer = server.admin.put(&format!("{agent_path}/connection-settings"), everything()).await;
        answer.expect(status);
    }
}

#[tokio::test]
async fn a_heartbeat_interval_of_zero_is_offered_only_when_it_is_said() {
    let server = TestServer::start().await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let path = format!("{agent_path}/connection-settings");
    for (given, offered) in [(Value::Null, 30), (json!(0), 0), (json!(7), 7)] {
        let endpoint = format!("wss://h/{offered}");
        let wanted =
            json!({"opamp": {"destination_endpoint": endpoint, "heartbeat_interval_seconds": given}});
        server.admin.put(&path, wanted).await.expect(200);
        let message = agent.until(|message| message.connection_settings.is_some()).await.unwrap();
        let opamp = message.connection_settings.unwrap().opamp.unwrap();
        assert_eq!((opamp.destination_endpoint, opamp.heartbeat_interval_seconds), (endpoint, offered));
    }
}
