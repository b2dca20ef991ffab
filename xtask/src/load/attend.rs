//! Programs that do not outlive this one, however it ends.
//!
//! Each is started by a second process of this command (`xtask attend PROGRAM …`), which holds the other end of a pipe: when
//! the pipe closes, be it that the run is over or that somebody killed it, that process ends its child. Ctrl-C reaches all of
//! them anyway.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

/// How often the attending process looks whether its child has ended. Rare: it shares the machine with what is measured.
const LOOK: Duration = Duration::from_millis(100);
/// How long a program may take to be there.
const STARTING: Duration = Duration::from_secs(10);
/// How long an attending process may take to end its child.
const ENDING: Duration = Duration::from_secs(5);

/// The variables that programs are given.
const PASSED_ON: [&str; 2] = ["HOME", "PATH"];

/// How the line with the id of the child begins.
const PID: &str = "attended process ";

/// What `xtask attend PROGRAM ARGUMENTS…` does: runs the program on its own stdout, says its id there, and ends it when stdin
/// ends. The program's own stdin ends with this one, also if this one is killed.
#[must_use]
pub fn attend(words: &[String]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else {
        eprintln!("attend: which program?");
        return ExitCode::from(2);
    };
    let mut child = match Command::new(program).args(arguments).stdin(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cannot run {program}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{PID}{}", child.id());
    let gone = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&gone);
    thread::spawn(move || {
        // Nothing is ever written: what ends the read is the other end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        noticed.store(true, Ordering::Release);
    });
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return ExitCode::SUCCESS,
            Ok(Some(_)) | Err(_) => return ExitCode::FAILURE,
            Ok(None) if gone.load(Ordering::Acquire) => {
                // It may have ended in between, which is as good.
                let _ = child.kill();
                let _ = child.wait();
                return ExitCode::SUCCESS;
            }
            Ok(None) => thread::sleep(LOOK),
        }
    }
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Attended {
    name: String,
    attendant: Child,
    pipe: Option<ChildStdin>,
    pid: u32,
    lines: Receiver<String>,
    /// What it said before its id was known.
    early: VecDeque<String>,
    log: String,
}

impl Attended {
    /// Starts a program in a directory, its stderr in a file. Of the environment only [`PASSED_ON`] reaches it: what is measured does not
    /// depend on what is set where it is measured.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: &[A],
        directory: &Path,
        log: &Path,
    ) -> Result<Self, WorkspaceError> {
        let failed = |why: &dyn std::fmt::Display| WorkspaceError(format!("cannot start {name}: {why}"));
        let stderr = File::options().create(true).append(true).open(log).map_err(|error| failed(&error))?;
        let mut attendant = Command::new(own().map_err(|error| failed(&error))?)
            .arg("attend")
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| failed(&error))?;
        let pipe = attendant.stdin.take();
        let (sender, lines) = channel();
        if let Some(stdout) = attendant.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let mut started = Self {
            name: name.to_owned(),
            attendant,
            pipe,
            pid: 0,
            lines,
            early: VecDeque::new(),
            log: log.display().to_string(),
        };
        let mut early = VecDeque::new();
        while started.pid == 0 {
            let line = started.line(STARTING)?;
            match line.strip_prefix(PID) {
                Some(pid) => started.pid = pid.parse().map_err(|_| failed(&line))?,
                None => early.push_back(line),
            }
        }
        started.early = early;
        Ok(started)
    }

    /// The id of the program itself.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The next line of its stdout.
    ///
    /// # Errors
    ///
    /// None comes in time, or it has ended.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, WorkspaceError> {
        if let Some(line) = self.early.pop_front() {
            return Ok(line);
        }
        self.lines.recv_timeout(patience).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => format!("said nothing for {} s", patience.as_secs()),
                RecvTimeoutError::Disconnected => "has ended".to_owned(),
            };
            WorkspaceError(format!("{} {why}; see {}", self.name, self.log))
        })
    }

    /// Where its stderr is.
    #[must_use]
    pub(crate) fn log(&self) -> &str {
        &self.log
    }

    /// Whether it runs.
    #[must_use]
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.attendant.try_wait(), Ok(None))
    }

    /// Waits for its end, and says whether it went well.
    ///
    /// # Errors
    ///
    /// It does not end in time; it is ended then.
    pub(crate) fn finish(&mut self, patience: Duration) -> Result<bool, WorkspaceError> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            match self.attendant.try_wait() {
                Ok(Some(status)) => return Ok(status.success()),
                Ok(None) => thread::sleep(LOOK),
                Err(error) => return Err(WorkspaceError(format!("{} is lost: {error}", self.name))),
            }
        }
        self.end();
        Err(WorkspaceError(format!(
            "{} took longer than {} s; see {}",
            self.name,
            patience.as_secs(),
            self.log
        )))
    }

    fn end(&mut self) {
        drop(self.pipe.take());
        let begun = Instant::now();
        while begun.elapsed() < ENDING {
            if !matches!(self.attendant.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK / 10);
        }
        // It does not react. What it attends notices the end of its stdin, if it looks at that (`--attended`); else it stays.
        let _ = self.attendant.kill();
        let _ = self.attendant.wait();
    }
}

/// This very program, even if its file was replaced by a build in between, where the system allows that.
fn own() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.end();
    }
}
