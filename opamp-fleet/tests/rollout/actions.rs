//! What a failed gate leads to (R65): observe, hold, pause, abort, roll back what failed, roll back all.

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Severity, Test};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    Act, AlertKind, ConfigStatus, Do, EngineSettings, MemberState, Resume, Retries, RolloutState, Scope,
    WaveIx, WaveState, Write,
};

use crate::support::{Driver, agents, by_number, config, gate, request};

/// Six agents in one wave: the first two are well, then one fails, while another is in flight.
fn failing(severity: Severity) -> Driver {
    let fleet = agents(6);
    let (new, all) = (config("new"), Selector::default());
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        scopes: Scopes::WAVE,
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
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.succeed(1);
    assert_eq!(driver.in_state(MemberState::Offered), [2, 3, 4]);
    driver.fail(2);
    driver
}

fn has_fired(driver: &Driver) -> bool {
    driver.entries.iter().any(|entry| matches!(entry, Entry::Gate(_)))
}

fn alerts(driver: &Driver, kind: AlertKind) -> usize {
    driver.acts.iter().filter(|act| matches!(act, Act::Alert(alert) if alert.kind == kind)).count()
}

#[test]
fn observe_records_and_changes_nothing() {
    let mut driver = failing(Severity::Observe);
    assert!(has_fired(&driver));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.succeed(3);
    assert_eq!(driver.state_of(5), MemberState::Offered);
    assert_eq!(alerts(&driver, AlertKind::Gate), 0);
}

#[test]
fn hold_lets_nothing_new_begin_in_the_wave() {
    let mut driver = failing(Severity::Hold);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    let held = driver.entries.iter().any(|entry| matches!(entry, Entry::Wave { to: WaveState::Held, .. }));
    assert!(held);
    driver.succeed(3);
    driver.succeed(4);
    assert_eq!(driver.state_of(5), MemberState::Queued);
    let lines: Vec<_> = driver.engine.fired().iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["apply-failed: 1 > 0 (1 of 3)"]);
}

#[test]
fn pause_stops_the_rollout_and_says_why() {
    let mut driver = failing(Severity::Pause);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.succeed(3);
    assert_eq!(driver.state_of(5), MemberState::Queued);
    let audited = driver.writes.iter().any(|write| {
        matches!(write, Write::Audit(audit) if &*audit.actor == "engine" && audit.evidence.is_some() && &*audit.after == "paused")
    });
    assert!(audited);
    assert_eq!(alerts(&driver, AlertKind::Paused), 1);
}

#[test]
fn abort_keeps_what_members_have() {
    let mut driver = failing(Severity::Abort);
    assert_eq!(driver.engine.state(), RolloutState::Aborting);
    driver.succeed(3);
    driver.succeed(4);
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 3, 4]);
    assert_eq!(driver.state_of(5), MemberState::Queued);
}

#[test]
fn rolling_back_what_failed_leaves_the_others() {
    let mut driver = failing(Severity::RollBack(Scope::Failed));
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    assert_eq!(driver.state_of(2), MemberState::RollbackOffered);
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1]);
    driver.succeed(3);
    driver.succeed(4);
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 3, 4]);
    assert_eq!(driver.state_of(5), MemberState::Queued);
}

#[test]
fn rolling_back_all_takes_everybody_back_who_was_touched() {
    let driver = failing(Severity::RollBack(Scope::All));
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 1, 2, 3, 4]);
    assert_eq!(driver.state_of(5), MemberState::Queued);
    assert_eq!(alerts(&driver, AlertKind::RollingBack), 1);
}

#[test]
fn rolling_back_the_wave_leaves_the_waves_before_it() {
    for (scopes, back) in [(Scopes::WAVE, vec![2, 3]), (Scopes::CUMULATIVE, vec![0, 1, 2, 3])] {
        let fleet = agents(6);
        let (new, all) = (config("new"), Selector::default());
        let any = GateConfig {
            tests: [Test::Count { over: 0 }].into(),
            scopes,
            severity: Severity::RollBackWave,
            all_failed: None,
            ..gate(GateKind::ApplyFailed)
        };
        let request = PlanRequest {
            order: by_number(&fleet),
            gates: [any].into(),
            ..request(&new, &all, Strategy::Batches { size: 2 })
        };
        let mut driver = Driver::started(request, &fleet);
        driver.succeed(0);
        driver.succeed(1);
        driver.wait(driver.plan.waves[0].dwell);
        driver.succeed(2);
        driver.succeed(3);
        driver.report(3, ConfigStatus::Failed);
        assert_eq!(driver.engine.state(), RolloutState::RollingBack, "{scopes:?}");
        assert_eq!(driver.in_state(MemberState::RollbackOffered), back, "{scopes:?}");
    }
}

#[test]
fn while_an_operator_has_paused_a_gate_only_tells() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        scopes: Scopes::WAVE,
        severity: Severity::RollBack(Scope::All),
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
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.command(Do::Pause).expect("it runs");
    driver.fail(0);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    assert!(has_fired(&driver));
    assert_eq!(alerts(&driver, AlertKind::Gate), 1);
}

#[test]
fn an_undecided_wave_takes_one_member_after_the_other_until_its_test_decides() {
    let fleet = agents(20);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [gate(GateKind::ApplyFailed)].into(),
        settings: EngineSettings {
            retries: Retries { failed: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, Strategy::Batches { size: 5 })
    };
    let mut driver = Driver::started(request, &fleet);
    driver.fail(0);
    (1..5).for_each(|agent| driver.succeed(agent));
    assert!(driver.in_state(MemberState::Offered).is_empty());
    driver.wait(Strategy::DWELL);
    let said =
        |driver: &Driver| driver.entries.iter().filter(|entry| matches!(entry, Entry::Gate(_))).count();
    assert_eq!(said(&driver), 1, "it is told why the wave grows");
    driver.command(Do::Pause).expect("it runs");
    assert_eq!(driver.engine.summary(driver.now).stopped_by, None);
    driver.command(Do::Resume(Resume::Plain)).expect("nobody has to decide about that");
    // One failure of five is more like 20 % than 2 %; it takes eleven successes to be less so.
    for agent in 5..12 {
        assert_eq!(driver.in_state(MemberState::Offered), [agent], "one at a time, no dwell between them");
        let wave = driver.engine.member(&driver.agents[agent]).map(|view| view.wave);
        assert_eq!(wave, Some(WaveIx(0)));
        driver.succeed(agent);
    }
    assert!(driver.in_state(MemberState::Offered).is_empty(), "it is decided, and watched once more");
    assert_eq!(said(&driver), 1, "once");
    driver.wait(std::time::Duration::from_secs(600));
    assert_eq!(driver.in_state(MemberState::Offered), [12]);
    let wave = driver.engine.member(&driver.agents[12]).map(|view| view.wave);
    assert_eq!(wave, Some(WaveIx(2)), "the second wave was lent as a whole");
}

#[test]
fn however_many_fail_after_a_gate_has_it_is_told_once_and_recorded_at_twice_the_count() {
    let fleet = agents(20);
    let (new, all) = (config("new"), Selector::default());
    let any = |severity| GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        scopes: Scopes::WAVE,
        severity,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    for (severity, told) in [(Severity::Observe, 0), (Severity::Hold, 1), (Severity::Pause, 1)] {
        let request = PlanRequest {
            order: by_number(&fleet),
            gates: [any(severity)].into(),
            ..request(&new, &all, Strategy::AllAtOnce)
        };
        let mut driver = Driver::started(request, &fleet);
        (0..20).for_each(|agent| driver.succeed(agent));
        (0..20).for_each(|agent| driver.report(agent, ConfigStatus::Failed));
        assert_eq!(driver.in_state(MemberState::Failed).len(), 20);
        let said: Vec<u32> = driver
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Gate(evidence) => Some(evidence.bad),
                _ => None,
            })
            .collect();
        assert_eq!(said, [1, 2, 4, 8, 16], "{severity:?}");
        assert_eq!(alerts(&driver, AlertKind::Gate), told, "{severity:?}");
    }
}

#[test]
fn what_a_gate_said_before_does_not_keep_it_from_doing_more_when_it_gets_worse() {
    let fleet = agents(6);
    let (new, all) = (config("new"), Selector::default());
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        scopes: Scopes::WAVE,
        severity: Severity::Pause,
        all_failed: Some(Severity::RollBack(Scope::All)),
        ..gate(GateKind::ApplyFailed)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [any].into(),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    driver.report(0, ConfigStatus::Failed);
    driver.report(1, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.report(2, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::RollingBack, "nobody is well any more");
}
