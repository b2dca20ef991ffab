//! What the control group lets expect: how many members would be against a gate although nothing was done to them (R43).

use super::GateCount;

/// Fewer members of a control group than these tell nothing.
pub(crate) const CONTROL_MIN: u32 = 20;

/// What is expected is counted in thousandths of members: of a few in a row it is less than one.
pub(crate) const THOUSANDTHS: u64 = 1_000;

/// Of so many members as many are expected to be against a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Members.
    pub(crate) of: u32,
    /// Thousandths of members.
    pub(crate) thousandths: u64,
}

impl Expected {
    /// What a control group lets expect of the members that a gate has counted. `explained`: thousandths of them that it
    /// explained before it was compared anew.
    pub(crate) fn new(count: &GateCount, explained: u64, control: (u32, u32)) -> Self {
        // Who is not against the gate any more needs no explanation.
        let explained = explained.min(u64::from(count.bad) * THOUSANDTHS);
        let left = u64::from(count.eligible) * THOUSANDTHS - explained;
        Self { of: count.eligible, thousandths: explained + share(control, left) }
    }

    /// What is expected of members of both kinds.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            of: self.of.saturating_add(other.of),
            thousandths: self.thousandths.saturating_add(other.thousandths),
        }
    }

    /// What is expected of some of these members, in thousandths.
    pub(crate) fn among(self, members: u32) -> u64 {
        u64::from(members) * self.thousandths / u64::from(self.of.max(1))
    }
}

/// The share of `of` that members of a control group let expect, at least: as many as there are of it less a standard error,
/// so that one of a few explains nothing.
fn share((members, bad): (u32, u32), of: u64) -> u64 {
    if members < CONTROL_MIN {
        return 0;
    }
    let bad = bad.min(members);
    let error = bad.isqrt() + u32::from(bad.isqrt().pow(2) < bad);
    of * u64::from(bad - error.min(bad)) / u64::from(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::plan::Plan;

    fn count(bad: u32, eligible: u32) -> GateCount {
        GateCount { bad, eligible, ..GateCount::default() }
    }

    fn expected(bad: u32, eligible: u32, explained: u64, control: (u32, u32)) -> u64 {
        Expected::new(&count(bad, eligible), explained, control).thousandths
    }

    #[test]
    fn as_many_are_expected_as_in_the_control_group_less_a_standard_error() {
        assert_eq!(expected(14, 40, 0, (20, 4)), 4_000);
        assert_eq!(expected(14, 40, 0, (20, 1)), 0, "one of twenty is chance");
        assert_eq!(expected(14, 40, 0, (19, 19)), 0, "nineteen tell nothing");
        let most = Plan::MEMBERS_MAX;
        assert_eq!(expected(most, most, 0, (most, most)) / THOUSANDTHS, u64::from(most) - 2_000);
    }

    #[test]
    fn what_was_explained_before_is_taken_off_as_long_as_it_is_there_and_the_rest_is_compared_anew() {
        assert_eq!(expected(70, 290, 58_000, (75, 0)), 58_000);
        assert_eq!(expected(70, 290, 58_000, (100, 25)), 58_000 + 46_400);
        assert_eq!(expected(3, 290, 58_000, (75, 0)), 3_000, "the others are back");
    }

    #[test]
    fn of_a_few_in_a_row_less_than_one_is_expected() {
        let of_wave = Expected::new(&count(5, 100), 0, (100, 9));
        assert_eq!((of_wave.thousandths, of_wave.among(12)), (6_000, 720));
        assert_eq!(of_wave.and(Expected { of: 20, thousandths: 0 }).among(12), 600);
        assert_eq!(Expected::default().among(12), 0);
    }
}
