//! Which states a member may go to from which: the edges of the member table, of claims, and of coming back.

use super::MemberState;

impl MemberState {
    /// Whether a step of the member table leads from this state to `to`. A member may also stay what it is while its row
    /// changes.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        self as u8 == to as u8 || EDGES[self as usize] >> to as u32 & 1 == 1
    }

    /// Whether a member in this state can have this stage.
    pub(crate) const fn may_be_at(self, stage: Self) -> bool {
        match self {
            Self::Absent | Self::Deferred | Self::Expired => true,
            Self::RollbackQueued if matches!(stage, Self::Failed | Self::TimedOut) => true,
            Self::Excluded if matches!(stage, Self::RollbackQueued) => true,
            _ => self as u8 == stage as u8,
        }
    }
}

/// For each member state, in the order of their numbers, one bit for each state that a step leads to.
const EDGES: [u32; MemberState::ALL.len()] = {
    use MemberState as M;
    [
        // Queued
        to(&[M::Offered, M::Deferred, M::AlreadyCurrent, M::Excluded, M::NotApplicable, M::Removed])
            // A member that is tried again, whose late report arrives or whose rollout goes back while it is queued.
            | to(&[M::Applied, M::Verified, M::Failed, M::RollbackQueued]),
        // Backoff
        to(&[
            M::Queued,
            M::Applied,
            M::Verified,
            M::SelfRolledBack,
            M::NotApplicable,
            M::Rejected,
            M::Excluded,
        ]) | to(&[M::Removed, M::RollbackQueued, M::Failed, M::TimedOut]),
        // Offered
        to(&[M::Delivered, M::Applying, M::Applied, M::Verified, M::Rejected, M::Absent, M::NotApplicable])
            | to(&[M::TimedOut, M::Backoff, M::Deferred, M::Excluded, M::Removed, M::RollbackQueued]),
        // Delivered
        to(&[M::Applying, M::Applied, M::Verified, M::Rejected, M::Absent, M::NotApplicable, M::TimedOut])
            | to(&[M::Backoff, M::Unverified, M::Failed, M::Excluded, M::Removed, M::RollbackQueued]),
        // Applying
        to(&[M::Applied, M::Verified, M::Failed, M::Backoff, M::SelfRolledBack, M::Absent, M::TimedOut])
            | to(&[M::Excluded, M::Removed, M::RollbackQueued]),
        // Applied
        to(&[M::Verified, M::Unverified, M::Failed, M::SelfRolledBack, M::Absent, M::TimedOut])
            | to(&[M::Excluded, M::Removed, M::RollbackQueued]),
        // Absent
        to(&[
            M::Offered,
            M::Delivered,
            M::Applying,
            M::Applied,
            M::Verified,
            M::Rejected,
            M::Failed,
            M::Backoff,
        ]) | to(&[M::SelfRolledBack, M::Deferred, M::Excluded, M::Removed, M::RollbackQueued]),
        // Verified
        to(&[M::Failed, M::SelfRolledBack, M::Removed, M::RollbackQueued]),
        // Unverified
        to(&[
            M::Applying,
            M::Applied,
            M::Verified,
            M::Failed,
            M::SelfRolledBack,
            M::Removed,
            M::RollbackQueued,
        ]),
        // AlreadyCurrent
        to(&[M::Excluded, M::Removed]),
        // NotApplicable
        to(&[M::Excluded, M::Removed]),
        // Excluded
        to(&[M::Queued, M::Removed, M::RollbackQueued])
            // What the preflight makes of one that had left and is back.
            | to(&[M::AlreadyCurrent, M::NotApplicable]),
        // Control
        to(&[M::Queued, M::AlreadyCurrent, M::NotApplicable, M::Excluded, M::Removed]),
        // Removed
        to(&[M::Queued, M::AlreadyCurrent, M::Excluded, M::NotApplicable]),
        // Expired
        to(&[M::Removed, M::RollbackDeferred]),
        // Failed
        to(&[
            M::Queued,
            M::Applied,
            M::Verified,
            M::SelfRolledBack,
            M::Excluded,
            M::Removed,
            M::RollbackQueued,
        ]),
        // Rejected
        to(&[M::Queued, M::Applied, M::Verified, M::Excluded, M::Removed, M::RolledBack]),
        // SelfRolledBack
        to(&[M::Applied, M::Verified, M::Excluded, M::Removed, M::RolledBack]),
        // TimedOut
        to(&[M::Queued, M::Applied, M::Verified, M::Failed, M::SelfRolledBack, M::Excluded, M::Removed])
            | to(&[M::RollbackQueued]),
        // Deferred
        to(&[M::Queued, M::Delivered, M::Applied, M::Verified, M::Failed, M::Backoff, M::SelfRolledBack])
            | to(&[M::Excluded, M::Removed, M::Expired, M::RollbackDeferred]),
        // RollbackQueued
        to(&[M::RollbackOffered, M::RollbackDeferred, M::RolledBack, M::RollbackFailed, M::Excluded])
            // What had failed has failed, should it not come to go back.
            | to(&[M::Failed, M::TimedOut, M::Removed]),
        // RollbackOffered
        to(&[M::RolledBack, M::RollbackFailed, M::RollbackDeferred, M::Removed]),
        // RolledBack
        to(&[M::RollbackFailed, M::Removed]),
        // RollbackFailed
        to(&[M::RolledBack, M::Removed]),
        // RollbackDeferred
        to(&[M::RollbackQueued, M::RollbackOffered, M::RolledBack, M::RollbackFailed, M::Removed]),
    ]
};

const fn to(states: &[MemberState]) -> u32 {
    let (mut mask, mut at) = (0, 0);
    while at < states.len() {
        mask |= 1 << states[at] as u32;
        at += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_offer_is_made_again_only_by_way_of_the_queue_and_a_rollback_never_ends_in_an_offer() {
        let into_offered = MemberState::ALL.into_iter().filter(|from| from.may_become(MemberState::Offered));
        let expected = [MemberState::Queued, MemberState::Offered, MemberState::Absent];
        assert_eq!(into_offered.collect::<Vec<_>>(), expected);
        for from in [MemberState::RolledBack, MemberState::RollbackFailed] {
            assert!(!from.may_become(MemberState::RollbackQueued) && !from.may_become(MemberState::Queued));
        }
    }
}
