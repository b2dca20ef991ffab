//! What is asked of the first wave is asked of the first one that anything is known of (R29).

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Test, defaults};
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    AgentFact, Do, Engine, EngineSettings, Event, MemberState, PauseReason, Reason, RolloutState,
    UnverifiedPolicy, WaveIx, WaveState,
};
use opamp_fleet::{Liveness, Selector};

use crate::support::{Driver, Known, agents, by_number, config, request};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A running rollout with the default gates, of which these many first agents are not connected.
pub(crate) fn started(
    mut fleet: Vec<Known>,
    away: usize,
    strategy: Strategy,
    unverified: UnverifiedPolicy,
) -> Driver {
    for known in &mut fleet[..away] {
        known.facts.liveness = Liveness::Disconnected;
    }
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        gates: defaults(),
        order: by_number(&fleet),
        settings: EngineSettings { unverified, ..EngineSettings::default() },
        ..request(&config, &selector, strategy)
    };
    Driver::started(request, &fleet)
}

fn mute(count: u32) -> Vec<Known> {
    (0..count).map(Known::mute).collect()
}

/// The last state of a wave, and why.
pub(crate) fn wave(driver: &Driver, number: u16) -> (WaveState, Reason) {
    let last = driver.entries.iter().rev().find_map(|entry| match entry {
        Entry::Wave { wave: WaveIx(wave), to, reason, .. } if *wave == number => Some((*to, *reason)),
        _ => None,
    });
    last.unwrap_or((WaveState::Pending, Reason::Nothing))
}

/// The offer arrives, and nothing more is heard.
fn says_nothing(driver: &mut Driver, agent: usize) {
    driver.deliver(agent);
    driver.wait(121 * SECOND);
    assert_eq!(driver.state_of(agent), MemberState::Unverified);
}

#[test]
fn a_rollout_to_one_or_two_agents_that_fail_is_rolled_back_and_has_not_succeeded() {
    for count in [1, 2] {
        let mut driver = started(agents(count), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
        for agent in (0..count as usize).chain(0..count as usize) {
            driver.fail(agent);
            driver.wait(MINUTE);
        }
        assert_eq!(
            driver.in_state(MemberState::Failed).len(),
            count as usize,
            "their tries have failed as well"
        );
        driver.wait(Strategy::DWELL);
        let line = driver.entries.iter().find_map(|entry| match entry {
            Entry::Gate(evidence) => Some(evidence.to_string()),
            _ => None,
        });
        assert_eq!(line, Some(format!("apply-failed: {count} of {count} failed")));
        assert_eq!(driver.engine.state(), RolloutState::RollingBack);
    }
}

#[test]
fn who_fails_while_the_other_canary_is_on_its_way_waits_for_that() {
    let mut driver = started(agents(2), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(95 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    driver.fail(1);
    driver.wait(MINUTE);
    driver.fail(1);
    assert_eq!(wave(&driver, 0), (WaveState::Soaking, Reason::AllSettled));
    driver.wait(Strategy::DWELL - SECOND);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Delivered);
    driver.wait(2 * SECOND);
    assert_eq!(wave(&driver, 0), (WaveState::Evaluating, Reason::DwellOver));
    let why = driver.engine.why_not_moving(driver.now, &driver.shared).reason;
    assert!(why.contains("1 members who may show that it works"), "{why}");
    driver.fail(0);
    driver.wait(30 * MINUTE);
    assert_eq!(
        driver.engine.state(),
        RolloutState::RollbackFailed,
        "nobody has shown it, nor says that it is back"
    );
}

#[test]
fn two_that_fall_ill_after_they_have_settled_are_no_reason_to_ask_more_members() {
    let mut driver = started(agents(9), 0, Strategy::Batches { size: 3 }, UnverifiedPolicy::Neutral);
    for _ in 0..3 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
    }
    for agent in [0, 1] {
        let offer = driver.offer_of(agent);
        driver.fact(agent, AgentFact::Health { offer, healthy: false });
    }
    driver.wait(Strategy::DWELL);
    assert_eq!(wave(&driver, 0), (WaveState::Held, Reason::Inconclusive));
    assert!(!driver.entries.iter().any(|entry| matches!(entry, Entry::Stretched { .. })));
}

#[test]
fn most_of_a_wave_that_nobody_can_lend_to_are_no_success_and_half_of_it_is_told() {
    for (count, ends) in
        [(3, (WaveState::Held, Reason::Inconclusive)), (4, (WaveState::Passed, Reason::Inconclusive))]
    {
        let mut driver = started(agents(count), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
        let last = count as usize - 2;
        (0..last).for_each(|agent| driver.succeed(agent));
        for agent in [last, last + 1, last, last + 1] {
            driver.fail(agent);
            driver.wait(MINUTE);
        }
        driver.wait(Strategy::DWELL);
        assert_eq!(wave(&driver, 0), ends, "2 of {count}");
    }
}

#[test]
fn two_of_three_that_say_nothing_are_no_success_though_a_ratio_of_three_is_not_reached() {
    for (silent, ends) in [(2, RolloutState::Paused), (1, RolloutState::Succeeded)] {
        let mut driver = started(agents(3), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
        (silent..3).for_each(|agent| driver.succeed(agent));
        driver.wait(24 * 60 * MINUTE);
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
        assert_eq!(driver.in_state(MemberState::TimedOut).len(), silent);
        driver.wait(24 * 60 * MINUTE);
        assert_eq!(driver.engine.state(), ends, "{silent} of 3");
    }
}

#[test]
fn two_of_three_that_go_away_or_fall_ill_in_the_bake_are_no_success() {
    let baking = || {
        let mut driver = started(agents(3), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
        for agent in 0..3 {
            driver.succeed(agent);
        }
        driver.wait(Strategy::DWELL);
        assert_eq!(driver.engine.state(), RolloutState::Baking);
        driver.wait(29 * MINUTE);
        driver
    };
    for bad in [1, 2] {
        let ends = if bad == 2 { RolloutState::Paused } else { RolloutState::Succeeded };
        let mut driver = baking();
        for agent in 0..bad {
            driver.fact(agent, AgentFact::Disconnected { announced: false });
        }
        driver.wait(10 * MINUTE);
        assert_eq!(driver.engine.state(), ends, "{bad} of 3 went away shortly before the end");

        let mut driver = baking();
        for agent in 0..bad {
            let offer = driver.offer_of(agent);
            driver.fact(agent, AgentFact::Health { offer, healthy: false });
        }
        driver.wait(10 * MINUTE);
        assert_eq!(driver.engine.state(), ends, "{bad} of 3 are ill");
    }
}

#[test]
fn a_ratio_that_allows_more_than_half_is_not_overruled() {
    let (config, selector) = (config("new"), Selector::default());
    let fleet = agents(3);
    for (over, ends) in [(50, RolloutState::Paused), (70, RolloutState::Succeeded)] {
        let tests = [Test::Percent { over: Ppm::percent(over), at_least: 3 }];
        let gates = [GateConfig { tests: tests.into(), ..GateConfig::of(GateKind::TimedOut) }];
        let request = PlanRequest {
            gates: gates.into(),
            order: by_number(&fleet),
            ..request(&config, &selector, Strategy::AllAtOnce)
        };
        let mut driver = Driver::started(request, &fleet);
        driver.succeed(0);
        driver.wait(24 * 60 * MINUTE);
        assert_eq!(driver.in_state(MemberState::TimedOut), [1, 2]);
        assert_eq!(driver.engine.state(), ends, "two of three, more than {over} % are too many");
    }
}

#[test]
fn a_rollout_of_which_all_waves_are_left_out_has_failed() {
    let mut driver = started(agents(4), 0, Strategy::Manual { size: 2 }, UnverifiedPolicy::Neutral);
    for _ in 0..2 {
        driver.command(Do::SkipWave).expect("a wave waits");
    }
    assert_eq!(driver.engine.state(), RolloutState::Failed, "nobody has it");
}

/// Two are offered it. One of them goes away with it and is back right before the dwell is over.
fn with_one_on_its_way() -> Driver {
    let mut driver = started(agents(3), 0, Strategy::Batches { size: 2 }, UnverifiedPolicy::Neutral);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(95 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    driver
}

#[test]
fn who_is_waited_for_and_shows_that_it_works_is_watched_before_the_next_wave_begins() {
    let mut driver = started(agents(3), 0, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(95 * SECOND);
    driver.wait(Strategy::DWELL - 10 * SECOND);
    driver.fact(0, AgentFact::Connected);
    driver.wait(20 * SECOND);
    assert_eq!(wave(&driver, 0), (WaveState::Evaluating, Reason::DwellOver));
    driver.succeed(0);
    assert_eq!(wave(&driver, 0), (WaveState::Soaking, Reason::GatesPass), "nobody has watched it yet");
    let known = |driver: &Driver| {
        driver.writes.iter().any(|write| matches!(write, opamp_fleet::rollout::Write::KnownGood { .. }))
    };
    assert!(!known(&driver));
    driver.wait(9 * MINUTE);
    assert_eq!(driver.state_of(1), MemberState::Queued);
    driver.wait(2 * MINUTE);
    assert_eq!(wave(&driver, 0), (WaveState::Passed, Reason::GatesPass));
    assert!(known(&driver) && driver.offer_of(1) > 0);
}

#[test]
fn nobody_passes_by_hand_what_nobody_has_answered_to() {
    let mut driver = started(agents(3), 0, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(95 * SECOND);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Delivered);
    driver.command(Do::Advance).expect("it soaks");
    assert_eq!(wave(&driver, 0), (WaveState::Evaluating, Reason::Operator));
    assert_eq!(driver.state_of(1), MemberState::Queued, "nothing is known");
    driver.succeed(0);
    assert_eq!(wave(&driver, 0).0, WaveState::Passed);
}

#[test]
fn an_operator_need_not_wait_for_who_is_on_its_way_once_somebody_has_answered() {
    let mut driver = with_one_on_its_way();
    // The other one fails twice.
    for _ in 0..2 {
        driver.fail(1);
        driver.wait(MINUTE);
    }
    driver.wait(Strategy::DWELL - 2 * SECOND - MINUTE);
    driver.fact(0, AgentFact::Connected);
    driver.wait(61 * SECOND);
    assert_eq!(wave(&driver, 0), (WaveState::Evaluating, Reason::DwellOver));
    driver.command(Do::Advance).expect("the wave waits");
    let line = driver.entries.iter().find_map(|entry| match entry {
        Entry::Gate(evidence) => Some(evidence.to_string()),
        _ => None,
    });
    assert_eq!(line.as_deref(), Some("apply-failed: 1 of 1 failed"));
}

#[test]
fn a_verdict_that_only_stands_because_others_are_on_their_way_waits_for_them_though_somebody_is_well() {
    let mut driver = started(agents(4), 0, Strategy::Batches { size: 3 }, UnverifiedPolicy::Neutral);
    driver.succeed(1);
    driver.deliver(0);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(95 * SECOND);
    assert_eq!(driver.state_of(0), MemberState::Deferred);
    // Who is well reports no health from now on: it takes no part in `unhealthy`, and the other one is all of it.
    driver.succeed(2);
    let offer = driver.offer_of(2);
    driver.fact(2, AgentFact::Health { offer, healthy: false });
    driver.fact(1, AgentFact::Removed);
    driver.wait(Strategy::DWELL - 10 * SECOND);
    driver.fact(0, AgentFact::Connected);
    driver.wait(20 * SECOND);
    assert_eq!(wave(&driver, 0), (WaveState::Evaluating, Reason::DwellOver));
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.succeed(0);
    assert_eq!(driver.engine.state(), RolloutState::Running, "one of two is not all of them");
}

#[test]
fn without_a_bake_a_rollout_needs_evidence_at_its_end_as_well() {
    let mut fleet = mute(2);
    for known in &mut fleet {
        known.facts.liveness = Liveness::Disconnected;
    }
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        gates: defaults(),
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::canary())
    };
    let request = PlanRequest {
        settings: EngineSettings { fit: opamp_fleet::rollout::Fit::Stretch, ..request.settings },
        ..request
    };
    assert_eq!(request.settings.bake, Duration::ZERO);
    let mut driver = Driver::started(request, &fleet);
    for agent in 0..2 {
        driver.fact(agent, AgentFact::Connected);
    }
    for _ in 0..2 {
        driver.in_state(MemberState::Offered).into_iter().for_each(|agent| says_nothing(&mut driver, agent));
    }
    driver.wait(60 * MINUTE);
    assert_eq!(driver.in_state(MemberState::Unverified), [0, 1]);
    assert_eq!(driver.engine.state(), RolloutState::Paused, "nobody has said that it works");
}

#[test]
fn a_first_wave_that_falls_long_after_it_has_passed_is_not_everybody() {
    let mut driver = started(agents(40), 0, Strategy::Batches { size: 4 }, UnverifiedPolicy::Neutral);
    for _ in 0..10 {
        for _ in 0..3 {
            driver.in_state(MemberState::Offered).into_iter().for_each(|agent| driver.succeed(agent));
        }
        driver.wait(Strategy::DWELL);
    }
    assert_eq!(driver.in_state(MemberState::Verified).len(), 40);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    for _ in 0..3 {
        for agent in 0..4 {
            driver.fact(agent, AgentFact::Disconnected { announced: false });
            driver.fact(agent, AgentFact::Connected);
        }
    }
    assert_eq!(driver.engine.state(), RolloutState::Paused, "4 of 40");
}

#[test]
fn a_rollout_that_nobody_has_in_the_end_has_failed() {
    let mut driver = started(agents(2), 0, Strategy::AllAtOnce, UnverifiedPolicy::Neutral);
    for agent in 0..2 {
        driver.fact(agent, AgentFact::Capabilities(opamp_proto::AgentCapabilities::NONE));
    }
    driver.wait(Strategy::DWELL);
    assert_eq!(driver.in_state(MemberState::NotApplicable), [0, 1]);
    assert_eq!(driver.engine.state(), RolloutState::Failed);
}

#[test]
fn without_its_canary_a_rollout_asks_the_next_wave_for_evidence() {
    for policy in [UnverifiedPolicy::Neutral, UnverifiedPolicy::Success] {
        let mut driver = started(mute(3), 1, Strategy::Batches { size: 1 }, policy);
        assert_eq!(wave(&driver, 0), (WaveState::Passed, Reason::EmptyWave));
        says_nothing(&mut driver, 1);
        assert_eq!(driver.engine.summary(driver.now).applied, 0, "nobody of it has succeeded");
        driver.wait(10 * MINUTE);
        assert_eq!(wave(&driver, 1), (WaveState::Held, Reason::NoData));
        assert_eq!(driver.state_of(2), MemberState::Queued);
    }
}

#[test]
fn a_total_fault_without_a_canary_rolls_back_as_one_of_the_canary_does() {
    let mut driver = started(agents(12), 4, Strategy::Batches { size: 4 }, UnverifiedPolicy::Neutral);
    (4..7).for_each(|agent| driver.fail(agent));
    assert_eq!(driver.engine.state(), RolloutState::RollingBack);
}

#[test]
fn who_comes_late_waits_for_the_first_wave_that_anything_is_known_of() {
    let mut driver = started(agents(3), 1, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(1), MemberState::Offered);
    assert_eq!(driver.state_of(0), MemberState::Queued, "its canary has shown nothing");
    driver.succeed(1);
    assert_eq!(driver.state_of(0), MemberState::Queued);
    driver.wait(10 * MINUTE);
    assert_eq!(wave(&driver, 1).0, WaveState::Passed);
    assert_eq!(driver.state_of(0), MemberState::Offered);
}

#[test]
fn a_rollout_whose_members_all_come_late_needs_evidence_at_its_end() {
    let mut driver = started(mute(2), 2, Strategy::Manual { size: 1 }, UnverifiedPolicy::Neutral);
    driver.command(Do::Advance).unwrap();
    assert_eq!(wave(&driver, 0), (WaveState::Passed, Reason::EmptyWave));
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Queued, "the second wave has not had its turn");
    driver.command(Do::Advance).unwrap();
    assert_eq!(wave(&driver, 1), (WaveState::Passed, Reason::EmptyWave));
    assert_eq!(driver.state_of(0), MemberState::Offered);
    says_nothing(&mut driver, 0);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(30 * MINUTE);
    let paused = driver.entries.iter().rev().find_map(|entry| match entry {
        Entry::Rollout(entry) => entry.pause,
        _ => None,
    });
    assert_eq!((driver.engine.state(), paused), (RolloutState::Paused, Some(PauseReason::Inconclusive)));
}

#[test]
fn a_rollout_whose_members_are_all_away_waits_for_them_and_is_no_success_before() {
    let mut driver = started(agents(3), 3, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.wait(60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    let why = driver.engine.why_not_moving(driver.now, &driver.shared);
    assert_eq!(why.reason, "its members are away: 3 are waited for");
    driver.fact(2, AgentFact::Connected);
    assert_eq!(driver.state_of(2), MemberState::Offered, "after the tail would have been closed");
    driver.deliver(2);
    driver.fact(1, AgentFact::Connected);
    driver.succeed(2);
    driver.succeed(1);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(30 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn a_rollout_nobody_came_for_expires() {
    let mut driver = started(agents(3), 3, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.wait(8 * 24 * 60 * MINUTE);
    assert_eq!(driver.in_state(MemberState::Expired), [0, 1, 2]);
    assert_eq!(driver.engine.state(), RolloutState::Expired);
}

#[test]
fn who_is_away_does_not_hold_up_a_rollout_that_everybody_else_has_already() {
    let mut fleet = agents(3);
    for known in &mut fleet[..2] {
        known.current = Some(config("new").hash().fingerprint());
    }
    fleet[2].facts.liveness = Liveness::Disconnected;
    let driver = started(fleet, 0, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    assert_eq!(driver.in_state(MemberState::AlreadyCurrent), [0, 1]);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn an_offer_that_reached_nobody_has_shown_nothing() {
    let mut driver = started(agents(2), 2, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.fact(0, AgentFact::Connected);
    assert_eq!(driver.state_of(0), MemberState::Offered);
    driver.fact(0, AgentFact::Disconnected { announced: false });
    driver.wait(2 * 60 * MINUTE);
    assert_eq!(driver.in_state(MemberState::Deferred), [0, 1]);
    assert_eq!(driver.engine.state(), RolloutState::Running);
    driver.wait(8 * 24 * 60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Expired);
}

/// An agent comes late.
fn joins(driver: &mut Driver, number: u32) -> usize {
    let known = Known::new(number);
    let (agent, candidate) = (known.id(), known.candidate());
    driver.event(Event::Agent { agent: &agent, fact: AgentFact::Joined(&candidate) }).expect("a fact");
    driver.agents.push(agent);
    driver.agents.len() - 1
}

#[test]
fn while_nothing_is_known_of_it_whoever_comes_is_offered_it() {
    let mut driver = started(agents(3), 3, Strategy::Batches { size: 1 }, UnverifiedPolicy::Neutral);
    driver.wait(60 * MINUTE);
    let first = joins(&mut driver, 8);
    assert_eq!(driver.state_of(first), MemberState::Offered);
    driver.deliver(first);
    let second = joins(&mut driver, 9);
    assert_eq!(driver.state_of(second), MemberState::Queued, "it would be without an end");
    let mut gone = driver.clone();
    gone.fact(first, AgentFact::Removed);
    assert_eq!(gone.state_of(second), MemberState::Offered, "nothing is known again");
    driver.succeed(first);
    assert_eq!(driver.state_of(second), MemberState::Queued);
    assert_eq!(driver.engine.state(), RolloutState::Baking);
    driver.wait(30 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}

#[test]
fn what_those_have_shown_that_are_gone_stays_known() {
    let mut driver = started(agents(4), 1, Strategy::Batches { size: 4 }, UnverifiedPolicy::Neutral);
    (1..4).for_each(|agent| driver.succeed(agent));
    (1..4).for_each(|agent| driver.fact(agent, AgentFact::Removed));
    let (plan, members) = (Arc::clone(&driver.plan), driver.members.clone());
    let snapshot = driver.engine.snapshot();
    driver.engine = Engine::restore(plan, members, Some(&snapshot), [], Faults::default()).expect("its own");
    driver.wait(24 * 60 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
}
