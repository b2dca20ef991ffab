//! What becomes of single agents on their way to the steady state of their group.

use opamp_proto::{AgentId, Fingerprint};

use super::{AgentSlot, GroupSlot, Placed, Run, Stage, Steady, Tracked, alert};
use crate::coordinator::{Claim, ClaimKind, Denied};
use crate::faults::seeded;
use crate::rollout::steady::{DriftAction, DriftClass};
use crate::rollout::{Act, AlertKind, GroupIx, OfferKey, Outcome, Reason, RolloutId, Time, Write};

impl Steady {
    /// Claims and assigns one agent of a group's queue.
    pub(super) fn assign(
        &mut self,
        (group, slot): GroupSlot,
        agent: AgentId,
        run: &mut Run<'_>,
    ) -> Result<(), Denied> {
        let key = (agent, slot);
        let Some(desired) = self.groups.get_mut(&(group, slot)) else { return Ok(()) };
        let Some(tracked) = self.agents.get_mut(&key) else {
            desired.queue.remove(&agent);
            return Ok(());
        };
        let rollout = desired.rollout;
        let claim = Claim {
            rollout,
            agent: &agent,
            slot,
            group: Some(group),
            zone: tracked.zone.as_deref(),
            kind: ClaimKind::Reassert,
            limits: &self.settings.limits,
        };
        run.shared.claim(&claim, desired.config, run.now)?;
        tracked.rollout = rollout;
        let offer = OfferKey { rollout, agent, offer: tracked.offer };
        let (config, over) = (desired.config, tracked.over);
        run.out.writes.push(Write::Assign { key: offer, slot, config, over });
        run.out.acts.push(Act::Hint { agent });
        desired.queue.remove(&agent);
        desired.in_flight += 1;
        let until = run.now + self.settings.settle_within;
        tracked.stage = Stage::Assigned { until, here: true };
        tracked.offer = tracked.offer.saturating_add(1);
        self.timers.insert((until, key));
        Ok(())
    }

    /// The agent is where it should be, or no business of its group: nothing is followed any more.
    pub(super) fn forget(&mut self, key: AgentSlot, outcome: Outcome, run: &mut Run<'_>) {
        self.leave_stage(key, outcome, run);
        self.agents.remove(&key);
    }

    /// The agent is at this stage from now on.
    pub(super) fn track(
        &mut self,
        placed: &Placed<'_>,
        group: GroupIx,
        rollout: RolloutId,
        stage: Stage,
        run: &mut Run<'_>,
    ) {
        let key = (*placed.agent, placed.slot);
        let before = self.agents.get(&key).map(|tracked| tracked.stage);
        if before.is_none() && self.agents.len() >= Self::AGENTS_MAX {
            return;
        }
        let is_new = before != Some(stage);
        if is_new {
            let outcome = if stage == Stage::Failed { Outcome::Bad } else { Outcome::Neutral };
            self.leave_stage(key, outcome, run);
            if matches!(stage, Stage::Assigned { .. }) {
                self.take_in(placed, group, rollout, run);
            }
            self.enter_stage((group, placed.slot), key, stage);
        }
        // An assignment that is under way keeps its name: it is settled by that.
        if is_new || !matches!(stage, Stage::Assigned { .. }) {
            let offer = self.agents.get(&key).map_or(0, |known| known.offer).max(self.next_offer(placed));
            let tracked = Tracked {
                group,
                zone: placed.zone.map(Into::into),
                connected: placed.connected,
                reports: placed.reports,
                stage,
                rollout,
                offer,
                recorded: placed.assigned,
                over: placed.offer,
            };
            self.agents.insert(key, tracked);
        }
    }

    /// What was assigned elsewhere and is under way is locked and counted like what is assigned here.
    fn take_in(&self, placed: &Placed<'_>, group: GroupIx, rollout: RolloutId, run: &mut Run<'_>) {
        if seeded!(self.faults, SteadyUnlocked) {
            return;
        }
        let claim = Claim {
            rollout,
            agent: placed.agent,
            slot: placed.slot,
            group: Some(group),
            zone: placed.zone,
            kind: ClaimKind::Reassert,
            limits: &self.settings.limits,
        };
        run.shared.take_in(&claim, placed.assigned_at.unwrap_or(run.now), run.now);
    }

    fn enter_stage(&mut self, group: GroupSlot, key: AgentSlot, stage: Stage) {
        let Some(desired) = self.groups.get_mut(&group) else { return };
        match stage {
            Stage::Assigned { until, .. } => {
                desired.in_flight += 1;
                self.timers.insert((until, key));
            }
            Stage::Queued => {
                desired.queue.insert(key.0);
                // A group that waits looks at all of its queue when its time has come.
                if desired.retry_at.is_none() {
                    self.changed.insert(group);
                }
            }
            Stage::Away | Stage::Drifted(_) | Stage::Failed | Stage::InRollout | Stage::Late => {}
        }
    }

    /// The agent is not at its stage any more: an assignment has this outcome, a place in the queue is given up.
    fn leave_stage(&mut self, key: AgentSlot, outcome: Outcome, run: &mut Run<'_>) {
        let Some(tracked) = self.agents.get(&key) else { return };
        let (group, rollout, stage) = ((tracked.group, key.1), tracked.rollout, tracked.stage);
        match stage {
            Stage::Assigned { until, .. } => {
                self.timers.remove(&(until, key));
                self.settle(group, rollout, key, outcome, run);
            }
            Stage::Queued => {
                if let Some(desired) = self.groups.get_mut(&group) {
                    desired.queue.remove(&key.0);
                }
            }
            Stage::Away | Stage::Drifted(_) | Stage::Failed | Stage::InRollout | Stage::Late => {}
        }
    }

    fn settle(
        &mut self,
        group: GroupSlot,
        rollout: RolloutId,
        key: AgentSlot,
        outcome: Outcome,
        run: &mut Run<'_>,
    ) {
        run.shared.settle(rollout, &key.0, key.1, outcome, run.now);
        if outcome == Outcome::Bad {
            run.shared.failure(rollout, &key.0, run.now, &mut run.out.writes);
        }
        let Some(desired) = self.groups.get_mut(&group) else { return };
        desired.in_flight = desired.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Well => desired.succeeded(self.settings.in_flight_max),
            Outcome::Bad => {
                if desired.failed() {
                    let text = format!("assignments of group {} stop: too many of them failed", group.0);
                    run.out.acts.push(alert(AlertKind::Gate, desired.rollout, run.now, text));
                }
            }
            Outcome::Neutral | Outcome::Open => {}
        }
        self.changed.insert(group);
    }

    /// An assignment took too long: the fault of an agent that could have said something, and nobody's of one that is not
    /// connected or never says anything. How others have assigned it is not known here, so that they are not blamed.
    pub(super) fn is_late(&mut self, key: AgentSlot, at: Time, run: &mut Run<'_>) {
        let Some(tracked) = self.agents.get(&key) else { return };
        let Stage::Assigned { until, here } = tracked.stage else { return };
        if until != at {
            return;
        }
        let is_to_blame = here && tracked.connected && tracked.reports;
        self.leave_stage(key, if is_to_blame { Outcome::Bad } else { Outcome::Neutral }, run);
        if let Some(tracked) = self.agents.get_mut(&key) {
            tracked.stage = Stage::Late;
        }
    }

    /// The stage of an agent whose record says what it should have, and which has not said how that went. One that was not
    /// assigned here was assigned before a restart, or by the rollout: lately, and then it is under way for the rest of its
    /// time, or long ago, and then it is waited for no more. One that another rollout holds, or has touched and is about to end,
    /// is that rollout's.
    pub(super) fn under_way(
        &self,
        placed: &Placed<'_>,
        (rollout, stage): (RolloutId, Option<Stage>),
        is_ending: bool,
        run: &Run<'_>,
    ) -> Stage {
        if let Some(stage @ (Stage::Assigned { .. } | Stage::Late)) = stage {
            return stage;
        }
        let holder = run.shared.holder(placed.agent, placed.slot);
        let is_held = is_ending || holder.is_some_and(|holder| holder != rollout);
        let until = placed.assigned_at.map(|at| at.min(run.now) + self.settings.settle_within);
        match until.filter(|until| *until > run.now && !is_held) {
            Some(until) => Stage::Assigned { until, here: false },
            None => Stage::Late,
        }
    }

    /// The stage of an agent that has left its configuration (R80).
    pub(super) fn drifted(
        &mut self,
        placed: &Placed<'_>,
        (rollout, stage): (RolloutId, Option<Stage>),
        run: &mut Run<'_>,
    ) -> Option<Stage> {
        if matches!(stage, Some(Stage::Assigned { .. } | Stage::InRollout | Stage::Queued)) {
            return stage;
        }
        let class = DriftClass::of(placed.runs, placed.previous, placed.runs_known);
        let drifted = Stage::Drifted(class);
        let is_new = stage != Some(drifted);
        let key = (*placed.agent, placed.slot);
        let settings = self.settings.drift;
        match settings.action(class) {
            DriftAction::Report => {}
            DriftAction::Alert if is_new => {
                let text = format!("agent {} has left its configuration: {class}", placed.agent);
                run.out.acts.push(alert(AlertKind::Drifted, rollout, run.now, text));
            }
            DriftAction::Alert => {}
            DriftAction::Reassert if !placed.connected || !placed.accepts => return Some(Stage::Away),
            DriftAction::Reassert if run.shared.quarantined(placed.agent, run.now).is_some() => {}
            DriftAction::Reassert if self.loops.may_reassert(key, &settings, run.now) => {
                return Some(Stage::Queued);
            }
            DriftAction::Reassert => quarantine(key, rollout, run),
        }
        Some(drifted)
    }

    /// Counts how often an agent changes that is not where it should be, or was not lately (R31).
    pub(super) fn look_for_loops(
        &mut self,
        key: AgentSlot,
        runs: Option<Fingerprint>,
        (config, rollout): (Fingerprint, RolloutId),
        run: &mut Run<'_>,
    ) {
        let Some(runs) = runs else { return };
        if (runs != config || self.loops.knows(key)) && self.loops.ran(key, runs, run.now) {
            quarantine(key, rollout, run);
        }
    }
}

fn quarantine(key: AgentSlot, rollout: RolloutId, run: &mut Run<'_>) {
    run.shared.quarantine(&key.0, Reason::Loop, run.now, &mut run.out.writes);
    let text = format!("agent {} goes back and forth between configurations", key.0);
    run.out.acts.push(alert(AlertKind::Quarantined, rollout, run.now, text));
}
