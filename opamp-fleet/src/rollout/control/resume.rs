//! Ways to go on after a pause or a hold.
//!
//! What a gate has stopped goes on only with a decision about that gate: retry, waive, raise or skip. An operator's pause
//! on top of it does not change that.

use super::{Done, ENGINE, First, Live, Resume, needs};
use crate::faults::seeded;
use crate::rollout::engine::{Engine, Outside, Run};
use crate::rollout::gates::{Evidence, GateCount, GateKind, Scopes, Verdict};
use crate::rollout::journal::{CountdownIx, Entry};
use crate::rollout::members::{Flags, Row};
use crate::rollout::stats::Ppm;
use crate::rollout::{
    Countdown, GateIx, MemberIx, MemberState, PauseReason, Reason, Refused, RolloutState, WaveIx, WaveState,
    member,
};

/// Who decides, and why, as long as they may be.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) actor: &'a str,
    pub(super) why: &'a str,
}

impl Engine {
    pub(super) fn resume(&mut self, live: Live, how: Resume, by: By<'_>, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::RUNNING))
            }
            Live::Running if self.held().is_some() => self.decide(live, how, by, run),
            Live::Running | Live::Baking => Ok(First::NothingToDo),
            Live::Paused => self.resume_paused(how, by, run),
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::ABORT_ENDS)),
        }
    }

    /// The wave that waits for a decision.
    pub(crate) fn held(&self) -> Option<WaveIx> {
        self.state.current().filter(|wave| self.state.wave(*wave).state == WaveState::Held)
    }

    fn resume_paused(&mut self, how: Resume, by: By<'_>, run: &mut Run<'_>) -> Done {
        let live = Live::Paused;
        if self.state.pause == Some(PauseReason::Gate) || self.undecided().is_some() {
            return self.decide(live, how, by, run);
        }
        match how {
            Resume::Plain if self.outside.cause().is_some() => Err(live.refuses(needs::CAUSE_REMAINS)),
            Resume::Plain
                if self.state.pause == Some(PauseReason::BlastRadius) && self.waits_for_more(run) =>
            {
                Err(live.refuses(needs::CAUSE_REMAINS))
            }
            Resume::Plain => {
                self.go_back_from_pause(Reason::Operator, by.actor, run);
                self.release_held(run);
                Ok(First::Done)
            }
            Resume::Raise { .. } | Resume::Retry | Resume::Skip | Resume::Waive { .. } => {
                Err(live.refuses(needs::GATE))
            }
        }
    }

    /// Whether as many are touched as ever may be, and others wait for their first offer that may still have one.
    fn waits_for_more(&self, run: &Run<'_>) -> bool {
        let waits = |row: &Row| row.state == MemberState::Queued && !row.flags.contains(Flags::TOUCHED);
        let mut rows = (0..).map(MemberIx).zip(&self.state.members.rows);
        self.has_touched_all(run) && rows.any(|(ix, row)| waits(row) && self.is_in_time(ix))
    }

    /// Does what was decided about a gate that stopped the rollout or holds its wave.
    fn decide(&mut self, live: Live, how: Resume, by: By<'_>, run: &mut Run<'_>) -> Done {
        match how {
            Resume::Plain => {
                if self.undecided().is_some() {
                    return Err(self.needs_decision());
                }
            }
            Resume::Retry => {
                let wave = self.wave_to_retry(live)?;
                if !self.may_retry(wave, run) {
                    return Err(live.refuses(needs::FAILED_MEMBERS));
                }
                self.leave_pause(live, by, run);
                self.retry(wave, run);
                return Ok(First::Done);
            }
            Resume::Skip => {
                let Some(wave) = self.state.current() else { return self.skip_bake(live, by, run) };
                let done = self.skip(live, wave, run)?;
                self.leave_pause(live, by, run);
                return Ok(done);
            }
            Resume::Waive { gate } => {
                self.waive(gate, None, None, run)?;
            }
            Resume::Raise { gate, over, count } => self.raise(gate, over, count, by, run)?,
        }
        if self.undecided().is_none() {
            self.leave_pause(live, by, run);
            self.release_held(run);
        }
        Ok(First::Done)
    }

    /// The wave whose failed members are tried once more: one that is on its way. One that waits for people is begun by
    /// nothing but what it waits for, and one that an operator leaves out stays left out.
    fn wave_to_retry(&self, live: Live) -> Result<WaveIx, Refused> {
        let wave = self.state.current().ok_or(live.refuses(needs::BAKE_DECIDED))?;
        let of = self.state.wave(wave);
        match of.state {
            WaveState::Dispatching | WaveState::Soaking | WaveState::Evaluating | WaveState::Held => Ok(wave),
            WaveState::Settling if !of.is_left_out() => Ok(wave),
            WaveState::Waiting if !matches!(of.reason, Reason::Approval | Reason::Manual) => Ok(wave),
            WaveState::Settling
            | WaveState::Pending
            | WaveState::Waiting
            | WaveState::Passed
            | WaveState::Failed
            | WaveState::Skipped => Err(live.refuses(needs::TURN)),
        }
    }

    /// Whether there is anybody to try again, or a provider to ask again. Otherwise the gates would but forget what they said.
    fn may_retry(&self, wave: WaveIx, run: &Run<'_>) -> bool {
        let is_asked_for = |said: &Evidence| {
            let is_outside = said.gate == GateKind::External || said.gate.is_telemetry();
            is_outside || matches!(said.verdict, Verdict::Error | Verdict::NoData)
        };
        let mut members = (0..self.state.members.len() as u32).map(MemberIx);
        self.undecided().is_some() && self.all_undecided().all(is_asked_for)
            || members.any(|ix| {
                let row = self.state.members.row(ix);
                row.wave == wave && member::on_retry(row, &self.around(ix, run.now)).row.is_some()
            })
    }

    /// What is left of the bake is left out: that ends the rollout. Of late joiners, and of
    /// leavers that go back, nothing is left out.
    fn skip_bake(&mut self, live: Live, by: By<'_>, run: &mut Run<'_>) -> Done {
        let is_open = self.state.in_flight() > 0 || self.state.members_in(MemberState::RollbackQueued) > 0;
        if self.state.from != RolloutState::Baking || is_open {
            return Err(live.refuses(needs::BAKE_DECIDED));
        }
        self.end(RolloutState::Succeeded, Reason::Operator, by.actor, run);
        Ok(First::Done)
    }

    pub(super) fn leave_pause(&mut self, live: Live, by: By<'_>, run: &mut Run<'_>) {
        if live == Live::Paused {
            self.go_back_from_pause(Reason::Operator, by.actor, run);
        }
    }

    /// Goes on where the rollout was paused; countdowns go on with what remained. If something outside stands in its way
    /// meanwhile it is paused for that instead.
    pub(crate) fn go_back_from_pause(&mut self, reason: Reason, actor: &str, run: &mut Run<'_>) {
        if self.state.reason == Reason::NoProgress {
            let whole = Countdown::stopped(self.plan.settings.progress);
            self.countdown(CountdownIx::Progress, whole, run);
        }
        if let Some((pause, reason)) = self.outside.cause() {
            self.pause(pause, reason, None, run);
            return;
        }
        self.transition(self.state.from, reason, actor, run);
        self.ask_again();
        if let Some(wave) = self.state.current()
            && seeded!(self.faults, CapIgnored)
        {
            self.record(Entry::Window { wave, to: u32::MAX }, run);
        }
    }

    /// A pause for something outside ends by itself once that is gone, if the settings say so. If something else stands in
    /// the way by then, or a gate has said what somebody has to decide about, it is a pause for that from then on.
    pub(crate) fn paused_step(&mut self, run: &mut Run<'_>) -> bool {
        let outside = self.state.pause.filter(|pause| Outside::CAUSES.contains(pause));
        if outside.is_none_or(|pause| self.outside.is_there(pause)) {
            return false;
        }
        if let Some((pause, reason)) = self.outside.cause() {
            self.pause(pause, reason, None, run);
        } else if let Some(evidence) = self.undecided().filter(|_| self.held().is_none()).cloned() {
            self.pause(PauseReason::Gate, Reason::GateFailed, Some(evidence), run);
        } else if self.plan.settings.auto_resume {
            self.go_back_from_pause(Reason::CauseGone, ENGINE, run);
            self.release_held(run);
        } else {
            return false;
        }
        true
    }

    /// A held wave about which everything is decided goes on where it was, and is evaluated anew if it was evaluated.
    pub(super) fn release_held(&mut self, run: &mut Run<'_>) {
        let Some(ix) = self.held().filter(|_| self.undecided().is_none()) else { return };
        let wave = self.state.wave(ix);
        let (to, lent) = (wave.held_from, wave.lent);
        let reason = match to {
            WaveState::Evaluating if lent > 0 => Reason::AllSettled,
            WaveState::Evaluating => Reason::DwellOver,
            _ => Reason::CauseGone,
        };
        self.set_wave(ix, to, reason, run);
    }

    /// Failed and timed-out members of a wave are tried once more, one at a time; its sequential tests begin anew. The gates
    /// are asked when all of them are queued: before that their ratios are of nothing that is or was.
    fn retry(&mut self, wave: WaveIx, run: &mut Run<'_>) {
        for at in 0..self.state.members.len() {
            let ix = MemberIx(at as u32);
            if self.state.members.row(ix).wave != wave {
                continue;
            }
            let step = member::on_retry(self.state.members.row(ix), &self.around(ix, run.now));
            if let Some(row) = step.row {
                self.put(ix, row, run);
            }
        }
        self.volatile.readings.forget(wave);
        self.record(Entry::Window { wave, to: 1 }, run);
        self.dwell_anew(wave, run);
        self.set_wave(wave, WaveState::Dispatching, Reason::RetryDue, run);
        self.judge_wave(wave, None, run);
    }

    /// Other limits for a gate. They are refused if what is there now would exceed them, and without a reason (§5: who
    /// loosens a gate says why).
    fn raise(
        &mut self,
        gate: GateIx,
        over: Ppm,
        count: u32,
        by: By<'_>,
        run: &mut Run<'_>,
    ) -> Result<(), Refused> {
        let config = self.plan.gates.get(gate.index()).ok_or(Refused::UnknownGate)?;
        if by.why.trim().is_empty() {
            return Err(Refused::OverrideNeeded);
        }
        let at = gate.index();
        let fails_in = |counts: &[GateCount]| counts.get(at).is_some_and(|found| exceeds(found, over, count));
        let wave = self.state.current().map(|wave| &self.state.wave(wave).gates);
        let fails = wave.is_some_and(|gates| config.scopes.contains(Scopes::WAVE) && fails_in(gates))
            || config.scopes.contains(Scopes::CUMULATIVE) && fails_in(&self.state.overall)
            || self.state.zones.iter().any(|zone| fails_in(&zone.gates));
        if fails {
            return Err(Refused::NeedsDecision { gate: self.line_of(gate) });
        }
        self.waive(gate, None, Some((over, count)), run).map(|_| ())
    }

    /// What a gate said that waits for a decision, in one line; its name if it said nothing.
    fn line_of(&self, gate: GateIx) -> String {
        let config = &self.plan.gates[gate.index()];
        let said = self.state.fired.iter().find(|said| said.gate == config.kind && said.name == config.name);
        said.map_or_else(|| config.kind.to_string(), ToString::to_string)
    }

    /// Somebody has to decide: about what the gate said that was first.
    pub(super) fn needs_decision(&self) -> Refused {
        let gate = self.undecided().map_or_else(|| ENGINE.to_owned(), ToString::to_string);
        Refused::NeedsDecision { gate }
    }
}

/// Whether counts fail "more than `over`, and at least `count`", by integers.
fn exceeds(found: &GateCount, over: Ppm, count: u32) -> bool {
    let (bad, of) = (u64::from(found.bad), u64::from(found.eligible));
    found.bad >= count.max(1) && bad * 1_000_000 > of * u64::from(over.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_limits_are_compared_by_cross_multiplication() {
        let counts = |bad, eligible| GateCount { bad, eligible, ..GateCount::default() };
        let fifth = Ppm(200_000);
        assert!(!exceeds(&counts(2, 10), fifth, 1), "20 % is not more than 20 %");
        assert!(exceeds(&counts(3, 10), fifth, 1));
        assert!(!exceeds(&counts(3, 10), fifth, 4), "fewer than asked for");
        assert!(!exceeds(&counts(0, 0), fifth, 0), "nobody counts against it");
    }
}
