//! The protocol of a run: one line a step, the slowest steps, and one closing line with the counts.

use std::time::{Duration, Instant};

use crate::libtest::Counts;

/// How many of the slowest steps are named.
const SLOWEST: usize = 8;

/// One thing that was run.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it was.
    pub name: String,
    /// How its tests ended.
    pub counts: Counts,
    /// Wall time.
    pub took: Duration,
    /// Tests that did not run, each with the reason.
    pub skipped: Vec<String>,
    /// What to show when something failed.
    pub evidence: String,
}

impl Step {
    /// A step that is one check by itself.
    #[must_use]
    pub fn single(name: impl Into<String>, passed: bool, took: Duration, evidence: String) -> Self {
        let counts = if passed { Counts::ONE_PASSED } else { Counts::ONE_FAILED };
        Self { name: name.into(), counts, took, skipped: Vec::new(), evidence }
    }

    /// A step that only prepares others: it counts when it fails.
    #[must_use]
    pub fn preparation(name: impl Into<String>, succeeded: bool, took: Duration) -> Self {
        let counts = if succeeded { Counts::default() } else { Counts::ONE_FAILED };
        Self { name: name.into(), counts, took, skipped: Vec::new(), evidence: String::new() }
    }
}

/// Collects steps and prints them as they come.
#[derive(Debug)]
pub struct Report {
    begun: Instant,
    steps: Vec<Step>,
}

impl Default for Report {
    fn default() -> Self {
        Self { begun: Instant::now(), steps: Vec::new() }
    }
}

impl Report {
    /// Adds a step and prints its line, and its evidence if it failed.
    pub fn add(&mut self, step: Step) {
        if step.counts.failed > 0 && !step.evidence.is_empty() {
            println!("{}", step.evidence.trim_end());
        }
        println!("{}", line(&step));
        for skipped in &step.skipped {
            println!("  skipped: {skipped}");
        }
        self.steps.push(step);
    }

    /// The sum over all steps.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.steps.iter().fold(Counts::default(), |sum, step| sum + step.counts)
    }

    /// What is missing of the proof that the steps whose names begin with `beginning` are to give: there is one, and
    /// each ran at least one test and left none out.
    #[must_use]
    pub fn missing_proof(&self, beginning: &str) -> Vec<String> {
        let steps: Vec<&Step> = self.steps.iter().filter(|step| step.name.starts_with(beginning)).collect();
        if steps.is_empty() {
            return vec![format!("no step {beginning}… ran")];
        }
        let hollow = steps.iter().filter(|step| step.counts.passed == 0 || step.counts.skipped > 0);
        hollow
            .map(|step| {
                format!("{}: {} passed, {} skipped", step.name, step.counts.passed, step.counts.skipped)
            })
            .collect()
    }

    /// Prints what failed, what was slow, the total time and, last and alone on its line, the counts.
    pub fn close(&self) {
        println!();
        for text in self.closing() {
            println!("{text}");
        }
    }

    fn closing(&self) -> Vec<String> {
        let mut text: Vec<String> = self
            .steps
            .iter()
            .filter(|step| step.counts.failed > 0)
            .map(|step| format!("FAILED  {}", step.name))
            .collect();
        let mut slowest: Vec<&Step> = self.steps.iter().collect();
        slowest.sort_by_key(|step| std::cmp::Reverse(step.took));
        text.push("slowest steps".to_owned());
        text.extend(
            slowest
                .iter()
                .take(SLOWEST)
                .map(|step| format!("{:>8.1} s  {}", step.took.as_secs_f64(), step.name)),
        );
        text.push(format!("{:>8.1} s  in all", self.begun.elapsed().as_secs_f64()));
        text.push(String::new());
        text.push(self.counts().line());
        text
    }
}

fn line(step: &Step) -> String {
    let mark = if step.counts.failed > 0 { "FAILED" } else { "ok" };
    let seconds = step.took.as_secs_f64();
    if step.counts == Counts::default() {
        format!("{mark:<6}  {} ({seconds:.1} s)", step.name)
    } else {
        format!("{mark:<6}  {}: {} ({seconds:.1} s)", step.name, step.counts.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_ran_nothing_or_left_something_out_proves_nothing() {
        let step = |name: &str, passed, skipped| Step {
            name: name.to_owned(),
            counts: Counts { passed, skipped, ..Counts::default() },
            took: Duration::ZERO,
            skipped: Vec::new(),
            evidence: String::new(),
        };
        let mut report = Report::default();
        assert_eq!(report.missing_proof("interop").len(), 1, "no such step");
        report.add(step("interop tests/walk", 3, 0));
        report.add(step("codec", 0, 0));
        assert!(report.missing_proof("interop").is_empty());
        report.add(step("interop tests/crash", 0, 0));
        report.add(step("interop tests/access", 4, 1));
        assert_eq!(report.missing_proof("interop").len(), 2);
    }

    #[test]
    fn the_last_line_is_the_sum_of_the_steps() {
        let mut report = Report::default();
        let counts = Counts { passed: 4, failed: 0, skipped: 2 };
        let tests = Step { counts, ..Step::single("tests", true, Duration::from_secs(2), String::new()) };
        report.steps = vec![
            tests,
            Step::single("variant", false, Duration::from_secs(1), String::new()),
            Step::preparation("build", true, Duration::from_secs(9)),
        ];
        let closing = report.closing();
        assert_eq!(closing.last().map(String::as_str), Some("4 passed, 1 failed, 2 skipped"));
        assert_eq!(closing[0], "FAILED  variant");
        assert!(closing[2].ends_with("build"), "the slowest step comes first: {closing:?}");
    }

    #[test]
    fn a_preparation_counts_only_when_it_fails() {
        assert_eq!(Step::preparation("build", true, Duration::ZERO).counts, Counts::default());
        assert_eq!(Step::preparation("build", false, Duration::ZERO).counts, Counts::ONE_FAILED);
    }
}
