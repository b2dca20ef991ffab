//! Who may call what, what everybody else gets, and what the audit log says about it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeSet, sync::Arc};

use opamp_proto::Wall;
use opamp_server::Clock as _;
use serde_json::json;
use support::{HandClock, TestServer, config};

/// Every endpoint with the least role that may call it. A new endpoint needs a line here.
const MATRIX: &[(&str, &str, &str)] = &[
    ("GET", "/agents", "viewer"),
    ("GET", "/agents/{id}", "viewer"),
    ("DELETE", "/agents/{id}", "admin"),
    ("PUT", "/agents/{id}/labels", "operator"),
    ("POST", "/agents/{id}/assign", "operator"),
    ("DELETE", "/agents/{id}/assign", "operator"),
    ("POST", "/agents/{id}/restart", "operator"),
    ("POST", "/agents/{id}/request-full-state", "operator"),
    ("GET", "/agents/{id}/connection-settings", "viewer"),
    ("PUT", "/agents/{id}/connection-settings", "operator"),
    ("DELETE", "/agents/{id}/connection-settings", "operator"),
    ("GET", "/agents/{id}/packages", "viewer"),
    ("PUT", "/agents/{id}/packages", "operator"),
    ("DELETE", "/agents/{id}/packages", "operator"),
    ("GET", "/agents/{id}/custom-messages", "viewer"),
    ("POST", "/agents/{id}/custom-messages", "operator"),
    ("GET", "/configs", "viewer"),
    ("POST", "/configs", "operator"),
    ("GET", "/configs/{name}", "viewer"),
    ("POST", "/configs/{name}/versions", "operator"),
    ("GET", "/configs/{name}/versions/{version}", "viewer"),
    ("PUT", "/configs/{name}/versions/{version}", "operator"),
    ("POST", "/configs/{name}/versions/{version}/publish", "operator"),
    ("POST", "/configs/{name}/versions/{version}/archive", "operator"),
    ("POST", "/configs/{name}/versions/{version}/assign", "operator"),
    ("GET", "/configs/{name}/diff", "viewer"),
    ("GET", "/packages", "viewer"),
    ("POST", "/packages", "operator"),
    ("GET", "/packages/{package}", "viewer"),
    ("DELETE", "/packages/{package}", "admin"),
    ("GET", "/stats", "viewer"),
    ("GET", "/throttle", "viewer"),
    ("PUT", "/throttle", "operator"),
    ("DELETE", "/throttle", "operator"),
    ("GET", "/self", "viewer"),
    ("GET", "/audit", "viewer"),
    ("GET", "/audit/verify", "operator"),
    ("GET", "/version", "viewer"),
    ("GET", "/tokens", "admin"),
    ("POST", "/tokens", "admin"),
    ("DELETE", "/tokens/{id}", "admin"),
    ("GET", "/openapi.json", "none"),
];

const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

fn concrete(path: &str) -> String {
    let id = if path.starts_with("/agents") { "01890000-0000-7000-8000-000000000000" } else { "nobody" };
    let path = path.replace("{id}", id).replace("{name}", "nothing").replace("{version}", "1");
    format!("/api/v1{}", path.replace("{package}", "nothing@1"))
}

#[tokio::test]
async fn the_document_lists_exactly_the_endpoints_and_their_roles() {
    let server = TestServer::start().await;
    let document = server.admin.anonymous().get("/api/v1/openapi.json").await.expect(200);
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            let role = operation["x-role"].as_str().unwrap_or("none").to_owned();
            described.insert((method.to_uppercase(), path, role));
        }
    }
    let expected: BTreeSet<_> =
        MATRIX.iter().map(|(m, p, r)| ((*m).to_owned(), (*p).to_owned(), (*r).to_owned())).collect();
    assert_eq!(described, expected);
}

#[tokio::test]
async fn every_endpoint_serves_its_role_and_those_above_only() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for role in ROLES {
        clients.push(server.with_role(role).await);
    }
    for (method, path, needed) in MATRIX {
        let anonymous = server.admin.anonymous().send(method, &concrete(path), None).await;
        if *needed == "none" {
            anonymous.expect(200);
            continue;
        }
        assert_eq!(anonymous.error(401).0, "unauthorized", "{method} {path}");
        let least = ROLES.iter().position(|role| role == needed).unwrap();
        for (rank, client) in clients.iter().enumerate() {
            let answer = client.send(method, &concrete(path), None).await;
            if rank < least {
                let (code, message) = answer.error(403);
                assert_eq!(code, "forbidden");
                assert!(message.contains(needed), "{message}");
            } else {
                let status = answer.status.as_u16();
                assert!(
                    ![401, 403, 405, 500].contains(&status),
                    "{method} {path} as {}: {status}",
                    ROLES[rank]
                );
            }
        }
    }
}

async fn reasons(server: &TestServer) -> Vec<String> {
    let entries = server.audit("api.auth_failed").await;
    entries.iter().map(|entry| entry["after"]["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_401_and_its_reason_in_the_audit_log() {
    let server = TestServer::start().await;
    let made =
        server.admin.post("/api/v1/tokens", json!({"name": "old", "role": "viewer"})).await.expect(201);
    let revoked = made["token"].as_str().unwrap().to_owned();
    let id = made["info"]["id"].as_str().unwrap();
    server.admin.as_token(&revoked).get("/api/v1/stats").await.expect(200);
    server.admin.delete(&format!("/api/v1/tokens/{id}")).await.expect(200);

    let nobody = server.admin.anonymous();
    let unknown = "opamp-pat.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.ZYG7FVI";
    let mut answers = Vec::new();
    for client in [
        nobody.clone(),
        nobody.header("authorization", &server.token),
        nobody.header("authorization", "Basic dXNlcjpwdw=="),
        nobody.as_token(&server.token[..server.token.len() - 1]),
        nobody.as_token(&checked(unknown)),
        nobody.as_token(&revoked),
    ] {
        let answer = client.get("/api/v1/stats").await;
        answer.error(401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        answers.push(answer.bytes);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "the answers tell the reasons apart");
    let expected = ["revoked", "unknown", "truncated", "missing-scheme", "missing-scheme", "missing"];
    assert_eq!(reasons(&server).await, expected);
    let newest = &server.audit("api.auth_failed").await[0];
    assert_eq!(newest["actor"], "anonymous");
    assert_eq!(newest["entity"], "/api/v1/stats");
    assert!(newest["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{newest}");
}

/// The token with the check digits it needs: CRC-32 in base32, computed here by hand.
fn checked(token: &str) -> String {
    let (body, _) = token.rsplit_once('.').unwrap();
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let bits = u64::from(!crc) << 3;
    let digit =
        |at: u32| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[(bits >> (30 - 5 * at)) as usize & 31]);
    format!("{body}.{}", (0..7).map(digit).collect::<String>())
}

#[tokio::test]
async fn an_expired_token_is_refused_as_expired() {
    let clock = Arc::new(HandClock::default());
    let server = TestServer::start_with_clock(config(&[]), Arc::clone(&clock) as _).await;
    let expires_at = Wall(clock.now().wall.0 + 60_000);
    let wanted = json!({"name": "short", "role": "viewer", "expires_at": expires_at.to_rfc3339()});
    let made = server.admin.post("/api/v1/tokens", wanted).await.expect(201);
    let client = server.admin.as_token(made["token"].as_str().unwrap());
    clock.advance_ms(59_999);
    client.get("/api/v1/stats").await.expect(200);
    clock.advance_ms(1);
    client.get("/api/v1/stats").await.error(401);
    assert_eq!(reasons(&server).await, ["expired"]);
}

#[tokio::test]
async fn a_role_that_is_too_low_is_recorded_with_actor_and_source() {
    let server = TestServer::start().await;
    let viewer = server
        .with_role("viewer")
        .await
        .header("traceparent", &format!("00-{}-00f067aa0ba902b7-01", "ab".repeat(16)));
    viewer.order("/api/v1/configs/x/versions/1/publish").await.error(403);
    let entry = &server.audit("api.forbidden").await[0];
    assert_eq!((&entry["actor"], &entry["role"]), (&json!("test-viewer"), &json!("viewer")));
    assert_eq!(entry["after"], json!({"needs": "operator", "method": "POST"}));
    assert_eq!(entry["trace_id"], "ab".repeat(16));
    assert!(entry["source"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn guessing_does_not_fill_the_audit_log() {
    let server = TestServer::start().await;
    for _ in 0..60 {
        server.admin.anonymous().get("/api/v1/stats").await.error(401);
    }
    let entries = server.audit("api.auth_failed").await;
    assert!((30..40).contains(&entries.len()), "{}", entries.len());
    let metrics = server.admin.get("/metrics").await.text();
    assert!(metrics.contains("opamp_admin_refused_total 60\n"), "every one is counted\n{metrics}");
}

#[tokio::test]
async fn a_long_path_does_not_fill_the_audit_log() {
    let server = TestServer::start().await;
    let path = format!("/api/v1/agents/{}", "\u{e4}b".repeat(20_000));
    for _ in 0..3 {
        server.admin.anonymous().get(&path).await.error(401);
    }
    let page = server.admin.get("/api/v1/audit?action=api.auth_failed").await;
    let entries = page.expect(200)["entries"].as_array().unwrap().len();
    assert_eq!(entries, 3);
    assert!(page.bytes.len() < 3 * 1_024, "{} bytes for {entries} entries", page.bytes.len());
    assert!(page.text().contains("/api/v1/agents/"), "what was called is recorded");
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_without_showing_their_secret_twice() {
    let server = TestServer::start().await;
    let made =
        server.admin.post("/api/v1/tokens", json!({"name": "ci", "role": "operator"})).await.expect(201);
    let secret = made["token"].as_str().unwrap();
    assert_eq!(server.admin.get("/api/v1/tokens").await.headers["cache-control"], "no-store");
    let again = server.admin.post("/api/v1/tokens", json!({"name": "ci", "role": "viewer"})).await.error(409);
    assert!(again.1.contains("\"ci\""), "{}", again.1);
    let listed = server.admin.get("/api/v1/tokens").await;
    let names: Vec<_> =
        listed.expect(200)["tokens"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert!(names.contains(&json!("ci")) && names.contains(&json!("first-admin")), "{names:?}");
    assert!(!listed.text().contains(&secret[10..30]));

    let path = format!("/api/v1/tokens/{}", made["info"]["id"].as_str().unwrap());
    let revoked = server.admin.delete(&path).await.expect(200);
    assert!(revoked["revoked_at"].is_string());
    assert_eq!(server.admin.delete(&path).await.expect(200), revoked, "revoking twice changes nothing");
    server.admin.delete("/api/v1/tokens/unknown").await.error(404);
    let audit = server.admin.get("/api/v1/audit").await.text();
    assert!(
        audit.contains("token.create") && audit.contains("token.revoke") && !audit.contains(&secret[10..30])
    );

    for wrong in [
        json!({"name": "", "role": "viewer"}),
        json!({"name": "x\ny", "role": "viewer"}),
        json!({"name": "x", "role": "root"}),
        json!({"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "viewer", "expires_at": "soon"}),
    ] {
        server.admin.post("/api/v1/tokens", wrong).await.expect(400);
    }
}

#[tokio::test]
async fn the_last_admin_token_cannot_be_revoked() {
    let server = TestServer::start().await;
    let tokens = server.admin.get("/api/v1/tokens").await.expect(200);
    let first = format!("/api/v1/tokens/{}", tokens["tokens"][0]["id"].as_str().unwrap());
    server.admin.delete(&first).await.error(409);
    let second = server.with_role("admin").await;
    second.delete(&first).await.expect(200);
    server.admin.get("/api/v1/tokens").await.error(401);
}

#[tokio::test]
async fn metrics_and_health_are_open_on_loopback_and_metrics_can_be_closed() {
    let server = TestServer::start().await;
    for path in ["/metrics", "/health/live", "/health/ready"] {
        assert_eq!(server.admin.anonymous().get(path).await.status, 200, "{path}");
    }
    let server = TestServer::start_with(config(&[("admin.metrics", "token")])).await;
    server.admin.anonymous().get("/metrics").await.error(401);
    assert_eq!(server.with_role("viewer").await.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_methods_and_sizes_get_json_errors() {
    let server = TestServer::start_with(config(&[("admin.body_bytes_max", "1KiB")])).await;
    assert_eq!(server.admin.get("/nothing").await.error(404).0, "not_found");
    assert_eq!(server.admin.get("/api/v1/nothing").await.error(404).0, "not_found");
    assert_eq!(server.admin.send("PATCH", "/api/v1/agents", None).await.error(405).0, "method_not_allowed");
    let large = json!({"name": "x".repeat(2_000), "role": "viewer"});
    assert_eq!(server.admin.post("/api/v1/tokens", large).await.error(413).0, "payload_too_large");
    let text = server.admin.header("content-type", "text/plain");
    assert_eq!(text.post("/api/v1/tokens", json!({})).await.error(415).0, "unsupported_media_type");
    let typed = server.admin.header("content-type", "Application/JSON; charset=utf-8");
    typed.post("/api/v1/tokens", json!({"name": "typed", "role": "viewer"})).await.expect(201);
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_refused_with_the_nearest_known_one() {
    let server = TestServer::start().await;
    let (code, message) =
        server.admin.post("/api/v1/tokens", json!({"name": "x", "rolle": "viewer"})).await.error(400);
    assert_eq!(code, "unknown_field");
    assert!(message.contains("`rolle`") && message.contains("nearest known one is `role`"), "{message}");
    let (code, message) = server.admin.get("/api/v1/agents?selektor=a").await.error(400);
    assert_eq!(code, "unknown_parameter");
    assert!(message.contains("nearest known one is `selector`"), "{message}");
    let (_, message) = server.admin.get("/api/v1/agents?limit=1&limit=2").await.error(400);
    assert!(message.contains("twice"), "{message}");
    let (code, message) =
        server.admin.send("POST", "/api/v1/tokens", Some("{\"name\": ".into())).await.error(400);
    assert_eq!(code, "invalid_json");
    assert!(message.contains("line 1"), "{message}");
    for path in [
        "/api/v1/stats?x=1",
        "/api/v1/self?x=1",
        "/api/v1/version?x=1",
        "/api/v1/tokens?x=1",
        "/api/v1/audit/verify?x=1",
    ] {
        assert_eq!(server.admin.get(path).await.error(400).0, "unknown_parameter", "{path}");
    }
}

#[tokio::test]
async fn nothing_is_served_after_the_shutdown() {
    let server = TestServer::start().await;
    server.admin.get("/api/v1/version").await.expect(200);
    let address = server.running.admin_addr();
    assert!(server.running.shutdown().await);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the port is closed");
}
