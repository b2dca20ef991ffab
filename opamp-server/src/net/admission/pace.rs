//! A pace: so many at once, then so many per second.

use std::time::Duration;

use opamp_proto::Mono;

/// A token is counted in thousandths, so that a rate per second adds up exactly over milliseconds.
const TOKEN: i64 = 1_000;

/// A token bucket on the caller's clock. A rate of 0 sets no pace.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Tokens per second, which is thousandths of a token per millisecond.
    rate: u32,
    burst: i64,
    /// What is there, in thousandths; below nothing after [`Pace::spend`] spent what was not there.
    level: i64,
    at: Mono,
}

impl Pace {
    /// A full bucket of `burst` tokens, at least one, that gains `rate` per second.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let burst = i64::from(burst.max(1)) * TOKEN;
        Self { rate, burst, level: burst, at: Mono(0) }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Mono) -> bool {
        let there = self.wait(now).is_zero();
        if there {
            self.spend(1, now);
        }
        there
    }

    /// Takes tokens whether they are there or not; what is missing is gained before there is one again.
    pub(crate) fn spend(&mut self, tokens: u32, now: Mono) {
        if self.rate > 0 {
            self.gain(now);
            self.level = self.level.saturating_sub(i64::from(tokens).saturating_mul(TOKEN));
        }
    }

    /// How long until there is a token; nothing if there is one.
    pub(crate) fn wait(&mut self, now: Mono) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        self.gain(now);
        let lacking = u64::try_from(TOKEN - self.level).unwrap_or(0);
        Duration::from_millis(lacking.div_ceil(self.rate.into()))
    }

    fn gain(&mut self, now: Mono) {
        let passed = i64::try_from((now - self.at).as_millis()).unwrap_or(i64::MAX);
        let gained = passed.saturating_mul(self.rate.into());
        self.level = self.level.saturating_add(gained).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_pace_holds() {
        let mut pace = Pace::new(200, 10);
        let taken: Vec<u64> =
            (0..100).flat_map(|at| std::iter::repeat_n(at, 20)).filter(|at| pace.take(Mono(*at))).collect();
        assert_eq!(taken.iter().filter(|at| **at == 0).count(), 10);
        let later: Vec<u64> = taken.into_iter().skip(10).collect();
        assert_eq!(later, (5..100).step_by(5).collect::<Vec<_>>());
    }

    #[test]
    fn the_wait_it_names_is_the_shortest_that_suffices() {
        let mut pace = Pace::new(3, 1);
        assert!(pace.take(Mono(0)));
        assert_eq!(pace.wait(Mono(0)), Duration::from_millis(334));
        assert_eq!(pace.wait(Mono(333)), Duration::from_millis(1));
        assert!(!pace.take(Mono(333)) && pace.take(Mono(334)));
    }

    #[test]
    fn what_was_spent_without_being_there_is_gained_first() {
        let mut pace = Pace::new(1_000, 1);
        pace.spend(5, Mono(0));
        assert_eq!(pace.wait(Mono(0)), Duration::from_millis(5));
        assert!(!pace.take(Mono(4)) && pace.take(Mono(5)));
    }

    #[test]
    fn a_rate_of_zero_sets_no_pace() {
        let mut pace = Pace::new(0, 1);
        pace.spend(u32::MAX, Mono(0));
        assert!((0..10_000).all(|_| pace.take(Mono(0))));
        assert_eq!(pace.wait(Mono(0)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn in_no_span_of_time_more_than_burst_and_rate_allow(
            rate in 1u32..5_000, burst in 0u32..50, gaps in proptest::collection::vec(0u64..40, 1..25)
        ) {
            let mut pace = Pace::new(rate, burst);
            let (mut now, mut taken) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                for _ in 0..15 {
                    if pace.take(Mono(now)) { taken.push(now); }
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst.max(1)) * 1_000 + u64::from(rate) * (to - from);
                    prop_assert!(((last - first + 1) * 1_000) as u64 <= allowed);
                }
            }
        }

        #[test]
        fn waiting_as_long_as_it_says_is_enough(rate in 1u32..100_000, spent in 0u32..1_000, at in 0u64..1_000_000) {
            let mut pace = Pace::new(rate, 5);
            pace.spend(spent, Mono(at));
            let wait = pace.wait(Mono(at));
            prop_assert!(pace.take(Mono(at) + wait));
        }
    }
}
