//! What became of downloads.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::places::Place;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct DownloadCounts {
    started: AtomicU64,
    completed: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Downloaded {
    /// Downloads that were begun.
    pub(crate) started: u64,
    /// Downloads of which every byte was taken.
    pub(crate) completed: u64,
    /// Downloads that ended earlier.
    pub(crate) cut: u64,
    /// Requests that were not served.
    pub(crate) refused: u64,
    /// Bytes of files handed to connections.
    pub(crate) bytes: u64,
    /// Downloads now.
    pub(crate) running: u64,
}

/// A download until it is dropped. Keeps its place, and sees to it that it ends exactly once in the counters.
#[derive(Debug)]
pub(crate) struct Running {
    left: u64,
    counts: Arc<DownloadCounts>,
    _place: Place,
}

impl DownloadCounts {
    /// Begins a download of so many bytes.
    pub(super) fn start(self: &Arc<Self>, place: Place, bytes: u64) -> Running {
        self.started.fetch_add(1, Ordering::Relaxed);
        Running { left: bytes, counts: Arc::clone(self), _place: place }
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub(crate) fn snapshot(&self) -> Downloaded {
        // Ended ones first: one that ends meanwhile then counts as running, and never as less than none.
        let (completed, cut) = (self.completed.load(Ordering::Acquire), self.cut.load(Ordering::Acquire));
        let started = self.started.load(Ordering::Acquire);
        Downloaded {
            started,
            completed,
            cut,
            refused: self.refused.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            running: started - completed - cut,
        }
    }
}

impl Running {
    /// So many bytes were handed over.
    pub(super) fn took(&mut self, bytes: u64) {
        self.left -= bytes;
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were not handed over yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = if self.left == 0 { &self.counts.completed } else { &self.counts.cut };
        ended.fetch_add(1, Ordering::Release);
    }
}
