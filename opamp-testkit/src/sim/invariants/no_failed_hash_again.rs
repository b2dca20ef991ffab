//! What an agent refused, failed with for good, or went back from is not offered to it again, by no rollout, unless an operator
//! allows it (R30, R31).

use std::collections::{BTreeMap, BTreeSet};

use opamp_fleet::rollout::{Changed, Do, First, MemberState, Reason, Resume, RolloutId};
use opamp_proto::{AgentId, Fingerprint};

use super::{Invariant, assigned, ensure, new_offers, story};
use crate::sim::ledger::Change;
use crate::sim::store::Desired;
use crate::sim::world::{StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct NoFailedHashAgain {
    /// What agents refused, or went back from.
    refused: BTreeSet<(AgentId, Fingerprint)>,
    /// What agents failed with for good, and in which rollout.
    failed: BTreeMap<(AgentId, Fingerprint), RolloutId>,
}

impl Invariant for NoFailedHashAgain {
    fn name(&self) -> &'static str {
        "no_failed_hash_again"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            *self = Self::default();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(target) = story(world, rollout).map(|story| story.target()) else { continue };
            commit.written.changes.iter().try_for_each(|change| self.follow(rollout, target, change))?;
        }
        for Desired { agent, config, .. } in assigned::new(seen) {
            let row = world.store.rows().agents.get(agent);
            let is_known =
                self.is_known(&(*agent, *config)) || row.is_some_and(|row| row.failed.contains(config));
            ensure(!is_known, || format!("{config} failed on {agent} and is assigned to it"))?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl NoFailedHashAgain {
    fn follow(&mut self, rollout: RolloutId, target: Fingerprint, change: &Change) -> Result<(), String> {
        match change {
            Change::Command(entry) if entry.result == Ok(First::Done) => match &entry.do_ {
                Do::AllowHash { agent } => self.forget(&(*agent, target)),
                // Those who refused or went back are not tried once more by that.
                Do::Resume(Resume::Retry) => self.failed.retain(|_, of| *of != rollout),
                _ => {}
            },
            Change::Member { agent, after, .. } => {
                let of = (*agent, target);
                let is_offered = new_offers(std::slice::from_ref(change)).any(|offer| !offer.back);
                ensure(!is_offered || !self.is_known(&of), || {
                    format!("{target} failed on {agent}, and rollout {rollout} offers it again")
                })?;
                self.remember(of, rollout, after);
            }
            _ => {}
        }
        Ok(())
    }

    fn remember(&mut self, of: (AgentId, Fingerprint), rollout: RolloutId, after: &Changed) {
        match (after.state, after.reason) {
            // Whatever its state is called: it has refused.
            (MemberState::Backoff, Reason::Refused)
            | (MemberState::Rejected | MemberState::SelfRolledBack, _) => {
                self.refused.insert(of);
            }
            (MemberState::Failed, Reason::ReportedFailed) => {
                self.failed.insert(of, rollout);
            }
            // It runs it after all.
            (MemberState::Applied | MemberState::Verified, _) => self.forget(&of),
            // With its record everything that was known of it is deleted.
            (MemberState::Removed, _) => {
                self.refused.retain(|(agent, _)| *agent != of.0);
                self.failed.retain(|(agent, _), _| *agent != of.0);
            }
            _ => {}
        }
    }

    fn is_known(&self, of: &(AgentId, Fingerprint)) -> bool {
        self.refused.contains(of) || self.failed.contains_key(of)
    }

    fn forget(&mut self, of: &(AgentId, Fingerprint)) {
        self.refused.remove(of);
        self.failed.remove(of);
    }
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::journal::CommandEntry;
    use opamp_fleet::rollout::{CommandKey, Time};

    use super::super::made::{AGENT, CONFIG, ROLLOUT, member, row};
    use super::*;

    const OTHER: RolloutId = RolloutId::from_bytes([9; 16]);

    fn command(do_: Do) -> Change {
        let key = CommandKey::new("a").unwrap();
        let (actor, reason) = ("test".into(), "".into());
        Change::Command(Box::new(CommandEntry {
            key,
            actor,
            reason,
            do_,
            result: Ok(First::Done),
            at: Time(0),
        }))
    }

    fn becomes(state: MemberState, reason: Reason) -> Change {
        member(row(MemberState::Applying, 1), Changed { reason, ..row(state, 1) })
    }

    /// What is said if the same is offered to the agent again after all that, by another rollout.
    fn offered_after(changes: &[Change]) -> Result<(), String> {
        let mut invariant = NoFailedHashAgain::default();
        for change in changes {
            invariant.follow(ROLLOUT, CONFIG, change).unwrap();
        }
        invariant.follow(OTHER, CONFIG, &member(row(MemberState::Queued, 0), row(MemberState::Offered, 1)))
    }

    #[test]
    fn who_refused_failed_or_went_back_is_not_offered_it_by_another_rollout_either() {
        for state in [MemberState::Failed, MemberState::Rejected, MemberState::SelfRolledBack] {
            assert!(offered_after(&[becomes(state, Reason::ReportedFailed)]).is_err(), "{state}");
        }
        assert_eq!(offered_after(&[becomes(MemberState::Backoff, Reason::ReportedFailed)]), Ok(()));
        assert_eq!(offered_after(&[becomes(MemberState::Failed, Reason::RolloutEnded)]), Ok(()));
        assert_eq!(offered_after(&[becomes(MemberState::TimedOut, Reason::ApplyTimeout)]), Ok(()));
    }

    #[test]
    fn operators_allow_what_failed_and_only_by_name_what_was_refused() {
        let (failed, refused) = (
            becomes(MemberState::Failed, Reason::ReportedFailed),
            becomes(MemberState::Rejected, Reason::Refused),
        );
        let retry = || command(Do::Resume(Resume::Retry));
        let allow = || command(Do::AllowHash { agent: AGENT });
        assert_eq!(offered_after(&[failed.clone(), retry()]), Ok(()));
        assert!(offered_after(&[refused.clone(), retry()]).is_err());
        assert_eq!(offered_after(&[failed, allow()]), Ok(()));
        assert_eq!(offered_after(&[refused, allow()]), Ok(()));
    }
}
