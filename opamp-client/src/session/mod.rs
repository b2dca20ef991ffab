//! One agent's conversation with its server: no IO, no clock, no randomness.
//!
//! # Contract of the driver
//!
//! Feed every event to [`Session::handle`] with the time it happened. Then take every [`Output`] from the outbox and
//! do it, in order. When [`Session::deadline`] has passed, call `handle(Input::Tick, ..)`. Nothing else is needed:
//! reconnecting, back-off, fail-over, heartbeats, polling, deadlines and repetition are decided here, alike on both
//! transports.
//!
//! # States
//!
//! ```text
//!        Start              Connected                        written
//! Idle ────────► Dialing ───────────► Open ─── goodbye ────────────────► Closing
//!                 ▲    │ Failed        │ Failed, Closed, deadline           │ Closed, deadline
//!                 │    ▼               ▼                                    ▼
//!                 └── Waiting ◄────────┴──────────────── or Finished ◄──────┘
//! ```
//!
//! Over HTTP there is a connection too, the one that requests use, but only answers count: the server is reached
//! with the first one, and lost with the first request that fails.
//!
//! # Level-triggered
//!
//! The session holds what is true of the agent and what the server was told, and sends the difference, whole
//! sub-messages at a time (R-STATUS-08). Nothing is queued, so nothing can be lost on the way or be overtaken: what
//! failed to be delivered differs again.

mod certificates;
mod components;
mod compose;
mod connect;
mod connections;
mod custom;
mod endpoints;
mod full_state;
mod incoming;
mod input;
mod link;
mod offers;
mod outbox;
mod packages;
mod receive;
mod remote_config;
mod report;
mod settings;
mod trial;

use std::time::Duration;

use opamp_proto::{
    AgentCapabilities, ConfigHash, InstanceUid, Mono, Now, Part, SequenceNum, ServerCapabilities,
};

#[cfg(feature = "net")]
pub(crate) use self::custom::CustomLimits;
pub use self::input::{ConnectionPart, Input, Stopped, Unusable};
pub use self::outbox::{CloseCode, ConnectionsChange, Outbox, Output};
pub use self::settings::{Abilities, EndpointInfo, SessionSettings, Setup};

use self::certificates::Certificates;
use self::components::ComponentState;
use self::connections::{Connections, Stage};
use self::custom::Custom;
use self::endpoints::Endpoints;
use self::full_state::FullState;
use self::link::{Leaving, Link, Then};
use self::packages::Packages;
use self::remote_config::ConfigState;
use self::report::Report;
use crate::config::Rejected;
use crate::description::Description;
use crate::event::{DisconnectCause, Event};
use crate::retry::{Backoff, Random};
use crate::saved::SavedState;
use crate::stats::Stats;

/// The longest effective [`SessionSettings::start_within`].
const LONGEST_START: Duration = Duration::from_secs(3600);

/// The agent's half of the conversation with its server.
#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    abilities: Abilities,
    description: Description,
    uid: InstanceUid,
    /// The identity before the server changed it on this connection; answers to it may still arrive.
    previous_uid: Option<InstanceUid>,
    uid_assigned: bool,
    sequence: SequenceNum,
    report: Report,
    config: ConfigState,
    certificates: Certificates,
    components: ComponentState,
    connections: Connections,
    custom: Custom,
    packages: Packages,
    /// What the server can do, once it has said so.
    server: Option<ServerCapabilities>,
    /// The interval the server set, in seconds, for an agent that takes nothing else of its settings.
    offered_interval: Option<u64>,
    full_state: FullState,
    health_sent: Option<Mono>,
    /// The server takes less than everything at once.
    one_at_a_time: bool,
    endpoints: Endpoints,
    backoff: Backoff,
    /// Spreads over time what a fleet would otherwise do in the same second.
    spread: Random,
    link: Link,
    /// The agent has left another endpoint for the first, and how often in a row that was no good.
    returning: bool,
    failed_returns: u32,
    /// The endpoint that knows what was reported.
    last_endpoint: Option<usize>,
    ever_reached: bool,
    stats: Stats,
}

impl Session {
    /// A session that waits for [`Input::Start`].
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let Setup { endpoint, fallbacks, description, saved, abilities, settings, seed } = setup;
        let settings = settings.floored();
        let mut spread = Random::new(!seed);
        let request = saved.connections.request.clone();
        let connections = Connections::restore(saved.connections, &endpoint, abilities);
        let accepted = connections.accepted.clone();
        let mut session = Self {
            certificates: Certificates::restore(request, accepted.as_deref(), &mut spread),
            components: ComponentState::default(),
            connections,
            custom: Custom::default(),
            packages: Packages::default(),
            backoff: Backoff::new(settings.retry.clone(), seed),
            spread,
            abilities,
            uid: saved.uid,
            previous_uid: None,
            uid_assigned: saved.uid_assigned,
            sequence: saved.sequence_num,
            report: Report::default(),
            config: remote_config::restore(saved.remote_config),
            server: None,
            offered_interval: None,
            full_state: FullState::default(),
            health_sent: None,
            one_at_a_time: false,
            endpoints: Endpoints::new(endpoint, fallbacks),
            link: Link::Idle,
            returning: false,
            failed_returns: 0,
            last_endpoint: None,
            ever_reached: false,
            stats: Stats::default(),
            description,
            settings,
        };
        if let Some(accepted) = &accepted {
            session.endpoints.accept(connections::endpoint_of(accepted));
        }
        session.describe();
        if abilities.remote_config {
            session.report.set(Part::RemoteConfigStatus, remote_config::status(&session.config));
        }
        if abilities.connections() {
            session.report.set(Part::ConnectionSettingsStatus, session.connections.status());
        }
        session
    }

    /// Takes one event in and puts what is to be done into `out`.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the application tells something to a session that was stopped. Nothing that the network brings
    /// fails.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Outbox) -> Result<(), Stopped> {
        let told = matches!(
            input,
            Input::AvailableComponents(_)
                | Input::Custom(_)
                | Input::CustomCapabilities(_)
                | Input::Describe(_)
                | Input::EffectiveConfig(_)
                | Input::Health(_)
                | Input::Reconnect
                | Input::RequestCertificate
                | Input::Start
        );
        if told && self.is_stopping() {
            return Err(Stopped);
        }
        match input {
            Input::Abandoned => {
                self.config.abandon();
                self.connections.abandon();
                self.packages.offers.abandon();
                out.push(Output::Persist);
            }
            Input::Alive => self.heard(now.mono),
            Input::AvailableComponents(components) => self.set_components(&components),
            Input::CertificateRequest(result) => self.certificate_made(result, out),
            Input::Closed { code, reason } => self.closed(code, &reason, now.mono, out),
            Input::ConfigOutcome { hash, result, effective } => {
                if let Some(effective) = effective {
                    self.report.set(Part::EffectiveConfig, effective.encode());
                }
                self.config_outcome(&hash, result, out);
            }
            Input::Connected => self.opened(now.mono, out),
            Input::ConnectionsOutcome { hash, failed } => self.connections_outcome(&hash, failed, out),
            Input::Custom(message) => self.queue_custom(&message, out),
            Input::CustomCapabilities(names) => self.set_custom(names),
            Input::Describe(description) => {
                self.description = description;
                self.describe();
            }
            Input::EffectiveConfig(config) => self.report.set(Part::EffectiveConfig, config.encode()),
            Input::Failed(failure) => self.failed(failure, now.mono, out),
            Input::Health(health) => {
                let encoded = health.encode(now.wall);
                self.report.set_meaning(Part::Health, encoded.report, encoded.meaning);
            }
            Input::NotSaved => self.not_saved(out),
            Input::PackageStatuses(statuses) => self.package_statuses(statuses),
            Input::PackagesOutcome { hash, result } => self.packages_outcome(&hash, result, out),
            Input::Probed(reachable) => self.probed(reachable, now.mono),
            Input::Received(bytes) => self.received(bytes, now, out),
            Input::Reconnect => self.reconnect(now.mono, out),
            Input::RequestCertificate => self.want_certificate(),
            Input::SettingsUnusable(why) => self.accepted_unusable(&why, out),
            Input::Start => {
                if matches!(self.link, Link::Idle) {
                    self.tell_refused(out);
                    out.push(Output::Persist);
                    let wait = self.settings.start_within.min(LONGEST_START).mul_f64(self.spread.share());
                    self.link = Link::Waiting { until: now.mono + wait };
                }
            }
            Input::Stop => self.stop(now.mono, out),
            Input::Tick => {}
            Input::Unusable(what) => self.unusable(what, now.mono, out),
            Input::Written => self.written(now.mono),
        }
        self.expire(now.mono, out);
        self.begin_connections(now.mono, out);
        self.look_after_certificates(now, out);
        self.pump(now.mono, out);
        Ok(())
    }

    /// The identity in use.
    #[must_use]
    pub const fn uid(&self) -> InstanceUid {
        self.uid
    }

    /// What this agent announces: what it was given to report, and its abilities.
    #[must_use]
    pub fn capabilities(&self) -> AgentCapabilities {
        let mut capabilities = self.abilities.capabilities();
        let present = self.report.present();
        if present.contains(Part::Health) {
            capabilities |= AgentCapabilities::REPORTS_HEALTH;
        }
        if present.contains(Part::EffectiveConfig) {
            capabilities |= AgentCapabilities::REPORTS_EFFECTIVE_CONFIG;
        }
        if present.contains(Part::AvailableComponents) {
            capabilities |= AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS;
        }
        if self.settings.heartbeat.is_some() {
            capabilities |= AgentCapabilities::REPORTS_HEARTBEAT;
        }
        capabilities
    }

    /// What the server announced, once it has.
    #[must_use]
    pub const fn server_capabilities(&self) -> Option<ServerCapabilities> {
        self.server
    }

    /// What has to outlive this process; see [`Output::Persist`].
    #[must_use]
    pub fn saved(&self) -> SavedState {
        SavedState {
            uid: self.uid,
            uid_assigned: self.uid_assigned,
            sequence_num: self.sequence,
            remote_config: self.config.saved(),
            connections: crate::saved::SavedConnections {
                request: self.certificates.saved(),
                ..self.connections.saved()
            },
        }
    }

    /// Whether it was told to stop, or has ended.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        match &self.link {
            Link::Finished | Link::Closing { then: Then::Finish, .. } => true,
            Link::Open(open) => matches!(open.leaving, Some(Leaving { then: Then::Finish, .. })),
            _ => false,
        }
    }

    /// Whether it has ended: nothing will come of it any more.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.link, Link::Finished)
    }

    /// Whether the application is at work on something that was offered. A driver whose session has ended should wait for the
    /// outcome a little, and tell it or [`Input::Abandoned`]: otherwise the offer counts as interrupted.
    #[must_use]
    pub const fn is_applying(&self) -> bool {
        self.config.is_applying() || self.connections.is_handed_over() || self.packages.offers.is_applying()
    }

    /// Whether the server is reached.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(&self.link, Link::Open(open) if open.reached_at.is_some())
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self, now: Mono) -> Stats {
        let mut stats = self.stats;
        if let Link::Open(open) = &self.link
            && let Some(since) = open.reached_at
        {
            stats.is_connected = true;
            stats.connected += now - since;
        }
        stats
    }

    fn describe(&mut self) {
        self.report.set(Part::AgentDescription, self.description.encode(&self.uid));
    }

    fn config_outcome(&mut self, hash: &ConfigHash, result: Result<(), Rejected>, out: &mut Outbox) {
        if !self.abilities.remote_config {
            return;
        }
        let next = self.config.outcome(hash, result.map_err(|why| why.reason().to_owned()));
        self.report.set(Part::RemoteConfigStatus, remote_config::status(&self.config));
        out.push(Output::Persist);
        match next {
            // Who is about to end begins nothing.
            Some(_) if self.is_stopping() => self.config.abandon(),
            Some(next) => out.push(Output::Apply(next)),
            None => {}
        }
    }

    fn stop(&mut self, now: Mono, out: &mut Outbox) {
        match &mut self.link {
            Link::Open(open) => open.leave(Then::Finish, DisconnectCause::Stopped, now),
            Link::Closing { then, .. } => *then = Then::Finish,
            Link::Finished => {}
            Link::Dialing { .. } | Link::Idle | Link::Waiting { .. } => {
                out.push(Output::Abort);
                self.finish(out);
            }
        }
    }

    fn finish(&mut self, out: &mut Outbox) {
        if self.connections.stage != Stage::Idle {
            // A trial is not at fault for a stop, and goes on with the next start.
            self.connections.offers.abandon();
        }
        out.push(Output::Persist);
        self.link = Link::Finished;
    }

    /// Tells that the connection is over, if it ever was one.
    fn ended(&mut self, cause: DisconnectCause, now: Mono, out: &mut Outbox) {
        let Link::Open(open) = &mut self.link else { return };
        if let Some(since) = open.reached_at.take() {
            self.stats.connected += now - since;
            let asked_for = matches!(cause, DisconnectCause::Reconnecting | DisconnectCause::Stopped);
            if self.endpoints.current() == 0 && !self.endpoints.is_trial() {
                self.returned(asked_for || now - since >= self.settings.retry.stable);
            }
            out.event(Event::Disconnected { endpoint: self.endpoints.name(), cause });
        }
    }
}
