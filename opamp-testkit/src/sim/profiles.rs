//! Profiles: how agents of a kind behave, and how a fleet is mixed of them.

mod text;

use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use serde::{Deserialize, Serialize};

use text::Raw;
pub use text::{SpanError, ppm};

/// A span that is drawn, uniformly between two ends. Text is `2 s .. 20 s`, or `5 s`; units are ms, s, min, h and d.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub until: Duration,
}

impl Span {
    /// Always the same number of seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self { from: Duration::from_secs(seconds), until: Duration::from_secs(seconds) }
    }

    /// Between two numbers of seconds.
    #[must_use]
    pub const fn between(from: u64, until: u64) -> Self {
        Self { from: Duration::from_secs(from), until: Duration::from_secs(until) }
    }
}

/// How an agent behaves. What it does badly it does with configurations it did not run at first: what it ran before works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum Profile {
    /// It applies what it is offered.
    Well,
    /// It takes its time.
    Slow {
        /// How much more.
        delay: Span,
    },
    /// It says nothing more from a stage on.
    Silent {
        /// From where on.
        stage: Stage,
    },
    /// It fails now and then.
    Fails {
        /// In this part of all tries.
        rate: Ppm,
    },
    /// It fails now and then if it is of a version.
    FailsOnVersion {
        /// The version; none: every version.
        version: Option<Box<str>>,
        /// In this part of all tries.
        rate: Ppm,
    },
    /// Its connection breaks again and again.
    Flapping {
        /// How often.
        period: Span,
    },
    /// It applies it, and then its process dies again and again.
    CrashLooping {
        /// How long it lives.
        after: Span,
    },
    /// It applies it, and goes back later.
    SelfRollingBack {
        /// When.
        after: Span,
    },
    /// It polls over HTTP.
    Polling {
        /// How often.
        interval: Span,
    },
    /// It says nothing of its remote configuration.
    NoStatus,
    /// It says nothing of its health.
    NoHealth,
    /// What it runs is merged with a part of its own.
    Merges,
    /// It is ill from the start.
    IllBefore,
    /// It is away at first.
    Offline {
        /// When it comes.
        returns: Span,
    },
    /// Its process starts anew when it has applied something.
    RestartsOnApply,
    /// It stops to accept remote configurations when it is offered one.
    DropsCapability,
    /// It applies it and gives no evidence of that: it reports neither status nor health, and runs a merge with a part of its own.
    Mute,
    /// It applies it, and becomes ill of it later.
    FallsIll {
        /// When.
        after: Span,
    },
    /// It says that it applied it, and runs something else.
    Mismatched,
}

/// From where on somebody is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// What is sent to it does not arrive.
    Offered,
    /// It receives an offer, and nobody hears of it again.
    Delivered,
    /// It says that it applies it, and never comes to an end.
    Applying,
}

/// A part of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Share {
    /// How it behaves.
    pub profile: Profile,
    /// Which part of the fleet.
    pub share: Ppm,
    /// How long it takes to apply a configuration.
    pub apply: Span,
    /// How long it takes until one that fails says so; none: as long as applying it does.
    pub fails_after: Option<Span>,
}

/// Why profiles are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No kind of that name.
    #[error("no profile is called {0:?}; use one of {known}", known = text::KINDS.join(", "))]
    Kind(String),
    /// A key that the kind needs is missing.
    #[error("{kind} needs {key}")]
    Missing {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A key that the kind does not have.
    #[error("{kind} has no {key}")]
    Unused {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// No percentage.
    #[error("{0} is no percentage from 0 to 100")]
    Percent(String),
    /// Shorter than a second, again and again.
    #[error("{kind}: {key} is at least 1 s")]
    Short {
        /// The kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
    },
    /// Not the whole fleet.
    #[error("the shares of {count} profiles are {sum} of the fleet; 1 to {max} shares make 100 %", max = Mix::SHARES_MAX)]
    Shares {
        /// How many shares.
        count: usize,
        /// Their sum.
        sum: Ppm,
    },
}

/// How a fleet is mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<Share>);

impl Mix {
    /// Most shares.
    pub const SHARES_MAX: usize = 32;

    /// These parts.
    ///
    /// # Errors
    /// [`ProfileError::Shares`] unless there are 1 to 32 of them, which make 100 %.
    pub fn new(shares: Vec<Share>) -> Result<Self, ProfileError> {
        let sum = shares.iter().fold(0_u32, |sum, share| sum.saturating_add(share.share.0));
        if shares.is_empty() || shares.len() > Self::SHARES_MAX || sum != Ppm::ALL.0 {
            return Err(ProfileError::Shares { count: shares.len(), sum: Ppm(sum) });
        }
        Ok(Self(shares))
    }

    /// The parts.
    pub fn shares(&self) -> &[Share] {
        &self.0
    }

    /// Which part a random number falls into.
    pub fn pick(&self, hash: u64) -> usize {
        let mut point = ((u128::from(hash) * u128::from(Ppm::ALL.0)) >> 64) as u32;
        for (number, share) in self.0.iter().enumerate() {
            if point < share.share.0 {
                return number;
            }
            point -= share.share.0;
        }
        self.0.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::rng::Rng;

    fn share(profile: Profile, percent: u32) -> Share {
        Share { profile, share: Ppm::percent(percent), apply: Span::between(2, 20), fails_after: None }
    }

    #[test]
    fn shares_have_to_make_the_whole_fleet() {
        let part = Mix::new(vec![share(Profile::Well, 90)]);
        assert_eq!(part, Err(ProfileError::Shares { count: 1, sum: Ppm::percent(90) }));
        assert!(Mix::new(Vec::new()).is_err());
        assert!(Mix::new(vec![share(Profile::Well, 90), share(Profile::Merges, 10)]).is_ok());
    }

    #[test]
    fn agents_fall_into_shares_by_their_size() {
        let mix = Mix::new(vec![share(Profile::Well, 80), share(Profile::NoStatus, 20)]).unwrap();
        let mut rng = Rng::new(5);
        let second = (0..10_000).filter(|_| mix.pick(rng.draw()) == 1).count();
        assert!((1_800..2_200).contains(&second), "{second}");
        assert_eq!((mix.pick(0), mix.pick(u64::MAX)), (0, 1));
    }

    #[test]
    fn a_profile_is_read_and_written_as_a_table() {
        let text = "kind = \"fails-on-version\"\nversion = \"1.4.0\"\nrate = 12.5\n";
        let profile: Profile = toml::from_str(text).unwrap();
        let expected = Profile::FailsOnVersion { version: Some("1.4.0".into()), rate: Ppm(125_000) };
        assert_eq!(profile, expected);
        assert_eq!(toml::from_str::<Profile>(&toml::to_string(&profile).unwrap()).unwrap(), profile);
        let share: Share =
            toml::from_str("kind = \"offline\"\nshare = 1.5\nreturns = \"1 h .. 3 d\"\n").unwrap();
        assert_eq!(share.share, Ppm(15_000));
        assert_eq!(share.profile, Profile::Offline { returns: Span::between(3_600, 3 * 86_400) });
        let fails = "kind = \"fails\"\nrate = 2\nshare = 100\nfails_after = \"2 s\"\n";
        let share: Share = toml::from_str(fails).unwrap();
        assert_eq!(share.fails_after, Some(Span::seconds(2)));
        assert_eq!(toml::from_str::<Share>(&toml::to_string(&share).unwrap()).unwrap(), share);
        let well = fails.replace("fails\"", "well\"").replace("rate = 2\n", "");
        assert!(toml::from_str::<Share>(&well).is_err(), "it never fails");
    }

    #[test]
    fn a_profile_with_a_key_too_many_or_too_few_is_refused() {
        for text in [
            "kind = \"well\"\nrate = 5",
            "kind = \"fails\"",
            "kind = \"fails\"\nrate = 101",
            "kind = \"nice\"",
            "kind = \"well\"\ncolour = 3",
            "kind = \"slow\"\ndelay = \"5 parsecs\"",
            "kind = \"flapping\"\nperiod = \"0 s\"",
            "kind = \"flapping\"\nperiod = \"999 ms .. 1 h\"",
        ] {
            assert!(toml::from_str::<Profile>(text).is_err(), "{text}");
        }
    }
}
