//! Late joiners, by policy and by what the rollout is at (R21): never ungated, never twice.

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Severity, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, Event, GateIx, LateJoiners, MemberState, Reason, Refused,
    Resume, Retries, RolloutState, WaveIx,
};

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, gate, request};

/// How long who comes late is watched by gates without a window.
const WATCHED: Duration = Duration::from_secs(600);

/// The agent that is not there when the plan is made: by its number it belongs to the first wave.
const LATE: u32 = 1;

/// Agents 0, 2, 3, 4, 5 in waves of two; agent 1 comes late.
fn fleet() -> Vec<Known> {
    [0, 2, 3, 4, 5].map(Known::new).to_vec()
}

fn planned(joiners: LateJoiners, gates: &[GateConfig]) -> Driver {
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&agents(6)),
        gates: gates.into(),
        settings: EngineSettings {
            joiners,
            retries: Retries { failed: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, Strategy::Batches { size: 2 })
    };
    Driver::new(request, &fleet())
}

/// Tells that an agent matches now; its position among `driver.agents` from then on.
fn join(driver: &mut Driver, known: &Known) -> usize {
    let agent = known.id();
    let candidate = known.candidate();
    driver
        .event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) })
        .expect("a fact is not refused");
    driver.agents.push(agent);
    driver.agents.len() - 1
}

fn wave_of(driver: &Driver, known: &Known) -> Option<WaveIx> {
    driver.engine.member(&known.id()).map(|view| view.wave)
}

fn succeed_all(driver: &mut Driver) {
    for _ in 0..50 {
        let offered = driver.in_state(MemberState::Offered);
        if offered.is_empty() {
            return;
        }
        offered.into_iter().for_each(|agent| driver.succeed(agent));
    }
}

/// Brings the rollout to where a column of the table is.
fn bring(driver: &mut Driver, to: &str) {
    if to == "draft" {
        return;
    }
    driver.start();
    match to {
        "dispatching" => {}
        "paused" => {
            driver.command(Do::Pause).expect("it runs");
        }
        "aborting" => {
            driver.command(Do::Abort).expect("it runs");
        }
        "settling" => driver.succeed(0),
        "soaking" => succeed_all(driver),
        "baking" => {
            for _ in 0..3 {
                succeed_all(driver);
                driver.wait(Strategy::DWELL);
            }
            assert_eq!(driver.engine.state(), RolloutState::Baking);
        }
        other => panic!("no way to {other}"),
    }
}

#[test]
fn join_at_every_state() {
    let (own, last, tail) = (Some(WaveIx(0)), Some(WaveIx(2)), Some(WaveIx::TAIL));
    let table = [
        // snapshot, join-last-wave, join-if-own-wave-done, continuous
        ("draft", [None, None, None, None]),
        ("dispatching", [None, last, own, tail]),
        ("paused", [None, last, own, tail]),
        ("settling", [None, last, tail, tail]),
        ("soaking", [None, last, tail, tail]),
        ("baking", [None, None, None, None]),
        ("aborting", [None, None, None, None]),
    ];
    let policies =
        [LateJoiners::Snapshot, LateJoiners::LastWave, LateJoiners::IfOwnWaveDone, LateJoiners::Continuous];
    for (at, cells) in table {
        for (policy, expected) in policies.into_iter().zip(cells) {
            let mut driver = planned(policy, &[]);
            bring(&mut driver, at);
            let known = Known::new(LATE);
            join(&mut driver, &known);
            assert_eq!(wave_of(&driver, &known), expected, "{policy} while {at}");
            let entries = driver.entries.len();
            join(&mut driver, &known);
            assert_eq!(driver.entries.len(), entries, "{policy} while {at}: told again");
        }
    }
}

#[test]
fn a_joiner_of_the_tail_is_offered_once_the_first_wave_has_passed() {
    let mut driver = planned(LateJoiners::Continuous, &[]);
    driver.start();
    let late = join(&mut driver, &Known::new(LATE));
    succeed_all(&mut driver);
    assert_eq!(driver.state_of(late), MemberState::Queued);
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(late), MemberState::Offered);
}

#[test]
fn a_rollout_does_not_end_before_its_tail() {
    let mut driver = planned(LateJoiners::IfOwnWaveDone, &[]);
    driver.start();
    succeed_all(&mut driver);
    driver.wait(Strategy::DWELL);
    succeed_all(&mut driver);
    driver.wait(Strategy::DWELL);
    let late = join(&mut driver, &Known::new(LATE));
    assert_eq!(driver.state_of(late), MemberState::Offered);
    driver.succeed(4);
    driver.deliver(late);
    driver.wait(Strategy::DWELL / 4);
    driver.report(late, ConfigStatus::Applying);
    driver.wait(Strategy::DWELL * 3 / 4);
    assert_eq!(driver.engine.state(), RolloutState::Running, "somebody of the tail is in flight");
    driver.succeed(late);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
}

#[test]
fn a_joiner_that_fails_counts_over_all_waves() {
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        scopes: Scopes::CUMULATIVE,
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let mut driver = planned(LateJoiners::IfOwnWaveDone, &[any]);
    driver.start();
    succeed_all(&mut driver);
    let late = join(&mut driver, &Known::new(LATE));
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(late), MemberState::Offered);
    driver.fail(late);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let lines: Vec<_> = driver.engine.fired().iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("apply-failed over all waves: 1 > 0"), "{lines:?}");
}

#[test]
fn a_joiner_passes_the_same_preflight() {
    let mut driver = planned(LateJoiners::IfOwnWaveDone, &[]);
    driver.start();
    let quarantined = Known { quarantined: true, ..Known::new(LATE) };
    let late = join(&mut driver, &quarantined);
    let view = driver.engine.member(&driver.agents[late]).expect("it is listed with its reason");
    assert_eq!((view.state, view.reason), (MemberState::Excluded, Reason::Quarantined));
    let current = Known { current: Some(fingerprint("new")), ..Known::new(9) };
    let late = join(&mut driver, &current);
    assert_eq!(driver.state_of(late), MemberState::AlreadyCurrent);
}

#[test]
fn the_arrival_of_a_joiner_prolongs_a_soak_to_the_longest_window() {
    let mut driver = planned(LateJoiners::IfOwnWaveDone, &[gate(GateKind::ApplyFailed)]);
    driver.start();
    succeed_all(&mut driver);
    driver.wait(Strategy::DWELL - Duration::from_secs(60));
    join(&mut driver, &Known::new(LATE));
    driver.wait(Duration::from_secs(60));
    assert_eq!(driver.state_of(2), MemberState::Queued, "the wave soaks for another window");
    driver.wait(WATCHED);
    assert_ne!(driver.state_of(2), MemberState::Queued);
}

#[test]
fn joiners_that_come_all_the_time_prolong_a_soak_by_one_window_at_most() {
    let mut driver = planned(LateJoiners::Continuous, &[gate(GateKind::ApplyFailed)]);
    driver.start();
    succeed_all(&mut driver);
    let minutes = (Strategy::DWELL + WATCHED).as_secs() / 60;
    for minute in (0..).take(usize::try_from(minutes).expect("a few minutes")) {
        assert_eq!(driver.state_of(2), MemberState::Queued, "the wave soaks after {minute} minutes");
        join(&mut driver, &Known::new(100 + minute));
        driver.wait(Duration::from_secs(60));
    }
    assert_ne!(driver.state_of(2), MemberState::Queued, "the next wave has begun");
}

#[test]
fn joiners_that_come_all_the_time_do_not_keep_a_rollout_from_its_end() {
    let mut driver = planned(LateJoiners::Continuous, &[gate(GateKind::ApplyFailed)]);
    driver.start();
    for _ in 0..2 {
        succeed_all(&mut driver);
        driver.wait(Strategy::DWELL);
    }
    succeed_all(&mut driver);
    // From now on somebody of the tail is in flight at any time: each answers only after the next one has come.
    let step = Duration::from_secs(50);
    let mut late = join(&mut driver, &Known::new(100));
    let bakes = (1..60).find(|number| {
        let offered = driver.in_state(MemberState::Offered);
        late = join(&mut driver, &Known::new(100 + number));
        offered.into_iter().for_each(|agent| driver.succeed(agent));
        driver.wait(step);
        driver.engine.state() == RolloutState::Baking
    });
    let window = WATCHED;
    let most = u32::try_from((Strategy::DWELL + 2 * window).as_secs() / step.as_secs() + 2).expect("steps");
    assert!(bakes.is_some_and(|steps| steps <= most), "it bakes after {bakes:?} steps");
    assert_eq!(driver.state_of(late), MemberState::Queued, "it is left to the steady state");
}

#[test]
fn where_only_late_joiners_are_left_there_is_nothing_to_skip() {
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let mut driver = planned(LateJoiners::IfOwnWaveDone, &[any]);
    driver.start();
    for _ in 0..2 {
        succeed_all(&mut driver);
        driver.wait(Strategy::DWELL);
    }
    let late = join(&mut driver, &Known::new(LATE));
    driver.succeed(4);
    driver.deliver(late);
    driver.wait(Strategy::DWELL / 4);
    driver.report(late, ConfigStatus::Applying);
    driver.wait(Strategy::DWELL * 3 / 4);
    assert_eq!(driver.engine.state(), RolloutState::Running, "somebody of the tail is in flight");
    driver.fail(late);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    let skipped = driver.command(Do::Resume(Resume::Skip));
    assert!(matches!(skipped, Err(Refused::WrongState { .. })), "{skipped:?}");
    assert_eq!(driver.engine.state(), RolloutState::Paused, "it is not called a success");
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).expect("a decision");
    assert_eq!(driver.engine.state(), RolloutState::Baking);
}
