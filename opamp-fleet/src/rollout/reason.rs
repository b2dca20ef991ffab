//! Why something is in the state it is in.

use crate::words::closed_set;

closed_set! {
    /// Why something is in the state it is in: one list for members, waves and rollouts.
    #[derive(Default)]
    pub enum Reason ("reason") {
        /// There is nothing to say.
        #[default]
        Nothing = "none",

        // Why a member is left out or ends neutral.
        /// It runs the configuration already.
        AlreadyEqual = "already-equal",
        /// Its record was deleted.
        AgentRemoved = "agent-removed",
        /// It was away for longer than it may be.
        AwayTooLong = "away-too-long",
        /// It lacks a capability the rollout needs.
        CapabilityMissing = "capability-missing",
        /// It withdrew a capability the rollout needs.
        CapabilityWithdrawn = "capability-withdrawn",
        /// It lacks a component the configuration uses.
        ComponentMissing = "component-missing",
        /// It belongs to the control group.
        ControlGroup = "control-group",
        /// An operator excluded it.
        ExcludedByOperator = "excluded-by-operator",
        /// This configuration failed on it before.
        HashFailedBefore = "hash-failed-before",
        /// Its labels are not known well enough to select it.
        LabelsUnknown = "labels-unknown",
        /// It left the selector.
        LeftSelector = "left-selector",
        /// Another rollout holds it.
        Locked = "locked",
        /// It is not connected.
        NotConnected = "not-connected",
        /// Nothing is known that it could go back to.
        NoTarget = "no-target",
        /// A label opts it out.
        OptedOut = "opted-out",
        /// It is in quarantine.
        Quarantined = "quarantined",
        /// The configuration is larger than it can be sent.
        TooLarge = "too-large",
        /// Its agent type is not the configuration's.
        WrongType = "wrong-type",

        // How a member failed.
        /// It went away, having said so first.
        AnnouncedLeave = "announced-leave",
        /// Its effective configuration differs from the offered one.
        EffectiveDiffers = "effective-differs",
        /// It was away for longer than its grace.
        GraceOver = "grace-over",
        /// It reported FAILED.
        ReportedFailed = "reported-failed",
        /// It refused: FAILED without having begun.
        Refused = "refused",
        /// It runs a configuration nobody offered.
        LocalEdit = "local-edit",
        /// It went back to its previous configuration.
        WentBack = "went-back",
        /// The offer was not delivered in time.
        OfferTimeout = "offer-timeout",
        /// It was not applied in time.
        ApplyTimeout = "apply-timeout",
        /// Evidence did not come in time.
        VerifyTimeout = "verify-timeout",
        /// The rollback took too long.
        RollbackTimeout = "rollback-timeout",
        /// It has no way to give evidence.
        NoEvidence = "no-evidence",
        /// The transport would not take the offer.
        TransportFailed = "transport-failed",

        // How a member came to where it is.
        /// Its turn came.
        Dispatched = "dispatched",
        /// A report of the agent.
        Reported = "reported",
        /// Its effective configuration is equal.
        EffectiveEqual = "effective-equal",
        /// It reported that it is well.
        ReportedWell = "reported-well",
        /// It is back.
        Returned = "returned",
        /// It matches the selector now.
        Joined = "joined",
        /// Its back-off is over.
        RetryDue = "retry-due",
        /// The rollout rolls back.
        RolledBackByPlan = "rolled-back-by-plan",

        // Why a wave is in its state.
        /// The waves before it have passed.
        Turn = "turn",
        /// Nobody is queued.
        AllOffered = "all-offered",
        /// Nobody is in flight.
        AllSettled = "all-settled",
        /// Its dwell is over.
        DwellOver = "dwell-over",
        /// It has no member.
        EmptyWave = "empty-wave",
        /// Members of the next wave joined it until its test decides.
        Stretched = "stretched",
        /// A failed member is queued again.
        MemberQueuedAgain = "member-queued-again",
        /// All its gates pass.
        GatesPass = "gates-pass",
        /// A gate failed.
        GateFailed = "gate-failed",
        /// Its gates could not decide.
        Inconclusive = "inconclusive",
        /// There was nothing to judge by.
        NoData = "no-data",
        /// The provider of a verdict failed.
        ProviderError = "provider-error",
        /// It waits for an approval.
        Approval = "approval",
        /// It waits for a budget.
        Budget = "budget",
        /// A cap on what may be touched is reached.
        BlastRadius = "blast-radius",
        /// It waits for somebody to advance it.
        Manual = "manual",
        /// A window is closed.
        Window = "window",
        /// A freeze.
        Freeze = "freeze",
        /// A policy.
        Policy = "policy",
        /// The rollout ended it.
        RolloutEnded = "rollout-ended",

        // Why a rollout is in its state.
        /// An operator.
        Operator = "operator",
        /// Somebody agreed.
        Approved = "approved",
        /// Its time has come.
        Due = "due",
        /// Its time is over.
        TimeOver = "time-over",
        /// The fleet has changed since the plan was made.
        PlanChanged = "plan-changed",
        /// The plan cannot be carried out.
        PlanUnusable = "plan-unusable",
        /// The plan still fits the fleet.
        PlanConfirmed = "plan-confirmed",
        /// All waves have passed.
        AllWavesPassed = "all-waves-passed",
        /// The bake is over.
        BakeOver = "bake-over",
        /// Nothing is in flight any more.
        NothingInFlight = "nothing-in-flight",
        /// Nobody has to go back any more.
        RollbackDone = "rollback-done",
        /// There was no progress for too long.
        NoProgress = "no-progress",
        /// Its configuration was recalled.
        Recalled = "recalled",
        /// A newer rollout takes its place.
        Superseded = "superseded",
        /// The store did not take commits.
        StorageDegraded = "storage-degraded",
        /// Another leader may exist.
        SplitLeaderSuspected = "split-leader-suspected",
        /// The cause of the pause is gone.
        CauseGone = "cause-gone",
        /// It loops between configurations.
        Loop = "loop",
        /// It failed too often.
        FailedTooOften = "failed-too-often",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_byte_and_they_all_have_a_code() {
        assert_eq!(std::mem::size_of::<Reason>(), 1);
        assert!(Reason::ALL.len() <= 256);
        assert_eq!(Reason::default(), Reason::Nothing);
    }
}
