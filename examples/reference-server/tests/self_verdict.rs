//! The server or the network? The Self-Agent's verdict while the one or the other really does not work.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use futures::FutureExt as _;
use opamp_proto::{InstanceUid, Wall};
use opamp_testkit::{
    certs::Authority,
    proxy::{Direction, Forwarder, HttpProxy, Mode},
};
use reference_server::{
    Config,
    config::{AgentAuth, ProxyChoice},
};
use serde_json::Value;
use support::{Client, PLACES, Process, TempDir, TestServer, Wedge, config, free_address, wall_clock};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const SELF: &str = "/api/v1/self";
const INTERVAL_MS: u64 = 2_000;
/// By then a fault shows.
const THREE_INTERVALS_MS: u64 = 3 * INTERVAL_MS;

/// The Self-Agent is on, and few connections are enough to take all places of the port.
fn with(more: &[(&'static str, &str)]) -> Config {
    let settings = [
        ("self_agent.enabled", "true"),
        ("self_agent.interval", "2s"),
        ("self_agent.timeout", "500ms"),
        ("opamp.http_connections_max", PLACES),
    ];
    config(&[&settings, more].concat())
}

async fn verdict_is(server: &TestServer, verdict: &str) -> Value {
    let own = server.eventually(SELF, |own| own["verdict"] == verdict).await;
    let sample = format!("\nopamp_self_verdict{{verdict=\"{verdict}\"}} 1.0\n");
    let metrics = server.admin.get("/metrics").await.text();
    assert!(metrics.contains(&sample), "API and metrics say the same\n{metrics}");
    own
}

fn time(value: &Value) -> Wall {
    Wall::from_rfc3339(value.as_str().unwrap_or_else(|| panic!("no time: {value}"))).unwrap()
}

/// Within three intervals from `begun`, by the server's own time.
#[track_caller]
fn assert_in_time(at: &Value, begun: Wall) {
    let took = time(at).0.saturating_sub(begun.0);
    assert!(took <= THREE_INTERVALS_MS, "{took} ms");
}

/// The states of the probes, nearest first.
fn states(own: &Value) -> [&str; 3] {
    ["in_process", "loopback", "external"].map(|probe| own["probes"][probe]["state"].as_str().unwrap())
}

/// The Self-Agent's record, when it is as wanted.
async fn record(server: &TestServer, own: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
    let id = own["agent"]["id"].as_str().unwrap_or_else(|| panic!("no record: {own:#}"));
    server.eventually(&format!("/api/v1/agents/{id}"), wanted).await
}

/// Waits until the Self-Agent is in the inventory, connected and well.
async fn well(server: &TestServer) -> Value {
    verdict_is(server, "ok").await;
    let own =
        server.eventually(SELF, |own| own["agent"]["connected"] == true && own["agent"]["id"].is_string());
    let own = own.await;
    record(server, &own, |agent| agent["liveness"] == "connected" && agent["health"] == "healthy").await;
    own
}

async fn assert_admin_answers(server: &TestServer) {
    assert_eq!(server.admin.get("/health/ready").await.status, 200);
    server.admin.get("/api/v1/agents").await.expect(200);
}

#[tokio::test]
async fn a_wedged_port_turns_the_self_agent_unhealthy_within_three_intervals_while_the_admin_port_answers() {
    let server = TestServer::start_with(with(&[])).await;
    well(&server).await;

    let wedge = Wedge::of(server.running.opamp_addr()).await;
    let own = verdict_is(&server, "server").await;
    assert_in_time(&own["since"], wedge.since);
    assert_eq!(states(&own), ["ok", "failed", "not_configured"]);
    let failure = &own["probes"]["loopback"]["last_failure"];
    assert_eq!(failure["kind"], "timeout", "{failure}");
    assert!(!failure["hint"].as_str().unwrap().is_empty(), "{failure}");
    assert_admin_answers(&server).await;
    // Its own connection was there before and carries the news into the inventory.
    let agent = record(&server, &own, |agent| agent["health"] == "unhealthy").await;
    let health = &agent["health_report"];
    assert_in_time(&health["status_time"], wedge.since);
    assert_eq!((&agent["liveness"], &health["status"]), (&"connected".into(), &"server".into()));
    let loopback = &health["components"]["loopback"];
    assert!(loopback["last_error"].as_str().unwrap().starts_with("timeout: "), "{loopback}");
    assert_eq!(health["components"]["in_process"]["healthy"], true, "{health}");

    let begun = wall_clock();
    drop(wedge);
    let own = verdict_is(&server, "ok").await;
    assert_in_time(&own["since"], begun);
    assert_eq!(own["probes"]["loopback"]["consecutive_failures"], 0);
    assert_eq!(own["probes"]["loopback"]["last_failure"]["kind"], "timeout", "it is still told");
    assert_eq!(own["agent"]["reconnects"], 0, "its own connection was never touched");
    record(&server, &own, |agent| agent["health"] == "healthy").await;
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn a_wedged_port_whose_connections_are_gone_too_is_noticed_and_left_behind() {
    let server = TestServer::start_with(with(&[])).await;
    let own = well(&server).await;
    let uid: InstanceUid = own["agent"]["uid"].as_str().unwrap().parse().unwrap();

    let wedge = Wedge::of(server.running.opamp_addr()).await;
    assert!(server.running.opamp().disconnect(&uid));
    let own = verdict_is(&server, "server").await;
    assert_in_time(&own["since"], wedge.since);
    assert_admin_answers(&server).await;
    let agent = record(&server, &own, |agent| agent["liveness"] == "disconnected").await;
    assert_eq!(agent["disconnect"]["reason"], "requested", "{agent:#}");

    drop(wedge);
    let own = well(&server).await;
    assert_eq!(own["agent"]["reconnects"], 1);
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn a_connection_that_an_operator_closes_is_made_anew_without_any_alarm() {
    let server = TestServer::start_with(with(&[])).await;
    let own = well(&server).await;
    let uid: InstanceUid = own["agent"]["uid"].as_str().unwrap().parse().unwrap();
    assert!(server.running.opamp().disconnect(&uid));
    let own = server.eventually(SELF, |own| own["agent"]["reconnects"] == 1).await;
    assert_eq!((&own["verdict"], &own["probes"]["loopback"]["last_failure"]), (&"ok".into(), &Value::Null));
}

/// A server whose agents show tokens over TLS, and whose name only the proxy can resolve.
async fn behind_a_proxy(dir: &TempDir, authority: &Authority) -> (Config, HttpProxy) {
    let identity = authority.server(&["opamp.test"]);
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let address = free_address();
    let proxy = HttpProxy::builder().route("opamp.test:4320", address).start().await.unwrap();
    let mut config = with(&[
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=edge-token"),
        ("self_agent.external_url", "wss://opamp.test:4320/v1/opamp"),
    ]);
    config.opamp.listen = address;
    config.opamp.tls_cert = write("cert.pem", &identity.cert_pem);
    config.opamp.tls_key = write("key.pem", &identity.key_pem);
    config.self_agent.ca_file = write("ca.pem", &authority.pem());
    config.self_agent.proxy = ProxyChoice::Url(proxy.url());
    (config, proxy)
}

#[tokio::test]
async fn a_broken_proxy_on_the_way_from_outside_is_the_network_path() {
    let (dir, authority) = (TempDir::new(), Authority::new("a"));
    let (config, proxy) = behind_a_proxy(&dir, &authority).await;
    let server = TestServer::start_with(config).await;
    let own = well(&server).await;
    assert_eq!(states(&own), ["ok", "ok", "ok"]);
    assert!(proxy.tunnels() > 0, "it went through the proxy");
    assert_eq!(proxy.asked()[0].target, "opamp.test:4320");

    // Whether the end of a connection or its reset is seen first is a matter of luck.
    for (mode, kinds) in
        [(Mode::Refuse, &["proxy", "closed"][..]), (Mode::Stall(Direction::ToAgent), &["timeout"])]
    {
        let begun = wall_clock();
        proxy.set(mode);
        let own = verdict_is(&server, "network path").await;
        assert_in_time(&own["since"], begun);
        assert_eq!(states(&own), ["ok", "ok", "failed"], "{own:#}");
        let failure = &own["probes"]["external"]["last_failure"];
        assert!(kinds.contains(&failure["kind"].as_str().unwrap()), "{failure}");
        let agent = record(&server, &own, |agent| agent["health"] == "unhealthy").await;
        let health = &agent["health_report"];
        assert_eq!((&agent["liveness"], &health["status"]), (&"connected".into(), &"network path".into()));
        assert_eq!(health["components"]["loopback"]["healthy"], true, "{health}");
        assert_eq!(health["components"]["external"]["healthy"], false, "{health}");
        assert_admin_answers(&server).await;

        proxy.set(Mode::Pass);
        verdict_is(&server, "ok").await;
    }

    // What cannot be reached on this machine cannot be reached from outside either, and that is not the network.
    let wedge = Wedge::of(server.running.opamp_addr()).await;
    let own = verdict_is(&server, "server").await;
    assert_in_time(&own["since"], wedge.since);
    drop(wedge);
    verdict_is(&server, "ok").await;

    // What went through the proxy is good for nothing but opening a connection, and shows nowhere.
    let shown = proxy.asked().iter().any(|asked| asked.header("authorization").is_some());
    assert!(!shown, "the credential is for the server alone");
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn where_agents_show_certificates_the_way_from_outside_is_proven_with_one() {
    let (dir, authority) = (TempDir::new(), Authority::new("a"));
    let (mut config, proxy) = behind_a_proxy(&dir, &authority).await;
    config.opamp.auth = AgentAuth::Mtls;
    config.opamp.tokens.clear();
    config.opamp.client_ca = config.self_agent.ca_file.clone();
    let server = TestServer::start_with(config).await;
    assert_eq!(states(&well(&server).await), ["ok", "ok", "ok"]);
    assert!(proxy.tunnels() > 0, "it went through the proxy");
}

/// Which proxy it is stands in the environment if nowhere else.
#[tokio::test]
async fn the_proxy_of_the_environment_is_used_unless_it_says_not_to() {
    let flags = ["enabled=true", "interval=1s", "timeout=1s", "external-url=ws://opamp.test/v1/opamp"];
    let flags = flags.map(|flag| format!("--self-agent-{flag}"));
    let flags = flags.each_ref().map(String::as_str);
    for (no_proxy, asked, kind) in [("", true, "proxy"), ("opamp.test", false, "dns")] {
        let proxy = HttpProxy::builder().require("x-nobody-has", "this", 403).start().await.unwrap();
        let (url, dir) = (proxy.url(), TempDir::new());
        let variables = [
            ("HTTP_PROXY", url.as_str()),
            ("NO_PROXY", no_proxy),
            ("http_proxy", &url),
            ("no_proxy", no_proxy),
        ];
        let mut process = Process::serve_with(dir.path(), &flags, &variables);
        let (address, token) = process.started();
        let admin = Client::new(address, token.as_deref());
        let settled = |own: &Value| {
            assert_ne!(own["verdict"], "ok");
            own["verdict"] == "network path"
        };
        let own = admin.eventually(SELF, settled).await;
        assert_eq!(proxy.refused() > 0, asked, "NO_PROXY={no_proxy:?}: {own:#}");
        assert_eq!(own["probes"]["external"]["last_failure"]["kind"], kind, "{own:#}");
    }
}

#[tokio::test]
async fn the_way_from_outside_is_verified_against_the_ca_file_as_it_is_now() {
    let (dir, authority) = (TempDir::new(), Authority::new("a"));
    let (config, _proxy) = behind_a_proxy(&dir, &authority).await;
    let server = TestServer::start_with(config).await;
    well(&server).await;
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, Authority::new("somebody else").pem()).unwrap();
    // It is this very server that answers there: the network has done its part.
    let own = verdict_is(&server, "server").await;
    assert_eq!(states(&own), ["ok", "ok", "failed"], "{own:#}");
    let failure = &own["probes"]["external"]["last_failure"];
    assert_eq!(failure["kind"], "tls", "{failure}");
    for part in ["not trusted", "that this server is configured with"] {
        assert!(failure["detail"].as_str().unwrap().contains(part), "{failure}");
    }
    fs::write(&ca, authority.pem()).unwrap();
    verdict_is(&server, "ok").await;
}

#[tokio::test]
async fn another_certificate_at_the_address_from_outside_is_the_network_path() {
    let (dir, authority) = (TempDir::new(), Authority::new("a"));
    let (config, proxy) = behind_a_proxy(&dir, &authority).await;
    let (elsewhere, stranger) = (TempDir::new(), Authority::new("b"));
    let (other, _) = behind_a_proxy(&elsewhere, &stranger).await;
    let _listens_there =
        TestServer::start_with(Config { opamp: other.opamp.clone(), ..self::config(&[]) }).await;
    let way = HttpProxy::builder().route("opamp.test:4320", other.opamp.listen).start().await.unwrap();
    drop(proxy);
    let mut config = config;
    config.self_agent.proxy = ProxyChoice::Url(way.url());
    let server = TestServer::start_with(config).await;
    let own = verdict_is(&server, "network path").await;
    assert_eq!(own["probes"]["external"]["last_failure"]["kind"], "tls", "{own:#}");
}

#[tokio::test]
async fn what_keeps_the_probe_from_looking_is_not_the_network() {
    let (dir, authority) = (TempDir::new(), Authority::new("a"));
    let (config, _proxy) = behind_a_proxy(&dir, &authority).await;
    let ca = dir.path().join("ca.pem");
    fs::remove_file(&ca).unwrap();
    let server = TestServer::start_with(config).await;
    let own = server
        .eventually(SELF, |own| own["probes"]["external"]["consecutive_failures"].as_u64() >= Some(2))
        .await;
    assert_eq!((&own["verdict"], states(&own)), (&"unknown".into(), ["ok", "ok", "failed"]), "{own:#}");
    let failure = &own["probes"]["external"]["last_failure"];
    assert_eq!(failure["kind"], "local", "{failure}");
    assert!(failure["detail"].as_str().unwrap().contains("ca.pem"), "{failure}");
    fs::write(&ca, authority.pem()).unwrap();
    verdict_is(&server, "ok").await;
}

/// Whether it asks for credentials or takes whoever comes.
#[tokio::test]
async fn another_server_at_the_address_from_outside_is_told_apart() {
    let with_tokens = [("opamp.auth", "token"), ("opamp.tokens", "edge=edge-token")];
    for (settings, kind) in [(&with_tokens[..], "auth"), (&[], "elsewhere")] {
        let other = TestServer::start_with(config(settings)).await;
        let url = other.endpoint("ws");
        let settings = [settings, &[("self_agent.external_url", &url)]].concat();
        let server = TestServer::start_with(with(&settings)).await;
        let own = verdict_is(&server, "network path").await;
        let failure = &own["probes"]["external"]["last_failure"];
        assert_eq!(failure["kind"], kind, "{failure}");
        assert!(failure["hint"].as_str().unwrap().contains("this very server"), "{failure}");
    }
}

#[tokio::test]
async fn who_answers_from_outside_does_not_send_the_server_elsewhere() {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/opamp", front.local_addr().unwrap());
    let target = format!("http://{}/secret", elsewhere.local_addr().unwrap());
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
    let redirects = tokio::spawn(async move {
        loop {
            let (mut stream, _) = front.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Until the other side has read it and goes.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let server = TestServer::start_with(with(&[("self_agent.external_url", &url)])).await;
    let own = verdict_is(&server, "network path").await;
    let failure = &own["probes"]["external"]["last_failure"];
    assert_eq!(failure["kind"], "redirect", "{failure}");
    let where_to = elsewhere.local_addr().unwrap().to_string();
    assert!(failure["detail"].as_str().unwrap().contains(&where_to), "{failure}");
    assert!(elsewhere.accept().now_or_never().is_none(), "it was never asked");
    redirects.abort();
}

#[tokio::test]
async fn a_load_balancer_that_is_down_is_the_network_path() {
    let address = free_address();
    let balancer = Forwarder::start(address).await.unwrap();
    let url = format!("ws://{}/v1/opamp", balancer.addr());
    let mut config = with(&[("self_agent.external_url", &url), ("self_agent.proxy", "none")]);
    config.opamp.listen = address;
    let server = TestServer::start_with(config).await;
    well(&server).await;
    let begun = wall_clock();
    drop(balancer);
    let own = verdict_is(&server, "network path").await;
    assert_in_time(&own["since"], begun);
    assert_eq!(own["probes"]["external"]["last_failure"]["kind"], "refused", "{own:#}");
}
