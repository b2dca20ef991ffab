//! Our server against the opamp-go agent: everything beyond status and remote configuration. Mostly the library, whose state
//! can be seen; the reference server once for each subject.

mod certificates;
mod components;
mod custom;
mod duplicates;
mod packages;
mod reference_server;
mod settings;
mod throttling;

use std::path::Path;
use std::time::Duration;

use interop::local::LocalServer;
use interop::{Agent, Outcome, each, scenario};
use opamp_server::{AgentSnapshot, Liveness};

const EVENTUALLY: Duration = Duration::from_secs(20);

const PLAIN: [&str; 2] = ["ws", "http"];
const ENCRYPTED: [&str; 2] = ["wss", "https"];

/// One scenario per scheme, all at the same time.
fn over(schemes: &[&str], name: &str, body: impl Fn(&str, &Path) -> Outcome + Sync) -> Outcome {
    each(schemes, |scheme| scenario(&format!("{name}-{scheme}"), |directory| body(scheme, directory)))
}

/// A Go agent that says something often, so that scenarios are about what happens and not about intervals.
fn agent(directory: &Path, server: &LocalServer, scheme: &str, name: &str, flags: &[&str]) -> Outcome<Agent> {
    Agent::named(directory, &server.url(scheme), name, &[&["-heartbeat", "200ms"], flags].concat())
}

fn is_connected(agent: &AgentSnapshot) -> bool {
    agent.liveness == Liveness::Connected
}

fn principal(agent: &AgentSnapshot) -> String {
    agent.connection.as_ref().map(|connection| connection.principal.to_string()).unwrap_or_default()
}
