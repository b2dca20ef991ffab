//! An agent's last known good configuration is one that it ran until its wave had been watched, and stays that as long as
//! it works; what failed on it is remembered (R31, R66).

use std::collections::BTreeSet;

use opamp_fleet::rollout::{Changed, MemberState, Reason, RolloutState, Time, WaveIx, WaveState};
use opamp_proto::{AgentId, Fingerprint};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Line, Story};
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
        for (agent, is_due) in watched_now(story, commit) {
            self.watched.insert((agent, target));
            if !is_due {
                continue;
            }
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

/// Members whose time of being watched has ended well with a transaction, and whether they were well before that and have
/// stayed so in it. Of those who became well in the very millisecond the store cannot say that they did so after it: they may
/// be known good, and nobody asks for that.
fn watched_now(story: &Story, commit: &Commit) -> Vec<(AgentId, bool)> {
    let changes = &commit.written.changes;
    let ended = changes.iter().enumerate().filter_map(|(place, change)| match change {
        Change::Wave { wave, after: WaveState::Passed, reason, at, .. } if *reason != Reason::EmptyWave => {
            Some((place, Some(*wave), *at))
        }
        Change::Rollout { entry, .. } if entry.to == RolloutState::Succeeded => Some((place, None, entry.at)),
        _ => None,
    });
    let ended: Vec<(usize, Option<WaveIx>, Time)> = ended.collect();
    let stays_well = |of: &AgentId, since: usize| {
        let mut later = changes[since..].iter();
        !later.any(|change| {
            matches!(change, Change::Member { agent, before, after, .. }
                if agent == of && [*before, after.state] != [MemberState::Verified; 2])
        })
    };
    let is_due = |line: &Line| {
        let ended = ended.iter().filter(|(_, wave, _)| wave.is_none_or(|wave| wave == line.wave));
        let known = ended.filter_map(|(place, _, at)| {
            let is_tie = line.row.is_some_and(|row| row.since == *at);
            let stays_well = stays_well(&line.agent, *place);
            (stays_well || is_tie).then_some(stays_well)
        });
        known.max()
    };
    let verified = story.lines.iter().filter(|line| line.state == MemberState::Verified);
    verified.filter_map(|line| Some((line.agent, is_due(line)?))).collect()
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

    #[test]
    fn who_went_back_in_the_transaction_that_ends_its_watch_was_not_well_to_the_end() {
        use super::super::made::{commit, member, row};

        let mut world = World::new(&scenario(800), Faults::default());
        let story = loop {
            world.step().unwrap();
            let rows = world.store.rows().rollouts.values();
            let mut verified = rows
                .map(|row| &row.story)
                .filter(|story| story.lines.iter().any(|line| line.state == MemberState::Verified));
            if let Some(story) = verified.next() {
                break story.clone();
            }
        };
        let line = story.lines.iter().find(|line| line.state == MemberState::Verified).unwrap();
        let (before, after) = (WaveState::Evaluating, WaveState::Passed);
        let reason = Reason::GatesPass;
        let since = line.row.unwrap().since;
        let passed_at = |at| Change::Wave { wave: line.wave, before, after, reason, at };
        let passed = passed_at(Time(since.0 + 10));
        let changed = |from, to| match member(row(from, 1), row(to, 1)) {
            Change::Member { wave, before, row_before, after, .. } => {
                Change::Member { agent: line.agent, wave, before, row_before, after }
            }
            other => other,
        };
        let fell = changed(MemberState::Verified, MemberState::SelfRolledBack);
        let rose = changed(MemberState::SelfRolledBack, MemberState::Verified);
        let watched = |changes| watched_now(&story, &commit(changes, Vec::new()));
        assert_eq!(watched(vec![fell.clone(), rose.clone(), passed.clone()]), [(line.agent, true)]);
        assert_eq!(watched(vec![passed.clone(), fell, rose.clone()]), []);
        assert_eq!(watched(vec![passed, rose.clone()]), [], "it became well when the watch was over");
        assert_eq!(watched(vec![passed_at(since), rose]), [(line.agent, false)], "in the same millisecond");
    }
}
