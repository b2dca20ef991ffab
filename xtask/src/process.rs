//! Running other programs: captured, timed, and never for ever.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is looked at. Small against any program that is worth timing.
const POLL: Duration = Duration::from_millis(10);

/// A program that is about to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    shown: String,
    deadline: Duration,
}

impl Program {
    /// A program with the default deadline of 15 minutes, without stdin.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, shown: program.to_string_lossy().into_owned(), deadline: Duration::from_secs(900) }
    }

    /// Cargo itself: the one that runs this command, or the one in the path.
    #[must_use]
    pub fn cargo() -> Self {
        let mut cargo = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.shown = "cargo".to_owned();
        // Set for us by `cargo run`; a nested cargo would take it for the package it works on.
        cargo.command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
        cargo
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the directory the program starts in.
    #[must_use]
    pub fn directory(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Sets how long the program may run before it is killed and counted as failed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs with the terminal's stdout and stderr.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn show(mut self) -> Result<Finished, ProcessError> {
        let begun = Instant::now();
        let mut child = self.command.spawn().map_err(|source| self.not_started(source))?;
        let (status, timed_out) =
            wait(&mut child, self.deadline).map_err(|source| self.not_started(source))?;
        Ok(Finished {
            status,
            timed_out,
            stdout: String::new(),
            stderr: String::new(),
            took: begun.elapsed(),
        })
    }

    /// Runs and keeps stdout, while stderr goes to the terminal: for cargo, whose progress is worth seeing.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn capture_stdout(mut self) -> Result<Finished, ProcessError> {
        self.command.stdout(Stdio::piped());
        self.collect()
    }

    /// Runs and keeps stdout and stderr; text that is not UTF-8 is replaced.
    ///
    /// # Errors
    ///
    /// The program cannot be started.
    pub fn capture(mut self) -> Result<Finished, ProcessError> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.collect()
    }

    fn collect(mut self) -> Result<Finished, ProcessError> {
        let begun = Instant::now();
        let mut child = self.command.spawn().map_err(|source| self.not_started(source))?;
        // Both pipes are drained at once: a program that fills one while we read the other would stop.
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let (status, timed_out) =
            wait(&mut child, self.deadline).map_err(|source| self.not_started(source))?;
        // A killed program may leave children that hold its pipes: what they still say is not waited for.
        let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            let bytes =
                reader.filter(|_| !timed_out).and_then(|reader| reader.join().ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Finished { status, timed_out, stdout: text(stdout), stderr: text(stderr), took: begun.elapsed() })
    }

    fn not_started(&self, source: io::Error) -> ProcessError {
        ProcessError { command: self.shown.clone(), source }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    status: ExitStatus,
    /// Whether it was killed at its deadline.
    pub timed_out: bool,
    /// What it printed, if it was captured.
    pub stdout: String,
    /// What it printed to stderr, if it was captured.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Finished {
    /// Whether it ended by itself with exit status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status.success() && !self.timed_out
    }

    /// How it ended, for a person.
    #[must_use]
    pub fn ending(&self) -> String {
        if self.timed_out { "killed at its deadline".to_owned() } else { self.status.to_string() }
    }
}

/// A program could not be started or watched.
#[derive(Debug)]
pub struct ProcessError {
    command: String,
    source: io::Error,
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot run `{}`: {}", self.command, self.source)
    }
}

impl std::error::Error for ProcessError {}

/// Finds a program in the path.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|p| p.is_file())
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the text; what came before it is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<(ExitStatus, bool)> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if begun.elapsed() >= deadline {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        thread::sleep(POLL);
    }
}
