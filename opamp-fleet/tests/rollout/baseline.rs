//! Members that were ill or away before the offer (R41), and restarts that an offer causes (R27).

use std::time::Duration;

use opamp_fleet::rollout::gates::{GateConfig, GateKind, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, Effective, Event, Fell, MemberState, RolloutState, Time,
};
use opamp_fleet::{Health, Liveness, Selector};

use crate::support::{Driver, Known, START, agents, by_number, config, request};

const SECOND: Duration = Duration::from_secs(1);
const GONE: AgentFact<'static> = AgentFact::Disconnected { announced: false };

/// A rollout that pauses at the first member that counts against the gate.
fn started(kind: GateKind, strategy: Strategy, fleet: &[Known]) -> Driver {
    let window = GateConfig::of(kind).window;
    started_within(window, kind, strategy, fleet)
}

/// The same with another window.
fn started_within(window: Duration, kind: GateKind, strategy: Strategy, fleet: &[Known]) -> Driver {
    let (config, selector) = (config("new"), Selector::default());
    let gate = GateConfig { tests: [Test::Count { over: 0 }].into(), window, ..GateConfig::of(kind) };
    let request = PlanRequest {
        gates: [gate].into(),
        order: by_number(fleet),
        ..request(&config, &selector, strategy)
    };
    Driver::started(request, fleet)
}

fn health(driver: &mut Driver, agent: usize, healthy: bool) {
    let offer = driver.offer_of(agent);
    driver.fact(agent, AgentFact::Health { offer, healthy });
}

/// What stopped the rollout: the gates are counted in the wave and over all waves.
fn lines(driver: &Driver) -> Vec<String> {
    driver.engine.fired().iter().map(ToString::to_string).collect()
}

#[test]
fn an_agent_that_was_ill_before_the_offer_is_excused() {
    let mut fleet = agents(2);
    fleet[0].facts.health = Health::Unhealthy;
    let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce, &fleet);
    let offer = driver.offer_of(0);
    driver.deliver(0);
    driver.report(0, ConfigStatus::Applied);
    driver.fact(0, AgentFact::Effective { offer, relation: Effective::Equal });
    health(&mut driver, 0, false);
    assert_eq!(driver.engine.state(), RolloutState::Running);

    driver.succeed(1);
    health(&mut driver, 1, false);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(
        lines(&driver),
        ["unhealthy: 1 > 0 (1 of 1, 1 excused)", "unhealthy over all waves: 1 > 0 (1 of 1, 1 excused)"]
    );
}

#[test]
fn an_agent_that_recovers_is_not_counted_any_more() {
    let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce, &agents(1));
    driver.succeed(0);
    health(&mut driver, 0, false);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    health(&mut driver, 0, true);
    driver.engine.check().expect("counts follow from the members");
}

#[test]
fn an_agent_that_restarts_on_apply_and_is_back_within_its_grace_never_counts() {
    let mut driver = started(GateKind::DisconnectRatio, Strategy::AllAtOnce, &agents(1));
    driver.deliver(0);
    driver.report(0, ConfigStatus::Applying);
    driver.fact(0, GONE);
    driver.wait(80 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Absent);
    driver.fact(0, AgentFact::Connected);
    driver.succeed(0);
    driver.wait(200 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!(driver.state_of(0), MemberState::Verified);
}

#[test]
fn an_agent_that_goes_away_and_stays_away_counts_when_its_grace_is_over() {
    let mut driver = started(GateKind::DisconnectRatio, Strategy::AllAtOnce, &agents(1));
    driver.deliver(0);
    driver.fact(0, GONE);
    driver.wait(89 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(2 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(
        lines(&driver),
        [
            "disconnect-ratio: 1 > 0 (1 of 1, window 300 s)",
            "disconnect-ratio over all waves: 1 > 0 (1 of 1, window 300 s)"
        ]
    );
}

#[test]
fn an_agent_that_announced_its_leaving_never_counts() {
    let mut driver = started(GateKind::DisconnectRatio, Strategy::AllAtOnce, &agents(2));
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: true });
    driver.wait(200 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn an_agent_that_was_away_when_its_turn_came_counts_nowhere() {
    let mut fleet = agents(2);
    fleet[0].facts.liveness = Liveness::Disconnected;
    let mut driver = started(GateKind::DisconnectRatio, Strategy::AllAtOnce, &fleet);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    driver.succeed(1);
    driver.wait(200 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert!(driver.engine.fired().is_empty());
}

/// The agent goes away and is back at once, so often.
fn fall(driver: &mut Driver, agent: usize, times: u32) {
    for _ in 0..times {
        driver.fact(agent, GONE);
        driver.wait(SECOND);
        driver.fact(agent, AgentFact::Connected);
    }
}

#[test]
fn an_agent_that_fell_as_often_before_its_offer_is_no_crash_loop() {
    let mut driver = started(GateKind::CrashLoop, Strategy::Batches { size: 1 }, &agents(2));
    driver.succeed(0);
    driver.wait(590 * SECOND);
    fall(&mut driver, 1, 3);
    driver.wait(10 * SECOND);
    assert_eq!(driver.state_of(1), MemberState::Offered);
    driver.succeed(1);
    fall(&mut driver, 1, 3);
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn what_is_known_of_an_agent_before_the_plan_excuses_it_as_well() {
    let ago = |seconds: u64| Some(Time(START.0 - seconds * 1_000));
    for (fell, ends) in [
        (Fell::new(ago(100), ago(500)), RolloutState::Running),
        (Fell::new(ago(100), ago(700)), RolloutState::RollingBack),
        (Fell::new(ago(100), None), RolloutState::RollingBack),
    ] {
        let mut fleet = agents(2);
        fleet[0].fell = fell;
        let mut driver = started(GateKind::CrashLoop, Strategy::Batches { size: 1 }, &fleet);
        driver.succeed(0);
        fall(&mut driver, 0, 3);
        assert_eq!(driver.engine.state(), ends, "{fell:?}");
    }
}

#[test]
fn what_is_known_of_a_late_joiner_excuses_it_as_well() {
    let ago = |seconds: u64| Some(Time(START.0 - seconds * 1_000));
    for (fell, goes_on) in [(Fell::new(ago(10), ago(20)), true), (Fell::default(), false)] {
        let mut driver = started(GateKind::CrashLoop, Strategy::Manual { size: 2 }, &agents(2));
        let known = Known { fell, ..Known::new(7) };
        let agent = known.id();
        driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&known.candidate()) }).unwrap();
        driver.agents.push(agent);
        driver.command(Do::Advance).unwrap();
        driver.succeed(0);
        driver.succeed(1);
        driver.wait(540 * SECOND);
        driver.succeed(2);
        assert_eq!(driver.state_of(2), MemberState::Verified);
        fall(&mut driver, 2, 3);
        assert_eq!(driver.engine.state() == RolloutState::Running, goes_on, "{fell:?}");
    }
}

#[test]
fn without_a_window_falls_before_the_offer_excuse_as_well() {
    let strategy = Strategy::Batches { size: 1 };
    let mut driver = started_within(Duration::ZERO, GateKind::CrashLoop, strategy, &agents(2));
    driver.succeed(0);
    driver.wait(590 * SECOND);
    fall(&mut driver, 1, 3);
    driver.wait(10 * SECOND);
    assert_eq!(driver.state_of(1), MemberState::Offered);
    driver.succeed(1);
    fall(&mut driver, 1, 3);
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn falls_far_from_each_other_are_no_crash_loop_and_close_ones_are_however_late() {
    let mut driver = started(GateKind::CrashLoop, Strategy::Manual { size: 1 }, &agents(2));
    driver.command(Do::Advance).expect("the first wave waits for somebody");
    driver.succeed(0);
    for _ in 0..6 {
        driver.wait(601 * SECOND);
        fall(&mut driver, 0, 1);
    }
    assert_eq!(driver.engine.state(), RolloutState::Running, "six within an hour");
    fall(&mut driver, 0, 2);
    assert_eq!(driver.engine.state(), RolloutState::RollingBack, "all of the first wave");
}

#[test]
fn an_agent_that_restarts_and_is_ill_at_first_has_fallen_once() {
    let mut driver = started(GateKind::CrashLoop, Strategy::Batches { size: 1 }, &agents(2));
    driver.succeed(0);
    for _ in 0..2 {
        fall(&mut driver, 0, 1);
        health(&mut driver, 0, false);
        health(&mut driver, 0, true);
    }
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn an_agent_that_begins_to_fall_after_its_offer_is_a_crash_loop() {
    let mut driver = started(GateKind::CrashLoop, Strategy::Batches { size: 1 }, &agents(2));
    driver.succeed(0);
    fall(&mut driver, 0, 2);
    assert_eq!(driver.engine.state(), RolloutState::Running, "two falls are none");
    fall(&mut driver, 0, 1);
    assert_eq!(driver.engine.state(), RolloutState::RollingBack, "all of the first wave");
    assert_eq!(driver.state_of(0), MemberState::RollbackOffered, "it is back");
    assert_eq!(
        lines(&driver),
        [
            "crash-loop: 1 > 0 (1 of 1, window 600 s)",
            "crash-loop over all waves: 1 > 0 (1 of 1, window 600 s)"
        ]
    );
}
