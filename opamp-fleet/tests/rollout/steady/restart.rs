//! What is under way when another process takes over (R5, R58, R60).

use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::steady::SteadySettings;
use opamp_fleet::rollout::{OfferKey, RolloutId, Time};

use super::agent::Agent;
use super::{GROUP, ROLLOUT, SLOT, WANTED, desired, place, steady};
use crate::overlap::several::{Several, Wanted};
use crate::support::agents;

/// The agent was assigned a minute ago, for the third time, and has said nothing yet.
fn assigned(several: &Several, agent: Agent) -> Agent {
    let keys = [1, 2, 3].map(|offer| OfferKey { rollout: ROLLOUT, agent: agent.id, offer });
    let agent = Agent { assigned: Some(WANTED), drift: Drift::Pending, offer: Some(keys[2]), ..agent };
    let assigned_at = Some(Time(several.now.0 - 60_000));
    Agent { offers: keys.into_iter().collect(), assigned_at, ..agent }
}

#[test]
fn what_was_assigned_before_a_restart_counts_and_is_not_assigned_again() {
    let mut several = steady(SteadySettings::default());
    let mut pending = assigned(&several, Agent::new(1));
    assert_eq!(place(&mut several, &mut pending).0, []);
    assert_eq!(several.rollouts.steady().group(GROUP, SLOT).unwrap().in_flight, 1);
    let view = several.rollouts.coordinator().view();
    assert_eq!((view.in_flight, view.locks), (1, 1), "it holds its lock and its part of the budgets");
    let mut next = Agent::new(2);
    assert_eq!(place(&mut several, &mut next).0, [], "the first place is taken");
    pending.succeed();
    let (writes, _) = place(&mut several, &mut pending);
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(next.id, 1)]);
    assert_eq!(several.rollouts.coordinator().holder(&pending.id, SLOT), None);
}

#[test]
fn it_has_the_rest_of_its_time_and_is_blamed_for_nothing() {
    let mut several = steady(SteadySettings::default());
    let mut pending = assigned(&several, Agent::new(1));
    place(&mut several, &mut pending);
    several.wait(Duration::from_secs(539));
    assert_eq!(several.rollouts.coordinator().view().in_flight, 1);
    several.wait(Duration::from_secs(2));
    let view = several.rollouts.coordinator().view();
    assert_eq!((view.in_flight, view.locks, view.settled), (0, 0, [0, 0, 1]));
    assert_eq!(several.rollouts.steady().view().late, 1);
}

#[test]
fn no_rollout_offers_anything_to_it_before_it_has_settled() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let mut pending = assigned(&several, Agent { id: fleet[0].id(), ..Agent::new(0) });
    place(&mut several, &mut pending);
    let rollout = RolloutId::from_bytes([9; 16]);
    several.create(&Wanted::new(rollout, "new", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(rollout).unwrap();
    several.wait(Duration::from_secs(60));
    assert_eq!(several.in_flight(rollout), [], "one offer at a time");
    pending.succeed();
    place(&mut several, &mut pending);
    several.wait(Duration::from_secs(60));
    assert_eq!(several.in_flight(rollout).len(), 1);
}
