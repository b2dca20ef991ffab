//! The closed sets of words of a rollout: states, reasons, outcomes.

use crate::words::closed_set;

closed_set! {
    /// The state of a rollout.
    ///
    /// ```text
    /// draft ─► pending-approval ─► scheduled ─► preflight ─► ready ─► running ─► baking ─► succeeded
    ///                                               │                  │   ▲        │
    ///                                           rejected               ▼   │        │
    ///                                                                 paused ◄──────┘
    /// running, paused, baking ─► aborting ─► aborted, superseded, expired, failed
    /// running, paused, baking, aborting ─► rolling-back ─► rolled-back, partially-rolled-back, rollback-failed
    /// before running: cancelled, expired, superseded
    /// ```
    pub enum RolloutState ("rollout state") {
        /// It can still be changed.
        Draft = "draft",
        /// Somebody has to agree to its plan.
        PendingApproval = "pending-approval",
        /// It waits for its time, or to be started.
        Scheduled = "scheduled",
        /// Its plan is compared with the fleet as it is now.
        Preflight = "preflight",
        /// It can be started.
        Ready = "ready",
        /// Waves are on their way.
        Running = "running",
        /// Nothing new is offered until somebody, or the cause, lets it go on.
        Paused = "paused",
        /// All waves have passed; gates stay armed for a while.
        Baking = "baking",
        /// It ends as soon as nothing is in flight.
        Aborting = "aborting",
        /// Members get their previous configuration.
        RollingBack = "rolling-back",
        /// Ended by somebody or by a gate; members keep what they have.
        Aborted = "aborted",
        /// Ended before it ran.
        Cancelled = "cancelled",
        /// Its time was over.
        Expired = "expired",
        /// No progress was possible and its policy says that this is failure; or nobody has it who was offered it.
        Failed = "failed",
        /// Some members are back, others are not.
        PartiallyRolledBack = "partially-rolled-back",
        /// Its plan was rejected.
        Rejected = "rejected",
        /// No member is back.
        RollbackFailed = "rollback-failed",
        /// All touched members are back.
        RolledBack = "rolled-back",
        /// All is well.
        Succeeded = "succeeded",
        /// A newer rollout took its place.
        Superseded = "superseded",
    }
}

impl RolloutState {
    /// Whether the state is final.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Aborted
                | Self::Cancelled
                | Self::Expired
                | Self::Failed
                | Self::PartiallyRolledBack
                | Self::Rejected
                | Self::RollbackFailed
                | Self::RolledBack
                | Self::Succeeded
                | Self::Superseded
        )
    }

    /// Whether the new configuration may be offered.
    #[must_use]
    pub const fn may_offer(self) -> bool {
        matches!(self, Self::Running)
    }

    /// Whether previous configurations may be offered.
    #[must_use]
    pub const fn may_offer_rollback(self) -> bool {
        matches!(self, Self::RollingBack)
    }
}

closed_set! {
    /// The state of a wave.
    ///
    /// ```text
    /// pending ─► waiting ─► dispatching ─► settling ─► soaking ─► evaluating ─► passed
    ///                ▲           │ ▲                                  │  └─undecided─► dispatching
    ///                └───────────┘ └─ a member is queued again        ▼
    /// any ─► skipped, failed                                         held
    /// ```
    pub enum WaveState ("wave state") {
        /// Its turn has not come.
        Pending = "pending",
        /// Its turn has come, and something is not there yet.
        Waiting = "waiting",
        /// Members are offered.
        Dispatching = "dispatching",
        /// Nobody is queued, somebody is in flight.
        Settling = "settling",
        /// Everybody has settled; the dwell runs.
        Soaking = "soaking",
        /// The gates are asked.
        Evaluating = "evaluating",
        /// Somebody has to decide.
        Held = "held",
        /// Its gates let it pass.
        Passed = "passed",
        /// A gate, or the end of the rollout, ended it.
        Failed = "failed",
        /// It was left out.
        Skipped = "skipped",
    }
}

closed_set! {
    /// The stored state of a member.
    pub enum MemberState ("member state") {
        /// It waits for its offer.
        Queued = "queued",
        /// It failed and waits for its next try.
        Backoff = "backoff",
        /// Its offer is written, not delivered.
        Offered = "offered",
        /// Its offer has left the server.
        Delivered = "delivered",
        /// It said that it applies it.
        Applying = "applying",
        /// It said that it has applied it; other evidence is missing.
        Applied = "applied",
        /// It went away in flight, within its grace.
        Absent = "absent",
        /// All evidence it can give is there.
        Verified = "verified",
        /// It can give no evidence, or not enough in time.
        Unverified = "unverified",
        /// It ran the configuration already.
        AlreadyCurrent = "already-current",
        /// It cannot take the configuration (any more).
        NotApplicable = "not-applicable",
        /// It is left out, with a reason.
        Excluded = "excluded",
        /// It belongs to the control group.
        Control = "control",
        /// Its record was deleted.
        Removed = "removed",
        /// It was away for too long.
        Expired = "expired",
        /// It could not apply the configuration.
        Failed = "failed",
        /// It refused the configuration; it is never asked again.
        Rejected = "rejected",
        /// It went back by itself.
        SelfRolledBack = "self-rolled-back",
        /// A stage took too long.
        TimedOut = "timed-out",
        /// It is away; it waits outside every ratio.
        Deferred = "deferred",
        /// It waits for its previous configuration.
        RollbackQueued = "rollback-queued",
        /// Its previous configuration is written.
        RollbackOffered = "rollback-offered",
        /// It runs its previous configuration.
        RolledBack = "rolled-back",
        /// It could not go back.
        RollbackFailed = "rollback-failed",
        /// It is away; its previous configuration waits for it.
        RollbackDeferred = "rollback-deferred",
    }
}

impl MemberState {
    /// Whether an offer is under way: it counts against the caps.
    #[must_use]
    pub const fn in_flight(self) -> bool {
        matches!(
            self,
            Self::Offered
                | Self::Delivered
                | Self::Applying
                | Self::Applied
                | Self::Absent
                | Self::RollbackOffered
        )
    }

    /// Whether the rollout has its answer from the member: a wave settles when all have.
    #[must_use]
    pub const fn settled(self) -> bool {
        !matches!(self.outcome(), Outcome::Open)
    }

    /// What the state means for the rollout.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Queued
            | Self::Backoff
            | Self::Offered
            | Self::Delivered
            | Self::Applying
            | Self::Applied
            | Self::Absent
            | Self::RollbackQueued
            | Self::RollbackOffered => Outcome::Open,
            Self::Verified | Self::RolledBack => Outcome::Well,
            Self::Failed | Self::Rejected | Self::SelfRolledBack | Self::TimedOut | Self::RollbackFailed => {
                Outcome::Bad
            }
            Self::Unverified
            | Self::AlreadyCurrent
            | Self::NotApplicable
            | Self::Excluded
            | Self::Control
            | Self::Removed
            | Self::Expired
            | Self::Deferred
            | Self::RollbackDeferred => Outcome::Neutral,
        }
    }
}

closed_set! {
    /// What a member's state means for its rollout.
    pub enum Outcome ("outcome") {
        /// Failure.
        Bad = "bad",
        /// Neither: it leaves the ratios.
        Neutral = "neutral",
        /// Not known yet.
        Open = "open",
        /// Success.
        Well = "well",
    }
}

closed_set! {
    /// Why a rollout is paused. What only its wave waits for (windows, freezes, approvals, budgets) is that wave's reason.
    pub enum PauseReason ("pause reason") {
        /// A cap on what it may touch is reached.
        BlastRadius = "blast-radius",
        /// A gate failed.
        Gate = "gate",
        /// The gates could not decide.
        Inconclusive = "inconclusive",
        /// An operator paused it.
        Operator = "operator",
        /// Another leader may exist.
        SplitLeaderSuspected = "split-leader-suspected",
        /// The store did not take commits.
        StorageDegraded = "storage-degraded",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_states_of_a_rollout_are_final_and_none_of_them_offers() {
        let terminal: Vec<_> = RolloutState::ALL.into_iter().filter(|state| state.is_terminal()).collect();
        assert_eq!(terminal.len(), 10);
        assert!(terminal.iter().all(|state| !state.may_offer() && !state.may_offer_rollback()));
        assert!(!RolloutState::Paused.may_offer());
    }

    #[test]
    fn who_is_in_flight_has_not_settled() {
        let in_flight: Vec<_> = MemberState::ALL.into_iter().filter(|state| state.in_flight()).collect();
        assert_eq!(in_flight.len(), 6);
        assert!(in_flight.iter().all(|state| !state.settled() && state.outcome() == Outcome::Open));
    }

    #[test]
    fn unverified_is_never_success() {
        assert_eq!(MemberState::Unverified.outcome(), Outcome::Neutral);
    }

    #[test]
    fn a_state_is_one_byte() {
        assert_eq!(std::mem::size_of::<MemberState>(), 1);
        assert_eq!(std::mem::size_of::<RolloutState>(), 1);
    }
}
