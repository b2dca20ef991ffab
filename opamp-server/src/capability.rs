//! Capability gating: one table of rules, and permits that make an ungated offer impossible to write.
//!
//! "Capability" is the word for what a peer announced it supports; a "gate" is something else (a rollout gate).
//!
//! # Permits
//!
//! Each gated field of `ServerToAgent` can only be written with a [`Permit`] of its own kind. A permit is made
//! by [`Negotiated::permit`] and borrows the capabilities it was made from, so it cannot outlive the next
//! message of the agent, which may change them.
//!
//! An offer without a permit does not compile:
//!
//! ```compile_fail,E0061
//! # use opamp_server::{capability::*, reply::Reply, session::Session, RemoteConfigOffer};
//! fn offer(session: &Session, offer: &RemoteConfigOffer, reply: &mut Reply<'_>) {
//!     reply.remote_config(offer);
//! }
//! ```
//!
//! Nor does one with a permit of another kind:
//!
//! ```compile_fail,E0308
//! # use opamp_server::{capability::*, reply::Reply, session::Session, RemoteConfigOffer};
//! fn offer(session: &Session, offer: &RemoteConfigOffer, reply: &mut Reply<'_>) {
//!     if let Some(permit) = session.negotiated().permit::<Restart>() {
//!         reply.remote_config(&permit, offer);
//!     }
//! }
//! ```
//!
//! Nor one with a permit kept across a message:
//!
//! ```compile_fail,E0502
//! # use opamp_server::{capability::*, reply::Reply, session::*, RemoteConfigOffer};
//! # use opamp_proto::Now;
//! fn offer(session: &mut Session, input: Input<'_>, now: Now, outbox: &mut Outbox, offer: &RemoteConfigOffer, reply: &mut Reply<'_>) {
//!     if let Some(permit) = session.negotiated().permit::<RemoteConfig>() {
//!         let _ = session.handle(input, now, outbox);
//!         reply.remote_config(&permit, offer);
//!     }
//! }
//! ```
//!
//! The one that is right asks after the message, and differs from the three above in nothing else:
//!
//! ```
//! # use opamp_server::{capability::*, reply::Reply, session::*, RemoteConfigOffer};
//! # use opamp_proto::Now;
//! fn offer(session: &mut Session, input: Input<'_>, now: Now, outbox: &mut Outbox, offer: &RemoteConfigOffer, reply: &mut Reply<'_>) {
//!     let _ = session.handle(input, now, outbox);
//!     if let Some(permit) = session.negotiated().permit::<RemoteConfig>() {
//!         reply.remote_config(&permit, offer);
//!     }
//! }
//! ```

use std::marker::PhantomData;

use opamp_proto::{AgentCapabilities, Part, ServerCapabilities};

use crate::desired::SettingsParts;

/// Who sends a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A field of `AgentToServer`.
    AgentToServer,
    /// A field of `ServerToAgent`.
    ServerToAgent,
}

/// What happens to a field whose capability is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// The receiving server leaves the field out of what it processes and counts `cap_mismatch`; with
    /// [`CapabilityMismatch::Reject`](crate::session::CapabilityMismatch) it refuses the message.
    Ignore,
    /// The sending server does not send the field.
    Withhold,
}

/// One row of the gating matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The field by its schema name, with the message that holds it.
    pub field: &'static str,
    /// The sub-message of `AgentToServer` it is, if it is one.
    pub part: Option<Part>,
    /// Who sends it.
    pub direction: Direction,
    /// Bits the agent must have announced.
    pub agent: AgentCapabilities,
    /// Bits the server must announce.
    pub server: ServerCapabilities,
    /// What happens without them.
    pub if_absent: IfAbsent,
    /// The requirements behind the row.
    pub requirements: &'static str,
}

/// The gating matrix of OpAMP v0.20.0, as far as bits gate fields.
///
/// `agent_description` and `custom_capabilities` have no row: every agent reports status (R-CAP-03), and custom
/// capabilities are not gated by a bit.
pub static RULES: &[Rule] = &[
    received("health", Part::Health, AgentCapabilities::REPORTS_HEALTH, ServerCapabilities::NONE, "R-CAP-25"),
    received(
        "effective_config",
        Part::EffectiveConfig,
        AgentCapabilities::REPORTS_EFFECTIVE_CONFIG,
        ServerCapabilities::ACCEPTS_EFFECTIVE_CONFIG,
        "R-CAP-16, R-CONF-05",
    ),
    received(
        "remote_config_status",
        Part::RemoteConfigStatus,
        AgentCapabilities::REPORTS_REMOTE_CONFIG,
        ServerCapabilities::NONE,
        "R-CAP-26",
    ),
    received(
        "package_statuses",
        Part::PackageStatuses,
        AgentCapabilities::REPORTS_PACKAGE_STATUSES,
        ServerCapabilities::ACCEPTS_PACKAGES_STATUS,
        "R-CAP-18",
    ),
    received(
        "connection_settings_request",
        Part::ConnectionSettingsRequest,
        AgentCapabilities::NONE,
        ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST,
        "R-CAP-31",
    ),
    received(
        "available_components",
        Part::AvailableComponents,
        AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS,
        ServerCapabilities::NONE,
        "R-CAP-28",
    ),
    received(
        "connection_settings_status",
        Part::ConnectionSettingsStatus,
        AgentCapabilities::REPORTS_CONNECTION_SETTINGS_STATUS,
        ServerCapabilities::NONE,
        "R-CAP-29",
    ),
    REMOTE_CONFIG,
    PACKAGES,
    OPAMP_SETTINGS,
    HEARTBEAT_INTERVAL,
    OWN_METRICS,
    OWN_TRACES,
    OWN_LOGS,
    OTHER_CONNECTIONS,
    RESTART,
    REPORT_COMPONENTS,
];

const REMOTE_CONFIG: Rule = sent(
    "remote_config",
    AgentCapabilities::ACCEPTS_REMOTE_CONFIG,
    ServerCapabilities::OFFERS_REMOTE_CONFIG,
    "R-CAP-15, R-CONF-04",
);

const PACKAGES: Rule = sent(
    "packages_available",
    AgentCapabilities::ACCEPTS_PACKAGES,
    ServerCapabilities::OFFERS_PACKAGES,
    "R-CAP-17, R-PKG-06",
);

const OPAMP_SETTINGS: Rule = sent(
    "connection_settings.opamp",
    AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS,
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-CAP-22, R-CAP-30",
);

const HEARTBEAT_INTERVAL: Rule = sent(
    "connection_settings.opamp.heartbeat_interval_seconds",
    AgentCapabilities::ACCEPTS_OPAMP_CONNECTION_SETTINGS.union(AgentCapabilities::REPORTS_HEARTBEAT),
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-HB-12, R-CAP-22",
);

const OWN_METRICS: Rule = sent(
    "connection_settings.own_metrics",
    AgentCapabilities::REPORTS_OWN_METRICS,
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-CAP-20, R-CAP-30",
);

const OWN_TRACES: Rule = sent(
    "connection_settings.own_traces",
    AgentCapabilities::REPORTS_OWN_TRACES,
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-CAP-19, R-CAP-30",
);

const OWN_LOGS: Rule = sent(
    "connection_settings.own_logs",
    AgentCapabilities::REPORTS_OWN_LOGS,
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-CAP-21, R-CAP-30",
);

const OTHER_CONNECTIONS: Rule = sent(
    "connection_settings.other_connections",
    AgentCapabilities::ACCEPTS_OTHER_CONNECTION_SETTINGS,
    ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
    "R-CAP-23, R-CAP-30",
);

const RESTART: Rule = sent(
    "command",
    AgentCapabilities::ACCEPTS_RESTART_COMMAND,
    ServerCapabilities::NONE,
    "R-CAP-24, R-CMD-03",
);

const REPORT_COMPONENTS: Rule = sent(
    "flags.ReportAvailableComponents",
    AgentCapabilities::REPORTS_AVAILABLE_COMPONENTS,
    ServerCapabilities::NONE,
    "R-COMP-07, R-CAP-13",
);

/// The capabilities both sides of one session have announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    agent: AgentCapabilities,
    server: ServerCapabilities,
}

impl Negotiated {
    /// What `agent` and `server` announced.
    pub const fn new(agent: AgentCapabilities, server: ServerCapabilities) -> Self {
        Self { agent, server }
    }

    /// The agent's bits, unknown ones kept.
    pub const fn agent(&self) -> AgentCapabilities {
        self.agent
    }

    /// The server's bits.
    pub const fn server(&self) -> ServerCapabilities {
        self.server
    }

    /// The permit to send fields of kind `K` now, or none if a bit is missing on either side.
    pub fn permit<K: Offer>(&self) -> Option<Permit<'_, K>> {
        self.allows(&K::RULE).then_some(Permit { _kind: PhantomData })
    }

    /// The permits to send parts of connection settings now; there may be none.
    pub fn settings_permits(&self) -> SettingsPermits<'_> {
        SettingsPermits {
            opamp: self.permit(),
            heartbeat_interval: self.permit(),
            own_metrics: self.permit(),
            own_traces: self.permit(),
            own_logs: self.permit(),
            other_connections: self.permit(),
        }
    }

    /// Whether both sides have the bits that `rule` asks for.
    pub fn allows(&self, rule: &Rule) -> bool {
        self.agent.contains(rule.agent) && self.server.contains(rule.server)
    }

    /// Whether a received part may be used.
    pub fn received(&self, part: Part) -> Received {
        match RULES.iter().find(|rule| rule.part == Some(part)) {
            Some(rule) if !self.agent.contains(rule.agent) => {
                Received::Missing(rule.agent.names().next().unwrap_or("unknown"))
            }
            Some(rule) if !self.server.contains(rule.server) => Received::NotOurs,
            Some(_) | None => Received::Use,
        }
    }

    pub(crate) fn set_agent(&mut self, agent: AgentCapabilities) {
        self.agent = agent;
    }
}

/// What a server does with a part it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The agent did not announce this capability.
    Missing(&'static str),
    /// The server does not announce that it accepts the part. The first message of an agent is sent before it
    /// can know that, so it is left out without a complaint.
    NotOurs,
    /// Both sides announced what it takes.
    Use,
}

/// Leave to write one kind of gated field into one message.
#[derive(Debug)]
pub struct Permit<'caps, K: Offer> {
    _kind: PhantomData<(&'caps Negotiated, K)>,
}

/// A kind of gated field. Sealed: the kinds are the rows of [`RULES`].
pub trait Offer: sealed::Sealed {
    /// The row of the matrix.
    const RULE: Rule;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $rule:ident;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub enum $kind {}

            impl Offer for $kind {
                const RULE: Rule = $rule;
            }

            impl sealed::Sealed for $kind {}
        )+
    };
}

kinds! {
    /// `ServerToAgent.remote_config`.
    RemoteConfig = REMOTE_CONFIG;
    /// `ServerToAgent.packages_available`.
    Packages = PACKAGES;
    /// `ConnectionSettingsOffers.opamp`, without its heartbeat interval.
    OpampSettings = OPAMP_SETTINGS;
    /// `OpAMPConnectionSettings.heartbeat_interval_seconds`.
    HeartbeatInterval = HEARTBEAT_INTERVAL;
    /// `ConnectionSettingsOffers.own_metrics`.
    OwnMetrics = OWN_METRICS;
    /// `ConnectionSettingsOffers.own_traces`.
    OwnTraces = OWN_TRACES;
    /// `ConnectionSettingsOffers.own_logs`.
    OwnLogs = OWN_LOGS;
    /// `ConnectionSettingsOffers.other_connections`.
    OtherConnections = OTHER_CONNECTIONS;
    /// `ServerToAgent.command` with type Restart.
    Restart = RESTART;
    /// The flag ReportAvailableComponents.
    ReportComponents = REPORT_COMPONENTS;
}

mod sealed {
    pub trait Sealed {}
}

/// Permits for the parts of connection settings, as many as there are now.
#[derive(Debug)]
pub struct SettingsPermits<'caps> {
    opamp: Option<Permit<'caps, OpampSettings>>,
    heartbeat_interval: Option<Permit<'caps, HeartbeatInterval>>,
    own_metrics: Option<Permit<'caps, OwnMetrics>>,
    own_traces: Option<Permit<'caps, OwnTraces>>,
    own_logs: Option<Permit<'caps, OwnLogs>>,
    other_connections: Option<Permit<'caps, OtherConnections>>,
}

impl SettingsPermits<'_> {
    /// The parts that may be sent.
    pub fn parts(&self) -> SettingsParts {
        [
            (SettingsParts::OPAMP, self.opamp.is_some()),
            (SettingsParts::HEARTBEAT_INTERVAL, self.heartbeat_interval.is_some()),
            (SettingsParts::OWN_METRICS, self.own_metrics.is_some()),
            (SettingsParts::OWN_TRACES, self.own_traces.is_some()),
            (SettingsParts::OWN_LOGS, self.own_logs.is_some()),
            (SettingsParts::OTHER_CONNECTIONS, self.other_connections.is_some()),
        ]
        .into_iter()
        .filter(|(_, permitted)| *permitted)
        .fold(SettingsParts::NONE, |parts, (part, _)| parts | part)
    }
}

const fn received(
    field: &'static str,
    part: Part,
    agent: AgentCapabilities,
    server: ServerCapabilities,
    requirements: &'static str,
) -> Rule {
    Rule {
        field,
        part: Some(part),
        direction: Direction::AgentToServer,
        agent,
        server,
        if_absent: IfAbsent::Ignore,
        requirements,
    }
}

const fn sent(
    field: &'static str,
    agent: AgentCapabilities,
    server: ServerCapabilities,
    requirements: &'static str,
) -> Rule {
    Rule {
        field,
        part: None,
        direction: Direction::ServerToAgent,
        agent,
        server,
        if_absent: IfAbsent::Withhold,
        requirements,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_needs_the_bits_of_both_sides() {
        let agent = AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
        let server = ServerCapabilities::OFFERS_REMOTE_CONFIG;
        assert!(Negotiated::new(agent, server).permit::<RemoteConfig>().is_some());
        assert!(Negotiated::new(AgentCapabilities::NONE, server).permit::<RemoteConfig>().is_none());
        assert!(Negotiated::new(agent, ServerCapabilities::NONE).permit::<RemoteConfig>().is_none());
        assert!(Negotiated::new(agent, server).permit::<Restart>().is_none());
    }

    #[test]
    fn every_gated_part_has_exactly_one_rule_and_withholding_is_for_the_sender() {
        for part in Part::ALL {
            let rules = RULES.iter().filter(|rule| rule.part == Some(part)).count();
            let ungated = matches!(
                part,
                Part::AgentDescription
                    | Part::AgentDisconnect
                    | Part::CustomCapabilities
                    | Part::CustomMessage
            );
            assert_eq!(rules, usize::from(!ungated), "{}", part.name());
        }
        for rule in RULES {
            let expected = match rule.direction {
                Direction::AgentToServer => IfAbsent::Ignore,
                Direction::ServerToAgent => IfAbsent::Withhold,
            };
            assert_eq!(rule.if_absent, expected, "{}", rule.field);
        }
    }

    #[test]
    fn a_missing_capability_is_named_and_an_unaccepted_part_is_no_fault() {
        let none = Negotiated::new(AgentCapabilities::NONE, ServerCapabilities::ACCEPTS_EFFECTIVE_CONFIG);
        assert_eq!(none.received(Part::Health), Received::Missing("ReportsHealth"));
        assert_eq!(none.received(Part::EffectiveConfig), Received::Missing("ReportsEffectiveConfig"));
        assert_eq!(none.received(Part::AgentDescription), Received::Use);
        let all = Negotiated::new(AgentCapabilities::from_bits(u64::MAX), ServerCapabilities::NONE);
        assert_eq!(all.received(Part::EffectiveConfig), Received::NotOurs);
        assert_eq!(all.received(Part::Health), Received::Use);
    }
}
