//! What gates may be set to (R38, R39), what observing ones do (R45), and what a provider's errors are (R40).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{self, GateConfig, GateKind, NoData, Scopes, Severity, Test, Verdict};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{FleetSizes, Plan, PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    Act, Changed, ConfigStatus, EngineSettings, Event, ExternalVerdict, Fit, GateIx, PlanError, Reading,
    Reason, RolloutState, WaveIx, WaveState,
};

use crate::support::{Driver, Known, START, agents, by_number, config, request};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);

fn of(kind: GateKind, tests: &[Test]) -> GateConfig {
    GateConfig { tests: tests.into(), ..GateConfig::of(kind) }
}

fn rejected(test: Test) -> GateConfig {
    of(GateKind::Rejected, &[test])
}

fn sequential(acceptable: u32, bad: u32, error: u32) -> GateConfig {
    let [acceptable, bad, error] = [acceptable, bad, error].map(Ppm);
    rejected(Test::Sequential { acceptable, bad, error })
}

#[test]
fn a_gate_that_makes_no_sense_is_refused_with_what_is_wrong() {
    let gate = GateConfig::of(GateKind::Rejected);
    let sequential_test = gate.tests[0];
    let two_percent = Ppm::percent(2);
    let compare = Test::Compare { over: two_percent };
    let external = GateConfig::of(GateKind::External);
    let named = |name: &str| GateConfig { name: name.into(), ..external.clone() };
    let cases = [
        (GateConfig { min_sample: 0, ..gate.clone() }, "the least sample is at least 1"),
        (GateConfig { scopes: Scopes(0), ..gate.clone() }, "it is counted nowhere"),
        (GateConfig { scopes: Scopes(8), ..gate.clone() }, "it is counted nowhere"),
        (GateConfig { window: YEAR + SECOND, ..gate.clone() }, "its window is longer than a year"),
        (GateConfig { window: Duration::MAX, ..gate.clone() }, "its window is longer than a year"),
        (GateConfig { scopes: Scopes::CUMULATIVE, ..GateConfig::of(GateKind::CpuRise) }, SAYS_NOTHING),
        (
            GateConfig { scopes: Scopes::WAVE.and(Scopes::ZONE), ..GateConfig::of(GateKind::QueueFill) },
            SAYS_NOTHING,
        ),
        (GateConfig { scopes: Scopes::ZONE, ..named("n") }, SAYS_NOTHING),
        (external.clone(), "an external gate needs a name"),
        (named(&"n".repeat(65)), "its name is too long"),
        (GateConfig { name: "n".into(), ..gate.clone() }, "only an external gate has a name"),
        (GateConfig { tests: [compare].into(), ..named("n") }, "it has no tests of its own"),
        (of(GateKind::MassDisconnect, &[sequential_test]), "it has no tests of its own"),
        (of(GateKind::CpuRise, &[sequential_test]), "a telemetry gate has one test, a comparison"),
        (of(GateKind::CpuRise, &[]), "a telemetry gate has one test, a comparison"),
        (of(GateKind::Rejected, &[]), "it has no test"),
        (rejected(compare), "only telemetry gates compare values"),
        (of(GateKind::Rejected, &[sequential_test; 2]), "it has more than one sequential test"),
        (of(GateKind::Rejected, &[Test::Count { over: 1 }; 5]), "it has too many tests"),
        (rejected(Test::Hard { failures: 1 }), "one failure is not enough for a hard stop"),
        (rejected(Test::Percent { over: two_percent, at_least: 0 }), "at least one failure is needed"),
        (rejected(Test::Percent { over: Ppm(0), at_least: 3 }), OUTSIDE),
        (rejected(Test::Percent { over: Ppm::ALL, at_least: 3 }), OUTSIDE),
        (rejected(Test::Bound { over: two_percent, error: Ppm(0) }), OUTSIDE),
        (rejected(Test::Bound { over: Ppm(u32::MAX), error: Ppm(5_000) }), OUTSIDE),
        (sequential(0, 200_000, 10_000), OUTSIDE),
        (sequential(20_000, 1_000_000, 10_000), OUTSIDE),
        (sequential(20_000, 200_000, 0), OUTSIDE),
        (sequential(200_000, 20_000, 10_000), "the bad ratio is less than twice the acceptable one"),
        (sequential(20_000, 39_999, 10_000), "the bad ratio is less than twice the acceptable one"),
        (sequential(400_000, 800_000, 10_000), "the two ratios together exceed 100 %"),
        (sequential(1, 2, 10_000), "the two ratios are too small to be told apart"),
    ];
    for (gate, what) in cases {
        let kind = gate.kind;
        assert_eq!(gates::check(&[gate]), Err(PlanError::Gate { gate: kind, what }), "{what}");
    }
}

const SAYS_NOTHING: &str = "it says nothing in one of its scopes";
const OUTSIDE: &str = "a ratio lies between 0 and 100 %, both excluded";

#[test]
fn gates_of_one_kind_are_there_once_but_for_external_ones_of_other_names() {
    let twice = [GateConfig::of(GateKind::Unhealthy), GateConfig::of(GateKind::Unhealthy)];
    let what = "it is there twice";
    assert_eq!(gates::check(&twice), Err(PlanError::Gate { gate: GateKind::Unhealthy, what }));
    let named = |name: String| GateConfig { name: name.into(), ..GateConfig::of(GateKind::External) };
    let sixteen: Vec<_> = (0..16).map(|number| named(format!("query {number}"))).collect();
    assert_eq!(gates::check(&sixteen), Ok(()));
    let seventeen: Vec<_> = (0..17).map(|number| named(format!("query {number}"))).collect();
    assert_eq!(gates::check(&seventeen), Err(PlanError::TooManyGates));
}

/// Four agents in waves of two, dwell 10 min, bake 5 min, with one gate.
fn planned(gate: GateConfig, fit: Fit) -> Result<Plan, PlanError> {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(4));
    let request = PlanRequest {
        gates: [gate].into(),
        settings: EngineSettings { bake: 5 * MINUTE, fit, ..EngineSettings::default() },
        ..request(&config, &selector, Strategy::Batches { size: 2 })
    };
    let sizes = FleetSizes { agents: 4, group: 0 };
    Plan::make(request, fleet.iter().map(Known::candidate), sizes, START).map(|(plan, _)| plan)
}

fn windowed(window: Duration) -> GateConfig {
    GateConfig { window, ..GateConfig::of(GateKind::Unhealthy) }
}

#[test]
fn a_window_longer_than_a_dwell_is_refused() {
    assert!(planned(windowed(10 * MINUTE), Fit::Refuse).is_ok());
    let window = 11 * MINUTE;
    let refused = PlanError::WindowPastDwell { gate: GateKind::Unhealthy, window, dwell: 10 * MINUTE };
    assert_eq!(planned(windowed(window), Fit::Refuse).err(), Some(refused));
}

#[test]
fn a_dwell_is_stretched_to_the_longest_window_if_that_is_wished() {
    let refused = planned(windowed(Duration::MAX), Fit::Stretch);
    assert!(matches!(refused, Err(PlanError::Gate { .. })), "for a year at most");
    let plan = planned(windowed(14 * MINUTE), Fit::Stretch).expect("a plan");
    let dwells: Vec<Duration> = plan.waves.iter().map(|wave| wave.dwell).collect();
    assert_eq!(dwells, [14 * MINUTE, 10 * MINUTE], "the last wave has the bake as well");
}

#[test]
fn windows_of_observing_gates_and_gates_without_a_window_fit_everywhere() {
    let observing = GateConfig { severity: Severity::Observe, ..windowed(600 * MINUTE) };
    assert!(planned(observing, Fit::Refuse).is_ok());
    assert!(planned(windowed(Duration::ZERO), Fit::Refuse).is_ok());
    // What comes of an offer counts whenever it comes.
    let without = GateConfig { window: 600 * MINUTE, ..GateConfig::of(GateKind::ApplyFailed) };
    assert!(planned(without, Fit::Refuse).is_ok());
}

/// Three agents in one wave that refuse the configuration one after the other, with these gates.
fn all_refuse(gates: &[GateConfig]) -> Driver {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(3));
    let request = PlanRequest {
        gates: gates.into(),
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    for agent in 0..3 {
        driver.report(agent, ConfigStatus::Failed);
    }
    driver
}

/// What happened to members, waves and the rollout, gates aside.
fn happened(driver: &Driver) -> Vec<Entry> {
    let aside = |entry: &Entry| match entry {
        Entry::Member { member, row } => {
            Some(Entry::Member { member: *member, row: Changed { bad: 0, ..*row } })
        }
        Entry::Wave { .. } | Entry::Window { .. } | Entry::Countdown { .. } => Some(entry.clone()),
        _ => None,
    };
    driver.entries.iter().filter_map(aside).collect()
}

#[test]
fn an_observing_gate_changes_nothing() {
    let gate = rejected(Test::Count { over: 0 });
    let observing = all_refuse(&[GateConfig { severity: Severity::Observe, ..gate.clone() }]);
    let without = all_refuse(&[]);
    let told = observing.entries.iter().filter(|entry| matches!(entry, Entry::Gate(_))).count();
    assert!(told >= 1, "it is recorded");
    assert_eq!(happened(&observing), happened(&without));
    assert_eq!(observing.engine.state(), without.engine.state());

    let acting = all_refuse(&[gate]);
    assert_eq!(acting.engine.state(), RolloutState::Paused);
    let fired = acting.engine.fired();
    assert_eq!(fired[0].to_string(), "rejected: 1 > 0 (1 of 1)");
}

#[test]
fn an_observing_gate_does_nothing_although_every_member_of_the_first_wave_failed() {
    let failed = |severity| {
        let gate = of(GateKind::ApplyFailed, &[Test::Count { over: 1 }]);
        let (config, selector, fleet) = (config("new"), Selector::default(), agents(3));
        let request = PlanRequest {
            gates: [GateConfig { severity, ..gate }].into(),
            order: by_number(&fleet),
            ..request(&config, &selector, Strategy::AllAtOnce)
        };
        let mut driver = Driver::started(request, &fleet);
        (0..2).for_each(|agent| driver.fail(agent));
        driver.engine.state()
    };
    assert_eq!(failed(Severity::Pause), RolloutState::RollingBack, "as it is set for that case");
    assert_eq!(failed(Severity::Observe), RolloutState::Running);
}

/// Two agents in two waves, the first of which is well and has been watched; its external gate was asked with the ticket.
fn asked(on_error: NoData) -> (Driver, u64) {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(2));
    let gate = GateConfig { name: "prom".into(), on_error, ..GateConfig::of(GateKind::External) };
    let request = PlanRequest {
        gates: [gate].into(),
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::Batches { size: 1 })
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.wait(10 * MINUTE);
    let ticket = last_ticket(&driver).expect("the provider is asked");
    (driver, ticket)
}

fn last_ticket(driver: &Driver) -> Option<u64> {
    driver.acts.iter().rev().find_map(|act| match act {
        Act::AskExternal { gate: GateIx(0), wave: WaveIx(0), ticket } => Some(*ticket),
        _ => None,
    })
}

fn answer(driver: &mut Driver, ticket: u64, verdict: ExternalVerdict) {
    let text = "p99 is 4 s".into();
    let reading = Reading::External { gate: GateIx(0), wave: Some(WaveIx(0)), ticket, verdict, text };
    driver.event(Event::Reading(&reading)).expect("a reading is not refused");
}

/// The last state of the first wave, and why.
fn first_wave(driver: &Driver) -> Option<(WaveState, Reason)> {
    driver.entries.iter().rev().find_map(|entry| match entry {
        Entry::Wave { wave: WaveIx(0), to, reason, .. } => Some((*to, *reason)),
        _ => None,
    })
}

#[test]
fn errors_are_no_failures() {
    let (mut driver, _) = asked(NoData::Hold);
    driver.wait(4 * MINUTE);
    assert_eq!(first_wave(&driver), Some((WaveState::Held, Reason::ProviderError)));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    let lines: Vec<String> = driver.engine.fired().iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["external:prom: provider failed (3 times): no answer"]);
    assert!(driver.engine.fired().iter().all(|evidence| evidence.verdict == Verdict::Error));

    let (mut lenient, _) = asked(NoData::Pass);
    lenient.wait(4 * MINUTE);
    assert_eq!(first_wave(&lenient).map(|(state, _)| state), Some(WaveState::Passed));
}

#[test]
fn a_provider_decides_when_it_answers_in_time_and_once() {
    let (mut well, ticket) = asked(NoData::Hold);
    assert_eq!(first_wave(&well).map(|(state, _)| state), Some(WaveState::Evaluating));
    answer(&mut well, ticket, ExternalVerdict::Pass);
    well.tick();
    assert_eq!(first_wave(&well).map(|(state, _)| state), Some(WaveState::Passed));
    answer(&mut well, ticket, ExternalVerdict::Fail);
    assert_eq!(well.engine.state(), RolloutState::Running, "it has answered");

    let (mut ill, ticket) = asked(NoData::Hold);
    answer(&mut ill, ticket + 1, ExternalVerdict::Fail);
    assert_eq!(ill.engine.state(), RolloutState::Running, "nobody asked that");
    answer(&mut ill, ticket, ExternalVerdict::Fail);
    assert_eq!(ill.engine.state(), RolloutState::Paused);
    assert_eq!(ill.engine.fired()[0].to_string(), "external:prom: p99 is 4 s");
}
