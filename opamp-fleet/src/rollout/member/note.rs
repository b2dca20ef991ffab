//! What a fact tells of a member whatever it does to its state: flags and falls, which gates look at.

use std::time::Duration;

use opamp_proto::AgentCapabilities;

use super::cell::Column;
use super::{Around, Step};
use crate::rollout::gates::{FALLS, GateKind};
pub(super) use crate::rollout::members::TRIED;
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::{AgentFact, MemberState, Reason, Time};

/// The row with what a fact tells, in the state it is in.
pub(super) fn noted(row: &Row, column: Column, fact: &AgentFact<'_>, around: &Around<'_>) -> Changed {
    let mut noted = row.changed();
    if !is_followed(row) {
        return noted;
    }
    let flags = &mut noted.flags;
    match column {
        Column::Back => *flags |= Flags::CONNECTED,
        Column::Gone => {
            let announced = matches!(fact, AgentFact::Disconnected { announced: true });
            if flags.contains(Flags::CONNECTED) && !announced {
                fall(&mut noted, row, around);
            }
            noted.flags = noted.flags.set(Flags::CONNECTED, false);
        }
        Column::Well => {
            *flags |= Flags::HEALTHY;
            if has_offer(row) {
                *flags |= Flags::HEALTHY_SINCE;
            }
        }
        Column::Ill => {
            // Who comes back ill has fallen once, and not once more.
            if flags.contains(Flags::HEALTHY) && row.reason != Reason::Returned {
                fall(&mut noted, row, around);
            }
            noted.flags = noted.flags.set(Flags::HEALTHY | Flags::HEALTHY_SINCE, false);
        }
        Column::Applied if has_offer(row) => {
            *flags = (*flags | Flags::APPLIED_SEEN).set(Flags::FAILED_SEEN, false);
        }
        Column::Failed if has_offer(row) => {
            *flags = (*flags | Flags::FAILED_SEEN).set(Flags::APPLIED_SEEN, false);
        }
        Column::Equal if has_offer(row) => {
            *flags |= Flags::EFFECTIVE_SEEN;
            if noted.reason == Reason::EffectiveDiffers {
                noted.reason = Reason::EffectiveEqual;
            }
        }
        Column::Differs => {
            *flags = flags.set(Flags::EFFECTIVE_SEEN, false);
            if flags.contains(Flags::EXACT_EFFECTIVE) && has_applied(row.state) {
                noted.reason = Reason::EffectiveDiffers;
            }
        }
        Column::CapsLost => {
            if let AgentFact::Capabilities(capabilities) = fact {
                *flags = reports(*flags, *capabilities);
            }
        }
        Column::Applied
        | Column::Failed
        | Column::Equal
        | Column::Delivered
        | Column::Applying
        | Column::Left
        | Column::Other
        | Column::Withheld
        | Column::Removed
        | Column::Deadline
        | Column::Exclude
        | Column::RollBack
        | Column::Stop => {}
    }
    noted
}

/// What a fact tells that has no column: capabilities that suffice, and health from before the present offer was
/// delivered. That is no evidence about the offer, but it is how the agent was when it got it.
pub(super) fn without_column(row: &Row, fact: &AgentFact<'_>, around: &Around<'_>) -> Step {
    let mut noted = row.changed();
    if !is_followed(row) {
        return Step::default();
    }
    match *fact {
        AgentFact::Capabilities(capabilities) => noted.flags = reports(noted.flags, capabilities),
        AgentFact::Health { offer, healthy } if offer < row.offer && !is_delivered(row) => {
            if !healthy && noted.flags.contains(Flags::HEALTHY) {
                fall(&mut noted, row, around);
            }
            noted.flags = noted.flags.set(Flags::HEALTHY, healthy);
            // It was so before the offer reached it. Later tries are compared with how it was before the first.
            if row.offer == 1 {
                noted.flags = noted.flags.set(Flags::WAS_UNHEALTHY, !healthy);
            }
        }
        AgentFact::Connected
        | AgentFact::Delivered { .. }
        | AgentFact::Disconnected { .. }
        | AgentFact::Effective { .. }
        | AgentFact::Health { .. }
        | AgentFact::Joined(_)
        | AgentFact::Left
        | AgentFact::Removed
        | AgentFact::Reported { .. }
        | AgentFact::Withheld { .. } => {}
    }
    Step { row: (noted != row.changed()).then_some(noted), ..Step::default() }
}

/// Whether anything is still noted of the member. Who left the ratios for good without having been touched is not followed.
fn is_followed(row: &Row) -> bool {
    match row.state {
        MemberState::Removed => false,
        MemberState::AlreadyCurrent
        | MemberState::NotApplicable
        | MemberState::Excluded
        | MemberState::Expired => row.flags.contains(Flags::TOUCHED),
        MemberState::Queued
        | MemberState::Backoff
        | MemberState::Offered
        | MemberState::Delivered
        | MemberState::Applying
        | MemberState::Applied
        | MemberState::Absent
        | MemberState::Verified
        | MemberState::Unverified
        | MemberState::Control
        | MemberState::Failed
        | MemberState::Rejected
        | MemberState::SelfRolledBack
        | MemberState::TimedOut
        | MemberState::Deferred
        | MemberState::RollbackQueued
        | MemberState::RollbackOffered
        | MemberState::RolledBack
        | MemberState::RollbackFailed
        | MemberState::RollbackDeferred => true,
    }
}

/// Whether the member has an offer, so that a report can be about it.
pub(super) const fn has_offer(row: &Row) -> bool {
    row.offer > 0
}

/// Whether a different effective configuration contradicts what it said.
const fn has_applied(state: MemberState) -> bool {
    matches!(state, MemberState::Applied | MemberState::Verified | MemberState::Unverified)
}

/// Whether nothing has failed yet: how the member was before the first try is what it is compared with.
pub(super) const fn is_first_try(row: &Row) -> bool {
    row.transport_tries == 0 && row.failed_tries == 0
}

/// Whether an operator has let it be tried again: it is not as it was before its first offer.
pub(crate) const fn has_been_tried(row: &Row) -> bool {
    row.falls_before & TRIED != 0
}

/// Whether its present offer may have reached it.
pub(super) const fn is_delivered(row: &Row) -> bool {
    !matches!(row.stage, MemberState::Queued | MemberState::Offered | MemberState::RollbackOffered)
}

fn reports(flags: Flags, capabilities: AgentCapabilities) -> Flags {
    flags
        .set(Flags::REPORTS_STATUS, capabilities.contains(AgentCapabilities::REPORTS_REMOTE_CONFIG))
        .set(Flags::REPORTS_HEALTH, capabilities.contains(AgentCapabilities::REPORTS_HEALTH))
}

/// How far back falls before the offer are looked at if no gate says so.
pub(crate) const FALLS_BEFORE: Duration = Duration::from_secs(600);

/// Counts a fall: how many of those since the offer lie within the window of the gate that asks, up to this one. Without a
/// window all of them do. Three are a loop, whatever comes later.
fn fall(noted: &mut Changed, row: &Row, around: &Around<'_>) {
    noted.fell = row.fell.again(around.now);
    if row.falls < FALLS {
        let close = falls_window(around).map_or(row.falls, |window| row.fell.within(window, around.now));
        noted.falls = 1 + close.min(row.falls);
    }
}

/// How many of the last two falls were shortly before now.
pub(super) fn falls_before(row: &Row, around: &Around<'_>) -> u8 {
    row.fell.within(falls_window(around).unwrap_or(FALLS_BEFORE), around.now)
}

/// How close to each other falls are that count together, if the gate that asks says so.
fn falls_window(around: &Around<'_>) -> Option<Duration> {
    let crash_loop = around.plan.gates.iter().find(|gate| gate.kind == GateKind::CrashLoop);
    crash_loop.map(|gate| gate.window).filter(|window| !window.is_zero())
}

/// The deadline of a member that has settled and is not connected: its grace, which begins now; none if it is there.
pub(super) fn grace_if_away(flags: Flags, grace: Duration, now: Time) -> Time {
    if flags.contains(Flags::CONNECTED) { Time::NEVER } else { now + grace }
}
