//! What a count says beside its baseline.

use std::collections::BTreeMap;

use super::baseline::Baseline;

/// One scenario beside its baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Held,
    /// More than the baseline and the tolerance.
    Costlier,
    /// Less than the baseline by more than the tolerance: unless it is written down, it may be lost again unseen.
    Cheaper,
    /// The baseline does not know it.
    New,
    /// The baseline knows it, the program does not.
    Gone,
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Its name.
    pub scenario: String,
    /// What is committed.
    pub baseline: Option<u64>,
    /// What was counted.
    pub count: Option<u64>,
    /// What follows.
    pub verdict: Verdict,
}

/// Compares all that was counted with all that is committed; `whole` says that every scenario was counted, and not a
/// selection of them.
#[must_use]
pub fn compare(baseline: &Baseline, counts: &BTreeMap<String, u64>, whole: bool) -> Vec<Compared> {
    let mut lines: Vec<Compared> = counts
        .iter()
        .map(|(scenario, &count)| {
            let known = baseline.counts.get(scenario).copied();
            let verdict = known.map_or(Verdict::New, |known| {
                let percent = percent(known, count);
                match baseline.tolerance_percent {
                    tolerance if percent > tolerance => Verdict::Costlier,
                    tolerance if percent < -tolerance => Verdict::Cheaper,
                    _ => Verdict::Held,
                }
            });
            Compared { scenario: scenario.clone(), baseline: known, count: Some(count), verdict }
        })
        .collect();
    if whole {
        let gone = baseline.counts.iter().filter(|(scenario, _)| !counts.contains_key(*scenario));
        lines.extend(gone.map(|(scenario, &known)| Compared {
            scenario: scenario.clone(),
            baseline: Some(known),
            count: None,
            verdict: Verdict::Gone,
        }));
    }
    lines
}

impl Compared {
    /// The line of the table, which begins with `otherwise` if it did not hold.
    #[must_use]
    pub fn line(&self, otherwise: &str) -> String {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let change = match (self.baseline, self.count) {
            (Some(known), Some(count)) => format!("{:+.2} %", percent(known, count)),
            _ => "-".to_owned(),
        };
        let mark = if self.verdict == Verdict::Held { "ok" } else { otherwise };
        let (baseline, count) = (number(self.baseline), number(self.count));
        format!("{mark:<6}  {:<36}{baseline:>12}{count:>12}{change:>12}", self.scenario)
    }

    /// What is wrong; nothing if it held.
    #[must_use]
    pub fn complaint(&self, tolerance_percent: f64) -> Option<String> {
        let name = &self.scenario;
        let change = match (self.baseline, self.count) {
            (Some(known), Some(count)) => {
                format!("{count} instructions a round, baseline {known} ({:+.2} %)", percent(known, count))
            }
            _ => String::new(),
        };
        match self.verdict {
            Verdict::Held => None,
            Verdict::Costlier => {
                Some(format!("{name} got costlier: {change}, {tolerance_percent} % are allowed"))
            }
            Verdict::Cheaper => Some(format!(
                "{name} got cheaper: {change}; the baseline is stale, write it anew so that the gain is kept"
            )),
            Verdict::New => Some(format!("{name} has no baseline")),
            Verdict::Gone => Some(format!("{name} is in the baseline, and there is no such scenario")),
        }
    }
}

/// The heading of the lines.
pub(super) const HEADING: &str =
    "        scenario                                baseline       count      change";

fn percent(known: u64, count: u64) -> f64 {
    (count as f64 - known as f64) * 100.0 / known as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(known: &[(&str, u64)], counted: &[(&str, u64)], whole: bool) -> Vec<(String, Verdict)> {
        let table =
            |of: &[(&str, u64)]| of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let baseline = Baseline { tolerance_percent: 2.5, counts: table(known), ..Baseline::default() };
        let lines = compare(&baseline, &table(counted), whole);
        lines.into_iter().map(|line| (line.scenario, line.verdict)).collect()
    }

    #[test]
    fn a_count_may_move_within_the_tolerance_and_no_further_in_either_direction() {
        for (count, expected) in [
            (1_000, Verdict::Held),
            (1_025, Verdict::Held),
            (975, Verdict::Held),
            (1_026, Verdict::Costlier),
            (974, Verdict::Cheaper),
        ] {
            assert_eq!(verdicts(&[("a", 1_000)], &[("a", count)], true), [("a".to_owned(), expected)]);
        }
    }

    #[test]
    fn a_scenario_without_baseline_and_a_baseline_without_scenario_fail() {
        let found = verdicts(&[("gone", 1)], &[("new", 1)], true);
        assert_eq!(found, [("new".to_owned(), Verdict::New), ("gone".to_owned(), Verdict::Gone)]);
        assert!(verdicts(&[("other", 1), ("a", 5)], &[("a", 5)], false) == [("a".to_owned(), Verdict::Held)]);
    }

    #[test]
    fn a_complaint_names_scenario_baseline_count_and_percent() {
        let line = |count, verdict| Compared {
            scenario: "session/heartbeat".into(),
            baseline: Some(1_000),
            count: Some(count),
            verdict,
        };
        let complaint = line(1_100, Verdict::Costlier).complaint(2.5).unwrap();
        for part in ["session/heartbeat", "1100", "1000", "+10.00 %", "2.5 %"] {
            assert!(complaint.contains(part), "{complaint}");
        }
        assert!(line(900, Verdict::Cheaper).complaint(2.5).unwrap().contains("stale"));
        assert_eq!(line(1_000, Verdict::Held).complaint(2.5), None);
        assert!(line(1_100, Verdict::Costlier).line("FAILED").starts_with("FAILED"));
    }
}
