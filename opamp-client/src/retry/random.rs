//! Numbers that differ between agents and repeat with the seed.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): for spreading, not for
/// secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        // So many bits are exact.
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }

    /// A span anywhere from zero to `bound`, both included, in whole milliseconds.
    pub(crate) fn up_to(&mut self, bound: Duration) -> Duration {
        let choices = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let scaled = (u128::from(self.next()) * u128::from(choices)) >> 64;
        Duration::from_millis(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_range_are_reached_and_nothing_beyond() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<_> =
            (0..1_000).map(|_| random.up_to(Duration::from_millis(9)).as_millis()).collect();
        assert_eq!(drawn, (0..=9).collect());
        assert_eq!(random.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn numbers_follow_the_published_sequence() {
        // The reference implementation with seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
