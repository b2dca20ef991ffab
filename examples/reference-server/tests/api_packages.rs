//! The package catalogue through the REST API: uploading, looking, deleting, and assigning to an agent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use opamp_proto::{AgentCapabilities, ServerCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    raw::{Endpoint, Framing, HttpRequest, RawHttp},
    transcript::Transcript,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{TempDir, TestServer, config, connect};

const MISSING: &str = "/api/v1/agents/01890000-0000-7000-8000-000000000000/packages";

fn accepting(number: u32) -> Persona {
    Persona::new(number)
        .and(AgentCapabilities::ACCEPTS_PACKAGES)
        .and(AgentCapabilities::REPORTS_PACKAGE_STATUSES)
}

/// Bytes that compress badly and differ from each other by their length alone.
fn file(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 % 251) as u8).collect()
}

fn uploading(name: &str, version: &str) -> String {
    format!("/api/v1/packages?name={name}&version={version}&type=top_level")
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// R-PKG-49, R-SEC-10, R-SEC-12
#[tokio::test]
async fn an_uploaded_file_is_in_the_catalogue_with_its_hash_and_the_signature_it_came_with() {
    let server = TestServer::start().await;
    let content = file(3 << 20);
    let signature = [0xfb; 64];
    let query = format!(
        "/api/v1/packages?name=&version=1.0.0&type=top_level&sha256={}&signature={}",
        sha256(&content),
        BASE64.encode(&signature).replace('+', "%2B")
    );
    let made = server.admin.upload(&query, content.clone()).await.expect(201);
    assert_eq!(
        (&made["id"], &made["name"], &made["version"]),
        (&json!("@1.0.0"), &json!(""), &json!("1.0.0"))
    );
    assert_eq!((&made["type"], &made["size_bytes"]), (&json!("top_level"), &json!(3 << 20)));
    assert_eq!(made["sha256"], sha256(&content).as_str());
    assert_eq!(made["signature"], BASE64.encode(&signature).as_str());
    assert_eq!(made["created_by"], "first-admin");
    assert_eq!(server.admin.get("/api/v1/packages/@1.0.0").await.expect(200), made);

    let add_on = "/api/v1/packages?name=plugin&version=2&type=add_on";
    let made = server.admin.upload(add_on, vec![1]).await.expect(201);
    assert_eq!((&made["type"], &made["signature"]), (&json!("add_on"), &Value::Null));
    let page = server.admin.get("/api/v1/packages?limit=1").await.expect(200);
    assert_eq!((&page["packages"][0]["id"], &page["next_cursor"]), (&json!("@1.0.0"), &json!("@1.0.0")));
    let page = server.admin.get("/api/v1/packages?limit=1&cursor=@1.0.0").await.expect(200);
    assert_eq!((&page["packages"][0]["id"], &page["next_cursor"]), (&json!("plugin@2"), &Value::Null));

    server.admin.delete("/api/v1/packages/plugin@2").await.expect(204);
    server.admin.get("/api/v1/packages/plugin@2").await.error(404);
    server.admin.delete("/api/v1/packages/plugin@2").await.error(404);
    let entries = server.audit("package.publish").await;
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["entity"], &entries[0]["role"]), (&json!("package:plugin@2"), &json!("admin")));
    assert_eq!(server.audit("package.delete").await.len(), 1);
}

#[tokio::test]
async fn uploads_that_are_not_what_was_meant_are_refused_and_leave_nothing() {
    let server = TestServer::start_with(config(&[
        ("packages.file_bytes_max", "100KiB"),
        ("packages.versions_max", "2"),
    ]))
    .await;
    let admin = &server.admin;
    let (_, message) = admin
        .upload(&format!("{}&sha256={}", uploading("a", "1"), "00".repeat(32)), file(10))
        .await
        .error(400);
    assert!(message.contains(&sha256(&file(10))), "the hash it has: {message}");
    let (code, _) = admin.upload(&uploading("a", "1"), file(101 << 10)).await.error(413);
    assert_eq!(code, "payload_too_large");
    for (path, expected) in [
        ("/api/v1/packages?name=a&version=1", "`type` is needed"),
        ("/api/v1/packages?version=1&type=add_on", "`name` is needed"),
        ("/api/v1/packages?name=a&type=add_on", "`version` is needed"),
        ("/api/v1/packages?name=a&version=1&type=addon", "`type` is `top_level` or `add_on`"),
        ("/api/v1/packages?name=a&version=1&type=add_on&sha256=ab", "64 hexadecimal digits"),
        ("/api/v1/packages?name=a&version=1&type=add_on&signature=x", "base64"),
        ("/api/v1/packages?name=a@b&version=1&type=add_on", "name"),
        ("/api/v1/packages?name=a/b&version=1&type=add_on", "name"),
        ("/api/v1/packages?name=a&version=&type=add_on", "version"),
        ("/api/v1/packages?name=a&version=1%202&type=add_on", "version"),
        ("/api/v1/packages?name=a&version=1&type=add_on&kind=x", "unknown query parameter `kind`"),
    ] {
        let (_, message) = admin.upload(path, file(10)).await.error(400);
        assert!(message.contains(expected), "{path}: {message}");
    }
    admin.upload(&uploading("a", "1"), Vec::new()).await.error(400);
    admin.post(&uploading("a", "1"), json!({})).await.error(415);
    assert_eq!(admin.get("/api/v1/packages").await.expect(200)["packages"], json!([]));

    admin.upload(&uploading("a", "1"), file(100 << 10)).await.expect(201);
    let (_, message) = admin.upload(&uploading("a", "1"), file(11)).await.error(409);
    assert!(message.contains("already"), "{message}");
    admin.upload(&uploading("a", "2"), file(11)).await.expect(201);
    let (_, message) = admin.upload(&uploading("a", "3"), file(11)).await.error(409);
    assert!(message.contains("2 package versions"), "{message}");
    assert_eq!(server.audit("package.publish").await.len(), 2);
}

#[tokio::test]
async fn packages_have_no_more_bytes_together_than_configured() {
    let server = TestServer::start_with(config(&[("packages.total_bytes_max", "100KiB")])).await;
    let admin = &server.admin;
    admin.upload(&uploading("a", "1"), file(60 << 10)).await.expect(201);
    let (_, message) = admin.upload(&uploading("a", "2"), file(60 << 10)).await.error(409);
    assert!(message.contains("102400 bytes"), "{message}");
    admin.upload(&uploading("a", "2"), file(40 << 10)).await.expect(201);
    admin.upload(&uploading("a", "3"), file(1)).await.error(409);
}

/// Begins an upload whose body never ends, over a connection of its own.
async fn half_an_upload(server: &TestServer, version: &str, sent: usize) -> RawHttp {
    let endpoint = Endpoint::plain(server.running.admin_addr()).with_path(&uploading("a", version));
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let mut request = HttpRequest::new("POST", &endpoint)
        .bearer(&server.token)
        .with("Content-Type", "application/octet-stream")
        .framed(Framing::Length);
    request.body = file(4 << 20).into();
    http.send_head(&request).await.unwrap();
    http.send_bytes(&request.body[..sent]).await.unwrap();
    http
}

#[tokio::test]
async fn an_upload_that_is_cut_leaves_nothing_and_can_be_repeated() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let settings = [
        ("server.store", "sqlite"),
        ("server.data_dir", data.to_str().unwrap()),
        ("packages.uploads_max", "1"),
    ];
    let server = TestServer::start_with(config(&settings)).await;
    for sent in [0, 1, (3 << 20) + 17] {
        half_an_upload(&server, "1", sent).await.into_stream().reset();
        // The place of the cut upload is free again once the server has noticed.
        let whole = uploading("b", &sent.to_string());
        let mut answer = server.admin.upload(&whole, file(10)).await;
        for _ in 0..1_000 {
            if answer.status != 503 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = server.admin.upload(&whole, file(10)).await;
        }
        answer.expect(201);
        server.admin.get("/api/v1/packages/a@1").await.error(404);
    }
    assert_eq!(server.audit("package.publish").await.len(), 3, "only those that were whole");
    server.admin.upload(&uploading("a", "1"), file(4 << 20)).await.expect(201);
}

#[tokio::test]
async fn an_upload_that_takes_too_long_leaves_nothing() {
    for (limit, key) in [
        (("packages.upload_timeout", "300ms"), "packages.upload_timeout"),
        (("admin.request_timeout", "500ms"), "admin.request_timeout"),
    ] {
        let server = TestServer::start_with(config(&[limit])).await;
        let mut upload = half_an_upload(&server, "1", 2 << 20).await;
        let answer = upload.read_response().await.unwrap();
        assert_eq!(answer.status, 408);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains(key), "{text}");
        server.admin.get("/api/v1/packages/a@1").await.error(404);
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_other_requests() {
    let server = TestServer::start_with(config(&[("admin.request_timeout", "600ms")])).await;
    let mut upload = half_an_upload(&server, "1", 1 << 20).await;
    for part in 1..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        upload.send_bytes(&file(4 << 20)[part << 20..(part + 1) << 20]).await.unwrap();
    }
    assert_eq!(upload.read_response().await.unwrap().status, 201);
}

#[tokio::test]
async fn uploads_beyond_the_bound_are_told_to_come_later() {
    let server = TestServer::start_with(config(&[("packages.uploads_max", "1")])).await;
    let _first = half_an_upload(&server, "1", 1).await;
    // Until the server has seen the first one, the second is accepted.
    for attempt in 0..1_000 {
        let answer = server.admin.upload(&uploading("b", &attempt.to_string()), file(1)).await;
        if answer.status == 503 {
            assert!(answer.headers.contains_key("retry-after"));
            return;
        }
        answer.expect(201);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the second upload was always accepted");
}

/// What an agent reports when it has installed an offer completely.
fn installed(offer: &pb::PackagesAvailable) -> pb::PackageStatuses {
    let status = |(name, package): (&String, &pb::PackageAvailable)| {
        let status = pb::PackageStatus {
            name: name.clone(),
            agent_has_version: package.version.clone(),
            agent_has_hash: package.hash.clone(),
            server_offered_version: package.version.clone(),
            server_offered_hash: package.hash.clone(),
            status: pb::PackageStatusEnum::Installed as i32,
            ..Default::default()
        };
        (name.clone(), status)
    };
    pb::PackageStatuses {
        packages: offer.packages.iter().map(status).collect(),
        server_provided_all_packages_hash: offer.all_packages_hash.clone(),
        error_message: String::new(),
    }
}

/// R-PKG-02, R-PKG-03, R-PKG-46, R-PKG-53, R-SEC-12
#[tokio::test]
async fn assigned_packages_are_offered_with_all_an_agent_needs_and_shown_beside_its_reports() {
    for wire in [Wire::WebSocket, Wire::Http] {
        let server = TestServer::start().await;
        let (mut agent, agent_path) = connect(&server, wire, accepting(1)).await;
        let path = format!("{agent_path}/packages");
        let admin = &server.admin;
        let signature = BASE64.encode(&[7; 64]);
        admin.upload(&format!("{}&signature={signature}", uploading("", "2.0")), file(100)).await.expect(201);
        admin.upload("/api/v1/packages?name=plugin&version=1&type=add_on", file(101)).await.expect(201);
        admin.upload(&uploading("", "1.0"), file(102)).await.expect(201);

        let set = admin.put(&path, json!({"packages": {"": "2.0", "plugin": "1"}})).await.expect(200);
        assert_eq!(set["desired"]["packages"], json!({"": "2.0", "plugin": "1"}));
        assert_eq!(set["dispatch"], if wire == Wire::WebSocket { "pushed" } else { "next_poll" });
        let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
        let offer = message.packages_available.unwrap();
        assert_eq!(set["desired"]["hash"], HEXLOWER.encode(&offer.all_packages_hash).as_str());
        let top = &offer.packages[""];
        assert_eq!((top.r#type, top.version.as_str()), (pb::PackageType::TopLevel as i32, "2.0"));
        assert_eq!(offer.packages["plugin"].r#type, pb::PackageType::Addon as i32);
        let download = top.file.as_ref().unwrap();
        assert_eq!(HEXLOWER.encode(&download.content_hash), sha256(&file(100)));
        assert_eq!(download.signature.as_ref(), &[7; 64]);
        let base = format!("http://{}/v1/packages/", server.running.opamp_addr());
        assert!(download.download_url.starts_with(&base), "{}", download.download_url);
        let headers = &download.headers.as_ref().unwrap().headers;
        assert!(headers[0].key.eq_ignore_ascii_case("authorization"), "{}", headers[0].key);
        let token = headers[0].value.strip_prefix("Bearer ").unwrap().to_owned();

        let mut downloading = installed(&offer);
        let plugin = downloading.packages.get_mut("plugin").unwrap();
        plugin.status = pb::PackageStatusEnum::Downloading as i32;
        plugin.agent_has_version.clear();
        plugin.agent_has_hash = Default::default();
        plugin.download_details =
            Some(pb::PackageDownloadDetails { download_percent: 12.5, download_bytes_per_second: f64::NAN });
        agent.report(|report| report.package_statuses = Some(downloading)).await.unwrap();
        let shown = server.eventually(&path, |shown| shown["drift"] == "applying").await;
        let plugin = &shown["reported"]["packages"]["plugin"];
        assert_eq!((&plugin["status"], &plugin["download_percent"]), (&json!("DOWNLOADING"), &json!(12.5)));
        assert_eq!(plugin["download_bytes_per_second"], Value::Null, "no number of JSON");

        agent.report(|report| report.package_statuses = Some(installed(&offer))).await.unwrap();
        let shown = server.eventually(&path, |shown| shown["drift"] == "in_sync").await;
        assert_eq!(shown["reported"]["offered_hash"], set["desired"]["hash"]);
        assert_eq!(shown["offered"]["hash"], set["desired"]["hash"]);
        assert_eq!(shown["last_applied"]["hash"], set["desired"]["hash"]);

        // A lower version, and one package less.
        admin.put(&path, json!({"packages": {"": "1.0"}})).await.expect(200);
        let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
        let offer = message.packages_available.unwrap();
        let versions: Vec<_> = offer.packages.values().map(|package| package.version.as_str()).collect();
        assert_eq!(versions, ["1.0"]);
        // None at all is an offer too.
        let none = admin.put(&path, json!({"packages": {}})).await.expect(200);
        assert_eq!(none["desired"]["packages"], json!({}));
        let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
        let offer = message.packages_available.unwrap();
        assert!(offer.packages.is_empty() && !offer.all_packages_hash.is_empty());

        assert_eq!(admin.delete(&path).await.expect(200)["desired"], Value::Null);
        assert_eq!(server.audit("agent.assign_packages").await.len(), 3);
        let audit = admin.get("/api/v1/audit?limit=1000").await.expect(200).to_string();
        let detail = admin.get(&path).await.expect(200).to_string()
            + &admin.get(&agent_path).await.expect(200).to_string();
        assert!(!audit.contains(&token) && !detail.contains(&token), "a download token shows");
    }
}

#[tokio::test]
async fn a_failed_package_shows_the_agents_words() {
    let server = TestServer::start().await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let path = format!("{agent_path}/packages");
    server.admin.upload(&uploading("a", "1"), file(1)).await.expect(201);
    server.admin.put(&path, json!({"packages": {"a": "1"}})).await.expect(200);
    let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
    let mut failed = installed(&message.packages_available.unwrap());
    let status = failed.packages.get_mut("a").unwrap();
    status.status = pb::PackageStatusEnum::InstallFailed as i32;
    status.error_message = "the signature does not fit".into();
    agent.report(|report| report.package_statuses = Some(failed)).await.unwrap();
    let shown = server.eventually(&path, |shown| shown["drift"] == "failed").await;
    assert_eq!(shown["reported"]["packages"]["a"]["status"], "INSTALL_FAILED");
    assert_eq!(shown["reported"]["packages"]["a"]["error"], "the signature does not fit");
    assert!(
        shown["last_failure"]["error"].as_str().unwrap().contains("the signature does not fit"),
        "{shown}"
    );
}

#[tokio::test]
async fn assignments_that_make_no_sense_are_refused_by_what_is_wrong() {
    let server = TestServer::start_with(config(&[("packages.per_agent_max", "2")])).await;
    let (_agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let (_other, deaf) = connect(&server, Wire::WebSocket, Persona::new(2)).await;
    let path = format!("{agent_path}/packages");
    let admin = &server.admin;
    for name in ["a", "b", "c"] {
        admin.upload(&uploading(name, "1"), file(1)).await.expect(201);
    }
    let (_, message) = admin.put(&path, json!({"packages": {"a": "2"}})).await.error(404);
    assert!(message.contains("\"2\"") && message.contains("\"a\""), "{message}");
    admin.put(&path, json!({"packages": {"a": "1", "b": "1", "c": "1"}})).await.error(400);
    admin.put(&path, json!({"packages": {"a": 1}})).await.error(400);
    admin.put(&path, json!({"package": {}})).await.error(400);
    admin.put(MISSING, json!({"packages": {"a": "1"}})).await.error(404);
    admin.get(MISSING).await.error(404);
    admin.delete(MISSING).await.error(404);
    let (_, message) =
        admin.put(&format!("{deaf}/packages"), json!({"packages": {"a": "1"}})).await.error(409);
    assert!(message.contains("AcceptsPackages"), "{message}");

    admin.put(&path, json!({"packages": {"a": "1"}})).await.expect(200);
    let (_, message) = admin.delete("/api/v1/packages/a@1").await.error(409);
    assert!(message.contains(agent_path.rsplit_once('/').unwrap().1), "it names the agent: {message}");
    admin.delete("/api/v1/packages/b@1").await.expect(204);
    admin.put(&path, json!({"packages": {"c": "1"}})).await.expect(200);
    admin.delete("/api/v1/packages/a@1").await.expect(204);
    for wrong in ["a", "a@", "@"] {
        admin.get(&format!("/api/v1/packages/{wrong}")).await.error(400);
    }
}

#[tokio::test]
async fn switched_off_packages_are_neither_announced_nor_served() {
    for (enabled, status, served) in [("true", 201, 401), ("false", 409, 404)] {
        let server = TestServer::start_with(config(&[("packages.enabled", enabled)])).await;
        let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), Wire::WebSocket);
        let (_agent, first) = connector.start(accepting(1)).await.unwrap();
        let about_packages =
            ServerCapabilities::OFFERS_PACKAGES | ServerCapabilities::ACCEPTS_PACKAGES_STATUS;
        let announced = ServerCapabilities::from_bits(first.capabilities & about_packages.bits());
        assert_eq!(announced.bits() != 0, enabled == "true", "{announced:?}");
        server.admin.upload(&uploading("a", "1"), file(1)).await.expect(status);
        let path = format!("/v1/packages/01890000-0000-7000-8000-000000000000/{}", "ab".repeat(32));
        let endpoint = Endpoint::plain(server.running.opamp_addr()).with_path(&path);
        let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
        let answer = http.exchange(&HttpRequest::new("GET", &endpoint)).await.unwrap();
        assert_eq!(answer.status, served, "{enabled}");
    }
}

#[tokio::test]
async fn without_an_address_that_agents_can_reach_nothing_is_assigned() {
    let mut config = config(&[("packages.public_url", "https://opamp.example.com:4320/")]);
    let server = TestServer::start_with(config.clone()).await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    server.admin.upload(&uploading("a", "1"), file(1)).await.expect(201);
    server.admin.put(&format!("{agent_path}/packages"), json!({"packages": {"a": "1"}})).await.expect(200);
    let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
    let offer = message.packages_available.unwrap();
    let url = &offer.packages["a"].file.as_ref().unwrap().download_url;
    assert!(url.starts_with("https://opamp.example.com:4320/v1/packages/"), "{url}");

    config.packages.public_url = None;
    config.opamp.listen = ([0, 0, 0, 0], 0).into();
    config.opamp.auth = reference_server::config::AgentAuth::Token;
    config.opamp.tokens = vec!["edge=good".parse().unwrap()];
    config.opamp.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = TestServer::start_with(config).await;
    let port = server.running.opamp_addr().port();
    let endpoint = Endpoint::plain(([127, 0, 0, 1], port).into());
    let connector = Connector::new(endpoint, Wire::WebSocket).with_token("good");
    let (agent, _) = connector.start(accepting(1)).await.unwrap();
    let agent_path = support::path_of(&server, &agent.persona.uid).await;
    server.admin.upload(&uploading("a", "1"), file(1)).await.expect(201);
    let answer = server.admin.put(&format!("{agent_path}/packages"), json!({"packages": {"a": "1"}})).await;
    let hint = answer.expect(409)["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("packages.public_url"), "{hint}");
}
