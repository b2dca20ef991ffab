//! `crash-loop`: members that fall again and again since their offer.
//!
//! A fall is a disconnect that was not announced, or a turn from well to ill other than right after one. So many within the
//! gate's window make a loop, whenever they come; without a window all of them do. An agent that fell twice in the window
//! before its offer is excused: at that pace a third fall is due within it, and whether it came before the offer or after it
//! says nothing. Neither its start time nor APPLIED matters: agents move the one when they recover, and
//! report the other for what does not run.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::RowView;

/// So many falls are a loop.
pub(crate) const FALLS: u8 = 3;

/// So many before the offer are the pace of one.
const FALLS_BEFORE: u8 = FALLS - 1;

pub(super) struct CrashLoop;

impl Rule for CrashLoop {
    const KIND: GateKind = GateKind::CrashLoop;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        rules::has_received(row)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        row.falls() >= FALLS
    }

    fn excused(row: RowView<'_>) -> bool {
        row.falls_before() >= FALLS_BEFORE
    }

    fn comparable(row: RowView<'_>) -> bool {
        row.falls_before() < FALLS_BEFORE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{Excused, In, Out};
    use crate::rollout::gates::testing::{judged, row};
    use crate::rollout::members::{Flags, Row};
    use crate::rollout::{MemberState, Reason};

    const KIND: GateKind = GateKind::CrashLoop;

    fn fallen(state: MemberState, falls: u8, falls_before: u8) -> Row {
        Row { falls, falls_before, ..row(state, Reason::Reported, Flags::APPLIED_SEEN) }
    }

    #[test]
    fn fires_at_the_third_fall_although_the_agent_reported_applied() {
        assert_eq!(judged(KIND, &fallen(MemberState::Verified, 3, 0)), (In, true));
        assert_eq!(judged(KIND, &fallen(MemberState::Delivered, 3, 1)), (In, true));
    }

    #[test]
    fn does_not_fire_for_one_restart_nor_for_who_fell_as_often_before() {
        assert_eq!(judged(KIND, &fallen(MemberState::Verified, 1, 0)), (In, false));
        assert_eq!(judged(KIND, &fallen(MemberState::Verified, 3, 2)).0, Excused);
        assert_eq!(judged(KIND, &fallen(MemberState::Offered, 3, 0)), (Out, false));
    }

    #[test]
    fn a_member_of_the_control_group_falls_as_well() {
        assert_eq!(judged(KIND, &fallen(MemberState::Control, 3, 0)), (Out, true));
        assert_eq!(judged(KIND, &fallen(MemberState::Control, 3, 2)), (Out, false));
    }
}
