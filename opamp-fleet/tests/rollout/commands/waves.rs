//! Commands about the wave whose turn it is, and ways to go on after a pause or a hold.

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Size, Step, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    CommandOutcome, ConfigStatus, Do, EngineSettings, GateIx, MemberState, Refused, Resume, Retries,
    RolloutState, WaveIx, WaveState,
};

use super::{HOUR, drive};
use crate::support::{Driver, agents, by_number, config, gate, request};

/// The state of a wave, as its last entry says.
fn wave_state(driver: &Driver, ix: u16) -> WaveState {
    let of = driver.entries.iter().rev().find_map(|entry| match entry {
        Entry::Wave { wave: WaveIx(at), to, .. } if *at == ix => Some(*to),
        _ => None,
    });
    of.unwrap_or(WaveState::Pending)
}

/// Four agents in two waves, the first wave in this state; one failure of its gate leads to `severity`.
fn wave_in(state: WaveState, severity: Severity) -> Driver {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let strategy = if state == WaveState::Waiting {
        Strategy::Manual { size: 2 }
    } else {
        Strategy::Batches { size: 2 }
    };
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [any].into(),
        settings: EngineSettings {
            retries: Retries { failed: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, strategy)
    };
    let mut driver = Driver::started(request, &fleet);
    match state {
        WaveState::Waiting | WaveState::Dispatching => {}
        WaveState::Settling => driver.succeed(0),
        WaveState::Soaking => {
            driver.succeed(0);
            driver.succeed(1);
        }
        WaveState::Held => driver.fail(0),
        other => panic!("no way to {other}"),
    }
    assert_eq!(wave_state(&driver, 0), state);
    driver
}

#[test]
fn what_commands_do_to_the_wave_whose_turn_it_is() {
    let table = [
        // advance, skip-wave, extend
        (WaveState::Waiting, ["dispatching", "skipped", "waiting"]),
        (WaveState::Dispatching, ["R", "settling", "dispatching"]),
        (WaveState::Settling, ["R", "settling", "settling"]),
        (WaveState::Soaking, ["passed", "skipped", "soaking"]),
        (WaveState::Held, ["R:decision", "skipped", "R"]),
    ];
    for (state, cells) in table {
        let commands = [Do::Advance, Do::SkipWave, Do::Extend { by: HOUR }];
        for (do_, expected) in commands.into_iter().zip(cells) {
            let mut driver = wave_in(state, Severity::Hold);
            let found = match driver.command(do_.clone()) {
                Ok(_) => wave_state(&driver, 0).as_str(),
                Err(Refused::WrongState { .. }) => "R",
                Err(Refused::NeedsDecision { .. }) => "R:decision",
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected, "{do_:?} while {state}");
        }
    }
}

#[test]
fn a_skipped_wave_settles_first_and_the_last_wave_takes_over_who_is_left() {
    let mut driver = wave_in(WaveState::Dispatching, Severity::Hold);
    drive(&mut driver, Do::SkipWave);
    assert_eq!(driver.state_of(2), MemberState::Queued, "the first wave still has somebody in flight");
    driver.succeed(0);
    assert_eq!(wave_state(&driver, 0), WaveState::Skipped);
    for agent in [2, 3, 1] {
        assert_eq!(driver.state_of(agent), MemberState::Offered, "agent {agent}");
        driver.succeed(agent);
    }
    assert_eq!(driver.engine.member(&driver.agents[1]).map(|view| view.wave), Some(WaveIx(1)));
}

#[test]
fn what_a_gate_has_stopped_goes_on_with_a_decision_only() {
    for severity in [Severity::Hold, Severity::Pause] {
        let stopped = || {
            if severity == Severity::Hold {
                return wave_in(WaveState::Held, severity);
            }
            let mut driver = wave_in(WaveState::Dispatching, severity);
            driver.fail(0);
            assert_eq!(driver.engine.state(), RolloutState::Paused);
            driver
        };
        let mut driver = stopped();
        let plain = driver.command(Do::Resume(Resume::Plain));
        assert!(
            matches!(&plain, Err(Refused::NeedsDecision { gate }) if gate.starts_with("apply-failed: 1 > 0")),
            "{plain:?}"
        );
        assert_eq!(driver.state_of(1), MemberState::Queued);

        let mut driver = stopped();
        drive(&mut driver, Do::Resume(Resume::Waive { gate: GateIx(0) }));
        assert_eq!(driver.engine.state(), RolloutState::Running);
        assert_eq!(driver.state_of(1), MemberState::Offered);

        let mut driver = stopped();
        let low = Resume::Raise { gate: GateIx(0), over: Ppm::percent(20), count: 1 };
        assert!(matches!(driver.command(Do::Resume(low)), Err(Refused::NeedsDecision { .. })));
        let high = Resume::Raise { gate: GateIx(0), over: Ppm::percent(50), count: 2 };
        drive(&mut driver, Do::Resume(high));
        assert_eq!(driver.state_of(1), MemberState::Offered);

        let mut driver = stopped();
        drive(&mut driver, Do::Resume(Resume::Retry));
        assert_eq!(driver.state_of(0), MemberState::Offered, "under a new offer number");
        assert_eq!(driver.offer_of(0), 2);

        let mut driver = stopped();
        drive(&mut driver, Do::Resume(Resume::Skip));
        assert_eq!(wave_state(&driver, 0), WaveState::Skipped);
        assert_eq!(driver.state_of(2), MemberState::Offered);
    }
}

#[test]
fn an_operators_pause_over_a_gates_does_not_lift_the_gates() {
    let mut driver = wave_in(WaveState::Dispatching, Severity::Pause);
    driver.fail(0);
    drive(&mut driver, Do::Pause);
    assert!(matches!(driver.command(Do::Resume(Resume::Plain)), Err(Refused::NeedsDecision { .. })));
    drive(&mut driver, Do::Resume(Resume::Waive { gate: GateIx(0) }));
    assert_eq!(driver.engine.state(), RolloutState::Running);
}

#[test]
fn an_approval_before_a_wave_is_waited_for() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let step = |until, approval| Step { until, dwell: Duration::ZERO, approval };
    let steps = [step(Size::Count(1), false), step(Size::Percent(Ppm::ALL), true)];
    let strategy = Strategy::Canary { steps: steps.into() };
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, strategy) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    assert_eq!(wave_state(&driver, 1), WaveState::Waiting);
    assert_eq!(driver.command(Do::Advance), Err(Refused::NotApproved));
    assert_eq!(driver.command(Do::SkipGate { gate: GateIx(0), wave: None }), Err(Refused::UnknownGate));
    let plan = driver.plan.hash;
    let unknown = Do::Approve { plan, wave: Some(WaveIx(7)) };
    assert_eq!(driver.command(unknown), Err(Refused::UnknownWave));
    let of_plan = driver.command(Do::Approve { plan, wave: None });
    assert_eq!(of_plan, Ok(CommandOutcome::NothingToDo), "that is not about the wave");
    assert_eq!(driver.state_of(1), MemberState::Queued);
    drive(&mut driver, Do::Approve { plan, wave: Some(WaveIx(1)) });
    assert_eq!(driver.state_of(1), MemberState::Offered);
}

/// A gate at which one failure pauses, however late it comes.
fn always_watching() -> GateConfig {
    GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        window: Duration::ZERO,
        ..gate(GateKind::ApplyFailed)
    }
}

#[test]
fn a_retry_begins_no_wave_that_waits_for_an_approval() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let step = |until, approval| Step { until, dwell: Duration::ZERO, approval };
    let steps = [step(Size::Count(2), false), step(Size::Percent(Ppm::ALL), true)];
    let strategy = Strategy::Canary { steps: steps.into() };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [always_watching()].into(),
        ..request(&new, &all, strategy)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.succeed(1);
    assert_eq!(wave_state(&driver, 1), WaveState::Waiting);
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let retried = driver.command(Do::Resume(Resume::Retry));
    assert!(matches!(retried, Err(Refused::WrongState { .. })), "{retried:?}");
    assert_eq!(driver.engine.state(), RolloutState::Paused, "nothing is decided by that");
    drive(&mut driver, Do::Resume(Resume::Waive { gate: GateIx(0) }));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!((wave_state(&driver, 1), driver.state_of(2)), (WaveState::Waiting, MemberState::Queued));
    let plan = driver.plan.hash;
    drive(&mut driver, Do::Approve { plan, wave: Some(WaveIx(1)) });
    assert_eq!(driver.state_of(2), MemberState::Offered);
}

#[test]
fn a_wave_that_is_left_out_stays_left_out_whatever_its_gates_say_while_it_settles() {
    for decision in [Resume::Waive { gate: GateIx(0) }, Resume::Skip] {
        let mut driver = wave_in(WaveState::Dispatching, Severity::Hold);
        drive(&mut driver, Do::SkipWave);
        driver.fail(0);
        assert_eq!(driver.engine.state(), RolloutState::Paused, "there is no wave to hold");
        let retried = driver.command(Do::Resume(Resume::Retry));
        assert!(matches!(retried, Err(Refused::WrongState { .. })), "{retried:?}");
        driver.command(Do::Resume(decision)).expect("a decision");
        assert_eq!(wave_state(&driver, 0), WaveState::Skipped);
        assert_eq!(driver.state_of(1), MemberState::Queued, "it is for the last wave");
        assert_eq!(driver.state_of(2), MemberState::Offered);
    }
}

#[test]
fn gates_are_asked_after_a_retry_and_not_while_members_are_queued_for_it() {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let watching = |kind, test| GateConfig {
        tests: [test].into(),
        severity: Severity::Pause,
        all_failed: None,
        min_sample: 1,
        ..gate(kind)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [
            watching(GateKind::ApplyFailed, Test::Count { over: 1 }),
            watching(GateKind::TimedOut, Test::Percent { over: Ppm::percent(40), at_least: 1 }),
        ]
        .into(),
        settings: EngineSettings {
            retries: Retries { failed: 0, timeout: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.fail(1);
    driver.deliver(3);
    driver.wait(Duration::from_secs(50));
    driver.deliver(2);
    driver.wait(Duration::from_secs(240));
    driver.report(2, ConfigStatus::Applying);
    driver.wait(Duration::from_secs(10));
    assert_eq!(driver.state_of(3), MemberState::TimedOut);
    assert_eq!(driver.engine.state(), RolloutState::Running, "one of three");
    driver.report(2, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::Paused, "two have failed");
    // Without those two, one of two has timed out.
    drive(&mut driver, Do::Resume(Resume::Retry));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    assert_eq!(driver.in_state(MemberState::Offered), [1]);
    assert_eq!(driver.in_state(MemberState::Queued), [2, 3]);
}
