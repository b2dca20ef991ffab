//! Late joiners, and members that come back (R21, R22, R23).
//!
//! Who comes late passes the same preflight, claims and gates as planned members. Where its own queue is closed, it goes
//! to the tail, which counts over all waves.

use opamp_proto::AgentId;

use crate::rollout::engine::{Engine, Run};
use crate::rollout::journal::{CountdownIx, Entry, JoinedEntry};
use crate::rollout::members::{Changed, Flags};
use crate::rollout::plan::{self, Candidate, Joiner, Plan};
use crate::rollout::{LateJoiners, Leavers, MemberIx, MemberState, Reason, RolloutState, WaveIx, WaveState};

impl Engine {
    /// An agent matches the selector, now or again. While the rollout bakes, ends or goes back, the steady state that
    /// follows it serves such agents; before the start, the preflight does.
    pub(crate) fn joined(&mut self, agent: &AgentId, candidate: &Candidate<'_>, run: &mut Run<'_>) {
        if !matches!(self.state.state, RolloutState::Running | RolloutState::Paused) {
            return;
        }
        let Some(ix) = self.state.members.find(agent) else {
            self.join(agent, candidate, run);
            return;
        };
        let row = *self.state.members.row(ix);
        let comes_back = row.state == MemberState::Removed
            || row.state == MemberState::Excluded && row.reason == Reason::LeftSelector;
        if comes_back {
            self.join_again(ix, candidate, run);
        } else if row.flags.contains(Flags::LEFT) {
            let flags = row.flags.set(Flags::LEFT, false);
            self.change(ix, Changed { flags, ..row.changed() }, run);
        }
    }

    fn join(&mut self, agent: &AgentId, candidate: &Candidate<'_>, run: &mut Run<'_>) {
        let policy = self.plan.settings.joiners;
        let has_room = self.state.members.len() < Plan::MEMBERS_MAX as usize;
        if policy == LateJoiners::Snapshot || !has_room {
            return;
        }
        let joiner = self.as_planned(candidate);
        let member = MemberIx(self.state.members.len() as u32);
        self.record_joiner(member, *agent, &joiner, run);
    }

    fn join_again(&mut self, ix: MemberIx, candidate: &Candidate<'_>, run: &mut Run<'_>) {
        let joiner = self.as_planned(candidate);
        if joiner.excluded.is_some_and(|reason| reason != Reason::AlreadyEqual) {
            return;
        }
        // It goes back to what it had when the rollout found it, not to what the rollout gave it.
        let previous = self.state.members.previous(ix).or(joiner.previous);
        let agent = *self.state.members.id(ix);
        self.record_joiner(ix, agent, &Joiner { previous, ..joiner }, run);
    }

    /// What the plan would have made of it; who runs the configuration already needs nothing.
    fn as_planned(&self, candidate: &Candidate<'_>) -> Joiner {
        let joiner = plan::joiner(&self.plan, candidate);
        let is_current = candidate.current == Some(self.plan.target);
        let excluded = joiner.excluded.or(is_current.then_some(Reason::AlreadyEqual));
        Joiner { excluded, ..joiner }
    }

    fn record_joiner(&mut self, member: MemberIx, agent: AgentId, joiner: &Joiner, run: &mut Run<'_>) {
        let (state, reason) = match joiner.excluded {
            None => (MemberState::Queued, Reason::Joined),
            Some(Reason::AlreadyEqual) => (MemberState::AlreadyCurrent, Reason::AlreadyEqual),
            Some(reason) => (MemberState::Excluded, reason),
        };
        let wave = self.wave_of_joiner(joiner.wave);
        let entry = JoinedEntry {
            member,
            agent,
            wave,
            zone: joiner.zone,
            previous: joiner.previous,
            pace: joiner.pace,
            fell: joiner.fell,
            flags: joiner.flags | Flags::JOINER,
            state,
            reason,
            at: run.now,
        };
        self.record(Entry::Joined(Box::new(entry)), run);
        self.seek(member);
        if wave == WaveIx::TAIL && state == MemberState::Queued {
            self.watch_arrival(run);
        }
    }

    /// The queue of a late joiner: by policy, and the tail where that queue is closed.
    fn wave_of_joiner(&self, own: WaveIx) -> WaveIx {
        let wave = match self.plan.settings.joiners {
            LateJoiners::Continuous | LateJoiners::Snapshot => return WaveIx::TAIL,
            LateJoiners::IfOwnWaveDone => own,
            LateJoiners::LastWave => self.state.last_wave(),
        };
        if self.is_open(wave) { wave } else { WaveIx::TAIL }
    }

    fn is_open(&self, wave: WaveIx) -> bool {
        self.state.waves.get(wave.index()).is_some_and(super::Wave::is_open)
    }

    /// A member is queued again: one that was away joins its wave's queue while that is open, one that is tried again
    /// takes its wave back to dispatching unless that is over. Otherwise the tail takes it.
    pub(crate) fn queue_again(&mut self, ix: MemberIx, row: Changed, run: &mut Run<'_>) {
        let before = *self.state.members.row(ix);
        let was_away = before.state == MemberState::Deferred;
        let stays = before.wave == WaveIx::TAIL
            || if was_away { self.is_open(before.wave) } else { !self.is_wave_over(before.wave) };
        if stays && self.state.state != RolloutState::Baking {
            self.change(ix, row, run);
        } else {
            // The entry that moves it says nothing of its tries, which an operator may have set back.
            let (failed_tries, transport_tries) = (row.failed_tries, row.transport_tries);
            self.change(ix, Changed { failed_tries, transport_tries, ..before.changed() }, run);
            self.move_to(ix, WaveIx::TAIL, row, run);
            self.watch_arrival(run);
        }
    }

    fn is_wave_over(&self, wave: WaveIx) -> bool {
        let wave = self.state.wave(wave);
        wave.is_over() || wave.state == WaveState::Failed
    }

    /// Somebody came into the tail: a wave that soaks is watched for at least as long as a gate looks at the newcomer. However
    /// many come, that is at most its dwell and one window more: where agents come all the time it would never end otherwise,
    /// and over all waves gates go on looking at everybody.
    fn watch_arrival(&mut self, run: &mut Run<'_>) {
        let Some(ix) = self.state.current() else { return };
        let wave = self.state.wave(ix);
        let (state, dwell, window) = (wave.state, wave.dwell, self.longest_window());
        let latest = wave.entered + self.plan.waves[ix.index()].dwell + window;
        let wanted = window.min(latest.since(run.now));
        let missing = wanted.saturating_sub(dwell.remaining(run.now));
        if state == WaveState::Soaking && !missing.is_zero() {
            self.countdown(CountdownIx::Dwell(ix), dwell.extend(missing), run);
        }
    }

    /// Members that left the selector and are to go back do so one by one while the rollout runs (R22).
    pub(super) fn offer_rollbacks_of_leavers(&mut self, run: &mut Run<'_>) {
        let any = self.plan.settings.leavers == Leavers::Revert
            && self.state.members_in(MemberState::RollbackQueued) > 0;
        if any {
            self.offer_rollbacks(run);
        }
    }
}
