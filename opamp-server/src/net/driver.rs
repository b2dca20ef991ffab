//! The sweeps: one timer for the whole server instead of one per connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use opamp_proto::Now;
use tokio::time::MissedTickBehavior;

use super::core::Core;
use super::directory::{Owner, Slot};
use crate::session::Input;
use crate::snapshot::Liveness;

/// Looks at every deadline once per `sweep_interval`. Spawn [`Driver::run`].
#[derive(Debug)]
#[must_use = "without its driver a server notices no staleness and no dead peer"]
pub struct Driver(pub(crate) Arc<Core>);

impl Driver {
    /// Runs until the server has drained.
    pub async fn run(self) {
        let period = self.0.settings.sweep_period();
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => self.0.sweep(),
                () = self.0.drained.cancelled() => break,
            }
        }
    }
}

impl Core {
    /// One look at the deadlines of all connections and agents.
    fn sweep(&self) {
        let now = self.now();
        for connection in self.lock_connections().values() {
            connection.sweep(now.mono, &self.settings);
        }
        self.directory.for_each(|slot| self.sweep_agent(slot, now));
    }

    fn sweep_agent(&self, slot: &Arc<Slot>, now: Now) {
        let mut inner = slot.lock();
        let nobody_listens = !self.events_taken.load(Ordering::Relaxed);
        if inner.session.is_forgettable(now.wall, self.settings.forget_after, nobody_listens) {
            inner.forgotten = true;
            let uids = [Some(inner.session.uid()), inner.session.assigned_uid()];
            drop(inner);
            uids.into_iter().flatten().for_each(|uid| self.directory.remove(&uid, slot));
            return;
        }
        if inner.session.deadline(&self.settings.session).is_none_or(|deadline| deadline > now.mono) {
            return;
        }
        let mut out = self.outbox();
        let handled = inner.session.handle(Input::Tick, now, &mut out);
        debug_assert!(handled.is_ok(), "only messages are refused");
        if inner.session.liveness() == Liveness::Disconnected {
            inner.own(Owner::Nobody);
        }
        self.counters.effects(out.effects());
        self.note_change(slot, &inner.session);
        drop(inner);
        self.reuse(out);
    }
}
