//! What an entry about a wave changes: its state, its window, its countdown.

use super::State;
use crate::rollout::gates::{GateCount, GateState, ScopeAt};
use crate::rollout::journal::CountdownIx;
use crate::rollout::plan::Plan;
use crate::rollout::waves::Wave;
use crate::rollout::{Countdown, Reason, RestoreError, Time, WaveIx, WaveState};

/// A wave came into a state. A retry begins the sequential tests of the wave anew; its counts follow from its members. Before
/// the first offer of a wave the control group is compared anew, and what it explains of others is kept.
pub(super) fn wave(
    state: &mut State,
    plan: &Plan,
    ix: WaveIx,
    to: WaveState,
    reason: Reason,
    at: Time,
) -> Result<(), RestoreError> {
    planned(state, ix)?;
    if to == WaveState::Dispatching && plan.control_group > 0 && state.is_compared_anew(ix) {
        state.keep_explained();
    }
    let wave = planned(state, ix)?;
    if to == WaveState::Held && wave.state != WaveState::Held {
        wave.held_from = wave.state;
    }
    if reason == Reason::RetryDue {
        wave.gates.iter_mut().for_each(GateCount::restart);
    }
    (wave.state, wave.reason, wave.entered) = (to, reason, at);
    let by_operator = to == WaveState::Skipped && reason != Reason::RolloutEnded;
    if by_operator || reason == Reason::RetryDue {
        decided(state);
    } else if to == WaveState::Passed {
        state.fired.retain(|fired| fired.scope != ScopeAt::Wave(ix));
    }
    state.last = state.last.max(at);
    Ok(())
}

/// Somebody has decided about all that gates said: they say it again if it is still so.
fn decided(state: &mut State) {
    state.fired.clear();
    let zones = state.zones.iter_mut().flat_map(|zone| zone.gates.iter_mut());
    for count in state.overall.iter_mut().chain(state.tail.gates.iter_mut()).chain(zones) {
        if count.state == GateState::Fired {
            count.state = GateState::Armed;
        }
    }
}

/// A countdown was set, started, stopped or extended.
pub(super) fn countdown(state: &mut State, which: CountdownIx, to: Countdown) -> Result<(), RestoreError> {
    match which {
        CountdownIx::Bake => state.bake = to,
        CountdownIx::Dwell(ix) => planned(state, ix)?.dwell = to,
        CountdownIx::Progress => state.progress = to,
    }
    if let (_, Some(since)) = to.parts() {
        state.last = state.last.max(since);
    }
    Ok(())
}

/// The in-flight window of a wave, or of the tail.
pub(super) fn window(state: &mut State, ix: WaveIx, to: u32) -> Result<(), RestoreError> {
    if ix == WaveIx::TAIL {
        state.tail.window = to;
    } else {
        planned(state, ix)?.window = to;
    }
    Ok(())
}

fn planned(state: &mut State, ix: WaveIx) -> Result<&mut Wave, RestoreError> {
    state.waves.get_mut(ix.index()).ok_or(RestoreError::Invalid { what: "wave" })
}
