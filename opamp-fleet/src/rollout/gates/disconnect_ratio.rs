//! `disconnect-ratio`: members that went away after the offer had reached them and stayed away.
//!
//! An agent that restarts on apply and is back within its grace never counts (R27). An agent that was away before the offer
//! never counts. An agent that announced its leaving never counts. One that comes back is not counted any more. This is the
//! one ratio in which a member that went away in flight stays: it is what the gate looks for.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::Reason;
use crate::rollout::members::{Flags, RowView};

pub(super) struct DisconnectRatio;

impl Rule for DisconnectRatio {
    const KIND: GateKind = GateKind::DisconnectRatio;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        rules::has_received(row)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        row.reason() == Reason::GraceOver && !row.has(Flags::CONNECTED)
    }

    fn excused(row: RowView<'_>) -> bool {
        row.has(Flags::WAS_AWAY)
    }

    fn comparable(row: RowView<'_>) -> bool {
        !row.has(Flags::WAS_AWAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::MemberState;
    use crate::rollout::gates::Participation::{Excused, In, Out};
    use crate::rollout::gates::testing::{judged, judged_again, row};
    use crate::rollout::members::Row;

    const KIND: GateKind = GateKind::DisconnectRatio;

    fn deferred(stage: MemberState, reason: Reason) -> Row {
        Row { stage, ..row(MemberState::Deferred, reason, Flags(0)) }
    }

    #[test]
    fn fires_for_who_went_away_in_flight_and_after() {
        assert_eq!(judged(KIND, &deferred(MemberState::Applying, Reason::GraceOver)), (In, true));
        let later = row(MemberState::Verified, Reason::GraceOver, Flags(0));
        assert_eq!(judged(KIND, &later), (In, true));
    }

    #[test]
    fn does_not_fire_within_the_grace_nor_for_who_is_back() {
        let absent =
            Row { stage: MemberState::Applying, ..row(MemberState::Absent, Reason::Nothing, Flags(0)) };
        assert_eq!(judged(KIND, &absent), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Verified, Reason::Reported, Flags(0))), (In, false));
        let back = row(MemberState::Verified, Reason::GraceOver, Flags::CONNECTED);
        assert_eq!(judged_again(KIND, &back), (In, false));
    }

    #[test]
    fn does_not_fire_for_who_announced_it_was_never_reached_or_was_away_before() {
        assert_eq!(judged(KIND, &deferred(MemberState::Applying, Reason::AnnouncedLeave)), (Out, false));
        assert_eq!(judged(KIND, &deferred(MemberState::Queued, Reason::GraceOver)), (Out, false));
        let before = row(MemberState::Verified, Reason::GraceOver, Flags::WAS_AWAY);
        assert_eq!(judged(KIND, &before).0, Excused);
    }

    #[test]
    fn a_member_of_the_control_group_counts_like_the_others_while_it_is_away_for_longer_than_its_grace() {
        let control = |reason, flags| judged(KIND, &row(MemberState::Control, reason, flags)).1;
        assert!(control(Reason::GraceOver, Flags(0)));
        assert!(
            !control(Reason::GraceOver, Flags::CONNECTED) && !control(Reason::GraceOver, Flags::WAS_AWAY)
        );
        assert!(!control(Reason::NotConnected, Flags(0)), "its grace runs");
        assert!(!control(Reason::AnnouncedLeave, Flags(0)));
    }
}
