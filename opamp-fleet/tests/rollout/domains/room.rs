//! A failure domain that is full holds up nobody but its own members (R15, R25, R67).

use std::time::Duration;

use opamp_fleet::coordinator::{Budget, Coordinator, CoordinatorRows, CoordinatorSettings, Domain, ZoneKey};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::{Domains, PlanRequest, Size, Step, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{AgentFact, Do, EngineSettings, Event, MemberState, RolloutState, Scope};
use opamp_fleet::{LabelScope, LabelValue, Selector};

use crate::rollback::goes_back;
use crate::support::{Driver, Known, agents, by_number, config, fingerprint, request};

/// One agent for each letter, in the failure domain of that name.
fn in_zones(zones: &str) -> Vec<Known> {
    let mut fleet = agents(zones.len() as u32);
    for (known, zone) in fleet.iter_mut().zip(zones.chars()) {
        known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), LabelValue::Text(zone.into()));
    }
    fleet
}

fn asked(zones: &str, in_flight_max: u32, settings: EngineSettings, strategy: Strategy) -> Driver {
    let fleet = in_zones(zones);
    let (new, all) = (config("new"), Selector::default());
    let domains = Domains { key: "zone".into(), in_flight_max, anti_affinity: None };
    let request = PlanRequest {
        domains: Some(domains),
        order: by_number(&fleet),
        settings,
        ..request(&new, &all, strategy)
    };
    Driver::new(request, &fleet)
}

/// Everybody that is offered it has it, one after the other, until nobody is offered it any more.
fn succeed_all(driver: &mut Driver) {
    while let Some(agent) = driver.in_state(MemberState::Offered).first() {
        driver.succeed(*agent);
    }
}

#[test]
fn a_full_domain_does_not_keep_others_from_going_back_however_many_of_it_wait() {
    let settings = EngineSettings { offers_at_once: 4, ..EngineSettings::default() };
    let mut driver = asked("aaaaaaaaaaaabbb", 1, settings, Strategy::AllAtOnce);
    driver.start();
    succeed_all(&mut driver);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 12], "one of each domain");
    let next = driver.engine.next_deadline().expect("a deadline");
    assert!(next > driver.now, "nothing is left to be done at once");
    for _ in 0..15 {
        let agent = *driver.in_state(MemberState::RollbackOffered).last().expect("somebody goes back");
        goes_back(&mut driver, agent, fingerprint("old"));
        driver.wait(Duration::from_secs(1));
    }
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn a_full_domain_uses_up_none_of_the_offers_of_a_call() {
    let settings = EngineSettings { offers_at_once: 1, ..EngineSettings::default() };
    let mut driver = asked("aaaabb", 1, settings, Strategy::AllAtOnce);
    driver.start();
    driver.succeed(0);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.in_state(MemberState::Offered), [1, 4]);
    driver.succeed(4);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.in_state(MemberState::Offered), [1, 5]);
}

#[test]
fn a_late_joiner_of_a_full_domain_does_not_stop_the_others() {
    let step = |until| Step { until, dwell: Duration::ZERO, approval: false };
    let steps = [step(Size::Count(3)), step(Size::Percent(Ppm::ALL))];
    let strategy = Strategy::Canary { steps: steps.into() };
    let mut driver = asked("abcbcabcb", 1, EngineSettings::default(), strategy);
    driver.start();
    assert_eq!(driver.in_state(MemberState::Offered), [0]);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(90));
    driver.succeed(1);
    driver.succeed(2);
    driver.succeed(3);
    assert_eq!(driver.in_state(MemberState::Offered), [4, 5], "the second wave");
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Queued, "one of its domain is in flight");
    driver.succeed(4);
    assert_eq!(driver.in_state(MemberState::Offered), [5, 6, 7]);
    driver.succeed(5);
    assert_eq!(driver.in_state(MemberState::Offered), [0, 6, 7]);
}

#[test]
fn a_domain_whose_budget_or_rate_is_used_up_holds_up_nobody_else() {
    let a = || Domain::Zone(ZoneKey("a".into()));
    let nothing = CoordinatorSettings {
        disruption: vec![(a(), Budget { at_once: 0, percent: Ppm::ALL })],
        ..CoordinatorSettings::default()
    };
    let slow = CoordinatorSettings { per_minute: vec![(a(), 1)], ..CoordinatorSettings::default() };
    for (settings, offered) in [(nothing, [4, 5]), (slow, [3, 4])] {
        let mut driver = asked("aaabbb", 10, EngineSettings::default(), Strategy::AllAtOnce);
        let mut shared = Coordinator::new(settings, CoordinatorRows::default(), Faults::default());
        shared.register(driver.plan.id, driver.plan.slot, driver.plan.conflict, &[]).expect("alone");
        driver.shared = shared;
        driver.start();
        driver.succeed(driver.in_state(MemberState::Offered)[0]);
        assert_eq!(driver.in_state(MemberState::Offered), offered);
    }
}

#[test]
fn a_full_domain_does_not_stop_others_of_its_wave_however_many_of_it_stand_before_them() {
    let zones = "a".repeat(3_000) + "bb";
    let mut driver = asked(&zones, 1, EngineSettings::default(), Strategy::AllAtOnce);
    driver.start();
    driver.succeed(0);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.in_state(MemberState::Offered), [1, 3_000]);
    let next = driver.engine.next_deadline().expect("a deadline");
    assert!(next > driver.now, "nobody is looked for any more");
    driver.succeed(1);
    driver.succeed(3_000);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.in_state(MemberState::Offered), [2, 3_001], "the next ones of each domain");
}

/// Whether the engine has done all that there was to do at once.
fn has_finished(driver: &Driver) -> bool {
    driver.engine.next_deadline().is_some_and(|next| next > driver.now)
}

#[test]
fn where_all_domains_are_full_one_change_costs_no_search_through_everybody_who_waits() {
    let mut settings = EngineSettings::default();
    settings.deadlines.offer = Duration::from_secs(3_600);
    let mut driver = asked(&"abc".repeat(1_500), 2, settings, Strategy::AllAtOnce);
    driver.start();
    for _ in 0..12 {
        let agent = driver.in_state(MemberState::Offered)[0];
        driver.succeed(agent);
        driver.wait(Duration::from_secs(1));
    }
    assert_eq!(driver.in_state(MemberState::Offered), [12, 13, 14, 15, 16, 17], "two of each domain");
    assert!(has_finished(&driver));
    driver.succeed(13);
    assert_eq!(driver.in_state(MemberState::Offered), [12, 14, 15, 16, 17, 19], "the next one of its domain");
    assert!(has_finished(&driver), "who settles");
    driver.fact(12, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(90));
    assert_eq!(driver.state_of(12), MemberState::Deferred);
    assert_eq!(driver.in_state(MemberState::Offered), [14, 15, 16, 17, 18, 19]);
    driver.fact(12, AgentFact::Connected);
    assert!(has_finished(&driver), "who comes back");
    let joiner = Known { facts: in_zones("a").remove(0).facts, ..Known::new(9_999) };
    let id = Known::new(9_999).facts.id;
    let joiner = Known { facts: opamp_fleet::AgentFacts { id, ..joiner.facts.clone() }, ..joiner };
    let candidate = joiner.candidate();
    driver.event(Event::Agent { agent: &id, fact: AgentFact::Joined(&candidate) }).expect("a fact");
    assert!(has_finished(&driver), "who comes late");
    driver.succeed(15);
    assert_eq!(driver.in_state(MemberState::Offered), [12, 14, 16, 17, 18, 19], "who came back is first");
    driver.succeed(12);
    assert_eq!(driver.in_state(MemberState::Offered), [14, 16, 17, 18, 19, 21]);
    assert!(has_finished(&driver));
}

#[test]
fn who_comes_back_is_found_before_one_that_was_passed_over() {
    let mut settings = EngineSettings::default();
    settings.deadlines.offer = Duration::from_secs(3_600);
    let mut driver = asked("abaaa", 1, settings, Strategy::AllAtOnce);
    driver.start();
    driver.succeed(0);
    assert_eq!(driver.in_state(MemberState::Offered), [1, 2]);
    driver.fact(1, AgentFact::Disconnected { announced: false });
    driver.fact(2, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(90));
    assert_eq!(driver.in_state(MemberState::Offered), [3]);
    driver.fact(2, AgentFact::Connected);
    assert_eq!(driver.state_of(2), MemberState::Queued, "its domain is full");
    driver.fact(1, AgentFact::Connected);
    assert_eq!(driver.in_state(MemberState::Offered), [1, 3]);
    driver.succeed(3);
    assert_eq!(driver.in_state(MemberState::Offered), [1, 2]);
}
