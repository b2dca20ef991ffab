//! Everything the server writes during a busy life at the most talkative log level, searched for secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use opamp_proto::{AgentCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    certs::Authority,
    proxy::HttpProxy,
    raw::{Endpoint, HttpRequest, RawHttp},
    transcript::Transcript,
};
use serde_json::json;
use support::{Agent, Client, Process, TempDir};

const BODY: &str = "password: hunter2-in-a-config";
const AGENT_TOKEN: &str = "agent-token-9c1e";
const FILE_TOKEN: &str = "file-token-77ab";
const BAD_TOKEN: &str = "opamp-pat.BADBADBADBAD.GUESSED";
const PROXY_PASSWORD: &str = "proxy-password-5d1f";
const HEADER: &str = "header-value-3b7d";
const SETTING: &str = "other-setting-91aa";
const PACKAGE: &str = "content-of-a-package-c4c4";
const CUSTOM_SENT: &str = "custom-data-sent-0e0e";
const CUSTOM_RECEIVED: &str = "custom-data-received-1f1f";
const CUSTOM_CAPABILITY: &str = "com.example.talk";
/// How every token of the Self-Agent begins.
const SELF_AGENT_TOKEN: &str = "opamp-self.";

#[tokio::test]
async fn no_output_metric_or_audit_entry_has_a_secret() {
    let dir = TempDir::new();
    fs::write(dir.path().join("token"), format!("{FILE_TOKEN}\n")).unwrap();
    let tokens = format!("--tokens=edge={AGENT_TOKEN},core=@token");
    let proxy =
        HttpProxy::builder().require("proxy-authorization", "Basic nobody", 407).start().await.unwrap();
    let through = format!("--self-agent-proxy=http://me:{PROXY_PASSWORD}@{}", proxy.addr());
    let arguments = [
        "--log-level=trace",
        "--custom-capabilities=com.example.talk",
        "--auth=token",
        &tokens,
        "--self-agent-enabled=true",
        "--self-agent-interval=1s",
        "--self-agent-timeout=1s",
        "--self-agent-external-url=wss://127.0.0.1:4320/v1/opamp",
        &through,
    ];
    let mut server = Process::serve(dir.path(), &arguments);
    let (address, first) = server.started();
    let first = first.unwrap();
    let admin = Client::new(address, Some(&first));
    let made = admin.post("/api/v1/tokens", json!({"name": "ci", "role": "operator"})).await.expect(201);
    let second = made["token"].as_str().unwrap().to_owned();
    let operator = admin.as_token(&second);

    operator.as_token(BAD_TOKEN).get("/api/v1/agents").await.error(401);
    operator
        .header("content-type", "application/json")
        .send("POST", "/api/v1/configs", Some(format!("{{\"x\": \"{BODY}\"}}")))
        .await
        .error(400);
    let config = json!({"name": "c", "files": {"": {"body": BODY}}});
    operator.post("/api/v1/configs", config.clone()).await.expect(201);
    operator.post("/api/v1/configs", config).await.error(409);
    operator.order("/api/v1/configs/c/versions/1/publish").await.expect(200);

    let mut agent = Agent::connect_as(&server.endpoint(), 1, Some(AGENT_TOKEN)).await.unwrap();
    assert!(Agent::connect_as(&server.endpoint(), 2, Some("guessed-agent-token")).await.is_none());
    let mut path = String::new();
    while path.is_empty() {
        let page = operator.get("/api/v1/agents?selector=service.name=otelcol").await.expect(200);
        path = page["agents"][0]["id"].as_str().map(|id| format!("/api/v1/agents/{id}")).unwrap_or_default();
    }
    operator.post(&format!("{path}/assign"), json!({"config": "c", "version": 1})).await.expect(200);
    agent.take_offer(Some("cannot parse")).await;
    let mut offered = offers(&server.endpoint(), &operator).await;
    let mut own = String::new();
    while !own.contains("network path") {
        own = admin.get("/api/v1/self").await.text();
    }
    assert!(own.contains("407") && proxy.refused() > 0, "the proxy was asked\n{own}");
    let inventory = admin.get("/api/v1/agents").await.text();
    let audit = admin.get("/api/v1/audit?limit=1000").await.text();
    let metrics = admin.get("/metrics").await.text();
    server.signal("HUP");
    server.wait_for_output("certificates and agent tokens read");
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));

    let state = fs::read_to_string(dir.path().join("data/self-agent.state")).unwrap();
    let database = fs::read(dir.path().join("data/opamp.db")).unwrap();
    let on_disk = format!("{state}{}", String::from_utf8_lossy(&database));
    assert!(!shows(&on_disk, SELF_AGENT_TOKEN), "a credential of the Self-Agent is on disk");

    let log = server.stderr();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is talkative\n{log}");
    let stdout = server.stdout();
    assert_eq!(stdout.matches(&first).count(), 1, "once");
    let basic = BASE64.encode(format!("me:{PROXY_PASSWORD}").as_bytes());
    let secrets = [
        BODY,
        "hunter2",
        AGENT_TOKEN,
        FILE_TOKEN,
        BAD_TOKEN,
        "guessed-agent-token",
        &second,
        PROXY_PASSWORD,
        &basic,
        SELF_AGENT_TOKEN,
        HEADER,
        SETTING,
        PACKAGE,
        CUSTOM_SENT,
        CUSTOM_RECEIVED,
        "BEGIN PRIVATE KEY",
    ];
    let secrets: Vec<&str> =
        secrets.into_iter().chain(offered.drain(..).map(|secret| &*secret.leak())).collect();
    let places = [
        ("log", &log),
        ("stdout", &stdout),
        ("audit log", &audit),
        ("metrics", &metrics),
        ("verdict", &own),
        ("inventory", &inventory),
    ];
    for secret in secrets {
        for (place, text) in places {
            assert!(!shows(text, secret), "{secret} is in the {place}:\n{text}");
        }
    }
    for (place, text) in places.into_iter().filter(|(place, _)| *place != "stdout") {
        assert!(!shows(text, &first), "the admin token is in the {place}");
    }
}

/// Offers an agent settings and a package with secrets, lets it take both, and exchanges custom messages. Answers the
/// secrets that are made anew each time.
async fn offers(url: &str, operator: &Client) -> Vec<String> {
    let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap().parse().unwrap();
    let endpoint = Endpoint::plain(address);
    let mut persona = Persona::new(7)
        .and(AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS)
        .and(AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS)
        .and(AgentCapabilities::ACCEPTS_PACKAGES);
    let capabilities = vec![CUSTOM_CAPABILITY.to_owned()];
    persona.custom_capabilities = Some(pb::CustomCapabilities { capabilities });
    let connector = Connector::new(endpoint.clone(), Wire::WebSocket).with_token(AGENT_TOKEN);
    let (mut agent, _) = connector.start(persona).await.unwrap();
    let uid = agent.persona.uid.to_string();
    let find = |page: &serde_json::Value| {
        let agents = page["agents"].as_array().unwrap().clone();
        agents.into_iter().find(|agent| agent["uid"] == uid.as_str())
    };
    let page = operator.eventually("/api/v1/agents", |page| find(page).is_some()).await;
    let path = format!("/api/v1/agents/{}", find(&page).unwrap()["id"].as_str().unwrap());

    let authority = Authority::new("fleet");
    let identity = authority.client("agent-7", &[]);
    let settings = json!({
        "opamp": {
            "destination_endpoint": "wss://opamp.example.com/v1/opamp",
            "headers": [{"key": "Authorization", "value": HEADER}],
            "certificate": {"cert": identity.cert_pem, "private_key": identity.key_pem, "ca_cert": authority.pem()},
        },
        "other_connections": {"db": {"other_settings": {"password": SETTING}}},
    });
    operator.put(&format!("{path}/connection-settings"), settings).await.expect(200);
    let offer = agent.until(|message| message.connection_settings.is_some()).await.unwrap();
    assert!(offer.connection_settings.unwrap().opamp.is_some());
    let wrong =
        json!({"opamp": {"destination_endpoint": "wss://h", "headers": [{"key": "a b", "value": HEADER}]}});
    operator.put(&format!("{path}/connection-settings"), wrong).await.error(400);
    operator.get(&format!("{path}/connection-settings")).await.expect(200);

    let upload = "/api/v1/packages?name=a&version=1&type=top_level";
    operator.upload(upload, PACKAGE).await.expect(201);
    operator.put(&format!("{path}/packages"), json!({"packages": {"a": "1"}})).await.expect(200);
    let offer = agent.until(|message| message.packages_available.is_some()).await.unwrap();
    let file = offer.packages_available.unwrap().packages["a"].file.clone().unwrap();
    let (_, place) = file.download_url.split_once("/v1/").unwrap();
    let authorization = file.headers.unwrap().headers[0].value.clone();
    let endpoint = endpoint.with_path(&format!("/v1/{place}"));
    for (authorization, status) in [(authorization.as_str(), 200), ("Bearer guessed-agent-token", 404)] {
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        let request = HttpRequest::new("GET", &endpoint).with("Authorization", authorization);
        assert_eq!(http.exchange(&request).await.unwrap().status, status);
    }

    let talk = json!({"capability": CUSTOM_CAPABILITY, "type": "t", "data": CUSTOM_SENT});
    operator.post(&format!("{path}/custom-messages"), talk).await.expect(202);
    agent.until(|message| message.custom_message.is_some()).await.unwrap();
    let answer = pb::CustomMessage {
        capability: CUSTOM_CAPABILITY.into(),
        r#type: "t".into(),
        data: CUSTOM_RECEIVED.into(),
    };
    agent.report(|report| report.custom_message = Some(answer)).await.unwrap();
    let key_line = identity.key_pem.lines().nth(1).unwrap().to_owned();
    vec![authorization.strip_prefix("Bearer ").unwrap().to_owned(), key_line]
}

/// Whether a text has a secret, as it is or as the hexadecimal digits of its bytes.
fn shows(text: &str, secret: &str) -> bool {
    let hex = [HEXLOWER.encode(secret.as_bytes()), HEXUPPER.encode(secret.as_bytes())];
    text.contains(secret) || hex.iter().any(|hex| text.contains(hex))
}

#[test]
fn a_secret_is_found_in_every_form() {
    for text in ["say cafe!", "say 63616665!", "say 6B6F!"] {
        assert!(shows(text, "cafe") || shows(text, "ko"), "{text}");
    }
    assert!(!shows("say tea!", "cafe"));
}
