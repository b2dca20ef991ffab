//! An agent's configuration is moved by one rollout at a time, and every offer is written once.

use opamp_fleet::rollout::MemberState;

use super::{Invariant, desire_of, ensure, new_offers};
use crate::sim::world::{StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct OneOfferPerSlot;

impl Invariant for OneOfferPerSlot {
    fn name(&self) -> &'static str {
        "one_offer_per_slot"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            if let Some(again) = commit.written.desires.iter().find(|desired| desired.repeated) {
                return Err(format!(
                    "rollout {rollout} wrote offer {} of {} twice",
                    again.offer, again.agent
                ));
            }
            for offer in new_offers(&commit.written.changes) {
                ensure(offer.back || offer.from == MemberState::Queued, || {
                    format!("{} is {} and is offered the same again", offer.agent, offer.from)
                })?;
                let expected = offer.before.map_or(0, |row| row.offer) + 1;
                ensure(
                    offer.offer == expected || desire_of(commit, &offer.agent, expected).is_some(),
                    || format!("offer {} of {} follows {} at once", offer.offer, offer.agent, expected - 1),
                )?;
                let others = world.store.rows().rollouts.iter().filter(|(id, _)| **id != rollout);
                for (other, row) in others {
                    let held = row.story.line(&offer.agent).is_some_and(|line| line.state.in_flight());
                    ensure(!held || row.story.state().is_terminal(), || {
                        format!("{} is in flight in rollouts {rollout} and {other}", offer.agent)
                    })?;
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{desired, member, row, seen, world};
    use super::*;
    use crate::sim::store::Desired;

    #[test]
    fn the_same_offer_is_not_written_twice() {
        let again = Desired { repeated: true, ..desired(1, false) };
        assert!(OneOfferPerSlot.after(&world(), &seen(Vec::new(), vec![again])).is_err());
        assert_eq!(OneOfferPerSlot.after(&world(), &seen(Vec::new(), vec![desired(1, false)])), Ok(()));
    }

    #[test]
    fn who_has_an_offer_is_not_given_another_one() {
        let again = vec![member(row(MemberState::Offered, 1), row(MemberState::Offered, 2))];
        assert!(OneOfferPerSlot.after(&world(), &seen(again, Vec::new())).is_err());
    }

    #[test]
    fn offers_are_numbered_without_a_gap() {
        let to = |offer| vec![member(row(MemberState::Queued, 1), row(MemberState::Offered, offer))];
        assert_eq!(OneOfferPerSlot.after(&world(), &seen(to(2), Vec::new())), Ok(()));
        assert!(OneOfferPerSlot.after(&world(), &seen(to(3), Vec::new())).is_err());
    }
}
