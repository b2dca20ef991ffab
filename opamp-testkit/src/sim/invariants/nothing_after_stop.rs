//! Nothing new is offered unless the rollout runs and nothing is frozen, nothing is put back unless it rolls back, a pause of
//! an operator ends by an operator, and what has ended stays ended. The store remembers it, so restarts and changes of the
//! leader do not matter.

use std::collections::BTreeMap;

use opamp_fleet::rollout::{Do, Flags, Leavers, MemberState, PauseReason, RolloutId, RolloutState};

use super::{Invariant, ensure, story};
use crate::sim::ledger::Change;
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct NothingAfterStop {
    known: BTreeMap<RolloutId, (RolloutState, Option<PauseReason>)>,
}

impl Invariant for NothingAfterStop {
    fn name(&self) -> &'static str {
        "nothing_after_stop"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            // What was known of the future is not known any more.
            let rollouts = world.store.rows().rollouts.iter();
            self.known = rollouts.map(|(id, row)| (*id, (row.story.state(), None))).collect();
        }
        seen.commits.iter().try_for_each(|commit| self.commit(world, commit))
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl NothingAfterStop {
    fn commit(&mut self, world: &World, commit: &Commit) -> Result<(), String> {
        let rollout = commit.batch.key.rollout;
        let reverts =
            story(world, rollout).is_some_and(|story| story.plan().settings.leavers == Leavers::Revert);
        let asked = world.operators.asked.iter().find(|asked| asked.id == rollout);
        let frozen = asked.and_then(|asked| asked.spec.frozen());
        let (state, pause) = self.known.entry(rollout).or_insert((RolloutState::Draft, None));
        let changes = &commit.written.changes;
        for change in changes {
            match change {
                Change::Rollout { before, entry } => {
                    ensure(!before.is_terminal() || entry.to == *before, || {
                        format!("rollout {rollout} was {before} and is {} now", entry.to)
                    })?;
                    let goes_on = matches!(entry.to, RolloutState::Running | RolloutState::Baking);
                    let was_paused = *state == RolloutState::Paused && *pause == Some(PauseReason::Operator);
                    ensure(!(goes_on && was_paused) || changes.iter().any(is_resume), || {
                        format!("rollout {rollout} went on although an operator had paused it")
                    })?;
                    (*state, *pause) = (entry.to, entry.pause);
                }
                Change::Member { agent, row_before, after, .. } => {
                    let is_new = row_before.map_or(0, |row| row.offer) < after.offer;
                    let is_frozen =
                        frozen.is_some_and(|(from, until)| from <= after.since && after.since < until);
                    ensure(!(is_new && is_frozen && after.state == MemberState::Offered), || {
                        format!("rollout {rollout} is frozen and offered something to {agent}")
                    })?;
                    let allowed = match after.state {
                        MemberState::Offered => state.may_offer(),
                        MemberState::RollbackOffered => {
                            // Who has left the selector is put back on the way, if the plan says so (R22).
                            let leaver = reverts && after.flags.contains(Flags::LEFT);
                            state.may_offer_rollback()
                                || leaver && matches!(state, RolloutState::Running | RolloutState::Baking)
                        }
                        _ => true,
                    };
                    ensure(!is_new || allowed, || {
                        format!(
                            "rollout {rollout} is {state} and offered something to {agent} ({})",
                            after.state
                        )
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_resume(change: &Change) -> bool {
    matches!(change, Change::Command(entry) if matches!(entry.do_, Do::Resume(_)) && entry.result.is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::made::{member, rollout, row, seen, world};
    use super::*;

    fn offered() -> Change {
        member(row(MemberState::Queued, 0), row(MemberState::Offered, 1))
    }

    #[test]
    fn an_offer_is_made_only_while_the_rollout_runs() {
        let (mut invariant, world) = (NothingAfterStop::default(), world());
        let mut look = |changes| invariant.after(&world, &seen(changes, Vec::new()));
        let (ready, running) = (RolloutState::Ready, RolloutState::Running);
        assert_eq!(look(vec![rollout(ready, running, None), offered()]), Ok(()));
        let pause = rollout(running, RolloutState::Paused, Some(PauseReason::Operator));
        assert!(look(vec![pause, offered()]).is_err());
    }

    #[test]
    fn what_an_operator_paused_does_not_go_on_by_itself() {
        let (mut invariant, world) = (NothingAfterStop::default(), world());
        let mut look = |changes| invariant.after(&world, &seen(changes, Vec::new()));
        let (paused, running) = (RolloutState::Paused, RolloutState::Running);
        assert_eq!(look(vec![rollout(running, paused, Some(PauseReason::Operator))]), Ok(()));
        assert!(look(vec![rollout(paused, running, None)]).is_err());
        assert_eq!(look(vec![rollout(running, paused, Some(PauseReason::StorageDegraded))]), Ok(()));
        assert_eq!(look(vec![rollout(paused, running, None)]), Ok(()));
    }

    #[test]
    fn what_has_ended_stays_ended() {
        let (mut invariant, world) = (NothingAfterStop::default(), world());
        let revived = rollout(RolloutState::Aborted, RolloutState::Running, None);
        assert!(invariant.after(&world, &seen(vec![revived], Vec::new())).is_err());
    }
}
