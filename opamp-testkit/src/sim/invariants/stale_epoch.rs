//! A leader whose time is over writes nothing, and nothing reaches an agent or leaves a leader that was not committed.

use std::collections::BTreeSet;

use opamp_fleet::rollout::{Act, RolloutId};
use opamp_proto::{AgentId, Fingerprint};

use super::{Invariant, ensure};
use crate::sim::world::{Fenced, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct StaleEpoch {
    /// Agents that each rollout has committed a configuration for.
    written: BTreeSet<(RolloutId, AgentId)>,
    /// Configurations that each agent was ever to run.
    desired: BTreeSet<(AgentId, Fingerprint)>,
}

impl Invariant for StaleEpoch {
    fn name(&self) -> &'static str {
        "stale_epoch"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            let (replica, rollout, epoch) = (commit.replica, commit.batch.key.rollout, commit.batch.epoch);
            ensure(epoch == commit.epoch, || {
                format!("replica {replica} wrote rollout {rollout} under epoch {epoch} of {}", commit.epoch)
            })?;
            self.written.extend(commit.written.desires.iter().map(|desired| (rollout, desired.agent)));
        }
        for Fenced { replica, what, epoch, current } in &seen.fenced {
            ensure(epoch == current, || {
                format!("replica {replica} wrote {what} under epoch {epoch} of {current}")
            })?;
        }
        let desires = seen.commits.iter().flat_map(|commit| &commit.written.desires).chain(&seen.shared);
        self.desired.extend(desires.map(|desired| (desired.agent, desired.config)));
        for delivery in &seen.deliveries {
            let agent = &world.agents[delivery.agent];
            let was_desired = self.desired.contains(&(agent.id, delivery.config));
            ensure(was_desired || agent.is_first(delivery.config, &world.configs), || {
                format!("agent {} was offered what nobody has committed", agent.spec.number)
            })?;
        }
        for acted in &seen.acts {
            let Act::Hint { agent } = &acted.act else { continue };
            ensure(self.written.contains(&(acted.rollout, *agent)), || {
                format!("replica {} hinted at {agent} before anything was committed for it", acted.replica)
            })?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::Epoch;
    use opamp_proto::Mono;

    use super::super::made::{AGENT, CONFIG, ROLLOUT, commit, desired, seen, world};
    use super::*;
    use crate::sim::world::{Acted, Delivery};

    #[test]
    fn a_batch_of_an_older_epoch_must_not_be_written() {
        let stale = crate::sim::world::Commit { epoch: Epoch(2), ..commit(Vec::new(), Vec::new()) };
        let seen = StepSeen { commits: vec![stale], ..StepSeen::default() };
        assert!(StaleEpoch::default().after(&world(), &seen).is_err());
    }

    #[test]
    fn what_belongs_to_no_rollout_must_not_be_written_under_an_older_epoch_either() {
        let (mut invariant, world) = (StaleEpoch::default(), world());
        for (current, held) in [(Epoch(1), true), (Epoch(2), false)] {
            let fenced = vec![Fenced { replica: 0, what: "a rollout", epoch: Epoch(1), current }];
            let seen = StepSeen { fenced, ..StepSeen::default() };
            assert_eq!(invariant.after(&world, &seen).is_ok(), held);
        }
    }

    #[test]
    fn a_hint_follows_the_commit_it_is_about() {
        let act = Acted { replica: 0, epoch: Epoch(1), rollout: ROLLOUT, act: Act::Hint { agent: AGENT } };
        let hint = || StepSeen { acts: vec![act.clone()], ..StepSeen::default() };
        let (mut invariant, world) = (StaleEpoch::default(), world());
        assert!(invariant.after(&world, &hint()).is_err());
        assert_eq!(invariant.after(&world, &seen(Vec::new(), vec![desired(1, false)])), Ok(()));
        assert_eq!(invariant.after(&world, &hint()), Ok(()));
    }

    #[test]
    fn nothing_arrives_that_nobody_committed() {
        let at = Mono(0);
        let delivery = Delivery { agent: 0, config: CONFIG, body: Some(CONFIG), number: None, at };
        let seen = StepSeen { deliveries: vec![delivery], ..StepSeen::default() };
        assert!(StaleEpoch::default().after(&world(), &seen).is_err());
    }
}
