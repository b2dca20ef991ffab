//! Ports beyond loopback without TLS, through real listeners and an address of this machine that is not loopback.
//!
//! A machine may have none; then there is nothing to connect to here, and the unit tests that put the peer in by hand
//! (`agent_auth`, `server`) are what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use opamp_testkit::{
    raw::{Endpoint, HttpRequest, RawHttp},
    transcript::Transcript,
};
use support::{Client, TestServer, config};

const CLIENT: &str = "198.51.100.77";

/// The address from which this machine would reach others. Nothing is sent to find out.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    let usable = !address.is_loopback() && !address.is_unspecified();
    if !usable {
        eprintln!("this machine has no address beyond loopback: not tested");
    }
    usable.then_some(address)
}

/// Both ports on all addresses, without TLS, behind these proxies.
async fn start_behind(proxies: &str) -> TestServer {
    let settings = [
        ("opamp.listen", "0.0.0.0:0"),
        ("opamp.auth", "token"),
        ("opamp.tokens", "edge=agent-token"),
        ("opamp.trusted_proxies", proxies),
        ("admin.listen", "0.0.0.0:0"),
        ("admin.trusted_proxies", proxies),
    ];
    TestServer::start_with(config(&settings)).await
}

/// The admin port as seen from `address`.
fn admin_at(server: &TestServer, address: IpAddr) -> Client {
    Client::new(SocketAddr::new(address, server.running.admin_addr().port()), Some(&server.token))
}

/// The status of a plain request to the OpAMP port at `address`.
async fn opamp_status(server: &TestServer, address: IpAddr, token: &str) -> u16 {
    let endpoint = Endpoint::plain(SocketAddr::new(address, server.running.opamp_addr().port()));
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let request = HttpRequest::new("GET", &endpoint).bearer(token).with("X-Forwarded-For", CLIENT);
    http.exchange(&request).await.unwrap().status
}

#[tokio::test]
async fn beyond_loopback_plain_connections_are_served_to_trusted_proxies_and_refused_to_everybody_else() {
    let Some(address) = own_address() else { return };
    let loopback = IpAddr::from([127, 0, 0, 1]);

    let server = start_behind("192.0.2.253").await;
    let stranger = admin_at(&server, address);
    for path in ["/api/v1/agents", "/api/v1/openapi.json", "/metrics"] {
        let (code, message) = stranger.get(path).await.error(403);
        assert!(code == "forbidden" && message.contains("trusted proxies only"), "{path}: {message}");
    }
    assert_eq!(stranger.get("/health/live").await.status, 200);
    assert_eq!(opamp_status(&server, address, "agent-token").await, 403);
    admin_at(&server, loopback).get("/api/v1/agents").await.expect(200);
    assert_eq!(opamp_status(&server, loopback, "agent-token").await, 426, "let in, and told to upgrade");

    let server = start_behind(&address.to_string()).await;
    admin_at(&server, address).get("/api/v1/agents").await.expect(200);
    assert_eq!(opamp_status(&server, address, "agent-token").await, 426);
    assert_eq!(opamp_status(&server, address, "guessed").await, 401);
}

#[tokio::test]
async fn refused_plain_connections_are_counted_and_recorded_with_their_source_and_without_their_token() {
    let Some(address) = own_address() else { return };
    let server = start_behind("192.0.2.253").await;
    let stranger = admin_at(&server, address).header("x-forwarded-for", CLIENT);
    for _ in 0..40 {
        stranger.get("/api/v1/agents").await.error(403);
    }
    let entries = server.audit("api.insecure_transport").await;
    assert!((30..40).contains(&entries.len()), "{} of 40", entries.len());
    let entry = &entries[0];
    assert_eq!((&entry["actor"], &entry["entity"]), (&"anonymous".into(), &"/api/v1/agents".into()));
    assert!(entry["source"].as_str().unwrap().starts_with(&format!("{address}:")), "{entry:#}");
    let metrics = server.admin.get("/metrics").await.text();
    assert!(metrics.contains("opamp_admin_refused_total 40\n"), "{metrics}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_source_is_the_client_it_names() {
    let Some(address) = own_address() else { return };
    let server = start_behind(&address.to_string()).await;
    let proxied = admin_at(&server, address).anonymous().header("x-forwarded-for", CLIENT);
    proxied.get("/api/v1/agents").await.error(401);
    assert_eq!(server.audit("api.auth_failed").await[0]["source"], CLIENT);

    assert_eq!(opamp_status(&server, address, "guessed").await, 401);
    let page = server
        .eventually("/api/v1/audit?action=agent.refuse", |page| {
            !page["entries"].as_array().unwrap().is_empty()
        })
        .await;
    let source = page["entries"][0]["source"].as_str().unwrap();
    assert!(source.starts_with(CLIENT), "{source}");
}
