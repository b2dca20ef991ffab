//! Package files over the real OpAMP port: what an agent gets with the token of its offer, and what nobody else gets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{fs, time::Duration};

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, ScriptedAgent, Wire},
    certs::Authority,
    raw::{Endpoint, HttpRequest, HttpResponse, RawHttp},
    transcript::Transcript,
};
use serde_json::{Value, json};
use support::{TempDir, TestServer, config, connect, path_of};

fn accepting(number: u32) -> Persona {
    Persona::new(number)
        .and(AgentCapabilities::ACCEPTS_PACKAGES)
        .and(AgentCapabilities::REPORTS_PACKAGE_STATUSES)
}

fn file(bytes: usize, seed: usize) -> Bytes {
    (0..bytes).map(|at| ((at + seed) * 7 % 251) as u8).collect::<Vec<_>>().into()
}

async fn upload(server: &TestServer, name: &str, version: &str, content: Bytes) {
    let kind = if name.is_empty() { "top_level" } else { "add_on" };
    let path = format!("/api/v1/packages?name={name}&version={version}&type={kind}");
    server.admin.upload(&path, content).await.expect(201);
}

/// Where and with what an agent downloads a package.
#[derive(Clone, Debug)]
struct Ticket {
    /// The part of the URL that is a path.
    path: String,
    authorization: String,
}

impl Ticket {
    fn of(package: &pb::PackageAvailable) -> Self {
        let file = package.file.as_ref().unwrap();
        let (_, rest) = file.download_url.split_once("://").unwrap();
        let path = rest[rest.find('/').unwrap()..].to_owned();
        let header = &file.headers.as_ref().unwrap().headers[0];
        Ticket { path, authorization: header.value.clone() }
    }
}

/// Assigns packages and takes the offer.
async fn offered(
    server: &TestServer,
    agent: &mut ScriptedAgent,
    agent_path: &str,
    packages: Value,
) -> pb::PackagesAvailable {
    server.admin.put(&format!("{agent_path}/packages"), json!({"packages": packages})).await.expect(200);
    let message = agent.until(|message| message.packages_available.is_some()).await.unwrap();
    message.packages_available.unwrap()
}

async fn ask(endpoint: &Endpoint, method: &str, ticket: &Ticket, headers: &[(&str, &str)]) -> HttpResponse {
    let endpoint = endpoint.clone().with_path(&ticket.path);
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let mut request = HttpRequest::new(method, &endpoint)
        .with("Authorization", &ticket.authorization)
        .with("Connection", "close");
    for (name, value) in headers {
        request = request.with(name, value);
    }
    http.exchange(&request).await.unwrap()
}

fn plain(server: &TestServer) -> Endpoint {
    Endpoint::plain(server.running.opamp_addr())
}

/// R-PKG-01, R-PKG-04, R-PKG-49, R-PKG-52, R-SEC-12, R-SEC-13
#[tokio::test]
async fn an_agent_downloads_every_package_of_its_offer_byte_for_byte_whole_and_resumed() {
    let server = TestServer::start().await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let (top, add_on) = (file((5 << 20) + 3, 0), file(1 << 20, 1));
    upload(&server, "", "1", top.clone()).await;
    upload(&server, "plugin", "1", add_on.clone()).await;
    let offer = offered(&server, &mut agent, &path, json!({"": "1", "plugin": "1"})).await;
    let endpoint = plain(&server);
    for (name, content) in [("", &top), ("plugin", &add_on)] {
        let ticket = Ticket::of(&offer.packages[name]);
        let whole = ask(&endpoint, "GET", &ticket, &[]).await;
        assert_eq!((whole.status, whole.body == *content), (200, true), "{name:?}");
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        let etag = whole.header("etag").unwrap().to_owned();
        // Cut somewhere and resumed, as an agent does it.
        for at in [1, (1 << 20) - 1, 1 << 20, content.len() - 1] {
            let at = at.min(content.len() - 1);
            let range = format!("bytes={at}-");
            let rest = ask(&endpoint, "GET", &ticket, &[("Range", &range), ("If-Range", &etag)]).await;
            assert_eq!((rest.status, rest.body == content.slice(at..)), (206, true), "{name:?} from {at}");
            let expected = format!("bytes {at}-{}/{}", content.len() - 1, content.len());
            assert_eq!(rest.header("content-range"), Some(expected.as_str()));
        }
        let changed = ask(&endpoint, "GET", &ticket, &[("Range", "bytes=1-"), ("If-Range", "\"x\"")]).await;
        assert_eq!((changed.status, changed.body.len()), (200, content.len()));
        let beyond = format!("bytes={}-", content.len());
        let beyond = ask(&endpoint, "GET", &ticket, &[("Range", &beyond)]).await;
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", content.len()).as_str()));
    }
    let metrics = server.admin.get("/metrics").await.text();
    let completed = r#"opamp_package_downloads_total{outcome="completed"} 12"#;
    assert!(metrics.lines().any(|line| line == completed), "{metrics}");
}

/// R-PKG-52
#[tokio::test]
async fn head_tells_size_and_tag_without_the_file() {
    let server = TestServer::start().await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    upload(&server, "a", "1", file(1000, 0)).await;
    let offer = offered(&server, &mut agent, &path, json!({"a": "1"})).await;
    let ticket = Ticket::of(&offer.packages["a"]);
    let endpoint = plain(&server).with_path(&ticket.path);
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let request = HttpRequest::new("HEAD", &endpoint)
        .with("Authorization", &ticket.authorization)
        .with("Connection", "close");
    http.send(&request).await.unwrap();
    let (bytes, _) = http.stream_mut().read_to_end().await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap().to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{text}");
    assert!(text.contains("content-length: 1000\r\n") && text.contains("etag: \""), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "no body: {text}");
}

#[tokio::test]
async fn what_is_not_this_agents_or_not_any_more_is_not_there() {
    let server = TestServer::start().await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let (mut other, other_path) = connect(&server, Wire::WebSocket, accepting(2)).await;
    upload(&server, "a", "1", file(1000, 0)).await;
    upload(&server, "b", "1", file(1000, 1)).await;
    let own =
        Ticket::of(&offered(&server, &mut agent, &path, json!({"a": "1", "b": "1"})).await.packages["a"]);
    let others =
        Ticket::of(&offered(&server, &mut other, &other_path, json!({"a": "1"})).await.packages["a"]);
    assert_ne!(own.authorization, others.authorization);
    let endpoint = plain(&server);
    let crossed = Ticket { path: own.path.clone(), authorization: others.authorization.clone() };
    assert_eq!(ask(&endpoint, "GET", &crossed, &[]).await.status, 404, "another agent's token");
    let forged = Ticket { path: own.path.clone(), authorization: "Bearer AAAA".into() };
    assert_eq!(ask(&endpoint, "GET", &forged, &[]).await.status, 404);
    let admin = Ticket { path: own.path.clone(), authorization: format!("Bearer {}", server.token) };
    assert_eq!(ask(&endpoint, "GET", &admin, &[]).await.status, 404, "an API token opens nothing here");
    let none = Ticket { path: own.path.clone(), authorization: "Basic eDp5".into() };
    assert_eq!(ask(&endpoint, "GET", &none, &[]).await.status, 401);
    assert_eq!(ask(&endpoint, "GET", &own, &[]).await.status, 200);

    // Another set, without it: the token that was good opens nothing any more.
    offered(&server, &mut agent, &path, json!({"b": "1"})).await;
    assert_eq!(ask(&endpoint, "GET", &own, &[]).await.status, 404, "not assigned any more");
    assert_eq!(ask(&endpoint, "GET", &others, &[]).await.status, 200, "still assigned to the other one");
    server.admin.delete(&format!("{other_path}/packages")).await.expect(200);
    server.admin.delete("/api/v1/packages/a@1").await.expect(204);
    assert_eq!(ask(&endpoint, "GET", &others, &[]).await.status, 404, "deleted");
    // Assigned again, it is the same token: agents that kept the offer go on.
    upload(&server, "a", "1", file(1000, 0)).await;
    let again = Ticket::of(&offered(&server, &mut agent, &path, json!({"a": "1"})).await.packages["a"]);
    assert_eq!(again.authorization, own.authorization);
    assert_eq!(ask(&endpoint, "GET", &own, &[]).await.status, 200);

    let refused = server.audit("package.download_refused").await;
    assert_eq!(refused.len(), 5, "one for each that a token did not open");
    let text = serde_json::to_string(&refused).unwrap();
    assert!(refused[0]["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{text}");
    assert!(!text.contains(own.authorization.strip_prefix("Bearer ").unwrap()), "{text}");
}

#[tokio::test]
async fn files_come_over_tls_as_the_protocol_does() {
    let dir = TempDir::new();
    let authority = Authority::new("fleet");
    let identity = authority.server(&["localhost"]);
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    fs::write(&cert, identity.cert_pem).unwrap();
    fs::write(&key, identity.key_pem).unwrap();
    let mut config = config(&[]);
    (config.opamp.tls_cert, config.opamp.tls_key) = (Some(cert), Some(key));
    let server = TestServer::start_with(config).await;
    let endpoint = Endpoint::tls(server.running.opamp_addr(), authority.client_config(), "localhost");
    let connector = Connector::new(endpoint.clone(), Wire::WebSocket);
    let (mut agent, _) = connector.start(accepting(1)).await.unwrap();
    let path = path_of(&server, &agent.persona.uid).await;
    let content = file((2 << 20) + 1, 0);
    upload(&server, "a", "1", content.clone()).await;
    let offer = offered(&server, &mut agent, &path, json!({"a": "1"})).await;
    assert!(offer.packages["a"].file.as_ref().unwrap().download_url.starts_with("https://"));
    let ticket = Ticket::of(&offer.packages["a"]);
    let answer = ask(&endpoint, "GET", &ticket, &[("Range", "bytes=7-")]).await;
    assert_eq!((answer.status, answer.body == content.slice(7..)), (206, true));
}

#[tokio::test]
async fn downloads_are_bounded_and_a_reader_that_takes_nothing_loses_its_place() {
    let server =
        TestServer::start_with(config(&[("packages.downloads_max", "1"), ("opamp.write_timeout", "500ms")]))
            .await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    // More than what the sockets' buffers take.
    upload(&server, "a", "1", file(24 << 20, 0)).await;
    let offer = offered(&server, &mut agent, &path, json!({"a": "1"})).await;
    let ticket = Ticket::of(&offer.packages["a"]);
    let endpoint = plain(&server).with_path(&ticket.path);
    let mut slow = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let request = HttpRequest::new("GET", &endpoint).with("Authorization", &ticket.authorization);
    slow.send(&request).await.unwrap();
    slow.stream_mut().read_exact(1, "the answer begins").await.unwrap();

    let second = ask(&endpoint, "GET", &ticket, &[("Range", "bytes=0-0")]).await;
    assert_eq!(second.status, 503);
    assert!(second.header("retry-after").unwrap().parse::<u64>().unwrap() >= 15);
    for _ in 0..2_000 {
        if ask(&endpoint, "GET", &ticket, &[("Range", "bytes=0-0")]).await.status == 206 {
            // The slow one finds its file cut, not whole.
            let (rest, _) = slow.stream_mut().read_to_end().await.unwrap();
            assert!(rest.len() < 24 << 20, "{}", rest.len());
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a reader that takes nothing keeps its place");
}

#[tokio::test]
async fn a_download_that_the_client_gives_up_gives_its_place_back() {
    let server = TestServer::start_with(config(&[("packages.downloads_max", "1")])).await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    upload(&server, "a", "1", file(24 << 20, 0)).await;
    let ticket = Ticket::of(&offered(&server, &mut agent, &path, json!({"a": "1"})).await.packages["a"]);
    let endpoint = plain(&server).with_path(&ticket.path);
    let mut gone = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    gone.send(&HttpRequest::new("GET", &endpoint).with("Authorization", &ticket.authorization))
        .await
        .unwrap();
    gone.stream_mut().read_exact(1, "the answer begins").await.unwrap();
    gone.into_stream().reset();
    for _ in 0..2_000 {
        if ask(&endpoint, "GET", &ticket, &[("Range", "bytes=0-0")]).await.status == 206 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was not given back");
}

#[tokio::test]
async fn downloads_survive_a_restart_of_the_server() {
    let dir = TempDir::new();
    let data = dir.path().join("data");
    let settings = [("server.store", "sqlite"), ("server.data_dir", data.to_str().unwrap())];
    let settings: Vec<(&'static str, &str)> = settings.to_vec();
    let server = TestServer::start_with(config(&settings)).await;
    let (mut agent, path) = connect(&server, Wire::WebSocket, accepting(1)).await;
    let content = file((1 << 20) + 9, 0);
    upload(&server, "a", "1", content.clone()).await;
    let offer = offered(&server, &mut agent, &path, json!({"a": "1"})).await;
    let ticket = Ticket::of(&offer.packages["a"]);
    let shown = |body: &Value| !body["offered"].is_null();
    let before = server.eventually(&format!("{path}/packages"), shown).await;
    let token = server.token.clone();
    agent.vanish();
    assert!(server.running.shutdown().await);

    let running = reference_server::Server::start(config(&settings)).await.unwrap();
    let admin = support::Client::new(running.admin_addr(), Some(&token));
    let after = admin.get(&format!("{path}/packages")).await.expect(200);
    for part in ["desired", "generation", "offered"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    let listed = admin.get("/api/v1/packages/a@1").await.expect(200);
    assert_eq!(listed["size_bytes"], content.len());
    // The ports are other ones now; the path and the token of the old offer are good as they were.
    let answer = ask(&Endpoint::plain(running.opamp_addr()), "GET", &ticket, &[]).await;
    assert_eq!((answer.status, answer.body == content), (200, true));
    // And who comes back with the old hash meanwhile is not offered the same again.
    let connector = Connector::new(Endpoint::plain(running.opamp_addr()), Wire::WebSocket);
    let mut persona = agent.persona.clone();
    persona.package_statuses = Some(pb::PackageStatuses {
        server_provided_all_packages_hash: offer.all_packages_hash.clone(),
        ..Default::default()
    });
    let (_agent, answer) = connector.start(persona).await.unwrap();
    assert_eq!(answer.packages_available, None);
    assert!(running.shutdown().await);
}
