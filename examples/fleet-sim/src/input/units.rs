//! Lengths and ratios as they are written.

use std::fmt;
use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use opamp_testkit::sim::profiles::{self, Span};
use serde::{Deserialize, Deserializer, de};

/// A length of time, such as `90 s` or `10 min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(pub Duration);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(LengthVisitor)
    }
}

struct LengthVisitor;

impl de::Visitor<'_> for LengthVisitor {
    type Value = Length;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time such as \"90 s\" or \"10 min\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
        match text.parse::<Span>() {
            Ok(span) if span.from == span.until => Ok(Length(span.from)),
            _ => Err(E::custom(format!(
                "{text:?} is no length of time such as `90 s` or `10 min`; units are ms, s, min, h, d"
            ))),
        }
    }
}

/// A ratio in percent, from 0 to 100, with at most four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub Ppm);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        profiles::ppm(percent).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Both {
        length: Length,
        percent: Percent,
    }

    fn both(length: &str, percent: &str) -> Result<(Duration, Ppm), toml::de::Error> {
        toml::from_str(&format!("length = \"{length}\"\npercent = {percent}"))
            .map(|both: Both| (both.length.0, both.percent.0))
    }

    #[test]
    fn lengths_have_units_and_percentages_have_decimals() {
        assert_eq!(both("10 min", "93.5").unwrap(), (Duration::from_secs(600), Ppm(935_000)));
        assert_eq!(both("2 d", "100").unwrap(), (Duration::from_secs(172_800), Ppm::ALL));
        assert_eq!(both("1 s", "0.1").unwrap().1, Ppm(1_000));
    }

    #[test]
    fn a_number_without_a_unit_is_answered_with_an_example() {
        for text in ["length = 30\npercent = 1", "length = \"30\"\npercent = 1"] {
            let error = toml::from_str::<Both>(text).unwrap_err().to_string();
            assert!(error.contains("10 min"), "{error}");
        }
    }

    #[test]
    fn a_span_is_no_length_and_more_than_all_is_no_percentage() {
        assert!(both("1 s .. 2 s", "1").is_err());
        for percent in ["-1", "100.1", "nan", "inf"] {
            assert!(both("1 s", percent).is_err(), "{percent}");
        }
    }
}
