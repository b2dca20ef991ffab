//! No rollout succeeds at whose end nobody is well of those it was offered to, unless somebody has decided about a gate, or who
//! was well is gone (R29, R35).

use std::collections::BTreeSet;

use opamp_fleet::rollout::{Do, MemberState, Resume, RolloutId, RolloutState};
use opamp_proto::AgentId;

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct SuccessIsShown {
    /// Members that were well, or could not say, when they were removed.
    gone: BTreeSet<(RolloutId, AgentId)>,
    /// Rollouts of which somebody has decided that they go on.
    decided: BTreeSet<RolloutId>,
}

impl Invariant for SuccessIsShown {
    fn name(&self) -> &'static str {
        "success_is_shown"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            for change in &commit.written.changes {
                self.follow(rollout, change);
                let succeeds =
                    matches!(change, Change::Rollout { entry, .. } if entry.to == RolloutState::Succeeded);
                if let Some(story) = story(world, rollout).filter(|_| succeeds) {
                    self.may_succeed(rollout, story)?;
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl SuccessIsShown {
    fn follow(&mut self, rollout: RolloutId, change: &Change) {
        match change {
            Change::Command(entry) if entry.result.is_ok() && goes_on(&entry.do_) => {
                self.decided.insert(rollout);
            }
            Change::Joined { agent, .. } => _ = self.gone.remove(&(rollout, *agent)),
            Change::Member { agent, before, after, .. }
                if after.state == MemberState::Removed && shows(*before) =>
            {
                self.gone.insert((rollout, *agent));
            }
            _ => {}
        }
    }

    fn may_succeed(&self, rollout: RolloutId, story: &Story) -> Result<(), String> {
        let touched = story.touched().count();
        let is_shown = story.lines.iter().any(|line| shows(line.state));
        let was_shown = self.gone.iter().any(|(of, _)| *of == rollout);
        ensure(touched == 0 || is_shown || was_shown || self.decided.contains(&rollout), || {
            let failed = story.lines.iter().filter(|line| has_failed(line.state)).count();
            format!(
                "rollout {rollout} has succeeded: it was offered to {touched}, {failed} have failed, nobody is well"
            )
        })
    }
}

/// Whether an order lets a rollout go on whatever a gate says. What an operator has paused goes on as it was.
const fn goes_on(do_: &Do) -> bool {
    match do_ {
        Do::Resume(how) => match how {
            Resume::Plain => false,
            Resume::Raise { .. } | Resume::Retry | Resume::Skip | Resume::Waive { .. } => true,
        },
        Do::SkipGate { .. } | Do::SkipWave => true,
        _ => false,
    }
}

const fn shows(state: MemberState) -> bool {
    matches!(state, MemberState::AlreadyCurrent | MemberState::Unverified | MemberState::Verified)
}

const fn has_failed(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::Failed | MemberState::Rejected | MemberState::SelfRolledBack | MemberState::TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::super::made::{AGENT, ROLLOUT, member, row, world};
    use super::*;

    /// A rollout that was offered to somebody, and is applicable to nobody.
    fn offered() -> Story {
        let mut world = world();
        while world.store.rows().rollouts.values().all(|row| row.story.touched().next().is_none()) {
            world.step().unwrap();
        }
        let rows = world.store.rows().rollouts.values();
        let mut story =
            rows.map(|row| &row.story).find(|story| story.touched().next().is_some()).unwrap().clone();
        story.lines.iter_mut().for_each(|line| line.state = MemberState::NotApplicable);
        story
    }

    #[test]
    fn a_success_is_none_if_nobody_is_well_and_nobody_has_decided() {
        let mut story = offered();
        let mut invariant = SuccessIsShown::default();
        assert!(invariant.may_succeed(ROLLOUT, &story).is_err(), "nobody has failed, and nobody has it");
        story.lines[0].state = MemberState::TimedOut;
        assert!(invariant.may_succeed(ROLLOUT, &story).is_err());
        story.lines[1].state = MemberState::Verified;
        assert_eq!(invariant.may_succeed(ROLLOUT, &story), Ok(()));
        story.lines[1].state = MemberState::Removed;
        assert!(invariant.may_succeed(ROLLOUT, &story).is_err());
        invariant.decided.insert(ROLLOUT);
        assert_eq!(invariant.may_succeed(ROLLOUT, &story), Ok(()));
        story.lines.iter_mut().for_each(|line| line.row = None);
        let untouched = SuccessIsShown::default().may_succeed(ROLLOUT, &story);
        assert_eq!(untouched, Ok(()), "it was offered to nobody");
    }

    #[test]
    fn who_was_well_and_is_gone_has_shown_it_until_it_is_back() {
        let story = offered();
        let after = |from, to| {
            let mut invariant = SuccessIsShown::default();
            invariant.follow(ROLLOUT, &member(row(from, 1), row(to, 1)));
            invariant
        };
        let mut gone = after(MemberState::Verified, MemberState::Removed);
        assert_eq!(gone.may_succeed(ROLLOUT, &story), Ok(()));
        let (wave, state) = (opamp_fleet::rollout::WaveIx(0), MemberState::Queued);
        let (previous, row_before) = (None, None);
        let back = Change::Joined { agent: AGENT, wave, state, previous, is_new: false, row_before };
        gone.follow(ROLLOUT, &back);
        assert!(gone.may_succeed(ROLLOUT, &story).is_err());
        let failed = after(MemberState::Failed, MemberState::Removed);
        assert!(failed.may_succeed(ROLLOUT, &story).is_err(), "that it has failed is not forgotten with it");
        let fell = after(MemberState::Verified, MemberState::Failed);
        assert!(fell.may_succeed(ROLLOUT, &story).is_err(), "it was well once, and is not");
    }

    #[test]
    fn an_operator_who_ends_a_pause_has_decided_about_no_gate() {
        let gate = opamp_fleet::rollout::GateIx(0);
        assert!(!goes_on(&Do::Resume(Resume::Plain)) && !goes_on(&Do::Advance));
        let decisions = [Resume::Retry, Resume::Skip, Resume::Waive { gate }];
        assert!(decisions.into_iter().all(|how| goes_on(&Do::Resume(how))));
        assert!(goes_on(&Do::SkipWave) && goes_on(&Do::SkipGate { gate, wave: None }));
    }
}
