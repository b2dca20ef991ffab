//! A program that is driven by lines: commands on its stdin, events as JSON objects on its stdout.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::wait::{Look, eventually};

/// An event may take this long; a machine that runs several test suites at once is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that are shown with a failure.
const EVENTS_SHOWN: usize = 15;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    events: Receiver<Event>,
    seen: Vec<Event>,
    /// Up to where [`Program::next`] has looked.
    taken: usize,
}

/// What a program said, and when that was read.
#[derive(Clone, Debug)]
pub struct Event {
    /// The JSON object.
    pub value: Value,
    /// When it came.
    pub at: Instant,
    /// How many came before it.
    pub place: usize,
}

impl Program {
    pub(crate) fn start(name: &'static str, path: &Path, arguments: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(path)
            // A test that is killed leaves no process behind.
            .arg("-attended")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new(format!("the {name} has no pipes")));
        };
        let (sender, events) = channel();
        thread::spawn(move || {
            for (place, line) in BufReader::new(stdout).lines().map_while(Result::ok).enumerate() {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(Event { value, at: Instant::now(), place }).is_err() {
                    break;
                }
            }
        });
        Ok(Self { name, child, stdin, events, seen: Vec::new(), taken: 0 })
    }

    /// The next event that fits, after the one returned before. What is passed over is kept for [`Program::seen`].
    pub(crate) fn next(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Outcome<Event> {
        let found = self.wait(self.taken, what, fits)?;
        self.taken = found.place + 1;
        Ok(found)
    }

    /// The first event that fits, from a place on.
    pub(crate) fn wait(
        &mut self,
        mut from: usize,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Outcome<Event> {
        let begun = Instant::now();
        loop {
            let new = self.seen.get(from..).unwrap_or_default();
            if let Some(found) = new.iter().find(|event| fits(&event.value)) {
                return Ok(found.clone());
            }
            from = from.max(self.seen.len());
            match self.events.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(event) => self.seen.push(event),
                Err(why) => return Err(self.absent(what, why)),
            }
        }
    }

    /// Everything that came so far.
    pub(crate) fn seen(&mut self) -> &[Event] {
        self.seen.extend(self.events.try_iter());
        &self.seen
    }

    pub(crate) fn command(&mut self, line: &str) -> Outcome {
        writeln!(self.stdin, "{line}")?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        process::send(signal, &self.child)
    }

    /// Waits for an end in order.
    pub(crate) fn ended(&mut self) -> Outcome {
        let what = format!("the end of the {}", self.name);
        let (status, _) = eventually(&what, PATIENCE, || {
            Ok(self.child.try_wait()?.map_or_else(|| Look::NotYet("it runs".into()), Look::Found))
        })?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("the {} ended with {status}", self.name)))
    }

    /// Ends the process without a word to anybody.
    pub(crate) fn kill(&mut self) -> Outcome {
        self.signal(Signal::Kill)?;
        self.child.wait()?;
        Ok(())
    }

    fn absent(&self, what: &str, why: RecvTimeoutError) -> Failure {
        let why = match why {
            RecvTimeoutError::Timeout => "did not come".to_owned(),
            RecvTimeoutError::Disconnected => format!("can not come: the {} has ended", self.name),
        };
        let last = &self.seen[self.seen.len().saturating_sub(EVENTS_SHOWN)..];
        let last: Vec<String> = last.iter().map(|event| event.value.to_string()).collect();
        Failure::new(format!("{what} {why}; the {} said last:\n{}", self.name, last.join("\n")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
