//! Agents, configs and assignments through the REST API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use data_encoding::BASE64;
use serde_json::{Value, json};
use support::{Agent, Client, TestServer};

const MISSING: &str = "/api/v1/agents/01890000-0000-7000-8000-000000000000";

/// Connects an agent and answers its path in the API.
async fn connect(server: &TestServer, number: u8) -> (Agent, String) {
    let agent = Agent::connect(&server.endpoint("ws"), number).await;
    let uid = agent.uid.to_string();
    let has_it =
        |page: &Value| page["agents"].as_array().unwrap().iter().any(|agent| agent["uid"] == uid.as_str());
    let page = server.eventually("/api/v1/agents", has_it).await;
    let agents = page["agents"].as_array().unwrap();
    let id = agents.iter().find(|agent| agent["uid"] == uid.as_str()).unwrap()["id"].as_str().unwrap();
    (agent, format!("/api/v1/agents/{id}"))
}

async fn publish(admin: &Client, name: &str, body: &str) -> String {
    let files = json!({"": {"body": body, "content_type": "text/yaml"}, "extra": {"body_base64": "/wA=", "role": "r"}});
    let made = admin
        .post("/api/v1/configs", json!({"name": name, "files": files, "comment": "first"}))
        .await
        .expect(201);
    admin.order(&format!("/api/v1/configs/{name}/versions/1/publish")).await.expect(200);
    made["hash"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_connected_agent_is_listed_with_everything_it_said() {
    let server = TestServer::start().await;
    let (agent, path) = connect(&server, 1).await;
    let detail = server.admin.get(&path).await.expect(200);
    assert_eq!(detail["uid"], agent.uid.to_string());
    assert_eq!(detail["agent_type"], "otelcol");
    assert_eq!(detail["version"], "0.130.0");
    assert_eq!(detail["host_name"], "host-1");
    assert_eq!(
        (&detail["liveness"], &detail["health"], &detail["drift"]),
        (&json!("connected"), &json!("healthy"), &json!("unmanaged"))
    );
    assert_eq!(detail["transport"], "websocket");
    assert!(detail["remote_address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(detail["description"]["identifying"]["service.name"], "otelcol");
    assert_eq!(detail["description"]["non_identifying"]["host.name"], "host-1");
    assert_eq!(detail["health_report"]["status"], "running");
    let capabilities: Vec<_> =
        detail["capabilities"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(
        capabilities.contains(&"AcceptsRemoteConfig") && capabilities.contains(&"ReportsHealth"),
        "{capabilities:?}"
    );
    assert!(detail["connected_at"].is_string() && detail["last_message"].is_string());
    assert_eq!(detail["sticky"]["connects"], 1);
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let server = TestServer::start().await;
    let mut agents = Vec::new();
    for number in 1..=5 {
        agents.push(connect(&server, number).await);
    }
    server
        .admin
        .put(&format!("{}/labels", agents[0].1), json!({"labels": {"env": "prod"}}))
        .await
        .expect(204);
    for (query, expected) in [
        ("", 5),
        ("?selector=env%3Dprod", 1),
        ("?selector=!env", 4),
        ("?selector=host.name%20in%20(host-1,host-2)", 2),
        ("?selector=service.name%3Dotelcol,env!%3Dprod", 4),
        ("?liveness=connected", 5),
        ("?liveness=stale", 0),
        ("?health=healthy&drift=unmanaged", 5),
        ("?drift=failed", 0),
    ] {
        let page = server.admin.get(&format!("/api/v1/agents{query}")).await.expect(200);
        assert_eq!(page["agents"].as_array().unwrap().len(), expected, "{query}");
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.admin.get(&format!("/api/v1/agents?limit=2{cursor}")).await.expect(200);
        seen.extend(
            page["agents"].as_array().unwrap().iter().map(|agent| agent["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn a_bad_selector_is_refused_with_its_position() {
    let server = TestServer::start().await;
    let answer = server.admin.get("/api/v1/agents?selector=env%3D%3D%3Dprod").await;
    let (code, message) = answer.error(400);
    assert_eq!(code, "invalid_selector");
    assert!(message.starts_with("selector, character "), "{message}");
    let hint = answer.expect(400)["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.starts_with("env===prod\n") && hint.ends_with('^'), "{hint}");
    for query in ["liveness=gone", "health=ill", "drift=x", "limit=0", "limit=1001", "limit=x", "cursor=x"] {
        assert_eq!(
            server.admin.get(&format!("/api/v1/agents?{query}")).await.error(400).0,
            "bad_request",
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_config_goes_from_draft_to_agent_and_back_into_the_record() {
    let server = TestServer::start().await;
    let hash = publish(&server.admin, "edge", "receivers: {}\n").await;
    let (mut agent, path) = connect(&server, 1).await;
    let wanted = json!({"config": "edge", "version": 1});
    let keyed = server.admin.header("idempotency-key", "once");
    let assigned = keyed.post(&format!("{path}/assign"), wanted.clone()).await.expect(200);
    assert_eq!((&assigned["dispatch"], &assigned["replayed"]), (&json!("pushed"), &json!(false)));
    assert_eq!(assigned["desired_config"]["assigned_by"], "first-admin");
    let again = keyed.post(&format!("{path}/assign"), wanted).await.expect(200);
    assert_eq!(again["replayed"], true);
    assert_eq!(again["desired_config"]["generation"], assigned["desired_config"]["generation"]);

    let offer = agent.take_offer(None).await;
    assert_eq!(data_encoding::HEXLOWER.encode(&offer.config_hash), hash);
    let files = offer.config.unwrap().config_map;
    assert_eq!(files[""].body.as_ref(), b"receivers: {}\n");
    assert_eq!((files["extra"].body.as_ref(), files["extra"].role.as_str()), (&[0xff, 0][..], "r"));
    let detail = server.eventually(&path, |agent| agent["drift"] == "in_sync").await;
    assert_eq!(detail["remote_config_status"], json!({"hash": hash, "status": "APPLIED", "error": ""}));
    assert_eq!(detail["effective_config"][""]["body"], "receivers: {}\n");
    assert_eq!(detail["effective_config"]["extra"]["body_base64"], BASE64.encode(&[0xff, 0]));
    assert_eq!(detail["effective_config"]["extra"]["body"], Value::Null);
    assert_eq!(detail["last_known_good"], hash.as_str());
    assert_eq!(detail["apply_error"], Value::Null);

    let unassigned = server.admin.delete(&format!("{path}/assign")).await.expect(200);
    assert_eq!(unassigned["desired_config"], Value::Null);
    let detail = server.admin.get(&path).await.expect(200);
    assert_eq!(detail["history"][0]["config"], "edge");
    assert_eq!(detail["drift"], "unmanaged");
    for (action, entries) in
        [("agent.assign", 1), ("agent.unassign", 1), ("config.publish", 1), ("config.create", 1)]
    {
        let found = server.audit(action).await;
        assert_eq!(found.len(), entries, "{action}");
        assert_eq!((&found[0]["actor"], &found[0]["role"]), (&json!("first-admin"), &json!("admin")));
        assert!(found[0]["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{action}");
    }
}

#[tokio::test]
async fn a_failed_config_shows_the_agents_words() {
    let server = TestServer::start().await;
    publish(&server.admin, "broken", "x: [\n").await;
    let (mut agent, path) = connect(&server, 1).await;
    server.admin.post(&format!("{path}/assign"), json!({"config": "broken", "version": 1})).await.expect(200);
    agent.take_offer(Some("line 1: unexpected end")).await;
    let detail = server.eventually(&path, |agent| agent["drift"] == "failed").await;
    assert_eq!(detail["apply_error"], "line 1: unexpected end");
    assert_eq!(detail["remote_config_status"]["status"], "FAILED");
    assert_eq!(detail["sticky"]["last_failure"]["error"], "line 1: unexpected end");
}

#[tokio::test]
async fn commands_reach_connected_agents_and_are_refused_for_others() {
    let server = TestServer::start().await;
    let (mut agent, path) = connect(&server, 1).await;
    assert_eq!(server.admin.order(&format!("{path}/restart")).await.expect(202)["dispatch"], "pushed");
    assert!(agent.receive().await.command.is_some());
    assert_eq!(server.audit("agent.restart").await.len(), 1);
    server.admin.order(&format!("{path}/request-full-state")).await.expect(202);
    assert_ne!(agent.receive().await.flags & 1, 0, "ReportFullState");
    let recorded = &server.audit("agent.request_full_state").await[0];
    assert_eq!((&recorded["actor"], &recorded["role"]), (&json!("first-admin"), &json!("admin")));
    assert_eq!(recorded["entity"], format!("agent:{}", path.rsplit_once('/').unwrap().1));

    drop(agent);
    server.eventually(&path, |agent| agent["liveness"] == "disconnected").await;
    let detail = server.admin.get(&path).await.expect(200);
    assert_eq!(detail["disconnect"]["graceful"], false);
    for command in ["restart", "request-full-state"] {
        server.admin.order(&format!("{path}/{command}")).await.error(409);
        server.admin.order(&format!("{MISSING}/{command}")).await.error(404);
        server.admin.order(&format!("/api/v1/agents/nobody/{command}")).await.error(400);
    }
    for action in ["agent.restart", "agent.request_full_state"] {
        assert_eq!(server.audit(action).await.len(), 1, "{action}: only what was ordered is recorded");
    }
}

#[tokio::test]
async fn assignments_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    let (_agent, path) = connect(&server, 1).await;
    let assign = format!("{path}/assign");
    server
        .admin
        .post("/api/v1/configs", json!({"name": "draft", "files": {"a": {"body": "x"}}}))
        .await
        .expect(201);
    let (_, message) = server.admin.post(&assign, json!({"config": "draft", "version": 1})).await.error(409);
    assert!(message.contains("only published versions"), "{message}");
    server.admin.post(&assign, json!({"config": "none", "version": 1})).await.error(404);
    let missing = format!("{MISSING}/assign");
    publish(&server.admin, "fine", "a: 1").await;
    server.admin.post(&missing, json!({"config": "fine", "version": 1})).await.error(404);
    server.admin.delete(&missing).await.error(404);
    let long = server.admin.header("idempotency-key", &"k".repeat(65));
    long.post(&assign, json!({"config": "fine", "version": 1})).await.error(400);
    server.admin.post(&assign, json!({"config": "fine", "version": "1"})).await.error(400);
    server.admin.post(&assign, json!({"config": "fine"})).await.error(400);
}

#[tokio::test]
async fn labels_are_replaced_as_a_whole_and_checked() {
    let server = TestServer::start().await;
    let (_agent, path) = connect(&server, 1).await;
    let labels = format!("{path}/labels");
    server.admin.put(&labels, json!({"labels": {"env": "prod", "team": "a"}})).await.expect(204);
    server.admin.put(&labels, json!({"labels": {"env": "dev"}})).await.expect(204);
    assert_eq!(server.admin.get(&path).await.expect(200)["labels"], json!({"env": "dev"}));
    assert_eq!(server.audit("agent.label").await.len(), 2);
    server.admin.put(&labels, json!({"labels": {"env": "x".repeat(300)}})).await.error(400);
    server.admin.put(&labels, json!({"label": {}})).await.error(400);
    server.admin.put(&format!("{MISSING}/labels"), json!({"labels": {}})).await.error(404);
}

#[tokio::test]
async fn a_deleted_agent_is_gone_until_it_comes_back_as_a_new_one() {
    let server = TestServer::start().await;
    let (mut agent, path) = connect(&server, 1).await;
    server.admin.delete(&path).await.expect(204);
    server.admin.get(&path).await.error(404);
    server.admin.delete(&path).await.error(404);
    assert_eq!(server.audit("agent.delete").await.len(), 1);
    agent.closed().await;
    let (_agent, again) = connect(&server, 1).await;
    assert_ne!(path, again);
}

#[tokio::test]
async fn drafts_change_under_if_match_only_and_published_versions_never() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let made = admin.post("/api/v1/configs", json!({"name": "c", "files": {"a": {"body": "1"}}})).await;
    made.expect(201);
    let tag = made.headers["etag"].to_str().unwrap().to_owned();
    let path = "/api/v1/configs/c/versions/1";
    let shown = admin.get(path).await;
    assert_eq!(shown.headers["etag"], tag.as_str());
    let content = shown.expect(200);
    assert_eq!(content["files"]["a"]["body"], "1");
    let change = json!({"files": {"a": {"body": "2"}}, "comment": "second thought"});
    admin.put(path, change.clone()).await.error(428);
    admin.header("if-match", "\"999\"").put(path, change.clone()).await.error(412);
    admin.header("if-match", "x").put(path, change.clone()).await.error(400);
    let changed = admin.header("if-match", &tag).put(path, change.clone()).await;
    assert_eq!(changed.expect(200)["comment"], "second thought");
    let newer = changed.headers["etag"].to_str().unwrap().to_owned();
    assert_ne!(newer, tag);

    admin.header("if-match", &tag).order(&format!("{path}/publish")).await.error(412);
    let published = admin.header("if-match", &newer).order(&format!("{path}/publish")).await;
    assert_eq!(published.expect(200)["published_by"], "first-admin");
    let tag = published.headers["etag"].to_str().unwrap().to_owned();
    admin.header("if-match", &tag).put(path, change).await.error(409);
    admin.order(&format!("{path}/publish")).await.error(409);
    assert_eq!(admin.order(&format!("{path}/archive")).await.expect(200)["state"], "archived");
    admin.order(&format!("{path}/archive")).await.error(409);
}

#[tokio::test]
async fn configs_are_listed_with_their_versions_and_compared() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    publish(admin, "edge", "a: 1\nb: 2\n").await;
    publish(admin, "core", "x: 1\n").await;
    let second =
        json!({"files": {"": {"body": "a: 1\nb: 3\n", "content_type": "text/x-yaml"}, "new": {"body": "n"}}});
    assert_eq!(admin.post("/api/v1/configs/edge/versions", second.clone()).await.expect(201)["version"], 2);
    admin.post("/api/v1/configs/none/versions", second).await.error(404);

    let page = admin.get("/api/v1/configs?limit=1").await.expect(200);
    assert_eq!((&page["configs"][0]["name"], &page["next_cursor"]), (&json!("core"), &json!("core")));
    let page = admin.get("/api/v1/configs?limit=1&cursor=core").await.expect(200);
    assert_eq!((&page["configs"][0]["versions"], &page["next_cursor"]), (&json!(2), &Value::Null));
    assert_eq!(page["configs"][0]["latest"]["state"], "draft");
    let config = admin.get("/api/v1/configs/edge").await.expect(200);
    assert_eq!(config["versions"].as_array().unwrap().len(), 2);

    let diff = admin.get("/api/v1/configs/edge/diff?from=1&to=2").await.expect(200);
    let files = diff["files"].as_array().unwrap();
    let changes: Vec<_> =
        files.iter().map(|file| (file["name"].as_str().unwrap(), file["change"].as_str().unwrap())).collect();
    assert_eq!(changes, [("", "modified"), ("extra", "removed"), ("new", "added")]);
    assert!(files[0]["unified"].as_str().unwrap().contains("-b: 2\n+b: 3\n"), "{}", files[0]);
    assert_eq!(files[0]["content_type"], json!({"before": "text/yaml", "after": "text/x-yaml"}));
    assert_eq!(files[1]["body"], "binary");
    admin.get("/api/v1/configs/edge/diff?from=1").await.error(400);
    admin.get("/api/v1/configs/edge/diff?from=1&to=x").await.error(400);
    admin.get("/api/v1/configs/edge/diff?from=1&to=9").await.error(404);
    admin.get("/api/v1/configs/none").await.error(404);
    admin.get("/api/v1/configs/edge/versions/9").await.error(404);
    admin.get("/api/v1/configs/edge/versions/x").await.error(400);
}

#[tokio::test]
async fn configs_that_cannot_be_offered_are_refused() {
    let server = TestServer::start().await;
    for wrong in [
        json!({"name": "c", "files": {}}),
        json!({"name": "no spaces", "files": {"a": {"body": "x"}}}),
        json!({"name": "c", "files": {"a": {}}}),
        json!({"name": "c", "files": {"a": {"body": "x", "body_base64": "eA=="}}}),
        json!({"name": "c", "files": {"a": {"body_base64": "not base64"}}}),
        json!({"name": "c", "files": {"a": {"body": 1}}}),
        json!({"name": "c", "files": {"a": {"body": "x", "content_type": "x".repeat(300)}}}),
    ] {
        server.admin.post("/api/v1/configs", wrong.clone()).await.error(400);
    }
    let nested = json!({"name": "c", "files": {"a": {"bodi": "x"}}});
    let (code, message) = server.admin.post("/api/v1/configs", nested).await.error(400);
    assert!(code == "unknown_field" && message.contains("nearest known one is `body`"), "{message}");
    publish(&server.admin, "c", "x").await;
    server
        .admin
        .post("/api/v1/configs", json!({"name": "c", "files": {"a": {"body": "x"}}}))
        .await
        .error(409);
}

#[tokio::test]
async fn the_parts_of_the_numbers_sum_to_the_whole() {
    let server = TestServer::start().await;
    let (agent, path) = connect(&server, 1).await;
    let (_other, _) = connect(&server, 2).await;
    drop(agent);
    server.eventually(&path, |agent| agent["liveness"] == "disconnected").await;
    let stats = server.admin.get("/api/v1/stats").await.expect(200);
    assert_eq!(stats["registered"], 2);
    assert_eq!(
        stats["by_liveness"],
        json!({"connected": 1, "stale": 0, "disconnected": 1, "expired": 0, "never_seen": 0})
    );
    for group in ["by_liveness", "by_health", "by_drift"] {
        let sum: u64 = stats[group].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, 2, "{group}");
    }
}

#[tokio::test]
async fn the_audit_log_is_filtered_paged_and_verified() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        publish(&server.admin, name, "x").await;
    }
    let verified = server.admin.get("/api/v1/audit/verify").await.expect(200);
    assert_eq!((&verified["intact"], &verified["problem"]), (&json!(true), &Value::Null));
    let total = verified["entries"].as_u64().unwrap();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.admin.get(&format!("/api/v1/audit?order=oldest&limit=2{cursor}")).await.expect(200);
        seen.extend(page["entries"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
        match page["next_cursor"].as_u64() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=total).collect::<Vec<_>>());
    let count = |page: &Value| page["entries"].as_array().unwrap().len();
    for (query, expected) in [
        ("action=config.create", 3),
        ("entity=config:b@1", 2),
        ("actor=nobody", 0),
        ("actor=first-admin", 6),
        ("since=2100-01-01T00:00:00Z", 0),
        ("until=2100-01-01T00:00:00Z", usize::try_from(total).unwrap()),
    ] {
        let page = server.admin.get(&format!("/api/v1/audit?{query}")).await.expect(200);
        assert_eq!(count(&page), expected, "{query}: {page:#}");
    }
    for query in ["since=yesterday", "order=random", "limit=0", "cursor=x"] {
        server.admin.get(&format!("/api/v1/audit?{query}")).await.error(400);
    }
}

#[tokio::test]
async fn the_version_says_what_is_running() {
    let server = TestServer::start().await;
    let version = server.admin.get("/api/v1/version").await.expect(200);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["opamp_version"], "0.20.0");
}
