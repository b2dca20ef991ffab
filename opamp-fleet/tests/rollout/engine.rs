//! The engine as a whole: deterministic, replayable, level-triggered (R4, R33).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::coordinator::{Claim, ClaimKind};
use opamp_fleet::rollout::gates::{self, GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    Act, AgentFact, Do, EngineSettings, Event, FleetFact, GateIx, LateJoiners, Limits, MemberState, Offline,
    Reason, Resume, Retries, RolloutId, RolloutState, Shown, WaveState, Write,
};

use crate::support::{Driver, Known, START, agents, by_number, config, fingerprint, gate, request};

/// A rollout of all default gates over a fleet of which some fail, some are slow, and one goes away.
fn eventful() -> Driver {
    let fleet = agents(12);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: gates::defaults(),
        settings: EngineSettings::default(),
        ..request(&new, &all, Strategy::Batches { size: 4 })
    };
    let mut driver = Driver::started(request, &fleet);
    for round in 0..40_u32 {
        for agent in 0..12_usize {
            match driver.state_of(agent) {
                MemberState::Offered if agent == 5 && round < 10 => driver.fail(agent),
                MemberState::Offered if agent == 7 => {
                    driver.deliver(agent);
                    driver.fact(agent, AgentFact::Disconnected { announced: false });
                }
                MemberState::Offered => driver.succeed(agent),
                MemberState::Absent | MemberState::Deferred => driver.fact(agent, AgentFact::Connected),
                MemberState::Delivered => driver.succeed(agent),
                _ => {}
            }
        }
        driver.wait(Duration::from_secs(120));
    }
    driver
}

#[test]
fn the_same_events_give_the_same_entries() {
    let (first, second) = (eventful(), eventful());
    assert!(first.entries.len() > 50, "{}", first.entries.len());
    assert_eq!(first.entries, second.entries);
    assert_eq!(first.writes, second.writes);
    assert_eq!(first.acts, second.acts);
    assert_eq!(first.engine.surprises(), 0);
}

#[test]
fn replaying_the_entries_gives_the_same_rollout() {
    let driver = eventful();
    let rebuilt = driver.rebuilt();
    assert_eq!(rebuilt.snapshot(), driver.engine.snapshot());
    assert_eq!(rebuilt.summary(driver.now), driver.engine.summary(driver.now));
    assert_eq!(rebuilt.check(), Ok(()));
}

#[test]
fn a_rebuild_in_the_middle_offers_nobody_again() {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    let before: Vec<_> = (0..4).map(|agent| driver.offer_of(agent)).collect();
    let desired = driver.writes.len();
    driver.engine = driver.rebuilt();
    driver.tick();
    let after: Vec<_> = (0..4).map(|agent| driver.offer_of(agent)).collect();
    assert_eq!(before, after);
    assert_eq!(driver.writes.len(), desired);
}

#[test]
fn a_rollout_of_what_all_have_ends_at_once() {
    let target = fingerprint("new");
    let fleet: Vec<_> = (0..5).map(|n| Known { current: Some(target), ..Known::new(n) }).collect();
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest {
        settings: EngineSettings::default(),
        ..request(&new, &all, Strategy::Batches { size: 2 })
    };
    let driver = Driver::started(request, &fleet);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
    assert!(!driver.writes.iter().any(|write| matches!(write, Write::Desire { .. })));
}

#[test]
fn facts_told_again_change_nothing() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.deliver(0);
    let entries = driver.entries.len();
    driver.deliver(0);
    driver.fact(0, AgentFact::Connected);
    driver.fact(0, AgentFact::Health { offer: driver.offer_of(0), healthy: true });
    driver.fact(0, AgentFact::Health { offer: driver.offer_of(0), healthy: true });
    assert!(driver.entries.len() <= entries + 1, "at most the first report of health");
}

#[test]
fn offers_begin_with_one_and_double_in_each_round_that_goes_well() {
    let fleet = agents(20);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    let mut rounds = Vec::new();
    for _ in 0..4 {
        let offered = driver.in_state(MemberState::Offered);
        rounds.push(offered.len());
        offered.into_iter().for_each(|agent| driver.succeed(agent));
    }
    assert_eq!(rounds, [1, 2, 4, 8]);
}

#[test]
fn a_total_fault_touches_three_agents_of_a_fleet_of_any_size() {
    for count in [5, 40, 300] {
        let fleet = agents(count);
        let (new, all) = (config("new"), Selector::default());
        let request = PlanRequest {
            gates: gates::defaults(),
            settings: EngineSettings::default(),
            ..request(&new, &all, Strategy::Batches { size: 5 })
        };
        let mut driver = Driver::started(request, &fleet);
        for _ in 0..20 {
            let offered = driver.in_state(MemberState::Offered);
            offered.into_iter().for_each(|agent| driver.fail(agent));
            if driver.engine.state() != RolloutState::Running {
                break;
            }
            driver.wait(Duration::from_secs(1));
        }
        assert_eq!(driver.engine.touched().count(), 3, "{count} agents");
        assert_eq!(driver.engine.state(), RolloutState::RollingBack, "every canary failed");
    }
}

#[test]
fn every_offer_is_written_with_its_own_number_and_hinted_at() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    let desired: Vec<_> = driver
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Desire { key, config, rollback, .. } => Some((key.agent, key.offer, *config, *rollback)),
            _ => None,
        })
        .collect();
    let target = driver.plan.target;
    let expected: Vec<_> = driver.agents.iter().map(|agent| (*agent, 1, target, false)).collect();
    assert_eq!(desired, expected);
    let hinted = driver.acts.iter().filter(|act| matches!(act, Act::Hint { .. })).count();
    assert_eq!(hinted, 3);
}

#[test]
fn a_member_that_is_not_there_is_not_offered_anything() {
    for (offline, expected) in
        [(Offline::Defer, MemberState::Deferred), (Offline::Exclude, MemberState::Excluded)]
    {
        let fleet = agents(2);
        let (new, all) = (config("new"), Selector::default());
        let request = PlanRequest {
            order: by_number(&fleet),
            settings: EngineSettings { offline, bake: Duration::ZERO, ..EngineSettings::default() },
            ..request(&new, &all, Strategy::AllAtOnce)
        };
        let mut driver = Driver::new(request, &fleet);
        driver.fact(0, AgentFact::Disconnected { announced: false });
        driver.start();
        assert_eq!(driver.state_of(0), expected);
        assert_eq!(driver.state_of(1), MemberState::Offered, "the others go on");
        assert_eq!(driver.offer_of(0), 0);
    }
}

#[test]
fn a_wave_has_its_turn_when_the_one_before_has_passed() {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let request =
        PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::Batches { size: 2 }) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.succeed(1);
    assert_eq!(driver.state_of(2), MemberState::Queued, "the first wave soaks");
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.state_of(2), MemberState::Offered);
    let states: Vec<_> = driver
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Wave { wave, to, .. } if wave.0 == 0 => Some(*to),
            _ => None,
        })
        .collect();
    let expected = [
        WaveState::Dispatching,
        WaveState::Settling,
        WaveState::Soaking,
        WaveState::Evaluating,
        WaveState::Passed,
    ];
    assert_eq!(states, expected);
    assert!(driver.now > START);
    driver.command(Do::Abort).expect("it runs");
}

/// Another rollout holds the first of two agents when this one starts.
fn behind_another_rollout() -> (Driver, RolloutId) {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::new(request, &fleet);
    let other = RolloutId::from_bytes([9; 16]);
    let claim = Claim {
        rollout: other,
        agent: &driver.agents[0],
        slot: driver.plan.slot,
        group: None,
        zone: None,
        kind: ClaimKind::Offer,
        limits: &Limits::default(),
    };
    driver.shared.claim(&claim, fingerprint("other"), START).expect("nobody else has it");
    driver.start();
    let shown = driver.engine.member(&driver.agents[0]).map(|view| (view.shown, view.reason));
    assert_eq!(shown, Some((Shown::Blocked, Reason::Locked)));
    assert_eq!(driver.state_of(1), MemberState::Offered, "the others go on");
    driver.succeed(1);
    (driver, other)
}

#[test]
fn a_member_that_another_rollout_holds_is_offered_when_that_has_ended() {
    let (mut driver, other) = behind_another_rollout();
    driver.wait(Duration::from_secs(60));
    assert_eq!(driver.state_of(0), MemberState::Queued);
    driver.shared.finish(other);
    driver.wait(driver.shared.settings().lock_retry);
    assert_eq!(driver.state_of(0), MemberState::Offered);
}

#[test]
fn a_member_that_nobody_holds_any_more_waits_for_its_turn_while_nobody_may_be_offered_anything() {
    let (mut driver, other) = behind_another_rollout();
    driver.command(Do::Pause).expect("it runs");
    driver.shared.finish(other);
    driver.wait(EngineSettings::default().lock_wait);
    let shown =
        |driver: &Driver| driver.engine.member(&driver.agents[0]).map(|view| (view.shown, view.reason));
    assert_eq!(shown(&driver), Some((Shown::Queued, Reason::Nothing)));
    driver.command(Do::Resume(Resume::Plain)).expect("it is paused");
    assert_eq!(driver.state_of(0), MemberState::Offered, "it has waited for long enough");
}

#[test]
fn a_member_that_another_rollout_holds_for_too_long_does_not_hold_its_wave() {
    let (mut driver, _) = behind_another_rollout();
    driver.wait(EngineSettings::default().lock_wait);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn a_late_joiner_that_another_rollout_held_waits_while_a_wave_is_held() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Hold,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [any].into(),
        settings: EngineSettings {
            joiners: LateJoiners::Continuous,
            retries: Retries { failed: 0, ..Retries::default() },
            ..EngineSettings::default()
        },
        ..request(&new, &all, Strategy::Batches { size: 1 })
    };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    driver.wait(Strategy::DWELL);
    let (known, other) = (Known::new(9), RolloutId::from_bytes([9; 16]));
    let (agent, candidate, limits) = (known.id(), known.candidate(), Limits::default());
    let (slot, kind) = (driver.plan.slot, ClaimKind::Offer);
    let claim = Claim { rollout: other, agent: &agent, slot, group: None, zone: None, kind, limits: &limits };
    driver.shared.claim(&claim, fingerprint("other"), driver.now).expect("nobody else has it");
    driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) }).expect("a fact");
    driver.agents.push(agent);
    assert_eq!(driver.engine.member(&agent).map(|view| view.reason), Some(Reason::Locked));
    driver.fail(1);
    driver.shared.finish(other);
    driver.wait(driver.shared.settings().lock_retry * 2);
    assert_eq!(driver.state_of(3), MemberState::Queued, "the second wave is held");
    driver.command(Do::Resume(Resume::Waive { gate: GateIx(0) })).expect("a decision");
    driver.wait(driver.shared.settings().lock_retry);
    assert_eq!(driver.state_of(3), MemberState::Offered);
}

#[test]
fn a_quarantined_agent_is_left_out_and_a_recalled_configuration_ends_the_rollout() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::new(request, &fleet);
    let agent = driver.agents[0];
    let mut writes = Vec::new();
    driver.shared.quarantine(&agent, Reason::FailedTooOften, START, &mut writes);
    driver.start();
    let view = driver.engine.member(&agent).expect("a member");
    assert_eq!((view.state, view.reason), (MemberState::Excluded, Reason::Quarantined));
    assert_eq!(driver.state_of(1), MemberState::Offered);
    let target = driver.plan.target;
    driver.event(Event::Fleet(FleetFact::Recalled(target))).expect("a fact is not refused");
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    assert_eq!(driver.state_of(1), MemberState::RollbackOffered);
}

#[test]
fn an_offer_that_still_stands_is_taken_back_from_who_is_quarantined_before_its_next_try() {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.fail(0);
    assert_eq!(driver.state_of(0), MemberState::Backoff);
    let agent = driver.agents[0];
    driver.shared.quarantine(&agent, Reason::FailedTooOften, driver.now, &mut Vec::new());
    driver.succeed(1);
    driver.wait(EngineSettings::default().retries.first_after);
    let view = driver.engine.member(&agent).expect("a member");
    assert_eq!((view.state, view.reason), (MemberState::Excluded, Reason::Quarantined));
    let desired = driver.writes.iter().rev().find_map(|write| match write {
        Write::Desire { key, config, .. } if key.agent == agent => Some(*config),
        _ => None,
    });
    assert_eq!(desired, Some(fingerprint("old")), "it would apply it outside the rollout");
}
