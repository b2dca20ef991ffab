//! Retries by class of failure; the counters survive leaving and joining again (R30).
//!
//! | class | tries | wait |
//! |---|---|---|
//! | failed | `failed` | `first_after`, doubled for each further try, at most `after_max` |
//! | refused | none: a refusal is never repeated | |
//! | timed out | `timeout` | as failed |
//! | transport: never delivered | `transport` | as failed |

use std::time::Duration;

use super::Around;
use crate::faults::seeded;
use crate::rollout::members::{Changed, Row};
use crate::rollout::{MemberState, Reason, RolloutState, Time, WaveState};

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Failed,
    Refused,
    TimedOut,
    Transport,
}

/// What becomes of a member that failed in this way: it backs off, or it has failed for good.
pub(super) fn after(class: Class, noted: Changed, row: &Row, reason: Reason, around: &Around<'_>) -> Changed {
    let retries = around.plan.settings.retries;
    let (used, most, state) = match class {
        Class::Failed => (row.failed_tries, retries.failed, MemberState::Failed),
        Class::Refused => (row.failed_tries, refused_most(around), MemberState::Rejected),
        Class::TimedOut => (row.transport_tries, retries.timeout, MemberState::TimedOut),
        Class::Transport => (row.transport_tries, retries.transport, MemberState::TimedOut),
    };
    let tries = used.saturating_add(1);
    let (failed_tries, transport_tries) = match class {
        Class::Failed | Class::Refused => (tries, row.transport_tries),
        Class::TimedOut | Class::Transport => (row.failed_tries, tries),
    };
    let (state, deadline) = if used < most && goes_on(around) {
        (MemberState::Backoff, around.now + wait(used, retries.first_after, retries.after_max))
    } else {
        (state, Time::NEVER)
    };
    Changed {
        state,
        reason,
        stage: state,
        failed_tries,
        transport_tries,
        since: around.now,
        deadline,
        ..noted
    }
}

/// A refusal is final, but for a seeded bug.
fn refused_most(around: &Around<'_>) -> u8 {
    if seeded!(around.faults, RetryOfRejected) { u8::MAX } else { 0 }
}

/// Whether a further try would ever be made.
fn goes_on(around: &Around<'_>) -> bool {
    matches!(around.rollout, RolloutState::Running | RolloutState::Paused) && around.wave != WaveState::Failed
}

/// The wait after so many tries: doubled for each, up to the longest.
fn wait(used: u8, first: Duration, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(u32::from(used)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let (first, longest) = (Duration::from_secs(30), Duration::from_secs(900));
        let waits: Vec<_> = (0..7).map(|used| wait(used, first, longest).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(wait(200, first, longest), longest);
    }
}
