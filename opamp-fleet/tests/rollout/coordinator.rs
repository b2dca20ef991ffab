//! What rollouts share: caps, rates, budgets, breaker, quarantine, recall (R25, R54 to R58, R60).

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::coordinator::{
    Admission, Budget, Claim, ClaimKind, Coordinator, CoordinatorRows, CoordinatorSettings, Denied, Domain,
    ZoneKey,
};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::{ConflictPolicy, PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{GroupIx, Limits, Outcome, Reason, RolloutId, Slot, Time, Write};
use opamp_proto::{AgentId, Fingerprint};

use crate::support::{Driver, START, agents, by_number, config, request};

const SLOT: Slot = Slot::MainConfig;
const CONFIG: Fingerprint = Fingerprint::from_bytes([0xc0; 16]);
const ONE: RolloutId = RolloutId::from_bytes([1; 16]);
const TWO: RolloutId = RolloutId::from_bytes([2; 16]);

fn agent(number: u32) -> AgentId {
    let mut bytes = [0; 16];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn coordinator(settings: CoordinatorSettings) -> Coordinator {
    let rows = CoordinatorRows { fleet: 100, ..CoordinatorRows::default() };
    Coordinator::new(settings, rows, Faults::default())
}

fn hard(hard: Limits) -> Coordinator {
    coordinator(CoordinatorSettings { hard, ..CoordinatorSettings::default() })
}

/// One who asks.
#[derive(Clone, Copy)]
struct Asks {
    rollout: RolloutId,
    slot: Slot,
    group: Option<GroupIx>,
    zone: Option<&'static str>,
    kind: ClaimKind,
    limits: Limits,
}

const ASKS: Asks = Asks {
    rollout: ONE,
    slot: SLOT,
    group: None,
    zone: None,
    kind: ClaimKind::Offer,
    limits: Limits {
        touched_max: u32::MAX,
        fleet_percent_in_flight: Ppm::ALL,
        per_hour: u32::MAX,
        per_minute: u32::MAX,
        in_flight_max: u32::MAX,
        zone_in_flight: u32::MAX,
    },
};

impl Asks {
    fn claim(&self, shared: &mut Coordinator, number: u32, now: Time) -> Result<(), Denied> {
        self.claim_of(shared, number, CONFIG, now)
    }

    fn claim_of(
        &self,
        shared: &mut Coordinator,
        number: u32,
        config: Fingerprint,
        now: Time,
    ) -> Result<(), Denied> {
        let Self { rollout, slot, group, zone, kind, ref limits } = *self;
        let agent = agent(number);
        shared.claim(&Claim { rollout, agent: &agent, slot, group, zone, kind, limits }, config, now)
    }

    fn settle(&self, shared: &mut Coordinator, number: u32, now: Time) {
        shared.settle(self.rollout, &agent(number), self.slot, Outcome::Well, now);
    }

    /// How many of these get what they ask for.
    fn granted(&self, shared: &mut Coordinator, numbers: std::ops::Range<u32>, now: Time) -> usize {
        numbers.filter(|number| self.claim(shared, *number, now).is_ok()).count()
    }
}

#[test]
fn rates() {
    let settings = CoordinatorSettings {
        global_per_minute: 600,
        per_minute: vec![(Domain::Group(GroupIx(1)), 120), (Domain::Zone(ZoneKey("a".into())), 60)],
        ..CoordinatorSettings::default()
    };
    let mut shared = coordinator(settings);
    let (grouped, zoned) = (Asks { group: Some(GroupIx(1)), ..ASKS }, Asks { zone: Some("a"), ..ASKS });
    assert_eq!(zoned.granted(&mut shared, 0..5, START), 1, "one in a second in the failure domain");
    assert_eq!(grouped.granted(&mut shared, 10..15, START), 2, "two in the group");
    assert_eq!(ASKS.granted(&mut shared, 20..40, START), 7, "and of ten in all the rest");
    let denied = ASKS.claim(&mut shared, 50, START).unwrap_err();
    let Denied::Rate { until } = denied else { panic!("{denied:?}") };
    assert!(until > START && until <= START + Duration::from_millis(1_100), "{until}");
    assert!(ASKS.granted(&mut shared, 50..70, until) >= 9);
}

#[test]
fn a_rate_of_one_rollout_slows_no_other_and_a_rollback_down_as_well() {
    let mut shared = coordinator(CoordinatorSettings::default());
    let slow = Asks { limits: Limits { per_minute: 1, ..ASKS.limits }, ..ASKS };
    assert_eq!(slow.granted(&mut shared, 0..5, START), 1);
    assert_eq!(Asks { rollout: TWO, ..ASKS }.granted(&mut shared, 5..10, START), 5);
    let back = Asks { kind: ClaimKind::Rollback, ..slow };
    assert_eq!(back.granted(&mut shared, 0..1, START), 0, "a rollback obeys the rate (R67)");
    assert_eq!(back.granted(&mut shared, 0..1, START + Duration::from_secs(60)), 1);
}

#[test]
fn a_denied_claim_takes_nothing() {
    let settings = CoordinatorSettings { global_per_minute: 1, ..CoordinatorSettings::default() };
    let mut shared = coordinator(settings);
    assert!(ASKS.claim(&mut shared, 1, START).is_ok());
    let view = shared.view();
    assert!(ASKS.claim(&mut shared, 2, START).is_err());
    assert_eq!(shared.view(), view);
    assert_eq!(shared.holder(&agent(2), SLOT), None);
}

#[test]
fn one_rollout_at_a_time_has_an_agent_for_a_slot() {
    let mut shared = coordinator(CoordinatorSettings::default());
    let two = Asks { rollout: TWO, ..ASKS };
    assert!(ASKS.claim(&mut shared, 1, START).is_ok());
    assert_eq!(two.claim(&mut shared, 1, START), Err(Denied::Locked(ONE)));
    assert!(Asks { slot: Slot::Packages(0), ..two }.claim(&mut shared, 1, START).is_ok());
    ASKS.settle(&mut shared, 1, START);
    assert_eq!(two.claim(&mut shared, 1, START), Err(Denied::Locked(ONE)), "as long as the rollout lives");
    shared.finish(ONE);
    assert!(two.claim(&mut shared, 1, START).is_ok());
}

#[test]
fn user_limits_below_hard_ones() {
    let mut shared = hard(Limits { touched_max: 3, ..Limits::default() });
    assert_eq!(ASKS.granted(&mut shared, 0..10, START), 3, "no limit of its own is brought down");
    let smaller = Asks { rollout: TWO, limits: Limits { touched_max: 2, ..ASKS.limits }, ..ASKS };
    assert_eq!(smaller.granted(&mut shared, 10..20, START), 2);
    for number in 0..3 {
        ASKS.settle(&mut shared, number, START);
    }
    assert_eq!(ASKS.claim(&mut shared, 4, START), Err(Denied::Blast { until: None }), "touched is touched");
    assert!(ASKS.claim(&mut shared, 0, START).is_ok(), "who was touched before is no other one");
    let more = Limits { touched_max: 4, ..Limits::default() };
    assert_eq!(shared.beyond_hard(&more), Some(("members touched", 3, 4)));
    assert_eq!(shared.beyond_hard(&Limits::default()), None);
}

#[test]
fn no_more_are_in_flight_than_cap_and_part_of_the_fleet_allow() {
    let mut capped = hard(Limits { in_flight_max: 2, ..Limits::default() });
    assert_eq!(ASKS.granted(&mut capped, 0..10, START), 2);
    ASKS.settle(&mut capped, 0, START);
    ASKS.settle(&mut capped, 0, START);
    assert_eq!(ASKS.granted(&mut capped, 2..10, START), 1, "settled twice is settled once");

    let mut part = hard(Limits { fleet_percent_in_flight: Ppm::percent(4), ..Limits::default() });
    assert_eq!(ASKS.granted(&mut part, 0..3, START), 3);
    assert_eq!(Asks { rollout: TWO, ..ASKS }.granted(&mut part, 10..20, START), 1, "4 % of 100 in all");

    let mut zoned = coordinator(CoordinatorSettings::default());
    let in_zone = Asks { zone: Some("a"), limits: Limits { zone_in_flight: 2, ..ASKS.limits }, ..ASKS };
    assert_eq!(in_zone.granted(&mut zoned, 0..5, START), 2);
    assert_eq!(in_zone.claim(&mut zoned, 9, START), Err(Denied::Zone { until: None }));
    assert_eq!(Asks { zone: Some("b"), ..in_zone }.granted(&mut zoned, 10..15, START), 2);
}

#[test]
fn an_hour_has_so_many_offers_and_a_rollback_needs_none_of_them() {
    let mut shared = hard(Limits { per_hour: 4, ..Limits::default() });
    assert_eq!(ASKS.granted(&mut shared, 0..10, START), 4);
    let Err(Denied::Blast { until: Some(until) }) = ASKS.claim(&mut shared, 9, START) else { panic!() };
    assert!(until >= START + Duration::from_secs(3_600), "{until}");
    assert!(until <= START + Duration::from_secs(3_661), "{until}");
    let back = Asks { kind: ClaimKind::Rollback, ..ASKS };
    assert_eq!(back.granted(&mut shared, 0..4, START), 4);
    assert_eq!(ASKS.granted(&mut shared, 4..10, until), 4);
}

#[test]
fn failures_across_rollouts_stop_all_dispatch() {
    let mut settings = CoordinatorSettings::default();
    settings.breaker.failures = 3;
    let mut shared = coordinator(settings);
    let mut writes = Vec::new();
    for (rollout, number) in [(ONE, 0), (ONE, 1), (TWO, 2)] {
        assert!(writes.is_empty());
        shared.failure(rollout, &agent(number), START, &mut writes);
    }
    let until = START + Duration::from_secs(1_800);
    assert_eq!(writes, [Write::Breaker { open_until: Some(until) }]);
    for rollout in [ONE, TWO, RolloutId::from_bytes([3; 16])] {
        let asks = Asks { rollout, ..ASKS };
        assert_eq!(asks.claim(&mut shared, 9, START), Err(Denied::Breaker { until }));
    }
    assert!(Asks { kind: ClaimKind::Rollback, ..ASKS }.claim(&mut shared, 8, START).is_ok());
    assert_eq!(shared.next_deadline(), Some(until));
    shared.tick(until);
    assert_eq!(shared.next_deadline(), None);
    assert!(ASKS.claim(&mut shared, 9, until).is_ok());
}

#[test]
fn a_breaker_that_the_store_has_open_is_open_until_its_time_or_somebody_closes_it() {
    let rows = || CoordinatorRows { breaker: Some(START), ..CoordinatorRows::default() };
    let mut shared = Coordinator::new(CoordinatorSettings::default(), rows(), Faults::default());
    let before = Time(START.0 - 1);
    assert_eq!(ASKS.claim(&mut shared, 1, before), Err(Denied::Breaker { until: START }));
    let mut writes = Vec::new();
    shared.close_breaker(&mut writes);
    shared.close_breaker(&mut writes);
    assert_eq!(writes, [Write::Breaker { open_until: None }]);
    assert!(ASKS.claim(&mut shared, 1, before).is_ok());
}

#[test]
fn quarantine_ends() {
    let mut shared = coordinator(CoordinatorSettings::default());
    let (ill, mut writes) = (agent(1), Vec::new());
    for _ in 0..3 {
        assert!(writes.is_empty());
        shared.failure(ONE, &ill, START, &mut writes);
    }
    let end = START + Duration::from_secs(24 * 3_600);
    let until = Some(end);
    assert_eq!(writes, [Write::Quarantine { agent: ill, until, reason: Reason::FailedTooOften }]);
    assert_eq!(ASKS.claim(&mut shared, 1, START), Err(Denied::Quarantined { until }));
    assert!(ASKS.claim(&mut shared, 2, START).is_ok());
    assert_eq!(shared.next_deadline(), until);
    shared.tick(end);
    assert_eq!((shared.view().quarantined, shared.next_deadline()), (0, None));
    assert!(ASKS.claim(&mut shared, 1, end).is_ok());
}

#[test]
fn quarantine_is_released_by_hand() {
    let rows = CoordinatorRows {
        quarantined: vec![(agent(1), None, Reason::Operator)],
        ..CoordinatorRows::default()
    };
    let mut shared = Coordinator::new(CoordinatorSettings::default(), rows, Faults::default());
    assert_eq!(ASKS.claim(&mut shared, 1, START), Err(Denied::Quarantined { until: None }));
    let mut writes = Vec::new();
    shared.release(&agent(1), &mut writes);
    shared.release(&agent(1), &mut writes);
    assert_eq!(writes, [Write::Release { agent: agent(1) }]);
    assert!(ASKS.claim(&mut shared, 1, START).is_ok());
}

#[test]
fn a_quarantine_that_lasts_longer_is_not_cut_short() {
    let forever = CoordinatorRows {
        quarantined: vec![(agent(1), None, Reason::Operator)],
        ..CoordinatorRows::default()
    };
    let mut shared = Coordinator::new(CoordinatorSettings::default(), forever, Faults::default());
    let mut writes = Vec::new();
    shared.quarantine(&agent(1), Reason::Loop, START, &mut writes);
    for _ in 0..3 {
        shared.failure(ONE, &agent(1), START, &mut writes);
    }
    assert_eq!(writes, []);
    assert_eq!(shared.quarantined(&agent(1), START), Some((None, Reason::Operator)));
    shared.quarantine(&agent(2), Reason::Loop, START, &mut writes);
    shared.quarantine(&agent(2), Reason::Loop, START + Duration::from_secs(60), &mut writes);
    assert_eq!(writes.len(), 2, "a later end is a new one: {writes:?}");
}

#[test]
fn an_assignment_from_before_a_restart_is_taken_in_unless_another_one_holds_the_agent() {
    let mut shared = coordinator(CoordinatorSettings::default());
    assert!(Asks { rollout: TWO, ..ASKS }.claim(&mut shared, 1, START).is_ok());
    let take_in = |shared: &mut Coordinator, number| {
        let Asks { rollout, slot, group, zone, ref limits, .. } = ASKS;
        let (agent, kind) = (agent(number), ClaimKind::Reassert);
        let claim = Claim { rollout, agent: &agent, slot, group, zone, kind, limits };
        shared.take_in(&claim, START, START + Duration::from_secs(60))
    };
    assert!(!take_in(&mut shared, 1) && take_in(&mut shared, 2));
    assert_eq!((shared.holder(&agent(1), SLOT), shared.holder(&agent(2), SLOT)), (Some(TWO), Some(ONE)));
    assert_eq!((shared.view().locks, shared.view().in_flight), (2, 2));
    ASKS.settle(&mut shared, 2, START + Duration::from_secs(70));
    assert_eq!((shared.view().locks, shared.view().in_flight, shared.view().disturbed_ms), (1, 1, 70_000));
}

#[test]
fn a_recalled_hash_is_never_assigned_again() {
    let mut shared = coordinator(CoordinatorSettings::default());
    let mut writes = Vec::new();
    assert!(shared.recall(CONFIG, "leaks", &mut writes) && shared.recall(CONFIG, "again", &mut writes));
    assert_eq!(writes, [Write::Recall { config: CONFIG, reason: "leaks".into() }]);
    let other = Fingerprint::from_bytes([1; 16]);
    for kind in ClaimKind::ALL {
        let asks = Asks { kind, ..ASKS };
        assert_eq!(asks.claim(&mut shared, 1, START), Err(Denied::Recalled), "{kind}");
        assert!(asks.claim_of(&mut shared, 1, other, START).is_ok(), "{kind}");
    }
    let rows = CoordinatorRows { recalled: vec![CONFIG], ..CoordinatorRows::default() };
    let mut later = Coordinator::new(CoordinatorSettings::default(), rows, Faults::default());
    assert_eq!(ASKS.claim(&mut later, 1, START), Err(Denied::Recalled));
}

#[test]
fn config_package_and_restart_share_a_budget() {
    let budget = Budget { at_once: 2, percent: Ppm::ALL };
    let settings =
        CoordinatorSettings { disruption: vec![(Domain::Fleet, budget)], ..CoordinatorSettings::default() };
    let mut shared = coordinator(settings);
    let packages = Asks { rollout: TWO, slot: Slot::Packages(0), ..ASKS };
    let restart = Asks { rollout: RolloutId::from_bytes([3; 16]), slot: Slot::Restart, ..ASKS };
    assert!(ASKS.claim(&mut shared, 1, START).is_ok());
    assert!(packages.claim(&mut shared, 2, START).is_ok());
    assert_eq!(restart.claim(&mut shared, 3, START), Err(Denied::Budget));
    assert!(restart.claim(&mut shared, 2, START).is_ok(), "it is disturbed already");
    packages.settle(&mut shared, 2, START);
    assert_eq!(packages.claim(&mut shared, 4, START), Err(Denied::Budget), "it restarts still");
    restart.settle(&mut shared, 2, START);
    assert!(packages.claim(&mut shared, 4, START).is_ok());
}

#[test]
fn a_budget_is_of_its_group_or_failure_domain_and_of_nobody_else() {
    let budget = Budget { at_once: 10, percent: Ppm::percent(10) };
    let domains = [Domain::Group(GroupIx(1)), Domain::Zone(ZoneKey("a".into()))];
    let disruption = domains.iter().map(|domain| (domain.clone(), budget)).collect();
    let mut shared = coordinator(CoordinatorSettings { disruption, ..CoordinatorSettings::default() });
    for domain in &domains {
        shared.sized(domain, 20);
    }
    assert_eq!(Asks { group: Some(GroupIx(1)), ..ASKS }.granted(&mut shared, 0..10, START), 2);
    assert_eq!(Asks { zone: Some("a"), ..ASKS }.granted(&mut shared, 10..20, START), 2);
    let elsewhere = Asks { group: Some(GroupIx(2)), zone: Some("b"), ..ASKS };
    assert_eq!(elsewhere.granted(&mut shared, 20..30, START), 10);
}

#[test]
fn an_assignment_of_a_steady_state_lets_its_lock_go_when_it_settles() {
    let mut shared = coordinator(CoordinatorSettings::default());
    let steady = Asks { kind: ClaimKind::Reassert, ..ASKS };
    assert!(steady.claim(&mut shared, 1, START).is_ok());
    assert_eq!(shared.holder(&agent(1), SLOT), Some(ONE));
    steady.settle(&mut shared, 1, START + Duration::from_secs(2));
    let view = shared.view();
    assert_eq!((view.locks, view.in_flight, view.settled, view.disturbed_ms), (0, 0, [1, 0, 0], 2_000));
}

#[test]
fn who_overlaps_is_admitted_by_its_policy_and_waits_as_long_as_the_other_lives() {
    let mut shared = coordinator(CoordinatorSettings::default());
    assert_eq!(shared.register(ONE, SLOT, ConflictPolicy::Reject, &[]), Ok(Admission::Now));
    assert!(shared.register(TWO, SLOT, ConflictPolicy::Reject, &[(ONE, 2)]).is_err());
    assert!(!shared.is_live(TWO));
    let queued = shared.register(TWO, SLOT, ConflictPolicy::Queue, &[(ONE, 2)]);
    assert_eq!((queued, shared.waits_for(TWO)), (Ok(Admission::AfterOthers), Some(ONE)));
    shared.finish(ONE);
    assert_eq!(shared.waits_for(TWO), None);
}

/// A running rollout of four agents: the first one has it, the next two are in flight.
fn half_way() -> Driver {
    let (target, selector, fleet) = (config("new"), Selector::default(), agents(4));
    let request =
        PlanRequest { order: by_number(&fleet), ..request(&target, &selector, Strategy::AllAtOnce) };
    let mut driver = Driver::started(request, &fleet);
    driver.succeed(0);
    let view = driver.shared.view();
    assert_eq!((view.in_flight, view.locks), (2, 3));
    driver
}

#[test]
fn what_is_rebuilt_from_the_records_is_what_was_there() {
    let driver = half_way();
    let mut rebuilt = coordinator(CoordinatorSettings::default());
    rebuilt.adopt(&driver.rebuilt(), driver.now);
    let (old, new) = (driver.shared.view(), rebuilt.view());
    assert_eq!((new.locks, new.in_flight, new.rollouts), (old.locks, old.in_flight, 1));
    for number in 0..4 {
        let held = driver.shared.holder(&driver.agents[number], driver.plan.slot);
        assert_eq!(rebuilt.holder(&driver.agents[number], driver.plan.slot), held);
    }
}

#[test]
fn adopting_twice_is_adopting_once_and_a_dropped_rollout_leaves_nothing_behind() {
    let driver = half_way();
    let mut shared = coordinator(CoordinatorSettings::default());
    shared.adopt(&driver.engine, driver.now);
    let once = shared.view();
    shared.adopt(&driver.engine, driver.now);
    assert_eq!(shared.view(), once);
    shared.forget(driver.plan.id);
    assert_eq!(shared.view(), coordinator(CoordinatorSettings::default()).view());
}

#[test]
fn caps_of_rate_and_hour_hold_over_a_change_of_the_leader() {
    let driver = half_way();
    let mut shared = coordinator(CoordinatorSettings::default());
    shared.adopt(&driver.engine, driver.now);
    let limits = Limits { per_hour: 3, ..ASKS.limits };
    let asks = Asks { rollout: driver.plan.id, slot: driver.plan.slot, limits, ..ASKS };
    let denied = asks.claim(&mut shared, 3, driver.now);
    assert!(matches!(denied, Err(Denied::Blast { until: Some(_) })), "three were offered before: {denied:?}");
    let limits = Limits { per_minute: 60, ..ASKS.limits };
    let asks = Asks { limits, ..asks };
    let minute = Duration::from_secs(60);
    let denied = asks.claim(&mut shared, 3, driver.now + Duration::from_secs(1));
    assert_eq!(
        denied,
        Err(Denied::Rate { until: driver.now + minute }),
        "three at once are not one a second"
    );
    assert!(asks.claim(&mut shared, 3, driver.now + minute).is_ok());
}
