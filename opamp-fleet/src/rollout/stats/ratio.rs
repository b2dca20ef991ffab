//! Ratios in millionths, and how an observed ratio is written.

use std::fmt;

/// A ratio in millionths, from 0 to [`Ppm::ALL`]. Text is percent, such as `2 %` or `0.5 %`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Ppm(pub u32);

impl Ppm {
    /// Everything: 100 %.
    pub const ALL: Self = Self(1_000_000);
    const PER_PERCENT: u32 = 10_000;

    /// The ratio of so many percent.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent * Self::PER_PERCENT)
    }

    /// Whether `part` of `whole` is more than this ratio, compared crosswise without rounding. Nothing of nothing is not.
    #[must_use]
    pub const fn is_exceeded_by(self, part: u32, whole: u32) -> bool {
        part as u64 * Self::ALL.0 as u64 > whole as u64 * self.0 as u64
    }

    /// This part of `whole`, rounded down.
    #[must_use]
    pub const fn of(self, whole: u32) -> u32 {
        (whole as u64 * self.0 as u64 / Self::ALL.0 as u64) as u32
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::PER_PERCENT, self.0 % Self::PER_PERCENT);
        if rest == 0 {
            return write!(f, "{whole} %");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{} %", digits.trim_end_matches('0'))
    }
}

/// An observed ratio as it is written beside a limit: in whole percent, but with one decimal, rounded up, where it
/// exceeds the limit and would read as if it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// How many.
    pub part: u32,
    /// Of how many.
    pub whole: u32,
    /// The limit it stands beside.
    pub limit: Option<Ppm>,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, whole) = (u64::from(self.part), u64::from(self.whole.max(1)));
        let percent = (200 * part + whole) / (2 * whole);
        let hidden = self.limit.is_some_and(|limit| {
            limit.is_exceeded_by(self.part, self.whole)
                && percent * u64::from(Ppm::PER_PERCENT) <= u64::from(limit.0)
        });
        if !hidden {
            return write!(f, "{percent} %");
        }
        let tenths = (1_000 * part).div_ceil(whole);
        write!(f, "{}.{} %", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_written_in_percent_without_needless_digits() {
        let written =
            [Ppm(0), Ppm(5_000), Ppm(12_345), Ppm::percent(20), Ppm::ALL].map(|ppm| ppm.to_string());
        assert_eq!(written, ["0 %", "0.5 %", "1.2345 %", "20 %", "100 %"]);
    }

    #[test]
    fn ratios_are_compared_without_rounding() {
        assert!(!Ppm::percent(20).is_exceeded_by(1, 5));
        assert!(Ppm::percent(20).is_exceeded_by(200_001, 1_000_000));
        assert!(!Ppm::percent(20).is_exceeded_by(0, 0));
        assert!(!Ppm::ALL.is_exceeded_by(u32::MAX, u32::MAX));
        assert_eq!(Ppm::percent(5).of(u32::MAX), 214_748_364);
    }

    #[test]
    fn an_observed_ratio_never_reads_as_its_limit_when_it_exceeds_it() {
        let written = |part, whole, limit| Observed { part, whole, limit: Some(limit) }.to_string();
        assert_eq!(written(14, 40, Ppm::percent(20)), "35 %");
        assert_eq!(written(41, 200, Ppm::percent(20)), "21 %");
        assert_eq!(written(201, 1_000, Ppm::percent(20)), "20.1 %");
        assert_eq!(written(200_001, 1_000_000, Ppm::percent(20)), "20.1 %");
        assert_eq!(written(345, 10_000, Ppm(34_000)), "3.5 %");
        assert_eq!(written(1, 5, Ppm::percent(20)), "20 %");
        assert_eq!(Observed { part: 0, whole: 0, limit: None }.to_string(), "0 %");
    }
}
