//! What a run of libFuzzer says.

use std::fmt::Write as _;

/// Lines of the report shown when something was found: enough for a panic.
const REPORT_LINES: usize = 20;

/// How the run of one target ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Inputs that were run.
    executions: u64,
    /// Inputs each second.
    rate: u64,
    /// Places reached in all.
    coverage: u64,
    /// Of those, what the seeds and earlier runs did not reach.
    new_coverage: u64,
    found: Option<Found>,
}

/// Something a target cannot stand.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// How the program ended.
    ending: String,
    /// Where the input is, if libFuzzer could write it.
    input: Option<String>,
    /// The end of its report.
    report: String,
}

impl Outcome {
    /// Reads what libFuzzer printed to stderr.
    pub(super) fn read(printed: &str, succeeded: bool, ending: &str) -> Self {
        let mut outcome = Self::default();
        let mut at_start = None;
        let mut last = 0;
        for line in printed.lines() {
            if let Some((number, coverage)) = progress(line) {
                outcome.coverage = outcome.coverage.max(coverage);
                last = number;
                if line.contains("INITED") {
                    at_start = Some(coverage);
                }
            }
            if let Some(value) = statistic(line, "number_of_executed_units") {
                outcome.executions = value;
            } else if let Some(value) = statistic(line, "average_exec_per_sec") {
                outcome.rate = value;
            }
        }
        // Who ends with a crash says no final numbers; the last line of progress is close.
        outcome.executions = outcome.executions.max(last);
        outcome.new_coverage = outcome.coverage - at_start.unwrap_or(outcome.coverage);
        if !succeeded {
            outcome.found = Some(Found {
                ending: ending.to_owned(),
                input: printed.lines().find_map(written_to),
                report: report(printed),
            });
        } else if outcome.executions == 0 {
            // A target that ran nothing must not look like one that found nothing.
            outcome.found = Some(Found {
                ending: "not a single input was run".to_owned(),
                input: None,
                report: report(printed),
            });
        }
        outcome
    }

    /// What was found, and how to see it again.
    pub(super) fn finding(&self, target: &str) -> Option<String> {
        let found = self.found.as_ref()?;
        let mut text = format!("{}\n\n{target} found something: {}", found.report, found.ending);
        if let Some(input) = &found.input {
            let _ = write!(text, "\ninput:  {input}\nreplay: cargo xtask fuzz --replay {input} {target}");
        }
        Some(text)
    }
}

/// `#1234  NEW    cov: 40 ft: 41 …`
fn progress(line: &str) -> Option<(u64, u64)> {
    let (number, rest) = line.strip_prefix('#')?.split_once(char::is_whitespace)?;
    let coverage = rest.split_once("cov: ")?.1.split_whitespace().next()?;
    Some((number.parse().ok()?, coverage.parse().ok()?))
}

/// `stat::number_of_executed_units: 1234`
fn statistic(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()
}

/// `artifact_prefix='…'; Test unit written to /…/crash-0123`
fn written_to(line: &str) -> Option<String> {
    Some(line.split_once("Test unit written to ")?.1.trim().to_owned())
}

/// What was said of the end, without the lines of progress and the input byte for byte.
fn report(printed: &str) -> String {
    let said: Vec<&str> = printed
        .lines()
        .filter(|line| {
            progress(line).is_none()
                && !["stat::", "\tNEW_FUNC", "INFO:"].iter().any(|noise| line.starts_with(noise))
        })
        .take_while(|line| !line.starts_with("SUMMARY:"))
        .collect();
    said[said.len().saturating_sub(REPORT_LINES)..].join("\n")
}

/// All targets together.
#[derive(Debug, Default)]
pub(super) struct Summary {
    targets: u32,
    executions: u64,
    /// Targets that found something.
    pub(super) findings: u32,
}

impl Summary {
    pub(super) const HEADING: &'static str =
        "        target            executions    per second    coverage    new";

    #[allow(clippy::unused_self, reason = "the lines belong to the heading")]
    pub(super) fn line(&self, target: &str, outcome: &Outcome) -> String {
        let mark = if outcome.found.is_some() { "FAILED" } else { "ok" };
        format!(
            "{mark:<6}  {target:<16}{:>12}{:>14}{:>12}{:>7}",
            outcome.executions, outcome.rate, outcome.coverage, outcome.new_coverage
        )
    }

    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.targets += 1;
        self.executions += outcome.executions;
        self.findings += u32::from(outcome.found.is_some());
    }

    pub(super) fn total(&self) -> String {
        format!("{} targets, {} executions, {} found something", self.targets, self.executions, self.findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#6\tINITED cov: 37 ft: 38 corp: 5/99b exec/s: 0 rss: 27Mb
#1058\tNEW    cov: 39 ft: 40 corp: 6/100b lim: 11 exec/s: 0 rss: 27Mb L: 10/11 MS: 1 InsertByte-
#10075481\tDONE   cov: 39 ft: 40 corp: 6/100b lim: 4096 exec/s: 1679246 rss: 27Mb
stat::number_of_executed_units: 10075481
stat::average_exec_per_sec:     1679246
";

    const CRASH: &str = "\
#6\tINITED cov: 37 ft: 38 corp: 5/99b exec/s: 0 rss: 27Mb
#900\tNEW    cov: 41 ft: 44 corp: 6/100b lim: 11 exec/s: 0 rss: 27Mb L: 10/11 MS: 1 InsertByte-
thread '<unnamed>' panicked at fuzz/src/targets/frame.rs:14:5:
assertion failed
==7== ERROR: libFuzzer: deadly signal
SUMMARY: libFuzzer: deadly signal
0x1,0x2,
artifact_prefix='target/fuzz/artifacts/frame/'; Test unit written to target/fuzz/artifacts/frame/crash-1
";

    #[test]
    fn numbers_are_read_from_a_run_that_found_nothing() {
        let outcome = Outcome::read(QUIET, true, "exit status: 0");
        let expected =
            Outcome { executions: 10_075_481, rate: 1_679_246, coverage: 39, new_coverage: 2, found: None };
        assert_eq!(outcome, expected);
        assert_eq!(outcome.finding("frame"), None);
    }

    #[test]
    fn a_crash_is_shown_with_its_input_and_how_to_see_it_again() {
        let outcome = Outcome::read(CRASH, false, "exit status: 77");
        assert_eq!((outcome.executions, outcome.new_coverage), (900, 4));
        let finding = outcome.finding("frame").unwrap();
        for expected in [
            "panicked at fuzz/src/targets/frame.rs:14:5",
            "exit status: 77",
            "replay: cargo xtask fuzz --replay target/fuzz/artifacts/frame/crash-1 frame",
        ] {
            assert!(finding.contains(expected), "{finding}");
        }
        assert!(!finding.contains("NEW") && !finding.contains("0x1"));
        let mut summary = Summary::default();
        assert!(summary.line("frame", &outcome).starts_with("FAILED"));
        summary.add(&outcome);
        assert_eq!(summary.total(), "1 targets, 900 executions, 1 found something");
    }

    #[test]
    fn a_target_that_ran_nothing_has_not_passed() {
        let outcome = Outcome::read("INFO: nothing\n", true, "exit status: 0");
        assert!(outcome.finding("frame").is_some_and(|text| text.contains("not a single input")));
    }
}
