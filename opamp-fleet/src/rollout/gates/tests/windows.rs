//! Which gates a member is against: windows, and what the row keeps.

use std::time::Duration;

use super::*;
use crate::rollout::members::Row;
use crate::rollout::{MemberState, Reason};

const PACE: Pace = Pace { interval_s: 30, spans: 0 };
const OFFERED: Time = Time(1_000_000);

/// The bits of one gate's member so long after it applied the configuration, its wave being over.
fn bits_of(gate: GateConfig, row: &Row, seconds: u64) -> u16 {
    bad_bits(&plan([gate], &[40]), row.view(), PACE, OFFERED + Duration::from_secs(seconds), false)
}

fn bits(kind: GateKind, row: &Row, seconds: u64) -> u16 {
    bits_of(GateConfig::of(kind), row, seconds)
}

fn row(state: MemberState, reason: Reason, flags: Flags) -> Row {
    Row { applied_at: OFFERED, ..testing::row(state, reason, flags) }
}

#[test]
fn whoever_turns_ill_counts_until_the_rollout_ends_but_not_after_a_window_that_is_asked_for() {
    let ill = row(MemberState::Verified, Reason::Reported, Flags::REPORTS_HEALTH);
    assert_eq!(bits(GateKind::Unhealthy, &ill, 1_000_000), 1);
    let gate = GateConfig { window: Duration::from_secs(600), ..GateConfig::of(GateKind::Unhealthy) };
    assert_eq!(bits_of(gate.clone(), &ill, 600), 1);
    assert_eq!(bits_of(gate.clone(), &ill, 601), 0);
    let late = OFFERED + Duration::from_secs(601);
    assert_eq!(bad_bits(&plan([gate], &[40]), ill.view(), PACE, late, true), 1, "its wave is not over");
}

#[test]
fn whoever_is_against_a_gate_stays_so_after_the_window_until_it_is_well() {
    let ill = Row { bad: 1, ..row(MemberState::Verified, Reason::Reported, Flags::REPORTS_HEALTH) };
    assert_eq!(bits(GateKind::Unhealthy, &ill, 10_000), 1);
    let well = Row { flags: ill.flags | Flags::HEALTHY, ..ill };
    assert_eq!(bits(GateKind::Unhealthy, &well, 10), 0);
}

#[test]
fn what_comes_of_an_offer_in_flight_counts_however_long_it_took() {
    let late = |state, reason| row(state, reason, Flags::REPORTS_STATUS);
    let failed = late(MemberState::Failed, Reason::ReportedFailed);
    assert_eq!(bits(GateKind::ApplyFailed, &failed, 5_000), 1);
    assert_eq!(bits(GateKind::TimedOut, &late(MemberState::TimedOut, Reason::ApplyTimeout), 5_000), 1);
    assert_eq!(bits(GateKind::Rejected, &late(MemberState::Rejected, Reason::Refused), 5_000), 1);
    assert_eq!(bits(GateKind::Unverified, &late(MemberState::Unverified, Reason::NoEvidence), 5_000), 1);
}

#[test]
fn going_back_by_itself_counts_until_the_rollout_ends() {
    let back = row(MemberState::SelfRolledBack, Reason::WentBack, Flags::REPORTS_STATUS);
    assert_eq!(bits(GateKind::SelfRollback, &back, 1_000_000), 1);
}

#[test]
fn whoever_went_away_in_its_window_counts_when_its_grace_is_over() {
    let away = row(MemberState::Verified, Reason::GraceOver, Flags(0));
    assert_eq!(bits(GateKind::DisconnectRatio, &away, 390), 1, "300 s and three heartbeats of 30 s");
    assert_eq!(bits(GateKind::DisconnectRatio, &away, 391), 0);
}

#[test]
fn the_control_group_has_no_window() {
    let away = row(MemberState::Control, Reason::GraceOver, Flags(0));
    assert_eq!(bits(GateKind::DisconnectRatio, &away, 1_000_000), 1);
    assert_eq!(bits(GateKind::ApplyFailed, &away, 0), 0);
}

#[test]
fn counts_follow_rows_and_equal_a_recount() {
    let plan = plan(defaults(), &[40]);
    let states = [
        (MemberState::Verified, Reason::Reported),
        (MemberState::Failed, Reason::ReportedFailed),
        (MemberState::TimedOut, Reason::ApplyTimeout),
        (MemberState::Removed, Reason::AgentRemoved),
        (MemberState::Deferred, Reason::NotConnected),
    ];
    let mut rows = vec![row(MemberState::Queued, Reason::Nothing, Flags::REPORTS_STATUS); 5];
    let mut counts = recount(&plan, rows.iter().map(Row::view));
    assert!(counts.iter().all(|count| *count == GateCount::default()), "nobody was offered anything");
    for (member, (state, reason)) in rows.iter_mut().zip(states) {
        let mut after = row(state, reason, Flags::REPORTS_STATUS);
        after.bad = bad_bits(&plan, after.view(), PACE, OFFERED, false);
        count(&plan, &mut counts, Some(member.view()), Some(after.view()));
        *member = after;
    }
    let again = recount(&plan, rows.iter().map(Row::view));
    assert_eq!(counts, again);
    let of = |kind| {
        let (gate, _) = numbered(&plan).find(|(_, config)| config.kind == kind).unwrap();
        (counts[gate.index()].bad, counts[gate.index()].eligible)
    };
    assert_eq!(of(GateKind::ApplyFailed), (1, 3), "whoever is removed or away is in no ratio");
    assert_eq!(of(GateKind::TimedOut), (1, 3));
    assert_eq!(of(GateKind::NothingSucceeds), (2, 3));
}

#[test]
fn members_of_the_control_group_are_counted_apart_where_they_can_show_something() {
    let gates = [GateKind::DisconnectRatio, GateKind::Unhealthy, GateKind::ApplyFailed].map(GateConfig::of);
    let plan = plan(gates, &[40]);
    let away = Row { bad: 1, ..row(MemberState::Control, Reason::GraceOver, Flags(0)) };
    let back = Row { bad: 0, ..away };
    let mut counts = [(0, 0); 3];
    count_control(&plan, &mut counts, None, Some(away.view()));
    assert_eq!(counts, [(1, 1), (0, 0), (0, 0)], "it does not report health, and nothing was offered to it");
    count_control(&plan, &mut counts, Some(away.view()), Some(back.view()));
    assert_eq!(counts, [(1, 0), (0, 0), (0, 0)]);
    let treated = row(MemberState::Queued, Reason::Operator, Flags(0));
    count_control(&plan, &mut counts, Some(back.view()), Some(treated.view()));
    assert_eq!(counts, [(0, 0); 3]);
    let was_away = Row { flags: Flags::WAS_AWAY, ..away };
    count_control(&plan, &mut counts, None, Some(was_away.view()));
    assert_eq!(counts, [(0, 0); 3]);
}

#[test]
fn failure_domains_count_the_gates_that_ask_for_it() {
    let zoned = GateConfig { scopes: Scopes::ZONE, ..GateConfig::of(GateKind::Rejected) };
    let plan = plan([GateConfig::of(GateKind::Unverified), zoned], &[40]);
    let settled = row(MemberState::Verified, Reason::Reported, Flags::REPORTS_STATUS);
    let mut counts = [GateCount::default(); 2];
    count_zone(&plan, &mut counts, None, Some(settled.view()));
    assert_eq!([counts[0].eligible, counts[1].eligible], [0, 1]);
}
