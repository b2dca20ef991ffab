//! What a session begins with: endpoints, description, abilities, intervals and limits.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::AgentCapabilities;

use crate::description::Description;
use crate::event::Transport;
use crate::retry::RetrySettings;
use crate::saved::SavedState;

/// Smallest effective distance of anything that repeats: an interval of 0 would be a flood.
const REPEAT_FLOOR: Duration = Duration::from_millis(10);
/// Smallest effective [`SessionSettings::send_bytes_max`]: what a message without any part may need.
const SEND_BYTES_FLOOR: usize = 256;

/// Everything about a session that can be set. Every wait and size has its bound here.
///
/// What repeats (heartbeats, polls, pings, complete reports on demand, looks at the first endpoint) does so every 10 ms at
/// most: a shorter interval counts as that.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Distance of heartbeats over WebSocket, from the last message of any kind; `None` for none, which also leaves the
    /// capability ReportsHeartbeat unset (R-HB-15), as does 0. Default 30 s (R-HB-03). The server may set another.
    pub heartbeat: Option<Duration>,
    /// Distance of polls over HTTP, from the last request. Default 30 s (R-HTTP-04). The server may set another.
    pub poll_interval: Duration,
    /// The longest interval a server can set. Default 24 h: one wrong number must not silence an agent for good.
    pub interval_max: Duration,
    /// After a report of health the next one waits this long, and carries what is true then. Default 1 s. Some components
    /// change their mind every few milliseconds.
    pub health_debounce: Duration,
    /// The window of the first attempt after a start. Default 0: at once. A fleet of machines that are switched on
    /// together is better spread over some seconds.
    pub start_within: Duration,
    /// How long an attempt to connect may take altogether: name, TCP, proxy, TLS, upgrade. Default 30 s.
    pub connect_timeout: Duration,
    /// How long the answer to a report may take (R-RETRY-01); over HTTP, to any request. Default 30 s.
    pub response_timeout: Duration,
    /// How long writing one message to a WebSocket may take. Default 20 s. A peer that reads nothing is noticed by this.
    pub write_timeout: Duration,
    /// Silence of a WebSocket after which it is pinged. Default 30 s.
    pub ping_interval: Duration,
    /// Silence of a WebSocket after which it is given up. Default 90 s: three pings.
    pub read_timeout: Duration,
    /// How long the server's half of a closing handshake is waited for. Default 2 s.
    pub close_timeout: Duration,
    /// How long a stop may take before the goodbye is given up. Default 5 s.
    pub stop_timeout: Duration,
    /// Largest message that is sent, in bytes before compression: header and data of a WebSocket message, the body of a
    /// request (R-WS-07, R-HTTP-18). Default 64 MiB (R-WS-08, R-HTTP-19); below 256 counts as 256.
    pub send_bytes_max: usize,
    /// Entries of a remote configuration's map; more are malformed. Default 10,000.
    pub config_files_max: usize,
    /// Longest hash of a remote configuration, in bytes; an offer with a longer one is ignored. Default 1,024. It is kept,
    /// saved and reported as it is.
    pub config_hash_bytes_max: usize,
    /// Whether a WebSocket that was lost is replaced by one that begins with a complete report. Default yes, which
    /// suits every server. Without, unchanged parts are left out (R-STATUS-02), and a server that forgot them has to ask. So
    /// does one that missed the last report before the loss, if it sent something else in the meantime: over WebSocket no
    /// message says what it answers.
    pub full_state_on_reconnect: bool,
    /// Distance of repeated complete reports that a server asks for again and again, after the first three. Default 30 s.
    pub full_state_spacing: Duration,
    /// How long an agent stays with another endpoint than the first before it looks whether the first is back, half as long
    /// to half as long again. Each return that does not last doubles it, five times at most. Default 10 min.
    pub failback_after: Duration,
    /// Messages of a server in a row that are malformed, or have something in them that makes no sense, after which a
    /// WebSocket is closed. Default 10.
    pub faults_max: u32,
    /// Whether to ask the server for an identity, until it has given one (R-ID-05, R-ID-06). Default no.
    pub request_uid: bool,
    /// How attempts to connect are spaced.
    pub retry: RetrySettings,
}

/// What an agent can do beside reporting. What it *reports* follows from what it was given to report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Takes remote configurations, and reports what became of them. Off by default (R-SEC-09).
    pub remote_config: bool,
    /// Restarts on command.
    pub restart: bool,
}

/// An endpoint as a session knows it. The drivers know how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInfo {
    /// Its address as events show it, without credentials.
    pub name: Arc<str>,
    /// How messages travel there.
    pub transport: Transport,
}

/// What a session begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where to report to.
    pub endpoint: EndpointInfo,
    /// Where to report to while that cannot be reached, in order of preference.
    pub fallbacks: Vec<EndpointInfo>,
    /// Who the agent is.
    pub description: Description,
    /// What an earlier process of this agent left.
    pub saved: SavedState,
    /// What the agent can do.
    pub abilities: Abilities,
    /// Intervals and limits.
    pub settings: SessionSettings,
    /// A random number, different for each agent.
    pub seed: u64,
}

impl SessionSettings {
    /// The settings as they take effect.
    pub(super) fn floored(mut self) -> Self {
        self.heartbeat =
            self.heartbeat.filter(|interval| !interval.is_zero()).map(|interval| interval.max(REPEAT_FLOOR));
        for interval in [
            &mut self.poll_interval,
            &mut self.ping_interval,
            &mut self.full_state_spacing,
            &mut self.failback_after,
        ] {
            *interval = (*interval).max(REPEAT_FLOOR);
        }
        self
    }

    pub(super) fn send_limit(&self) -> usize {
        self.send_bytes_max.max(SEND_BYTES_FLOOR)
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            heartbeat: Some(Duration::from_secs(30)),
            poll_interval: Duration::from_secs(30),
            interval_max: Duration::from_secs(24 * 3600),
            health_debounce: Duration::from_secs(1),
            start_within: Duration::ZERO,
            connect_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(30),
            read_timeout: Duration::from_secs(90),
            close_timeout: Duration::from_secs(2),
            stop_timeout: Duration::from_secs(5),
            send_bytes_max: 64 << 20,
            config_files_max: 10_000,
            config_hash_bytes_max: 1_024,
            full_state_on_reconnect: true,
            full_state_spacing: Duration::from_secs(30),
            failback_after: Duration::from_secs(600),
            faults_max: 10,
            request_uid: false,
            retry: RetrySettings::default(),
        }
    }
}

impl Abilities {
    pub(super) fn capabilities(self) -> AgentCapabilities {
        let mut capabilities = AgentCapabilities::REPORTS_STATUS;
        if self.remote_config {
            capabilities |=
                AgentCapabilities::ACCEPTS_REMOTE_CONFIG | AgentCapabilities::REPORTS_REMOTE_CONFIG;
        }
        if self.restart {
            capabilities |= AgentCapabilities::ACCEPTS_RESTART_COMMAND;
        }
        capabilities
    }
}

impl Setup {
    /// The minimum: one endpoint, a description, saved state and a seed; everything else by default.
    #[must_use]
    pub fn new(endpoint: EndpointInfo, description: Description, saved: SavedState, seed: u64) -> Self {
        Self {
            endpoint,
            fallbacks: Vec::new(),
            description,
            saved,
            abilities: Abilities::default(),
            settings: SessionSettings::default(),
            seed,
        }
    }
}

impl EndpointInfo {
    /// An endpoint with the name events show.
    pub fn new(name: impl Into<Arc<str>>, transport: Transport) -> Self {
        Self { name: name.into(), transport }
    }
}
