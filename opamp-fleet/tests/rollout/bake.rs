//! The bake: gates stay armed over all waves after the last one (R44, R48).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Severity, Test, defaults};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, GroupIx, MemberState, Resume, RolloutState, Write,
};

use crate::support::{Driver, agents, by_number, config, gate, request};

/// More than one ill agent over all waves pauses, however late they fall ill.
fn ill() -> GateConfig {
    GateConfig {
        tests: [Test::Count { over: 1 }].into(),
        scopes: Scopes::CUMULATIVE,
        window: Duration::ZERO,
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::Unhealthy)
    }
}

fn started(count: u32, strategy: Strategy) -> Driver {
    started_with([ill()].into(), count, strategy)
}

fn started_with(gates: Box<[GateConfig]>, count: u32, strategy: Strategy) -> Driver {
    let fleet = agents(count);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        group: Some(GroupIx(3)),
        gates,
        settings: EngineSettings::default(),
        ..request(&new, &all, strategy)
    };
    Driver::started(request, &fleet)
}

/// Everybody who is offered succeeds, until the rollout does not run any more.
fn go(driver: &mut Driver) {
    for _ in 0..100 {
        let offered = driver.in_state(MemberState::Offered);
        offered.into_iter().for_each(|agent| driver.succeed(agent));
        if driver.engine.state() != RolloutState::Running {
            return;
        }
        driver.now = driver.engine.next_deadline().expect("a dwell").max(driver.now);
        driver.tick();
    }
    panic!("it still runs");
}

fn falls_ill(driver: &mut Driver, agent: usize) {
    let offer = driver.offer_of(agent);
    driver.fact(agent, AgentFact::Health { offer, healthy: false });
}

#[test]
fn a_rollout_that_has_reached_everybody_bakes_and_then_becomes_the_groups_desired_state() {
    let mut driver = started(3, Strategy::AllAtOnce);
    go(&mut driver);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    let bake = EngineSettings::default().bake;
    driver.wait(bake - Duration::from_secs(1));
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
    let target = driver.plan.target;
    let desired = driver.writes.iter().any(
        |write| matches!(write, Write::GroupDesired { group: GroupIx(3), config, .. } if *config == target),
    );
    assert!(desired);
    assert!(driver.writes.iter().any(|write| matches!(write, Write::Unpin { .. })));
}

#[test]
fn a_slow_failure_in_the_bake_stops_it() {
    let mut driver = started(4, Strategy::AllAtOnce);
    go(&mut driver);
    falls_ill(&mut driver, 0);
    assert_eq!(driver.engine.state(), RolloutState::Baking, "one is not more than one");
    falls_ill(&mut driver, 3);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.wait(Duration::from_secs(24 * 3_600));
    assert_eq!(driver.engine.state(), RolloutState::Paused, "it waits for a decision");
    assert!(!driver.writes.iter().any(|write| matches!(write, Write::GroupDesired { .. })));
}

#[test]
fn a_slow_failure_in_wave_one_stops_wave_three() {
    let mut driver = started(6, Strategy::Batches { size: 2 });
    for _ in 0..100 {
        if driver.state_of(4) == MemberState::Offered {
            break;
        }
        let offered = driver.in_state(MemberState::Offered);
        offered.into_iter().for_each(|agent| driver.succeed(agent));
        driver.now = driver.engine.next_deadline().expect("a dwell").max(driver.now);
        driver.tick();
    }
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 2, 3]);
    falls_ill(&mut driver, 0);
    driver.succeed(4);
    falls_ill(&mut driver, 4);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_ne!(driver.state_of(5), MemberState::Verified);
}

/// A hundred agents with all that is there by default, once the canary of five is past; nobody has failed.
fn past_canary() -> Driver {
    let mut driver = started_with(defaults(), 100, Strategy::canary());
    for _ in 0..10 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
    }
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.in_state(MemberState::Offered), [5]);
    driver
}

#[test]
fn by_default_canaries_that_fall_ill_20_minutes_after_they_applied_it_stop_the_next_wave() {
    let mut driver = past_canary();
    for _ in 0..10 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
    }
    driver.wait(Duration::from_secs(600));
    (0..2).for_each(|agent| falls_ill(&mut driver, agent));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    falls_ill(&mut driver, 2);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}

#[test]
fn by_default_agents_that_fall_ill_or_go_away_in_the_bake_stop_it() {
    let gone = |driver: &mut Driver, agent| {
        driver.fact(agent, AgentFact::Disconnected { announced: false });
    };
    for (does, count) in [(falls_ill as fn(&mut Driver, usize), 4), (gone, 30)] {
        let mut driver = past_canary();
        go(&mut driver);
        assert_eq!(driver.engine.state(), RolloutState::Baking);
        driver.wait(Duration::from_secs(20 * 60));
        (0..count).for_each(|agent| does(&mut driver, agent));
        driver.wait(Duration::from_secs(120));
        assert_eq!(driver.engine.state(), RolloutState::Paused);
    }
}

#[test]
fn who_went_away_while_a_later_wave_waited_counts_from_the_beginning_of_the_bake() {
    let fleet = agents(6);
    let (new, all) = (config("new"), Selector::default());
    let gone = GateConfig { tests: [Test::Count { over: 1 }].into(), ..gate(GateKind::DisconnectRatio) };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [gone].into(),
        settings: EngineSettings::default(),
        ..request(&new, &all, Strategy::Batches { size: 3 })
    };
    let mut driver = Driver::started(request, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.in_state(MemberState::Offered), [3], "the first wave is over");
    driver.command(Do::Pause).expect("it runs");
    driver.wait(Duration::from_secs(2 * 3_600));
    (0..2).for_each(|agent| driver.fact(agent, AgentFact::Disconnected { announced: false }));
    driver.wait(Duration::from_secs(600));
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
    go(&mut driver);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(driver.engine.fired()[0].to_string(), "disconnect-ratio: 2 > 1 (2 of 3, window 300 s)");
}

#[test]
fn who_says_late_that_it_failed_after_all_counts_against_apply_failed() {
    let any = GateConfig { tests: [Test::Count { over: 0 }].into(), ..gate(GateKind::ApplyFailed) };
    let mut driver = started_with([any].into(), 2, Strategy::Batches { size: 1 });
    go(&mut driver);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(Duration::from_secs(20 * 60));
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.engine.fired()[0].to_string(), "apply-failed: 1 > 0 (1 of 1)");
    assert_ne!(driver.engine.state(), RolloutState::Baking);
}

#[test]
fn what_remains_of_a_bake_is_kept_over_a_pause() {
    let mut driver = started(2, Strategy::AllAtOnce);
    go(&mut driver);
    let bake = EngineSettings::default().bake;
    driver.wait(bake - Duration::from_secs(10));
    driver.command(Do::Pause).expect("it bakes");
    driver.wait(bake * 3);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(Duration::from_secs(9));
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn what_all_of_few_show_in_the_bake_is_no_success() {
    for count in [1, 2] {
        let mut driver = started_with(defaults(), count, Strategy::AllAtOnce);
        go(&mut driver);
        assert_eq!(driver.engine.state(), RolloutState::Baking);
        (0..count as usize).for_each(|agent| falls_ill(&mut driver, agent));
        driver.wait(EngineSettings::default().bake);
        assert_eq!(driver.engine.state(), RolloutState::Paused, "{count} of {count} are ill");
        let mut driver = started_with(defaults(), count, Strategy::AllAtOnce);
        go(&mut driver);
        (0..count as usize).for_each(|agent| driver.report(agent, ConfigStatus::Failed));
        driver.wait(EngineSettings::default().bake);
        assert_ne!(driver.engine.state(), RolloutState::Succeeded, "{count} of {count} have failed");
    }
}

#[test]
fn without_a_bake_gates_are_asked_before_the_success() {
    let fleet = agents(1);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { bake: Duration::ZERO, ..EngineSettings::default() };
    let mut driver = Driver::started(
        PlanRequest { gates: defaults(), settings, ..request(&new, &all, Strategy::AllAtOnce) },
        &fleet,
    );
    driver.succeed(0);
    driver.wait(Strategy::DWELL - Duration::from_secs(1));
    falls_ill(&mut driver, 0);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}

#[test]
fn a_bake_that_waits_for_who_is_away_does_not_ask_at_once_again() {
    let mut driver = started_with(defaults(), 10, Strategy::AllAtOnce);
    go(&mut driver);
    driver.wait(EngineSettings::default().bake - Duration::from_secs(10));
    (0..5).for_each(|agent| driver.fact(agent, AgentFact::Disconnected { announced: false }));
    driver.now = driver.now + Duration::from_secs(10);
    driver.tick();
    assert_eq!(driver.engine.state(), RolloutState::Baking, "it may be that they stay away");
    let next = driver.engine.next_deadline().expect("their grace ends");
    assert!(next > driver.now, "{next} at {}", driver.now);
    driver.wait(Duration::from_secs(600));
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}
