//! Telemetry and external gates: what is taken in, asked, and said.

use std::time::Duration;

use super::*;
use crate::rollout::{Act, ExternalVerdict, Reading, Sample};

fn external(name: &str) -> GateConfig {
    GateConfig { name: name.into(), ..GateConfig::of(GateKind::External) }
}

/// A wave that one external gate judges, at its end.
fn asked() -> (Scene, u64) {
    let mut scene = Scene { at_end: true, ..Scene::new([external("prom")], &[40]) };
    let mut acts = Vec::new();
    scene.readings.ask(&scene.plan, WaveIx(0), NOW, &mut acts);
    let [Act::AskExternal { gate: GateIx(0), wave: WaveIx(0), ticket }] = acts[..] else {
        panic!("{acts:?}")
    };
    (scene, ticket)
}

fn answer(ticket: u64, verdict: ExternalVerdict) -> Reading {
    Reading::External { gate: GateIx(0), wave: Some(WaveIx(0)), ticket, verdict, text: "p99 is 4 s".into() }
}

#[test]
fn a_provider_is_asked_once_and_waited_for() {
    let (mut scene, ticket) = asked();
    assert!(scene.readings.waits(&scene.plan, WaveIx(0)));
    assert!(!scene.readings.waits(&scene.plan, WaveIx(1)));
    let mut acts = Vec::new();
    scene.readings.ask(&scene.plan, WaveIx(0), NOW, &mut acts);
    assert!(acts.is_empty(), "the question is open");
    assert!(scene.readings.take(&scene.plan, &answer(ticket, ExternalVerdict::Fail), NOW));
    assert!(!scene.readings.waits(&scene.plan, WaveIx(0)));
    assert_eq!(scene.lines(), ["external:prom: p99 is 4 s"]);
}

#[test]
fn errors_of_a_provider_are_no_failures() {
    let (mut scene, _) = asked();
    for tries in 1..=3 {
        let at = NOW + Duration::from_secs(60 * tries);
        assert_eq!(scene.readings.next_deadline(), Some(at));
        scene.readings.expire(at, &mut Vec::new());
    }
    assert_eq!(scene.readings.next_deadline(), None);
    assert_eq!(scene.verdicts(), [Verdict::Error]);
    assert_eq!(scene.lines(), ["external:prom: provider failed (3 times): no answer"]);
    let lenient = GateConfig { on_error: NoData::Pass, ..external("prom") };
    scene.plan = plan([lenient], &[40]);
    assert_eq!(scene.verdicts(), []);
}

#[test]
fn stale_repeated_and_unasked_answers_are_ignored() {
    let (mut scene, ticket) = asked();
    assert!(!scene.readings.take(&scene.plan, &answer(ticket + 1, ExternalVerdict::Fail), NOW));
    scene.readings.expire(NOW + Duration::from_secs(60), &mut Vec::new());
    assert!(!scene.readings.take(&scene.plan, &answer(ticket, ExternalVerdict::Fail), NOW), "asked anew");
    let nobody = Reading::External {
        gate: GateIx(0),
        wave: None,
        ticket,
        verdict: ExternalVerdict::Fail,
        text: "".into(),
    };
    assert!(!scene.readings.take(&scene.plan, &nobody, NOW));
    scene.readings.forget(WaveIx(0));
    assert!(!scene.readings.waits(&scene.plan, WaveIx(0)));
    assert_eq!(scene.verdicts(), [Verdict::NoData], "nobody was asked");
}

#[test]
fn tickets_of_later_questions_are_larger_also_after_a_restart() {
    let (_, first) = asked();
    let mut restarted = Readings::default();
    let mut acts = Vec::new();
    let plan = plan([external("a"), external("b")], &[40]);
    restarted.ask(&plan, WaveIx(0), NOW + Duration::from_secs(1), &mut acts);
    let tickets: Vec<u64> = acts
        .iter()
        .map(|act| match act {
            Act::AskExternal { ticket, .. } => *ticket,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(tickets.len() == 2 && first < tickets[0] && tickets[0] < tickets[1], "{first} {tickets:?}");
}

#[test]
fn nobody_waits_for_a_gate_that_observes() {
    let observes = GateConfig { severity: Severity::Observe, ..external("prom") };
    let plan = plan([observes], &[40]);
    let mut readings = Readings::default();
    readings.ask(&plan, WaveIx(0), NOW, &mut Vec::new());
    assert!(!readings.waits(&plan, WaveIx(0)));
    assert!(readings.next_deadline().is_some());
}

#[test]
fn telemetry_is_compared_with_the_control_group() {
    let mut scene = Scene { at_end: true, ..Scene::new([GateConfig::of(GateKind::CpuRise)], &[40]) };
    assert_eq!(scene.lines(), ["cpu-rise: no data (3 of 3 blind)"]);
    let value = |count, sum_milli| Reading::Telemetry {
        gate: GateIx(0),
        wave: WaveIx(0),
        treated: Sample { count, sum_milli },
        control: Sample { count: 10, sum_milli: 10_000 },
    };
    assert!(scene.readings.take(&scene.plan, &value(4, 99_000), NOW));
    assert_eq!(scene.verdicts(), [Verdict::NoData], "four values are too few");
    assert!(scene.readings.take(&scene.plan, &value(10, 12_000), NOW));
    assert_eq!(scene.verdicts(), []);
    assert!(scene.readings.take(&scene.plan, &value(10, 12_500), NOW));
    assert_eq!(scene.lines(), ["cpu-rise: 1.25 against 1 is worse by more than 20 % (10 agents)"]);
}

#[test]
fn values_about_nothing_in_the_plan_are_refused() {
    let mut scene =
        Scene::new([GateConfig::of(GateKind::CpuRise), GateConfig::of(GateKind::Rejected)], &[40]);
    let mut about = |gate, wave| {
        let reading =
            Reading::Telemetry { gate, wave, treated: Sample::default(), control: Sample::default() };
        scene.readings.take(&scene.plan, &reading, NOW)
    };
    assert!(about(GateIx(0), WaveIx(0)));
    assert!(!about(GateIx(1), WaveIx(0)), "no telemetry gate");
    assert!(!about(GateIx(2), WaveIx(0)), "no gate");
    assert!(!about(GateIx(0), WaveIx(999)), "no wave");
}
