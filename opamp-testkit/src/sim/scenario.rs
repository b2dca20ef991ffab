//! Scenarios: a plan, a fleet and acts with times; drawn from a seed, written and read as TOML.
//!
//! ```toml
//! seed = 7
//! replicas = 2
//! [[agents]]
//! number = 0
//! zone = "eu"
//! ring = "inner"
//! version = "1.4.0"
//! runs = 0
//! apply = "2 s .. 20 s"
//! profile = { kind = "well" }
//! [[rollouts]]
//! number = 0
//! at_s = 60
//! config = 4
//! # …
//! [[acts]]
//! at_s = 900
//! do = "pause"
//! rollout = 0
//! ```

mod acts;
#[cfg(opamp_faults)]
mod biased;
mod drawn;
mod request;
mod shared;

use std::ops::Range;

pub use acts::{Act, ActAt, How};
use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::{LateJoiners, Leavers, UnverifiedPolicy};
use serde::{Deserialize, Serialize};
pub use shared::SharedSpec;

use super::profiles::{Profile, Span};

/// What a run of the simulator begins with. The same scenario gives the same run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Everything random follows from it; below 2⁶³.
    pub seed: u64,
    /// How many replicas of the server; at least one, at most [`Scenario::REPLICAS_MAX`].
    pub replicas: u8,
    /// What goes wrong by itself until the acts are over.
    pub faults: Faulty,
    /// What all rollouts share.
    #[serde(default, skip_serializing_if = "SharedSpec::is_default")]
    pub shared: SharedSpec,
    /// The fleet.
    pub agents: Vec<AgentSpec>,
    /// The rollouts.
    pub rollouts: Vec<RolloutSpec>,
    /// What somebody does, or what breaks, and when.
    pub acts: Vec<ActAt>,
}

/// One agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// Its number: what acts name it by, and what its random numbers depend on.
    pub number: u32,
    /// Its failure domain, as label `zone`.
    pub zone: Box<str>,
    /// Its label `ring`; rollouts take every ring but `out`.
    pub ring: Box<str>,
    /// Its version.
    pub version: Box<str>,
    /// The configuration it runs at first.
    pub runs: u8,
    /// How long it takes to apply a configuration.
    pub apply: Span,
    /// When it is there for the first time, in seconds; none: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrives_s: Option<u32>,
    /// How it behaves.
    pub profile: Profile,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// Its number: what acts name it by.
    pub number: u32,
    /// When it is asked for, in seconds.
    pub at_s: u32,
    /// The configuration; not one that agents run at first, but perhaps that of another rollout.
    pub config: u8,
    /// In which waves.
    pub shape: Shape,
    /// How long the first wave is watched, in seconds.
    pub dwell_s: u32,
    /// How long the waves after it are watched, in seconds.
    pub dwell_later_s: u32,
    /// How long gates stay armed after the last wave, in seconds.
    pub bake_s: u32,
    /// The window of its gates, in seconds; a plan whose window is longer than a dwell is refused.
    pub window_s: u32,
    /// Most members of a wave in flight.
    pub in_flight_max: u32,
    /// Most members touched in all.
    pub touched_max: u32,
    /// Most members of a failure domain in flight.
    pub zone_max: u32,
    /// Most offers in a minute.
    pub per_minute: u32,
    /// From when until when nothing new may be offered, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_s: Option<(u32, u32)>,
    /// How many members are left as they are.
    pub control_group: u32,
    /// How often a member is tried again after FAILED.
    pub retries: u8,
    /// What becomes of agents that match later.
    pub joiners: LateJoiners,
    /// What becomes of members that stop matching.
    pub leavers: Leavers,
    /// What members count as that can give no evidence.
    pub unverified: UnverifiedPolicy,
    /// What happens if another rollout has some of the agents.
    pub conflict: ConflictPolicy,
    /// Whether somebody has to agree to the plan.
    pub approval: bool,
    /// Whether somebody has to agree to the second step of a canary.
    #[serde(default)]
    pub wave_approval: bool,
    /// Whether an automatic pause ends with its cause.
    pub auto_resume: bool,
    /// Whether a provider is asked at the end of each wave. While anything is broken it answers late, twice, wrongly or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub external: bool,
}

/// In which waves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Shape {
    /// One wave.
    AllAtOnce,
    /// Waves of a size.
    Batches {
        /// The size.
        size: u32,
    },
    /// So many, a quarter, a half, all.
    Canary {
        /// How many first.
        first: u32,
    },
    /// Waves twice as large each.
    Exponential {
        /// How many first.
        first: u32,
    },
    /// Waves of a size, each begun by hand.
    Manual {
        /// The size.
        size: u32,
    },
    /// Up to these percentages.
    Percentages {
        /// The percentages, ascending.
        parts: Vec<u32>,
    },
    /// Ring by ring: `inner`, `early`, whoever is left.
    Rings,
    /// Zone by zone.
    Zones,
}

/// What goes wrong by itself, in percent of the cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faulty {
    /// Commits that are not written and answered with nothing.
    pub commit_lost: u8,
    /// Commits that are written and answered with nothing.
    pub answer_lost: u8,
    /// Commits that take up to ten seconds.
    pub commit_slow: u8,
    /// Hints that do not arrive.
    pub hint_lost: u8,
    /// Hints that arrive twice.
    pub hint_doubled: u8,
    /// Commands that are given twice.
    pub command_doubled: u8,
    /// Messages that take up to five seconds.
    pub message_slow: u8,
}

/// Parts of a scenario that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Acts.
    Acts,
    /// Agents.
    Agents,
    /// Kinds of faults.
    Faults,
    /// Profiles other than well.
    Profiles,
    /// Replicas beyond the first one.
    Replicas,
    /// Rollouts.
    Rollouts,
}

/// The text is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A number is out of its range.
    #[error("{what} must be from {min} to {max}, not {found}")]
    Range {
        /// What.
        what: &'static str,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
        /// What was given.
        found: usize,
    },
    /// It is no TOML, or has keys it should not have.
    #[error(transparent)]
    Toml(#[from] Box<toml::de::Error>),
}

impl Scenario {
    /// Most agents.
    pub const AGENTS_MAX: usize = 60;
    /// Most replicas.
    pub const REPLICAS_MAX: u8 = 5;
    /// Most rollouts.
    pub const ROLLOUTS_MAX: usize = 8;
    /// Most acts.
    pub const ACTS_MAX: usize = 1_000;

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The scenario as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# this cannot be written: {error}\n"))
    }

    /// Reads what [`Scenario::to_toml`] wrote, or somebody by hand.
    ///
    /// # Errors
    /// [`ScenarioError`] names what is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(Box::new)?;
        let ranges = [
            ("replicas", 1, Self::REPLICAS_MAX.into(), scenario.replicas.into()),
            ("agents", 1, Self::AGENTS_MAX, scenario.agents.len()),
            ("rollouts", 0, Self::ROLLOUTS_MAX, scenario.rollouts.len()),
            ("acts", 0, Self::ACTS_MAX, scenario.acts.len()),
        ];
        for (what, min, max, found) in ranges {
            if !(min..=max).contains(&found) {
                return Err(ScenarioError::Range { what, min, max, found });
            }
        }
        Ok(scenario)
    }

    /// How many parts of a kind there are.
    pub fn parts(&self, part: Part) -> usize {
        match part {
            Part::Acts => self.acts.len(),
            Part::Agents => self.agents.len(),
            Part::Faults => self.faults.on(),
            Part::Profiles => self.agents.iter().filter(|agent| agent.profile != Profile::Well).count(),
            Part::Replicas => usize::from(self.replicas.saturating_sub(1)),
            Part::Rollouts => self.rollouts.len(),
        }
    }

    /// The scenario without some parts of a kind: acts, agents, replicas and rollouts are gone, kinds of faults off, profiles
    /// well. Agents and rollouts keep their numbers, and with them their random numbers; acts about nobody do nothing. None
    /// if nothing would change, or no agent or no rollout be left.
    pub fn without(&self, part: Part, range: Range<usize>) -> Option<Self> {
        if range.is_empty() || range.end > self.parts(part) {
            return None;
        }
        let mut scenario = self.clone();
        match part {
            Part::Acts => drop(scenario.acts.drain(range)),
            Part::Agents if range.len() == self.agents.len() => return None,
            Part::Agents => drop(scenario.agents.drain(range)),
            Part::Faults => scenario.faults.switch_off(range),
            Part::Replicas => scenario.replicas -= u8::try_from(range.len()).unwrap_or(0),
            Part::Rollouts if range.len() == self.rollouts.len() => return None,
            Part::Rollouts => drop(scenario.rollouts.drain(range)),
            Part::Profiles => {
                let others = scenario.agents.iter_mut().filter(|agent| agent.profile != Profile::Well);
                others.skip(range.start).take(range.len()).for_each(|agent| agent.profile = Profile::Well);
            }
        }
        Some(scenario)
    }
}

impl Faulty {
    fn kinds(&mut self) -> [&mut u8; 7] {
        [
            &mut self.commit_lost,
            &mut self.answer_lost,
            &mut self.commit_slow,
            &mut self.hint_lost,
            &mut self.hint_doubled,
            &mut self.command_doubled,
            &mut self.message_slow,
        ]
    }

    /// How many kinds are on.
    pub fn on(mut self) -> usize {
        self.kinds().into_iter().filter(|kind| **kind > 0).count()
    }

    fn switch_off(&mut self, range: Range<usize>) {
        let on = self.kinds().into_iter().filter(|kind| **kind > 0);
        on.skip(range.start).take(range.len()).for_each(|kind| *kind = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_as_it_was_written() {
        for seed in 0..50 {
            let scenario = Scenario::drawn(seed);
            let text = scenario.to_toml();
            assert_eq!(Scenario::from_toml(&text).unwrap(), scenario, "{text}");
        }
    }

    #[test]
    fn a_scenario_without_agents_or_with_an_unknown_key_is_refused() {
        let mut scenario = Scenario::drawn(1);
        scenario.agents.clear();
        let refused = Scenario::from_toml(&scenario.to_toml());
        assert!(matches!(refused, Err(ScenarioError::Range { what: "agents", .. } | ScenarioError::Toml(_))));
        let text = format!("colour = 3\n{}", Scenario::drawn(1).to_toml());
        assert!(matches!(Scenario::from_toml(&text), Err(ScenarioError::Toml(_))));
    }

    #[test]
    fn what_is_left_out_is_gone_and_the_rest_is_as_it_was() {
        let scenario = Scenario::drawn(3);
        let smaller = scenario.without(Part::Agents, 0..2).unwrap();
        assert_eq!(smaller.agents, scenario.agents[2..]);
        assert_eq!(smaller.acts, scenario.acts);
        assert_eq!(scenario.without(Part::Agents, 0..scenario.agents.len()), None);
        assert_eq!(scenario.without(Part::Acts, 0..0), None);
        let profiles = scenario.parts(Part::Profiles);
        if profiles > 0 {
            let well = scenario.without(Part::Profiles, 0..profiles).unwrap();
            assert_eq!(well.parts(Part::Profiles), 0);
        }
        let only = scenario.without(Part::Rollouts, 1..scenario.rollouts.len());
        if let Some(only) = only {
            assert_eq!(only.rollouts, scenario.rollouts[..1]);
        }
        assert_eq!(scenario.without(Part::Rollouts, 0..scenario.rollouts.len()), None);
        let replicas = scenario.parts(Part::Replicas);
        assert_eq!(scenario.without(Part::Replicas, 0..replicas).map_or(1, |one| one.replicas), 1);
        let faults = scenario.faults.on();
        if faults > 0 {
            assert_eq!(scenario.without(Part::Faults, 0..faults).unwrap().faults, Faulty::default());
        }
    }
}
