//! A rollout in the words of operators, and why it does not move (R46, R76).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::windows::{Calendar, Days, Minute, Window};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, Limits, MemberIx, MemberState, NextAction, OperatorState,
    RolloutState, Scope, Shown, Who,
};

use crate::support::{Driver, agents, by_number, config, gate, request};

fn driver(count: u32, gates: &[GateKind]) -> Driver {
    let fleet = agents(count);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: gates.iter().map(|kind| gate(*kind)).collect(),
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    Driver::new(request, &fleet)
}

fn started(count: u32, gates: &[GateKind]) -> Driver {
    let mut driver = driver(count, gates);
    driver.start();
    driver
}

#[test]
fn a_draft_is_pending_and_a_finished_rollout_is_completed() {
    let mut driver = driver(3, &[]);
    let summary = driver.engine.summary(driver.now);
    assert_eq!((summary.state, summary.batch, summary.batches), (OperatorState::Pending, 0, 1));
    assert_eq!((summary.pending, summary.total), (3, 3));
    driver.start();
    assert_eq!(driver.engine.summary(driver.now).state, OperatorState::InProgress);
    driver.command(Do::Pause).unwrap();
    assert_eq!(driver.engine.summary(driver.now).state, OperatorState::Paused);
    driver.command(Do::Resume(opamp_fleet::rollout::Resume::Plain)).unwrap();
    for agent in 0..3 {
        driver.succeed(agent);
    }
    driver.wait(Duration::from_secs(3_600));
    let summary = driver.engine.summary(driver.now);
    assert_eq!((summary.state, summary.batch), (OperatorState::Completed, 1));
    assert_eq!((summary.applied, summary.total), (3, 3));
    assert!(driver.in_state(MemberState::Verified).len() == 3);
    assert_eq!(driver.engine.members(None, Some(Shown::Done), 10).len(), 3);
}

#[test]
fn every_member_is_counted_once_and_who_left_is_not_in_the_denominator() {
    let mut driver = started(4, &[]);
    driver.succeed(0);
    driver.deliver(1);
    driver.fact(2, opamp_fleet::rollout::AgentFact::Removed);
    let summary = driver.engine.summary(driver.now);
    let all = summary.pending + summary.applying + summary.applied + summary.failed;
    assert_eq!(all, summary.total);
    assert_eq!((summary.total, summary.neutral, summary.applied), (3, 1, 1));
    assert_eq!(all + summary.neutral + summary.deferred, 4);
    assert_eq!(summary.per_minute, 2, "one verified, one removed");
}

#[test]
fn who_failed_and_will_be_tried_again_counts_as_failed_until_that_try_begins() {
    let mut driver = started(3, &[]);
    let counts = |driver: &Driver| {
        let summary = driver.engine.summary(driver.now);
        [summary.pending, summary.applying, summary.failed]
    };
    assert_eq!(counts(&driver), [2, 1, 0]);
    driver.fail(0);
    assert_eq!(driver.state_of(0), MemberState::Backoff);
    assert_eq!(counts(&driver), [1, 1, 1]);
    driver.command(Do::Pause).unwrap();
    driver.wait(Duration::from_secs(30));
    assert_eq!(driver.state_of(0), MemberState::Queued);
    assert_eq!(counts(&driver), [1, 1, 1]);
    driver.succeed(1);
    driver.command(Do::Resume(opamp_fleet::rollout::Resume::Plain)).unwrap();
    assert_eq!(driver.state_of(0), MemberState::Offered);
    assert_eq!(counts(&driver)[2], 0);
}

#[test]
fn agents_own_words_are_counted() {
    let mut driver = started(3, &[]);
    driver.fail(0);
    driver.fail(1);
    let texts = driver.engine.summary(driver.now).texts;
    assert_eq!(texts, vec![(2, Box::<str>::from("no such exporter"))]);
}

#[test]
fn the_line_is_the_same_everywhere() {
    let mut driver = started(6, &[GateKind::NothingSucceeds]);
    for agent in 0..3 {
        driver.deliver(agent);
        driver.report(agent, ConfigStatus::Failed);
    }
    let line = "nothing-succeeds: 3 of 3 failed";
    assert!(
        driver.engine.fired().iter().any(|fired| fired.to_string() == line),
        "{:?}",
        driver.engine.fired()
    );
    let journalled =
        driver.entries.iter().any(|entry| matches!(entry, Entry::Gate(said) if said.to_string() == line));
    assert!(journalled, "{:?}", driver.entries);
    assert_eq!(driver.engine.summary(driver.now).stopped_by.as_deref(), Some(line));
    let state = driver.engine.state();
    assert!(!matches!(state, RolloutState::Running | RolloutState::Succeeded), "{state}");
}

#[test]
fn a_rollout_says_why_it_does_not_move_and_who_has_to_act() {
    let mut driver = driver(2, &[]);
    let needs = |driver: &Driver| driver.engine.why_not_moving(driver.now, &driver.shared).next;
    assert_eq!(needs(&driver), NextAction::Needs(Who::Operator));
    driver.start();
    assert!(matches!(needs(&driver), NextAction::At(at, _) if at > driver.now), "{:?}", needs(&driver));
    driver.command(Do::Pause).unwrap();
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert_eq!((why.state, why.next), (RolloutState::Paused, NextAction::Needs(Who::Operator)));
    assert_eq!(why.reason, "paused by operator");
    driver.command(Do::Abort).unwrap();
    driver.wait(Duration::from_secs(3_600));
    assert!(driver.engine.state().is_terminal());
    assert_eq!(needs(&driver), NextAction::Never);
}

#[test]
fn what_comes_next_is_the_members_own_deadline_and_not_whatever_is_due_first() {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(2));
    let made = PlanRequest { order: by_number(&fleet), ..request(&config, &selector, Strategy::AllAtOnce) };
    let expires_at = Some(crate::support::START + Duration::from_secs(10));
    let driver = Driver::started(PlanRequest { expires_at, ..made }, &fleet);
    let member = driver.engine.member(&driver.agents[0]).unwrap().next.unwrap();
    assert!(driver.engine.next_deadline() < Some(member), "the rollout expires first");
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert_eq!(why.next, NextAction::At(member, "a member's time is over"));
}

#[test]
fn a_rollout_that_nobody_has_started_needs_somebody_even_if_a_window_opens() {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(2));
    // It is a Tuesday.
    let window =
        Window { zone: "UTC".into(), days: Days(1 << 2), from: Minute::at(1, 0), until: Minute::at(2, 0) };
    let calendar = Calendar { windows: [window].into(), ..Calendar::default() };
    let request = PlanRequest { calendar, ..request(&config, &selector, Strategy::AllAtOnce) };
    let mut driver = Driver::new(request, &fleet);
    let plan = driver.plan.hash;
    driver.command(Do::Submit).unwrap();
    driver.command(Do::Preflighted { plan, usable: true }).unwrap();
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert_eq!((why.state, why.next), (RolloutState::Ready, NextAction::Needs(Who::Operator)));
    assert!(why.reason.contains("no maintenance window is open until "), "{}", why.reason);
}

#[test]
fn the_throughput_of_a_rollout_that_stands_still_is_none() {
    let mut driver = started(4, &[]);
    driver.succeed(0);
    assert_eq!(driver.engine.summary(driver.now).per_minute, 1);
    let next_minute = driver.now + Duration::from_secs(60);
    assert_eq!(driver.engine.summary(next_minute).per_minute, 1, "in the last full one");
    let hours_later = driver.now + Duration::from_secs(3 * 3_600);
    assert_eq!(driver.engine.summary(hours_later).per_minute, 0);
}

#[test]
fn every_member_state_says_when_and_what_next() {
    let mut driver = started(3, &[]);
    driver.deliver(0);
    for _ in 0..200 {
        for agent in &driver.agents {
            let view = driver.engine.member(agent).unwrap();
            let why = driver.engine.why_member_not_moving(agent, driver.now, &driver.shared).unwrap();
            assert!(why.reason.starts_with(view.shown.as_str()), "{why:?}");
            assert_eq!(why.since, view.since);
            if view.state.in_flight() || view.state == MemberState::Backoff {
                assert!(view.next.is_some_and(|next| next >= driver.now), "{view:?}");
                assert!(matches!(why.next, NextAction::At(..)), "{view:?}: {why:?}");
            }
            if view.state.settled() && view.next.is_none() {
                assert_eq!(why.next, NextAction::Never, "{view:?}");
            }
        }
        if driver.engine.state().is_terminal() {
            return;
        }
        driver.wait(Duration::from_secs(30));
    }
    panic!("it never ended: {:?}", driver.engine.why_not_moving(driver.now, &driver.shared));
}

#[test]
fn members_are_listed_in_pages_and_by_what_is_shown() {
    let driver = started(5, &[]);
    let first = driver.engine.members(None, None, 2);
    assert_eq!(first.iter().map(|view| view.member).collect::<Vec<_>>(), [MemberIx(0), MemberIx(1)]);
    let rest = driver.engine.members(Some(MemberIx(1)), None, 10);
    assert_eq!(rest.len(), 3);
    assert_eq!(driver.engine.members(None, Some(Shown::Offered), 10).len(), 1, "slow start");
    assert_eq!(driver.engine.members(None, Some(Shown::Queued), 10).len(), 4);
    assert!(driver.engine.members(Some(MemberIx(4)), None, 10).is_empty());
}

#[test]
fn who_rolls_back_slowly_says_what_it_waits_for_and_not_when_the_last_one_is_given_up() {
    let mut driver = started(4, &[]);
    for agent in 0..4 {
        driver.succeed(agent);
    }
    driver.fact(3, AgentFact::Disconnected { announced: false });
    driver.command(Do::SetLimits(Limits { per_minute: 1, ..Limits::default() })).unwrap();
    driver.wait(Duration::from_secs(60));
    driver.command(Do::RollBack(Scope::All)).unwrap();
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.state_of(3), MemberState::RollbackDeferred);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert!(why.reason.contains("2 queued, 1 offered") && why.reason.contains("the rate"), "{why:?}");
    let NextAction::At(at, "it asks again") = why.next else { panic!("{why:?}") };
    assert!(at <= driver.now + Duration::from_secs(60), "{why:?}");

    driver.command(Do::SetLimits(Limits::default())).unwrap();
    assert_eq!(driver.in_state(MemberState::RollbackOffered).len(), 3);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert!(!why.reason.contains("the rate"), "{why:?}");
    assert!(why.reason.ends_with("1 gone and waited for"), "{why:?}");
    let gone = driver.engine.why_member_not_moving(&driver.agents[3], driver.now, &driver.shared).unwrap();
    let NextAction::At(grace, "the rollback does not wait for it any more") = gone.next else {
        panic!("{gone:?}")
    };
    assert_eq!(why.next, NextAction::At(grace, "a member's time is over"));
    driver.wait(grace.since(driver.now));
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert!(!why.reason.contains("gone"), "{why:?}");
    let one = driver.engine.why_member_not_moving(&driver.agents[0], driver.now, &driver.shared);
    let Some(NextAction::At(due, _)) = one.map(|why| why.next) else { panic!("its time has an end") };
    assert_eq!(why.next, NextAction::At(due, "a member's time is over"), "of those that are there");
}

#[test]
fn who_is_left_to_the_steady_state_is_counted_once() {
    let (config, selector) = (config("new"), Selector::default());
    let fleet = agents(3);
    let settings = EngineSettings { bake: Duration::from_secs(3_600), ..EngineSettings::default() };
    let request = PlanRequest {
        order: by_number(&fleet),
        settings,
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.succeed(1);
    driver.fail(2);
    driver.fact(2, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(1_800));
    assert_eq!(driver.state_of(2), MemberState::Deferred, "away when it was to be tried again");
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.fact(2, AgentFact::Connected);
    assert_eq!(driver.state_of(2), MemberState::Queued, "nothing is offered any more");
    driver.wait(Duration::from_secs(3_600));
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
    let summary = driver.engine.summary(driver.now);
    assert_eq!(summary.total + summary.neutral + summary.deferred, 3, "{summary:?}");
    assert_eq!((summary.pending, summary.applied, summary.failed), (0, 2, 1));
}
