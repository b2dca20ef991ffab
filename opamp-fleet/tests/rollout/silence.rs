//! Agents that say nothing (R26, R27, R28).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy, Transport};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, MemberState, Reason, Retries, RolloutState,
};

use crate::support::{Driver, Known, agents, by_number, config, gate, request};

const SECOND: Duration = Duration::from_secs(1);

const GONE: AgentFact<'static> = AgentFact::Disconnected { announced: false };

/// Without retries, so that each time-out is final.
fn driver(fleet: &[Known]) -> Driver {
    let (config, selector) = (config("new"), Selector::default());
    let request = request(&config, &selector, Strategy::AllAtOnce);
    let retries = Retries { transport: 0, timeout: 0, failed: 0, ..Retries::default() };
    let settings = EngineSettings { retries, ..request.settings.clone() };
    Driver::started(PlanRequest { order: by_number(fleet), settings, ..request }, fleet)
}

fn reason(driver: &Driver, agent: usize) -> Reason {
    driver.engine.member(&driver.agents[agent]).unwrap().reason
}

#[test]
fn a_silent_agent_times_out_at_each_stage_and_does_not_block_the_others() {
    let mut driver = driver(&agents(5));
    driver.wait(60 * SECOND);
    assert_eq!((driver.state_of(0), reason(&driver, 0)), (MemberState::TimedOut, Reason::OfferTimeout));
    driver.deliver(1);
    driver.wait(300 * SECOND);
    assert_eq!((driver.state_of(1), reason(&driver, 1)), (MemberState::TimedOut, Reason::ApplyTimeout));
    driver.deliver(2);
    driver.report(2, ConfigStatus::Applying);
    driver.wait(300 * SECOND);
    assert_eq!((driver.state_of(2), reason(&driver, 2)), (MemberState::TimedOut, Reason::ApplyTimeout));
    driver.deliver(3);
    driver.report(3, ConfigStatus::Applied);
    driver.wait(120 * SECOND);
    assert_eq!((driver.state_of(3), reason(&driver, 3)), (MemberState::Unverified, Reason::VerifyTimeout));
    driver.succeed(4);
    assert_eq!(driver.engine.surprises(), 0);
}

#[test]
fn a_first_wave_that_goes_away_with_it_is_watched_before_the_next_one_begins() {
    let fleet = agents(10);
    let (config, selector) = (config("new"), Selector::default());
    let request = request(&config, &selector, Strategy::Batches { size: 1 });
    let request = PlanRequest { order: by_number(&fleet), ..request };
    let mut driver = Driver::started(request, &fleet);
    driver.deliver(0);
    driver.fact(0, GONE);
    driver.wait(90 * SECOND);
    assert_eq!((driver.state_of(0), reason(&driver, 0)), (MemberState::Deferred, Reason::GraceOver));
    driver.wait(Strategy::DWELL - SECOND);
    assert_eq!(driver.state_of(1), MemberState::Queued, "it soaks");
    driver.wait(SECOND);
    assert_eq!(driver.state_of(1), MemberState::Offered);
}

#[test]
fn an_agent_that_restarts_on_apply_is_no_failure() {
    let mut driver = driver(&agents(2));
    driver.deliver(0);
    driver.report(0, ConfigStatus::Applying);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    assert_eq!(driver.state_of(0), MemberState::Absent);
    driver.wait(80 * SECOND);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Applying);
    driver.succeed(0);
    assert_eq!(driver.state_of(0), MemberState::Verified);
    assert_eq!(driver.engine.summary(driver.now).failed, 0);
}

#[test]
fn polls_at_30_s_and_5_min() {
    for (interval, waited) in [(30, 60 + 90), (300, 60 + 900)] {
        let mut fleet = agents(2);
        for known in &mut fleet {
            known.transport = Transport::Http;
            known.interval = interval * SECOND;
        }
        let mut driver = driver(&fleet);
        driver.wait(waited * SECOND - SECOND);
        assert_eq!(driver.state_of(0), MemberState::Offered, "polls every {interval} s");
        driver.wait(SECOND);
        assert_eq!(driver.state_of(0), MemberState::TimedOut, "polls every {interval} s");
    }
}

#[test]
fn who_is_not_connected_is_waited_for_outside_every_ratio() {
    let mut fleet = agents(2);
    fleet[0].facts.liveness = opamp_fleet::Liveness::Disconnected;
    let mut driver = driver(&fleet);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    assert_eq!((driver.offer_of(0), driver.state_of(1)), (0, MemberState::Offered));
    let summary = driver.engine.summary(driver.now);
    assert_eq!((summary.deferred, summary.total, summary.disconnected_since_push), (1, 1, 0));
    driver.fact(0, AgentFact::Connected);
    assert!(matches!(driver.state_of(0), MemberState::Queued | MemberState::Offered));
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn who_goes_away_after_the_push_is_counted_as_disconnected() {
    let mut driver = driver(&agents(2));
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    assert_eq!(driver.engine.summary(driver.now).disconnected_since_push, 1);
    driver.wait(91 * SECOND);
    assert_eq!((driver.state_of(0), reason(&driver, 0)), (MemberState::Deferred, Reason::GraceOver));
    assert_eq!(driver.engine.summary(driver.now).disconnected_since_push, 1);
    driver.fact(0, AgentFact::Connected);
    assert_eq!((driver.state_of(0), driver.offer_of(0)), (MemberState::Delivered, 1));
    assert_eq!(driver.engine.summary(driver.now).disconnected_since_push, 0);
}

/// Eight agents that poll every five minutes, of whom the first wave of four is well. The dwell is ten minutes.
fn four_of_eight_that_poll_are_well() -> Driver {
    let mut fleet = agents(8);
    for known in &mut fleet {
        (known.transport, known.interval) = (Transport::Http, 300 * SECOND);
    }
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        gates: [gate(GateKind::DisconnectRatio)].into(),
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::Batches { size: 4 })
    };
    let mut driver = Driver::started(request, &fleet);
    (0..4).for_each(|agent| driver.succeed(agent));
    driver
}

/// How many of the second wave were offered something.
fn second_wave(driver: &Driver) -> usize {
    (4..8).filter(|agent| driver.offer_of(*agent) > 0).count()
}

#[test]
fn a_wave_is_not_judged_before_it_is_known_who_is_away() {
    let mut driver = four_of_eight_that_poll_are_well();
    (0..4).for_each(|agent| driver.fact(agent, GONE));
    driver.wait(899 * SECOND);
    assert_eq!((driver.engine.state(), second_wave(&driver)), (RolloutState::Running, 0));
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert_eq!(why.reason, "wave 1 of 2 waits until it is known who is away");
    driver.wait(2 * SECOND);
    assert_eq!((driver.engine.state(), second_wave(&driver)), (RolloutState::Paused, 0));
    assert_eq!(driver.engine.fired()[0].gate, GateKind::DisconnectRatio);
}

#[test]
fn a_wave_passes_as_soon_as_enough_are_back_and_waits_for_nobody_who_goes_later() {
    let mut driver = four_of_eight_that_poll_are_well();
    driver.wait(599 * SECOND);
    (0..3).for_each(|agent| driver.fact(agent, GONE));
    driver.wait(2 * SECOND);
    assert_eq!(second_wave(&driver), 0);
    driver.fact(3, GONE);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(second_wave(&driver), 1, "two of four are too few for the gate");

    let mut advanced = four_of_eight_that_poll_are_well();
    (0..4).for_each(|agent| advanced.fact(agent, GONE));
    advanced.command(Do::Advance).unwrap();
    assert_eq!(second_wave(&advanced), 1, "an operator waits for nobody");
}

#[test]
fn a_bake_does_not_end_before_it_is_known_who_is_away() {
    let mut fleet = agents(3);
    for known in &mut fleet {
        (known.transport, known.interval) = (Transport::Http, 300 * SECOND);
    }
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        gates: [gate(GateKind::DisconnectRatio)].into(),
        order: by_number(&fleet),
        settings: EngineSettings { bake: 600 * SECOND, ..EngineSettings::default() },
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    driver.wait(900 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    (0..3).for_each(|agent| driver.fact(agent, GONE));
    driver.wait(899 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Baking, "its time was over long ago");
    driver.wait(2 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}
