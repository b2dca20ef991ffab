//! The plan file: which fleet, which rollout, what operators do meanwhile.
//!
//! Keys that there are not are refused together with those that there are. Ratios are in percent, lengths are texts such as
//! `10 min`, and spans that are drawn from are `2 s .. 20 s`.

mod act;
mod files;
mod fleet;
mod gates;
mod labels;
mod rollout;
mod units;

use std::time::Duration;

use opamp_fleet::SelectorError;
use opamp_fleet::rollout::{Do, Time};
use opamp_proto::Wall;
use opamp_testkit::sim::model::Operator;
use opamp_testkit::sim::model::fleet::FleetModel;
use opamp_testkit::sim::profiles::ProfileError;
use serde::Deserialize;

pub use act::Act;
pub use files::Files;
pub use fleet::{Fleet, Moves};
pub use gates::{BoundTest, Gate, PercentTest, SequentialTest};
pub use rollout::{Rate, Rollout, Step, Strategy, Window};
pub use units::{Length, Percent};

/// A plan file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What everything is drawn from. Default 1.
    #[serde(default = "one")]
    pub seed: u64,
    /// When the rollout is planned, in RFC 3339. Default a Monday morning in March 2026.
    pub begins: Option<String>,
    /// How long to look at most. Default 14 days.
    pub length: Option<Length>,
    /// The fleet.
    pub fleet: Fleet,
    /// The rollout.
    pub rollout: Rollout,
    /// What operators do by themselves.
    #[serde(default)]
    pub act: Vec<Act>,
    /// How operators react.
    #[serde(default)]
    pub operator: OperatorInput,
}

/// How operators react.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorInput {
    /// How long it takes until somebody approves or advances a wave that waits for that. Default never.
    pub reacts_after: Option<Length>,
}

/// Why a plan file is refused.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It is no TOML, or has keys that there are not.
    #[error(transparent)]
    Toml(Box<toml::de::Error>),
    /// It is no JSON, or has keys that there are not.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Profiles do not make a fleet.
    #[error("fleet.profile: {0}")]
    Profile(#[from] ProfileError),
    /// The selector is none.
    #[error("rollout.selector: {0}")]
    Selector(#[from] SelectorError),
    /// A value is none that this could be.
    #[error("{key}: {what}")]
    Value {
        /// Where it stands.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl InputError {
    fn value(key: &'static str, what: impl Into<String>) -> Self {
        Self::Value { key, what: what.into() }
    }
}

impl Input {
    /// Reads TOML.
    ///
    /// # Errors
    /// [`InputError::Toml`].
    pub fn from_toml(text: &str) -> Result<Self, InputError> {
        toml::from_str(text).map_err(|error| InputError::Toml(Box::new(error)))
    }

    /// Reads JSON with the same keys.
    ///
    /// # Errors
    /// [`InputError::Json`].
    pub fn from_json(text: &str) -> Result<Self, InputError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The fleet, without its agents.
    ///
    /// # Errors
    /// [`InputError`] for too many or no agents, for parts that are more than the whole, and for a time that is none.
    pub fn fleet(&self) -> Result<FleetModel, InputError> {
        let begins = match &self.begins {
            None => None,
            Some(text) => Some(
                Wall::from_rfc3339(text).map_err(|error| InputError::value("begins", error.to_string()))?,
            ),
        };
        self.fleet.model(self.seed, begins.map(Time::from))
    }

    /// What operators do.
    ///
    /// # Errors
    /// [`InputError`] for an act that there is not.
    pub fn operator(&self) -> Result<Operator, InputError> {
        let gates = gates::gates(&self.rollout.gate)?;
        let mut acts: Vec<(Duration, Do)> = Vec::with_capacity(self.act.len());
        for act in &self.act {
            acts.push((act.at.0, act.command(&gates)?));
        }
        acts.sort_by_key(|(at, _)| *at);
        Ok(Operator { acts, reacts_after: self.operator.reacts_after.map(|length| length.0) })
    }

    /// How long to look at most.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length.map_or(Duration::from_secs(14 * 24 * 3_600), |length| length.0)
    }
}

const fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: &str = "[fleet]\nagents = 10\n[rollout]\ntitle = \"v2\"\n";

    #[test]
    fn a_fleet_and_a_title_are_enough() {
        let input = Input::from_toml(LITTLE).unwrap();
        let fleet = input.fleet().unwrap();
        assert_eq!((fleet.seed, fleet.agents), (1, 10));
        assert_eq!(input.operator().unwrap(), Operator::default());
        let json = r#"{"fleet": {"agents": 10}, "rollout": {"title": "v2"}, "seed": 3}"#;
        assert_eq!(Input::from_json(json).unwrap().fleet().unwrap().seed, 3);
    }

    #[test]
    fn a_key_that_there_is_not_is_refused_with_those_that_there_are() {
        let error = Input::from_toml(&format!("{LITTLE}titel = \"v2\"\n")).unwrap_err().to_string();
        assert!(error.contains("titel") && error.contains("title"), "{error}");
        assert!(Input::from_toml("[fleet]\nagents = 10\nagent = 5\n[rollout]\ntitle = \"v2\"").is_err());
    }

    #[test]
    fn acts_are_taken_in_order_of_time() {
        let acts = "[[act]]\nat = \"40 min\"\ndo = \"resume\"\n[[act]]\nat = \"25 min\"\ndo = \"pause\"\n";
        let operator = Input::from_toml(&format!("{LITTLE}{acts}")).unwrap().operator().unwrap();
        let at: Vec<u64> = operator.acts.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(at, [1_500, 2_400]);
        assert_eq!(operator.acts[0].1, Do::Pause);
    }

    #[test]
    fn a_beginning_is_a_time() {
        let with =
            |begins: &str| Input::from_toml(&format!("begins = \"{begins}\"\n{LITTLE}")).unwrap().fleet();
        assert_eq!(with("1970-01-02T00:00:00Z").unwrap().begins, Time(86_400_000));
        assert!(with("yesterday").unwrap_err().to_string().starts_with("begins: "));
    }
}
