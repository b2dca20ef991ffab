//! The ladder of evidence, row by row (R29, R32).

use opamp_fleet::Selector;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Effective, MemberState, OfferKey, Reason, RolloutState, Write,
};
use opamp_proto::AgentCapabilities;

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, request};

fn driver(fleet: &[Known]) -> Driver {
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(fleet), ..request(&config, &selector, Strategy::AllAtOnce) };
    Driver::started(request, fleet)
}

/// An agent that reports these things and nothing else.
fn reporting(status: bool, effective: bool, health: bool) -> Known {
    let mut known = Known::mute(0);
    if status {
        known.facts.capabilities |= AgentCapabilities::REPORTS_REMOTE_CONFIG;
    }
    if health {
        known.facts.capabilities |= AgentCapabilities::REPORTS_HEALTH;
        known.facts.health = opamp_fleet::Health::Healthy;
    }
    known.exact_effective = effective;
    known
}

#[test]
fn ladder() {
    // What it reports, what it says after the delivery (APPLIED, effective equal, well), what it then is.
    let rows = [
        ((true, true, true), (true, true, false), MemberState::Verified),
        ((true, true, true), (true, false, false), MemberState::Applied),
        ((true, true, true), (false, true, false), MemberState::Applied),
        ((true, true, true), (false, false, true), MemberState::Delivered),
        ((true, false, true), (true, false, false), MemberState::Verified),
        ((true, false, false), (true, false, false), MemberState::Verified),
        ((false, true, true), (false, true, false), MemberState::Verified),
        ((false, true, true), (false, false, true), MemberState::Delivered),
        ((false, false, true), (false, false, true), MemberState::Verified),
        ((false, false, true), (false, false, false), MemberState::Delivered),
        ((false, false, false), (false, false, false), MemberState::Delivered),
    ];
    for (at, ((status, effective, health), (applied, equal, well), expected)) in rows.into_iter().enumerate()
    {
        let mut driver = driver(&[reporting(status, effective, health)]);
        let offer = driver.offer_of(0);
        assert_eq!((offer, driver.state_of(0)), (1, MemberState::Offered), "row {at}");
        driver.deliver(0);
        if applied {
            driver.report(0, ConfigStatus::Applied);
        }
        if equal {
            driver.fact(0, AgentFact::Effective { offer, relation: Effective::Equal });
        }
        if well {
            driver.fact(0, AgentFact::Health { offer, healthy: true });
        }
        assert_eq!(driver.state_of(0), expected, "row {at}");
    }
}

#[test]
fn supervisor_defaults() {
    // The OpenTelemetry supervisor reports health, merges what it gets, and says nothing of the status.
    let mut driver = driver(&[reporting(false, false, true)]);
    driver.deliver(0);
    driver.wait(std::time::Duration::from_secs(301));
    assert_eq!(driver.state_of(0), MemberState::Unverified);
    let view = driver.engine.member(&driver.agents[0]).unwrap();
    assert_eq!(view.reason, Reason::NoEvidence);
}

#[test]
fn unverified_is_no_failure_and_no_success() {
    let mut driver = driver(&[Known::mute(0)]);
    driver.deliver(0);
    driver.wait(std::time::Duration::from_secs(121));
    let summary = driver.engine.summary(driver.now);
    assert_eq!((summary.applied, summary.failed, summary.neutral, summary.total), (0, 0, 1, 0));
}

#[test]
fn a_report_from_before_the_offer_is_no_evidence() {
    let fleet = agents(1);
    let mut driver = driver(&fleet);
    driver.deliver(0);
    driver.report_of(0, 0, driver.plan.target, ConfigStatus::Applied);
    driver.fact(0, AgentFact::Effective { offer: 0, relation: Effective::Equal });
    assert_eq!(driver.state_of(0), MemberState::Delivered);
    driver.succeed(0);
    assert_eq!(driver.state_of(0), MemberState::Verified);
}

#[test]
fn going_back_alone_counts_as_failure_and_writes_nothing_more() {
    let mut driver = driver(&agents(2));
    driver.succeed(0);
    assert_eq!((driver.state_of(0), driver.engine.state()), (MemberState::Verified, RolloutState::Running));
    let desires = |driver: &Driver| {
        let of_agent =
            |write: &&Write| matches!(write, Write::Desire { key, .. } if key.agent == driver.agents[0]);
        driver.writes.iter().filter(of_agent).count()
    };
    let written = desires(&driver);
    driver.report_of(0, 1, fingerprint("old"), ConfigStatus::Applied);
    assert_eq!(driver.state_of(0), MemberState::SelfRolledBack);
    assert_eq!(driver.engine.summary(driver.now).failed, 1);
    assert_eq!(desires(&driver), written, "it has what it had before");
}

#[test]
fn a_capability_withdrawn_in_flight() {
    let mut driver = driver(&agents(2));
    driver.fact(0, AgentFact::Capabilities(AgentCapabilities::REPORTS_STATUS));
    assert_eq!(driver.state_of(0), MemberState::NotApplicable);
    let key = OfferKey { rollout: driver.plan.id, agent: driver.agents[0], offer: 2 };
    let taken_back =
        Write::Desire { key, slot: driver.plan.slot, config: fingerprint("old"), rollback: true };
    assert!(driver.writes.contains(&taken_back), "{:?}", driver.writes);
    assert_eq!(driver.state_of(1), MemberState::Offered, "its place is free");
    assert_eq!(driver.engine.state(), RolloutState::Running);
}
