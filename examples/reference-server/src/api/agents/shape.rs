//! Agents as the API shows them.

use std::collections::BTreeMap;

use opamp_fleet::manager::{AgentDetail, AgentSummary, Assigned};
use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, InstanceUid, Wall, pb};
use opamp_server::{Dispatch, RemoteConfigReport};
use opamp_store::{ConnectionFacts, DesiredConfig, FailureRecord, OfferRecord, StickyRecord};
use serde_json::Value;

use crate::api::{
    schema::reply,
    values::{self, Component, ConfigFile, HealthNode},
};

reply! {
    /// One line of the inventory.
    pub(crate) struct AgentItem {
        /// The server's own key of the agent.
        id: AgentId,
        /// Its identity on the wire.
        uid: InstanceUid,
        /// Its `service.name`, or `unknown`.
        agent_type: String,
        /// Its `service.version`.
        version: Option<String>,
        /// Its `host.name`.
        host_name: Option<String>,
        /// Labels operators set.
        labels: BTreeMap<String, String>,
        /// `connected`, `stale`, `disconnected`, `expired` or `never_seen`.
        liveness: &'static str,
        /// Since when.
        liveness_since: Wall,
        /// Whether it comes and goes too often.
        flapping: bool,
        /// `healthy`, `unhealthy` or `unknown`.
        health: &'static str,
        /// `unmanaged`, `in_sync`, `pending`, `applying`, `failed` or `drifted`.
        drift: &'static str,
        /// Its last message or other sign of life.
        last_message: Option<Wall>,
    }
}

reply! {
    /// A page of the inventory.
    pub(crate) struct AgentPage {
        /// Ascending by id.
        agents: Vec<AgentItem>,
        /// Pass it as `cursor` for the next page; null on the last one.
        next_cursor: Option<AgentId>,
    }
}

reply! {
    /// Everything known of one agent.
    pub(crate) struct Agent {
        /// The server's own key of the agent.
        id: AgentId,
        /// Its identity on the wire.
        uid: InstanceUid,
        /// Identities it had before, oldest first.
        previous_uids: Vec<PreviousUid>,
        /// Who authenticated its connection, as `kind:id`; null if nobody did.
        identity: Option<String>,
        /// Its `service.name`, or `unknown`.
        agent_type: String,
        /// Its `service.version`.
        version: Option<String>,
        /// Its `host.name`.
        host_name: Option<String>,
        /// Labels operators set.
        labels: BTreeMap<String, String>,
        /// `connected`, `stale`, `disconnected`, `expired` or `never_seen`.
        liveness: &'static str,
        /// Since when.
        liveness_since: Wall,
        /// Whether it comes and goes too often.
        flapping: bool,
        /// `healthy`, `unhealthy` or `unknown`.
        health: &'static str,
        /// `unmanaged`, `in_sync`, `pending`, `applying`, `failed` or `drifted`.
        drift: &'static str,
        /// When the record was made.
        first_seen: Wall,
        /// When its present or last connection was made.
        connected_at: Option<Wall>,
        /// Its last message or other sign of life.
        last_message: Option<Wall>,
        /// Address and port of its present or last connection.
        remote_address: Option<String>,
        /// `websocket` or `http`.
        transport: Option<String>,
        /// How its last connection ended; null while it stands.
        disconnect: Option<Disconnect>,
        /// Its last sequence number.
        sequence_num: Option<u64>,
        /// Names of its capabilities.
        capabilities: Vec<String>,
        /// Capability bits without a name, as a number.
        unknown_capabilities: u64,
        /// Fields of its last message that were ignored, because it does not announce their capability.
        ignored_fields: Vec<String>,
        /// What it says it is.
        description: Option<Description>,
        /// Its health, to any depth.
        health_report: Option<HealthNode>,
        /// The configuration it runs, by file name.
        effective_config: Option<BTreeMap<String, ConfigFile>>,
        /// Canonical hash of that configuration.
        effective_config_hash: Option<ConfigHash>,
        /// What became of the last remote configuration, in its own words.
        remote_config_status: Option<RemoteConfig>,
        /// What it said went wrong with the configuration it should run.
        apply_error: Option<String>,
        /// The configuration it should run.
        desired_config: Option<Desired>,
        /// The configuration offered last, by this process.
        offered: Option<Offered>,
        /// Whether the desired configuration cannot be offered, because it exceeds `opamp.message_bytes_max`.
        offer_too_large: bool,
        /// Hash of the last desired configuration it applied while healthy.
        last_known_good: Option<ConfigHash>,
        /// Configurations it should run before, newest last.
        history: Vec<Desired>,
        /// Whether another agent came with the identity of this one; what was done about it, `opamp.duplicates_other_credential`
        /// and `opamp.duplicates_same_credential` say.
        uid_conflict: bool,
        /// Custom capabilities it announces.
        custom_capabilities: Vec<String>,
        /// The components built into it.
        available_components: Option<Components>,
        /// Counters and facts that never go back.
        sticky: Sticky,
        /// The commit that wrote the record last.
        revision: u64,
    }
}

reply! {
    /// An identity an agent had.
    pub(crate) struct PreviousUid {
        /// The identity.
        uid: InstanceUid,
        /// When it was given up.
        until: Wall,
    }
}

reply! {
    /// How a connection ended.
    pub(crate) struct Disconnect {
        /// When.
        at: Wall,
        /// `graceful`, `closed`, `timeout`, `replaced`, `refused`, `requested`, `server_shutdown` or `error`.
        reason: String,
        /// Whether the agent said goodbye.
        graceful: bool,
    }
}

reply! {
    /// What an agent says it is.
    pub(crate) struct Description {
        /// Attributes that identify it.
        identifying: Value,
        /// Attributes that describe it.
        non_identifying: Value,
    }
}

reply! {
    /// The components built into an agent.
    pub(crate) struct Components {
        /// Their hash, in the agent's own format.
        hash: ConfigHash,
        /// The components by name; null until the agent has listed them.
        components: Option<BTreeMap<String, Component>>,
    }
}

reply! {
    /// What an agent said of a remote configuration.
    pub(crate) struct RemoteConfig {
        /// Hash of the configuration.
        hash: ConfigHash,
        /// `UNSET`, `APPLIED`, `APPLYING`, `FAILED`, or a number without a name.
        status: String,
        /// Why it failed.
        error: String,
    }
}

reply! {
    /// A configuration an agent should run.
    pub(crate) struct Desired {
        /// Name of the config.
        config: String,
        /// Its version.
        version: u32,
        /// Its canonical hash.
        hash: ConfigHash,
        /// Counts every change of what this agent should run.
        generation: u64,
        /// Who assigned it.
        assigned_by: String,
        /// When.
        assigned_at: Wall,
    }
}

reply! {
    /// An offer that was sent.
    pub(crate) struct Offered {
        /// Its hash.
        hash: ConfigHash,
        /// When.
        at: Wall,
    }
}

reply! {
    /// Counters and facts that never go back.
    pub(crate) struct Sticky {
        /// Connections made.
        connects: u64,
        /// Connections ended.
        disconnects: u64,
        /// Gaps in its sequence numbers.
        gaps: u64,
        /// Changes of its start time: restarts.
        start_time_changes: u64,
        /// How often full state was asked for.
        full_state_requests: u64,
        /// How often another agent came with the identity of this one.
        uid_conflicts: u64,
        /// When one did last.
        last_uid_conflict: Option<Wall>,
        /// The last configuration that failed.
        last_failure: Option<Failure>,
        /// The last configuration it applied.
        last_applied: Option<Applied>,
    }
}

reply! {
    /// An offer that failed.
    pub(crate) struct Failure {
        /// Its hash.
        hash: ConfigHash,
        /// The agent's words.
        error: String,
        /// When it was reported.
        at: Wall,
    }
}

reply! {
    /// An offer that was applied.
    pub(crate) struct Applied {
        /// Its hash.
        hash: ConfigHash,
        /// When it was reported.
        at: Wall,
    }
}

reply! {
    /// What an assignment did.
    pub(crate) struct Assignment {
        /// What the agent should run now.
        desired_config: Option<Desired>,
        /// `pushed` to an open socket, `next_poll` of a polling agent, or `no_session`: it waits for the agent.
        dispatch: &'static str,
        /// The idempotency key was used before; nothing was changed this time.
        replayed: bool,
    }
}

reply! {
    /// Where a command went.
    pub(crate) struct Dispatched {
        /// `pushed` to an open socket, `next_poll` of a polling agent, or `no_session`.
        dispatch: &'static str,
    }
}

impl From<AgentSummary> for AgentItem {
    fn from(agent: AgentSummary) -> Self {
        AgentItem {
            id: agent.id,
            uid: agent.uid,
            agent_type: agent.agent_type,
            version: agent.version,
            host_name: agent.host_name,
            labels: agent.labels,
            liveness: agent.liveness.as_str(),
            liveness_since: agent.liveness_since,
            flapping: agent.flapping,
            health: agent.health.as_str(),
            drift: agent.drift.as_str(),
            last_message: agent.last_seen,
        }
    }
}

impl From<AgentDetail> for Agent {
    fn from(agent: AgentDetail) -> Self {
        let summary = agent.summary;
        let connection = agent.connection;
        let desired_hash = agent.desired.as_ref().map(|desired| &desired.hash);
        let apply_error = apply_error(desired_hash, agent.remote_config.as_ref(), &agent.sticky);
        Agent {
            id: summary.id,
            uid: summary.uid,
            previous_uids: agent
                .previous_uids
                .into_iter()
                .map(|(uid, until)| PreviousUid { uid, until })
                .collect(),
            identity: agent.identity,
            agent_type: summary.agent_type,
            version: summary.version,
            host_name: summary.host_name,
            labels: summary.labels,
            liveness: summary.liveness.as_str(),
            liveness_since: summary.liveness_since,
            flapping: summary.flapping,
            health: summary.health.as_str(),
            drift: summary.drift.as_str(),
            first_seen: agent.first_seen,
            connected_at: connection.as_ref().map(|connection| connection.connected_at),
            last_message: summary.last_seen,
            remote_address: connection.as_ref().and_then(|connection| connection.remote_addr.clone()),
            transport: connection.as_ref().map(|connection| connection.transport.clone()),
            disconnect: connection.and_then(disconnect),
            sequence_num: agent.sequence_num.map(|number| number.0),
            capabilities: summary.capabilities.names().map(str::to_owned).collect(),
            unknown_capabilities: AgentCapabilities::unknown(summary.capabilities),
            ignored_fields: agent.ignored.iter().map(|part| part.name().to_owned()).collect(),
            description: agent.description.as_ref().map(Description::from),
            health_report: agent.health_report.as_ref().map(HealthNode::from),
            effective_config: agent
                .effective_config
                .and_then(|config| Some(values::files(&config.config_map?))),
            effective_config_hash: agent.effective_config_hash,
            remote_config_status: agent.remote_config.map(RemoteConfig::from),
            apply_error,
            desired_config: agent.desired.map(Desired::from),
            offered: agent.offered.map(|(hash, at)| Offered { hash, at }),
            offer_too_large: agent.offer_too_large,
            last_known_good: agent.last_known_good,
            history: agent.desired_history.into_iter().map(Desired::from).collect(),
            uid_conflict: agent.sticky.uid_conflicts > 0,
            custom_capabilities: agent.custom_capabilities.map(|list| list.capabilities).unwrap_or_default(),
            available_components: agent.available_components.as_ref().map(Components::from),
            sticky: agent.sticky.into(),
            revision: agent.revision.0,
        }
    }
}

impl From<&pb::AgentDescription> for Description {
    fn from(description: &pb::AgentDescription) -> Self {
        Description {
            identifying: values::attributes(&description.identifying_attributes),
            non_identifying: values::attributes(&description.non_identifying_attributes),
        }
    }
}

impl From<&pb::AvailableComponents> for Components {
    fn from(available: &pb::AvailableComponents) -> Self {
        // Without a list there is the hash alone.
        let listed = !available.components.is_empty();
        Components {
            hash: ConfigHash::new(available.hash.clone()),
            components: listed.then(|| values::components(&available.components)),
        }
    }
}

impl From<RemoteConfigReport> for RemoteConfig {
    fn from(report: RemoteConfigReport) -> Self {
        let status = pb::RemoteConfigStatuses::try_from(report.status).map_or_else(
            |_| report.status.to_string(),
            |status| {
                let name = status.as_str_name();
                name.strip_prefix("RemoteConfigStatuses_").unwrap_or(name).to_owned()
            },
        );
        RemoteConfig { hash: report.hash, status, error: report.error }
    }
}

impl From<DesiredConfig> for Desired {
    fn from(desired: DesiredConfig) -> Self {
        Desired {
            config: desired.config,
            version: desired.version,
            hash: desired.hash,
            generation: desired.generation,
            assigned_by: desired.assigned_by,
            assigned_at: desired.assigned_at,
        }
    }
}

impl From<StickyRecord> for Sticky {
    fn from(sticky: StickyRecord) -> Self {
        Sticky {
            connects: sticky.connects,
            disconnects: sticky.disconnects,
            gaps: sticky.gaps,
            start_time_changes: sticky.start_time_changes,
            full_state_requests: sticky.full_state_requests,
            uid_conflicts: sticky.uid_conflicts,
            last_uid_conflict: sticky.last_uid_conflict,
            last_failure: sticky.last_failure.map(Failure::from),
            last_applied: sticky.last_applied.map(Applied::from),
        }
    }
}

impl From<FailureRecord> for Failure {
    fn from(failure: FailureRecord) -> Self {
        Failure { hash: failure.hash, error: failure.error, at: failure.at }
    }
}

impl From<(ConfigHash, Wall)> for Applied {
    fn from((hash, at): (ConfigHash, Wall)) -> Self {
        Applied { hash, at }
    }
}

impl From<OfferRecord> for Offered {
    fn from(offer: OfferRecord) -> Self {
        Offered { hash: offer.hash, at: offer.at }
    }
}

impl From<Dispatch> for Dispatched {
    fn from(to: Dispatch) -> Self {
        Dispatched { dispatch: dispatch(to) }
    }
}

impl From<Assigned> for Assignment {
    fn from(assigned: Assigned) -> Self {
        Assignment {
            desired_config: assigned.desired.map(Desired::from),
            dispatch: dispatch(assigned.dispatch),
            replayed: assigned.replayed,
        }
    }
}

/// Where a change went, as a word.
pub(crate) fn dispatch(dispatch: Dispatch) -> &'static str {
    match dispatch {
        Dispatch::NextPoll => "next_poll",
        Dispatch::NoSession => "no_session",
        Dispatch::Pushed => "pushed",
    }
}

fn disconnect(connection: ConnectionFacts) -> Option<Disconnect> {
    Some(Disconnect {
        at: connection.disconnected_at?,
        reason: connection.disconnect_reason.unwrap_or_default(),
        graceful: connection.graceful,
    })
}

/// The failure of what is desired now: the report says so, or it did before a later report hid it.
fn apply_error(
    desired: Option<&ConfigHash>,
    report: Option<&RemoteConfigReport>,
    sticky: &StickyRecord,
) -> Option<String> {
    let desired = desired?;
    match report.filter(|report| report.hash == *desired) {
        Some(report) if report.status == pb::RemoteConfigStatuses::Failed as i32 => {
            Some(report.error.clone())
        }
        Some(_) => None,
        None => {
            sticky.last_failure.as_ref().filter(|failure| failure.hash == *desired).map(|f| f.error.clone())
        }
    }
}
