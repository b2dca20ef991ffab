//! Events that wait for a handler that is slow.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::event::Event;

/// Events that wait for a handler: bounded, the oldest go first.
pub(super) struct EventQueue {
    waiting: Mutex<VecDeque<Event>>,
    capacity: usize,
    dropped: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl EventQueue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            capacity: capacity.max(1),
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// There will be no more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(super) fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.capacity {
            waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(event);
        drop(waiting);
        self.changed.notify_one();
    }

    /// The next event; `None` when there will be no more.
    pub(super) async fn next(&self) -> Option<Event> {
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if next.is_some() || closed {
                return next;
            }
            self.changed.notified().await;
        }
    }
}
