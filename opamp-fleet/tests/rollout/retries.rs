//! Retries by class of failure (R30).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{AgentFact, ConfigStatus, Do, GateIx, MemberState, Resume, RolloutState};

use crate::support::{Driver, agents, by_number, config, fingerprint, gate, request};

const SECOND: Duration = Duration::from_secs(1);

fn driver(count: u32) -> Driver {
    let fleet = agents(count);
    let (config, selector) = (config("new"), Selector::default());
    let request =
        PlanRequest { order: by_number(&fleet), ..request(&config, &selector, Strategy::AllAtOnce) };
    Driver::started(request, &fleet)
}

fn tries(driver: &Driver, agent: usize) -> (u8, u8) {
    driver.engine.member(&driver.agents[agent]).unwrap().tries
}

#[test]
fn table() {
    // The class, how often it is tried in all, how it ends.
    type Fail = fn(&mut Driver);
    let rows: [(&str, Fail, u32, MemberState); 4] = [
        ("transport", |driver| driver.wait(60 * SECOND), 3, MemberState::TimedOut),
        (
            "time-out",
            |driver| {
                driver.deliver(0);
                driver.wait(300 * SECOND);
            },
            3,
            MemberState::TimedOut,
        ),
        ("failed", |driver| driver.fail(0), 2, MemberState::Failed),
        (
            "refused",
            |driver| {
                driver.deliver(0);
                driver.report(0, ConfigStatus::Failed);
            },
            1,
            MemberState::Rejected,
        ),
    ];
    for (class, fail, offers, end) in rows {
        // The second member keeps the rollout running, and the slot of the first one free.
        let mut driver = driver(2);
        for offer in 1..=offers {
            assert_eq!((driver.offer_of(0), driver.state_of(0)), (offer, MemberState::Offered), "{class}");
            fail(&mut driver);
            if offer == offers {
                break;
            }
            assert_eq!(driver.state_of(0), MemberState::Backoff, "{class}");
            // Whoever took its place settles, so that there is room for it again.
            if driver.state_of(1) == MemberState::Offered {
                driver.succeed(1);
            }
            driver.wait(30 * SECOND * (1 << (offer - 1)));
        }
        assert_eq!((driver.state_of(0), driver.offer_of(0)), (end, offers), "{class}");
    }
}

#[test]
fn who_is_tried_again_takes_a_wave_that_was_held_at_its_end_back_to_dispatching() {
    let fleet = agents(2);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [gate(GateKind::Unverified)].into(),
        ..request(&config, &selector, Strategy::Batches { size: 1 })
    };
    let mut driver = Driver::started(request, &fleet);
    // It says that it has applied it, and nothing of its effective configuration.
    driver.deliver(0);
    driver.report(0, ConfigStatus::Applied);
    driver.wait(130 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Unverified);
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(1), MemberState::Queued, "the wave is held");
    driver.report(0, ConfigStatus::Applying);
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.state_of(0), MemberState::Backoff);
    driver.wait(30 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Queued);
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).expect("it is held");
    assert_eq!((driver.state_of(0), driver.offer_of(0)), (MemberState::Offered, 2));
    assert_eq!(driver.state_of(1), MemberState::Queued, "its own wave is not over");
    driver.succeed(0);
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(1), MemberState::Offered);
}

#[test]
fn who_is_allowed_it_again_after_its_wave_has_all_its_tries_again() {
    let fleet = agents(2);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::Batches { size: 1 })
    };
    let mut driver = Driver::started(request, &fleet);
    driver.fail(0);
    driver.wait(30 * SECOND);
    driver.fail(0);
    assert_eq!((driver.state_of(0), tries(&driver, 0)), (MemberState::Failed, (0, 2)));
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(1), MemberState::Offered, "its wave is over");
    let agent = driver.agents[0];
    driver.command(Do::AllowHash { agent }).expect("it runs");
    assert_eq!((driver.state_of(0), tries(&driver, 0)), (MemberState::Offered, (0, 0)));
    driver.fail(0);
    assert_eq!(driver.state_of(0), MemberState::Backoff);
}

#[test]
fn counters_survive_leaving_and_joining_again() {
    let mut driver = driver(2);
    driver.fail(0);
    assert_eq!((driver.state_of(0), tries(&driver, 0)), (MemberState::Backoff, (0, 1)));
    driver.fact(0, AgentFact::Left);
    assert_eq!((driver.state_of(0), tries(&driver, 0)), (MemberState::Excluded, (0, 1)));
    let fleet = agents(2);
    let candidate = fleet[0].candidate();
    driver.fact(0, AgentFact::Joined(&candidate));
    assert_eq!(tries(&driver, 0), (0, 1));
}

#[test]
fn a_late_success_needs_no_retry() {
    let mut driver = driver(2);
    driver.fail(0);
    assert_eq!(driver.state_of(0), MemberState::Backoff);
    driver.report(0, ConfigStatus::Applied);
    let offer = driver.offer_of(0);
    driver.fact(0, AgentFact::Effective { offer, relation: opamp_fleet::rollout::Effective::Equal });
    assert_eq!((driver.state_of(0), driver.offer_of(0)), (MemberState::Verified, 1));
}

#[test]
fn who_backs_off_and_went_back_alone_is_not_tried_again() {
    let mut driver = driver(2);
    driver.fail(0);
    driver.report_of(0, 1, fingerprint("old"), ConfigStatus::Applied);
    assert_eq!(driver.state_of(0), MemberState::SelfRolledBack);
    driver.wait(3_600 * SECOND);
    assert_eq!(driver.offer_of(0), 1);
}

/// `apply-failed` by its score alone.
fn scored() -> GateConfig {
    let gate = gate(GateKind::ApplyFailed);
    GateConfig {
        tests: gate.tests.iter().copied().filter(|test| !matches!(test, Test::Bound { .. })).collect(),
        ..gate
    }
}

#[test]
fn who_is_tried_again_after_a_time_out_stands_between_failures_as_one_that_is_well() {
    let fleet = agents(200);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [scored()].into(),
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    for agent in 0..100 {
        driver.succeed(agent);
    }
    // A hundred at once, of which 5 % fail: most of them time out, because what they fetch takes so long.
    assert_eq!(driver.in_state(MemberState::Offered).len(), 100);
    (100..200).for_each(|agent| driver.deliver(agent));
    let failing = [110, 125, 140, 155];
    for _ in 0..2 {
        for agent in failing {
            driver.fail(agent);
        }
        driver.wait(31 * SECOND);
    }
    assert_eq!(driver.in_state(MemberState::Failed), failing);
    driver.wait(240 * SECOND);
    assert_eq!(driver.state_of(170), MemberState::Backoff);
    driver.report(170, ConfigStatus::Failed);
    assert!(matches!(driver.state_of(170), MemberState::Failed | MemberState::Backoff));
    assert_eq!(driver.engine.fired(), [], "one failure in 15 members is no fault of a fifth");
    assert_eq!(driver.engine.state(), RolloutState::Running);
}
