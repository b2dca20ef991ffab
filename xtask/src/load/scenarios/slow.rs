//! One percent of the agents take nothing from their sockets, and one percent as many connections say nothing, before and
//! after the upgrade: what it costs the others, beside runs without them.

use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

use super::{Bench, Claims, without_failures};
use crate::load::claims::Outcome;
use crate::load::fleet::{Fleet, Label};
use crate::load::line::Line;
use crate::load::metrics::Metrics;
use crate::load::servers::{Server, Store};
use crate::load::statistics::Summary;

/// Runs of each kind, in turns.
const ROUNDS: u32 = 3;
/// More than the runs without differ among each other: within this they are the same.
const TOLERANCE: f64 = 1.15;
/// Where the runs without differ by more than this, nothing can be told from them.
const SPREAD_MAX: f64 = 1.5;
/// Beside the tolerance: a difference of so many microseconds is no difference.
const NOISE_US: f64 = 20.0;
/// Configs that are pushed before anything is measured. The sockets of a slow agent hold less than two of them.
const PUSHES: usize = 4;
/// How often the metrics are looked at while nothing is measured.
const LOOK: Duration = Duration::from_millis(200);
/// The count of half-open peers that the server has let go.
const LET_GO: &str = "half_open_closed_by_the_server";

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Cpu,
    Latency,
}

/// A figure of a measured phase: its name, what it is, the phase, and how it is read off its line.
type Figure = (&'static str, Sort, &'static str, fn(&Line) -> Option<f64>);

const HEARTBEATS: &str = "heartbeat:";
const STATUSES: &str = "status:";

const FIGURES: [Figure; 5] = [
    ("heartbeats, median latency, µs", Sort::Latency, HEARTBEATS, |line| Some(line.latency_us?.p50)),
    ("heartbeats, p99 latency, µs", Sort::Latency, HEARTBEATS, |line| Some(line.latency_us?.p99)),
    ("10 KB statuses, median latency, µs", Sort::Latency, STATUSES, |line| Some(line.latency_us?.p50)),
    ("10 KB statuses, p99 latency, µs", Sort::Latency, STATUSES, |line| Some(line.latency_us?.p99)),
    ("10 KB statuses, server CPU, µs", Sort::Cpu, STATUSES, |line| line.cpu_us_per_unit),
];

/// What was seen of hindered runs beside their figures.
#[derive(Debug, Default)]
struct Hindrance {
    /// Runs in which nothing was seen to wait for a slow agent, and no slow agent was closed.
    unblocked: u64,
    /// Half-open peers that stood at the begin of a measured phase, in all of them.
    half_open: u64,
    /// Those of them that the server has closed within it.
    let_go: u64,
    /// Slow agents in all runs.
    slow: u64,
}

pub(super) fn run(bench: &Bench<'_>) -> Result<Claims, WorkspaceError> {
    let agents: u64 = bench.size(5_000, 500);
    let secs: u32 = bench.size(7, 2);
    let mut figures: [[Vec<f64>; 2]; FIGURES.len()] = Default::default();
    let mut claims = Claims::default();
    // The phases in which the load generator was late in any run.
    let mut late: Vec<&str> = Vec::new();
    let mut lost = 0;
    let mut seen = Hindrance::default();
    for round in 1..=ROUNDS {
        for hindered in [false, true] {
            let phases = phases(agents, secs, hindered);
            let name = format!("{}-{round}", if hindered { "with" } else { "without" });
            println!("round {round} of {ROUNDS}: {name} slow and half-open peers");
            let server = bench.server(&format!("{name}.server"), false, Store::Memory, &[])?;
            let label = Label { name: &name, round };
            let fleet = Fleet::start(&server, label, &phases, bench.programs, bench.place)?;
            let (lines, blocked) = watched(fleet, &server, &phases)?;
            without_failures(&mut claims, &name, &lines);
            let others = if hindered { agents - agents / 100 } else { agents };
            for (phase, line) in phases.iter().zip(&lines).filter(|(phase, _)| measured(phase)) {
                if let Some(lateness) = line.lateness() {
                    println!("        {}: the load generator was {lateness}", line.phase);
                }
                lost += others.saturating_sub(line.agents);
                for ((_, _, of, read), found) in FIGURES.iter().zip(&mut figures) {
                    if phase.starts_with(of) {
                        found[usize::from(hindered)].extend(read(line));
                        if !line.on_time() {
                            late.push(of);
                        }
                    }
                }
            }
            if hindered {
                seen.unblocked += u64::from(!blocked);
                seen.take(&phases, &lines);
            }
        }
    }
    claims.equal("of the others, lost in all runs", lost, 0);
    seen.judge(agents, &mut claims);
    for ((name, sort, phase, _), [without, with]) in FIGURES.iter().zip(&figures) {
        let (Some(without), Some(with)) = (Summary::of(without), Summary::of(with)) else {
            claims.add(*name, "not measured", false);
            continue;
        };
        let mut found = format!(
            "{:.1} with, {:.1} without ({:.1}–{:.1})",
            with.median, without.median, without.min, without.max
        );
        let mut outcome = same(without, with);
        if *sort == Sort::Latency && late.contains(phase) {
            found.push_str("; the load generator was late");
            outcome = Outcome::CannotBeTold;
        }
        claims.judged(format!("{name}: no more than without"), found, outcome);
    }
    Ok(claims)
}

/// What the agents do. Half-open peers are there anew before each measured phase: the server lets go of them after ten
/// seconds, which is longer than that takes.
fn phases(agents: u64, secs: u32, hindered: bool) -> Vec<String> {
    let mut phases = vec![format!("connect:agents={agents},rate=1000,state=10k"), "idle:secs=1".to_owned()];
    if hindered {
        phases.push("slow:percent=1".to_owned());
    }
    // What the slow ones do not take fills their sockets, and then waits.
    phases.extend(std::iter::repeat_n("push:65536,within=20".to_owned(), PUSHES));
    for load in [format!("{HEARTBEATS}rate=1000,secs={secs}"), format!("{STATUSES}10k,rate=1000,secs={secs}")]
    {
        if hindered {
            phases.extend(["halfopen:percent=1,upgraded", "halfopen:percent=1"].map(str::to_owned));
        } else {
            phases.push("idle:secs=2".to_owned());
        }
        phases.push(load);
    }
    phases
}

fn measured(phase: &str) -> bool {
    phase.starts_with(HEARTBEATS) || phase.starts_with(STATUSES)
}

/// The lines, and whether the server was seen to hold messages for agents that do not read, or to close such agents. It is
/// not asked while anything is measured, nor while messages of others may be on their way.
fn watched(
    mut fleet: Fleet,
    server: &Server,
    phases: &[String],
) -> Result<(Vec<Line>, bool), WorkspaceError> {
    let admin = server.admin.ok_or_else(|| WorkspaceError("ours has an admin port".to_owned()))?;
    let expected = Duration::from_secs(240);
    let begun = Instant::now();
    let mut blocked = false;
    while fleet.runs() && begun.elapsed() < expected * 2 {
        let at_rest = phases.get(fleet.ended()).is_some_and(|phase| phase.starts_with("halfopen:"));
        if at_rest && !blocked {
            let page = Metrics::read(admin)?;
            blocked = page.needed("opamp_slow_peers_closed_total")? > 0.0
                || page.needed("opamp_buffered_bytes")? > 0.0;
        }
        thread::sleep(LOOK);
    }
    Ok((fleet.finish(expected)?, blocked))
}

impl Hindrance {
    fn take(&mut self, phases: &[String], lines: &[Line]) {
        for (phase, line) in phases.iter().zip(lines) {
            let count = |what: &str| line.counts.get(what).copied().unwrap_or_default();
            self.slow += count("slow");
            if phase.starts_with("halfopen:") {
                self.half_open += count("half_open");
            }
            if measured(phase) {
                self.let_go += count(LET_GO);
            }
        }
    }

    fn judge(&self, agents: u64, claims: &mut Claims) {
        let rounds = u64::from(ROUNDS);
        claims.equal("slow agents, in all runs", self.slow, agents / 100 * rounds);
        // Two sorts, before two phases.
        claims.equal("half-open peers opened for measured phases", self.half_open, agents / 100 * 4 * rounds);
        claims.equal("of them closed by the server before such a phase was over", self.let_go, 0);
        claims.equal(
            "runs in which messages waited for slow agents",
            rounds.saturating_sub(self.unblocked),
            rounds,
        );
    }
}

/// Whether the runs with are no worse than the runs without, if that can be told from the latter.
fn same(without: Summary, with: Summary) -> Outcome {
    if without.max > without.min * SPREAD_MAX && without.max - without.min > NOISE_US {
        return Outcome::CannotBeTold;
    }
    match with.median <= (without.max * TOLERANCE).max(without.median + NOISE_US) {
        true => Outcome::Held,
        false => Outcome::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worse_is_within_what_runs_without_differ_by() {
        let without = Summary { min: 300.0, median: 320.0, max: 400.0 };
        let with = |median| Summary { min: 0.0, median, max: 9_999.0 };
        assert_eq!(same(without, with(459.0)), Outcome::Held);
        assert_eq!(same(without, with(461.0)), Outcome::Broken);
        let steady = Summary { min: 50.0, median: 50.0, max: 50.0 };
        assert_eq!(same(steady, with(70.0)), Outcome::Held);
        assert_eq!(same(steady, with(70.1)), Outcome::Broken);
    }

    #[test]
    fn nothing_is_told_from_runs_that_differ_by_more_than_what_is_looked_for() {
        let with = Summary { min: 100.0, median: 100.0, max: 100.0 };
        let wild = Summary { min: 300.0, median: 320.0, max: 451.0 };
        assert_eq!(same(wild, with), Outcome::CannotBeTold);
        // Microseconds apart are the same, however many times one is the other.
        let small = Summary { min: 5.0, median: 8.0, max: 20.0 };
        assert_eq!(same(small, Summary { median: 28.0, ..small }), Outcome::Held);
    }

    #[test]
    fn half_open_peers_of_both_sorts_are_there_before_each_measured_phase() {
        let hindered = phases(500, 7, true);
        for at in (0..hindered.len()).filter(|at| measured(&hindered[*at])) {
            assert_eq!(hindered[at - 2..at], ["halfopen:percent=1,upgraded", "halfopen:percent=1"]);
        }
        let free = phases(500, 7, false);
        assert!(free.iter().all(|phase| !phase.starts_with("halfopen") && !phase.starts_with("slow")));
        assert_eq!(free.iter().filter(|phase| measured(phase)).count(), 2);
    }

    #[test]
    fn what_hinders_has_to_have_been_there() {
        let judged = |seen: Hindrance| {
            let mut claims = Claims::default();
            seen.judge(500, &mut claims);
            claims.none_broken()
        };
        let whole = || Hindrance { unblocked: 0, half_open: 60, let_go: 0, slow: 15 };
        assert!(judged(whole()));
        assert!(!judged(Hindrance { unblocked: 1, ..whole() }));
        assert!(!judged(Hindrance { half_open: 59, ..whole() }));
        assert!(!judged(Hindrance { let_go: 1, ..whole() }));
        assert!(!judged(Hindrance { slow: 0, ..whole() }));
    }
}
