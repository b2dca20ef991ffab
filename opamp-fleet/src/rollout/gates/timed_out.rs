//! `timed-out`: members that were connected when they were offered it and gave no answer in time, at whatever stage.
//!
//! An agent that was away at the offer never counts. One that is away within its grace is excused for so long; one that went
//! away before the offer reached it takes no part. A late answer takes it back.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::MemberState;
use crate::rollout::members::{Flags, RowView};

pub(super) struct TimedOut;

impl Rule for TimedOut {
    const KIND: GateKind = GateKind::TimedOut;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        let offered = match row.state() {
            MemberState::Offered | MemberState::Absent => true,
            MemberState::Deferred => false,
            _ => rules::has_received(row) || rules::has_settled(row),
        };
        offered && !row.has(Flags::WAS_AWAY)
    }

    fn tells(row: RowView<'_>) -> bool {
        !row.has(Flags::WAS_AWAY)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        row.state() == MemberState::TimedOut
    }

    fn excused(row: RowView<'_>) -> bool {
        row.state() == MemberState::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Reason;
    use crate::rollout::gates::Participation::{Excused, In, Out};
    use crate::rollout::gates::testing::{judged, row};

    const KIND: GateKind = GateKind::TimedOut;

    #[test]
    fn fires_at_every_stage() {
        for reason in [Reason::OfferTimeout, Reason::ApplyTimeout, Reason::VerifyTimeout] {
            assert_eq!(judged(KIND, &row(MemberState::TimedOut, reason, Flags::CONNECTED)), (In, true));
        }
    }

    #[test]
    fn does_not_fire_while_an_answer_may_come() {
        for state in [MemberState::Offered, MemberState::Applying, MemberState::Verified] {
            assert_eq!(judged(KIND, &row(state, Reason::Dispatched, Flags::CONNECTED)), (In, false));
        }
    }

    #[test]
    fn does_not_fire_for_who_is_or_was_away() {
        let away = row(MemberState::Absent, Reason::Nothing, Flags(0));
        assert_eq!(judged(KIND, &away), (Excused, false));
        let was_away = row(MemberState::TimedOut, Reason::ApplyTimeout, Flags::WAS_AWAY);
        assert_eq!(judged(KIND, &was_away).0, Out);
        assert_eq!(judged(KIND, &row(MemberState::Deferred, Reason::GraceOver, Flags(0))).0, Out);
    }
}
