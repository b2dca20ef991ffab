//! `[fleet]`: how many agents, of which kinds, with which labels.

use std::collections::BTreeMap;
use std::path::PathBuf;

use opamp_fleet::rollout::Time;
use opamp_fleet::rollout::preview::grouped;
use opamp_fleet::rollout::stats::Ppm;
use opamp_testkit::sim::model::fleet::{FleetModel, Movement, Weights};
use opamp_testkit::sim::profiles::{Mix, Profile, Share, Span};
use serde::Deserialize;

use super::{InputError, Percent};

/// Names with the part of the fleet that has each.
type Parts = BTreeMap<Box<str>, Percent>;

/// The fleet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// How many agents, at most [`FleetModel::AGENTS_MAX`].
    pub agents: u32,
    /// Failure domains, in percent; the label `zone`. The last one by name gets what is left of 100.
    #[serde(default)]
    pub zones: Parts,
    /// Other labels, by key, then by value in percent.
    #[serde(default)]
    pub labels: BTreeMap<Box<str>, Parts>,
    /// What they run before, in percent.
    #[serde(default)]
    pub configs: Parts,
    /// Files with those of them that are to be compared with the new one; beside the plan file.
    #[serde(default)]
    pub files: BTreeMap<Box<str>, PathBuf>,
    /// Versions (`service.version`), in percent.
    #[serde(default)]
    pub versions: Parts,
    /// Agents that come only while the rollout runs; those that the selector names join it.
    pub joins: Option<Moves>,
    /// Agents that cease to match it.
    pub leaves: Option<Moves>,
    /// Kinds of agents. Default all well, each 2 to 20 seconds with applying.
    #[serde(default)]
    pub profile: Vec<Share>,
}

/// A part of the fleet, and when something happens to each agent of it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moves {
    /// Which part.
    pub percent: Percent,
    /// How long after the rollout's start.
    pub after: Span,
}

impl Moves {
    const fn movement(self) -> Movement {
        Movement { part: self.percent.0, after: self.after }
    }
}

impl Fleet {
    /// The model fleet of a seed.
    pub(super) fn model(&self, seed: u64, begins: Option<Time>) -> Result<FleetModel, InputError> {
        if !(1..=FleetModel::AGENTS_MAX).contains(&self.agents) {
            let (most, given) = (grouped(FleetModel::AGENTS_MAX), grouped(self.agents));
            let what = format!("1 to {most} agents, not {given}");
            return Err(InputError::value("fleet.agents", what));
        }
        let mix = if self.profile.is_empty() {
            vec![Share {
                profile: Profile::Well,
                share: Ppm::ALL,
                apply: Span::between(2, 20),
                fails_after: None,
            }]
        } else {
            self.profile.clone()
        };
        let plain = FleetModel::plain(seed, self.agents, Mix::new(mix)?);
        let mut labels = BTreeMap::new();
        for (key, parts) in &self.labels {
            labels.insert(key.clone(), weights("fleet.labels", parts)?);
        }
        Ok(FleetModel {
            zones: weights("fleet.zones", &self.zones)?,
            versions: weights("fleet.versions", &self.versions)?,
            before: weights("fleet.configs", &self.configs)?,
            labels,
            joins: self.joins.map(Moves::movement),
            leaves: self.leaves.map(Moves::movement),
            begins: begins.unwrap_or(plain.begins),
            ..plain
        })
    }
}

fn weights(key: &'static str, parts: &Parts) -> Result<Weights, InputError> {
    let parts = parts.iter().map(|(name, part)| (name.clone(), part.0)).collect();
    Weights::new(parts).map_err(|what| InputError::value(key, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> Result<FleetModel, InputError> {
        toml::from_str::<Fleet>(text).unwrap().model(1, None)
    }

    #[test]
    fn a_fleet_has_one_to_four_million_agents() {
        assert_eq!(model("agents = 4_000_000").unwrap().agents, 4_000_000);
        for agents in ["0", "4_000_001"] {
            let error = model(&format!("agents = {agents}")).unwrap_err().to_string();
            assert!(error.starts_with("fleet.agents: 1 to 4,000,000"), "{error}");
        }
    }

    #[test]
    fn parts_are_at_most_the_whole_and_profiles_exactly() {
        let zones = model("agents = 9\nzones = { eu = 60, us = 40 }").unwrap().zones;
        assert_eq!(zones.names(), ["eu", "us"]);
        assert!(model("agents = 9\nzones = { eu = 60, us = 41 }").is_err());
        assert!(model("agents = 9\n[[profile]]\nkind = \"well\"\nshare = 99\n").is_err());
        let two = "agents = 9\n[[profile]]\nkind = \"well\"\nshare = 98.5\n[[profile]]\nkind = \"offline\"\nshare = 1.5\nreturns = \"1 h .. 3 d\"\n";
        assert_eq!(model(two).unwrap().mix.shares().len(), 2);
    }
}
