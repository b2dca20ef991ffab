//! Who waits for whom, how it says so, and what the comparison before the start finds out (R12, R61, R62, R76).

use std::time::Duration;

use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::{Do, NextAction, RolloutId, RolloutState, Who, Write};

use super::several::{Several, Wanted};
use super::{ONE, THREE, TWO};
use crate::support::{Known, agents};

fn wants_preflight(several: &Several) -> Vec<RolloutId> {
    several.rollouts.want_preflight().collect()
}

/// Compared, started, run to the end and dropped.
fn run(several: &mut Several, wanted: &Wanted<'_>) {
    assert!(wants_preflight(several).contains(&wanted.id));
    several.preflight(wanted).unwrap();
    let plan = several.rollouts.engine(wanted.id).unwrap().plan().hash;
    several.command(wanted.id, Do::Start { plan }).unwrap();
    several.succeed(wanted.id);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(wanted.id), RolloutState::Succeeded);
    several.rollouts.drop_engine(wanted.id);
}

#[test]
fn nobody_waits_in_a_circle_whoever_comes_to_have_whose_agents() {
    let fleet = agents(3);
    let of = |range: std::ops::Range<usize>| fleet[range].to_vec();
    let (of_one, of_two, of_three) = (of(0..1), of(0..2), of(1..3));
    let wanted = |id, body, fleet| Wanted::new(id, body, fleet, ConflictPolicy::Queue);
    let mut several = Several::new();
    let all = [wanted(ONE, "a", &of_one), wanted(TWO, "b", &of_two), wanted(THREE, "c", &of_three)];
    for wanted in &all {
        several.create(wanted).unwrap();
        several.command(wanted.id, Do::Submit).unwrap();
    }
    let waits_for = |several: &Several| {
        [ONE, TWO, THREE].map(|rollout| several.rollouts.coordinator().waits_for(rollout))
    };
    assert_eq!(waits_for(&several), [None, Some(ONE), Some(TWO)]);
    // One of the third one's agents joins the first one, which the third one waits for behind the second.
    let joined: Vec<Known> = [0, 2].map(|number| fleet[number].clone()).to_vec();
    let first = wanted(ONE, "a", &joined);
    several.preflight(&first).unwrap();
    assert_eq!(waits_for(&several), [None, Some(ONE), Some(TWO)]);
    assert_eq!(several.state(ONE), RolloutState::Ready);
    let plan = several.rollouts.engine(ONE).unwrap().plan();
    assert_eq!((plan.members, plan.overlaps.len()), (2, 0));
    let plan = plan.hash;
    several.command(ONE, Do::Start { plan }).unwrap();
    several.succeed(ONE);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(ONE), RolloutState::Succeeded);
    several.rollouts.drop_engine(ONE);
    run(&mut several, &all[1]);
    run(&mut several, &all[2]);
}

#[test]
fn who_is_found_to_have_another_ones_agents_before_it_begins_waits_for_that_one() {
    let fleet = agents(2);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet[..1], ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    for policy in [ConflictPolicy::Queue, ConflictPolicy::Supersede] {
        let mut several = several.clone();
        several.create(&Wanted::new(TWO, "b", &fleet[1..], policy)).unwrap();
        several.command(TWO, Do::Submit).unwrap();
        assert_eq!(wants_preflight(&several), [TWO]);
        let grown = Wanted::new(TWO, "b", &fleet, policy);
        assert!(several.preflight(&grown).unwrap().is_none());
        assert_eq!(several.state(TWO), RolloutState::Preflight);
        assert_eq!(several.rollouts.coordinator().waits_for(TWO), Some(ONE));
        assert_eq!(several.state(ONE) == RolloutState::Aborting, policy == ConflictPolicy::Supersede);
        assert!(wants_preflight(&several).is_empty());
        several.succeed(ONE);
        several.wait(Duration::from_secs(3_600));
        several.rollouts.drop_engine(ONE);
        run(&mut several, &grown);
    }
}

#[test]
fn who_waits_for_a_rollout_takes_no_members_from_its_plan() {
    let fleet = agents(3);
    for policy in [ConflictPolicy::Queue, ConflictPolicy::Supersede] {
        let mut several = Several::new();
        let first = Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject);
        several.create(&first).unwrap();
        several.create(&Wanted::new(TWO, "b", &fleet, policy)).unwrap();
        several.command(ONE, Do::Submit).unwrap();
        assert!(several.preflight(&first).unwrap().is_none(), "it is the plan it was");
        assert_eq!(several.state(ONE), RolloutState::Ready);
    }
}

#[test]
fn a_rollout_that_waits_says_for_whom() {
    let fleet = agents(2);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    let second = Wanted::new(TWO, "b", &fleet, ConflictPolicy::Queue);
    several.create(&second).unwrap();
    several.command(TWO, Do::Submit).unwrap();
    let why = |several: &Several| {
        let engine = several.rollouts.engine(TWO).unwrap();
        engine.why_not_moving(several.now, several.rollouts.coordinator())
    };
    let waits = why(&several);
    assert_eq!((waits.state, waits.next), (RolloutState::Preflight, NextAction::Needs(Who::External)));
    assert_eq!(waits.reason, format!("it waits for the end of rollout {ONE}, which has some of its agents"));
    several.succeed(ONE);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(why(&several).reason, "its plan is compared with the fleet");
    several.rollouts.drop_engine(ONE);
    several.preflight(&second).unwrap();
    let ready = why(&several);
    assert_eq!((ready.state, ready.next), (RolloutState::Ready, NextAction::Needs(Who::Operator)));
}

#[test]
fn a_plan_that_can_be_made_no_more_is_rejected_with_the_reason() {
    let fleet = agents(2);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.command(ONE, Do::Submit).unwrap();
    several.preflight(&Wanted::new(ONE, "a", &[], ConflictPolicy::Reject)).unwrap();
    assert_eq!(several.state(ONE), RolloutState::Rejected);
    let writes = several.writes(ONE);
    let reasons: Vec<_> = writes
        .iter()
        .filter_map(|write| if let Write::Audit(audit) = write { Some(&*audit.reason) } else { None })
        .collect();
    assert!(reasons.contains(&"no member is left, 0 are excluded"), "{reasons:?}");
}
