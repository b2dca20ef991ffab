//! What the steady state is told of an agent, how it is kept, and what is shown of it.

use std::time::Duration;

use opamp_proto::{AgentId, Fingerprint};

use super::{DriftClass, DriftSettings};
use crate::Drift;
use crate::rollout::{GroupIx, Limits, OfferKey, Slot, Time};

/// How steady states are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteadySettings {
    /// Most agents of a group and slot that are assigned at a time. Default 10.
    pub in_flight_max: u32,
    /// How long an assignment may take. Default 10 min.
    pub settle_within: Duration,
    /// How long a denied assignment waits at most until it is asked for again. Default 15 s.
    pub retry_after: Duration,
    /// Rates and caps of each group's assignments, below the hard ones. Default [`Limits::default`].
    pub limits: Limits,
    /// What is done about drift.
    pub drift: DriftSettings,
}

impl Default for SteadySettings {
    fn default() -> Self {
        Self {
            in_flight_max: 10,
            settle_within: Duration::from_secs(600),
            retry_after: Duration::from_secs(15),
            limits: Limits::default(),
            drift: DriftSettings::default(),
        }
    }
}

/// Where an agent belongs and what it runs, in one slot.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// Which part of it.
    pub slot: Slot,
    /// The group it belongs to; none if it belongs to none any more, or is deleted.
    pub group: Option<GroupIx>,
    /// Its failure domain.
    pub zone: Option<&'a str>,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether it has the capabilities for it.
    pub accepts: bool,
    /// What it should have, as its record says.
    pub assigned: Option<Fingerprint>,
    /// The offer that made it so; none if that was no rollout's.
    pub offer: Option<OfferKey>,
    /// When that was written; none if that is not known, and then it is long ago.
    pub assigned_at: Option<Time>,
    /// The largest number that an offer of whomever to it ever bore; 0 before the first. An assignment bears the next one, so
    /// that its key is no earlier offer's: who goes to another group and comes back gets what it had under another key.
    pub offers: u32,
    /// Whether a rollout of its group, or of none, left it to it and did not make it the steady state of the group: one that
    /// was aborted, say, or rolled back in a scope that it was not in, and then what it should have is the target still. It
    /// keeps that (R70) until another rollout succeeds in its group or it is moved into another one.
    pub kept: bool,
    /// What it says it runs.
    pub runs: Option<Fingerprint>,
    /// Whether what it runs is a configuration of this server.
    pub runs_known: bool,
    /// What it ran well before what it should have.
    pub previous: Option<Fingerprint>,
    /// What failed on it (R31).
    pub failed: &'a [Fingerprint],
    /// How what it runs relates to what it should have.
    pub drift: Drift,
    /// Whether it says what becomes of a configuration: it has the capability, or has done so before. One that does not is
    /// silent because it is made so, and is not to blame for that.
    pub reports: bool,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// What its agents should have.
    pub config: Fingerprint,
    /// Agents that wait for their assignment.
    pub queued: u32,
    /// Agents that were assigned and have not settled.
    pub in_flight: u32,
    /// How many may be in flight now.
    pub window: u32,
    /// Whether it stopped after failures, or its configuration was recalled.
    pub held: bool,
}

/// Agents that are not where they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteadyView {
    /// They are assigned.
    pub assigned: u32,
    /// They are not connected, or lack a capability.
    pub away: u32,
    /// They left it: by class, in the order of [`DriftClass::ALL`].
    pub drifted: [u32; DriftClass::ALL.len()],
    /// It fails on them.
    pub failed: u32,
    /// A live rollout holds them, and they wait for its end.
    pub in_rollout: u32,
    /// They should have it for long and have not said how that went.
    pub late: u32,
    /// They wait for their assignment.
    pub queued: u32,
}
