//! The table of seeded bugs: what must notice each, and within how many seeds. It exists only in builds with
//! `cfg(opamp_faults)`, in which the engine can be broken on purpose.

use opamp_fleet::faults::{Fault, Faults};

use super::invariants;
use super::run::{Breach, RunSettings, run};
use super::scenario::Scenario;

/// One way to break the engine, and what must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bug {
    /// The way.
    pub fault: Fault,
    /// Invariants of which one must break first.
    pub caught_by: &'static [&'static str],
    /// Within so many seeds.
    pub seeds: u64,
}

macro_rules! bugs {
    ($($fault:ident: $($invariant:literal)|+ within $seeds:literal;)+) => {
        /// All of them.
        pub const BUGS: &[Bug] = &[
            $(Bug { fault: Fault::$fault, caught_by: &[$($invariant),+], seeds: $seeds },)+
        ];
    };
}

// All break the product, but for two: `StaleEpochAccepted` breaks the store of the simulator, and `WallClockJump` its replicas,
// because the product has neither yet.
bugs! {
    StaleEpochAccepted: "stale_epoch" within 200;
    DoubleOffer: "one_offer_per_slot" within 100;
    JoinerUngated: "blast_cap" | "in_flight_cap" within 100;
    ResumeRevives: "nothing_after_stop" within 50;
    InheritedTimer: "timers_not_inherited" within 20;
    RollbackLoop: "rollback_ends" within 100;
    DeferredCounted: "ratio_denominator" within 50;
    AbsorbingClear: "reference_verdict" within 300;
    WindowPastDwell: "window_within_dwell" within 50;
    WallClockJump: "time_is_store_time" within 100;
    LostEffect: "no_lost_effect" within 100;
    ActBeforeCommit: "no_lost_effect" | "stale_epoch" within 200;
    NewBatchOnRetry: "one_offer_per_slot" within 200;
    StaleReportCounts: "allowed_edges" | "ratio_denominator" within 200;
    CapIgnored: "in_flight_cap" within 100;
    ForeignAppliedIsSuccess: "pinned_config" within 200;
    RetryOfRejected: "no_failed_hash_again" within 100;
    LockLeak: "liveness" within 300;
    BlastPerWave: "blast_cap" within 100;
    CommonRollbackTarget: "rollback_ends" within 50;
    PauseLostOnRestore: "nothing_after_stop" within 200;
    UndoForgotten: "joiners_gated" within 300;
    PinDropped: "lkg_pinned" within 100;
    BudgetIgnored: "shared_limits" within 50;
    RecallIgnored: "shared_limits" within 50;
    UnwatchedIsGood: "known_good" within 20;
    SettlingStuck: "liveness" within 20;
    JoinerEarly: "joiners_gated" within 100;
    RolledBackUnasked: "rollback_ends" within 50;
    FailedIgnored: "reports_are_heard" within 50;
    DeadlineForgotten: "settled_or_next_action" within 20;
    EntryForgotten: "replay" within 50;
    SteadyKeyRepeats: "steady_state" within 20;
    SteadyUnlocked: "steady_state" within 20;
    SteadyBringsNobody: "steady_state" within 20;
    SmallFaultPasses: "success_is_shown" within 20;
    PercentIgnored: "reference_counts" within 20;
    LoweredRateForgets: "in_flight_cap" within 50;
}

/// What is wrong with the table itself: each fault stands in it once, and what must notice it exists. No test asks that, since
/// tests are not built with `cfg(opamp_faults)`: who looks for bugs asks first.
#[must_use]
pub fn mistakes() -> Vec<String> {
    let known: Vec<&str> = invariants::all().iter().map(|one| one.name()).collect();
    let mut found = Vec::new();
    for fault in Fault::ALL {
        let rows = BUGS.iter().filter(|bug| bug.fault == fault).count();
        if rows != 1 {
            found.push(format!("{fault} has {rows} rows"));
        }
    }
    for bug in BUGS {
        let unknown = bug.caught_by.iter().filter(|name| !known.contains(*name));
        found.extend(unknown.map(|name| format!("{}: there is no invariant {name}", bug.fault)));
    }
    found
}

/// What came of looking for one bug.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bug.
    pub bug: Bug,
    /// Seeds that were run: the last one caught it, if one did.
    pub seeds: u64,
    /// What broke, if something did.
    pub breach: Option<Breach>,
    /// What breaks in the same scenario without the bug: nothing may, or it was not the bug that was caught.
    pub without: Option<Breach>,
}

impl Hunt {
    /// Whether it was caught, it alone, by what must catch it.
    #[must_use]
    pub fn caught(&self) -> bool {
        let by = |breach: &Breach| self.bug.caught_by.contains(&breach.invariant);
        self.without.is_none() && self.breach.as_ref().is_some_and(by)
    }
}

/// Runs seeds with the engine broken until an invariant breaks, or until there were enough; and the seed that broke one once
/// more with the engine as it should be.
#[must_use]
pub fn hunt(bug: Bug) -> Hunt {
    let settings = RunSettings { faults: Faults::only(bug.fault), ..RunSettings::default() };
    for seed in 1..=bug.seeds {
        let scenario = Scenario::drawn(seed).biased(bug.fault);
        let outcome = run(&scenario, &settings);
        if outcome.breach.is_some() {
            let without = run(&scenario, &RunSettings::default()).breach;
            return Hunt { bug, seeds: seed, breach: outcome.breach, without };
        }
    }
    Hunt { bug, seeds: bug.seeds, breach: None, without: None }
}
