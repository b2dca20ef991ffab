//! Templates, and the default that a group enforces (R19).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Undecided, defaults};
use opamp_fleet::rollout::plan::{FleetSizes, Plan, PlanRequest, Size, Step, Strategy, Target, Template};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{EngineSettings, PlanError, RolloutId};

use crate::support::{Known, START, agents, config};

const MINUTE: Duration = Duration::from_secs(60);

fn default(strategy: Strategy) -> Template {
    let gates = [GateKind::NothingSucceeds, GateKind::ApplyFailed].map(GateConfig::of);
    Template { name: "default".into(), strategy, gates: gates.into(), bake: 30 * MINUTE, waivable: false }
}

/// What a group with this default says to a rollout for a hundred agents.
fn said(template: &Template, change: impl FnOnce(&mut PlanRequest<'_>)) -> Result<(), PlanError> {
    let (config, selector) = (config("new"), Selector::default());
    let mut request = PlanRequest {
        gates: template.gates.clone(),
        default: Some(template),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    change(&mut request);
    let fleet = agents(100);
    Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START).map(|_| ())
}

fn steps(steps: &[(u32, u32, bool)]) -> Strategy {
    let step = |(percent, minutes, approval): &(u32, u32, bool)| Step {
        until: Size::Percent(Ppm::percent(*percent)),
        dwell: *minutes * MINUTE,
        approval: *approval,
    };
    Strategy::Canary { steps: steps.iter().map(step).collect() }
}

fn is_weaker(said: &Result<(), PlanError>) -> bool {
    matches!(said, Err(PlanError::Strategy { what }) if what.contains("group's default"))
}

#[test]
fn a_group_default_cannot_be_weakened() {
    let template = default(steps(&[(10, 10, false), (50, 20, true), (100, 10, false)]));
    let is_refused = |strategy: Strategy| is_weaker(&said(&template, |request| request.strategy = strategy));
    assert!(is_refused(steps(&[(11, 10, false), (50, 20, true), (100, 10, false)])), "more at first");
    assert!(is_refused(steps(&[(10, 10, false), (60, 20, true), (100, 10, false)])), "more then");
    assert!(is_refused(steps(&[(10, 10, false), (50, 19, true), (100, 10, false)])), "for a shorter time");
    assert!(is_refused(steps(&[(10, 10, false), (50, 20, false), (100, 10, false)])), "without an approval");
    assert!(is_refused(steps(&[(50, 30, true), (100, 10, false)])), "without the first step");
    let all = said(&template, |request| {
        (request.strategy, request.override_reason) = (Strategy::AllAtOnce, Some("now".into()));
    });
    assert!(is_weaker(&all), "a reason is not enough: {all:?}");
}

#[test]
fn a_rollout_may_be_more_careful_than_its_group_asks() {
    let template = default(steps(&[(10, 10, false), (50, 20, true), (100, 10, false)]));
    for careful in [
        template.strategy.clone(),
        steps(&[(5, 10, false), (10, 10, false), (40, 20, true), (100, 10, false)]),
        steps(&[(10, 40, true), (20, 40, true), (100, 10, false)]),
        Strategy::Manual { size: 10 },
    ] {
        let said = said(&template, |request| request.strategy = careful.clone());
        assert_eq!(said, Ok(()), "{careful:?}");
    }
}

#[test]
fn the_bake_and_the_gates_of_a_default_are_kept() {
    let template = default(Strategy::canary());
    assert_eq!(said(&template, |_| {}), Ok(()));
    let short = EngineSettings { bake: 29 * MINUTE, ..EngineSettings::default() };
    assert!(is_weaker(&said(&template, |request| request.settings = short)));
    let changed = |change: fn(&mut GateConfig)| {
        is_weaker(&said(&template, |request| {
            let gate = request.gates.iter_mut().find(|gate| gate.kind == GateKind::ApplyFailed);
            change(gate.unwrap());
        }))
    };
    assert!(changed(|gate| gate.severity = Severity::Observe));
    assert!(changed(|gate| gate.severity = Severity::Hold));
    assert!(changed(|gate| gate.min_sample += 1));
    assert!(changed(|gate| gate.window = MINUTE));
    assert!(changed(|gate| gate.all_failed = None));
    assert!(changed(|gate| gate.tests = gate.tests[..1].into()));
    assert!(changed(|gate| gate.undecided = Undecided::Stretch { max: 25 }));
    assert!(!changed(|gate| gate.severity = Severity::Abort), "stricter");
    assert!(!changed(|gate| gate.undecided = Undecided::Hold), "stricter");
    let without =
        said(&template, |request| request.gates = [GateConfig::of(GateKind::NothingSucceeds)].into());
    assert!(is_weaker(&without));
    assert_eq!(said(&template, |request| request.gates = defaults()), Ok(()), "more gates");
}

#[test]
fn a_waivable_default_is_waived_with_a_reason() {
    let template = Template { waivable: true, ..default(Strategy::canary()) };
    let said = |reason: Option<&str>| {
        said(&template, |request| {
            request.strategy = Strategy::Batches { size: 50 };
            request.override_reason = reason.map(Box::<str>::from);
        })
    };
    assert!(is_weaker(&said(None)));
    assert!(is_weaker(&said(Some(" "))));
    assert_eq!(said(Some("an outage")), Ok(()));
}

#[test]
fn a_default_of_rings_asks_for_these_rings() {
    let rings = |values: [&str; 2]| Strategy::LabelRings {
        key: "ring".into(),
        rings: values.map(Box::<str>::from).into(),
    };
    let template = default(rings(["inner", "outer"]));
    assert_eq!(said(&template, |request| request.strategy = rings(["inner", "outer"])), Ok(()));
    assert!(is_weaker(&said(&template, |request| request.strategy = rings(["outer", "inner"]))));
    assert!(is_weaker(&said(&template, |request| request.strategy = Strategy::canary())));
}

#[test]
fn empty_waves_do_not_make_a_rollout_careful() {
    let template = default(Strategy::canary());
    let rings = ["nobody", "here", "either"].map(Box::<str>::from);
    let said = said(&template, |request| {
        request.strategy = Strategy::LabelRings { key: "ring".into(), rings: rings.into() };
    });
    assert!(is_weaker(&said), "all are in the last wave: {said:?}");
}

#[test]
fn built_in_templates_have_names_of_their_own_and_fit_themselves() {
    let templates = Template::built_in(&defaults());
    let names: Vec<&str> = templates.iter().map(|template| &*template.name).collect();
    assert_eq!(names, ["canary", "percentages", "batches", "exponential"]);
    for template in &templates {
        let said = said(template, |request| request.strategy = template.strategy.clone());
        assert_eq!(said, Ok(()), "{}", template.name);
    }
}
