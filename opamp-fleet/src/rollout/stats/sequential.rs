//! The sequential probability ratio test in Page's form: limits and power.
//!
//! A failure adds a weight to a score, a success takes one off, and the score never falls below 0; the test stops at a
//! limit. There is no clearing: a fault that begins late finds the test as alert as an early one. The limit is the least
//! one that members who fail at the acceptable ratio reach with at most the error that is allowed, found by following the
//! exact distribution of the score from member to member. Sources: Wald 1945; Page 1954.

use std::collections::{BTreeMap, BTreeSet};

use super::run::is_more_like_bad;
use super::{Ppm, probability};

/// Largest weight of a failure: bounds what a plan costs. Two ratios whose weight is larger are too close to 0.
pub const WEIGHT_MAX: i32 = 256;

/// From so many members on it is looked whether the chance of stopping at the next one has settled.
const SETTLING: u32 = 4_096;

/// How many members that takes; and beyond which number it is taken as settled.
const SETTLED_OVER: u32 = 1_024;
const FOLLOWED_MAX: u32 = 65_536;

/// By how much that chance may still have grown, and what is added to it for what comes: 1 %.
const SETTLED: f64 = 1.001;
const UPWARD: f64 = 1.01;

/// The score after a member that failed.
#[must_use]
pub fn after_failure(score: i32, weight: i32) -> i32 {
    score.saturating_add(weight)
}

/// The score after a member that succeeded.
#[must_use]
pub fn after_success(score: i32) -> i32 {
    score.saturating_sub(1).max(0)
}

/// The chance that the score reaches `limit` while `members` finish and each fails with probability `truth`: 0 to 1.
/// Exact for the first 4,096 members at least, and until the chance at each further one is constant; from there on with
/// that chance and 1 % more, so that it is never too small.
#[must_use]
pub fn stopped(weight: i32, limit: i32, truth: Ppm, members: u32) -> f64 {
    let mut page = Page::new(weight, limit, truth);
    let mut hazard_before = 0.0;
    while page.members < members {
        let hazard = page.advance();
        let rest = members - page.members;
        if page.members < SETTLING || !page.members.is_multiple_of(SETTLED_OVER) || rest == 0 {
            continue;
        }
        if hazard <= hazard_before * SETTLED || page.members >= FOLLOWED_MAX {
            return page.gone + (1.0 - page.gone) * ever(hazard * UPWARD, rest);
        }
        hazard_before = hazard;
    }
    page.gone
}

/// The chance that something ever happens in `times` tries with a small `chance` each, a little too large: `1 − e⁻ˣ` is at
/// most `x / (1 + x / 2)`, which needs no exponential function.
fn ever(chance: f64, times: u32) -> f64 {
    let expected = chance * f64::from(times);
    (expected / (1.0 + expected / 2.0)).min(1.0)
}

/// For each of `sizes` the least limit that so many members reach with a chance of at most `error` (0 to 1, not 0) if they
/// fail at the acceptable ratio. At least two failures never reach it.
#[must_use]
pub fn limits(weight: i32, acceptable: Ppm, sizes: &[u32], error: f64) -> Vec<i32> {
    let distinct: BTreeSet<u32> = sizes.iter().copied().collect();
    let mut known = BTreeMap::new();
    // More members need no lower limit, so each search begins where the last one ended.
    let mut from = 2 * weight + 1;
    for size in distinct {
        from = least(from, |limit| stopped(weight, limit, acceptable, size) <= error);
        known.insert(size, from);
    }
    sizes.iter().filter_map(|size| known.get(size).copied()).collect()
}

/// The least number from `from` on that is enough; whatever is larger than an enough one is enough as well.
fn least(from: i32, enough: impl Fn(i32) -> bool) -> i32 {
    if enough(from) {
        return from;
    }
    let (mut short, mut step) = (from, 1);
    let mut found = short + step;
    while !enough(found) {
        (short, step) = (found, step.saturating_mul(2));
        found = short.saturating_add(step);
    }
    while found - short > 1 {
        let middle = short + (found - short) / 2;
        if enough(middle) {
            found = middle;
        } else {
            short = middle;
        }
    }
    found
}

/// How a wave ends for a test.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ending {
    /// The chance that it stops: 0 to 1.
    pub stopped: f64,
    /// The chance that it does not, and what is seen is more like the bad ratio.
    pub undecided: f64,
}

/// How a wave of `members` ends that fail with probability `truth`. Exact; costs `members² × limit / weight`, so that it is
/// for first waves: from 2,000 members on `undecided` is 0, which it nearly is.
#[must_use]
pub fn ending(weight: i32, limit: i32, truth: Ppm, members: u32) -> Ending {
    if members >= 2_000 {
        return Ending { stopped: stopped(weight, limit, truth, members), undecided: 0.0 };
    }
    let failing = probability(truth);
    // By score and number of failures.
    let mut alive: BTreeMap<(i32, u32), f64> = BTreeMap::from([((0, 0), 1.0)]);
    let mut ending = Ending::default();
    for _ in 0..members {
        let mut next: BTreeMap<(i32, u32), f64> = BTreeMap::new();
        for ((score, failures), chance) in alive {
            *next.entry((after_success(score), failures)).or_insert(0.0) += chance * (1.0 - failing);
            let raised = after_failure(score, weight);
            if raised >= limit {
                ending.stopped += chance * failing;
            } else {
                *next.entry((raised, failures + 1)).or_insert(0.0) += chance * failing;
            }
        }
        next.retain(|_, chance| *chance > 1e-15);
        alive = next;
    }
    let undecided = alive.iter().filter(|((_, failures), _)| is_more_like_bad(*failures, members, weight));
    ending.undecided = undecided.map(|(_, chance)| chance).sum();
    ending
}

/// The distribution of the score, followed from member to member.
struct Page {
    weight: usize,
    failing: f64,
    /// How many have finished.
    members: u32,
    /// The chance of each score below the limit.
    alive: Vec<f64>,
    next: Vec<f64>,
    /// The chance that the limit was reached.
    gone: f64,
}

impl Page {
    fn new(weight: i32, limit: i32, truth: Ppm) -> Self {
        let size = usize::try_from(limit).unwrap_or(0).max(1);
        let mut alive = vec![0.0; size];
        alive[0] = 1.0;
        let weight = usize::try_from(weight).unwrap_or(0);
        Self { weight, failing: probability(truth), members: 0, alive, next: vec![0.0; size], gone: 0.0 }
    }

    /// One more member finishes. Returns the chance of stopping with it among those that had not stopped.
    fn advance(&mut self) -> f64 {
        let well = 1.0 - self.failing;
        let before = self.gone;
        self.next.fill(0.0);
        for (score, chance) in self.alive.iter().enumerate() {
            self.next[score.saturating_sub(1)] += chance * well;
            match self.next.get_mut(score + self.weight) {
                Some(raised) => *raised += chance * self.failing,
                None => self.gone += chance * self.failing,
            }
        }
        std::mem::swap(&mut self.alive, &mut self.next);
        self.members += 1;
        let left = 1.0 - before;
        if left > 0.0 { (self.gone - before) / left } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTABLE: Ppm = Ppm::percent(2);

    /// Limits of waves that may be stretched by 24, and of all members, with 1 % for the whole rollout.
    fn of_rollout(waves: &[u32]) -> (Vec<i32>, i32) {
        let error = 0.01 / (waves.len() as f64 + 1.0);
        let stretched: Vec<u32> = waves.iter().map(|size| size + 24).collect();
        let all = limits(11, ACCEPTABLE, &[waves.iter().sum::<u32>()], error);
        (limits(11, ACCEPTABLE, &stretched, error), all[0])
    }

    #[test]
    fn the_limits_of_common_rollouts_are_the_published_ones() {
        assert_eq!(of_rollout(&[40, 210, 250, 500]), (vec![36, 43, 43, 47], 50));
        assert_eq!(of_rollout(&[40, 2_460, 2_500, 5_000]), (vec![36, 54, 54, 57], 61));
        assert_eq!(of_rollout(&[5, 20, 25, 50]), (vec![31, 33, 34, 37], 38));
        assert_eq!(of_rollout(&[5; 200]), (vec![46; 200], 67));
        let exponential = [1, 2, 4, 8, 16, 32, 64, 128, 256, 489];
        let (waves, all) = of_rollout(&exponential);
        assert_eq!((&waves[..6], all), (&[33, 33, 34, 34, 36, 39][..], 53));
    }

    #[test]
    fn at_the_acceptable_ratio_a_rollout_is_stopped_with_at_most_the_error() {
        for waves in [[40, 210, 250, 500], [40, 2_460, 2_500, 5_000]] {
            let (limits, all) = of_rollout(&waves);
            let by_wave = waves.iter().zip(&limits);
            let chances = by_wave.map(|(size, limit)| stopped(11, *limit, ACCEPTABLE, size + 24));
            let sum: f64 = chances.sum::<f64>() + stopped(11, all, ACCEPTABLE, waves.iter().sum());
            assert!(sum > 0.005 && sum <= 0.01, "{sum}");
        }
    }

    /// All courses that `members` may take, one bit each, played with the score as the gates keep it: the chance of those
    /// that reach the limit, and of those that do not and end with more failures than the acceptable ratio has.
    fn by_courses(weight: i32, limit: i32, truth: f64, members: u32) -> Ending {
        let mut found = Ending::default();
        for course in 0..1_u32 << members {
            let failures = course.count_ones();
            let chance = truth.powi(failures as i32) * (1.0 - truth).powi((members - failures) as i32);
            let mut score = 0;
            let reached = (0..members).any(|member| {
                let failed = course >> member & 1 == 1;
                score = if failed { after_failure(score, weight) } else { after_success(score) };
                score >= limit
            });
            if reached {
                found.stopped += chance;
            } else if is_more_like_bad(failures, members, weight) {
                found.undecided += chance;
            }
        }
        found
    }

    #[test]
    fn chances_are_those_of_all_courses_played_one_by_one() {
        for (weight, limit, truth) in [(2, 5, 30), (3, 7, 10), (3, 8, 45), (11, 23, 20), (1, 4, 50)] {
            let exact = by_courses(weight, limit, f64::from(truth) / 100.0, 14);
            let found = ending(weight, limit, Ppm::percent(truth), 14);
            let followed = stopped(weight, limit, Ppm::percent(truth), 14);
            assert!((followed - exact.stopped).abs() < 1e-12, "{followed}, exactly {exact:?}");
            assert!((found.stopped - exact.stopped).abs() < 1e-12, "{found:?}, exactly {exact:?}");
            assert!((found.undecided - exact.undecided).abs() < 1e-12, "{found:?}, exactly {exact:?}");
        }
    }

    #[test]
    fn a_limit_is_the_least_that_keeps_the_error() {
        for (members, error) in [(40, 0.01), (40, 0.0002), (234, 0.002), (1_000, 0.002)] {
            let limit = limits(11, ACCEPTABLE, &[members], error)[0];
            assert!(stopped(11, limit, ACCEPTABLE, members) <= error, "{members} members: {limit}");
            let is_least = limit == 23 || stopped(11, limit - 1, ACCEPTABLE, members) > error;
            assert!(is_least, "{members} members: {limit}");
        }
    }

    #[test]
    fn noise_of_half_a_percent_practically_never_stops() {
        let chances = [(64, 36), (234, 43), (274, 43), (524, 47), (1_000, 50)]
            .map(|(members, limit)| stopped(11, limit, Ppm(5_000), members));
        let sum: f64 = chances.iter().sum();
        assert!(sum < 2e-5, "{sum}");
    }

    #[test]
    fn the_power_is_the_published_one() {
        let thousandths = |limit, truth, members| {
            (stopped(11, limit, Ppm::percent(truth), members) * 1_000.0).round() as u32
        };
        assert_eq!([4, 10, 20, 40].map(|members| thousandths(36, 20, members)), [2, 121, 452, 859]);
        assert_eq!([4, 10, 20, 40].map(|members| thousandths(36, 50, members)), [63, 828, 996, 1_000]);
        assert_eq!([4, 10, 20, 40].map(|members| thousandths(36, 5, members)), [0, 1, 8, 30]);
        assert_eq!([40, 100, 210].map(|members| thousandths(43, 20, members)), [779, 996, 1_000]);
        assert_eq!([40, 100, 210].map(|members| thousandths(43, 5, members)), [11, 50, 121]);
    }

    #[test]
    fn a_canary_of_40_leaves_a_fault_of_20_percent_unnoticed_with_3_percent() {
        let ending = ending(11, 36, Ppm::percent(20), 40);
        assert!((ending.stopped - 0.859).abs() < 0.001, "{ending:?}");
        assert!((ending.undecided - 0.113).abs() < 0.001, "{ending:?}");
    }

    #[test]
    fn beyond_what_is_followed_the_chance_goes_on_growing_and_is_not_too_small() {
        let mut page = Page::new(11, 57, ACCEPTABLE);
        while page.members < 10_000 {
            page.advance();
        }
        let estimated = stopped(11, 57, ACCEPTABLE, 10_000);
        assert!(estimated >= page.gone && estimated < page.gone * 1.02, "{estimated}, exactly {}", page.gone);
        assert_eq!(stopped(11, 57, ACCEPTABLE, u32::MAX), 1.0);
    }

    #[test]
    fn ratios_close_to_each_other_are_followed_until_their_chance_is_constant() {
        let exact_after_16_384 = 0.118_291;
        let found = stopped(230, 1_500, Ppm(3_000), 16_384);
        assert!(found >= exact_after_16_384 && found < exact_after_16_384 * 1.02, "{found}");
    }

    #[test]
    fn one_failure_is_more_like_bad_until_eleven_succeeded() {
        assert!(is_more_like_bad(1, 11, 11) && !is_more_like_bad(1, 12, 11));
        assert!(!is_more_like_bad(0, 0, 11));
        assert!(is_more_like_bad(4, 40, 11) && !is_more_like_bad(3, 40, 11));
    }

    #[test]
    fn two_failures_alone_never_stop() {
        assert_eq!(limits(11, ACCEPTABLE, &[1, 5], 0.9), vec![23, 23]);
        assert_eq!(limits(11, ACCEPTABLE, &[], 0.9), Vec::<i32>::new());
    }
}
