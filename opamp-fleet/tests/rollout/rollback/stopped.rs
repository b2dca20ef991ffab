//! A rollback that is aborted, or whose members come back while nothing may be offered (R6, R70).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::coordinator::{Coordinator, CoordinatorRows, CoordinatorSettings};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test, defaults};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, Leavers, Limits, MemberState, Reason, Resume, Retries,
    RolloutState, Scope, WaveIx, Write,
};

use super::goes_back;
use crate::support::{Driver, agents, by_number, config, fingerprint, gate, request};

/// A running rollout with default gates in which everybody has it.
fn everybody_has_it(count: u32, settings: EngineSettings) -> Driver {
    let fleet = agents(count);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: defaults(),
        settings,
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    (0..fleet.len()).for_each(|agent| driver.succeed(agent));
    driver
}

fn limit(driver: &mut Driver, limits: Limits) {
    driver.command(Do::SetLimits(limits)).expect("they are below the hard ones");
}

fn put_back(driver: &Driver) -> usize {
    driver.writes.iter().filter(|write| matches!(write, Write::Desire { rollback: true, .. })).count()
}

#[test]
fn who_was_dropped_by_the_abort_of_a_rollback_has_not_failed_and_no_gate_begins_it_anew() {
    let mut driver = everybody_has_it(10, EngineSettings::default());
    limit(&mut driver, Limits { in_flight_max: 1, ..Limits::default() });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0]);
    driver.command(Do::Abort).expect("it rolls back");
    assert_eq!(driver.engine.state(), RolloutState::Aborting);
    goes_back(&mut driver, 0, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    assert_eq!(put_back(&driver), 1);
    let dropped = driver.in_state(MemberState::Excluded);
    assert_eq!(dropped, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let view = driver.engine.member(&driver.agents[1]).expect("a member");
    assert_eq!(view.reason, Reason::RolloutEnded);
    assert_eq!((driver.engine.summary(driver.now).failed, driver.shared.view().quarantined), (0, 0));
}

#[test]
fn the_abort_of_a_rollback_with_nobody_in_flight_ends_it_at_once() {
    let mut driver = everybody_has_it(10, EngineSettings::default());
    limit(&mut driver, Limits { per_minute: 1, ..Limits::default() });
    driver.wait(Duration::from_secs(120));
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    goes_back(&mut driver, 0, fingerprint("old"));
    assert_eq!(driver.in_state(MemberState::RollbackQueued).len(), 9, "one in a minute");
    driver.command(Do::Abort).expect("it rolls back");
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    assert_eq!((put_back(&driver), driver.engine.next_deadline()), (1, None));
}

#[test]
fn a_gate_that_fails_because_tries_are_given_up_puts_members_back_and_the_rollout_comes_to_an_end() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let silent = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::RollBack(Scope::All),
        all_failed: None,
        ..gate(GateKind::TimedOut)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [silent].into(),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.deliver(0);
    driver.wait(Duration::from_secs(300));
    driver.succeed(1);
    assert_eq!((driver.state_of(0), driver.engine.state()), (MemberState::Backoff, RolloutState::Running));
    driver.command(Do::Abort).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 1]);
    (0..2).for_each(|agent| goes_back(&mut driver, agent, fingerprint("old")));
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn who_comes_back_while_a_rollback_is_aborted_is_not_asked_any_more() {
    let mut driver = everybody_has_it(2, EngineSettings::default());
    driver.fact(1, AgentFact::Disconnected { announced: false });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackDeferred), [1]);
    driver.command(Do::Abort).expect("it rolls back");
    let written = put_back(&driver);
    driver.fact(1, AgentFact::Connected);
    assert_eq!(driver.state_of(1), MemberState::RollbackDeferred, "it was written before the abort");
    goes_back(&mut driver, 0, fingerprint("old"));
    assert_eq!((driver.engine.state(), put_back(&driver)), (RolloutState::Aborted, written));
}

#[test]
fn a_leaver_that_comes_back_during_a_pause_waits_for_its_end() {
    let settings = EngineSettings { leavers: Leavers::Revert, ..EngineSettings::default() };
    let mut driver = everybody_has_it(2, settings);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.fact(0, AgentFact::Left);
    driver.tick();
    assert_eq!(driver.state_of(0), MemberState::RollbackDeferred);
    driver.command(Do::Pause).expect("it runs");
    let written = put_back(&driver);
    driver.fact(0, AgentFact::Connected);
    assert_eq!((driver.state_of(0), put_back(&driver)), (MemberState::RollbackQueued, written));
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
    assert_eq!(driver.state_of(0), MemberState::RollbackOffered);
}

#[test]
fn who_had_failed_has_failed_still_after_the_abort_of_a_rollback_and_goes_back_with_the_next_one() {
    let fleet = agents(9);
    let (new, all) = (config("new"), Selector::default());
    let retries = Retries { failed: 0, ..Retries::default() };
    let settings = EngineSettings { retries, ..EngineSettings::default() };
    let total = GateConfig {
        tests: [Test::Count { over: 4 }, Test::Percent { over: Ppm::percent(50), at_least: 1 }].into(),
        severity: Severity::RollBack(Scope::All),
        min_sample: 1,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    for scope in [Scope::Failed, Scope::All] {
        let request = PlanRequest {
            order: by_number(&fleet),
            gates: [total.clone()].into(),
            settings: settings.clone(),
            ..request(&new, &all, Strategy::AllAtOnce)
        };
        let mut driver = Driver::new(request, &fleet);
        let mut twice = CoordinatorSettings::default();
        (twice.quarantine.failures, twice.breaker.failures) = (2, u32::MAX);
        driver.shared = Coordinator::new(twice, CoordinatorRows::default(), Faults::default());
        driver.shared.register(driver.plan.id, driver.plan.slot, driver.plan.conflict, &[]).expect("alone");
        driver.start();
        (0..5).for_each(|agent| driver.succeed(agent));
        (5..9).for_each(|agent| driver.fail(agent));
        assert_eq!(driver.engine.state(), RolloutState::Running, "four of nine");
        limit(&mut driver, Limits { in_flight_max: 1, ..Limits::default() });
        driver.command(Do::RollBack(scope)).expect("it runs");
        assert_eq!(driver.in_state(MemberState::RollbackOffered).len(), 1);
        driver.command(Do::Abort).expect("it rolls back");
        assert_eq!(driver.engine.state(), RolloutState::Aborting, "no gate begins it anew");
        let failed = driver.in_state(MemberState::Failed);
        assert_eq!(failed, if scope == Scope::Failed { vec![6, 7, 8] } else { vec![5, 6, 7, 8] });
        assert_eq!(driver.engine.summary(driver.now).failed as usize, failed.len());
        assert_eq!(driver.shared.view().quarantined, 0, "none has failed twice");
        assert_eq!(driver.rebuilt().snapshot(), driver.engine.snapshot());

        driver.command(Do::RollBack(Scope::Failed)).expect("it ends");
        while let Some(agent) = driver.in_state(MemberState::RollbackOffered).first() {
            goes_back(&mut driver, *agent, fingerprint("old"));
        }
        assert!(failed.iter().all(|agent| driver.state_of(*agent) == MemberState::RolledBack));
        assert_eq!(driver.engine.state(), RolloutState::RolledBack);
    }
}

#[test]
fn who_waits_to_go_back_between_two_tries_has_failed_if_the_rollback_is_aborted() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.deliver(1);
    driver.deliver(2);
    let second = Duration::from_secs(1);
    driver.wait(EngineSettings::default().deadlines.apply - second);
    driver.report(1, ConfigStatus::Applying);
    driver.report(1, ConfigStatus::Failed);
    driver.wait(second);
    assert_eq!(driver.in_state(MemberState::Backoff), [1, 2]);
    limit(&mut driver, Limits { in_flight_max: 1, ..Limits::default() });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackQueued), [1, 2]);
    driver.command(Do::Abort).expect("it rolls back");
    assert_eq!((driver.state_of(1), driver.state_of(2)), (MemberState::Failed, MemberState::TimedOut));
}

#[test]
fn who_was_taken_out_of_a_rollback_is_not_put_back_by_whoever_takes_over_nor_by_a_wider_one() {
    let mut driver = everybody_has_it(3, EngineSettings::default());
    limit(&mut driver, Limits { in_flight_max: 1, ..Limits::default() });
    driver.command(Do::RollBack(Scope::Wave(WaveIx(0)))).expect("it bakes");
    let agent = driver.agents[2];
    driver.command(Do::Exclude { agent }).expect("it waits");
    driver.engine = driver.rebuilt();
    driver.tick();
    assert_eq!(driver.state_of(2), MemberState::Excluded);
    driver.command(Do::RollBack(Scope::All)).expect("a wider scope");
    assert_eq!(driver.state_of(2), MemberState::Excluded);
    goes_back(&mut driver, 0, fingerprint("old"));
    goes_back(&mut driver, 1, fingerprint("old"));
    assert_eq!((driver.engine.state(), driver.offer_of(2)), (RolloutState::RolledBack, 1));
}
