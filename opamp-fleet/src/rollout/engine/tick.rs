//! What time alone changes: deadlines of members, the start, expiry, and no progress for too long (R49, R53).
//!
//! Dwell, bake, edges of windows and denied claims are looked at in [`Engine::go_on`], which follows each event.

use super::{Engine, Run};
use crate::rollout::control::ENGINE;
use crate::rollout::windows::Opening;
use crate::rollout::{
    MemberState, NoProgress, PauseReason, Reason, RolloutState, Time, WaveIx, WaveState, member,
};

impl Engine {
    pub(super) fn tick(&mut self, run: &mut Run<'_>) {
        if self.state.state.is_terminal() {
            return;
        }
        self.start_when_due(run);
        self.expire_when_due(run);
        self.members_when_due(run);
        self.progress_when_due(run);
        self.volatile.readings.expire(run.now, &mut run.out.acts);
        if self.volatile.retry_at.is_some_and(|at| at <= run.now) {
            self.volatile.retry_at = None;
        }
        let over = self.volatile.full.iter().filter(|(_, at)| **at <= run.now).map(|(zone, _)| *zone);
        over.collect::<Vec<_>>().into_iter().for_each(|zone| self.open_zone(zone));
        if self.edge().is_some_and(|at| at <= run.now) {
            self.volatile.opening = None;
        }
    }

    /// Until when holds what the calendar said.
    fn edge(&self) -> Option<Time> {
        match self.volatile.opening? {
            Opening::Closed { until, .. } | Opening::Open { until } => until,
        }
    }

    fn start_when_due(&mut self, run: &mut Run<'_>) {
        let is_due = self.plan.start_at.is_some_and(|at| at <= run.now);
        if is_due && self.state.state == RolloutState::Scheduled {
            self.begin_preflight(true, Reason::Due, ENGINE, run);
        }
        if self.begins() {
            self.begin_running(Reason::Due, ENGINE, run);
        }
    }

    fn expire_when_due(&mut self, run: &mut Run<'_>) {
        if self.plan.expires_at.is_none_or(|at| at > run.now) {
            return;
        }
        match self.state.state {
            RolloutState::Draft
            | RolloutState::PendingApproval
            | RolloutState::Scheduled
            | RolloutState::Preflight
            | RolloutState::Ready => self.end(RolloutState::Expired, Reason::TimeOver, ENGINE, run),
            RolloutState::Running | RolloutState::Paused if !self.state.bakes() => {
                self.wind_down(RolloutState::Expired, Reason::TimeOver, ENGINE, run);
            }
            RolloutState::Running
            | RolloutState::Paused
            | RolloutState::Baking
            | RolloutState::Aborting
            | RolloutState::RollingBack
            | RolloutState::Aborted
            | RolloutState::Cancelled
            | RolloutState::Expired
            | RolloutState::Failed
            | RolloutState::PartiallyRolledBack
            | RolloutState::Rejected
            | RolloutState::RollbackFailed
            | RolloutState::RolledBack
            | RolloutState::Succeeded
            | RolloutState::Superseded => {}
        }
    }

    fn members_when_due(&mut self, run: &mut Run<'_>) {
        while self.may_offer_more() {
            let Some(ix) = self.state.members.due(run.now) else { break };
            self.count_offer();
            let row = self.state.members.row(ix);
            if row.state == MemberState::Queued {
                self.look_at_lock_again(ix, run);
            } else {
                let step = member::on_deadline(row, &self.around(ix, run.now));
                self.step(ix, step, run);
            }
        }
    }

    fn progress_when_due(&mut self, run: &mut Run<'_>) {
        let is_due = self.state.progress.ends_at().is_some_and(|at| at <= run.now);
        if !is_due || self.state.state != RolloutState::Running {
            return;
        }
        match self.plan.settings.on_no_progress {
            NoProgress::Fail => self.wind_down(RolloutState::Failed, Reason::NoProgress, ENGINE, run),
            NoProgress::Pause => self.pause(PauseReason::Inconclusive, Reason::NoProgress, None, run),
        }
    }

    /// The next time at which time alone changes something.
    pub(super) fn earliest(&mut self, now: Time) -> Time {
        let state = self.state.state;
        if state.is_terminal() {
            return Time::NEVER;
        }
        if self.volatile.unfinished || self.begins() {
            return self.state.last;
        }
        let before_start = matches!(
            state,
            RolloutState::Draft
                | RolloutState::PendingApproval
                | RolloutState::Scheduled
                | RolloutState::Preflight
                | RolloutState::Ready
        );
        let start = self.plan.start_at.filter(|_| state == RolloutState::Scheduled);
        let runs = matches!(state, RolloutState::Running | RolloutState::Paused) && !self.state.bakes();
        let expiry = self.plan.expires_at.filter(|_| before_start || runs);
        let wave = self.state.current().map(|wave| self.state.wave(wave));
        let dwell =
            wave.filter(|wave| wave.state == WaveState::Soaking).and_then(|wave| wave.dwell.ends_at());
        // A bake that is over waits for nothing but answers, who is in flight again, leavers that go back, and whether who is
        // away comes back.
        let is_open = self.state.in_flight() > 0 || self.state.members_in(MemberState::RollbackQueued) > 0;
        let over = self.state.bake.ends_at().filter(|at| *at <= now);
        let is_watched = state == RolloutState::Baking && !is_open;
        let is_away = is_watched && over.is_some_and(|over| self.may_be_away(WaveIx::TAIL, over));
        let waits = self.volatile.readings.waits(&self.plan, WaveIx::TAIL) || is_open || is_away;
        let bakes = state == RolloutState::Baking && !waits;
        let bake = self.state.bake.ends_at().filter(|_| bakes);
        let progress = self.state.progress.ends_at();
        let retry = self.volatile.retry_at.filter(|_| !before_start);
        let full = self.volatile.full.values().min().copied();
        let edge = self.edge().filter(|_| state.may_offer());
        let readings = self.volatile.readings.next_deadline();
        let member = self.state.members.next_deadline();
        [start, expiry, dwell, bake, progress, retry, full, edge, readings, member]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Time::NEVER)
    }
}
