//! Agents that change their group, and agents that a rollout has for a while (R22b, R24).

use std::time::Duration;

use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::steady::SteadySettings;
use opamp_fleet::rollout::{Do, FleetEvent, GroupIx, OfferKey, RolloutId, Write};
use opamp_proto::{AgentId, Fingerprint};

use super::agent::Agent;
use super::{GROUP, OTHER, SLOT, WANTED, applied_by, desired, place, steady};
use crate::overlap::several::{Several, Wanted};
use crate::support::{Known, agents, fingerprint};

#[test]
fn who_goes_to_another_group_and_comes_back_is_assigned_each_time() {
    let mut several = steady(SteadySettings::default());
    let (group, config) = (GroupIx(5), Fingerprint::from_bytes([0xab; 16]));
    let rollout = RolloutId::from_bytes([2; 16]);
    several.tell(FleetEvent::GroupDesired { group, slot: SLOT, config, rollout }).unwrap();
    let mut agent = Agent::new(1);
    for round in 0..4 {
        let (group, config) = if round % 2 == 0 { (GROUP, WANTED) } else { (group, config) };
        agent.group = Some(group);
        let (writes, _) = place(&mut several, &mut agent);
        assert_eq!(writes.iter().filter_map(desired).count(), 1);
        assert_eq!(agent.assigned, Some(config), "it was written, in round {round}");
        agent.succeed();
        place(&mut several, &mut agent);
        several.wait(Duration::from_secs(7_200));
    }
    assert_eq!(several.rollouts.coordinator().view().settled, [4, 0, 0]);
}

#[test]
fn what_a_rollout_brought_and_another_took_away_is_assigned_under_another_key() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let [one, two] = [8, 9].map(|number| RolloutId::from_bytes([number; 16]));
    let mut agent = applied_by(&mut several, one, &fleet);
    several.wait(Duration::from_secs(3_600));
    let config = several.rollouts.engine(one).unwrap().plan().target;
    several.tell(FleetEvent::GroupDesired { group: GROUP, slot: SLOT, config, rollout: one }).unwrap();
    several.rollouts.drop_engine(one);
    // A rollout of no group had it for a while, and it is moved into the group after that.
    several.create(&Wanted::new(two, "other", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(two).unwrap();
    several.writes(two).iter().for_each(|write| agent.take(write));
    several.succeed(two);
    agent.succeed();
    several.command(two, Do::Abort).unwrap();
    several.rollouts.drop_engine(two);
    let (writes, _) = place(&mut several, &mut agent);
    assert!(matches!(writes[..], [Write::Assign { key, .. }] if key.rollout == one), "{writes:?}");
    assert_eq!(agent.assigned, Some(config), "its first offer of that rollout has another key");
}

#[test]
fn members_of_a_rollout_are_in_no_new_agents_way() {
    let fleet = agents(300);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let wanted = Wanted::new(rollout, "new", &fleet, ConflictPolicy::Reject);
    several.create(&Wanted { group: Some(GROUP), ..wanted }).unwrap();
    several.start(rollout).unwrap();
    several.succeed(rollout);
    for known in &fleet {
        let member = Agent { id: known.id(), ..Agent::new(0) };
        several.tell(FleetEvent::Placed(&member.placed())).unwrap();
    }
    let view = several.rollouts.steady().view();
    assert_eq!((view.in_rollout, view.queued), (300, 0));
    assert_eq!(several.out.take_shared().0, []);
    let mut late = Agent { id: AgentId::from_bytes([0xff; 16]), ..Agent::new(0) };
    assert_eq!(place(&mut several, &mut late).0.len(), 1, "at once");
}

#[test]
fn who_is_taken_from_the_queue_by_a_rollout_leaves_it_until_that_ends() {
    let fleet = agents(3);
    let mut several = steady(SteadySettings::default());
    let [mut first, second, third] =
        [0, 1, 2].map(|number| Agent { id: fleet[number].id(), ..Agent::new(0) });
    assert_eq!(place(&mut several, &mut first).0.len(), 1);
    for agent in [&second, &third] {
        assert_eq!(place(&mut several, &mut agent.clone()).0, [], "it waits for its turn");
    }
    let rollout = RolloutId::from_bytes([9; 16]);
    several.create(&Wanted::new(rollout, "new", &fleet[1..], ConflictPolicy::Reject)).unwrap();
    several.start(rollout).unwrap();
    assert_eq!(several.in_flight(rollout), [second.id], "the third one is no business of it yet");
    several.command(rollout, Do::Abort).unwrap();
    first.succeed();
    let (writes, _) = place(&mut several, &mut first);
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(third.id, 1)]);
    assert_eq!(several.rollouts.steady().view().in_rollout, 1);
    several.refuse(rollout);
    assert!(several.state(rollout).is_terminal());
    several.wait(Duration::from_secs(60));
    assert_eq!(several.out.take_shared().0, [], "it keeps what the rollout left it, told of that or not");
    assert_eq!(several.rollouts.steady().group(GROUP, SLOT).unwrap().queued, 0);
}

/// A rollout of no group that offers something to these agents; gives what it wrote.
fn offered_by(several: &mut Several, rollout: RolloutId, fleet: &[Known]) -> Vec<Write> {
    several.create(&Wanted::new(rollout, "new", fleet, ConflictPolicy::Reject)).unwrap();
    several.start(rollout).unwrap();
    several.writes(rollout)
}

#[test]
fn what_is_only_put_right_in_a_record_takes_no_rollouts_offer_back() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let mut agent = Agent { id: fleet[0].id(), runs: Some(WANTED), ..Agent::new(0) };
    several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    let (late, _) = several.out.take_shared();
    assert_eq!(late.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 1)]);
    let written = offered_by(&mut several, RolloutId::from_bytes([9; 16]), &fleet);
    written.iter().for_each(|write| agent.take(write));
    late.iter().for_each(|write| agent.take(write));
    assert_eq!(agent.assigned, Some(fingerprint("new")), "the rollout was first");
}

#[test]
fn who_has_got_something_else_meanwhile_is_assigned_nothing_and_nobody_is_blamed() {
    let mut several = steady(SteadySettings::default());
    let mut agent = Agent::new(1);
    several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    let (late, _) = several.out.take_shared();
    assert_eq!(late.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 1)]);
    // A rollout that has ended meanwhile, and whose batch was on its way.
    let key = OfferKey { rollout: RolloutId::from_bytes([9; 16]), agent: agent.id, offer: 1 };
    agent.take(&Write::Desire { key, slot: SLOT, config: OTHER, rollback: false });
    late.iter().for_each(|write| agent.take(write));
    assert_eq!(agent.assigned, Some(OTHER));
    let (writes, _) = place(&mut several, &mut agent);
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 2)], "over that, now");
    assert_eq!(agent.assigned, Some(WANTED));
    assert_eq!(several.rollouts.coordinator().view().settled, [0, 0, 1]);
    assert_eq!(several.rollouts.steady().group(GROUP, SLOT).unwrap().in_flight, 1);
}
