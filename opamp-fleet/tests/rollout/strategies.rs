//! Strategies: one scenario for each, and what holds for all (R16, R17, R18).

use std::time::Duration;

use opamp_fleet::rollout::gates::{GateConfig, GateKind};
use opamp_fleet::rollout::plan::{
    FleetSizes, Plan, PlanRequest, PlannedMembers, Size, Step, Strategy, Target,
};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{PlanError, RolloutId};
use opamp_fleet::{LabelScope, LabelValue, Selector};
use proptest::prelude::*;

use crate::support::{Known, START, agents, config};

const MINUTE: Duration = Duration::from_secs(60);

/// A plan with one gate for a fleet, with an override for what needs one.
fn plan(strategy: Strategy, fleet: &[Known]) -> Result<(Plan, PlannedMembers), PlanError> {
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        strategy,
        override_reason: Some("a test".into()),
        gates: [GateConfig::of(GateKind::NothingSucceeds)].into(),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START)
}

fn sizes(strategy: Strategy, members: u32) -> Vec<u32> {
    let (plan, _) = plan(strategy, &agents(members)).unwrap();
    plan.waves.iter().map(|wave| wave.end - wave.first).collect()
}

/// Agents with this label each; an empty value: without the label.
fn labelled(key: &str, values: &[&str]) -> Vec<Known> {
    let mut fleet = agents(values.len() as u32);
    for (known, value) in fleet.iter_mut().zip(values).filter(|(_, value)| !value.is_empty()) {
        let value = LabelValue::Text((*value).to_owned());
        known.facts.labels.insert(LabelScope::Server, key.to_owned(), value);
    }
    fleet
}

fn percentages(percents: &[u32]) -> Strategy {
    Strategy::Percentages(percents.iter().map(|percent| Ppm::percent(*percent)).collect())
}

/// Names of waves, and the numbers of their agents, sorted.
fn shown(plan: &Plan, members: &PlannedMembers, fleet: &[Known]) -> Vec<(String, Vec<usize>)> {
    let number = |agent| fleet.iter().position(|known| known.id() == agent).unwrap();
    let wave = |wave| {
        let mut numbers: Vec<usize> = members.of_wave(wave).map(|(agent, _)| number(*agent)).collect();
        numbers.sort_unstable();
        numbers
    };
    plan.waves.iter().map(|planned| (planned.name.to_string(), wave(planned))).collect()
}

#[test]
fn all_at_once_is_one_wave_and_needs_a_reason() {
    assert_eq!(sizes(Strategy::AllAtOnce, 7), [7]);
    let (config, selector) = (config("new"), Selector::default());
    for reason in [None, Some("  ".into())] {
        let request = PlanRequest {
            strategy: Strategy::AllAtOnce,
            override_reason: reason,
            ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
        };
        let fleet = agents(7);
        let refused = Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START);
        assert_eq!(refused.unwrap_err(), PlanError::OverrideNeeded);
    }
}

#[test]
fn batches_have_their_size_and_the_last_one_the_rest() {
    assert_eq!(sizes(Strategy::Batches { size: 5 }, 12), [5, 5, 2]);
    assert_eq!(sizes(Strategy::Batches { size: 5 }, 3), [3]);
}

#[test]
fn percentages_reach_so_many_and_the_last_wave_absorbs_the_rounding() {
    assert_eq!(sizes(percentages(&[5, 25, 50, 100]), 101), [5, 20, 25, 51]);
    assert_eq!(sizes(percentages(&[5, 25, 50, 100]), 3), [1, 1, 1, 0]);
}

#[test]
fn a_canary_has_the_dwell_and_the_approval_of_each_step() {
    let step = |until, minutes, approval| Step { until, dwell: minutes * MINUTE, approval };
    let steps = [
        step(Size::Count(2), 10, false),
        step(Size::AtMost { count: 50, percent: Ppm::percent(30) }, 15, true),
        step(Size::Percent(Ppm::percent(50)), 30, false),
    ];
    let (plan, _) = plan(Strategy::Canary { steps: steps.into() }, &agents(20)).unwrap();
    let waves: Vec<_> = plan
        .waves
        .iter()
        .map(|wave| (wave.end - wave.first, wave.dwell.as_secs() / 60, wave.approval))
        .collect();
    assert_eq!(waves, [(2, 10, false), (4, 15, true), (4, 30, false), (10, 30, false)]);
}

#[test]
fn exponential_waves_grow_by_their_factor() {
    assert_eq!(sizes(Strategy::Exponential { first: 2, factor: 3 }, 40), [2, 6, 18, 14]);
}

#[test]
fn rings_end_with_the_unmatched() {
    let fleet = labelled("ring", &["early", "inner", "", "early", "other", "inner"]);
    let rings = ["inner", "early", "nobody"].map(Box::<str>::from);
    let (plan, members) =
        plan(Strategy::LabelRings { key: "ring".into(), rings: rings.into() }, &fleet).unwrap();
    let expected = [("inner", vec![1, 5]), ("early", vec![0, 3]), ("nobody", vec![]), ("rest", vec![2, 4])];
    assert_eq!(shown(&plan, &members, &fleet), expected.map(|(name, list)| (name.to_owned(), list)));
}

#[test]
fn zone_by_zone_takes_them_by_name_and_those_without_last() {
    let fleet = labelled("zone", &["us", "eu", "", "us", "ap"]);
    let (plan, members) = plan(Strategy::ZoneByZone { key: "zone".into() }, &fleet).unwrap();
    let expected = [("ap", vec![4]), ("eu", vec![1]), ("us", vec![0, 3]), ("rest", vec![2])];
    assert_eq!(shown(&plan, &members, &fleet), expected.map(|(name, list)| (name.to_owned(), list)));
    assert_eq!(plan.zones.iter().map(|zone| &**zone).collect::<Vec<_>>(), ["ap", "eu", "us"]);
    let zones: Vec<_> = plan.waves.iter().map(|wave| wave.zone.map(|zone| zone.0)).collect();
    assert_eq!(zones, [Some(0), Some(1), Some(2), None]);
}

#[test]
fn manual_steps_are_each_begun_by_hand() {
    let (plan, _) = plan(Strategy::Manual { size: 2 }, &agents(5)).unwrap();
    let waves: Vec<_> = plan.waves.iter().map(|wave| (wave.end - wave.first, wave.manual)).collect();
    assert_eq!(waves, [(2, true), (2, true), (1, true)]);
}

#[test]
fn a_strategy_that_makes_no_sense_is_refused() {
    let step = |until| Step { until, dwell: 10 * MINUTE, approval: false };
    let senseless = [
        Strategy::Batches { size: 0 },
        Strategy::Manual { size: 0 },
        Strategy::Exponential { first: 0, factor: 2 },
        Strategy::Exponential { first: 1, factor: 1 },
        percentages(&[]),
        percentages(&[0, 100]),
        percentages(&[50, 50]),
        percentages(&[50, 25]),
        percentages(&[50, 101]),
        Strategy::Canary { steps: Box::default() },
        Strategy::Canary { steps: [step(Size::Count(0))].into() },
        Strategy::Canary { steps: [50, 25].map(|percent| step(Size::Percent(Ppm::percent(percent)))).into() },
        Strategy::LabelRings { key: "ring".into(), rings: Box::default() },
        Strategy::LabelRings { key: "ring".into(), rings: ["a", "a"].map(Box::<str>::from).into() },
        Strategy::LabelRings { key: "".into(), rings: ["a"].map(Box::<str>::from).into() },
        Strategy::ZoneByZone { key: "".into() },
    ];
    for strategy in senseless {
        let refused = plan(strategy.clone(), &agents(4)).map(|(plan, _)| plan.waves);
        assert!(matches!(refused, Err(PlanError::Strategy { .. })), "{strategy:?}: {refused:?}");
    }
    let too_many = plan(Strategy::Batches { size: 1 }, &agents(1_001)).map(|(plan, _)| plan.waves);
    assert_eq!(too_many, Err(PlanError::TooManyWaves { limit: 1_000 }));
}

/// What holds for the waves of every strategy.
fn hold_together(plan: &Plan, members: &PlannedMembers, count: u32) -> Result<(), TestCaseError> {
    prop_assert_eq!(members.len(), count as usize);
    prop_assert_eq!(plan.waves.first().map(|wave| wave.first), Some(0));
    prop_assert_eq!(plan.waves.last().map(|wave| wave.end), Some(count));
    prop_assert!(plan.waves.windows(2).all(|pair| pair[0].end == pair[1].first), "without gaps");
    prop_assert!(plan.waves[0].end > 0, "the first wave has a member");
    let sizes: Vec<u32> = plan.waves.iter().map(|wave| wave.end - wave.first).collect();
    let empty = sizes.iter().position(|size| *size == 0).unwrap_or(sizes.len());
    prop_assert!(
        sizes[empty..].iter().all(|size| *size == 0),
        "nobody comes after an empty wave: {:?}",
        sizes
    );
    let mut ids = members.ids().to_vec();
    ids.sort_unstable();
    ids.dedup();
    prop_assert_eq!(ids.len(), count as usize, "everybody once");
    Ok(())
}

#[test]
fn plans_of_any_size_take_everybody_once() {
    let fleet = agents(500);
    for count in (1..=40).chain((41..500).step_by(23)).chain([499, 500]) {
        for strategy in [
            Strategy::AllAtOnce,
            Strategy::Batches { size: 7 },
            Strategy::canary(),
            Strategy::Exponential { first: 1, factor: 2 },
            Strategy::Manual { size: 9 },
            percentages(&[1, 2, 10, 99]),
        ] {
            let (plan, members) = plan(strategy.clone(), &fleet[..count as usize]).unwrap();
            hold_together(&plan, &members, count)
                .unwrap_or_else(|broken| panic!("{strategy:?} of {count}: {broken}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_list_of_percentages_takes_everybody_once(
        parts in prop::collection::btree_set(1u32..=1_000_000, 1..20),
        count in 1u32..200,
    ) {
        let strategy = Strategy::Percentages(parts.into_iter().map(Ppm).collect());
        let (plan, members) = plan(strategy, &agents(count)).unwrap();
        hold_together(&plan, &members, count)?;
    }
}
