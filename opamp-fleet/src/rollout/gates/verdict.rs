//! What a gate says, and the one line that explains it (R40, R46).
//!
//! ```text
//! disconnect-ratio: 35 % > 20 % (14 of 40, window 300 s)
//! apply-failed: 9 % is more like 20 % than 2 % (11 of 120, score 55, limit 54)
//! nothing-succeeds: 3 of 3 failed
//! ```

use std::fmt;
use std::time::Duration;

use super::config::{GateKind, TestKind};
use crate::rollout::stats::run::is_more_like_bad;
use crate::rollout::stats::{Observed, Ppm, log};
use crate::rollout::{Time, WaveIx};
use crate::words::closed_set;

closed_set! {
    /// What a gate says, the least grave first: of several the gravest counts.
    pub enum Verdict ("verdict") {
        /// All is well.
        Pass = "pass",
        /// Nobody can say anything.
        NoData = "no-data",
        /// It cannot be decided yet.
        Inconclusive = "inconclusive",
        /// The provider failed; that is no failure of the rollout.
        Error = "error",
        /// It is not well.
        Fail = "fail",
    }
}

/// What a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeAt {
    /// All waves together.
    All,
    /// One wave.
    Wave(WaveIx),
    /// One failure domain, by name.
    Zone(Box<str>),
}

/// What was compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// More than so many.
    Count(u32),
    /// The mean of the control group, in thousandths, and by how much the treated may be worse.
    Mean {
        /// Mean of treated agents, in thousandths.
        treated_milli: i64,
        /// Mean of the control group, in thousandths.
        control_milli: i64,
        /// By how much it may be worse.
        over: Ppm,
    },
    /// Nothing.
    None,
    /// More than this ratio.
    Ratio(Ppm),
    /// More like one ratio than another.
    Score {
        /// The score.
        score: i32,
        /// Where it stops.
        limit: i32,
        /// A ratio that is fine.
        acceptable: Ppm,
        /// A ratio that is not.
        bad: Ppm,
    },
}

/// A verdict with what it rests on. Its `Display` is the one line that is shown everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The gate.
    pub gate: GateKind,
    /// The name of an external gate; empty for the others.
    pub name: Box<str>,
    /// What it is about.
    pub scope: ScopeAt,
    /// The verdict.
    pub verdict: Verdict,
    /// The test that decided.
    pub test: TestKind,
    /// Members that count against it: `k`.
    pub bad: u32,
    /// Members that take part: `n`.
    pub of: u32,
    /// Members that are excused.
    pub excused: u32,
    /// How many were to be expected by the control group.
    pub expected: u32,
    /// Members that cannot say anything (no data), or tries of the provider (error).
    pub blind: u32,
    /// What it was compared with.
    pub limit: Limit,
    /// The gate's window.
    pub window: Duration,
    /// When.
    pub at: Time,
    /// The provider's words, at most [`Evidence::TEXT_BYTES_MAX`] bytes; empty without a provider.
    pub text: Box<str>,
}

impl Evidence {
    /// Longest text of a provider that is kept, in bytes.
    pub const TEXT_BYTES_MAX: usize = 256;

    fn observed(&self, limit: Option<Ppm>) -> Observed {
        Observed { part: self.bad, whole: self.of, limit }
    }

    /// `(k of n, e excused, c expected by control`, without the closing bracket.
    fn open_bracket(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " ({} of {}", self.bad, self.of)?;
        if self.excused > 0 {
            write!(f, ", {} excused", self.excused)?;
        }
        if self.expected > 0 {
            write!(f, ", {} expected by control", self.expected)?;
        }
        Ok(())
    }

    /// `, window w s)`, or only the bracket if members count until the rollout ends.
    fn close_bracket(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.window.is_zero() {
            write!(f, ", window {} s", self.window.as_secs())?;
        }
        f.write_str(")")
    }

    fn failed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.test, self.limit) {
            (TestKind::Hard, _) => write!(f, "{} of {} failed", self.bad, self.of),
            (TestKind::External, _) => write!(f, "{}", self.text),
            (_, Limit::Count(over)) => {
                write!(f, "{} > {over}", self.bad)?;
                self.open_bracket(f)?;
                self.close_bracket(f)
            }
            (_, Limit::Mean { treated_milli, control_milli, over }) => {
                let (treated, control) = (Milli(treated_milli), Milli(control_milli));
                write!(f, "{treated} against {control} is worse by more than {over} ({} agents)", self.of)
            }
            (_, Limit::Ratio(over)) => {
                write!(f, "{} > {over}", self.observed(Some(over)))?;
                self.open_bracket(f)?;
                self.close_bracket(f)
            }
            (_, Limit::Score { score, limit, acceptable, bad }) => {
                // What is seen in all may be fine, and what is seen of members in a row is not.
                let is_so_in_all = log::weight(acceptable, bad)
                    .is_none_or(|weight| is_more_like_bad(self.bad, self.of, weight));
                let is = if is_so_in_all { " is" } else { ", among neighbours" };
                write!(f, "{}{is} more like {bad} than {acceptable}", self.observed(None))?;
                self.open_bracket(f)?;
                write!(f, ", score {score}, limit {limit})")
            }
            (_, Limit::None) => write!(f, "{} of {} failed", self.bad, self.of),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.gate)?;
        if !self.name.is_empty() {
            write!(f, ":{}", self.name)?;
        }
        match &self.scope {
            ScopeAt::All => f.write_str(" over all waves: ")?,
            ScopeAt::Wave(_) => f.write_str(": ")?,
            ScopeAt::Zone(zone) => write!(f, " in zone {zone}: ")?,
        }
        match self.verdict {
            Verdict::Error => write!(f, "provider failed ({} times): {}", self.blind, self.text),
            Verdict::Fail => self.failed(f),
            Verdict::Inconclusive => {
                write!(f, "undecided at {} ({} of {})", self.observed(None), self.bad, self.of)
            }
            Verdict::NoData => write!(f, "no data ({} of {} blind)", self.blind, self.of),
            Verdict::Pass => write!(f, "passed at {} ({} of {})", self.observed(None), self.bad, self.of),
        }
    }
}

/// A number in thousandths, written with the digits it needs.
struct Milli(i64);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, number) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let digits = format!("{:03}", number % 1_000);
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        write!(f, "{sign}{}{point}{digits}", number / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(gate: GateKind, test: TestKind, bad: u32, of: u32, limit: Limit) -> Evidence {
        Evidence {
            gate,
            name: "".into(),
            scope: ScopeAt::Wave(WaveIx(0)),
            verdict: Verdict::Fail,
            test,
            bad,
            of,
            excused: 0,
            expected: 0,
            blind: 0,
            limit,
            window: Duration::from_secs(300),
            at: Time(0),
            text: "".into(),
        }
    }

    #[test]
    fn a_ratio_is_told_with_its_limit_its_members_and_its_window() {
        let limit = Limit::Ratio(Ppm::percent(20));
        let line = evidence(GateKind::DisconnectRatio, TestKind::Percent, 14, 40, limit);
        assert_eq!(line.to_string(), "disconnect-ratio: 35 % > 20 % (14 of 40, window 300 s)");
        let over_all = Evidence { scope: ScopeAt::All, excused: 2, expected: 1, ..line.clone() };
        assert_eq!(
            over_all.to_string(),
            "disconnect-ratio over all waves: 35 % > 20 % (14 of 40, 2 excused, 1 expected by control, window 300 s)"
        );
        let in_zone = Evidence { scope: ScopeAt::Zone("eu".into()), bad: 201, of: 1_000, ..line };
        assert_eq!(
            in_zone.to_string(),
            "disconnect-ratio in zone eu: 20.1 % > 20 % (201 of 1000, window 300 s)"
        );
    }

    #[test]
    fn a_score_is_told_as_what_it_is_more_like() {
        let limit = Limit::Score { score: 55, limit: 54, acceptable: Ppm::percent(2), bad: Ppm::percent(20) };
        let line = evidence(GateKind::ApplyFailed, TestKind::Sequential, 11, 120, limit);
        assert_eq!(
            line.to_string(),
            "apply-failed: 9 % is more like 20 % than 2 % (11 of 120, score 55, limit 54)"
        );
        let over_all = Evidence { scope: ScopeAt::All, bad: 9, of: 600, ..line };
        assert_eq!(
            over_all.to_string(),
            "apply-failed over all waves: 2 %, among neighbours more like 20 % than 2 % (9 of 600, score 55, limit 54)"
        );
    }

    #[test]
    fn numbers_are_told_without_ratios() {
        let line = evidence(GateKind::NothingSucceeds, TestKind::Hard, 3, 3, Limit::None);
        assert_eq!(line.to_string(), "nothing-succeeds: 3 of 3 failed");
        let line = evidence(GateKind::Rejected, TestKind::Count, 5, 90, Limit::Count(4));
        assert_eq!(line.to_string(), "rejected: 5 > 4 (5 of 90, window 300 s)");
        let always = Evidence { gate: GateKind::SelfRollback, window: Duration::ZERO, ..line };
        assert_eq!(always.to_string(), "self-rollback: 5 > 4 (5 of 90)");
        let limit = Limit::Mean { treated_milli: 1_250, control_milli: -500, over: Ppm::percent(10) };
        let line = evidence(GateKind::CpuRise, TestKind::Compare, 0, 40, limit);
        assert_eq!(line.to_string(), "cpu-rise: 1.25 against -0.5 is worse by more than 10 % (40 agents)");
    }

    #[test]
    fn what_is_no_failure_is_told_as_such() {
        let line = |verdict| Evidence {
            verdict,
            blind: 3,
            text: "connection refused".into(),
            ..evidence(GateKind::Unhealthy, TestKind::Sequential, 1, 5, Limit::None)
        };
        assert_eq!(line(Verdict::Inconclusive).to_string(), "unhealthy: undecided at 20 % (1 of 5)");
        assert_eq!(line(Verdict::NoData).to_string(), "unhealthy: no data (3 of 5 blind)");
        assert_eq!(line(Verdict::Pass).to_string(), "unhealthy: passed at 20 % (1 of 5)");
        let external = Evidence { gate: GateKind::External, name: "prom".into(), ..line(Verdict::Error) };
        assert_eq!(external.to_string(), "external:prom: provider failed (3 times): connection refused");
    }

    #[test]
    fn of_several_verdicts_the_gravest_counts() {
        let order = [Verdict::Pass, Verdict::NoData, Verdict::Inconclusive, Verdict::Error, Verdict::Fail];
        assert!(order.is_sorted());
        assert_eq!(order.into_iter().max(), Some(Verdict::Fail));
    }
}
