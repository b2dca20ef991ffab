//! What the manager keeps in memory, behind one lock that is never held across an await.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{AgentId, InstanceUid, Mono, Now, PartSet};
use opamp_server::{AgentChange, ChangedFacts, RemoteConfigOffer};
use opamp_store::{
    AgentRecord, Blob, BlobId, Checkpoint, NewAuditEntry, PackageKey, PackageVersion, Precondition,
    StickyRecord, WriteBatch, WriteBehind, WriteBehindLimits,
};

use super::assigned::Assigned;
use super::custom::CustomLog;
use super::downloads::DownloadKey;
use super::durations::ApplyDurations;
use super::effective::EffectiveConfigs;
use super::settings::ManagerSettings;
use super::throttle::AuditThrottle;
use crate::FleetIndex;

/// Encoded offers kept to be shared by agents that get the same configuration; sessions keep theirs anyway.
const OFFERS_KEPT: usize = 256;

/// Package versions kept to compose offers from without reading them for each agent.
const PACKAGES_KEPT: usize = 256;

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: FleetIndex,
    pub(super) unwritten: Unwritten,
    /// Records as they were written with an assignment. None of them is in `unwritten`, which is newer: an assignment
    /// discards what waits there, and whoever pushes something has taken the record, or dropped it, before.
    assigned: Assigned,
    pub(super) audit: AuditQueue,
    pub(super) throttle: AuditThrottle,
    /// Bounds the entries newcomers and changed credentials cause.
    pub(super) arrivals: AuditThrottle,
    pub(super) missed: BTreeMap<AgentId, Missed>,
    /// When changes that could not be merged are tried again.
    pub(super) missed_retry: Mono,
    /// Of whom something was lost that the store refused: their positions are not stored any more, so that the next
    /// process asks them.
    pub(super) given_up: BTreeSet<AgentId>,
    /// Taken from the server and not stored yet.
    pub(super) checkpoints: BTreeMap<AgentId, Checkpoint>,
    /// Sticky counters from before the server's session of an agent, where that began anew.
    pub(super) earlier: BTreeMap<AgentId, StickyRecord>,
    pub(super) durations: ApplyDurations,
    pub(super) effective: EffectiveConfigs,
    pub(super) offers: BTreeMap<BlobId, RemoteConfigOffer>,
    /// Package versions read before.
    pub(super) package_versions: BTreeMap<PackageKey, PackageVersion>,
    pub(super) download_key: Option<DownloadKey>,
    /// Packages that are being uploaded, by number.
    pub(super) uploads: BTreeMap<u64, UnderWay>,
    /// The last custom messages received.
    pub(super) custom: CustomLog,
    /// Why the store could not be read last time, until it can again.
    pub(super) read_fault: Option<String>,
    /// The same for writing: that something can be read proves nothing about that.
    pub(super) write_fault: Option<String>,
}

impl State {
    pub(super) fn new(settings: &ManagerSettings, now: Now) -> Self {
        Self {
            index: FleetIndex::new(settings.index),
            unwritten: Unwritten::new(settings.write_behind),
            assigned: Assigned::new(settings.assigned_bytes_max),
            audit: AuditQueue::new(settings.audit_waiting_max, settings.write_behind.delay),
            throttle: AuditThrottle::new(settings.auth_audit, now.mono),
            arrivals: AuditThrottle::new(settings.auth_audit, now.mono),
            missed: BTreeMap::new(),
            missed_retry: now.mono,
            given_up: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            earlier: BTreeMap::new(),
            durations: ApplyDurations::new(settings.agent_types_max),
            effective: EffectiveConfigs::default(),
            offers: BTreeMap::new(),
            package_versions: BTreeMap::new(),
            download_key: None,
            uploads: BTreeMap::new(),
            custom: CustomLog::new(settings.custom),
            read_fault: None,
            write_fault: None,
        }
    }

    /// Forgets everything about an agent but what the store knows.
    pub(super) fn forget(&mut self, id: &AgentId) {
        self.missed.remove(id);
        self.index.remove(id);
        self.unwritten.discard(id);
        self.assigned.take(id);
        self.given_up.remove(id);
        self.checkpoints.remove(id);
        self.earlier.remove(id);
        self.custom.forget(id);
    }

    /// Whether it is not known what the store has of this agent.
    pub(super) fn is_in_doubt(&self, id: &AgentId) -> bool {
        self.missed.get(id).is_some_and(|missed| missed.uncertain)
    }

    /// Remembers what could not be merged, to be tried again at `retry` if nothing is to be before.
    pub(super) fn miss(&mut self, id: AgentId, missed: Missed, retry: Mono) {
        if self.missed.is_empty() {
            self.missed_retry = retry;
        }
        self.missed.entry(id).or_default().merge(missed);
    }

    /// Keeps a record that was just written for what its agent says to its assignment. Nothing of it waits any more.
    pub(super) fn remember_assigned(&mut self, record: Arc<AgentRecord>) {
        self.assigned.remember(record);
    }

    /// The record as it was written with an assignment, if nobody asked for it since.
    pub(super) fn take_assigned(&mut self, id: &AgentId) -> Option<Arc<AgentRecord>> {
        let taken = self.assigned.take(id);
        debug_assert!(taken.is_none() || !self.unwritten.contains(id), "what waits is newer");
        taken
    }

    /// Agents that say nothing to what they were assigned are not waited for. To be freed when the lock is not held.
    #[must_use = "it is to be freed when the lock is not held"]
    pub(super) fn forget_assigned(&mut self) -> Assigned {
        self.assigned.take_all()
    }

    pub(super) fn remember_offer(&mut self, blob: BlobId, offer: RemoteConfigOffer) {
        if self.offers.len() >= OFFERS_KEPT {
            self.offers.clear();
        }
        self.offers.insert(blob, offer);
    }

    pub(super) fn remember_package(&mut self, version: PackageVersion) {
        if self.package_versions.len() >= PACKAGES_KEPT {
            self.package_versions.clear();
        }
        self.package_versions.insert(version.key.clone(), version);
    }
}

/// An upload as others have to know it.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// What it has stored, which no sweep takes away.
    pub(super) chunks: BTreeSet<BlobId>,
    /// How many bytes came so far.
    pub(super) size_bytes: u64,
}

/// A change that could not be merged because the record could not be read. What changed is kept, not the values:
/// they are taken from the server when the store is back. At most one for each agent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missed {
    pub(super) changed: PartSet,
    pub(super) facts: ChangedFacts,
    pub(super) previous_uid: Option<InstanceUid>,
    /// The outcome of a write is not known, so that the record is to be read again before it is used or written.
    pub(super) uncertain: bool,
    /// The record cannot be understood, which was logged.
    pub(super) damaged: bool,
}

impl Missed {
    pub(super) fn of(change: &AgentChange) -> Self {
        let AgentChange { changed, facts, previous_uid, .. } = *change;
        Self { changed, facts, previous_uid, ..Self::default() }
    }

    /// Takes a later change of the same agent in.
    pub(super) fn merge(&mut self, later: Self) {
        self.changed |= later.changed;
        self.facts = self.facts | later.facts;
        self.previous_uid = self.previous_uid.or(later.previous_uid);
        self.uncertain |= later.uncertain;
    }
}

/// Changed records on their way to the store, readable until they are there.
#[derive(Debug)]
pub(super) struct Unwritten {
    behind: WriteBehind,
    /// Those that are not to be written until it is known what the store has.
    held: BTreeMap<AgentId, Newest>,
    in_flight: Vec<AgentId>,
    flush_at_once: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Newest {
    /// One copy, however many places it waits in.
    pub(super) record: Arc<AgentRecord>,
    /// What it refers to and is not in the store yet: the effective config, the components.
    pub(super) blobs: Vec<Blob>,
}

impl Newest {
    /// A record that waits for nothing.
    pub(super) fn new(record: impl Into<Arc<AgentRecord>>) -> Self {
        Self { record: record.into(), blobs: Vec::new() }
    }
}

impl Unwritten {
    fn new(limits: WriteBehindLimits) -> Self {
        // Each record comes with a precondition and perhaps a blob.
        let records_max = limits.records_max.min(WriteBatch::OPS_MAX / 4);
        let behind = WriteBehind::new(WriteBehindLimits { records_max, ..limits });
        Self { behind, held: BTreeMap::new(), in_flight: Vec::new(), flush_at_once: false }
    }

    /// The newest version of a record that is not in the store yet.
    pub(super) fn get(&self, id: &AgentId) -> Option<Newest> {
        match self.behind.get(id) {
            Some(record) => Some(Newest { record: Arc::clone(record), blobs: self.behind.blobs(id) }),
            None => self.held.get(id).cloned(),
        }
    }

    fn contains(&self, id: &AgentId) -> bool {
        self.behind.get(id).is_some() || self.held.contains_key(id)
    }

    /// A record with what it refers to and the store may not have; of what it does not refer to nothing is kept.
    pub(super) fn push(&mut self, record: impl Into<Arc<AgentRecord>>, mut blobs: Vec<Blob>, now: Mono) {
        let record = record.into();
        if let Some(held) = self.held.remove(&record.id) {
            blobs.extend(held.blobs);
        }
        self.behind.push_with_blobs(record, blobs, now);
    }

    /// Makes everything due: something must not wait.
    pub(super) fn hurry(&mut self) {
        self.flush_at_once = true;
    }

    /// What waited for this agent is in the store by other means, or is not wanted any more.
    pub(super) fn discard(&mut self, id: &AgentId) {
        self.behind.discard(id);
        self.held.remove(id);
    }

    /// Not to be written until it is pushed again; it stays readable.
    pub(super) fn hold(&mut self, id: &AgentId) {
        if let Some(newest) = self.get(id) {
            self.behind.discard(id);
            self.held.insert(*id, newest);
        }
    }

    /// The agents of the batch that was taken last, until it is known what became of it.
    pub(super) fn in_flight(&self) -> Vec<AgentId> {
        self.in_flight.clone()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        if self.flush_at_once && !self.behind.is_empty() { Some(Mono(0)) } else { self.behind.deadline() }
    }

    /// The next batch, if one is due or `all` are wanted now. It replaces only what the records are based on.
    pub(super) fn take(&mut self, now: Mono, all: bool) -> Option<WriteBatch> {
        let batch = if all || self.flush_at_once { self.behind.take_now() } else { self.behind.take(now) };
        let Some(mut batch) = batch else {
            self.flush_at_once = false;
            return None;
        };
        let conditions: Vec<_> = batch.agents().map(unchanged).collect();
        self.in_flight.clear();
        self.in_flight.extend(batch.agents().map(|record| record.id));
        for condition in conditions {
            batch.require(condition);
        }
        Some(batch)
    }

    pub(super) fn committed(&mut self) {
        self.behind.committed();
        self.in_flight.clear();
    }

    pub(super) fn failed(&mut self, now: Mono) {
        self.flush_at_once = false;
        self.in_flight.clear();
        self.behind.failed(now);
    }

    /// The store refuses the batch for what it says. Gives a record that is given up.
    pub(super) fn refused(&mut self, now: Mono) -> Option<Arc<AgentRecord>> {
        self.in_flight.clear();
        self.behind.refused(now)
    }

    pub(super) fn len(&self) -> usize {
        self.behind.len()
    }
}

/// That nobody wrote a record since it was read.
pub(super) fn unchanged(base: &AgentRecord) -> Precondition {
    match base.revision.0 {
        0 => Precondition::AgentAbsent(base.id),
        _ => Precondition::AgentAt(base.id, base.revision),
    }
}

/// Audit entries on their way to the store, in order and bounded.
#[derive(Debug)]
pub(super) struct AuditQueue {
    waiting: VecDeque<NewAuditEntry>,
    waiting_max: usize,
    dropped: u64,
    delay: Duration,
    due: Mono,
    /// How many of the oldest were tried, and under which key: perhaps they were written, so that they are repeated
    /// as they were until that is known.
    tried: Option<(usize, Option<String>)>,
}

impl AuditQueue {
    /// Takes at most `waiting_max` entries, each of which may wait for `delay`.
    pub(super) fn new(waiting_max: usize, delay: Duration) -> Self {
        Self { waiting: VecDeque::new(), waiting_max, dropped: 0, delay, due: Mono(0), tried: None }
    }

    pub(super) fn push(&mut self, entry: NewAuditEntry, now: Mono) {
        if self.waiting.is_empty() {
            self.due = self.due.max(now + self.delay);
        }
        if self.waiting.len() >= self.waiting_max {
            self.dropped += 1;
        } else {
            self.waiting.push_back(entry);
        }
    }

    /// When the entries are to be written; none while there are none.
    pub(super) fn deadline(&self) -> Option<Mono> {
        (!self.waiting.is_empty()).then_some(self.due)
    }

    /// The oldest entries, at most `count_max`, and the idempotency key to write them under.
    pub(super) fn oldest(
        &mut self,
        count_max: usize,
        key: impl FnOnce() -> Option<String>,
    ) -> (Vec<NewAuditEntry>, Option<String>) {
        let waiting = self.waiting.len();
        let (count, key) = self.tried.get_or_insert_with(|| (waiting.min(count_max), key())).clone();
        if count == 0 {
            self.tried = None;
        }
        (self.waiting.iter().take(count).cloned().collect(), key)
    }

    /// Those are in the store, or never will be.
    pub(super) fn settled(&mut self) {
        let (count, _) = self.tried.take().unwrap_or_default();
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    /// The store does not take them now.
    pub(super) fn failed(&mut self, until: Mono) {
        self.due = self.due.max(until);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
