//! Batches to the store, and what follows from their answers.

use std::sync::Arc;

use opamp_fleet::rollout::commit::{Batch, BatchKey, CommitOutcome, Next};
use opamp_fleet::rollout::{Act, FleetEvent, FleetFact, RolloutId, Write};
use opamp_proto::Mono;

use super::Leader;

/// What a leader wants done after it was pumped.
#[derive(Debug, Default)]
pub(in crate::sim) struct Wanted {
    /// Batches for the store.
    pub(in crate::sim) batches: Vec<Arc<Batch>>,
    /// Writes that belong to no rollout.
    pub(in crate::sim) shared: Vec<Write>,
    /// Acts whose batch is committed.
    pub(in crate::sim) acts: Vec<(RolloutId, Act)>,
    /// It gives up.
    pub(in crate::sim) steps_down: bool,
    /// Rollouts whose batch was refused as invalid.
    pub(in crate::sim) poisoned: Vec<RolloutId>,
}

impl Leader {
    /// Whether engines may be told more: no committer is full.
    pub(in crate::sim) fn has_room(&self) -> bool {
        self.committers.values().all(|committer| committer.has_room())
    }

    /// How much a rollout wants written that was not handed on.
    pub(in crate::sim) fn wanted(&mut self, rollout: RolloutId) -> usize {
        let effects = self.effects.of(rollout);
        effects.entries().len() + effects.writes().len()
    }

    /// Hands what the engines want to the committers, and says what is to be done.
    pub(in crate::sim) fn pump(&mut self, mono: Mono) -> Wanted {
        let now = self.time(mono);
        let mut wanted = Wanted::default();
        for (id, effects) in self.effects.iter_mut() {
            let Some(committer) = self.committers.get_mut(&id) else { continue };
            committer.add(effects, now);
            let snapshot = committer
                .wants_snapshot()
                .and_then(|touched| self.rollouts.engine(id).map(|engine| engine.snapshot_of(touched)));
            if let Some(snapshot) = snapshot {
                committer.add_snapshot(snapshot);
            }
        }
        let (writes, acts) = self.effects.take_shared();
        self.shared.extend(writes);
        // What belongs to no rollout has no committer: such acts are alerts, which may be lost, and hints at what was assigned,
        // which the world gives when it is written.
        drop(acts);
        if self.shared_asked == 0 && !self.shared.is_empty() {
            self.shared_asked = self.shared.len();
            wanted.shared.clone_from(&self.shared);
        }
        self.poll(mono, &mut wanted);
        self.tell_degraded(mono);
        wanted
    }

    fn poll(&mut self, mono: Mono, wanted: &mut Wanted) {
        let now = self.time(mono);
        let mut wait = None;
        let mut drop_engines = Vec::new();
        for (id, committer) in &mut self.committers {
            loop {
                match committer.poll(now) {
                    Next::Act(acts) => {
                        wanted.acts.extend(acts.into_iter().map(|act| (*id, act)));
                        continue;
                    }
                    Next::Commit(batch) => wanted.batches.push(batch),
                    Next::Drop => drop_engines.push(*id),
                    Next::Idle => {}
                    Next::Poisoned => wanted.poisoned.push(*id),
                    Next::StepDown => wanted.steps_down = true,
                    Next::Wait(at) => wait = Some(wait.map_or(at, |known| at.min(known))),
                }
                break;
            }
        }
        self.rebuild.extend(drop_engines);
        self.wait = wait.filter(|at| *at > now).or(wait.map(|_| now + std::time::Duration::from_millis(1)));
    }

    /// Engines are told when no commit has succeeded for long, and when that is over.
    fn tell_degraded(&mut self, mono: Mono) {
        let now = self.time(mono);
        let degraded: Vec<(RolloutId, bool)> =
            self.committers.iter().map(|(id, committer)| (*id, committer.is_degraded(now))).collect();
        for (id, is_degraded) in degraded {
            let changed = if is_degraded { self.degraded.insert(id) } else { self.degraded.remove(&id) };
            if changed {
                let fact = FleetFact::StoreDegraded(is_degraded);
                self.give(FleetEvent::Fleet { rollout: Some(id), fact }, now);
            }
        }
    }

    /// The store has answered.
    pub(in crate::sim) fn answered(&mut self, key: BatchKey, outcome: CommitOutcome, mono: Mono) {
        let now = self.time(mono);
        let Some(committer) = self.committers.get_mut(&key.rollout) else { return };
        committer.answered(key, outcome, now);
        let serial = committer.serial();
        self.rollouts.committed(key.rollout, serial);
    }

    /// The store has answered what belongs to no rollout.
    pub(in crate::sim) fn answered_shared(&mut self, written: bool) {
        if written {
            self.shared.drain(..self.shared_asked.min(self.shared.len()));
        }
        self.shared_asked = 0;
    }
}
