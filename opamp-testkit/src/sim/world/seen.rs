//! What one step did.

use std::sync::Arc;

use opamp_fleet::rollout::commit::Batch;
use opamp_fleet::rollout::{Act as EngineAct, ConfigStatus, Epoch, RolloutId, Time, Write};
use opamp_proto::{Fingerprint, Mono, Wall};

use super::CommandSeen;
use crate::sim::store::{Desired, Written};

/// What one step did, as far as invariants look at it.
#[derive(Debug, Default)]
pub struct StepSeen {
    /// Offers that arrived at agents.
    pub deliveries: Vec<Delivery>,
    /// What agents said of configurations, and replicas took in.
    pub reports: Vec<Heard>,
    /// Transactions that were written.
    pub commits: Vec<Commit>,
    /// Writes without a rollout that were written.
    pub shared: Vec<Desired>,
    /// Whatever was written by somebody who leads.
    pub fenced: Vec<Fenced>,
    /// Acts that were done.
    pub acts: Vec<Acted>,
    /// Commands that were given, and what came of it.
    pub commands: Vec<CommandSeen>,
    /// Rollouts that were rebuilt from their records.
    pub rebuilt: Vec<RolloutId>,
    /// Rollouts that were made.
    pub created: Vec<RolloutId>,
    /// Engine time of a leader, beside the replica, its epoch, and the store's time.
    pub times: Vec<(usize, Epoch, Time, Wall)>,
    /// Agents for which a configuration was wanted that is not kept.
    pub missing: Vec<(usize, Fingerprint)>,
    /// The store has forgotten.
    pub forgot: bool,
    /// What cannot happen.
    pub impossible: Vec<String>,
}

/// An offer that arrived at an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The agent's position.
    pub agent: usize,
    /// The hash it was offered under.
    pub config: Fingerprint,
    /// The hash of what was in it; none if there was nothing.
    pub body: Option<Fingerprint>,
    /// The configuration's number, if it is one of the world's.
    pub number: Option<u8>,
    /// When.
    pub at: Mono,
}

/// Something that only who leads may write, and that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Who asked for it.
    pub replica: usize,
    /// What.
    pub what: &'static str,
    /// Under which epoch it was asked for.
    pub epoch: Epoch,
    /// The epoch of the lease when it was written.
    pub current: Epoch,
}

/// What an agent said of a configuration, and a replica took in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The agent's position.
    pub agent: usize,
    /// The configuration.
    pub config: Fingerprint,
    /// How it went.
    pub status: ConfigStatus,
}

/// A transaction that was written.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who asked for it.
    pub replica: usize,
    /// The epoch of the lease when it was written.
    pub epoch: Epoch,
    /// The transaction.
    pub batch: Arc<Batch>,
    /// What it led to.
    pub written: Written,
}

impl Commit {
    /// Whether an agent or a group should have something from then on.
    pub(super) fn desires_something(&self) -> bool {
        let is_for_group = |write: &Write| matches!(write, Write::GroupDesired { .. });
        !self.written.desires.is_empty() || self.batch.writes.iter().any(is_for_group)
    }
}

/// An act that was done.
#[derive(Clone, Debug)]
pub struct Acted {
    /// Who did it.
    pub replica: usize,
    /// Under which epoch.
    pub epoch: Epoch,
    /// For which rollout.
    pub rollout: RolloutId,
    /// What.
    pub act: EngineAct,
}
