//! Agents that never say what became of a configuration: nobody's failure (R29).

use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::rollout::steady::SteadySettings;
use opamp_fleet::rollout::{FleetEvent, GroupIx, RolloutId};
use opamp_proto::Fingerprint;

use super::agent::Agent;
use super::{GROUP, SLOT, WANTED, alerts, desired, place, steady};

#[test]
fn who_a_rollout_left_without_evidence_is_no_failure_of_its_group_and_opens_no_breaker() {
    let mut several = steady(SteadySettings::default());
    let (group, config) = (GroupIx(5), Fingerprint::from_bytes([0xab; 16]));
    let rollout = RolloutId::from_bytes([2; 16]);
    several.tell(FleetEvent::GroupDesired { group, slot: SLOT, config, rollout }).unwrap();
    let lately = several.now;
    several.now = several.now + Duration::from_secs(60);
    for number in 0..100 {
        let (group, config) = if number % 2 == 0 { (GROUP, WANTED) } else { (group, config) };
        let assigned_at = (number % 4 < 2).then_some(lately);
        let agent = Agent { group: Some(group), assigned: Some(config), assigned_at, ..Agent::new(number) };
        let agent = Agent { drift: Drift::Pending, reports: number % 8 < 4, ..agent };
        several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    }
    for (group, in_flight) in [(GROUP, 25), (group, 25)] {
        let view = several.rollouts.steady().group(group, SLOT).unwrap();
        assert_eq!(view.in_flight, in_flight, "who should have it for long is waited for no more");
    }
    several.wait(Duration::from_secs(601));
    let (writes, acts) = several.out.take_shared();
    assert_eq!((writes, alerts(&acts)), (vec![], vec![]));
    let view = several.rollouts.coordinator().view();
    assert_eq!((view.settled, view.in_flight, view.locks), ([0, 0, 50], 0, 0));
    assert_eq!((view.breaker, view.quarantined), (None, 0));
    assert!([GROUP, group].iter().all(|group| !several.rollouts.steady().group(*group, SLOT).unwrap().held));
    assert_eq!(several.rollouts.steady().view().late, 100);
}

#[test]
fn an_assignment_to_one_that_never_reports_has_an_unknown_outcome() {
    let mut several = steady(SteadySettings::default());
    let mut failures = Vec::new();
    for number in 0..3 {
        let mut silent = Agent { reports: false, ..Agent::new(number) };
        assert_eq!(place(&mut several, &mut silent).0.iter().filter_map(desired).count(), 1);
        several.wait(Duration::from_secs(601));
        failures.push(several.rollouts.coordinator().view().settled);
    }
    assert_eq!(failures, [[0, 0, 1], [0, 0, 2], [0, 0, 3]]);
    assert!(!several.rollouts.steady().group(GROUP, SLOT).unwrap().held);
    assert_eq!(several.rollouts.steady().group(GROUP, SLOT).unwrap().window, 1, "and is no success either");
    assert_eq!(several.rollouts.coordinator().holder(&Agent::new(0).id, SLOT), None);
}
