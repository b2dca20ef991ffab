//! Tails of the binomial distribution, the same on every platform.
//!
//! Probabilities are computed as weights relative to the most likely number: the weight of that one is 1, that of its
//! neighbours follows by a ratio, outwards until nothing is added any more. That needs `+`, `−`, `×` and `÷` alone, never
//! underflows where it matters, and costs about `√n` steps.

use super::{Ppm, probability};

/// Weights below this part of their sum are left out.
const NEGLIGIBLE: f64 = 1e-24;

/// How much a tail may exceed an error by the rounding of its computation and still count as equal to it.
const ROUNDING: f64 = 1.0 + 1e-9;

/// The chance that at least `failures` of `members` fail if each does with probability `truth`: 0 to 1.
#[must_use]
pub fn at_least(members: u32, truth: Ppm, failures: u32) -> f64 {
    if failures == 0 {
        return 1.0;
    }
    if failures > members || truth.0 == 0 {
        return 0.0;
    }
    if truth.0 >= Ppm::ALL.0 {
        return 1.0;
    }
    let weights = Weights::of(members, truth);
    let from = failures.saturating_sub(weights.first) as usize;
    let tail: f64 = weights.values.iter().skip(from).rev().sum();
    tail / weights.total()
}

/// The least number of failures of `members` that shows, wrong with a chance below `error` (0 to 1), that the true ratio
/// is above `over`: the least `k` with `P[Bin(members, over) ≥ k] < error`, which is where the one-sided lower bound of
/// Clopper and Pearson exceeds `over`. `members + 1`, which never happens, if no number shows it.
#[must_use]
pub fn limit(members: u32, over: Ppm, error: f64) -> u32 {
    if over.0 == 0 {
        return 1;
    }
    if over.0 >= Ppm::ALL.0 {
        return members.saturating_add(1);
    }
    let weights = Weights::of(members, over);
    let allowed = error * weights.total();
    let mut tail = 0.0;
    let mut found = weights.after();
    for (number, weight) in (weights.first..weights.after()).zip(&weights.values).rev() {
        tail += weight;
        if tail * ROUNDING >= allowed {
            break;
        }
        found = number;
    }
    found
}

/// The chance that, while `members` finish one after the other and each fails with probability `truth`, the number of
/// failures ever reaches `limit(finished)`: 0 to 1. A limit above `finished` is never reached. Exact, by going through
/// all numbers of failures; costs `members` times the largest limit, so that callers bound `members`.
pub fn stopped(members: u32, truth: Ppm, limit: impl Fn(u32) -> u32) -> f64 {
    let failing = probability(truth);
    let well = 1.0 - failing;
    let mut alive: Vec<f64> = vec![1.0];
    let mut gone = 0.0;
    for finished in 1..=members {
        let limit = limit(finished) as usize;
        let mut next: Vec<f64> = vec![0.0; alive.len() + 1];
        for (failures, chance) in alive.iter().enumerate() {
            next[failures] += chance * well;
            next[failures + 1] += chance * failing;
        }
        gone += next.iter().skip(limit).sum::<f64>();
        next.truncate(limit);
        while next.last().is_some_and(|chance| *chance < NEGLIGIBLE) {
            next.pop();
        }
        alive = next;
    }
    gone
}

/// Weights of neighbouring numbers, of which all others are negligible.
struct Weights {
    /// The number of the first value.
    first: u32,
    values: Vec<f64>,
}

impl Weights {
    /// `truth` is neither 0 nor 1.
    fn of(members: u32, truth: Ppm) -> Self {
        let (n, all) = (u64::from(members), u64::from(Ppm::ALL.0));
        let mode = ((n + 1) * u64::from(truth.0) / all).min(n) as u32;
        let odds = f64::from(truth.0) / f64::from(Ppm::ALL.0 - truth.0);
        let mut below = Vec::new();
        let mut weight = 1.0;
        for number in (0..mode).rev() {
            weight *= f64::from(number + 1) / (f64::from(members - number) * odds);
            if weight < NEGLIGIBLE {
                break;
            }
            below.push(weight);
        }
        let first = mode - below.len() as u32;
        let mut values: Vec<f64> = below.into_iter().rev().collect();
        values.push(1.0);
        weight = 1.0;
        for number in mode..members {
            weight *= f64::from(members - number) * odds / f64::from(number + 1);
            if weight < NEGLIGIBLE {
                break;
            }
            values.push(weight);
        }
        Self { first, values }
    }

    /// The number after that of the last value.
    fn after(&self) -> u32 {
        self.first + self.values.len() as u32
    }

    fn total(&self) -> f64 {
        self.values.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failures of so many members that show a ratio above 5, 10 and 20 % with 95 %.
    const TABLE: [(u32, [u32; 3]); 9] = [
        (1, [2, 2, 2]),
        (2, [2, 2, 2]),
        (3, [2, 2, 3]),
        (5, [2, 3, 4]),
        (10, [3, 4, 5]),
        (20, [4, 5, 8]),
        (50, [6, 10, 16]),
        (100, [10, 16, 28]),
        (200, [16, 28, 50]),
    ];

    #[test]
    fn the_limits_of_one_look_are_those_of_clopper_and_pearson() {
        for (members, limits) in TABLE {
            let found = [5, 10, 20].map(|over| limit(members, Ppm::percent(over), 0.05));
            assert_eq!(found, limits, "{members} members; more than the members is never");
        }
    }

    #[test]
    fn members_without_a_failure_clear_a_ratio_at_the_known_sizes() {
        for (ratio, clear) in [(1, 299), (2, 149), (5, 59), (10, 29), (20, 14)] {
            let none_fails = |members| 1.0 - at_least(members, Ppm::percent(ratio), 1);
            assert!(none_fails(clear) <= 0.05 && none_fails(clear - 1) > 0.05, "{ratio} %");
        }
    }

    #[test]
    fn a_canary_sees_a_fault_of_5_percent_with_the_known_chance() {
        for (members, thousandths) in [(3, 143), (20, 642), (40, 871), (50, 923), (100, 994)] {
            let seen = at_least(members, Ppm::percent(5), 1);
            assert_eq!((seen * 1_000.0).round() as u32, thousandths, "{members} members");
        }
    }

    /// `100^members · P[Bin(members, percent / 100) ≥ failures]`, exact, as limbs of 32 bits, the lowest first.
    fn exact_tail(members: u32, percent: u32, failures: u32) -> Vec<u32> {
        let mut polynomial = vec![vec![1_u32]];
        for _ in 0..members {
            let mut next = vec![Vec::new(); polynomial.len() + 1];
            for (number, ways) in polynomial.iter().enumerate() {
                add(&mut next[number], ways, 100 - percent);
                add(&mut next[number + 1], ways, percent);
            }
            polynomial = next;
        }
        let mut tail = Vec::new();
        for ways in polynomial.iter().skip(failures as usize) {
            add(&mut tail, ways, 1);
        }
        tail
    }

    /// `sum += number · times`.
    fn add(sum: &mut Vec<u32>, number: &[u32], times: u32) {
        let mut carry = 0_u64;
        let mut at = 0;
        while at < number.len() || carry > 0 {
            if at == sum.len() {
                sum.push(0);
            }
            let limb = number.get(at).copied().unwrap_or(0);
            carry += u64::from(sum[at]) + u64::from(limb) * u64::from(times);
            sum[at] = carry as u32;
            carry >>= 32;
            at += 1;
        }
    }

    fn as_float(number: &[u32]) -> f64 {
        number.iter().rev().fold(0.0, |sum, limb| sum * 4_294_967_296.0 + f64::from(*limb))
    }

    #[test]
    fn tails_agree_with_exact_arithmetic() {
        for members in [1, 2, 7, 30, 60] {
            for percent in [1, 2, 20, 50, 97] {
                let whole = as_float(&exact_tail(members, percent, 0));
                for failures in 0..=members {
                    let exact = as_float(&exact_tail(members, percent, failures)) / whole;
                    let found = at_least(members, Ppm::percent(percent), failures);
                    let close = (found - exact).abs() <= 1e-12 * exact + 1e-22;
                    assert!(close, "{failures} of {members} at {percent} %: {found}, exactly {exact}");
                }
            }
        }
    }

    /// The least `k` with `P[Bin(members, percent / 100) ≥ k] < 1 / error`, exact.
    fn exact_limit(members: u32, percent: u32, error: u32) -> u32 {
        let mut whole = exact_tail(members, percent, 0);
        trim(&mut whole);
        let shows = |failures: &u32| {
            let mut scaled = Vec::new();
            add(&mut scaled, &exact_tail(members, percent, *failures), error);
            trim(&mut scaled);
            (scaled.len(), scaled.iter().rev().collect::<Vec<_>>())
                < (whole.len(), whole.iter().rev().collect::<Vec<_>>())
        };
        (0..=members).find(shows).unwrap_or(members + 1)
    }

    fn trim(number: &mut Vec<u32>) {
        while number.last() == Some(&0) {
            number.pop();
        }
    }

    #[test]
    fn limits_agree_with_exact_arithmetic() {
        for members in [1, 2, 5, 20, 33] {
            for percent in [1, 2, 10, 50, 90] {
                for error in [20, 200, 14_800] {
                    let found = limit(members, Ppm::percent(percent), 1.0 / f64::from(error));
                    let exact = exact_limit(members, percent, error);
                    assert_eq!(found, exact, "{members} members, {percent} %, one in {error}");
                }
            }
        }
    }

    #[test]
    fn limits_of_large_samples_are_those_of_logarithms_of_factorials() {
        for (members, looks, found) in
            [(10_426, 121.0, 268), (1_023_967, 215.0, 21_060), (4_014_114, 243.0, 81_436)]
        {
            assert_eq!(limit(members, Ppm::percent(2), 0.005 / looks), found, "{members} members");
        }
    }

    #[test]
    fn certain_and_impossible_failures_are_no_special_trouble() {
        assert_eq!(at_least(5, Ppm(0), 1), 0.0);
        assert_eq!(at_least(5, Ppm::ALL, 5), 1.0);
        assert_eq!(at_least(5, Ppm(1), 0), 1.0);
        assert_eq!(at_least(5, Ppm::ALL, 6), 0.0);
        assert_eq!(limit(5, Ppm(0), 0.01), 1);
        assert_eq!(limit(5, Ppm::ALL, 0.01), 6);
        assert_eq!(limit(0, Ppm::percent(2), 0.01), 1);
        assert!(at_least(4_000_000, Ppm::percent(2), 80_001) < 0.5);
    }

    #[test]
    fn one_look_stops_as_often_as_its_tail_says() {
        let one_look = |finished| if finished == 40 { 4 } else { u32::MAX };
        let found = stopped(40, Ppm::percent(5), one_look);
        assert!((found - at_least(40, Ppm::percent(5), 4)).abs() < 1e-12);
        assert_eq!(stopped(40, Ppm::percent(5), |_| u32::MAX), 0.0);
        assert!((stopped(3, Ppm::ALL, |_| 3) - 1.0).abs() < 1e-12);
    }

    /// How often a gate of "more than so many percent, at least three, of a least sample" ever stops.
    fn percent_gate(percent: u32, sample: u32, truth: u32, members: u32) -> f64 {
        let limit = |finished: u32| {
            let enough = finished >= sample;
            if enough { (finished * percent / 100 + 1).max(3) } else { u32::MAX }
        };
        stopped(members, Ppm(truth), limit)
    }

    #[test]
    fn gates_of_a_percentage_stop_at_noise_as_rarely_as_published() {
        for (percent, sample, truth, chance) in [
            (20, 1, 5_000, 4.4e-5),
            (20, 1, 20_000, 2.6e-3),
            (10, 20, 5_000, 4.3e-4),
            (10, 20, 20_000, 2.2e-2),
        ] {
            let found = percent_gate(percent, sample, truth, 500);
            assert!((found / chance - 1.0).abs() < 0.03, "{percent} %, {truth} ppm: {found}");
        }
    }

    #[test]
    fn a_gate_of_10_percent_sees_a_fault_of_20_percent_with_the_published_chance() {
        for (members, chance) in [(20, 0.79), (40, 0.976), (60, 0.993)] {
            let found = percent_gate(10, 20, 200_000, members);
            assert!((found - chance).abs() < 0.006, "{members} members: {found}");
        }
    }
}
