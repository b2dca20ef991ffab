//! The opamp-go agent as a process.

use std::path::Path;

use serde_json::Value;

use crate::failure::Outcome;
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
