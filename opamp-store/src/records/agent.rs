//! The record of one agent and the checkpoint beside it.

use std::collections::BTreeMap;

use opamp_proto::{AgentId, ConfigHash, InstanceUid, Wall};
use serde::{Deserialize, Serialize};

use super::{BlobId, StoredParts};
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
    /// The config this agent shall run.
    #[serde(default)]
    pub desired: Option<DesiredConfig>,
    /// Counts every change of `desired`, withdrawals included.
    #[serde(default)]
    pub desired_generation: u64,
    /// Earlier values of `desired`, newest last. Bounded by whoever writes the record; each entry pins its blob.
    #[serde(default)]
    pub desired_history: Vec<DesiredConfig>,
    /// Hash of the last config this agent reported as applied. The store pins the blob that carried it, see
    /// [`BlobPins`](crate::BlobPins).
    #[serde(default)]
    pub last_known_good: Option<ConfigHash>,
    /// The present or last connection.
    #[serde(default)]
    pub connection: Option<ConnectionFacts>,
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
            desired_history: Vec::new(),
            last_known_good: None,
            connection: None,
            sticky: StickyRecord::default(),
            revision: Revision::default(),
        }
    }

    /// The blobs this record names: effective config, desired config and history.
    pub(crate) fn blob_references(&self) -> impl Iterator<Item = BlobId> {
        let assigned = self.desired.iter().chain(&self.desired_history);
        assigned.map(|assigned| assigned.blob).chain(self.effective_config)
    }

    /// A rough size in bytes, used to bound batches: exact for `parts`, an estimate for the rest.
    pub(crate) fn weight(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        let failure = self.sticky.last_failure.as_ref().map_or(0, |failure| failure.error.len());
        512 + self.parts.len_bytes()
            + labels
            + failure
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
        if self.last_failure.is_none() {
            self.last_failure.clone_from(&older.last_failure);
        }
        if self.last_applied.is_none() {
            self.last_applied.clone_from(&older.last_applied);
        }
    }
}

/// A config an agent could not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Hash of the config.
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
