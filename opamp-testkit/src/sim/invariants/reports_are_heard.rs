//! What an agent said of the first offer of a configuration, and a replica took in, is soon in its row, whatever engines made of
//! it: nobody who said APPLIED or FAILED goes on being waited for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use opamp_fleet::rollout::{ConfigStatus, MemberState, RolloutId};
use opamp_proto::{AgentId, Mono};

use super::{Invariant, ensure, new_offers, story};
use crate::sim::agents::{Happened, SimAgent};
use crate::sim::ledger::Line;
use crate::sim::world::{Heard, StepSeen, World};

/// So long after it was taken in it is in the row, where nothing is broken: enough for another replica to begin to lead.
const SOON: Duration = Duration::from_secs(120);

/// Something that is to be in a row soon.
#[derive(Clone, Copy, Debug)]
struct Expected {
    rollout: RolloutId,
    agent: AgentId,
    what: Happened,
    by: Mono,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ReportsAreHeard {
    /// When each rollout made its first offer to each agent.
    offered: BTreeMap<(RolloutId, AgentId), Mono>,
    expected: VecDeque<Expected>,
}

impl Invariant for ReportsAreHeard {
    fn name(&self) -> &'static str {
        "reports_are_heard"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            *self = Self::default();
        }
        for commit in &seen.commits {
            let first = new_offers(&commit.written.changes).filter(|offer| !offer.back && offer.offer == 1);
            let rollout = commit.batch.key.rollout;
            self.offered.extend(first.map(|offer| ((rollout, offer.agent), world.now())));
        }
        if world.is_calm() {
            seen.reports.iter().for_each(|heard| self.expect(world, heard));
        }
        while self.expected.front().is_some_and(|expected| expected.by <= world.now()) {
            let Some(expected) = self.expected.pop_front() else { break };
            is_in_the_row(world, expected)?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl ReportsAreHeard {
    /// What a report leads to in rollouts of which it answers the first offer.
    fn expect(&mut self, world: &World, heard: &Heard) {
        let agent = &world.agents[heard.agent];
        let Some(number) = world.configs.number(heard.config) else { return };
        let what = match heard.status {
            ConfigStatus::Applied => Happened::Applied(number),
            ConfigStatus::Failed => Happened::Failed(number),
            ConfigStatus::Applying | ConfigStatus::Unset => return,
        };
        for (id, row) in &world.store.rows().rollouts {
            let line =
                row.story.line(&agent.id).filter(|line| row.story.target() == heard.config && waits(line));
            let offered = line.and_then(|_| self.offered.get(&(*id, agent.id)));
            if offered.is_some_and(|since| answers(agent, what, number, *since)) {
                let by = world.now() + SOON;
                self.expected.push_back(Expected { rollout: *id, agent: agent.id, what, by });
            }
        }
    }
}

/// Whether a member is waited for that has had one offer.
fn waits(line: &Line) -> bool {
    let is_open =
        |state| matches!(state, MemberState::Offered | MemberState::Delivered | MemberState::Applying);
    let was_open = line.state == MemberState::Absent && line.row.is_some_and(|row| is_open(row.stage));
    line.offer() == 1 && (is_open(line.state) || was_open)
}

/// Whether what an agent said is what became of the first offer, and not what it had said of an earlier one: the
/// configuration never arrived before, and not again since.
fn answers(agent: &SimAgent, what: Happened, number: u8, offered: Mono) -> bool {
    let history = &agent.truth.history;
    let mut arrived = history.iter().filter(|(_, of)| *of == Happened::Received(number));
    let is_first = arrived.next().is_some_and(|(at, _)| *at >= offered) && arrived.next().is_none();
    is_first && last(agent) == Some(what)
}

/// What became last of a configuration at an agent.
fn last(agent: &SimAgent) -> Option<Happened> {
    let mut history = agent.truth.history.iter().rev().map(|(_, what)| *what);
    history.find(|what| !matches!(what, Happened::Received(_)))
}

fn is_in_the_row(world: &World, expected: Expected) -> Result<(), String> {
    let Expected { rollout, agent, what, by: _ } = expected;
    let live = story(world, rollout).filter(|story| !story.state().is_terminal());
    let Some(line) = live.and_then(|story| story.line(&agent)).filter(|line| waits(line)) else {
        return Ok(());
    };
    let still = world.position(&agent).is_some_and(|at| last(&world.agents[at]) == Some(what));
    let (state, seconds) = (line.state, SOON.as_secs());
    ensure(!still, || format!("{agent} is {state} in rollout {rollout}, and said {what:?} {seconds} s ago"))
}

#[cfg(test)]
mod tests {
    use super::super::made::world;
    use super::*;

    #[test]
    fn who_said_something_of_its_first_offer_is_not_waited_for_any_more() {
        let mut world = world();
        // Somebody has said that it has applied its first offer, and no leader knows.
        let (mut invariant, mut latest) = (ReportsAreHeard::default(), None);
        while invariant.expected.is_empty() {
            let seen = world.step().unwrap();
            invariant.after(&world, &seen).unwrap();
            seen.reports.iter().for_each(|heard| invariant.expect(&world, heard));
            latest = invariant.expected.front().copied();
        }
        let expected = latest.unwrap();
        assert!(is_in_the_row(&world, expected).is_err());
        let end = world.now() + SOON;
        while world.now() < end {
            world.step().unwrap();
        }
        assert_eq!(is_in_the_row(&world, expected), Ok(()));
    }

    #[test]
    fn what_was_said_before_the_offer_answers_nothing() {
        let mut world = world();
        let agent = &mut world.agents[0];
        let (received, failed) = (Happened::Received(4), Happened::Failed(4));
        agent.truth.history = vec![(Mono(10), received), (Mono(20), failed)];
        assert!(answers(agent, failed, 4, Mono(5)));
        assert!(!answers(agent, failed, 4, Mono(15)), "it had arrived before");
        assert!(!answers(agent, Happened::Applied(4), 4, Mono(5)));
        agent.truth.history.push((Mono(30), received));
        assert!(!answers(agent, failed, 4, Mono(5)), "it has arrived again");
    }
}
