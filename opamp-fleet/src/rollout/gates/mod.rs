//! Gates: what stops a rollout, and over which members.
//!
//! ```text
//! fact, deadline ─► row ─► bad_bits ─► Entry::Member ─► count (wave, all waves, failure domain) ─► judge ─► Evidence
//! ```
//!
//! A member takes part in a gate from some stage of its offer on, and is against it or not; each gate that counts members
//! says in its own file what that means for it. Which gates a member is against is decided when something becomes known of
//! it, windows considered, and kept in its row; everything else follows from rows, so that counts equal a recount at any
//! time. Judging compares counts with limits that the plan holds: integers only.

mod apply_failed;
mod check;
mod config;
mod count;
mod crash_loop;
mod defaults;
mod disconnect_ratio;
mod effective_mismatch;
mod expected;
mod external;
mod judge;
mod limits;
mod mass_disconnect;
mod nothing_succeeds;
mod readings;
mod rejected;
mod rules;
mod self_rollback;
mod telemetry;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timed_out;
mod unhealthy;
mod unverified;
mod verdict;

pub use check::{check, longest_window};
pub(crate) use check::{total_fault, watch};
pub use config::{Boundaries, GateConfig, GateKind, NoData, Scopes, Severity, Test, TestKind, Undecided};
pub use count::{GateCount, GateState};
pub(crate) use count::{Participation, count, count_both, count_control, count_zone, mark, recount};
pub(crate) use crash_loop::FALLS;
pub use defaults::defaults;
pub(crate) use expected::{CONTROL_MIN, Expected};
pub(crate) use judge::{Facts, Neighbours, judge};
pub use limits::boundaries;
pub(crate) use readings::Readings;
pub(crate) use rules::is_settled;
pub use verdict::{Evidence, Limit, ScopeAt, Verdict};

use super::members::{Flags, Pace, RowView};
use super::plan::Plan;
use super::{GateIx, Time};

/// The gates a member is against, one bit each: what its row keeps. Asked when a fact or a deadline has changed the row;
/// `row.bad` is still what it was. `is_watched`: its wave has begun and is not over, or the rollout bakes.
///
/// A member begins to be against a gate within the gate's window or as long as it is watched, whichever is longer, and
/// ceases to be at any time.
pub(crate) fn bad_bits(plan: &Plan, row: RowView<'_>, pace: Pace, now: Time, is_watched: bool) -> u16 {
    let mut bits = 0;
    for (gate, config) in numbered(plan) {
        let Some(rule) = rules::of(config.kind) else { continue };
        if rule.is_bad(gate, row)
            && (row.counts_against(gate)
                || is_watched
                || rule.is_always_in_time(row)
                || is_in_window(plan, config, row, pace, now))
        {
            bits |= gate.bit();
        }
    }
    bits
}

/// Whether the window of gates of this kind is looked at: the others count what comes of an offer whenever it comes.
pub(crate) fn has_window(kind: GateKind) -> bool {
    kind == GateKind::CrashLoop || rules::of(kind).is_some_and(rules::Functions::has_window)
}

/// Whether a gate's window is still open for a member. That of `disconnect-ratio` is longer by the grace, because whoever
/// goes away within it is known to be away only then.
fn is_in_window(plan: &Plan, config: &GateConfig, row: RowView<'_>, pace: Pace, now: Time) -> bool {
    let grace = match config.kind {
        GateKind::DisconnectRatio => {
            let deadlines = &plan.settings.deadlines;
            super::member::grace(deadlines, pace, row.has(Flags::POLLING))
        }
        _ => std::time::Duration::ZERO,
    };
    config.window.is_zero() || now <= row.window_from() + config.window + grace
}

/// What a failure of a gate leads to. `all_failed`: every member of the first wave failed; for `unverified`: it failed in
/// the first wave. A gate that observes does nothing else then either, but for `unverified`.
pub(crate) fn severity(config: &GateConfig, all_failed: bool) -> Severity {
    let is_asked = config.acts() || config.kind == GateKind::Unverified;
    match config.all_failed {
        Some(severity) if all_failed && is_asked => severity,
        _ => config.severity,
    }
}

/// Whether a gate of this kind counts members that have failed in some way; who gives no evidence has not.
pub(crate) fn counts_members(kind: GateKind) -> bool {
    kind != GateKind::Unverified && rules::of(kind).is_some()
}

/// Whether members count against a gate of this kind by what came of their offer, and not by what they do later.
pub(crate) fn is_known_at_once(kind: GateKind) -> bool {
    matches!(
        kind,
        GateKind::ApplyFailed | GateKind::NothingSucceeds | GateKind::Rejected | GateKind::TimedOut
    )
}

/// By how many members at most an undecided wave may grow; none if somebody has to decide. Only tests that members can
/// decide are worth more members.
pub(crate) fn stretches(config: &GateConfig, evidence: &Evidence) -> Option<u8> {
    let undecided = evidence.verdict == Verdict::Inconclusive && evidence.test == TestKind::Sequential;
    match config.undecided {
        Undecided::Stretch { max } if undecided => Some(max),
        Undecided::Hold | Undecided::Stretch { .. } => None,
    }
}

/// The gates of a plan with their positions.
fn numbered(plan: &Plan) -> impl Iterator<Item = (GateIx, &GateConfig)> {
    (0_u8..).map(GateIx).zip(plan.gates.iter())
}
