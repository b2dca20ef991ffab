//! The sweeps: one timer for the whole server instead of one per connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_proto::Now;
use tokio::time::MissedTickBehavior;

use super::core::Core;
use super::directory::{Owner, Slot};
use crate::session::Input;
use crate::snapshot::Liveness;

/// While agents wait to be asked for full state, their turns are looked at this often, so that they do not come in gusts.
const DEFERRED_STEP: Duration = Duration::from_millis(20);

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
            let deferred = self.0.admission.resyncs.is_anybody_waiting();
            tokio::select! {
                _ = interval.tick() => self.0.sweep(),
                () = tokio::time::sleep(DEFERRED_STEP.min(period)), if deferred => self.0.ask_deferred(),
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
            if let Some(slow) = connection.sweep(now.mono, &self.settings) {
                self.admission.counters.slow(slow);
            }
        }
        self.directory.for_each(|slot| self.sweep_agent(slot, now));
        self.configs.sweep();
        // Where a sweep takes longer than its period the next one is always due first.
        self.ask_deferred();
    }

    fn sweep_agent(&self, slot: &Arc<Slot>, now: Now) {
        let mut inner = slot.lock();
        let nobody_listens = !self.events_taken.load(Ordering::Relaxed);
        if inner.session.is_forgettable(now.wall, self.settings.forget_after, nobody_listens) {
            inner.forgotten = true;
            self.no_longer_expected(&mut inner);
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

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use opamp_proto::{AgentMessage, InstanceUid, Wall};

    use super::*;
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::clock::TokioClock;
    use crate::net::core::Sender;
    use crate::net::settings::ServerSettings;
    use crate::snapshot::Principal;

    /// Sweeps that take longer than their period leave no time between them.
    #[tokio::test(start_paused = true)]
    async fn a_sweep_asks_those_whose_turn_for_full_state_has_come() {
        let settings = ServerSettings { resync_rate: 1, resync_burst: 1, ..ServerSettings::default() };
        let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings);
        let (service, handle, _driver) = builder.clock(Arc::new(TokioClock::starting_at(Wall(0)))).build();
        let core = service.0;
        let principal = Principal::anonymous();
        let headers = HeaderMap::new();
        for number in 1..=2u8 {
            let uid = InstanceUid::from_bytes([number; 16]);
            // instance_uid, sequence_num, capabilities
            let bytes = [&[0x0a, 16][..], uid.as_bytes(), &[0x10, 1, 0x20, 0x7f]].concat();
            let message = AgentMessage::decode(&bytes, &core.limits).unwrap();
            let sender =
                Sender::Polling { principal: &principal, remote_addr: None, headers: &headers, peer: None };
            let mut out = core.outbox();
            core.receive(&message, sender, None, None, core.now(), &mut out).unwrap();
        }
        let waiting = || handle.stats().admission.resyncs_waiting;
        assert_eq!(waiting(), 1);
        core.sweep();
        assert_eq!(waiting(), 1, "its turn has not come");
        tokio::time::advance(Duration::from_secs(1)).await;
        core.sweep();
        assert_eq!(waiting(), 0);
    }
}
