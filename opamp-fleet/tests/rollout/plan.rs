//! Plans: what they check, what they hold, and what their hash is for (R12, R33, R38, R39, R43).

use std::collections::BTreeSet;
use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{Boundaries, GateConfig, GateKind, Scopes, Severity, Test};
use opamp_fleet::rollout::plan::{
    FleetSizes, Order, Plan, PlanRequest, PlannedMembers, Size, Step, Strategy, Target,
};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::windows::{Calendar, Days, Freeze, Minute, Override, Window};
use opamp_fleet::rollout::{
    Do, EngineSettings, Fell, Fit, MemberState, PlanError, Refused, RolloutId, RolloutState,
};
use opamp_proto::AgentId;

use crate::support::{Driver, Known, START, agents, config, fingerprint};

const MINUTE: Duration = Duration::from_secs(60);

fn make(
    fleet: &[Known],
    change: impl FnOnce(&mut PlanRequest<'_>),
) -> Result<(Plan, PlannedMembers), PlanError> {
    let (config, selector) = (config("new"), Selector::default());
    let mut request = PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector);
    request.gates = [GateConfig::of(GateKind::NothingSucceeds)].into();
    change(&mut request);
    Plan::make(request, fleet.iter().map(Known::candidate), FleetSizes::default(), START)
}

/// Agents in one state, in the order of the plan.
fn in_state(plan: &Plan, members: &PlannedMembers, state: MemberState) -> Vec<AgentId> {
    let all = plan.waves.iter().flat_map(|wave| members.of_wave(wave));
    all.filter(|(_, found)| *found == state).map(|(agent, _)| *agent).collect()
}

#[test]
fn a_fleet_changed_after_approval_refuses_the_start() {
    let (config, selector) = (config("new"), Selector::default());
    let request = || PlanRequest {
        gates: [GateConfig::of(GateKind::NothingSucceeds)].into(),
        settings: EngineSettings { approval: true, ..EngineSettings::default() },
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    let mut fleet = agents(20);
    let mut driver = Driver::new(request(), &fleet);
    let approved = driver.plan.hash;
    driver.command(Do::Submit).unwrap();
    driver.command(Do::Approve { plan: approved, wave: None }).unwrap();
    // One more agent matches now.
    fleet.push(Known::new(99));
    let again =
        Plan::make(request(), fleet.iter().map(Known::candidate), FleetSizes::default(), START).unwrap();
    let changed = again.0.hash;
    assert_ne!(changed, approved);
    assert_eq!(driver.command(Do::Start { plan: changed }), Err(Refused::PlanChanged));
    // The fleet is compared with the plan once more, and what was approved does not hold any more.
    driver.command(Do::Start { plan: approved }).unwrap();
    assert_eq!(driver.engine.state(), RolloutState::Preflight);
    driver.command(Do::Preflighted { plan: changed, usable: true }).unwrap();
    assert_eq!(driver.engine.state(), RolloutState::PendingApproval);
    assert_eq!(driver.command(Do::Approve { plan: approved, wave: None }), Err(Refused::PlanChanged));
    assert!(driver.in_state(MemberState::Offered).is_empty());
}

#[test]
fn a_plan_made_anew_of_the_same_fleet_has_the_same_hash() {
    let mut fleet = agents(50);
    let first = make(&fleet, |_| {}).unwrap().0;
    // What changes from one moment to the next has no part in what was agreed to.
    for known in &mut fleet {
        known.facts.liveness = opamp_fleet::Liveness::Disconnected;
        known.facts.health = opamp_fleet::Health::Unhealthy;
        known.interval = Duration::from_secs(7);
        known.fell = Fell::new(Some(START), None);
    }
    let again = make(&fleet, |_| {}).unwrap().0;
    assert_eq!(again.hash, first.hash);
    let (config, selector) = (config("new"), Selector::default());
    let request = PlanRequest {
        gates: first.gates.clone(),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    let sizes = FleetSizes { agents: 5_000, group: 70 };
    let (larger, _) = Plan::make(request, fleet.iter().map(Known::candidate), sizes, START + MINUTE).unwrap();
    assert_eq!(larger.hash, first.hash);
}

#[test]
fn everything_that_decides_what_happens_changes_the_hash() {
    let fleet = agents(20);
    let mut hashes = BTreeSet::new();
    let mut is_new = |change: &dyn Fn(&mut PlanRequest<'_>), fleet: &[Known]| {
        hashes.insert(make(fleet, |request| change(request)).unwrap().0.hash)
    };
    assert!(is_new(&|_| {}, &fleet));
    assert!(!is_new(&|_| {}, &fleet));
    let window = Window { zone: "UTC".into(), days: Days::ALL, from: Minute(0), until: Minute(60) };
    let changes: [&dyn Fn(&mut PlanRequest<'_>); 12] = [
        &|request| request.strategy = Strategy::Batches { size: 5 },
        &|request| request.strategy = Strategy::Batches { size: 10 },
        &|request| request.order = Order::Hostname,
        &|request| request.gates[0].severity = Severity::Abort,
        &|request| request.gates[0].tests = [Test::Hard { failures: 4 }].into(),
        &|request| request.settings.bake = MINUTE,
        &|request| request.settings.retries.failed = 0,
        &|request| request.calendar.windows = [window.clone()].into(),
        &|request| request.control_group = 1,
        &|request| request.start_at = Some(START),
        &|request| request.target.agent_type = Some("unknown".into()),
        &|request| request.override_reason = Some("so".into()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(is_new(change, &fleet), "change {number}");
    }
    assert!(is_new(&|_| {}, &fleet[1..]), "another member");
    let mut other = fleet.clone();
    other[3].known_good = Some(fingerprint("older"));
    assert!(is_new(&|_| {}, &other), "another way back");
    other[3].quarantined = true;
    assert!(is_new(&|_| {}, &other), "another exclusion");
}

#[test]
fn who_runs_it_already_has_no_turn_and_no_share() {
    let mut fleet = agents(30);
    for known in fleet.iter_mut().take(10) {
        known.current = Some(fingerprint("new"));
    }
    let (plan, members) = make(&fleet, |request| request.strategy = Strategy::Batches { size: 10 }).unwrap();
    assert_eq!((plan.members, members.queued()), (30, 20));
    let ends: Vec<u32> = plan.waves.iter().map(|wave| wave.end).collect();
    assert_eq!(ends, [10, 30], "they stand behind the last wave");
    let first: Vec<MemberState> = members.of_wave(&plan.waves[0]).map(|(_, state)| state).collect();
    assert!(first.iter().all(|state| *state == MemberState::Queued));
    let current: BTreeSet<AgentId> =
        in_state(&plan, &members, MemberState::AlreadyCurrent).into_iter().collect();
    let expected: BTreeSet<AgentId> = fleet[..10].iter().map(Known::id).collect();
    assert_eq!(current, expected);
}

#[test]
fn a_plan_of_what_all_have_waits_for_nothing() {
    let mut fleet = agents(30);
    fleet.iter_mut().for_each(|known| known.current = Some(fingerprint("new")));
    let (plan, members) = make(&fleet, |_| {}).unwrap();
    assert_eq!((plan.waves.len(), plan.waves[0].end, plan.waves[0].dwell), (1, 30, Duration::ZERO));
    assert_eq!(members.queued(), 0);
}

#[test]
fn the_control_group_stands_at_the_end_and_is_drawn_by_hash() {
    let fleet = agents(40);
    let group = |rollout: u8, order: Order| {
        let (plan, members) = make(&fleet, |request| {
            request.id = RolloutId::from_bytes([rollout; 16]);
            request.order = order;
            request.control_group = 5;
        })
        .unwrap();
        assert_eq!((plan.control_group, members.queued()), (5, 35));
        let control = in_state(&plan, &members, MemberState::Control);
        assert_eq!(&members.ids()[35..], control);
        control.into_iter().collect::<BTreeSet<AgentId>>()
    };
    let by_hash = group(1, Order::Hash);
    let list: Box<[AgentId]> = by_hash.iter().copied().collect();
    assert_eq!(group(1, Order::Explicit(list)), by_hash, "whatever the order");
    assert_ne!(group(2, Order::Hash), by_hash);
    let all = make(&fleet, |request| request.control_group = 40).unwrap_err();
    assert_eq!(all, PlanError::Strategy { what: "the control group leaves no member" });
}

fn with_dwell(dwells: [u64; 3]) -> Strategy {
    let percents = [10, 50, 100].map(Ppm::percent);
    let steps = percents.into_iter().zip(dwells);
    let step = |(percent, minutes)| Step {
        until: Size::Percent(percent),
        dwell: Duration::from_secs(minutes * 60),
        approval: false,
    };
    Strategy::Canary { steps: steps.map(step).collect() }
}

#[test]
fn a_window_that_is_longer_than_a_dwell_is_refused_or_the_dwell_grows() {
    let fleet = agents(30);
    let dwells = |strategy: Strategy, fit: Fit, bake: Duration| {
        let made = make(&fleet, |request| {
            request.strategy = strategy;
            let windowed = GateConfig { window: 10 * MINUTE, ..GateConfig::of(GateKind::DisconnectRatio) };
            request.gates = [GateConfig::of(GateKind::NothingSucceeds), windowed].into();
            (request.settings.fit, request.settings.bake) = (fit, bake);
        });
        made.map(|(plan, _)| plan.waves.iter().map(|wave| wave.dwell.as_secs() / 60).collect::<Vec<_>>())
    };
    assert_eq!(dwells(with_dwell([10, 10, 0]), Fit::Refuse, 10 * MINUTE), Ok(vec![10, 10, 0]));
    let refused =
        |dwell| PlanError::WindowPastDwell { gate: GateKind::DisconnectRatio, window: 10 * MINUTE, dwell };
    assert_eq!(dwells(with_dwell([10, 9, 0]), Fit::Refuse, 10 * MINUTE), Err(refused(9 * MINUTE)));
    assert_eq!(
        dwells(with_dwell([10, 10, 3]), Fit::Refuse, 6 * MINUTE),
        Err(refused(9 * MINUTE)),
        "with the bake"
    );
    assert_eq!(dwells(with_dwell([10, 9, 3]), Fit::Stretch, 6 * MINUTE), Ok(vec![10, 10, 4]));
}

#[test]
fn a_gate_that_only_observes_may_look_for_longer_than_a_dwell() {
    let made = make(&agents(30), |request| {
        request.strategy = with_dwell([1, 1, 1]);
        let observing =
            GateConfig { severity: Severity::Observe, ..GateConfig::of(GateKind::DisconnectRatio) };
        request.gates = [GateConfig::of(GateKind::NothingSucceeds), observing].into();
    });
    assert!(made.is_ok(), "{made:?}");
}

#[test]
fn without_a_gate_for_total_failure_a_plan_needs_a_reason() {
    let fleet = agents(30);
    let hard = GateConfig::of(GateKind::NothingSucceeds);
    let after = |failures| GateConfig { tests: [Test::Hard { failures }].into(), ..hard.clone() };
    assert!(make(&fleet, |request| request.gates = [after(10)].into()).is_ok());
    let observing = GateConfig { severity: Severity::Observe, ..hard.clone() };
    let counting = GateConfig { tests: [Test::Count { over: 2 }].into(), ..hard.clone() };
    let zoned = GateConfig { scopes: Scopes::ZONE, ..hard.clone() };
    for gate in [
        None,
        Some(GateConfig::of(GateKind::ApplyFailed)),
        Some(observing),
        Some(counting),
        Some(zoned),
        Some(after(11)),
    ] {
        let gates: Vec<GateConfig> = gate.into_iter().collect();
        let refused = make(&fleet, |request| request.gates = gates.clone().into()).unwrap_err();
        assert_eq!(refused, PlanError::OverrideNeeded, "{gates:?}");
        let made = make(&fleet, |request| {
            (request.gates, request.override_reason) = (gates.clone().into(), Some("a drill".into()));
        });
        assert!(made.is_ok(), "{gates:?}");
    }
}

#[test]
fn boundaries_are_those_of_the_members_that_are_offered_something() {
    let mut fleet = agents(1_200);
    for known in fleet.iter_mut().take(200) {
        known.current = Some(fingerprint("new"));
    }
    let gates = [GateKind::NothingSucceeds, GateKind::ApplyFailed].map(GateConfig::of);
    let (plan, _) = make(&fleet, |request| request.gates = gates.into()).unwrap();
    assert_eq!(plan.boundaries[0][..], [Boundaries::Plain]);
    let Boundaries::Sequential { weight, waves, all, .. } = &plan.boundaries[1][0] else {
        panic!("{:?}", plan.boundaries)
    };
    assert_eq!((*weight, &waves[..], *all), (11, &[36, 43, 43, 47][..], 50));
}

#[test]
fn a_calendar_that_makes_no_sense_is_refused() {
    let fleet = agents(3);
    let window =
        Window { zone: "Europe/Berlin".into(), days: Days::WEEKDAYS, from: Minute(0), until: Minute(60) };
    let said = |calendar: Calendar| make(&fleet, |request| request.calendar = calendar).map(|_| ());
    let windows = |window: Window| Calendar { windows: [window].into(), ..Calendar::default() };
    assert_eq!(said(windows(window.clone())), Ok(()));
    let unknown = said(windows(Window { zone: "Europe/Atlantis".into(), ..window.clone() }));
    assert_eq!(unknown, Err(PlanError::TimeZone { name: "Europe/Atlantis".into() }));
    assert!(said(windows(Window { days: Days(0), ..window.clone() })).is_err());
    assert!(said(windows(Window { from: Minute(1_440), ..window.clone() })).is_err());
    let many = Calendar { windows: vec![window; 65].into(), ..Calendar::default() };
    assert_eq!(said(many), Err(PlanError::BeyondHardLimit { what: "windows", limit: 64, found: 65 }));
    let freeze = |until, override_| Calendar {
        freezes: [Freeze { from: START, until, reason: "sale".into(), override_ }].into(),
        ..Calendar::default()
    };
    let by =
        |second: &str| Some(Override { reason: "outage".into(), by: "ann".into(), second: second.into() });
    assert_eq!(said(freeze(START + MINUTE, None)), Ok(()));
    assert_eq!(said(freeze(START + MINUTE, by("bob"))), Ok(()));
    assert!(said(freeze(START, None)).is_err());
    assert!(said(freeze(START + MINUTE, by("ann"))).is_err(), "one person is not two");
}

#[test]
fn overlaps_are_counted_by_rollout() {
    let mut fleet = agents(10);
    let [a, b] = [1, 2].map(|number| RolloutId::from_bytes([number; 16]));
    for (known, holder) in fleet.iter_mut().zip([a, b, a]) {
        known.locked_by = Some(holder);
    }
    let (plan, members) = make(&fleet, |_| {}).unwrap();
    assert_eq!((&plan.overlaps[..], members.len()), (&[(a, 2), (b, 1)][..], 7));
}
