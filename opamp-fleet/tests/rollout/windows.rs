//! Windows and freezes around a running rollout (R50, R51, R52).

use std::time::Duration;

use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::windows::{Calendar, Days, Freeze, Minute, Override, Window};
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, EngineSettings, MemberState, Resume, Retries, RolloutState, Time,
};
use opamp_fleet::{LabelScope, LabelValue, Selector};
use opamp_proto::Wall;

use crate::support::{Driver, START, agents, by_number, config, gate, request};

const MINUTE: Duration = Duration::from_secs(60);

/// [`START`] is a Tuesday, 22:13:20 in UTC.
fn window() -> Window {
    Window { zone: "UTC".into(), days: Days(1 << 1), from: Minute::at(22, 0), until: Minute::at(22, 26) }
}

fn freeze(from: Duration, until: Duration, people: Option<[&str; 2]>) -> Freeze {
    let override_ =
        people.map(|[by, second]| Override { reason: "outage".into(), by: by.into(), second: second.into() });
    Freeze { from: START + from, until: START + until, reason: "sale".into(), override_ }
}

/// A started rollout of batches of two over four agents.
fn started(calendar: Calendar) -> Driver {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(4));
    let settings = EngineSettings { in_flight_max: 2, bake: Duration::ZERO, ..EngineSettings::default() };
    let request = PlanRequest {
        calendar,
        settings,
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::Batches { size: 2 })
    };
    Driver::started(request, &fleet)
}

fn offered(driver: &Driver) -> Vec<usize> {
    (0..4).filter(|agent| driver.offer_of(*agent) > 0).collect()
}

#[test]
fn the_beginning_is_the_tuesday_that_is_said() {
    assert_eq!(Wall(START.0).to_string(), "2023-11-14T22:13:20.000Z");
}

#[test]
fn an_open_window_lets_a_rollout_begin() {
    let driver = started(Calendar { windows: [window()].into(), ..Calendar::default() });
    assert_eq!(offered(&driver), [0], "the first member of the first wave");
}

#[test]
fn in_flight_finishes_and_nothing_new_starts() {
    let mut driver = started(Calendar { windows: [window()].into(), ..Calendar::default() });
    driver.succeed(0);
    assert_eq!(offered(&driver), [0, 1]);
    driver.succeed(1);
    // The dwell ends within the window, and the second wave begins.
    driver.wait(10 * MINUTE);
    assert_eq!(offered(&driver), [0, 1, 2]);
    driver.deliver(2);
    // 22:26:20: the window is closed.
    driver.wait(3 * MINUTE);
    driver.succeed(2);
    assert_eq!(driver.state_of(2), MemberState::Verified, "in flight as the window closed, and done");
    assert_eq!(driver.state_of(3), MemberState::Queued);
    assert_eq!(offered(&driver), [0, 1, 2], "nobody new");
    assert_eq!(driver.engine.state(), RolloutState::Running);
    // A week later at 22:00.
    let open = "2023-11-21T22:00:00.000Z".parse::<Wall>().unwrap();
    driver.wait(Time::from(open).since(driver.now));
    assert_eq!(offered(&driver), [0, 1, 2, 3]);
}

#[test]
fn a_freeze_needs_two_names() {
    let calendar = |people| Calendar {
        freezes: [freeze(Duration::ZERO, 30 * MINUTE, people)].into(),
        ..Calendar::default()
    };
    let mut driver = started(calendar(None));
    assert!(offered(&driver).is_empty(), "frozen");
    driver.wait(29 * MINUTE);
    assert!(offered(&driver).is_empty());
    driver.wait(MINUTE);
    assert_eq!(offered(&driver), [0]);
    assert_eq!(offered(&started(calendar(Some(["ann", "bob"])))), [0], "overridden by two");
}

#[test]
fn a_freeze_in_the_middle_of_a_wave_starts_nothing_new() {
    let calendar = Calendar { freezes: [freeze(MINUTE, 30 * MINUTE, None)].into(), ..Calendar::default() };
    let mut driver = started(calendar);
    driver.deliver(0);
    driver.wait(MINUTE);
    driver.succeed(0);
    assert_eq!(offered(&driver), [0]);
    driver.wait(29 * MINUTE);
    assert_eq!(offered(&driver), [0, 1]);
}

#[test]
fn windows_of_some_failure_domains_leave_the_others_alone() {
    let (config, selector, mut fleet) = (config("new"), Selector::default(), agents(3));
    for (known, zone) in fleet.iter_mut().zip(["ap", "eu", "us"]) {
        let zone = LabelValue::Text(zone.to_owned());
        known.facts.labels.insert(LabelScope::Server, "zone".to_owned(), zone);
    }
    let calendar = Calendar {
        freezes: [freeze(Duration::ZERO, 60 * MINUTE, None)].into(),
        zones: [Box::<str>::from("eu")].into(),
        ..Calendar::default()
    };
    let request = PlanRequest {
        calendar,
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::ZoneByZone { key: "zone".into() })
    };
    let mut driver = Driver::started(request, &fleet);
    assert_eq!(driver.in_state(MemberState::Offered), [0], "it is not frozen there");
    driver.succeed(0);
    driver.wait(59 * MINUTE);
    assert!(driver.in_state(MemberState::Offered).is_empty());
    driver.wait(MINUTE);
    assert_eq!(driver.in_state(MemberState::Offered), [1]);
    driver.succeed(1);
    driver.wait(10 * MINUTE);
    assert_eq!(driver.in_state(MemberState::Offered), [2]);
}

#[test]
fn whoever_has_it_is_watched_while_the_rest_of_its_wave_waits_for_the_window() {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(12));
    let settings = EngineSettings { in_flight_max: 1, ..EngineSettings::default() };
    let gate = GateConfig { tests: [Test::Count { over: 2 }].into(), ..gate(GateKind::DisconnectRatio) };
    let request = PlanRequest {
        calendar: Calendar { windows: [window()].into(), ..Calendar::default() },
        order: by_number(&fleet),
        gates: [gate].into(),
        settings,
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    (0..3).for_each(|agent| driver.succeed(agent));
    // The others answer nothing, and are offered it one after the other until the window closes.
    driver.wait(40 * MINUTE);
    assert!(driver.in_state(MemberState::Queued).contains(&11), "the last of its members waits");
    assert_eq!(driver.in_state(MemberState::Verified), [0, 1, 2]);
    for agent in 0..3 {
        driver.fact(agent, AgentFact::Disconnected { announced: false });
    }
    driver.wait(10 * MINUTE);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
}

#[test]
fn failed_members_of_a_wave_that_waits_for_its_window_are_tried_again_once_it_is_open() {
    let (config, selector, fleet) = (config("new"), Selector::default(), agents(2));
    let any = GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        severity: Severity::Pause,
        all_failed: None,
        ..gate(GateKind::ApplyFailed)
    };
    let retries = Retries { failed: 0, ..Retries::default() };
    let mut settings =
        EngineSettings { in_flight_max: 1, retries, bake: Duration::ZERO, ..EngineSettings::default() };
    settings.deadlines.apply = 60 * MINUTE;
    let request = PlanRequest {
        calendar: Calendar { windows: [window()].into(), ..Calendar::default() },
        gates: [any].into(),
        settings,
        order: by_number(&fleet),
        ..request(&config, &selector, Strategy::AllAtOnce)
    };
    let mut driver = Driver::started(request, &fleet);
    driver.deliver(0);
    driver.report(0, ConfigStatus::Applying);
    // 22:27:20: the window is closed.
    driver.wait(14 * MINUTE);
    driver.report(0, ConfigStatus::Failed);
    assert_eq!(driver.engine.state(), RolloutState::Paused);
    driver.command(Do::Resume(Resume::Retry)).expect("it waits for nobody");
    assert_eq!((driver.engine.state(), driver.state_of(0)), (RolloutState::Running, MemberState::Queued));
    assert_eq!(driver.offer_of(0), 1, "the window is closed");
    let open = "2023-11-21T22:00:00.000Z".parse::<Wall>().unwrap();
    driver.wait(Time::from(open).since(driver.now));
    assert_eq!(driver.offer_of(0), 2);
}
