//! `apply-failed`: members that could not apply the configuration.
//!
//! A first FAILED counts at once, while the member waits for another try and during it; a try that succeeds takes it back. So
//! does one from a member that had applied it, however late (R44): the gate has no window.
//! A member that reports no status never counts. One that runs a configuration nobody offered is `self-rollback`'s.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::{Flags, RowView};
use crate::rollout::{MemberState, Reason};

pub(super) struct ApplyFailed;

impl Rule for ApplyFailed {
    const KIND: GateKind = GateKind::ApplyFailed;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, counted: bool) -> bool {
        row.has(Flags::REPORTS_STATUS)
            && (rules::has_settled(row)
                || rules::failed_and_waits(row)
                || counted && rules::is_tried_again(row))
    }

    fn tells(row: RowView<'_>) -> bool {
        row.has(Flags::REPORTS_STATUS)
    }

    fn bad(row: RowView<'_>, counted: bool) -> bool {
        match row.state() {
            MemberState::Failed => row.reason() != Reason::LocalEdit,
            _ => rules::failed_and_waits(row) || counted && rules::is_tried_again(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, judged_again, row};

    const KIND: GateKind = GateKind::ApplyFailed;
    const STATUS: Flags = Flags::REPORTS_STATUS;

    #[test]
    fn fires_for_who_failed_and_for_who_waits_for_another_try() {
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::ReportedFailed, STATUS)), (In, true));
        assert_eq!(judged(KIND, &row(MemberState::Backoff, Reason::ReportedFailed, STATUS)), (In, true));
    }

    #[test]
    fn goes_on_counting_while_a_failed_member_is_tried_again_and_takes_it_back_when_that_succeeds() {
        for state in
            [MemberState::Queued, MemberState::Offered, MemberState::Delivered, MemberState::Applying]
        {
            assert_eq!(judged_again(KIND, &row(state, Reason::Dispatched, STATUS)), (In, true), "{state}");
            assert_eq!(judged(KIND, &row(state, Reason::Dispatched, STATUS)), (Out, false), "{state}");
        }
        let applied = row(MemberState::Applied, Reason::Reported, STATUS | Flags::APPLIED_SEEN);
        assert_eq!(judged_again(KIND, &applied), (Out, false));
        let verified = row(MemberState::Verified, Reason::Reported, STATUS | Flags::APPLIED_SEEN);
        assert_eq!(judged_again(KIND, &verified), (In, false));
    }

    #[test]
    fn does_not_fire_for_refusals_time_outs_local_edits_and_who_reports_no_status() {
        assert_eq!(judged(KIND, &row(MemberState::Rejected, Reason::Refused, STATUS)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::TimedOut, Reason::ApplyTimeout, STATUS)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::LocalEdit, STATUS)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::ReportedFailed, Flags(0))).0, Out);
        assert_eq!(judged(KIND, &row(MemberState::Backoff, Reason::ApplyTimeout, STATUS)), (Out, false));
    }
}
