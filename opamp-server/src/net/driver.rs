//! The sweeps: one timer for the whole server instead of one per connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_proto::{Mono, Now};
use tokio::time::MissedTickBehavior;

use super::core::Core;
use super::directory::{Owner, Slot};
use crate::session::Input;
use crate::snapshot::Liveness;

/// While agents wait to be asked for full state, their turns are looked at this often, so that they do not come in gusts.
const DEFERRED_STEP: Duration = Duration::from_millis(20);

/// So many are looked at before others get their turn.
const LOOKED_AT_ONCE: usize = 64;

/// Configurations that nobody reports any more go with every so many sweeps: all are looked at for that.
const SWEEPS_OF_CONFIGS: u32 = 8;

/// Looks at every deadline once per `sweep_interval`. Spawn [`Driver::run`].
#[derive(Debug)]
#[must_use = "without its driver a server notices no staleness and no dead peer"]
pub struct Driver(pub(crate) Arc<Core>);

impl Driver {
    /// Runs until the server has drained.
    pub async fn run(self) {
        let period = self.0.settings.sweep_period();
        let mut interval = tokio::time::interval(period);
        let mut sweeps = 0_u32;
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deferred = self.0.admission.resyncs.is_anybody_waiting();
            tokio::select! {
                _ = interval.tick() => {
                    self.0.sweep().await;
                    sweeps = sweeps.wrapping_add(1);
                    if sweeps.is_multiple_of(SWEEPS_OF_CONFIGS) {
                        self.0.configs.sweep();
                    }
                }
                () = tokio::time::sleep(DEFERRED_STEP.min(period)), if deferred => self.0.ask_deferred(),
                () = self.0.drained.cancelled() => break,
            }
        }
    }
}

impl Core {
    /// One look at the deadlines of all connections and agents that may have passed. Others are served in between: a large fleet
    /// takes longer than anybody should wait for an answer.
    async fn sweep(&self) {
        let now = self.now();
        let connections = self.connections.shards_due(now.mono, |connection| {
            if let Some(slow) = connection.sweep(now.mono, &self.settings) {
                self.admission.counters.slow(slow);
            }
            connection.next_look(now.mono, &self.settings)
        });
        let agents = self.directory.shards_due(now.mono, |slot| self.sweep_agent(slot, now));
        let mut looked_at = 0;
        for due in connections.chain(agents) {
            looked_at += due;
            if looked_at >= LOOKED_AT_ONCE {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
        // Where a sweep takes longer than its period the next one is always due first.
        self.ask_deferred();
    }

    /// Looks at one agent; says when to look again.
    fn sweep_agent(&self, slot: &Arc<Slot>, now: Now) -> Mono {
        let settings = &self.settings;
        let mut inner = slot.lock();
        let nobody_listens = !self.events_taken.load(Ordering::Relaxed);
        if inner.session.is_forgettable(now.wall, settings.forget_after, nobody_listens) {
            inner.forgotten = true;
            self.no_longer_expected(&mut inner);
            let uids = [Some(inner.session.uid()), inner.session.assigned_uid()];
            drop(inner);
            uids.into_iter().flatten().for_each(|uid| self.directory.remove(&uid, slot));
            return now.mono;
        }
        let deadline = inner.session.deadline(&settings.session);
        if deadline.is_none_or(|deadline| deadline > now.mono) {
            // Whatever the agent says or does meanwhile, it has this long. One that is gone is forgotten by the clock on the
            // wall, which may jump, and once nothing is desired of it.
            let patience = settings.session.websocket_stale_after.min(settings.session.http_stale_min);
            let patience = patience.min(settings.forget_after);
            let gone = inner.session.liveness() == Liveness::Disconnected;
            let again = if gone { now.mono } else { now.mono + patience };
            return deadline.map_or(again, |deadline| deadline.min(again));
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
        now.mono
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
        core.sweep().await;
        assert_eq!(waiting(), 1, "its turn has not come");
        tokio::time::advance(Duration::from_secs(1)).await;
        core.sweep().await;
        assert_eq!(waiting(), 0);
    }
}
