//! The opamp-go agent as a process.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Signal};
use crate::program::Program;

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub struct Agent(Program);

impl Agent {
    /// Starts an agent with these flags and waits until it runs (not until it is connected).
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut agent = Self(Program::start("agent", process::go_agent()?, arguments)?);
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
        Ok(self.0.next(&format!("event {name}"), |event| event["event"] == name)?.value)
    }

    /// Waits for the next event of this name that fits.
    ///
    /// # Errors
    ///
    /// It does not come, or the agent ends.
    pub fn expect_where(&mut self, name: &str, fits: impl Fn(&Value) -> bool) -> Outcome<Value> {
        let what = format!("event {name} that fits");
        Ok(self.0.next(&what, |event| event["event"] == name && fits(event))?.value)
    }

    /// When the next event of this name came.
    ///
    /// # Errors
    ///
    /// It does not come, or the agent ends.
    pub fn when(&mut self, name: &str) -> Outcome<Instant> {
        Ok(self.0.next(&format!("event {name}"), |event| event["event"] == name)?.at)
    }

    /// Sends one line of commands and waits until it took effect.
    ///
    /// # Errors
    ///
    /// The agent refuses, or is gone.
    pub fn order(&mut self, line: &str) -> Outcome {
        self.command(line)?;
        let answer = self.0.next(&format!("the answer to {line:?}"), |event| {
            event["event"] == "command_done" || event["event"] == "command_refused"
        })?;
        if answer.value["event"] == "command_done" {
            return Ok(());
        }
        Err(Failure::new(answer.value.to_string()))
    }

    /// How many events of this name came so far.
    pub fn count(&mut self, name: &str) -> usize {
        self.0.seen().iter().filter(|event| event.value["event"] == name).count()
    }

    /// Sends one line of commands, such as `health ok`.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub fn command(&mut self, line: &str) -> Outcome {
        self.0.command(line)
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// The agent is gone.
    pub fn signal(&self, signal: Signal) -> Outcome {
        self.0.signal(signal)
    }

    /// Lets the agent leave in order and waits for its end.
    ///
    /// # Errors
    ///
    /// It does not end, or ends badly.
    pub fn quit(mut self) -> Outcome {
        self.command("quit")?;
        self.expect("stopped")?;
        self.0.ended()
    }

    /// Ends the process without a word to anybody.
    ///
    /// # Errors
    ///
    /// It is gone already.
    pub fn kill(mut self) -> Outcome {
        self.0.kill()
    }
}
