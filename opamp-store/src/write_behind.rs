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
/// It holds at most one waiting and one in-flight record per agent, so memory is bounded by the fleet even while the
/// store is down; so are the blobs, of which only those are kept that one of these records refers to.
#[derive(Default)]
pub struct WriteBehind {
    limits: WriteBehindLimits,
    waiting: BTreeMap<AgentId, Waiting>,
    /// The same agents by the time of their oldest unwritten change.
    queue: BTreeSet<(Mono, AgentId)>,
    in_flight: Option<InFlight>,
    /// What the records above refer to.
    blobs: BTreeMap<BlobId, Referred>,
    weight: usize,
    not_before: Mono,
    /// How many of the oldest records go alone, because a batch they were in was refused.
    singly: usize,
}

/// A blob that records wait with.
#[derive(Default)]
struct Referred {
    /// How often records that wait or are in flight refer to it; it is forgotten with the last of them.
    references: usize,
    /// None if it was not given, because the store has it.
    bytes: Option<Bytes>,
}

struct Waiting {
    record: Arc<AgentRecord>,
    since: Mono,
}

/// A batch whose outcome is not known yet.
struct InFlight {
    /// Its records, but for those discarded since.
    records: BTreeMap<AgentId, Waiting>,
    /// How many it had.
    taken: usize,
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
    /// no sweep can come between. Blobs it does not refer to are dropped.
    pub fn push_with_blobs<B: Into<Blob>>(
        &mut self,
        record: impl Into<Arc<AgentRecord>>,
        blobs: impl IntoIterator<Item = B>,
        now: Mono,
    ) {
        let mut newest = Waiting { record: record.into(), since: now };
        let id = newest.record.id;
        // Before the older one lets go of what both refer to.
        self.refer(&newest.record);
        // The waiting one first: it is newer than the one in flight, and the first fact found is kept.
        if let Some(older) = self.remove_waiting(&id) {
            newest.supersede(&older);
            self.release(&older.record);
        }
        if let Some(flying) = self.in_flight.as_ref().and_then(|batch| batch.records.get(&id)) {
            absorb(&mut newest.record, &flying.record);
        }
        for blob in blobs {
            let Blob { id, bytes } = blob.into();
            if let Some(referred) = self.blobs.get_mut(&id)
                && referred.bytes.is_none()
            {
                self.weight += WriteBatch::blob_weight(&bytes);
                referred.bytes = Some(bytes);
            }
        }
        self.insert_waiting(newest);
    }

    /// Forgets an agent: its record was deleted, or just committed by other means. Call this when that commit is
    /// handed to the store, so that no older state is written after it.
    pub fn discard(&mut self, id: &AgentId) {
        let waiting = self.remove_waiting(id);
        let flying = self.in_flight.as_mut().and_then(|batch| batch.records.remove(id));
        for gone in waiting.into_iter().chain(flying) {
            self.release(&gone.record);
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
        for written in self.in_flight.take().into_iter().flat_map(|batch| batch.records.into_values()) {
            self.release(&written.record);
        }
        self.not_before = Mono::default();
    }

    /// The batch in flight was not written, or possibly not: its records wait again, unless newer ones already do.
    pub fn failed(&mut self, now: Mono) {
        let records = self.in_flight.take().map(|batch| batch.records).unwrap_or_default();
        for (id, mut record) in records {
            if let Some(mut newer) = self.remove_waiting(&id) {
                newer.supersede(&record);
                self.release(&record.record);
                record = newer;
            }
            self.insert_waiting(record);
        }
        self.not_before = now + self.limits.retry_delay;
    }

    /// The store refused the batch in flight for what it says, so that repeating it is pointless. Its records wait
    /// again and go one by one, which saves the good ones; a record refused alone is handed back and forgotten.
    pub fn refused(&mut self, now: Mono) -> Option<Arc<AgentRecord>> {
        let batch = self.in_flight.as_ref()?;
        if batch.taken == 1 {
            let (_, Waiting { record, .. }) = self.in_flight.take()?.records.pop_first()?;
            self.release(&record);
            return Some(record);
        }
        self.singly = batch.taken;
        self.failed(now);
        self.not_before = Mono::default();
        None
    }

    /// Agents with a change that waits or is in flight.
    pub fn len(&self) -> usize {
        let flying = self.in_flight.iter().flat_map(|batch| batch.records.keys());
        self.waiting.len() + flying.filter(|id| !self.waiting.contains_key(id)).count()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none()
    }

    fn take_waiting(&mut self) -> Option<WriteBatch> {
        let records_max = if self.singly > 0 { 1 } else { self.limits.records_max };
        self.singly = self.singly.saturating_sub(1);
        let mut batch = WriteBatch::new();
        let mut records = BTreeMap::new();
        while let Some(&(_, id)) = self.queue.first() {
            let record = &self.waiting.get(&id)?.record;
            let wanted: BTreeSet<_> = record.blob_references().filter(|id| !batch.has_blob(id)).collect();
            let blobs: Vec<_> =
                wanted.into_iter().filter_map(|id| Some((id, self.blobs.get(&id)?.bytes.clone()?))).collect();
            let weight = record.weight()
                + blobs.iter().map(|(_, bytes)| WriteBatch::blob_weight(bytes)).sum::<usize>();
            let full = records.len() >= records_max
                || batch.ops() + 1 + blobs.len() > WriteBatch::OPS_MAX
                || batch.bytes() + weight > self.limits.bytes_max.min(WriteBatch::BYTES_MAX);
            if full && !records.is_empty() {
                break;
            }
            let Some(taken) = self.remove_waiting(&id) else { break };
            for (id, bytes) in blobs {
                batch.put_blob(Blob { id, bytes });
            }
            batch.put_agent(Arc::clone(&taken.record));
            records.insert(id, taken);
        }
        if batch.is_empty() {
            return None;
        }
        self.in_flight = Some(InFlight { taken: records.len(), records });
        Some(batch)
    }

    fn insert_waiting(&mut self, waiting: Waiting) {
        self.weight += waiting.record.weight();
        self.queue.insert((waiting.since, waiting.record.id));
        self.waiting.insert(waiting.record.id, waiting);
    }

    fn remove_waiting(&mut self, id: &AgentId) -> Option<Waiting> {
        let removed = self.waiting.remove(id)?;
        self.queue.remove(&(removed.since, *id));
        self.weight -= removed.record.weight();
        Some(removed)
    }

    fn refer(&mut self, record: &AgentRecord) {
        for id in record.blob_references() {
            self.blobs.entry(id).or_default().references += 1;
        }
    }

    /// A record is written, superseded or not wanted any more, and what only it referred to with it.
    fn release(&mut self, record: &AgentRecord) {
        for id in record.blob_references() {
            let Some(blob) = self.blobs.get_mut(&id) else { continue };
            blob.references -= 1;
            if blob.references == 0 {
                self.weight -= blob.bytes.as_ref().map_or(0, WriteBatch::blob_weight);
                self.blobs.remove(&id);
            }
        }
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind")
            .field("waiting", &self.waiting.len())
            .field("in_flight", &self.in_flight.as_ref().map(|batch| batch.taken))
            .field("blobs", &self.blobs.values().filter(|blob| blob.bytes.is_some()).count())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

impl Waiting {
    fn supersede(&mut self, older: &Self) {
        absorb(&mut self.record, &older.record);
        self.since = self.since.min(older.since);
    }
}

/// Takes over the sticky facts of an older record, which is copied for that only if there is one to take over.
fn absorb(newer: &mut Arc<AgentRecord>, older: &AgentRecord) {
    if !newer.sticky.has_all_of(&older.sticky) {
        Arc::make_mut(newer).sticky.absorb(&older.sticky);
    }
}
