//! `unhealthy`: members that were well at the offer and are ill now.
//!
//! An agent that was ill before the offer is excused (R41). Agents report health when it changes, so the last report holds
//! and no fresh one is demanded. One that recovers is not counted any more. An agent that reports no health never counts.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::{Flags, RowView};

pub(super) struct Unhealthy;

impl Rule for Unhealthy {
    const KIND: GateKind = GateKind::Unhealthy;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        row.has(Flags::REPORTS_HEALTH) && rules::has_applied(row)
    }

    fn tells(row: RowView<'_>) -> bool {
        row.has(Flags::REPORTS_HEALTH)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        !row.has(Flags::HEALTHY)
    }

    fn excused(row: RowView<'_>) -> bool {
        row.has(Flags::WAS_UNHEALTHY)
    }

    fn comparable(row: RowView<'_>) -> bool {
        row.has(Flags::REPORTS_HEALTH) && !row.has(Flags::WAS_UNHEALTHY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{Excused, In, Out};
    use crate::rollout::gates::testing::{judged, judged_again, row};
    use crate::rollout::{MemberState, Reason};

    const KIND: GateKind = GateKind::Unhealthy;
    const HEALTH: Flags = Flags::REPORTS_HEALTH;

    #[test]
    fn fires_for_who_was_well_and_is_ill() {
        for state in [MemberState::Applied, MemberState::Verified, MemberState::Unverified] {
            assert_eq!(judged(KIND, &row(state, Reason::Reported, HEALTH)), (In, true), "{state}");
        }
        assert_eq!(judged(KIND, &row(MemberState::TimedOut, Reason::VerifyTimeout, HEALTH)), (In, true));
    }

    #[test]
    fn does_not_fire_for_who_recovers_was_ill_before_or_reports_no_health() {
        let well = row(MemberState::Verified, Reason::Reported, HEALTH | Flags::HEALTHY);
        assert_eq!(judged_again(KIND, &well), (In, false));
        let before = row(MemberState::Verified, Reason::Reported, HEALTH | Flags::WAS_UNHEALTHY);
        assert_eq!(judged(KIND, &before).0, Excused);
        assert_eq!(judged(KIND, &row(MemberState::Verified, Reason::Reported, Flags(0))).0, Out);
    }

    #[test]
    fn does_not_fire_before_the_configuration_is_applied() {
        assert_eq!(judged(KIND, &row(MemberState::Applying, Reason::Reported, HEALTH)).0, Out);
    }

    #[test]
    fn a_member_of_the_control_group_counts_while_it_is_ill_and_was_not_before() {
        let control = |flags| judged(KIND, &row(MemberState::Control, Reason::ControlGroup, flags));
        assert_eq!(control(HEALTH), (Out, true), "in no ratio of the rollout");
        assert!(!control(HEALTH | Flags::HEALTHY).1 && !control(HEALTH | Flags::WAS_UNHEALTHY).1);
    }
}
