//! `unverified`: members that can give no evidence, or not enough in time (R29).
//!
//! By default it observes, because most of a fleet may be so. The first wave is another matter: where more than half of it
//! is unverified, or nobody in it is well, somebody has to decide. Members without evidence never make a canary a success.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::MemberState;
use crate::rollout::members::RowView;

pub(super) struct Unverified;

impl Rule for Unverified {
    const KIND: GateKind = GateKind::Unverified;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        rules::has_settled(row)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        row.state() == MemberState::Unverified
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Reason;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, row};
    use crate::rollout::members::Flags;

    const KIND: GateKind = GateKind::Unverified;

    #[test]
    fn fires_for_who_gave_no_evidence() {
        assert_eq!(judged(KIND, &row(MemberState::Unverified, Reason::NoEvidence, Flags(0))), (In, true));
    }

    #[test]
    fn does_not_fire_for_success_failure_or_who_is_still_in_flight() {
        assert_eq!(judged(KIND, &row(MemberState::Verified, Reason::Reported, Flags(0))), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::ReportedFailed, Flags(0))), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Applied, Reason::Reported, Flags(0))), (Out, false));
    }
}
