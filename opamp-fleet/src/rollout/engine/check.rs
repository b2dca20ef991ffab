//! What always holds of a rollout: checked after each entry in tests, in full on request.
//!
//! - Counters are what a recount of the members gives: by state, in flight, touched, and in every gate.
//! - Nobody is lost: whoever waits for an offer stands in exactly one queue of its wave, and nobody else does.
//! - Nobody waits for ever: whoever is in flight or backs off has a deadline, and no wave passes while one of it waits.
//! - Who was offered something is touched, and nobody else is.
//! - Waves have their turn one after the other; a dwell runs only while its wave soaks, and stands while the rollout is paused.
//! - What has ended has nobody in flight.

use super::{Engine, State, Total};
use crate::rollout::gates::{self, GateCount, Scopes};
use crate::rollout::journal::{Entry, SampleEntry};
use crate::rollout::members::{Flags, Row};
use crate::rollout::plan::Plan;
use crate::rollout::waves::Wave;
use crate::rollout::{MemberIx, MemberState, Reason, RolloutState, Time, WaveIx, WaveState, ZoneIx};

/// Something that must always hold does not: a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {found}")]
pub struct Broken {
    /// Which rule.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
}

impl Engine {
    /// Whether everything holds that always must. It looks at every member: for tests and simulations.
    ///
    /// # Errors
    /// [`Broken`] names the first rule that does not hold.
    pub fn check(&self) -> Result<(), Broken> {
        full(&self.state, &self.plan)?;
        let miscounted = self.miscounted_leaving();
        rule("the number of members that may stay away", miscounted.is_none(), || format!("{miscounted:?}"))?;
        let members = (0..self.state.members.len() as u32).map(MemberIx);
        let lost = members.filter(|ix| self.is_lost(*ix)).collect::<Vec<_>>();
        rule("whoever waits is looked for", lost.is_empty(), || format!("members {lost:?} are not"))
    }
}

fn rule(rule: &'static str, holds: bool, found: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { rule, found: found() }) }
}

/// What an entry can have broken, as far as that can be told without looking at other members.
pub(crate) fn after(state: &State, plan: &Plan, entry: &Entry) -> Result<(), Broken> {
    match entry {
        Entry::Joined(joined) => member(state, plan, joined.member),
        Entry::Member { member: ix, .. } => member(state, plan, *ix),
        Entry::Stretched { wave, .. } | Entry::Wave { wave, .. } | Entry::Window { wave, .. } => {
            let of = state.wave(*wave);
            counters(*wave, of)?;
            passed(*wave, of)
        }
        Entry::Command(_)
        | Entry::Countdown { .. }
        | Entry::Gate(_)
        | Entry::Limits(_)
        | Entry::Reading(_)
        | Entry::Rollout(_)
        | Entry::Sampled(_)
        | Entry::Waived(_) => bounds(state, plan),
    }
}

/// Everything.
fn full(state: &State, plan: &Plan) -> Result<(), Broken> {
    state.recount(plan)?;
    bounds(state, plan)?;
    for ix in 0..state.members.rows.len() {
        let ix = MemberIx(ix as u32);
        member(state, plan, ix)?;
        let found = state.members.find(state.members.id(ix));
        rule("an agent is one member", found == Some(ix), || format!("member {ix} is found as {found:?}"))?;
    }
    queues(state)?;
    turns(state)?;
    countdowns(state)?;
    let in_flight: u32 = state.queues().map(|wave| wave.in_flight).sum();
    rule("what has ended has nobody in flight", !state.state.is_terminal() || in_flight == 0, || {
        format!("{in_flight} are in flight in {}", state.state)
    })
}

/// One member and the counters of its wave.
fn member(state: &State, plan: &Plan, ix: MemberIx) -> Result<(), Broken> {
    let found = state.members.rows.get(ix.index());
    let Some(row) = found else {
        return rule("a member has a row", false, || format!("member {ix} has none"));
    };
    let at = || format!("member {ix}: {row:?}");
    rule("who is away, or was to go back, has a stage of its own", row.state.may_be_at(row.stage), at)?;
    let stage = row.state != MemberState::Absent || row.stage != MemberState::Absent;
    rule("who is absent was somewhere before", stage, at)?;
    let offered = row.flags.contains(Flags::TOUCHED);
    rule("who was offered something is touched", offered == (row.offer > 0), at)?;
    let waits = row.state.in_flight() || row.state == MemberState::Backoff;
    rule("who is in flight or backs off has a deadline", !waits || row.deadline != Time::NEVER, at)?;
    let wave = row.wave == WaveIx::TAIL || row.wave.index() < state.waves.len();
    rule("a member has a wave", wave, at)?;
    let zone = row.zone == ZoneIx::NONE || row.zone.index() < plan.zones.len();
    rule("a member's zone is one of the plan's", zone, at)?;
    let gates = u32::from(row.bad) >> plan.gates.len() == 0;
    rule("a member counts against gates of the plan", gates, at)?;
    counters(row.wave, state.wave(row.wave))
}

/// The counters of one wave among themselves.
fn counters(ix: WaveIx, wave: &Wave) -> Result<(), Broken> {
    let states = MemberState::ALL.into_iter().filter(|state| state.in_flight());
    let in_flight: u32 = states.map(|state| wave.by_state[state.index()]).sum();
    rule("a wave knows who is in flight", in_flight == wave.in_flight, || {
        format!("wave {ix}: {} by state, {} in flight", in_flight, wave.in_flight)
    })?;
    let gates = wave.gates.iter().all(|gate| gate.bad <= gate.eligible);
    rule("who counts against a gate takes part in it", gates, || format!("wave {ix}: {:?}", wave.gates))?;
    let cursor = wave.first <= wave.end && wave.cursor <= wave.end;
    rule("a wave's members are a range", cursor, || {
        format!("wave {ix}: {}..{} at {}", wave.first, wave.end, wave.cursor)
    })
}

/// Bounds of everything that grows.
fn bounds(state: &State, plan: &Plan) -> Result<(), Broken> {
    rule("commands are bounded", state.commands.len() <= State::COMMANDS_MAX, || {
        state.commands.len().to_string()
    })?;
    let texts = &state.samples.texts;
    let short = texts.iter().all(|(_, text)| text.len() <= SampleEntry::TEXT_BYTES_MAX);
    rule("sampled texts are bounded", short && texts.len() <= SampleEntry::TEXTS_MAX, || {
        format!("{texts:?}")
    })?;
    let waived = u32::from(state.waived) >> plan.gates.len() == 0;
    rule("only gates of the plan are waived", waived, || format!("{:b}", state.waived))?;
    let paused = (state.state == RolloutState::Paused) == state.pause.is_some();
    rule("a pause has a reason", paused, || format!("{} for {:?}", state.state, state.pause))
}

/// Whoever waits for an offer stands in one queue of its wave, and nobody else does.
fn queues(state: &State) -> Result<(), Broken> {
    let members = &state.members;
    for (at, row) in members.rows.iter().enumerate() {
        if row.state != MemberState::Queued {
            continue;
        }
        let ix = MemberIx(at as u32);
        let wave = state.wave(row.wave);
        let ahead = (wave.cursor.max(wave.first)..wave.end).contains(&ix.0) && row.reason != Reason::Locked;
        let joined = wave.joined.contains(&(row.since, ix));
        let queues = [ahead, wave.requeued.contains(&ix), wave.blocked.contains(&ix), joined];
        let places = queues.into_iter().filter(|is_there| *is_there).count();
        rule("who waits stands in one queue", places == 1, || {
            format!("member {ix} of wave {} stands in {places}: {row:?}", row.wave)
        })?;
    }
    let tail = (WaveIx::TAIL, &state.tail);
    let waves = state.waves.iter().enumerate().map(|(at, wave)| (WaveIx(at as u16), wave)).chain([tail]);
    for (at, wave) in waves {
        let joined = wave.joined.iter().map(|(_, ix)| ix);
        for ix in wave.requeued.iter().chain(&wave.blocked).chain(joined) {
            let row = members.rows.get(ix.index());
            let is_queued = |row: &Row| row.state == MemberState::Queued && row.wave == at;
            rule("nobody else stands in a queue", row.is_some_and(is_queued), || {
                format!("member {ix} in a queue of wave {at}: {row:?}")
            })?;
        }
    }
    Ok(())
}

/// Nobody is left behind in a wave that has passed.
fn passed(ix: WaveIx, wave: &Wave) -> Result<(), Broken> {
    let queued = wave.count(MemberState::Queued);
    rule("nobody waits in a wave that has passed", wave.state != WaveState::Passed || queued == 0, || {
        format!("{queued} wait in wave {ix}")
    })
}

/// Waves have their turn one after the other.
fn turns(state: &State) -> Result<(), Broken> {
    let later = state.waves.iter().skip_while(|wave| wave.is_over()).skip(1);
    let waiting = [WaveState::Pending, WaveState::Skipped, WaveState::Failed];
    let in_order = later.clone().all(|wave| waiting.contains(&wave.state));
    rule("waves have their turn one after the other", in_order, || {
        let states: Vec<_> = state.waves.iter().map(|wave| wave.state.as_str()).collect();
        states.join(", ")
    })
}

/// A countdown belongs to a state, and stands still while the rollout is paused.
fn countdowns(state: &State) -> Result<(), Broken> {
    let paused = state.state == RolloutState::Paused;
    for (at, wave) in state.waves.iter().enumerate() {
        passed(WaveIx(at as u16), wave)?;
        let before = [WaveState::Pending, WaveState::Waiting, WaveState::Dispatching, WaveState::Settling];
        let early = before.contains(&wave.state) || paused && wave.state == WaveState::Soaking;
        rule("a dwell runs while its wave soaks", !(early && wave.dwell.is_running()), || {
            format!("wave {at} is {}, the rollout {}", wave.state, state.state)
        })?;
    }
    let bakes = state.state == RolloutState::Baking || state.state.is_terminal();
    rule("a bake runs while the rollout bakes", bakes || !state.bake.is_running() || ending(state), || {
        format!("it runs while the rollout is {}", state.state)
    })?;
    rule("progress is not asked for while paused", !(paused && state.progress.is_running()), || {
        format!("it runs while paused for {:?}", state.pause)
    })
}

fn ending(state: &State) -> bool {
    matches!(state.state, RolloutState::Aborting | RolloutState::RollingBack)
}

impl State {
    /// Whether the counters are what a recount of the members gives.
    pub(crate) fn recount(&self, plan: &Plan) -> Result<(), Broken> {
        let rows = &self.members.rows;
        let touched = rows.iter().filter(|row| row.flags.contains(Flags::TOUCHED)).count();
        rule("the number of touched members", touched == self.touched as usize, || {
            format!("{touched} are, {} are counted", self.touched)
        })?;
        let away = rows.iter().filter(|row| Self::counts_away(row)).count();
        rule("the number of members that are away", away == self.away as usize, || {
            format!("{away} are, {} are counted", self.away)
        })?;
        let restarting = rows.iter().filter(|row| Self::counts_restarting(row)).count();
        rule("the number of members that may just restart", restarting == self.restarting as usize, || {
            format!("{restarting} are, {} are counted", self.restarting)
        })?;
        let again = rows.iter().filter(|row| Self::counts_again(row)).count();
        rule("the number of members that are tried again", again == self.again as usize, || {
            format!("{again} are, {} are counted", self.again)
        })?;
        let shows = rows.iter().any(State::shows);
        rule("who has it well has shown it", self.has_shown || !shows, || "nobody has".to_owned())?;
        self.recount_states()?;
        let tail = (WaveIx::TAIL, &self.tail);
        let waves = self.waves.iter().enumerate().map(|(at, wave)| (WaveIx(at as u16), wave)).chain([tail]);
        let by_wave = self.rows_by_wave();
        for ((at, wave), members) in waves.zip(by_wave) {
            let counted = gates::recount(plan, members.iter().map(|ix| rows[*ix as usize].view()));
            same("the gates of a wave", &counted, &wave.gates, at)?;
            counters(at, wave)?;
        }
        let overall = gates::recount(plan, rows.iter().map(Row::view));
        same("the gates over all waves", &overall, &self.overall, WaveIx::TAIL)?;
        let mut control = vec![(0, 0); plan.gates.len()];
        rows.iter().for_each(|row| gates::count_control(plan, &mut control, None, Some(row.view())));
        rule("the gates of the control group", control[..] == self.control[..], || {
            format!("{control:?} are, {:?} are counted", self.control)
        })?;
        for zone in &self.zones {
            let of_zone = || rows.iter().filter(|row| row.zone == zone.zone);
            let mut by_state = [0_u32; MemberState::ALL.len()];
            of_zone().for_each(|row| by_state[row.state.index()] += 1);
            rule("members of a zone by state", by_state == zone.by_state, || {
                format!("{by_state:?} are, {:?} are counted", zone.by_state)
            })?;
            let counted = gates::recount(plan, of_zone().map(Row::view));
            let asked = |counts: &[GateCount]| -> Vec<GateCount> {
                let gates = plan.gates.iter().zip(counts);
                gates
                    .filter(|(gate, _)| gate.scopes.contains(Scopes::ZONE))
                    .map(|(_, count)| *count)
                    .collect()
            };
            same("the gates of a zone", &asked(&counted), &asked(&zone.gates), WaveIx::TAIL)?;
        }
        Ok(())
    }

    /// Positions of members by wave, the tail last.
    fn rows_by_wave(&self) -> Vec<Vec<u32>> {
        let mut by_wave = vec![Vec::new(); self.waves.len() + 1];
        for (at, row) in self.members.rows.iter().enumerate() {
            by_wave[row.wave.index().min(self.waves.len())].push(at as u32);
        }
        by_wave
    }

    fn recount_states(&self) -> Result<(), Broken> {
        let total = Total::of(self.queues());
        rule("all waves together", total == self.total, || {
            format!("{total:?}, counted are {:?}", self.total)
        })?;
        let mut by_state = vec![[0_u32; MemberState::ALL.len()]; self.waves.len() + 1];
        for row in &self.members.rows {
            by_state[row.wave.index().min(self.waves.len())][row.state.index()] += 1;
        }
        for (wave, counted) in self.queues().zip(by_state) {
            rule("members by state", wave.by_state == counted, || {
                format!("{counted:?} are, {:?} are counted", wave.by_state)
            })?;
        }
        Ok(())
    }
}

/// What gates said is no part of it.
fn same(what: &'static str, counted: &[GateCount], kept: &[GateCount], wave: WaveIx) -> Result<(), Broken> {
    let numbers = |count: &GateCount| (count.eligible, count.bad, count.excused, count.awaited);
    let equal = counted.len() == kept.len()
        && counted.iter().zip(kept).all(|(counted, kept)| numbers(counted) == numbers(kept));
    rule(what, equal, || {
        let counted: Vec<_> = counted.iter().map(numbers).collect();
        let kept: Vec<_> = kept.iter().map(numbers).collect();
        format!("wave {wave}: (eligible, bad, excused, awaited) are {counted:?}, counted are {kept:?}")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Leaving;
    use super::super::apply_member::tests::{NOW, state};
    use super::*;
    use crate::faults::Faults;

    #[test]
    fn a_wrong_number_of_members_that_may_stay_away_is_noticed() {
        let (plan, state) = state();
        let mut engine = Engine::with(Arc::new(plan), state, Faults::default());
        for (members, holds) in [(0, true), (1, false)] {
            engine.volatile.leaving = Some(Leaving { wave: WaveIx(0), before: NOW, members });
            assert_eq!(engine.check().is_ok(), holds);
        }
    }
}
