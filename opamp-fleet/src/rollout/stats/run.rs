//! The score of the sequential test, in an order that nobody's answer has a say in.
//!
//! Limits are those of members whose results come one after the other. Answers come in another order: a failure may be there
//! long before the successes of those who were offered it at the same time, long after them, or in a soak, when no success
//! follows any more. Whoever scores answers as they come takes such a burst for a fault. So members are looked at in the
//! order of the plan. A score that never falls below 0 reaches its limit where, and only where, some members in a row add up
//! to it: that run is what is looked for.
//!
//! Who was offered it and has not answered is taken for well, also while it is tried again or waited for. An answer can then
//! only raise a sum, and at most to what it is once all have answered: where members are offered it in the order of the plan,
//! a limit is reached with at most the chance it was computed for, however long who takes for what. Where failure domains,
//! locks or members that come back change that order, each new neighbour is another look: up to twice that chance in
//! simulations of 1,000 members at the acceptable ratio, and practically none at a quarter of it.

/// In a run of so many members for each point of the limit the others are looked for. Who takes no part adds nothing: where
/// hardly anybody does, a run ends for want of members.
const REACH: usize = 32;

/// Members in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How many of them failed.
    pub failed: u32,
    /// How many they are.
    pub members: u32,
}

impl Run {
    /// What they add up to: the weight for each failure, −1 for each other one.
    #[must_use]
    pub fn score(self, weight: i32) -> i32 {
        let well = i64::from(self.members) - i64::from(self.failed);
        let score = i64::from(self.failed) * i64::from(weight) - well;
        score.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }

    /// The same, had so many thousandths of those that failed been well: each takes one off instead of adding the weight. The
    /// score is a whole number, rounded down.
    #[must_use]
    pub fn score_beyond(self, weight: i32, expected: u64) -> i32 {
        let expected = expected.min(u64::from(self.failed) * 1_000);
        let less =
            i64::from(weight).saturating_add(1).saturating_mul(i64::try_from(expected).unwrap_or(i64::MAX));
        let score =
            (i64::from(self.score(weight)).saturating_mul(1_000).saturating_sub(less)).div_euclid(1_000);
        score.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }

    /// The run with the highest score around a member that has just failed. `before` are the members before it, the last one
    /// first, and `after` those after it: whether each failed, none for who takes no part.
    ///
    /// It is exact as long as no run has reached `limit` yet: a stretch that costs as much as the limit is never worth
    /// crossing, because what lies behind it would have to be such a run by itself.
    #[must_use]
    pub fn around(
        before: impl Iterator<Item = Option<bool>>,
        after: impl Iterator<Item = Option<bool>>,
        weight: i32,
        limit: i32,
    ) -> Self {
        let [before, after] = [Self::side(before, weight, limit), Self::side(after, weight, limit)];
        let failed = before.failed.saturating_add(after.failed).saturating_add(1);
        let members = before.members.saturating_add(after.members).saturating_add(1);
        Self { failed, members }
    }

    fn side(members: impl Iterator<Item = Option<bool>>, weight: i32, limit: i32) -> Self {
        let reach = REACH.saturating_mul(usize::try_from(limit).unwrap_or(0));
        let (mut run, mut best) = (Self::default(), Self::default());
        for failed in members.take(reach).flatten() {
            run.members = run.members.saturating_add(1);
            run.failed = run.failed.saturating_add(u32::from(failed));
            if run.score(weight) > best.score(weight) {
                best = run;
            } else if run.score(weight) <= best.score(weight).saturating_sub(limit) {
                break;
            }
        }
        best
    }
}

/// The limit for `members` where `limit` is that for the `planned` ones: the same as long as they are no more, else that for
/// the next power of two. `grown`: those for 1, 2, 4, … members.
#[must_use]
pub fn limit_of(members: u32, planned: u32, limit: i32, grown: &[i32], weight: i32) -> i32 {
    if members <= planned {
        return limit;
    }
    let power = members.checked_next_power_of_two().map_or(32, u32::trailing_zeros);
    let beyond = || {
        let most = u32::try_from(grown.len()).unwrap_or(32).saturating_sub(1);
        grown.last().map_or(limit, |last| limit_for(members, 1 << most.min(31), *last, weight))
    };
    let known = usize::try_from(power).ok().and_then(|power| grown.get(power)).copied();
    known.unwrap_or_else(beyond).max(limit)
}

/// The limit for `members` where one for `planned` of them is known: higher by two weights for each time they are twice as
/// many.
///
/// Of members that fail at the acceptable ratio, twice as many reach a limit that is higher by `ln 2 / θ` with the same
/// chance, where `e^−θ` is the ratio of the chances of a success under both ratios, once they are many. The weight is
/// `ln(bad / acceptable) / θ`, rounded down, and the bad ratio is at least twice the acceptable one: so one weight is about
/// enough, and the second one is for those that are few.
#[must_use]
fn limit_for(members: u32, planned: u32, limit: i32, weight: i32) -> i32 {
    let doublings = members.div_ceil(planned.max(1)).max(1).next_power_of_two().trailing_zeros();
    let more = i32::try_from(doublings).unwrap_or(0).saturating_mul(weight.saturating_mul(2));
    limit.saturating_add(more)
}

/// Whether `failures` of `members` are more like the bad ratio than like the acceptable one.
#[must_use]
pub fn is_more_like_bad(failures: u32, members: u32, weight: i32) -> bool {
    Run { failed: failures, members }.score(weight) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::stats::{Ppm, sequential};

    /// The highest score on the way through the members in their order.
    fn highest(members: &[Option<bool>], weight: i32) -> i32 {
        let mut highest = 0;
        members.iter().flatten().fold(0, |score, failed| {
            let score = if *failed {
                sequential::after_failure(score, weight)
            } else {
                sequential::after_success(score)
            };
            highest = highest.max(score);
            score
        });
        highest
    }

    fn around(members: &[Option<bool>], at: usize, weight: i32, limit: i32) -> Run {
        let before = members[..at].iter().rev().copied();
        Run::around(before, members[at + 1..].iter().copied(), weight, limit)
    }

    /// Numbers that look like chance, the same each time.
    fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |end| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        }
    }

    #[test]
    fn a_limit_is_reached_by_whoever_answers_last_if_it_is_reached_in_the_order_of_the_plan() {
        for seed in 0..400 {
            let mut below = numbers(seed);
            let (count, limit) = (20 + below(200) as usize, 23 + below(40) as i32);
            let fails: Vec<usize> = (0..count).filter(|_| below(9) == 0).collect();
            let mut order = fails.clone();
            for at in (1..order.len()).rev() {
                order.swap(at, below(at as u64 + 1) as usize);
            }
            let mut members: Vec<_> = (0..count).map(|_| (below(5) > 0).then_some(false)).collect();
            let mut is_reached = false;
            for at in order {
                members[at] = Some(true);
                is_reached |= around(&members, at, 11, limit).score(11) >= limit;
                assert_eq!(is_reached, highest(&members, 11) >= limit, "seed {seed}: {members:?}");
                if is_reached {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_a_burst_of_late_failures_adds_up_to_is_what_it_would_have_been_in_turn() {
        let mut members = vec![Some(false); 1_000];
        for at in (0..1_000).step_by(50) {
            members[at] = Some(true);
        }
        assert_eq!(highest(&members, 11), 11, "each is far from the next");
        assert_eq!(around(&members, 500, 11, 36), Run { failed: 1, members: 1 });
    }

    #[test]
    fn who_takes_no_part_is_passed_over() {
        let members = [Some(true), None, None, Some(false), None, Some(true)];
        assert_eq!(around(&members, 0, 11, 36), Run { failed: 2, members: 3 });
        let far: Vec<_> = [Some(true)].into_iter().chain([None; 10_000]).chain([Some(true)]).collect();
        assert_eq!(
            around(&far, 0, 11, 36),
            Run { failed: 1, members: 1 },
            "nobody is looked for that far away"
        );
    }

    #[test]
    fn the_limit_grows_with_the_members_that_join_and_is_reached_no_more_often() {
        let (acceptable, share) = (Ppm::percent(2), 0.002);
        let sizes: Vec<u32> = (0..12).map(|power| 1 << power).collect();
        let grown = sequential::limits(11, acceptable, &sizes, share);
        for planned in [1, 5, 10, 100] {
            let limit = sequential::limits(11, acceptable, &[planned], share)[0];
            let mut before = limit;
            for members in [planned, planned + 1, 2 * planned, 10 * planned, 2_048, 2_049, 10_000] {
                let found = limit_of(members, planned, limit, &grown, 11);
                assert!(found >= before, "{planned} planned, {members} members: {found} after {before}");
                let chance = sequential::stopped(11, found, acceptable, members);
                assert!(chance <= share, "{planned} planned, {members} members: {chance}");
                before = found;
            }
        }
        assert_eq!(
            limit_of(50, 10, 34, &grown, 11),
            grown[6],
            "not that for ten plus so much for each doubling"
        );
        assert_eq!(limit_of(u32::MAX, 10, 34, &[], 11), 34);
    }

    #[test]
    fn more_members_than_planned_have_a_higher_limit_which_they_reach_no_more_often() {
        let planned = |members| limit_for(members, 100, 38, 11);
        assert_eq!([1, 100, 101, 200, 201, 5_000].map(planned), [38, 38, 60, 60, 82, 170]);
        for (acceptable, bad) in [(2, 20), (1, 2), (5, 10), (10, 50), (1, 30)] {
            let (acceptable, bad) = (Ppm::percent(acceptable), Ppm::percent(bad));
            let weight = crate::rollout::stats::log::weight(acceptable, bad).unwrap();
            let limit = sequential::limits(weight, acceptable, &[200], 0.01)[0];
            for members in [400, 1_600, 6_400] {
                let stopped =
                    sequential::stopped(weight, limit_for(members, 200, limit, weight), acceptable, members);
                assert!(stopped <= 0.01, "{acceptable} against {bad}, {members} members: {stopped}");
            }
        }
    }
}
