//! Waves: their queues, and the table of wave states and events (R47).
//!
//! ```text
//! turn ─► waiting ⇄ dispatching ─nobody queued─► settling ─nobody in flight─► soaking ─dwell over─► evaluating ─► passed
//! ```
//!
//! Whatever is waited for is looked at again after each event, in [`Engine::go_on`]: a wave goes as far as it can in one
//! call.

mod control_group;
mod dispatch;
mod evaluate;
mod fired;
mod joiners;
mod leaving;
mod turn;
mod walked;
mod window;

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use walked::Walked;

use super::engine::{Engine, State};
use super::gates::GateCount;
use super::members::{Flags, Members, Row};
use super::plan::Plan;
use super::{Countdown, MemberIx, MemberState, Reason, Time, WaveIx, WaveState};

/// One wave, or the tail: the queue of those who come late.
#[derive(Clone, Debug)]
pub(crate) struct Wave {
    pub(crate) state: WaveState,
    /// Why. Of a wave that settles it also says whether it is left out after that: [`Wave::is_left_out`].
    pub(crate) reason: Reason,
    /// What a hold returns to.
    pub(crate) held_from: WaveState,
    /// Its first planned member that is still its own.
    pub(crate) first: u32,
    /// The member after its last planned one.
    pub(crate) end: u32,
    /// Its first planned member that may still be waiting for its first offer.
    pub(crate) cursor: u32,
    /// Members that the next wave lent to it.
    pub(crate) lent: u8,
    pub(crate) in_flight: u32,
    /// Slow start: how many may be in flight.
    pub(crate) window: u32,
    /// Members by state, in the order of [`MemberState::index`].
    pub(crate) by_state: [u32; MemberState::ALL.len()],
    pub(crate) dwell: Countdown,
    /// When it came into its state.
    pub(crate) entered: Time,
    /// Members before the cursor that are queued again, and those that came late and were offered it before.
    pub(crate) requeued: BTreeSet<MemberIx>,
    /// Members that another rollout holds.
    pub(crate) blocked: BTreeSet<MemberIx>,
    /// Members that came late, each with since when it waits: in that order.
    pub(crate) joined: BTreeSet<(Time, MemberIx)>,
    /// One for each gate of the plan.
    pub(crate) gates: Box<[GateCount]>,
    /// For each gate, in thousandths of members, what the control group explained before it was compared with later waves;
    /// empty if it was not.
    pub(crate) explained: Box<[u64]>,
}

impl Wave {
    /// A wave of these planned members whose turn has not come. The tail has none and is dispatched from the start.
    pub(crate) fn new(first: u32, end: u32, dwell: Duration, gates: usize, now: Time) -> Self {
        Self {
            state: WaveState::Pending,
            reason: Reason::Nothing,
            held_from: WaveState::Pending,
            first,
            end,
            cursor: first,
            lent: 0,
            in_flight: 0,
            window: 1,
            by_state: [0; MemberState::ALL.len()],
            dwell: Countdown::stopped(dwell),
            entered: now,
            requeued: BTreeSet::new(),
            blocked: BTreeSet::new(),
            joined: BTreeSet::new(),
            gates: vec![GateCount::default(); gates].into(),
            explained: Box::default(),
        }
    }

    /// Members in a state.
    pub(crate) fn count(&self, state: MemberState) -> u32 {
        self.by_state[state.index()]
    }

    /// Members that still have to be offered, or offered again.
    pub(crate) fn waiting(&self) -> u32 {
        self.count(MemberState::Queued) + self.count(MemberState::Backoff)
    }

    /// Whether nobody is to be offered or has yet to answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting() == 0 && self.in_flight == 0
    }

    /// Whether an operator leaves it out: who is in flight settles, and nobody else is offered anything.
    pub(crate) fn is_left_out(&self) -> bool {
        self.state == WaveState::Settling && self.reason == Reason::Operator
    }

    /// Whether it is over, as it should be: the next one may have its turn.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, WaveState::Passed | WaveState::Skipped)
    }

    /// Whether members that come late can still join its queue.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, WaveState::Pending | WaveState::Waiting | WaveState::Dispatching)
    }

    /// Whether all are left out, need nothing, or are away.
    pub(crate) fn has_nobody_to_watch(&self) -> bool {
        let never = [
            MemberState::AlreadyCurrent,
            MemberState::Control,
            MemberState::Deferred,
            MemberState::Excluded,
            MemberState::Expired,
            MemberState::NotApplicable,
            MemberState::Removed,
        ];
        let all: u32 = self.by_state.iter().sum();
        never.iter().map(|state| self.count(*state)).sum::<u32>() == all
    }

    /// Whether it has an answer of anybody, or waits for one.
    fn has_answers(&self) -> bool {
        self.in_flight > 0 || self.count(MemberState::Backoff) > 0 || answered(&self.by_state) > 0
    }

    /// A member in its queue is one no more.
    fn unqueue(&mut self, ix: MemberIx, since: Time) {
        self.requeued.remove(&ix);
        self.blocked.remove(&ix);
        self.joined.remove(&(since, ix));
    }

    /// A member waits for its offer. The cursor comes to planned ones by itself; of those that came late, who was offered it
    /// before is first.
    fn enqueue(&mut self, ix: MemberIx, since: Time, is_blocked: bool, is_touched: bool) {
        let is_planned = (self.first..self.end).contains(&ix.0);
        if is_blocked {
            self.blocked.insert(ix);
        } else if !is_planned && !is_touched {
            self.joined.insert((since, ix));
        } else if !is_planned || ix.0 < self.cursor {
            self.requeued.insert(ix);
        }
    }

    /// Moves the cursor on to the first planned member that waits for an offer.
    fn advance(&mut self, wave: WaveIx, members: &Members) {
        self.cursor = self.cursor.max(self.first);
        while self.cursor < self.end && !waits(members.row(MemberIx(self.cursor)), wave) {
            self.cursor += 1;
        }
    }
}

/// Of members by state those that have settled and belong in ratios.
pub(crate) fn answered(by_state: &[u32; MemberState::ALL.len()]) -> u32 {
    let states = MemberState::ALL.into_iter().filter(|state| super::gates::is_settled(*state));
    states.map(|state| by_state[state.index()]).sum()
}

/// Whether a member of the wave waits for an offer and nothing but its turn is in its way.
fn waits(row: &Row, wave: WaveIx) -> bool {
    row.wave == wave && row.state == MemberState::Queued && row.reason != Reason::Locked
}

impl State {
    /// A wave, or the tail.
    pub(crate) fn wave(&self, wave: WaveIx) -> &Wave {
        self.waves.get(wave.index()).unwrap_or(&self.tail)
    }

    /// A wave, or the tail.
    pub(crate) fn wave_mut(&mut self, wave: WaveIx) -> &mut Wave {
        self.waves.get_mut(wave.index()).unwrap_or(&mut self.tail)
    }

    /// Whether gates look at members of the wave whatever their windows are: it has begun and is not over, or the rollout
    /// bakes (R44, R48).
    pub(crate) fn watches(&self, wave: WaveIx) -> bool {
        let bakes = self.bakes();
        let of = self.wave(wave);
        let is_under_way = matches!(
            of.state,
            WaveState::Dispatching
                | WaveState::Settling
                | WaveState::Soaking
                | WaveState::Evaluating
                | WaveState::Held
        );
        // Half dispatched, it waits for its window or a budget.
        let goes_on = of.state == WaveState::Waiting && of.has_answers();
        bakes || wave != WaveIx::TAIL && (is_under_way || goes_on)
    }

    /// The wave whose turn it is: the first one that is not over.
    pub(crate) fn current(&self) -> Option<WaveIx> {
        let over = self.waves.partition_point(Wave::is_over);
        (over < self.waves.len()).then_some(WaveIx(over as u16))
    }

    /// The first wave with anybody whose answer it has or waits for, over or not; the tail if there is none. What is asked
    /// of a canary is asked of this one (R29): of a wave whose members were all away nothing was learnt.
    pub(crate) fn first_wave(&self) -> WaveIx {
        let first = self.waves.iter().position(Wave::has_answers);
        first.map_or(WaveIx::TAIL, |first| WaveIx(first as u16))
    }

    /// Whether nobody has answered or runs it already: nothing is known of the configuration. Who had it well and is gone has
    /// answered.
    pub(crate) fn knows_nothing(&self) -> bool {
        let is_current = self.members_in(MemberState::AlreadyCurrent) > 0;
        !is_current && !self.has_shown && self.in_flight() == 0 && answered(self.total.by_state()) == 0
    }

    /// Whether nothing is known of it before members are back that are away.
    pub(crate) fn waits_for_the_first(&self) -> bool {
        self.members_in(MemberState::Deferred) > 0 && self.knows_nothing()
    }

    /// The last wave. A plan has at least one.
    pub(crate) fn last_wave(&self) -> WaveIx {
        WaveIx(self.waves.len().saturating_sub(1) as u16)
    }

    /// All waves, and the tail.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &Wave> {
        self.waves.iter().chain([&self.tail])
    }

    /// Members in a state, over all waves.
    pub(crate) fn members_in(&self, state: MemberState) -> u32 {
        self.total.count(state)
    }

    /// Members in flight, over all waves.
    pub(crate) fn in_flight(&self) -> u32 {
        self.total.in_flight()
    }
}

/// What follows for queues, slow start and the progress deadline from a row before and after. For `State::apply` alone,
/// once for each row it has set.
pub(crate) fn follow(state: &mut State, plan: &Plan, ix: MemberIx, before: Option<&Row>, after: &Row) {
    // Where it waits, if it does.
    let place = |row: &Row| {
        let is_blocked = row.reason == Reason::Locked;
        (row.state == MemberState::Queued).then_some((row.wave, row.since, is_blocked))
    };
    let (was, is) = (before.and_then(place), place(after));
    if was != is {
        if let Some((wave, since, _)) = was {
            state.wave_mut(wave).unqueue(ix, since);
        }
        if let Some((wave, since, is_blocked)) = is {
            let is_touched = after.flags.contains(Flags::TOUCHED);
            state.wave_mut(wave).enqueue(ix, since, is_blocked, is_touched);
        }
    }
    if let Some(before) = before.filter(|row| row.wave != after.wave) {
        advance(state, before.wave);
    }
    if was.is_some() || is.is_some() {
        advance(state, after.wave);
    }
    if let Some(before) = before.filter(|row| row.state != after.state) {
        let cap = window::cap(plan, state, after.wave);
        let wave = state.wave_mut(after.wave);
        wave.window = window::after(wave, cap, before.state, after.state);
    }
    let settles = before.is_some_and(|row| !row.state.settled() && after.state.settled());
    if settles && state.progress.is_running() {
        state.progress = Countdown::stopped(plan.settings.progress).run(after.since);
    }
}

fn advance(state: &mut State, ix: WaveIx) {
    if let Some(wave) = state.waves.get_mut(ix.index()) {
        wave.advance(ix, &state.members);
    }
}

impl Engine {
    /// The longest window of a gate that acts: how long a member is watched at least.
    pub(crate) fn longest_window(&self) -> Duration {
        super::gates::watch(&self.plan.gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_queued_again_stands_before_the_cursor_and_who_came_late_behind_everybody() {
        let mut wave = Wave::new(10, 20, Duration::ZERO, 0, Time(0));
        wave.cursor = 15;
        let now = Time(5);
        wave.enqueue(MemberIx(12), now, false, true);
        wave.enqueue(MemberIx(17), now, false, true);
        wave.enqueue(MemberIx(30), now, false, false);
        wave.enqueue(MemberIx(13), now, true, false);
        assert_eq!(wave.requeued.iter().copied().collect::<Vec<_>>(), [MemberIx(12)]);
        assert_eq!(wave.joined, [(now, MemberIx(30))].into());
        assert_eq!(wave.blocked.iter().copied().collect::<Vec<_>>(), [MemberIx(13)]);
        wave.unqueue(MemberIx(13), now);
        wave.enqueue(MemberIx(13), now, false, false);
        assert!(wave.blocked.is_empty() && wave.requeued.contains(&MemberIx(13)));
        wave.enqueue(MemberIx(31), now, false, true);
        assert!(
            wave.requeued.contains(&MemberIx(31)),
            "it is tried again, and does not wait behind the others"
        );
        wave.unqueue(MemberIx(30), now);
        assert!(wave.joined.is_empty());
    }

    #[test]
    fn in_a_wave_of_members_that_need_nothing_or_are_away_there_is_nobody_to_watch() {
        let mut wave = Wave::new(0, 3, Duration::ZERO, 0, Time(0));
        wave.by_state[MemberState::AlreadyCurrent.index()] = 2;
        wave.by_state[MemberState::Deferred.index()] = 1;
        assert!(wave.has_nobody_to_watch() && wave.is_settled());
        wave.by_state[MemberState::Verified.index()] = 1;
        assert!(!wave.has_nobody_to_watch());
    }
}
