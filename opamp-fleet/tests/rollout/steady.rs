//! After success: new agents, moves, drift, loops (R22b, R24, R31, R80).

mod agent;
mod ending;
mod moves;
mod restart;
mod silent;

use std::collections::BTreeSet;
use std::time::Duration;

use opamp_fleet::Drift;
use opamp_fleet::coordinator::{CoordinatorRows, CoordinatorSettings};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::steady::{
    DriftAction, DriftClass, DriftSettings, Placed, SteadySettings, SteadyView,
};
use opamp_fleet::rollout::{
    Act, AlertKind, Do, FleetEvent, GroupIx, OfferKey, Reason, RolloutId, RolloutState, Rollouts, Scope,
    Slot, Write,
};
use opamp_proto::{AgentId, Fingerprint};

use self::agent::Agent;
use crate::overlap::several::{Several, Wanted};
use crate::support::{Known, agents, fingerprint};

const ROLLOUT: RolloutId = RolloutId::from_bytes([1; 16]);
const GROUP: GroupIx = GroupIx(4);
const SLOT: Slot = Slot::MainConfig;
const WANTED: Fingerprint = Fingerprint::from_bytes([0xaa; 16]);
const OTHER: Fingerprint = Fingerprint::from_bytes([0xbb; 16]);

/// Rollouts in which a group should have [`WANTED`].
fn steady(settings: SteadySettings) -> Several {
    let mut several = Several::new();
    several.rollouts =
        Rollouts::new(CoordinatorSettings::default(), CoordinatorRows::default(), Faults::default())
            .with_steady(settings);
    desire(&mut several, WANTED, ROLLOUT);
    several
}

fn desire(several: &mut Several, config: Fingerprint, rollout: RolloutId) {
    several.tell(FleetEvent::GroupDesired { group: GROUP, slot: SLOT, config, rollout }).unwrap();
}

/// Tells where an agent is; gives what that led to, with what was written in its record.
fn place(several: &mut Several, agent: &mut Agent) -> (Vec<Write>, Vec<Act>) {
    several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    let (writes, acts) = several.out.take_shared();
    writes.iter().for_each(|write| agent.take(write));
    (writes, acts)
}

fn alerts(acts: &[Act]) -> Vec<AlertKind> {
    let kind = |act: &Act| if let Act::Alert(alert) = act { Some(alert.kind) } else { None };
    acts.iter().filter_map(kind).collect()
}

fn desired(write: &Write) -> Option<(AgentId, u32)> {
    if let Write::Assign { key, .. } = write { Some((key.agent, key.offer)) } else { None }
}

#[test]
fn a_new_agent_gets_the_config_of_a_succeeded_rollout() {
    let fleet = agents(2);
    let mut several = Several::new();
    let wanted = Wanted::new(ROLLOUT, "new", &fleet, ConflictPolicy::Reject);
    several.create(&Wanted { group: Some(GROUP), ..wanted }).unwrap();
    several.start(ROLLOUT).unwrap();
    several.succeed(ROLLOUT);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(ROLLOUT), RolloutState::Succeeded);
    let written = several.writes(ROLLOUT);
    let of_group = written.iter().find_map(|write| match write {
        Write::GroupDesired { group, slot, config, rollout } => Some((*group, *slot, *config, *rollout)),
        _ => None,
    });
    let (group, slot, config, rollout) = of_group.expect("the group should have it from now on");
    assert_eq!((group, slot, config), (GROUP, SLOT, fingerprint("new")));
    several.tell(FleetEvent::GroupDesired { group, slot, config, rollout }).unwrap();
    several.rollouts.drop_engine(ROLLOUT);

    let mut late = Agent::new(77);
    let (writes, acts) = place(&mut several, &mut late);
    let key = OfferKey { rollout: ROLLOUT, agent: late.id, offer: 1 };
    assert_eq!(writes, [Write::Assign { key, slot, config, over: None }]);
    assert_eq!(acts, [Act::Hint { agent: late.id }]);
    late.succeed();
    place(&mut several, &mut late);
    let view = several.rollouts.coordinator().view();
    assert_eq!((view.in_flight, view.locks), (0, 0), "nothing is left of it");
}

#[test]
fn a_whole_fleet_relabelled_at_once_stays_within_the_cap() {
    let mut several = steady(SteadySettings::default());
    let mut fleet: Vec<_> = (0..200).map(Agent::new).collect();
    let mut in_flight = BTreeSet::new();
    let mut most = 0;
    for agent in &fleet {
        several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    }
    let mut rounds = Vec::new();
    while fleet.iter().any(|agent| agent.drift != Drift::InSync) {
        let (writes, _) = several.out.take_shared();
        for (agent, offer) in writes.iter().filter_map(desired) {
            assert_eq!(offer, 1);
            assert!(in_flight.insert(agent), "assigned twice");
        }
        assert!(!in_flight.is_empty(), "it goes on");
        most = most.max(in_flight.len());
        rounds.push(in_flight.len());
        for agent in &mut fleet {
            writes.iter().for_each(|write| agent.take(write));
            if in_flight.remove(&agent.id) {
                agent.succeed();
                several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
            }
        }
    }
    assert_eq!(most, 10);
    assert_eq!(rounds[..4], [1, 2, 4, 8], "slowly at first");
    assert_eq!(several.rollouts.steady().view(), SteadyView::default());
}

#[test]
fn three_failures_in_a_row_stop_a_group_until_somebody_lets_it_go_on() {
    let mut several = steady(SteadySettings::default());
    let mut fleet: Vec<_> = (0..20).map(Agent::new).collect();
    let mut told = Vec::new();
    for agent in &fleet {
        several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    }
    for agent in &mut fleet[..3] {
        let (writes, acts) = several.out.take_shared();
        assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 1)]);
        told.extend(alerts(&acts));
        writes.iter().for_each(|write| agent.take(write));
        agent.fail();
        several.tell(FleetEvent::Placed(&agent.placed())).unwrap();
    }
    let (writes, acts) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).count(), 0);
    told.extend(alerts(&acts));
    assert_eq!(told, [AlertKind::Gate]);
    several.wait(Duration::from_secs(24 * 3_600));
    assert_eq!(several.out.take_shared().0, []);
    assert!(several.rollouts.steady().group(GROUP, SLOT).unwrap().held);

    several.tell(FleetEvent::GroupGoesOn { group: GROUP, slot: SLOT }).unwrap();
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(fleet[3].id, 1)]);
    assert_eq!(several.rollouts.steady().view().failed, 3, "and those it failed on are left alone (R31)");
}

#[test]
fn what_failed_on_an_agent_is_not_assigned_to_it_again() {
    let mut several = steady(SteadySettings::default());
    let mut agent = Agent { failed: vec![WANTED], ..Agent::new(1) };
    assert_eq!(place(&mut several, &mut agent).0, []);
    several.wait(Duration::from_secs(24 * 3_600));
    assert_eq!(several.out.take_shared().0, []);
    assert_eq!(several.rollouts.steady().view().failed, 1);
    desire(&mut several, OTHER, ROLLOUT);
    agent.runs = None;
    assert_eq!(place(&mut several, &mut agent).0.len(), 1, "another configuration is another matter");
}

#[test]
fn who_is_away_is_assigned_nothing_until_it_is_back() {
    let mut several = steady(SteadySettings::default());
    let mut agent = Agent { connected: false, ..Agent::new(1) };
    assert_eq!(place(&mut several, &mut agent).0, []);
    assert_eq!(several.rollouts.steady().view().away, 1);
    agent.connected = true;
    assert_eq!(place(&mut several, &mut agent).0.len(), 1);
}

#[test]
fn who_leaves_the_group_leaves_its_queue_and_frees_its_place() {
    let mut several = steady(SteadySettings::default());
    let [mut first, mut second, mut third] = [1, 2, 3].map(Agent::new);
    assert_eq!(place(&mut several, &mut first).0.len(), 1);
    assert_eq!(place(&mut several, &mut second).0, []);
    second.group = None;
    place(&mut several, &mut second);
    assert_eq!(place(&mut several, &mut third).0, []);
    first.group = Some(GroupIx(9));
    let (writes, _) = place(&mut several, &mut first);
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(third.id, 1)]);
}

#[test]
fn an_agent_that_runs_it_already_is_only_recorded() {
    let mut several = steady(SteadySettings::default());
    let mut agent = Agent { runs: Some(WANTED), ..Agent::new(1) };
    let (writes, acts) = place(&mut several, &mut agent);
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 1)]);
    assert_eq!(acts, []);
    assert_eq!(several.rollouts.coordinator().view().in_flight, 0);
}

#[test]
fn a_record_that_was_not_read_since_leads_to_no_second_assignment() {
    let mut several = steady(SteadySettings::default());
    let stale = Agent::new(1);
    assert_eq!(place(&mut several, &mut stale.clone()).0.len(), 1);
    assert_eq!(place(&mut several, &mut stale.clone()).0, []);
    assert_eq!(several.rollouts.steady().group(GROUP, SLOT).unwrap().in_flight, 1);
}

#[test]
fn an_assignment_that_takes_too_long_counts_against_an_agent_that_is_there() {
    let mut several = steady(SteadySettings::default());
    let (mut silent, mut gone, next) = (Agent::new(1), Agent::new(2), Agent::new(3));
    place(&mut several, &mut silent);
    several.wait(Duration::from_secs(601));
    assert_eq!(several.rollouts.coordinator().view().settled, [0, 1, 0]);
    place(&mut several, &mut gone);
    gone.connected = false;
    place(&mut several, &mut gone);
    several.wait(Duration::from_secs(601));
    assert_eq!(several.rollouts.coordinator().view().settled, [0, 1, 1]);
    assert_eq!(several.rollouts.steady().view().late, 2);
    assert_eq!(place(&mut several, &mut next.clone()).0.len(), 1, "nobody waits for them");
    silent.succeed();
    place(&mut several, &mut silent);
    assert_eq!(several.rollouts.steady().view().late, 1);
}

#[test]
fn who_a_rollout_holds_is_left_to_it() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let other = RolloutId::from_bytes([9; 16]);
    several.create(&Wanted::new(other, "new", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(other).unwrap();
    let mut held = Agent { id: fleet[0].id(), ..Agent::new(0) };
    assert_eq!(place(&mut several, &mut held).0, []);
    several.wait(Duration::from_secs(20));
    assert_eq!(several.out.take_shared().0, []);
    several.succeed(other);
    several.command(other, Do::RollBack(Scope::All)).unwrap();
    assert_eq!(several.in_flight(other), [held.id]);
    several.put_back(other);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(other), RolloutState::RolledBack);
    assert_eq!(several.out.take_shared().0, [], "whoever leads next may find it as it was before");
    assert_eq!(place(&mut several, &mut held).0, []);
    several.rollouts.drop_engine(other);
    several.wait(Duration::from_secs(1));
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(held.id, 1)], "and assigned then");
}

#[test]
fn whom_the_breaker_was_in_the_way_of_is_assigned_as_soon_as_it_is_closed_by_hand() {
    let mut several = steady(SteadySettings::default());
    let open = Some(several.now + Duration::from_secs(1_800));
    let rows = CoordinatorRows { breaker: open, ..CoordinatorRows::default() };
    several.rollouts = Rollouts::new(CoordinatorSettings::default(), rows, Faults::default());
    desire(&mut several, WANTED, ROLLOUT);
    let mut agent = Agent::new(1);
    assert_eq!(place(&mut several, &mut agent).0, []);
    several.wait(Duration::from_secs(60));
    several.tell(FleetEvent::CloseBreaker).unwrap();
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(agent.id, 1)]);
}

#[test]
fn a_recalled_configuration_is_assigned_to_nobody() {
    let mut several = steady(SteadySettings::default());
    several.tell(FleetEvent::Recall { config: WANTED, actor: "someone", reason: "it leaks" }).unwrap();
    let (_, acts) = several.out.take_shared();
    assert_eq!(alerts(&acts), [AlertKind::Paused]);
    assert_eq!(place(&mut several, &mut Agent::new(1)).0, []);
    let mut runs_it = Agent { runs: Some(WANTED), ..Agent::new(2) };
    assert_eq!(place(&mut several, &mut runs_it).0, [], "and nobody's record names it");
    several.tell(FleetEvent::GroupGoesOn { group: GROUP, slot: SLOT }).unwrap();
    let (writes, acts) = several.out.take_shared();
    assert_eq!(writes, [], "letting it go on does not help");
    assert_eq!(alerts(&acts), [AlertKind::Paused], "and whoever does it is told");
}

/// An agent that ran it well and runs something else now.
fn drifted(number: u32, runs: Option<Fingerprint>) -> Agent {
    let offer = OfferKey { rollout: ROLLOUT, agent: Agent::new(number).id, offer: 1 };
    let agent = Agent { assigned: Some(WANTED), offer: Some(offer), ..Agent::new(number) };
    Agent { offers: BTreeSet::from([offer]), runs, drift: Drift::Drifted, ..agent }
}

#[test]
fn drift_classes_and_actions() {
    let drift = DriftSettings {
        local_edit: DriftAction::Reassert,
        self_rollback: DriftAction::Alert,
        unknown: DriftAction::Report,
        ..DriftSettings::default()
    };
    let mut several = steady(SteadySettings { drift, ..SteadySettings::default() });
    assert_eq!(DriftClass::ALL, [DriftClass::LocalEdit, DriftClass::SelfRollback, DriftClass::Unknown]);

    let mut unknown = drifted(1, None);
    let (writes, acts) = place(&mut several, &mut unknown);
    assert!(writes.is_empty() && acts.is_empty(), "it is shown");

    let mut back = drifted(2, Some(OTHER));
    let (writes, acts) = place(&mut several, &mut back);
    assert!(writes.is_empty());
    assert_eq!(alerts(&acts), [AlertKind::Drifted]);
    assert_eq!(alerts(&place(&mut several, &mut back).1), [], "and told once");
    assert_eq!(several.rollouts.steady().view().drifted, [0, 1, 1]);

    let edited = drifted(3, Some(Fingerprint::from_bytes([0xcc; 16])));
    let placed = Placed { runs_known: false, ..edited.placed() };
    several.tell(FleetEvent::Placed(&placed)).unwrap();
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(edited.id, 2)], "put right");
    back.succeed();
    place(&mut several, &mut back);
    assert_eq!(several.rollouts.steady().view().drifted, [0, 0, 1], "in sync again");
}

#[test]
fn an_agent_is_put_right_so_often_and_then_left_alone() {
    let drift = DriftSettings { self_rollback: DriftAction::Reassert, ..DriftSettings::default() };
    let mut several = steady(SteadySettings { drift, ..SteadySettings::default() });
    let mut agent = drifted(1, Some(OTHER));
    let mut put_right = 0;
    for _ in 0..5 {
        let (writes, _) = place(&mut several, &mut agent);
        put_right += writes.iter().filter_map(desired).count();
        agent.succeed();
        place(&mut several, &mut agent);
        several.wait(Duration::from_secs(2 * 3_600));
        (agent.runs, agent.drift) = (Some(OTHER), Drift::Drifted);
    }
    assert_eq!(put_right, 2);
    let quarantined = several.rollouts.coordinator().quarantined(&agent.id, several.now);
    assert_eq!(quarantined.map(|(_, reason)| reason), Some(Reason::Loop));
}

#[test]
fn alternating_hashes_end_in_quarantine() {
    let mut several = steady(SteadySettings::default());
    let mut agent = drifted(1, Some(OTHER));
    let mut quarantined = Vec::new();
    for change in 0..8 {
        agent.runs = Some(if change % 2 == 0 { OTHER } else { WANTED });
        agent.drift = if change % 2 == 0 { Drift::Drifted } else { Drift::InSync };
        let (writes, acts) = place(&mut several, &mut agent);
        let is_quarantine = |write: &Write| matches!(write, Write::Quarantine { agent: who, reason: Reason::Loop, .. } if *who == agent.id);
        if writes.iter().any(is_quarantine) {
            assert!(alerts(&acts).contains(&AlertKind::Quarantined));
            quarantined.push(change);
        }
    }
    assert_eq!(quarantined, [4], "the fourth change within an hour");
    assert!(several.rollouts.coordinator().quarantined(&agent.id, several.now).is_some());
    agent.assigned = None;
    agent.runs = Some(OTHER);
    let (writes, _) = place(&mut several, &mut agent);
    assert_eq!(writes.iter().filter_map(desired).count(), 0, "nothing is assigned to it");
}

#[test]
fn many_who_cannot_be_assigned_hold_up_nobody_behind_them() {
    let mut several = steady(SteadySettings::default());
    let mut rows = CoordinatorRows::default();
    rows.quarantined.extend((0..1_000).map(|number| (Agent::new(number).id, None, Reason::Operator)));
    several.rollouts = Rollouts::new(CoordinatorSettings::default(), rows, Faults::default());
    desire(&mut several, WANTED, ROLLOUT);
    for number in 0..=1_000 {
        several.tell(FleetEvent::Placed(&Agent::new(number).placed())).unwrap();
    }
    several.wait(Duration::from_secs(120));
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes.iter().filter_map(desired).collect::<Vec<_>>(), [(Agent::new(1_000).id, 1)]);
}

/// A rollout of the group, all of which has applied it, with the one agent's record as it is then.
fn applied_by(several: &mut Several, rollout: RolloutId, fleet: &[Known]) -> Agent {
    let wanted = Wanted::new(rollout, "new", fleet, ConflictPolicy::Reject);
    several.create(&Wanted { group: Some(GROUP), ..wanted }).unwrap();
    several.start(rollout).unwrap();
    let mut agent = Agent { id: fleet[0].id(), ..Agent::new(0) };
    let written = several.writes(rollout);
    written.iter().for_each(|write| agent.take(write));
    several.succeed(rollout);
    agent.succeed();
    assert_eq!(place(several, &mut agent).0, [], "the rollout has it");
    agent
}

#[test]
fn what_a_live_rollout_has_offered_is_not_taken_back_while_the_agent_still_runs_what_its_group_has() {
    let fleet = agents(2);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let wanted = Wanted::new(rollout, "new", &fleet, ConflictPolicy::Reject);
    several.create(&Wanted { group: Some(GROUP), ..wanted }).unwrap();
    several.start(rollout).unwrap();
    let mut agent = Agent { id: fleet[0].id(), assigned: Some(WANTED), runs: Some(WANTED), ..Agent::new(0) };
    agent.drift = Drift::InSync;
    assert_eq!(place(&mut several, &mut agent).0, []);
    let written = several.writes(rollout);
    written.iter().for_each(|write| agent.take(write));
    assert_eq!((agent.assigned, agent.runs), (Some(fingerprint("new")), Some(WANTED)));
    assert_eq!(place(&mut several, &mut agent).0, []);
    several.wait(Duration::from_secs(30));
    assert_eq!(several.out.take_shared().0, []);
}

#[test]
fn what_rollouts_do_with_an_agent_is_no_loop() {
    let fleet = agents(2);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let mut agent = applied_by(&mut several, rollout, &fleet);
    for change in 0..8 {
        agent.runs = Some(if change % 2 == 0 { WANTED } else { OTHER });
        agent.drift = Drift::Applying;
        place(&mut several, &mut agent);
    }
    assert_eq!(several.rollouts.coordinator().view().quarantined, 0);
}

#[test]
fn while_a_success_is_being_committed_nobody_is_assigned_what_the_group_had_before() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let mut agent = applied_by(&mut several, rollout, &fleet);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(rollout), RolloutState::Succeeded);
    assert_eq!(several.out.take_shared().0, [], "for as long as the store takes");
    desire(&mut several, fingerprint("new"), rollout);
    assert_eq!(several.out.take_shared().0, [], "it has it");
    assert_eq!(place(&mut several, &mut agent).0, []);
    assert_eq!(several.rollouts.steady().view(), SteadyView::default());
    let mut late = Agent::new(77);
    assert_eq!(place(&mut several, &mut late).0.len(), 1, "others get it");
}

#[test]
fn while_a_success_is_being_committed_nothing_is_recorded_for_who_runs_what_the_group_had_before() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    applied_by(&mut several, rollout, &fleet);
    several.wait(Duration::from_secs(3_600));
    several.out.take_shared();
    let mut other = Agent { runs: Some(WANTED), ..Agent::new(78) };
    assert_eq!(place(&mut several, &mut other).0, []);
    desire(&mut several, fingerprint("new"), rollout);
    several.out.take_shared();
    let (writes, _) = place(&mut several, &mut other);
    let is_new =
        |write: &Write| matches!(write, Write::Assign { config, .. } if *config == fingerprint("new"));
    assert!(writes.iter().all(is_new), "{writes:?}");
}

#[test]
fn a_success_that_was_not_committed_leaves_the_group_as_it_was() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    applied_by(&mut several, rollout, &fleet);
    let before = several.rollouts.engine(rollout).unwrap().clone();
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(rollout), RolloutState::Succeeded);
    let mut late = Agent::new(77);
    assert_eq!(place(&mut several, &mut late).0, []);
    several.rollouts.drop_engine(rollout);
    several.rollouts.restore(before, several.now);
    assert!(!several.state(rollout).is_terminal());
    let (writes, _) = place(&mut several, &mut late);
    let key = OfferKey { rollout: ROLLOUT, agent: late.id, offer: 1 };
    assert_eq!(writes, [Write::Assign { key, slot: SLOT, config: WANTED, over: None }]);
}

#[test]
fn who_has_it_from_an_aborted_rollout_keeps_it() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let mut agent = applied_by(&mut several, rollout, &fleet);
    several.command(rollout, Do::Abort).unwrap();
    assert_eq!(several.state(rollout), RolloutState::Aborted);
    several.wait(Duration::from_secs(60));
    assert_eq!(several.out.take_shared().0, []);
    assert_eq!(place(&mut several, &mut agent).0, [], "told again");
    several.rollouts.drop_engine(rollout);
    several.tell(FleetEvent::Placed(&Placed { kept: true, ..agent.placed() })).unwrap();
    assert_eq!(several.out.take_shared().0, [], "the store knows how the rollout ended");
    let (writes, _) = place(&mut several, &mut agent);
    assert_eq!(writes.iter().filter_map(desired).count(), 1, "it was moved into the group since");
}

#[test]
fn a_success_that_its_records_know_as_an_abort_leaves_the_group_as_it_was() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    let mut agent = applied_by(&mut several, rollout, &fleet);
    let mut elsewhere = several.clone();
    elsewhere.command(rollout, Do::Abort).unwrap();
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(rollout), RolloutState::Succeeded);
    let aborted = elsewhere.rollouts.engine(rollout).unwrap().clone();
    several.rollouts.drop_engine(rollout);
    several.rollouts.restore(aborted, several.now);
    assert_eq!(several.state(rollout), RolloutState::Aborted);
    let mut late = Agent::new(77);
    assert_eq!(place(&mut several, &mut late).0.iter().filter_map(desired).count(), 1);
    assert_eq!(place(&mut several, &mut agent).0, [], "it keeps what the rollout left it");
}

#[test]
fn what_a_rollout_of_no_group_brought_stays_with_its_members() {
    let fleet = agents(1);
    let mut several = steady(SteadySettings::default());
    let rollout = RolloutId::from_bytes([9; 16]);
    several.create(&Wanted::new(rollout, "new", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(rollout).unwrap();
    let mut agent = Agent { id: fleet[0].id(), ..Agent::new(0) };
    let written = several.writes(rollout);
    written.iter().for_each(|write| agent.take(write));
    several.succeed(rollout);
    agent.succeed();
    place(&mut several, &mut agent);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(rollout), RolloutState::Succeeded);
    assert_eq!(place(&mut several, &mut agent).0, []);
    let mut late = Agent::new(77);
    let (writes, _) = place(&mut several, &mut late);
    assert_eq!(
        writes.iter().filter_map(desired).collect::<Vec<_>>(),
        [(late.id, 1)],
        "the group's is its own"
    );
}
