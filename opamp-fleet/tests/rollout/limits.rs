//! What limits hold back is no lack of progress (R49), and what has touched as many as it may waits for people (R54).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::coordinator::{Claim, ClaimKind};
use opamp_fleet::rollout::plan::{ConflictPolicy, PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, AlertKind, Do, EngineSettings, Event, LateJoiners, Limits, MemberState, NoProgress, Refused,
    Resume, RolloutId, RolloutState,
};

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, request};

const MINUTE: Duration = Duration::from_secs(60);
const OTHER: RolloutId = RolloutId::from_bytes([8; 16]);

/// Four agents at once; without progress for ten minutes it fails.
fn draft(limits: Limits) -> Driver {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let mut settings = EngineSettings {
        limits,
        joiners: LateJoiners::Continuous,
        progress: 10 * MINUTE,
        on_no_progress: NoProgress::Fail,
        bake: Duration::ZERO,
        ..EngineSettings::default()
    };
    settings.deadlines.apply = 24 * 60 * MINUTE;
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    Driver::new(request, &fleet)
}

#[test]
fn progress_deadline_excludes_time_blocked_by_a_limit() {
    let mut driver = draft(Limits { per_hour: 1, ..Limits::default() });
    driver.start();
    driver.succeed(0);
    driver.wait(59 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(2 * MINUTE);
    assert_eq!(driver.state_of(1), MemberState::Offered);
    // Now one is in flight that says nothing: what was left of the ten minutes runs.
    driver.deliver(1);
    driver.wait(20 * MINUTE);
    assert_ne!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn progress_deadline_excludes_time_in_which_another_rollout_holds_everybody() {
    let mut driver = draft(Limits::default());
    driver.shared.register(OTHER, driver.plan.slot, ConflictPolicy::Queue, &[]).expect("another one");
    let limits = Limits::default();
    for agent in &driver.agents.clone() {
        let (slot, now) = (driver.plan.slot, driver.now);
        let kind = ClaimKind::Offer;
        let claim = Claim { rollout: OTHER, agent, slot, group: None, zone: None, kind, limits: &limits };
        driver.shared.claim(&claim, fingerprint("other"), now).expect("nobody holds it");
    }
    driver.start();
    driver.wait(30 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!(driver.in_state(MemberState::Queued).len(), 4);
}

#[test]
fn a_rollout_that_has_touched_as_many_as_it_may_waits_for_people() {
    let mut driver = draft(Limits { touched_max: 2, ..Limits::default() });
    driver.start();
    driver.succeed(0);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let alert = driver.acts.iter().any(|act| match act {
        opamp_fleet::rollout::Act::Alert(alert) => {
            alert.kind == AlertKind::Paused && &*alert.text == "blast-radius"
        }
        _ => false,
    });
    assert!(alert);
    driver.succeed(1);
    let plain = driver.command(Do::Resume(Resume::Plain));
    assert!(matches!(plain, Err(Refused::WrongState { .. })), "the cause remains: {plain:?}");
    driver.command(Do::SetLimits(Limits { touched_max: 4, ..Limits::default() })).expect("more may be");
    driver.command(Do::Resume(Resume::Plain)).expect("the cause is gone");
    driver.succeed(2);
    driver.succeed(3);
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn late_joiners_beyond_what_may_be_touched_wait_for_people_as_well() {
    let mut driver = draft(Limits { touched_max: 4, ..Limits::default() });
    driver.start();
    (0..3).for_each(|agent| driver.succeed(agent));
    let known = Known::new(9);
    let (agent, candidate) = (known.id(), known.candidate());
    driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) }).expect("a fact");
    driver.succeed(3);
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(driver.engine.member(&agent).map(|view| view.state), Some(MemberState::Queued));
}

#[test]
fn a_pause_for_want_of_room_ends_once_nobody_waits_for_it_any_more() {
    let mut driver = draft(Limits { touched_max: 4, ..Limits::default() });
    driver.start();
    (0..3).for_each(|agent| driver.succeed(agent));
    let known = Known::new(9);
    let (agent, candidate) = (known.id(), known.candidate());
    driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) }).expect("a fact");
    driver.succeed(3);
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let plain = driver.command(Do::Resume(Resume::Plain));
    assert!(matches!(plain, Err(Refused::WrongState { .. })), "one waits: {plain:?}");
    driver.event(Event::Agent { agent: &agent, fact: AgentFact::Left }).expect("a fact");
    driver.command(Do::Resume(Resume::Plain)).expect("nobody waits");
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn who_comes_too_late_to_be_offered_it_keeps_no_pause_for_want_of_room() {
    let mut driver = draft(Limits { touched_max: 4, ..Limits::default() });
    driver.start();
    (0..3).for_each(|agent| driver.succeed(agent));
    let joins = |driver: &mut Driver, number| {
        let known = Known::new(number);
        let (agent, candidate) = (known.id(), known.candidate());
        driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) }).expect("a fact");
        agent
    };
    let first = joins(&mut driver, 9);
    driver.succeed(3);
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let second = joins(&mut driver, 10);
    driver.command(Do::Resume(Resume::Plain)).expect_err("the first one waits");
    driver.event(Event::Agent { agent: &first, fact: AgentFact::Left }).expect("a fact");
    assert_eq!(driver.engine.member(&second).map(|view| view.state), Some(MemberState::Queued));
    driver.command(Do::Resume(Resume::Plain)).expect("nobody waits that could be offered it");
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}
