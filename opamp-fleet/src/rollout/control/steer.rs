//! Commands that steer a rollout that runs: advance, extend, skip, limits (R20).

use std::time::Duration;

use super::resume::By;
use super::{Done, First, Live, needs};
use crate::rollout::engine::{Engine, Run};
use crate::rollout::journal::{CountdownIx, Entry, WaivedEntry};
use crate::rollout::stats::Ppm;
use crate::rollout::{
    Countdown, GateIx, Limits, PauseReason, Reason, Refused, RolloutState, SPAN_MAX, Time, WaveIx, WaveState,
};

impl Engine {
    /// The waiting wave goes on, or dwell or bake end now.
    pub(super) fn advance(&mut self, live: Live, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::RUNNING))
            }
            Live::Paused => Err(live.refuses(needs::RESUME_FIRST)),
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::RUNNING)),
            Live::Baking => {
                let over = Countdown::stopped(Duration::ZERO).run(run.now);
                self.countdown(CountdownIx::Bake, over, run);
                Ok(First::Done)
            }
            Live::Running => match self.state.current() {
                Some(wave) => self.advance_wave(live, wave, run),
                None => Ok(First::NothingToDo),
            },
        }
    }

    fn advance_wave(&mut self, live: Live, ix: WaveIx, run: &mut Run<'_>) -> Done {
        let wave = self.state.wave(ix);
        match (wave.state, wave.reason) {
            (WaveState::Pending, _) => Err(live.refuses(needs::TURN)),
            (WaveState::Waiting, Reason::Approval) => Err(Refused::NotApproved),
            (WaveState::Waiting, Reason::Manual) => {
                self.begin(ix, Reason::Operator, run);
                Ok(First::Done)
            }
            (WaveState::Waiting, Reason::Window | Reason::Freeze) => {
                let until = self.closed_until(run.now).unwrap_or(Time::NEVER);
                Err(Refused::Frozen { until })
            }
            (WaveState::Evaluating, Reason::DwellOver)
                if self.waits_for_others(ix) || self.waits_for_graces(ix) =>
            {
                self.set_wave(ix, WaveState::Evaluating, Reason::Operator, run);
                Ok(First::Done)
            }
            (WaveState::Waiting | WaveState::Evaluating | WaveState::Passed | WaveState::Skipped, _) => {
                Ok(First::NothingToDo)
            }
            (WaveState::Dispatching | WaveState::Settling | WaveState::Failed, _) => {
                Err(live.refuses(needs::WAITS))
            }
            (WaveState::Soaking, _) => {
                self.set_wave(ix, WaveState::Evaluating, Reason::Operator, run);
                Ok(First::Done)
            }
            (WaveState::Held, _) => Err(self.needs_decision()),
        }
    }

    /// Dwell or bake last longer, running or not.
    pub(super) fn extend(&mut self, live: Live, by: Duration, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::RUNNING))
            }
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::RUNNING)),
            Live::Baking => self.extend_bake(by, run),
            Live::Paused if self.state.from == RolloutState::Baking => self.extend_bake(by, run),
            Live::Running | Live::Paused => self.extend_wave(live, by, run),
        }
    }

    fn extend_bake(&mut self, by: Duration, run: &mut Run<'_>) -> Done {
        self.countdown(CountdownIx::Bake, extended(self.state.bake, by, run.now)?, run);
        Ok(First::Done)
    }

    fn extend_wave(&mut self, live: Live, by: Duration, run: &mut Run<'_>) -> Done {
        let Some(ix) = self.state.current() else { return Err(live.refuses(needs::WATCHED)) };
        let (state, dwell) = (self.state.wave(ix).state, self.state.wave(ix).dwell);
        match state {
            WaveState::Pending
            | WaveState::Waiting
            | WaveState::Dispatching
            | WaveState::Settling
            | WaveState::Soaking => {
                self.countdown(CountdownIx::Dwell(ix), extended(dwell, by, run.now)?, run);
                Ok(First::Done)
            }
            WaveState::Evaluating
            | WaveState::Held
            | WaveState::Passed
            | WaveState::Failed
            | WaveState::Skipped => Err(live.refuses(needs::WATCHED)),
        }
    }

    pub(super) fn skip_wave(&mut self, live: Live, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::RUNNING))
            }
            Live::Paused => Err(live.refuses(needs::RESUME_FIRST)),
            Live::Baking | Live::Aborting | Live::RollingBack => Err(live.refuses(needs::RUNNING)),
            Live::Running => match self.state.current() {
                Some(wave) => self.skip(live, wave, run),
                None => Ok(First::NothingToDo),
            },
        }
    }

    /// Leaves a wave out. Its queued members go to the last wave, which takes them over one by one; who is in flight
    /// settles first.
    pub(super) fn skip(&mut self, live: Live, ix: WaveIx, run: &mut Run<'_>) -> Done {
        let wave = self.state.wave(ix);
        let in_flight = wave.in_flight;
        match wave.state {
            WaveState::Pending | WaveState::Failed => Err(live.refuses(needs::TURN)),
            WaveState::Dispatching | WaveState::Settling if in_flight > 0 => {
                if wave.is_left_out() {
                    return Ok(First::NothingToDo);
                }
                self.set_wave(ix, WaveState::Settling, Reason::Operator, run);
                Ok(First::Done)
            }
            WaveState::Waiting
            | WaveState::Dispatching
            | WaveState::Settling
            | WaveState::Soaking
            | WaveState::Evaluating
            | WaveState::Held => {
                self.set_wave(ix, WaveState::Skipped, Reason::Operator, run);
                Ok(First::Done)
            }
            WaveState::Passed | WaveState::Skipped => Ok(First::NothingToDo),
        }
    }

    /// The gate has no say from now on: in one wave, or at all.
    pub(super) fn skip_gate(
        &mut self,
        live: Live,
        gate: GateIx,
        wave: Option<WaveIx>,
        by: By<'_>,
        run: &mut Run<'_>,
    ) -> Done {
        match live {
            Live::Aborting | Live::RollingBack => return Err(live.refuses(needs::RUNNING)),
            Live::Draft
            | Live::PendingApproval
            | Live::Scheduled
            | Live::Preflight
            | Live::Ready
            | Live::Running
            | Live::Paused
            | Live::Baking => {}
        }
        if wave.is_some_and(|wave| wave.index() >= self.state.waves.len()) {
            return Err(Refused::UnknownWave);
        }
        let result = self.waive(gate, wave, None, run)?;
        let by_gate = match self.state.pause {
            Some(PauseReason::Gate) => true,
            Some(PauseReason::Inconclusive) => self.state.reason == Reason::Inconclusive,
            _ => false,
        };
        let is_left = by_gate && self.undecided().is_none();
        if is_left {
            self.leave_pause(live, by, run);
        }
        if self.state.state == RolloutState::Running {
            self.release_held(run);
        }
        Ok(if is_left { First::Done } else { result })
    }

    /// Records that a gate observes only, or that it has other limits.
    pub(super) fn waive(
        &mut self,
        gate: GateIx,
        wave: Option<WaveIx>,
        raised: Option<(Ppm, u32)>,
        run: &mut Run<'_>,
    ) -> Done {
        let config = self.plan.gates.get(gate.index()).ok_or(Refused::UnknownGate)?;
        if raised.is_none() && !config.waivable {
            return Err(Refused::OverrideNeeded);
        }
        let is_so = match (raised, wave) {
            (Some((over, count)), _) => self.state.raised.contains(&(gate, over, count)),
            (None, None) => self.state.waived & gate.bit() != 0,
            (None, Some(wave)) => self.state.wave(wave).gates[gate.index()].state == WAIVED,
        };
        if is_so {
            return Ok(First::NothingToDo);
        }
        let entry = WaivedEntry { gate, wave, raised, at: run.now };
        self.record(Entry::Waived(Box::new(entry)), run);
        Ok(First::Done)
    }

    /// Other limits, never above the hard ones (R54). While the rollout ends only rates change.
    pub(super) fn set_limits(&mut self, live: Live, limits: &Limits, run: &mut Run<'_>) -> Done {
        if let Some((what, _)) = limits.named().into_iter().find(|(_, wanted)| *wanted == 0) {
            return Err(Refused::LetsNobodyThrough { what });
        }
        if let Some((what, limit, _)) = run.shared.beyond_hard(limits) {
            return Err(Refused::BeyondHardLimit { what, limit });
        }
        let to = match live {
            Live::Draft
            | Live::PendingApproval
            | Live::Scheduled
            | Live::Preflight
            | Live::Ready
            | Live::Running
            | Live::Paused
            | Live::Baking => *limits,
            Live::Aborting | Live::RollingBack => {
                Limits { per_hour: limits.per_hour, per_minute: limits.per_minute, ..self.state.limits }
            }
        };
        if to == self.state.limits {
            return Ok(First::NothingToDo);
        }
        self.record(Entry::Limits(Box::new(to)), run);
        self.ask_again();
        Ok(First::Done)
    }
}

/// A countdown that lasts longer, within what a plan may ask for as well.
fn extended(countdown: Countdown, by: Duration, now: Time) -> Result<Countdown, Refused> {
    if countdown.remaining(now).saturating_add(by) > SPAN_MAX {
        let limit = u32::try_from(SPAN_MAX.as_secs()).unwrap_or(u32::MAX);
        return Err(Refused::BeyondHardLimit { what: needs::SECONDS_LEFT, limit });
    }
    Ok(countdown.extend(by))
}

const WAIVED: crate::rollout::gates::GateState = crate::rollout::gates::GateState::Waived;
