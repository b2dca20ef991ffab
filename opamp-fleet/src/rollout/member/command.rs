//! What commands and offers do to a member.

use super::act::{Case, Detail};
use super::cell::Column;
use super::{Around, Step, deadline, note, table};
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::{MemberState, Offline, Reason};

/// What becomes of a member that an operator excludes; nothing if there is nothing to do.
pub(crate) fn on_exclude(row: &Row, around: &Around<'_>) -> Step {
    command(row, around, Column::Exclude)
}

/// What becomes of a member that is in quarantine when its turn comes. An older offer that still stands is taken back: it
/// would be applied outside the rollout.
pub(crate) fn on_quarantine(row: &Row, around: &Around<'_>) -> Step {
    let case = case(row, around, Column::Exclude);
    let excluded = case.to(MemberState::Excluded, Reason::Quarantined);
    if note::has_offer(row) { case.undo(excluded) } else { case.step(excluded) }
}

/// What becomes of a member in whose scope a rollback begins.
pub(crate) fn on_roll_back(row: &Row, around: &Around<'_>) -> Step {
    command(row, around, Column::RollBack)
}

/// What becomes of a member when its rollout is aborted, superseded or expires, or when its rollback is aborted.
pub(crate) fn on_stop(row: &Row, around: &Around<'_>) -> Step {
    command(row, around, Column::Stop)
}

/// What becomes of a member when the failed ones of its wave are tried once more, those included that would be tried again
/// by themselves. Who has left is not the rollout's any more.
pub(crate) fn on_retry(row: &Row, around: &Around<'_>) -> Step {
    let has_failed = row.transport_tries > 0 || row.failed_tries > 0;
    match row.state {
        _ if row.flags.contains(Flags::LEFT) => Step::default(),
        MemberState::Failed | MemberState::TimedOut | MemberState::Backoff => {
            requeue(row, around, Reason::Operator)
        }
        MemberState::Queued if has_failed => requeue(row, around, Reason::Operator),
        _ => Step::default(),
    }
}

/// What becomes of a member when its operator allows the configuration on it again. That names the agent: it may have left.
pub(crate) fn on_allow(row: &Row, around: &Around<'_>) -> Step {
    match (row.state, row.reason) {
        (MemberState::Failed | MemberState::Rejected, _)
        | (MemberState::Excluded, Reason::HashFailedBefore) => requeue(row, around, Reason::Operator),
        _ => Step::default(),
    }
}

/// What becomes of a member when the control group is released.
pub(crate) fn on_release(row: &Row, around: &Around<'_>) -> Step {
    match row.state {
        MemberState::Control => requeue(row, around, Reason::Operator),
        _ => Step::default(),
    }
}

/// What is done with a member in place of asking for a claim; none if a claim is to be asked for.
///
/// Who is not connected is not offered anything, because it would get it on return, outside its wave. An older offer that
/// still stands is taken back for the same reason. While going back it is the other way round: the previous configuration
/// is written at once, so that it is the first that the agent gets (R69).
pub(crate) fn before_claim(row: &Row, around: &Around<'_>) -> Option<Step> {
    let case = case(row, around, Column::Gone);
    let is_connected = row.flags.contains(Flags::CONNECTED);
    match row.state {
        MemberState::Queued if is_connected => None,
        MemberState::Queued => Some(match around.plan.settings.offline {
            Offline::Defer => case.defer(MemberState::Queued, Reason::NotConnected),
            Offline::Exclude if note::has_offer(row) => {
                case.undo(case.to(MemberState::Excluded, Reason::NotConnected))
            }
            Offline::Exclude => case.step(case.to(MemberState::Excluded, Reason::NotConnected)),
        }),
        MemberState::RollbackQueued | MemberState::RollbackDeferred if around.previous.is_none() => {
            Some(case.step(case.to(MemberState::RollbackFailed, Reason::NoTarget)))
        }
        MemberState::RollbackQueued | MemberState::RollbackDeferred if is_connected => None,
        MemberState::RollbackQueued => Some(case.undo(case.rollback_deferral())),
        MemberState::RollbackDeferred => Some(Step::default()),
        _ => Some(Step { surprise: true, ..Step::default() }),
    }
}

/// The row of a member whose claim was granted: its new offer, under a new number.
pub(crate) fn offered(row: &Row, around: &Around<'_>) -> Changed {
    let is_rollback = row.state != MemberState::Queued;
    let (state, reason) = if is_rollback {
        (MemberState::RollbackOffered, Reason::RolledBackByPlan)
    } else {
        (MemberState::Offered, Reason::Dispatched)
    };
    let seen = Flags::EXTENDED
        | Flags::HEALTHY_SINCE
        | Flags::APPLIED_SEEN
        | Flags::EFFECTIVE_SEEN
        | Flags::FAILED_SEEN;
    let mut flags = row.flags.set(seen, false) | Flags::TOUCHED;
    let mut falls_before = row.falls_before;
    let is_first = row.offer == 0;
    // It was away, and nothing of this rollout has reached it.
    let is_anew = !is_rollback
        && note::is_first_try(row)
        && row.reason == Reason::Returned
        && !note::has_been_tried(row);
    // Later tries, and the way back, are compared with how it was before the first: what a try broke excuses nothing.
    if is_first || is_anew {
        (flags, falls_before) = (compared_with(flags), note::falls_before(row, around));
    }
    let span = deadline::of_stage(state, flags, around).unwrap_or_default();
    Changed {
        state,
        reason,
        stage: state,
        falls: 0,
        falls_before,
        returns: if is_rollback && row.returns != deadline::AWAY_BEFORE { row.returns } else { 0 },
        flags,
        offer: row.offer.saturating_add(1),
        since: around.now,
        deadline: around.now + span,
        applied_at: around.now,
        ..row.changed()
    }
}

/// The row of a member of the control group that is compared from now on with those of a wave whose turn it is: how it is
/// excuses it, as it excuses them.
pub(crate) fn compared_anew(row: &Row, around: &Around<'_>) -> Changed {
    let falls_before = note::falls_before(row, around);
    Changed { flags: compared_with(row.flags), falls_before, falls: 0, bad: 0, ..row.changed() }
}

/// The flags of a member that is compared later with how it is now.
fn compared_with(flags: Flags) -> Flags {
    let is_ill = flags.contains(Flags::REPORTS_HEALTH) && !flags.contains(Flags::HEALTHY);
    flags.set(Flags::WAS_UNHEALTHY, is_ill).set(Flags::WAS_AWAY, !flags.contains(Flags::CONNECTED))
}

fn command(row: &Row, around: &Around<'_>, column: Column) -> Step {
    case(row, around, column).perform(table::cell(row.state, column))
}

/// Back in the queue by an operator's wish, as if nothing had failed; how it was before the first try is remembered.
fn requeue(row: &Row, around: &Around<'_>, reason: Reason) -> Step {
    let tried = if note::has_offer(row) { note::TRIED } else { 0 };
    let falls_before = row.falls_before | tried;
    let noted = Changed { bad: 0, failed_tries: 0, transport_tries: 0, falls_before, ..row.changed() };
    Case { noted, ..case(row, around, Column::Back) }.requeue(reason)
}

fn case<'a>(row: &'a Row, around: &'a Around<'a>, column: Column) -> Case<'a> {
    Case { row, noted: row.changed(), around, column, detail: Detail::default() }
}
