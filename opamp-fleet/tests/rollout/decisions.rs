//! What operators decide about gates that have stopped a rollout (R20, R48).

use std::time::Duration;

use opamp_fleet::rollout::plan::Strategy;
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, GateIx, MemberState, OperatorState, Reason, Resume, RolloutState,
    UnverifiedPolicy, WaveState,
};

use crate::first_wave::{started, wave};
use crate::support::{Driver, agents};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Two waves of so many agents; all of the first one have it and are watched.
fn with_a_good_first_wave(size: u32) -> Driver {
    let mut driver = started(agents(2 * size), 0, Strategy::Batches { size }, UnverifiedPolicy::Neutral);
    while driver.in_state(MemberState::Verified).len() < size as usize {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
    }
    driver
}

/// All who are offered it refuse it, until nobody is offered it any more.
fn is_refused(driver: &mut Driver) {
    for _ in 0..3 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.deliver(agent);
            driver.report(agent, ConfigStatus::Failed);
        }
    }
}

#[test]
fn who_waits_for_another_try_is_tried_again_by_an_operator_and_counts_anew() {
    let mut driver = with_a_good_first_wave(3);
    driver.wait(Strategy::DWELL);
    // All of the second wave fail at once, and none has had its second try.
    for _ in 0..3 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.fail(agent));
        driver.wait(SECOND);
    }
    assert_eq!(
        (driver.engine.state(), driver.in_state(MemberState::Backoff)),
        (RolloutState::Paused, vec![3, 4, 5])
    );
    for waits in [SECOND, 10 * MINUTE] {
        // Backing off, or queued since.
        let mut driver = driver.clone();
        driver.wait(waits);
        driver.command(Do::Resume(Resume::Retry)).expect("a gate has paused it");
        assert_eq!(driver.engine.state(), RolloutState::Running);
        for _ in 0..4 {
            driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
            driver.wait(MINUTE);
        }
        assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn where_nobody_failed_there_is_nobody_to_try_again() {
    let mut driver = with_a_good_first_wave(3);
    driver.wait(Strategy::DWELL);
    is_refused(&mut driver);
    assert_eq!(driver.in_state(MemberState::Rejected), [3, 4, 5]);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let refused = driver.command(Do::Resume(Resume::Retry)).expect_err("they refused it");
    assert!(refused.to_string().contains("members that failed"), "{refused}");
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}

#[test]
fn a_gate_without_a_say_holds_nothing_whatever_else_has_paused_it() {
    // Paused by the gate.
    let mut driver = with_a_good_first_wave(3);
    driver.wait(Strategy::DWELL);
    is_refused(&mut driver);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    for gate in 0..driver.plan.gates.len() as u8 {
        let _ = driver.command(Do::SkipGate { gate: GateIx(gate), wave: None });
    }
    assert_eq!(driver.engine.state(), RolloutState::Running, "nothing is left that anybody has to decide");

    // Held by a gate, and paused by an operator on top of it.
    let mut driver = with_a_good_first_wave(3);
    for agent in [0, 1] {
        let offer = driver.offer_of(agent);
        driver.fact(agent, AgentFact::Health { offer, healthy: false });
    }
    driver.wait(Strategy::DWELL);
    assert_eq!(wave(&driver, 0), (WaveState::Held, Reason::Inconclusive));
    assert_eq!(driver.engine.summary(driver.now).state, OperatorState::Paused, "it waits for somebody");
    driver.command(Do::Pause).expect("it runs");
    for gate in 0..driver.plan.gates.len() as u8 {
        let _ = driver.command(Do::SkipGate { gate: GateIx(gate), wave: None });
    }
    assert_eq!(driver.engine.state(), RolloutState::Paused, "by an operator");
    driver.command(Do::Resume(Resume::Plain)).expect("no gate has a say");
    assert_ne!(wave(&driver, 0).0, WaveState::Held);
}

#[test]
fn a_wave_that_is_held_and_paused_by_another_gate_goes_on_when_neither_has_a_say() {
    let mut driver = with_a_good_first_wave(12);
    for agent in [0, 1] {
        let offer = driver.offer_of(agent);
        driver.fact(agent, AgentFact::Health { offer, healthy: false });
    }
    driver.wait(Strategy::DWELL);
    assert_eq!(wave(&driver, 0).0, WaveState::Held);
    for _ in 0..3 {
        for agent in 0..5 {
            driver.fact(agent, AgentFact::Disconnected { announced: false });
            driver.fact(agent, AgentFact::Connected);
        }
    }
    assert_eq!(driver.engine.state(), RolloutState::Paused, "crash-loop");
    for gate in 0..driver.plan.gates.len() as u8 {
        let _ = driver.command(Do::SkipGate { gate: GateIx(gate), wave: None });
    }
    assert_ne!(driver.engine.state(), RolloutState::Paused);
    assert_ne!(wave(&driver, 0).0, WaveState::Held);
}

#[test]
fn what_a_gate_says_while_an_operator_has_paused_the_rollout_is_told() {
    let mut driver = started(agents(3), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
    driver.command(Do::Pause).expect("it runs");
    let why = |driver: &Driver| driver.engine.why_not_moving(driver.now, &driver.shared).reason;
    assert_eq!(why(&driver), "paused by operator");
    driver.command(Do::Resume(Resume::Plain)).expect("an operator has paused it");
    (0..3).for_each(|agent| driver.succeed(agent));
    driver.command(Do::Pause).expect("it runs");
    for _ in 0..3 {
        for agent in 0..3 {
            driver.fact(agent, AgentFact::Disconnected { announced: false });
            driver.fact(agent, AgentFact::Connected);
        }
    }
    let told = why(&driver);
    assert!(
        told.starts_with("paused by operator; somebody has to decide as well about crash-loop"),
        "{told}"
    );
}

#[test]
fn who_is_tried_again_by_an_operator_counts_anew() {
    let mut driver = with_a_good_first_wave(3);
    driver.wait(Strategy::DWELL);
    for _ in 0..12 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.fail(agent));
        driver.wait(MINUTE);
    }
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.command(Do::Resume(Resume::Retry)).expect("a gate has paused it");
    assert_eq!(driver.engine.state(), RolloutState::Running);
    for _ in 0..4 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
        driver.wait(MINUTE);
    }
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 2, 3, 4, 5]);
}
