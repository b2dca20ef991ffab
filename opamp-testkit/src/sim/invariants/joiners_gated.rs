//! Nobody gets the new configuration beside the waves: late joiners queue where their policy says, are offered it by the
//! rollout like everybody else, in the tail not before the first wave is over, and an offer that did not arrive is taken
//! back when its member leaves the queue (R21, R69).

use std::collections::BTreeMap;

use opamp_fleet::rollout::{Changed, LateJoiners, MemberState, RolloutId, WaveIx, WaveState};
use opamp_proto::AgentId;

use super::{Invariant, ensure, is_planned_anew, new_offers, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct JoinersGated {
    /// The waves of each rollout, change by change.
    waves: BTreeMap<RolloutId, Vec<WaveState>>,
}

impl Invariant for JoinersGated {
    fn name(&self) -> &'static str {
        "joiners_gated"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            let rows = world.store.rows().rollouts.iter();
            self.waves = rows.map(|(id, row)| (*id, states(&row.story))).collect();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(story) = story(world, rollout) else { continue };
            every_desire_is_an_offer(commit)?;
            new_offers(&commit.written.changes)
                .filter(|offer| !offer.back)
                .try_for_each(|offer| its_turn_has_come(story, commit, &offer.agent))?;
            let policy = story.plan().settings.joiners;
            let pending = || vec![WaveState::Pending; story.waves.len()];
            let waves = self.waves.entry(rollout).or_insert_with(pending);
            if is_planned_anew(commit) {
                *waves = states(story);
            }
            commit.written.changes.iter().try_for_each(|change| in_turn(waves, policy, change))?;
            let rows = world.store.rows();
            let previous = rows.rollouts.get(&rollout).map(|row| &row.previous);
            // What was recalled is given back to nobody.
            let goes_back = |agent: &AgentId| {
                let config = previous.and_then(|previous| previous.get(agent)).copied().flatten();
                config.is_some_and(|config| !rows.recalled.contains(&config))
            };
            undelivered_are_taken_back(commit, goes_back)?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

fn states(story: &Story) -> Vec<WaveState> {
    story.waves.iter().map(|wave| wave.state).collect()
}

/// Follows the waves through a change. Who comes late joins the queue that the policy names, or the tail if that is closed,
/// and the tail is offered nothing before the first wave is over.
fn in_turn(waves: &mut [WaveState], policy: LateJoiners, change: &Change) -> Result<(), String> {
    match change {
        Change::Wave { wave, after, .. } => {
            if let Some(state) = waves.get_mut(wave.index()) {
                *state = *after;
            }
        }
        Change::Joined { agent, wave, is_new: true, .. } => {
            let last = waves.last().copied();
            let fits = match policy {
                LateJoiners::Continuous => *wave == WaveIx::TAIL,
                LateJoiners::IfOwnWaveDone => waves.get(wave.index()).is_none_or(|state| is_open(*state)),
                LateJoiners::LastWave if last.is_some_and(is_open) => wave.index() + 1 == waves.len(),
                LateJoiners::LastWave => *wave == WaveIx::TAIL,
                LateJoiners::Snapshot => false,
            };
            ensure(fits, || format!("{agent} joined wave {wave} late, by policy {policy}, of {waves:?}"))?;
        }
        Change::Member { agent, wave: WaveIx::TAIL, .. } => {
            let is_offered = new_offers(std::slice::from_ref(change)).any(|offer| !offer.back);
            let is_first_over = waves.first().is_none_or(|state| is_over(*state));
            ensure(!is_offered || is_first_over, || {
                format!("{agent} came late and is offered it before the first wave is over: {waves:?}")
            })?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether who comes late can still join the queue of a wave.
const fn is_open(state: WaveState) -> bool {
    matches!(state, WaveState::Pending | WaveState::Waiting | WaveState::Dispatching)
}

const fn is_over(state: WaveState) -> bool {
    matches!(state, WaveState::Passed | WaveState::Skipped)
}

/// Each new configuration that is written belongs to a member that became offered with it.
fn every_desire_is_an_offer(commit: &Commit) -> Result<(), String> {
    for desired in commit.written.desires.iter().filter(|desired| !desired.rollback) {
        let offers = new_offers(&commit.written.changes);
        let its_own = |offer: super::NewOffer| {
            !offer.back && offer.agent == desired.agent && offer.offer == desired.offer
        };
        let found = offers.into_iter().any(its_own);
        ensure(found, || format!("{} was given the new configuration beside its wave", desired.agent))?;
    }
    Ok(())
}

/// The wave of an offered member dispatches, or did so within the transaction.
fn its_turn_has_come(story: &Story, commit: &Commit, agent: &AgentId) -> Result<(), String> {
    let Some(line) = story.line(agent) else { return Err(format!("{agent} is offered and no member")) };
    if line.wave == WaveIx::TAIL {
        return Ok(());
    }
    let Some(wave) = story.waves.get(line.wave.index()) else {
        return Err(format!("{agent} is in a wave that is none"));
    };
    let dispatched = commit.written.changes.iter().any(|change| {
        matches!(change, Change::Wave { wave, before, after, .. }
            if *wave == line.wave && (*before == WaveState::Dispatching || *after == WaveState::Dispatching))
    });
    ensure(wave.state == WaveState::Dispatching || dispatched, || {
        format!("{agent} is offered while its wave {} is {}", line.wave, wave.state)
    })
}

/// Who leaves before its offer has left the server is given back what it had, if it had anything, or the offer would reach
/// it some day.
fn undelivered_are_taken_back(commit: &Commit, goes_back: impl Fn(&AgentId) -> bool) -> Result<(), String> {
    for change in &commit.written.changes {
        let Change::Member { agent, before, row_before, after, .. } = change else { continue };
        let was_offered = is_undelivered(*before, row_before.as_ref());
        let leaves =
            matches!(after.state, MemberState::Deferred | MemberState::Excluded | MemberState::NotApplicable);
        if was_offered && leaves && goes_back(agent) {
            let taken_back =
                commit.written.desires.iter().any(|desired| desired.rollback && desired.agent == *agent);
            ensure(taken_back, || format!("{agent} is {} and its offer was not taken back", after.state))?;
        }
    }
    Ok(())
}

fn is_undelivered(state: MemberState, row: Option<&Changed>) -> bool {
    match state {
        MemberState::Offered => true,
        MemberState::Absent => row.is_some_and(|row| row.stage == MemberState::Offered),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{AGENT, commit, desired, member, row};
    use super::*;

    fn joins(wave: WaveIx) -> Change {
        let state = MemberState::Queued;
        Change::Joined { agent: AGENT, wave, state, previous: None, is_new: true, row_before: None }
    }

    #[test]
    fn who_comes_late_joins_the_queue_that_its_policy_names() {
        use WaveState::{Dispatching, Passed, Pending, Soaking};
        let look = |waves: &[WaveState], policy, wave| in_turn(&mut waves.to_vec(), policy, &joins(wave));
        let canary = [Dispatching, Pending];
        assert!(look(&canary, LateJoiners::Snapshot, WaveIx::TAIL).is_err(), "nobody joins");
        assert!(look(&canary, LateJoiners::Continuous, WaveIx(0)).is_err());
        assert_eq!(look(&canary, LateJoiners::Continuous, WaveIx::TAIL), Ok(()));
        assert_eq!(look(&canary, LateJoiners::LastWave, WaveIx(1)), Ok(()));
        assert!(look(&canary, LateJoiners::LastWave, WaveIx::TAIL).is_err(), "the last wave is open");
        assert_eq!(look(&[Passed, Soaking], LateJoiners::LastWave, WaveIx::TAIL), Ok(()));
        assert_eq!(look(&[Passed, Pending], LateJoiners::IfOwnWaveDone, WaveIx(1)), Ok(()));
        assert!(look(&[Passed, Pending], LateJoiners::IfOwnWaveDone, WaveIx(0)).is_err());
    }

    #[test]
    fn the_tail_is_offered_nothing_before_the_first_wave_is_over() {
        let Change::Member { agent, before, row_before, after, .. } =
            member(row(MemberState::Queued, 0), row(MemberState::Offered, 1))
        else {
            unreachable!()
        };
        let late = Change::Member { agent, wave: WaveIx::TAIL, before, row_before, after };
        let mut waves = vec![WaveState::Evaluating, WaveState::Pending];
        let policy = LateJoiners::Continuous;
        assert!(in_turn(&mut waves, policy, &late).is_err());
        let (wave, before, after) = (WaveIx(0), WaveState::Evaluating, WaveState::Passed);
        let reason = opamp_fleet::rollout::Reason::GatesPass;
        let at = opamp_fleet::rollout::Time(0);
        let passes = Change::Wave { wave, before, after, reason, at };
        assert_eq!(in_turn(&mut waves, policy, &passes), Ok(()));
        assert_eq!(in_turn(&mut waves, policy, &late), Ok(()));
    }

    #[test]
    fn a_configuration_without_an_offer_is_found() {
        let offered = member(row(MemberState::Queued, 0), row(MemberState::Offered, 1));
        assert_eq!(every_desire_is_an_offer(&commit(vec![offered], vec![desired(1, false)])), Ok(()));
        assert!(every_desire_is_an_offer(&commit(Vec::new(), vec![desired(1, false)])).is_err());
    }

    #[test]
    fn an_offer_that_did_not_arrive_has_to_be_taken_back() {
        let leaves = || member(row(MemberState::Offered, 1), row(MemberState::Deferred, 2));
        assert!(undelivered_are_taken_back(&commit(vec![leaves()], Vec::new()), |_| true).is_err());
        assert_eq!(
            undelivered_are_taken_back(&commit(vec![leaves()], vec![desired(2, true)]), |_| true),
            Ok(())
        );
        assert_eq!(
            undelivered_are_taken_back(&commit(vec![leaves()], Vec::new()), |_| false),
            Ok(()),
            "it had nothing"
        );
        let delivered = member(row(MemberState::Delivered, 1), row(MemberState::Excluded, 1));
        assert_eq!(undelivered_are_taken_back(&commit(vec![delivered], Vec::new()), |_| true), Ok(()));
        let away = Changed { stage: MemberState::Offered, ..row(MemberState::Absent, 1) };
        let left = member(away, row(MemberState::Deferred, 1));
        assert!(undelivered_are_taken_back(&commit(vec![left], Vec::new()), |_| true).is_err());
    }
}
