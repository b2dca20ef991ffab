//! `self-rollback`: members that took the configuration and went back, or on to something nobody offered.
//!
//! It counts until the rollout ends, however late: by default the gate has no window. An agent that reports no status never
//! counts.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::{Flags, RowView};
use crate::rollout::{MemberState, Reason};

pub(super) struct SelfRollback;

impl Rule for SelfRollback {
    const KIND: GateKind = GateKind::SelfRollback;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        row.has(Flags::REPORTS_STATUS) && rules::has_received(row)
    }

    fn tells(row: RowView<'_>) -> bool {
        row.has(Flags::REPORTS_STATUS)
    }

    fn bad(row: RowView<'_>, _counted: bool) -> bool {
        match row.state() {
            MemberState::SelfRolledBack => true,
            MemberState::Failed => row.reason() == Reason::LocalEdit,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, row};

    const KIND: GateKind = GateKind::SelfRollback;
    const STATUS: Flags = Flags::REPORTS_STATUS;

    #[test]
    fn fires_for_who_went_back_and_for_who_went_elsewhere() {
        assert_eq!(judged(KIND, &row(MemberState::SelfRolledBack, Reason::WentBack, STATUS)), (In, true));
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::LocalEdit, STATUS)), (In, true));
    }

    #[test]
    fn does_not_fire_for_who_failed_or_stays() {
        assert_eq!(judged(KIND, &row(MemberState::Failed, Reason::ReportedFailed, STATUS)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Verified, Reason::Reported, STATUS)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::SelfRolledBack, Reason::WentBack, Flags(0))).0, Out);
    }
}
