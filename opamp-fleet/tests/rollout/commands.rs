//! Commands: what each does in each state (R20), once under its key (R2), and what abort means (R70).

mod waves;

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::GateKind;
use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    Command, CommandKey, CommandOutcome, Do, EngineSettings, Event, First, GateIx, Limits, MemberState,
    Refused, Resume, RolloutId, RolloutState, Scope, Serial, Shown, Write,
};

use crate::support::{Driver, START, agents, by_number, config, gate, request};

const HOUR: Duration = Duration::from_secs(3_600);

/// The states in which commands do something, in the order of the table's columns.
const LIVE: [RolloutState; 10] = [
    RolloutState::Draft,
    RolloutState::PendingApproval,
    RolloutState::Scheduled,
    RolloutState::Preflight,
    RolloutState::Ready,
    RolloutState::Running,
    RolloutState::Paused,
    RolloutState::Baking,
    RolloutState::Aborting,
    RolloutState::RollingBack,
];

/// What each command does in each of [`LIVE`]: `=` nothing to do, `ok` done without another state, `R:…` refused, otherwise
/// the state it leads to. Two agents in one wave: in `running` the first one is in flight, in `baking` both are well.
const TABLE: &[(&str, [&str; 10])] = &[
    ("submit", ["pending-approval", "=", "=", "=", "=", "R", "R", "R", "R", "R"]),
    ("approve", ["R", "preflight", "=", "=", "=", "=", "=", "=", "R", "R"]),
    ("reject", ["R", "rejected", "rejected", "rejected", "rejected", "R", "R", "R", "R", "R"]),
    ("preflighted", ["=", "=", "=", "ready", "=", "=", "=", "=", "=", "="]),
    ("unusable", ["=", "=", "=", "rejected", "=", "=", "=", "=", "=", "="]),
    ("start", ["R:approved", "R:approved", "preflight", "ok", "running", "=", "=", "=", "R", "R"]),
    ("cancel", ["cancelled", "cancelled", "cancelled", "cancelled", "cancelled", "R", "R", "R", "R", "R"]),
    ("pause", ["R", "R", "R", "R", "R", "paused", "=", "paused", "R", "R"]),
    ("resume", ["R", "R", "R", "R", "R", "=", "running", "=", "R", "R"]),
    ("retry", ["R", "R", "R", "R", "R", "=", "R", "=", "R", "R"]),
    ("advance", ["R", "R", "R", "R", "R", "R", "R", "succeeded", "R", "R"]),
    ("extend", ["R", "R", "R", "R", "R", "ok", "ok", "ok", "R", "R"]),
    ("skip-wave", ["R", "R", "R", "R", "R", "ok", "R", "R", "R", "R"]),
    ("skip-gate", ["ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "R", "R"]),
    ("set-limits", ["ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok"]),
    ("too-much", ["R:limit"; 10]),
    ("exclude", ["R", "R", "R", "R", "R", "ok", "ok", "=", "ok", "ok"]),
    ("allow-hash", ["R:agent", "R", "R", "R", "R", "=", "=", "=", "R", "R"]),
    ("release", ["R", "R", "R", "R", "R", "=", "R", "=", "R", "R"]),
    ("abort", ["R", "R", "R", "R", "R", "aborting", "aborting", "aborted", "=", "aborting"]),
    (
        "roll-back",
        ["R", "R", "R", "R", "R", "rolling-back", "rolling-back", "rolling-back", "rolling-back", "="],
    ),
    (
        "supersede",
        [
            "superseded",
            "superseded",
            "superseded",
            "superseded",
            "superseded",
            "aborting",
            "aborting",
            "superseded",
            "ok",
            "R",
        ],
    ),
];

fn command(name: &str, driver: &Driver) -> Do {
    let plan = driver.plan.hash;
    let agent = driver.agents[1];
    match name {
        "submit" => Do::Submit,
        "approve" => Do::Approve { plan, wave: None },
        "reject" => Do::Reject,
        "preflighted" => Do::Preflighted { plan, usable: true },
        "unusable" => Do::Preflighted { plan, usable: false },
        "start" => Do::Start { plan },
        "cancel" => Do::Cancel,
        "pause" => Do::Pause,
        "resume" => Do::Resume(Resume::Plain),
        "retry" => Do::Resume(Resume::Retry),
        "advance" => Do::Advance,
        "extend" => Do::Extend { by: HOUR },
        "skip-wave" => Do::SkipWave,
        "skip-gate" => Do::SkipGate { gate: GateIx(0), wave: None },
        "set-limits" => Do::SetLimits(Limits { per_minute: 700, ..Limits::default() }),
        "too-much" => Do::SetLimits(Limits { in_flight_max: 1_001, ..Limits::default() }),
        "exclude" => Do::Exclude { agent },
        "allow-hash" => Do::AllowHash { agent },
        "release" => Do::ReleaseControlGroup,
        "abort" => Do::Abort,
        "roll-back" => Do::RollBack(Scope::All),
        "supersede" => Do::Supersede { by: RolloutId::from_bytes([9; 16]) },
        other => panic!("no command {other}"),
    }
}

/// How a command ended, in the words of the table.
fn word(before: RolloutState, result: &Result<CommandOutcome, Refused>, after: RolloutState) -> String {
    match result {
        Ok(CommandOutcome::NothingToDo) => "=".to_owned(),
        Ok(CommandOutcome::Done) if before == after => "ok".to_owned(),
        Ok(CommandOutcome::Done) => after.as_str().to_owned(),
        Ok(CommandOutcome::Repeated(_)) => "repeated".to_owned(),
        Err(Refused::WrongState { .. }) => "R".to_owned(),
        Err(Refused::NotApproved) => "R:approved".to_owned(),
        Err(Refused::BeyondHardLimit { .. }) => "R:limit".to_owned(),
        Err(Refused::UnknownAgent) => "R:agent".to_owned(),
        Err(Refused::Terminal(_)) => "R:terminal".to_owned(),
        Err(Refused::PlanChanged) => "R:plan".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

/// A rollout of two agents in this state.
fn in_state(state: RolloutState) -> Driver {
    let fleet = agents(2);
    let (new, all) = (config("new"), Selector::default());
    let scheduled = state == RolloutState::Scheduled;
    let request = PlanRequest {
        order: by_number(&fleet),
        gates: [gate(GateKind::ApplyFailed)].into(),
        settings: EngineSettings { approval: true, ..EngineSettings::default() },
        start_at: scheduled.then_some(START + HOUR),
        ..request(&new, &all, Strategy::AllAtOnce)
    };
    let mut driver = Driver::new(request, &fleet);
    let plan = driver.plan.hash;
    let path: &[Do] = &[
        Do::Submit,
        Do::Approve { plan, wave: None },
        Do::Preflighted { plan, usable: true },
        Do::Start { plan },
    ];
    for step in path {
        if driver.engine.state() == state {
            return driver;
        }
        driver.command(step.clone()).expect("a step towards running");
    }
    match state {
        RolloutState::Running => {}
        RolloutState::Paused => drive(&mut driver, Do::Pause),
        RolloutState::Baking => bake(&mut driver),
        RolloutState::Aborting => drive(&mut driver, Do::Abort),
        RolloutState::RollingBack => drive(&mut driver, Do::RollBack(Scope::All)),
        other => panic!("no way to {other}"),
    }
    assert_eq!(driver.engine.state(), state);
    driver
}

fn drive(driver: &mut Driver, do_: Do) {
    assert_eq!(driver.command(do_), Ok(CommandOutcome::Done));
}

fn bake(driver: &mut Driver) {
    for agent in 0..driver.agents.len() {
        driver.succeed(agent);
    }
    for _ in 0..8 {
        if driver.engine.state() == RolloutState::Baking {
            return;
        }
        driver.now = driver.engine.next_deadline().expect("a dwell").max(driver.now);
        driver.tick();
    }
}

#[test]
fn matrix() {
    for (name, cells) in TABLE {
        for (state, expected) in LIVE.into_iter().zip(cells) {
            let mut driver = in_state(state);
            let do_ = command(name, &driver);
            let result = driver.command(do_);
            let found = word(state, &result, driver.engine.state());
            assert_eq!(found, *expected, "{name} in {state}: {result:?}");
        }
    }
}

#[test]
fn in_a_final_state_nothing_is_done_any_more() {
    let ends = [
        (RolloutState::Draft, Do::Cancel, RolloutState::Cancelled, "cancel"),
        (RolloutState::Ready, Do::Reject, RolloutState::Rejected, ""),
        (RolloutState::Baking, Do::Abort, RolloutState::Aborted, "abort"),
        (RolloutState::Baking, Do::Advance, RolloutState::Succeeded, ""),
        (
            RolloutState::Ready,
            Do::Supersede { by: RolloutId::from_bytes([9; 16]) },
            RolloutState::Superseded,
            "",
        ),
    ];
    for (state, do_, end, repeated) in ends {
        for (name, _) in TABLE {
            let mut driver = in_state(state);
            driver.command(do_.clone()).expect("it ends");
            assert_eq!(driver.engine.state(), end);
            let wish = command(name, &driver);
            let result = driver.command(wish);
            let is_so = *name == repeated || matches!(*name, "preflighted" | "unusable" | "supersede");
            let expected = if is_so { "=" } else { "R:terminal" };
            assert_eq!(word(end, &result, driver.engine.state()), expected, "{name} in {end}");
            assert_eq!(driver.engine.state(), end);
            assert_eq!(driver.engine.next_deadline(), None);
        }
    }
}

#[test]
fn every_command_twice_is_one() {
    for (name, _) in TABLE {
        for state in LIVE {
            let mut driver = in_state(state);
            let do_ = command(name, &driver);
            let key = CommandKey::new("twice").expect("a short key");
            let first = driver.command_as(key.clone(), do_.clone());
            let (entries, writes) = (driver.entries.len(), driver.writes.len());
            let after = driver.engine.state();
            let expected = match first {
                Ok(CommandOutcome::Done) => Ok(CommandOutcome::Repeated(First::Done)),
                Ok(CommandOutcome::NothingToDo) => Ok(CommandOutcome::Repeated(First::NothingToDo)),
                other => other,
            };
            let second = driver.command_as(key.clone(), do_);
            assert_eq!(second, expected, "{name} in {state}");
            assert_eq!((driver.entries.len(), driver.writes.len()), (entries, writes), "{name} in {state}");
            assert_eq!(driver.engine.state(), after);
            let other = driver.command_as(key, Do::Extend { by: HOUR * 2 });
            assert_eq!(other, Err(Refused::KeyReused), "{name} in {state}");
        }
    }
}

#[test]
fn the_memory_of_keys_survives_a_rebuild() {
    let mut driver = in_state(RolloutState::Running);
    let key = CommandKey::new("once").expect("a short key");
    driver.command_as(key.clone(), Do::Pause).expect("it runs");
    driver.engine = driver.rebuilt();
    assert_eq!(driver.command_as(key, Do::Pause), Ok(CommandOutcome::Repeated(First::Done)));
}

#[test]
fn another_plan_than_was_looked_at_is_neither_approved_nor_started() {
    let other = config("other").hash().fingerprint();
    let mut driver = in_state(RolloutState::PendingApproval);
    assert_eq!(driver.command(Do::Approve { plan: other, wave: None }), Err(Refused::PlanChanged));
    let mut driver = in_state(RolloutState::Ready);
    assert_eq!(driver.command(Do::Start { plan: other }), Err(Refused::PlanChanged));
    assert_eq!(driver.engine.state(), RolloutState::Ready);
    let mut driver = in_state(RolloutState::Preflight);
    let plan = driver.plan.hash;
    drive(&mut driver, Do::Preflighted { plan: other, usable: true });
    assert_eq!(driver.engine.state(), RolloutState::PendingApproval, "the fleet has changed");
    assert_eq!(driver.command(Do::Approve { plan, wave: None }), Err(Refused::PlanChanged));
}

#[test]
fn what_was_decided_without_the_latest_batch_is_decided_again() {
    let mut driver = in_state(RolloutState::Running);
    driver.engine.committed(Serial(3));
    let key = CommandKey::new("late").expect("a short key");
    let at = |serial| Command {
        key: key.clone(),
        actor: "operator".into(),
        reason: "".into(),
        expected: Some(Serial(serial)),
        do_: Do::Pause,
    };
    let behind = driver.event(Event::Command(&at(2)));
    assert!(matches!(behind, Err(Refused::SerialBehind { .. })), "{behind:?}");
    assert_eq!(driver.engine.state(), RolloutState::Running);
    let answer = driver.event(Event::Command(&at(3)));
    assert_eq!(answer, Ok(Some(CommandOutcome::Done)), "the same key, after another look");
}

#[test]
fn abort_contract() {
    let fleet = agents(3);
    let (new, all) = (config("new"), Selector::default());
    let request = PlanRequest { order: by_number(&fleet), ..request(&new, &all, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.command(Do::SetLimits(Limits { in_flight_max: 1, ..Limits::default() })).expect("it runs");
    driver.succeed(0);
    assert_eq!(driver.state_of(1), MemberState::Offered);
    let desired = driver.writes.len();
    drive(&mut driver, Do::Abort);
    assert_eq!(driver.engine.state(), RolloutState::Aborting, "somebody is in flight");
    driver.succeed(1);
    assert_eq!(driver.engine.state(), RolloutState::Aborted);
    let states = [0, 1, 2].map(|agent| driver.state_of(agent));
    assert_eq!(states, [MemberState::Verified, MemberState::Verified, MemberState::Queued]);
    assert_eq!(driver.engine.member(&driver.agents[2]).map(|view| view.shown), Some(Shown::Dropped));
    let offers = |write: &Write| matches!(write, Write::Desire { .. });
    assert!(!driver.writes[desired..].iter().any(offers), "everybody keeps what they have");
}

#[test]
fn limits_of_0_and_spans_beyond_a_year_are_refused() {
    let mut driver = in_state(RolloutState::Running);
    let nobody = [
        Limits { touched_max: 0, ..Limits::default() },
        Limits { fleet_percent_in_flight: Ppm(0), ..Limits::default() },
        Limits { per_hour: 0, ..Limits::default() },
        Limits { per_minute: 0, ..Limits::default() },
        Limits { in_flight_max: 0, ..Limits::default() },
        Limits { zone_in_flight: 0, ..Limits::default() },
    ];
    for limits in nobody {
        let refused = driver.command(Do::SetLimits(limits));
        assert!(matches!(refused, Err(Refused::LetsNobodyThrough { .. })), "{limits:?}: {refused:?}");
    }
    for state in [RolloutState::Running, RolloutState::Paused, RolloutState::Baking] {
        let mut driver = in_state(state);
        for (days, expected) in [(200, "ok"), (200, "R:limit"), (10_000_000, "R:limit")] {
            let result = driver.command(Do::Extend { by: 24 * days * HOUR });
            assert_eq!(word(state, &result, driver.engine.state()), expected, "{days} days in {state}");
        }
    }
}

#[test]
fn texts_of_commands_are_cut_wherever_they_are_kept() {
    let mut driver = in_state(RolloutState::Running);
    let long: Box<str> = "x".repeat(100 * Command::TEXT_BYTES_MAX).into();
    for (key, do_) in [("pause", Do::Pause), ("resume", Do::Resume(Resume::Plain))] {
        let key = CommandKey::new(key).expect("a short key");
        let command = Command { key, actor: long.clone(), reason: long.clone(), expected: None, do_ };
        driver.event(Event::Command(&command)).expect("it runs, or is paused");
    }
    let kept = driver.writes.iter().filter_map(|write| match write {
        Write::Audit(audit) => Some(audit.actor.len().max(audit.reason.len())),
        _ => None,
    });
    let entries = driver.entries.iter().filter_map(|entry| match entry {
        Entry::Command(entry) => Some(entry.actor.len().max(entry.reason.len())),
        Entry::Rollout(entry) => Some(entry.actor.len()),
        _ => None,
    });
    assert_eq!(kept.chain(entries).max(), Some(Command::TEXT_BYTES_MAX));
}
