//! The steps of a wave from its turn to its end, and of the rollout around it.

use super::Wave;
use crate::faults::seeded;
use crate::rollout::control::ENGINE;
use crate::rollout::engine::{Engine, Run};
use crate::rollout::journal::{CountdownIx, Entry};
use crate::rollout::members::Flags;
use crate::rollout::{Countdown, MemberIx, MemberState, Reason, RolloutState, WaveIx, WaveState};

impl Engine {
    /// Goes on as far as it goes without another event. Each step changes the state of a wave or of the rollout; how many
    /// one call may do is bounded, the rest is done in the next one.
    pub(crate) fn go_on(&mut self, run: &mut Run<'_>) {
        let most = 8 * self.state.waves.len() + 64;
        for _ in 0..most {
            let goes_on = match self.state.state {
                RolloutState::Running => self.run_step(run),
                RolloutState::Baking => self.bake_step(run),
                RolloutState::Paused => self.paused_step(run),
                RolloutState::Aborting => self.wind_down_step(run),
                RolloutState::RollingBack => self.rollback_step(run),
                RolloutState::Draft
                | RolloutState::PendingApproval
                | RolloutState::Scheduled
                | RolloutState::Preflight
                | RolloutState::Ready
                | RolloutState::Aborted
                | RolloutState::Cancelled
                | RolloutState::Expired
                | RolloutState::Failed
                | RolloutState::PartiallyRolledBack
                | RolloutState::Rejected
                | RolloutState::RollbackFailed
                | RolloutState::RolledBack
                | RolloutState::Succeeded
                | RolloutState::Superseded => false,
            };
            if !goes_on {
                self.run_or_stop_progress(run);
                return;
            }
        }
        self.volatile.unfinished = true;
        self.run_or_stop_progress(run);
    }

    fn run_step(&mut self, run: &mut Run<'_>) -> bool {
        self.offer_rollbacks_of_leavers(run);
        let Some(wave) = self.state.current() else {
            self.dispatch_tail(run);
            let is_running = self.state.state == RolloutState::Running;
            let is_settled = !self.is_tail_awaited() && self.state.in_flight() == 0;
            let is_settled = is_settled && self.state.members_in(MemberState::RollbackQueued) == 0;
            let is_over = is_settled && !self.state.waits_for_the_first();
            return is_running && is_over && self.all_waves_passed(run);
        };
        let before = (self.state.state, self.state.wave(wave).state);
        self.dispatch_tail(run);
        if self.state.state == RolloutState::Running {
            self.wave_step(wave, run);
        }
        (self.state.state, self.state.wave(wave).state) != before
    }

    fn wave_step(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let wave = self.state.wave(ix);
        match wave.state {
            WaveState::Pending => self.turn(ix, run),
            WaveState::Waiting => self.look_again(ix, run),
            WaveState::Dispatching => self.dispatch_step(ix, run),
            WaveState::Settling => self.settle_step(ix, run),
            WaveState::Soaking => self.soak_step(ix, run),
            WaveState::Evaluating => self.evaluate(ix, run),
            WaveState::Held | WaveState::Passed | WaveState::Failed | WaveState::Skipped => {}
        }
    }

    fn turn(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let planned = &self.plan.waves[ix.index()];
        let (approval, manual) = (planned.approval, planned.manual);
        if self.nobody_left(ix) && self.state.wave(ix).is_settled() {
            self.set_wave(ix, WaveState::Passed, Reason::EmptyWave, run);
        } else if approval {
            self.set_wave(ix, WaveState::Waiting, Reason::Approval, run);
        } else if manual {
            self.set_wave(ix, WaveState::Waiting, Reason::Manual, run);
        } else {
            self.begin(ix, Reason::Turn, run);
        }
    }

    /// Somebody has agreed to the wave: what else it may wait for comes next.
    pub(crate) fn approved(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        if self.plan.waves[ix.index()].manual {
            self.set_wave(ix, WaveState::Waiting, Reason::Manual, run);
        } else {
            self.begin(ix, Reason::Approved, run);
        }
    }

    /// The wave is dispatched, or waits for its window.
    pub(crate) fn begin(&mut self, ix: WaveIx, reason: Reason, run: &mut Run<'_>) {
        match self.closed_for(ix, run.now) {
            Some(by) => self.set_wave(ix, WaveState::Waiting, by, run),
            None => self.set_wave(ix, WaveState::Dispatching, reason, run),
        }
    }

    /// A wave that waits: for people nothing happens by itself, for windows and budgets it does.
    fn look_again(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let reason = self.state.wave(ix).reason;
        if matches!(reason, Reason::Approval | Reason::Manual) {
            return;
        }
        if let Some(by) = self.closed_for(ix, run.now) {
            if by != reason {
                self.set_wave(ix, WaveState::Waiting, by, run);
            }
        } else if reason != Reason::Budget || self.nobody_left(ix) {
            self.set_wave(ix, WaveState::Dispatching, reason, run);
        } else {
            // The first claim that is granted takes the wave back to dispatching.
            self.dispatch(ix, run);
        }
    }

    fn dispatch_step(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        if !self.nobody_queued(ix)
            && let Some(by) = self.closed_for(ix, run.now)
        {
            self.set_wave(ix, WaveState::Waiting, by, run);
            return;
        }
        self.dispatch(ix, run);
        let is_still =
            self.state.state == RolloutState::Running && self.state.wave(ix).state == WaveState::Dispatching;
        if is_still && self.nobody_left(ix) {
            self.set_wave(ix, WaveState::Settling, Reason::AllOffered, run);
        }
    }

    fn settle_step(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        if seeded!(self.faults, SettlingStuck) {
            return;
        }
        let wave = self.state.wave(ix);
        let in_flight = wave.in_flight;
        if wave.is_left_out() {
            if in_flight == 0 {
                self.set_wave(ix, WaveState::Skipped, Reason::Operator, run);
            }
        } else if wave.waiting() > 0 {
            self.set_wave(ix, WaveState::Dispatching, Reason::MemberQueuedAgain, run);
        } else if in_flight == 0 {
            if wave.has_nobody_to_watch() && !self.has_touched(ix) {
                self.set_wave(ix, WaveState::Passed, Reason::EmptyWave, run);
            } else if wave.lent > 0 {
                self.set_wave(ix, WaveState::Evaluating, Reason::AllSettled, run);
            } else {
                self.soak(ix, Reason::AllSettled, run);
            }
        }
    }

    /// Whether somebody of the wave was ever offered it: who has gone away with it says a lot.
    fn has_touched(&self, ix: WaveIx) -> bool {
        self.state.members.rows.iter().any(|row| row.wave == ix && row.flags.contains(Flags::TOUCHED))
    }

    /// The dwell begins now, whatever time the wave took before (R47).
    fn soak(&mut self, ix: WaveIx, reason: Reason, run: &mut Run<'_>) {
        let mut dwell = self.state.wave(ix).dwell;
        if seeded!(self.faults, InheritedTimer) && ix.0 > 0 {
            dwell = self.state.waves[ix.index() - 1].dwell;
        }
        self.countdown(CountdownIx::Dwell(ix), dwell.run(run.now), run);
        self.set_wave(ix, WaveState::Soaking, reason, run);
    }

    /// A wave is decided whose last members have only just settled: they are watched for the longest window of a gate.
    pub(super) fn soak_for_window(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let dwell = Countdown::stopped(self.longest_window()).run(run.now);
        self.countdown(CountdownIx::Dwell(ix), dwell, run);
        self.set_wave(ix, WaveState::Soaking, Reason::GatesPass, run);
    }

    fn soak_step(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let wave = self.state.wave(ix);
        let (dwell, waiting) = (wave.dwell, wave.waiting());
        if waiting > 0 {
            self.dwell_anew(ix, run);
            self.set_wave(ix, WaveState::Dispatching, Reason::MemberQueuedAgain, run);
        } else if !dwell.is_running() {
            self.countdown(CountdownIx::Dwell(ix), dwell.run(run.now), run);
            self.soak_over(ix, run);
        } else {
            self.soak_over(ix, run);
        }
    }

    fn soak_over(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let ends_at = self.state.wave(ix).dwell.ends_at();
        if ends_at.is_some_and(|at| at <= run.now) {
            self.set_wave(ix, WaveState::Evaluating, Reason::DwellOver, run);
        }
    }

    /// The wave is dispatched again: its dwell is whole again, or what an operator has made of it if that is more.
    pub(crate) fn dwell_anew(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let wave = self.state.wave(ix);
        let whole = self.plan.waves[ix.index()].dwell.max(wave.dwell.remaining(run.now));
        self.countdown(CountdownIx::Dwell(ix), Countdown::stopped(whole), run);
    }

    fn all_waves_passed(&mut self, run: &mut Run<'_>) -> bool {
        // Nobody came, or nobody has it who was offered it: that is no success, which would give it to all who come later.
        let (expired, knows_nothing) =
            (self.state.members_in(MemberState::Expired), self.state.knows_nothing());
        if knows_nothing && expired > 0 {
            self.wind_down(RolloutState::Expired, Reason::AwayTooLong, ENGINE, run);
        } else if knows_nothing {
            self.wind_down(RolloutState::Failed, Reason::NoData, ENGINE, run);
        } else if self.state.touched == 0 {
            self.end(RolloutState::Succeeded, Reason::AllWavesPassed, ENGINE, run);
        } else {
            // Without a bake it is over at once, and asked about all the same.
            let bake = Countdown::stopped(self.plan.settings.bake).run(run.now);
            self.countdown(CountdownIx::Bake, bake, run);
            self.transition(RolloutState::Baking, Reason::AllWavesPassed, ENGINE, run);
            self.watch_all(run);
        }
        true
    }

    /// The bake begins: who went away or fell ill between the end of its wave and now begins to count.
    fn watch_all(&mut self, run: &mut Run<'_>) {
        for at in 0..self.state.members.len() as u32 {
            let row = *self.state.members.row(MemberIx(at));
            if matches!(row.state, MemberState::Unverified | MemberState::Verified) {
                self.change(MemberIx(at), row.changed(), run);
            }
        }
    }

    /// Whether nobody of the wave waits for an offer, skipped members included if it is the last one.
    pub(super) fn nobody_queued(&self, ix: WaveIx) -> bool {
        self.state.wave(ix).count(MemberState::Queued) == 0 && self.left_over(ix) == 0
    }

    /// Whether nobody of the wave will be offered any more.
    pub(super) fn nobody_left(&self, ix: WaveIx) -> bool {
        self.state.wave(ix).waiting() == 0 && self.left_over(ix) == 0
    }

    /// Members of skipped waves that the last wave takes over.
    fn left_over(&self, ix: WaveIx) -> u32 {
        if ix != self.state.last_wave() {
            return 0;
        }
        let skipped = self.state.waves.iter().filter(|wave| wave.state == WaveState::Skipped);
        skipped.map(Wave::waiting).sum()
    }

    /// Whether members are offered it or are to answer. People, windows, a dwell, limits that let nobody through, and other
    /// rollouts that hold everybody are waited for however long they take (R49).
    fn may_progress(&self) -> bool {
        let Some(ix) = self.state.current().filter(|_| self.state.state == RolloutState::Running) else {
            return false;
        };
        let wave = self.state.wave(ix);
        let is_free = wave.waiting() + self.left_over(ix) > wave.blocked.len() as u32;
        let goes_on = self.state.in_flight() > 0 || is_free && self.volatile.denied.is_none();
        self.waits_for_others(ix)
            || goes_on && matches!(wave.state, WaveState::Dispatching | WaveState::Settling)
    }

    /// The progress deadline runs while there could be progress, and stands still otherwise.
    fn run_or_stop_progress(&mut self, run: &mut Run<'_>) {
        let progress = self.state.progress;
        let may_progress = self.may_progress();
        if may_progress && !progress.is_running() {
            let whole = Countdown::stopped(self.plan.settings.progress);
            let to = if progress == Countdown::default() { whole } else { progress };
            self.countdown(CountdownIx::Progress, to.run(run.now), run);
        } else if !may_progress && progress.is_running() {
            self.countdown(CountdownIx::Progress, progress.stop(run.now), run);
        }
    }

    /// While the rollout is paused, dwell, bake and progress stand still; they go on with what remains.
    pub(crate) fn stop_countdowns(&mut self, run: &mut Run<'_>) {
        if let Some(ix) = self.state.current() {
            let wave = self.state.wave(ix);
            let (is_soaking, dwell) = (wave.state == WaveState::Soaking, wave.dwell);
            if is_soaking && dwell.is_running() {
                self.countdown(CountdownIx::Dwell(ix), dwell.stop(run.now), run);
            }
        }
        let bake = self.state.bake;
        if bake.is_running() {
            self.countdown(CountdownIx::Bake, bake.stop(run.now), run);
        }
    }

    pub(crate) fn countdown(&mut self, which: CountdownIx, to: Countdown, run: &mut Run<'_>) {
        self.record(Entry::Countdown { which, to }, run);
    }

    pub(crate) fn set_wave(&mut self, wave: WaveIx, to: WaveState, reason: Reason, run: &mut Run<'_>) {
        let is_compared_anew = to == WaveState::Dispatching && self.state.is_compared_anew(wave);
        self.record(Entry::Wave { wave, to, reason, at: run.now }, run);
        self.volatile.walked.clear();
        if is_compared_anew {
            self.compare_anew(run);
        }
        let is_unwatched = to == WaveState::Soaking && seeded!(self.faults, UnwatchedIsGood);
        if is_unwatched || to == WaveState::Passed && reason != Reason::EmptyWave {
            self.known_good(Some(wave), run);
        }
    }
}
