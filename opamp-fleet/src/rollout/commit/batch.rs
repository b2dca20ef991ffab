//! One transaction of a rollout, and how it can end.

use crate::rollout::journal::{Entry, Snapshot};
use crate::rollout::{Epoch, RolloutId, Serial, Time, Write};

/// What makes a transaction idempotent: the rollout, the serial it stands on, and the epoch of who made it. A repetition is
/// the same batch, byte for byte. The epoch belongs to one process alone (whoever takes the lease gets a new one), so that
/// a batch of another process on the same serial is a conflict and never taken for a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    /// The rollout.
    pub rollout: RolloutId,
    /// The serial before it.
    pub base: Serial,
    /// The leader that made it.
    pub epoch: Epoch,
}

/// One transaction: it is written as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What makes it idempotent.
    pub key: BatchKey,
    /// The fence: refused if the store knows a later one.
    pub epoch: Epoch,
    /// The serial it stands on; refused if the rollout's is another one.
    pub base: Serial,
    /// Engine time of its last entry.
    pub at: Time,
    /// What happened.
    pub entries: Vec<Entry>,
    /// What is written besides.
    pub writes: Vec<Write>,
    /// A snapshot after its last entry, now and then.
    pub snapshot: Option<Snapshot>,
}

impl Batch {
    /// Most entries and writes together of one batch: what one transaction of the store takes.
    pub const CHANGES_MAX: usize = 4_096;
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is written; the rollout has this serial now.
    Committed(Serial),
    /// Somebody else has written: the engine is dropped and rebuilt from the records.
    Conflict {
        /// The rollout's serial.
        found: Serial,
    },
    /// The store refuses it as invalid: a bug. The rollout is frozen in this process.
    Refused,
    /// There is a later leader: this one steps down.
    StaleEpoch {
        /// The later one's epoch.
        current: Epoch,
    },
    /// Nobody knows whether it was written: it is repeated.
    Unknown,
}
