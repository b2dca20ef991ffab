//! What time alone does: dwell, progress deadline, scheduled start, expiry (R47, R49, R53).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    Act, AgentFact, AlertKind, Do, EngineSettings, Event, FleetFact, GateIx, MemberState, NoProgress, Resume,
    Retries, RolloutState,
};

use crate::support::{Driver, Known, START, agents, by_number, config, gate, request};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn started(strategy: Strategy, settings: EngineSettings) -> Driver {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, strategy) };
    Driver::started(request, &fleet)
}

#[test]
fn dwell_starts_when_the_wave_has_settled() {
    let mut driver = started(Strategy::Batches { size: 2 }, EngineSettings::default());
    driver.wait(50 * SECOND);
    driver.succeed(0);
    driver.wait(50 * SECOND);
    driver.succeed(1);
    driver.wait(Strategy::DWELL - SECOND);
    assert_eq!(driver.state_of(2), MemberState::Queued);
    driver.wait(SECOND);
    assert_eq!(driver.state_of(2), MemberState::Offered);
}

#[test]
fn what_remains_of_a_dwell_is_kept_over_a_pause() {
    let mut driver = started(Strategy::Batches { size: 2 }, EngineSettings::default());
    driver.succeed(0);
    driver.succeed(1);
    driver.wait(Strategy::DWELL - 10 * SECOND);
    driver.command(Do::Pause).expect("it runs");
    driver.wait(HOUR);
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
    driver.wait(9 * SECOND);
    assert_eq!(driver.state_of(2), MemberState::Queued);
    driver.wait(SECOND);
    assert_eq!(driver.state_of(2), MemberState::Offered);
}

#[test]
fn a_dwell_is_extended_and_ended_by_hand() {
    let mut driver = started(Strategy::Batches { size: 2 }, EngineSettings::default());
    driver.succeed(0);
    driver.succeed(1);
    driver.command(Do::Extend { by: HOUR }).expect("it soaks");
    driver.wait(Strategy::DWELL + HOUR - SECOND);
    assert_eq!(driver.state_of(2), MemberState::Queued);
    driver.command(Do::Advance).expect("it soaks");
    assert_eq!(driver.state_of(2), MemberState::Offered);
}

/// Somebody is in flight and stays so for longer than the progress deadline: its apply time is a day.
fn stuck(on_no_progress: NoProgress) -> Driver {
    let mut settings = EngineSettings {
        on_no_progress,
        progress: 2 * HOUR,
        bake: Duration::ZERO,
        ..EngineSettings::default()
    };
    settings.deadlines.apply = 24 * HOUR;
    let mut driver = started(Strategy::AllAtOnce, settings);
    driver.deliver(0);
    driver
}

#[test]
fn without_progress_a_rollout_pauses_or_fails_by_policy() {
    let mut driver = stuck(NoProgress::Pause);
    driver.wait(2 * HOUR - SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.command(Do::Resume(Resume::Plain)).expect("somebody has looked");
    driver.wait(2 * HOUR - SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running, "the deadline is whole again");

    let mut driver = stuck(NoProgress::Fail);
    driver.wait(2 * HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Aborting);
    driver.succeed(0);
    assert_eq!(driver.engine.state(), RolloutState::Failed);
}

#[test]
fn progress_deadline_excludes_paused_time() {
    let mut driver = stuck(NoProgress::Fail);
    driver.wait(HOUR);
    driver.command(Do::Pause).expect("it runs");
    driver.wait(5 * HOUR);
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
    driver.wait(HOUR - SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Aborting);
}

#[test]
fn progress_deadline_excludes_the_time_a_wave_waits_for_people_or_soaks() {
    let settings =
        EngineSettings { progress: HOUR, on_no_progress: NoProgress::Fail, ..EngineSettings::default() };
    let mut driver = started(Strategy::Manual { size: 2 }, settings.clone());
    driver.wait(10 * HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Running, "it waits to be advanced");
    let mut driver = started(Strategy::Batches { size: 2 }, settings);
    driver.succeed(0);
    driver.succeed(1);
    driver.command(Do::Extend { by: 5 * HOUR }).expect("it soaks");
    driver.wait(5 * HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn progress_deadline_begins_anew_with_each_member_that_settles() {
    let mut driver = stuck(NoProgress::Fail);
    driver.wait(2 * HOUR - SECOND);
    driver.succeed(0);
    driver.deliver(1);
    driver.deliver(2);
    driver.wait(2 * HOUR - SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn a_scheduled_rollout_starts_by_itself_when_its_plan_still_fits() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        start_at: Some(START + HOUR),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::new(request, &fleet);
    driver.command(Do::Submit).expect("a draft");
    assert_eq!(driver.engine.state(), RolloutState::Scheduled);
    assert_eq!(driver.engine.next_deadline(), Some(START + HOUR));
    driver.wait(HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Preflight);
    let plan = driver.plan.hash;
    driver.command(Do::Preflighted { plan, usable: true }).expect("it is compared");
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

/// A rollout that begins in an hour, in its preflight, where its plan turns out to be another one, which is taken in.
fn planned_anew(begins: impl FnOnce(&mut Driver)) -> Driver {
    let (new, all) = (config("new"), Selector::default());
    let of = |fleet: &[Known]| PlanRequest {
        order: by_number(fleet),
        start_at: Some(START + HOUR),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::new(of(&agents(2)), &agents(2));
    driver.command(Do::Submit).expect("a draft");
    begins(&mut driver);
    assert_eq!(driver.engine.state(), RolloutState::Preflight);
    let later = Driver::new(of(&agents(3)), &agents(3));
    let plan = later.plan.hash;
    driver.command(Do::Preflighted { plan, usable: true }).expect("it is compared");
    assert_eq!(driver.engine.state(), RolloutState::Ready);
    driver.tick();
    assert_eq!(driver.engine.state(), RolloutState::Ready, "its new plan is not there yet");
    driver.engine.replan(later.plan, later.members, driver.now).expect("the plan that was compared");
    driver.tick();
    driver
}

#[test]
fn a_scheduled_rollout_starts_by_itself_with_the_plan_that_fits_then() {
    let driver = planned_anew(|driver| driver.wait(HOUR));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!(driver.engine.summary(driver.now).total, 3);
}

#[test]
fn who_starts_a_rollout_by_hand_starts_the_plan_that_was_looked_at_and_no_other() {
    let mut driver = planned_anew(|driver| {
        let plan = driver.plan.hash;
        driver.command(Do::Start { plan }).expect("it is scheduled");
    });
    driver.wait(HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Ready);
}

#[test]
fn expiry_ends_a_rollout_that_offers_and_spares_one_that_bakes() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let expiring = || PlanRequest {
        order: by_number(&fleet),
        settings: EngineSettings { bake: 2 * HOUR, ..EngineSettings::default() },
        expires_at: Some(START + HOUR),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::new(expiring(), &fleet);
    driver.wait(HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Expired, "before it ran");
    let told =
        driver.acts.iter().filter(|act| matches!(act, Act::Alert(alert) if alert.kind == AlertKind::Ended));
    assert_eq!(told.count(), 1, "nobody wanted that");

    let mut driver = Driver::started(expiring(), &fleet);
    driver.command(Do::Pause).expect("it runs");
    driver.wait(2 * HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Expired, "what was in flight has settled");

    let mut driver = Driver::started(expiring(), &fleet);
    driver.succeed(0);
    driver.succeed(1);
    driver.wait(90 * 60 * SECOND);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.command(Do::Pause).expect("it bakes");
    driver.wait(HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Paused, "it has offered what it had to, in time");
    driver.command(Do::Resume(Resume::Plain)).expect("an operator has paused it");
    driver.wait(2 * HOUR);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn a_pause_ends_by_itself_only_if_its_own_cause_is_gone_and_the_settings_say_so() {
    for (auto_resume, expected) in [(false, RolloutState::Paused), (true, RolloutState::Running)] {
        let settings = EngineSettings { auto_resume, ..EngineSettings::default() };
        let mut driver = started(Strategy::AllAtOnce, settings);
        told(&mut driver, FleetFact::StoreDegraded(true));
        assert_eq!(driver.engine.state(), RolloutState::Paused);
        assert!(driver.command(Do::Resume(Resume::Plain)).is_err(), "the cause remains");
        told(&mut driver, FleetFact::LeadershipDoubtful(false));
        assert_eq!(driver.engine.state(), RolloutState::Paused, "that was not the cause");
        told(&mut driver, FleetFact::StoreDegraded(false));
        assert_eq!(driver.engine.state(), expected);

        driver.command(Do::Pause).expect("an operator may always pause");
        told(&mut driver, FleetFact::StoreDegraded(true));
        told(&mut driver, FleetFact::StoreDegraded(false));
        assert_eq!(driver.engine.state(), RolloutState::Paused, "an operator's pause always wins");
    }
}

fn told(driver: &mut Driver, fact: FleetFact) {
    driver.event(Event::Fleet(fact)).expect("a fact is not refused");
}

/// It goes on by itself after a pause, and pauses at one failure.
fn resuming() -> Driver {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [any].into(),
        settings: EngineSettings {
            auto_resume: true,
            retries: Retries { failed: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    Driver::started(request, &fleet)
}

#[test]
fn a_gate_that_fails_during_a_pause_is_decided_about_before_the_rollout_goes_on() {
    let mut driver = resuming();
    told(&mut driver, FleetFact::StoreDegraded(true));
    driver.fail(0);
    told(&mut driver, FleetFact::StoreDegraded(false));
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert_eq!(driver.state_of(1), MemberState::Queued);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared).reason;
    assert!(why.starts_with("paused by gate: apply-failed"), "{why}");
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).expect("a decision");
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn a_pause_ends_by_itself_only_if_nothing_else_has_come_meanwhile() {
    let mut driver = resuming();
    told(&mut driver, FleetFact::StoreDegraded(true));
    told(&mut driver, FleetFact::LeadershipDoubtful(true));
    told(&mut driver, FleetFact::StoreDegraded(false));
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared).reason;
    assert_eq!(why, "paused by split-leader-suspected");
    told(&mut driver, FleetFact::LeadershipDoubtful(false));
    assert_eq!(driver.engine.state(), RolloutState::Running);

    driver.command(Do::Pause).expect("it runs");
    told(&mut driver, FleetFact::StoreDegraded(true));
    assert!(driver.command(Do::Resume(Resume::Plain)).is_err(), "the store takes no commits");
    told(&mut driver, FleetFact::StoreDegraded(false));
    driver.command(Do::Resume(Resume::Plain)).expect("an operator's own pause");
}

#[test]
fn whoever_takes_over_goes_on_where_the_pause_was_for_a_cause_that_is_gone() {
    for (auto_resume, expected) in [(false, RolloutState::Paused), (true, RolloutState::Running)] {
        let settings = EngineSettings { auto_resume, ..EngineSettings::default() };
        let mut driver = started(Strategy::AllAtOnce, settings);
        told(&mut driver, FleetFact::StoreDegraded(true));
        driver.engine = driver.rebuilt();
        driver.tick();
        assert_eq!(driver.engine.state(), expected);
    }
}

#[test]
fn an_idle_tick_changes_nothing() {
    let mut driver = started(Strategy::AllAtOnce, EngineSettings::default());
    let (entries, next) = (driver.entries.len(), driver.engine.next_deadline());
    driver.now = driver.now + SECOND;
    driver.tick();
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.engine.next_deadline(), next);
    assert_eq!(driver.entries.len(), entries);
}
