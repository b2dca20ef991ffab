//! Custom messages, components, conflicts and throttling through the REST API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use data_encoding::BASE64;
use opamp_proto::{AgentCapabilities, pb};
use opamp_testkit::{
    agent::{Connector, Persona, Wire},
    raw::{Endpoint, Handshake, HttpRequest, Opening, RawHttp, RawWs},
    transcript::Transcript,
};
use serde_json::{Value, json};
use support::{TestServer, config, connect, path_of};

const CAPABILITY: &str = "com.example.discovery";
const MISSING: &str = "/api/v1/agents/01890000-0000-7000-8000-000000000000/custom-messages";

fn talking(number: u32) -> Persona {
    let mut persona = Persona::new(number);
    let capabilities = vec![CAPABILITY.to_owned(), "com.example.other/2".to_owned()];
    persona.custom_capabilities = Some(pb::CustomCapabilities { capabilities });
    persona
}

fn announcing() -> [(&'static str, &'static str); 1] {
    [("opamp.custom_capabilities", CAPABILITY)]
}

/// R-CUST-01, R-CUST-11, R-CUST-12, R-CUST-13
#[tokio::test]
async fn custom_messages_reach_the_agent_once_and_in_order_byte_for_byte() {
    for wire in [Wire::WebSocket, Wire::Http] {
        let server = TestServer::start_with(config(&announcing())).await;
        let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), wire);
        let (mut agent, first) = connector.start(talking(1)).await.unwrap();
        assert_eq!(first.custom_capabilities.unwrap().capabilities, [CAPABILITY]);
        let agent_path = path_of(&server, &agent.persona.uid).await;
        let detail = server.admin.get(&agent_path).await.expect(200);
        assert_eq!(detail["custom_capabilities"], json!([CAPABILITY, "com.example.other/2"]));
        let path = format!("{agent_path}/custom-messages");
        for number in 0..10_u8 {
            let body = json!({"capability": CAPABILITY, "type": "find", "data_base64": BASE64.encode(&[0, 0xff, number])});
            server.admin.post(&path, body).await.expect(202);
        }
        for number in 0..10 {
            let message = agent.until(|message| message.custom_message.is_some()).await.unwrap();
            let message = message.custom_message.unwrap();
            assert_eq!((message.capability.as_str(), message.r#type.as_str()), (CAPABILITY, "find"));
            assert_eq!(message.data.as_ref(), &[0, 0xff, number]);
        }
        assert_eq!(agent.heartbeat().await.unwrap().custom_message, None, "once");
        let entries = server.audit("agent.send_custom").await;
        assert_eq!(entries.len(), 10);
        assert!(
            !serde_json::to_string(&entries).unwrap().contains(&BASE64.encode(&[0, 0xff, 3])),
            "no data in there"
        );
    }
}

#[tokio::test]
async fn the_last_messages_of_an_agent_are_shown_as_text_or_base64_and_bounded() {
    let mut settings = announcing().to_vec();
    settings.extend([("fleet.custom_messages_max", "3"), ("fleet.custom_bytes_max", "1KiB")]);
    let server = TestServer::start_with(config(&settings)).await;
    let (mut agent, agent_path) = connect(&server, Wire::WebSocket, talking(1)).await;
    let path = format!("{agent_path}/custom-messages");
    assert_eq!(server.admin.get(&path).await.expect(200), json!({"messages": [], "dropped": 0}));
    let large = "x".repeat(2_000);
    for data in [&b"one"[..], b"two", &[0xff, 0], large.as_bytes(), b"five"] {
        let message = pb::CustomMessage {
            capability: CAPABILITY.into(),
            r#type: "found".into(),
            data: data.to_vec().into(),
        };
        agent.report(|report| report.custom_message = Some(message)).await.unwrap();
    }
    let shown = server.eventually(&path, |shown| shown["dropped"] == 2).await;
    let messages = shown["messages"].as_array().unwrap();
    let seen: Vec<_> = messages
        .iter()
        .map(|m| {
            (
                m["size_bytes"].as_u64().unwrap(),
                m["data"].as_str(),
                m["data_base64"].as_str(),
                m["data_left_out"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [(2, None, Some("/wA="), false), (2_000, None, None, true), (4, Some("five"), None, false)]
    );
    assert_eq!((&messages[0]["type"], &messages[0]["capability"]), (&json!("found"), &json!(CAPABILITY)));
    // What the server does not announce is ignored.
    let foreign = pb::CustomMessage { capability: "com.example.other/2".into(), ..Default::default() };
    let answer = agent.report(|report| report.custom_message = Some(foreign)).await.unwrap();
    assert_eq!(answer.error_response, None);
    assert_eq!(server.admin.get(&path).await.expect(200)["messages"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn messages_that_cannot_be_sent_are_refused_by_what_is_wrong() {
    let mut settings = announcing().to_vec();
    settings.extend([("opamp.custom_queue_max", "2"), ("opamp.custom_queue_bytes_max", "10KiB")]);
    let server = TestServer::start_with(config(&settings)).await;
    let (mut agent, agent_path) = connect(&server, Wire::Http, talking(1)).await;
    let (_mute, mute_path) = connect(&server, Wire::Http, Persona::new(2)).await;
    let path = format!("{agent_path}/custom-messages");
    let admin = &server.admin;
    let message = |capability: &str| json!({"capability": capability, "type": "t", "data": "x"});
    let answer = admin.post(&path, message("com.example.other/2")).await;
    let hint = answer.expect(409)["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("opamp.custom_capabilities"), "{hint}");
    let (_, text) = admin.post(&format!("{mute_path}/custom-messages"), message(CAPABILITY)).await.error(409);
    assert!(text.contains("did not announce"), "{text}");
    admin.post(MISSING, message(CAPABILITY)).await.error(404);
    admin.get(MISSING).await.error(404);
    for wrong in [
        json!({"capability": CAPABILITY}),
        json!({"capability": CAPABILITY, "type": "t", "data": "x", "data_base64": "eA=="}),
        json!({"capability": CAPABILITY, "type": "t", "data_base64": "?"}),
        json!({"capability": CAPABILITY, "type": "t", "text": "x"}),
    ] {
        admin.post(&path, wrong).await.error(400);
    }
    for _ in 0..2 {
        assert_eq!(admin.post(&path, message(CAPABILITY)).await.expect(202)["dispatch"], "next_poll");
    }
    let (code, text) = admin.post(&path, message(CAPABILITY)).await.error(429);
    assert!(code == "too_many_requests" && text.contains("2 messages"), "{text}");
    assert_eq!(server.audit("agent.send_custom").await.len(), 2, "what is refused is not recorded as sent");
    // Nothing was thrown away.
    for _ in 0..2 {
        agent.until(|message| message.custom_message.is_some()).await.unwrap();
    }
}

/// R-COMP-07, R-COMP-13
#[tokio::test]
async fn components_are_asked_for_by_their_hash_and_shown_to_any_depth() {
    let server = TestServer::start().await;
    let mut details = pb::ComponentDetails::default();
    for level in 0..10 {
        let metadata =
            vec![opamp_testkit::agent::attribute("level", opamp_testkit::agent::text(&level.to_string()))];
        let sub_component_map = BTreeMap::from([("sub".to_owned(), details)]);
        details = pb::ComponentDetails { metadata, sub_component_map };
    }
    let list = pb::AvailableComponents {
        components: BTreeMap::from([("receivers".to_owned(), details)]),
        hash: vec![1, 2, 3].into(),
    };
    let mut persona = Persona::new(1).and(AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS);
    persona.components = Some(list.clone());
    let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), Wire::WebSocket);
    let (mut agent, answer) = connector.start(persona).await.unwrap();
    assert_ne!(answer.flags & 2, 0, "ReportAvailableComponents");
    let path = path_of(&server, &agent.persona.uid).await;
    let detail = server.admin.get(&path).await.expect(200);
    assert_eq!(detail["available_components"], json!({"hash": "010203", "components": null}));
    agent.report(|report| report.available_components = Some(list)).await.unwrap();
    let detail =
        server.eventually(&path, |agent| !agent["available_components"]["components"].is_null()).await;
    let mut component = &detail["available_components"]["components"]["receivers"];
    for level in (0..10).rev() {
        assert_eq!(component["metadata"]["level"], level.to_string());
        component = &component["sub_components"]["sub"];
    }
    assert_eq!(component, &json!({"metadata": {}, "sub_components": {}}));
}

#[tokio::test]
async fn another_credential_with_the_uid_of_an_agent_shows_as_a_conflict_and_policy_decides() {
    for (policy, refused) in [("flag", true), ("rekey", false)] {
        let settings = [
            ("opamp.auth", "token"),
            ("opamp.tokens", "one=first,two=second"),
            ("opamp.duplicates_other_credential", policy),
        ];
        let server = TestServer::start_with(config(&settings)).await;
        let connector = Connector::new(Endpoint::plain(server.running.opamp_addr()), Wire::WebSocket);
        let (agent, _) = connector.clone().with_token("first").start(Persona::new(1)).await.unwrap();
        let path = path_of(&server, &agent.persona.uid).await;
        assert_eq!(server.admin.get(&path).await.expect(200)["uid_conflict"], false);
        let (_thief, answer) = connector.with_token("second").start(Persona::new(1)).await.unwrap();
        assert_eq!(answer.error_response.is_some(), refused, "{policy}");
        assert_eq!(answer.agent_identification.is_some(), !refused, "{policy}");
        let detail = server.eventually(&path, |agent| agent["uid_conflict"] == true).await;
        assert_eq!(detail["sticky"]["uid_conflicts"], 1);
        assert!(detail["sticky"]["last_uid_conflict"].is_string());
    }
}

/// R-THROT-01, R-THROT-03, R-THROT-06, R-THROT-07
#[tokio::test]
async fn throttled_agents_are_told_to_wait_on_both_transports_until_that_is_over() {
    let server = TestServer::start().await;
    let endpoint = Endpoint::plain(server.running.opamp_addr());
    let (mut agent, _) = connect(&server, Wire::WebSocket, Persona::new(1)).await;
    let (mut polling, _) = connect(&server, Wire::Http, Persona::new(2)).await;
    let admin = &server.admin;
    let open = json!({"throttled": false, "retry_after_seconds": null, "since": null, "throttled_by": null});
    assert_eq!(admin.get("/api/v1/throttle").await.expect(200), open);
    let set = admin.put("/api/v1/throttle", json!({"retry_after_seconds": 60})).await.expect(200);
    assert_eq!((&set["throttled"], &set["throttled_by"]), (&json!(true), &json!("first-admin")));
    assert_eq!(admin.get("/api/v1/throttle").await.expect(200), set);

    let answer = agent.heartbeat().await.unwrap().error_response.unwrap();
    assert_eq!(answer.r#type, pb::ServerErrorResponseType::Unavailable as i32);
    let Some(pb::server_error_response::Details::RetryInfo(info)) = answer.details else {
        panic!("{answer:?}")
    };
    let wait = info.retry_after_nanoseconds / 1_000_000_000;
    assert!((60..=120).contains(&wait), "{wait}");
    let upgrade = RawWs::attempt(&endpoint, &Handshake::new(&endpoint), &Transcript::new()).await.unwrap();
    let Opening::Refused(upgrade) = upgrade else { panic!("it was upgraded") };
    assert_eq!(upgrade.status, 503);
    let wait: u64 = upgrade.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=120).contains(&wait), "{wait}");
    let mut http = RawHttp::connect(&endpoint, &Transcript::new()).await.unwrap();
    let message = polling.persona.heartbeat();
    let poll = http.exchange(&HttpRequest::opamp(&endpoint, &message)).await.unwrap();
    assert_eq!((poll.status, poll.header("retry-after").is_some()), (503, true));
    let file = endpoint.clone().with_path(&format!("/v1/packages/{}/{}", "0".repeat(32), "ab".repeat(32)));
    let mut http = RawHttp::connect(&file, &Transcript::new()).await.unwrap();
    assert_eq!(
        http.exchange(&HttpRequest::new("GET", &file)).await.unwrap().status,
        503,
        "downloads wait too"
    );
    assert_eq!(admin.get("/health/ready").await.status, 200, "the server itself is well");

    // The same again is no change, another time is one.
    admin.put("/api/v1/throttle", json!({"retry_after_seconds": 60})).await.expect(200);
    admin.put("/api/v1/throttle", json!({"retry_after_seconds": 90})).await.expect(200);
    assert_eq!(admin.delete("/api/v1/throttle").await.expect(200), open);
    admin.delete("/api/v1/throttle").await.expect(200);
    assert_eq!(polling.heartbeat().await.unwrap().error_response, None);
    let throttled = server.audit("server.throttle").await;
    let changes: Vec<_> = throttled.iter().map(|entry| (&entry["before"], &entry["after"])).collect();
    let (s60, s90) = (json!({"retry_after_seconds": 60}), json!({"retry_after_seconds": 90}));
    assert_eq!(changes, [(&s60, &s90), (&Value::Null, &s60)]);
    assert_eq!(server.audit("server.unthrottle").await.len(), 1);
    for wrong in [
        json!({"retry_after_seconds": 0}),
        json!({"retry_after_seconds": 86_401}),
        json!({}),
        json!({"retry_after": 1}),
    ] {
        admin.put("/api/v1/throttle", wrong).await.error(400);
    }
}
