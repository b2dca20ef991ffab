//! Everybody gets the configuration that was planned, byte for byte, and only who really ran it is called verified (R1, R29).

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::rollout::{MemberState, RolloutId};
use opamp_proto::{AgentId, Mono};

use super::{Invariant, ensure, story};
use crate::sim::agents::{Happened, SimAgent};
use crate::sim::ledger::Change;
use crate::sim::world::{Commit, StepSeen, World};

/// So long after an agent went back everybody has heard of it that hears anything.
const KNOWN_AFTER: Duration = Duration::from_secs(300);
/// So often somebody may go back and still be called verified.
const TIMES: usize = 5;
/// After so many steps everybody who is verified is looked at.
const EVERY: u64 = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct PinnedConfig {
    steps: u64,
    /// Members that are called verified, and how often they had gone back by themselves before.
    verified: BTreeMap<(RolloutId, AgentId), usize>,
}

impl Invariant for PinnedConfig {
    fn name(&self) -> &'static str {
        "pinned_config"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for delivery in &seen.deliveries {
            ensure(delivery.body == Some(delivery.config) && delivery.number.is_some(), || {
                format!("agent {} got something else than its hash says", delivery.agent)
            })?;
        }
        if seen.forgot {
            self.verified.clear();
        }
        for commit in &seen.commits {
            let Some(story) = story(world, commit.batch.key.rollout) else { continue };
            let target = story.target();
            let wrong = commit.written.desires.iter().find(|new| !new.rollback && new.config != target);
            ensure(wrong.is_none(), || format!("an offer is not of the planned configuration: {wrong:?}"))?;
            let number = world.configs.number(target);
            verified(commit).try_for_each(|agent| really_runs(world, agent, number))?;
            self.note(world, commit);
        }
        self.steps += 1;
        if self.steps.is_multiple_of(EVERY) { self.nobody_goes_back_unnoticed(world) } else { Ok(()) }
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl PinnedConfig {
    /// Remembers since when members are called verified.
    fn note(&mut self, world: &World, commit: &Commit) {
        let rollout = commit.batch.key.rollout;
        for change in &commit.written.changes {
            let Change::Member { agent, before, after, .. } = change else { continue };
            if after.state != MemberState::Verified {
                self.verified.remove(&(rollout, *agent));
            } else if *before != MemberState::Verified {
                let went_back = world.position(agent).map(|agent| went_back(&world.agents[agent]).count());
                self.verified.insert((rollout, *agent), went_back.unwrap_or(0));
            }
        }
    }

    /// Who goes back again and again, and says so, is not called verified all the time. A single time may be missed: the
    /// agent is offered the configuration again at once, and takes it.
    fn nobody_goes_back_unnoticed(&self, world: &World) -> Result<(), String> {
        let Some(heard) = world.calm_since().map(|calm| calm + KNOWN_AFTER) else { return Ok(()) };
        for ((rollout, agent), before) in &self.verified {
            let live = story(world, *rollout).filter(|story| !story.state().is_terminal());
            let (Some(_), Some(agent)) = (live, world.position(agent)) else { continue };
            let agent = &world.agents[agent];
            let times = went_back(agent).skip(*before).filter(|at| *at > heard).count();
            ensure(times < TIMES, || {
                let number = agent.spec.number;
                format!("agent {number} is verified, and has gone back {times} times since and has said so")
            })?;
        }
        Ok(())
    }
}

/// When an agent went back by itself.
fn went_back(agent: &SimAgent) -> impl Iterator<Item = Mono> {
    agent.truth.history.iter().filter(|(_, what)| matches!(what, Happened::WentBack(_))).map(|(at, _)| *at)
}

/// Members that a transaction calls verified.
fn verified(commit: &Commit) -> impl Iterator<Item = &AgentId> {
    commit.written.changes.iter().filter_map(|change| match change {
        Change::Member { agent, before, after, .. }
            if after.state == MemberState::Verified && *before != MemberState::Verified =>
        {
            Some(agent)
        }
        _ => None,
    })
}

fn really_runs(world: &World, agent: &AgentId, target: Option<u8>) -> Result<(), String> {
    let Some(agent) = world.position(agent).map(|position| &world.agents[position]) else { return Ok(()) };
    let Some(target) = target else { return Err("the target is no configuration of this world".to_owned()) };
    let number = agent.spec.number;
    let ran = agent.truth.history.iter().any(|(_, what)| *what == Happened::Applied(target));
    ensure(ran || agent.spec.runs == target, || {
        format!("agent {number} is verified and never ran {target}")
    })?;
    ensure(!went_back_long_ago(world, agent, target), || {
        format!("agent {number} is verified, went back from {target} long ago, and has said so")
    })
}

fn went_back_long_ago(world: &World, agent: &SimAgent, target: u8) -> bool {
    let last = agent.truth.history.iter().rev().find(|(_, what)| !matches!(what, Happened::Received(_)));
    let Some((at, Happened::WentBack(to))) = last else { return false };
    let is_heard = agent.is_up() && agent.link.as_ref().is_some_and(|link| !link.dead);
    *to != target && is_heard && world.is_calm() && world.now() > *at + KNOWN_AFTER
}

#[cfg(test)]
mod tests {
    use opamp_proto::Fingerprint;

    use super::super::made::world;
    use super::*;
    use crate::sim::world::Delivery;

    #[test]
    fn what_arrives_is_what_its_hash_says() {
        let world = world();
        let config = world.configs.fingerprint(world.agents[0].spec.runs).unwrap();
        let seen = |body| {
            let number = world.configs.number(config);
            let delivery = Delivery { agent: 0, config, body, number, at: Mono(0) };
            StepSeen { deliveries: vec![delivery], ..StepSeen::default() }
        };
        assert_eq!(PinnedConfig::default().after(&world, &seen(Some(config))), Ok(()));
        assert!(
            PinnedConfig::default().after(&world, &seen(Some(Fingerprint::from_bytes([9; 16])))).is_err()
        );
        assert!(PinnedConfig::default().after(&world, &seen(None)).is_err());
    }
}
