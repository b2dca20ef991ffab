//! Engine time is the store's, whatever the wall clocks of replicas say, and never goes back for a rollout.

use std::collections::BTreeMap;

use opamp_fleet::rollout::{RolloutId, Time};

use super::{Invariant, ensure};
use crate::sim::world::{StepSeen, World};

/// How far engine time may be from the store's, in milliseconds: what the answer to a renewal may take.
const APART_MS: u64 = 15_000;

/// See the module.
#[derive(Debug, Default)]
pub struct TimeIsStoreTime {
    last: BTreeMap<RolloutId, Time>,
}

impl Invariant for TimeIsStoreTime {
    fn name(&self) -> &'static str {
        "time_is_store_time"
    }

    fn after(&mut self, _: &World, seen: &StepSeen) -> Result<(), String> {
        for (replica, epoch, time, store) in &seen.times {
            ensure(time.0.abs_diff(store.0) <= APART_MS, || {
                format!("replica {replica} leads under epoch {epoch} at {time}, the store has {store}")
            })?;
        }
        if seen.forgot {
            self.last.clear();
        }
        for commit in &seen.commits {
            let (rollout, at) = (commit.batch.key.rollout, commit.batch.at);
            let last = self.last.insert(rollout, at).unwrap_or_default();
            ensure(last <= at, || format!("rollout {rollout} went from {last} back to {at}"))?;
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
    use opamp_proto::Wall;

    use super::super::made::world;
    use super::*;

    #[test]
    fn engine_time_that_is_a_replicas_own_is_found() {
        let (mut invariant, world) = (TimeIsStoreTime::default(), world());
        let mut look = |engine| {
            let times = vec![(0, Epoch(1), Time(engine), Wall(1_000_000))];
            invariant.after(&world, &StepSeen { times, ..StepSeen::default() })
        };
        assert_eq!(look(1_009_000), Ok(()));
        assert!(look(1_600_000).is_err());
        assert!(look(400_000).is_err());
    }
}
