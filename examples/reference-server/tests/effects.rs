//! Settings that are the server's own business, each with the effect it has.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use opamp_testkit::{
    raw::{Endpoint, Framing, HttpRequest, RawHttp},
    transcript::Transcript,
};
use support::{Agent, TestServer, config};

#[tokio::test]
async fn the_endpoint_is_at_the_configured_path_only() {
    let server = TestServer::start_with(config(&[("opamp.path", "/elsewhere")])).await;
    Agent::connect(&server.endpoint("ws"), 1).await;
    let endpoint = Endpoint::plain(server.running.opamp_addr());
    for (path, status) in [("/v1/opamp", 404), ("/elsewhere", 426)] {
        let endpoint = endpoint.clone().with_path(path);
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        let answer = http.exchange(&HttpRequest::new("GET", &endpoint)).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    // It is the time for a request's headers too, which must arrive on a busy machine as well.
    let server = TestServer::start_with(config(&[("admin.request_timeout", "500ms")])).await;
    let endpoint = Endpoint::plain(server.running.admin_addr()).with_path("/api/v1/tokens");
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let mut request = HttpRequest::new("POST", &endpoint)
        .bearer(&server.token)
        .with("Content-Type", "application/json")
        .framed(Framing::Length);
    request.body = "{\"name\": ".into();
    // The body is announced and never comes.
    http.send_head(&request).await.unwrap();
    let answer = http.read_response().await.unwrap();
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_longer_than_configured() {
    let server = TestServer::start_with(config(&[("server.shutdown_timeout", "100ms")])).await;
    // It does not answer the close frame, which the server would otherwise wait for.
    let _silent = Agent::connect(&server.endpoint("ws"), 1).await;
    let since = Instant::now();
    assert!(!server.running.shutdown().await, "not all was done in time");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_agents_field_without_its_capability_is_ignored_or_rejected_as_configured() {
    for (mode, rejected) in [("ignore", false), ("reject", true)] {
        let server = TestServer::start_with(config(&[("opamp.capability_mismatch", mode)])).await;
        let mut agent = Agent::connect(&server.endpoint("ws"), 1).await;
        let report = opamp_proto::pb::AgentToServer {
            package_statuses: Some(opamp_proto::pb::PackageStatuses::default()),
            ..Default::default()
        };
        assert_eq!(agent.report(report).await.error_response.is_some(), rejected, "{mode}");
    }
}

#[tokio::test]
async fn a_configuration_that_could_not_be_sent_is_refused_when_it_is_made() {
    let server = TestServer::start_with(config(&[("opamp.message_bytes_max", "4KiB")])).await;
    let config = |bytes: usize| serde_json::json!({"name": "c", "files": {"": {"body": "x".repeat(bytes)}}});
    let (_, message) = server.admin.post("/api/v1/configs", config(4_000)).await.error(400);
    assert!(message.contains("bytes encoded, at most"), "{message}");
    server.admin.post("/api/v1/configs", config(2_500)).await.expect(201);
}
