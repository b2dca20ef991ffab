//! An agent as a memory store holds it: what few agents have is boxed, so that most of them take little.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, ConfigHash, InstanceUid, Part, Wall};

use crate::{
    AgentRecord, BlobId, BlobPins, Checkpoint, ConnectionFacts, DesiredConfig, DesiredPackages,
    DesiredSettings, FailureRecord, OfferRecord, OffersRecord, PackageKey, Revision, StickyRecord,
    StoredParts,
};

/// One agent: its record, its checkpoint, and the blob of its last known good config.
pub(super) struct Kept {
    pub(super) uid: InstanceUid,
    pub(super) revision: Revision,
    first_seen: Wall,
    capabilities: u64,
    identity: Option<Box<str>>,
    parts: Box<[(Part, Bytes)]>,
    connection: Option<Arc<ConnectionFacts>>,
    checkpoint: Option<(u64, Wall)>,
    counters: [u64; 5],
    reported: Option<Box<Reported>>,
    assigned: Option<Box<Assigned>>,
    rare: Option<Box<Rare>>,
}

/// What agents with an effective config or components have.
#[derive(Default, PartialEq)]
struct Reported {
    effective_config: Option<BlobId>,
    effective_config_hash: Option<ConfigHash>,
    components: Option<BlobId>,
}

/// What agents that were assigned to have.
#[derive(Default, PartialEq)]
struct Assigned {
    desired: Option<Arc<DesiredConfig>>,
    desired_generation: u64,
    desired_history: Box<[Arc<DesiredConfig>]>,
    offered: Option<OfferRecord>,
    last_known_good: Option<ConfigHash>,
    /// Belongs to `last_known_good`.
    known_good: Option<BlobId>,
    last_applied: Option<(ConfigHash, Wall)>,
}

/// What hardly any agent has.
#[derive(Default, PartialEq)]
struct Rare {
    previous_uids: Vec<(InstanceUid, Wall)>,
    labels: BTreeMap<String, String>,
    settings_offered: Option<OfferRecord>,
    packages_offered: Option<OfferRecord>,
    desired_settings: Option<DesiredSettings>,
    settings_generation: u64,
    desired_packages: Option<DesiredPackages>,
    packages_generation: u64,
    last_failure: Option<FailureRecord>,
    last_settings_failure: Option<FailureRecord>,
    last_settings_applied: Option<(ConfigHash, Wall)>,
    last_packages_failure: Option<FailureRecord>,
    last_packages_applied: Option<(ConfigHash, Wall)>,
    uid_conflicts: u64,
    last_uid_conflict: Option<Wall>,
}

/// The assignments that were stored last: a config is assigned to many agents at a time, and all of them share what that
/// takes.
#[derive(Default)]
pub(super) struct Assignments(VecDeque<Arc<DesiredConfig>>);

/// Assignments remembered to be shared.
const ASSIGNMENTS_KEPT: usize = 16;

impl Assignments {
    fn share(&mut self, assignment: &Arc<DesiredConfig>, former: Option<&Assigned>) -> Arc<DesiredConfig> {
        let former =
            former.into_iter().flat_map(|former| former.desired.iter().chain(&former.desired_history));
        if let Some(known) = former
            .chain(self.0.iter().rev())
            .find(|known| Arc::ptr_eq(known, assignment) || *known == assignment)
        {
            return Arc::clone(known);
        }
        if self.0.len() >= ASSIGNMENTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Arc::clone(assignment));
        Arc::clone(assignment)
    }
}

impl Kept {
    /// A record as of `revision`, which replaces `former`.
    pub(super) fn new(
        record: &AgentRecord,
        revision: Revision,
        former: Option<&Self>,
        assignments: &mut Assignments,
    ) -> Self {
        // Every field by name: one that is new must not be forgotten here.
        let AgentRecord {
            id: _,
            uid,
            previous_uids,
            identity,
            labels,
            first_seen,
            capabilities,
            parts,
            effective_config,
            effective_config_hash,
            desired,
            desired_generation,
            desired_history,
            desired_settings,
            settings_generation,
            desired_packages,
            packages_generation,
            offered,
            components,
            last_known_good,
            connection,
            sticky,
            revision: _,
        } = record;
        let StickyRecord {
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
        } = sticky;
        let OffersRecord { remote_config, connection_settings, packages } = offered;
        let assigned_before = former.and_then(|former| former.assigned.as_deref());
        let mut share = |desired: &Arc<DesiredConfig>| assignments.share(desired, assigned_before);
        let known_good = BlobPins::known_good(record, former.and_then(Self::known_good));
        Self {
            uid: *uid,
            revision,
            first_seen: *first_seen,
            capabilities: *capabilities,
            identity: identity.as_deref().map(Box::from),
            parts: parts.iter().map(|(part, bytes)| (part, bytes.clone())).collect(),
            connection: connection.clone(),
            checkpoint: former.and_then(|former| former.checkpoint),
            counters: [*connects, *disconnects, *gaps, *start_time_changes, *full_state_requests],
            reported: boxed(Reported {
                effective_config: *effective_config,
                effective_config_hash: effective_config_hash.clone(),
                components: *components,
            }),
            assigned: boxed(Assigned {
                desired: desired.as_ref().map(&mut share),
                desired_generation: *desired_generation,
                desired_history: desired_history.iter().map(&mut share).collect(),
                offered: remote_config.clone(),
                last_known_good: last_known_good.clone(),
                known_good: known_good.map(|(_, blob)| blob),
                last_applied: last_applied.clone(),
            }),
            rare: boxed(Rare {
                previous_uids: previous_uids.clone(),
                labels: labels.clone(),
                settings_offered: connection_settings.clone(),
                packages_offered: packages.clone(),
                desired_settings: desired_settings.clone(),
                settings_generation: *settings_generation,
                desired_packages: desired_packages.clone(),
                packages_generation: *packages_generation,
                last_failure: last_failure.clone(),
                last_settings_failure: last_settings_failure.clone(),
                last_settings_applied: last_settings_applied.clone(),
                last_packages_failure: last_packages_failure.clone(),
                last_packages_applied: last_packages_applied.clone(),
                uid_conflicts: *uid_conflicts,
                last_uid_conflict: *last_uid_conflict,
            }),
        }
    }

    /// The record again.
    pub(super) fn record(&self, id: AgentId) -> AgentRecord {
        let [connects, disconnects, gaps, start_time_changes, full_state_requests] = self.counters;
        let mut parts = StoredParts::default();
        for (part, bytes) in &self.parts {
            parts.set(*part, Some(bytes.clone()));
        }
        let mut record = AgentRecord {
            identity: self.identity.as_deref().map(str::to_owned),
            capabilities: self.capabilities,
            parts,
            connection: self.connection.clone(),
            revision: self.revision,
            sticky: StickyRecord {
                connects,
                disconnects,
                gaps,
                start_time_changes,
                full_state_requests,
                ..StickyRecord::default()
            },
            ..AgentRecord::new(id, self.uid, self.first_seen)
        };
        if let Some(reported) = &self.reported {
            let Reported { effective_config, effective_config_hash, components } = &**reported;
            record.effective_config = *effective_config;
            record.effective_config_hash.clone_from(effective_config_hash);
            record.components = *components;
        }
        if let Some(assigned) = &self.assigned {
            let Assigned {
                desired,
                desired_generation,
                desired_history,
                offered,
                last_known_good,
                known_good: _,
                last_applied,
            } = &**assigned;
            record.desired.clone_from(desired);
            record.desired_generation = *desired_generation;
            record.desired_history = desired_history.to_vec();
            record.offered.remote_config.clone_from(offered);
            record.last_known_good.clone_from(last_known_good);
            record.sticky.last_applied.clone_from(last_applied);
        }
        if let Some(rare) = &self.rare {
            rare.put_into(&mut record);
        }
        record
    }

    pub(super) fn checkpoint(&self, id: AgentId) -> Option<Checkpoint> {
        self.checkpoint.map(|(sequence_num, last_seen)| Checkpoint { id, sequence_num, last_seen })
    }

    pub(super) fn set_checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.checkpoint = Some((checkpoint.sequence_num, checkpoint.last_seen));
    }

    /// The blobs that stay because of this agent, each once.
    pub(super) fn pins(&self) -> Vec<BlobId> {
        let mut pins = Vec::new();
        if let Some(reported) = &self.reported {
            pins.extend(reported.effective_config);
            pins.extend(reported.components);
        }
        if let Some(assigned) = &self.assigned {
            pins.extend(assigned.desired.iter().chain(&assigned.desired_history).map(|desired| desired.blob));
            pins.extend(assigned.known_good);
        }
        if let Some(rare) = &self.rare {
            pins.extend(rare.desired_settings.as_ref().map(|settings| settings.blob));
        }
        pins.sort_unstable();
        pins.dedup();
        pins
    }

    /// The package versions the agent is meant to have.
    pub(super) fn package_references(&self) -> impl Iterator<Item = &PackageKey> {
        let desired = self.rare.as_ref().and_then(|rare| rare.desired_packages.as_ref());
        desired.into_iter().flat_map(|desired| desired.packages.iter().map(|package| &package.key))
    }

    fn known_good(&self) -> Option<(&ConfigHash, BlobId)> {
        let assigned = self.assigned.as_ref()?;
        Some((assigned.last_known_good.as_ref()?, assigned.known_good?))
    }
}

impl Rare {
    fn put_into(&self, record: &mut AgentRecord) {
        let Self {
            previous_uids,
            labels,
            settings_offered,
            packages_offered,
            desired_settings,
            settings_generation,
            desired_packages,
            packages_generation,
            last_failure,
            last_settings_failure,
            last_settings_applied,
            last_packages_failure,
            last_packages_applied,
            uid_conflicts,
            last_uid_conflict,
        } = self;
        record.previous_uids.clone_from(previous_uids);
        record.labels.clone_from(labels);
        record.offered.connection_settings.clone_from(settings_offered);
        record.offered.packages.clone_from(packages_offered);
        record.desired_settings.clone_from(desired_settings);
        record.settings_generation = *settings_generation;
        record.desired_packages.clone_from(desired_packages);
        record.packages_generation = *packages_generation;
        record.sticky.last_failure.clone_from(last_failure);
        record.sticky.last_settings_failure.clone_from(last_settings_failure);
        record.sticky.last_settings_applied.clone_from(last_settings_applied);
        record.sticky.last_packages_failure.clone_from(last_packages_failure);
        record.sticky.last_packages_applied.clone_from(last_packages_applied);
        record.sticky.uid_conflicts = *uid_conflicts;
        record.sticky.last_uid_conflict = *last_uid_conflict;
    }
}

/// Nothing for what says nothing.
fn boxed<T: Default + PartialEq>(value: T) -> Option<Box<T>> {
    (value != T::default()).then(|| Box::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_which_little_is_known_takes_little() {
        assert!(size_of::<Kept>() <= 192, "{} bytes", size_of::<Kept>());
    }
}
