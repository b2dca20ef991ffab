//! Pause, abort, supersede, fail: what stops a rollout, and how it ends (R70).
//!
//! Ending early means: nothing new is offered, what is in flight settles, everybody keeps what they have.

use super::{Done, ENGINE, First, Live, needs};
use crate::faults::seeded;
use crate::rollout::engine::{Engine, Run};
use crate::rollout::gates::Evidence;
use crate::rollout::journal::{Entry, RolloutEntry};
use crate::rollout::{
    AlertKind, Audit, MemberIx, MemberState, PauseReason, Reason, RolloutState, Scope, Time, WaveIx,
    WaveState, Write, member,
};

impl Engine {
    pub(super) fn abort(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CANCEL))
            }
            Live::Running | Live::Paused | Live::Baking | Live::RollingBack => {
                self.wind_down(RolloutState::Aborted, Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Aborting => Ok(First::NothingToDo),
        }
    }

    pub(super) fn supersede(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                self.end(RolloutState::Superseded, Reason::Superseded, actor, run);
                Ok(First::Done)
            }
            Live::Aborting if self.state.ending == RolloutState::Superseded => Ok(First::NothingToDo),
            Live::Running | Live::Paused | Live::Baking | Live::Aborting => {
                self.wind_down(RolloutState::Superseded, Reason::Superseded, actor, run);
                Ok(First::Done)
            }
            Live::RollingBack => Err(live.refuses(needs::WAITS_FOR_ROLLBACK)),
        }
    }

    /// An entry about the rollout's state with nothing but the state.
    pub(crate) fn entry(&self, to: RolloutState, reason: Reason, actor: &str, at: Time) -> RolloutEntry {
        RolloutEntry {
            to,
            reason,
            pause: None,
            from: None,
            ending: None,
            scope: None,
            plan: None,
            actor: actor.into(),
            evidence: None,
            at,
        }
    }

    /// Records a change of the rollout's state, and who made it why (R7).
    pub(crate) fn enter(&mut self, entry: RolloutEntry, run: &mut Run<'_>) {
        let audit = Audit {
            rollout: self.plan.id,
            at: run.now,
            actor: entry.actor.clone(),
            reason: entry.reason.as_str().into(),
            before: self.state.state.as_str().into(),
            after: entry.to.as_str().into(),
            evidence: entry.evidence.clone(),
        };
        if self.record(Entry::Rollout(Box::new(entry)), run) {
            run.out.writes.push(Write::Audit(Box::new(audit)));
        }
    }

    pub(crate) fn transition(&mut self, to: RolloutState, reason: Reason, actor: &str, run: &mut Run<'_>) {
        let entry = self.entry(to, reason, actor, run.now);
        self.enter(entry, run);
    }

    /// A pause that returns to where the rollout is now, or to where an earlier pause would have.
    pub(crate) fn pausing(&self, pause: PauseReason, reason: Reason, actor: &str, at: Time) -> RolloutEntry {
        let is_paused = self.state.state == RolloutState::Paused;
        let from = if is_paused { self.state.from } else { self.state.state };
        let entry = self.entry(RolloutState::Paused, reason, actor, at);
        RolloutEntry { pause: Some(pause), from: Some(from), ..entry }
    }

    /// The engine pauses by itself.
    pub(crate) fn pause(
        &mut self,
        pause: PauseReason,
        reason: Reason,
        evidence: Option<Evidence>,
        run: &mut Run<'_>,
    ) {
        let line = evidence.as_ref().map_or_else(|| reason.to_string(), ToString::to_string);
        let entry = self.pausing(pause, reason, ENGINE, run.now);
        self.pause_with(RolloutEntry { evidence, ..entry }, run);
        self.alert(AlertKind::Paused, self.state.current(), &line, run);
    }

    pub(crate) fn pause_with(&mut self, entry: RolloutEntry, run: &mut Run<'_>) {
        self.enter(entry, run);
        self.stop_countdowns(run);
    }

    /// An entry that begins to end the rollout early.
    pub(crate) fn winding_down(
        &self,
        ending: RolloutState,
        reason: Reason,
        actor: &str,
        at: Time,
    ) -> RolloutEntry {
        RolloutEntry { ending: Some(ending), ..self.entry(RolloutState::Aborting, reason, actor, at) }
    }

    /// Ends the rollout early: it is what `ending` says as soon as nothing is in flight.
    pub(crate) fn wind_down(&mut self, ending: RolloutState, reason: Reason, actor: &str, run: &mut Run<'_>) {
        let entry = self.winding_down(ending, reason, actor, run.now);
        self.stop_with(entry, run);
    }

    pub(crate) fn stop_with(&mut self, entry: RolloutEntry, run: &mut Run<'_>) {
        self.enter(entry, run);
        self.fail_waves(run);
        self.volatile.scanned = 0;
    }

    /// Waves that are not over end with the rollout.
    pub(crate) fn fail_waves(&mut self, run: &mut Run<'_>) {
        self.stop_countdowns(run);
        for at in 0..self.state.waves.len() {
            let ix = WaveIx(at as u16);
            match self.state.wave(ix).state {
                WaveState::Pending => self.set_wave(ix, WaveState::Skipped, Reason::RolloutEnded, run),
                WaveState::Waiting
                | WaveState::Dispatching
                | WaveState::Settling
                | WaveState::Soaking
                | WaveState::Evaluating
                | WaveState::Held => self.set_wave(ix, WaveState::Failed, Reason::RolloutEnded, run),
                WaveState::Passed | WaveState::Failed | WaveState::Skipped => {}
            }
        }
    }

    /// One step of the end: who backs off or waits to go back is told, then what is in flight is waited for.
    pub(crate) fn wind_down_step(&mut self, run: &mut Run<'_>) -> bool {
        let stopped = [MemberState::Backoff, MemberState::RollbackQueued];
        let any = |engine: &Self| stopped.iter().any(|state| engine.state.members_in(*state) > 0);
        if any(self) {
            self.stop_members(&stopped, run);
        }
        // What became known meanwhile may have led elsewhere.
        if self.state.state != RolloutState::Aborting {
            return true;
        }
        if any(self) || self.state.in_flight() > 0 {
            return false;
        }
        self.end(self.state.ending, Reason::NothingInFlight, ENGINE, run);
        true
    }

    fn stop_members(&mut self, stopped: &[MemberState], run: &mut Run<'_>) {
        while self.state.state == RolloutState::Aborting
            && (self.volatile.scanned as usize) < self.state.members.len()
        {
            let ix = MemberIx(self.volatile.scanned);
            if stopped.contains(&self.state.members.row(ix).state) {
                if !self.may_offer_more() {
                    return;
                }
                self.count_offer();
                let step = member::on_stop(self.state.members.row(ix), &self.around(ix, run.now));
                self.step(ix, step, run);
            }
            self.volatile.scanned += 1;
        }
        // Who came to back off behind the cursor is found by the next round.
        self.volatile.scanned = 0;
    }

    /// The rollout is over. Its locks are free; what members may have to go back to stays pinned unless all is well.
    pub(crate) fn end(&mut self, to: RolloutState, reason: Reason, actor: &str, run: &mut Run<'_>) {
        debug_assert!(to.is_terminal(), "{to} is no end");
        let has_run = Live::of(self.state.state).is_some_and(|live| {
            matches!(live, Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack)
        });
        // Whom a rollback left alone, and who keeps what the rollout brought, is known by its scope.
        let entry = RolloutEntry { scope: self.state.scope, ..self.entry(to, reason, actor, run.now) };
        self.enter(entry, run);
        run.shared.finish(self.plan.id);
        let is_well = matches!(to, RolloutState::Succeeded | RolloutState::RolledBack);
        if has_run && (is_well || to == RolloutState::Aborted && seeded!(self.faults, PinDropped)) {
            run.out.writes.push(Write::Unpin { rollout: self.plan.id });
        }
        if to == RolloutState::Succeeded {
            self.known_good(None, run);
        }
        if let (RolloutState::Succeeded, Some(group)) = (to, self.plan.group) {
            let (slot, config, rollout) = (self.plan.slot, self.plan.target, self.plan.id);
            run.out.writes.push(Write::GroupDesired { group, slot, config, rollout });
        }
        // Before it has run that is an operator's doing, or somebody should know.
        let is_unasked = matches!(reason, Reason::PlanUnusable | Reason::Recalled | Reason::TimeOver);
        if !is_well && (has_run || is_unasked) {
            self.alert(AlertKind::Ended, None, to.as_str(), run);
        }
    }

    /// The configuration was recalled (R57): nobody gets it any more, and whoever has it goes back if the settings say so.
    pub(crate) fn recalled(&mut self, run: &mut Run<'_>) {
        let Some(live) = Live::of(self.state.state) else { return };
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                self.end(RolloutState::Rejected, Reason::Recalled, ENGINE, run);
            }
            Live::Running | Live::Paused | Live::Baking if self.plan.settings.recall_rolls_back => {
                self.roll_back(Scope::All, Reason::Recalled, ENGINE, None, run);
            }
            Live::Running | Live::Paused | Live::Baking => {
                self.wind_down(RolloutState::Aborted, Reason::Recalled, ENGINE, run);
            }
            Live::Aborting | Live::RollingBack => {}
        }
    }
}
