//! A custom capability: the server asks the agent how its connection is doing.
//!
//! Capability `com.example.self-agent.diagnostics/1`. Types: `ping`, answered with `pong` and the same data; `stats`, answered
//! with `stats` and the counters of the connection as one JSON object. Other types are ignored.

use futures::future::BoxFuture;
use opamp_client::{Client, CustomMessage, CustomMessageHandler, Stats};

/// The name under which it is announced.
pub const CAPABILITY: &str = "com.example.self-agent.diagnostics/1";

/// The most data that is sent back. Nobody needs more to see whether messages arrive.
const ECHO_BYTES_MAX: usize = 4 << 10;

/// Answers the server's questions.
pub(crate) struct Diagnostics;

impl CustomMessageHandler for Diagnostics {
    fn message(&self, message: CustomMessage, client: Client) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let answer = match message.kind.as_str() {
                "ping" => {
                    let echoed = message.data.slice(..message.data.len().min(ECHO_BYTES_MAX));
                    CustomMessage::new(CAPABILITY, "pong", echoed)
                }
                "stats" => CustomMessage::new(CAPABILITY, "stats", json(&client.stats())),
                _ => return,
            };
            if let Err(error) = client.send_custom(answer) {
                tracing::warn!("a question of the server is left without an answer: {error}");
            }
        })
    }
}

/// Counters alone: nothing in them needs escaping.
fn json(stats: &Stats) -> String {
    format!(
        r#"{{"messages_sent":{},"messages_received":{},"heartbeats_sent":{},"reconnects":{},"connects_failed":{},"connected_seconds":{},"events_dropped":{}}}"#,
        stats.messages_sent,
        stats.messages_received,
        stats.heartbeats_sent,
        stats.reconnects,
        stats.connects_failed,
        stats.connected.as_secs(),
        stats.events_dropped,
    )
}
