//! Assigning a version to all agents that a selector matches, through the REST API.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{Agent, TestServer};

const ASSIGN: &str = "/api/v1/configs/edge/versions/1/assign";

async fn fleet(server: &TestServer, agents: u8) -> Vec<Agent> {
    let mut fleet = Vec::new();
    for number in 1..=agents {
        fleet.push(Agent::connect(&server.endpoint("ws"), number).await);
    }
    server.eventually("/api/v1/stats", |stats| stats["registered"] == agents).await;
    fleet
}

async fn draft(server: &TestServer) {
    let files = json!({"": {"body": "receivers: {}\n"}});
    server.admin.post("/api/v1/configs", json!({"name": "edge", "files": files})).await.expect(201);
}

async fn publish(server: &TestServer) {
    server.admin.order("/api/v1/configs/edge/versions/1/publish").await.expect(200);
}

#[tokio::test]
async fn one_call_offers_a_version_to_all_agents_that_match() {
    let server = TestServer::start().await;
    let mut fleet = fleet(&server, 3).await;
    draft(&server).await;
    publish(&server).await;
    let wanted = json!({"selector": "host.name in (host-1,host-2)", "at_most": 2});
    let done = server.admin.post(ASSIGN, wanted.clone()).await.expect(200);
    assert_eq!(done, json!({"matched": 2, "assigned": 2, "unchanged": 0, "not_accepted": 0, "damaged": 0}));
    for agent in &mut fleet[..2] {
        let offer = agent.take_offer(None).await;
        assert_eq!(offer.config.unwrap().config_map[""].body.as_ref(), b"receivers: {}\n");
    }
    let stats = server.eventually("/api/v1/stats", |stats| stats["by_drift"]["in_sync"] == 2).await;
    assert_eq!(stats["by_drift"]["unmanaged"], 1);
    let again = server.admin.post(ASSIGN, wanted).await.expect(200);
    assert_eq!((&again["assigned"], &again["unchanged"]), (&json!(0), &json!(2)));
    assert_eq!(server.audit("config.assign").await.len(), 1, "nothing was done the second time");
}

#[tokio::test]
async fn what_would_reach_more_than_was_meant_is_refused_and_reaches_nobody() {
    let server = TestServer::start().await;
    let _fleet = fleet(&server, 2).await;
    let all = json!({"selector": "capability=AcceptsRemoteConfig", "at_most": 2});
    server.admin.post(ASSIGN, all.clone()).await.error(404);
    draft(&server).await;
    let (code, message) = server.admin.post(ASSIGN, all.clone()).await.error(409);
    assert!(code == "conflict" && message.contains("draft"), "{message}");
    publish(&server).await;
    let empty = json!({"selector": "", "at_most": 9});
    assert_eq!(server.admin.post(ASSIGN, empty).await.error(400).0, "invalid_selector");
    let wrong = json!({"selector": "host.name in (", "at_most": 9});
    assert_eq!(server.admin.post(ASSIGN, wrong).await.error(400).0, "invalid_selector");
    let unbounded = json!({"selector": "capability=AcceptsRemoteConfig"});
    let (code, message) = server.admin.post(ASSIGN, unbounded).await.error(400);
    assert!(code == "invalid_json" && message.contains("at_most"), "{message}");
    let few = json!({"selector": "capability=AcceptsRemoteConfig", "at_most": 1});
    let (_, message) = server.admin.post(ASSIGN, few).await.error(409);
    assert_eq!(message, "more than 1 agents match the selector");
    server.with_role("viewer").await.post(ASSIGN, all).await.error(403);
    let stats = server.admin.get("/api/v1/stats").await.expect(200);
    assert_eq!(stats["by_drift"]["unmanaged"], 2, "nobody got anything");
}
