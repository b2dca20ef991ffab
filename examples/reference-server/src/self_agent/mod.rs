//! The Self-Agent: the server, seen through the door that all other agents use.
//!
//! An agent in this process connects to the server's own port over a real socket, with credentials of its own, and is
//! in the inventory like any other. Beside that, three probes look at the server from ever further away: from within,
//! over a new connection to the port, and over the address that agents elsewhere use. From what they find follows the
//! verdict at `/api/v1/self`: is it the server, or the network?

pub(crate) mod access;
pub(crate) mod board;
pub(crate) mod certificate;
mod digestion;
mod external;
mod identity;
pub(crate) mod marks;
pub(crate) mod pin;
mod probe;
mod watch;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use opamp_client::{Client, Stats, Wall};
use opamp_proto::InstanceUid;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    access::{Credentials, Guard},
    board::{Board, Report},
    identity::Identity,
    pin::Served,
    watch::Watch,
};
use crate::{api::state::App, config::Config};

/// What the agent is called in the inventory.
const SERVICE_NAME: &str = "opamp-reference-server";

/// The Self-Agent as the rest of the server sees it.
#[derive(Debug)]
pub(crate) struct SelfAgent {
    /// Its identity on the wire; none while it is switched off or cannot be.
    pub(crate) uid: Option<InstanceUid>,
    board: Board,
    client: OnceLock<Client>,
}

/// Who the Self-Agent of this process is.
#[derive(Debug)]
pub(crate) struct Person {
    credentials: Arc<Credentials>,
    identity: Identity,
}

/// The Self-Agent's task.
#[derive(Debug)]
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Credentials for the Self-Agent, if there is to be one. A server that cannot make them runs without.
pub(crate) fn credentials(config: &Config) -> Option<Arc<Credentials>> {
    if !config.self_agent.enabled {
        return None;
    }
    match Credentials::generate(config.opamp.auth) {
        Ok(credentials) => Some(Arc::new(credentials)),
        Err(error) => {
            tracing::error!(%error, "no Self-Agent: it has no credentials");
            None
        }
    }
}

/// What keeps everybody off the Self-Agent's identity while there is none, if it ever had one.
pub(crate) fn guard_of_absent(file: Option<PathBuf>) -> Option<Guard> {
    Identity::left(&file?).map(Guard::of_absent)
}

impl Person {
    /// The one that an earlier process was, if there is a file with its identity, or a new one.
    pub(crate) fn new(credentials: Arc<Credentials>, file: Option<PathBuf>, now: Wall) -> Option<Self> {
        match Identity::load(file, now) {
            Ok(identity) => Some(Person { credentials, identity }),
            Err(error) => {
                tracing::error!(%error, "no Self-Agent: it has no identity");
                None
            }
        }
    }

    /// What keeps everybody else off its identity.
    pub(crate) fn guard(&self) -> Guard {
        Guard { credentials: Arc::clone(&self.credentials), uid: self.identity.uid() }
    }
}

impl SelfAgent {
    /// What is known before the first round; all that there will be without a person.
    pub(crate) fn new(config: &Config, person: Option<&Person>) -> Self {
        let runs = person.is_some();
        let config = &config.self_agent;
        let configured = [runs, runs, runs && config.external_url.is_some()];
        SelfAgent {
            uid: person.map(|person| person.identity.uid()),
            board: Board::new(configured, config.interval),
            client: OnceLock::new(),
        }
    }

    /// What is known now.
    pub(crate) fn report(&self) -> Report {
        self.board.report(Instant::now())
    }

    /// The counters of the agent now.
    pub(crate) fn stats(&self) -> Stats {
        self.client.get().map(Client::stats).unwrap_or_default()
    }
}

impl Running {
    /// Starts the Self-Agent in the background. Nothing that goes wrong with it concerns anybody else.
    pub(crate) fn start(
        app: Arc<App>,
        person: Person,
        opamp_addr: SocketAddr,
        served: Option<&Served>,
    ) -> Option<Self> {
        match Watch::new(app, person, opamp_addr, served) {
            Ok(watch) => {
                let stop = CancellationToken::new();
                let task = tokio::spawn(watch.run(stop.clone()));
                Some(Running { stop, task })
            }
            Err(error) => {
                tracing::error!(%error, "no Self-Agent");
                None
            }
        }
    }

    /// Has it say goodbye; waits for that no longer than `limit`.
    pub(crate) async fn stop(mut self, limit: Duration) {
        self.stop.cancel();
        // It is ended when the time is up.
        let _ = timeout(limit, &mut self.task).await;
    }
}

/// It does not outlive the server that it watches.
impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
