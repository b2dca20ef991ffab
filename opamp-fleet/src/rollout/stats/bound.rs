//! The bound test: how many failures of how many are too many, for any number of looks.
//!
//! A single look stops when the one-sided lower confidence bound of Clopper and Pearson exceeds the ratio. Many looks
//! would each add their error. So limits are computed for a grid of sample sizes only, each with its share of the error,
//! and whoever looks when `n` members were offered it uses the limit of the *next* size `g ≥ n`. Members are counted in the
//! order of their offers, those without an answer included: how many of the first `g` fail in the end, `K(g)`, is then a
//! matter of chance alone, however long who takes to answer, and those that have failed so far are at most `K(g)`. So a stop
//! at any time implies `K(g) ≥ limit(g)` at a size of the grid, and the errors of these add up to the error asked for. Members
//! that recover only lower the number below that of those that ever failed, to which the argument applies.

use super::{Ppm, binomial, probability};

/// The first size of the grid: below it a bound says nothing that an absolute number does not say better.
pub const FIRST: u32 = 20;

/// The sizes that are looked at among `members`: from [`FIRST`] on each at most 5 % larger than the one before, the last
/// one not below `members`. 74 sizes for 1,000 members, 215 for a million.
#[must_use]
pub fn sizes(members: u32) -> Vec<u32> {
    let mut sizes = Vec::new();
    let mut size = FIRST;
    loop {
        sizes.push(size);
        if size >= members {
            return sizes;
        }
        let larger = (u64::from(size) * 21).div_ceil(20);
        size = u32::try_from(larger).unwrap_or(u32::MAX);
    }
}

/// For each of `sizes` the least number of failures that shows a ratio above `over`, wrong with at most `error` over all
/// looks. A limit above its size is never reached.
#[must_use]
pub fn limits(sizes: &[u32], over: Ppm, error: f64) -> Vec<u32> {
    let share = error / sizes.len().max(1) as f64;
    sizes.iter().map(|size| binomial::limit(*size, over, share)).collect()
}

/// The limit for `members`: that of the next size. None without a grid.
///
/// The grid reaches every member of a plan. Late joiners may be more: beyond the last size its ratio stays the limit, which
/// fewer and fewer samples reach by chance the larger they are.
#[must_use]
pub fn limit_at(sizes: &[u32], limits: &[u32], members: u32) -> Option<u32> {
    let next = sizes.partition_point(|size| *size < members);
    if let Some(limit) = limits.get(next) {
        return Some(*limit);
    }
    let (size, limit) = (u64::from(*sizes.last()?), u64::from(*limits.last()?));
    let limit = (limit * u64::from(members)).div_ceil(size.max(1));
    Some(u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The chance that the test ever stops while `members` finish and each fails with probability `truth`: 0 to 1. Costs
/// `members` times the largest limit.
#[must_use]
pub fn stopped(sizes: &[u32], limits: &[u32], truth: Ppm, members: u32) -> f64 {
    binomial::stopped(members, truth, |finished| limit_at(sizes, limits, finished).unwrap_or(u32::MAX))
}

/// A share of an error that `among` tests have together.
#[must_use]
pub fn share(error: Ppm, among: u32) -> f64 {
    probability(error) / f64::from(among.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_by_a_twentieth_and_reach_every_member() {
        for (members, count) in [(0, 1), (20, 1), (21, 2), (1_000, 74), (10_000, 121), (1_000_000, 215)] {
            let sizes = sizes(members);
            assert_eq!(sizes.len(), count, "{members} members");
            assert!(sizes.is_sorted_by(|a, b| a < b) && sizes.last().is_some_and(|last| *last >= members));
        }
        assert!(sizes(u32::MAX).ends_with(&[u32::MAX]));
    }

    #[test]
    fn limits_of_2_percent_among_a_thousand_are_the_published_ones() {
        let sizes = sizes(1_000);
        let limits = limits(&sizes, Ppm::percent(2), 0.005);
        for (members, limit) in [(20, 5), (44, 7), (87, 9), (163, 13), (302, 18), (550, 26), (993, 40)] {
            assert_eq!(limit_at(&sizes, &limits, members), Some(limit), "{members} members");
        }
        assert_eq!(limit_at(&sizes, &limits, 1), Some(5), "before the first size its limit holds");
        assert_eq!(limit_at(&[], &[], 1), None);
    }

    #[test]
    fn late_joiners_beyond_the_grid_are_compared_with_its_last_ratio() {
        let sizes = sizes(1_000);
        let limits = limits(&sizes, Ppm::percent(2), 0.005);
        assert_eq!((sizes.last(), limits.last()), (Some(&1_043), Some(&41)));
        for (members, limit) in [(1_044, 42), (2_086, 82), (2_087, 83), (u32::MAX, 168_833_806)] {
            assert_eq!(limit_at(&sizes, &limits, members), Some(limit), "{members} members");
        }
        let wrong = stopped(&sizes, &limits, Ppm::percent(2), 4_000);
        assert!(wrong <= 0.005, "{wrong}");
    }

    /// Computed with rational numbers of any length.
    const EXACT: [u32; 74] = [
        5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 10, 10, 10, 10, 11, 11,
        11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 21, 21, 22, 23,
        23, 24, 25, 26, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 37, 38, 40, 41,
    ];

    #[test]
    fn every_limit_of_2_percent_among_a_thousand_is_the_exact_one() {
        assert_eq!(limits(&sizes(1_000), Ppm::percent(2), 0.005), EXACT);
    }

    #[test]
    fn limits_never_fall_while_members_finish() {
        for over in [1, 2, 10, 50] {
            let limits = limits(&sizes(10_000), Ppm::percent(over), 0.005);
            assert!(limits.is_sorted(), "{over} %");
        }
    }

    #[test]
    fn looking_all_the_time_is_wrong_less_often_than_allowed() {
        for over in [2, 10] {
            let (sizes, ratio) = (sizes(1_000), Ppm::percent(over));
            let limits = limits(&sizes, ratio, 0.005);
            let wrong = stopped(&sizes, &limits, ratio, 1_000);
            assert!(wrong > 0.0 && wrong <= 0.005, "{over} %: {wrong}");
        }
    }

    #[test]
    fn noise_of_half_a_percent_is_let_pass_and_a_fault_of_5_percent_is_stopped() {
        let sizes = sizes(1_000);
        let limits = limits(&sizes, Ppm::percent(2), 0.005);
        assert!(stopped(&sizes, &limits, Ppm(5_000), 1_000) < 1e-6);
        assert!(stopped(&sizes, &limits, Ppm::percent(5), 1_000) > 0.95);
    }
}
