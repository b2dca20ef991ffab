//! A form of a rollout in which two are equal that will do the same from now on.

use std::time::Duration;

use super::codec::Wire;
use crate::rollout::engine::{Engine, State};
use crate::rollout::gates::{self, Evidence, GateKind};
use crate::rollout::members::{Flags, Row};
use crate::rollout::plan::Plan;
use crate::rollout::waves::Wave;
use crate::rollout::{
    Countdown, MemberIx, MemberState, Reason, RolloutState, Time, WaveIx, WaveState, member,
};

impl Engine {
    /// The rollout in a form in which two rollouts of one plan are equal that will do the same from now on, as long as
    /// agents have the capabilities that they have, and unless the plan has a calendar, a start or an expiry. For searches
    /// through all that can happen.
    ///
    /// Times are relative to `now` and cut off where nothing compares them any more; offers are numbered 0 or 1; what only
    /// people read is left out, and so is what the state that the rollout, a wave or a member is in never looks at: since
    /// when something is so, most reasons, texts, remembered commands, timers of waves that are over.
    ///
    /// `merged`: members of one wave are told apart by what they are and where they stand in its queue, not by their names,
    /// so that it does not matter which of two equal agents it was; in plans so small that no sequential test asks who stands
    /// between two failures. Of two whose time comes at the same moment the first one of the plan is looked at first; that is
    /// not told apart then.
    pub fn canonical(&self, now: Time, merged: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let retry = self.volatile.retry_at.filter(|at| *at > now && !self.state.state.is_terminal());
        retry.map(|at| at.since(now)).put(&mut out);
        let full = self.volatile.full.iter().filter(|_| !self.state.state.is_terminal());
        let full: Vec<_> = full.map(|(zone, at)| (*zone, at.since(now))).collect();
        full.put(&mut out);
        Form::of(&self.plan, &self.state, now, merged).state(&self.state, &mut out);
        out
    }
}

struct Form {
    now: Time,
    merged: bool,
    /// The longest window of a gate that acts: how long a wave, or the tail, stays open for those who come late.
    window: Duration,
    /// The dwells of the waves, as planned.
    dwells: Vec<Duration>,
    /// What spans since an offer are cut off at: longer than anything looks back.
    watched: Duration,
    /// The longest grace of a member if a gate asks who is away.
    grace: Duration,
    /// Tries beyond this are as many as this.
    tries: u8,
    counts_falls: bool,
    /// Whether something may still be offered: neither is it over, nor does it end early.
    goes_on: bool,
    is_over: bool,
}

impl Form {
    fn of(plan: &Plan, state: &State, now: Time, merged: bool) -> Self {
        let settings = &plan.settings;
        let paces = state.members.paces.iter();
        let grace =
            paces.map(|pace| member::grace(&settings.deadlines, *pace, true)).max().unwrap_or_default();
        let asks_who_is_away = plan.gates.iter().any(|gate| gate.kind == GateKind::DisconnectRatio);
        // Whoever goes away within the window of `disconnect-ratio` is known to be away a grace later.
        let windows = plan.gates.iter().filter(|gate| gates::has_window(gate.kind));
        let watched = windows.map(|gate| match gate.kind {
            GateKind::CrashLoop if gate.window.is_zero() => member::FALLS_BEFORE,
            GateKind::DisconnectRatio => gate.window + grace,
            _ => gate.window,
        });
        let retries = settings.retries;
        let ends_early = matches!(state.state, RolloutState::Aborting | RolloutState::RollingBack);
        let window = gates::watch(&plan.gates);
        Self {
            now,
            merged,
            window,
            dwells: plan.waves.iter().map(|wave| wave.dwell).collect(),
            watched: watched.max().map_or(Duration::ZERO, |longest| longest + Duration::from_millis(1)),
            grace: if asks_who_is_away { grace } else { Duration::ZERO },
            tries: retries.transport.max(retries.timeout).max(retries.failed).max(1),
            counts_falls: plan.gates.iter().any(|gate| gate.kind == GateKind::CrashLoop),
            goes_on: !state.state.is_terminal() && !ends_early,
            is_over: state.state.is_terminal(),
        }
    }

    fn state(&self, state: &State, out: &mut Vec<u8>) {
        state.state.put(out);
        if self.is_over {
            self.ended(state, out);
            return;
        }
        state.pause.put(out);
        state.limits.put(out);
        match state.state {
            RolloutState::Paused => {
                state.from.put(out);
                (state.reason == Reason::NoProgress).put(out);
            }
            RolloutState::Preflight => state.from.put(out),
            RolloutState::Aborting => state.ending.put(out),
            RolloutState::RollingBack => {
                state.scope.put(out);
                (state.reason == Reason::GateFailed).put(out);
            }
            _ => {}
        }
        self.judged(state, out);
        self.members(state, out);
    }

    /// Who is where at the end.
    fn ended(&self, state: &State, out: &mut Vec<u8>) {
        let mut states: Vec<_> = state.members.rows.iter().map(|row| row.state.index() as u8).collect();
        states.sort_unstable();
        out.extend_from_slice(&states);
    }

    /// Gates, waves, and their timers.
    fn judged(&self, state: &State, out: &mut Vec<u8>) {
        let runs =
            |of: RolloutState| state.state == of || state.state == RolloutState::Paused && state.from == of;
        if runs(RolloutState::Baking) {
            self.countdown(&state.bake, out);
            // Whoever went away before its end is waited for.
            let over = state.bake.ends_at().map_or(Duration::ZERO, |at| self.now.since(at));
            over.min(self.grace).put(out);
        }
        if runs(RolloutState::Running) {
            self.countdown(&state.progress, out);
        }
        state.waived.put(out);
        state.raised.put(out);
        state.has_shown.put(out);
        state.control.put(out);
        state.overall.put(out);
        for zone in &state.zones {
            zone.gates.put(out);
        }
        let mut fired: Vec<Vec<u8>> = state.fired.iter().map(said).collect();
        fired.sort_unstable();
        fired.iter().for_each(|said| out.extend_from_slice(said));
        for (wave, dwell) in state.queues().zip(self.dwells.iter().chain([&Duration::ZERO])) {
            self.wave(wave, *dwell, out);
        }
        if let Some(closes) = self.tail_closes(state) {
            closes.since(self.now).put(out);
            // Who comes just then is in time.
            (closes < self.now).put(out);
        }
    }

    /// Until when the tail takes in who comes late, once all waves are over.
    fn tail_closes(&self, state: &State) -> Option<Time> {
        let last = state.waves.last().filter(|_| state.current().is_none());
        last.map(|wave| wave.entered + self.window)
    }

    fn countdown(&self, countdown: &Countdown, out: &mut Vec<u8>) {
        countdown.is_running().put(out);
        countdown.remaining(self.now).put(out);
    }

    fn wave(&self, wave: &Wave, dwell: Duration, out: &mut Vec<u8>) {
        wave.state.put(out);
        wave.first.put(out);
        wave.end.put(out);
        wave.gates.put(out);
        wave.explained.put(out);
        let is_over = matches!(wave.state, WaveState::Passed | WaveState::Skipped | WaveState::Failed);
        if is_over || !self.goes_on {
            return;
        }
        let asked = [
            Reason::AllSettled,
            Reason::Approval,
            Reason::Budget,
            Reason::Freeze,
            Reason::Inconclusive,
            Reason::Manual,
            Reason::Operator,
            Reason::Window,
        ];
        let reason = if asked.contains(&wave.reason) { wave.reason } else { Reason::Nothing };
        reason.put(out);
        if wave.state == WaveState::Held {
            wave.held_from.put(out);
        }
        wave.lent.put(out);
        wave.window.put(out);
        self.countdown(&wave.dwell, out);
        if wave.state == WaveState::Evaluating {
            // Whoever went away before is waited for.
            self.now.since(wave.entered).min(self.grace).put(out);
        }
        if wave.state == WaveState::Soaking {
            // By how much whoever comes late can still prolong it.
            let latest = (wave.entered + dwell + self.window).since(self.now);
            latest.saturating_sub(wave.dwell.remaining(self.now)).put(out);
        }
    }

    /// Members wave by wave, those of a wave in the order of their bytes if they are merged.
    fn members(&self, state: &State, out: &mut Vec<u8>) {
        let rows = &state.members.rows;
        let mut members: Vec<(WaveIx, Vec<u8>)> = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let mut form = Vec::with_capacity(32);
            self.row(row, &mut form);
            if row.state == MemberState::Queued {
                queued(state, MemberIx(at as u32), row, &mut form);
                self.tail_closes(state).is_some_and(|closes| row.since > closes).put(&mut form);
            }
            let wave = state.wave(row.wave);
            if row.state == MemberState::Verified && wave.state == WaveState::Evaluating {
                // Whether it has been watched, if it was waited for.
                (row.since > wave.entered).put(&mut form);
            }
            if row.state == MemberState::RollbackQueued {
                rows[..at].iter().filter(|other| other.state == row.state).count().put(&mut form);
            }
            members.push((row.wave, form));
        }
        if self.merged {
            members.sort_unstable();
        }
        for (wave, form) in members {
            wave.put(out);
            out.extend_from_slice(&form);
        }
    }

    fn row(&self, row: &Row, out: &mut Vec<u8>) {
        row.state.put(out);
        let is_touched = row.flags.contains(Flags::TOUCHED);
        if row.state == MemberState::Removed {
            // Should it join again, it has its tries and its offers.
            is_touched.put(out);
            member::has_been_tried(row).put(out);
            self.tries(row, out);
            if self.counts_falls {
                row.falls_before.put(out);
                self.fell(row, out);
            }
            return;
        }
        reason(row).put(out);
        row.stage.put(out);
        row.flags.put(out);
        row.previous.put(out);
        row.zone.put(out);
        if row.reason == Reason::Locked {
            self.now.since(row.since).put(out);
        }
        (row.offer > 0).put(out);
        let has_deadline = row.deadline != Time::NEVER;
        has_deadline.put(out);
        if has_deadline {
            row.deadline.since(self.now).put(out);
        }
        self.tries(row, out);
        row.returns.min(member::ROLLBACK_RETURNS_MAX + 1).put(out);
        member::has_been_tried(row).put(out);
        if self.counts_falls {
            row.falls.put(out);
            row.falls_before.put(out);
            self.fell(row, out);
            (row.reason == Reason::Returned).put(out);
        }
        row.bad.put(out);
        if is_touched || self.counts_falls {
            self.now.since(row.applied_at).min(self.watched).put(out);
        }
        if matches!(row.state, MemberState::Unverified | MemberState::Verified) {
            self.now.since(row.since).min(self.watched).put(out);
        }
    }

    /// How long ago it fell. Times of falls are in whole seconds.
    fn fell(&self, row: &Row, out: &mut Vec<u8>) {
        let ago =
            |at: u32| self.now.since(Time(u64::from(at) * 1000)).min(self.watched + Duration::from_secs(1));
        row.fell.seconds().into_iter().for_each(|at| ago(at).put(out));
        (self.now.0 % 1000).put(out);
    }

    fn tries(&self, row: &Row, out: &mut Vec<u8>) {
        if self.goes_on {
            row.transport_tries.min(self.tries).put(out);
            row.failed_tries.min(self.tries).put(out);
        }
    }
}

/// Where a queued member stands: behind how many others of its queue, and in which part of it.
fn queued(state: &State, ix: MemberIx, row: &Row, out: &mut Vec<u8>) {
    let wave = state.wave(row.wave);
    let is_again = wave.requeued.contains(&ix);
    let is_blocked = wave.blocked.contains(&ix);
    let planned = |at: &u32| {
        let other = state.members.row(MemberIx(*at));
        other.wave == row.wave && other.state == MemberState::Queued && other.reason != Reason::Locked
    };
    let before = if is_blocked {
        wave.blocked.range(..ix).count()
    } else if is_again {
        wave.requeued.range(..ix).count()
    } else if wave.joined.contains(&(row.since, ix)) {
        wave.joined.range(..(row.since, ix)).count()
    } else {
        (wave.cursor..ix.0).filter(planned).count()
    };
    is_blocked.put(out);
    is_again.put(out);
    wave.joined.contains(&(row.since, ix)).put(out);
    before.put(out);
}

/// What a gate said, as far as it is compared with what it says later.
fn said(fired: &Evidence) -> Vec<u8> {
    let mut out = Vec::new();
    fired.gate.put(&mut out);
    fired.name.put(&mut out);
    fired.scope.put(&mut out);
    fired.verdict.put(&mut out);
    fired.bad.put(&mut out);
    out
}

/// The reason of a member where a table or a gate asks for it.
fn reason(row: &Row) -> Reason {
    let asked: &[Reason] = match row.state {
        MemberState::Queued => match row.reason {
            // Its offer still stands.
            Reason::RetryDue | Reason::Operator => return Reason::RetryDue,
            _ => &[Reason::Locked, Reason::Returned],
        },
        MemberState::Backoff => &[Reason::OfferTimeout, Reason::ReportedFailed],
        MemberState::Absent => &[Reason::AnnouncedLeave],
        MemberState::Control => &[Reason::AnnouncedLeave, Reason::GraceOver],
        MemberState::Applied => &[Reason::EffectiveDiffers],
        MemberState::Verified | MemberState::Unverified => {
            &[Reason::AnnouncedLeave, Reason::EffectiveDiffers, Reason::GraceOver]
        }
        MemberState::Excluded => &[Reason::HashFailedBefore, Reason::LeftSelector],
        MemberState::Failed => &[Reason::LocalEdit, Reason::RolloutEnded],
        MemberState::TimedOut => &[Reason::OfferTimeout, Reason::RolloutEnded, Reason::VerifyTimeout],
        MemberState::RollbackFailed => &[Reason::CapabilityWithdrawn, Reason::NoTarget, Reason::Recalled],
        MemberState::Deferred => &[Reason::GraceOver, Reason::Locked],
        MemberState::RollbackDeferred => &[Reason::NotConnected],
        _ => &[],
    };
    if asked.contains(&row.reason) { row.reason } else { Reason::Nothing }
}
