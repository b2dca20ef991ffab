//! An agent is managed from its first message to its goodbye, over every transport: it is seen, given a configuration,
//! reports it applied, is restarted, leaves, comes back and breaks off.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::time::{Duration, Instant};

use e2e::{harness::Harness, pki::Pki};
use opamp_proto::{AgentCapabilities, ServerCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, ScriptedAgent, Wire},
    raw::Endpoint,
};
use serde_json::{Value, json};

/// How soon an agent that can be reached must have an offer, and its record the outcome.
const A_SECOND: Duration = Duration::from_secs(1);

const FILES: [(&str, &str); 2] =
    [("", "receivers: {otlp: {}}\n"), ("extra.yaml", "exporters: {debug: {}}\n")];

/// How an agent reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http,
    HttpsWithCertificate,
    WebSocket,
    WssWithCertificate,
}

impl Way {
    fn wire(self) -> Wire {
        match self {
            Way::Http | Way::HttpsWithCertificate => Wire::Http,
            Way::WebSocket | Way::WssWithCertificate => Wire::WebSocket,
        }
    }

    fn is_secure(self) -> bool {
        matches!(self, Way::HttpsWithCertificate | Way::WssWithCertificate)
    }

    /// A server for agents that come this way, and how they come.
    async fn open(self) -> (Harness, Connector) {
        let mut pki = None;
        let harness = Harness::with(|config, dir| {
            // Three intervals without a poll are stale, six are disconnected; never before one and two seconds.
            config.opamp.http_poll_interval = Duration::from_millis(200);
            config.opamp.http_stale_min = Duration::from_secs(1);
            if self.is_secure() {
                let pki = pki.insert(Pki::new(dir));
                config.opamp.auth = reference_server::config::AgentAuth::Mtls;
                config.opamp.tls_cert = Some(pki.cert.clone());
                config.opamp.tls_key = Some(pki.key.clone());
                config.opamp.client_ca = Some(pki.client_ca.clone());
            }
        })
        .await;
        let endpoint = match pki {
            None => harness.endpoint(),
            Some(pki) => Endpoint::tls(harness.server.opamp_addr(), pki.client("edge-1"), "localhost"),
        };
        let connector = Connector::new(endpoint.with_wait(e2e::PATIENCE), self.wire());
        (harness, connector)
    }
}

#[tokio::test]
async fn over_websocket() {
    Box::pin(first_light(Way::WebSocket)).await;
}

#[tokio::test]
async fn over_http_polling() {
    Box::pin(first_light(Way::Http)).await;
}

#[tokio::test]
async fn over_wss_with_a_client_certificate() {
    Box::pin(first_light(Way::WssWithCertificate)).await;
}

#[tokio::test]
async fn over_https_polling_with_a_client_certificate() {
    Box::pin(first_light(Way::HttpsWithCertificate)).await;
}

async fn first_light(way: Way) {
    let (harness, connector) = way.open().await;
    let persona = Persona::new(1).and(AgentCapabilities::ACCEPTS_RESTART_COMMAND);
    let (mut agent, answer) = connector.start(persona).await.unwrap();
    let offered = ServerCapabilities::from_bits(answer.capabilities);
    assert!(offered.contains(ServerCapabilities::ACCEPTS_STATUS | ServerCapabilities::OFFERS_REMOTE_CONFIG));
    assert!(answer.error_response.is_none() && answer.remote_config.is_none() && answer.flags == 0);

    let id = is_seen(way, &harness, &mut agent).await;
    let hash = is_configured(way, &harness, &mut agent, &id).await;
    goes_back_after_a_failure(&harness, &mut agent, &id, &hash).await;
    is_restarted(&harness, &mut agent, &id).await;
    leaves_and_comes_back(&harness, &mut agent, &id).await;
    breaks_off(way, &harness, &mut agent, &id).await;
    assert!(harness.server.shutdown().await);
}

/// The record says who it is, what it can do, how it is and what it runs.
async fn is_seen(way: Way, harness: &Harness, agent: &mut ScriptedAgent) -> String {
    let id = harness.rest.id_of(agent.persona.uid).await;
    let record = harness.rest.agent(&id).await;
    assert_eq!(record["liveness"], "connected");
    assert_eq!(record["transport"], if way.wire() == Wire::Http { "http" } else { "websocket" });
    assert_eq!(record["remote_address"], agent.local_addr().unwrap().to_string());
    assert!(record["connected_at"].is_string() && record["last_message"].is_string(), "{record:#}");
    assert_eq!(record["disconnect"], Value::Null);
    assert_eq!(record["identity"], if way.is_secure() { json!("certificate:edge-1") } else { Value::Null });
    let expected = [
        "ReportsStatus",
        "AcceptsRemoteConfig",
        "ReportsEffectiveConfig",
        "ReportsHealth",
        "ReportsRemoteConfig",
        "AcceptsRestartCommand",
    ];
    let named: Vec<_> =
        record["capabilities"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(expected.iter().all(|name| named.contains(name)) && named.len() == expected.len(), "{named:?}");
    assert_eq!(record["description"]["identifying"]["service.name"], "scripted");
    assert_eq!(record["description"]["non_identifying"]["os.type"], "linux");
    assert_eq!(
        (&record["health"], &record["health_report"]["status"]),
        (&json!("healthy"), &json!("running"))
    );
    assert_eq!(record["effective_config"][""]["body"], "local: true\n");
    assert_eq!((&record["drift"], &record["desired_config"]), (&json!("unmanaged"), &Value::Null));
    id
}

/// A config of two files is made, published, assigned, offered, applied, and the record shows all of it.
async fn is_configured(way: Way, harness: &Harness, agent: &mut ScriptedAgent, id: &str) -> String {
    let rest = &harness.rest;
    let files = json!({
        "": {"body": FILES[0].1, "content_type": "text/yaml"},
        "extra.yaml": {"body": FILES[1].1, "content_type": "text/yaml"},
    });
    let draft = rest.post("/api/v1/configs", &json!({"name": "edge", "files": files}), 201).await;
    assert_eq!((&draft["version"], &draft["state"]), (&json!(1), &json!("draft")));
    let wanted = json!({"config": "edge", "version": 1});
    let too_early = rest.call("POST", &format!("/api/v1/agents/{id}/assign"), Some(&wanted)).await;
    assert_eq!(too_early.status, 409, "a draft cannot be assigned: {}", too_early.text);
    let published = rest.order("/api/v1/configs/edge/versions/1/publish", 200).await;
    assert_eq!((&published["state"], &published["hash"]), (&json!("published"), &draft["hash"]));
    let hash = published["hash"].as_str().unwrap().to_owned();

    // Polling keeps the agent there; its next poll comes after the assignment.
    agent.heartbeat().await.unwrap();
    let assigned_at = Instant::now();
    let assigned = rest.assign(id, "edge", 1).await;
    assert_eq!(assigned["desired_config"]["hash"], hash.as_str());
    assert_eq!(assigned["dispatch"], if way.wire() == Wire::Http { "next_poll" } else { "pushed" });
    let message = agent.next_message().await.unwrap();
    let offer = message.remote_config.expect("the offer is in the very next message");
    assert!(assigned_at.elapsed() < A_SECOND, "the offer took {:?}", assigned_at.elapsed());
    let sent = &offer.config.as_ref().unwrap().config_map;
    let sent: Vec<_> =
        sent.iter().map(|(name, file)| (name.as_str(), std::str::from_utf8(&file.body).unwrap())).collect();
    assert_eq!(sent, FILES);
    assert_eq!(hex(&offer.config_hash), hash);

    let answer = agent.apply(&offer).await.unwrap();
    assert!(answer.error_response.is_none() && answer.remote_config.is_none(), "one offer is enough");
    let record = rest.agent_when(id, "the record is in sync", |record| record["drift"] == "in_sync").await;
    assert!(assigned_at.elapsed() < A_SECOND, "offer, report and record took {:?}", assigned_at.elapsed());
    assert_eq!(record["remote_config_status"], json!({"hash": hash, "status": "APPLIED", "error": ""}));
    assert_eq!(record["apply_error"], Value::Null);
    for (name, body) in FILES {
        assert_eq!(record["effective_config"][name]["body"], body);
    }
    assert_eq!(record["effective_config_hash"], hash.as_str());
    assert_eq!(record["last_known_good"], hash.as_str());
    assert_eq!(record["desired_config"]["assigned_by"], "first-admin");

    let audit = rest.audit().await;
    for action in ["config.create", "config.publish", "agent.assign"] {
        let entry = audit.iter().find(|entry| entry["action"] == action);
        let entry = entry.unwrap_or_else(|| panic!("no {action} in {audit:#?}"));
        assert_eq!((&entry["actor"], &entry["role"]), (&json!("first-admin"), &json!("admin")));
        assert!(entry["source"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    hash
}

/// A version that fails is shown as failed and not offered again, and the one before can be put back.
async fn goes_back_after_a_failure(harness: &Harness, agent: &mut ScriptedAgent, id: &str, good: &str) {
    let rest = &harness.rest;
    let bad = rest.publish_version("edge", 2, &[("", "receivers: {no_such: {}}\n")]).await;
    agent.heartbeat().await.unwrap();
    rest.assign(id, "edge", 2).await;
    let offer = agent.next_offer().await.unwrap();
    let message = agent.persona.applying(&offer);
    agent.exchange(&message).await.unwrap();
    rest.agent_when(id, "the record shows that it is applying", |record| record["drift"] == "applying").await;
    let message = agent.persona.failed(&offer, "unknown receiver no_such");
    assert!(agent.exchange(&message).await.unwrap().remote_config.is_none());
    let record =
        rest.agent_when(id, "the record shows the failure", |record| record["drift"] == "failed").await;
    assert_eq!(record["apply_error"], "unknown receiver no_such");
    assert_eq!(record["remote_config_status"]["status"], "FAILED");
    assert_eq!(record["sticky"]["last_failure"]["hash"], bad["hash"]);
    assert_eq!(record["last_known_good"], good);
    for _ in 0..3 {
        let answer = agent.heartbeat().await.unwrap();
        assert!(answer.remote_config.is_none(), "what failed is not offered again");
    }

    rest.assign(id, "edge", 1).await;
    let offer = agent.next_offer().await.unwrap();
    assert_eq!(hex(&offer.config_hash), good);
    agent.apply(&offer).await.unwrap();
    let record =
        rest.agent_when(id, "the record is in sync again", |record| record["drift"] == "in_sync").await;
    let versions: Vec<_> = record["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|desired| desired["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [1, 2], "what it should have run before");
}

/// The order to restart arrives in a message of its own.
async fn is_restarted(harness: &Harness, agent: &mut ScriptedAgent, id: &str) {
    agent.heartbeat().await.unwrap();
    harness.rest.order(&format!("/api/v1/agents/{id}/restart"), 202).await;
    let message = agent.next_message().await.unwrap();
    let command = message.command.expect("the command is in the very next message");
    assert_eq!(command.r#type, pb::CommandType::Restart as i32);
    assert!(message.remote_config.is_none() && message.flags == 0);
    assert!(agent.heartbeat().await.unwrap().command.is_none(), "once");
}

/// A goodbye is a disconnect of its own kind; who comes back is the same agent.
async fn leaves_and_comes_back(harness: &Harness, agent: &mut ScriptedAgent, id: &str) {
    agent.disconnect().await.unwrap();
    let is_gone = |record: &Value| record["liveness"] == "disconnected";
    let record = harness.rest.agent_when(id, "the record shows that it left", is_gone).await;
    assert_eq!(
        (&record["disconnect"]["reason"], &record["disconnect"]["graceful"]),
        (&json!("graceful"), &json!(true))
    );
    let refused = harness.rest.call("POST", &format!("/api/v1/agents/{id}/restart"), None).await;
    assert_eq!(refused.status, 409, "commands do not wait: {}", refused.text);

    agent.reconnect().await.unwrap();
    let answer = agent.heartbeat().await.unwrap();
    assert!(
        answer.flags == 0 && answer.remote_config.is_none() && answer.command.is_none(),
        "nothing was forgotten"
    );
    let is_back = |record: &Value| record["liveness"] == "connected" && record["disconnect"].is_null();
    let record = harness.rest.agent_when(id, "the record shows that it is back", is_back).await;
    assert_eq!(record["drift"], "in_sync");
    assert_eq!(harness.rest.agents().await.len(), 1);
}

/// A connection that ends without a goodbye: at once over WebSocket, after the documented time over HTTP.
async fn breaks_off(way: Way, harness: &Harness, agent: &mut ScriptedAgent, id: &str) {
    agent.vanish();
    let is_gone = |record: &Value| record["liveness"] == "disconnected";
    let record = harness.rest.agent_when(id, "the record shows that it broke off", is_gone).await;
    assert_eq!(record["disconnect"]["graceful"], false);
    assert_eq!(record["disconnect"]["reason"], if way.wire() == Wire::Http { "timeout" } else { "closed" });
    assert_eq!(record["drift"], "in_sync", "what it runs has not changed");
    let stats = harness.rest.get("/api/v1/stats").await;
    assert_eq!((&stats["registered"], &stats["by_liveness"]["disconnected"]), (&json!(1), &json!(1)));
    for parts in ["by_liveness", "by_health", "by_drift"] {
        let sum: u64 = stats[parts].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, 1, "{parts} in {stats}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
