//! `crash-loop`: members that fall again and again since their offer.
//!
//! A fall is a disconnect that was not announced, or a turn from well to ill other than right after one. So many within the
//! gate's window make a loop, whenever they come; without a window all of them do. An agent that fell as often in the window
//! before its offer is excused. Neither its start time nor APPLIED matters: agents move the one when they recover, and
//! report the other for what does not run.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::RowView;

/// So many falls are a loop.
pub(super) const FALLS: u8 = 3;

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
        row.falls_before() >= FALLS
    }

    fn comparable(row: RowView<'_>) -> bool {
        row.falls_before() < FALLS
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
        assert_eq!(judged(KIND, &fallen(MemberState::Delivered, 3, 2)), (In, true));
    }

    #[test]
    fn does_not_fire_for_one_restart_nor_for_who_fell_as_often_before() {
        assert_eq!(judged(KIND, &fallen(MemberState::Verified, 1, 0)), (In, false));
        assert_eq!(judged(KIND, &fallen(MemberState::Verified, 9, 3)).0, Excused);
        assert_eq!(judged(KIND, &fallen(MemberState::Offered, 9, 0)), (Out, false));
    }

    #[test]
    fn a_member_of_the_control_group_falls_as_well() {
        assert_eq!(judged(KIND, &fallen(MemberState::Control, 3, 0)), (Out, true));
        assert_eq!(judged(KIND, &fallen(MemberState::Control, 3, 3)), (Out, false));
    }
}
