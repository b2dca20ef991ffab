//! What the manager keeps in memory, behind one lock that is never held across an await.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{AgentId, InstanceUid, Mono, Now, PartSet};
use opamp_server::{AgentChange, ChangedFacts, RemoteConfigOffer};
use opamp_store::{AgentRecord, BlobId, Checkpoint, NewAuditEntry, StickyRecord, WriteBatch, WriteBehind};

use super::durations::ApplyDurations;
use super::settings::ManagerSettings;
use super::throttle::AuditThrottle;
use crate::FleetIndex;

/// Encoded offers kept to be shared by agents that get the same configuration; sessions keep theirs anyway.
const OFFERS_KEPT: usize = 256;

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: FleetIndex,
    pub(super) unwritten: Unwritten,
    pub(super) audit: AuditQueue,
    pub(super) throttle: AuditThrottle,
    pub(super) missed: BTreeMap<InstanceUid, Missed>,
    /// When changes that could not be merged are tried again.
    pub(super) missed_retry: Mono,
    /// Taken from the server and not stored yet.
    pub(super) checkpoints: BTreeMap<AgentId, Checkpoint>,
    /// Sticky counters from before the server's session of an agent, where that began anew.
    pub(super) earlier: BTreeMap<AgentId, StickyRecord>,
    pub(super) durations: ApplyDurations,
    pub(super) offers: BTreeMap<BlobId, RemoteConfigOffer>,
    /// Why the store did not do its part last time, until it does again.
    pub(super) store_fault: Option<String>,
}

impl State {
    pub(super) fn new(settings: &ManagerSettings, now: Now) -> Self {
        Self {
            index: FleetIndex::new(settings.index),
            unwritten: Unwritten::new(WriteBehind::new(settings.write_behind)),
            audit: AuditQueue::new(settings.audit_waiting_max, settings.write_behind.delay),
            throttle: AuditThrottle::new(settings.auth_audit, now.mono),
            missed: BTreeMap::new(),
            missed_retry: now.mono,
            checkpoints: BTreeMap::new(),
            earlier: BTreeMap::new(),
            durations: ApplyDurations::new(settings.agent_types_max),
            offers: BTreeMap::new(),
            store_fault: None,
        }
    }

    /// Forgets everything about an agent but what the store knows.
    pub(super) fn forget(&mut self, id: &AgentId) {
        if let Some(uid) = self.index.uid(id) {
            self.missed.remove(&uid);
        }
        self.index.remove(id);
        self.unwritten.discard(id);
        self.checkpoints.remove(id);
        self.earlier.remove(id);
    }

    pub(super) fn remember_offer(&mut self, blob: BlobId, offer: RemoteConfigOffer) {
        if self.offers.len() >= OFFERS_KEPT {
            self.offers.clear();
        }
        self.offers.insert(blob, offer);
    }
}

/// A change that could not be merged because the record could not be read. What changed is kept, not the values:
/// they are taken from the server when the store is back. At most one for each agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    pub(super) changed: PartSet,
    pub(super) facts: ChangedFacts,
    pub(super) previous_uid: Option<InstanceUid>,
}

impl Missed {
    pub(super) fn of(change: &AgentChange) -> Self {
        Self { changed: change.changed, facts: change.facts, previous_uid: change.previous_uid }
    }

    /// Takes a later change of the same agent in.
    pub(super) fn merge(&mut self, later: Self) {
        self.changed |= later.changed;
        self.facts = self.facts | later.facts;
        self.previous_uid = self.previous_uid.or(later.previous_uid);
    }
}

/// Changed records on their way to the store, readable until they are there.
#[derive(Debug)]
pub(super) struct Unwritten {
    behind: WriteBehind,
    records: BTreeMap<AgentId, Newest>,
    in_flight: Vec<AgentId>,
    flush_at_once: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) record: AgentRecord,
    /// The effective config, if it is not in the store yet.
    pub(super) blob: Option<Bytes>,
}

impl Unwritten {
    fn new(behind: WriteBehind) -> Self {
        Self { behind, records: BTreeMap::new(), in_flight: Vec::new(), flush_at_once: false }
    }

    /// The newest version of a record that is not in the store yet.
    pub(super) fn get(&self, id: &AgentId) -> Option<&Newest> {
        self.records.get(id)
    }

    pub(super) fn push(&mut self, record: AgentRecord, blob: Option<Bytes>, now: Mono) {
        let earlier = self.records.remove(&record.id).and_then(|earlier| earlier.blob);
        let blob =
            blob.or_else(|| earlier.filter(|bytes| record.effective_config == Some(BlobId::of(bytes))));
        self.behind.push_with_blobs(record.clone(), blob.clone(), now);
        self.records.insert(record.id, Newest { record, blob });
    }

    /// Makes everything due: something must not wait.
    pub(super) fn hurry(&mut self) {
        self.flush_at_once = true;
    }

    /// What waited for this agent is in the store by other means, or is not wanted any more.
    pub(super) fn discard(&mut self, id: &AgentId) {
        self.behind.discard(id);
        self.records.remove(id);
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        if self.flush_at_once && !self.behind.is_empty() { Some(Mono(0)) } else { self.behind.deadline() }
    }

    /// The next batch, if one is due or `all` are wanted now.
    pub(super) fn take(&mut self, now: Mono, all: bool) -> Option<WriteBatch> {
        let batch = if all || self.flush_at_once { self.behind.take_now() } else { self.behind.take(now) };
        let Some(batch) = batch else {
            self.flush_at_once = false;
            return None;
        };
        let contents = batch.clone().into_contents().ok();
        self.in_flight = contents.map(|contents| contents.agents.into_keys().collect()).unwrap_or_default();
        Some(batch)
    }

    pub(super) fn committed(&mut self) {
        self.behind.committed();
        for id in self.in_flight.drain(..) {
            self.records.remove(&id);
        }
    }

    pub(super) fn failed(&mut self, now: Mono) {
        self.flush_at_once = false;
        self.in_flight.clear();
        self.behind.failed(now);
    }

    /// The store refuses the batch for what it says. Gives a record that is given up.
    pub(super) fn refused(&mut self, now: Mono) -> Option<AgentRecord> {
        self.in_flight.clear();
        let refused = self.behind.refused(now)?;
        self.records.remove(&refused.id);
        Some(refused)
    }

    pub(super) fn len(&self) -> usize {
        self.behind.len()
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
}

impl AuditQueue {
    /// Takes at most `waiting_max` entries, each of which may wait for `delay`.
    pub(super) fn new(waiting_max: usize, delay: Duration) -> Self {
        Self { waiting: VecDeque::new(), waiting_max, dropped: 0, delay, due: Mono(0) }
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

    /// The oldest entries, as many as one batch takes.
    pub(super) fn oldest(&self, count_max: usize) -> Vec<NewAuditEntry> {
        self.waiting.iter().take(count_max).cloned().collect()
    }

    /// The oldest `count` are in the store.
    pub(super) fn written(&mut self, count: usize) {
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
