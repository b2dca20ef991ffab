//! What a rollout has brought to a group is what all of it should have from then on. Nobody is assigned that who is in flight
//! for something else, has it already, or keeps what another rollout left it, and whose assignment is under way is offered
//! nothing (R22b, R24, R60, R70).

use std::collections::BTreeMap;

use opamp_fleet::rollout::{GroupIx, OfferKey, Slot, Time};
use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, Mono};

use super::assigned::{self, Assigned, LATE};
use super::{Invariant, NewOffer, ensure, new_offers};
use crate::sim::replica::leader::steady;
use crate::sim::store::{AgentRow, Desired, Rows};
use crate::sim::world::{LOOKED_EVERY, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct SteadyState {
    assigned: Assigned,
    /// When what was assigned was written.
    written: BTreeMap<(AgentId, Fingerprint, u32), Time>,
    /// Since when nothing is in the way of an agent's being brought to this configuration.
    due: BTreeMap<AgentId, (Fingerprint, Mono)>,
    looked: Mono,
}

impl Invariant for SteadyState {
    fn name(&self) -> &'static str {
        "steady_state"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            new_offers(&commit.written.changes).try_for_each(|offer| self.may_be_offered(&offer))?;
        }
        assigned::new(seen).try_for_each(|desired| may_be_assigned(world.store.rows(), desired))?;
        let now = Time::from(world.now_of_world().wall);
        seen.shared.iter().try_for_each(|desired| self.has_its_key(desired, now))?;
        self.assigned.follow(world, seen);
        if world.scenario.shared.steady && world.now() >= self.looked + LOOKED_EVERY {
            self.looked = world.now();
            self.look(world);
        }
        Ok(())
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        if !world.scenario.shared.steady || !world.is_calm() {
            return Ok(());
        }
        self.look(world);
        for (id, (config, since)) in &self.due {
            ensure(world.now() <= *since + world.in_use_after(), || {
                let record = world.store.rows().agents.get(id).and_then(|row| row.desired);
                format!(
                    "{id} should have {config} like its group since {since:?}, and its record says {record:?}"
                )
            })?;
        }
        Ok(())
    }
}

impl SteadyState {
    /// Who should be brought to what its group has, and since when.
    fn look(&mut self, world: &World) {
        let rows = world.store.rows();
        let before = std::mem::take(&mut self.due);
        let group = rows.groups.get(&(GroupIx(0), Slot::MainConfig.code()));
        let Some((config, _)) = group.filter(|(config, _)| !is_stopped(world, config)) else { return };
        let is_due = |id: &AgentId, row: &AgentRow| {
            row.desired != Some(*config) && should_have(world, id, row, *config)
        };
        for (id, _) in rows.agents.iter().filter(|(id, row)| is_due(id, row)) {
            let since =
                before.get(id).filter(|(of, _)| of == config).map_or(world.now(), |(_, since)| *since);
            self.due.insert(*id, (*config, since));
        }
    }

    /// What is written again under the same key is the same assignment, whose answer was lost.
    fn has_its_key(&mut self, desired: &Desired, now: Time) -> Result<(), String> {
        let key = (desired.agent, desired.config, desired.offer);
        if !desired.repeated {
            self.written.insert(key, now);
            return Ok(());
        }
        let before = self.written.get(&key);
        ensure(before.is_some_and(|before| now <= *before + LATE), || {
            format!(
                "{} is assigned something at {now} under the key of what it got at {before:?}",
                desired.agent
            )
        })
    }

    /// Nobody whose assignment is under way is offered anything by a rollout.
    fn may_be_offered(&self, offer: &NewOffer) -> Result<(), String> {
        let open = self.assigned.of(&offer.agent).filter(|open| offer.at > open.since);
        ensure(open.is_none(), || {
            format!(
                "{} is offered something at {} and its assignment is under way: {open:?}",
                offer.agent, offer.at
            )
        })
    }
}

/// Whether nobody is assigned anything: a rollout is under way, or something has stopped the group.
fn is_stopped(world: &World, config: &Fingerprint) -> bool {
    let rows = world.store.rows();
    let leaders = world.replicas.iter().filter_map(|replica| replica.leader.as_ref());
    let mut groups =
        leaders.filter_map(|leader| leader.rollouts.steady().group(GroupIx(0), Slot::MainConfig));
    let is_over = rows.rollouts.values().all(|row| row.story.state().is_terminal());
    !is_over || rows.recalled.contains(config) || rows.breaker.is_some() || groups.any(|group| group.held)
}

fn may_be_assigned(rows: &Rows, desired: &Desired) -> Result<(), String> {
    let agent = desired.agent;
    let held = rows.rollouts.iter().find(|(_, row)| {
        let in_flight = row.story.line(&agent).is_some_and(|line| line.state.in_flight());
        in_flight && !row.story.state().is_terminal()
    });
    ensure(held.is_none(), || {
        let rollout = held.map(|(rollout, _)| rollout);
        format!("{agent} is assigned something and is in flight in rollout {rollout:?}")
    })?;
    let (before, over) = desired.before;
    ensure(before != Some(desired.config), || format!("{agent} is assigned what it should have already"))?;
    let kept = over.filter(|over| steady::is_kept(rows, over.rollout, before));
    ensure(kept.is_none(), || {
        format!("{agent} is assigned something and keeps what was left to it: {kept:?}")
    })
}

/// Whether nothing is in the way of the agent's having what its group should have.
fn should_have(world: &World, id: &AgentId, row: &AgentRow, config: Fingerprint) -> bool {
    let rows = world.store.rows();
    let accepts = AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
    let is_there =
        row.facts.as_ref().is_some_and(|facts| facts.connected && facts.capabilities.contains(accepts));
    let kept = |key: &OfferKey| steady::is_kept(rows, key.rollout, row.desired);
    let is_left = row.offers.last().is_some_and(|(_, key)| kept(key));
    let is_out = row.failed.contains(&config) || rows.quarantined.contains_key(id);
    is_there && !is_left && !is_out && steady::is_in_group(id, row)
}

#[cfg(test)]
mod tests {
    use opamp_fleet::faults::Faults;

    use opamp_fleet::rollout::{Changed, MemberState, WaveIx};

    use super::super::made::{self, AGENT, CONFIG, desired, row, world};
    use super::*;
    use crate::sim::ledger::Change;
    use crate::sim::profiles::Profile;
    use crate::sim::scenario::{AgentSpec, Faulty, RolloutSpec, Scenario, Shape, SharedSpec};
    use crate::sim::store::Desired;

    #[test]
    fn who_is_in_flight_is_assigned_nothing() {
        let mut world = world();
        let in_flight = |world: &World| {
            let rollouts = world.store.rows().rollouts.values();
            let mut lines = rollouts.flat_map(|row| &row.story.lines);
            lines.find(|line| line.state.in_flight()).map(|line| line.agent)
        };
        let agent = loop {
            world.step().unwrap();
            if let Some(agent) = in_flight(&world) {
                break agent;
            }
        };
        let shared = |desired| StepSeen { shared: vec![desired], ..StepSeen::default() };
        let assigned = Desired { agent, ..desired(1, false) };
        assert!(SteadyState::default().after(&world, &shared(assigned)).is_err());
        assert_eq!(SteadyState::default().after(&world, &shared(desired(1, false))), Ok(()));
    }

    #[test]
    fn who_has_it_already_is_assigned_nothing_and_a_key_is_used_for_one_thing() {
        let (world, mut invariant) = (world(), SteadyState::default());
        let mut after =
            |desired| invariant.after(&world, &StepSeen { shared: vec![desired], ..StepSeen::default() });
        let has_it = Desired { before: (Some(CONFIG), None), ..desired(1, false) };
        assert!(after(has_it).is_err());
        let again = Desired { repeated: true, ..desired(2, false) };
        assert!(after(again).is_err(), "somebody else has written it");
        assert_eq!(after(desired(2, false)), Ok(()));
        assert_eq!(after(again), Ok(()), "its answer was lost");
    }

    #[test]
    fn whose_assignment_is_under_way_is_offered_nothing() {
        let (mut world, mut invariant) = (world(), SteadyState::default());
        let assigned = assigned::assign(&mut world);
        let shared = StepSeen { shared: vec![assigned], ..StepSeen::default() };
        assert_eq!(invariant.after(&world, &shared), Ok(()));
        let since = Time::from(world.now_of_world().wall);
        let offered = |agent, at: Time| {
            let queued = row(MemberState::Queued, 0);
            let after = Changed { since: at, ..row(MemberState::Offered, 1) };
            let (wave, row_before) = (WaveIx(0), Some(queued));
            let offer = Change::Member { agent, wave, before: MemberState::Queued, row_before, after };
            made::seen(vec![offer], Vec::new())
        };
        let later = Time(since.0 + 1_000);
        assert!(invariant.after(&world, &offered(assigned.agent, later)).is_err());
        assert_eq!(invariant.after(&world, &offered(AGENT, later)), Ok(()));
        assert_eq!(invariant.after(&world, &offered(assigned.agent, since)), Ok(()), "it was first");
    }

    #[test]
    fn who_comes_after_a_success_has_to_be_brought_to_it() {
        let drawn = Scenario::drawn(1);
        let agents = drawn.agents.iter().take(6).enumerate().map(|(number, spec)| AgentSpec {
            profile: Profile::Well,
            ring: "inner".into(),
            // The last one comes when all is over.
            arrives_s: (number == 5).then_some(1_800),
            ..spec.clone()
        });
        let rollout = RolloutSpec {
            shape: Shape::AllAtOnce,
            window_s: 60,
            bake_s: 60,
            frozen_s: None,
            control_group: 0,
            ..drawn.rollouts[0].clone()
        };
        let scenario = Scenario {
            replicas: 1,
            agents: agents.collect(),
            faults: Faulty::default(),
            shared: SharedSpec { steady: true, ..SharedSpec::default() },
            rollouts: vec![rollout],
            acts: Vec::new(),
            ..drawn
        };
        let run = |is_brought: bool| {
            let (mut world, mut invariant) =
                (World::new(&scenario, Faults::default()), SteadyState::default());
            // Whoever leads, and does so to the end, brings nobody to anything.
            world.scenario.shared.steady = is_brought;
            let mut assigned = Vec::new();
            while let Some(seen) = world.step() {
                if world.replicas.iter().any(|replica| replica.leader.is_some()) {
                    world.scenario.shared.steady = true;
                }
                assigned.extend(seen.shared.iter().map(|desired| desired.agent));
                assert_eq!(invariant.after(&world, &seen), Ok(()));
            }
            (assigned, world.agents[5].id, invariant.at_end(&world))
        };
        let (assigned, late, held) = run(true);
        assert_eq!((assigned, held), (vec![late], Ok(())));
        let (assigned, late, held) = run(false);
        assert_eq!(assigned, []);
        assert!(held.is_err_and(|why| why.starts_with(&late.to_string())));
    }
}
