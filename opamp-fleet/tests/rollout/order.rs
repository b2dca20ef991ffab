//! The order of members, and waves that mirror the fleet (R13, R14).

use std::collections::BTreeMap;

use opamp_fleet::rollout::gates::{GateConfig, GateKind};
use opamp_fleet::rollout::plan::{
    Candidate, FleetSizes, Order, Plan, PlanRequest, PlannedMembers, Strategy, StratumKey, Target,
};
use opamp_fleet::rollout::{RolloutId, Time};
use opamp_fleet::{LabelScope, LabelValue, Selector};
use opamp_proto::Wall;
use proptest::prelude::*;

use crate::support::{Known, START, agents, by_number, config};

fn label(known: &mut Known, key: &str, value: &str) {
    let value = LabelValue::Text(value.to_owned());
    known.facts.labels.insert(LabelScope::NonIdentifying, key.to_owned(), value);
}

/// A plan of the default canary with one gate, but for what `change` makes of it.
fn plan<'c>(
    candidates: impl Iterator<Item = Candidate<'c>>,
    now: Time,
    change: impl FnOnce(&mut PlanRequest<'_>),
) -> (Plan, PlannedMembers) {
    let (config, selector) = (config("new"), Selector::default());
    let mut request = PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector);
    request.gates = [GateConfig::of(GateKind::NothingSucceeds)].into();
    change(&mut request);
    Plan::make(request, candidates, FleetSizes::default(), now).unwrap()
}

/// The numbers of agents in the order in which they come.
fn order(fleet: &[Known], order: Order) -> Vec<usize> {
    let (_, members) = plan(fleet.iter().map(Known::candidate), START, |request| request.order = order);
    members.ids().iter().map(|id| fleet.iter().position(|known| known.id() == *id).unwrap()).collect()
}

#[test]
fn candidates_in_any_order_give_the_same_plan() {
    let mut fleet = agents(60);
    for (known, number) in fleet.iter_mut().zip(0u32..) {
        label(known, "zone", ["eu", "us", "ap"][(number % 3) as usize]);
        label(known, "pair", &(number / 2).to_string());
        label(known, "service.version", ["1.0", "1.1"][(number % 2) as usize]);
    }
    let domains = opamp_fleet::rollout::plan::Domains {
        key: "zone".into(),
        in_flight_max: 5,
        anti_affinity: Some("pair".into()),
    };
    let make = |fleet: &[Known], now| {
        plan(fleet.iter().map(Known::candidate), now, |request| {
            request.stratify = [StratumKey::Version, StratumKey::Label("zone".into())].into();
            request.domains = Some(domains.clone());
            request.control_group = 4;
        })
    };
    let (first, members) = make(&fleet, START);
    let later = Time(START.0 + 1);
    for turn in [1, 7, 31] {
        fleet.rotate_left(turn);
        fleet.reverse();
        assert_eq!(make(&fleet, START), (first.clone(), members.clone()));
        assert_eq!(make(&fleet, later).0.hash, first.hash, "when it was made has no part in its hash");
    }
}

#[test]
fn by_hash_each_rollout_begins_with_others() {
    let fleet = agents(100);
    let of = |rollout: u8| {
        let candidates = fleet.iter().map(Known::candidate);
        let (_, members) =
            plan(candidates, START, |request| request.id = RolloutId::from_bytes([rollout; 16]));
        members.ids().to_vec()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1)[..5], of(2)[..5]);
}

#[test]
fn an_explicit_list_comes_first_and_the_others_by_hash() {
    let fleet = agents(20);
    let list = [7, 3, 19, 7].map(|number| fleet[number].id());
    let found = order(&fleet, Order::Explicit(list.into()));
    assert_eq!(found[..3], [7, 3, 19]);
    let rest: Vec<usize> =
        order(&fleet, Order::Hash).into_iter().filter(|n| ![7, 3, 19].contains(n)).collect();
    assert_eq!(found[3..], rest);
}

#[test]
fn host_names_are_in_alphabetical_order_and_those_without_last() {
    let mut fleet = agents(4);
    for (number, host) in [(0, "b"), (1, "ab"), (3, "a")] {
        label(&mut fleet[number], "host.name", host);
    }
    assert_eq!(order(&fleet, Order::Hostname), [3, 1, 0, 2]);
}

#[test]
fn the_least_critical_come_first_by_number_and_those_without_last() {
    let mut fleet = agents(5);
    for (number, critical) in [(0, "10"), (1, "9"), (2, "-1"), (3, "very")] {
        label(&mut fleet[number], "critical", critical);
    }
    let found = order(&fleet, Order::LeastCritical { label: "critical".into() });
    assert_eq!(found[..3], [2, 1, 0]);
}

#[test]
fn the_oldest_come_first() {
    let fleet = agents(3);
    let seen = [5_000, 300, 70_000].map(Wall);
    let candidates =
        fleet.iter().zip(seen).map(|(known, first_seen)| Candidate { first_seen, ..known.candidate() });
    let (_, members) = plan(candidates, START, |request| request.order = Order::Oldest);
    assert_eq!(members.ids(), [1, 0, 2].map(|number| fleet[number].id()));
}

#[test]
fn a_candidate_that_is_given_twice_counts_once() {
    let fleet = agents(3);
    let twice = fleet.iter().chain(&fleet).map(Known::candidate);
    let (plan, members) = plan(twice, START, |_| {});
    assert_eq!((plan.members, members.len()), (3, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn each_wave_mirrors_the_mix(mix in prop::collection::vec(0u8..5, 1..120)) {
        let mut fleet = agents(mix.len() as u32);
        for (known, kind) in fleet.iter_mut().zip(&mix) {
            label(known, "kind", &kind.to_string());
        }
        let number = by_number(&fleet);
        let (plan, members) = plan(fleet.iter().map(Known::candidate), START, |request| {
            request.order = number;
            request.stratify = [StratumKey::Label("kind".into())].into();
            request.strategy = Strategy::canary();
        });
        let mut of_kind: BTreeMap<u8, u64> = BTreeMap::new();
        for kind in &mix {
            *of_kind.entry(*kind).or_default() += 1;
        }
        let all = mix.len() as u64;
        for wave in &plan.waves {
            let until = u64::from(wave.end);
            let ids = &members.ids()[..wave.end as usize];
            for (kind, total) in &of_kind {
                let is_kind = |id: &&_| fleet.iter().zip(&mix).any(|(known, of)| known.id() == **id && of == kind);
                let found = ids.iter().filter(is_kind).count() as u64;
                prop_assert!(
                    (found * all).abs_diff(until * total) <= all,
                    "{found} of {total} of kind {kind} after {until} of {all}"
                );
            }
        }
    }
}
