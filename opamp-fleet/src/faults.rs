//! Ways to break the engine on purpose, so that it can be shown that the simulator notices.
//!
//! A broken place reads `if seeded!(self.faults, DoubleOffer) { … }`. Without `cfg(opamp_faults)` the condition is the
//! constant `false`, and [`Faults`] has no content.

#[cfg(opamp_faults)]
use crate::words::closed_set;

#[cfg(opamp_faults)]
closed_set! {
    /// One way to break it.
    pub enum Fault ("fault") {
        /// The store takes writes of an older epoch.
        StaleEpochAccepted = "stale-epoch-accepted",
        /// Restoring offers members again that are offered.
        DoubleOffer = "double-offer",
        /// Late joiners are offered without a claim and are not counted.
        JoinerUngated = "joiner-ungated",
        /// An aborted rollout can be resumed.
        ResumeRevives = "resume-revives",
        /// The dwell of a wave is used for the next one.
        InheritedTimer = "inherited-timer",
        /// A failed rollback is tried for ever.
        RollbackLoop = "rollback-loop",
        /// Deferred members count in ratios.
        DeferredCounted = "deferred-counted",
        /// A test that was once clear stays clear.
        AbsorbingClear = "absorbing-clear",
        /// Windows longer than a dwell are accepted.
        WindowPastDwell = "window-past-dwell",
        /// Engine time follows the replica's wall clock.
        WallClockJump = "wall-clock-jump",
        /// Writes are lost with a failed commit.
        LostEffect = "lost-effect",
        /// Acts leave before the commit.
        ActBeforeCommit = "act-before-commit",
        /// A repeated batch has another key.
        NewBatchOnRetry = "new-batch-on-retry",
        /// Reports from before an offer count as evidence.
        StaleReportCounts = "stale-report-counts",
        /// The cap on members in flight is forgotten after a resume.
        CapIgnored = "cap-ignored",
        /// APPLIED for another configuration is success.
        ForeignAppliedIsSuccess = "foreign-applied-is-success",
        /// A refusal is retried.
        RetryOfRejected = "retry-of-rejected",
        /// Locks stay after an engine was dropped.
        LockLeak = "lock-leak",
        /// The blast radius is counted for each wave.
        BlastPerWave = "blast-per-wave",
        /// All members go back to the same configuration.
        CommonRollbackTarget = "common-rollback-target",
        /// A pause does not survive a restore.
        PauseLostOnRestore = "pause-lost-on-restore",
        /// An offer that was not delivered is not taken back.
        UndoForgotten = "undo-forgotten",
        /// Pins are dropped when a rollout is aborted.
        PinDropped = "pin-dropped",
        /// Offers are made whatever the disruption budget says.
        BudgetIgnored = "budget-ignored",
        /// What was recalled is offered.
        RecallIgnored = "recall-ignored",
        /// What is verified is known good, also if it was not watched yet.
        UnwatchedIsGood = "unwatched-is-good",
        /// A wave whose members have all settled goes no further.
        SettlingStuck = "settling-stuck",
        /// Late joiners are offered it before the first wave is over.
        JoinerEarly = "joiner-early",
        /// Members count as rolled back without having been offered what they had.
        RolledBackUnasked = "rolled-back-unasked",
        /// FAILED is not looked at.
        FailedIgnored = "failed-ignored",
        /// An offer that was delivered has no deadline.
        DeadlineForgotten = "deadline-forgotten",
        /// That a gate was waived changes the state and is not recorded.
        EntryForgotten = "entry-forgotten",
        /// Assignments of steady states bear keys that earlier offers had.
        SteadyKeyRepeats = "steady-key-repeats",
        /// Whoever leads next does not hold what was assigned before.
        SteadyUnlocked = "steady-unlocked",
        /// Nobody who comes after a success is brought to it.
        SteadyBringsNobody = "steady-brings-nobody",
        /// A first wave of few members that all fail passes.
        SmallFaultPasses = "small-fault-passes",
        /// Percentages are not compared.
        PercentIgnored = "percent-ignored",
        /// A rate that is lowered forgets what it let through before.
        LoweredRateForgets = "lowered-rate-forgets",
    }
}

/// Which way it is broken, if any.
#[cfg(opamp_faults)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults(Option<Fault>);

/// Nothing: the engine cannot be broken on purpose in this build.
#[cfg(not(opamp_faults))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults();

#[cfg(opamp_faults)]
impl Faults {
    /// This fault and no other.
    pub const fn only(fault: Fault) -> Self {
        Self(Some(fault))
    }

    /// Whether this fault is on.
    pub fn is(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}

/// Whether a fault is on: `seeded!(faults, DoubleOffer)`. Constant `false` in normal builds.
macro_rules! seeded {
    ($faults:expr, $fault:ident) => {{
        #[cfg(opamp_faults)]
        {
            $faults.is($crate::faults::Fault::$fault)
        }
        #[cfg(not(opamp_faults))]
        {
            let _: $crate::faults::Faults = $faults;
            false
        }
    }};
}

pub(crate) use seeded;

/// Faults outside this crate: in a store, and in whatever keeps an engine's time. Constant `false` in normal builds.
impl Faults {
    /// Whether a store takes writes of an older epoch.
    #[must_use]
    pub fn takes_stale_epochs(self) -> bool {
        seeded!(self, StaleEpochAccepted)
    }

    /// Whether engine time follows the replica's wall clock.
    #[must_use]
    pub fn follows_wall_clock(self) -> bool {
        seeded!(self, WallClockJump)
    }
}
