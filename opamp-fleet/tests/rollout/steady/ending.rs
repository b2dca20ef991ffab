//! Agents of a rollout that has ended. Until its end is stored nothing is assigned to them, and nothing of theirs is under way;
//! and whom a rollback left alone keeps what it has (R24, R60, R65).

use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::steady::{DriftAction, DriftSettings, Placed, SteadySettings};
use opamp_fleet::rollout::{AgentFact, ConfigStatus, Do, FleetEvent, RolloutId, RolloutState, Scope};

use super::agent::Agent;
use super::{OTHER, ROLLOUT, SLOT, desire, desired, place, steady};
use crate::overlap::several::{Several, Wanted};
use crate::support::{agents, fingerprint};

const ENDING: RolloutId = RolloutId::from_bytes([9; 16]);

/// A group whose agents should have "old", and a rollout that has put one of them back to it and has ended with that.
fn put_back(settings: SteadySettings) -> (Several, Agent) {
    let fleet = agents(1);
    let mut several = steady(settings);
    desire(&mut several, fingerprint("old"), ROLLOUT);
    several.create(&Wanted::new(ENDING, "new", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ENDING).unwrap();
    several.succeed(ENDING);
    several.command(ENDING, Do::RollBack(Scope::All)).unwrap();
    several.put_back(ENDING);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(ENDING), RolloutState::RolledBack);
    let mut agent = Agent { id: fleet[0].id(), ..Agent::new(0) };
    several.writes(ENDING).iter().for_each(|write| agent.take(write));
    assert_eq!(agent.assigned, Some(fingerprint("old")));
    (several, agent)
}

#[test]
fn who_leaves_what_it_was_put_back_to_is_put_right_once_the_end_is_stored() {
    let drift = DriftSettings { self_rollback: DriftAction::Reassert, ..DriftSettings::default() };
    let (mut several, mut agent) = put_back(SteadySettings { drift, ..SteadySettings::default() });
    (agent.runs, agent.drift) = (Some(OTHER), Drift::Drifted);
    assert_eq!(place(&mut several, &mut agent).0, []);
    several.wait(Duration::from_secs(60));
    assert_eq!(several.out.take_shared().0, [], "whoever leads next may find it in flight");
    several.rollouts.drop_engine(ENDING);
    several.wait(Duration::from_secs(1));
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).map(|(agent, _)| agent).collect::<Vec<_>>(), [agent.id]);
}

#[test]
fn what_it_was_put_back_to_is_no_assignment_of_its_group() {
    let (mut several, mut agent) = put_back(SteadySettings::default());
    (agent.runs, agent.drift, agent.assigned_at) = (None, Drift::Pending, Some(several.now));
    assert_eq!(place(&mut several, &mut agent).0, []);
    assert_eq!(several.rollouts.coordinator().holder(&agent.id, SLOT), None);
    assert_eq!(several.rollouts.steady().view().late, 1);
    agent.succeed();
    place(&mut several, &mut agent);
    assert_eq!(several.rollouts.steady().view().late, 0);
}

#[test]
fn who_waited_for_its_group_all_along_waits_for_the_end_to_be_stored() {
    let fleet = agents(2);
    let mut several = steady(SteadySettings::default());
    let [mut first, second] = [0, 1].map(|number| Agent { id: fleet[number].id(), ..Agent::new(0) });
    assert_eq!(place(&mut several, &mut first).0.len(), 1);
    assert_eq!(place(&mut several, &mut second.clone()).0, [], "the first place is taken");
    several.create(&Wanted::new(ENDING, "new", &fleet[1..], ConflictPolicy::Reject)).unwrap();
    several.start(ENDING).unwrap();
    several.succeed(ENDING);
    several.command(ENDING, Do::RollBack(Scope::All)).unwrap();
    several.put_back(ENDING);
    several.wait(Duration::from_secs(1));
    assert_eq!(several.state(ENDING), RolloutState::RolledBack);
    assert_eq!(several.rollouts.steady().view().queued, 1);
    first.succeed();
    assert_eq!(place(&mut several, &mut first).0, []);
    let view = several.rollouts.steady().view();
    assert_eq!((view.queued, view.in_rollout), (0, 1));
    several.rollouts.drop_engine(ENDING);
    several.wait(Duration::from_secs(1));
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).map(|(agent, _)| agent).collect::<Vec<_>>(), [second.id]);
}

#[test]
fn whom_a_rollback_left_alone_keeps_what_the_rollout_brought() {
    let fleet = agents(2);
    let mut several = steady(SteadySettings::default());
    several.create(&Wanted::new(ENDING, "new", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ENDING).unwrap();
    several.succeed(ENDING);
    let mut both = [0, 1].map(|number| Agent { id: fleet[number].id(), ..Agent::new(0) });
    // What the steady state knows of them is what they had before.
    both.iter_mut().for_each(|agent| assert_eq!(place(&mut several, agent).0, []));
    let [well, failed] = &mut both;
    let offer = several.rollouts.engine(ENDING).unwrap().member(&failed.id).unwrap().offer;
    let hash = fingerprint("new");
    let says = AgentFact::Reported { offer, hash, status: ConfigStatus::Failed, text: None };
    several.fact(Some(ENDING), &failed.id, says);
    several.command(ENDING, Do::RollBack(Scope::Failed)).unwrap();
    assert_eq!(several.in_flight(ENDING), [failed.id]);
    several.put_back(ENDING);
    several.wait(Duration::from_secs(60));
    assert_eq!(several.state(ENDING), RolloutState::RolledBack);
    assert_eq!(several.out.take_shared().0, []);
    let written = several.writes(ENDING);
    [&mut *well, &mut *failed]
        .into_iter()
        .for_each(|agent| written.iter().for_each(|write| agent.take(write)));
    assert_eq!((well.assigned, failed.assigned), (Some(fingerprint("new")), Some(fingerprint("old"))));
    well.succeed();
    assert_eq!(place(&mut several, well).0, [], "told again");
    several.rollouts.drop_engine(ENDING);
    several.wait(Duration::from_secs(60));
    let (writes, _) = several.out.take_shared();
    let assigned: Vec<_> = writes.iter().filter_map(desired).map(|(agent, _)| agent).collect();
    assert_eq!(assigned, [failed.id], "who was put back is its group's again");
    several.tell(FleetEvent::Placed(&Placed { kept: true, ..well.placed() })).unwrap();
    several.wait(Duration::from_secs(1_200));
    assert_eq!(several.out.take_shared().0, [], "the store knows how the rollout ended");
}
