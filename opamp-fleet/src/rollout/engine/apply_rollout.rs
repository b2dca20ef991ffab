//! What an entry about the rollout changes: its state, its limits, its waivers, its memory of commands.

use super::{Remembered, State};
use crate::rollout::control::asked;
use crate::rollout::gates::{Evidence, GateCount, GateState, ScopeAt, Verdict};
use crate::rollout::journal::{CommandEntry, RolloutEntry, WaivedEntry};
use crate::rollout::plan::Plan;
use crate::rollout::{GateIx, Limits, RestoreError, RolloutState, WaveIx};

/// The rollout came into a state. Final states are final.
pub(super) fn rollout(state: &mut State, entry: &RolloutEntry) -> Result<(), RestoreError> {
    if state.state.is_terminal() {
        return Err(RestoreError::Invalid { what: "step from a final state" });
    }
    if entry.to == RolloutState::Paused && (entry.pause.is_none() || entry.from.is_none()) {
        return Err(RestoreError::Invalid { what: "pause without its cause" });
    }
    state.state = entry.to;
    state.reason = entry.reason;
    state.pause = entry.pause;
    state.from = entry.from.unwrap_or(entry.to);
    state.ending = entry.ending.unwrap_or(entry.to);
    state.scope = entry.scope;
    state.plan = entry.plan.unwrap_or(state.plan);
    state.entered = entry.at;
    state.last = state.last.max(entry.at);
    Ok(())
}

/// A command is remembered under its key.
pub(super) fn command(state: &mut State, entry: &CommandEntry) -> Result<(), RestoreError> {
    while state.commands.len() >= State::COMMANDS_MAX {
        state.commands.pop_front();
    }
    state.commands.push_back(Remembered {
        key: entry.key.clone(),
        asked: asked(&entry.do_),
        result: entry.result.clone(),
    });
    state.last = state.last.max(entry.at);
    Ok(())
}

/// Other limits hold.
pub(super) fn limits(state: &mut State, limits: &Limits) -> Result<(), RestoreError> {
    state.limits = *limits;
    Ok(())
}

/// A gate has no say any more, or other limits. What it said before is decided with that.
pub(super) fn waived(state: &mut State, plan: &Plan, entry: &WaivedEntry) -> Result<(), RestoreError> {
    let config = plan.gates.get(entry.gate.index()).ok_or(RestoreError::Invalid { what: "gate" })?;
    let to = if entry.raised.is_some() { GateState::Armed } else { GateState::Waived };
    match entry.wave {
        Some(ix) => {
            let wave = state.waves.get_mut(ix.index()).ok_or(RestoreError::Invalid { what: "wave" })?;
            set(&mut wave.gates, entry.gate, to);
        }
        None => {
            let waves = state.waves.iter_mut().chain([&mut state.tail]).map(|wave| &mut wave.gates);
            let zones = state.zones.iter_mut().map(|zone| &mut zone.gates);
            for gates in waves.chain(zones).chain([&mut state.overall]) {
                set(gates, entry.gate, to);
            }
            if entry.raised.is_none() {
                state.waived |= entry.gate.bit();
            }
        }
    }
    if let Some((over, count)) = entry.raised {
        state.raised.retain(|(gate, ..)| *gate != entry.gate);
        state.raised.push((entry.gate, over, count));
    }
    let wave = entry.wave.map(ScopeAt::Wave);
    state.fired.retain(|fired| {
        let is_of_gate = fired.gate == config.kind && fired.name == config.name;
        !is_of_gate || wave.as_ref().is_some_and(|wave| fired.scope != *wave)
    });
    state.last = state.last.max(entry.at);
    Ok(())
}

/// A gate said something that matters. It stands until it is decided about.
pub(super) fn gate(state: &mut State, plan: &Plan, evidence: &Evidence) -> Result<(), RestoreError> {
    if evidence.verdict == Verdict::Fail
        && let Some(gate) = index_of(plan, evidence)
        && let Some(counts) = counts_of(state, &evidence.scope)
        && counts.get(gate.index()).is_some_and(|count| count.state == GateState::Armed)
    {
        set(counts, gate, GateState::Fired);
    }
    state.fired.retain(|fired| {
        fired.gate != evidence.gate || fired.name != evidence.name || fired.scope != evidence.scope
    });
    if state.fired.len() >= State::FIRED_MAX {
        state.fired.remove(0);
    }
    state.fired.push(evidence.clone());
    state.last = state.last.max(evidence.at);
    Ok(())
}

/// The position of a verdict's gate in the plan.
pub(crate) fn index_of(plan: &Plan, evidence: &Evidence) -> Option<GateIx> {
    let of = plan.gates.iter().position(|gate| gate.kind == evidence.gate && gate.name == evidence.name);
    of.map(|at| GateIx(at as u8))
}

fn counts_of<'a>(state: &'a mut State, scope: &ScopeAt) -> Option<&'a mut Box<[GateCount]>> {
    match scope {
        ScopeAt::All => Some(&mut state.overall),
        ScopeAt::Wave(WaveIx::TAIL) => Some(&mut state.tail.gates),
        ScopeAt::Wave(ix) => state.waves.get_mut(ix.index()).map(|wave| &mut wave.gates),
        ScopeAt::Zone(name) => {
            let at = state.members.zones.iter().position(|zone| zone == name)?;
            let zone = state.zones.iter_mut().find(|zone| zone.zone.index() == at)?;
            Some(&mut zone.gates)
        }
    }
}

fn set(counts: &mut [GateCount], gate: GateIx, to: GateState) {
    if let Some(count) = counts.get_mut(gate.index()) {
        count.state = to;
    }
}

impl State {
    /// Most verdicts that stand undecided: one for each gate in each of a few scopes.
    pub(crate) const FIRED_MAX: usize = 64;
}
