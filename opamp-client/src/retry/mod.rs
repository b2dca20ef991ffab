//! When to try again: exponential back-off with full jitter, as a pure function of a seed and the failures so far.
//!
//! A server that restarts loses all its agents within the same millisecond. What they do next decides whether it
//! comes up again, so (R-LIFE-02, R-LIFE-13, R-LIFE-14)
//!
//! - the first attempt after a loss falls anywhere within [`RetrySettings::first`], not at once;
//! - later ones anywhere between now and a bound that grows by [`RetrySettings::multiplier`] up to a maximum. The
//!   jitter is applied after the maximum, so attempts never pile up at it;
//! - the bound starts anew only after a connection that lasted [`RetrySettings::stable`]: a server that accepts and
//!   falls over again is not met by a fleet without patience;
//! - what the server asks for is obeyed, plus up to [`RetrySettings::first`], or all would come back in the same instant.

mod after;
mod random;

use std::time::Duration;

use opamp_proto::Mono;

pub use self::after::{retry_after, retry_info};
pub(crate) use self::random::Random;

/// How often the bound is multiplied at most; beyond it every bound is at its maximum.
const ATTEMPTS_MAX: u32 = 1_000;

/// Smallest bound of any wait but the first: attempts without any pause would be a flood.
const BOUND_FLOOR: Duration = Duration::from_millis(100);

/// How attempts are spaced. From the second attempt on a bound below 100 ms counts as 100 ms.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySettings {
    /// The window of the first attempt after a loss. Default 1 s. A larger one spreads a fleet further and costs each
    /// agent that much of availability.
    pub first: Duration,
    /// The bound of a wait before it grows. Default 1 s.
    pub initial: Duration,
    /// The largest bound of a wait. Default 60 s; a wait is half of it on average.
    pub max: Duration,
    /// By what the bound grows with each attempt. Default 1.5; below 1 counts as 1.
    pub multiplier: f64,
    /// The first bound after failures that a person has to mend: credentials, certificates, paths. Default 10 s.
    pub slow_initial: Duration,
    /// The largest bound after such failures, and after throttling without a time. Default 300 s.
    pub slow_max: Duration,
    /// How long a connection must have lasted for the bound to start anew. Default 60 s.
    pub stable: Duration,
    /// The least wait when the server is overloaded and gave no time. Default 30 s (R-THROT-10).
    pub throttled_min: Duration,
    /// The most that a server can ask for; longer waits are cut to this. Default 24 h: one wrong number must not lose
    /// an agent for good.
    pub retry_after_max: Duration,
}

/// How soon an attempt may follow a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// After what a person has to mend.
    Slow,
    /// After overload of the server.
    Throttled,
    /// After what passes by itself.
    Usual,
}

/// Decides on the wait before the next attempt. Seeded: the same failures at the same times give the same waits.
#[derive(Clone, Debug)]
pub struct Backoff {
    settings: RetrySettings,
    random: Random,
    attempts: u32,
    connected_at: Option<Mono>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            initial: Duration::from_secs(1),
            max: Duration::from_secs(60),
            multiplier: 1.5,
            slow_initial: Duration::from_secs(10),
            slow_max: Duration::from_secs(300),
            stable: Duration::from_secs(60),
            throttled_min: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(24 * 3600),
        }
    }
}

impl Backoff {
    /// A back-off that has seen no failure yet. Different agents need different seeds.
    #[must_use]
    pub fn new(settings: RetrySettings, seed: u64) -> Self {
        Self { settings, random: Random::new(seed), attempts: 0, connected_at: None }
    }

    /// A connection stands.
    pub fn connected(&mut self, now: Mono) {
        self.connected_at.get_or_insert(now);
    }

    /// How long to wait after a failure: of a connection, if one stood, or of an attempt. `demanded` is what the server
    /// asked for.
    pub fn failed(&mut self, pace: Pace, demanded: Option<Duration>, now: Mono) -> Duration {
        if self.connected_at.take().is_some_and(|since| now - since >= self.settings.stable) {
            self.attempts = 0;
        }
        let attempts = self.attempts;
        self.attempts = self.attempts.saturating_add(1).min(ATTEMPTS_MAX);
        let settings = &self.settings;
        if let Some(demanded) = demanded {
            let demanded = demanded.min(settings.retry_after_max);
            // "At once" from a server that is overloaded every time is no reason to forget all patience.
            let bound =
                if demanded < settings.first { self.bound(Pace::Usual, attempts) } else { settings.first };
            return demanded + self.random.up_to(bound);
        }
        let least = if pace == Pace::Throttled { settings.throttled_min } else { Duration::ZERO };
        let bound = self.bound(pace, attempts);
        least + self.random.up_to(bound)
    }

    /// How many attempts have failed since a connection was stable.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    fn bound(&self, pace: Pace, attempts: u32) -> Duration {
        let settings = &self.settings;
        let (initial, max) = match pace {
            Pace::Usual if attempts == 0 => return settings.first,
            Pace::Usual => (settings.initial, settings.max),
            Pace::Slow => (settings.slow_initial, settings.slow_max),
            Pace::Throttled => (settings.throttled_min / 2, settings.slow_max),
        };
        let factor = settings.multiplier.max(1.0).powi(i32::try_from(attempts).unwrap_or(i32::MAX));
        let grown = initial.as_secs_f64() * factor;
        let bound = if grown < max.as_secs_f64() { Duration::from_secs_f64(grown) } else { max };
        bound.max(BOUND_FLOOR)
    }
}
