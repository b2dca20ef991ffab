//! What leaves the server: one queue of agents that changed, coalescing, and one of refusals, folding.
//!
//! An agent is in the queue at most once, so the queue is bounded by the number of agents and nothing is lost
//! however slow the reader is: it reads the state as it is when it gets there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opamp_proto::Wall;
use tokio::sync::Notify;

use super::directory::Slot;
use crate::refusal::RefusalReason;
use crate::snapshot::{AgentChange, Transport};

/// Something the application may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// An agent changed. Changes of one agent that were not taken yet are merged.
    Agent(Box<AgentChange>),
    /// Something was refused.
    Refused(Refusal),
}

/// One refusal, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Wall,
    /// Why: the word that metrics use too.
    pub reason: RefusalReason,
    /// What exactly was wrong; no secret.
    pub detail: String,
    /// Whose credentials were presented, if that is known.
    pub principal: Option<String>,
    /// Where it came from, if the transport told.
    pub remote_addr: Option<SocketAddr>,
    /// On which transport, if it got that far.
    pub transport: Option<Transport>,
    /// Refusals before this one that were dropped because nobody took them in time.
    pub folded: u64,
}

/// The events of a server, for one reader.
#[derive(Debug)]
pub struct Events(pub(crate) Arc<ChangeQueue>);

impl Events {
    /// The next event; waits for one, and ends when the server has drained and everything is told.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let queue = Arc::clone(&self.0);
        loop {
            let notified = queue.notify.notified();
            // Asked first: what is queued before the end is still told.
            let closed = queue.lock().closed;
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if closed {
                return None;
            }
            notified.await;
        }
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            let slot = {
                let mut queue = self.0.lock();
                // In turn, so that a flood of one kind does not starve the other.
                queue.refusal_next = !queue.refusal_next;
                if (queue.refusal_next || queue.agents.is_empty())
                    && let Some(refusal) = queue.refusals.pop_front()
                {
                    return Some(Event::Refused(refusal));
                }
                queue.agents.pop_front()?
            };
            if let Some(change) = slot.take_change() {
                return Some(Event::Agent(Box::new(change)));
            }
        }
    }
}

/// The queue behind [`Events`].
#[derive(Debug)]
pub(crate) struct ChangeQueue {
    inner: Mutex<Queue>,
    notify: Notify,
    refusals_kept: usize,
}

#[derive(Debug, Default)]
struct Queue {
    agents: VecDeque<Arc<Slot>>,
    refusals: VecDeque<Refusal>,
    refusal_next: bool,
    folded: u64,
    closed: bool,
}

impl ChangeQueue {
    pub(crate) fn new(refusals_kept: usize) -> Self {
        Self { inner: Mutex::default(), notify: Notify::new(), refusals_kept }
    }

    /// Queues an agent that is not queued yet; see [`Slot::mark_queued`].
    pub(crate) fn agent(&self, slot: &Arc<Slot>) {
        if slot.mark_queued() {
            self.lock().agents.push_back(Arc::clone(slot));
            self.notify.notify_one();
        }
    }

    pub(crate) fn refused(&self, mut refusal: Refusal) {
        let mut queue = self.lock();
        if queue.refusals.len() >= self.refusals_kept {
            queue.folded += 1;
            return;
        }
        refusal.folded = std::mem::take(&mut queue.folded);
        queue.refusals.push_back(refusal);
        drop(queue);
        self.notify.notify_one();
    }

    /// Lets the reader end once it has taken everything.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.notify.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
