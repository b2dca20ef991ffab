//! Agents on our client: the library inside the test, and the self-agent as a process. Scenarios treat them alike.

mod extras;
mod library;
mod self_agent;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use extras::{Extras, Taken, components};
pub use library::LibraryAgent;
pub use self_agent::{DIAGNOSTICS, SelfAgent};

use crate::failure::Outcome;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `opamp_client::Client` inside the test.
    Library,
    /// The program `self-agent`.
    Program,
}

/// How an agent is set up. Whatever is not here is as its defaults have it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where state and logs are kept.
    pub directory: PathBuf,
    /// The endpoint.
    pub url: String,
    /// Its `service.name`.
    pub name: String,
    /// The authority that signed the server's certificate.
    pub ca: Option<PathBuf>,
    /// Its own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Variables of its process.
    pub environment: Vec<(String, String)>,
    /// The address of a proxy; without one the library has none, and the self-agent what its environment says.
    pub proxy: Option<String>,
    /// Headers sent with CONNECT.
    pub proxy_headers: Vec<(String, String)>,
    /// What it takes beyond remote configurations.
    pub extras: Extras,
    /// Whether it asks the server for a uid.
    pub request_uid: bool,
    /// Distance of heartbeats over WebSocket.
    pub heartbeat: Duration,
    /// Distance of polls over HTTP.
    pub poll: Duration,
    /// Silence after which it pings.
    pub ping: Duration,
    /// Silence after which it gives up.
    pub read_timeout: Duration,
    /// How long an answer may take.
    pub response_timeout: Duration,
}

/// A running agent of either kind.
#[derive(Debug)]
pub enum Ours {
    /// In this process.
    Library(LibraryAgent),
    /// In its own.
    Program(SelfAgent),
}

impl Plan {
    /// An agent that polls often and comes back soon, so that scenarios are about what happens and not about intervals.
    #[must_use]
    pub fn new(directory: &Path, url: &str, name: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            url: url.to_owned(),
            name: name.to_owned(),
            ca: None,
            identity: None,
            environment: Vec::new(),
            proxy: None,
            proxy_headers: Vec::new(),
            extras: Extras::default(),
            request_uid: false,
            heartbeat: Duration::from_secs(30),
            poll: Duration::from_millis(200),
            ping: Duration::from_secs(30),
            read_timeout: Duration::from_secs(90),
            response_timeout: Duration::from_secs(30),
        }
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.name))
    }
}

impl Ours {
    /// Starts an agent.
    ///
    /// # Errors
    ///
    /// It does not build or does not start.
    pub fn start(kind: Kind, plan: Plan) -> Outcome<Self> {
        Ok(match kind {
            Kind::Library => Self::Library(LibraryAgent::start(plan)?),
            Kind::Program => Self::Program(SelfAgent::start(plan)?),
        })
    }

    /// Lets it say goodbye and waits for its end.
    ///
    /// # Errors
    ///
    /// It does not end in order.
    pub fn stop(&mut self) -> Outcome {
        match self {
            Self::Library(agent) => agent.stop(),
            Self::Program(agent) => agent.stop(),
        }
    }

    /// Starts it once more after [`Ours::stop`], with what it kept.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start_again(&mut self) -> Outcome {
        match self {
            Self::Library(agent) => agent.start_again(),
            Self::Program(agent) => agent.start_again(),
        }
    }

    /// How many remote configs it has put in force so far, restarts included.
    ///
    /// # Errors
    ///
    /// What it said cannot be read.
    pub fn applications(&self) -> Outcome<usize> {
        match self {
            Self::Library(agent) => Ok(agent.applications()),
            Self::Program(agent) => agent.applications(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Library => "library",
            Self::Program => "self-agent",
        })
    }
}
