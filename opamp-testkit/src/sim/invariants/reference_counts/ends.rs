//! Whether it is the end of the first wave, or of the rollout: there a gate fails if everybody who has answered counts against
//! it, however few they are.

use std::collections::{BTreeMap, BTreeSet};

use opamp_fleet::rollout::{MemberState, RolloutState, WaveIx, WaveState};
use opamp_proto::AgentId;

use super::is_an_answer;
use crate::sim::ledger::{Change, Story};

/// How far a rollout is at a place of a transaction.
#[derive(Debug)]
pub(super) struct Ends {
    rollout: RolloutState,
    waves: Vec<WaveState>,
    members: BTreeMap<AgentId, (WaveIx, MemberState)>,
    /// Waves whose gates are asked at their end, and none where those of the rollout are. Where a gate has stopped it then,
    /// further ones say what they have to say in the same transaction.
    over: BTreeSet<Option<WaveIx>>,
}

impl Ends {
    /// Before the change at a place of a transaction. `story` is what the transaction has led to.
    pub(super) fn at(story: &Story, changes: &[Change], place: usize) -> Self {
        let members = story.lines.iter().map(|line| (line.agent, (line.wave, line.state)));
        let mut ends = Self {
            rollout: story.state(),
            waves: story.waves.iter().map(|wave| wave.state).collect(),
            members: members.collect(),
            over: BTreeSet::new(),
        };
        changes.iter().rev().for_each(|change| ends.undo(change));
        ends.note();
        changes.iter().take(place).for_each(|change| ends.follow(change));
        ends
    }

    /// Whether gates are asked here for the last time, of the first wave of which anything is known, or over all waves.
    pub(super) fn is_end_of(&self, scope: Option<WaveIx>) -> bool {
        self.over.contains(&scope) && scope.is_none_or(|wave| self.is_first(wave))
    }

    fn is_first(&self, wave: WaveIx) -> bool {
        let says =
            |state: MemberState| state.in_flight() || state == MemberState::Backoff || is_an_answer(state);
        !self.members.values().any(|(of, state)| *of < wave && says(*state))
    }

    fn undo(&mut self, change: &Change) {
        match change {
            Change::Joined { agent, is_new: true, .. } => _ = self.members.remove(agent),
            Change::Joined { agent, wave, row_before, .. } => {
                let state = row_before.map_or(MemberState::Queued, |row| row.state);
                self.members.insert(*agent, (*wave, state));
            }
            Change::Member { agent, wave, before, .. } => _ = self.members.insert(*agent, (*wave, *before)),
            Change::Rollout { before, .. } => self.rollout = *before,
            Change::Wave { wave, before, .. } => self.set_wave(*wave, *before),
            _ => {}
        }
    }

    fn follow(&mut self, change: &Change) {
        match change {
            Change::Joined { agent, wave, state, .. } => _ = self.members.insert(*agent, (*wave, *state)),
            Change::Member { agent, wave, after, .. } => {
                self.members.insert(*agent, (*wave, after.state));
            }
            Change::Rollout { entry, .. } => self.rollout = entry.to,
            Change::Wave { wave, after, .. } => self.set_wave(*wave, *after),
            _ => {}
        }
        self.note();
    }

    fn set_wave(&mut self, wave: WaveIx, state: WaveState) {
        if let Some(of) = self.waves.get_mut(wave.index()) {
            *of = state;
        }
    }

    fn note(&mut self) {
        for (wave, state) in (0..).map(WaveIx).zip(&self.waves) {
            match state {
                WaveState::Evaluating => _ = self.over.insert(Some(wave)),
                // Further members have joined it, or some are tried again.
                WaveState::Pending
                | WaveState::Waiting
                | WaveState::Dispatching
                | WaveState::Settling
                | WaveState::Soaking => _ = self.over.remove(&Some(wave)),
                WaveState::Held | WaveState::Passed | WaveState::Failed | WaveState::Skipped => {}
            }
        }
        let is_over =
            |wave: &WaveState| matches!(wave, WaveState::Passed | WaveState::Failed | WaveState::Skipped);
        match self.rollout {
            RolloutState::Baking => _ = self.over.insert(None),
            RolloutState::Running if self.waves.iter().all(is_over) => _ = self.over.insert(None),
            RolloutState::Running => _ = self.over.remove(&None),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::{Reason, Time};

    use super::super::super::made;
    use super::*;

    const FIRST: Option<WaveIx> = Some(WaveIx(0));
    const SECOND: Option<WaveIx> = Some(WaveIx(1));

    /// A rollout of two waves that runs, and whose members are in these states.
    fn ends(waves: [WaveState; 2], members: [MemberState; 2]) -> Ends {
        let members = members
            .into_iter()
            .zip(0_u8..)
            .map(|(state, number)| (AgentId::from_bytes([number; 16]), (WaveIx(number.into()), state)));
        let mut ends = Ends {
            rollout: RolloutState::Running,
            waves: waves.into(),
            members: members.collect(),
            over: BTreeSet::new(),
        };
        ends.note();
        ends
    }

    fn wave(wave: WaveIx, before: WaveState, after: WaveState) -> Change {
        Change::Wave { wave, before, after, reason: Reason::Nothing, at: Time(20) }
    }

    #[test]
    fn the_first_wave_is_the_first_of_which_anything_is_known() {
        let of = |first| {
            let waves = [WaveState::Passed, WaveState::Evaluating];
            ends(waves, [first, MemberState::Failed]).is_end_of(SECOND)
        };
        let unknown = [MemberState::Deferred, MemberState::NotApplicable, MemberState::Removed];
        assert_eq!(unknown.map(of), [true; 3]);
        let known = [MemberState::Verified, MemberState::Applying, MemberState::Backoff];
        assert_eq!(known.map(of), [false; 3]);
    }

    #[test]
    fn a_wave_is_at_its_end_until_it_goes_on() {
        let pending = [WaveState::Evaluating, WaveState::Pending];
        let mut ends = ends(pending, [MemberState::Failed, MemberState::Queued]);
        assert!(ends.is_end_of(FIRST) && !ends.is_end_of(None));
        ends.follow(&wave(WaveIx(0), WaveState::Evaluating, WaveState::Held));
        assert!(ends.is_end_of(FIRST), "a further gate says why as well");
        ends.follow(&wave(WaveIx(0), WaveState::Held, WaveState::Dispatching));
        assert!(!ends.is_end_of(FIRST));
    }

    #[test]
    fn a_rollout_is_at_its_end_when_all_its_waves_are_and_while_it_bakes() {
        let passed = [WaveState::Passed, WaveState::Skipped];
        let mut over = ends(passed, [MemberState::Verified; 2]);
        assert!(over.is_end_of(None) && !over.is_end_of(FIRST), "the wave was asked before");
        over.follow(&made::rollout(RolloutState::Running, RolloutState::Paused, None));
        assert!(over.is_end_of(None));
        let mut runs = ends([WaveState::Passed, WaveState::Soaking], [MemberState::Verified; 2]);
        assert!(!runs.is_end_of(None));
        runs.follow(&made::rollout(RolloutState::Running, RolloutState::Baking, None));
        assert!(runs.is_end_of(None));
    }

    #[test]
    fn what_a_transaction_has_changed_is_undone_up_to_a_place() {
        let mut world = made::world();
        let story = loop {
            world.step().unwrap();
            let mut rows = world.store.rows().rollouts.values();
            if let Some(row) = rows.find(|row| row.story.waves[0].state == WaveState::Dispatching) {
                break row.story.clone();
            }
        };
        let wave = |before, after| wave(WaveIx(0), before, after);
        let changes = [
            wave(WaveState::Soaking, WaveState::Evaluating),
            wave(WaveState::Evaluating, WaveState::Dispatching),
        ];
        let at = |place| Ends::at(&story, &changes, place).is_end_of(FIRST);
        assert_eq!([at(0), at(1), at(2)], [false, true, false]);
    }
}
