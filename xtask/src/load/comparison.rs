//! Ours, the floor and opamp-go, one after the other, round by round.

use std::fmt::Write as _;
use std::time::Duration;

use crate::workspace::WorkspaceError;

use super::figures::{FIGURES, Figure, Measured, Profile};
use super::fleet::{self, Label};
use super::line::Line;
use super::options::Options;
use super::programs::{Place, Programs};
use super::servers::{Kind, Server, Store};
use super::statistics::Summary;
use super::table::Table;

/// How many agents, and for how long.
#[derive(Clone, Copy, Debug)]
struct Size {
    agents: u32,
    connect_rate: u32,
    load_secs: u32,
    settle_secs: u32,
}

const FULL: Size = Size { agents: 10_000, connect_rate: 1_500, load_secs: 5, settle_secs: 60 };
const QUICK: Size = Size { agents: 1_000, connect_rate: 1_000, load_secs: 1, settle_secs: 3 };

impl Size {
    /// The phases of a run, in the order of [`super::figures::phase`].
    fn phases(self, profile: Profile) -> Vec<String> {
        let Self { agents, connect_rate, load_secs, settle_secs } = self;
        let connect = |state| format!("connect:agents={agents},rate={connect_rate},state={state}");
        match profile {
            Profile::Unkept => vec![connect("unkept-10k"), "idle:secs=5".to_owned()],
            Profile::Kept => vec![
                connect("10k"),
                "idle:secs=5".to_owned(),
                format!("heartbeat:saturated,active=64,secs={load_secs}"),
                format!("status:2k,saturated,active=64,secs={load_secs}"),
                format!("status:10k,saturated,active=64,secs={load_secs}"),
                format!("heartbeat:rate=1000,secs={load_secs}"),
                format!("status:10k,rate=1000,secs={load_secs}"),
                format!("settle:secs={settle_secs}"),
                "push:4096".to_owned(),
                "push:65536".to_owned(),
                format!("settle:secs={settle_secs}"),
            ],
        }
    }

    /// How long a run takes if nothing is slow.
    fn expected(self) -> Duration {
        let secs = self.agents / self.connect_rate + 5 + 5 * self.load_secs + 2 * self.settle_secs + 60;
        Duration::from_secs(secs.into())
    }
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Outcome {
    measured: Vec<Measured>,
    failures: Vec<String>,
    /// How late the load generator was, of each phase in which it sent at times of its own.
    lateness: Vec<String>,
    settings: String,
}

/// Runs all rounds.
///
/// # Errors
///
/// A server or the load generator does not start or does not finish.
pub(crate) fn run(
    options: &Options,
    kinds: &[Kind],
    programs: &Programs,
    place: &Place,
) -> Result<Outcome, WorkspaceError> {
    let size = if options.quick { QUICK } else { FULL };
    let store = options.store.unwrap_or(Store::Memory);
    let mut outcome = Outcome {
        measured: vec![Measured::default(); FIGURES.len()],
        failures: Vec::new(),
        lateness: Vec::new(),
        settings: format!(
            "{} agents, {} {}, {} store{}",
            size.agents,
            options.rounds,
            if options.rounds == 1 { "round" } else { "rounds" },
            store.word(),
            if options.quick { ", quick: not to be quoted" } else { "" }
        ),
    };
    for round in 1..=options.rounds {
        for &tls in &options.tls {
            for profile in [Profile::Unkept, Profile::Kept] {
                for &kind in kinds {
                    let transport = if tls { "wss" } else { "ws" };
                    let kept = if profile == Profile::Kept { "kept" } else { "unkept" };
                    let name = format!("{transport}-{kept}-{}-{round}", kind.word());
                    println!("round {round} of {}: {name}", options.rounds);
                    let more: &[&str] = if kind == Kind::Ours { &["--store", store.word()] } else { &[] };
                    let server = Server::start(kind, &format!("{name}.server"), programs, place, tls, more)?;
                    let label = Label { name: &name, round };
                    let phases = size.phases(profile);
                    let lines = fleet::run(&server, label, &phases, programs, place, size.expected())?;
                    outcome.take(kind, profile, tls, &name, &lines);
                }
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn take(&mut self, kind: Kind, profile: Profile, tls: bool, name: &str, lines: &[Line]) {
        for (figure, measured) in FIGURES.iter().zip(&mut self.measured) {
            if figure.profile == profile && figure.tls == tls {
                measured.add(kind, figure.of(lines));
            }
        }
        let late = lines.iter().filter_map(|line| Some((line, line.lateness()?)));
        self.lateness.extend(late.map(|(line, late)| {
            let mark = if line.on_time() { "" } else { ": its latency is not judged" };
            format!("{name}, {}: {late}{mark}", line.phase)
        }));
        let failures = lines.iter().filter_map(Line::failure);
        self.failures.extend(failures.map(|failure| format!("{name}: {failure}")));
    }

    /// Whether nothing failed and no figure misses what it must be.
    #[must_use]
    pub(crate) fn good(&self) -> bool {
        let mut bounds = self.rows().map(|(figure, measured)| measured.holds(figure.must));
        self.failures.is_empty() && bounds.all(|held| held != Some(false))
    }

    /// The figures of runs that took place; one that could not be read off them is a row that is not judged.
    fn rows(&self) -> impl Iterator<Item = (&'static Figure, &Measured)> {
        FIGURES.iter().zip(&self.measured).filter(|(_, of)| of.taken())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "figure",
            "unit",
            "ours",
            "min–max",
            "floor",
            "opamp-go",
            "ours / floor",
            "opamp-go / ours",
            "must",
            "aim",
            "verdict",
        ]);
        for (figure, measured) in self.rows() {
            let unit = figure.unit;
            let median = |kind| measured.summary(kind).map_or_else(dash, |found| unit.show(found.median));
            let spread = |found: Summary| format!("{}–{}", unit.show(found.min), unit.show(found.max));
            // Growth is a ratio already.
            let ratio = |of, to| match measured.ratio(of, to) {
                Some(found) if unit != super::figures::Unit::Percent => {
                    format!("{:.2} ({:.2}–{:.2})", found.median, found.min, found.max)
                }
                _ => dash(),
            };
            let words = |bounds: &[super::figures::Bound]| {
                bounds.iter().map(|bound| bound.words(unit)).collect::<Vec<_>>().join(", ")
            };
            table.row(vec![
                figure.title.to_owned(),
                unit.to_string(),
                median(Kind::Ours),
                measured.summary(Kind::Ours).map_or_else(dash, spread),
                median(Kind::Floor),
                median(Kind::OpampGo),
                ratio(Kind::Ours, Kind::Floor),
                ratio(Kind::OpampGo, Kind::Ours),
                words(figure.must),
                words(figure.aim),
                verdict(measured.holds(figure.must), measured.holds(figure.aim)).to_owned(),
            ]);
        }
        table
    }

    /// For a terminal.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n\n{}", self.settings, self.table().text());
        for late in &self.lateness {
            let _ = writeln!(text, "load generator  {late}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED  {failure}");
        }
        text
    }

    /// For a page.
    #[must_use]
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "{}. Medians of the rounds, the spread beside them; ratios are taken within a round. The floor and opamp-go keep no \
             state of their agents, ours keeps all of it.\n\n{}",
            self.settings,
            self.table().markdown()
        );
        if !self.lateness.is_empty() {
            text.push_str("\nThe load generator behind its own plan:\n\n");
        }
        for late in &self.lateness {
            let _ = writeln!(text, "- {late}");
        }
        if !self.failures.is_empty() {
            text.push_str("\nFailures:\n\n");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "- {failure}");
        }
        text
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// What must be and what should be, as one word.
fn verdict(must: Option<bool>, aim: Option<bool>) -> &'static str {
    match (must, aim) {
        (Some(false), _) => "MISSED",
        (None, _) | (_, None) => "not judged",
        (Some(true), Some(true)) => "aim",
        (Some(true), Some(false)) => "must",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::figures::phase;
    use crate::load::line::Percentiles;

    fn run(kind: Kind, factor: f64) -> (Kind, Vec<Line>) {
        let line = Line {
            cpu_us_per_unit: Some(5.0 * factor),
            rss_per_agent: Some(1_000.0 * factor),
            ..Line::default()
        };
        (kind, vec![line; phase::SETTLE_PUSHED + 1])
    }

    fn outcome(runs: &[(Kind, Vec<Line>)]) -> Outcome {
        let mut outcome = Outcome {
            measured: vec![Measured::default(); FIGURES.len()],
            failures: Vec::new(),
            lateness: Vec::new(),
            settings: "1 round".to_owned(),
        };
        for (kind, lines) in runs {
            outcome.take(*kind, Profile::Kept, false, "ws", lines);
        }
        outcome
    }

    #[test]
    fn the_phases_stand_where_the_figures_look_for_them() {
        let phases = FULL.phases(Profile::Kept);
        for (at, beginning) in [
            (phase::CONNECT, "connect:"),
            (phase::IDLE, "idle:"),
            (phase::HEARTBEAT, "heartbeat:saturated"),
            (phase::STATUS_2K, "status:2k,saturated"),
            (phase::STATUS_10K, "status:10k,saturated"),
            (phase::HEARTBEAT_PACED, "heartbeat:rate=1000"),
            (phase::STATUS_10K_PACED, "status:10k,rate=1000"),
            (phase::PUSH_4K, "push:4096"),
            (phase::SETTLE, "settle:"),
            (phase::PUSH_64K, "push:65536"),
            (phase::SETTLE_PUSHED, "settle:"),
        ] {
            assert!(phases[at].starts_with(beginning), "{}", phases[at]);
        }
        assert_eq!(phases.len(), phase::SETTLE_PUSHED + 1);
        assert!(FULL.phases(Profile::Unkept)[phase::IDLE].starts_with("idle:"));
    }

    #[test]
    fn a_figure_that_misses_what_it_must_be_is_marked_and_counts() {
        let good = outcome(&[run(Kind::Floor, 1.0), run(Kind::OpampGo, 6.0), run(Kind::Ours, 1.2)]);
        assert!(good.text().contains("heartbeat and reply, saturated") && !good.text().contains("MISSED"));
        // Growth is none at all with all three.
        assert!(good.markdown().contains("| 1.20 (1.20–1.20) |"), "{}", good.markdown());
        let bad = outcome(&[run(Kind::Floor, 1.0), run(Kind::OpampGo, 6.0), run(Kind::Ours, 1.9)]);
        assert!(!bad.good() && bad.text().contains("MISSED"));
    }

    #[test]
    fn what_was_not_measured_is_no_row_and_what_has_no_peer_is_not_judged() {
        let alone = outcome(&[run(Kind::Ours, 1.0)]);
        assert!(!alone.text().contains("wss") && alone.text().contains("not judged"));
        assert!(alone.good());
    }

    #[test]
    fn a_failure_of_the_load_is_shown_and_counts() {
        let (kind, mut lines) = run(Kind::Ours, 1.0);
        lines[0].failures.insert("lost".to_owned(), 3);
        let outcome = outcome(&[(kind, lines)]);
        assert!(
            !outcome.good() && outcome.text().contains("lost 3") && outcome.markdown().contains("lost 3")
        );
    }

    #[test]
    fn a_late_load_generator_is_shown_and_its_latency_not_judged() {
        let (kind, mut lines) = run(Kind::Ours, 1.0);
        let late = Percentiles { p50: 10.0, p99: 2_000.0, ..Percentiles::default() };
        lines[phase::STATUS_10K_PACED].late_us = Some(late);
        lines[phase::STATUS_10K_PACED].latency_us = Some(late);
        let outcome = outcome(&[(kind, lines)]);
        assert!(outcome.text().contains("2000 µs (p99): its latency is not judged"), "{}", outcome.text());
        assert!(outcome.markdown().contains("its latency is not judged"));
        let text = outcome.text();
        let row = text.lines().find(|line| line.starts_with("p99.9 of 10 KB statuses at 1,000/s")).unwrap();
        assert!(row.ends_with("not judged"), "{row}");
    }

    #[test]
    fn must_and_aim_make_one_word() {
        assert_eq!(verdict(Some(false), Some(true)), "MISSED");
        assert_eq!(verdict(None, Some(true)), "not judged");
        assert_eq!(verdict(Some(true), Some(true)), "aim");
        assert_eq!(verdict(Some(true), Some(false)), "must");
    }
}
