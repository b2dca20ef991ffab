//! Rolling back: each member to its own last known good configuration, without canary, past failures, never in a loop
//! (R66 to R69, R71, R72).

mod recalled;
mod stopped;

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Scopes, Severity, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    Act, AgentFact, AlertKind, ConfigStatus, Do, EngineSettings, GateIx, MemberState, Reason, Retries,
    RolloutState, Scope, WaveIx, Write,
};
use opamp_proto::Fingerprint;

use crate::support::{Driver, Known, agents, by_number, config, fingerprint, gate, request};

/// A running rollout in which everybody has it.
fn applied(fleet: &[Known]) -> Driver {
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings::default();
    let request =
        PlanRequest { order: by_number(fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, fleet);
    for agent in 0..fleet.len() {
        if driver.state_of(agent) == MemberState::Offered {
            driver.succeed(agent);
        }
    }
    driver
}

/// What was written last for an agent, and whether that puts it back.
fn desired(driver: &Driver, agent: usize) -> Option<(Fingerprint, bool)> {
    driver.writes.iter().rev().find_map(|write| match write {
        Write::Desire { key, config, rollback, .. } if key.agent == driver.agents[agent] => {
            Some((*config, *rollback))
        }
        _ => None,
    })
}

/// The agent reports that it runs what it ran before.
pub(crate) fn goes_back(driver: &mut Driver, agent: usize, to: Fingerprint) {
    let offer = driver.offer_of(agent);
    driver.deliver(agent);
    driver.report_of(agent, offer, to, ConfigStatus::Applied);
}

#[test]
fn a_heterogeneous_fleet_goes_back_to_its_own() {
    let mut fleet = agents(3);
    fleet[1].known_good = Some(fingerprint("special"));
    fleet[1].current = Some(fingerprint("special"));
    fleet[2].known_good = None;
    fleet[2].assigned = Some(fingerprint("assigned"));
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    let back = ["old", "special", "assigned"].map(fingerprint);
    for (agent, config) in back.into_iter().enumerate() {
        assert_eq!(desired(&driver, agent), Some((config, true)), "agent {agent}");
        goes_back(&mut driver, agent, config);
        assert_eq!(driver.state_of(agent), MemberState::RolledBack);
    }
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn without_canary_and_dwell_all_are_offered_at_once_and_failures_do_not_stop_the_others() {
    let fleet = agents(5);
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackOffered).len(), 5);
    let old = fingerprint("old");
    driver.deliver(0);
    driver.report_of(0, driver.offer_of(0), old, ConfigStatus::Failed);
    assert_eq!(driver.state_of(0), MemberState::RollbackFailed);
    for agent in 1..5 {
        goes_back(&mut driver, agent, old);
    }
    assert_eq!(driver.engine.state(), RolloutState::PartiallyRolledBack);
}

#[test]
fn a_failed_rollback_is_quarantined() {
    let fleet = agents(1);
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    driver.wait(Duration::from_secs(24 * 3_600));
    assert_eq!(driver.state_of(0), MemberState::RollbackFailed);
    assert_eq!(driver.engine.state(), RolloutState::RollbackFailed);
    let agent = driver.agents[0];
    let quarantined = driver
        .writes
        .iter()
        .any(|write| matches!(write, Write::Quarantine { agent: who, .. } if *who == agent));
    assert!(quarantined);
    let offers = driver.writes.iter().filter(|write| matches!(write, Write::Desire { rollback: true, .. }));
    assert_eq!(offers.count(), 1, "it is never asked twice");
}

#[test]
fn an_offline_member_gets_the_good_config_first() {
    let fleet = agents(2);
    let mut driver = applied(&fleet);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.state_of(0), MemberState::RollbackDeferred);
    assert_eq!(desired(&driver, 0), Some((fingerprint("old"), true)), "it is what it gets on return");
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::RollbackOffered);
    goes_back(&mut driver, 0, fingerprint("old"));
    goes_back(&mut driver, 1, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn who_restarts_while_it_goes_back_is_waited_for_and_who_stays_away_is_not() {
    let fleet = agents(3);
    let mut driver = applied(&fleet);
    // Two fall, as agents do that go back because they fall again and again; one of them comes back.
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.fact(1, AgentFact::Disconnected { announced: false });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    goes_back(&mut driver, 2, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::RollingBack, "both may just be restarting");
    driver.wait(Duration::from_secs(60));
    driver.fact(0, AgentFact::Connected);
    goes_back(&mut driver, 0, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    let mut rebuilt = driver.rebuilt();
    std::mem::swap(&mut driver.engine, &mut rebuilt);
    driver.wait(Duration::from_secs(30));
    assert_eq!(driver.state_of(1), MemberState::RollbackDeferred);
    assert_eq!(driver.engine.state(), RolloutState::PartiallyRolledBack, "one was away for a whole grace");
}

#[test]
fn who_is_known_to_be_away_is_not_waited_for_while_others_go_back() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { bake: Duration::from_secs(24 * 3_600), ..EngineSettings::default() };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    (0..2).for_each(|agent| driver.succeed(agent));
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(3_600));
    assert_eq!(driver.state_of(0), MemberState::Verified);
    driver.command(Do::RollBack(Scope::All)).expect("it bakes");
    goes_back(&mut driver, 1, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::PartiallyRolledBack);
}

#[test]
fn an_offline_member_does_not_wait_for_its_turn_to_be_given_the_good_config() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { in_flight_max: 1, ..EngineSettings::default() };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    driver.fact(2, AgentFact::Disconnected { announced: false });
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.state_of(0), MemberState::RollbackOffered);
    assert_eq!(driver.state_of(1), MemberState::RollbackQueued, "one at a time");
    assert_eq!(driver.state_of(2), MemberState::RollbackDeferred);
    assert_eq!(desired(&driver, 2), Some((fingerprint("old"), true)));
}

#[test]
fn who_waits_for_another_try_goes_back_as_well() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { in_flight_max: 1, ..EngineSettings::default() };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.fail(0);
    driver.wait(Duration::from_secs(30));
    assert_eq!(driver.in_state(MemberState::Queued), [0], "the other one is in flight");
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    goes_back(&mut driver, 0, fingerprint("old"));
    goes_back(&mut driver, 1, fingerprint("old"));
    assert_eq!(driver.in_state(MemberState::RolledBack), [0, 1]);
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn late_evidence_while_others_go_back_sends_a_member_back_too() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings {
        retries: Retries { failed: 0, timeout: 0, transport: 0, ..Retries::default() },
        ..EngineSettings::default()
    };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.fail(1);
    driver.deliver(2);
    driver.wait(Duration::from_secs(300));
    assert_eq!(driver.state_of(2), MemberState::TimedOut);
    // Only those that failed go back; then one that had not been asked to says that it failed after all.
    driver.command(Do::RollBack(Scope::Failed)).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [1, 2]);
    assert_eq!(driver.state_of(0), MemberState::Verified);
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 1, 2]);
}

#[test]
fn what_was_recalled_is_written_for_nobody_not_even_for_who_is_away() {
    let fleet = agents(3);
    let mut driver = applied(&fleet);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.shared.recall(fingerprint("old"), "it eats the logs", &mut driver.writes);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    for agent in 0..3 {
        let view = driver.engine.member(&driver.agents[agent]).expect("a member");
        assert_eq!((view.state, view.reason), (MemberState::RollbackFailed, Reason::Recalled));
        assert_eq!(desired(&driver, agent), Some((fingerprint("new"), false)));
    }

    // One that stays away from the delivery on, and one that refused it.
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(Duration::from_secs(90));
    driver.deliver(1);
    driver.report(1, ConfigStatus::Failed);
    assert_eq!((driver.state_of(0), driver.state_of(1)), (MemberState::Deferred, MemberState::Rejected));
    driver.shared.recall(fingerprint("old"), "it eats the logs", &mut driver.writes);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(
        (driver.state_of(0), driver.state_of(1)),
        (MemberState::RollbackFailed, MemberState::RollbackFailed)
    );
    assert!(driver.writes.iter().all(|write| !matches!(write, Write::Desire { rollback: true, .. })));
}

#[test]
fn a_member_without_a_target_fails_with_that_reason() {
    let mut fleet = agents(2);
    fleet[0] = Known { known_good: None, assigned: None, current: None, ..Known::new(0) };
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    let view = driver.engine.member(&driver.agents[0]).expect("a member");
    assert_eq!((view.state, view.reason), (MemberState::RollbackFailed, Reason::NoTarget));
    goes_back(&mut driver, 1, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::PartiallyRolledBack);
}

#[test]
fn who_was_ill_before_is_left_alone() {
    let mut fleet = agents(4);
    fleet[0].facts.health = opamp_fleet::Health::Unhealthy;
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
    driver.succeed(0);
    driver.fail(1);
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    assert_eq!(driver.state_of(0), MemberState::Verified);
    assert_eq!(driver.state_of(1), MemberState::RollbackOffered);
}

#[test]
fn a_scope_names_who_goes_back_and_can_be_widened_to_all() {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let request =
        PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::Batches { size: 2 }) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.succeed(1);
    driver.wait(Strategy::DWELL);
    driver.succeed(2);
    driver.command(Do::RollBack(Scope::Wave(WaveIx(0)))).expect("it runs");
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 1]);
    assert_eq!(driver.state_of(2), MemberState::Verified);
    driver.command(Do::RollBack(Scope::All)).expect("a wider scope");
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [0, 1, 2, 3]);
}

#[test]
fn who_went_away_with_it_goes_back_with_those_that_failed() {
    let fleet = agents(4);
    let mut driver = applied(&fleet[..3]);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.fact(1, AgentFact::Disconnected { announced: true });
    driver.wait(Duration::from_secs(90));
    driver.command(Do::RollBack(Scope::Failed)).expect("it bakes");
    assert_eq!(driver.in_state(MemberState::RollbackDeferred), [0], "the other one announced it");
    assert_eq!(desired(&driver, 0), Some((fingerprint("old"), true)));
    assert_eq!(driver.state_of(2), MemberState::Verified);

    // One is away in flight when the rollback begins, and stays away.
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.deliver(1);
    driver.fact(1, AgentFact::Disconnected { announced: false });
    driver.command(Do::RollBack(Scope::Failed)).expect("it runs");
    assert_eq!(driver.state_of(1), MemberState::Absent);
    driver.wait(Duration::from_secs(90));
    assert_eq!(driver.state_of(1), MemberState::RollbackDeferred);
}

#[test]
fn who_reports_its_previous_configuration_before_its_turn_is_not_offered_the_other_one_again() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let settings = EngineSettings { in_flight_max: 1, ..EngineSettings::default() };
    let request =
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    (0..2).for_each(|agent| driver.succeed(agent));
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.state_of(1), MemberState::RollbackQueued);
    driver.report_of(1, driver.offer_of(1), fingerprint("old"), ConfigStatus::Applied);
    assert_eq!(driver.state_of(1), MemberState::RolledBack);
    assert_eq!(desired(&driver, 1), Some((fingerprint("old"), true)));
}

#[test]
fn a_rollback_goes_on_after_a_rebuild() {
    let fleet = agents(3);
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    goes_back(&mut driver, 0, fingerprint("old"));
    let offers: Vec<_> = (0..3).map(|agent| driver.offer_of(agent)).collect();
    driver.engine = driver.rebuilt();
    driver.tick();
    assert_eq!((0..3).map(|agent| driver.offer_of(agent)).collect::<Vec<_>>(), offers);
    goes_back(&mut driver, 1, fingerprint("old"));
    goes_back(&mut driver, 2, fingerprint("old"));
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}

#[test]
fn garbage_collection_spares_pins() {
    let mut fleet = agents(3);
    fleet[1].known_good = Some(fingerprint("special"));
    let mut driver = applied(&fleet);
    let pins: Vec<_> = driver.engine.pinned().collect();
    for body in ["new", "old", "special"] {
        let config = fingerprint(body);
        assert!(pins.contains(&config), "{body}");
        let written = driver
            .writes
            .iter()
            .filter(|write| matches!(write, Write::Pin { config: of, .. } if *of == config));
        assert_eq!(written.count(), 1, "{body} is pinned once");
    }
    driver.command(Do::Abort).expect("it runs");
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    let unpinned = driver.writes.iter().any(|write| matches!(write, Write::Unpin { .. }));
    assert!(!unpinned, "somebody may still have to go back");
}

#[test]
fn who_has_nothing_to_go_back_to_is_not_quarantined_for_it_and_told_of_once() {
    let mut fleet = agents(3);
    for known in &mut fleet {
        (known.current, known.assigned, known.known_good) = (None, None, None);
    }
    let mut driver = applied(&fleet);
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    assert_eq!(driver.engine.state(), RolloutState::RollbackFailed);
    let quarantines = driver.writes.iter().filter(|write| matches!(write, Write::Quarantine { .. }));
    assert_eq!(quarantines.count(), 0);
    let told = driver.acts.iter().filter_map(|act| match act {
        Act::Alert(alert) if alert.kind != AlertKind::Ended => Some(&*alert.text),
        _ => None,
    });
    let expected = ["operator", "3 members have nothing to go back to and keep what they have"];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn whom_a_gate_excuses_is_not_among_the_failed_and_nobody_is_for_a_gate_without_a_say() {
    let mut fleet = agents(2);
    fleet[0].facts.health = opamp_fleet::Health::Unhealthy;
    let (new, all) = (config("new"), Selector::default());
    let gates = [gate(GateKind::Unhealthy)];
    for waived in [false, true] {
        let request = PlanRequest {
            order: by_number(&fleet),
            gates: gates.clone().into(),
            ..request(&new, &all, Strategy::AllAtOnce)
        };
        let mut driver = Driver::started(request, &fleet);
        for agent in [0, 1] {
            driver.succeed(agent);
            let offer = driver.offer_of(agent);
            driver.fact(agent, AgentFact::Health { offer, healthy: false });
        }
        if waived {
            let skip = Do::SkipGate { gate: GateIx(0), wave: Some(WaveIx(0)) };
            driver.command(skip).expect("it runs");
        }
        driver.command(Do::RollBack(Scope::Failed)).expect("it runs");
        let expected: &[usize] = if waived { &[] } else { &[1] };
        assert_eq!(driver.in_state(MemberState::RollbackOffered), expected);
    }
}

#[test]
fn whom_a_gate_counted_is_among_the_failed_that_go_back() {
    let fleet = agents(10);
    let (new, all) = (config("new"), Selector::default());
    let ill = GateConfig {
        tests: [Test::Count { over: 2 }].into(),
        severity: Severity::RollBack(Scope::Failed),
        ..gate(GateKind::Unhealthy)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [ill].into(),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    for _ in 0..5 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
    }
    for agent in [1, 4, 7] {
        let offer = driver.offer_of(agent);
        driver.fact(agent, AgentFact::Health { offer, healthy: false });
    }
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    assert_eq!(driver.in_state(MemberState::RollbackOffered), [1, 4, 7]);
    [1, 4, 7].into_iter().for_each(|agent| goes_back(&mut driver, agent, fingerprint("old")));
    assert_eq!(driver.engine.state(), RolloutState::RolledBack);
}
