//! An agent as a memory store holds it: what few agents have is boxed, so that most of them take little.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, ConfigHash, InstanceUid, Part, Wall};

use super::state::References;
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
#[derive(Default)]
struct Reported {
    effective_config: Option<BlobId>,
    effective_config_hash: Option<ConfigHash>,
    components: Option<BlobId>,
}

/// What agents that were assigned to have.
#[derive(Default)]
struct Assigned {
    desired: Option<Arc<DesiredConfig>>,
    desired_generation: u64,
    desired_history: History,
    offered: Option<OfferRecord>,
    last_known_good: Option<ConfigHash>,
    /// Belongs to `last_known_good`.
    known_good: Option<BlobId>,
    last_applied: Option<(ConfigHash, Wall)>,
}

/// What hardly any agent has.
#[derive(Default)]
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

/// Earlier assignments.
type History = Arc<[Arc<DesiredConfig>]>;

/// The assignments and histories that were stored last: a config is assigned to many agents at a time, and all of them
/// share what that takes.
#[derive(Default)]
pub(super) struct Assignments {
    last: VecDeque<Arc<DesiredConfig>>,
    histories: VecDeque<History>,
}

/// Assignments remembered to be shared, and as many histories.
const ASSIGNMENTS_KEPT: usize = 16;

impl Assignments {
    fn share(
        &mut self,
        assignment: &Arc<DesiredConfig>,
        former: Option<&Arc<DesiredConfig>>,
    ) -> Arc<DesiredConfig> {
        shared(&mut self.last, assignment, former)
    }

    fn share_history(&mut self, history: &History, former: &History) -> History {
        if history.is_empty() {
            return History::default();
        }
        shared(&mut self.histories, history, Some(former))
    }
}

/// The same value as it was stored before, if it is known.
fn shared<T: ?Sized + Eq>(known: &mut VecDeque<Arc<T>>, value: &Arc<T>, former: Option<&Arc<T>>) -> Arc<T> {
    let same = |known: &&Arc<T>| Arc::ptr_eq(known, value) || *known == value;
    if let Some(known) = former.into_iter().chain(known.iter().rev()).find(same) {
        return Arc::clone(known);
    }
    if known.len() >= ASSIGNMENTS_KEPT {
        known.pop_front();
    }
    known.push_back(Arc::clone(value));
    Arc::clone(value)
}

impl Kept {
    /// A record as of `revision`.
    pub(super) fn new(record: &AgentRecord, revision: Revision, assignments: &mut Assignments) -> Self {
        let mut kept = Self {
            uid: record.uid,
            revision,
            first_seen: record.first_seen,
            capabilities: 0,
            identity: None,
            parts: Box::default(),
            connection: None,
            checkpoint: None,
            counters: [0; 5],
            reported: None,
            assigned: None,
            rare: None,
        };
        kept.update(record, revision, assignments);
        kept
    }

    /// The record is this one as of `revision`. What is the same stays where it is.
    pub(super) fn update(&mut self, record: &AgentRecord, revision: Revision, assignments: &mut Assignments) {
        // The record's fields by name, and in `Rare::update` those of what is sticky or offered: the compiler stops at a new
        // one. That those left out here are held by one of the three below, and given back by `record`, it cannot see.
        let AgentRecord {
            id: _,
            uid,
            previous_uids: _,
            identity,
            labels: _,
            first_seen,
            capabilities,
            parts,
            effective_config: _,
            effective_config_hash: _,
            desired: _,
            desired_generation: _,
            desired_history: _,
            desired_settings: _,
            settings_generation: _,
            desired_packages: _,
            packages_generation: _,
            offered: _,
            components: _,
            last_known_good: _,
            connection,
            sticky,
            revision: _,
        } = record;
        let StickyRecord { connects, disconnects, gaps, start_time_changes, full_state_requests, .. } =
            sticky;
        self.uid = *uid;
        self.revision = revision;
        self.first_seen = *first_seen;
        self.capabilities = *capabilities;
        if self.identity.as_deref() != identity.as_deref() {
            self.identity = identity.as_deref().map(Box::from);
        }
        self.update_parts(parts);
        if self.connection.as_ref().map(Arc::as_ptr) != connection.as_ref().map(Arc::as_ptr) {
            self.connection.clone_from(connection);
        }
        self.counters = [*connects, *disconnects, *gaps, *start_time_changes, *full_state_requests];
        Reported::update(&mut self.reported, record);
        Assigned::update(&mut self.assigned, record, assignments);
        Rare::update(&mut self.rare, record);
    }

    fn update_parts(&mut self, parts: &StoredParts) {
        if !self.parts.iter().map(|(part, _)| *part).eq(parts.iter().map(|(part, _)| part)) {
            self.parts = parts.iter().map(|(part, bytes)| (part, bytes.clone())).collect();
            return;
        }
        for ((_, kept), (_, bytes)) in self.parts.iter_mut().zip(parts.iter()) {
            // Told by where they lie: the session has the same ones.
            if (kept.as_ptr(), kept.len()) != (bytes.as_ptr(), bytes.len()) {
                kept.clone_from(bytes);
            }
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
            record.desired_history.clone_from(desired_history);
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

    /// The blobs that stay because of this agent.
    pub(super) fn pins(&self) -> Pins {
        let (reported, assigned) = (self.reported.as_deref(), self.assigned.as_deref());
        let settings = self.rare.as_ref().and_then(|rare| rare.desired_settings.as_ref());
        let single = [
            reported.and_then(|reported| reported.effective_config),
            reported.and_then(|reported| reported.components),
            assigned.and_then(|assigned| assigned.desired.as_ref()).map(|desired| desired.blob),
            assigned.and_then(|assigned| assigned.known_good),
            settings.map(|settings| settings.blob),
        ];
        Pins { single, history: assigned.map(|assigned| Arc::clone(&assigned.desired_history)) }
    }

    /// The package versions the agent is meant to have.
    pub(super) fn package_references(&self) -> impl Iterator<Item = &PackageKey> {
        let desired = self.rare.as_ref().and_then(|rare| rare.desired_packages.as_ref());
        desired.into_iter().flat_map(|desired| desired.packages.iter().map(|package| &package.key))
    }
}

impl Reported {
    fn update(place: &mut Option<Box<Self>>, record: &AgentRecord) {
        let AgentRecord { effective_config, effective_config_hash, components, .. } = record;
        if effective_config.is_none() && effective_config_hash.is_none() && components.is_none() {
            *place = None;
            return;
        }
        let reported = place.get_or_insert_default();
        reported.effective_config = *effective_config;
        set(&mut reported.effective_config_hash, effective_config_hash);
        reported.components = *components;
    }
}

impl Assigned {
    fn update(place: &mut Option<Box<Self>>, record: &AgentRecord, assignments: &mut Assignments) {
        let AgentRecord { desired, desired_generation, desired_history, last_known_good, .. } = record;
        let (offered, last_applied) = (&record.offered.remote_config, &record.sticky.last_applied);
        if desired.is_none()
            && *desired_generation == 0
            && desired_history.is_empty()
            && offered.is_none()
            && last_known_good.is_none()
            && last_applied.is_none()
        {
            *place = None;
            return;
        }
        let assigned = place.get_or_insert_default();
        let known_good = assigned.last_known_good.as_ref().zip(assigned.known_good);
        assigned.known_good = BlobPins::known_good(record, known_good).map(|(_, blob)| blob);
        assigned.desired =
            desired.as_ref().map(|desired| assignments.share(desired, assigned.desired.as_ref()));
        assigned.desired_generation = *desired_generation;
        assigned.desired_history = assignments.share_history(desired_history, &assigned.desired_history);
        set(&mut assigned.offered, offered);
        set(&mut assigned.last_known_good, last_known_good);
        set(&mut assigned.last_applied, last_applied);
    }
}

/// Takes over another value, and leaves an equal one where it is.
fn set<T: Clone + PartialEq>(field: &mut T, value: &T) {
    if field != value {
        field.clone_from(value);
    }
}

impl Rare {
    fn update(place: &mut Option<Box<Self>>, record: &AgentRecord) {
        let AgentRecord {
            previous_uids,
            labels,
            desired_settings,
            settings_generation,
            desired_packages,
            packages_generation,
            ..
        } = record;
        let OffersRecord { remote_config: _, connection_settings, packages } = &record.offered;
        let StickyRecord {
            connects: _,
            disconnects: _,
            gaps: _,
            start_time_changes: _,
            full_state_requests: _,
            last_failure,
            last_applied: _,
            last_settings_failure,
            last_settings_applied,
            last_packages_failure,
            last_packages_applied,
            uid_conflicts,
            last_uid_conflict,
        } = &record.sticky;
        if previous_uids.is_empty()
            && labels.is_empty()
            && connection_settings.is_none()
            && packages.is_none()
            && desired_settings.is_none()
            && *settings_generation == 0
            && desired_packages.is_none()
            && *packages_generation == 0
            && last_failure.is_none()
            && last_settings_failure.is_none()
            && last_settings_applied.is_none()
            && last_packages_failure.is_none()
            && last_packages_applied.is_none()
            && *uid_conflicts == 0
            && last_uid_conflict.is_none()
        {
            *place = None;
            return;
        }
        let rare = place.get_or_insert_default();
        set(&mut rare.previous_uids, previous_uids);
        set(&mut rare.labels, labels);
        set(&mut rare.settings_offered, connection_settings);
        set(&mut rare.packages_offered, packages);
        set(&mut rare.desired_settings, desired_settings);
        rare.settings_generation = *settings_generation;
        set(&mut rare.desired_packages, desired_packages);
        rare.packages_generation = *packages_generation;
        set(&mut rare.last_failure, last_failure);
        set(&mut rare.last_settings_failure, last_settings_failure);
        set(&mut rare.last_settings_applied, last_settings_applied);
        set(&mut rare.last_packages_failure, last_packages_failure);
        set(&mut rare.last_packages_applied, last_packages_applied);
        rare.uid_conflicts = *uid_conflicts;
        rare.last_uid_conflict = *last_uid_conflict;
    }

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

/// The blobs that stay because of one agent.
#[derive(Default)]
pub(super) struct Pins {
    single: [Option<BlobId>; 5],
    history: Option<History>,
}

impl Pins {
    /// Counts what stays because of `after` and not because of `self`, and the other way round. A blob that is referred to
    /// twice counts twice.
    pub(super) fn turn_into(&self, after: &Self, references: &mut References) {
        for (before, after) in self.single.iter().zip(&after.single) {
            if before != after {
                references.add(*after);
                references.subtract(*before);
            }
        }
        let before = self.history.as_deref().unwrap_or_default();
        let after = after.history.as_deref().unwrap_or_default();
        if std::ptr::eq(before, after) {
            return;
        }
        // An assignment goes to the end, and perhaps one at the beginning goes away.
        let blob = |assigned: &Arc<DesiredConfig>| assigned.blob;
        let gone = before.iter().position(|old| after.first().is_some_and(|new| new.blob == old.blob));
        let (gone, rest) = before.split_at(gone.unwrap_or(before.len()));
        let same = rest.iter().zip(after).take_while(|(old, new)| old.blob == new.blob).count();
        references.add(after[same..].iter().map(blob));
        references.subtract(gone.iter().chain(&rest[same..]).map(blob));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_of_which_little_is_known_takes_little() {
        assert!(size_of::<Kept>() <= 192, "{} bytes", size_of::<Kept>());
    }

    #[test]
    fn what_is_the_same_of_a_labelled_agent_stays_where_it_is() {
        let mut record =
            AgentRecord::new(AgentId::from_bytes([1; 16]), InstanceUid::from_bytes([2; 16]), Wall(1));
        record.labels.insert("env".into(), "prod".into());
        record.previous_uids.push((InstanceUid::from_bytes([3; 16]), Wall(2)));
        let mut assignments = Assignments::default();
        let mut kept = Kept::new(&record, Revision(1), &mut assignments);
        let places = |kept: &Kept| {
            let rare = kept.rare.as_ref()?;
            Some((rare.labels.get("env")?.as_ptr(), rare.previous_uids.as_ptr()))
        };
        let before = places(&kept);
        assert!(before.is_some());
        // Neither what is common changes nor another thing that is rare.
        for conflicts in [0, 1] {
            record.capabilities += 1;
            record.sticky.uid_conflicts = conflicts;
            kept.update(&record, Revision(2), &mut assignments);
            assert_eq!(places(&kept), before);
            assert_eq!(kept.record(record.id), AgentRecord { revision: Revision(2), ..record.clone() });
        }
    }
}
