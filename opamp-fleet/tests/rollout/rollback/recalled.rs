//! What was recalled is assigned to nobody again, whatever way a member would come to have it (R57).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, Leavers, MemberState, Reason, RolloutState, Scope, Write,
};

use crate::support::{Driver, agents, by_number, config, fingerprint, request};

/// A running rollout of two agents, one at a time, the first of which has an offer.
fn running() -> Driver {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { leavers: Leavers::Revert, in_flight_max: 1, ..EngineSettings::default() };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    Driver::started(request, &fleet)
}

fn recall(driver: &mut Driver) {
    driver.shared.recall(fingerprint("old"), "it eats the logs", &mut driver.writes);
}

/// The first agent's try is over; its turn for the next one has not come, and its offer stands.
fn queued_again(driver: &mut Driver) {
    driver.fail(0);
    driver.wait(Duration::from_secs(30));
    assert_eq!((driver.state_of(0), driver.state_of(1)), (MemberState::Queued, MemberState::Offered));
}

/// Where the first agent is, and why. Nothing of what was recalled was written, and it is still at its last offer.
fn ended(driver: &Driver, offer: u32) -> (MemberState, Reason) {
    let written = driver
        .writes
        .iter()
        .any(|write| matches!(write, Write::Desire { config, .. } if *config == fingerprint("old")));
    assert!(!written);
    assert_eq!(driver.offer_of(0), offer, "there is no offer that nobody wrote");
    let view = driver.engine.member(&driver.agents[0]).expect("a member");
    (view.state, view.reason)
}

#[test]
fn a_leaver_is_not_put_back_to_what_was_recalled() {
    let mut rejected = running();
    rejected.deliver(0);
    rejected.report(0, ConfigStatus::Failed);
    let mut went_back = running();
    went_back.succeed(0);
    went_back.report_of(0, 1, fingerprint("old"), ConfigStatus::Applied);
    let mut away = running();
    away.deliver(0);
    away.fact(0, AgentFact::Disconnected { announced: false });
    away.wait(EngineSettings::default().deadlines.grace_min);
    let states = [MemberState::Rejected, MemberState::SelfRolledBack, MemberState::Deferred];
    for (mut driver, state) in [rejected, went_back, away].into_iter().zip(states) {
        assert_eq!(driver.state_of(0), state);
        recall(&mut driver);
        driver.fact(0, AgentFact::Left);
        assert_eq!(ended(&driver, 1), (MemberState::RollbackFailed, Reason::Recalled), "from {state}");
    }
}

#[test]
fn who_is_quarantined_between_two_tries_is_not_put_back_to_what_was_recalled() {
    let mut driver = running();
    queued_again(&mut driver);
    recall(&mut driver);
    let agent = driver.agents[0];
    driver.shared.quarantine(&agent, Reason::FailedTooOften, driver.now, &mut Vec::new());
    driver.succeed(1);
    assert_eq!(ended(&driver, 1), (MemberState::Excluded, Reason::Quarantined));
}

#[test]
fn who_goes_away_between_two_tries_is_not_put_back_to_what_was_recalled() {
    let mut driver = running();
    queued_again(&mut driver);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    recall(&mut driver);
    driver.succeed(1);
    assert_eq!(ended(&driver, 1), (MemberState::Deferred, Reason::NotConnected));
    driver.fact(0, AgentFact::Connected);
    driver.wait(Strategy::DWELL);
    assert_eq!((driver.state_of(0), driver.offer_of(0)), (MemberState::Offered, 2), "it is tried again");
}

#[test]
fn who_goes_back_to_what_was_recalled_before_its_turn_is_not_given_it_as_well() {
    let mut driver = running();
    driver.succeed(0);
    driver.succeed(1);
    driver.command(Do::RollBack(Scope::All)).expect("it bakes");
    assert_eq!(driver.state_of(1), MemberState::RollbackQueued);
    recall(&mut driver);
    driver.report_of(1, 1, fingerprint("old"), ConfigStatus::Applied);
    let view = driver.engine.member(&driver.agents[1]).expect("a member");
    assert_eq!((view.state, view.reason), (MemberState::RollbackFailed, Reason::Recalled));
    assert_eq!(view.offer, 1);
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
}
