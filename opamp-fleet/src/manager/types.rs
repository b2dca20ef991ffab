//! What goes into a manager and comes out of it.

use std::collections::BTreeMap;

use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, InstanceUid, PartSet, SequenceNum, Wall, pb};
use opamp_server::{ConnectionSettingsReport, Dispatch, PackagesReport, RemoteConfigReport};
use opamp_store::{
    ConnectionFacts, DesiredConfig, DesiredPackages, DesiredSettings, FailureRecord, OfferRecord, Revision,
    StickyRecord,
};

use super::durations::ApplyHistogram;
use crate::{Drift, FleetCounts, Health, Liveness, Selector};

/// Who wants something, as the audit log shows it. Comes from authentication, never from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Name of the user or token.
    pub name: String,
    /// The role it acts in.
    pub role: String,
    /// The address the request came from.
    pub source: Option<String>,
    /// The trace the request belongs to.
    pub trace_id: Option<String>,
}

impl Actor {
    /// The server itself.
    pub fn system() -> Self {
        Self { name: "server".to_owned(), role: "system".to_owned(), source: None, trace_id: None }
    }
}

/// Which agents to list. Everything that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct AgentQuery {
    /// A selector.
    pub selector: Option<Selector>,
    /// Only agents of this liveness.
    pub liveness: Option<Liveness>,
    /// Only agents of this drift.
    pub drift: Option<Drift>,
    /// Only agents of this health.
    pub health: Option<Health>,
    /// Only agents after this one: the `next` of the page before.
    pub after: Option<AgentId>,
    /// At most so many, within 1 and [`PAGE_MAX`](opamp_store::PAGE_MAX).
    pub limit: usize,
}

/// One line of the inventory.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSummary {
    /// Key of the record.
    pub id: AgentId,
    /// Its identity on the wire.
    pub uid: InstanceUid,
    /// Its type: `service.name`, or `unknown`.
    pub agent_type: String,
    /// Its `service.version`.
    pub version: Option<String>,
    /// Its `host.name`.
    pub host_name: Option<String>,
    /// Labels operators set.
    pub labels: BTreeMap<String, String>,
    /// Whether it is there.
    pub liveness: Liveness,
    /// Since when.
    pub liveness_since: Wall,
    /// Whether it comes and goes too often.
    pub flapping: bool,
    /// Whether it is well.
    pub health: Health,
    /// How its configuration relates to the desired one.
    pub drift: Drift,
    /// What it can do.
    pub capabilities: AgentCapabilities,
    /// Its last sign of life, if this process or a checkpoint knows one.
    pub last_seen: Option<Wall>,
}

/// Everything known of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentDetail {
    /// What the inventory shows.
    pub summary: AgentSummary,
    /// Identities it had before, oldest first, each with the time it was given up.
    pub previous_uids: Vec<(InstanceUid, Wall)>,
    /// Who authenticated its connection, as `kind:id`; none if nobody did.
    pub identity: Option<String>,
    /// When the record was made.
    pub first_seen: Wall,
    /// Its present or last connection.
    pub connection: Option<ConnectionFacts>,
    /// Its last sequence number.
    pub sequence_num: Option<SequenceNum>,
    /// What it says it is.
    pub description: Option<pb::AgentDescription>,
    /// Its health, to any depth.
    pub health_report: Option<pb::ComponentHealth>,
    /// What became of the last remote configuration, in its own words.
    pub remote_config: Option<RemoteConfigReport>,
    /// The configuration it runs.
    pub effective_config: Option<pb::EffectiveConfig>,
    /// Canonical hash of that configuration.
    pub effective_config_hash: Option<ConfigHash>,
    /// State of its packages, the progress of downloads included.
    pub package_statuses: Option<pb::PackageStatuses>,
    /// Components built into it: in full if they are known under the hash it reported, else that hash alone.
    pub available_components: Option<pb::AvailableComponents>,
    /// Custom capabilities it announced.
    pub custom_capabilities: Option<pb::CustomCapabilities>,
    /// What became of the last connection settings.
    pub connection_settings_status: Option<pb::ConnectionSettingsStatus>,
    /// The configuration it should run.
    pub desired: Option<DesiredConfig>,
    /// Earlier ones, newest last.
    pub desired_history: Vec<DesiredConfig>,
    /// Hash of the last desired configuration it applied while healthy.
    pub last_known_good: Option<ConfigHash>,
    /// The configuration offered last by this process, and when.
    pub offered: Option<(ConfigHash, Wall)>,
    /// Its connection settings: desired, offered, reported.
    pub connection_settings: OfferDetail<DesiredSettings, ConnectionSettingsReport>,
    /// Its packages: desired, offered, reported.
    pub packages: OfferDetail<DesiredPackages, PackagesReport>,
    /// Whether the desired configuration cannot be offered because it exceeds the send limit.
    pub offer_too_large: bool,
    /// Counters and facts that never go back: connects, gaps, restarts, the last failure.
    pub sticky: StickyRecord,
    /// Parts of its last message that were ignored for want of their capability.
    pub ignored: PartSet,
    /// The commit that wrote the record last.
    pub revision: Revision,
}

/// One kind of what an agent should have: what was decided, what it was offered, what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferDetail<D, R> {
    /// What it should have; none to leave it alone.
    pub desired: Option<D>,
    /// How often that was decided.
    pub generation: u64,
    /// How the report relates to it. Packages are in sync when the agent reports each of them installed in the version it
    /// should have; that it names the hash of the offer is not enough.
    pub drift: Drift,
    /// What was offered last, by this process or an earlier one.
    pub offered: Option<OfferRecord>,
    /// What the agent reported last.
    pub report: Option<R>,
    /// It failed since it was decided, and is not offered again before it is decided anew.
    pub failed: bool,
    /// It cannot be offered because it exceeds the send limit.
    pub too_large: bool,
    /// The last one that failed.
    pub last_failure: Option<FailureRecord>,
    /// The last one that was applied, and when.
    pub last_applied: Option<(ConfigHash, Wall)>,
}

/// What a change of what an agent should have did: by default of its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned<D = DesiredConfig> {
    /// What the agent should have now.
    pub desired: Option<D>,
    /// Where the change went.
    pub dispatch: Dispatch,
    /// The idempotency key was used before: nothing was changed this time.
    pub replayed: bool,
}

/// What an assignment to all agents of a selector did. Of those that matched, the ones that are in no other number were deleted
/// meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssignedMatching {
    /// Agents that matched.
    pub matched: usize,
    /// Agents that should have the version now and did not before.
    pub assigned: usize,
    /// Agents that should have had it before.
    pub unchanged: usize,
    /// Agents that announced that they take no configuration.
    pub not_accepted: usize,
    /// Agents whose record cannot be understood.
    pub damaged: usize,
}

/// Numbers about the fleet. The parts sum to the whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetStats {
    /// Every agent of the inventory.
    pub registered: u64,
    /// Agents by liveness; sums to `registered`.
    pub by_liveness: BTreeMap<Liveness, u64>,
    /// Agents by health; sums to `registered`.
    pub by_health: BTreeMap<Health, u64>,
    /// Agents by drift; sums to `registered`.
    pub by_drift: BTreeMap<Drift, u64>,
    /// Agents by all three together.
    pub counts: FleetCounts,
    /// Agents that come and go too often.
    pub flapping: u64,
    /// Time from offer to APPLIED, by agent type.
    pub apply_durations: BTreeMap<String, ApplyHistogram>,
    /// Changed records that wait to be written.
    pub records_waiting: u64,
    /// Changes of agents that wait until the store can be read.
    pub changes_waiting: u64,
    /// Audit entries that wait to be written.
    pub audit_waiting: u64,
    /// Audit entries that were dropped because too many waited.
    pub audit_dropped: u64,
    /// Custom messages of agents that were dropped before this manager took them.
    pub custom_lost: u64,
}
