//! `rollout.strategy`: in which waves.

use opamp_fleet::rollout::plan::{self, Size};
use serde::Deserialize;

use crate::input::{InputError, Length, Percent};

/// In which waves, by `kind`.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a table such as { kind = \"batches\", size = 25 }"
)]
pub enum Strategy {
    /// One wave; needs `rollout.reason`.
    AllAtOnce {},
    /// Waves of `size`.
    Batches {
        /// Members of a wave.
        size: u32,
    },
    /// Steps with a dwell each.
    Canary {
        /// The steps; none: the default ones.
        steps: Option<Vec<Step>>,
    },
    /// Waves that grow.
    Exponential {
        /// Members of the first wave.
        first: u32,
        /// By how much the next one is larger.
        factor: u8,
    },
    /// A wave for each value of a label.
    LabelRings {
        /// The label.
        key: Box<str>,
        /// Its values in order.
        rings: Vec<Box<str>>,
    },
    /// Waves of `size`, each begun by hand.
    Manual {
        /// Members of a wave.
        size: u32,
    },
    /// Waves up to these parts of all.
    Percentages {
        /// In percent, ascending.
        until: Vec<Percent>,
    },
    /// A wave for each value of a label, by name.
    ZoneByZone {
        /// The label.
        key: Box<str>,
    },
}

/// One step of a canary: `count`, `percent`, or `at_most` with both, of which the smaller one holds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The smaller of a number and a part.
    pub at_most: Option<AtMost>,
    /// This many.
    pub count: Option<u32>,
    /// This part of all.
    pub percent: Option<Percent>,
    /// How long it is watched once it has settled. Default not at all.
    pub dwell: Option<Length>,
    /// Whether somebody has to agree before it.
    #[serde(default)]
    pub approval: bool,
}

/// A number and a part of all.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtMost {
    /// The number.
    pub count: u32,
    /// The part.
    pub percent: Percent,
}

impl Strategy {
    /// The label that its waves go by.
    pub(in crate::input) fn label(&self) -> Option<&str> {
        match self {
            Self::LabelRings { key, .. } | Self::ZoneByZone { key } => Some(key),
            Self::AllAtOnce {}
            | Self::Batches { .. }
            | Self::Canary { .. }
            | Self::Exponential { .. }
            | Self::Manual { .. }
            | Self::Percentages { .. } => None,
        }
    }

    pub(super) fn strategy(&self) -> Result<plan::Strategy, InputError> {
        Ok(match self {
            Self::AllAtOnce {} => plan::Strategy::AllAtOnce,
            Self::Batches { size } => plan::Strategy::Batches { size: *size },
            Self::Canary { steps: None } => plan::Strategy::canary(),
            Self::Canary { steps: Some(steps) } => {
                plan::Strategy::Canary { steps: steps.iter().map(Step::step).collect::<Result<_, _>>()? }
            }
            Self::Exponential { first, factor } => {
                plan::Strategy::Exponential { first: *first, factor: *factor }
            }
            Self::LabelRings { key, rings } => {
                plan::Strategy::LabelRings { key: key.clone(), rings: rings.as_slice().into() }
            }
            Self::Manual { size } => plan::Strategy::Manual { size: *size },
            Self::Percentages { until } => {
                plan::Strategy::Percentages(until.iter().map(|percent| percent.0).collect())
            }
            Self::ZoneByZone { key } => plan::Strategy::ZoneByZone { key: key.clone() },
        })
    }
}

impl Step {
    fn step(&self) -> Result<plan::Step, InputError> {
        let until = match (self.at_most, self.count, self.percent) {
            (Some(AtMost { count, percent }), None, None) => Size::AtMost { count, percent: percent.0 },
            (None, Some(count), None) => Size::Count(count),
            (None, None, Some(percent)) => Size::Percent(percent.0),
            _ => {
                let what = "a step has one of at_most, count and percent";
                return Err(InputError::value("rollout.strategy.steps", what));
            }
        };
        let dwell = self.dwell.map(|dwell| dwell.0).unwrap_or_default();
        Ok(plan::Step { until, dwell, approval: self.approval })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opamp_fleet::rollout::stats::Ppm;

    use super::*;

    fn strategy(text: &str) -> Result<plan::Strategy, InputError> {
        toml::from_str::<Strategy>(text).unwrap().strategy()
    }

    #[test]
    fn every_kind_has_a_word() {
        for (text, expected) in [
            ("kind = \"all-at-once\"", plan::Strategy::AllAtOnce),
            ("kind = \"batches\"\nsize = 5", plan::Strategy::Batches { size: 5 }),
            ("kind = \"canary\"", plan::Strategy::canary()),
            (
                "kind = \"exponential\"\nfirst = 1\nfactor = 2",
                plan::Strategy::Exponential { first: 1, factor: 2 },
            ),
            ("kind = \"manual\"\nsize = 5", plan::Strategy::Manual { size: 5 }),
            (
                "kind = \"percentages\"\nuntil = [5, 100]",
                plan::Strategy::Percentages([Ppm::percent(5), Ppm::ALL].into()),
            ),
            ("kind = \"zone-by-zone\"\nkey = \"zone\"", plan::Strategy::ZoneByZone { key: "zone".into() }),
            (
                "kind = \"label-rings\"\nkey = \"ring\"\nrings = [\"a\", \"b\"]",
                plan::Strategy::LabelRings { key: "ring".into(), rings: ["a".into(), "b".into()].into() },
            ),
        ] {
            assert_eq!(strategy(text).unwrap(), expected);
        }
    }

    #[test]
    fn a_step_is_a_number_a_part_or_the_smaller_of_both() {
        let text = "kind = \"canary\"\nsteps = [{ at_most = { count = 40, percent = 5 }, dwell = \"10 min\" }, { percent = 100, approval = true }]";
        let plan::Strategy::Canary { steps } = strategy(text).unwrap() else { panic!("no canary") };
        assert_eq!(steps[0].until, Size::AtMost { count: 40, percent: Ppm::percent(5) });
        assert_eq!((steps[0].dwell, steps[1].approval), (Duration::from_secs(600), true));
        assert!(strategy("kind = \"canary\"\nsteps = [{ count = 1, percent = 1 }]").is_err());
        assert!(strategy("kind = \"canary\"\nsteps = [{ dwell = \"1 s\" }]").is_err());
    }

    #[test]
    fn a_word_alone_is_answered_with_an_example() {
        #[derive(Debug, Deserialize)]
        struct Plan {
            #[expect(dead_code)]
            strategy: Strategy,
        }
        let error = toml::from_str::<Plan>("strategy = \"canary\"").unwrap_err().to_string();
        assert!(error.contains("{ kind = \"batches\", size = 25 }"), "{error}");
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        assert!(toml::from_str::<Strategy>("kind = \"batches\"\nsize = 5\nfirst = 1").is_err());
        assert!(toml::from_str::<Strategy>("kind = \"waves\"").is_err());
    }
}
