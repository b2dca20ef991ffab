//! Failure domains: caps, and agents that should not be in one wave (R15).

mod room;

use std::collections::BTreeSet;

use opamp_fleet::rollout::plan::{Domains, FleetSizes, Plan, PlanRequest, PlannedMembers, Strategy, Target};
use opamp_fleet::rollout::preview::{PreviewLimits, preview};
use opamp_fleet::rollout::{MemberState, PlanError, RolloutId};
use opamp_fleet::{LabelScope, LabelValue, Selector};

use crate::support::{Driver, Known, START, agents, by_number, config, request};

/// Agents in pairs, each pair in two zones of three.
fn pairs(count: u32) -> Vec<Known> {
    let mut fleet = agents(count);
    for (known, number) in fleet.iter_mut().zip(0u32..) {
        let values = [("pair", (number / 2).to_string()), ("zone", format!("zone {}", number % 3))];
        for (key, value) in values {
            known.facts.labels.insert(LabelScope::Server, key.to_owned(), LabelValue::Text(value));
        }
    }
    fleet
}

fn make(fleet: &[Known], strategy: Strategy, domains: Domains) -> Result<(Plan, PlannedMembers), PlanError> {
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        strategy,
        domains: Some(domains),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START)
}

fn by_zone(anti_affinity: Option<&str>) -> Domains {
    Domains { key: "zone".into(), in_flight_max: 3, anti_affinity: anti_affinity.map(Box::<str>::from) }
}

/// The pairs of a wave of batches.
fn pairs_of(fleet: &[Known], plan: &Plan, members: &PlannedMembers) -> Vec<Vec<usize>> {
    let pair = |agent| fleet.iter().position(|known| known.id() == agent).unwrap() / 2;
    let wave = |wave| members.of_wave(wave).map(|(agent, _)| pair(*agent)).collect();
    plan.waves.iter().map(wave).collect()
}

#[test]
fn two_of_a_pair_are_never_in_one_wave_while_there_is_another() {
    let fleet = pairs(24);
    let (plan, members) = make(&fleet, Strategy::Batches { size: 8 }, by_zone(Some("pair"))).unwrap();
    for wave in pairs_of(&fleet, &plan, &members) {
        let distinct: BTreeSet<usize> = wave.iter().copied().collect();
        assert_eq!((wave.len(), distinct.len()), (8, 8));
    }
    let (plan, members) = make(&fleet, Strategy::Batches { size: 8 }, by_zone(None)).unwrap();
    let waves = pairs_of(&fleet, &plan, &members);
    let is_mixed = |wave: &Vec<usize>| wave.iter().collect::<BTreeSet<_>>().len() < wave.len();
    assert!(waves.iter().any(is_mixed), "the hash alone does not keep them apart: {waves:?}");
}

#[test]
fn two_of_a_pair_are_in_one_wave_if_there_is_no_other() {
    let fleet = pairs(6);
    let (plan, members) = make(&fleet, Strategy::Batches { size: 6 }, by_zone(Some("pair"))).unwrap();
    assert_eq!(plan.waves.len(), 1);
    assert_eq!(members.len(), 6);
}

#[test]
fn waves_that_are_domains_have_the_cap_of_a_domain() {
    let fleet = pairs(9);
    let (plan, _) = make(&fleet, Strategy::ZoneByZone { key: "zone".into() }, by_zone(None)).unwrap();
    let waves: Vec<_> =
        plan.waves.iter().map(|wave| (&*wave.name, wave.zone.map(|zone| zone.0), wave.cap)).collect();
    assert_eq!(waves, [("zone 0", Some(0), 3), ("zone 1", Some(1), 3), ("zone 2", Some(2), 3)]);
    let (plan, _) = make(&fleet, Strategy::Batches { size: 9 }, by_zone(None)).unwrap();
    assert_eq!(
        (plan.waves[0].zone, plan.waves[0].cap),
        (None, 1_000),
        "the coordinator keeps the domains' caps"
    );
}

#[test]
fn a_plan_knows_how_many_of_each_domain_are_in_a_wave() {
    let fleet = pairs(9);
    let (plan, members) = make(&fleet, Strategy::Batches { size: 9 }, by_zone(None)).unwrap();
    let preview = preview(&plan, &members, &|_| None, &PreviewLimits::default());
    let zones = ["zone 0", "zone 1", "zone 2"].map(|zone| (Box::<str>::from(zone), 3));
    assert_eq!(preview.waves[0].zones, zones);
}

#[test]
fn domains_are_bounded() {
    let fleet = |zones: u32| {
        let mut fleet = agents(zones);
        for (known, number) in fleet.iter_mut().zip(0u32..) {
            let zone = LabelValue::Text(number.to_string());
            known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), zone);
        }
        fleet
    };
    let most = make(&fleet(1_024), Strategy::canary(), by_zone(None)).unwrap();
    assert_eq!(most.0.zones.len(), 1_024);
    let refused = make(&fleet(1_025), Strategy::canary(), by_zone(None));
    assert!(matches!(refused, Err(PlanError::Strategy { .. })));
    let nobody = Domains { in_flight_max: 0, ..by_zone(None) };
    assert!(matches!(make(&pairs(4), Strategy::canary(), nobody), Err(PlanError::Strategy { .. })));
}

#[test]
fn agents_cannot_be_kept_apart_in_waves_that_a_label_makes() {
    let refused = make(&pairs(6), Strategy::ZoneByZone { key: "zone".into() }, by_zone(Some("pair")));
    let what = "agents cannot be kept apart in waves that a label makes";
    assert_eq!(refused.map(|(plan, _)| plan.waves), Err(PlanError::Strategy { what }));
}

#[test]
fn no_more_of_a_domain_are_in_flight_than_allowed_however_wide_the_wave_is_open() {
    let fleet = pairs(30);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        domains: Some(Domains { in_flight_max: 2, ..by_zone(None) }),
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    let mut most = 0;
    for _ in 0..30 {
        let offered = driver.in_state(MemberState::Offered);
        for zone in 0..3 {
            let of_zone = offered.iter().filter(|agent| **agent % 3 == zone).count();
            assert!(of_zone <= 2, "{offered:?}");
        }
        most = most.max(offered.len());
        // The last one of those that were offered, so that the domains do not take turns.
        driver.succeed(*offered.last().expect("somebody is offered it"));
    }
    assert_eq!(most, 6, "every domain is used to the full");
    assert_eq!(driver.in_state(MemberState::Verified).len(), 30, "nobody is forgotten");
}
