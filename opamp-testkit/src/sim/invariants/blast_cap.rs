//! A rollout touches no more members than it may (R54).

use super::{Invariant, ensure, new_offers, story};
use crate::sim::world::{StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct BlastCap;

impl Invariant for BlastCap {
    fn name(&self) -> &'static str {
        "blast_cap"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            // Who was touched before may be offered something again, also after the limit was lowered.
            let first =
                |before: Option<opamp_fleet::rollout::Changed>| before.is_none_or(|row| row.offer == 0);
            let grows = new_offers(&commit.written.changes).any(|offer| !offer.back && first(offer.before));
            let Some(story) = story(world, rollout).filter(|_| grows) else { continue };
            let most = story.limits.touched_max.min(world.scenario.shared.touched_max);
            let touched = story.touched().count();
            ensure(touched <= most as usize, || {
                format!("rollout {rollout} has touched {touched} members, at most {most} may be")
            })?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}
