//! Claims about the reference server, each proven by a run of its own.

mod announce;
mod scale;
mod slow;
mod steady;
mod storm;

use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

use super::claims::Claims;
use super::fleet::{Fleet, Label};
use super::line::Line;
use super::options::{Options, Scenario};
use super::programs::{Place, Programs};
use super::servers::{Kind, Server, Store};
use super::usage::Usage;

/// Runs a scenario.
///
/// # Errors
///
/// A server or the load generator does not start or does not finish.
pub(super) fn run(
    scenario: Scenario,
    options: &Options,
    programs: &Programs,
    place: &Place,
) -> Result<Claims, WorkspaceError> {
    let bench = Bench { options, programs, place };
    match scenario {
        Scenario::Announce => announce::run(&bench),
        Scenario::Scale => scale::run(&bench),
        Scenario::Slow => slow::run(&bench),
        Scenario::Steady => steady::run(&bench),
        Scenario::Storm => storm::run(&bench),
    }
}

/// What every scenario needs.
struct Bench<'a> {
    options: &'a Options,
    programs: &'a Programs,
    place: &'a Place,
}

/// One look at a server during a run.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Seconds since the run began.
    at_s: f64,
    /// The phase that was under way.
    phase: usize,
    usage: Usage,
}

impl Bench<'_> {
    /// One number for a measurement, another for a trial of whether it works.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.options.quick { quick } else { full }
    }

    /// The reference server, with the store that was asked for or else this one.
    fn server(&self, name: &str, tls: bool, store: Store, more: &[&str]) -> Result<Server, WorkspaceError> {
        let store = self.options.store.unwrap_or(store);
        let flags = [&["--store", store.word()], more].concat();
        Server::start(Kind::Ours, name, self.programs, self.place, tls, &flags)
    }

    /// Starts agents that go through phases.
    fn fleet(&self, server: &Server, name: &str, phases: &[String]) -> Result<Fleet, WorkspaceError> {
        println!("{name}: {}", phases.join(" "));
        Fleet::start(server, Label { name, round: 1 }, phases, self.programs, self.place)
    }

    /// Lets agents go through phases, and looks at the server all the while.
    fn watched(
        &self,
        server: &Server,
        name: &str,
        phases: &[String],
        (every, expected): (Duration, Duration),
    ) -> Result<(Vec<Line>, Vec<Sample>), WorkspaceError> {
        let mut fleet = self.fleet(server, name, phases)?;
        let begun = Instant::now();
        let mut samples = Vec::new();
        while fleet.runs() && begun.elapsed() < expected * 2 {
            let at_s = begun.elapsed().as_secs_f64();
            samples.push(Sample { at_s, phase: fleet.ended(), usage: server.usage()? });
            thread::sleep(every);
        }
        Ok((fleet.finish(expected)?, samples))
    }
}

/// That nothing failed in these phases.
fn without_failures(claims: &mut Claims, what: &str, lines: &[Line]) {
    let failures = failures(lines);
    let none = failures.is_none();
    let found = failures.unwrap_or_else(|| "none".to_owned());
    claims.add(format!("{what}: failures that the agents saw"), found, none);
}

/// What failed in these phases; none if nothing did.
fn failures(lines: &[Line]) -> Option<String> {
    let failures: Vec<String> = lines.iter().filter_map(Line::failure).collect();
    (!failures.is_empty()).then(|| failures.join("; "))
}

/// Bytes as MiB.
fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
