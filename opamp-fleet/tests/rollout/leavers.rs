//! Members that leave the selector, are removed, or come back (R22, R23).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Size, Step, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, GateIx, Leavers, Limits, MemberState, NextAction, Reason,
    Refused, Resume, Retries, RolloutState, Write,
};
use opamp_proto::Fingerprint;

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, gate, request};

fn started(leavers: Leavers, gates: &[GateConfig]) -> Driver {
    running(leavers, gates, Retries { failed: 0, ..Retries::default() }, &agents(4))
}

fn running(leavers: Leavers, gates: &[GateConfig], retries: Retries, fleet: &[Known]) -> Driver {
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(fleet),
        gates: gates.into(),
        settings: EngineSettings { leavers, retries, ..EngineSettings::default() },
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    Driver::started(request, fleet)
}

/// A member in this state. It reports nothing where the state takes that, and is not tried again where it is final.
fn first_in(state: MemberState, leavers: Leavers) -> (Driver, usize) {
    let mut fleet = agents(4);
    if state == MemberState::Unverified {
        fleet[0] = Known::mute(0);
    }
    let timeout = u8::from(state != MemberState::TimedOut);
    let mut driver = running(leavers, &[], Retries { failed: 0, timeout, ..Retries::default() }, &fleet);
    let apply = EngineSettings::default().deadlines.apply;
    match state {
        MemberState::Queued => return (driver, 3),
        MemberState::Offered => {}
        MemberState::Delivered => driver.deliver(0),
        MemberState::Applying => {
            driver.deliver(0);
            driver.report(0, ConfigStatus::Applying);
        }
        MemberState::Applied => {
            driver.deliver(0);
            driver.report(0, ConfigStatus::Applied);
        }
        MemberState::Absent | MemberState::Deferred => {
            driver.deliver(0);
            driver.fact(0, AgentFact::Disconnected { announced: false });
            if state == MemberState::Deferred {
                driver.wait(EngineSettings::default().deadlines.grace_min);
            }
        }
        MemberState::Verified => driver.succeed(0),
        MemberState::Backoff | MemberState::TimedOut | MemberState::Unverified => {
            driver.deliver(0);
            driver.wait(apply);
        }
        MemberState::Failed => driver.fail(0),
        MemberState::Rejected => {
            driver.deliver(0);
            driver.report(0, ConfigStatus::Failed);
        }
        MemberState::SelfRolledBack => {
            driver.succeed(0);
            driver.report_of(0, 1, fingerprint("old"), ConfigStatus::Applied);
        }
        other => panic!("no way to {other}"),
    }
    assert_eq!(driver.state_of(0), state);
    (driver, 0)
}

/// A member whose try has failed and whose turn for the next one has not come: another one is in flight.
fn queued_again(leavers: Leavers) -> (Driver, usize) {
    let (mut driver, agent) = first_in(MemberState::Backoff, leavers);
    driver.wait(Retries::default().first_after);
    assert_eq!((driver.state_of(agent), driver.offer_of(agent)), (MemberState::Queued, 1));
    (driver, agent)
}

/// What is written for an agent that it should have.
fn desired(driver: &Driver, agent: usize) -> Option<Fingerprint> {
    driver.writes.iter().rev().find_map(|write| match write {
        Write::Desire { key, config, .. } if key.agent == driver.agents[agent] => Some(*config),
        _ => None,
    })
}

/// It leaves; who is in flight goes on to success. Where it is then, and what it should have.
fn left((mut driver, agent): (Driver, usize)) -> (MemberState, Option<Fingerprint>) {
    driver.fact(agent, AgentFact::Left);
    if driver.state_of(agent).in_flight() && driver.state_of(agent) != MemberState::RollbackOffered {
        driver.succeed(agent);
    }
    (driver.state_of(agent), desired(&driver, agent))
}

#[test]
fn leave_at_every_state() {
    use MemberState as M;
    let table = [
        // finish, revert
        (M::Queued, [M::Excluded, M::Excluded]),
        (M::Backoff, [M::Excluded, M::RollbackOffered]),
        (M::Offered, [M::Verified, M::RollbackOffered]),
        (M::Delivered, [M::Verified, M::RollbackOffered]),
        (M::Applying, [M::Verified, M::RollbackOffered]),
        (M::Applied, [M::Verified, M::RollbackOffered]),
        (M::Absent, [M::Verified, M::RollbackDeferred]),
        (M::Deferred, [M::Deferred, M::RollbackDeferred]),
        (M::Verified, [M::Verified, M::RollbackOffered]),
        (M::Unverified, [M::Unverified, M::RollbackOffered]),
        (M::TimedOut, [M::TimedOut, M::RollbackOffered]),
        (M::Failed, [M::Failed, M::RollbackOffered]),
        (M::Rejected, [M::Rejected, M::RolledBack]),
        (M::SelfRolledBack, [M::SelfRolledBack, M::RolledBack]),
    ];
    for (state, [finishes, reverts]) in table {
        let (old, new) = (fingerprint("old"), fingerprint("new"));
        let is_offered = state != M::Queued;
        let found = left(first_in(state, Leavers::Finish));
        assert_eq!(found, (finishes, is_offered.then_some(new)), "finish from {state}");
        let found = left(first_in(state, Leavers::Revert));
        assert_eq!(found, (reverts, is_offered.then_some(old)), "revert from {state}");
    }
}

#[test]
fn who_leaves_between_two_tries_is_not_tried_again() {
    let (state, desired) = left(queued_again(Leavers::Finish));
    assert_eq!((state, desired), (MemberState::Excluded, Some(fingerprint("new"))));
    let (state, desired) = left(queued_again(Leavers::Revert));
    assert_eq!((state, desired), (MemberState::RollbackOffered, Some(fingerprint("old"))));

    // It leaves in flight, and then fails.
    let (mut driver, agent) = first_in(MemberState::Delivered, Leavers::Revert);
    driver.fact(agent, AgentFact::Left);
    driver.wait(EngineSettings::default().deadlines.apply);
    assert_eq!(driver.state_of(agent), MemberState::RollbackOffered);
}

#[test]
fn who_leaves_while_it_is_away_is_not_offered_it_on_return() {
    for leavers in [Leavers::Finish, Leavers::Revert] {
        let (mut driver, agent) = first_in(MemberState::Offered, leavers);
        driver.fact(agent, AgentFact::Disconnected { announced: false });
        driver.fact(agent, AgentFact::Left);
        driver.wait(EngineSettings::default().deadlines.grace_min);
        assert_eq!(driver.state_of(agent), MemberState::Deferred, "{leavers}");
        driver.fact(agent, AgentFact::Connected);
        let found = (driver.state_of(agent), desired(&driver, agent));
        assert_eq!(found, (MemberState::Excluded, Some(fingerprint("old"))), "{leavers}");
    }
}

#[test]
fn a_leaver_that_reverts_goes_back_to_its_own_while_the_rollout_goes_on() {
    let (mut driver, agent) = first_in(MemberState::Verified, Leavers::Revert);
    driver.fact(agent, AgentFact::Left);
    assert_eq!(desired(&driver, agent), Some(fingerprint("old")));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.succeed(1);
    assert_eq!(driver.state_of(2), MemberState::Offered);
}

#[test]
fn the_rollout_does_not_end_before_a_leaver_has_gone_back() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings {
        leavers: Leavers::Revert,
        limits: Limits { per_minute: 60, ..Limits::default() },
        bake: Duration::ZERO,
        ..EngineSettings::default()
    };
    let steps = [Step { until: Size::Percent(Ppm::ALL), dwell: Duration::ZERO, approval: false }];
    let strategy = Strategy::Canary { steps: steps.into() };
    let request = PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, strategy) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.state_of(1), MemberState::Offered, "one offer in a second");
    driver.fact(0, AgentFact::Left);
    assert_eq!(driver.state_of(0), MemberState::RollbackQueued);
    driver.succeed(1);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(Duration::from_secs(1));
    let offer = driver.offer_of(0);
    driver.deliver(0);
    driver.report_of(0, offer, fingerprint("old"), ConfigStatus::Applied);
    assert_eq!(driver.state_of(0), MemberState::RolledBack);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn a_bake_that_is_over_says_that_it_waits_for_a_leaver() {
    let (mut driver, agent) = first_in(MemberState::Verified, Leavers::Revert);
    (1..4).for_each(|agent| driver.succeed(agent));
    driver.wait(driver.plan.waves[0].dwell);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    let bake = EngineSettings::default().bake;
    driver.wait(bake - Duration::from_secs(1));
    driver.fact(agent, AgentFact::Left);
    driver.wait(Duration::from_secs(1));
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert!(why.reason.contains("1 members have not settled"), "{why:?}");
    assert!(matches!(why.next, NextAction::At(at, _) if at > driver.now), "{why:?}");
}

#[test]
fn who_comes_back_into_the_selector_is_queued_again_and_keeps_its_number() {
    let mut driver = started(Leavers::Finish, &[]);
    driver.fact(3, AgentFact::Left);
    let view = driver.engine.member(&driver.agents[3]).expect("a member");
    assert_eq!((view.state, view.reason), (MemberState::Excluded, Reason::LeftSelector));
    let member = view.member;
    let known = Known::new(3);
    driver.fact(3, AgentFact::Joined(&known.candidate()));
    let view = driver.engine.member(&driver.agents[3]).expect("a member");
    assert_eq!((view.state, view.member), (MemberState::Queued, member));
}

#[test]
fn tries_survive_a_removal() {
    let mut driver = started(Leavers::Finish, &[]);
    driver.fail(0);
    let before = driver.engine.member(&driver.agents[0]).map(|view| (view.tries, view.offer));
    driver.fact(0, AgentFact::Removed);
    assert_eq!(driver.state_of(0), MemberState::Removed);
    let known = Known::new(0);
    driver.fact(0, AgentFact::Joined(&known.candidate()));
    assert_ne!(driver.state_of(0), MemberState::Removed);
    let after = driver.engine.member(&driver.agents[0]).map(|view| (view.tries, view.offer));
    let (before, after) = (before.expect("a member"), after.expect("a member"));
    assert_eq!(before.0, after.0);
    assert!(after.1 >= before.1, "offer numbers never go back");
}

#[test]
fn removed_members_leave_every_ratio() {
    let two = GateConfig {
        tests: [Test::Count { over: 1 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let mut driver = started(Leavers::Finish, &[two]);
    driver.fail(0);
    driver.fact(0, AgentFact::Removed);
    driver.fail(1);
    assert_eq!(driver.engine.state(), RolloutState::Running, "one is left that counts");
    driver.fail(2);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let summary = driver.engine.summary(driver.now);
    assert_eq!((summary.failed, summary.total), (2, 3));
}

#[test]
fn a_bake_is_not_skipped_before_a_leaver_has_gone_back() {
    let failed = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let mut driver = started(Leavers::Revert, &[failed]);
    (0..4).for_each(|agent| driver.succeed(agent));
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.fact(1, AgentFact::Left);
    assert_eq!(driver.state_of(1), MemberState::RollbackQueued);
    let skipped = driver.command(Do::Resume(Resume::Skip));
    assert!(matches!(skipped, Err(Refused::WrongState { .. })), "{skipped:?}");
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).expect("a decision");
    assert_eq!(driver.state_of(1), MemberState::RollbackOffered);
}

#[test]
fn who_has_left_is_not_tried_again_with_the_others_of_its_wave() {
    let held = GateConfig {
        tests: [Test::Count { over: 1 }].into(),
        severity: Severity::Hold,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let mut driver = started(Leavers::Finish, &[held]);
    driver.fail(0);
    driver.fact(0, AgentFact::Left);
    driver.fail(1);
    driver.command(Do::Resume(Resume::Retry)).expect("the wave is held");
    (1..4).for_each(|agent| driver.succeed(agent));
    assert_eq!((driver.state_of(0), driver.offer_of(0)), (MemberState::Failed, 1));
    assert_eq!(driver.offer_of(1), 2);
}
