//! The journal alone gives the rollout as it is: replayed from its first entry, or from the last snapshot (R5).

use std::collections::BTreeMap;
use std::sync::Arc;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::journal::{Entry, Snapshot};
use opamp_fleet::rollout::plan::{Plan, PlannedMembers};
use opamp_fleet::rollout::{Engine, RolloutId};

use super::{Invariant, ensure, is_planned_anew};
use crate::sim::store::RolloutRow;
use crate::sim::world::{StepSeen, World};

/// After so many transactions of a rollout its journal is replayed.
const EVERY: u64 = 64;

/// What a journal begins with: nothing, or a snapshot where what was before is no part of it any more.
#[derive(Debug, Default)]
struct Journal {
    base: Option<Snapshot>,
    entries: Vec<Entry>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Replay {
    journals: BTreeMap<RolloutId, Journal>,
}

impl Invariant for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            // What the store has now is what there was.
            let rows = world.store.rows().rollouts.iter();
            self.journals = rows.map(|(id, row)| (*id, Journal::of(row))).collect();
        }
        for commit in &seen.commits {
            let id = commit.batch.key.rollout;
            let journal = self.journals.entry(id).or_default();
            journal.entries.extend(commit.batch.entries.iter().cloned());
            let Some(row) = world.store.rows().rollouts.get(&id) else { continue };
            if is_planned_anew(commit) {
                // Members are others from here on, and the snapshot that came with the plan is whole.
                *journal = Journal::of(row);
            }
            if commit.written.serial.0.is_multiple_of(EVERY) {
                check(id, row, journal)?;
            }
        }
        Ok(())
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let rows = &world.store.rows().rollouts;
        self.journals.iter().try_for_each(|(id, journal)| match rows.get(id) {
            Some(row) => check(*id, row, journal),
            None => Err(format!("rollout {id} has a journal and no record")),
        })
    }
}

impl Journal {
    fn of(row: &RolloutRow) -> Self {
        Self { base: row.snapshot.clone(), entries: row.tail.clone() }
    }
}

fn check(id: RolloutId, row: &RolloutRow, journal: &Journal) -> Result<(), String> {
    let whole = restored(row, journal.base.as_ref(), &journal.entries)?;
    let short = restored(row, row.snapshot.as_ref(), &row.tail)?;
    ensure(whole.canonical(row.at, false) == short.canonical(row.at, false), || {
        format!("rollout {id} is another one from its snapshot than from its journal")
    })?;
    ensure(whole.state() == row.story.state(), || {
        format!("rollout {id} is {} by its journal, {} read plainly", whole.state(), row.story.state())
    })
}

fn restored(row: &RolloutRow, snapshot: Option<&Snapshot>, tail: &[Entry]) -> Result<Engine, String> {
    let plan = Plan::decode(&row.plan).map_err(|error| error.to_string())?;
    let members = PlannedMembers::from_pages(&row.members).map_err(|error| error.to_string())?;
    Engine::restore(Arc::new(plan), members, snapshot, tail.iter().cloned(), Faults::default())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::made::world;
    use super::*;

    #[test]
    fn a_journal_that_lacks_an_entry_is_another_rollout() {
        let mut world = world();
        let ends_with_a_step =
            |row: &RolloutRow| matches!(row.tail.last(), Some(Entry::Wave { .. })) && row.tail.len() > 3;
        while !world.store.rows().rollouts.values().any(ends_with_a_step) {
            world.step().unwrap();
        }
        let rows = &world.store.rows().rollouts;
        let (id, row) = rows.iter().find(|(_, row)| ends_with_a_step(row)).unwrap();
        let mut journal = Journal::of(row);
        assert_eq!(check(*id, row, &journal), Ok(()));
        journal.entries.pop();
        assert!(check(*id, row, &journal).is_err());
    }
}
