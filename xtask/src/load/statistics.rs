//! Several rounds as three numbers.

/// The figures of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// The smallest.
    pub(crate) min: f64,
    /// The one in the middle, or the mean of the two there.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Summary {
    /// Sums up; none of nothing, or of what is no number.
    #[must_use]
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        if figures.iter().any(|figure| !figure.is_finite()) {
            return None;
        }
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { min, median, max })
    }

    /// The ratios round by round: what was measured beside each other is compared with each other.
    #[must_use]
    pub(crate) fn of_ratios(of: &[Option<f64>], to: &[Option<f64>]) -> Option<Self> {
        let ratios: Vec<f64> = of
            .iter()
            .zip(to)
            .filter_map(|(&of, &to)| Some((of?, to?)))
            .filter(|(_, to)| *to > 0.0)
            .map(|(of, to)| of / to)
            .collect();
        Self::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let three = Summary { min: 1.0, median: 2.0, max: 9.0 };
        assert_eq!(Summary::of(&[9.0, 1.0, 2.0]), Some(three));
        assert_eq!(Summary::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of(&[5.0]), Some(Summary { min: 5.0, median: 5.0, max: 5.0 }));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_rounds_without_both_are_left_out() {
        let of = [Some(2.0), Some(9.0), None, Some(5.0)];
        let to = [Some(1.0), Some(3.0), Some(1.0), Some(0.0)];
        assert_eq!(Summary::of_ratios(&of, &to), Some(Summary { min: 2.0, median: 2.5, max: 3.0 }));
        assert_eq!(Summary::of_ratios(&[None], &[Some(1.0)]), None);
    }
}
