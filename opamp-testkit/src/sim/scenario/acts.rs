//! What operators do to rollouts, and what breaks.

use serde::{Deserialize, Serialize};

/// Something at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActAt {
    /// When, in seconds.
    pub at_s: u32,
    /// What.
    #[serde(flatten)]
    pub act: Act,
}

/// What somebody does, or what breaks. Numbers that name nobody do nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Act {
    /// The rollout is aborted.
    Abort {
        /// Which.
        rollout: u32,
    },
    /// The waiting wave, or the dwell, is ended.
    Advance {
        /// Of which rollout.
        rollout: u32,
    },
    /// The configuration may be offered to an agent again.
    AllowHash {
        /// Of which rollout.
        rollout: u32,
        /// Which.
        agent: u32,
    },
    /// The process of an agent ends without a word, and starts again after so long.
    AgentCrash {
        /// Which.
        agent: u32,
        /// After how many seconds it is back.
        back_s: u32,
    },
    /// The rollout is ended before it runs.
    Cancel {
        /// Which.
        rollout: u32,
    },
    /// The connection of an agent ends.
    Cut {
        /// Which.
        agent: u32,
        /// Whether nobody is told.
        silently: bool,
    },
    /// An agent is left out.
    Exclude {
        /// Of which rollout.
        rollout: u32,
        /// Which.
        agent: u32,
    },
    /// The dwell or bake lasts longer.
    Extend {
        /// Of which rollout.
        rollout: u32,
        /// By how many seconds.
        by_s: u32,
    },
    /// Somebody else writes the record of a rollout: what its leader writes next is in conflict with that.
    Interfere {
        /// Which.
        rollout: u32,
    },
    /// The rollout has other limits from now on.
    Limit {
        /// Which.
        rollout: u32,
        /// How many may be in flight.
        in_flight: u32,
        /// How many it may touch, if that changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        touched: Option<u32>,
        /// How many it may be offered to in a minute, if that changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per_minute: Option<u32>,
    },
    /// Nothing gets through to an agent for a while.
    Outage {
        /// Which.
        agent: u32,
        /// For how many seconds.
        for_s: u32,
    },
    /// The rollout is paused.
    Pause {
        /// Which.
        rollout: u32,
    },
    /// The rollout goes on with other limits of a gate.
    Raise {
        /// Which.
        rollout: u32,
        /// The gate's number in the plan.
        gate: u8,
    },
    /// A configuration is never offered again.
    Recall {
        /// Which.
        config: u8,
    },
    /// An agent gets another ring.
    Relabel {
        /// Which.
        agent: u32,
        /// Its ring.
        ring: Box<str>,
    },
    /// The control group gets the configuration as well.
    Release {
        /// Of which rollout.
        rollout: u32,
    },
    /// The record of an agent is deleted.
    Remove {
        /// Which.
        agent: u32,
    },
    /// A replica ends and starts again.
    ReplicaCrash {
        /// Which.
        replica: u8,
        /// After how many seconds it is back.
        back_s: u32,
    },
    /// A replica stands still.
    ReplicaPause {
        /// Which.
        replica: u8,
        /// For how many seconds.
        for_s: u32,
        /// Between its next decision and what it writes of it, in place of at once: when it goes on, somebody else may lead.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_write: bool,
    },
    /// The rollout goes on.
    Resume {
        /// Which.
        rollout: u32,
        /// How.
        how: How,
    },
    /// Members go back.
    RollBack {
        /// Of which rollout.
        rollout: u32,
    },
    /// Members that failed go back.
    RollBackFailed {
        /// Of which rollout.
        rollout: u32,
    },
    /// Members of one wave go back.
    RollBackWave {
        /// Of which rollout.
        rollout: u32,
        /// Which wave, from 0.
        wave: u16,
    },
    /// The wall clock of a replica is wrong from now on.
    Skew {
        /// Which.
        replica: u8,
        /// By how many seconds.
        by_s: i32,
    },
    /// A gate has no say from now on.
    SkipGate {
        /// Of which rollout.
        rollout: u32,
        /// Its number in the plan.
        gate: u8,
    },
    /// The wave is left out.
    SkipWave {
        /// Of which rollout.
        rollout: u32,
    },
    /// The store forgets its latest commits, as after a failover; once in a run.
    StoreForgets,
    /// The store cannot be reached.
    StoreOutage {
        /// For how many seconds.
        for_s: u32,
    },
    /// The rollout goes on with a gate that observes only.
    Waive {
        /// Which.
        rollout: u32,
        /// The gate's number in the plan.
        gate: u8,
    },
}

impl Act {
    /// How long it lasts, in seconds: what it breaks is whole again then.
    pub fn lasts_s(&self) -> u32 {
        match self {
            Self::AgentCrash { back_s, .. } | Self::ReplicaCrash { back_s, .. } => *back_s,
            Self::Outage { for_s, .. } | Self::ReplicaPause { for_s, .. } | Self::StoreOutage { for_s } => {
                *for_s
            }
            Self::StoreForgets => Self::FORGETS_S,
            _ => 0,
        }
    }

    /// How far back the store goes that forgets, in seconds.
    pub(in crate::sim) const FORGETS_S: u32 = 8;
}

/// How a rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// If the cause is gone.
    Plain,
    /// With the failed members tried again.
    Retry,
    /// With the next wave.
    Skip,
}
