//! Which lines a report has: what happened, without what has been said already.
//!
//! A gate that has failed is recorded again with each further failure. The first time is a line, and the last one before the
//! next thing happens to the rollout or a wave, or an operator does something; those between say nothing new. What stopped the rollout is said with the stop.
//! Waves that are skipped together are one line.

use std::borrow::Cow;
use std::time::Duration;

use opamp_fleet::rollout::WaveState;
use opamp_fleet::rollout::gates::Evidence;
use opamp_testkit::sim::model::timeline::{Mark, MarkKind};

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Time since the rollout was planned.
    pub(crate) at: Duration,
    pub(crate) what: Cow<'a, str>,
    pub(crate) details: &'a str,
}

/// The lines of what happened, in order.
pub(crate) fn lines(marks: &[Mark]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut said: Vec<&Evidence> = Vec::new();
    let mut rest = marks;
    while let Some((mark, after)) = rest.split_first() {
        let skipped = skipped_together(rest);
        rest = if skipped > 1 { &rest[skipped..] } else { after };
        if let MarkKind::Gate(evidence) = &mark.kind {
            let is_first = !said.iter().any(|earlier| is_same(earlier, evidence));
            said.push(evidence);
            if is_said_by_the_stop(mark, after) || (!is_first && is_said_again(evidence, after)) {
                continue;
            }
        }
        let what = match mark.kind {
            MarkKind::Wave(first, _) if skipped > 1 => {
                let first = first.index() + 1;
                Cow::Owned(format!("waves {first} to {} skipped", first + skipped - 1))
            }
            _ => Cow::Borrowed(&*mark.what),
        };
        lines.push(Line { at: Duration::from_millis(mark.at_ms), what, details: &mark.details });
    }
    lines
}

/// How many waves in a row are skipped with the first mark.
fn skipped_together(marks: &[Mark]) -> usize {
    let at_ms = marks.first().map(|mark| mark.at_ms);
    let is_skipped = |mark: &&Mark| {
        Some(mark.at_ms) == at_ms && matches!(mark.kind, MarkKind::Wave(_, WaveState::Skipped))
    };
    marks.iter().take_while(is_skipped).count()
}

/// Whether the same is said of the same members.
fn is_same(one: &Evidence, other: &Evidence) -> bool {
    (one.gate, &one.name, &one.scope, one.verdict) == (other.gate, &other.name, &other.scope, other.verdict)
}

/// Whether the rollout stops for what the gate says, at that moment.
fn is_said_by_the_stop(gate: &Mark, after: &[Mark]) -> bool {
    after
        .first()
        .is_some_and(|next| next.at_ms == gate.at_ms && !is_gate(next) && next.details == gate.details)
}

/// Whether the gate says the same of more members before anything else happens.
fn is_said_again(evidence: &Evidence, after: &[Mark]) -> bool {
    after
        .iter()
        .map_while(|mark| match &mark.kind {
            MarkKind::Gate(later) => Some(later),
            _ => None,
        })
        .any(|later| is_same(later, evidence))
}

fn is_gate(mark: &Mark) -> bool {
    matches!(mark.kind, MarkKind::Gate(_))
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::gates::{GateKind, Limit, ScopeAt, TestKind, Verdict};
    use opamp_fleet::rollout::{RolloutState, Time, WaveIx};

    use super::*;

    fn gate(at_ms: u64, gate: GateKind, bad: u32) -> Mark {
        let evidence = Evidence {
            gate,
            name: "".into(),
            scope: ScopeAt::Wave(WaveIx(0)),
            verdict: Verdict::Fail,
            test: TestKind::Hard,
            bad,
            of: bad,
            excused: 0,
            expected: 0,
            blind: 0,
            limit: Limit::None,
            window: Duration::ZERO,
            at: Time(at_ms),
            text: "".into(),
        };
        let details = evidence.to_string();
        Mark { at_ms, kind: MarkKind::Gate(Box::new(evidence)), what: "gate fails".to_owned(), details }
    }

    fn rollout(at_ms: u64, details: &str) -> Mark {
        let kind = MarkKind::Rollout(RolloutState::Paused);
        Mark { at_ms, kind, what: "paused".to_owned(), details: details.to_owned() }
    }

    fn skipped(at_ms: u64, wave: u16) -> Mark {
        let kind = MarkKind::Wave(WaveIx(wave), WaveState::Skipped);
        Mark { at_ms, kind, what: format!("wave {} skipped", wave + 1), details: String::new() }
    }

    fn texts(marks: &[Mark]) -> Vec<String> {
        lines(marks)
            .iter()
            .map(|line| format!("{} {} {}", line.at.as_millis(), line.what, line.details))
            .collect()
    }

    #[test]
    fn what_stops_the_rollout_is_said_once() {
        let stop = rollout(5, "nothing-succeeds: 3 of 3 failed");
        let marks = [gate(5, GateKind::NothingSucceeds, 3), stop, gate(6, GateKind::Rejected, 3)];
        let texts = texts(&marks);
        assert_eq!(texts.len(), 2);
        assert_eq!(texts[0], "5 paused nothing-succeeds: 3 of 3 failed");
        assert!(texts[1].starts_with("6 gate fails rejected"), "{texts:?}");
    }

    #[test]
    fn of_a_gate_that_goes_on_failing_the_first_and_the_last_line_are_shown() {
        let mut marks: Vec<Mark> =
            (3..9).map(|bad| gate(bad.into(), GateKind::NothingSucceeds, bad)).collect();
        marks.insert(1, gate(3, GateKind::Rejected, 3));
        marks.push(rollout(9, "aborted"));
        marks.push(gate(10, GateKind::NothingSucceeds, 10));
        let at: Vec<u128> = lines(&marks).iter().map(|line| line.at.as_millis()).collect();
        assert_eq!(at, [3, 3, 8, 9, 10]);
    }

    #[test]
    fn waves_that_are_skipped_together_are_one_line() {
        let marks = [skipped(5, 1), skipped(5, 2), skipped(5, 3), skipped(6, 4)];
        assert_eq!(texts(&marks), ["5 waves 2 to 4 skipped ", "6 wave 5 skipped "]);
    }
}
