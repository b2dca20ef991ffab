//! Every documented key is set to another value than its default, and does something.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod offers;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opamp_client::ClientSettings;
use opamp_proto::InstanceUid;
use opamp_server::AgentSnapshot;
use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::HttpProxy;
use self_agent::Config;
use self_agent::config::keys::KEYS;
use support::{
    Process, Stub, TOKEN_VARIABLE, TempDir, TestServer, attribute, config_status, description, effective,
    health, until,
};

/// Keys that become one setting of the client: another value, and how the setting is read.
type Setting<T> = (&'static str, &'static str, fn(&ClientSettings) -> T, T);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DURATIONS: &[Setting<Duration>] = &[
    ("server.failback_after", "7m", |s| s.session.failback_after, seconds(420)),
    ("server.ping_interval", "31s", |s| s.session.ping_interval, seconds(31)),
    ("server.retry.first_interval", "7s", |s| s.session.retry.first, seconds(7)),
    ("server.retry.initial_interval", "8s", |s| s.session.retry.initial, seconds(8)),
    ("server.retry.max_interval", "9m", |s| s.session.retry.max, seconds(540)),
    ("server.retry.slow_initial_interval", "11s", |s| s.session.retry.slow_initial, seconds(11)),
    ("server.retry.slow_max_interval", "12m", |s| s.session.retry.slow_max, seconds(720)),
    ("server.retry.stable_after", "13s", |s| s.session.retry.stable, seconds(13)),
    ("server.timeouts.connect", "14s", |s| s.session.connect_timeout, seconds(14)),
    ("server.timeouts.response", "15s", |s| s.session.response_timeout, seconds(15)),
    ("server.timeouts.write", "16s", |s| s.session.write_timeout, seconds(16)),
    ("server.timeouts.read", "91s", |s| s.session.read_timeout, seconds(91)),
    ("server.timeouts.stop", "17s", |s| s.session.stop_timeout, seconds(17)),
];

const NUMBERS: &[Setting<f64>] = &[
    ("server.retry.multiplier", "2.5", |s| s.session.retry.multiplier, 2.5),
    ("server.limits.receive_bytes", "1000001", |s| s.receive_bytes_max as f64, 1_000_001.0),
    ("server.limits.send_bytes", "1000002", |s| s.session.send_bytes_max as f64, 1_000_002.0),
    ("server.limits.frame_bytes", "4097", |s| s.frame_bytes as f64, 4_097.0),
    ("server.limits.redirects", "3", |s| f64::from(s.redirects_max), 3.0),
];

#[test]
fn settings_of_the_client_follow_their_keys() {
    let settings =
        |more: &[(&str, &str)]| load(&[&[("server.endpoint", "ws://h")], more].concat()).client_settings();
    let default = settings(&[]);
    assert_eq!(default, ClientSettings::default(), "the defaults of the table are those of the client");
    for (key, value, read, expected) in DURATIONS {
        assert_eq!(read(&settings(&[(key, value)])), *expected, "{key}");
        assert_ne!(read(&default), *expected, "{key}");
    }
    for (key, value, read, expected) in NUMBERS {
        assert_eq!(read(&settings(&[(key, value)])), *expected, "{key}");
        assert_ne!(read(&default), *expected, "{key}");
    }
}

/// The others are seen from outside. A key without an arm here fails the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_key_has_an_effect_that_shows() {
    let settings: Vec<_> =
        DURATIONS.iter().map(|(key, ..)| *key).chain(NUMBERS.iter().map(|(key, ..)| *key)).collect();
    for key in KEYS.iter().map(|key| key.name).filter(|key| !settings.contains(key)) {
        println!("{key}");
        match key {
            "server.endpoint" | "server.fallback_endpoints" => endpoints().await,
            "server.headers" => headers().await,
            "server.bearer_token_file" => token_file().await,
            "server.tls.ca_file" | "server.tls.include_system_ca_certs_pool" => authorities().await,
            "server.tls.cert_file" | "server.tls.key_file" => client_certificate().await,
            "server.tls.min_version" => lowest_version().await,
            "server.proxy.url" | "server.proxy.no_proxy" | "server.proxy.headers" => proxy().await,
            "server.heartbeat_interval" => pace("ws", key).await,
            "server.poll_interval" => pace("http", key).await,
            "server.compression" => compression().await,
            "capabilities.accepts_remote_config" | "capabilities.reports_remote_config" => {
                // The second only ever follows the first, and says so.
                assert_ne!(bits(&[("capabilities.accepts_remote_config", "true")]).await & 0x1002, 0);
                assert_eq!(bits(&[]).await & 0x1002, 0);
            }
            "capabilities.reports_effective_config" => one_bit(key, "false", 0x4).await,
            "capabilities.reports_health" => one_bit(key, "false", 0x800).await,
            "capabilities.reports_heartbeat" => one_bit(key, "false", 0x2000).await,
            "capabilities.accepts_restart_command" => one_bit(key, "true", 0x400).await,
            "agent.description.identifying_attributes" => {
                let key = "agent.description.identifying_attributes.service.namespace";
                let seen = seen(&[(key, "edge")]).await;
                let described = description(&seen).identifying_attributes;
                assert_eq!(attribute(&described, "service.namespace").as_deref(), Some("edge"));
            }
            "agent.description.non_identifying_attributes" => {
                let seen = seen(&[("agent.description.non_identifying_attributes.team", "blue")]).await;
                let described = description(&seen).non_identifying_attributes;
                assert_eq!(attribute(&described, "team").as_deref(), Some("blue"));
            }
            "agent.request_instance_uid" => asks_for_identity().await,
            "agent.limits.remote_config_bytes" => remote_size().await,
            "agent.limits.attributes" => attribute_limit(key, "1", "has 2 attributes, and 1 are allowed"),
            "agent.limits.attribute_bytes" => attribute_limit(key, "3", "is longer than 3 bytes"),
            "storage.directory" => {
                let (directory, mut process) =
                    start(&[("server.endpoint", "ws://127.0.0.1:1"), (key, "elsewhere")]);
                process.uid().await;
                assert!(directory.path().join("elsewhere/opamp-state").exists());
            }
            "telemetry.logs.level" => {
                for (level, shown) in [("debug", true), ("info", false)] {
                    let server = TestServer::start().await;
                    let (_directory, mut process) = start(&[
                        ("server.endpoint", &server.url("ws")),
                        (key, level),
                        ("health.interval", "100ms"),
                    ]);
                    let uid = process.uid().await;
                    server.sees(uid, "some life", |agent| agent.sequence_num.0 > 3).await;
                    assert_eq!(process.log().contains("DEBUG"), shown, "{}", process.log());
                }
            }
            "health.interval" => {
                let base = [("server.endpoint", "ws://127.0.0.1:1"), ("telemetry.logs.level", "debug")];
                let (_directory, mut often) = start(&[&base[..], &[(key, "100ms")]].concat());
                let (_directory, seldom) = start(&[&base[..], &[(key, "1h")]].concat());
                often.logs_times(&["health checked"], 5).await;
                assert_eq!(seldom.lines(&["health checked"]), 0);
            }
            "telemetry.own_metrics_interval" => offers::metrics_interval(key).await,
            key if key.starts_with("offers.") => offers::permission(key).await,
            key if key.starts_with("packages.") => offers::package_key(key).await,
            key if key.starts_with("capabilities.") => offers::switched_on(key).await,
            unknown => panic!("nothing shows that {unknown} has an effect"),
        }
    }
}

async fn endpoints() {
    let stub = Stub::start(|_| Vec::new()).await;
    let nobody = "ws://127.0.0.1:1";
    let (_directory, _process) = start(&[
        ("server.endpoint", nobody),
        ("server.fallback_endpoints", &format!("[{}]", stub.url("ws"))),
    ]);
    until("the fallback is tried", || !stub.requests().is_empty()).await;
    let (_directory, mut process) = start(&[("server.endpoint", nobody)]);
    process.logs("cannot connect to ws://127.0.0.1:1/v1/opamp: refused: ").await;
}

async fn headers() {
    let stub = Stub::start(|_| Vec::new()).await;
    let directory = TempDir::new();
    let header = format!("\"${{env:{TOKEN_VARIABLE}}}-7\"");
    let keys = [("server.endpoint", &*stub.url("http")), ("server.headers.x-key", &header)];
    let _process = start_in(&directory, &keys, &[(TOKEN_VARIABLE, "value")]);
    until("the header is sent", || stub.requests().iter().any(|head| head.contains("x-key: value-7\r\n")))
        .await;
}

async fn token_file() {
    let stub = Stub::start(|_| Vec::new()).await;
    let directory = TempDir::new();
    let token = directory.write("token", "abc\n");
    let _process = start_in(
        &directory,
        &[("server.endpoint", &stub.url("ws")), ("server.bearer_token_file", &token)],
        &[],
    );
    until("the token is shown", || {
        stub.requests().iter().any(|head| head.contains("authorization: Bearer abc\r\n"))
    })
    .await;
}

async fn authorities() {
    let (directory, authority, other) = (TempDir::new(), Authority::new("ca"), Authority::new("other"));
    let server = TestServer::with_tls(&authority.server(&["127.0.0.1"])).await;
    let (ours, theirs) =
        (directory.write("ca.pem", &authority.pem()), directory.write("other.pem", &other.pem()));
    // What the operating system trusts, for this process.
    let system = [("SSL_CERT_FILE", ours.as_str())];
    let nothing = [("SSL_CERT_FILE", theirs.as_str())];
    let pool = ("server.tls.include_system_ca_certs_pool", "true");
    let (us, them) = (("server.tls.ca_file", ours.as_str()), ("server.tls.ca_file", theirs.as_str()));
    let (well, unwell) = ("connected to wss://", "from an authority not trusted here");
    for (keys, variables, expected) in [
        (&[us][..], &nothing, well),
        (&[them], &system, unwell),
        (&[them, pool], &system, well),
        (&[], &system, well),
        (&[], &nothing, unwell),
    ] {
        let url = server.url("wss");
        let mut process =
            start_in(&directory, &[&[("server.endpoint", url.as_str())], keys].concat(), variables);
        process.logs(expected).await;
        process.stop().await;
    }
}

async fn client_certificate() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let ca = directory.write("ca.pem", &authority.pem());
    let server = TestServer::with_mutual_tls(&authority.server(&["127.0.0.1"]), &authority).await;
    let identity = authority.client("agent-7", &[]);
    let (cert, key) =
        (directory.write("cert.pem", &identity.cert_pem), directory.write("key.pem", &identity.key_pem));
    let keys = [
        ("server.endpoint", &*server.url("wss")),
        ("server.tls.ca_file", &ca),
        ("server.tls.cert_file", &cert),
        ("server.tls.key_file", &key),
    ];
    let mut process = start_in(&directory, &keys, &[]);
    let uid = process.uid().await;
    let seen = server.sees(uid, "let in", |agent| agent.connection.is_some()).await;
    assert!(seen.connection.unwrap().principal.to_string().contains("agent-7"));
}

async fn lowest_version() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let ca = directory.write("ca.pem", &authority.pem());
    let identity = authority.server(&["127.0.0.1"]);
    let old = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS12])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![identity.cert.clone()], identity.private_key())
    .unwrap();
    let server = TestServer::with(Arc::new(opamp_server::InsecureAcceptEveryone), Some(old)).await;
    let url = server.url("wss");
    for (version, expected) in
        [("1.2", "connected to"), ("1.3", "allow a TLS version that both sides support")]
    {
        let keys =
            [("server.endpoint", &*url), ("server.tls.ca_file", &ca), ("server.tls.min_version", version)];
        let mut process = start_in(&directory, &keys, &[]);
        process.logs(expected).await;
        process.stop().await;
    }
}

async fn proxy() {
    let server = TestServer::start().await;
    let proxy = HttpProxy::builder().require("x-pass", "sesame", 403).start().await.unwrap();
    let (url, proxy_url, nowhere) = (server.url("ws"), proxy.url(), "http://127.0.0.1:1");
    for (keys, expected) in [
        (&[("server.proxy.url", &*proxy_url)][..], "cannot connect to"),
        (&[("server.proxy.url", &*proxy_url), ("server.proxy.headers.x-pass", "sesame")], "connected to"),
        (&[("server.proxy.url", nowhere)], "cannot connect to"),
        (&[("server.proxy.url", nowhere), ("server.proxy.no_proxy", "[127.0.0.0/8]")], "connected to"),
    ] {
        let (_directory, mut process) = start(&[&[("server.endpoint", &*url)], keys].concat());
        process.logs(expected).await;
    }
    assert!(proxy.refused() > 0 && proxy.tunnels() == 1, "{} and {}", proxy.refused(), proxy.tunnels());
}

async fn pace(scheme: &str, key: &str) {
    let server = TestServer::start().await;
    let url = server.url(scheme);
    let (_directory, mut often) = start(&[("server.endpoint", &url), (key, "50ms")]);
    let (_directory, mut seldom) = start(&[("server.endpoint", &url), (key, "1h")]);
    let (often, seldom) = (often.uid().await, seldom.uid().await);
    server.sees(seldom, "a first report", |agent| !effective(agent).is_empty()).await;
    server.sees(often, "many messages", |agent| agent.sequence_num.0 > 10).await;
    assert!(server.handle().agent(&seldom).unwrap().sequence_num.0 < 5);
}

async fn compression() {
    let stub = Stub::start(|_| Vec::new()).await;
    let long = "x".repeat(1000);
    let url = stub.url("http");
    let keys = [("server.endpoint", &*url), ("agent.description.non_identifying_attributes.long", &*long)];
    let (_directory, process) = start(&keys);
    until("a request", || !stub.requests().is_empty()).await;
    drop(process);
    assert!(!stub.requests().iter().any(|head| head.contains("content-encoding")));
    let (_directory, _process) = start(&[&keys[..], &[("server.compression", "gzip")]].concat());
    until("a small request", || {
        stub.requests().iter().any(|head| head.contains("content-encoding: gzip\r\n"))
    })
    .await;
}

async fn asks_for_identity() {
    let server = TestServer::start().await;
    let (_directory, mut process) =
        start(&[("server.endpoint", &server.url("ws")), ("agent.request_instance_uid", "true")]);
    process.logs("the server changed the instance uid").await;
}

async fn remote_size() {
    let server = TestServer::start().await;
    let (_directory, mut process) = start(&[
        ("server.endpoint", &server.url("ws")),
        ("capabilities.accepts_remote_config", "true"),
        ("agent.limits.remote_config_bytes", "10"),
    ]);
    let uid = process.uid().await;
    server.assign(uid, "long", "health: {interval: 1s}").await;
    let refused = |agent: &AgentSnapshot| {
        config_status(agent)
            .1
            .starts_with("the configuration has 22 bytes, and this agent takes 10 (`agent.limits.")
    };
    let seen = server.sees(uid, "refused", refused).await;
    assert!(health(&seen).component_health_map.contains_key("remote_config"));
}

fn attribute_limit(key: &str, value: &str, expected: &str) {
    let attribute = |name: &str| format!("agent.description.non_identifying_attributes.{name}");
    let (one, other) = (attribute("a"), attribute("b"));
    let keys = [("server.endpoint", "ws://h"), (&*one, "text"), (&*other, "text")];
    load(&keys);
    let error = try_load(&[&keys[..], &[(key, value)]].concat()).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

/// The capabilities of an agent with these keys.
async fn bits(keys: &[(&str, &str)]) -> u64 {
    seen(keys).await.capabilities.bits()
}

async fn one_bit(key: &str, value: &str, bit: u64) {
    assert_eq!(bits(&[]).await ^ bits(&[(key, value)]).await, bit, "{key}");
}

/// An agent with these keys, as a server sees it.
async fn seen(keys: &[(&str, &str)]) -> AgentSnapshot {
    let server = TestServer::start().await;
    let url = server.url("ws");
    let (_directory, mut process) = start(&[&[("server.endpoint", url.as_str())], keys].concat());
    let uid: InstanceUid = process.uid().await;
    server.sees(uid, "a first report", |agent| !description(agent).identifying_attributes.is_empty()).await
}

fn start(keys: &[(&str, &str)]) -> (TempDir, Process) {
    let directory = TempDir::new();
    let process = start_in(&directory, keys, &[]);
    (directory, process)
}

/// Starts an agent with nothing but these keys, and short waits.
fn start_in(directory: &TempDir, keys: &[(&str, &str)], variables: &[(&str, &str)]) -> Process {
    let mut all = keys.to_vec();
    for (key, value) in [
        ("storage.directory", "state"),
        ("server.retry.first_interval", "20ms"),
        ("server.retry.slow_initial_interval", "50ms"),
        ("server.heartbeat_interval", "100ms"),
    ] {
        let beats = key != "server.heartbeat_interval"
            || !keys.contains(&("capabilities.reports_heartbeat", "false"));
        if beats && !keys.iter().any(|(given, _)| *given == key) {
            all.push((key, value));
        }
    }
    directory.write("agent.yaml", &document(&all));
    let _ = fs::remove_dir_all(directory.path().join("state"));
    Process::start_with(directory, variables)
}

fn load(keys: &[(&str, &str)]) -> Config {
    try_load(keys).unwrap()
}

fn try_load(keys: &[(&str, &str)]) -> Result<Config, String> {
    let directory = TempDir::new();
    let file = directory.write("agent.yaml", &document(keys));
    Config::load(Path::new(&file)).map_err(|error| error.to_string())
}

/// A file with these keys. What follows the name of a key of entries is the name of an entry.
fn document(keys: &[(&str, &str)]) -> String {
    let mut sections: BTreeMap<Vec<&str>, Vec<(&str, &str)>> = BTreeMap::new();
    for (key, value) in keys {
        let entries = KEYS.iter().find(|known| key.starts_with(&format!("{}.", known.name)));
        let split = entries.map_or_else(|| key.rfind('.').unwrap(), |known| known.name.len());
        sections.entry(key[..split].split('.').collect()).or_default().push((&key[split + 1..], value));
    }
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (path, values) in sections {
        let common = open.iter().zip(&path).take_while(|(a, b)| a == b).count();
        for (depth, name) in path.iter().enumerate().skip(common) {
            text.push_str(&format!("{}{name}:\n", "  ".repeat(depth)));
        }
        for (name, value) in values {
            text.push_str(&format!("{}{name}: {value}\n", "  ".repeat(path.len())));
        }
        open = path;
    }
    text
}
