//! Counters of one agent since its start.

use std::time::Duration;

/// What one agent has sent, received and endured since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Heartbeats and bare polls that were written (WebSocket) or answered (HTTP).
    pub heartbeats_sent: u64,
    /// Heartbeats and bare polls that could not be written or got no answer.
    pub heartbeats_failed: u64,
    /// All messages that were written or answered, heartbeats included.
    pub messages_sent: u64,
    /// Messages received from the server.
    pub messages_received: u64,
    /// Parts of reports not sent because they exceed the send limit (R-WS-21, R-HTTP-33).
    pub discarded_outgoing: u64,
    /// Messages of the server not processed because they exceed the receive limit (R-WS-14, R-HTTP-27).
    pub discarded_incoming: u64,
    /// Messages of the server ignored because they are addressed to another identity (R-MSG-13).
    pub foreign: u64,
    /// Messages of the server ignored because they are malformed.
    pub malformed: u64,
    /// Custom messages that were written or answered.
    pub custom_sent: u64,
    /// Custom messages of the server that were handed over.
    pub custom_received: u64,
    /// Custom messages that got lost: of the server because their handler was too slow, of the application because a request
    /// ended in a way that leaves open whether it arrived.
    pub custom_dropped: u64,
    /// Connections that were reached after the first.
    pub reconnects: u64,
    /// Attempts to connect that failed.
    pub connects_failed: u64,
    /// How long the agent has been connected, all connections together.
    pub connected: Duration,
    /// Whether it is connected now.
    pub is_connected: bool,
    /// Events that were dropped because the application took them too slowly.
    pub events_dropped: u64,
}
