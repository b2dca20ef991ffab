//! The figures of the budget: how each is read off a run, what it must be and what it should be.

mod list;

use std::fmt;

use super::line::Line;
use super::servers::Kind;
use super::statistics::Summary;

use self::Bound::{AtMost, BelowGo, GoAtLeast, TimesFloor};
use self::list::Phases;
#[cfg(test)]
pub(crate) use self::list::phase;
pub(crate) use self::list::{FIGURES, Profile};

const KB: f64 = 1_024.0;

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes, shown as KB of 1,024.
    Bytes,
    /// Microseconds.
    Micros,
    /// Percent.
    Percent,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Not more than this.
    AtMost(f64),
    /// Less than opamp-go's.
    BelowGo,
    /// Opamp-go's is at least so many times as large.
    GoAtLeast(f64),
    /// Not more than so many times the floor's.
    TimesFloor(f64),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// What is measured.
    pub(crate) title: &'static str,
    /// Over which transport.
    pub(crate) tls: bool,
    /// Of which run.
    pub(crate) profile: Profile,
    /// In what.
    pub(crate) unit: Unit,
    /// Without this the work is not done.
    pub(crate) must: &'static [Bound],
    /// What it is built for.
    pub(crate) aim: &'static [Bound],
    read: fn(&Phases<'_>) -> Option<f64>,
}

impl Figure {
    /// The figure of a run of its profile over its transport.
    #[must_use]
    pub(crate) fn of(&self, run: &[Line]) -> Option<f64> {
        (self.read)(&Phases(run)).filter(|figure| figure.is_finite())
    }
}

/// What was measured of one figure: of each server, one value a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    values: [Vec<Option<f64>>; 3],
}

impl Measured {
    /// Adds a round of a server.
    pub(crate) fn add(&mut self, kind: Kind, figure: Option<f64>) {
        self.values[kind as usize].push(figure);
    }

    /// The rounds of a server as three numbers; none if it was not measured.
    #[must_use]
    pub(crate) fn summary(&self, kind: Kind) -> Option<Summary> {
        let known: Vec<f64> = self.values[kind as usize].iter().flatten().copied().collect();
        Summary::of(&known)
    }

    /// Whether there was any run that has this figure, be it known or not.
    #[must_use]
    pub(crate) fn taken(&self) -> bool {
        self.values.iter().any(|rounds| !rounds.is_empty())
    }

    /// How many times the other's is as large.
    #[must_use]
    pub(crate) fn ratio(&self, of: Kind, to: Kind) -> Option<Summary> {
        Summary::of_ratios(&self.values[of as usize], &self.values[to as usize])
    }

    /// Whether all bounds hold in the median; none if one cannot be judged and no other is broken.
    #[must_use]
    pub(crate) fn holds(&self, bounds: &[Bound]) -> Option<bool> {
        let verdicts: Vec<Option<bool>> = bounds.iter().map(|bound| self.holds_one(*bound)).collect();
        match verdicts.contains(&Some(false)) {
            true => Some(false),
            false if verdicts.contains(&None) => None,
            false => Some(true),
        }
    }

    fn holds_one(&self, bound: Bound) -> Option<bool> {
        let ours = self.summary(Kind::Ours)?.median;
        Some(match bound {
            AtMost(most) => ours <= most,
            BelowGo => ours < self.summary(Kind::OpampGo)?.median,
            GoAtLeast(times) => self.ratio(Kind::OpampGo, Kind::Ours)?.median >= times,
            TimesFloor(times) => self.ratio(Kind::Ours, Kind::Floor)?.median <= times,
        })
    }
}

impl Unit {
    /// A value as a person reads it, without its unit.
    #[must_use]
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => format!("{:.1}", value / KB),
            Self::Micros if value >= 100.0 => format!("{value:.0}"),
            Self::Micros => format!("{value:.1}"),
            Self::Percent => format!("{value:+.1}"),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "KB",
            Self::Micros => "µs",
            Self::Percent => "%",
        })
    }
}

impl Bound {
    /// In words, for a figure of this unit.
    #[must_use]
    pub(crate) fn words(self, unit: Unit) -> String {
        match self {
            AtMost(most) => {
                format!("≤ {} {unit}", unit.show(most).trim_start_matches('+').trim_end_matches(".0"))
            }
            BelowGo => "< opamp-go".to_owned(),
            GoAtLeast(times) => format!("opamp-go ≥ {times} ×"),
            TimesFloor(times) => format!("≤ {times} × floor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unit::{Bytes, Micros, Percent};
    use super::*;
    use crate::load::line::Percentiles;

    fn measured(floor: &[f64], go: &[f64], ours: &[f64]) -> Measured {
        let mut measured = Measured::default();
        for (kind, values) in [(Kind::Floor, floor), (Kind::OpampGo, go), (Kind::Ours, ours)] {
            values.iter().for_each(|value| measured.add(kind, Some(*value)));
        }
        measured
    }

    #[test]
    fn bounds_are_judged_in_the_median() {
        let one = measured(&[5.0, 5.0, 5.0], &[20.0, 20.0, 20.0], &[6.0, 100.0, 5.9]);
        assert_eq!(one.holds(&[AtMost(6.0)]), Some(true));
        assert_eq!(one.holds(&[AtMost(5.99)]), Some(false));
        assert_eq!(one.holds(&[TimesFloor(1.2)]), Some(true));
        assert_eq!(one.holds(&[TimesFloor(1.19)]), Some(false));
        assert_eq!(one.holds(&[GoAtLeast(3.3), BelowGo]), Some(true));
        assert_eq!(one.holds(&[GoAtLeast(3.4)]), Some(false));
        assert_eq!(one.holds(&[]), Some(true));
    }

    #[test]
    fn what_was_not_measured_is_not_judged_unless_another_bound_is_broken() {
        let alone = measured(&[], &[], &[6.0]);
        assert_eq!(alone.holds(&[AtMost(7.0), BelowGo]), None);
        assert_eq!(alone.holds(&[AtMost(5.0), BelowGo]), Some(false));
        assert_eq!(measured(&[1.0], &[1.0], &[]).holds(&[AtMost(5.0)]), None);
    }

    #[test]
    fn growth_is_what_an_agent_takes_more_than_before_the_load() {
        let mut run = vec![Line::default(); phase::SETTLE_PUSHED + 1];
        run[phase::IDLE].rss_per_agent = Some(10_000.0);
        run[phase::SETTLE].rss_per_agent = Some(10_500.0);
        run[phase::SETTLE_PUSHED].rss_per_agent = Some(10_100.0);
        run[phase::STATUS_10K_PACED].latency_us =
            Some(Percentiles { p99_9: 250.0, ..Percentiles::default() });
        let of =
            |run: &[Line], title: &str| FIGURES.iter().find(|figure| figure.title == title).unwrap().of(run);
        let figure = |title: &str| of(&run, title);
        assert!((figure("growth a minute after a 64 KB push, ws").unwrap() - 1.0).abs() < 1e-9);
        assert!((figure("growth after load, ws").unwrap() - 5.0).abs() < 1e-9);
        assert_eq!(figure("p99.9 of 10 KB statuses at 1,000/s"), Some(250.0));
        assert_eq!(figure("connect, upgrade, 10 KB state, ws"), None);
        run[phase::STATUS_10K_PACED].late_us = Some(Percentiles { p99: 1_200.0, ..Percentiles::default() });
        assert_eq!(of(&run, "p99.9 of 10 KB statuses at 1,000/s"), None);
    }

    #[test]
    fn every_figure_has_a_title_of_its_own_and_something_it_must_be() {
        let mut titles: Vec<&str> = FIGURES.iter().map(|figure| figure.title).collect();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), FIGURES.len());
        assert!(FIGURES.iter().all(|figure| [figure.must, figure.aim].concat().contains(&BelowGo)));
    }

    #[test]
    fn bounds_read_as_sentences() {
        assert_eq!(AtMost(4.0 * KB).words(Bytes), "≤ 4 KB");
        assert_eq!(AtMost(6.5 * KB).words(Bytes), "≤ 6.5 KB");
        assert_eq!(AtMost(10.0).words(Percent), "≤ 10 %");
        assert_eq!(AtMost(20.0).words(Micros), "≤ 20 µs");
        assert_eq!(TimesFloor(1.35).words(Micros), "≤ 1.35 × floor");
    }
}
