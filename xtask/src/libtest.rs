//! Reading what test programs print, so that counts come from the runs and from nowhere else.

use std::ops::{Add, AddAssign};

/// Numbers of tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ran and held.
    pub passed: usize,
    /// Ran and did not hold, or could not run.
    pub failed: usize,
    /// Did not run, by their own declaration or for want of something they need.
    pub skipped: usize,
}

impl Counts {
    /// One test that passed.
    pub const ONE_PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    /// One test that failed.
    pub const ONE_FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// The line that closes a run.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// What one or several libtest programs printed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sum over all `test result:` lines.
    pub counts: Counts,
    /// Names of ignored tests, with the reason they give.
    pub skipped: Vec<String>,
    /// Names of failed tests.
    pub failed: Vec<String>,
    /// Number of `test result:` lines.
    pub results: usize,
}

/// Reads the output of `cargo test`, of a libtest program, or of rustdoc's tests.
///
/// A program that dies prints no result line: compare [`Outcome::results`] with the number of programs, and the exit
/// status with [`Counts::failed`].
#[must_use]
pub fn parse(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for line in output.lines() {
        // A test that prints without a newline can push libtest's line to the right.
        if let Some(at) = line.find("test result: ") {
            if let Some(counts) = result_line(&line[at..]) {
                outcome.counts += counts;
                outcome.results += 1;
            }
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some((name, reason)) = test.split_once(" ... ignored") {
                outcome.skipped.push(match reason.strip_prefix(", ") {
                    Some(reason) => format!("{name} ({reason})"),
                    None => name.to_owned(),
                });
            } else if let Some(name) = test.strip_suffix(" ... FAILED") {
                outcome.failed.push(name.to_owned());
            }
        }
    }
    outcome
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn result_line(line: &str) -> Option<Counts> {
    let (_, numbers) = line.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split(';') {
        let mut words = part.split_whitespace();
        let (Some(number), Some(word)) = (words.next().and_then(|n| n.parse::<usize>().ok()), words.next())
        else {
            continue;
        };
        match word {
            "passed" | "measured" => counts.passed += number,
            "failed" => counts.failed += number,
            "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_PROGRAMS: &str = "\
running 3 tests
test frame::empty_payload ... ok
test needs_go ... ignored, Go 1.25 or newer
test broken ... FAILED

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 2 tests
test src/lib.rs - A (line 3) ... ok
test src/lib.rs - B (line 9) - compile fail ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.31s
";

    #[test]
    fn counts_are_summed_over_programs() {
        let outcome = parse(TWO_PROGRAMS);
        assert_eq!(outcome.counts, Counts { passed: 3, failed: 1, skipped: 1 });
        assert_eq!(outcome.results, 2);
        assert_eq!(outcome.counts.line(), "3 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn skipped_and_failed_tests_are_named() {
        let outcome = parse(TWO_PROGRAMS);
        assert_eq!(outcome.skipped, ["needs_go (Go 1.25 or newer)"]);
        assert_eq!(outcome.failed, ["broken"]);
    }

    #[test]
    fn output_of_a_program_that_died_has_no_result() {
        let outcome = parse("running 1 test\nthread 'a' has overflowed its stack\n");
        assert_eq!(outcome.results, 0);
        assert_eq!(outcome.counts, Counts::default());
    }

    #[test]
    fn a_result_behind_other_text_on_its_line_is_seen() {
        let outcome = parse(
            "done.test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        assert_eq!(outcome.counts.passed, 1);
    }
}
