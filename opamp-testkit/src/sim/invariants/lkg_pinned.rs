//! What a member can go back to is kept as long as its rollout may need it (R71): it is pinned with its first offer, and no
//! configuration that somebody should run is ever missing.

use opamp_fleet::rollout::RolloutState;

use super::{Invariant, ensure, new_offers};
use crate::sim::ledger::Change;
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct LkgPinned;

impl Invariant for LkgPinned {
    fn name(&self) -> &'static str {
        "lkg_pinned"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if let Some((agent, config)) = seen.missing.first() {
            return Err(format!("agent {agent} should run {config}, which is not kept any more"));
        }
        seen.commits.iter().try_for_each(|commit| pinned(world, commit))
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        let rows = world.store.rows();
        for (id, _) in rows.rollouts.iter().filter(|(_, row)| needs_nothing(row.story.state())) {
            let left = rows.pins.iter().find(|(of, _)| of == id);
            ensure(left.is_none(), || format!("rollout {id} has ended and pins {left:?} for ever"))?;
        }
        Ok(())
    }
}

/// Whether a rollout has ended so that nobody will want to go back: after any other end a new rollout may put members back.
fn needs_nothing(state: RolloutState) -> bool {
    matches!(state, RolloutState::RolledBack | RolloutState::Succeeded)
}

/// Everything that touched members can go back to is pinned, until nobody needs it.
fn pinned(world: &World, commit: &Commit) -> Result<(), String> {
    let (rows, rollout) = (world.store.rows(), commit.batch.key.rollout);
    let Some(row) = rows.rollouts.get(&rollout).filter(|row| !needs_nothing(row.story.state())) else {
        return Ok(());
    };
    let ends = commit.written.changes.iter().any(|change| matches!(change, Change::Rollout { .. }));
    if !ends && new_offers(&commit.written.changes).next().is_none() {
        return Ok(());
    }
    for line in row.story.touched() {
        let Some(own) = row.previous.get(&line.agent).copied().flatten() else { continue };
        ensure(rows.pins.contains(&(rollout, own)), || {
            format!("{} may have to go back to {own}, which rollout {rollout} has not pinned", line.agent)
        })?;
        ensure(world.kept.contains(&own), || {
            format!("{} may have to go back to {own}, which is pinned and gone", line.agent)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::made::{CONFIG, world};
    use super::*;

    #[test]
    fn a_configuration_that_is_wanted_and_gone_is_found() {
        let missing = vec![(0, CONFIG)];
        assert!(LkgPinned.after(&world(), &StepSeen { missing, ..StepSeen::default() }).is_err());
        assert_eq!(LkgPinned.after(&world(), &StepSeen::default()), Ok(()));
    }
}
