//! The plan of a rollout: what is asked for, what comes of it, and its hash (R12).
//!
//! ```text
//! candidates ─► selected (R9) ─► not excluded (R10) ─► control group (R43) ─► in order (R13) ─► mixed (R14, R15) ─► waves (R16)
//!                                                  └► run it already: behind the last wave (R33)
//! ```

mod check;
mod fill;
mod joiner;
mod lint;
mod make;
mod order;
mod pick;
mod preflight;
mod request;
mod scan;
mod strata;
mod strategy;
mod template;

use std::time::Duration;

use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, Fingerprint};

pub(crate) use joiner::joiner;
pub use lint::{Finding, Findings, Lint, Validator};
pub use request::{
    Candidate, ConflictPolicy, Domains, HasComponent, Order, PlanRequest, Size, Step, Strategy, StratumKey,
    Target, Transport,
};
pub use template::Template;

use super::gates::{Boundaries, GateConfig};
use super::members::{Fell, Flags, Pace, Row};
use super::windows::Calendar;
use super::{EngineSettings, GroupIx, MemberState, Reason, RolloutId, Slot, Time, WaveIx, ZoneIx};
use crate::Selector;

/// How large what the rollout is part of is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetSizes {
    /// Agents of the fleet; 0 if that is not known.
    pub agents: u32,
    /// Agents of the group; 0 without a group.
    pub group: u32,
}

/// A plan: immutable once made, and what an approval is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The rollout's name.
    pub id: RolloutId,
    /// What people call it.
    pub title: Box<str>,
    /// Which part of the agents it moves.
    pub slot: Slot,
    /// The group whose steady state it becomes.
    pub group: Option<GroupIx>,
    /// The hash under which the configuration is offered.
    pub target_hash: ConfigHash,
    /// Its fingerprint: what entries and writes name it by.
    pub target: Fingerprint,
    /// The configuration's size, encoded, in bytes.
    pub target_bytes: u64,
    /// See [`Target::agent_type`].
    pub agent_type: Option<Box<str>>,
    /// See [`Target::components`].
    pub components: Box<[Box<str>]>,
    /// See [`Target::capabilities`].
    pub capabilities: AgentCapabilities,
    /// Who gets it.
    pub selector: Selector,
    /// In which waves.
    pub strategy: Strategy,
    /// In which order.
    pub order: Order,
    /// What each wave mirrors.
    pub stratify: Box<[StratumKey]>,
    /// Failure domains.
    pub domains: Option<Domains>,
    /// How many members are left as they are.
    pub control_group: u32,
    /// What stops it.
    pub gates: Box<[GateConfig]>,
    /// For each gate, for each of its tests: what the test compares with.
    pub boundaries: Box<[Box<[Boundaries]>]>,
    /// How it behaves.
    pub settings: EngineSettings,
    /// When new offers may begin.
    pub calendar: Calendar,
    /// When it starts.
    pub start_at: Option<Time>,
    /// When it is over.
    pub expires_at: Option<Time>,
    /// Why something dangerous is asked for.
    pub override_reason: Option<Box<str>>,
    /// Who asked.
    pub author: Box<str>,
    /// What happens if another rollout has some of the agents.
    pub conflict: ConflictPolicy,
    /// Its waves; at least one, at most [`Plan::WAVES_MAX`].
    pub waves: Box<[WavePlan]>,
    /// Names of failure domains, in the order of [`ZoneIx`].
    pub zones: Box<[Box<str>]>,
    /// Its members, the control group included.
    pub members: u32,
    /// Who was left out.
    pub excluded: Box<[Exclusion]>,
    /// Rollouts that have some of its agents, and how many.
    pub overlaps: Box<[(RolloutId, u32)]>,
    /// How large the fleet was.
    pub fleet: FleetSizes,
    /// When it was made; no part of the hash.
    pub made_at: Time,
    /// Covers everything that decides what happens: two plans of one hash do the same.
    pub hash: Fingerprint,
}

impl Plan {
    /// Most members.
    pub const MEMBERS_MAX: u32 = 4_000_000;
    /// Most waves.
    pub const WAVES_MAX: u16 = 1_000;
    /// Most failure domains.
    pub const ZONES_MAX: u16 = 1_024;
}

/// One wave as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WavePlan {
    /// What people call it.
    pub name: Box<str>,
    /// Its first member.
    pub first: u32,
    /// The member after its last.
    pub end: u32,
    /// How long it is watched once it has settled.
    pub dwell: Duration,
    /// Most members in flight at a time; at least 1.
    pub cap: u32,
    /// Whether somebody has to agree before it.
    pub approval: bool,
    /// Whether somebody has to advance it.
    pub manual: bool,
    /// Its failure domain, if waves are domains.
    pub zone: Option<ZoneIx>,
    /// The value of the label, if waves are rings or domains.
    pub ring: Option<Box<str>>,
    /// The order key of the member that is its last if members are taken in order: late joiners without a ring or domain
    /// belong to the first wave whose key is not below theirs. Empty if it has no member, or waves are rings or domains.
    pub last_key: Box<[u8]>,
}

/// Agents left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The reason.
    pub reason: Reason,
    /// How many.
    pub count: u32,
    /// Some of them, at most [`Exclusion::EXAMPLES_MAX`], by id.
    pub examples: Vec<AgentId>,
}

impl Exclusion {
    /// Most examples.
    pub const EXAMPLES_MAX: usize = 20;
}

/// The members of a plan in the order of dispatch, the first wave first. Behind those of the last wave stand, as its members
/// too, who runs the configuration already and then the control group. They move into the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedMembers {
    pub(crate) rows: Vec<Row>,
    /// Beside the rows.
    pub(crate) ids: Vec<AgentId>,
    /// Beside the rows.
    pub(crate) paces: Vec<Pace>,
    /// Previous configurations, in the order of [`super::ConfigIx`].
    pub(crate) configs: Vec<Fingerprint>,
    /// What they say they run, and how many do: most frequent first, at most [`PlannedMembers::CURRENTS_MAX`]. Only for the
    /// preview, and empty in what was read back.
    pub(crate) currents: Vec<(Option<Fingerprint>, u32)>,
}

impl PlannedMembers {
    /// Most configurations that are told apart among those that members run.
    pub const CURRENTS_MAX: usize = 1_024;

    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Their agents, in the order of dispatch.
    pub fn ids(&self) -> &[AgentId] {
        &self.ids
    }

    /// How many are going to be offered something: all but those that run it already and the control group.
    pub fn queued(&self) -> u32 {
        let queued = self.rows.iter().filter(|row| row.state == MemberState::Queued).count();
        u32::try_from(queued).unwrap_or(u32::MAX)
    }

    /// What each wave is given: agents, with the state they begin in.
    pub fn of_wave<'a>(
        &'a self,
        wave: &WavePlan,
    ) -> impl Iterator<Item = (&'a AgentId, MemberState)> + use<'a> {
        let range = wave.first as usize..(wave.end as usize).min(self.rows.len());
        let ids = self.ids.get(range.clone()).unwrap_or_default();
        let rows = self.rows.get(range).unwrap_or_default();
        ids.iter().zip(rows.iter().map(|row| row.state))
    }
}

/// A late joiner as its plan sees it (R21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joiner {
    /// Why the preflight leaves it out.
    pub(crate) excluded: Option<Reason>,
    /// The wave it would have been in.
    pub(crate) wave: WaveIx,
    pub(crate) zone: ZoneIx,
    pub(crate) flags: Flags,
    pub(crate) pace: Pace,
    /// When it fell lately.
    pub(crate) fell: Fell,
    /// What it can go back to.
    pub(crate) previous: Option<Fingerprint>,
}
