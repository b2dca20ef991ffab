//! What an operator sees of a member.

use super::MemberState;
use crate::words::closed_set;

closed_set! {
    /// What an operator sees of a member: its stored state, seen together with its wave and its rollout.
    pub enum Shown ("shown member state") {
        /// As [`MemberState::Queued`].
        Queued = "queued",
        /// As [`MemberState::Backoff`].
        Backoff = "backoff",
        /// As [`MemberState::Offered`].
        Offered = "offered",
        /// As [`MemberState::Delivered`].
        Delivered = "delivered",
        /// As [`MemberState::Applying`].
        Applying = "applying",
        /// As [`MemberState::Applied`].
        Applied = "applied",
        /// As [`MemberState::Absent`].
        Absent = "absent",
        /// As [`MemberState::Verified`].
        Verified = "verified",
        /// As [`MemberState::Unverified`].
        Unverified = "unverified",
        /// As [`MemberState::AlreadyCurrent`].
        AlreadyCurrent = "already-current",
        /// As [`MemberState::NotApplicable`].
        NotApplicable = "not-applicable",
        /// As [`MemberState::Excluded`].
        Excluded = "excluded",
        /// As [`MemberState::Control`].
        Control = "control",
        /// As [`MemberState::Removed`].
        Removed = "removed",
        /// As [`MemberState::Expired`].
        Expired = "expired",
        /// As [`MemberState::Failed`].
        Failed = "failed",
        /// As [`MemberState::Rejected`].
        Rejected = "rejected",
        /// As [`MemberState::SelfRolledBack`].
        SelfRolledBack = "self-rolled-back",
        /// As [`MemberState::TimedOut`].
        TimedOut = "timed-out",
        /// As [`MemberState::Deferred`].
        Deferred = "deferred",
        /// As [`MemberState::RollbackQueued`].
        RollbackQueued = "rollback-queued",
        /// As [`MemberState::RollbackOffered`].
        RollbackOffered = "rollback-offered",
        /// As [`MemberState::RolledBack`].
        RolledBack = "rolled-back",
        /// As [`MemberState::RollbackFailed`].
        RollbackFailed = "rollback-failed",
        /// As [`MemberState::RollbackDeferred`].
        RollbackDeferred = "rollback-deferred",
        /// Queued, and something stands in the way.
        Blocked = "blocked",
        /// Verified, and its wave or the rollout is still watched.
        Soaking = "soaking",
        /// Verified, and the rollout has succeeded.
        Done = "done",
        /// Queued when the rollout was stopped.
        Dropped = "dropped",
        /// Queued when the rollout was superseded.
        Superseded = "superseded",
    }
}

impl From<MemberState> for Shown {
    fn from(state: MemberState) -> Self {
        // The first words of `Shown` are those of `MemberState`, in the same order; a test compares them.
        Self::ALL[state.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_begins_with_the_words_of_what_is_stored() {
        for state in MemberState::ALL {
            assert_eq!(Shown::from(state).as_str(), state.as_str());
        }
        assert_eq!(Shown::ALL.len(), MemberState::ALL.len() + 5);
    }
}
