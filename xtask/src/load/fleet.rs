//! The load generator as a process.

use std::path::PathBuf;
use std::time::Duration;

use crate::workspace::WorkspaceError;

use super::attend::Attended;
use super::line::{self, Line};
use super::programs::{Place, Programs};
use super::servers::Server;

/// Beyond the time that its phases take by themselves.
const GRACE: Duration = Duration::from_secs(300);

/// A run of the load generator against one server.
#[derive(Debug)]
pub(crate) struct Fleet {
    process: Attended,
    name: String,
    json: PathBuf,
    phases: usize,
}

/// What tells the agents of several runs apart, and the lines of their reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<'a> {
    /// Unique within the measurement.
    pub(crate) name: &'a str,
    /// The repetition.
    pub(crate) round: u32,
}

impl Fleet {
    /// Starts with these phases, one after the other.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start(
        server: &Server,
        label: Label<'_>,
        phases: &[String],
        programs: &Programs,
        place: &Place,
    ) -> Result<Self, WorkspaceError> {
        let Label { name, round } = label;
        let json = place.file(&format!("{name}.jsonl"));
        let mut flags = vec!["run".to_owned()];
        let mut flag = |name: &str, value: String| flags.extend([name.to_owned(), value]);
        flag("--target", server.url.clone());
        flag("--pid", server.pid().to_string());
        flag("--control", server.control.clone());
        flag("--server", server.kind.word().to_owned());
        flag("--round", round.to_string());
        flag("--json", json.display().to_string());
        if let Some(authority) = &server.authority {
            flag("--ca", authority.display().to_string());
        }
        if let Some(token) = &server.token_file {
            flag("--admin-token-file", token.display().to_string());
        }
        for phase in phases {
            flag("--phase", phase.clone());
        }
        let log = place.file(&format!("{name}.fleet.log"));
        let process = Attended::start(
            &format!("fleet-load {name}"),
            &programs.path("fleet-load"),
            &flags,
            place.path(),
            &log,
        )?;
        Ok(Self { process, name: name.to_owned(), json, phases: phases.len() })
    }

    /// Waits for the end, and reads what was seen: a line for each phase. That agents saw failures is in the lines, and is
    /// for the caller to judge.
    ///
    /// # Errors
    ///
    /// It took far longer than `expected`, or left phases out.
    pub(crate) fn finish(mut self, expected: Duration) -> Result<Vec<Line>, WorkspaceError> {
        self.process.finish(expected + GRACE)?;
        let lines = line::read(&self.json).unwrap_or_default();
        if lines.len() == self.phases {
            return Ok(lines);
        }
        Err(WorkspaceError(format!(
            "the load generator reported {} of {} phases of {}; see {}",
            lines.len(),
            self.phases,
            self.name,
            self.process.log()
        )))
    }

    /// How many phases have ended until now.
    #[must_use]
    pub(crate) fn ended(&self) -> usize {
        line::read(&self.json).map_or(0, |lines| lines.len())
    }

    /// Whether it still runs.
    #[must_use]
    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }
}

/// Starts and waits.
///
/// # Errors
///
/// As [`Fleet::start`] and [`Fleet::finish`].
pub(crate) fn run(
    server: &Server,
    label: Label<'_>,
    phases: &[String],
    programs: &Programs,
    place: &Place,
    expected: Duration,
) -> Result<Vec<Line>, WorkspaceError> {
    Fleet::start(server, label, phases, programs, place)?.finish(expected)
}
