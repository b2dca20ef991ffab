//! Agents that are left as they are, to compare with (R43).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{AgentFact, Do, MemberState, RolloutState};

use crate::support::{Driver, agents, by_number, config, request};

/// Sixty agents, twenty of them held out; a gate that allows one in a wave.
fn started(kind: GateKind, strategy: Strategy) -> Driver {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(60));
    let tests = [Test::Count { over: 1 }].into();
    let gate = GateConfig { tests, scopes: Scopes::WAVE, ..GateConfig::of(kind) };
    let request = PlanRequest {
        gates: [gate].into(),
        order: by_number(&fleet),
        control_group: 20,
        ..request(&config, &selector, strategy)
    };
    Driver::started(request, &fleet)
}

/// Brings all that are offered it to success; the numbers of those that have it.
fn treat(driver: &mut Driver) -> Vec<usize> {
    for _ in 0..15 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.succeed(agent);
        }
    }
    driver.in_state(MemberState::Verified)
}

fn ill(driver: &mut Driver, agent: usize) {
    let offer = driver.offer_of(agent);
    driver.fact(agent, AgentFact::Health { offer, healthy: false });
}

fn control(driver: &Driver) -> Vec<usize> {
    driver.in_state(MemberState::Control)
}

fn lines(driver: &Driver) -> Vec<String> {
    driver.engine.fired().iter().map(ToString::to_string).collect()
}

#[test]
fn the_control_group_is_held_out_until_it_is_released() {
    let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce);
    assert_eq!(control(&driver).len(), 20);
    assert_eq!(treat(&mut driver).len(), 40);
    assert_eq!(control(&driver).len(), 20);

    driver.command(Do::ReleaseControlGroup).expect("the rollout runs");
    assert_eq!(control(&driver).len(), 0);
    assert_eq!(treat(&mut driver).len(), 60);
}

#[test]
fn what_happens_to_the_control_group_as_well_is_not_held_against_the_rollout() {
    let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce);
    let treated = treat(&mut driver);
    for agent in control(&driver).into_iter().take(4) {
        ill(&mut driver, agent);
    }
    for agent in &treated[..5] {
        ill(&mut driver, *agent);
    }
    assert_eq!(driver.engine.state(), RolloutState::Running, "four of forty were to be expected at least");
    ill(&mut driver, treated[5]);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&driver), ["unhealthy: 6 > 1 (6 of 40, 4 expected by control)"]);
}

#[test]
fn a_control_group_that_stays_well_or_of_which_one_falls_ill_explains_nothing() {
    for fall_ill in 0..2 {
        let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce);
        let treated = treat(&mut driver);
        for agent in control(&driver).into_iter().take(fall_ill) {
            ill(&mut driver, agent);
        }
        ill(&mut driver, treated[0]);
        assert_eq!(driver.engine.state(), RolloutState::Running);
        ill(&mut driver, treated[1]);
        assert_eq!(driver.engine.state(), RolloutState::Paused);
    }
}

#[test]
fn members_of_the_control_group_that_recover_explain_nothing() {
    let mut driver = started(GateKind::Unhealthy, Strategy::AllAtOnce);
    let treated = treat(&mut driver);
    for agent in control(&driver).into_iter().take(4) {
        ill(&mut driver, agent);
        driver.fact(agent, AgentFact::Health { offer: 0, healthy: true });
    }
    driver.wait(Duration::from_secs(1));
    for agent in &treated[..2] {
        ill(&mut driver, *agent);
    }
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}

#[test]
fn what_happened_to_the_control_group_before_a_wave_explains_nothing_in_it() {
    let mut driver = started(GateKind::Unhealthy, Strategy::Batches { size: 20 });
    assert_eq!(treat(&mut driver).len(), 20);
    for agent in control(&driver).into_iter().take(10) {
        ill(&mut driver, agent);
    }
    driver.wait(Strategy::DWELL);
    let treated = treat(&mut driver);
    assert_eq!(treated.len(), 40);
    ill(&mut driver, treated[20]);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    ill(&mut driver, treated[21]);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&driver), ["unhealthy: 2 > 1 (2 of 20)"]);
}

#[test]
fn what_the_control_group_has_explained_of_earlier_waves_is_not_held_against_later_ones() {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(80));
    let tests = [Test::Percent { over: Ppm::percent(10), at_least: 3 }].into();
    let gate = GateConfig { tests, ..GateConfig::of(GateKind::Unhealthy) };
    let request = PlanRequest {
        gates: [gate].into(),
        order: by_number(&fleet),
        control_group: 20,
        ..request(&config, &selector, Strategy::Batches { size: 20 })
    };
    let mut driver = Driver::started(request, &fleet);
    treat(&mut driver);
    driver.wait(Strategy::DWELL);
    let treated = treat(&mut driver);
    assert_eq!(treated.len(), 40);
    // A third of all fall ill while the second wave is watched, and stay so.
    control(&driver).into_iter().take(12).for_each(|agent| ill(&mut driver, agent));
    let (first, second) = treated.split_at(20);
    first[..6].iter().chain(&second[..7]).for_each(|agent| ill(&mut driver, *agent));
    assert_eq!(driver.engine.state(), RolloutState::Running, "40 % of them are to be expected");
    driver.wait(Strategy::DWELL);
    let treated = treat(&mut driver);
    assert_eq!((driver.engine.state(), treated.len()), (RolloutState::Running, 60), "{:?}", lines(&driver));
    // What the third wave suffers from is not explained by that.
    treated[40..43].iter().for_each(|agent| ill(&mut driver, *agent));
    assert_eq!(lines(&driver), ["unhealthy: 15 % > 10 % (3 of 20)"]);
    assert_eq!(driver.rebuilt().snapshot(), driver.engine.snapshot());
}

#[test]
fn of_the_control_group_as_of_the_others_only_those_count_that_stay_away_without_a_word() {
    for (announced, is_back_soon, expected) in [(false, false, 6), (true, false, 0), (false, true, 0)] {
        let mut driver = started(GateKind::DisconnectRatio, Strategy::AllAtOnce);
        let treated = treat(&mut driver);
        let away: Vec<usize> = control(&driver).into_iter().take(6).collect();
        for agent in &away {
            driver.fact(*agent, AgentFact::Disconnected { announced });
        }
        driver.wait(Duration::from_secs(60));
        if is_back_soon {
            away.iter().for_each(|agent| driver.fact(*agent, AgentFact::Connected));
        }
        for agent in &treated[..9] {
            driver.fact(*agent, AgentFact::Disconnected { announced: false });
        }
        driver.wait(Duration::from_secs(120));
        assert_eq!(driver.engine.state(), RolloutState::Paused);
        let last = driver.engine.fired().last().map(|said| said.expected);
        assert_eq!(last, Some(expected), "announced: {announced}, back soon: {is_back_soon}");
    }
}
