//! Certificates and tokens change on disk, the running server follows, and what is broken stays out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, path::PathBuf, time::Duration};

use opamp_testkit::{
    certs::Authority,
    raw::{Endpoint, HttpRequest, HttpResponse, RawError, RawHttp},
    transcript::Transcript,
};
use reference_server::Config;
use support::{Agent, TempDir, TestServer, config};

/// Writes the files of a TLS port and answers certificate and key.
fn write_identity(dir: &TempDir, authority: &Authority) -> (PathBuf, PathBuf) {
    let identity = authority.server(&["localhost"]);
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&cert, identity.cert_pem).unwrap();
    fs::write(&key, identity.key_pem).unwrap();
    (cert, key)
}

/// GET over TLS, trusting one authority only.
async fn get(
    address: std::net::SocketAddr,
    authority: &Authority,
    path: &str,
) -> Result<HttpResponse, RawError> {
    let endpoint = Endpoint::tls(address, authority.client_config(), "localhost").with_path(path);
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await?;
    http.exchange(&HttpRequest::new("GET", &endpoint)).await
}

fn with_tls(dir: &TempDir, authority: &Authority) -> Config {
    let (cert, key) = write_identity(dir, authority);
    let mut config = config(&[]);
    (config.admin.tls_cert, config.admin.tls_key) = (Some(cert.clone()), Some(key.clone()));
    (config.opamp.tls_cert, config.opamp.tls_key) = (Some(cert), Some(key));
    config.server.reload_interval = Duration::ZERO;
    config
}

#[tokio::test]
async fn both_ports_show_a_new_certificate_after_a_reload_and_keep_the_old_one_if_it_is_broken() {
    let dir = TempDir::new();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let running = reference_server::Server::start(with_tls(&dir, &old)).await.unwrap();
    let ports = [(running.admin_addr(), "/health/live", 200), (running.opamp_addr(), "/nothing", 404)];
    for (address, path, status) in ports {
        assert_eq!(get(address, &old, path).await.unwrap().status, status);
        get(address, &new, path).await.expect_err("the certificate is not from this authority");
    }

    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(dir.path().join("cert.pem"), broken).unwrap();
    let problems = running.reload().await;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("cert.pem"), "{problems:?}");
    assert_eq!(get(ports[0].0, &old, ports[0].1).await.unwrap().status, 200);

    write_identity(&dir, &new);
    assert_eq!(running.reload().await, Vec::<String>::new());
    for (address, path, status) in ports {
        assert_eq!(get(address, &new, path).await.unwrap().status, status);
        get(address, &old, path).await.expect_err("the old certificate is not shown any more");
    }
    assert!(running.shutdown().await);
}

#[tokio::test]
async fn a_key_that_does_not_belong_to_the_certificate_is_refused_at_the_start() {
    let dir = TempDir::new();
    let authority = Authority::new("a");
    let config = with_tls(&dir, &authority);
    fs::write(dir.path().join("key.pem"), authority.server(&["localhost"]).key_pem).unwrap();
    let error = reference_server::Server::start(config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("key.pem: does not go with") && error.contains("cert.pem"), "{error}");
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    let error = reference_server::Server::start(config).await.err().unwrap().to_string();
    assert!(error.contains("cannot read") && error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn with_token_or_mtls_each_alone_lets_an_agent_in() {
    let dir = TempDir::new();
    let authority = Authority::new("a");
    let mut config = with_tls(&dir, &authority);
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    config.opamp.client_ca = Some(ca);
    config.opamp.auth = reference_server::config::AgentAuth::TokenOrMtls;
    config.opamp.tokens = vec!["edge=good".parse().unwrap()];
    let running = reference_server::Server::start(config).await.unwrap();
    let upgrade = |config, token: Option<&'static str>| {
        let endpoint = Endpoint::tls(running.opamp_addr(), config, "localhost");
        async move {
            let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
            let mut request = HttpRequest::new("GET", &endpoint)
                .with("Connection", "Upgrade")
                .with("Upgrade", "websocket")
                .with("Sec-WebSocket-Version", "13")
                .with("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
            if let Some(token) = token {
                request = request.bearer(token);
            }
            http.exchange(&request).await.unwrap().status
        }
    };
    let with_certificate = authority.client_config_with(&authority.client("edge-1", &[]));
    assert_eq!(upgrade(with_certificate, None).await, 101);
    assert_eq!(upgrade(authority.client_config(), Some("good")).await, 101);
    assert_eq!(upgrade(authority.client_config(), Some("bad")).await, 401);
    assert_eq!(upgrade(authority.client_config(), None).await, 401);
}

#[tokio::test]
async fn a_changed_token_file_is_noticed_and_ends_the_connections_of_the_old_token() {
    let dir = TempDir::new();
    let file = dir.path().join("token");
    fs::write(&file, "first-token\n").unwrap();
    let entry = format!("edge=@{}", file.display());
    let settings =
        [("opamp.auth", "token"), ("opamp.tokens", entry.as_str()), ("server.reload_interval", "10ms")];
    let server = TestServer::start_with(config(&settings)).await;
    let url = server.endpoint("ws");
    let mut agent = Agent::connect_as(&url, 1, Some("first-token")).await.unwrap();
    assert!(Agent::connect_as(&url, 2, Some("second-token")).await.is_none());

    fs::write(&file, "second-token, longer\n").unwrap();
    assert_eq!(agent.closed().await, Some(1008));
    assert!(Agent::connect_as(&url, 1, Some("first-token")).await.is_none());
    Agent::connect_as(&url, 1, Some("second-token, longer")).await.expect("the new token");

    fs::remove_file(&file).unwrap();
    let problems = server.running.reload().await;
    assert!(problems.len() == 1 && problems[0].contains("cannot be read"), "{problems:?}");
    Agent::connect_as(&url, 3, Some("second-token, longer"))
        .await
        .expect("the last good content stays in force");
}

#[tokio::test]
async fn a_revoked_agent_token_is_refused_and_named_in_the_audit_log() {
    let settings = [
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=same-token"),
        ("opamp.revoked_tokens", "edge-2023=same-token"),
    ];
    let mut config = config(&settings);
    config.opamp.tokens.push("core=core-token".parse().unwrap());
    let server = TestServer::start_with(config).await;
    assert!(
        Agent::connect_as(&server.endpoint("ws"), 1, Some("same-token")).await.is_none(),
        "revoked is stronger"
    );
    Agent::connect_as(&server.endpoint("ws"), 1, Some("core-token")).await.expect("the other one is valid");
    let page = server
        .eventually("/api/v1/audit?action=agent.refuse", |page| {
            !page["entries"].as_array().unwrap().is_empty()
        })
        .await;
    let entry = &page["entries"][0];
    assert!(entry.to_string().contains("revoked") && entry.to_string().contains("edge-2023"), "{entry:#}");
    assert!(entry["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry:#}");
}

#[tokio::test]
async fn a_token_revoked_by_a_file_loses_its_open_connection_too() {
    let dir = TempDir::new();
    let file = dir.path().join("revoked");
    fs::write(&file, "another-token\n").unwrap();
    let revoked = format!("old=@{}", file.display());
    let mut config = config(&[
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=edge-token"),
        ("opamp.revoked_tokens", revoked.as_str()),
        ("server.reload_interval", "0s"),
    ]);
    config.opamp.tokens.push("core=core-token".parse().unwrap());
    let server = TestServer::start_with(config).await;
    let url = server.endpoint("ws");
    let mut edge = Agent::connect_as(&url, 1, Some("edge-token")).await.unwrap();
    let mut core = Agent::connect_as(&url, 2, Some("core-token")).await.unwrap();

    fs::write(&file, "edge-token\n").unwrap();
    assert_eq!(server.running.reload().await, Vec::<String>::new());
    assert_eq!(edge.closed().await, Some(1008));
    assert!(Agent::connect_as(&url, 1, Some("edge-token")).await.is_none());
    let answer = core.report(opamp_proto::pb::AgentToServer::default()).await;
    assert!(answer.error_response.is_none(), "the other one stays");
}
