//! What an engine asks for before an offer, and why it may not have it.

use opamp_proto::AgentId;

use crate::rollout::{GroupIx, Limits, RolloutId, Slot, Time};
use crate::words::closed_set;

/// What an engine asks for before an offer.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Who asks.
    pub rollout: RolloutId,
    /// For which agent.
    pub agent: &'a AgentId,
    /// For which part of it.
    pub slot: Slot,
    /// The rollout's group.
    pub group: Option<GroupIx>,
    /// The agent's failure domain.
    pub zone: Option<&'a str>,
    /// What for.
    pub kind: ClaimKind,
    /// The rollout's own limits, as they are now.
    pub limits: &'a Limits,
}

closed_set! {
    /// What an offer is for.
    pub enum ClaimKind ("claim") {
        /// A new configuration.
        Offer = "offer",
        /// The steady state, put right.
        Reassert = "reassert",
        /// The previous configuration.
        Rollback = "rollback",
    }
}

/// Why an offer may not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// As much is touched or in flight as may be.
    Blast {
        /// When that may change by itself; none: when somebody settles, or limits are raised.
        until: Option<Time>,
    },
    /// The breaker is open.
    Breaker {
        /// Until when.
        until: Time,
    },
    /// As many of the fleet or the group are disturbed as may be.
    Budget,
    /// Another rollout holds the agent.
    Locked(RolloutId),
    /// The agent is left alone.
    Quarantined {
        /// Until when; none: until it is released.
        until: Option<Time>,
    },
    /// The rate of the fleet, the group or the rollout is used up.
    Rate {
        /// When there is a next one.
        until: Time,
    },
    /// The configuration is never offered again.
    Recalled,
    /// As many of the failure domain are in flight or disturbed as may be, or its rate is used up. Others may have an offer.
    Zone {
        /// When that may change by itself; none: when somebody of it settles.
        until: Option<Time>,
    },
}
