//! The commit protocol, without IO: what is committed, when it is repeated, what acts when (R3, R5).
//!
//! ```text
//! Effects ─add─► waiting ─poll─► Commit(batch) ─► store ─answered─► committed ─► Act(acts)
//!                                    ▲                     │
//!                                    └── unknown: repeated ┤
//!                 conflict: Drop · stale epoch: StepDown · refused: Poisoned
//! ```
//!
//! One batch is at the store at a time; what is added meanwhile waits for the next one. Nothing acts before the batch it
//! came with is committed. A batch whose outcome is unknown is repeated byte for byte under the same key, so that the store
//! answers it as it did the first time.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use batch::{Batch, BatchKey, CommitOutcome};

use super::journal::{Entry, Snapshot, Touched};
use super::{Act, Alert, AlertKind, Effects, Epoch, RolloutId, Serial, Time, Write};
use crate::faults::{Faults, seeded};

/// Bounds and waits of a committer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitSettings {
    /// Most entries that wait; beyond, the caller stops feeding the engine. Default 65,536.
    pub entries_max: usize,
    /// Wait before the first repetition; doubled for each further one. Default 100 ms.
    pub repeat_after: Duration,
    /// Longest wait between repetitions. Default 5 s.
    pub repeat_after_max: Duration,
    /// How long no commit may succeed before the store counts as degraded. Default 30 s.
    pub degraded_after: Duration,
    /// A snapshot joins the batch after so many entries since the last one. Default 8,192.
    pub snapshot_entries: usize,
}

impl Default for CommitSettings {
    fn default() -> Self {
        Self {
            entries_max: 65_536,
            repeat_after: Duration::from_millis(100),
            repeat_after_max: Duration::from_secs(5),
            degraded_after: Duration::from_secs(30),
            snapshot_entries: 8_192,
        }
    }
}

/// What the committer wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Done now, because it is committed.
    Act(Vec<Act>),
    /// Committed, and the outcome told.
    Commit(Arc<Batch>),
    /// The engine and this committer are dropped; the rollout is rebuilt from its records.
    Drop,
    /// Nothing.
    Idle,
    /// The rollout is frozen in this process: its batch was refused as invalid.
    Poisoned,
    /// The lease is given up, and all engines with it.
    StepDown,
    /// Asked again at that time.
    Wait(Time),
}

/// Commits what one rollout's engine wants, in order. It is asked with [`Committer::poll`] until it says anything but
/// [`Next::Act`].
#[derive(Clone, Debug)]
pub struct Committer {
    rollout: RolloutId,
    /// Of the last committed batch.
    serial: Serial,
    epoch: Epoch,
    settings: CommitSettings,
    faults: Faults,
    /// Batches to come. What one call of the engine wanted is never divided, also where it is more than
    /// [`Batch::CHANGES_MAX`].
    waiting: VecDeque<Chunk>,
    at_store: Option<AtStore>,
    committed: Vec<Act>,
    end: Option<End>,
    /// Entries since the last snapshot.
    since_snapshot: usize,
    touched: Touched,
}

/// What is committed together.
#[derive(Clone, Debug)]
struct Chunk {
    entries: Vec<Entry>,
    writes: Vec<Write>,
    acts: Vec<Act>,
    at: Time,
    /// The engine after the last entry: then nothing later is in the same batch.
    snapshot: Option<Snapshot>,
}

impl Chunk {
    fn changes(&self) -> usize {
        self.entries.len() + self.writes.len()
    }
}

/// The batch that is at the store.
#[derive(Clone, Debug)]
struct AtStore {
    batch: Arc<Batch>,
    acts: Vec<Act>,
    /// When it was first sent.
    sent: Time,
    /// How often its outcome was unknown.
    unknown: u32,
    /// When it is sent again; none while an answer is awaited.
    repeat_at: Option<Time>,
}

/// Nothing more is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Conflict,
    Invalid,
    StaleEpoch,
}

impl Committer {
    /// A committer for a rollout whose last committed batch is `base`: 0 for a new one, which begins with a snapshot.
    pub fn new(
        rollout: RolloutId,
        base: Serial,
        epoch: Epoch,
        settings: CommitSettings,
        faults: Faults,
    ) -> Self {
        let is_new = base == Serial(0);
        Self {
            rollout,
            serial: base,
            epoch,
            settings,
            faults,
            waiting: VecDeque::new(),
            at_store: None,
            committed: Vec::new(),
            end: None,
            since_snapshot: if is_new { settings.snapshot_entries } else { 0 },
            touched: Touched::everything(),
        }
    }

    /// The last batch that is known to be committed.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Takes entries, writes and acts out of `effects`, to be committed together; `now` is when they were made. Acts alone
    /// wait for what was added before them. Once the committer has ended, nothing is kept.
    pub fn add(&mut self, effects: &mut Effects, now: Time) {
        let (entries, writes, acts) = effects.take();
        if self.end.is_some() {
            return;
        }
        if entries.is_empty() && writes.is_empty() {
            match (self.waiting.back_mut(), &mut self.at_store) {
                (Some(last), _) => last.acts.extend(acts),
                (None, Some(at_store)) => at_store.acts.extend(acts),
                (None, None) => self.committed.extend(acts),
            }
            return;
        }
        entries.iter().for_each(|entry| self.touched.note(entry));
        self.since_snapshot = self.since_snapshot.saturating_add(entries.len());
        let chunk = Chunk { entries, writes, acts, at: now, snapshot: None };
        match self.waiting.back_mut() {
            Some(last) if joins(last, &chunk) => {
                last.entries.extend(chunk.entries);
                last.writes.extend(chunk.writes);
                last.acts.extend(chunk.acts);
                last.at = chunk.at;
            }
            _ => self.waiting.push_back(chunk),
        }
    }

    /// Whether a snapshot of the engine should be added now, directly after [`Committer::add`]: of the pages that are named.
    pub fn wants_snapshot(&self) -> Option<&Touched> {
        let is_due = self.since_snapshot >= self.settings.snapshot_entries;
        let is_possible = self.waiting.back().is_some_and(|last| last.snapshot.is_none());
        (is_due && is_possible).then_some(&self.touched)
    }

    /// Adds a snapshot of the engine as it is after what was added last. Without anything waiting it is left out.
    pub fn add_snapshot(&mut self, snapshot: Snapshot) {
        if let Some(last) = self.waiting.back_mut() {
            last.snapshot = Some(snapshot);
            self.since_snapshot = 0;
            self.touched = Touched::nothing();
        }
    }

    /// The plan was made anew before the start: the next snapshot comes at once and is whole.
    pub fn replanned(&mut self) {
        self.since_snapshot = self.settings.snapshot_entries;
        self.touched = Touched::everything();
    }

    /// Whether the engine may be fed: fewer than [`CommitSettings::entries_max`] entries wait.
    pub fn has_room(&self) -> bool {
        let waiting: usize = self.waiting.iter().map(|chunk| chunk.entries.len()).sum();
        let at_store = self.at_store.as_ref().map_or(0, |at_store| at_store.batch.entries.len());
        waiting + at_store < self.settings.entries_max
    }

    /// Whether no commit has succeeded for [`CommitSettings::degraded_after`] while one was wanted.
    pub fn is_degraded(&self, now: Time) -> bool {
        let after = self.settings.degraded_after;
        self.at_store.as_ref().is_some_and(|at_store| now.since(at_store.sent) >= after)
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Time) -> Next {
        if !self.committed.is_empty() {
            return Next::Act(std::mem::take(&mut self.committed));
        }
        match self.end {
            Some(End::Conflict) => return Next::Drop,
            Some(End::Invalid) => return Next::Poisoned,
            Some(End::StaleEpoch) => return Next::StepDown,
            None => {}
        }
        match &mut self.at_store {
            None => self.send(now),
            Some(at_store) => match at_store.repeat_at {
                Some(at) if now < at => Next::Wait(at),
                Some(_) => {
                    at_store.repeat_at = None;
                    self.repeat()
                }
                None => {
                    let degraded_at = at_store.sent + self.settings.degraded_after;
                    if now < degraded_at { Next::Wait(degraded_at) } else { Next::Idle }
                }
            },
        }
    }

    /// How a batch ended. An answer about any other batch than the one at the store changes nothing.
    pub fn answered(&mut self, key: BatchKey, outcome: CommitOutcome, now: Time) {
        let Some(at_store) = self.at_store.as_mut().filter(|at_store| at_store.batch.key == key) else {
            return;
        };
        match outcome {
            CommitOutcome::Committed(serial) if serial.0 == at_store.batch.base.0 + 1 => {
                self.serial = serial;
                self.committed.append(&mut at_store.acts);
                self.at_store = None;
            }
            // A serial that does not follow on the base was written by somebody else.
            CommitOutcome::Committed(_) | CommitOutcome::Conflict { .. } => self.finish(End::Conflict),
            CommitOutcome::Refused => {
                self.committed.push(Act::Alert(Box::new(Alert {
                    kind: AlertKind::Poisoned,
                    rollout: self.rollout,
                    wave: None,
                    at: now,
                    text: format!("batch after {} was refused as invalid", key.base).into(),
                })));
                self.finish(End::Invalid);
            }
            CommitOutcome::StaleEpoch { .. } => {
                self.committed.clear();
                self.finish(End::StaleEpoch);
            }
            CommitOutcome::Unknown if at_store.repeat_at.is_none() => {
                let wait = doubled(self.settings.repeat_after, at_store.unknown);
                at_store.repeat_at = Some(now + wait.min(self.settings.repeat_after_max));
                at_store.unknown = at_store.unknown.saturating_add(1);
            }
            CommitOutcome::Unknown => {}
        }
    }

    /// Nothing of what waits is committed, and none of its acts is done.
    fn finish(&mut self, end: End) {
        self.end = Some(end);
        self.at_store = None;
        self.waiting.clear();
    }

    /// The next batch, if anything waits.
    fn send(&mut self, now: Time) -> Next {
        let Some(Chunk { entries, writes, mut acts, at, snapshot }) = self.waiting.pop_front() else {
            return Next::Idle;
        };
        let key = BatchKey { rollout: self.rollout, base: self.serial, epoch: self.epoch };
        let batch =
            Arc::new(Batch { key, epoch: self.epoch, base: self.serial, at, entries, writes, snapshot });
        if seeded!(self.faults, ActBeforeCommit) {
            self.committed.append(&mut acts);
        }
        let sent = now;
        self.at_store = Some(AtStore { batch: Arc::clone(&batch), acts, sent, unknown: 0, repeat_at: None });
        Next::Commit(batch)
    }

    /// The batch at the store once more, as it was.
    fn repeat(&mut self) -> Next {
        let Some(at_store) = &mut self.at_store else {
            return Next::Idle;
        };
        if seeded!(self.faults, LostEffect) {
            Arc::make_mut(&mut at_store.batch).writes.clear();
        }
        if seeded!(self.faults, NewBatchOnRetry) {
            let base = Serial(at_store.batch.base.0 + 1);
            let batch = Arc::make_mut(&mut at_store.batch);
            (batch.base, batch.key.base) = (base, base);
        }
        Next::Commit(Arc::clone(&at_store.batch))
    }
}

/// Whether a chunk can be part of the one that waits before it.
fn joins(last: &Chunk, chunk: &Chunk) -> bool {
    last.snapshot.is_none() && last.changes() + chunk.changes() <= Batch::CHANGES_MAX
}

/// The wait doubled so many times.
fn doubled(wait: Duration, times: u32) -> Duration {
    wait.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}
