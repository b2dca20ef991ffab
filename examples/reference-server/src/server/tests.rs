//! A server in parts, and as a whole where its insides matter.

use futures::FutureExt as _;
use opamp_fleet::manager::Actor;
use opamp_store::AuditQuery;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower_service::Service as _;

use super::*;
use crate::{admin::listener::Peer, config::AgentAuth};

fn config() -> Config {
    let mut config = Config::default();
    config.server.store = StoreKind::Memory;
    config.opamp.listen = ([127, 0, 0, 1], 0).into();
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    config.self_agent.enabled = false;
    config
}

async fn get(server: &RunningServer, path: &str) -> String {
    let mut stream = TcpStream::connect(server.admin_addr()).await.unwrap();
    let token = server.first_admin_token().unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn without_its_store_a_server_is_alive_but_not_ready_and_says_why() {
    let server = Server::start(config()).await.unwrap();
    assert!(get(&server, "/health/ready").await.starts_with("HTTP/1.1 200"));
    server.app.store.close().await;
    let answer = get(&server, "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the store is closed"), "{answer}");
    assert!(get(&server, "/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(&server, "/metrics").await.starts_with("HTTP/1.1 200"));
    let answer = get(&server, "/api/v1/agents").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("tokens cannot be checked"), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn throttling_that_is_in_the_audit_log_takes_effect_even_if_its_request_was_given_up() {
    let server = Server::start(config()).await.unwrap();
    let actor = Actor { name: "olivia".into(), role: "admin".into(), source: None, trace_id: None };
    for (seconds, action) in [(Some(60), "server.throttle"), (None, "server.unthrottle")] {
        // Begun, and dropped at its first stop.
        let change = api::throttle::change(Arc::clone(&server.app), actor.clone(), seconds);
        assert!(change.now_or_never().is_none(), "it is not answered at once");
        let query = AuditQuery { action: Some(action.to_owned()), limit: 1, ..AuditQuery::default() };
        let recorded = async || !server.app.fleet.audit(query.clone()).await.unwrap().items.is_empty();
        eventually("it is recorded", recorded).await;
        let in_force = async || server.app.opamp.throttled().is_some() == seconds.is_some();
        eventually("it takes effect", in_force).await;
    }
    server.shutdown().await;
}

/// The configuration with a Self-Agent that is quick to notice.
fn watched() -> Config {
    let mut config = config();
    config.self_agent.enabled = true;
    config.self_agent.interval = Duration::from_millis(500);
    config.self_agent.timeout = Duration::from_millis(500);
    config
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

#[tokio::test]
async fn without_its_store_the_server_is_at_fault_and_the_way_to_it_is_not() {
    let server = Server::start(watched()).await.unwrap();
    let own = &server.app.self_agent;
    let states = || own.report().probes.map(|probe| probe.state.as_str());
    eventually("all is well", async || states() == ["ok", "ok", "not_configured"]).await;
    assert_eq!(own.report().verdict.as_str(), "ok");
    server.app.store.close().await;
    eventually("the store is missed", async || own.report().verdict.as_str() == "server").await;
    let report = own.report();
    assert_eq!((states()[0], report.probes[1].state.as_str()), ("failed", "ok"));
    let fault = report.probes[0].fault().unwrap();
    assert!(fault.kind == "store" && fault.detail.contains("closed"), "{fault}");
    server.shutdown().await;
}

/// Whatever keeps its messages from this server, here that they go to another one.
#[tokio::test]
async fn a_self_agent_that_is_not_heard_here_finds_the_server_at_fault() {
    let there = Server::start(config()).await.unwrap();
    let mut config = watched();
    config.self_agent.enabled = false;
    let here = Server::start(config).await.unwrap();
    let credentials = self_agent::access::Credentials::generate(AgentAuth::Insecure).unwrap();
    let person = Person::new(Arc::new(credentials), None, here.app.now()).unwrap();
    let app = Arc::clone(&here.app);
    let running = self_agent::Running::start(app, person, there.opamp_addr(), None).unwrap();
    let faults = || here.app.self_agent.report().probes.map(|probe| probe.fault().map(|fault| fault.kind));
    eventually("it is unheard", async || faults() == [Some("unheard"), Some("elsewhere"), None]).await;
    assert!(here.app.self_agent.stats().is_connected, "to whomever");
    running.stop(Duration::from_secs(5)).await;
    here.shutdown().await;
    there.shutdown().await;
}

#[tokio::test]
async fn the_self_agent_does_not_outlive_a_server_that_is_dropped() {
    let server = Server::start(watched()).await.unwrap();
    eventually("it is connected", async || server.app.self_agent.stats().is_connected).await;
    let app = Arc::downgrade(&server.app);
    drop(server);
    eventually("nothing is left", async || app.upgrade().is_none()).await;
}

/// Whatever machine runs the test: its own addresses may all be loopback, so the peer is put in by hand.
#[tokio::test]
async fn plain_peers_beyond_loopback_get_no_further_than_the_door() {
    let mut config = config();
    config.admin.listen = ([0, 0, 0, 0], 0).into();
    config.admin.trusted_proxies = vec!["192.0.2.7".parse().unwrap()];
    let server = Server::start(config).await.unwrap();
    let mut router = api::router(&server.app);
    for (path, peer, expected) in [
        ("/api/v1/agents", "192.0.2.8:1", 403),
        ("/api/v1/openapi.json", "192.0.2.8:1", 403),
        ("/metrics", "192.0.2.8:1", 403),
        ("/health/live", "192.0.2.8:1", 200),
        ("/api/v1/agents", "192.0.2.7:1", 401),
        ("/api/v1/openapi.json", "192.0.2.7:1", 200),
        ("/metrics", "192.0.2.7:1", 401),
        ("/api/v1/agents", "127.0.0.1:1", 401),
    ] {
        let peer = Peer { addr: peer.parse().unwrap(), tls: false };
        let request = http::Request::get(path).extension(peer).body(axum::body::Body::empty()).unwrap();
        assert_eq!(router.call(request).await.unwrap().status(), expected, "{path} from {}", peer.addr);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn the_audit_log_is_verified_once_at_a_time() {
    let server = Server::start(config()).await.unwrap();
    let turn = server.app.verifying.lock().await;
    let answer = get(&server, "/api/v1/audit/verify").await;
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("being verified"), "{answer}");
    drop(turn);
    assert!(get(&server, "/api/v1/audit/verify").await.starts_with("HTTP/1.1 200"));
    server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_has_one_limit_for_all_of_its_parts() {
    const LIMIT: Duration = Duration::from_secs(8);
    let since = Instant::now();
    assert!(!within(LIMIT, std::future::pending(), std::future::pending()).await);
    assert_eq!(since.elapsed(), LIMIT);
    let since = Instant::now();
    let closing = async { tokio::time::sleep(LIMIT / 5).await };
    assert!(!within(LIMIT, std::future::pending(), closing).await, "the first part did not end");
    assert!(since.elapsed() < LIMIT, "the store had its turn");
    assert!(within(LIMIT, async { true }, async {}).await);
    assert!(!within(LIMIT, async { false }, async {}).await);
}
