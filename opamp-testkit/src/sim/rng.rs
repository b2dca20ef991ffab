//! Random numbers: one seed, forked by subject, so that one more draw shifts nothing else.

use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;

use super::profiles::Span;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Whom random numbers are for. Each draws from a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What an agent does.
    Agent,
    /// What happens to hints about an agent.
    Hint,
    /// What happens to messages on their way.
    Link,
    /// What operators do about a rollout.
    Operator,
    /// What providers of verdicts say.
    Provider,
    /// What the scenario is made of.
    Scenario,
    /// What happens to requests to the store.
    Store,
}

/// A stream of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The stream of a subject. It depends on the seed of this one, not on what was drawn from it.
    #[must_use]
    pub const fn fork(&self, subject: Subject, number: u64) -> Self {
        let named = mix(self.seed ^ mix(subject as u64 + 1));
        Self::new(mix(named ^ mix(number.wrapping_add(GOLDEN))))
    }

    /// 64 random bits.
    pub const fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number from 0 to `end` − 1; 0 if `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.draw() as u128 * end as u128) >> 64) as u64
    }

    /// A number from `from` to `until`, both included.
    pub const fn between(&mut self, from: u64, until: u64) -> u64 {
        from + self.below(until.saturating_sub(from).saturating_add(1))
    }

    /// True in this part of all draws.
    pub const fn chance(&mut self, part: Ppm) -> bool {
        self.below(Ppm::ALL.0 as u64) < part.0 as u64
    }

    /// A span, uniform and in whole milliseconds.
    pub fn span(&mut self, span: Span) -> Duration {
        Duration::from_millis(self.between(whole_ms(span.from), whole_ms(span.until)))
    }

    /// One of some.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, some: &[T]) -> T {
        some[usize::try_from(self.below(some.len() as u64)).unwrap_or(0)]
    }
}

/// Whole milliseconds of a span; the largest number if there are more.
pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Spreads the bits of a number over all 64: the finaliser of SplitMix64.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn() {
        let fresh = Rng::new(7);
        let mut used = Rng::new(7);
        let _ = (used.draw(), used.draw());
        assert_eq!(fresh.fork(Subject::Link, 3).draw(), used.fork(Subject::Link, 3).draw());
        assert_ne!(fresh.fork(Subject::Link, 3).draw(), fresh.fork(Subject::Link, 4).draw());
        assert_ne!(fresh.fork(Subject::Link, 3).draw(), fresh.fork(Subject::Agent, 3).draw());
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_ends() {
        let mut rng = Rng::new(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| rng.between(3, 6)).collect();
        assert_eq!(drawn.iter().min(), Some(&3));
        assert_eq!(drawn.iter().max(), Some(&6));
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.between(9, 2), 9, "an empty range is its first number");
    }

    #[test]
    fn a_chance_is_met_about_as_often_as_it_says() {
        let mut rng = Rng::new(2);
        let hits = (0..10_000).filter(|_| rng.chance(Ppm::percent(20))).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
        assert!(!rng.chance(Ppm(0)) && rng.chance(Ppm::ALL));
    }
}
