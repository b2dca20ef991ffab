//! Which deadline a member has: by stage, transport, and grace (R26, R27, R28).
//!
//! | stage | a connected agent | one that polls every `i` |
//! |---|---|---|
//! | offered | `offer` | `offer` + polls × i |
//! | delivered, applying | `apply` | `apply` + polls × i |
//! | applied | `verify`, at least three heartbeats | the same |
//! | away | `grace_min`, at least three heartbeats | the same, at least polls × i |

use std::time::Duration;

use super::{Around, evidence};
use crate::rollout::members::{Flags, Pace};
use crate::rollout::{Deadlines, MemberState, Spans};

/// How often a returning member gets the whole span of its stage again.
pub(super) const RETURNS_MAX: u8 = 3;

/// How often a member that goes back may go away and be waited for: more often, since many go back because they fall, and get
/// their good configuration between two falls.
pub(crate) const ROLLBACK_RETURNS_MAX: u8 = 10;

/// Instead of how often: it had been away for longer than its grace when its turn to go back came.
pub(super) const AWAY_BEFORE: u8 = u8::MAX;

/// How often an agent is heard of that has not said how often.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long a stage may take. Stages that wait for nothing have no span.
pub(super) fn of_stage(stage: MemberState, flags: Flags, around: &Around<'_>) -> Option<Duration> {
    match stage {
        MemberState::Offered => Some(offer(flags, around)),
        // Who can give no evidence is not waited for as if it could.
        MemberState::Delivered if !evidence::can_be_given(flags) => Some(verify(around)),
        MemberState::Delivered | MemberState::Applying => Some(apply(flags, around)),
        MemberState::Applied => Some(verify(around)),
        MemberState::Absent | MemberState::RollbackDeferred => Some(grace_of(flags, around)),
        MemberState::Deferred => Some(around.plan.settings.deferred_ttl),
        MemberState::RollbackOffered => {
            Some(offer(flags, around).saturating_add(apply(flags, around)).saturating_add(verify(around)))
        }
        MemberState::Queued
        | MemberState::Backoff
        | MemberState::Verified
        | MemberState::Unverified
        | MemberState::AlreadyCurrent
        | MemberState::NotApplicable
        | MemberState::Excluded
        | MemberState::Control
        | MemberState::Removed
        | MemberState::Expired
        | MemberState::Failed
        | MemberState::Rejected
        | MemberState::SelfRolledBack
        | MemberState::TimedOut
        | MemberState::RollbackQueued
        | MemberState::RolledBack
        | MemberState::RollbackFailed => None,
    }
}

/// How long an agent may be away without that counting (R27): some heartbeats, and for one that polls the polls it may
/// miss.
pub(crate) fn grace(deadlines: &Deadlines, pace: Pace, polling: bool) -> Duration {
    let interval = interval(pace);
    let heartbeats = interval.saturating_mul(u32::from(deadlines.grace_heartbeats));
    let polls = if polling { interval.saturating_mul(u32::from(deadlines.polls)) } else { Duration::ZERO };
    deadlines.grace_min.max(heartbeats).max(polls)
}

/// The same for one member.
pub(super) fn grace_of(flags: Flags, around: &Around<'_>) -> Duration {
    grace(&around.plan.settings.deadlines, around.pace, flags.contains(Flags::POLLING))
}

/// From delivery to APPLIED.
pub(super) fn apply(flags: Flags, around: &Around<'_>) -> Duration {
    spans(around).apply.saturating_add(polls(flags, around))
}

fn offer(flags: Flags, around: &Around<'_>) -> Duration {
    spans(around).offer.saturating_add(polls(flags, around))
}

fn verify(around: &Around<'_>) -> Duration {
    let heartbeats = u32::from(around.plan.settings.deadlines.grace_heartbeats);
    spans(around).verify.max(interval(around.pace).saturating_mul(heartbeats))
}

/// The polls that an agent may miss, as time; nothing for one that stays connected.
fn polls(flags: Flags, around: &Around<'_>) -> Duration {
    if flags.contains(Flags::POLLING) {
        interval(around.pace).saturating_mul(u32::from(around.plan.settings.deadlines.polls))
    } else {
        Duration::ZERO
    }
}

fn interval(pace: Pace) -> Duration {
    match pace.interval_s {
        0 => INTERVAL,
        seconds => Duration::from_secs(u64::from(seconds)),
    }
}

/// The spans of the member's agent type, or those of all.
fn spans(around: &Around<'_>) -> Spans {
    let deadlines = &around.plan.settings.deadlines;
    let own = usize::from(around.pace.spans).checked_sub(1);
    let all = Spans { offer: deadlines.offer, apply: deadlines.apply, verify: deadlines.verify };
    own.and_then(|at| deadlines.by_agent_type.values().nth(at)).copied().unwrap_or(all)
}
