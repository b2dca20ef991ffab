//! A foreign program that runs until it is told to end, with its files in the directory of a test.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::wait::{Look, eventually};

/// An end may take this long: a supervisor gives its collector ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program with one configuration file. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: &'static Path,
    arguments: Vec<String>,
    directory: PathBuf,
    name: String,
    running: Option<Child>,
}

impl Daemon {
    /// Starts a program. What it says is appended to `<name>.log` in the directory.
    pub(crate) fn start(
        program: &'static Path,
        arguments: Vec<String>,
        directory: &Path,
        name: &str,
    ) -> Outcome<Self> {
        let directory = directory.to_owned();
        let mut daemon = Self { program, arguments, directory, name: name.to_owned(), running: None };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it once more, after it has ended.
    pub(crate) fn start_again(&mut self) -> Outcome {
        if self.running.is_some() {
            return Err(Failure::new(format!("{} runs already", self.name)));
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let child = Command::new(self.program)
            .args(&self.arguments)
            .current_dir(&self.directory)
            // Proxies and the like of the machine do not belong to a test.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.running = Some(child);
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        process::send(signal, self.running.as_ref().ok_or_else(|| self.not_running())?)
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal) -> Outcome<ExitStatus> {
        self.signal(signal)?;
        self.ended()
    }

    /// Waits until it has ended by itself. If it does not, it is killed.
    pub(crate) fn ended(&mut self) -> Outcome<ExitStatus> {
        let mut child = self.running.take().ok_or_else(|| self.not_running())?;
        let waited = eventually(&format!("the end of {}", self.name), PATIENCE, || {
            Ok(child.try_wait()?.map_or_else(|| Look::NotYet("it runs".to_owned()), Look::Found))
        });
        if waited.is_err() {
            child.kill()?;
            child.wait()?;
        }
        waited.map(|(status, _)| status)
    }

    pub(crate) fn log(&self) -> Outcome<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn not_running(&self) -> Failure {
        Failure::new(format!("{} does not run", self.name))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.running.is_some() {
            // In order, because a supervisor has a child of its own. It is killed if that takes too long, and the failure
            // of a test that is being given up is told by that test.
            let _ = self.end(Signal::Interrupt);
        }
    }
}
