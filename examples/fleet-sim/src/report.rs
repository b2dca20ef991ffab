//! The run as text: the preview, a line for whatever happened, and one line at the end.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use opamp_fleet::rollout::NextAction;
use opamp_fleet::rollout::preview::{CurrentMeaning, counted, grouped};
use opamp_testkit::sim::model::RunEnd;
use opamp_testkit::sim::model::text::counts;

use crate::lines::lines;
use crate::{GateCounts, Simulation};

/// Width of the column that says what happened.
const WIDTH: usize = 34;

/// The run as text.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The run.
    pub run: &'a Simulation,
    /// Whether everything is told that can be said beforehand, or the essence of it in two lines.
    pub whole_preview: bool,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, whole_preview } = self;
        writeln!(f, "{}, planned at {}", printable(&run.plan.title), run.begins)?;
        let preview = if *whole_preview { run.preview.to_text() } else { run.preview.to_string() };
        writeln!(f, "{}", preview.trim_end())?;
        if *whole_preview {
            run.meanings.iter().try_for_each(|meaning| meant(f, meaning))?;
        }
        writeln!(f)?;
        let lines = lines(run.timeline.marks());
        // The last clock is the longest.
        let clocks = lines.last().map_or(0, |line| Clock(line.at).to_string().len());
        for line in lines {
            let clock = Clock(line.at).to_string();
            let text = format!("{clock:>clocks$}  {:<WIDTH$}  {}", line.what, line.details);
            writeln!(f, "{}", text.trim_end())?;
        }
        if run.timeline.left_off() > 0 {
            writeln!(f, "{} are left out", counted(run.timeline.left_off(), "line"))?;
        }
        writeln!(f)?;
        gates(f, &run.gates)?;
        writeln!(f, "{}", Closing(run))?;
        if let Some(why) = &run.why {
            let since = Clock(why.since.since(run.begins));
            match &why.next {
                NextAction::Needs(who) => writeln!(f, "waits for the {who} since {since}: {}", why.reason)?,
                NextAction::At(at, what) => {
                    let at = Clock(at.since(run.begins));
                    writeln!(f, "since {since}: {}; at {at} {what}", why.reason)?;
                }
                NextAction::Never => writeln!(f, "since {since}: {}", why.reason)?,
            }
        }
        Ok(())
    }
}

/// Members against a gate, those that take part, and those that cannot.
type Counts = (u32, u32, u32);

/// What gates counted over all waves that look at members: a line for those that counted the same.
fn gates(f: &mut fmt::Formatter<'_>, all: &[GateCounts]) -> fmt::Result {
    let mut groups: Vec<(Counts, Vec<&str>)> = Vec::new();
    let looks = |gate: &&GateCounts| gate.of + gate.blind > 0;
    for gate in all.iter().filter(looks) {
        let counts = (gate.bad, gate.of, gate.blind);
        match groups.iter_mut().find(|(known, _)| *known == counts) {
            Some((_, kinds)) => kinds.push(gate.kind.as_str()),
            None => groups.push((counts, vec![gate.kind.as_str()])),
        }
    }
    groups.sort_by_key(|((bad, ..), _)| Reverse(*bad));
    writeln!(f, "gates, over all waves, at most:")?;
    for ((bad, of, blind), kinds) in groups {
        write!(f, "  {} of {} against {}", grouped(bad), grouped(of), kinds.join(", "))?;
        if blind > 0 {
            write!(f, "; {} cannot say", grouped(blind))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// A title as one line, whatever is in it.
fn printable(title: &str) -> String {
    title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What changes for the members that run one configuration, by what it means to a Collector.
fn meant(f: &mut fmt::Formatter<'_>, meaning: &CurrentMeaning) -> fmt::Result {
    let members = counted(meaning.members, "agent");
    match &meaning.changes {
        Err(error) => writeln!(f, "{members} run {}, which is no Collector's: {error}", meaning.config),
        Ok(diff) if diff.is_empty() => writeln!(f, "{members} run {}, which means the same", meaning.config),
        Ok(diff) => {
            writeln!(f, "{members} run {}; for the Collector that changes", meaning.config)?;
            diff.changes.iter().try_for_each(|change| writeln!(f, "  {change}"))?;
            if diff.more > 0 {
                writeln!(f, "  and {} more", counted(diff.more as u64, "change"))?;
            }
            Ok(())
        }
    }
}

/// What came of it, in one line.
pub(crate) struct Closing<'a>(pub(crate) &'a Simulation);

impl fmt::Display for Closing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(run) = self;
        // Who joined is one of them.
        let members = run.summary.total + run.summary.neutral + run.summary.deferred;
        let (touched, all) = (grouped(run.tally.touched), grouped(members));
        match run.end {
            RunEnd::Ended => write!(f, "{} after {}", run.state, Clock(run.length))?,
            RunEnd::Stopped | RunEnd::Waits => write!(f, "{}", run.state)?,
            RunEnd::Stuck => write!(f, "stuck, {}", run.state)?,
            RunEnd::Time => write!(f, "still {} after {}", run.state, Clock(run.length))?,
        }
        write!(f, " · {} · touched {touched} of {all}", counts(&run.summary))?;
        match (run.tally.first_fault, run.tally.first_stop, run.time_to_detect()) {
            (_, _, Some(time)) => write!(f, " · time to detect {}", Clock(time))?,
            (Some(_), Some(_), None) => write!(f, " · stopped before anybody had a fault")?,
            (Some(_), None, None) => write!(f, " · never stopped")?,
            (None, Some(_), None) => write!(f, " · stopped though nobody had a fault")?,
            (None, None, None) => write!(f, " · nobody had a fault")?,
        }
        if let Some(time) = run.time_to_roll_back() {
            let back = grouped(run.rolled_back);
            write!(f, " · time to roll back {}, {back} put back", Clock(time))?;
        }
        Ok(())
    }
}

/// Hours, minutes and seconds; with days before them if there are any.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, seconds) = (seconds / 86_400, seconds % 86_400);
        if days > 0 {
            write!(f, "{days} d ")?;
        }
        write!(f, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_days_only_if_there_are_any() {
        assert_eq!(Clock(Duration::from_secs(3_725)).to_string(), "01:02:05");
        assert_eq!(Clock(Duration::from_secs(2 * 86_400 + 60)).to_string(), "2 d 00:01:00");
        assert_eq!(Clock(Duration::from_millis(999)).to_string(), "00:00:00");
    }
}
