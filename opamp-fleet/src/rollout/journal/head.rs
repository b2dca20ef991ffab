//! The head of a snapshot as bytes: everything of a rollout's state but its members.

use opamp_proto::Fingerprint;

use super::codec::{Wire, at_end, records, words};
use super::plan_wire::version;
use crate::rollout::RestoreError;
use crate::rollout::engine::{Remembered, Samples, State, Total, ZoneCount};
use crate::rollout::gates::{GateCount, GateState};
use crate::rollout::plan::Plan;
use crate::rollout::waves::Wave;

/// The latest version of heads, pages and entries. It changes with the order of the words in them.
pub(super) const RECORDS_VERSION: u32 = 1;

/// What a head says of the members, which its pages have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// How many there are, joiners included.
    pub(super) count: u32,
    /// Previous configurations, those of the plan first.
    pub(super) configs: Vec<Fingerprint>,
}

/// The head of a state.
pub(super) fn encode(state: &State, plan: &Plan) -> Vec<u8> {
    let mut head = Vec::new();
    let out = &mut head;
    let State {
        state: word,
        reason,
        pause,
        from,
        ending,
        scope,
        entered,
        waves,
        tail,
        total: _,
        overall,
        zones,
        control,
        members,
        bake,
        progress,
        touched,
        away,
        again,
        restarting,
        has_shown,
        waived,
        limits,
        commands,
        minutes,
        samples,
        fired,
        last,
        plan: holds,
        raised,
    } = state;
    RECORDS_VERSION.put(out);
    plan.hash.put(out);
    holds.put(out);
    members.rows.len().put(out);
    members.configs.put(out);
    word.put(out);
    reason.put(out);
    pause.put(out);
    from.put(out);
    ending.put(out);
    scope.put(out);
    entered.put(out);
    waves.put(out);
    tail.put(out);
    overall.put(out);
    zones.put(out);
    control.put(out);
    bake.put(out);
    progress.put(out);
    touched.put(out);
    away.put(out);
    again.put(out);
    restarting.put(out);
    has_shown.put(out);
    waived.put(out);
    limits.put(out);
    commands.put(out);
    minutes.put(out);
    samples.put(out);
    fired.put(out);
    last.put(out);
    raised.put(out);
    head
}

/// Puts what a head says into a state of the same plan, and returns what it says of the members.
pub(super) fn decode(mut bytes: &[u8], state: &mut State, plan: &Plan) -> Result<Members, RestoreError> {
    let taken = &mut bytes;
    version(taken, RECORDS_VERSION)?;
    if Fingerprint::take(taken)? != plan.hash {
        return Err(RestoreError::Invalid { what: "plan of a snapshot" });
    }
    state.plan = Wire::take(taken)?;
    let members = Members { count: Wire::take(taken)?, configs: Wire::take(taken)? };
    state.state = Wire::take(taken)?;
    state.reason = Wire::take(taken)?;
    state.pause = Wire::take(taken)?;
    state.from = Wire::take(taken)?;
    state.ending = Wire::take(taken)?;
    state.scope = Wire::take(taken)?;
    state.entered = Wire::take(taken)?;
    state.waves = Wire::take(taken)?;
    state.tail = Wire::take(taken)?;
    state.total = Total::of(state.queues());
    state.overall = Wire::take(taken)?;
    state.zones = Wire::take(taken)?;
    state.control = Wire::take(taken)?;
    state.bake = Wire::take(taken)?;
    state.progress = Wire::take(taken)?;
    state.touched = Wire::take(taken)?;
    state.away = Wire::take(taken)?;
    state.again = Wire::take(taken)?;
    state.restarting = Wire::take(taken)?;
    state.has_shown = Wire::take(taken)?;
    state.waived = Wire::take(taken)?;
    state.limits = Wire::take(taken)?;
    state.commands = Wire::take(taken)?;
    state.minutes = Wire::take(taken)?;
    state.samples = Wire::take(taken)?;
    state.fired = Wire::take(taken)?;
    state.last = Wire::take(taken)?;
    state.raised = Wire::take(taken)?;
    at_end(bytes)?;
    fits(state, plan, members.count)?;
    Ok(members)
}

/// Whether lists are as long as the plan has them, so that nothing is looked up beyond their ends.
fn fits(state: &State, plan: &Plan, count: u32) -> Result<(), RestoreError> {
    let gates = plan.gates.len();
    let waves = || state.waves.iter().chain([&state.tail]);
    let lists = state.waves.len() == plan.waves.len()
        && waves().all(|wave| wave.gates.len() == gates && [0, gates].contains(&wave.explained.len()))
        && state.overall.len() == gates
        && state.control.len() == gates
        && state.zones.iter().all(|zone| zone.gates.len() == gates && zone.zone.index() < plan.zones.len());
    let mut queued = waves().flat_map(|wave| {
        let joined = wave.joined.iter().map(|(_, member)| member);
        wave.requeued.iter().chain(&wave.blocked).chain(joined)
    });
    let positions = queued.all(|member| member.0 < count)
        && waves().all(|wave| wave.first <= wave.end && wave.end <= count && wave.cursor <= count)
        && state.commands.len() <= State::COMMANDS_MAX
        && state.raised.iter().all(|(gate, ..)| gate.index() < gates);
    if lists && positions { Ok(()) } else { Err(RestoreError::Invalid { what: "head of a snapshot" }) }
}

impl<T: Wire + Copy + Default, const N: usize> Wire for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(out));
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        let mut values = [T::default(); N];
        for value in &mut values {
            *value = T::take(bytes)?;
        }
        Ok(values)
    }
}

words! {
    GateState = "armed fired waived";
}

records! {
    GateCount { eligible, bad, excused, awaited, state }
    Remembered { key, asked, result }
    Samples { texts, other }
    Wave {
        state, reason, held_from, first, end, cursor, lent, in_flight, window, by_state, dwell, entered,
        requeued, blocked, joined, gates, explained,
    }
    ZoneCount { zone, by_state, gates }
}
