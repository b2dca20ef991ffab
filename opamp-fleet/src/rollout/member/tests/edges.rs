//! Which states the table leads to, and that facts lead nowhere else.

use opamp_proto::AgentCapabilities;

use super::{NOW, around, foreign, plan, previous, queued};
use crate::rollout::member::cell::{Act, Column};
use crate::rollout::member::table::cell;
use crate::rollout::member::{
    Around, Step, before_claim, note, offered, on_allow, on_deadline, on_exclude, on_fact, on_quarantine,
    on_release, on_retry, on_roll_back, on_stop,
};
use crate::rollout::members::{Flags, Row};
use crate::rollout::{
    AgentFact, ConfigStatus, Effective, MemberState as M, Reason, RolloutState, Time, Withheld,
};

const COLUMNS: [Column; 19] = super::literal::COLUMNS;

/// Where an act can lead.
fn targets(act: Act) -> &'static [M] {
    match act {
        Act::Applied | Act::AppliedByHealth => &[M::Applied, M::Verified],
        Act::Applying => &[M::Applying],
        Act::ApplyOver => &[M::TimedOut, M::Backoff, M::Unverified],
        Act::ApplyingOver => &[M::TimedOut, M::Backoff],
        Act::AsStage | Act::WentBackOrEdited => &[M::SelfRolledBack, M::Failed],
        Act::AtPrevious | Act::RolledBack | Act::RolledBackByEffective | Act::RolledBackByHealth => {
            &[M::RolledBack]
        }
        Act::BackToStage => &[M::Offered, M::Delivered, M::Applying, M::Applied],
        Act::BackLate => &[M::Queued, M::Delivered],
        Act::BackoffOver => &[M::Queued],
        Act::Complete => &[M::Verified],
        // With an offer of this rollout: as `A`, which the edges of `Queued` have besides.
        Act::Current | Act::CurrentByEffective => &[M::AlreadyCurrent],
        Act::Delivered | Act::DeliveredLate => &[M::Delivered],
        Act::FailFinal | Act::FailWhileBackingOff => &[M::Failed],
        Act::Drop => &[M::Excluded, M::Failed, M::TimedOut],
        Act::Exclude | Act::ExcludeUndo | Act::ExcludeWaiting => &[M::Excluded],
        Act::LeaveQueue | Act::LeaveDeferred | Act::FailedBefore => &[M::Excluded],
        Act::Expire => &[M::Expired],
        Act::LeaveTried => &[M::Excluded, M::RollbackQueued],
        Act::Fail => &[M::Failed, M::Backoff],
        Act::FailByStage | Act::RefuseOrFail => &[M::Rejected, M::Failed, M::Backoff],
        Act::Gone => &[M::Absent],
        Act::GiveUp => &[M::Failed, M::TimedOut],
        Act::GraceOver => &[M::Deferred],
        Act::NotApplicable | Act::NotApplicableUndo => &[M::NotApplicable],
        Act::OfferOver => &[M::TimedOut, M::Backoff, M::Deferred],
        Act::OfferRollback => &[M::RollbackOffered, M::RollbackQueued],
        Act::Refuse => &[M::Rejected],
        Act::Remove => &[M::Removed],
        Act::RollbackDefer | Act::RollbackDeferUndo => &[M::RollbackDeferred],
        Act::RollbackFail | Act::RollbackExpire => &[M::RollbackFailed],
        Act::RollbackOver => &[M::RollbackFailed, M::RolledBack],
        Act::RollbackQueue | Act::RollbackQueueTouched | Act::RollbackQueueTried => &[M::RollbackQueued],
        Act::VerifyOver => &[M::TimedOut, M::Unverified],
        Act::WentBack => &[M::SelfRolledBack],
        Act::Withheld => &[M::Rejected, M::NotApplicable],
        Act::AwayOver
        | Act::Extend
        | Act::GraceStarts
        | Act::GraceEnds
        | Act::Impossible
        | Act::Leave
        | Act::Nothing
        | Act::Note
        | Act::RollbackExtend => &[],
    }
}

/// Where claims, retries, and coming back lead, and a late report of a member that is queued again.
fn besides(state: M) -> &'static [M] {
    match state {
        M::Queued => &[M::Offered, M::Deferred, M::Excluded, M::Applied, M::Verified, M::Failed],
        M::RollbackQueued => &[M::RollbackOffered, M::RollbackDeferred, M::RollbackFailed],
        M::RollbackDeferred => &[M::RollbackOffered, M::RollbackQueued, M::RollbackFailed],
        M::Excluded => &[M::Queued, M::AlreadyCurrent, M::NotApplicable],
        M::Removed => &[M::Queued, M::AlreadyCurrent, M::NotApplicable, M::Excluded],
        M::Failed | M::TimedOut | M::Rejected | M::Control => &[M::Queued],
        _ => &[],
    }
}

#[test]
fn the_edges_are_those_of_the_table_and_no_others() {
    for from in M::ALL {
        let mut expected: Vec<M> = besides(from).to_vec();
        expected.extend(COLUMNS.into_iter().flat_map(|column| targets(cell(from, column))));
        for to in M::ALL {
            let is_edge = to == from || expected.contains(&to);
            assert_eq!(from.may_become(to), is_edge, "{from} to {to}");
        }
    }
}

fn facts(offer: u32, target: opamp_proto::Fingerprint) -> Vec<AgentFact<'static>> {
    let mut facts = vec![
        AgentFact::Capabilities(AgentCapabilities::ACCEPTS_REMOTE_CONFIG),
        AgentFact::Capabilities(AgentCapabilities::NONE),
        AgentFact::Connected,
        AgentFact::Delivered { offer },
        AgentFact::Disconnected { announced: false },
        AgentFact::Disconnected { announced: true },
        AgentFact::Effective { offer, relation: Effective::Differs },
        AgentFact::Effective { offer, relation: Effective::Equal },
        AgentFact::Effective { offer, relation: Effective::Unknown },
        AgentFact::Health { offer, healthy: true },
        AgentFact::Health { offer, healthy: false },
        AgentFact::Left,
        AgentFact::Removed,
        AgentFact::Withheld { offer, why: Withheld::Capability },
        AgentFact::Withheld { offer, why: Withheld::TooLarge },
    ];
    for hash in [target, previous(), foreign()] {
        for status in ConfigStatus::ALL {
            facts.push(AgentFact::Reported { offer, hash, status, text: None });
        }
    }
    facts
}

/// Members in every state, as different as they can be there.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let bits = [
        Flags::CONNECTED,
        Flags::REPORTS_STATUS,
        Flags::REPORTS_HEALTH,
        Flags::HEALTHY,
        Flags::EXACT_EFFECTIVE,
        Flags::APPLIED_SEEN,
        Flags::FAILED_SEEN,
        Flags::EFFECTIVE_SEEN,
    ];
    let stages = [M::Offered, M::Delivered, M::Applying, M::Applied];
    for state in M::ALL {
        let stages: &[M] = match state {
            M::Absent => &stages,
            M::Deferred | M::Expired => &[M::Queued, M::Delivered, M::Applied],
            M::Excluded => &[M::Excluded, M::RollbackQueued],
            M::RollbackQueued => &[M::RollbackQueued, M::Failed, M::TimedOut],
            _ => &[state],
        };
        for (stage, choice) in
            stages.iter().flat_map(|stage| (0..1_u16 << bits.len()).map(move |n| (*stage, n)))
        {
            let mut flags = Flags::TOUCHED;
            for (at, bit) in bits.into_iter().enumerate() {
                flags = flags.set(bit, choice >> at & 1 == 1);
            }
            rows.push(Row { state, stage, flags, offer: 3, deadline: NOW, ..queued(flags) });
        }
    }
    rows
}

fn assert_allowed(row: &Row, step: &Step, what: &dyn std::fmt::Debug) {
    let Some(changed) = &step.row else {
        assert!(!step.undo && !step.requeue, "{row:?}, {what:?}: {step:?}");
        return;
    };
    assert!(row.state.may_become(changed.state), "{} to {}, {what:?}", row.state, changed.state);
    assert_eq!(step.undo, changed.offer != row.offer, "{row:?}, {what:?}: {step:?}");
    assert!(!step.requeue || changed.state == M::Queued, "{row:?}, {what:?}: {step:?}");
    assert!(changed.state.may_be_at(changed.stage), "{row:?}, {what:?}: {step:?}");
    if changed.state != row.state {
        assert_eq!(changed.since, NOW, "{row:?}, {what:?}");
        let waits = changed.state.in_flight()
            || matches!(changed.state, M::Backoff | M::Deferred | M::RollbackDeferred);
        assert!(!waits || changed.deadline != Time::NEVER, "{row:?}, {what:?}: {step:?}");
    }
    assert!(changed.since <= NOW && !step.surprise);
}

#[test]
fn facts_lead_only_along_edges_and_telling_them_again_changes_nothing() {
    let plan = plan();
    let around = around(&plan);
    for row in rows() {
        for fact in facts(row.offer, plan.target) {
            let step = on_fact(&row, &fact, &around);
            assert_allowed(&row, &step, &fact);
            let Some(changed) = step.row else { continue };
            let mut after = row.with(&changed);
            // The first APPLYING begins the stage and the second extends it: from then on it is nothing new.
            let applying = matches!(fact, AgentFact::Reported { status: ConfigStatus::Applying, .. });
            if applying && let Some(changed) = on_fact(&after, &fact, &around).row {
                after = after.with(&changed);
            }
            let again = on_fact(&after, &fact, &around);
            assert_eq!(again.row, None, "{row:?}, {fact:?}, then {after:?}");
        }
    }
}

#[test]
fn a_fact_about_an_older_offer_moves_nobody() {
    let plan = plan();
    let around = around(&plan);
    for row in rows() {
        for offer in [0, row.offer - 1, row.offer + 1] {
            for fact in facts(offer, plan.target) {
                let is_of_offer = matches!(
                    fact,
                    AgentFact::Delivered { .. }
                        | AgentFact::Effective { .. }
                        | AgentFact::Health { .. }
                        | AgentFact::Reported { .. }
                        | AgentFact::Withheld { .. }
                );
                if !is_of_offer {
                    continue;
                }
                let step = on_fact(&row, &fact, &around);
                let changed = step.row.unwrap_or(row.changed());
                assert_eq!(changed.state, row.state, "{row:?}, {fact:?}");
                let seen =
                    Flags::APPLIED_SEEN | Flags::EFFECTIVE_SEEN | Flags::FAILED_SEEN | Flags::HEALTHY_SINCE;
                assert_eq!(changed.flags & seen, row.flags & seen, "{row:?}, {fact:?}");
                let is_health = matches!(fact, AgentFact::Health { .. });
                assert!(is_health && !note::is_delivered(&row) || step.row.is_none(), "{row:?}, {fact:?}");
            }
        }
    }
}

#[test]
fn a_deadline_leads_along_an_edge_and_is_not_left_as_it_was() {
    let plan = plan();
    let around = around(&plan);
    for row in rows() {
        let step = on_deadline(&row, &around);
        if cell(row.state, Column::Deadline) == Act::Impossible {
            assert!(step.surprise && step.row.is_none(), "{row:?}");
            continue;
        }
        assert_allowed(&row, &step, &"deadline");
        let changed = step.row.expect("something happens");
        assert!(changed.deadline > NOW, "{row:?} to {changed:?}");
    }
}

#[test]
fn commands_and_claims_lead_along_edges() {
    let plan = plan();
    let without_previous = Around { previous: None, ..around(&plan) };
    let stopped = Around { rollout: RolloutState::Aborting, ..around(&plan) };
    for around in [around(&plan), without_previous, stopped] {
        for row in rows() {
            let commands = [
                on_exclude(&row, &around),
                on_roll_back(&row, &around),
                on_stop(&row, &around),
                on_retry(&row, &around),
                on_allow(&row, &around),
                on_release(&row, &around),
            ];
            for (at, step) in commands.iter().enumerate() {
                assert_allowed(&row, step, &at);
            }
            if !matches!(row.state, M::Queued | M::RollbackQueued | M::RollbackDeferred) {
                continue;
            }
            if row.state == M::Queued {
                assert_allowed(&row, &on_quarantine(&row, &around), &"quarantine");
            }
            match before_claim(&row, &around) {
                Some(step) => {
                    assert!(!row.flags.contains(Flags::CONNECTED) || around.previous.is_none());
                    assert_allowed(&row, &step, &"before the claim");
                }
                None => {
                    let changed = offered(&row, &around);
                    assert!(row.state.may_become(changed.state) && changed.offer == row.offer + 1);
                    assert!(changed.deadline > NOW && changed.deadline != Time::NEVER);
                }
            }
        }
    }
}

#[test]
fn without_a_previous_configuration_nothing_is_taken_back() {
    let plan = plan();
    let around = Around { previous: None, ..around(&plan) };
    for row in rows() {
        for fact in facts(row.offer, plan.target) {
            assert!(!on_fact(&row, &fact, &around).undo);
        }
        assert!(!on_deadline(&row, &around).undo && !on_exclude(&row, &around).undo);
    }
}

#[test]
fn who_waits_to_go_back_and_has_nowhere_to_go_has_failed_to() {
    let plan = plan();
    let around = Around { previous: None, ..around(&plan) };
    let row = Row { state: M::RollbackQueued, stage: M::RollbackQueued, ..queued(Flags::TOUCHED) };
    let changed = before_claim(&row, &around).and_then(|step| step.row).expect("no claim");
    assert_eq!((changed.state, changed.reason), (M::RollbackFailed, Reason::NoTarget));
}
