//! Agents that fall silent without leaving: stale first, back with their next sign of life, given up after the documented
//! time. Whoever answers pings is there, however little he says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::time::Duration;

use e2e::harness::Harness;
use opamp_testkit::agent::{Connector, Persona, Wire};
use serde_json::{Value, json};

/// Whether the record says so, and the list and the numbers with it.
async fn is(harness: &Harness, id: &str, liveness: &str) -> Value {
    let what = format!("the record says {liveness}");
    let record = harness.rest.agent_when(id, &what, |record| record["liveness"] == liveness).await;
    let listed = harness.rest.get(&format!("/api/v1/agents?liveness={liveness}")).await;
    let listed = listed["agents"].as_array().unwrap().iter().any(|agent| agent["id"] == id);
    assert!(listed, "{id} is not listed as {liveness}");
    record
}

#[tokio::test]
async fn a_frozen_agent_is_stale_until_it_moves_again_and_given_up_in_the_end() {
    let harness = Harness::with(|config, _| {
        config.opamp.ping_interval = Duration::from_millis(300);
        config.opamp.websocket_stale_after = Duration::from_secs(2);
        config.opamp.read_timeout = Duration::from_secs(5);
    })
    .await;
    let connector = Connector::new(harness.endpoint(), Wire::WebSocket);
    // One reads, and so answers pings; the other does not, as a process that was stopped does not.
    let (mut quiet, _) = connector.start(Persona::new(1)).await.unwrap();
    let (mut frozen, _) = connector.start(Persona::new(2)).await.unwrap();
    let quiet_id = harness.rest.id_of(quiet.persona.uid).await;
    let frozen_id = harness.rest.id_of(frozen.persona.uid).await;
    let reading = tokio::spawn(async move { quiet.next_message().await });

    let record = is(&harness, &frozen_id, "stale").await;
    assert_eq!(record["disconnect"], Value::Null, "its connection stands");
    frozen.heartbeat().await.unwrap();
    is(&harness, &frozen_id, "connected").await;

    let record = is(&harness, &frozen_id, "disconnected").await;
    assert_eq!(record["disconnect"]["reason"], "timeout");
    assert_eq!(record["disconnect"]["graceful"], false);
    assert_eq!(frozen.ws().expect_close().await.unwrap().code, Some(1008));
    assert!(!reading.is_finished(), "the server had nothing to say to the quiet one");
    is(&harness, &quiet_id, "connected").await;
    assert_eq!(harness.rest.agent(&quiet_id).await["sticky"]["disconnects"], 0);
    let rejected = harness.rest.metrics().await.rejected();
    assert_eq!(rejected["timeout"], 1, "{rejected:?}");
    reading.abort();
}

#[tokio::test]
async fn a_polling_agent_that_stays_away_is_stale_then_disconnected_and_welcome_back() {
    let harness = Harness::with(|config, _| {
        config.opamp.http_poll_interval = Duration::from_millis(200);
        config.opamp.http_stale_min = Duration::from_secs(2);
    })
    .await;
    let (mut agent, _) = Connector::new(harness.endpoint(), Wire::Http).start(Persona::new(1)).await.unwrap();
    let id = harness.rest.id_of(agent.persona.uid).await;
    is(&harness, &id, "stale").await;
    let record = is(&harness, &id, "disconnected").await;
    assert_eq!(record["disconnect"]["reason"], "timeout");
    let answer = agent.heartbeat().await.unwrap();
    assert_eq!((answer.flags, answer.error_response), (0, None), "nothing was forgotten");
    let record = is(&harness, &id, "connected").await;
    assert_eq!((&record["sticky"]["connects"], &record["sticky"]["disconnects"]), (&json!(2), &json!(1)));
}
