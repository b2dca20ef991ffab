//! What the handle and the writer both know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::transaction::Counts;
use crate::{StorageFault, StoreStats};

#[derive(Debug, Default)]
pub(super) struct Shared {
    stats: Mutex<StoreStats>,
    /// How the last write failed; `None` once one succeeded.
    write_fault: Mutex<Option<StorageFault>>,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn stats(&self) -> StoreStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, counts: &Counts) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.commits += counts.commits;
        stats.transactions += u64::from(counts.commits > 0);
        stats.rows_written += counts.rows;
        stats.checkpoint_rows_written += counts.checkpoint_rows;
        stats.checkpoints_written += counts.checkpoints;
    }

    pub(super) fn count_failure(&self) {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).commits_failed += 1;
    }

    pub(super) fn write_fault(&self) -> Option<StorageFault> {
        self.write_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_write_fault(&self, fault: Option<StorageFault>) {
        *self.write_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Answers whether it was open.
    pub(super) fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}
