//! Bounds over all rollouts, what the store keeps of them, and what is shown.

use std::time::Duration;

use opamp_proto::{AgentId, Fingerprint};

use super::{BreakerSettings, Budget, Domain, QuarantineSettings};
use crate::rollout::{Limits, Reason, Time};

/// The name of a failure domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZoneKey(pub Box<str>);

/// Bounds over all rollouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorSettings {
    /// What no rollout may exceed, whatever its own limits (R54).
    pub hard: Limits,
    /// Disruption budgets. Each offer looks at all of them, so that thousands would be felt.
    pub disruption: Vec<(Domain, Budget)>,
    /// Most offers in a minute over all rollouts. Default no limit.
    pub global_per_minute: u32,
    /// Most offers in a minute in some groups and failure domains, over all rollouts. Each offer looks at all of them.
    pub per_minute: Vec<(Domain, u32)>,
    /// The breaker.
    pub breaker: BreakerSettings,
    /// Quarantine.
    pub quarantine: QuarantineSettings,
    /// An agent that changes between configurations more often than this within an hour is quarantined. Default 3 (R31).
    pub alternations_max: u8,
    /// How long a rollout that waits for another one's agents waits at most before it looks again. Default 15 s.
    pub lock_retry: Duration,
}

impl Default for CoordinatorSettings {
    fn default() -> Self {
        Self {
            hard: Limits::default(),
            disruption: Vec::new(),
            global_per_minute: u32::MAX,
            per_minute: Vec::new(),
            breaker: BreakerSettings::default(),
            quarantine: QuarantineSettings::default(),
            alternations_max: 3,
            lock_retry: Duration::from_secs(15),
        }
    }
}

/// What a coordinator cannot rebuild from the rollouts, as the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorRows {
    /// Quarantined agents, until when, and why.
    pub quarantined: Vec<(AgentId, Option<Time>, Reason)>,
    /// Recalled configurations.
    pub recalled: Vec<Fingerprint>,
    /// Until when the breaker is open.
    pub breaker: Option<Time>,
    /// Agents of the fleet; 0 if that is not known.
    pub fleet: u32,
}

/// What the coordinator holds, for people and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorView {
    /// Live rollouts.
    pub rollouts: usize,
    /// Locks.
    pub locks: usize,
    /// Agents in flight, each slot by itself.
    pub in_flight: u32,
    /// Offers that have settled, and how: well, badly, neither.
    pub settled: [u64; 3],
    /// For how long agents were in flight, all together, in milliseconds.
    pub disturbed_ms: u64,
    /// Quarantined agents.
    pub quarantined: usize,
    /// Recalled configurations.
    pub recalled: usize,
    /// Until when the breaker is open.
    pub breaker: Option<Time>,
}
