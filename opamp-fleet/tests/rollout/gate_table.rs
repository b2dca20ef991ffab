//! Each gate that counts members stops a rollout in which what it looks for happens to all of them, and does not for one of
//! many (R35).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Effective, EngineSettings, MemberState, Retries, RolloutState,
};

use crate::support::{Driver, agents, by_number, config, fingerprint, request};

const SECOND: Duration = Duration::from_secs(1);
const GONE: AgentFact<'static> = AgentFact::Disconnected { announced: false };

/// Sixty agents in one wave, one at a time, with one gate as it is by default, but that it pauses. Nobody is tried again.
fn started(kind: GateKind) -> Driver {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(60));
    let retries = Retries { transport: 0, timeout: 0, failed: 0, ..Retries::default() };
    let request = PlanRequest {
        gates: [GateConfig { severity: Severity::Pause, all_failed: None, ..GateConfig::of(kind) }].into(),
        order: by_number(&fleet),
        settings: EngineSettings {
            retries,
            in_flight_max: 1,
            bake: Duration::ZERO,
            ..EngineSettings::default()
        },
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    Driver::started(request, &fleet)
}

fn refuses(driver: &mut Driver, agent: usize) {
    driver.deliver(agent);
    driver.report(agent, ConfigStatus::Failed);
}

fn says_nothing(driver: &mut Driver, _: usize) {
    driver.wait(61 * SECOND);
}

fn goes_away(driver: &mut Driver, agent: usize) {
    driver.succeed(agent);
    driver.fact(agent, GONE);
    driver.wait(91 * SECOND);
}

fn falls_ill(driver: &mut Driver, agent: usize) {
    driver.succeed(agent);
    let offer = driver.offer_of(agent);
    driver.fact(agent, AgentFact::Health { offer, healthy: false });
}

fn runs_something_else(driver: &mut Driver, agent: usize) {
    driver.succeed(agent);
    let offer = driver.offer_of(agent);
    driver.fact(agent, AgentFact::Effective { offer, relation: Effective::Differs });
}

fn falls_again_and_again(driver: &mut Driver, agent: usize) {
    driver.succeed(agent);
    for _ in 0..3 {
        driver.fact(agent, GONE);
        driver.wait(SECOND);
        driver.fact(agent, AgentFact::Connected);
        driver.wait(SECOND);
    }
}

fn goes_back(driver: &mut Driver, agent: usize) {
    driver.deliver(agent);
    driver.report(agent, ConfigStatus::Applied);
    let offer = driver.offer_of(agent);
    driver.report_of(agent, offer, fingerprint("old"), ConfigStatus::Applied);
}

fn shows_too_little(driver: &mut Driver, agent: usize) {
    driver.deliver(agent);
    driver.report(agent, ConfigStatus::Applied);
    driver.wait(121 * SECOND);
    assert_eq!(driver.state_of(agent), MemberState::Unverified);
}

type Does = fn(&mut Driver, usize);

const TABLE: [(GateKind, Does, &str); 10] = [
    (
        GateKind::ApplyFailed,
        Driver::fail,
        "apply-failed: 100 % is more like 20 % than 2 % (3 of 3, score 33, limit 33)",
    ),
    (GateKind::Rejected, refuses, "rejected: 100 % is more like 20 % than 2 % (3 of 3, score 33, limit 33)"),
    (GateKind::TimedOut, says_nothing, "timed-out: 100 % > 20 % (3 of 3)"),
    (GateKind::DisconnectRatio, goes_away, "disconnect-ratio: 100 % > 20 % (3 of 3, window 300 s)"),
    (
        GateKind::Unhealthy,
        falls_ill,
        "unhealthy: 100 % is more like 20 % than 2 % (3 of 3, score 33, limit 33)",
    ),
    (
        GateKind::EffectiveMismatch,
        runs_something_else,
        "effective-mismatch: 100 % > 20 % (3 of 3, window 600 s)",
    ),
    (
        GateKind::CrashLoop,
        falls_again_and_again,
        "crash-loop: 100 % is more like 20 % than 2 % (3 of 3, score 33, limit 33)",
    ),
    (
        GateKind::SelfRollback,
        goes_back,
        "self-rollback: 100 % is more like 20 % than 2 % (3 of 3, score 33, limit 33)",
    ),
    (GateKind::Unverified, shows_too_little, "unverified: 100 % > 50 % (3 of 3)"),
    (GateKind::NothingSucceeds, Driver::fail, "nothing-succeeds: 3 of 3 failed"),
];

#[test]
fn each_gate_stops_a_rollout_in_which_everybody_does_what_it_looks_for() {
    let mut lines = Vec::new();
    for (kind, does, _) in TABLE {
        let mut driver = started(kind);
        while driver.engine.state() == RolloutState::Running {
            let offered = driver.in_state(MemberState::Offered);
            let Some(agent) = offered.first() else { break };
            does(&mut driver, *agent);
        }
        assert_eq!(driver.engine.state(), RolloutState::Paused, "{kind}");
        lines.push(driver.engine.fired()[0].to_string());
    }
    assert_eq!(lines, TABLE.map(|(_, _, line)| line));
}

#[test]
fn no_gate_stops_a_rollout_in_which_one_of_many_does_what_it_looks_for() {
    for (kind, does, _) in TABLE {
        let mut driver = started(kind);
        (0..30).for_each(|agent| driver.succeed(agent));
        does(&mut driver, 30);
        (31..60).for_each(|agent| driver.succeed(agent));
        driver.wait(601 * SECOND);
        assert!(driver.engine.fired().is_empty(), "{kind}: {:?}", driver.engine.fired());
        assert_eq!(driver.engine.state(), RolloutState::Succeeded, "{kind}");
    }
}
