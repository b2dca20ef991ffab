//! Several rollouts at a time: conflicts, hand-over, routing, recall, layers (R57, R60 to R63).

pub(crate) mod several;
mod waiting;

use std::time::Duration;

use opamp_fleet::coordinator::{Admission, CoordinatorRows, CoordinatorSettings, Layered};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::{
    Act, AgentFact, AlertKind, CreateError, Do, FleetEvent, HandleError, MemberState, PlanError, Reason,
    Refused, RolloutId, RolloutState, Rollouts, Slot, Write,
};
use opamp_fleet::{ConfigLimits, ConfigMap};
use opamp_proto::{Fingerprint, pb};
use proptest::prelude::*;

use self::several::{Several, Wanted};
use crate::support::{START, agents, fingerprint};

const ONE: RolloutId = RolloutId::from_bytes([1; 16]);
const TWO: RolloutId = RolloutId::from_bytes([2; 16]);
const THREE: RolloutId = RolloutId::from_bytes([3; 16]);

fn waits() -> impl Fn(Result<(), HandleError>) -> bool {
    |result| matches!(result, Err(HandleError::Refused(Refused::WrongState { needs, .. })) if needs.contains("end of"))
}

#[test]
fn matrix() {
    let fleet = agents(6);
    for policy in ConflictPolicy::ALL {
        // Other agents, or another slot: no overlap, whatever the policy.
        let mut several = Several::new();
        several.create(&Wanted::new(ONE, "a", &fleet[..3], ConflictPolicy::Reject)).unwrap();
        several.create(&Wanted::new(TWO, "b", &fleet[3..], policy)).unwrap();
        let packages = Wanted { slot: Slot::NamedConfig(0), ..Wanted::new(THREE, "c", &fleet, policy) };
        several.create(&packages).unwrap();
        for rollout in [ONE, TWO, THREE] {
            several.start(rollout).unwrap();
            assert_eq!(several.state(rollout), RolloutState::Running, "{policy}");
        }
    }
    for policy in ConflictPolicy::ALL {
        let mut several = Several::new();
        several.create(&Wanted::new(ONE, "a", &fleet[..4], ConflictPolicy::Reject)).unwrap();
        several.start(ONE).unwrap();
        let second = several.create(&Wanted::new(TWO, "b", &fleet[2..], policy));
        match policy {
            ConflictPolicy::Reject => {
                assert_eq!(second, Err(CreateError::Overlaps(vec![(ONE, 2)])));
                assert!(several.rollouts.engine(TWO).is_none());
                assert_eq!(several.state(ONE), RolloutState::Running);
                continue;
            }
            ConflictPolicy::Queue => assert_eq!(second, Ok(Admission::AfterOthers)),
            ConflictPolicy::Supersede => assert_eq!(second, Ok(Admission::InPlaceOfOthers)),
        }
        assert_eq!(several.state(ONE), RolloutState::Running, "a draft ends nobody: {policy}");
        let overlaps = several.rollouts.engine(TWO).unwrap().plan().overlaps.clone();
        assert_eq!(*overlaps, [(ONE, 2)], "shown in the plan");
        assert!(waits()(several.start(TWO)), "{policy}");
        let first = match policy {
            ConflictPolicy::Supersede => RolloutState::Aborting,
            ConflictPolicy::Queue | ConflictPolicy::Reject => RolloutState::Running,
        };
        assert_eq!(several.state(ONE), first, "{policy}");
        assert_eq!(several.rollouts.coordinator().waits_for(TWO), Some(ONE));
        several.succeed(ONE);
        several.wait(Duration::from_secs(3_600));
        assert!(several.state(ONE).is_terminal(), "{policy}: {}", several.state(ONE));
        several.start(TWO).unwrap();
        assert_eq!(several.state(TWO), RolloutState::Running);
    }
}

#[test]
fn a_rollout_that_has_ended_is_in_nobodys_way() {
    let fleet = agents(3);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.command(ONE, Do::Cancel).unwrap();
    several.create(&Wanted::new(TWO, "b", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(TWO).unwrap();
    assert_eq!(several.state(TWO), RolloutState::Running);
}

#[test]
fn superseding_waits_for_what_is_in_flight() {
    let fleet = agents(4);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    let in_flight = several.in_flight(ONE);
    assert_eq!(in_flight, [fleet[0].id()]);
    several.create(&Wanted::new(TWO, "b", &fleet, ConflictPolicy::Supersede)).unwrap();
    several.command(TWO, Do::Submit).unwrap();
    assert_eq!(several.state(ONE), RolloutState::Aborting);
    assert_eq!(several.in_flight(ONE), in_flight, "what is under way stays, nothing new begins");
    assert!(waits()(several.start(TWO)));
    several.succeed(ONE);
    assert_eq!(several.state(ONE), RolloutState::Superseded);
    several.start(TWO).unwrap();
    assert_eq!(several.in_flight(TWO), [fleet[0].id()]);
    let previous = several.rollouts.engine(TWO).unwrap().member(&fleet[0].id()).unwrap().previous;
    assert_eq!(previous, Some(fingerprint("old")), "what it last ran well stays what it goes back to");
    let others = several.rollouts.engine(ONE).unwrap().members(None, None, 10);
    assert!(others[1..].iter().all(|member| member.state == MemberState::Queued), "they were dropped");
}

#[test]
fn a_chain_of_rollouts_goes_one_after_the_other() {
    let fleet = agents(2);
    let mut several = Several::new();
    for (id, body) in [(ONE, "a"), (TWO, "b"), (THREE, "c")] {
        several.create(&Wanted::new(id, body, &fleet, ConflictPolicy::Queue)).unwrap();
    }
    assert!(waits()(several.start(TWO)) && waits()(several.start(THREE)));
    several.start(ONE).unwrap();
    several.succeed(ONE);
    several.wait(Duration::from_secs(3_600));
    assert_eq!(several.state(ONE), RolloutState::Succeeded);
    assert!(waits()(several.start(THREE)), "the second one is before it");
    several.start(TWO).unwrap();
    several.command(TWO, Do::Abort).unwrap();
    several.succeed(TWO);
    assert_eq!(several.state(TWO), RolloutState::Aborted);
    several.start(THREE).unwrap();
    assert_eq!(several.in_flight(THREE).len(), 1);
}

#[test]
fn who_waits_for_whom_survives_a_rebuild() {
    let fleet = agents(3);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    several.create(&Wanted::new(TWO, "b", &fleet, ConflictPolicy::Queue)).unwrap();
    let engines: Vec<_> = several.rollouts.engines().cloned().collect();
    let mut later = Several::new();
    // In the other order, and the first one after a conflict once more.
    for engine in engines.into_iter().rev() {
        later.rollouts.restore(engine, START);
    }
    let first = later.rollouts.engine(ONE).unwrap().clone();
    later.rollouts.drop_engine(ONE);
    assert_eq!(later.rollouts.coordinator().view().locks, 0);
    later.rollouts.restore(first, START);
    assert!(waits()(later.start(TWO)));
    let holder = later.rollouts.coordinator().holder(&fleet[0].id(), Slot::MainConfig);
    assert_eq!(holder, Some(ONE));
}

#[test]
fn a_superseding_rollout_tells_again_what_was_lost() {
    let fleet = agents(3);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    let before = several.rollouts.engine(ONE).unwrap().clone();
    several.create(&Wanted::new(TWO, "b", &fleet, ConflictPolicy::Supersede)).unwrap();
    several.command(TWO, Do::Submit).unwrap();
    assert_eq!(several.state(ONE), RolloutState::Aborting);
    // The batch of the first one is lost, and it is rebuilt as it was before.
    several.rollouts.drop_engine(ONE);
    several.rollouts.restore(before, START);
    assert_eq!(several.state(ONE), RolloutState::Running);
    several.tell(FleetEvent::Tick).unwrap();
    assert_eq!(several.state(ONE), RolloutState::Aborting);
}

#[test]
fn a_fact_about_an_offer_is_told_to_its_rollout_and_other_facts_to_all() {
    let fleet = agents(1);
    let agent = fleet[0].id();
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Reject)).unwrap();
    let named =
        Wanted { slot: Slot::NamedConfig(0), ..Wanted::new(TWO, "b", &fleet, ConflictPolicy::Reject) };
    several.create(&named).unwrap();
    for rollout in [ONE, TWO] {
        several.start(rollout).unwrap();
    }
    let states = |several: &Several| {
        [ONE, TWO].map(|id| several.rollouts.engine(id).unwrap().member(&agent).unwrap().state)
    };
    several.fact(Some(ONE), &agent, AgentFact::Delivered { offer: 1 });
    assert_eq!(states(&several), [MemberState::Delivered, MemberState::Offered]);
    several.fact(None, &agent, AgentFact::Disconnected { announced: false });
    assert_eq!(states(&several), [MemberState::Absent, MemberState::Absent]);
    let unknown = several.command(THREE, Do::Pause);
    assert_eq!(unknown, Err(HandleError::UnknownRollout));
}

#[test]
fn a_recall_ends_what_rolls_it_out_and_lets_nobody_begin_with_it() {
    let fleet = agents(6);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "bad", &fleet[..3], ConflictPolicy::Reject)).unwrap();
    several.create(&Wanted::new(TWO, "good", &fleet[3..], ConflictPolicy::Reject)).unwrap();
    several.start(ONE).unwrap();
    several.start(TWO).unwrap();
    let bad = fingerprint("bad");
    several.tell(FleetEvent::Recall { config: bad, actor: "someone", reason: "it leaks" }).unwrap();
    assert!(!several.state(ONE).may_offer(), "{}", several.state(ONE));
    assert_eq!(several.state(TWO), RolloutState::Running);
    let (writes, _) = several.out.take_shared();
    assert_eq!(writes, [Write::Recall { config: bad, reason: "someone: it leaks".into() }]);
    let again = several.create(&Wanted::new(THREE, "bad", &fleet[..1], ConflictPolicy::Queue));
    assert_eq!(again, Err(CreateError::Plan(PlanError::Recalled)));
}

#[test]
fn failures_of_several_rollouts_are_told_once_and_stop_them_all() {
    let fleet = agents(60);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet[..30], ConflictPolicy::Reject)).unwrap();
    several.create(&Wanted::new(TWO, "b", &fleet[30..], ConflictPolicy::Reject)).unwrap();
    for rollout in [ONE, TWO] {
        several.start(rollout).unwrap();
    }
    let mut told = 0;
    for _ in 0..15 {
        for rollout in [ONE, TWO] {
            several.refuse(rollout);
        }
        let (_, acts) = several.out.take_shared();
        let is_told = |act: &&Act| matches!(act, Act::Alert(alert) if alert.kind == AlertKind::BreakerOpen);
        told += acts.iter().filter(is_told).count();
    }
    assert_eq!(told, 1);
    assert_eq!([ONE, TWO].map(|rollout| several.in_flight(rollout).len()), [0, 0]);
    assert_eq!([ONE, TWO].map(|rollout| several.state(rollout)), [RolloutState::Running; 2]);
    several.tell(FleetEvent::CloseBreaker).unwrap();
    assert_eq!(several.out.take_shared().0, [Write::Breaker { open_until: None }]);
    assert_eq!(several.rollouts.coordinator().view().breaker, None);
    assert_eq!([ONE, TWO].map(|rollout| several.in_flight(rollout).len()), [1, 1], "they go on at once");
    let engine = several.rollouts.engine(ONE).unwrap();
    let why = engine.why_not_moving(several.now, several.rollouts.coordinator());
    assert!(!why.reason.contains("breaker"), "{why:?}");
}

#[test]
fn a_quarantined_agent_is_released_by_hand() {
    let agent = agents(1)[0].id();
    let rows =
        CoordinatorRows { quarantined: vec![(agent, None, Reason::Operator)], ..CoordinatorRows::default() };
    let mut several = Several::new();
    several.rollouts = Rollouts::new(CoordinatorSettings::default(), rows, Faults::default());
    for _ in 0..2 {
        several.tell(FleetEvent::Release { agent: &agent }).unwrap();
    }
    assert_eq!(several.out.take_shared().0, [Write::Release { agent }]);
    assert_eq!(several.rollouts.coordinator().quarantined(&agent, several.now), None);
}

#[test]
fn no_agent_has_two_offers_for_one_slot_whoever_is_first() {
    let fleet = agents(5);
    let mut several = Several::new();
    several.create(&Wanted::new(ONE, "a", &fleet, ConflictPolicy::Queue)).unwrap();
    several.start(ONE).unwrap();
    several.create(&Wanted::new(TWO, "b", &fleet, ConflictPolicy::Supersede)).unwrap();
    for _ in 0..20 {
        // Refused as long as the first one has something in flight.
        let _ = several.start(TWO);
        let [one, two] = [ONE, TWO].map(|id| several.in_flight(id));
        assert!(one.iter().all(|agent| !two.contains(agent)), "{one:?} {two:?}");
        several.succeed(if one.is_empty() { TWO } else { ONE });
        several.wait(Duration::from_secs(600));
    }
    assert_eq!(several.state(TWO), RolloutState::Succeeded);
    let desired = several.writes(TWO).iter().filter(|write| matches!(write, Write::Desire { .. })).count();
    assert_eq!(desired, 5);
}

#[test]
fn there_are_only_so_many_rollouts_and_a_name_is_given_once() {
    let fleet = agents(1);
    let mut several = Several::new();
    let wanted = |number: u8| {
        let id = RolloutId::from_bytes([number; 16]);
        Wanted {
            slot: Slot::NamedConfig(number.into()),
            ..Wanted::new(id, "a", &fleet, ConflictPolicy::Reject)
        }
    };
    for number in 0..64 {
        several.create(&wanted(number)).unwrap();
    }
    assert_eq!(several.create(&wanted(0)), Err(CreateError::Exists));
    assert_eq!(several.create(&wanted(64)), Err(CreateError::TooMany { limit: 64 }));
    several.rollouts.drop_engine(RolloutId::from_bytes([3; 16]));
    assert!(several.create(&wanted(64)).is_ok());
    assert_eq!(several.rollouts.slot_number("base"), Some(0));
    assert_eq!(several.rollouts.slot_number("edge"), Some(1));
    assert_eq!(several.rollouts.slot_number("base"), Some(0));
}

/// A configuration of files by name; the body says which layer it is of.
fn layer(slot: Slot, version: u8, files: &[u8]) -> ConfigMap {
    let file = |name: &u8| {
        let body = format!("{slot:?} {version} {name}").into();
        (format!("{name}.yaml"), pb::AgentConfigObject { body, ..Default::default() })
    };
    let config_map = files.iter().map(file).collect();
    ConfigMap::new(pb::AgentConfigMap { config_map }, &ConfigLimits::default()).unwrap()
}

fn files(layered: &Layered) -> Vec<(String, Slot)> {
    layered.files().map(|file| (file.name.to_owned(), file.from)).collect()
}

proptest! {
    /// A change of one layer gives the same as composing all anew, and leaves every other layer and its files alone.
    #[test]
    fn layers(changes in prop::collection::vec((0_u16..4, any::<u8>(), prop::collection::vec(0_u8..6, 1..5)), 1..20)) {
        let mut layered = Layered::default();
        let mut present: Vec<(Slot, ConfigMap)> = Vec::new();
        for (number, version, names) in changes {
            let slot = if number == 0 { Slot::MainConfig } else { Slot::NamedConfig(number) };
            let config = layer(slot, version, &names);
            let (before, before_files) = (layered.layers().collect::<Vec<_>>(), files(&layered));
            layered.set(slot, config.clone()).unwrap();
            present.retain(|(other, _)| *other != slot);
            present.push((slot, config));

            let mut anew = Layered::default();
            for (slot, config) in &present {
                anew.set(*slot, config.clone()).unwrap();
            }
            prop_assert_eq!(&anew, &layered);
            let limits = ConfigLimits::default();
            prop_assert_eq!(anew.composed(&limits).unwrap(), layered.composed(&limits).unwrap());
            let others = |layers: Vec<(Slot, Fingerprint)>| {
                layers.into_iter().filter(|(other, _)| *other != slot).collect::<Vec<_>>()
            };
            prop_assert_eq!(others(before), others(layered.layers().collect()));
            for (name, from) in before_files {
                if from > slot {
                    prop_assert!(files(&layered).contains(&(name, from)), "a later layer's file is not touched");
                }
            }
        }
    }
}
