//! The manager's loop: events in, batches out, and what time brings.

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{Mono, Now};
use opamp_server::{Event, Events};
use opamp_store::Checkpoint;
use tokio::sync::watch;

use super::Inner;
use super::error::StoreFailure;
use super::observe::FIRST_SEEN;

/// Events taken in before others who change records get their turn.
const EVENTS_AT_ONCE: usize = 256;

/// Events taken in before the rest of the process gets its turn: a store in memory answers at once.
const EVENTS_IN_A_ROW: usize = 32;

/// Positions of conversations in memory at once while they are stored.
const POSITIONS_AT_ONCE: usize = 4_096;

/// Agents that expire in one step.
const EXPIRED_AT_ONCE: usize = 4_096;

/// Keeps records, inventory and store in line with what agents report. Spawn [`ManagerDriver::run`].
#[derive(Debug)]
#[must_use = "without its driver a manager takes no note of any agent"]
pub struct ManagerDriver {
    pub(super) inner: Arc<Inner>,
    pub(super) events: Events,
    pub(super) stop: watch::Receiver<bool>,
    /// Dropped when the driver has ended.
    pub(super) running: watch::Sender<bool>,
}

/// When the regular duties are due next.
#[derive(Debug)]
struct Duties {
    checkpoint: Mono,
    sweep: Mono,
    blob_sweep: Mono,
}

impl ManagerDriver {
    /// Runs until [`shutdown`](super::FleetManager::shutdown). Then, and also when the server's events end and
    /// shutdown follows, everything that waits is written.
    pub async fn run(mut self) {
        self.running.send_replace(true);
        let mut duties = Duties::after(self.inner.now(), &self.inner);
        let mut events_end = false;
        let mut next_look = self.inner.now().mono;
        while !*self.stop.borrow() {
            let wait = self.inner.wait(&duties);
            tokio::select! {
                biased;
                _ = self.stop.changed() => {}
                event = self.events.next(), if !events_end => match event {
                    Some(event) => {
                        self.gather(next_look).await;
                        let (more, _) = self.take_in(event).await;
                        let now = self.inner.now().mono;
                        next_look = if more { now } else { now + self.inner.settings.gather };
                    }
                    None => events_end = true,
                },
                () = self.inner.sooner.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.attend(&mut duties).await;
        }
        self.finish().await;
    }

    /// Lets more come together with an event that is here, unless something has no time.
    async fn gather(&mut self, until: Mono) {
        let wait = until - self.inner.now().mono;
        if !wait.is_zero() {
            tokio::select! {
                _ = self.stop.changed() => {}
                () = self.events.hurried() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes in an event, and those that are there already. Tells whether there were too many for one turn, and how many were
    /// of agents.
    async fn take_in(&mut self, first: Event) -> (bool, u64) {
        let _writer = self.inner.writer.lock().await;
        let mut agents = 0;
        let mut next = Some(first);
        for taken in 1..=EVENTS_AT_ONCE {
            let Some(event) = next.take() else { break };
            agents += u64::from(matches!(event, Event::Agent(_)));
            self.inner.observe(event).await;
            if taken.is_multiple_of(EVENTS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            next = self.events.try_next();
        }
        let more = next.is_some();
        if let Some(event) = next {
            agents += u64::from(matches!(event, Event::Agent(_)));
            self.inner.observe(event).await;
        }
        (more, agents)
    }

    /// Takes in everything that is there already. Agents that go on talking do not keep it from ending: each was in
    /// the queue at most once.
    async fn take_in_all(&mut self) {
        let mut queued = self.inner.server.stats().agents + 1;
        while queued > 0
            && let Some(event) = self.events.try_next()
        {
            queued = queued.saturating_sub(self.take_in(event).await.1);
        }
    }

    /// Does what is due.
    async fn attend(&mut self, duties: &mut Duties) {
        let inner = Arc::clone(&self.inner);
        let now = inner.now();
        if inner.missed_due(now.mono) {
            let _writer = inner.writer.lock().await;
            inner.catch_up().await;
        }
        if now.mono >= duties.sweep {
            duties.sweep = now.mono + inner.settings.sweep_interval;
            inner.sweep(now);
        }
        if inner.records_due(now.mono) {
            let _writer = inner.writer.lock().await;
            // A failure is logged, remembered for `ready`, and made up for at the next deadline.
            let _ = inner.write_records(false).await;
        }
        if inner.audit_due(now.mono) {
            let _writer = inner.writer.lock().await;
            let _ = inner.write_audit().await;
        }
        if now.mono >= duties.checkpoint {
            duties.checkpoint = now.mono + inner.settings.checkpoint_interval;
            self.checkpoint().await;
        }
        if now.mono >= duties.blob_sweep {
            duties.blob_sweep = now.mono + inner.settings.blob_sweep_interval;
            inner.sweep_blobs().await;
        }
    }

    /// Stores where the conversations stand, some thousand at a time: neighbours, which a store keeps together.
    async fn checkpoint(&mut self) {
        let server = self.inner.server.clone();
        let mut positions = Vec::new();
        for position in server.checkpoints() {
            positions.push(position);
            if positions.len() == POSITIONS_AT_ONCE {
                if self.store_positions(&positions).await.is_err() {
                    return; // Those of the others are asked for again.
                }
                positions.clear();
            }
        }
        // Also if there are none: earlier ones may wait.
        let _ = self.store_positions(&positions).await;
    }

    /// Once positions were read, everything said up to there is merged and written, and then the positions: a position must never
    /// be ahead of what it stands for. A failure is logged, and made up for by the next checkpoint.
    async fn store_positions(&mut self, positions: &[opamp_server::Checkpoint]) -> Result<(), StoreFailure> {
        self.take_in_all().await;
        let _writer = self.inner.writer.lock().await;
        self.inner.note_positions(positions);
        let written = self.inner.write_checkpoints().await;
        if let Err(error) = &written {
            tracing::warn!(%error, "checkpoints wait");
        }
        written
    }

    async fn finish(&mut self) {
        self.take_in_all().await;
        {
            let _writer = self.inner.writer.lock().await;
            self.inner.catch_up().await;
        }
        self.checkpoint().await;
        let _writer = self.inner.writer.lock().await;
        if let Err(error) = self.inner.write_audit().await {
            tracing::error!(%error, "audit entries are lost");
        }
    }
}

impl Duties {
    fn after(now: Now, inner: &Inner) -> Self {
        Self {
            checkpoint: now.mono + inner.settings.checkpoint_interval,
            sweep: now.mono + inner.settings.sweep_interval,
            blob_sweep: now.mono + inner.settings.blob_sweep_interval,
        }
    }

    fn next(&self) -> Mono {
        self.checkpoint.min(self.sweep).min(self.blob_sweep)
    }
}

impl Inner {
    /// How long the driver may sleep.
    fn wait(&self, duties: &Duties) -> Duration {
        let state = self.state();
        let missed = (!state.missed.is_empty()).then_some(state.missed_retry);
        let deadlines = [Some(duties.next()), state.unwritten.deadline(), state.audit.deadline(), missed];
        let next = deadlines.into_iter().flatten().min();
        drop(state);
        next.map_or(Duration::MAX, |next| next - self.now().mono)
    }

    fn missed_due(&self, now: Mono) -> bool {
        let state = self.state();
        !state.missed.is_empty() && state.missed_retry <= now
    }

    fn records_due(&self, now: Mono) -> bool {
        self.state().unwritten.deadline().is_some_and(|deadline| deadline <= now)
    }

    fn audit_due(&self, now: Mono) -> bool {
        self.state().audit.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Expires agents, and tells of audit entries that were left out.
    fn sweep(&self, now: Now) {
        let forgotten = self.state().forget_assigned();
        drop(forgotten);
        let mut state = self.state();
        let expired = state.index.sweep(now, EXPIRED_AT_ONCE).len();
        if expired > 0 {
            tracing::info!(expired, "agents did not return in time");
        }
        if let Some(folded) = state.throttle.drain(now.mono) {
            let entry = self.folded_entry("agent.refuse", now.wall, folded);
            state.audit.push(entry, now.mono);
        }
        if let Some(folded) = state.arrivals.drain(now.mono) {
            let entry = self.folded_entry(FIRST_SEEN, now.wall, folded);
            state.audit.push(entry, now.mono);
        }
    }

    /// Keeps positions until they are stored; all agents they are of have a record by now.
    fn note_positions(&self, positions: &[opamp_server::Checkpoint]) {
        let mut state = self.state();
        for position in positions {
            // One that changed its identity meanwhile has moved on, and is told of by that the next time.
            let Some(id) = state.index.by_uid(&position.uid) else { continue };
            if state.given_up.contains(&id) {
                continue;
            }
            let checkpoint =
                Checkpoint { id, sequence_num: position.sequence_num.0, last_seen: position.last_seen };
            state.checkpoints.insert(id, checkpoint);
        }
    }
}
