//! Gates around a running rollout: which one stops it, where, and what is not held against it (R35, R36, R38).

use std::time::Duration;

use opamp_fleet::rollout::gates::{
    GateConfig, GateKind, NoData, ScopeAt, Scopes, Severity, Test, Verdict, defaults,
};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{Domains, PlanRequest, Strategy};
use opamp_fleet::rollout::{
    Act, AgentFact, ConfigStatus, Do, Effective, EngineSettings, Event, ExternalVerdict, FleetFact, GateIx,
    MemberState, Reading, Reason, Resume, RolloutState, Sample, WaveIx, WaveState,
};
use opamp_fleet::{LabelScope, LabelValue, Selector};

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, gate, request};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const GONE: AgentFact<'static> = AgentFact::Disconnected { announced: false };

/// A running rollout with these gates, a dwell of ten minutes and a bake of half an hour.
fn started(gates: &[GateConfig], strategy: Strategy, fleet: &[Known]) -> Driver {
    let (config, selector) = (config("new"), Selector::default());
    let domains = Domains { key: "zone".into(), in_flight_max: u32::MAX, anti_affinity: None };
    let request = PlanRequest {
        gates: gates.into(),
        order: by_number(fleet),
        domains: Some(domains),
        settings: EngineSettings::default(),
        ..request(&config, &selector, strategy)
    };
    Driver::started(request, fleet)
}

fn lines(driver: &Driver) -> Vec<String> {
    driver.engine.fired().iter().map(ToString::to_string).collect()
}

fn counting(kind: GateKind, over: u32) -> GateConfig {
    GateConfig { tests: [Test::Count { over }].into(), scopes: Scopes::WAVE, ..GateConfig::of(kind) }
}

/// The last state of a wave, and why.
fn wave(driver: &Driver, number: u16) -> (WaveState, Reason) {
    let last = driver.entries.iter().rev().find_map(|entry| match entry {
        Entry::Wave { wave, to, reason, .. } if wave.0 == number => Some((*to, *reason)),
        _ => None,
    });
    last.unwrap_or((WaveState::Pending, Reason::Nothing))
}

/// How many agents were offered it before the rollout stopped, if everyone does this with it.
fn touched(mut does: impl FnMut(&mut Driver, usize)) -> usize {
    let mut driver = started(&defaults(), Strategy::canary(), &agents(1_000));
    for _ in 0..1_000 {
        let Some(agent) = driver.in_state(MemberState::Offered).first().copied() else { break };
        does(&mut driver, agent);
    }
    assert!(!driver.engine.state().may_offer(), "{}", driver.engine.state());
    (0..1_000).filter(|agent| driver.offer_of(*agent) > 0).count()
}

#[test]
fn a_total_fault_touches_three_members_however_they_fail() {
    assert_eq!(touched(Driver::fail), 3, "they fail");
    let refuse = |driver: &mut Driver, agent| {
        driver.deliver(agent);
        driver.report(agent, ConfigStatus::Failed);
    };
    assert_eq!(touched(refuse), 3, "they refuse it");
    let go_back = |driver: &mut Driver, agent| {
        driver.deliver(agent);
        driver.report(agent, ConfigStatus::Applied);
        let offer = driver.offer_of(agent);
        driver.report_of(agent, offer, fingerprint("old"), ConfigStatus::Applied);
    };
    assert_eq!(touched(go_back), 3, "they go back by themselves");
    let say_nothing = |driver: &mut Driver, _| driver.wait(301 * SECOND);
    assert_eq!(touched(say_nothing), 3, "they say nothing");
}

#[test]
fn every_canary_that_fails_is_rolled_back_and_a_canary_of_which_some_are_well_pauses() {
    let mut all = started(&defaults(), Strategy::canary(), &agents(1_000));
    for agent in 0..3 {
        all.fail(agent);
    }
    assert_eq!(all.engine.state(), RolloutState::RollingBack);
    let mut some = started(&defaults(), Strategy::canary(), &agents(1_000));
    some.succeed(0);
    for _ in 0..4 {
        let agent = some.in_state(MemberState::Offered)[0];
        some.fail(agent);
    }
    assert_eq!(some.engine.state(), RolloutState::Paused);
    assert_eq!(
        lines(&some),
        ["apply-failed: 80 % is more like 20 % than 2 % (4 of 5, score 44, limit 36)"],
        "the score over all waves has a limit of 50"
    );
}

#[test]
fn one_failure_of_four_stops_nobody() {
    let mut driver = started(&defaults(), Strategy::Batches { size: 4 }, &agents(40));
    driver.succeed(0);
    driver.fail(1);
    driver.succeed(2);
    driver.succeed(3);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(31 * SECOND);
    driver.succeed(1);
    assert_eq!(driver.state_of(1), MemberState::Verified, "it was tried again");
    driver.wait(10 * MINUTE);
    assert_eq!(wave(&driver, 0).0, WaveState::Passed);
}

#[test]
fn agents_outside_that_go_away_as_well_hold_the_wave_and_blame_nobody() {
    let gates = [
        GateConfig { scopes: Scopes::WAVE, ..gate(GateKind::DisconnectRatio) },
        gate(GateKind::MassDisconnect),
    ];
    let gone = |outside: Option<FleetFact>| {
        let mut driver = started(&gates, Strategy::AllAtOnce, &agents(9));
        for agent in 0..4 {
            driver.succeed(agent);
        }
        if let Some(fact) = outside {
            driver.event(Event::Fleet(fact)).unwrap();
        }
        (0..3).for_each(|agent| driver.fact(agent, GONE));
        driver.wait(91 * SECOND);
        driver
    };
    let blamed = gone(None);
    assert_eq!(blamed.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&blamed), ["disconnect-ratio: 75 % > 20 % (3 of 4, window 300 s)"]);
    let few = gone(Some(FleetFact::Outside { total: 1_000, away: 300 }));
    assert_eq!(few.engine.state(), RolloutState::Paused, "30 % outside explain no 75 % inside");

    let everywhere = gone(Some(FleetFact::Outside { total: 1_000, away: 500 }));
    assert_eq!(everywhere.engine.state(), RolloutState::Running);
    assert_eq!(wave(&everywhere, 0).0, WaveState::Held);
    assert_eq!(lines(&everywhere), ["mass-disconnect: undecided at 75 % (3 of 4)"]);
}

#[test]
fn a_gate_that_is_counted_in_failure_domains_names_the_one_in_which_it_failed() {
    let mut fleet = agents(12);
    for (known, number) in fleet.iter_mut().zip(0..) {
        let zone = if number % 3 == 0 { "eu" } else { "us" };
        known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), LabelValue::Text(zone.to_owned()));
    }
    let zoned = GateConfig { scopes: Scopes::ZONE, ..counting(GateKind::Rejected, 1) };
    let mut driver = started(&[zoned], Strategy::AllAtOnce, &fleet);
    let refuse = |driver: &mut Driver, agent| {
        driver.deliver(agent);
        driver.report(agent, ConfigStatus::Failed);
    };
    refuse(&mut driver, 0);
    refuse(&mut driver, 1);
    driver.succeed(2);
    assert_eq!(driver.engine.state(), RolloutState::Running, "one in each domain");
    refuse(&mut driver, 3);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&driver), ["rejected in zone eu: 2 > 1 (2 of 2)"]);
    assert!(matches!(&driver.engine.fired()[0].scope, ScopeAt::Zone(zone) if **zone == *"eu"));
}

#[test]
fn a_total_fault_of_a_failure_domain_stops_although_others_are_well() {
    let mut fleet = agents(6);
    for (known, number) in fleet.iter_mut().zip(0..) {
        let zone = if number < 3 { "us" } else { "eu" };
        known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), LabelValue::Text(zone.to_owned()));
    }
    let gate = gate(GateKind::NothingSucceeds);
    let zoned = GateConfig { scopes: gate.scopes.and(Scopes::ZONE), ..gate };
    let mut driver = started(&[zoned], Strategy::AllAtOnce, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    let refuse = |driver: &mut Driver, agent| {
        driver.deliver(agent);
        driver.report(agent, ConfigStatus::Failed);
    };
    refuse(&mut driver, 3);
    refuse(&mut driver, 4);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    refuse(&mut driver, 5);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&driver), ["nothing-succeeds in zone eu: 3 of 3 failed"]);
}

fn cpu(driver: &mut Driver, wave: u16, treated_milli: i64) {
    let sample = |mean: i64| Sample { count: 10, sum_milli: 10 * mean };
    let reading = Reading::Telemetry {
        gate: GateIx(0),
        wave: WaveIx(wave),
        treated: sample(treated_milli),
        control: sample(1_000),
    };
    driver.event(Event::Reading(&reading)).unwrap();
}

#[test]
fn values_that_are_worse_than_the_control_groups_stop_a_rollout_if_the_gate_acts() {
    let acting = GateConfig { severity: Severity::Pause, ..gate(GateKind::CpuRise) };
    let mut driver = started(&[acting], Strategy::Batches { size: 1 }, &agents(2));
    driver.succeed(0);
    cpu(&mut driver, 0, 1_200);
    assert_eq!(driver.engine.state(), RolloutState::Running, "20 % are not more than 20 %");
    cpu(&mut driver, 0, 1_201);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&driver), ["cpu-rise: 1.201 against 1 is worse by more than 20 % (10 agents)"]);
}

#[test]
fn a_wave_without_values_is_held_if_its_gate_acts_and_passes_if_it_observes() {
    let acting = GateConfig { severity: Severity::Pause, ..gate(GateKind::CpuRise) };
    for (gate, state) in [
        (acting.clone(), WaveState::Held),
        (GateConfig { no_data: NoData::Pass, ..acting }, WaveState::Passed),
        (gate(GateKind::CpuRise), WaveState::Passed),
    ] {
        let mut driver = started(&[gate], Strategy::Batches { size: 1 }, &agents(2));
        driver.succeed(0);
        driver.wait(11 * MINUTE);
        assert_eq!(wave(&driver, 0).0, state);
    }
}

#[test]
fn a_provider_may_be_asked_once_more_at_the_end_of_the_bake() {
    let external = GateConfig { name: "prom".into(), ..gate(GateKind::External) };
    let external = GateConfig { scopes: Scopes::CUMULATIVE, ..external };
    let asked = || {
        let mut driver = started(std::slice::from_ref(&external), Strategy::AllAtOnce, &agents(1));
        driver.succeed(0);
        driver.wait(10 * MINUTE);
        assert_eq!(driver.engine.state(), RolloutState::Baking);
        assert!(!driver.acts.iter().any(|act| matches!(act, Act::AskExternal { .. })));
        driver.wait(30 * MINUTE);
        let ticket = driver.acts.iter().find_map(|act| match act {
            Act::AskExternal { gate: GateIx(0), wave: WaveIx::TAIL, ticket } => Some(*ticket),
            _ => None,
        });
        assert_eq!(driver.engine.state(), RolloutState::Baking, "it waits for the answer");
        (driver, ticket.expect("it is asked"))
    };
    let answer = |driver: &mut Driver, ticket, verdict| {
        let text = "errors rise".into();
        let reading = Reading::External { gate: GateIx(0), wave: None, ticket, verdict, text };
        driver.event(Event::Reading(&reading)).unwrap();
        driver.tick();
    };
    let (mut well, ticket) = asked();
    answer(&mut well, ticket, ExternalVerdict::Pass);
    assert_eq!(well.engine.state(), RolloutState::Succeeded);
    let (mut ill, ticket) = asked();
    answer(&mut ill, ticket, ExternalVerdict::Fail);
    assert_eq!(ill.engine.state(), RolloutState::Paused);
    assert_eq!(lines(&ill), ["external:prom over all waves: errors rise"]);
    let (mut open, ticket) = asked();
    answer(&mut open, ticket, ExternalVerdict::Inconclusive);
    assert_eq!(open.engine.state(), RolloutState::Paused);
    assert_eq!(open.engine.fired()[0].verdict, Verdict::Inconclusive);
}

#[test]
fn a_different_effective_configuration_holds_the_wave_until_somebody_decides() {
    let gate = counting(GateKind::EffectiveMismatch, 0);
    let mut driver = started(&[gate], Strategy::Batches { size: 1 }, &agents(2));
    driver.succeed(0);
    let offer = driver.offer_of(0);
    driver.fact(0, AgentFact::Effective { offer, relation: Effective::Differs });
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!(wave(&driver, 0), (WaveState::Held, Reason::GateFailed));
    driver.wait(60 * MINUTE);
    assert_eq!(driver.state_of(1), MemberState::Queued);
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).unwrap();
    assert_eq!(wave(&driver, 0).0, WaveState::Passed, "it was watched for long enough meanwhile");
    assert_eq!(driver.state_of(1), MemberState::Offered);
}

#[test]
fn a_canary_without_evidence_is_held_and_later_waves_without_it_are_not() {
    let fleet: Vec<Known> = (0..4).map(Known::mute).collect();
    let mut driver = started(&defaults(), Strategy::Batches { size: 2 }, &fleet);
    for agent in 0..2 {
        driver.deliver(agent);
        driver.wait(121 * SECOND);
    }
    assert_eq!(driver.in_state(MemberState::Unverified), [0, 1]);
    driver.wait(10 * MINUTE);
    assert_eq!(wave(&driver, 0), (WaveState::Held, Reason::NoData));
    assert_eq!(lines(&driver), ["apply-failed: no data (2 of 2 blind)"]);
    driver.command(Do::Resume(Resume::Skip)).unwrap();
    for agent in 2..4 {
        driver.deliver(agent);
        driver.wait(121 * SECOND);
    }
    driver.wait(10 * MINUTE);
    assert_eq!(wave(&driver, 1).0, WaveState::Passed);
}
