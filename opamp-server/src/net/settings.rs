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
    /// How long TLS handshake, authentication and upgrade may take together, each, and how long a connection of
    /// [`serve`](crate::serve) may be silent before its first byte. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long request headers may take, and how long a connection may rest between two requests; enforced by
    /// [`serve`](crate::serve) only. Default 45 s, so that agents that poll every 30 s keep their connection.
    pub header_read_timeout: Duration,
    /// How long a request body may take, and the rest of a WebSocket message whose beginning is there. Default 30 s. What came
    /// of it is held until then, at the cost of [`ServerSettings::buffered_bytes_max`].
    pub body_timeout: Duration,
    /// How long the peer's half of a closing handshake is waited for. Default 2 s.
    pub close_timeout: Duration,
    /// WebSockets at a time; beyond it upgrades are answered 503. Default 100,000.
    pub connections_max: usize,
    /// WebSockets and polls being answered at a time, together, of one identity (the principal that authentication found); beyond
    /// it upgrades and polls are answered 429 with `Retry-After`. Anonymous peers are not counted, for they are not one.
    /// Default none: as many as [`ServerSettings::connections_max`], because a fleet often shares one token. Set it where
    /// every agent has credentials of its own, so that one that leaks or loops takes no more than its share; leave room for an
    /// agent whose old connection is not over yet.
    pub connections_per_identity_max: Option<usize>,
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
    /// What reads and writes the frames of WebSockets. Default [`FrameReader::Tungstenite`].
    pub frames: FrameReader,
    /// Smallest response body that is compressed when the client accepts gzip. Default 1,024 bytes.
    pub compress_min_bytes: usize,
    /// Refusals kept for [`Events`](crate::Events) until they are taken; further ones are only counted, into the next
    /// that is kept. Default 1,024.
    pub refusals_kept: usize,
    /// `Retry-After` of refusals for want of capacity, at least; up to twice as long at random. Default 15 s. Longer when more
    /// peers wait, or were sent away for want of room, than [`ServerSettings::accept_rate`] lets in within that time.
    pub retry_after: Duration,
    /// The longest `Retry-After`, before the up to as long again at random. Default 5 min. Longer keeps a larger fleet from coming
    /// back faster than it can be served; it also keeps agents away from a server that has room again.
    pub retry_after_max: Duration,
    /// Connections that [`serve`](crate::serve) lets in per second, once [`ServerSettings::accept_burst`] is used up; the others
    /// wait. Default 2,000: a connect with a full state of 10 KB costs the reference server some 0.1 ms of CPU, with TLS
    /// 0.3 ms, so that a fleet that comes back takes a fifth to two thirds of a core and 100,000 agents are there after 50 s.
    /// More brings them back sooner at the cost of those that are there; less protects a smaller machine, or one whose
    /// certificates are RSA. 0 sets no pace.
    pub accept_rate: u32,
    /// Connections let in at once before the pace counts. Default 2,000: a smaller fleet never waits.
    pub accept_burst: u32,
    /// Connections that may wait for [`ServerSettings::accept_rate`] in this process; further ones wait in the listener's
    /// backlog. Default 4,096. One that waits holds its socket and a few hundred bytes. Keep it, divided by the rate, below the time that agents
    /// wait for a handshake, or they are let in when they have given up.
    pub accept_queue_max: usize,
    /// Bytes the server holds, for all peers together, of what is not whole yet or not taken yet: incomplete WebSocket
    /// messages, request bodies after decompression, and messages that wait for slow readers. Only what has arrived counts; an announced
    /// length costs nothing. Default 256 MiB. What does not fit is refused: 503 with `Retry-After`, on a WebSocket `UNAVAILABLE`
    /// and close code 1013. Less than [`opamp_proto::Limits::message_bytes_max`] makes that the smaller limit.
    pub buffered_bytes_max: usize,
    /// Full-state requests per second, once [`ServerSettings::resync_burst`] is used up; the others are deferred, in the order they
    /// came, and no agent is forgotten. Default 1,000: of a fleet whose state was lost, at 10 KB each, 10 MB/s come back. Less spares
    /// network and store, and the picture of the fleet is whole later. 0 sets no pace.
    pub resync_rate: u32,
    /// Full-state requests at once before the pace counts. Default 2,000: a smaller fleet is always asked in the very answer that
    /// noticed the gap.
    pub resync_burst: u32,
    /// WebSockets that a drain closes per second, so that their agents do not arrive elsewhere all at once. Default 2,000; as
    /// many are closed at once at first, so that a smaller fleet does not wait. Faster where the deadline of the drain needs
    /// it. 0 closes all at once.
    pub drain_rate: u32,
    /// How often staleness, pings and deadlines are looked at; the precision of all of them. Default 1 s. A shorter
    /// ping interval or staleness shortens it to a quarter of theirs, or they would not be kept.
    pub sweep_interval: Duration,
    /// Concurrent TLS handshakes in [`serve`](crate::serve). Default 256. A connection counts once its first bytes
    /// are there.
    pub handshakes_max: usize,
    /// Connections in [`serve`](crate::serve) that are no WebSocket (yet); further ones wait as for
    /// [`ServerSettings::accept_rate`]. Default 16,384. One that has said nothing costs 1.5 KB, one amid a request 16 KB and
    /// what of the body [`ServerSettings::buffered_bytes_max`] is charged for.
    pub http_connections_max: usize,
    /// Sockets of one [`serve`](crate::serve) at a time: WebSockets, connections that are none, or none yet, and those that wait;
    /// beyond it nothing is accepted, and the listener's backlog holds the rest. Default none: the bounds of the three
    /// add up. Set it below the number of files that the process may have open, so that some are left for everything else, and
    /// [`ServerSettings::connections_max`] below it, so that there is a place to say 503 from.
    pub sockets_max: Option<usize>,
    /// What one HTTP connection of [`serve`](crate::serve) buffers on its way in, give or take one read of the same size. A
    /// request whose head does not fit is answered 431. Default 32 KiB; less than 8 KiB counts as that. These buffers are
    /// beside [`ServerSettings::buffered_bytes_max`], and bounded by the number of connections.
    pub http_buffer_bytes: usize,
    /// Proxies whose `X-Forwarded-For` is believed; from anyone else the header is ignored. Default none.
    pub trusted_proxies: Vec<Network>,
    /// What happens when an agent shows up under an `instance_uid` that is in use.
    pub duplicates: DuplicateSettings,
    /// Lists of components the server remembers by their hash, for all agents together. Default 1,024. Agents make the hashes
    /// and are believed: the first list that comes under a hash is shown for all that report the hash alone; 0 has every agent
    /// asked for its own. One that was
    /// thrown out is asked for again when an agent reports its hash.
    pub components_kept: usize,
    /// Bytes of those lists. Default 16 MiB.
    pub components_bytes_max: usize,
    /// Different effective configurations that are known as those of several agents, each of which is then in memory once.
    /// Default 1,024; 0 shares none. Beyond it those go first that one agent alone reported, and agents that report what was
    /// thrown out keep copies of their own until they report again.
    pub shared_configs_max: usize,
    /// Bytes of those configurations. Default 64 MiB. A larger one is never shared.
    pub shared_configs_bytes_max: usize,
    /// Custom messages kept for [`Events`](crate::Events) until they are taken; further ones are dropped, and the next one that is
    /// kept tells how many. Default 1,024.
    pub custom_events_kept: usize,
    /// Bytes of those messages. Default 16 MiB.
    pub custom_events_bytes_max: usize,
    /// Certificate requests that may wait for their decision, for all agents together; beyond it they are refused. Default
    /// 1,024. An agent has one at most.
    pub certificate_requests_max: usize,
    /// How long a decision about a certificate request may take, approval by a person included. Default 1 h; then the
    /// request is refused and the agent may ask again.
    pub certificate_timeout: Duration,
    /// Serves WebSocket agents from before OpAMP 0.7, whose messages have no header: a socket whose first message has none is
    /// served without in both directions. Default off: such messages are malformed (R-WS-03).
    pub accept_headerless: bool,
}

/// An implementation of WebSocket frames (RFC 6455 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameReader {
    /// The server's own, for many connections: an idle one holds no buffer, a message that has arrived whole is handled where it
    /// was received, and what is kept of an incomplete one follows what has arrived.
    Lean,
    /// tokio-tungstenite, the library most others use. Each connection keeps its buffers: some 6 KB from the start, and as much as
    /// its largest messages took. Choose it to rule the server's own frames out
    /// as the cause of something.
    #[default]
    Tungstenite,
}

/// What happens when an agent shows up under an `instance_uid` that another live connection uses (R-ID-14 to R-ID-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateSettings {
    /// The newcomer has other credentials. Default [`OtherCredential::Flag`].
    pub other_credential: OtherCredential,
    /// The newcomer has the same credentials, so that it may be the same agent. Default
    /// [`SameCredential::PingThenRekey`].
    pub same_credential: SameCredential,
    /// How long the socket of the agent that was there first may take to show that it lives. Default 5 s. An agent whose
    /// connection broke unnoticed waits that long for its first answer.
    pub ping_timeout: Duration,
    /// Messages that may wait for such a decision on one WebSocket. Default 16; further ones are answered `UNAVAILABLE`.
    pub waiting_max: usize,
    /// Bytes of those messages. Default 4 MiB. The first one may wait however large it is.
    pub waiting_bytes_max: usize,
}

/// What happens to a newcomer whose credentials are not those of the agent that is there, or that is bound to a certificate.
///
/// In every case the incumbent's snapshot tells ([`StickyFacts::uid_conflicts`](crate::StickyFacts)), and so does a refusal
/// `uid_conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherCredential {
    /// Its messages are refused with BadRequest; the connection stays open.
    #[default]
    Flag,
    /// It takes over. An agent that is bound to a certificate cannot be taken over with anything else all the same: then it is
    /// as with `Flag`.
    NewestWins,
    /// Its connection is closed with 1008, with all agents on it; a poll is answered 403.
    Reject,
    /// It is told to take over a fresh identity (R-ID-15).
    Rekey,
}

/// What happens to a newcomer with the credentials of the agent that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameCredential {
    /// It takes over.
    NewestWins,
    /// If it goes on where the agent that is there stopped, it is that agent and takes over. Otherwise the socket that is
    /// there is pinged: if it lives, the newcomer is told to take over a fresh identity (R-ID-15), if it is silent, the newcomer
    /// takes over. A socket that has carried several agents at a time proves nothing by its answer: it is a gateway's, and the
    /// newcomer takes over. Of two agents that poll, the one that came later is told.
    #[default]
    PingThenRekey,
}

impl Default for DuplicateSettings {
    fn default() -> Self {
        Self {
            other_credential: OtherCredential::default(),
            same_credential: SameCredential::default(),
            ping_timeout: Duration::from_secs(5),
            waiting_max: 16,
            waiting_bytes_max: 4 << 20,
        }
    }
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
            connections_per_identity_max: None,
            agents_per_connection_max: 1_000,
            agents_max: 1_000_000,
            forget_after: Duration::from_secs(24 * 3600),
            faults_max: 10,
            frame_bytes: 4_096,
            frames: FrameReader::default(),
            compress_min_bytes: 1_024,
            refusals_kept: 1_024,
            retry_after: Duration::from_secs(15),
            retry_after_max: Duration::from_secs(300),
            accept_rate: 2_000,
            accept_burst: 2_000,
            accept_queue_max: 4_096,
            buffered_bytes_max: 256 << 20,
            resync_rate: 1_000,
            resync_burst: 2_000,
            drain_rate: 2_000,
            sweep_interval: Duration::from_secs(1),
            handshakes_max: 256,
            http_connections_max: 16_384,
            sockets_max: None,
            http_buffer_bytes: 32 << 10,
            trusted_proxies: Vec::new(),
            duplicates: DuplicateSettings::default(),
            components_kept: 1_024,
            components_bytes_max: 16 << 20,
            shared_configs_max: 1_024,
            shared_configs_bytes_max: 64 << 20,
            custom_events_kept: 1_024,
            custom_events_bytes_max: 16 << 20,
            certificate_requests_max: 1_024,
            certificate_timeout: Duration::from_secs(3_600),
            accept_headerless: false,
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
