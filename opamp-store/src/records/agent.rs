//! The record of one agent and the checkpoint beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use opamp_proto::{AgentId, ConfigHash, InstanceUid, Wall};
use serde::{Deserialize, Serialize};

use super::{BlobId, PackageKey, StoredParts, hex_digest};
use crate::Revision;

/// Everything the server remembers about one agent, keyed by its [`AgentId`].
///
/// It holds facts that change materially; sequence number and last-seen time tick with every message and live in
/// [`Checkpoint`] instead. No two records have the same `uid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The server's own key; survives reassignment of the instance uid and rotation of credentials.
    pub id: AgentId,
    /// The instance uid the agent uses now.
    pub uid: InstanceUid,
    /// Uids it used before, oldest first, each with the time it was given up. Bounded by whoever writes the record.
    #[serde(default)]
    pub previous_uids: Vec<(InstanceUid, Wall)>,
    /// The principal that authenticated its connection, as `kind:id`.
    #[serde(default)]
    pub identity: Option<String>,
    /// Labels set by the server; what the agent says about itself is in `parts`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When the record was made.
    pub first_seen: Wall,
    /// The capability bits of its last message, unknown ones included.
    #[serde(default)]
    pub capabilities: u64,
    /// The last reported status sub-messages, encoded as they came.
    #[serde(default)]
    pub parts: StoredParts,
    /// The last reported effective config, as a blob that equal agents share.
    #[serde(default)]
    pub effective_config: Option<BlobId>,
    /// The content hash of the effective config.
    #[serde(default)]
    pub effective_config_hash: Option<ConfigHash>,
    /// The config this agent shall run. Shared, because many agents are assigned the same at a time.
    #[serde(default)]
    pub desired: Option<Arc<DesiredConfig>>,
    /// Counts every change of `desired`, withdrawals included.
    #[serde(default)]
    pub desired_generation: u64,
    /// Earlier values of `desired`, newest last. Bounded by whoever writes the record; each entry pins its blob. Shared as a
    /// whole, because agents that are assigned to together have the same past.
    #[serde(default)]
    pub desired_history: Arc<[Arc<DesiredConfig>]>,
    /// The connection settings this agent shall have. There is no history of them, because they hold secrets: what
    /// nothing refers to any more is swept.
    #[serde(default)]
    pub desired_settings: Option<DesiredSettings>,
    /// Counts every change of `desired_settings`, withdrawals included.
    #[serde(default)]
    pub settings_generation: u64,
    /// The packages this agent shall have, perhaps none of them; `None` leaves it alone. Each version must be in the
    /// store, and stays there as long as this refers to it.
    #[serde(default)]
    pub desired_packages: Option<DesiredPackages>,
    /// Counts every change of `desired_packages`, withdrawals included.
    #[serde(default)]
    pub packages_generation: u64,
    /// What was offered last, kind by kind.
    #[serde(default)]
    pub offered: OffersRecord,
    /// The components the agent has, if it listed them: an encoded `AvailableComponents` that equal agents share.
    #[serde(default)]
    pub components: Option<BlobId>,
    /// Hash of the last config this agent reported as applied. The store pins the blob that carried it, see
    /// [`BlobPins`](crate::BlobPins).
    #[serde(default)]
    pub last_known_good: Option<ConfigHash>,
    /// The present or last connection.
    #[serde(default)]
    pub connection: Option<Arc<ConnectionFacts>>,
    /// Facts that a newest-wins merge would hide.
    #[serde(default)]
    pub sticky: StickyRecord,
    /// The commit that wrote this record last. Set by the store; what a caller puts here is ignored.
    #[serde(default)]
    pub revision: Revision,
}

impl AgentRecord {
    /// A record that knows nothing yet but who the agent is.
    pub fn new(id: AgentId, uid: InstanceUid, first_seen: Wall) -> Self {
        Self {
            id,
            uid,
            previous_uids: Vec::new(),
            identity: None,
            labels: BTreeMap::new(),
            first_seen,
            capabilities: 0,
            parts: StoredParts::default(),
            effective_config: None,
            effective_config_hash: None,
            desired: None,
            desired_generation: 0,
            desired_history: Arc::default(),
            desired_settings: None,
            settings_generation: 0,
            desired_packages: None,
            packages_generation: 0,
            offered: OffersRecord::default(),
            components: None,
            last_known_good: None,
            connection: None,
            sticky: StickyRecord::default(),
            revision: Revision::default(),
        }
    }

    /// The blobs this record names: effective config, desired config and history, connection settings, components.
    pub(crate) fn blob_references(&self) -> impl Iterator<Item = BlobId> {
        let history = self.desired_history.iter().map(|assigned| assigned.blob);
        self.single_blob_references().into_iter().flatten().chain(history)
    }

    /// The same without the history.
    pub(crate) fn single_blob_references(&self) -> [Option<BlobId>; 4] {
        let desired = self.desired.as_ref().map(|desired| desired.blob);
        let settings = self.desired_settings.as_ref().map(|settings| settings.blob);
        [desired, settings, self.effective_config, self.components]
    }

    pub(crate) fn refers_to(&self, blob: &BlobId) -> bool {
        self.blob_references().any(|referred| referred == *blob)
    }

    /// The package versions this record names.
    pub(crate) fn package_references(&self) -> impl Iterator<Item = &PackageKey> {
        self.desired_packages.iter().flat_map(|desired| desired.packages.iter().map(|package| &package.key))
    }

    /// A rough size in bytes, what the record counts for in [`WriteBatch::bytes`](crate::WriteBatch::bytes): exact for `parts`,
    /// an estimate for the rest.
    pub fn weight(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        let sticky = &self.sticky;
        let failures = [&sticky.last_failure, &sticky.last_settings_failure, &sticky.last_packages_failure];
        let failures: usize = failures.into_iter().flatten().map(|failure| failure.error.len()).sum();
        let packages: usize = self.package_references().map(|key| 128 + key.len_bytes()).sum();
        512 + self.parts.len_bytes()
            + labels
            + failures
            + packages
            + self.previous_uids.len() * 64
            + self.desired_history.len() * 256
    }
}

/// One assignment of a published config version to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredConfig {
    /// Name of the config.
    pub config: String,
    /// Its version.
    pub version: u32,
    /// The hash that is offered, and compared with what the agent reports.
    pub hash: ConfigHash,
    /// The encoded `AgentConfigMap`.
    pub blob: BlobId,
    /// The value of [`AgentRecord::desired_generation`] this assignment made.
    pub generation: u64,
    /// Who assigned it.
    pub assigned_by: String,
    /// When.
    pub assigned_at: Wall,
}

/// Connection settings meant for one agent. What they say is in the blob alone, since it holds secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredSettings {
    /// The hash that is offered, and compared with what the agent reports.
    pub hash: ConfigHash,
    /// The encoded `ConnectionSettingsOffers`: endpoints, headers, certificates and private keys. Anybody who can
    /// read the store can read it.
    pub blob: BlobId,
    /// The value of [`AgentRecord::settings_generation`] this decision made.
    pub generation: u64,
    /// Who decided it.
    pub assigned_by: String,
    /// When.
    pub assigned_at: Wall,
}

/// The packages meant for one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredPackages {
    /// One version each of different packages, ascending by name. Bounded by whoever writes the record.
    pub packages: Vec<AssignedPackage>,
    /// The hash of all of them, compared with what the agent reports.
    pub hash: ConfigHash,
    /// The value of [`AgentRecord::packages_generation`] this decision made.
    pub generation: u64,
    /// Who decided it.
    pub assigned_by: String,
    /// When.
    pub assigned_at: Wall,
}

/// One package version as it is assigned to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedPackage {
    /// Which.
    #[serde(flatten)]
    pub key: PackageKey,
    /// SHA-256 of its content: what a download asks for.
    #[serde(with = "hex_digest")]
    pub content_sha256: [u8; 32],
}

/// What an agent was offered last, kind by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffersRecord {
    /// Of configurations.
    #[serde(default)]
    pub remote_config: Option<OfferRecord>,
    /// Of connection settings.
    #[serde(default)]
    pub connection_settings: Option<OfferRecord>,
    /// Of packages.
    #[serde(default)]
    pub packages: Option<OfferRecord>,
}

/// An offer that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferRecord {
    /// Its hash.
    pub hash: ConfigHash,
    /// The generation of what was desired.
    pub generation: u64,
    /// When it was sent first in that generation.
    pub at: Wall,
}

/// How an agent is, or was last, connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFacts {
    /// `websocket` or `http`.
    pub transport: String,
    /// Address and port of the peer, where known.
    #[serde(default)]
    pub remote_addr: Option<String>,
    /// When the connection was made.
    pub connected_at: Wall,
    /// When it ended; `None` while it stands (or stood when the process died).
    #[serde(default)]
    pub disconnected_at: Option<Wall>,
    /// Why it ended, in the words of the server's closed set of reasons.
    #[serde(default)]
    pub disconnect_reason: Option<String>,
    /// Whether the agent said goodbye.
    #[serde(default)]
    pub graceful: bool,
}

/// Counters and facts that never go back, whatever order reports are merged in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyRecord {
    /// Connections made.
    #[serde(default)]
    pub connects: u64,
    /// Connections ended.
    #[serde(default)]
    pub disconnects: u64,
    /// Gaps seen in the sequence numbers.
    #[serde(default)]
    pub gaps: u64,
    /// How often the agent's reported start time changed: restarts of the agent.
    #[serde(default)]
    pub start_time_changes: u64,
    /// How often full state was asked for.
    #[serde(default)]
    pub full_state_requests: u64,
    /// The last config that failed.
    #[serde(default)]
    pub last_failure: Option<FailureRecord>,
    /// The last config that was applied, and when.
    #[serde(default)]
    pub last_applied: Option<(ConfigHash, Wall)>,
    /// The last connection settings that failed.
    #[serde(default)]
    pub last_settings_failure: Option<FailureRecord>,
    /// The last connection settings that were applied, and when.
    #[serde(default)]
    pub last_settings_applied: Option<(ConfigHash, Wall)>,
    /// The last set of packages that failed.
    #[serde(default)]
    pub last_packages_failure: Option<FailureRecord>,
    /// The last set of packages that was installed completely, and when.
    #[serde(default)]
    pub last_packages_applied: Option<(ConfigHash, Wall)>,
    /// How often another agent came with the uid of this one.
    #[serde(default)]
    pub uid_conflicts: u64,
    /// When the last one did.
    #[serde(default)]
    pub last_uid_conflict: Option<Wall>,
}

impl StickyRecord {
    /// Takes over what `older` knows and `self` does not: the higher of each counter, and a failure or success
    /// that `self` has no successor for.
    pub fn absorb(&mut self, older: &Self) {
        self.connects = self.connects.max(older.connects);
        self.disconnects = self.disconnects.max(older.disconnects);
        self.gaps = self.gaps.max(older.gaps);
        self.start_time_changes = self.start_time_changes.max(older.start_time_changes);
        self.full_state_requests = self.full_state_requests.max(older.full_state_requests);
        self.uid_conflicts = self.uid_conflicts.max(older.uid_conflicts);
        self.last_uid_conflict = self.last_uid_conflict.max(older.last_uid_conflict);
        keep(&mut self.last_failure, &older.last_failure);
        keep(&mut self.last_applied, &older.last_applied);
        keep(&mut self.last_settings_failure, &older.last_settings_failure);
        keep(&mut self.last_settings_applied, &older.last_settings_applied);
        keep(&mut self.last_packages_failure, &older.last_packages_failure);
        keep(&mut self.last_packages_applied, &older.last_packages_applied);
    }

    /// Whether there is nothing in `older` to [`absorb`](StickyRecord::absorb).
    pub(crate) fn has_all_of(&self, older: &Self) -> bool {
        // Every field by name: one that is new must not be forgotten here.
        let Self {
            connects,
            disconnects,
            gaps,
            start_time_changes,
            full_state_requests,
            last_failure,
            last_applied,
            last_settings_failure,
            last_settings_applied,
            last_packages_failure,
            last_packages_applied,
            uid_conflicts,
            last_uid_conflict,
        } = older;
        self.connects >= *connects
            && self.disconnects >= *disconnects
            && self.gaps >= *gaps
            && self.start_time_changes >= *start_time_changes
            && self.full_state_requests >= *full_state_requests
            && self.uid_conflicts >= *uid_conflicts
            && self.last_uid_conflict >= *last_uid_conflict
            && (last_failure.is_none() || self.last_failure.is_some())
            && (last_applied.is_none() || self.last_applied.is_some())
            && (last_settings_failure.is_none() || self.last_settings_failure.is_some())
            && (last_settings_applied.is_none() || self.last_settings_applied.is_some())
            && (last_packages_failure.is_none() || self.last_packages_failure.is_some())
            && (last_packages_applied.is_none() || self.last_packages_applied.is_some())
    }
}

/// Takes over a fact that has no successor.
fn keep<T: Clone>(newer: &mut Option<T>, older: &Option<T>) {
    if newer.is_none() {
        newer.clone_from(older);
    }
}

/// Something desired that an agent could not have: a config, connection settings, packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Its hash.
    pub hash: ConfigHash,
    /// The agent's own words.
    pub error: String,
    /// When it was reported.
    pub at: Wall,
}

/// Where an agent's message stream stood: written in packed batches, never one row per heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whose.
    pub id: AgentId,
    /// Sequence number of the last message.
    pub sequence_num: u64,
    /// When the last message arrived.
    pub last_seen: Wall,
}
