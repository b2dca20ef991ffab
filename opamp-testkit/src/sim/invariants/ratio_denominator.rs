//! Ratios are of members that can be counted: nobody who waits, was left out, removed or put off (R23).

use opamp_fleet::rollout::{MemberState, Reason, Time};

use super::{Invariant, ensure};
use crate::sim::ledger::Change;
use crate::sim::world::{StepSeen, World};

/// After so many steps the engines of leaders count anew.
const EVERY: u64 = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct RatioDenominator {
    steps: u64,
}

impl Invariant for RatioDenominator {
    fn name(&self) -> &'static str {
        "ratio_denominator"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for change in seen.commits.iter().flat_map(|commit| &commit.written.changes) {
            who_is_put_off_had_it(change)?;
            let Change::Gate { evidence, countable, against } = change else { continue };
            ensure(evidence.of <= *countable, || {
                format!("`{evidence}` counts {} members where {countable} can be counted", evidence.of)
            })?;
            let gate_counts_members = evidence.of > 0;
            ensure(!gate_counts_members || evidence.bad <= *against, || {
                format!("`{evidence}` counts {} against it where {against} are", evidence.bad)
            })?;
        }
        self.steps += 1;
        if self.steps.is_multiple_of(EVERY) { recount(world) } else { Ok(()) }
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        recount(world)
    }
}

/// Who is put off counts as lost only if it went away with the configuration, which the state it went away in says.
fn who_is_put_off_had_it(change: &Change) -> Result<(), String> {
    let Change::Member { agent, before, row_before, after, .. } = change else { return Ok(()) };
    if (after.state, after.reason) != (MemberState::Deferred, Reason::GraceOver) {
        return Ok(());
    }
    let had_it = row_before.is_some_and(|row| match before {
        MemberState::Absent => {
            matches!(row.stage, MemberState::Delivered | MemberState::Applying | MemberState::Applied)
        }
        MemberState::Deferred => row.reason == Reason::GraceOver,
        _ => false,
    });
    ensure(had_it, || format!("{agent} was {before} and counts as lost to the configuration"))
}

/// What engines have counted on the way is what there is.
fn recount(world: &World) -> Result<(), String> {
    let leaders = world.replicas.iter().filter_map(|replica| replica.leader.as_ref());
    for engine in leaders.flat_map(|leader| leader.rollouts.engines()) {
        engine.check().map_err(|broken| format!("rollout {}: {broken:?}", engine.id()))?;
        let summary = engine.summary(Time(0));
        let parts = summary.pending + summary.applying + summary.applied + summary.failed;
        ensure(parts == summary.total, || {
            format!("rollout {} sums up {parts} members as {}", engine.id(), summary.total)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::Changed;

    use super::super::made::{member, row};
    use super::*;

    #[test]
    fn who_was_put_off_before_it_had_anything_is_lost_to_nothing() {
        let lost = || Changed { reason: Reason::GraceOver, ..row(MemberState::Deferred, 1) };
        assert!(who_is_put_off_had_it(&member(row(MemberState::Queued, 0), lost())).is_err());
        let away = |stage| Changed { stage, ..row(MemberState::Absent, 1) };
        assert!(who_is_put_off_had_it(&member(away(MemberState::Offered), lost())).is_err());
        assert_eq!(who_is_put_off_had_it(&member(away(MemberState::Applying), lost())), Ok(()));
        assert_eq!(who_is_put_off_had_it(&member(lost(), lost())), Ok(()));
        let waits = row(MemberState::Deferred, 0);
        assert_eq!(who_is_put_off_had_it(&member(row(MemberState::Queued, 0), waits)), Ok(()));
    }
}
