//! Profiles and spans as text: one flat table for all kinds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use serde::{Deserialize, Serialize};

use super::{Profile, ProfileError, Share, Span, Stage};

/// The words for the kinds of profiles.
pub(super) const KINDS: [&str; 19] = [
    "well",
    "slow",
    "silent",
    "fails",
    "fails-on-version",
    "flapping",
    "crash-looping",
    "self-rolling-back",
    "polling",
    "no-status",
    "no-health",
    "merges",
    "ill-before",
    "offline",
    "restarts-on-apply",
    "drops-capability",
    "mute",
    "falls-ill",
    "mismatched",
];

/// What comes again and again is no more often than this.
const PERIOD_MIN: Duration = Duration::from_secs(1);

/// Units and how many milliseconds each is, the longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// How long an agent takes to apply a configuration if nothing is said.
const APPLY: Span = Span::between(2, 20);

/// A profile or a share as it stands in a file. Ratios are percentages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apply: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fails_after: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returns: Option<Span>,
}

impl TryFrom<Raw> for Profile {
    type Error = ProfileError;

    fn try_from(mut raw: Raw) -> Result<Self, ProfileError> {
        let kind = KINDS
            .into_iter()
            .find(|kind| *kind == raw.kind)
            .ok_or_else(|| ProfileError::Kind(raw.kind.clone()))?;
        let need = |value: Option<Span>, key| value.ok_or(ProfileError::Missing { kind, key });
        let profile = match kind {
            "slow" => Self::Slow { delay: need(raw.delay.take(), "delay")? },
            "silent" => {
                let stage = raw.stage.take().ok_or(ProfileError::Missing { kind, key: "stage" })?;
                Self::Silent { stage }
            }
            "fails" => Self::Fails { rate: rate(kind, raw.rate.take())? },
            "fails-on-version" => {
                Self::FailsOnVersion { version: raw.version.take(), rate: rate(kind, raw.rate.take())? }
            }
            "flapping" => match need(raw.period.take(), "period")? {
                period if period.from < PERIOD_MIN => {
                    return Err(ProfileError::Short { kind, key: "period" });
                }
                period => Self::Flapping { period },
            },
            "crash-looping" => Self::CrashLooping { after: need(raw.after.take(), "after")? },
            "self-rolling-back" => Self::SelfRollingBack { after: need(raw.after.take(), "after")? },
            "polling" => Self::Polling { interval: need(raw.interval.take(), "interval")? },
            "no-status" => Self::NoStatus,
            "no-health" => Self::NoHealth,
            "merges" => Self::Merges,
            "ill-before" => Self::IllBefore,
            "offline" => Self::Offline { returns: need(raw.returns.take(), "returns")? },
            "restarts-on-apply" => Self::RestartsOnApply,
            "drops-capability" => Self::DropsCapability,
            "mute" => Self::Mute,
            "falls-ill" => Self::FallsIll { after: need(raw.after.take(), "after")? },
            "mismatched" => Self::Mismatched,
            _ => Self::Well,
        };
        raw.leftover().map_or(Ok(profile), |key| Err(ProfileError::Unused { kind, key }))
    }
}

impl TryFrom<Raw> for Share {
    type Error = ProfileError;

    fn try_from(mut raw: Raw) -> Result<Self, ProfileError> {
        let share = raw.share.take().ok_or(ProfileError::Missing { kind: "a share", key: "share" })?;
        let apply = raw.apply.take().unwrap_or(APPLY);
        let fails_after = raw.fails_after.take();
        let profile = Profile::try_from(raw)?;
        let fails = matches!(profile, Profile::Fails { .. } | Profile::FailsOnVersion { .. });
        if fails_after.is_some() && !fails {
            return Err(ProfileError::Unused { kind: profile.kind(), key: "fails_after" });
        }
        Ok(Self { profile, share: ppm(share)?, apply, fails_after })
    }
}

impl From<Profile> for Raw {
    fn from(profile: Profile) -> Self {
        let kind = profile.kind().to_owned();
        let raw = Self { kind, ..Self::default() };
        match profile {
            Profile::Slow { delay } => Self { delay: Some(delay), ..raw },
            Profile::Silent { stage } => Self { stage: Some(stage), ..raw },
            Profile::Fails { rate } => Self { rate: Some(percent(rate)), ..raw },
            Profile::FailsOnVersion { version, rate } => Self { version, rate: Some(percent(rate)), ..raw },
            Profile::Flapping { period } => Self { period: Some(period), ..raw },
            Profile::CrashLooping { after }
            | Profile::FallsIll { after }
            | Profile::SelfRollingBack { after } => Self { after: Some(after), ..raw },
            Profile::Polling { interval } => Self { interval: Some(interval), ..raw },
            Profile::Offline { returns } => Self { returns: Some(returns), ..raw },
            Profile::Well
            | Profile::NoStatus
            | Profile::NoHealth
            | Profile::Merges
            | Profile::IllBefore
            | Profile::RestartsOnApply
            | Profile::DropsCapability
            | Profile::Mute
            | Profile::Mismatched => raw,
        }
    }
}

impl From<Share> for Raw {
    fn from(share: Share) -> Self {
        let raw = Self::from(share.profile);
        let (apply, fails_after) = (Some(share.apply), share.fails_after);
        Self { share: Some(percent(share.share)), apply, fails_after, ..raw }
    }
}

impl Profile {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        KINDS[match self {
            Self::Well => 0,
            Self::Slow { .. } => 1,
            Self::Silent { .. } => 2,
            Self::Fails { .. } => 3,
            Self::FailsOnVersion { .. } => 4,
            Self::Flapping { .. } => 5,
            Self::CrashLooping { .. } => 6,
            Self::SelfRollingBack { .. } => 7,
            Self::Polling { .. } => 8,
            Self::NoStatus => 9,
            Self::NoHealth => 10,
            Self::Merges => 11,
            Self::IllBefore => 12,
            Self::Offline { .. } => 13,
            Self::RestartsOnApply => 14,
            Self::DropsCapability => 15,
            Self::Mute => 16,
            Self::FallsIll { .. } => 17,
            Self::Mismatched => 18,
        }]
    }
}

impl Raw {
    /// A key that is still there.
    fn leftover(&self) -> Option<&'static str> {
        let there = [
            ("share", self.share.is_some()),
            ("apply", self.apply.is_some()),
            ("fails_after", self.fails_after.is_some()),
            ("delay", self.delay.is_some()),
            ("stage", self.stage.is_some()),
            ("version", self.version.is_some()),
            ("rate", self.rate.is_some()),
            ("period", self.period.is_some()),
            ("after", self.after.is_some()),
            ("interval", self.interval.is_some()),
            ("returns", self.returns.is_some()),
        ];
        there.into_iter().find(|(_, there)| *there).map(|(key, _)| key)
    }
}

fn rate(kind: &'static str, percent: Option<f64>) -> Result<Ppm, ProfileError> {
    ppm(percent.ok_or(ProfileError::Missing { kind, key: "rate" })?)
}

/// A ratio that stands in a file in percent, from 0 to 100, with at most four decimals.
///
/// # Errors
/// [`ProfileError::Percent`].
pub fn ppm(percent: f64) -> Result<Ppm, ProfileError> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(ProfileError::Percent(percent.to_string()));
    }
    Ok(Ppm((percent * 10_000.0).round() as u32))
}

fn percent(ratio: Ppm) -> f64 {
    f64::from(ratio.0) / 10_000.0
}

/// The text is no span, such as `2 s .. 20 s`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no span such as `5 s` or `2 s .. 20 s`; units are ms, s, min, h, d")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError(text.to_owned());
        let (from, until) = text.split_once("..").unwrap_or((text, text));
        let span = Self { from: one(from).ok_or_else(wrong)?, until: one(until).ok_or_else(wrong)? };
        if span.from > span.until { Err(wrong()) } else { Ok(span) }
    }
}

fn one(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    let (_, ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.checked_mul(ms)?))
}

struct One(Duration);

impl fmt::Display for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let whole = |unit: u64| ms >= u128::from(unit) && ms.is_multiple_of(u128::from(unit));
        let (name, unit) = UNITS.into_iter().find(|(_, unit)| whole(*unit)).unwrap_or(("ms", 1));
        write!(f, "{} {name}", ms / u128::from(unit))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        One(self.from).fmt(f)?;
        if self.from == self.until {
            return Ok(());
        }
        write!(f, " .. {}", One(self.until))
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_it_is_read() {
        for text in ["5 s", "2 s .. 20 s", "250 ms", "1 h .. 3 d", "90 s .. 2 min", "0 ms"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        assert_eq!("2 s .. 20 s".parse::<Span>().unwrap().to_string(), "2 s .. 20 s");
        assert_eq!("120 s".parse::<Span>().unwrap().to_string(), "2 min");
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in ["", "5", "s", "5 parsecs", "20 s .. 2 s", "-1 s", "99999999999999999999 d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let mut words = KINDS.to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), KINDS.len());
    }
}
