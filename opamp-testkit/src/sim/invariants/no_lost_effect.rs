//! What was decided is done: each offer is written with the desired configuration it stands for, and once nothing is broken
//! any more, every agent that can runs what it should.

use std::collections::BTreeMap;

use opamp_fleet::rollout::MemberState;
use opamp_proto::{AgentId, Mono};

use super::{Invariant, desire_of, ensure, new_offers};
use crate::sim::agents::SimAgent;
use crate::sim::profiles::Profile;
use crate::sim::world::{IN_USE_AFTER, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct NoLostEffect {
    written: BTreeMap<AgentId, Mono>,
}

impl Invariant for NoLostEffect {
    fn name(&self) -> &'static str {
        "no_lost_effect"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            for offer in new_offers(&commit.written.changes) {
                let desired = desire_of(commit, &offer.agent, offer.offer);
                let is_member = world.store.rows().agents.contains_key(&offer.agent);
                ensure(desired.is_some_and(|desired| desired.rollback == offer.back) || !is_member, || {
                    format!("offer {} of {} was written without what is offered", offer.offer, offer.agent)
                })?;
            }
        }
        let desires = seen.commits.iter().flat_map(|commit| &commit.written.desires).chain(&seen.shared);
        for desired in desires {
            self.written.insert(desired.agent, world.now());
        }
        Ok(())
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let Some(since) = world.calm_since() else { return Ok(()) };
        for agent in &world.agents {
            let Some(row) = world.store.rows().agents.get(&agent.id) else { continue };
            let written = self.written.get(&agent.id).copied().unwrap_or(Mono(0)).max(since);
            if world.now() > written + IN_USE_AFTER && !row.removed {
                let desired = row.desired.and_then(|desired| world.configs.number(desired));
                runs_what_it_should(agent, desired)?;
            }
        }
        for (id, row) in &world.store.rows().rollouts {
            let lost = row.story.lines.iter().find(|line| line.state == MemberState::Offered);
            ensure(lost.is_none() || !row.story.state().is_terminal(), || {
                format!("rollout {id} has ended with an offer under way: {lost:?}")
            })?;
        }
        Ok(())
    }
}

/// An agent that can, and is there, runs what it should.
fn runs_what_it_should(agent: &SimAgent, desired: Option<u8>) -> Result<(), String> {
    let (number, runs) = (agent.spec.number, agent.truth.runs);
    let takes_it = is_obedient(&agent.spec.profile, desired == Some(agent.spec.runs));
    let is_wrong = desired.is_some_and(|desired| desired != runs) && takes_it && is_there(agent);
    ensure(!is_wrong, || format!("agent {number} should run {desired:?} since long ago and runs {runs}"))
}

/// Whether agents of this profile run whatever they are offered, sooner or later. `is_first`: it is what they ran at first,
/// which always works.
fn is_obedient(profile: &Profile, is_first: bool) -> bool {
    match profile {
        Profile::Well
        | Profile::Slow { .. }
        | Profile::Polling { .. }
        | Profile::NoStatus
        | Profile::NoHealth
        | Profile::Merges
        | Profile::Mute
        | Profile::FallsIll { .. }
        | Profile::Mismatched
        | Profile::IllBefore
        | Profile::Flapping { .. }
        | Profile::Offline { .. }
        | Profile::RestartsOnApply => true,
        Profile::Fails { .. } | Profile::FailsOnVersion { .. } | Profile::SelfRollingBack { .. } => is_first,
        // Who hangs, crashes before it has applied anything, or takes nothing any more stays as it is.
        Profile::Silent { .. } | Profile::CrashLooping { .. } | Profile::DropsCapability => false,
    }
}

fn is_there(agent: &SimAgent) -> bool {
    agent.is_up() && agent.link.as_ref().is_some_and(|link| !link.dead)
}

#[cfg(test)]
mod tests {
    use opamp_fleet::faults::Faults;

    use super::*;
    use crate::sim::profiles::Span;
    use crate::sim::scenario::{AgentSpec, Scenario};

    /// What is said of an agent of this profile that ran 0 at first, runs `runs` and should run `desired`.
    fn look(profile: Profile, runs: u8, desired: u8) -> Result<(), String> {
        let drawn = Scenario::drawn(1);
        let spec = AgentSpec { profile, runs: 0, arrives_s: None, ..drawn.agents[0].clone() };
        let mut world = World::new(&Scenario { agents: vec![spec], ..drawn }, Faults::default());
        while !is_there(&world.agents[0]) {
            world.step().unwrap();
        }
        world.agents[0].truth.runs = runs;
        runs_what_it_should(&world.agents[0], Some(desired))
    }

    #[test]
    fn who_fails_with_what_is_new_takes_back_what_it_had() {
        let after = Span::seconds(5);
        assert_eq!(look(Profile::Well, 4, 4), Ok(()));
        assert!(look(Profile::Well, 0, 4).is_err() && look(Profile::Well, 4, 0).is_err());
        assert_eq!(look(Profile::SelfRollingBack { after }, 0, 4), Ok(()), "it went back");
        assert!(look(Profile::SelfRollingBack { after }, 4, 0).is_err(), "it was put back and is not there");
        assert_eq!(look(Profile::DropsCapability, 4, 0), Ok(()), "it takes nothing any more");
    }
}
