//! What goes wrong on the way to the server shows as one clear line of log for each attempt, with what to do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use opamp_testkit::certs::Authority;
use opamp_testkit::proxy::Forwarder;
use support::{Process, Stub, TOKEN_VARIABLE, TempDir, TestServer, bare, ok, redirect, url, yaml};

const SECRET: &str = "hunter2-5b1c";
/// How many attempts are looked at.
const ATTEMPTS: usize = 3;

/// Lets the agent fail a few times, and stops it; its warnings about that, each without its time.
async fn warnings(directory: &TempDir, configuration: &str) -> Vec<String> {
    directory.write("agent.yaml", configuration);
    let mut process = Process::start_with(directory, &[(TOKEN_VARIABLE, SECRET)]);
    process.logs_times(&["cannot connect to"], ATTEMPTS).await;
    process.stop().await;
    let log = process.log();
    assert!(!log.contains(SECRET), "{log}");
    let lines = log.lines().filter_map(|line| line.split_once(" WARN ").map(|(_, text)| text.to_owned()));
    let lines: Vec<_> = lines.filter(|line| !line.contains("running as root")).collect();
    let others = log.lines().filter(|line| !line.contains(" WARN ") && !line.contains(" INFO ")).count();
    assert_eq!(others, 0, "each event is one line, and none is an error: {log}");
    lines
}

/// The warnings say this and this hint and nothing else, one for each attempt. The last attempt may have been cut off
/// by the end of the agent.
fn one_each(lines: &[String], attempts: usize, endpoint: &str, (what, hint): (&str, &str)) {
    assert!(lines.len() == attempts || lines.len() + 1 == attempts, "{attempts} attempts: {lines:#?}");
    for line in lines {
        let (said, next) = line.split_once("; next attempt in ").unwrap_or_else(|| panic!("{line}"));
        assert!(said.starts_with(&format!("cannot connect to {endpoint}: {what}")), "{line}");
        assert!(said.ends_with(&format!(" ({hint})")), "{line}");
        assert!(next.ends_with(" s") && next.len() < 8, "{line}");
    }
}

/// An agent that cannot reach a server, over both transports of TLS.
async fn over_tls(directory: &TempDir, server: &TestServer, keys: &str, said: (&str, &str)) {
    for scheme in ["wss", "https"] {
        let relay = Forwarder::start(server.address).await.unwrap();
        let lines = warnings(directory, &yaml(&url(scheme, relay.addr()), keys, "")).await;
        one_each(&lines, relay.connections(), &url(scheme, relay.addr()), said);
        let _ = std::fs::remove_dir_all(directory.path().join("state"));
    }
}

/// The same without TLS.
async fn over_plain(address: std::net::SocketAddr, path: &str, keys: &str, said: (&str, &str)) {
    for scheme in ["ws", "http"] {
        let directory = TempDir::new();
        let relay = Forwarder::start(address).await.unwrap();
        let endpoint = format!("{scheme}://{}{path}", relay.addr());
        let lines = warnings(&directory, &yaml(&endpoint, keys, "")).await;
        one_each(&lines, relay.connections(), &endpoint, said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_ca_is_one_line_that_says_what_to_do() {
    let (directory, authority, other) = (TempDir::new(), Authority::new("ca"), Authority::new("other"));
    let server = TestServer::with_tls(&authority.server(&["127.0.0.1"])).await;
    let ca = directory.write("ca.pem", &other.pem());
    over_tls(
        &directory,
        &server,
        &format!("tls: {{ca_file: {ca}}}"),
        (
            "tls: the server's certificate is from an authority not trusted here (",
            "give this agent the certificate of the CA that signed the server's certificate",
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_name_is_one_line_that_says_what_to_do() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let server = TestServer::with_tls(&authority.server(&["opamp.example.com"])).await;
    let ca = directory.write("ca.pem", &authority.pem());
    over_tls(
        &directory,
        &server,
        &format!("tls: {{ca_file: {ca}}}"),
        (
            "tls: the server's certificate is not for 127.0.0.1 but for ",
            "use a host name that is in the server's certificate",
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_one_line_that_says_what_to_do() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let server = TestServer::with_tls(&authority.expired_server(&["127.0.0.1"])).await;
    let ca = directory.write("ca.pem", &authority.pem());
    over_tls(
        &directory,
        &server,
        &format!("tls: {{ca_file: {ca}}}"),
        (
            "tls: the server's certificate has expired (",
            "renew the server's certificate, and check this machine's clock",
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_client_certificate_is_one_line_that_says_what_to_do() {
    let (directory, authority) = (TempDir::new(), Authority::new("ca"));
    let ca = directory.write("ca.pem", &authority.pem());
    let server = TestServer::with_mutual_tls(&authority.server(&["127.0.0.1"]), &authority).await;
    over_tls(
        &directory,
        &server,
        &format!("tls: {{ca_file: {ca}}}"),
        ("tls: the server wants a client certificate (", "configure a client certificate and its key"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_one_line_that_says_what_to_do() {
    let server = TestServer::with_token("the-right-one-0123456789").await;
    over_plain(
        server.address,
        "/v1/opamp",
        &format!("headers: {{Authorization: \"Bearer ${{env:{TOKEN_VARIABLE}}}\"}}"),
        ("auth: the server answered 401", "check the token or certificate this agent presents"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_path_is_one_line_that_says_what_to_do() {
    let server = TestServer::start().await;
    over_plain(
        server.address,
        "/somewhere",
        "",
        (
            "status: the server answered 404",
            "check the path of the endpoint; OpAMP servers use /v1/opamp unless told otherwise",
        ),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_loop_is_one_line_that_says_what_to_do() {
    for scheme in ["ws", "http"] {
        let directory = TempDir::new();
        let stub =
            Stub::start(|head| redirect(if head.contains(" /v1/opamp ") { "/b" } else { "/v1/opamp" })).await;
        let lines = warnings(&directory, &yaml(&stub.url(scheme), "", "")).await;
        let attempts = stub.requests().iter().filter(|head| head.contains(" /v1/opamp ")).count();
        let url = stub.url(scheme);
        let what = format!("redirect: redirects lead in circles, back to {url} (");
        one_each(&lines, attempts, &url, (&what, "set the endpoint to where the server really is"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_the_server_is_one_line_that_says_what_to_do() {
    let no_opamp = "check that the endpoint is an OpAMP server and that nothing on the path answers for it";
    let page = || ok("text/html", b"<html>Welcome</html>");
    let ssh = || bare("SSH-2.0-OpenSSH_9.6\r\n\r\n");
    let broken = || ok("application/x-protobuf", b"\xff\xff\xff");
    for (scheme, answer, said) in [
        ("ws", ssh(), ("protocol: the WebSocket handshake failed: ", no_opamp)),
        ("http", ssh(), ("protocol: the request failed: ", no_opamp)),
        ("ws", page(), ("status: the server answered 200", "check the endpoint and what answers there")),
        ("http", page(), ("protocol: ", no_opamp)),
        ("http", broken(), ("protocol: ", no_opamp)),
    ] {
        let directory = TempDir::new();
        let stub = Stub::start(move |_| answer.clone()).await;
        let lines = warnings(&directory, &yaml(&stub.url(scheme), "", "")).await;
        one_each(&lines, stub.requests().len(), &stub.url(scheme), said);
    }
}
