//! Logarithms of integers, for the weight of the sequential test.

use super::Ppm;

/// Bits after the point.
const POINT: u32 = 32;

/// What a failure weighs against one success in the sequential test of `acceptable` against `bad`:
///
/// `ln(bad / acceptable) / ln((1 − acceptable) / (1 − bad))`, rounded down: 11 for 2 % against 20 %.
///
/// It is at least 1 if the two ratios are ordered and together at most 100 %. None if they are not ordered, or if one of
/// them is 0 % or 100 %: nothing can be told apart then.
#[must_use]
pub fn weight(acceptable: Ppm, bad: Ppm) -> Option<i32> {
    if acceptable.0 == 0 || bad.0 >= Ppm::ALL.0 || acceptable >= bad {
        return None;
    }
    let failure = log2(bad.0) - log2(acceptable.0);
    let success = log2(Ppm::ALL.0 - acceptable.0) - log2(Ppm::ALL.0 - bad.0);
    i32::try_from(failure.checked_div(success)?).ok()
}

/// The logarithm of `x` to the base 2, in units of 2⁻³², rounded down; 0 for 0.
///
/// The number is normalised to `[1, 2)` and squared once for each bit: a square of 2 or more is a bit that is set.
#[must_use]
pub fn log2(x: u32) -> u64 {
    let Some(whole) = x.checked_ilog2() else { return 0 };
    let mut mantissa = u64::from(x) << (POINT - whole);
    let mut result = u64::from(whole) << POINT;
    for bit in (0..POINT).rev() {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> POINT;
        let carry = u64::from(square >= 1 << (POINT + 1));
        result |= carry << bit;
        mantissa = (square >> carry) as u64;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_have_whole_logarithms() {
        assert_eq!(log2(0), 0);
        assert_eq!(log2(1), 0);
        for exponent in 0..32_u32 {
            assert_eq!(log2(1 << exponent), u64::from(exponent) << 32);
        }
    }

    #[test]
    fn logarithms_are_right_to_nine_digits() {
        for x in [3_u32, 10, 999_999, 20_000, 200_000, 980_000, u32::MAX] {
            let exact = f64::from(x).log2();
            let found = log2(x) as f64 / 4_294_967_296.0;
            assert!((found - exact).abs() < 1e-8, "{x}: {found} instead of {exact}");
        }
    }

    #[test]
    fn a_failure_weighs_as_much_as_the_ratios_are_apart() {
        let of = |acceptable, bad| weight(Ppm(acceptable), Ppm(bad));
        assert_eq!(of(20_000, 200_000), Some(11), "11.35");
        assert_eq!(of(100_000, 300_000), Some(4), "4.37");
        assert_eq!(of(1_000, 10_000), Some(254), "254.4");
        assert_eq!(of(10_000, 500_000), Some(5), "5.73");
        assert_eq!(of(400_000, 600_000), Some(1), "exactly 1");
    }

    #[test]
    fn ratios_that_cannot_be_told_apart_have_no_weight() {
        let of = |acceptable, bad| weight(Ppm(acceptable), Ppm(bad));
        assert_eq!(of(0, 200_000), None);
        assert_eq!(of(200_000, 200_000), None);
        assert_eq!(of(200_000, 20_000), None);
        assert_eq!(of(20_000, 1_000_000), None);
        assert_eq!(of(600_000, 900_000), Some(0), "together more than 100 %");
    }
}
