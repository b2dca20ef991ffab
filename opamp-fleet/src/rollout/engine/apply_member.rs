//! What an entry about a member changes: its row, the counters, the slow start, the counts of gates.

use super::State;
use crate::rollout::gates;
use crate::rollout::journal::JoinedEntry;
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::plan::Plan;
use crate::rollout::waves::{self, Wave};
use crate::rollout::{ConfigIx, MemberIx, MemberState, RestoreError, WaveIx, WaveState, ZoneIx};

/// The row of a member has changed.
pub(super) fn member(
    state: &mut State,
    plan: &Plan,
    ix: MemberIx,
    changed: &Changed,
) -> Result<(), RestoreError> {
    if !state.members.has(ix) {
        return Err(RestoreError::Invalid { what: "member" });
    }
    let before = *state.members.row(ix);
    allowed(ix, before.state, changed.state)?;
    let after = before.with(changed);
    set_row(state, plan, ix, &before, &after);
    if before.state != after.state {
        state.last = state.last.max(after.since);
    }
    Ok(())
}

/// A member came late, came back, or was moved to another queue. Its tries and its offer stay; what it counted against
/// where it was does not.
pub(super) fn joined(state: &mut State, plan: &Plan, joined: &JoinedEntry) -> Result<(), RestoreError> {
    let known = state.members.find(&joined.agent);
    let is_next = joined.member.index() == state.members.len();
    if known.map_or(!is_next, |found| found != joined.member) {
        return Err(RestoreError::Invalid { what: "position of a joined member" });
    }
    if joined.wave != WaveIx::TAIL && joined.wave.index() >= state.waves.len() {
        return Err(RestoreError::Invalid { what: "wave" });
    }
    if joined.zone != ZoneIx::NONE && joined.zone.index() >= plan.zones.len() {
        return Err(RestoreError::Invalid { what: "failure domain" });
    }
    if known.is_none() && joined.member.0 >= Plan::MEMBERS_MAX {
        return Err(RestoreError::Invalid { what: "number of members" });
    }
    if known.is_some() {
        allowed(joined.member, state.members.row(joined.member).state, joined.state)?;
    }
    let kept = known.filter(|found| state.members.previous(*found) == joined.previous);
    let previous = match (kept, joined.previous) {
        (Some(found), _) => state.members.row(found).previous,
        (None, Some(config)) => state.members.config_ix(config),
        (None, None) => ConfigIx::NONE,
    };
    let fresh = Row {
        state: joined.state,
        stage: joined.state,
        reason: joined.reason,
        fell: joined.fell,
        ..Row::queued(joined.wave, joined.zone, previous, joined.flags, joined.at)
    };
    if known.is_some() {
        let before = *state.members.row(joined.member);
        let after = Row {
            falls: before.falls,
            transport_tries: before.transport_tries,
            failed_tries: before.failed_tries,
            falls_before: before.falls_before,
            flags: joined.flags | (before.flags & Flags::TOUCHED),
            offer: before.offer,
            applied_at: before.applied_at,
            fell: before.fell.latest(joined.fell),
            ..fresh
        };
        state.members.paces[joined.member.index()] = joined.pace;
        set_row(state, plan, joined.member, &before, &after);
    } else {
        state.members.push(joined.agent, fresh, joined.pace);
        enter(state, plan, &fresh);
        waves::follow(state, plan, joined.member, None, &fresh);
    }
    state.last = state.last.max(joined.at);
    Ok(())
}

/// Members of the next wave belong to this one: the first that are queued, with those between them that are not.
pub(super) fn stretched(state: &mut State, plan: &Plan, ix: WaveIx, by: u8) -> Result<(), RestoreError> {
    let invalid = RestoreError::Invalid { what: "stretched wave" };
    let next = (ix.index() + 1..state.waves.len()).find(|next| {
        let wave = &state.waves[*next];
        wave.first < wave.end
    });
    let (Some(wave), Some(next)) = (state.waves.get(ix.index()), next) else { return Err(invalid) };
    let from = &state.waves[next];
    let is_beside = wave.end == from.first && from.state == WaveState::Pending;
    let lent = lendable(state, WaveIx(next as u16), from, by);
    let (Some(lent), Some(sum)) = (lent.filter(|_| is_beside), wave.lent.checked_add(by)) else {
        return Err(invalid);
    };
    let begin = wave.end;
    for between in ix.index() + 1..next {
        (state.waves[between].first, state.waves[between].end) = (lent, lent);
        state.waves[between].cursor = lent;
    }
    state.waves[next].first = lent;
    state.waves[ix.index()].end = lent;
    state.waves[ix.index()].lent = sum;
    for at in begin..lent {
        let member = MemberIx(at);
        let before = *state.members.row(member);
        // Who was moved to the tail, or back, is not the next wave's to lend.
        if before.wave.index() == next {
            set_row(state, plan, member, &before, &Row { wave: ix, ..before });
        }
    }
    Ok(())
}

/// Where the members end that a wave lends if so many queued ones are asked for; none if it has not so many.
fn lendable(state: &State, next: WaveIx, from: &Wave, by: u8) -> Option<u32> {
    let mut left = by;
    let mut end = from.first;
    while left > 0 {
        if end >= from.end {
            return None;
        }
        let row = state.members.row(MemberIx(end));
        left -= u8::from(row.state == MemberState::Queued && row.wave == next);
        end += 1;
    }
    Some(end)
}

fn allowed(ix: MemberIx, from: MemberState, to: MemberState) -> Result<(), RestoreError> {
    if from.may_become(to) { Ok(()) } else { Err(RestoreError::Edge { member: ix.0, from, to }) }
}

/// Sets a row, and everything that follows from it.
pub(crate) fn set_row(state: &mut State, plan: &Plan, ix: MemberIx, before: &Row, after: &Row) {
    state.members.set(ix, *after);
    count_states(state, before, after);
    count_touched(state, before, after);
    count_gates(state, plan, before, after);
    waves::follow(state, plan, ix, Some(before), after);
}

/// Counts a row that is new.
pub(super) fn enter(state: &mut State, plan: &Plan, row: &Row) {
    state.total.enter(row.state);
    let wave = state.wave_mut(row.wave);
    wave.by_state[row.state.index()] += 1;
    wave.in_flight += u32::from(row.state.in_flight());
    state.touched += u32::from(row.flags.contains(Flags::TOUCHED));
    state.away += u32::from(State::counts_away(row));
    state.again += u32::from(State::counts_again(row));
    state.restarting += u32::from(State::counts_restarting(row));
    let view = row.view();
    gates::count(plan, &mut state.wave_mut(row.wave).gates, None, Some(view));
    gates::count(plan, &mut state.overall, None, Some(view));
    if let Some(zone) = state.zones.get_mut(row.zone.index()) {
        zone.count(plan, None, Some(row));
    }
    gates::count_control(plan, &mut state.control, None, Some(view));
}

fn count_states(state: &mut State, before: &Row, after: &Row) {
    let from = state.wave_mut(before.wave);
    from.by_state[before.state.index()] = from.by_state[before.state.index()].saturating_sub(1);
    from.in_flight = from.in_flight.saturating_sub(u32::from(before.state.in_flight()));
    let to = state.wave_mut(after.wave);
    to.by_state[after.state.index()] += 1;
    to.in_flight += u32::from(after.state.in_flight());
    state.total.leave(before.state);
    state.total.enter(after.state);
    state.has_shown |= State::shows(after);
}

fn count_touched(state: &mut State, before: &Row, after: &Row) {
    let is_new = after.flags.contains(Flags::TOUCHED) && !before.flags.contains(Flags::TOUCHED);
    state.touched += u32::from(is_new);
    state.away += u32::from(State::counts_away(after));
    state.away = state.away.saturating_sub(u32::from(State::counts_away(before)));
    state.again += u32::from(State::counts_again(after));
    state.again = state.again.saturating_sub(u32::from(State::counts_again(before)));
    state.restarting += u32::from(State::counts_restarting(after));
    state.restarting = state.restarting.saturating_sub(u32::from(State::counts_restarting(before)));
}

fn count_gates(state: &mut State, plan: &Plan, before: &Row, after: &Row) {
    let (old, new) = (before.view(), after.view());
    if before.wave == after.wave {
        let State { waves, tail, overall, .. } = state;
        let wave = waves.get_mut(after.wave.index()).unwrap_or(tail);
        gates::count_both(plan, &mut wave.gates, overall, old, new);
    } else {
        gates::count(plan, &mut state.wave_mut(before.wave).gates, Some(old), None);
        gates::count(plan, &mut state.wave_mut(after.wave).gates, None, Some(new));
        gates::count(plan, &mut state.overall, Some(old), Some(new));
    }
    if before.zone == after.zone {
        if let Some(zone) = state.zones.get_mut(after.zone.index()) {
            zone.count(plan, Some(before), Some(after));
        }
    } else {
        if let Some(zone) = state.zones.get_mut(before.zone.index()) {
            zone.count(plan, Some(before), None);
        }
        if let Some(zone) = state.zones.get_mut(after.zone.index()) {
            zone.count(plan, None, Some(after));
        }
    }
    gates::count_control(plan, &mut state.control, Some(old), Some(new));
}

#[cfg(test)]
pub(super) mod tests {
    use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall, pb};

    use super::*;
    use crate::rollout::journal::Entry;
    use crate::rollout::members::{Fell, Pace};
    use crate::rollout::plan::{Candidate, FleetSizes, PlanRequest, Strategy, Target};
    use crate::rollout::{Reason, RolloutId, Time};
    use crate::{AgentFacts, ConfigLimits, ConfigMap, Liveness, Selector};

    pub(in crate::rollout::engine) const NOW: Time = Time(1_700_000_000_000);

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    /// Four members in two waves.
    pub(in crate::rollout::engine) fn state() -> (Plan, State) {
        let file = pb::AgentConfigObject {
            body: "receivers:".to_owned().into(),
            ..pb::AgentConfigObject::default()
        };
        let map = pb::AgentConfigMap { config_map: [("main.yaml".to_owned(), file)].into() };
        let config = ConfigMap::new(map, &ConfigLimits::default()).unwrap();
        let selector = Selector::default();
        let request = PlanRequest {
            strategy: Strategy::Batches { size: 2 },
            override_reason: Some("a test".into()),
            ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
        };
        let facts: Vec<_> = (1..=4)
            .map(|n| AgentFacts {
                capabilities: AgentCapabilities::ACCEPTS_REMOTE_CONFIG,
                liveness: Liveness::Connected,
                ..AgentFacts::expected(agent(n), InstanceUid::from_bytes([n; 16]), Wall(NOW.0))
            })
            .collect();
        let candidates = facts.iter().map(Candidate::new);
        let (plan, members) = Plan::make(request, candidates, FleetSizes::default(), NOW).unwrap();
        let state = State::new(&plan, members, NOW);
        assert_eq!(
            state.waves.iter().map(|wave| (wave.first, wave.end)).collect::<Vec<_>>(),
            [(0, 2), (2, 4)]
        );
        (plan, state)
    }

    fn become_(state: &State, member: u32, to: MemberState, seconds: u64) -> Entry {
        let member = MemberIx(member);
        let row = state.members.row(member);
        let flags = row.flags | Flags::TOUCHED;
        let since = Time(NOW.0 + seconds * 1_000);
        let row = Changed { state: to, stage: to, flags, offer: 1, since, ..row.changed() };
        Entry::Member { member, row }
    }

    #[test]
    fn counters_follow_from_members() {
        let (plan, mut state) = state();
        assert_eq!(state.waves[0].count(MemberState::Queued), 2);
        for (member, to, seconds) in
            [(0, MemberState::Offered, 1), (0, MemberState::Verified, 61), (1, MemberState::Offered, 62)]
        {
            let entry = become_(&state, member, to, seconds);
            state.apply(&plan, &entry).unwrap();
            state.recount(&plan).unwrap();
        }
        assert_eq!(state.waves[0].count(MemberState::Verified), 1);
        assert_eq!((state.waves[0].in_flight, state.touched, state.waves[0].window), (1, 2, 2));
        assert_eq!((state.per_minute(Time(0)), state.last), (1, Time(NOW.0 + 62_000)));
    }

    #[test]
    fn a_step_that_no_rollout_takes_is_refused_and_changes_nothing() {
        let (plan, mut state) = state();
        let entry = become_(&state, 0, MemberState::RolledBack, 1);
        let edge = RestoreError::Edge { member: 0, from: MemberState::Queued, to: MemberState::RolledBack };
        assert_eq!(state.apply(&plan, &entry), Err(edge));
        let Entry::Member { row, .. } = entry else { panic!("a member entry") };
        let unknown = Entry::Member { member: MemberIx(4), row };
        assert_eq!(state.apply(&plan, &unknown), Err(RestoreError::Invalid { what: "member" }));
        state.recount(&plan).unwrap();
        assert_eq!((state.waves[0].count(MemberState::Queued), state.last), (2, NOW));
    }

    #[test]
    fn a_stretched_wave_takes_the_first_queued_members_of_the_next_one() {
        let (plan, mut state) = state();
        for (wave, by) in [(WaveIx(0), 3), (WaveIx(1), 1), (WaveIx(9), 1)] {
            assert!(state.apply(&plan, &Entry::Stretched { wave, by }).is_err(), "{wave}, {by}");
        }
        let excluded = become_(&state, 2, MemberState::Excluded, 1);
        state.apply(&plan, &excluded).unwrap();
        state.apply(&plan, &Entry::Stretched { wave: WaveIx(0), by: 1 }).unwrap();
        let ranges: Vec<_> = state.waves.iter().map(|wave| (wave.first, wave.end, wave.lent)).collect();
        assert_eq!(ranges, [(0, 4, 1), (4, 4, 0)]);
        assert!((0..4).all(|member| state.members.row(MemberIx(member)).wave == WaveIx(0)));
        assert_eq!(state.waves[0].count(MemberState::Queued), 3);
        state.recount(&plan).unwrap();
    }

    fn joined(member: u32, name: u8, wave: WaveIx) -> JoinedEntry {
        JoinedEntry {
            member: MemberIx(member),
            agent: agent(name),
            wave,
            zone: ZoneIx::NONE,
            previous: None,
            pace: Pace { interval_s: 30, spans: 0 },
            fell: Fell::default(),
            flags: Flags::CONNECTED | Flags::JOINER,
            state: MemberState::Queued,
            reason: Reason::Joined,
            at: Time(NOW.0 + 1_000),
        }
    }

    #[test]
    fn a_late_joiner_gets_the_next_row_and_the_queue_it_was_given() {
        let (plan, mut state) = state();
        let misplaced = Entry::Joined(Box::new(joined(5, 9, WaveIx::TAIL)));
        assert!(state.apply(&plan, &misplaced).is_err());
        let unknown_wave = Entry::Joined(Box::new(joined(4, 9, WaveIx(2))));
        assert!(state.apply(&plan, &unknown_wave).is_err());
        state.apply(&plan, &Entry::Joined(Box::new(joined(4, 9, WaveIx::TAIL)))).unwrap();
        assert_eq!(state.members.find(&agent(9)), Some(MemberIx(4)));
        assert_eq!(state.tail.count(MemberState::Queued), 1);
        assert_eq!(state.tail.joined, [(Time(NOW.0 + 1_000), MemberIx(4))].into());
        state.recount(&plan).unwrap();
    }

    #[test]
    fn who_comes_back_keeps_its_tries_and_leaves_the_counts_of_its_wave() {
        let (plan, mut state) = state();
        let name = state.members.id(MemberIx(0)).as_bytes()[0];
        let offered = become_(&state, 0, MemberState::Offered, 1);
        state.apply(&plan, &offered).unwrap();
        let Entry::Member { member, row } = become_(&state, 0, MemberState::Backoff, 2) else { panic!() };
        state.apply(&plan, &Entry::Member { member, row: Changed { failed_tries: 1, ..row } }).unwrap();
        state.apply(&plan, &Entry::Joined(Box::new(joined(0, name, WaveIx::TAIL)))).unwrap();
        let row = state.members.row(MemberIx(0));
        assert_eq!(
            (row.wave, row.state, row.failed_tries, row.offer),
            (WaveIx::TAIL, MemberState::Queued, 1, 1)
        );
        assert!(row.flags.contains(Flags::TOUCHED | Flags::JOINER));
        assert_eq!(state.touched, 1);
        assert_eq!(state.waves[0].by_state.iter().sum::<u32>(), 1);
        state.recount(&plan).unwrap();
    }
}
