//! The opamp-go agent as a process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};

/// An event may take this long; a machine that runs several test suites at once is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdin: ChildStdin,
    events: Receiver<Value>,
    seen: Vec<Value>,
}

impl Agent {
    /// Starts an agent with these flags and waits until it runs (not until it is connected).
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(process::go_agent()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("the agent has no pipes"));
        };
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let mut agent = Self { child, stdin, events, seen: Vec::new() };
        agent.expect("started")?;
        Ok(agent)
    }

    /// Starts an agent with this `service.name` that keeps its state in `directory` under the same name.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn named(directory: &Path, url: &str, name: &str, more: &[&str]) -> Outcome<Self> {
        let state = directory.join(format!("{name}.json"));
        let state = state.to_string_lossy();
        let mut arguments = vec!["-url", url, "-name", name, "-state", &*state];
        arguments.extend_from_slice(more);
        Self::start(&arguments)
    }

    /// Waits for the next event of this name; earlier ones of other names are kept for [`Agent::count`].
    ///
    /// # Errors
    ///
    /// It does not come, or the agent ends.
    pub fn expect(&mut self, name: &str) -> Outcome<Value> {
        let begun = Instant::now();
        loop {
            match self.events.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if event["event"] == name {
                        return Ok(event);
                    }
                }
                Err(why) => {
                    let what = match why {
                        RecvTimeoutError::Timeout => "did not come",
                        RecvTimeoutError::Disconnected => "can not come: the agent has ended",
                    };
                    let seen: Vec<String> = self.seen.iter().map(Value::to_string).collect();
                    return Err(Failure::new(format!("event {name} {what}; seen:\n{}", seen.join("\n"))));
                }
            }
        }
    }

    /// How many events of this name came so far.
    pub fn count(&mut self, name: &str) -> usize {
        self.seen.extend(self.events.try_iter());
        self.seen.iter().filter(|event| event["event"] == name).count()
    }

    /// Sends one line of commands, such as `health ok`.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub fn command(&mut self, line: &str) -> Outcome {
        writeln!(self.stdin, "{line}")?;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub fn signal(&self, signal: Signal) -> Outcome {
        process::send(signal, &self.child)
    }

    /// Lets the agent leave in order and waits for its end.
    ///
    /// # Errors
    ///
    /// It does not end, or ends badly.
    pub fn quit(mut self) -> Outcome {
        self.command("quit")?;
        self.expect("stopped")?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("the agent ended with {status}"))) }
    }

    /// Ends the process without a word to anybody.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn kill(mut self) -> Outcome {
        self.signal(Signal::Kill)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
