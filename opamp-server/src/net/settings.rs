//! Limits and intervals of a server.

use std::time::Duration;

use super::network::Network;
use crate::session::SessionSettings;

/// Everything about a server that can be set beside [`opamp_proto::Limits`]. Every queue, wait and count has its bound here.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What sessions have in common: capabilities, staleness, repetition.
    pub session: SessionSettings,
    /// Distance of WebSocket pings. Default 30 s. Shorter notices dead peers earlier and costs a frame each way.
    pub ping_interval: Duration,
    /// A WebSocket without any frame for this long is closed. Default 90 s: three ping intervals.
    pub read_timeout: Duration,
    /// A WebSocket whose peer takes nothing for this long, in the middle of a message, is closed. Default 20 s.
    pub write_timeout: Duration,
    /// A WebSocket must carry its first message within this time. Default 30 s (R-STATUS-01).
    pub first_message_timeout: Duration,
    /// How long TLS handshake, authentication and upgrade may take together, each. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long request headers may take, and how long a connection may rest between two requests; enforced by
    /// [`serve`](crate::serve) only. Default 45 s, so that agents that poll every 30 s keep their connection.
    pub header_read_timeout: Duration,
    /// How long a request body may take. Default 30 s.
    pub body_timeout: Duration,
    /// How long the peer's half of a closing handshake is waited for. Default 2 s.
    pub close_timeout: Duration,
    /// WebSockets at a time; beyond it upgrades are answered 503. Default 100,000.
    pub connections_max: usize,
    /// Agents on one WebSocket; beyond it messages are refused. Default 1,000.
    pub agents_per_connection_max: usize,
    /// Agents the server keeps a session for, connected or not. Default 1,000,000.
    pub agents_max: usize,
    /// The session of an agent that has been gone this long is forgotten, unless something is desired of it or its
    /// uid is bound to a certificate. Coming back later costs it one full report. Default 24 h.
    pub forget_after: Duration,
    /// Faulty messages in a row after which a WebSocket is closed with 1008. Default 10.
    pub faults_max: u32,
    /// Outgoing WebSocket messages are split into frames of this many payload bytes. Default 4,096. Some gateways
    /// cut frames above 32 KB.
    pub frame_bytes: usize,
    /// Smallest response body that is compressed when the client accepts gzip. Default 1,024 bytes.
    pub compress_min_bytes: usize,
    /// Refusals kept for [`Events`](crate::Events) until they are taken; further ones are only counted, into the next
    /// that is kept. Default 1,024.
    pub refusals_kept: usize,
    /// `Retry-After` of refusals for want of capacity, at least; up to twice as long at random. Default 15 s.
    pub retry_after: Duration,
    /// How often staleness, pings and deadlines are looked at; the precision of all of them. Default 1 s. A shorter
    /// ping interval or staleness shortens it to a quarter of theirs, or they would not be kept.
    pub sweep_interval: Duration,
    /// Concurrent TLS handshakes in [`serve`](crate::serve). Default 256. A connection counts once its first bytes
    /// are there.
    pub handshakes_max: usize,
    /// Connections in [`serve`](crate::serve) that are no WebSocket (yet); beyond it accepting waits. Default 16,384.
    pub http_connections_max: usize,
    /// Proxies whose `X-Forwarded-For` is believed; from anyone else the header is ignored. Default none.
    pub trusted_proxies: Vec<Network>,
}

impl ServerSettings {
    /// The interval between two looks at the deadlines.
    pub(crate) fn sweep_period(&self) -> Duration {
        let finest = self.ping_interval.min(self.session.websocket_stale_after) / 4;
        self.sweep_interval.min(finest).max(Duration::from_millis(1))
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            session: SessionSettings::default(),
            ping_interval: Duration::from_secs(30),
            read_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(20),
            first_message_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(45),
            body_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            connections_max: 100_000,
            agents_per_connection_max: 1_000,
            agents_max: 1_000_000,
            forget_after: Duration::from_secs(24 * 3600),
            faults_max: 10,
            frame_bytes: 4_096,
            compress_min_bytes: 1_024,
            refusals_kept: 1_024,
            retry_after: Duration::from_secs(15),
            sweep_interval: Duration::from_secs(1),
            handshakes_max: 256,
            http_connections_max: 16_384,
            trusted_proxies: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_looked_at_more_often_than_the_shortest_of_them() {
        let mut settings = ServerSettings::default();
        assert_eq!(settings.sweep_period(), Duration::from_secs(1));
        settings.ping_interval = Duration::from_millis(200);
        assert_eq!(settings.sweep_period(), Duration::from_millis(50));
        settings.session.websocket_stale_after = Duration::from_millis(100);
        assert_eq!(settings.sweep_period(), Duration::from_millis(25));
        settings.session.websocket_stale_after = Duration::ZERO;
        assert_eq!(settings.sweep_period(), Duration::from_millis(1));
    }
}
