//! One process with up to [`AGENTS_MAX`] agents. It is told what to do by lines on its standard input, and answers on its standard output;
//! it ends when its input does.

mod activity;
mod dial;
mod engine;
mod link;
mod mute;
mod receive;
mod timer;

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use mio::Events;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use self::{
    activity::{Activity, Quiet, Step},
    engine::{Engine, Way},
};
use crate::{
    frame,
    message::{Envelope, Messages, State},
    phase::Phase,
    report::Seen,
    target::Target,
};

/// Agents of one worker: a process may have 20,000 files open where it matters, and needs some itself.
pub const AGENTS_MAX: u32 = 19_500;
/// Events that one look at the sockets brings at most.
const EVENTS_MAX: usize = 1_024;
/// How often progress is told.
const PROGRESS_NS: u64 = 500_000_000;

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Its share of a phase.
    Phase(Phase),
    /// Who its agents are, before the first phase.
    Setup(Box<Setup>),
}

/// Who the agents of a worker are and how they connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The server.
    pub target: Target,
    /// Authorities that its certificate is checked against; without them it is not checked, which is for loopback only.
    pub ca: Option<PathBuf>,
    /// File with the token that agents present.
    pub agent_token_file: Option<PathBuf>,
    /// Keeps the identities of several runs apart.
    pub seed: u32,
    /// Number of the first agent.
    pub first: u32,
    /// How many agents there are at most.
    pub agents: u32,
    /// How long the last answers of a phase are waited for.
    pub answer_timeout_ms: u64,
}

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    /// It is at work on a phase, and whatever it waits for may happen now.
    Begun,
    /// A phase is over.
    Ended(Box<Seen>),
    /// So much is done, of so much.
    Progress(u64, u64),
}

/// A worker that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// What the coordinator says is not understood.
    #[error(
        "the order `{line}` is not understood: {error}; workers are started by `fleet-load run`, not by hand"
    )]
    Order {
        /// What was said.
        line: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Sockets, or standard input and output.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file that was named.
    #[error("{path}: {fault}")]
    File {
        /// Which.
        path: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The target has a name that no certificate can be for, or the authorities cannot be used.
    #[error("TLS towards {0}")]
    Tls(String),
}

/// Works until standard input ends.
///
/// # Errors
///
/// [`WorkerError`] where work is not possible at all; whatever goes wrong between agents and server is in the reports.
pub fn run() -> Result<(), WorkerError> {
    raise_file_limit()?;
    let Some(line) = io::stdin().lock().lines().next().transpose()? else { return Ok(()) };
    let Order::Setup(setup) = order(&line)? else {
        return Err(io::Error::other("a phase came before the setup").into());
    };
    let (way, envelope) = way(&setup)?;
    let (mut engine, waker) = Engine::new(way, Messages::new(envelope))?;
    engine.answer_timeout_ns = setup.answer_timeout_ms * 1_000_000;
    engine.add_agents(setup.seed, setup.first..setup.first + setup.agents, State::None);
    let (orders, inbox) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if orders.send(line).is_err() {
                break;
            }
            // If this fails, the loop looks by itself soon after.
            let _ = waker.wake();
        }
        drop(orders);
        let _ = waker.wake();
    });
    work(&mut engine, &inbox)
}

fn work(engine: &mut Engine, inbox: &mpsc::Receiver<String>) -> Result<(), WorkerError> {
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut activity: Box<dyn Activity> = Box::new(Quiet::forever());
    let mut busy = false;
    let mut progress_ns = 0;
    loop {
        let step = activity.tick(engine);
        let wake = match step {
            Step::Done => {
                let seen = conclude(engine, activity.as_mut());
                activity = Box::new(Quiet::forever());
                busy = false;
                tell(&News::Ended(Box::new(seen)))?;
                None
            }
            Step::Wait(wake) => wake,
        };
        engine.turn(&mut events, activity.as_mut(), wake)?;
        if busy {
            if engine.now() >= progress_ns {
                progress_ns = engine.now() + PROGRESS_NS;
                let (done, of) = activity.progress(engine);
                tell(&News::Progress(done, of))?;
            }
            continue;
        }
        match inbox.try_recv() {
            Ok(line) => match order(&line)? {
                Order::Phase(phase) => {
                    activity = activity::start(&phase, engine);
                    busy = true;
                    progress_ns = engine.now() + PROGRESS_NS;
                    tell(&News::Begun)?;
                }
                Order::Setup(_) => return Err(io::Error::other("a second setup came").into()),
            },
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn conclude(engine: &mut Engine, activity: &mut dyn Activity) -> Seen {
    let mut seen = activity.seen();
    let mut failures = std::mem::take(&mut engine.failures);
    let provoked = failures.split_off(|failure| activity.provokes(failure));
    seen.failures.merge(&failures);
    seen.counts.merge(&provoked);
    seen.counts.merge(&std::mem::take(&mut engine.counts));
    seen.agents = engine.connected();
    seen
}

fn order(line: &str) -> Result<Order, WorkerError> {
    serde_json::from_str(line).map_err(|error| WorkerError::Order { line: line.to_owned(), error })
}

fn tell(news: &News) -> io::Result<()> {
    let mut line = serde_json::to_vec(news)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

fn way(setup: &Setup) -> Result<(Way, Envelope), WorkerError> {
    let target = setup.target.clone();
    let credentials = match &setup.agent_token_file {
        None => String::new(),
        Some(path) => format!("Authorization: Bearer {}\r\n", first_line(path)?),
    };
    let (path, host) = (&target.path, &target.authority);
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n{credentials}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        receive::KEY
    )
    .into_bytes();
    let envelope = if target.transport.websocket() {
        Envelope::WebSocket
    } else {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{credentials}Content-Type: application/x-protobuf\r\nContent-Length: "
        );
        Envelope::Http(head.into_bytes())
    };
    let tls = if target.transport.tls() { Some(tls(&target, setup.ca.as_deref())?) } else { None };
    let accept = frame::accept(receive::KEY.as_bytes());
    Ok((Way { target, tls, upgrade, accept }, envelope))
}

fn tls(target: &Target, ca: Option<&Path>) -> Result<(Arc<ClientConfig>, ServerName<'static>), WorkerError> {
    let fault = |error: &dyn std::fmt::Display| WorkerError::Tls(format!("{}: {error}", target.authority));
    let Some(ca) = ca else {
        return Err(fault(&"name the authority that issued its certificate with --ca FILE"));
    };
    let file = |error: &dyn std::fmt::Display| WorkerError::File {
        path: ca.display().to_string(),
        fault: error.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| file(&error))? {
        roots.add(certificate.map_err(|error| file(&error))?).map_err(|error| file(&error))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Every agent is another one: each connection pays for a whole handshake.
    config.resumption = rustls::client::Resumption::disabled();
    let name = match target.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(target.host.clone()).map_err(|error| fault(&error))?,
    };
    Ok((Arc::new(config), name))
}

/// The first line of a file with a secret.
///
/// # Errors
///
/// If it cannot be read or is empty.
pub(crate) fn first_line(path: &Path) -> Result<String, WorkerError> {
    let file = |fault: String| WorkerError::File { path: path.display().to_string(), fault };
    let text = fs::read_to_string(path).map_err(|error| file(error.to_string()))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(file("the first line is empty; it has to hold the token".to_owned())),
    }
}

/// Lets this process open as many files as it may.
///
/// # Errors
///
/// If the system refuses.
pub fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
