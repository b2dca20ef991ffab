//! Agents that were assigned the configuration of their group and have not settled: nobody may offer them anything, and they
//! count like any other (R24, R60).

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::rollout::{GroupIx, OfferKey, RolloutId, Slot, Time};
use opamp_proto::{AgentId, Fingerprint};

use crate::sim::replica::leader::steady;
use crate::sim::store::{Desired, Rows};
use crate::sim::world::{StepSeen, World};

/// So long an assignment is under way at least if nothing becomes of it: less than its leaders wait, since they count from
/// when they decided it.
const UNDER_WAY: Duration = Duration::from_secs(100);

/// How much later than it was decided an assignment may be written.
pub(super) const LATE: Duration = Duration::from_secs(120);

/// Assignments under way, as far as that is certain.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    open: BTreeMap<AgentId, Open>,
}

/// One assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// When it was written.
    pub(super) since: Time,
    key: OfferKey,
    group: Option<(Fingerprint, RolloutId)>,
}

impl Assigned {
    /// The open assignment of an agent.
    pub(super) fn of(&self, agent: &AgentId) -> Option<Open> {
        self.open.get(agent).copied()
    }

    /// Takes a step in. Gives those that were open and may have settled: whose, since when, until when.
    pub(super) fn follow(&mut self, world: &World, seen: &StepSeen) -> Vec<(AgentId, (Time, Time))> {
        let mut settled = Vec::new();
        if seen.forgot {
            self.open.clear();
        }
        let (rows, now) = (world.store.rows(), Time::from(world.now_of_world().wall));
        for desired in new(seen) {
            let row = rows.agents.get(&desired.agent);
            if let Some((_, key)) = row.and_then(|row| row.offers.last()) {
                self.open.insert(desired.agent, Open { since: now, key: *key, group: group(rows) });
            }
        }
        self.open.retain(|agent, open| {
            let is_open = now < open.since + UNDER_WAY && is_open(rows, agent, open);
            if !is_open {
                settled.push((*agent, (open.since, now.min(open.since + UNDER_WAY))));
            }
            is_open
        });
        settled
    }
}

/// Assignments that a step wrote.
pub(super) fn new(seen: &StepSeen) -> impl Iterator<Item = &Desired> {
    seen.shared.iter().filter(|desired| !desired.repeated)
}

/// What the group of the simulator should have.
fn group(rows: &Rows) -> Option<(Fingerprint, RolloutId)> {
    rows.groups.get(&(GroupIx(0), Slot::MainConfig.code())).copied()
}

/// Whether nothing has become of it.
fn is_open(rows: &Rows, agent: &AgentId, open: &Open) -> bool {
    rows.agents.get(agent).is_some_and(|row| {
        let is_last = row.offers.last().is_some_and(|(_, key)| *key == open.key);
        let has_failed = row.desired.is_some_and(|config| row.failed.contains(&config));
        let is_under_way = matches!(steady::drift(row), Drift::Applying | Drift::Pending);
        is_last && !has_failed && is_under_way && steady::is_in_group(agent, row) && group(rows) == open.group
    })
}

/// Somebody of a world is assigned something.
#[cfg(test)]
pub(super) fn assign(world: &mut World) -> Desired {
    use super::made::{CONFIG, ROLLOUT};

    let rows = world.store.rows();
    let found =
        rows.agents.iter().find(|(agent, row)| steady::is_in_group(agent, row)).map(|(agent, _)| *agent);
    let agent = found.unwrap_or(super::made::AGENT);
    let key = OfferKey { rollout: ROLLOUT, agent, offer: 1 };
    world.store.change_agent(&agent, |row| {
        row.generation += 1;
        row.desired = Some(CONFIG);
        row.offers.push((row.generation, key));
    });
    Desired { agent, ..super::made::desired(1, false) }
}

#[cfg(test)]
mod tests {
    use super::super::made::{CONFIG, world};
    use super::*;
    use crate::sim::store::AgentRow;

    #[test]
    fn an_assignment_is_open_until_something_becomes_of_it() {
        let mut world = world();
        let desired = assign(&mut world);
        let agent = desired.agent;
        let shared = StepSeen { shared: vec![desired], ..StepSeen::default() };
        let ends: [fn(&mut AgentRow); 3] =
            [|row| row.failed.push(CONFIG), |row| row.removed = true, |row| row.offers.clear()];
        for end in ends {
            let (mut assigned, before) = (Assigned::default(), world.store.rows().agents[&agent].clone());
            assert_eq!(assigned.follow(&world, &shared).len(), 0);
            assert!(assigned.of(&agent).is_some());
            assert_eq!(assigned.follow(&world, &StepSeen::default()).len(), 0);
            world.store.change_agent(&agent, end);
            assert_eq!(assigned.follow(&world, &StepSeen::default()).len(), 1);
            assert!(assigned.of(&agent).is_none());
            world.store.put_agent(agent, before);
        }
    }
}
