//! The sweeps: one timer for the whole server instead of one per connection.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opamp_proto::{Mono, Now};
use tokio::time::Instant;

use super::core::Core;
use super::directory::{Owner, SHARDS, Slot};
use crate::session::Input;
use crate::snapshot::Liveness;

/// While agents wait to be asked for full state, their turns are looked at this often, so that they do not come in gusts.
const DEFERRED_STEP: Duration = Duration::from_millis(20);

/// A sweep of many connections is spread over its period, in at most so many steps of some shards each: those that came together
/// are not all pinged at once.
const STEPS_MAX: usize = SHARDS;

/// Connections that are worth a step.
const CONNECTIONS_A_STEP: u64 = 32;

/// So many are looked at before others get their turn.
const LOOKED_AT_ONCE: usize = 64;

/// Configurations that nobody reports any more go with every so many sweeps: all are looked at for that.
const SWEEPS_OF_CONFIGS: u32 = 8;

/// Looks at the deadlines that may have passed, at each once per `sweep_interval`. Spawn [`Driver::run`].
#[derive(Debug)]
#[must_use = "without its driver a server notices no staleness and no dead peer"]
pub struct Driver(pub(crate) Arc<Core>);

impl Driver {
    /// Runs until the server has drained.
    pub async fn run(self) {
        let core = &*self.0;
        let period = core.settings.sweep_period();
        let (mut next, mut step, mut steps, mut sweeps) = (Instant::now(), 0, 1, 0_u32);
        loop {
            let deferred = core.admission.resyncs.is_anybody_waiting();
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    core.sweep(step * SHARDS / steps..(step + 1) * SHARDS / steps).await;
                    step += 1;
                    if step == steps {
                        (step, steps, sweeps) = (0, core.sweep_steps(), sweeps.wrapping_add(1));
                        if sweeps.is_multiple_of(SWEEPS_OF_CONFIGS) {
                            core.configs.sweep();
                        }
                    }
                    next = (next + period.div_f64(steps as f64)).max(Instant::now());
                }
                () = tokio::time::sleep(DEFERRED_STEP.min(period)), if deferred => core.ask_deferred(),
                () = core.drained.cancelled() => break,
            }
        }
    }
}

impl Core {
    fn sweep_steps(&self) -> usize {
        let steps = self.counters.websocket_active() / CONNECTIONS_A_STEP;
        usize::try_from(steps).unwrap_or(STEPS_MAX).clamp(1, STEPS_MAX)
    }

    /// One look at the deadlines that may have passed, of the connections and agents in some shards. Others are served in
    /// between: a large fleet takes longer than anybody should wait for an answer.
    async fn sweep(&self, shards: Range<usize>) {
        let mut looked_at = 0;
        for shard in shards {
            let now = self.now();
            looked_at += self.connections.look(shard, now.mono, |connection| {
                if let Some(slow) = connection.sweep(now.mono, &self.settings) {
                    self.admission.counters.slow(slow);
                }
                connection.next_look(now.mono, &self.settings)
            });
            looked_at += self.directory.look(shard, now.mono, |slot| self.sweep_agent(slot, now));
            // Where a sweep takes longer than its period the next one is always due first.
            if self.admission.resyncs.is_anybody_waiting() {
                self.ask_deferred();
            }
            if looked_at >= LOOKED_AT_ONCE {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
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
            // Whatever the agent says or does meanwhile, it has this long; but for a jump of the clock on the wall, by which those
            // who are gone are forgotten. That may come at any sweep, once nothing is desired of them.
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
    use std::sync::Mutex;

    use http::HeaderMap;
    use opamp_proto::{AgentMessage, InstanceUid, Wall, pb};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::clock::{Clock, TokioClock};
    use crate::net::connection::Connection;
    use crate::net::core::Sender;
    use crate::net::presented::Presented;
    use crate::net::settings::ServerSettings;
    use crate::snapshot::{Principal, Transport};

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
        core.sweep(0..SHARDS).await;
        assert_eq!(waiting(), 1, "its turn has not come");
        tokio::time::advance(Duration::from_secs(1)).await;
        core.sweep(0..SHARDS).await;
        assert_eq!(waiting(), 0);
    }

    #[derive(Clone, Debug)]
    enum Happening {
        /// One of three agents says something, on a socket or by polling.
        Says { agent: u8, socket: bool },
        /// It says good-bye.
        Leaves { agent: u8 },
        /// So many seconds pass, with a sweep at the end of each.
        Passes(u16),
    }

    fn happenings() -> impl Strategy<Value = Vec<Happening>> {
        let happening = prop_oneof![
            4 => (1..=3_u8, any::<bool>()).prop_map(|(agent, socket)| Happening::Says { agent, socket }),
            1 => (1..=3_u8).prop_map(|agent| Happening::Leaves { agent }),
            4 => (0..40_u16).prop_map(Happening::Passes),
        ];
        prop::collection::vec(happening, 1..30)
    }

    #[derive(Debug, Default)]
    struct SetClock(Mutex<Now>);

    impl Clock for SetClock {
        fn now(&self) -> Now {
            *self.0.lock().unwrap()
        }
    }

    proptest! {
        /// Agents that have time are passed over, and still none is ever late.
        #[test]
        fn after_a_sweep_no_agent_has_anything_due(
            happenings in happenings(),
            stale_s in 1..30_u64,
            polled_stale_s in 1..30_u64,
            forget_s in 1..90_u64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut settings = ServerSettings {
                    forget_after: Duration::from_secs(forget_s),
                    ..ServerSettings::default()
                };
                settings.session.websocket_stale_after = Duration::from_secs(stale_s);
                settings.session.http_stale_min = Duration::from_secs(polled_stale_s);
                let clock = Arc::new(SetClock::default());
                clock.0.lock().unwrap().wall = Wall(1_000_000);
                let builder = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).settings(settings);
                let (service, ..) = builder.clock(Arc::clone(&clock) as Arc<dyn Clock>).build();
                let core = service.0;
                for (number, happening) in (1..).zip(&happenings) {
                    match happening {
                        Happening::Says { agent, socket } => say(&core, *agent, number, *socket, false),
                        Happening::Leaves { agent } => say(&core, *agent, number, false, true),
                        Happening::Passes(secs) => for _ in 0..*secs {
                            {
                                let now = &mut *clock.0.lock().unwrap();
                                (now.mono.0, now.wall.0) = (now.mono.0 + 1_000, now.wall.0 + 1_000);
                            }
                            core.sweep(0..SHARDS).await;
                            nothing_is_due(&core);
                        }
                    }
                }
            });
        }
    }

    fn say(core: &Arc<Core>, agent: u8, sequence_num: u64, socket: bool, good_bye: bool) {
        let message = pb::AgentToServer {
            instance_uid: vec![agent; 16].into(),
            sequence_num,
            agent_disconnect: good_bye.then(pb::AgentDisconnect::default),
            ..Default::default()
        };
        let bytes = message.encode_to_vec();
        let message = AgentMessage::decode(&bytes, &core.limits).unwrap();
        let (principal, headers, now) = (Principal::anonymous(), HeaderMap::new(), core.now());
        let info = core.next_connection(Transport::WebSocket, principal.clone(), None, now);
        let connection = Arc::new(Connection::new(info, Presented::default(), now.mono));
        let sender = if socket {
            Sender::Socket(&connection)
        } else {
            Sender::Polling { principal: &principal, remote_addr: None, headers: &headers, peer: None }
        };
        let mut out = core.outbox();
        // Whose identity it is may be in doubt; then nothing is heard.
        let _ = core.receive(&message, sender, None, None, now, &mut out);
    }

    fn nothing_is_due(core: &Core) {
        let now = core.now();
        core.directory.for_each(|slot| {
            let session = &slot.lock().session;
            let deadline = session.deadline(&core.settings.session);
            assert!(deadline.is_none_or(|deadline| deadline > now.mono), "{deadline:?} at {now:?}");
            assert!(!session.is_forgettable(now.wall, core.settings.forget_after, true));
        });
    }
}
