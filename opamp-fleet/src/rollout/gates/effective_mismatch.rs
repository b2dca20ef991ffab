//! `effective-mismatch`: members that run something else than they were offered.
//!
//! Only agents whose effective configuration equalled their desired one before take part: where it is a merge, a difference
//! proves nothing, and the agent is blind for this gate. A difference counts as soon as the agent says so after it applied;
//! one that said nothing by the end of its verify time is `unverified`'s.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::{Flags, RowView};
use crate::rollout::{MemberState, Reason};

pub(super) struct EffectiveMismatch;

impl Rule for EffectiveMismatch {
    const KIND: GateKind = GateKind::EffectiveMismatch;

    fn eligible(row: RowView<'_>, _counted: bool) -> bool {
        row.has(Flags::EXACT_EFFECTIVE) && rules::has_applied(row)
    }

    fn tells(row: RowView<'_>) -> bool {
        row.has(Flags::EXACT_EFFECTIVE)
    }

    fn bad(row: RowView<'_>, counted: bool) -> bool {
        let said = row.reason() == Reason::EffectiveDiffers || row.state() == MemberState::Verified;
        !row.has(Flags::EFFECTIVE_SEEN) && (said || counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, judged_again, row};

    const KIND: GateKind = GateKind::EffectiveMismatch;
    const EXACT: Flags = Flags::EXACT_EFFECTIVE;

    #[test]
    fn fires_for_who_says_that_it_runs_something_else() {
        assert_eq!(judged(KIND, &row(MemberState::Applied, Reason::EffectiveDiffers, EXACT)), (In, true));
        assert_eq!(judged(KIND, &row(MemberState::Verified, Reason::Reported, EXACT)), (In, true));
    }

    #[test]
    fn stays_when_the_reason_of_the_row_becomes_another_one_until_it_is_equal() {
        let later = row(MemberState::Unverified, Reason::NoEvidence, EXACT);
        assert_eq!(judged_again(KIND, &later), (In, true));
        let equal = row(MemberState::Verified, Reason::EffectiveEqual, EXACT | Flags::EFFECTIVE_SEEN);
        assert_eq!(judged_again(KIND, &equal), (In, false));
    }

    #[test]
    fn does_not_fire_for_who_has_said_nothing_yet_and_for_merges() {
        assert_eq!(judged(KIND, &row(MemberState::Applied, Reason::Reported, EXACT)), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Unverified, Reason::NoEvidence, EXACT)), (In, false));
        let merge = row(MemberState::Verified, Reason::EffectiveDiffers, Flags::REPORTS_STATUS);
        assert_eq!(judged(KIND, &merge).0, Out);
    }
}
