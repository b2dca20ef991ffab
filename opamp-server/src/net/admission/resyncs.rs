//! The pace of full-state requests over the whole fleet, and the agents that wait for theirs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_proto::Mono;

use super::super::core::Core;
use super::super::directory::{Owner, Slot};
use super::super::settings::ServerSettings;
use super::pace::Pace;
use crate::session::Effects;
use crate::snapshot::Liveness;

/// How many full-state requests go out.
///
/// A session asks in the very answer that noticed the gap as long as this is open. Otherwise it is put into the line, once, and
/// asked when its turn comes: on a WebSocket unsolicited, on plain HTTP with its next answer. While anybody is in the line
/// everybody has to go there, so that agents that talk more are not served before those that wait.
#[derive(Debug)]
pub(crate) struct Resyncs {
    /// Before this no session may ask by itself; messages look at this alone.
    closed_until: AtomicU64,
    deferred: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    pace: Pace,
    /// Every agent at most once: its session knows that it is in here.
    waiting: VecDeque<Arc<Slot>>,
}

/// As long as anybody is in the line.
const CLOSED: u64 = u64::MAX;

impl Resyncs {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        let pace = Pace::new(settings.resync_rate, settings.resync_burst);
        let line = Mutex::new(Line { pace, waiting: VecDeque::new() });
        Self { closed_until: AtomicU64::new(0), deferred: AtomicU64::new(0), line }
    }

    /// Whether a session may ask by itself now.
    pub(crate) fn is_open(&self, now: Mono) -> bool {
        now.0 >= self.closed_until.load(Ordering::Relaxed)
    }

    /// Whether anybody is in the line.
    pub(crate) fn is_anybody_waiting(&self) -> bool {
        self.closed_until.load(Ordering::Relaxed) == CLOSED
    }

    /// Takes note of what a session did.
    pub(crate) fn note(&self, slot: &Arc<Slot>, effects: Effects, now: Mono) {
        let (asked, deferred) = (effects.full_state_requests, effects.full_state_deferred);
        if asked == 0 && deferred == 0 {
            return;
        }
        let mut line = self.lock();
        // A permission was paid for when it was given.
        line.pace.spend(asked.saturating_sub(effects.full_state_permitted), now);
        if deferred > 0 {
            self.deferred.fetch_add(deferred.into(), Ordering::Relaxed);
            line.waiting.push_back(Arc::clone(slot));
        }
        self.set_closed(&mut line, now);
    }

    /// How many requests were deferred, and how many agents wait.
    pub(crate) fn read(&self) -> (u64, u64) {
        let waiting = self.lock().waiting.len();
        (self.deferred.load(Ordering::Relaxed), waiting as u64)
    }

    /// The next in the line, if it may be asked now.
    fn next(&self, now: Mono) -> Option<Arc<Slot>> {
        let mut line = self.lock();
        if !line.pace.wait(now).is_zero() {
            return None;
        }
        let next = line.waiting.pop_front();
        self.set_closed(&mut line, now);
        next
    }

    fn spend(&self, now: Mono) {
        let mut line = self.lock();
        line.pace.spend(1, now);
        self.set_closed(&mut line, now);
    }

    fn set_closed(&self, line: &mut Line, now: Mono) {
        let until = if line.waiting.is_empty() { (now + line.pace.wait(now)).0 } else { CLOSED };
        self.closed_until.store(until, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Asks those whose turn has come.
    pub(crate) fn ask_deferred(&self) {
        let now = self.now().mono;
        while let Some(slot) = self.admission.resyncs.next(now) {
            if self.permit_full_state(&slot) {
                self.admission.resyncs.spend(now);
            }
        }
    }

    /// Lets a session ask for full state; false if that is not needed any more, or the agent is not there.
    fn permit_full_state(&self, slot: &Arc<Slot>) -> bool {
        let mut inner = slot.lock();
        let there = inner.session.liveness() != Liveness::Disconnected && !inner.forgotten;
        if !inner.session.permit_full_state(there) {
            return false;
        }
        if matches!(inner.owner, Owner::Socket(_))
            && inner.mark_woken()
            && let Owner::Socket(connection) = &inner.owner
        {
            connection.wake(slot);
        }
        true
    }
}
