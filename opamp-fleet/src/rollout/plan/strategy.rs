//! From a strategy to the boundaries of waves (R16, R17, R18).

use std::time::Duration;

use super::{Plan, Size, Step, Strategy};
use crate::rollout::PlanError;
use crate::rollout::stats::Ppm;

const MINUTE: Duration = Duration::from_secs(60);

impl Strategy {
    /// How long waves are watched whose strategy has no dwell of its own.
    pub const DWELL: Duration = Duration::from_secs(600);

    /// The default: 40 members or 5 %, whichever is less, for 10 minutes; a quarter for 15; a half for 30; all.
    pub fn canary() -> Self {
        let first = Size::AtMost { count: 40, percent: Ppm::percent(5) };
        let step = |until, minutes| Step { until, dwell: minutes * MINUTE, approval: false };
        let percent = |percent| Size::Percent(Ppm::percent(percent));
        let steps = [step(first, 10), step(percent(25), 15), step(percent(50), 30), step(percent(100), 0)];
        Self::Canary { steps: steps.into() }
    }

    /// The label whose values are waves.
    pub(super) fn label(&self) -> Option<&str> {
        match self {
            Self::LabelRings { key, .. } | Self::ZoneByZone { key } => Some(key),
            Self::AllAtOnce
            | Self::Batches { .. }
            | Self::Canary { .. }
            | Self::Exponential { .. }
            | Self::Manual { .. }
            | Self::Percentages(_) => None,
        }
    }
}

/// One wave before its members are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) name: Box<str>,
    /// The member after its last.
    pub(super) end: u32,
    pub(super) dwell: Duration,
    pub(super) approval: bool,
    pub(super) manual: bool,
    /// The value of the label, if waves are values of one.
    pub(super) value: Option<Box<str>>,
}

impl Cut {
    fn new(name: String, end: u32, dwell: Duration) -> Self {
        Self { name: name.into(), end, dwell, approval: false, manual: false, value: None }
    }
}

/// The waves of a strategy that counts. Each has at least one member as long as there are any; who is left is in one more.
pub(super) fn by_count(strategy: &Strategy, members: u32) -> Result<Vec<Cut>, PlanError> {
    let cuts = match strategy {
        Strategy::AllAtOnce => vec![Cut::new("all".to_owned(), members, Strategy::DWELL)],
        Strategy::Batches { size } => batches(*size, members, "batch")?,
        Strategy::Manual { size } => {
            let mut cuts = batches(*size, members, "manual step")?;
            cuts.iter_mut().for_each(|cut| cut.manual = true);
            cuts
        }
        Strategy::Canary { steps } => {
            let ends = ends(steps.iter().map(|step| step.until.of(members)), members);
            let cuts = ends.into_iter().zip(steps).zip(1..);
            cuts.map(|((end, step), number)| Cut {
                approval: step.approval,
                ..Cut::new(format!("step {number}"), end, step.dwell)
            })
            .collect()
        }
        Strategy::Exponential { first, factor } => {
            let mut ends = Vec::new();
            let (mut end, mut size) = (0u32, *first);
            while end < members {
                end = end.saturating_add(size.max(1)).min(members);
                size = size.saturating_mul(u32::from(*factor).max(2));
                ends.push(end);
            }
            named(ends, "step")
        }
        Strategy::Percentages(parts) => {
            named(ends(parts.iter().map(|part| part.of(members)), members), "step")
        }
        Strategy::LabelRings { .. } | Strategy::ZoneByZone { .. } => Vec::new(),
    };
    Ok(with_rest(cuts, members))
}

/// The waves of a strategy that goes by the values of a label, with how many members have each. `unmatched` have none of
/// them and are in one more wave at the end (R18).
pub(super) fn by_value(values: &[(Box<str>, u32)], unmatched: u32) -> Vec<Cut> {
    let mut end = 0;
    let mut cuts: Vec<Cut> = Vec::with_capacity(values.len() + 1);
    for (value, members) in values {
        end += members;
        let value = Some(value.clone());
        let name = value.as_deref().unwrap_or_default().to_owned();
        cuts.push(Cut { value, ..Cut::new(name, end, Strategy::DWELL) });
    }
    with_rest(cuts, end + unmatched)
}

fn with_rest(mut cuts: Vec<Cut>, members: u32) -> Vec<Cut> {
    let (end, dwell, manual) =
        cuts.last().map_or((0, Strategy::DWELL, false), |last| (last.end, last.dwell, last.manual));
    if end < members || cuts.is_empty() {
        cuts.push(Cut { manual, ..Cut::new("rest".to_owned(), members, dwell) });
    }
    cuts
}

fn batches(size: u32, members: u32, name: &str) -> Result<Vec<Cut>, PlanError> {
    let size = size.max(1);
    let count = members.div_ceil(size);
    if count > u32::from(Plan::WAVES_MAX) {
        return Err(PlanError::TooManyWaves { limit: Plan::WAVES_MAX });
    }
    Ok(named((1..=count).map(|batch| batch.saturating_mul(size).min(members)).collect(), name))
}

fn named(ends: Vec<u32>, name: &str) -> Vec<Cut> {
    ends.into_iter().zip(1..).map(|(end, n)| Cut::new(format!("{name} {n}"), end, Strategy::DWELL)).collect()
}

/// Where waves end that should reach `targets`: each has at least one member while there are any.
fn ends(targets: impl Iterator<Item = u32>, members: u32) -> Vec<u32> {
    let mut end: u32 = 0;
    let mut ends = Vec::new();
    for target in targets {
        end = target.max(end.saturating_add(1)).min(members);
        ends.push(end);
    }
    ends
}

impl Size {
    /// How many that is of `members`.
    pub(super) fn of(self, members: u32) -> u32 {
        match self {
            Self::AtMost { count, percent } => count.min(percent.of(members)),
            Self::Count(count) => count.min(members),
            Self::Percent(percent) => percent.of(members),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(strategy: &Strategy, members: u32) -> Vec<u32> {
        let ends: Vec<u32> = by_count(strategy, members).unwrap().iter().map(|cut| cut.end).collect();
        ends.iter().zip(std::iter::once(&0).chain(&ends)).map(|(end, first)| end - first).collect()
    }

    #[test]
    fn the_default_canary_is_at_most_forty_and_at_least_one() {
        assert_eq!(sizes(&Strategy::canary(), 10_000), [40, 2_460, 2_500, 5_000]);
        assert_eq!(sizes(&Strategy::canary(), 1_000), [40, 210, 250, 500]);
        assert_eq!(sizes(&Strategy::canary(), 100), [5, 20, 25, 50]);
        assert_eq!(sizes(&Strategy::canary(), 10), [1, 1, 3, 5]);
        assert_eq!(sizes(&Strategy::canary(), 1), [1, 0, 0, 0]);
    }

    #[test]
    fn all_sizes_1_to_500() {
        let percents =
            |parts: &[u32]| Strategy::Percentages(parts.iter().map(|part| Ppm::percent(*part)).collect());
        for members in 1..=500 {
            for strategy in [
                Strategy::AllAtOnce,
                Strategy::Batches { size: 1 },
                Strategy::Batches { size: 7 },
                Strategy::canary(),
                Strategy::Exponential { first: 1, factor: 2 },
                Strategy::Exponential { first: 40, factor: 255 },
                Strategy::Manual { size: 9 },
                percents(&[5, 25, 50, 100]),
                percents(&[1, 2, 3, 99]),
            ] {
                let sizes = sizes(&strategy, members);
                assert_eq!(sizes.iter().sum::<u32>(), members, "{strategy:?}");
                let full = sizes.iter().take_while(|size| **size > 0).count();
                assert!(full > 0, "{strategy:?} of {members}");
                assert!(sizes[full..].iter().all(|size| *size == 0), "{strategy:?} of {members}: {sizes:?}");
            }
        }
    }

    #[test]
    fn who_no_step_reaches_is_in_one_more_wave() {
        let half = Strategy::Percentages([Ppm::percent(10), Ppm::percent(50)].into());
        assert_eq!(sizes(&half, 20), [2, 8, 10]);
        let rest = by_count(&half, 20).unwrap().pop().unwrap();
        assert_eq!((&*rest.name, rest.end), ("rest", 20));
    }

    #[test]
    fn an_exponential_strategy_grows_until_all_are_in() {
        assert_eq!(sizes(&Strategy::Exponential { first: 1, factor: 2 }, 20), [1, 2, 4, 8, 5]);
        assert_eq!(sizes(&Strategy::Exponential { first: 3, factor: 10 }, 33), [3, 30]);
    }

    #[test]
    fn a_plan_without_members_has_one_empty_wave_at_least() {
        assert_eq!(sizes(&Strategy::Batches { size: 5 }, 0), [0]);
        assert_eq!(sizes(&Strategy::Exponential { first: 1, factor: 2 }, 0), [0]);
        assert_eq!(by_value(&[], 0).len(), 1);
    }

    #[test]
    fn more_batches_than_waves_are_refused() {
        assert!(by_count(&Strategy::Batches { size: 1 }, 1_000).is_ok());
        let refused = Err(PlanError::TooManyWaves { limit: 1_000 });
        assert_eq!(by_count(&Strategy::Batches { size: 1 }, 1_001), refused);
        assert_eq!(by_count(&Strategy::Manual { size: 1 }, u32::MAX), refused);
    }

    #[test]
    fn values_are_waves_in_their_order_and_those_without_come_last() {
        let cuts = by_value(&[("inner".into(), 2), ("early".into(), 0)], 3);
        let seen: Vec<(&str, u32)> = cuts.iter().map(|cut| (&*cut.name, cut.end)).collect();
        assert_eq!(seen, [("inner", 2), ("early", 2), ("rest", 5)]);
        assert_eq!(cuts[2].value, None);
    }
}
