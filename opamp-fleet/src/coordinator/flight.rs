//! Who is in flight, for which rollout, and where: what caps and budgets count.

use std::collections::BTreeMap;
use std::sync::Arc;

use opamp_proto::AgentId;

use super::ClaimKind;
use super::budgets::Budgets;
use super::zones::Zones;
use crate::rollout::{GroupIx, RolloutId, Slot, Time};

/// An agent in flight.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) rollout: RolloutId,
    pub(super) group: Option<GroupIx>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) kind: ClaimKind,
    pub(super) since: Time,
}

/// All agents in flight: at most as many as the caps of all rollouts together.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    held: BTreeMap<(AgentId, Slot), Hold>,
    by_rollout: BTreeMap<RolloutId, u32>,
    pub(super) zones: Zones,
    pub(super) budgets: Budgets,
}

impl Flight {
    pub(super) fn new(budgets: Budgets) -> Self {
        Self { budgets, ..Self::default() }
    }

    /// Whether the rollout has the agent in flight.
    pub(super) fn has(&self, agent: &AgentId, slot: Slot, rollout: RolloutId) -> bool {
        self.held.get(&(*agent, slot)).is_some_and(|hold| hold.rollout == rollout)
    }

    /// How many agents the rollout has in flight.
    pub(super) fn of(&self, rollout: RolloutId) -> u32 {
        self.by_rollout.get(&rollout).copied().unwrap_or(0)
    }

    /// How many are in flight, each slot by itself.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// Whether the budgets let the agent be disturbed.
    pub(super) fn budgets_have_room(
        &self,
        agent: &AgentId,
        slot: Slot,
        group: Option<GroupIx>,
        zone: Option<&str>,
    ) -> bool {
        self.budgets.have_room(group, zone, &others(&self.held, *agent, slot))
    }

    /// The agent is in flight from now on; whoever had it there before has it no more.
    pub(super) fn enter(
        &mut self,
        agent: &AgentId,
        slot: Slot,
        zone: Option<&str>,
        rollout: RolloutId,
        group: Option<GroupIx>,
        (kind, since): (ClaimKind, Time),
    ) {
        self.leave(agent, slot);
        let zone = zone.map(|zone| self.zones.enter(rollout, zone));
        let hold = Hold { rollout, group, zone, kind, since };
        self.budgets.take(&hold, &others(&self.held, *agent, slot));
        *self.by_rollout.entry(rollout).or_default() += 1;
        self.held.insert((*agent, slot), hold);
    }

    /// The agent is not in flight any more; gives what it was in flight for.
    pub(super) fn leave(&mut self, agent: &AgentId, slot: Slot) -> Option<Hold> {
        let hold = self.held.remove(&(*agent, slot))?;
        self.budgets.free(&hold, &others(&self.held, *agent, slot));
        if let Some(zone) = &hold.zone {
            self.zones.leave(hold.rollout, zone);
        }
        if let Some(count) = self.by_rollout.get_mut(&hold.rollout) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_rollout.remove(&hold.rollout);
            }
        }
        Some(hold)
    }

    /// The rollout has nobody in flight any more.
    pub(super) fn leave_all(&mut self, rollout: RolloutId) {
        if self.of(rollout) == 0 {
            return;
        }
        let held = self.held.iter().filter(|(_, hold)| hold.rollout == rollout);
        let agents: Vec<_> = held.map(|(key, _)| *key).collect();
        for (agent, slot) in agents {
            self.leave(&agent, slot);
        }
    }
}

/// What else the agent is in flight for.
fn others(
    held: &BTreeMap<(AgentId, Slot), Hold>,
    agent: AgentId,
    slot: Slot,
) -> impl Iterator<Item = &Hold> + Clone {
    let all = held.range((agent, Slot::ConnectionSettings)..=(agent, Slot::Restart));
    all.filter(move |((_, other), _)| *other != slot).map(|(_, hold)| hold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::{Budget, Domain};
    use crate::rollout::stats::Ppm;

    const NOW: (ClaimKind, Time) = (ClaimKind::Offer, Time(0));

    #[test]
    fn slots_are_ordered_so_that_all_of_an_agent_are_found() {
        let slots = [Slot::MainConfig, Slot::NamedConfig(u16::MAX), Slot::Packages(u16::MAX)];
        for slot in slots {
            assert!(Slot::ConnectionSettings < slot && slot < Slot::Restart);
        }
    }

    #[test]
    fn an_agent_disturbed_in_two_slots_is_one_agent_until_both_are_over() {
        let budget = Budget { at_once: 1, percent: Ppm::ALL };
        let mut flight = Flight::new(Budgets::new([(Domain::Fleet, budget)]));
        let [one, two] = [1, 2].map(|number| AgentId::from_bytes([number; 16]));
        let rollout = RolloutId::from_bytes([9; 16]);
        let room = |flight: &Flight, agent, slot| flight.budgets_have_room(agent, slot, None, None);
        flight.enter(&one, Slot::MainConfig, None, rollout, None, NOW);
        assert!(room(&flight, &one, Slot::Packages(0)), "it is disturbed already");
        assert!(!room(&flight, &two, Slot::MainConfig));
        flight.enter(&one, Slot::Packages(0), None, rollout, None, NOW);
        flight.leave(&one, Slot::MainConfig);
        assert!(!room(&flight, &two, Slot::MainConfig), "the packages are under way");
        flight.leave(&one, Slot::Packages(0));
        flight.leave(&one, Slot::Packages(0));
        assert!(room(&flight, &two, Slot::MainConfig));
    }

    #[test]
    fn who_enters_twice_is_counted_once_and_all_of_a_rollout_leave_together() {
        let mut flight = Flight::default();
        let [one, two] = [1, 2].map(|number| RolloutId::from_bytes([number; 16]));
        let agent = |number| AgentId::from_bytes([number; 16]);
        for number in [1, 1, 2] {
            flight.enter(&agent(number), Slot::MainConfig, Some("a"), one, None, NOW);
        }
        flight.enter(&agent(3), Slot::MainConfig, Some("a"), two, None, NOW);
        assert_eq!((flight.of(one), flight.zones.count(one, "a"), flight.len()), (2, 2, 3));
        flight.leave_all(one);
        assert_eq!((flight.of(one), flight.zones.count(one, "a"), flight.len()), (0, 0, 1));
        assert!(flight.has(&agent(3), Slot::MainConfig, two));
    }
}
