//! Grouping of record writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{AgentId, Mono};

use crate::{AgentRecord, Blob, BlobId, WriteBatch};

/// Bounds of a [`WriteBehind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteBehindLimits {
    /// How long a change may wait before it is due; what a crash may lose. Default 500 ms.
    pub delay: Duration,
    /// How long to pause after a failed batch. Default 1 s.
    pub retry_delay: Duration,
    /// Most records in a batch, within 1 and [`WriteBatch::OPS_MAX`]; so many waiting are due at once. Default 512.
    pub records_max: usize,
    /// About how many bytes a batch carries; so many waiting are due at once. A single record is taken whatever its
    /// size. Default 8 MiB.
    pub bytes_max: usize,
}

impl Default for WriteBehindLimits {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(500),
            retry_delay: Duration::from_secs(1),
            records_max: 512,
            bytes_max: 8 << 20,
        }
    }
}

/// Collects changed agent records and hands them out in batches: newest wins, except what is sticky.
///
/// A plain struct: it reads no clock and does no IO. Its driver calls [`take`](WriteBehind::take) at
/// [`deadline`](WriteBehind::deadline), commits the batch, and reports [`committed`](WriteBehind::committed),
/// [`failed`](WriteBehind::failed) or [`refused`](WriteBehind::refused) before the next one.
///
/// ```text
///            push                take                 committed
///  (idle) ─────────► waiting ───────────► in flight ────────────► (idle)
///                       ▲                     │
///                       └─────────────────────┘ failed, refused: newer waiting records win
/// ```
///
/// Agents are found by a quick hash of their ids, which is no defence against ids that somebody chose to collide: they come from
/// [`AgentId::v7`] or are as random, and not from agents.
///
/// It holds at most one waiting and one in-flight record per agent, so memory is bounded by the fleet even while the
/// store is down; so are the blobs, of which only those are kept that one of these records refers to.
#[derive(Default)]
pub struct WriteBehind {
    limits: WriteBehindLimits,
    /// By a key that the server made.
    agents: foldhash::HashMap<AgentId, Unwritten>,
    /// The agents whose records wait, by the time of their oldest unwritten change.
    queue: BTreeSet<(Mono, AgentId)>,
    /// The agents of the batch whose outcome is not known yet, those included whose record was discarded since.
    in_flight: Option<Vec<AgentId>>,
    /// What records came with.
    blobs: BTreeMap<BlobId, Given>,
    weight: usize,
    not_before: Mono,
    /// How many of the oldest records go alone, because a batch they were in was refused.
    singly: usize,
}

/// What is not written of one agent: one of both, or both.
#[derive(Default)]
struct Unwritten {
    waiting: Option<Waiting>,
    flying: Option<Waiting>,
}

struct Waiting {
    record: Arc<AgentRecord>,
    /// What came with it, or with an older one, and it refers to.
    blobs: Vec<BlobId>,
    /// Of the record, while it waits and is in flight.
    weight: usize,
    since: Mono,
}

/// A blob that came with records.
struct Given {
    bytes: Bytes,
    /// How many records that wait or are in flight have it; it is forgotten with the last of them.
    records: usize,
}

impl WriteBehind {
    /// An empty one.
    pub fn new(limits: WriteBehindLimits) -> Self {
        let records_max = limits.records_max.clamp(1, WriteBatch::OPS_MAX);
        Self { limits: WriteBehindLimits { records_max, ..limits }, ..Self::default() }
    }

    /// Takes a changed record. Replaces what waits for the same agent; sticky counters never go back, and a last
    /// failure or success is kept unless the newer record has one.
    pub fn push(&mut self, record: impl Into<Arc<AgentRecord>>, now: Mono) {
        self.push_with_blobs(record, std::iter::empty::<Blob>(), now);
    }

    /// As [`push`](WriteBehind::push), with blobs the record refers to: they are written in the same batch, so that
    /// no sweep can come between. Blobs it does not refer to are dropped. They also go with newer records of this agent that
    /// refer to them, until they are written, but never with those of another agent: each has to bring its own.
    pub fn push_with_blobs<B: Into<Blob>>(
        &mut self,
        record: impl Into<Arc<AgentRecord>>,
        blobs: impl IntoIterator<Item = B>,
        now: Mono,
    ) {
        let record = record.into();
        let id = record.id;
        let mut newest = Waiting { record, blobs: Vec::new(), weight: 0, since: now };
        for blob in blobs {
            let Blob { id, bytes } = blob.into();
            if newest.lacks(&id) {
                newest.blobs.push(id);
                self.give(id, bytes);
            }
        }
        // The waiting one first: it is newer than the one in flight, and the first fact found is kept.
        if let Some(older) = self.remove_waiting(&id) {
            self.supersede(&mut newest, &older);
        }
        if let Some(flying) = self.agents.get(&id).and_then(|unwritten| unwritten.flying.as_ref()) {
            absorb(&mut newest.record, &flying.record);
        }
        self.insert_waiting(newest);
    }

    /// The newest record of an agent that waits or is in flight.
    pub fn get(&self, id: &AgentId) -> Option<&Arc<AgentRecord>> {
        self.agents.get(id)?.newest().map(|newest| &newest.record)
    }

    /// What this record came with, or one before it that waits or is in flight, as far as it refers to it.
    pub fn blobs(&self, id: &AgentId) -> Vec<Blob> {
        let unwritten = self.agents.get(id);
        let Some(newest) = unwritten.and_then(Unwritten::newest) else { return Vec::new() };
        let flying = unwritten.and_then(|unwritten| unwritten.flying.as_ref());
        let flying = flying.into_iter().flat_map(|flying| &flying.blobs).filter(|id| newest.lacks(id));
        let given = |id: &BlobId| Some(Blob { id: *id, bytes: self.blobs.get(id)?.bytes.clone() });
        newest.blobs.iter().chain(flying).filter_map(given).collect()
    }

    /// Forgets an agent: its record was deleted, or just committed by other means. Call this when that commit is
    /// handed to the store, so that no older state is written after it.
    pub fn discard(&mut self, id: &AgentId) {
        let waiting = self.remove_waiting(id);
        let flying = self.land(id);
        for gone in waiting.into_iter().chain(flying) {
            self.release(&gone.blobs);
        }
    }

    /// When [`take`](WriteBehind::take) next has something; `None` while nothing waits or a batch is in flight.
    pub fn deadline(&self) -> Option<Mono> {
        if self.in_flight.is_some() {
            return None;
        }
        let (oldest, _) = *self.queue.first()?;
        let full = self.queue.len() >= self.limits.records_max || self.weight >= self.limits.bytes_max;
        let due = if full { oldest } else { oldest + self.limits.delay };
        Some(due.max(self.not_before))
    }

    /// The next batch, oldest changes first, if one is due.
    pub fn take(&mut self, now: Mono) -> Option<WriteBatch> {
        if self.deadline()? > now { None } else { self.take_waiting() }
    }

    /// The next batch, due or not: for an orderly end. `None` when nothing waits or a batch is in flight.
    pub fn take_now(&mut self) -> Option<WriteBatch> {
        if self.in_flight.is_none() { self.take_waiting() } else { None }
    }

    /// The batch in flight is in the store.
    pub fn committed(&mut self) {
        for id in self.in_flight.take().unwrap_or_default() {
            if let Some(written) = self.land(&id) {
                self.release(&written.blobs);
            }
        }
        if self.agents.is_empty() {
            self.agents.shrink_to(self.limits.records_max); // after an outage it was as large as the fleet
        }
        self.not_before = Mono::default();
    }

    /// The batch in flight was not written, or possibly not: its records wait again, unless newer ones already do.
    pub fn failed(&mut self, now: Mono) {
        for id in self.in_flight.take().unwrap_or_default() {
            let Some(mut record) = self.land(&id) else { continue };
            if let Some(mut newer) = self.remove_waiting(&id) {
                self.supersede(&mut newer, &record);
                record = newer;
            }
            self.insert_waiting(record);
        }
        self.not_before = now + self.limits.retry_delay;
    }

    /// The store refused the batch in flight for what it says, so that repeating it is pointless. Its records wait
    /// again and go one by one, which saves the good ones; a record refused alone is handed back and forgotten, and its
    /// blobs go with a newer one that waits and refers to them.
    pub fn refused(&mut self, now: Mono) -> Option<Arc<AgentRecord>> {
        let taken = self.in_flight.as_ref()?;
        if let [id] = taken[..] {
            self.in_flight = None;
            let refused = self.land(&id)?;
            // A newer record has its facts since it was pushed, but relied on these blobs to be written before it.
            if let Some(mut newer) = self.remove_waiting(&id) {
                self.inherit(&mut newer, &refused.blobs);
                self.insert_waiting(newer);
            } else {
                self.release(&refused.blobs);
            }
            return Some(refused.record);
        }
        self.singly = taken.len();
        self.failed(now);
        self.not_before = Mono::default();
        None
    }

    /// Agents with a change that waits or is in flight.
    pub fn len(&self) -> usize {
        self.agents.len()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    fn take_waiting(&mut self) -> Option<WriteBatch> {
        let records_max = if self.singly > 0 { 1 } else { self.limits.records_max };
        self.singly = self.singly.saturating_sub(1);
        let mut batch = WriteBatch::new();
        let mut taken = Vec::new();
        while let Some(&(_, id)) = self.queue.first() {
            let Some(unwritten) = self.agents.get_mut(&id) else { break };
            let Some(waiting) = &unwritten.waiting else { break };
            let blobs = || {
                let new = waiting.blobs.iter().filter(|id| !batch.has_blob(id));
                new.filter_map(|id| Some((*id, &self.blobs.get(id)?.bytes)))
            };
            let weight =
                waiting.weight + blobs().map(|(_, bytes)| WriteBatch::blob_weight(bytes)).sum::<usize>();
            let full = taken.len() >= records_max
                || batch.ops() + 1 + blobs().count() > WriteBatch::OPS_MAX
                || batch.bytes() + weight > self.limits.bytes_max.min(WriteBatch::BYTES_MAX);
            if full && !taken.is_empty() {
                break;
            }
            let blobs: Vec<_> = blobs().map(|(id, bytes)| Blob { id, bytes: bytes.clone() }).collect();
            for blob in blobs {
                batch.put_blob(blob);
            }
            batch.put_weighed(Arc::clone(&waiting.record), waiting.weight);
            self.queue.pop_first();
            self.weight -= waiting.weight;
            unwritten.flying = unwritten.waiting.take();
            taken.push(id);
        }
        if taken.is_empty() {
            return None;
        }
        self.in_flight = Some(taken);
        Some(batch)
    }

    fn insert_waiting(&mut self, mut waiting: Waiting) {
        let id = waiting.record.id;
        waiting.weight = waiting.record.weight();
        self.weight += waiting.weight;
        self.queue.insert((waiting.since, id));
        self.agents.entry(id).or_default().waiting = Some(waiting);
    }

    fn remove_waiting(&mut self, id: &AgentId) -> Option<Waiting> {
        let unwritten = self.agents.get_mut(id)?;
        let removed = unwritten.waiting.take()?;
        if unwritten.flying.is_none() {
            self.agents.remove(id);
        }
        self.queue.remove(&(removed.since, *id));
        self.weight -= removed.weight;
        Some(removed)
    }

    /// The record of an agent that is not in flight any more.
    fn land(&mut self, id: &AgentId) -> Option<Waiting> {
        let unwritten = self.agents.get_mut(id)?;
        let landed = unwritten.flying.take();
        if unwritten.waiting.is_none() {
            self.agents.remove(id);
        }
        landed
    }

    /// A newer record takes over what it needs of an older one, which is not wanted any more.
    fn supersede(&mut self, newer: &mut Waiting, older: &Waiting) {
        absorb(&mut newer.record, &older.record);
        newer.since = newer.since.min(older.since);
        self.inherit(newer, &older.blobs);
    }

    /// A newer record takes over the blobs it refers to of an older one, and the rest is let go.
    fn inherit(&mut self, newer: &mut Waiting, blobs: &[BlobId]) {
        for id in blobs {
            if newer.lacks(id)
                && let Some(given) = self.blobs.get_mut(id)
            {
                given.records += 1;
                newer.blobs.push(*id);
            }
        }
        self.release(blobs);
    }

    fn give(&mut self, id: BlobId, bytes: Bytes) {
        let weight = WriteBatch::blob_weight(&bytes);
        let given = self.blobs.entry(id).or_insert_with(|| {
            self.weight += weight;
            Given { bytes, records: 0 }
        });
        given.records += 1;
    }

    /// A record is written, superseded or not wanted any more, and what only it came with is neither.
    fn release(&mut self, blobs: &[BlobId]) {
        for id in blobs {
            let Some(given) = self.blobs.get_mut(id) else { continue };
            given.records -= 1;
            if given.records == 0 {
                self.weight -= WriteBatch::blob_weight(&given.bytes);
                self.blobs.remove(id);
            }
        }
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind")
            .field("waiting", &self.queue.len())
            .field("in_flight", &self.in_flight.as_ref().map(Vec::len))
            .field("blobs", &self.blobs.len())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

impl Unwritten {
    fn newest(&self) -> Option<&Waiting> {
        self.waiting.as_ref().or(self.flying.as_ref())
    }
}

impl Waiting {
    /// Whether it refers to a blob that it did not come with.
    fn lacks(&self, id: &BlobId) -> bool {
        self.record.refers_to(id) && !self.blobs.contains(id)
    }
}

/// Takes over the sticky facts of an older record, which is copied for that only if there is one to take over.
fn absorb(newer: &mut Arc<AgentRecord>, older: &AgentRecord) {
    if !newer.sticky.has_all_of(&older.sticky) {
        Arc::make_mut(newer).sticky.absorb(&older.sticky);
    }
}
