//! `nothing-succeeds`: the first members fail, in whatever way, and none succeeds.
//!
//! It stops a total fault after three members, before any statistics can. A failure counts at once, whatever its class, and
//! while its member is tried again; a single success, or one that gives no evidence, disarms it in its scope. Of
//! fewer members it is asked at the end, like every gate that counts members: of a rollout to one agent, which fails, nobody
//! must hear that it has succeeded.

use super::GateKind;
use super::rules::{self, Rule};
use crate::rollout::members::RowView;
use crate::rollout::{MemberState, Reason};

pub(super) struct NothingSucceeds;

impl Rule for NothingSucceeds {
    const KIND: GateKind = GateKind::NothingSucceeds;
    const ALWAYS_IN_TIME: bool = true;

    fn eligible(row: RowView<'_>, counted: bool) -> bool {
        rules::has_settled(row)
            || row.state() == MemberState::Backoff
            || counted && rules::is_tried_again(row)
    }

    fn bad(row: RowView<'_>, counted: bool) -> bool {
        match row.state() {
            // What somebody has put in its place says nothing of what was offered.
            MemberState::Failed => row.reason() != Reason::LocalEdit,
            MemberState::Backoff
            | MemberState::Rejected
            | MemberState::SelfRolledBack
            | MemberState::TimedOut => true,
            _ => counted && rules::is_tried_again(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::Participation::{In, Out};
    use crate::rollout::gates::testing::{judged, judged_again, row};
    use crate::rollout::members::Flags;

    const KIND: GateKind = GateKind::NothingSucceeds;

    #[test]
    fn fires_for_every_way_to_fail_and_for_every_class_of_retry() {
        for state in [
            MemberState::Backoff,
            MemberState::Failed,
            MemberState::Rejected,
            MemberState::SelfRolledBack,
            MemberState::TimedOut,
        ] {
            assert_eq!(judged(KIND, &row(state, Reason::TransportFailed, Flags(0))), (In, true), "{state}");
        }
        assert_eq!(judged_again(KIND, &row(MemberState::Offered, Reason::Dispatched, Flags(0))), (In, true));
    }

    #[test]
    fn does_not_fire_for_success_for_who_gives_no_evidence_and_for_who_is_on_its_way() {
        assert_eq!(judged_again(KIND, &row(MemberState::Verified, Reason::Reported, Flags(0))), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Unverified, Reason::NoEvidence, Flags(0))), (In, false));
        assert_eq!(judged(KIND, &row(MemberState::Offered, Reason::Dispatched, Flags(0))), (Out, false));
        assert_eq!(judged(KIND, &row(MemberState::Deferred, Reason::GraceOver, Flags(0))), (Out, false));
    }
}
