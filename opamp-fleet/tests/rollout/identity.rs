//! What is offered is what was planned, whatever is done to its source (R1, R12).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::plan::{FleetSizes, Plan, Strategy};
use opamp_fleet::rollout::{
    CommandKey, CommandOutcome, Do, First, MemberState, OfferKey, Refused, RolloutState, Write,
};

use super::support::{Driver, Known, START, agents, by_number, config, fingerprint, request};

fn offers(driver: &Driver) -> Vec<(OfferKey, opamp_proto::Fingerprint)> {
    let offer = |write: &Write| match write {
        Write::Desire { key, config, rollback: false, .. } => Some((*key, *config)),
        _ => None,
    };
    driver.writes.iter().filter_map(offer).collect()
}

#[test]
fn a_draft_changed_during_a_rollout_changes_no_offer() {
    let (selector, fleet) = (Selector::default(), agents(6));
    let planned = config("receivers: one");
    let mut asked = request(&planned, &selector, Strategy::Batches { size: 2 });
    asked.order = by_number(&fleet);
    let mut driver = Driver::started(asked, &fleet);
    // Its source is edited: planned anew under the same name it is another plan, and nobody can start that one here.
    let edited = config("receivers: two");
    let mut again = request(&edited, &selector, Strategy::Batches { size: 2 });
    again.order = by_number(&fleet);
    let sizes = FleetSizes { agents: 6, group: 0 };
    let (other, _) = Plan::make(again, fleet.iter().map(Known::candidate), sizes, START).expect("a plan");
    assert_ne!(other.hash, driver.plan.hash);
    let _ = driver.command(Do::Preflighted { plan: other.hash, usable: true });
    for _ in 0..500 {
        for agent in driver.in_state(MemberState::Offered) {
            driver.succeed(agent);
        }
        driver.wait(Duration::from_secs(20));
    }
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
    let offered = offers(&driver);
    assert_eq!(offered.len(), 6);
    assert!(offered.iter().all(|(_, config)| *config == fingerprint("receivers: one")), "{offered:?}");
}

#[test]
fn an_offer_is_named_by_rollout_agent_and_number_and_no_name_stands_for_two() {
    let (selector, fleet, new) = (Selector::default(), agents(4), config("new"));
    let mut asked = request(&new, &selector, Strategy::Batches { size: 4 });
    asked.order = by_number(&fleet);
    asked.settings.retries.failed = 1;
    let mut driver = Driver::started(asked, &fleet);
    for _ in 0..200 {
        for agent in driver.in_state(MemberState::Offered) {
            if driver.offer_of(agent) == 1 { driver.fail(agent) } else { driver.succeed(agent) }
        }
        driver.wait(Duration::from_secs(20));
    }
    let mut keys: Vec<OfferKey> = offers(&driver).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 8, "each was tried twice");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 8);
    assert!(keys.iter().all(|key| key.rollout == driver.plan.id && (1..=2).contains(&key.offer)));
}

#[test]
fn a_plan_that_nobody_has_looked_at_is_not_started() {
    let (selector, fleet, new) = (Selector::default(), agents(3), config("new"));
    let mut driver = Driver::new(request(&new, &selector, Strategy::Batches { size: 2 }), &fleet);
    driver.command(Do::Submit).expect("a draft");
    let _ = driver.command(Do::Preflighted { plan: driver.plan.hash, usable: true });
    let refused = driver.command(Do::Start { plan: fingerprint("another plan") });
    assert_eq!(refused, Err(Refused::PlanChanged));
    assert!(offers(&driver).is_empty());
}

#[test]
fn the_hash_of_a_plan_does_not_depend_on_the_order_of_candidates_or_the_time() {
    let (selector, fleet, new) = (Selector::default(), agents(40), config("new"));
    let sizes = FleetSizes { agents: 40, group: 0 };
    let asked = || request(&new, &selector, Strategy::Batches { size: 7 });
    let (plan, members) =
        Plan::make(asked(), fleet.iter().map(Known::candidate), sizes, START).expect("a plan");
    let later = START + Duration::from_secs(60);
    let backwards = fleet.iter().rev().map(Known::candidate);
    let (same, same_members) = Plan::make(asked(), backwards, sizes, later).expect("a plan");
    assert_eq!((same.hash, same_members.ids()), (plan.hash, members.ids()));
    let fewer = fleet[1..].iter().map(Known::candidate);
    let (other, _) = Plan::make(asked(), fewer, sizes, START).expect("a plan");
    assert_ne!(other.hash, plan.hash);
}

#[test]
fn a_command_under_the_key_of_another_one_is_refused_and_repeated_it_is_done_once() {
    let (selector, fleet, new) = (Selector::default(), agents(3), config("new"));
    let mut driver = Driver::started(request(&new, &selector, Strategy::Batches { size: 2 }), &fleet);
    let key = CommandKey::new("mine").expect("a short key");
    assert_eq!(driver.command_as(key.clone(), Do::Pause), Ok(CommandOutcome::Done));
    let entries = driver.entries.len();
    assert_eq!(driver.command_as(key.clone(), Do::Pause), Ok(CommandOutcome::Repeated(First::Done)));
    assert_eq!(driver.command_as(key, Do::Abort), Err(Refused::KeyReused));
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(driver.entries.len(), entries, "nothing was written");
}
