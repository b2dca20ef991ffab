//! The Self-Agent: an agent like any other, which nobody else can be.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use opamp_proto::{InstanceUid, pb};
use opamp_testkit::{
    certs::Authority,
    raw::{Endpoint, HttpRequest, RawHttp},
    transcript::Transcript,
};
use reference_server::{Config, Server};
use serde_json::Value;
use support::{Agent, Client, PLACES, Process, TempDir, TestServer, Wedge, config};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    time::timeout,
};

const SELF: &str = "/api/v1/self";
const NAME: &str = "opamp-reference-server";

/// Switched on, in quick succession. A probe has all the time until the next one.
const ON: [(&str, &str); 3] =
    [("self_agent.enabled", "true"), ("self_agent.interval", "1s"), ("self_agent.timeout", "1s")];

fn with(more: &[(&'static str, &str)]) -> Config {
    config(&[&ON, more].concat())
}

/// The one record of the Self-Agent, once it is connected and well.
async fn healthy(server: &TestServer) -> Value {
    let path = format!("/api/v1/agents?selector=service.name={NAME}");
    let page = server
        .eventually(&path, |page| {
            let agent = &page["agents"][0];
            agent["liveness"] == "connected" && agent["health"] == "healthy" && page["agents"][1].is_null()
        })
        .await;
    server
        .admin
        .get(&format!("/api/v1/agents/{}", page["agents"][0]["id"].as_str().unwrap()))
        .await
        .expect(200)
}

async fn verdict_is(server: &TestServer, verdict: &str) -> Value {
    server.eventually(SELF, |own| own["verdict"] == verdict).await
}

fn uid_of(own: &Value) -> InstanceUid {
    own["agent"]["uid"].as_str().unwrap().parse().unwrap()
}

async fn metric(server: &TestServer, sample: &str) -> f64 {
    let text = server.admin.get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{sample} is not in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn it_is_in_the_inventory_like_any_other_agent_unless_switched_off() {
    let server = TestServer::start_with(with(&[])).await;
    let record = healthy(&server).await;
    let own = verdict_is(&server, "ok").await;
    assert_eq!(own["agent"]["id"], record["id"]);
    assert_eq!(own["agent"]["uid"], record["uid"]);
    assert_eq!(own["agent"]["connected"], true);
    assert_eq!(own["probes"]["external"]["state"], "not_configured");
    for probe in ["in_process", "loopback"] {
        let found = &own["probes"][probe];
        assert_eq!((&found["state"], &found["consecutive_failures"]), (&"ok".into(), &0.into()), "{found}");
        assert!(found["since"].is_string() && found["duration_ms"].is_u64(), "{found}");
        assert_eq!(record["health_report"]["components"][probe]["healthy"], true, "{record:#}");
    }
    let description = record["description"].to_string();
    assert!(description.contains(NAME) && description.contains(env!("CARGO_PKG_VERSION")), "{description}");
    assert_eq!(record["identity"], "custom:self-agent");
    assert_eq!(metric(&server, "opamp_self_verdict{verdict=\"ok\"}").await, 1.0);
    assert_eq!(metric(&server, "opamp_self_probe{probe=\"loopback\",state=\"ok\"}").await, 1.0);
    assert_eq!(metric(&server, "opamp_frames_rejected_total{reason=\"timeout\"}").await, 0.0);
    assert!(server.running.shutdown().await);

    let server = TestServer::start_with(with(&[("self_agent.enabled", "false")])).await;
    let own = server.admin.get(SELF).await.expect(200);
    assert_eq!((&own["verdict"], &own["agent"]), (&"unknown".into(), &Value::Null));
    assert_eq!(own["probes"]["loopback"]["state"], "not_configured");
    let page = server.admin.get("/api/v1/agents").await.expect(200);
    assert_eq!(page["agents"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn rounds_follow_each_other_at_the_configured_distance() {
    let quick = [("self_agent.interval", "500ms"), ("self_agent.timeout", "500ms")];
    let begun = Instant::now();
    let server = TestServer::start_with(with(&quick)).await;
    let since = Instant::now();
    let mut last = Value::Null;
    for _ in 0..5 {
        let own =
            server.eventually(SELF, |own| !own["checked_at"].is_null() && own["checked_at"] != last).await;
        assert_eq!(own["interval_ms"], 500);
        last = own["checked_at"].clone();
    }
    // What is first seen may be the end of a round that began long before.
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[tokio::test]
async fn rounds_that_find_nothing_new_write_nothing_and_offend_nobody() {
    const FAILURES: &str = "opamp_self_probe_failures_total{probe=\"loopback\"}";
    let server = TestServer::start_with(with(&[])).await;
    healthy(&server).await;
    // A busy machine may let a probe fail, and then there is news.
    for _ in 0..10 {
        server.eventually("/api/v1/stats", |stats| stats["records_waiting"] == 0).await;
        let rows = metric(&server, "opamp_store_rows_written_total").await;
        let (failures, opened) =
            (metric(&server, FAILURES).await, metric(&server, "opamp_websocket_connections_total").await);
        let mut last = server.admin.get(SELF).await.expect(200);
        for _ in 0..3 {
            last = server.eventually(SELF, |own| own["checked_at"] != last["checked_at"]).await;
        }
        if failures == metric(&server, FAILURES).await && last["verdict"] == "ok" {
            assert_eq!(metric(&server, "opamp_store_rows_written_total").await, rows);
            assert!(
                metric(&server, "opamp_websocket_connections_total").await >= opened + 3.0,
                "it did look"
            );
            // Opening a connection and closing it again in good order is no fault of anybody's.
            let metrics = server.admin.get("/metrics").await.text();
            let rejected = metrics.lines().filter(|line| line.starts_with("opamp_frames_rejected_total{"));
            assert!(
                rejected.clone().count() > 5 && rejected.clone().all(|line| line.ends_with(" 0")),
                "{metrics}"
            );
            return;
        }
    }
    panic!("never three quiet rounds in a row");
}

/// By that it is seen that messages are taken in, also while there is nothing to say.
#[tokio::test]
async fn it_says_something_in_each_round() {
    let server = TestServer::start_with(with(&[])).await;
    let record = healthy(&server).await;
    let path = format!("/api/v1/agents/{}", record["id"].as_str().unwrap());
    let heard = record["sequence_num"].as_u64().unwrap();
    server.eventually(&path, |agent| agent["sequence_num"].as_u64().unwrap() >= heard + 4).await;
    verdict_is(&server, "ok").await;
}

#[tokio::test]
async fn a_probe_is_given_up_after_the_configured_time() {
    let settings = [("self_agent.timeout", "300ms"), ("opamp.http_connections_max", PLACES)];
    let server = TestServer::start_with(with(&settings)).await;
    let _wedge = Wedge::of(server.running.opamp_addr()).await;
    let own = server.eventually(SELF, |own| own["probes"]["loopback"]["state"] == "failed").await;
    let found = &own["probes"]["loopback"];
    assert_eq!(found["last_failure"]["kind"], "timeout", "{found}");
    let took = found["duration_ms"].as_u64().unwrap();
    assert!((300..1_000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_it_on_a_port_that_answers_nobody() {
    let settings = [("server.shutdown_timeout", "4s"), ("opamp.http_connections_max", PLACES)];
    let server = TestServer::start_with(with(&settings)).await;
    let _wedge = Wedge::of(server.running.opamp_addr()).await;
    verdict_is(&server, "server").await;
    let since = Instant::now();
    server.running.shutdown().await;
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
}

/// Somebody else says something under the Self-Agent's identity and is refused, while it is there and while it is away; it
/// stays what it was.
async fn assert_not_taken_by(server: &TestServer, mut thief: Agent, own: &Value) {
    const CONFLICTS: &str = "opamp_frames_rejected_total{reason=\"uid_conflict\"}";
    thief.uid = uid_of(own);
    let is_refused = async |thief: &mut Agent| {
        let answer = thief.report(pb::AgentToServer::default()).await;
        let error = answer.error_response.expect("a refusal");
        error.r#type == pb::ServerErrorResponseType::BadRequest as i32
    };
    assert!(is_refused(&mut thief).await);
    assert_eq!(metric(server, CONFLICTS).await, 1.0);
    let now = server.admin.get(SELF).await.expect(200);
    assert_eq!((&now["verdict"], &now["agent"]["reconnects"]), (&"ok".into(), &0.into()), "{now:#}");

    let wedge = Wedge::of(server.running.opamp_addr()).await;
    assert!(server.running.opamp().disconnect(&uid_of(own)));
    let path = format!("/api/v1/agents/{}", own["agent"]["id"].as_str().unwrap());
    server.eventually(&path, |agent| agent["liveness"] == "disconnected").await;
    assert!(is_refused(&mut thief).await);
    assert_eq!(metric(server, CONFLICTS).await, 2.0);
    drop(wedge);
    let record = healthy(server).await;
    assert_eq!((&record["identity"], &record["uid"]), (&"custom:self-agent".into(), &own["agent"]["uid"]));
}

#[tokio::test]
async fn where_agents_show_tokens_it_has_one_and_its_identity_is_no_other_tokens() {
    let settings = [
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=edge-token"),
        ("opamp.http_connections_max", PLACES),
    ];
    let server = TestServer::start_with(with(&settings)).await;
    healthy(&server).await;
    let own = verdict_is(&server, "ok").await;
    let thief = Agent::connect_as(&server.endpoint("ws"), 1, Some("edge-token")).await.unwrap();
    assert_not_taken_by(&server, thief, &own).await;
}

#[tokio::test]
async fn where_everybody_is_let_in_nobody_else_is_the_self_agent_either() {
    let server = TestServer::start_with(with(&[("opamp.http_connections_max", PLACES)])).await;
    healthy(&server).await;
    let own = verdict_is(&server, "ok").await;
    let thief = Agent::connect(&server.endpoint("ws"), 1).await;
    assert_not_taken_by(&server, thief, &own).await;
}

#[tokio::test]
async fn beyond_loopback_it_comes_over_loopback_and_is_let_in() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        if TcpListener::bind(listen).await.is_err() {
            continue; // a machine without IPv6
        }
        let settings = [
            ("opamp.listen", listen),
            ("opamp.auth", "token"),
            ("opamp.tokens", "edge=edge-token"),
            ("opamp.trusted_proxies", "192.0.2.1"),
        ];
        let server = TestServer::start_with(with(&settings)).await;
        healthy(&server).await;
        verdict_is(&server, "ok").await;
    }
}

/// The token that is shown to whoever answers at the address from outside.
async fn token_seen_outside(outside: &TcpListener) -> String {
    let (stream, _) = timeout(Duration::from_secs(20), outside.accept()).await.unwrap().unwrap();
    let mut lines = BufReader::new(stream).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("a header with a token");
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            return value.strip_prefix("Bearer ").unwrap().to_owned();
        }
    }
}

#[tokio::test]
async fn what_is_shown_outside_opens_a_connection_and_speaks_for_nobody() {
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/opamp", outside.local_addr().unwrap());
    let settings = [
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=edge-token"),
        ("self_agent.external_url", &url),
        ("self_agent.proxy", "none"),
    ];
    let server = TestServer::start_with(with(&settings)).await;
    healthy_apart_from_outside(&server).await;
    let stolen = token_seen_outside(&outside).await;

    let endpoint = Endpoint::plain(server.running.opamp_addr());
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let own = uid_of(&server.admin.get(SELF).await.expect(200));
    for (count, uid) in [own, InstanceUid::v7(1, [1; 10])].into_iter().enumerate() {
        let message = pb::AgentToServer {
            instance_uid: uid.as_bytes().to_vec().into(),
            sequence_num: 1,
            capabilities: 1,
            ..Default::default()
        };
        let request = HttpRequest::opamp(&endpoint, &message).bearer(&stolen);
        let answer = http.exchange(&request).await.unwrap();
        assert!(answer.message().unwrap().error_response.is_some(), "{uid}");
        let conflicts = metric(&server, "opamp_frames_rejected_total{reason=\"uid_conflict\"}").await;
        assert_eq!(conflicts, count as f64 + 1.0);
    }
    let page = server.admin.get("/api/v1/agents").await.expect(200);
    assert_eq!(page["agents"].as_array().unwrap().len(), 1, "{page:#}");
}

async fn healthy_apart_from_outside(server: &TestServer) {
    let well = |own: &Value| {
        own["agent"]["connected"] == true
            && own["agent"]["id"].is_string()
            && own["probes"]["loopback"]["state"] == "ok"
    };
    server.eventually(SELF, well).await;
}

/// TLS files of a server whose agents show certificates.
fn with_mtls(dir: &TempDir, authority: &Authority) -> Config {
    write_certificate(dir, authority);
    fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let file = |name: &str| Some(dir.path().join(name));
    let mut config = with(&[("server.reload_interval", "0s")]);
    (config.opamp.tls_cert, config.opamp.tls_key) = (file("cert.pem"), file("key.pem"));
    config.opamp.client_ca = file("ca.pem");
    config.opamp.auth = reference_server::config::AgentAuth::Mtls;
    config
}

fn write_certificate(dir: &TempDir, authority: &Authority) {
    let identity = authority.server(&["opamp.example.com"]);
    fs::write(dir.path().join("cert.pem"), identity.cert_pem).unwrap();
    fs::write(dir.path().join("key.pem"), identity.key_pem).unwrap();
}

#[tokio::test]
async fn where_agents_show_certificates_it_has_one_that_no_authority_can_issue() {
    let (dir, authority) = (TempDir::new(), Authority::new("operator"));
    let server = TestServer::start_with(with_mtls(&dir, &authority)).await;
    let record = healthy(&server).await;
    let own = verdict_is(&server, "ok").await;
    assert_eq!(record["identity"], "custom:self-agent");

    // The operator's authority may call somebody the same; it is somebody else.
    let namesake = authority.client_config_with(&authority.client("self-agent", &[]));
    let endpoint = Endpoint::tls(server.running.opamp_addr(), namesake, "opamp.example.com");
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    for (uid, refused) in [(InstanceUid::v7(1, [1; 10]), false), (uid_of(&own), true)] {
        let message = pb::AgentToServer {
            instance_uid: uid.as_bytes().to_vec().into(),
            sequence_num: 1,
            capabilities: 1,
            ..Default::default()
        };
        let answer = http.exchange(&HttpRequest::opamp(&endpoint, &message)).await.unwrap();
        assert_eq!(answer.message().unwrap().error_response.is_some(), refused);
    }
    assert_eq!(metric(&server, "opamp_frames_rejected_total{reason=\"uid_conflict\"}").await, 1.0);

    // One of another authority gets no further than the handshake.
    let stranger = Authority::new("operator");
    let stranger = authority.client_config_with(&stranger.client("self-agent", &[]));
    let endpoint = Endpoint::tls(server.running.opamp_addr(), stranger, "opamp.example.com");
    let outcome = async {
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await?;
        http.exchange(&HttpRequest::new("GET", &endpoint)).await
    };
    outcome.await.expect_err("an unknown authority");
    assert_eq!(healthy(&server).await["identity"], "custom:self-agent");
}

#[tokio::test]
async fn where_agents_show_either_it_has_a_token() {
    let (dir, authority) = (TempDir::new(), Authority::new("operator"));
    let mut config = with_mtls(&dir, &authority);
    config.opamp.auth = reference_server::config::AgentAuth::TokenOrMtls;
    config.opamp.tokens = vec!["edge=edge-token".parse().unwrap()];
    let server = TestServer::start_with(config).await;
    assert_eq!(healthy(&server).await["identity"], "custom:self-agent");
    verdict_is(&server, "ok").await;
}

#[tokio::test]
async fn it_follows_a_certificate_that_is_replaced_and_keeps_its_connection_meanwhile() {
    let (dir, authority) = (TempDir::new(), Authority::new("operator"));
    let server = TestServer::start_with(with_mtls(&dir, &authority)).await;
    healthy(&server).await;
    let own = verdict_is(&server, "ok").await;
    write_certificate(&dir, &Authority::new("another"));
    assert_eq!(server.running.reload().await, Vec::<String>::new());

    // Two more rounds, all of them with the new certificate.
    let mut checked = server.admin.get(SELF).await.expect(200)["checked_at"].clone();
    for _ in 0..2 {
        let own = server.eventually(SELF, |own| own["checked_at"] != checked).await;
        assert_eq!((&own["verdict"], &own["agent"]["reconnects"]), (&"ok".into(), &0.into()), "{own:#}");
        checked = own["checked_at"].clone();
    }
    // A connection made anew meets it too.
    assert!(server.running.opamp().disconnect(&uid_of(&own)));
    let own = server.eventually(SELF, |own| own["agent"]["reconnects"] == 1).await;
    assert_eq!((&own["verdict"], &own["probes"]["loopback"]["last_failure"]), (&"ok".into(), &Value::Null));
}

/// The admin client of a started process that has the Self-Agent on, and that agent's record once it is connected and
/// the store has all of it.
async fn started(process: &mut Process, token: &mut Option<String>) -> (Client, Value) {
    let (admin, printed) = process.started();
    *token = printed.or(token.take());
    let admin = Client::new(admin, token.as_deref());
    let since = Instant::now();
    loop {
        let page = admin.get("/api/v1/agents").await.expect(200);
        let own = admin.get(SELF).await.expect(200);
        let written = admin.get("/api/v1/stats").await.expect(200)["records_waiting"] == 0;
        if page["agents"][0]["liveness"] == "connected" && own["verdict"] == "ok" && written {
            assert!(page["agents"][1].is_null(), "one record: {page:#}");
            return (admin, page["agents"][0].clone());
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{page:#}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_is_the_same_agent_after_a_crash_and_after_a_restart_that_asks_nobody() {
    const FLAGS: [&str; 3] =
        ["--self-agent-enabled=true", "--self-agent-interval=1s", "--self-agent-timeout=1s"];
    let (dir, mut token) = (TempDir::new(), None);
    let mut process = Process::serve(dir.path(), &FLAGS);
    let (_, first) = started(&mut process, &mut token).await;
    process.signal("KILL");
    process.ended();

    let mut process = Process::serve(dir.path(), &FLAGS);
    let (_, again) = started(&mut process, &mut token).await;
    assert_eq!((&again["id"], &again["uid"]), (&first["id"], &first["uid"]));
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{}", process.output());

    let mut process = Process::serve(dir.path(), &FLAGS);
    let (admin, again) = started(&mut process, &mut token).await;
    assert_eq!((&again["id"], &again["uid"]), (&first["id"], &first["uid"]));
    let metrics = admin.get("/metrics").await.text();
    assert!(metrics.contains("\nopamp_full_state_requests_total 0\n"), "{metrics}");
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{}", process.output());

    // Switched off it has left in good order.
    let mut process = Process::serve(dir.path(), &[]);
    let (admin, _) = process.started();
    let path = format!("/api/v1/agents/{}", first["id"].as_str().unwrap());
    let record = Client::new(admin, token.as_deref()).get(&path).await.expect(200);
    assert_eq!(record["liveness"], "disconnected", "{record:#}");
    assert_eq!(record["disconnect"]["reason"], "graceful", "{record:#}");
    // Nobody takes its identity meanwhile: whoever did would own it from then on.
    let mut thief = Agent::connect(&process.endpoint(), 1).await;
    thief.uid = first["uid"].as_str().unwrap().parse().unwrap();
    let answer = thief.report(pb::AgentToServer::default()).await;
    assert_eq!(answer.error_response.unwrap().r#type, pb::ServerErrorResponseType::BadRequest as i32);
}

#[tokio::test]
async fn a_port_that_takes_new_connections_and_no_new_agents_is_not_well() {
    let dir = TempDir::new();
    let kept = |mut config: Config| {
        config.server.store = reference_server::config::StoreKind::Sqlite;
        config.server.data_dir = dir.path().to_owned();
        config
    };
    let server = TestServer::start_with(kept(config(&[]))).await;
    let _known = Agent::connect(&server.endpoint("ws"), 1).await;
    server
        .eventually("/api/v1/stats", |stats| stats["registered"] == 1 && stats["records_waiting"] == 0)
        .await;
    let token = server.token;
    server.running.shutdown().await;

    let running = Server::start(kept(with(&[("opamp.agents_max", "1")]))).await.unwrap();
    let admin = Client::new(running.admin_addr(), Some(&token));
    let server = TestServer { running, admin, token };
    let own = verdict_is(&server, "server").await;
    let failure = &own["probes"]["loopback"]["last_failure"];
    assert_eq!(failure["kind"], "throttled", "{failure}");
    assert!(failure["detail"].as_str().unwrap().contains("own connection is down"), "{failure}");
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn a_damaged_state_file_does_not_keep_the_server_from_starting() {
    let dir = TempDir::new();
    let mut config = with(&[]);
    config.server.store = reference_server::config::StoreKind::Sqlite;
    config.server.data_dir = dir.path().to_owned();
    fs::write(dir.path().join("self-agent.state"), "garbage").unwrap();
    let running = Server::start(config).await.unwrap();
    let token = running.first_admin_token().unwrap().to_owned();
    let admin = Client::new(running.admin_addr(), Some(&token));
    let server = TestServer { running, admin, token };
    healthy(&server).await;
    let state = fs::read_to_string(dir.path().join("self-agent.state")).unwrap();
    assert!(state.contains(&uid_of(&server.admin.get(SELF).await.expect(200)).to_string()), "{state}");
    assert!(server.running.shutdown().await);
}
