//! What goes into the engine: facts of agents and of the fleet, commands, readings.

use opamp_proto::{AgentCapabilities, AgentId, Fingerprint};

use super::plan::Candidate;
use super::{Command, GateIx, WaveIx};
use crate::words::closed_set;

/// What an engine is told.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something became known of an agent. Events of agents that are no members change nothing.
    Agent {
        /// The agent.
        agent: &'a AgentId,
        /// What became known.
        fact: AgentFact<'a>,
    },
    /// Somebody wants something.
    Command(&'a Command),
    /// Something became known of the fleet as a whole.
    Fleet(FleetFact),
    /// A value or a verdict from outside.
    Reading(&'a Reading),
    /// `next_deadline()` has passed. More ticks than necessary are harmless.
    Tick,
}

/// What is known of one agent, as it becomes known. Telling the same again changes nothing.
///
/// `offer` is the number of the offer that had been *sent* to the agent when it said this, 0 for none of this rollout: a
/// report from before an offer is no evidence about it.
#[derive(Clone, Copy, Debug)]
pub enum AgentFact<'a> {
    /// Its capabilities, as they are now.
    Capabilities(AgentCapabilities),
    /// It is there.
    Connected,
    /// The offer left the server: written to the socket, or contained in the answer to a poll.
    Delivered {
        /// The offer.
        offer: u32,
    },
    /// It is not there any more.
    Disconnected {
        /// Whether it said so first (`agent_disconnect`).
        announced: bool,
    },
    /// How its effective configuration relates to the desired one.
    Effective {
        /// The offer sent before.
        offer: u32,
        /// The relation.
        relation: Effective,
    },
    /// Its health.
    Health {
        /// The offer sent before.
        offer: u32,
        /// Whether it is well.
        healthy: bool,
    },
    /// It matches the selector, now or again.
    Joined(&'a Candidate<'a>),
    /// It does not match the selector any more.
    Left,
    /// Its record is deleted.
    Removed,
    /// Its remote config status.
    Reported {
        /// The offer sent before.
        offer: u32,
        /// Which configuration it speaks of.
        hash: Fingerprint,
        /// How that went.
        status: ConfigStatus,
        /// Its own words about a failure.
        text: Option<&'a str>,
    },
    /// The session will not send the offer.
    Withheld {
        /// The offer.
        offer: u32,
        /// Why not.
        why: Withheld,
    },
}

closed_set! {
    /// `RemoteConfigStatuses` as far as rollouts look at them; unknown numbers are `Unset`.
    pub enum ConfigStatus ("config status") {
        /// It is in use.
        Applied = "applied",
        /// It is being put to use.
        Applying = "applying",
        /// It could not be put to use.
        Failed = "failed",
        /// Nothing is said.
        Unset = "unset",
    }
}

closed_set! {
    /// How an effective configuration relates to the desired one, both in canonical form.
    pub enum Effective ("effective relation") {
        /// It differs.
        Differs = "differs",
        /// It is equal.
        Equal = "equal",
        /// Nothing can be said.
        Unknown = "unknown",
    }
}

closed_set! {
    /// Why a session will not send an offer.
    pub enum Withheld ("withheld") {
        /// The agent does not accept it.
        Capability = "capability",
        /// It exceeds what may be sent in one message.
        TooLarge = "too-large",
    }
}

/// What becomes known of the fleet as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetFact {
    /// The leader's lease could not be renewed in time, and another leader may exist; or that is over.
    LeadershipDoubtful(bool),
    /// Agents outside this rollout.
    Outside {
        /// How many there are.
        total: u32,
        /// How many of them went away within the disconnect window.
        away: u32,
    },
    /// No commit succeeds, or they do again. Told by the committer, and not journalled while it lasts.
    StoreDegraded(bool),
    /// This configuration was recalled (R57); it concerns rollouts of it.
    Recalled(Fingerprint),
}

/// Values for telemetry gates and verdicts of external ones. The journal keeps them as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The verdict of a provider.
    External {
        /// The gate that asked.
        gate: GateIx,
        /// The wave it is about; none for all.
        wave: Option<WaveIx>,
        /// Which question this answers; answers to older ones are ignored.
        ticket: u64,
        /// The verdict.
        verdict: ExternalVerdict,
        /// The provider's words.
        text: Box<str>,
    },
    /// Values of treated agents and of a control group.
    Telemetry {
        /// The gate.
        gate: GateIx,
        /// The wave.
        wave: WaveIx,
        /// Agents that have the new configuration.
        treated: Sample,
        /// Agents that have not.
        control: Sample,
    },
}

/// Many values as their count and their sum in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many values.
    pub count: u32,
    /// Their sum, in thousandths.
    pub sum_milli: i64,
}

closed_set! {
    /// What a provider of verdicts says.
    pub enum ExternalVerdict ("external verdict") {
        /// It could not tell.
        Error = "error",
        /// It is not well.
        Fail = "fail",
        /// There is not enough to say.
        Inconclusive = "inconclusive",
        /// It is well.
        Pass = "pass",
    }
}
