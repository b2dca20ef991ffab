//! What a gate is set to, and what a plan keeps of it.

use std::time::Duration;

use crate::rollout::Scope;
use crate::rollout::stats::Ppm;
use crate::words::closed_set;

closed_set! {
    /// Which gate.
    pub enum GateKind ("gate") {
        /// Members that could not apply the configuration.
        ApplyFailed = "apply-failed",
        /// Members that refused it.
        Rejected = "rejected",
        /// Members that gave no evidence in time.
        TimedOut = "timed-out",
        /// Members that went away after the offer.
        DisconnectRatio = "disconnect-ratio",
        /// Members that were well at the offer and are ill.
        Unhealthy = "unhealthy",
        /// Members that run something else than they said.
        EffectiveMismatch = "effective-mismatch",
        /// Members that fall again and again.
        CrashLoop = "crash-loop",
        /// Members that went back by themselves.
        SelfRollback = "self-rollback",
        /// Members that can give no evidence.
        Unverified = "unverified",
        /// The first members fail and none succeeds.
        NothingSucceeds = "nothing-succeeds",
        /// Agents outside the rollout go away as well.
        MassDisconnect = "mass-disconnect",
        /// Treated agents pass on less than others.
        ThroughputDrop = "throughput-drop",
        /// Treated agents fail to export more than others.
        ExportFailures = "export-failures",
        /// Queues of treated agents are fuller than those of others.
        QueueFill = "queue-fill",
        /// Treated agents use more memory than others.
        MemoryRise = "memory-rise",
        /// Treated agents use more processor time than others.
        CpuRise = "cpu-rise",
        /// A provider gives the verdict.
        External = "external",
    }
}

impl GateKind {
    /// Whether it compares what agents do with what others do (R36).
    #[must_use]
    pub const fn is_telemetry(self) -> bool {
        match self {
            Self::ThroughputDrop
            | Self::ExportFailures
            | Self::QueueFill
            | Self::MemoryRise
            | Self::CpuRise => true,
            Self::ApplyFailed
            | Self::Rejected
            | Self::TimedOut
            | Self::DisconnectRatio
            | Self::Unhealthy
            | Self::EffectiveMismatch
            | Self::CrashLoop
            | Self::SelfRollback
            | Self::Unverified
            | Self::NothingSucceeds
            | Self::MassDisconnect
            | Self::External => false,
        }
    }
}

/// A gate as it is asked for, and as the plan keeps it. A plan has at most [`super::super::GateIx::MAX_GATES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateConfig {
    /// Which gate.
    pub kind: GateKind,
    /// The name of an external gate, at most [`GateConfig::NAME_BYTES_MAX`] bytes; empty for the others.
    pub name: Box<str>,
    /// What is compared; the gate fails if one of them does. At most [`GateConfig::TESTS_MAX`].
    pub tests: Box<[Test]>,
    /// Fewer members than this are no data for `Percent` and `Bound`. At least 1.
    pub min_sample: u32,
    /// How long after it applied it a member can begin to count against the gate, at least: as long as its wave is not over,
    /// and in the bake, it always can (R39, R44). Zero: until the rollout ends. For `crash-loop`: how close to each other
    /// falls are that count together; zero: all since the offer do. Gates that look at what comes of an offer count it
    /// whenever it comes: `apply-failed`, `rejected`, `timed-out`, `unverified`, `nothing-succeeds`; there it says for how
    /// long they watch members that come late, and nothing else.
    pub window: Duration,
    /// Over which members it is counted.
    pub scopes: Scopes,
    /// What it means if no member can say anything.
    pub no_data: NoData,
    /// What happens if a sequential test has not decided when a wave ends.
    pub undecided: Undecided,
    /// What a failure leads to.
    pub severity: Severity,
    /// What a failure leads to if every member of the first wave failed, unless the gate observes; for `unverified`: what
    /// one in the first wave leads to (R29). None: `severity`.
    pub all_failed: Option<Severity>,
    /// What it means if a provider fails.
    pub on_error: NoData,
    /// Whether operators may waive it.
    pub waivable: bool,
}

impl GateConfig {
    /// Most tests of one gate.
    pub const TESTS_MAX: usize = 4;
    /// Longest name of an external gate, in bytes.
    pub const NAME_BYTES_MAX: usize = 64;

    /// Whether a failure leads to anything. `unverified` that observes has a say in the first wave nevertheless.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.severity != Severity::Observe
    }
}

/// What a gate compares. `k` is the members that count against it, `n` those that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// The true ratio is above `over`, wrong with at most `error` over all looks. It is looked at over all waves if the
    /// gate is counted there, and otherwise in each wave; and in failure domains if the gate is counted there.
    Bound {
        /// The ratio.
        over: Ppm,
        /// The chance of being wrong.
        error: Ppm,
    },
    /// `k` is more than `over`.
    Count {
        /// The number.
        over: u32,
    },
    /// All that take part count against it, they are at least `failures`, and no member is well.
    Hard {
        /// The number; at least 2.
        failures: u16,
    },
    /// `k` of `n` is more than `over`, and `k` at least `at_least`.
    Percent {
        /// The ratio.
        over: Ppm,
        /// The least `k`.
        at_least: u32,
    },
    /// What is seen is more like `bad` than like `acceptable`, wrong with at most `error` in a rollout. At most one for each
    /// gate.
    Sequential {
        /// A ratio that is fine.
        acceptable: Ppm,
        /// A ratio that is not.
        bad: Ppm,
        /// The chance of stopping at `acceptable`.
        error: Ppm,
    },
    /// The mean of treated agents against that of the control group: worse by more than `over` (telemetry gates).
    Compare {
        /// By how much.
        over: Ppm,
    },
}

impl Test {
    /// Which kind of test.
    #[must_use]
    pub const fn kind(&self) -> TestKind {
        match self {
            Self::Bound { .. } => TestKind::Bound,
            Self::Compare { .. } => TestKind::Compare,
            Self::Count { .. } => TestKind::Count,
            Self::Hard { .. } => TestKind::Hard,
            Self::Percent { .. } => TestKind::Percent,
            Self::Sequential { .. } => TestKind::Sequential,
        }
    }
}

closed_set! {
    /// Kinds of tests.
    pub enum TestKind ("test") {
        /// [`Test::Bound`].
        Bound = "bound",
        /// [`Test::Compare`].
        Compare = "compare",
        /// [`Test::Count`].
        Count = "count",
        /// The verdict of a provider.
        External = "external",
        /// [`Test::Hard`].
        Hard = "hard",
        /// [`Test::Percent`].
        Percent = "percent",
        /// [`Test::Sequential`].
        Sequential = "sequential",
    }
}

/// Over which members a gate is counted: any of wave, all waves, failure domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(pub u8);

impl Scopes {
    /// Each wave by itself.
    pub const WAVE: Self = Self(1);
    /// All waves together, through the bake (R44).
    pub const CUMULATIVE: Self = Self(2);
    /// Each failure domain by itself.
    pub const ZONE: Self = Self(4);

    /// Whether all of `scopes` are in it.
    #[must_use]
    pub const fn contains(self, scopes: Self) -> bool {
        self.0 & scopes.0 == scopes.0
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, scopes: Self) -> Self {
        Self(self.0 | scopes.0)
    }
}

closed_set! {
    /// What it means if there is nothing to judge by.
    pub enum NoData ("no-data policy") {
        /// Somebody has to decide. Gates that count members do so in the first wave alone, and only if none of it is well.
        Hold = "hold",
        /// That is fine.
        Pass = "pass",
    }
}

/// What happens if a sequential test has not decided when a wave ends with failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// Somebody has to decide.
    Hold,
    /// Members of later waves join one by one until it decides. Of what shows only some time after members have settled, two that
    /// show it are held at once.
    Stretch {
        /// Most of them. Default 24.
        max: u8,
    },
}

impl Default for Undecided {
    fn default() -> Self {
        Self::Stretch { max: 24 }
    }
}

/// What a failed gate leads to (R65).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It is recorded and nothing else (R45).
    Observe,
    /// The wave is held.
    Hold,
    /// The rollout pauses.
    Pause,
    /// The rollout is aborted.
    Abort,
    /// The rollout rolls back.
    RollBack(Scope),
    /// The wave that it failed in goes back; everybody who was touched if it is not about one wave.
    RollBackWave,
}

impl Severity {
    /// How grave it is.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Observe => 0,
            Self::Hold => 1,
            Self::Pause => 2,
            Self::Abort => 3,
            Self::RollBack(_) | Self::RollBackWave => 4,
        }
    }
}

/// What a plan keeps of a gate's tests, one for each test of the gate: integers, so that nothing is computed with
/// floats at run time, and covered by the plan's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boundaries {
    /// At sample size `sizes[i]` the test fails from `limits[i]` failures on; equally long, sizes ascending.
    Bound {
        /// Sample sizes.
        sizes: Box<[u32]>,
        /// The least `k` that fails.
        limits: Box<[u32]>,
    },
    /// A failure scores `weight`, a success −1; a wave's test fails at `waves[i]`, that over all waves at `all`.
    Sequential {
        /// What a failure scores.
        weight: i32,
        /// Limits by wave.
        waves: Box<[i32]>,
        /// Limit over all waves.
        all: i32,
        /// Limits of 1, 2, 4, … members: where more join than were planned.
        grown: Box<[i32]>,
    },
    /// The test needs none.
    Plain,
}
