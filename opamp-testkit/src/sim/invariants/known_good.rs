//! An agent's last known good configuration is one that it ran until its wave had been watched, and stays that as long as
//! it works; what failed on it is remembered (R31, R66).

use std::collections::BTreeSet;

use opamp_fleet::rollout::{Changed, MemberState, Reason, RolloutState, WaveIx, WaveState};
use opamp_proto::{AgentId, Fingerprint};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct KnownGood {
    /// What agents ran well for as long as they were watched.
    watched: BTreeSet<(AgentId, Fingerprint)>,
}

impl Invariant for KnownGood {
    fn name(&self) -> &'static str {
        "known_good"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            // What was watched since is not known any more.
            let rows = world.store.rows().agents.iter();
            self.watched = rows.filter_map(|(id, row)| Some((*id, row.known_good?))).collect();
        }
        seen.commits.iter().try_for_each(|commit| self.commit(world, commit))
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl KnownGood {
    fn commit(&mut self, world: &World, commit: &Commit) -> Result<(), String> {
        let Some(story) = story(world, commit.batch.key.rollout) else { return Ok(()) };
        let (agents, target) = (&world.store.rows().agents, story.target());
        for desired in commit.written.desires.iter().filter(|desired| desired.rollback) {
            self.watched.remove(&(desired.agent, target));
        }
        for (agent, after) in members(commit) {
            if !says_it_does_not_work(after) && after.state != MemberState::TimedOut {
                continue;
            }
            self.watched.remove(&(*agent, target));
            let forgot = agents.get(agent).is_some_and(|row| !row.failed.contains(&target));
            let is_still = story.line(agent).is_some_and(|line| line.state == after.state);
            ensure(!(forgot && is_still && says_it_does_not_work(after)), || {
                format!("{agent} is {} and nobody remembers that {target} does not work on it", after.state)
            })?;
        }
        for agent in watched_now(story, commit) {
            self.watched.insert((agent, target));
            let known = agents.get(&agent).and_then(|row| row.known_good);
            ensure(known == Some(target) || !agents.contains_key(&agent), || {
                format!("{agent} ran {target} well while it was watched, and goes back to {known:?}")
            })?;
        }
        for line in &story.lines {
            let claims = agents.get(&line.agent).is_some_and(|row| row.known_good == Some(target));
            let is_first = |agent: &AgentId| {
                let position = world.position(agent);
                position.is_some_and(|position| world.agents[position].is_first(target, &world.configs))
            };
            let is_good = self.watched.contains(&(line.agent, target)) || is_first(&line.agent);
            ensure(!claims || is_good, || {
                format!("{target} is known good of {}, which is {}", line.agent, line.state)
            })?;
        }
        Ok(())
    }
}

/// Members that a transaction changed, as they are after each change.
fn members(commit: &Commit) -> impl Iterator<Item = (&AgentId, &Changed)> {
    commit.written.changes.iter().filter_map(|change| match change {
        Change::Member { agent, after, .. } => Some((agent, after)),
        _ => None,
    })
}

/// Whether an agent has shown that the configuration does not work on it.
fn says_it_does_not_work(row: &Changed) -> bool {
    match row.state {
        MemberState::Rejected | MemberState::SelfRolledBack => true,
        MemberState::Failed => row.reason == Reason::ReportedFailed,
        _ => false,
    }
}

/// Members whose time of being watched has ended well with a transaction.
fn watched_now(story: &Story, commit: &Commit) -> Vec<AgentId> {
    let ended: Vec<Option<WaveIx>> = commit
        .written
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Wave { wave, after: WaveState::Passed, reason, .. } if *reason != Reason::EmptyWave => {
                Some(Some(*wave))
            }
            Change::Rollout { entry, .. } if entry.to == RolloutState::Succeeded => Some(None),
            _ => None,
        })
        .collect();
    let is_of = |of: WaveIx| ended.iter().any(|wave| wave.is_none_or(|wave| wave == of));
    let verified = story.lines.iter().filter(|line| line.state == MemberState::Verified);
    verified.filter(|line| is_of(line.wave)).map(|line| line.agent).collect()
}

#[cfg(test)]
mod tests {
    use opamp_fleet::faults::Faults;
    use opamp_fleet::rollout::plan::ConflictPolicy;

    use super::*;
    use crate::sim::profiles::{Profile, Span};
    use crate::sim::scenario::{Act, ActAt, AgentSpec, Faulty, RolloutSpec, Scenario, Shape};

    /// Two rollouts of a fleet of three, of which the first is aborted at a time.
    fn scenario(aborted_at_s: u32) -> Scenario {
        let drawn = Scenario::drawn(1);
        let profiles = [Profile::Well, Profile::Well, Profile::SelfRollingBack { after: Span::seconds(20) }];
        let agents = profiles.into_iter().zip(0..).map(|(profile, number)| AgentSpec {
            number,
            ring: "inner".into(),
            runs: 0,
            apply: Span::between(1, 5),
            arrives_s: None,
            profile,
            ..drawn.agents[0].clone()
        });
        let rollout = |number: u32| RolloutSpec {
            number,
            at_s: 60 + 1_200 * number,
            config: if number == 0 { 4 } else { 5 },
            shape: Shape::AllAtOnce,
            dwell_s: 600,
            dwell_later_s: 600,
            bake_s: 300,
            window_s: 60,
            in_flight_max: 1_000,
            touched_max: u32::MAX,
            zone_max: u32::MAX,
            per_minute: u32::MAX,
            frozen_s: None,
            control_group: 0,
            retries: 0,
            conflict: ConflictPolicy::Queue,
            approval: false,
            ..drawn.rollouts[0].clone()
        };
        let abort = ActAt { at_s: aborted_at_s, act: Act::Abort { rollout: 0 } };
        Scenario {
            replicas: 1,
            faults: Faulty::default(),
            agents: agents.collect(),
            rollouts: vec![rollout(0), rollout(1)],
            acts: vec![abort],
            ..drawn
        }
    }

    /// What each agent goes back to if the second rollout has to be undone, by its number.
    fn goes_back_to(scenario: &Scenario) -> Vec<Option<u8>> {
        let (mut world, mut invariant) = (World::new(scenario, Faults::default()), KnownGood::default());
        while world.store.rows().rollouts.len() < 2 {
            let seen = world.step().expect("both are made");
            assert_eq!(invariant.after(&world, &seen), Ok(()));
        }
        let second = world.operators.id(1).expect("it was made");
        let row = &world.store.rows().rollouts[&second];
        let previous = world.agents.iter().map(|agent| row.previous[&agent.id]);
        previous.map(|previous| previous.and_then(|config| world.configs.number(config))).collect()
    }

    #[test]
    fn nobody_goes_back_to_what_was_verified_and_not_watched_to_the_end() {
        assert_eq!(goes_back_to(&scenario(300)), [Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn who_was_watched_goes_back_to_that() {
        let mut scenario = scenario(800);
        scenario.agents.truncate(2);
        assert_eq!(goes_back_to(&scenario), [Some(4), Some(4)]);
    }

    #[test]
    fn a_configuration_that_was_not_watched_is_no_known_good_one() {
        let (mut world, mut invariant) =
            (World::new(&scenario(300), Faults::default()), KnownGood::default());
        let target = world.configs.fingerprint(4).unwrap();
        let is_verified = |world: &World| {
            let mut rows = world.store.rows().rollouts.values();
            rows.any(|row| row.story.lines.iter().any(|line| line.state == MemberState::Verified))
        };
        while !is_verified(&world) {
            let seen = world.step().expect("somebody is well");
            assert_eq!(invariant.after(&world, &seen), Ok(()));
        }
        for agent in [0, 1] {
            let id = world.agents[agent].id;
            world.store.change_agent(&id, |row| row.known_good = Some(target));
        }
        let seen = loop {
            let seen = world.step().expect("something is committed");
            if !seen.commits.is_empty() {
                break seen;
            }
        };
        assert!(invariant.after(&world, &seen).is_err());
    }
}
