//! A rollback gives each member what it had itself, does not go on for ever, and leaves nobody behind: who is called rolled
//! back runs what it had (R66, R68).

use std::collections::BTreeMap;

use opamp_fleet::rollout::{Flags, MemberState, Outcome, Reason, RolloutId, RolloutState, Scope};
use opamp_proto::Fingerprint;

use super::{Invariant, ensure, new_offers};
use crate::sim::agents::SimAgent;
use crate::sim::ledger::{Change, Line};
use crate::sim::profiles::Profile;
use crate::sim::store::{AgentRow, RolloutRow};
use crate::sim::world::{Commit, IN_USE_AFTER, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct RollbackEnds {
    /// Who goes back in each rollout, and why.
    begun: BTreeMap<RolloutId, (Scope, Reason)>,
}

impl Invariant for RollbackEnds {
    fn name(&self) -> &'static str {
        "rollback_ends"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            self.begun.clear();
        }
        for commit in &seen.commits {
            goes_back_once(world, commit)?;
            for change in &commit.written.changes {
                if let Change::Rollout { entry, .. } = change
                    && let Some(scope) = entry.scope.filter(|_| entry.to == RolloutState::RollingBack)
                {
                    self.begun.insert(commit.batch.key.rollout, (scope, entry.reason));
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        for (id, row) in &world.store.rows().rollouts {
            let rolled_back = row.story.state() == RolloutState::RolledBack;
            let of_all = self.begun.get(id).filter(|(scope, _)| rolled_back && *scope == Scope::All);
            for line in &row.story.lines {
                ensure(!rolled_back || !is_on_its_way(line.state), || {
                    format!("rollout {id} is rolled back, but for {line:?}")
                })?;
                let spared = of_all.is_none_or(|(_, reason)| is_spared(line, *reason));
                ensure(spared || !has_it(line), || {
                    format!("rollout {id} is rolled back as a whole, and left out {line:?}")
                })?;
                is_back(world, *id, row, line)?;
            }
        }
        Ok(())
    }
}

/// Whether a member was to go back and has not.
const fn is_on_its_way(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::RollbackQueued
            | MemberState::RollbackOffered
            | MemberState::RollbackDeferred
            | MemberState::RollbackFailed
    )
}

/// Whether a member may have the configuration that all go back from.
fn has_it(line: &Line) -> bool {
    let has = matches!(line.state.outcome(), Outcome::Bad | Outcome::Well)
        || line.state == MemberState::Unverified
        || line.state.in_flight();
    line.offer() > 0 && has && !is_on_its_way(line.state) && line.state != MemberState::RolledBack
}

/// A rollback that nobody asked for spares members that were ill before (R72).
fn is_spared(line: &Line, reason: Reason) -> bool {
    let was_ill = line.row.is_some_and(|row| row.flags.contains(Flags::WAS_UNHEALTHY));
    reason == Reason::GateFailed && was_ill
}

/// Who is called rolled back, and was not given anything else since, is to run what it had, and runs it.
fn is_back(world: &World, id: RolloutId, row: &RolloutRow, line: &Line) -> Result<(), String> {
    let (rows, agent) = (world.store.rows(), line.agent);
    let Some(of) = rows.agents.get(&agent).filter(|of| !of.removed && last_offer_is_of(of, id)) else {
        return Ok(());
    };
    let own = row.previous.get(&agent).copied().flatten();
    if line.state != MemberState::RolledBack || own.is_none() {
        return Ok(());
    }
    ensure(of.desired == own, || {
        format!("{agent} is rolled back to {own:?} by rollout {id}, and is to run {:?}", of.desired)
    })?;
    runs(world, line, own)
}

fn last_offer_is_of(row: &AgentRow, rollout: RolloutId) -> bool {
    row.offers.last().is_some_and(|(_, key)| key.rollout == rollout)
}

fn runs(world: &World, line: &Line, own: Option<Fingerprint>) -> Result<(), String> {
    let agent = world.position(&line.agent).map(|position| &world.agents[position]);
    let number = own.and_then(|own| world.configs.number(own));
    let has_had_time = world.now() > world.last_desired() + IN_USE_AFTER && world.is_calm();
    // Some go back to what they had at first from whatever they were given, long after they have said that it works.
    let stays = |agent: &&SimAgent| {
        let goes_back = matches!(agent.spec.profile, Profile::SelfRollingBack { .. });
        !goes_back || number == Some(agent.spec.runs)
    };
    let is_wrong = agent.filter(stays).filter(|agent| has_had_time && Some(agent.truth.runs) != number);
    ensure(is_wrong.is_none(), || {
        let runs = is_wrong.map(|agent| agent.truth.runs);
        format!("{} is rolled back to {number:?}, and runs {runs:?}", line.agent)
    })
}

/// Each goes back to what it had itself, and only who waits for that is offered it.
fn goes_back_once(world: &World, commit: &Commit) -> Result<(), String> {
    let rollout = commit.batch.key.rollout;
    let Some(row) = world.store.rows().rollouts.get(&rollout) else { return Ok(()) };
    for desired in commit.written.desires.iter().filter(|desired| desired.rollback) {
        let own = row.previous.get(&desired.agent).copied().flatten();
        ensure(own == Some(desired.config), || {
            format!("{} goes back to {}, it had {own:?}", desired.agent, desired.config)
        })?;
    }
    for offer in new_offers(&commit.written.changes).filter(|offer| offer.back) {
        let agent = offer.agent;
        let waits = matches!(offer.from, MemberState::RollbackQueued | MemberState::RollbackDeferred);
        ensure(waits, || format!("{agent} is {} and is put back once more", offer.from))?;
    }
    for change in &commit.written.changes {
        let Change::Member { agent, before, after, .. } = change else { continue };
        let again = matches!(after.state, MemberState::RollbackQueued | MemberState::RollbackOffered);
        ensure(!(*before == MemberState::RollbackFailed && again), || {
            format!("the rollback of {agent} had failed, and is tried again")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::Changed;

    use super::super::made::{member, row, seen, world};
    use super::*;

    #[test]
    fn who_was_put_back_or_failed_to_be_is_not_put_back_again() {
        let mut world = world();
        let look = |world: &World, from, to| {
            let change = member(row(from, 1), row(to, 2));
            RollbackEnds::default().after(world, &seen(vec![change], Vec::new()))
        };
        // Nothing is known of a rollout that has no record.
        let (offered, failed) = (MemberState::RollbackOffered, MemberState::RollbackFailed);
        assert_eq!(look(&world, failed, MemberState::RollbackQueued), Ok(()));
        while world.store.rows().rollouts.is_empty() {
            world.step().unwrap();
        }
        let id = *world.store.rows().rollouts.keys().next().unwrap();
        let commit = |from, to| {
            let made = super::super::made::commit(vec![member(row(from, 1), row(to, 2))], Vec::new());
            let mut batch = (*made.batch).clone();
            batch.key.rollout = id;
            Commit { batch: std::sync::Arc::new(batch), ..made }
        };
        assert_eq!(goes_back_once(&world, &commit(MemberState::RollbackQueued, offered)), Ok(()));
        assert!(goes_back_once(&world, &commit(offered, offered)).is_err());
        assert!(goes_back_once(&world, &commit(failed, MemberState::RollbackQueued)).is_err());
    }

    #[test]
    fn who_is_called_rolled_back_is_to_run_what_it_had() {
        let mut world = world();
        // Somebody has been offered the new configuration.
        let (id, line) = loop {
            world.step().unwrap();
            let rows = world.store.rows();
            let mut lines =
                rows.rollouts.iter().flat_map(|(id, row)| row.story.lines.iter().map(|line| (*id, line)));
            let offered = lines.find(|(id, line)| {
                line.offer() > 0 && rows.agents.get(&line.agent).is_some_and(|row| last_offer_is_of(row, *id))
            });
            if let Some((id, line)) = offered {
                break (id, line.clone());
            }
        };
        let row = world.store.rows().rollouts[&id].clone();
        let back = Line { state: MemberState::RolledBack, ..line.clone() };
        assert_eq!(is_back(&world, id, &row, &line), Ok(()), "it is not called rolled back");
        assert!(is_back(&world, id, &row, &back).is_err(), "the store has the new configuration for it");
        let own = row.previous[&line.agent];
        world.store.change_agent(&line.agent, |row| row.desired = own);
        assert_eq!(is_back(&world, id, &row, &back), Ok(()));
    }

    #[test]
    fn a_rollback_of_all_leaves_nobody_behind_but_who_was_ill_before() {
        let line = |state, flags| {
            let row = Changed { flags, ..row(state, 1) };
            Line {
                agent: super::super::made::AGENT,
                wave: opamp_fleet::rollout::WaveIx(0),
                state,
                row: Some(row),
            }
        };
        let verified = line(MemberState::Verified, Flags::default());
        assert!(has_it(&verified) && !is_spared(&verified, Reason::GateFailed));
        let was_ill = line(MemberState::Verified, Flags::WAS_UNHEALTHY);
        assert!(is_spared(&was_ill, Reason::GateFailed) && !is_spared(&was_ill, Reason::Operator));
        assert!(!has_it(&line(MemberState::RolledBack, Flags::default())));
        assert!(!has_it(&line(MemberState::Removed, Flags::default())));
    }
}
