//! Outboxes that are used again and again.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::session::Outbox;

/// Outboxes kept for reuse, beside one in each thread.
const KEPT: usize = 64;

/// Whose outbox a thread has.
static OWNERS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The one this thread used last, with its owner: taken and given back for every message, without a lock.
    static LAST: Cell<Option<(u64, Box<Outbox>)>> = const { Cell::new(None) };
}

/// The outboxes of one server that nobody uses now.
#[derive(Debug)]
pub(crate) struct Outboxes {
    owner: u64,
    /// Boxed, because the tasks of connections hold one across writes and are to stay small.
    #[expect(clippy::vec_box, reason = "they leave the list as boxes")]
    others: Mutex<Vec<Box<Outbox>>>,
}

impl Outboxes {
    pub(crate) fn new() -> Self {
        Self { owner: OWNERS.fetch_add(1, Ordering::Relaxed), others: Mutex::default() }
    }

    /// One of them, empty.
    pub(crate) fn take(&self) -> Option<Box<Outbox>> {
        match LAST.take() {
            Some((owner, outbox)) if owner == self.owner => Some(outbox),
            another_servers => {
                LAST.set(another_servers);
                self.others.lock().unwrap_or_else(PoisonError::into_inner).pop()
            }
        }
    }

    /// Takes one back.
    pub(crate) fn put(&self, mut outbox: Box<Outbox>) {
        outbox.clear();
        let Some((owner, before)) = LAST.replace(Some((self.owner, outbox))) else { return };
        if owner == self.owner {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            if others.len() < KEPT {
                others.push(before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionSettings;

    fn outbox(custom_queue_max: usize) -> Box<Outbox> {
        Box::new(Outbox::new(SessionSettings { custom_queue_max, ..SessionSettings::default() }))
    }

    #[test]
    fn one_outbox_after_the_other_is_the_same_one() {
        let outboxes = Outboxes::new();
        assert!(outboxes.take().is_none());
        outboxes.put(outbox(1));
        let report = allocation_counter::measure(|| {
            for _ in 0..3 {
                outboxes.put(outboxes.take().unwrap());
            }
        });
        assert_eq!(report.count_total, 0);
    }

    #[test]
    fn an_outbox_taken_while_another_is_used_is_another() {
        let outboxes = Outboxes::new();
        outboxes.put(outbox(1));
        outboxes.put(outbox(2));
        let (first, second) = (outboxes.take().unwrap(), outboxes.take().unwrap());
        let settings = [first, second].map(|outbox| outbox.settings().custom_queue_max);
        assert_eq!(settings.iter().sum::<usize>(), 3);
        assert!(outboxes.take().is_none());
    }

    #[test]
    fn servers_have_their_own_outboxes() {
        let (one, another) = (Outboxes::new(), Outboxes::new());
        one.put(outbox(1));
        assert!(another.take().is_none());
        another.put(outbox(2));
        assert_eq!(another.take().unwrap().settings().custom_queue_max, 2);
        assert!(one.take().is_none_or(|outbox| outbox.settings().custom_queue_max == 1));
    }
}
