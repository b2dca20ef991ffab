//! What a session begins with: endpoints, description, abilities, intervals and limits.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::AgentCapabilities;

use crate::connection::{Secret, SettingsPolicy, Signal};
use crate::description::Description;
use crate::event::Transport;
use crate::packages::OfferLimits;
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
    /// Longest hash of a remote configuration or of connection settings, in bytes; an offer with a longer one is ignored.
    /// Default 1,024. It is kept, saved and reported as it is.
    pub config_hash_bytes_max: usize,
    /// Largest offer of connection settings, in bytes; a larger one fails. Default 256 KiB. What is accepted is kept in
    /// memory and in the saved state.
    pub settings_bytes_max: usize,
    /// Names of other connections that are kept; an offer that would make more fails in that part. Default 64.
    pub other_connections_max: usize,
    /// How long new OpAMP settings may take from the first attempt to connect until the first answer. Then the agent goes
    /// back to those before. Default 60 s; longer keeps an agent away from its server for longer, shorter fails settings for a
    /// server that is slow.
    pub trial_timeout: Duration,
    /// Distance of offers of connection settings that are begun, after the first three. Default 30 s. Of those that arrive
    /// meanwhile the newest waits: a server that changes its mind all the time does not keep the agent from working.
    pub settings_spacing: Duration,
    /// Distance of requests for a certificate that the agent makes by itself: after a refusal, or while nobody answers. Default
    /// 1 h.
    pub certificate_spacing: Duration,
    /// Custom messages that wait to be sent; more are refused. Default 100.
    pub custom_messages_max: usize,
    /// Size of all custom messages that wait to be sent, in bytes on the wire; more are refused. Default 1 MiB.
    pub custom_bytes_max: usize,
    /// Custom capabilities of the server that are remembered; what it announces beyond them does not exist for this agent.
    /// Default 1,000.
    pub custom_capabilities_max: usize,
    /// Largest offer of packages, in bytes; a larger one fails as a whole. Default 1 MiB.
    pub packages_bytes_max: usize,
    /// What an offer of packages may have.
    pub package_limits: OfferLimits,
    /// Distance of reports that differ in nothing but how far packages are; the newest waits. Default 1 s.
    pub package_report_spacing: Duration,
    /// Speaks WebSocket messages without the header in front, as before OpAMP 0.7, to a server of that age. Answers are
    /// understood in both forms then. Default no.
    pub headerless: bool,
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
    /// Asks for client certificates with keys of its own.
    pub certificates: bool,
    /// The agent's identity is in what it asks for, so that another certificate is needed with another identity.
    pub certificates_name_identity: bool,
    /// What is saved outlives the process; without, no certificate is taken (R-CONN-15).
    pub durable: bool,
    /// Takes settings of its connection to the server.
    pub opamp_settings: bool,
    /// Takes settings of connections that only the application knows.
    pub other_connections: bool,
    /// Sends its own logs where the server says.
    pub own_logs: bool,
    /// Sends its own metrics where the server says.
    pub own_metrics: bool,
    /// Sends its own traces where the server says.
    pub own_traces: bool,
    /// Installs packages, and reports what became of them.
    pub packages: bool,
    /// What no server may change.
    pub policy: SettingsPolicy,
    /// Takes remote configurations, and reports what became of them. Off by default (R-SEC-09).
    pub remote_config: bool,
    /// Restarts on command.
    pub restart: bool,
    /// Shows a client certificate as it is configured; settings without one are then other settings.
    pub shows_certificate: bool,
}

/// An endpoint as a session knows it. The drivers know how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInfo {
    /// Its address as events show it, without credentials.
    pub name: Arc<str>,
    /// How messages travel there.
    pub transport: Transport,
    /// The whole address, where the name leaves something out.
    address: Option<Secret>,
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
            &mut self.trial_timeout,
            &mut self.settings_spacing,
            &mut self.certificate_spacing,
            &mut self.package_report_spacing,
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
            settings_bytes_max: 256 << 10,
            other_connections_max: 64,
            trial_timeout: Duration::from_secs(60),
            settings_spacing: Duration::from_secs(30),
            certificate_spacing: Duration::from_secs(3600),
            custom_messages_max: 100,
            custom_bytes_max: 1 << 20,
            custom_capabilities_max: 1_000,
            packages_bytes_max: 1 << 20,
            package_limits: OfferLimits::default(),
            package_report_spacing: Duration::from_secs(1),
            headerless: false,
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
        if self.packages {
            capabilities |= AgentCapabilities::ACCEPTS_PACKAGES | AgentCapabilities::REPORTS_PACKAGE_STATUSES;
        }
        for (able, capability) in [
            (self.opamp_settings, AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS),
            (self.other_connections, AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS),
            (self.own_logs, AgentCapabilities::REPORTS_OWN_LOGS),
            (self.own_metrics, AgentCapabilities::REPORTS_OWN_METRICS),
            (self.own_traces, AgentCapabilities::REPORTS_OWN_TRACES),
            (self.restart, AgentCapabilities::ACCEPTS_RESTART_COMMAND),
            (self.connections(), AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS),
        ] {
            if able {
                capabilities |= capability;
            }
        }
        capabilities
    }

    /// Whether it takes connection settings of any kind, and so reports what became of them.
    pub(super) const fn connections(self) -> bool {
        self.opamp_settings || self.other_connections || self.own_logs || self.own_metrics || self.own_traces
    }

    pub(super) const fn takes(self, signal: Signal) -> bool {
        match signal {
            Signal::Logs => self.own_logs,
            Signal::Metrics => self.own_metrics,
            Signal::Traces => self.own_traces,
        }
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
        Self { name: name.into(), transport, address: None }
    }

    /// With the whole address, query included, if the name is less than that. Offered settings are compared with it, and it
    /// is shown to nobody.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Secret>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The whole address.
    pub(super) fn address(&self) -> &str {
        self.address.as_ref().and_then(Secret::expose_text).unwrap_or(&self.name)
    }
}
