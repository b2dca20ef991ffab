//! What of a journal is kept for how long (R8).

use std::time::Duration;

use super::Entry;
use crate::rollout::Time;

/// The entries that have to be kept, in order: the notable ones, and those since the last snapshot, from which the state is
/// rebuilt. `snapshot_at` is how many entries there were when that was made. What is left out happened to single members
/// and timers, and is in the snapshot.
pub fn kept(entries: &[Entry], snapshot_at: usize) -> impl Iterator<Item = &Entry> {
    let (before, since) = entries.split_at(snapshot_at.min(entries.len()));
    before.iter().filter(|entry| entry.is_notable()).chain(since)
}

/// How long a rollout that has ended can still be looked at in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// That long. Default 90 d.
    pub keep: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: Duration::from_secs(90 * 24 * 3_600) }
    }
}

impl Retention {
    /// Whether a rollout that ended at this time is history: of its records the plan, the notable entries and a last
    /// snapshot stay, and no engine is rebuilt from them any more. Never while it has not ended.
    pub fn is_history(&self, ended: Option<Time>, now: Time) -> bool {
        ended.is_some_and(|ended| now.since(ended) >= self.keep)
    }
}
