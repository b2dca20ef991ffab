//! What is asked for: a configuration, agents, waves, and how careful to be.

use std::fmt;
use std::time::Duration;

use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, Wall};

use super::lint::Lint;
use super::template::Template;
use crate::faults::Faults;
use crate::rollout::gates::{self, GateConfig};
use crate::rollout::stats::Ppm;
use crate::rollout::windows::Calendar;
use crate::rollout::{EngineSettings, Fell, GroupIx, RolloutId, Slot, Time};
use crate::words::closed_set;
use crate::{AgentFacts, ConfigMap, Selector};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PlanRequest<'a> {
    /// The rollout's name.
    pub id: RolloutId,
    /// What people call it, at most [`PlanRequest::TEXT_BYTES_MAX`] bytes.
    pub title: Box<str>,
    /// Which part of the agents it moves.
    pub slot: Slot,
    /// The group whose steady state it becomes; none: only its members'.
    pub group: Option<GroupIx>,
    /// What they get.
    pub target: Target<'a>,
    /// Who gets it (R9).
    pub selector: &'a Selector,
    /// In which waves (R16).
    pub strategy: Strategy,
    /// In which order (R13).
    pub order: Order,
    /// What each wave mirrors of the fleet (R14).
    pub stratify: Box<[StratumKey]>,
    /// Failure domains (R15).
    pub domains: Option<Domains>,
    /// How many members are left as they are, to compare with (R43).
    pub control_group: u32,
    /// What stops it, at most 16.
    pub gates: Box<[GateConfig]>,
    /// How it behaves.
    pub settings: EngineSettings,
    /// When new offers may begin.
    pub calendar: Calendar,
    /// When it starts; none: when somebody starts it.
    pub start_at: Option<Time>,
    /// When it is over.
    pub expires_at: Option<Time>,
    /// Why something dangerous is asked for: all at once, without a gate for total failure, or less careful than the
    /// group's default where that may be waived.
    pub override_reason: Option<Box<str>>,
    /// Who asks.
    pub author: Box<str>,
    /// What happens if another rollout has some of the agents (R61).
    pub conflict: ConflictPolicy,
    /// What the group asks of each of its rollouts (R19); none: nothing.
    pub default: Option<&'a Template>,
    /// Ways in which planning is broken on purpose; none outside of tests of the simulator.
    pub faults: Faults,
}

impl<'a> PlanRequest<'a> {
    /// Longest title, author and reason, in bytes.
    pub const TEXT_BYTES_MAX: usize = 1_024;
    /// Most strata keys.
    pub const STRATA_KEYS_MAX: usize = 8;

    /// What is asked for, careful by default: the default canary, gates and settings, members by hash, at any time, started
    /// by hand, without a group, refused where another rollout is at work.
    pub fn new(id: RolloutId, target: Target<'a>, selector: &'a Selector) -> Self {
        Self {
            id,
            title: Box::default(),
            slot: Slot::MainConfig,
            group: None,
            target,
            selector,
            strategy: Strategy::canary(),
            order: Order::Hash,
            stratify: Box::default(),
            domains: None,
            control_group: 0,
            gates: gates::defaults(),
            settings: EngineSettings::default(),
            calendar: Calendar::default(),
            start_at: None,
            expires_at: None,
            override_reason: None,
            author: Box::default(),
            conflict: ConflictPolicy::Reject,
            default: None,
            faults: Faults::default(),
        }
    }
}

/// A configuration, and what it asks of an agent.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The configuration; its hash is what is pinned (R1).
    pub config: &'a ConfigMap,
    /// What it is written for; agents of another type are excluded. None: any.
    pub agent_type: Option<Box<str>>,
    /// Components an agent must have, if it says which it has.
    pub components: Box<[Box<str>]>,
    /// Capabilities an agent must have, beside the one that the slot asks for.
    pub capabilities: AgentCapabilities,
    /// What the configuration itself is checked for (R10).
    pub lint: Lint<'a>,
}

impl<'a> Target<'a> {
    /// Longest name of a component, in bytes.
    pub const COMPONENT_BYTES_MAX: usize = 256;
    /// Most components.
    pub const COMPONENTS_MAX: usize = 1_024;

    /// A configuration that asks nothing of an agent, and is not checked.
    pub fn new(config: &'a ConfigMap) -> Self {
        Self {
            config,
            agent_type: None,
            components: Box::default(),
            capabilities: AgentCapabilities::NONE,
            lint: Lint::default(),
        }
    }
}

/// One agent as planning sees it. Everything optional is "not known".
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What the index knows of it.
    pub facts: &'a AgentFacts,
    /// What it says it runs.
    pub current: Option<Fingerprint>,
    /// What it should run.
    pub assigned: Option<Fingerprint>,
    /// What it last ran well.
    pub known_good: Option<Fingerprint>,
    /// Whether its effective configuration equalled the desired one before.
    pub exact_effective: bool,
    /// What failed on it before.
    pub failed: &'a [Fingerprint],
    /// When it was first heard of.
    pub first_seen: Wall,
    /// How it is connected.
    pub transport: Transport,
    /// How often it is heard of: heartbeats, or polls.
    pub interval: Duration,
    /// The components it has.
    pub components: Option<&'a dyn HasComponent>,
    /// The largest configuration that can be sent to it, in bytes.
    pub send_bytes_max: u64,
    /// When it fell lately: who falls as often before an offer as after it shows nothing of the configuration.
    pub fell: Fell,
    /// Whether it is in quarantine.
    pub quarantined: bool,
    /// Which rollout holds it for this slot.
    pub locked_by: Option<RolloutId>,
}

impl<'a> Candidate<'a> {
    /// An agent of which only its facts are known: on a connection that stays, with a heartbeat each 30 s.
    pub fn new(facts: &'a AgentFacts) -> Self {
        Self {
            facts,
            current: None,
            assigned: None,
            known_good: None,
            exact_effective: false,
            failed: &[],
            first_seen: Wall(0),
            transport: Transport::WebSocket,
            interval: Duration::from_secs(30),
            components: None,
            send_bytes_max: u64::MAX,
            fell: Fell::default(),
            quarantined: false,
            locked_by: None,
        }
    }
}

/// Whether an agent has a component.
pub trait HasComponent: fmt::Debug {
    /// Whether it has the component of this name.
    fn has_component(&self, name: &str) -> bool;
}

closed_set! {
    /// How an agent is connected.
    pub enum Transport ("transport") {
        /// It polls.
        Http = "http",
        /// It stays connected.
        WebSocket = "websocket",
    }
}

/// In which waves (R16). Whoever no wave names is in one more at the end (R18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One wave. It needs an override.
    AllAtOnce,
    /// Waves of this many.
    Batches {
        /// Members of a wave; at least 1.
        size: u32,
    },
    /// Steps with a dwell each.
    Canary {
        /// The steps; at least one.
        steps: Box<[Step]>,
    },
    /// Waves that grow by a factor.
    Exponential {
        /// Members of the first wave; at least 1.
        first: u32,
        /// By how much the next wave is larger; at least 2.
        factor: u8,
    },
    /// A wave for each value of a label, in this order.
    LabelRings {
        /// The label.
        key: Box<str>,
        /// Its values.
        rings: Box<[Box<str>]>,
    },
    /// Waves of this many, each begun by hand.
    Manual {
        /// Members of a wave; at least 1.
        size: u32,
    },
    /// Waves up to these parts of all, ascending.
    Percentages(Box<[Ppm]>),
    /// A wave for each value of a label, by name.
    ZoneByZone {
        /// The label.
        key: Box<str>,
    },
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many have it after the step.
    pub until: Size,
    /// How long it is watched once it has settled (R47).
    pub dwell: Duration,
    /// Whether somebody has to agree before it.
    pub approval: bool,
}

/// A number of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The smaller of a number and a part of all.
    AtMost {
        /// The number.
        count: u32,
        /// The part.
        percent: Ppm,
    },
    /// This many.
    Count(u32),
    /// This part of all.
    Percent(Ppm),
}

/// In which order (R13). Ties are broken by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// As given; the others follow by hash.
    Explicit(Box<[AgentId]>),
    /// By a hash of agent and rollout: another order in each rollout.
    Hash,
    /// By host name.
    Hostname,
    /// By the value of a label, as a number, the smallest first; those without it last.
    LeastCritical {
        /// The label.
        label: Box<str>,
    },
    /// Whoever is known longest first.
    Oldest,
}

/// What each wave mirrors of the fleet (R14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StratumKey {
    /// The mix of agent types.
    AgentType,
    /// The mix of values of a label.
    Label(Box<str>),
    /// The mix of versions.
    Version,
}

/// Failure domains (R15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domains {
    /// The label that names an agent's domain.
    pub key: Box<str>,
    /// Most members of a domain in flight at a time.
    pub in_flight_max: u32,
    /// A label of which no two agents with the same value are in the same wave, as far as that is possible. Refused where
    /// a label makes the waves.
    pub anti_affinity: Option<Box<str>>,
}

closed_set! {
    /// What happens if another rollout has some of the agents (R61).
    pub enum ConflictPolicy ("conflict policy") {
        /// This one waits for the other's end.
        Queue = "queue",
        /// This one is refused.
        Reject = "reject",
        /// The other one ends early, and this one takes its place.
        Supersede = "supersede",
    }
}
