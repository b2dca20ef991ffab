//! What becomes an agent's last known good configuration, and what does not stay it (R31, R66).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::{
    ConfigStatus, Do, EngineSettings, Limits, MemberState, Retries, RolloutState, Scope, WaveIx, Write,
};

use crate::support::{Driver, START, agents, by_number, config, fingerprint, request};

const SECOND: Duration = Duration::from_secs(1);

fn started(size: u32) -> Driver {
    let fleet = agents(4);
    let (new, all) = (config("new"), Selector::default());
    let retries = Retries { failed: 0, ..Retries::default() };
    let settings = EngineSettings { retries, ..EngineSettings::default() };
    let strategy = Strategy::Batches { size };
    Driver::started(
        PlanRequest { order: by_number(&fleet), settings, ..request(&new, &all, strategy) },
        &fleet,
    )
}

/// Waves whose verified members run it well, in the order in which that was written; none stands for all of them.
fn good(driver: &Driver) -> Vec<Option<WaveIx>> {
    let target = driver.plan.target;
    let of = |write: &Write| match write {
        Write::KnownGood { rollout, config, wave, at, .. } => {
            assert_eq!((*rollout, *config), (driver.plan.id, target));
            assert!(START < *at && *at <= driver.now);
            Some(*wave)
        }
        _ => None,
    };
    driver.writes.iter().filter_map(of).collect()
}

/// What was written of a configuration that does not work on an agent: whether it is remembered.
fn bad(driver: &Driver, agent: usize) -> Vec<bool> {
    let of = |write: &Write| match write {
        Write::Failed { agent: of, config, previous, remembered, .. } if *of == driver.agents[agent] => {
            assert_eq!((*config, *previous), (driver.plan.target, Some(fingerprint("old"))));
            Some(*remembered)
        }
        _ => None,
    };
    driver.writes.iter().filter_map(of).collect()
}

#[test]
fn what_is_verified_is_known_good_once_its_wave_was_watched() {
    let mut driver = started(2);
    driver.succeed(0);
    driver.succeed(1);
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1]);
    driver.wait(Strategy::DWELL - SECOND);
    assert_eq!(good(&driver), [], "it is watched");
    driver.wait(SECOND);
    assert_eq!(good(&driver), [Some(WaveIx(0))]);
    driver.succeed(2);
    driver.succeed(3);
    driver.wait(Strategy::DWELL);
    assert_eq!(good(&driver), [Some(WaveIx(0)), Some(WaveIx(1))]);
    driver.wait(EngineSettings::default().bake);
    assert_eq!(driver.engine.state(), RolloutState::Succeeded);
    assert_eq!(good(&driver)[2..], [None], "whoever came late as well");
}

#[test]
fn what_was_verified_and_not_watched_to_the_end_is_not_known_good() {
    let mut driver = started(4);
    (0..4).for_each(|agent| driver.succeed(agent));
    driver.wait(Strategy::DWELL - SECOND);
    driver.command(Do::Abort).expect("it runs");
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    assert_eq!(good(&driver), []);
}

#[test]
fn who_goes_back_or_fails_remembers_it_and_who_is_not_heard_of_does_not() {
    let mut driver = started(4);
    driver.succeed(0);
    driver.report_of(0, driver.offer_of(0), fingerprint("old"), ConfigStatus::Applied);
    assert_eq!(driver.state_of(0), MemberState::SelfRolledBack);
    assert_eq!(bad(&driver, 0), [true]);
    driver.fail(1);
    assert_eq!(driver.state_of(1), MemberState::Failed);
    assert_eq!(bad(&driver, 1), [true]);
    driver.wait(24 * 3_600 * SECOND);
    assert_eq!(driver.state_of(2), MemberState::TimedOut);
    assert_eq!(bad(&driver, 2), [false]);
}

#[test]
fn whom_an_abort_leaves_as_it_is_has_not_failed() {
    let mut driver = started(4);
    (0..4).for_each(|agent| driver.succeed(agent));
    driver.command(Do::SetLimits(Limits { in_flight_max: 1, ..Limits::default() })).expect("it runs");
    driver.command(Do::RollBack(Scope::All)).expect("it runs");
    driver.command(Do::Abort).expect("it rolls back");
    assert!(driver.in_state(MemberState::RollbackQueued).is_empty());
    assert!((0..4).all(|agent| bad(&driver, agent).is_empty()));
}
