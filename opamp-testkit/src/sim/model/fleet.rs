//! What a fleet is made of: who the agents are, what they run, how they behave. Everything about one agent is drawn from
//! the seed and its number.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use opamp_fleet::rollout::plan::{Candidate, FleetSizes, Transport};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{Fell, Time};
use opamp_fleet::{
    AgentFacts, ConfigError, ConfigLimits, ConfigMap, Drift, Health, LabelScope, LabelValue, Labels, Liveness,
};
use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, InstanceUid, Wall, pb};

use super::draw::{Draw, Purpose, part_of};
use crate::sim::profiles::{Mix, Profile, Span};

/// How often an agent with a WebSocket is heard of.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The largest configuration that can be sent.
const SEND_BYTES_MAX: u64 = 64 << 20;

/// A fleet, without its agents: they follow from it.
#[derive(Clone, Debug)]
pub struct FleetModel {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many agents, at most [`FleetModel::AGENTS_MAX`].
    pub agents: u32,
    /// Kinds of agents.
    pub mix: Mix,
    /// Failure domains; the label [`FleetModel::ZONE`].
    pub zones: Weights,
    /// Versions; `service.version`.
    pub versions: Weights,
    /// Configurations they run before.
    pub before: Weights,
    /// Those of them that are known; any other is made of its name.
    pub bodies: BTreeMap<Box<str>, ConfigMap>,
    /// Other labels.
    pub labels: BTreeMap<Box<str>, Weights>,
    /// Agents that come only while the rollout runs; those that the selector names join it.
    pub joins: Option<Movement>,
    /// Agents that cease to match it.
    pub leaves: Option<Movement>,
    /// When the rollout is planned.
    pub begins: Time,
}

/// A part of a fleet, and how long after the rollout's start something happens to each of its agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which part.
    pub part: Ppm,
    /// How long after the start.
    pub after: Span,
}

impl FleetModel {
    /// Most agents.
    pub const AGENTS_MAX: u32 = 4_000_000;
    /// The label that names the failure domain.
    pub const ZONE: &'static str = "zone";

    /// A fleet of agents that all behave alike, without labels.
    #[must_use]
    pub fn plain(seed: u64, agents: u32, mix: Mix) -> Self {
        Self {
            seed,
            agents,
            mix,
            zones: Weights::default(),
            versions: Weights::default(),
            before: Weights::default(),
            bodies: BTreeMap::new(),
            labels: BTreeMap::new(),
            joins: None,
            leaves: None,
            begins: Time(1_772_438_400_000),
        }
    }

    /// Its draws.
    #[must_use]
    pub const fn draw(&self) -> Draw {
        Draw::new(self.seed)
    }

    /// Position of an agent's kind in the mix.
    #[must_use]
    pub fn profile_of(&self, agent: u32) -> usize {
        self.mix.pick(self.draw().bits(agent, Purpose::Profile, 0))
    }

    /// Position of what an agent runs before in [`FleetModel::befores`].
    #[must_use]
    pub fn before_of(&self, agent: u32) -> usize {
        self.before.pick(self.draw().bits(agent, Purpose::Before, 0)).unwrap_or_default()
    }

    /// The version of an agent.
    #[must_use]
    pub fn version_of(&self, agent: u32) -> Option<&str> {
        let at = self.versions.pick(self.draw().bits(agent, Purpose::Version, 0))?;
        Some(self.versions.name(at))
    }

    /// Configurations that agents run before, at least one, by name: where nothing is known of one, any body will do as long as
    /// they differ.
    #[must_use]
    pub fn befores(&self) -> Vec<Fingerprint> {
        let names = self.before.names();
        let names: Vec<&str> = if names.is_empty() { vec!["before"] } else { names };
        let fingerprint = |map: &ConfigMap| map.hash().fingerprint();
        let made = |name| config(name).as_ref().map_or(NO_CONFIG, fingerprint);
        names.into_iter().map(|name| self.bodies.get(name).map_or_else(|| made(name), fingerprint)).collect()
    }

    /// Hands over every agent that is there when the rollout is planned, as planning sees it. Only one of them is in memory at a
    /// time.
    pub fn each_candidate(&self, take: &mut dyn FnMut(Candidate<'_>)) {
        let befores = self.befores();
        let there = (0..self.agents).filter(|&agent| !self.joins_later(agent));
        there.for_each(|agent| self.candidate(agent, self.begins, &befores, take));
    }

    /// How long one that flaps is there at a time, and how long it is until it falls for the first time: they are not in step.
    pub(super) fn flaps(&self, agent: u32, period: &Span) -> (u64, u64) {
        let draw = self.draw();
        let whole = draw.length_ms(agent, Purpose::After, 0, period);
        let phase = Span { from: Duration::ZERO, until: Duration::from_millis(whole) };
        (whole, draw.length_ms(agent, Purpose::After, u32::MAX, &phase))
    }

    /// When it fell last before it is seen first: one that flaps has done so before.
    fn fell(&self, agent: u32, now: Time) -> Fell {
        let Profile::Flapping { period } = self.profile(agent) else { return Fell::default() };
        let (whole, first) = self.flaps(agent, period);
        // It is away for a quarter of the time that it is there.
        let round = whole + whole / 4;
        let ago = |rounds: u64| (now.0 + first).checked_sub(rounds * round).map(Time);
        Fell::new(ago(1), ago(2))
    }

    /// Hands over an agent as planning sees it now; `befores` are [`FleetModel::befores`].
    pub(super) fn candidate(
        &self,
        agent: u32,
        now: Time,
        befores: &[Fingerprint],
        take: &mut dyn FnMut(Candidate<'_>),
    ) {
        let facts = self.facts_of(agent);
        let before = befores.get(self.before_of(agent)).copied();
        let profile = self.profile(agent);
        let poll = match profile {
            Profile::Polling { interval } => Some(interval.from.max(interval.until)),
            _ => None,
        };
        take(Candidate {
            current: before,
            assigned: before,
            known_good: before,
            exact_effective: !matches!(profile, Profile::Merges | Profile::Mute),
            first_seen: Wall(u64::from(agent)),
            transport: if poll.is_some() { Transport::Http } else { Transport::WebSocket },
            interval: poll.unwrap_or(HEARTBEAT),
            send_bytes_max: SEND_BYTES_MAX,
            fell: self.fell(agent, now),
            ..Candidate::new(&facts)
        });
    }

    /// Whether an agent comes only after the start.
    #[must_use]
    pub fn joins_later(&self, agent: u32) -> bool {
        self.joins.is_some_and(|moves| self.draw().happens(agent, Purpose::Join, moves.part))
    }

    /// Whether an agent that was there leaves.
    #[must_use]
    pub fn leaves_later(&self, agent: u32) -> bool {
        let leaves = |moves: Movement| self.draw().happens(agent, Purpose::Leave, moves.part);
        !self.joins_later(agent) && self.leaves.is_some_and(leaves)
    }

    /// How large the fleet is.
    #[must_use]
    pub const fn sizes(&self) -> FleetSizes {
        FleetSizes { agents: self.agents, group: 0 }
    }

    /// Whether something is wrong with an agent once it gets the new configuration.
    #[must_use]
    pub fn is_faulty(&self, agent: u32) -> bool {
        match self.profile(agent) {
            Profile::Fails { rate } => self.draw().happens(agent, Purpose::Fate, *rate),
            Profile::FailsOnVersion { version, rate } => {
                let has_it = version.as_deref().is_none_or(|version| self.version_of(agent) == Some(version));
                has_it && self.draw().happens(agent, Purpose::Fate, *rate)
            }
            Profile::CrashLooping { .. }
            | Profile::FallsIll { .. }
            | Profile::Mismatched
            | Profile::SelfRollingBack { .. }
            | Profile::Silent { .. } => true,
            Profile::DropsCapability
            | Profile::Flapping { .. }
            | Profile::IllBefore
            | Profile::Merges
            | Profile::Mute
            | Profile::NoHealth
            | Profile::NoStatus
            | Profile::Offline { .. }
            | Profile::Polling { .. }
            | Profile::RestartsOnApply
            | Profile::Slow { .. }
            | Profile::Well => false,
        }
    }

    /// An agent's kind.
    #[must_use]
    pub fn profile(&self, agent: u32) -> &Profile {
        &self.mix.shares()[self.profile_of(agent)].profile
    }

    fn facts_of(&self, agent: u32) -> AgentFacts {
        let profile = self.profile(agent);
        let away = matches!(profile, Profile::Offline { .. });
        let mut labels = Labels::default();
        let mut label = |scope, key: &str, value: &str| {
            labels.insert(scope, key.to_owned(), LabelValue::Text(value.to_owned()));
        };
        let draw = self.draw();
        if let Some(zone) = self.zones.pick(draw.bits(agent, Purpose::Zone, 0)) {
            label(LabelScope::NonIdentifying, Self::ZONE, self.zones.name(zone));
        }
        if let Some(version) = self.version_of(agent) {
            label(LabelScope::Identifying, "service.version", version);
        }
        for (number, (key, values)) in (0..).zip(&self.labels) {
            if let Some(value) = values.pick(draw.bits(agent, Purpose::Label, number)) {
                label(LabelScope::Server, key, values.name(value));
            }
        }
        AgentFacts {
            id: id_of(agent),
            uid: InstanceUid::from_bytes(*id_of(agent).as_bytes()),
            capabilities: capabilities(profile),
            liveness: if away { Liveness::Disconnected } else { Liveness::Connected },
            liveness_since: Wall(0),
            health: match profile {
                Profile::Mute | Profile::NoHealth => Health::Unknown,
                Profile::IllBefore => Health::Unhealthy,
                _ => Health::Healthy,
            },
            drift: Drift::Unmanaged,
            labels,
        }
    }
}

/// The fingerprint that stands where a configuration cannot be made; no configuration has it.
const NO_CONFIG: Fingerprint = Fingerprint::from_bytes([0; 16]);

/// The record of an agent.
#[must_use]
pub const fn id_of(agent: u32) -> AgentId {
    let [a, b, c, d] = agent.to_be_bytes();
    AgentId::from_bytes([1, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0x7e, 0x0f, 0x8a, 0x1b, 0, 0, a, b, c, d])
}

/// Which agent a record is of.
#[must_use]
pub fn agent_of(id: &AgentId) -> u32 {
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What an agent of a kind announces.
#[must_use]
pub fn capabilities(profile: &Profile) -> AgentCapabilities {
    let mut all = AgentCapabilities::REPORTS_STATUS
        .union(AgentCapabilities::ACCEPTS_REMOTE_CONFIG)
        .union(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG)
        .union(AgentCapabilities::REPORTS_HEARTBEAT);
    if !matches!(profile, Profile::Mute | Profile::NoHealth) {
        all.insert(AgentCapabilities::REPORTS_HEALTH);
    }
    if !matches!(profile, Profile::Mute | Profile::NoStatus) {
        all.insert(AgentCapabilities::REPORTS_REMOTE_CONFIG);
    }
    all
}

/// A configuration of one file that says its own name.
///
/// # Errors
/// [`ConfigError`] if the name is longer than a configuration may be.
pub fn config(name: &str) -> Result<ConfigMap, ConfigError> {
    let body = Bytes::from(format!("# {name}\n"));
    let file = pb::AgentConfigObject { body, content_type: "text/yaml".to_owned(), role: String::new() };
    let map = pb::AgentConfigMap { config_map: [(String::new(), file)].into() };
    ConfigMap::new(map, &ConfigLimits::default())
}

/// Names with parts of the whole, which need not sum up to it: the last one gets what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(Vec<(Box<str>, Ppm)>);

impl Weights {
    /// Most names.
    pub const NAMES_MAX: usize = 1_024;

    /// Names with their parts.
    ///
    /// # Errors
    /// What is wrong with them: too many, or more than the whole.
    pub fn new(parts: Vec<(Box<str>, Ppm)>) -> Result<Self, &'static str> {
        if parts.len() > Self::NAMES_MAX {
            return Err("at most 1024 names");
        }
        let sum: u64 = parts.iter().map(|(_, part)| u64::from(part.0)).sum();
        if sum > u64::from(Ppm::ALL.0) {
            return Err("the parts are more than 100 %");
        }
        Ok(Self(parts))
    }

    /// The position that these bits fall on; none if there is no name.
    #[must_use]
    pub fn pick(&self, bits: u64) -> Option<usize> {
        let mut left = part_of(bits, Ppm::ALL.0);
        for (at, (_, part)) in self.0.iter().enumerate() {
            match left.checked_sub(part.0) {
                None => return Some(at),
                Some(rest) => left = rest,
            }
        }
        self.0.len().checked_sub(1)
    }

    /// The name at a position; empty if there is none.
    #[must_use]
    pub fn name(&self, at: usize) -> &str {
        self.0.get(at).map_or("", |(name, _)| name)
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| &**name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(parts: &[(&str, u32)]) -> Weights {
        Weights::new(parts.iter().map(|(name, percent)| ((*name).into(), Ppm::percent(*percent))).collect())
            .unwrap()
    }

    #[test]
    fn names_are_picked_by_their_parts_and_the_last_gets_the_rest() {
        let zones = weights(&[("eu", 60), ("us", 30)]);
        let eu =
            (0..100_000).filter(|&n| zones.pick(Draw::new(1).bits(n, Purpose::Zone, 0)) == Some(0)).count();
        assert!((59_000..61_000).contains(&eu), "{eu}");
        assert_eq!(zones.pick(u64::MAX), Some(1));
        assert_eq!(Weights::default().pick(5), None);
        assert!(Weights::new(vec![("a".into(), Ppm::ALL), ("b".into(), Ppm(1))]).is_err());
    }

    #[test]
    fn a_record_names_its_agent() {
        for agent in [0, 1, 255, 65_536, u32::MAX] {
            assert_eq!(agent_of(&id_of(agent)), agent);
        }
    }

    #[test]
    fn configurations_of_other_names_are_others() {
        assert_ne!(config("a").unwrap().hash(), config("b").unwrap().hash());
    }
}
