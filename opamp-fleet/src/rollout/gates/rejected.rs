//! `rejected`: members that refused the configuration.
//!
//! A refusal is FAILED without having begun, from an agent that stayed connected. It is never tried again, so it counts at
//! once and for good. A member that reports no status never counts.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::MemberState;
use crate::rollout::members::{Flags, RowView};

pub(super) struct Rejected;

impl Rule for Rejected {
    const KIND: GateKind = GateKind::Rejected;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        row.has(Flags::REPORTS_STATUS) && rules::has_settled(row)
    }

    fn tells(row: RowView<'_>) -> bool {
        row.has(Flags::REPORTS_STATUS)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        row.state() == MemberState::Rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Reason;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, row};

    const KIND: GateKind = GateKind::Rejected;

    #[test]
    fn fires_for_who_refused() {
        let refused = row(MemberState::Rejected, Reason::Refused, Flags::REPORTS_STATUS);
        assert_eq!(judged(KIND, &refused), (In, true));
    }

    #[test]
    fn does_not_fire_for_who_tried_and_failed() {
        let failed = row(MemberState::Failed, Reason::ReportedFailed, Flags::REPORTS_STATUS);
        assert_eq!(judged(KIND, &failed), (In, false));
        let silent = row(MemberState::Verified, Reason::ReportedWell, Flags(0));
        assert_eq!(judged(KIND, &silent), (Out, false));
    }
}
