//! Our server library inside the test, for what needs no process of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, pb};
use opamp_server::{
    AgentSnapshot, Authenticate, Desired, InsecureAcceptEveryone, MutualTls, OpampServer, RemoteConfigOffer,
    ServerHandle, ServerSettings, TlsSource,
};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Outcome};
use crate::wait::{Look, eventually};

/// A server on loopback for one agent. Dropping it ends it.
#[derive(Debug)]
pub struct LocalServer {
    runtime: Runtime,
    address: SocketAddr,
    handle: ServerHandle,
}

impl LocalServer {
    /// Starts a server.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn start(settings: ServerSettings, tls: Option<ServerConfig>) -> Outcome<Self> {
        Self::with(Arc::new(InsecureAcceptEveryone), settings, tls)
    }

    /// Starts a server that knows its agents by their certificates.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn mutual(settings: ServerSettings, tls: ServerConfig) -> Outcome<Self> {
        Self::with(Arc::new(MutualTls), settings, Some(tls))
    }

    fn with(
        auth: Arc<dyn Authenticate>,
        settings: ServerSettings,
        tls: Option<ServerConfig>,
    ) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (service, handle, driver) = OpampServer::builder(auth).settings(settings).build();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(driver.run());
        runtime.spawn(opamp_server::serve(listener, tls.map(TlsSource::new), service));
        Ok(Self { runtime, address, handle })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs something on its runtime, such as the start of a proxy.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Its one agent, as it sees it, once that fits; and how long it took.
    ///
    /// # Errors
    ///
    /// Not in time.
    pub fn sees(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(&AgentSnapshot) -> bool,
    ) -> Outcome<(AgentSnapshot, Duration)> {
        eventually(what, within, || {
            let mut agents = self.handle.agents();
            match (agents.pop(), agents.is_empty()) {
                (Some(agent), true) if fits(&agent) => Ok(Look::Found(agent)),
                (Some(agent), true) => Ok(Look::NotYet(format!("{agent:?}"))),
                (Some(_), false) => Err(Failure::new(format!("{what}: more than one agent"))),
                (None, _) => Ok(Look::NotYet("no agent".to_owned())),
            }
        })
    }

    /// Wants its agent to run one file, and waits until that says it does.
    ///
    /// # Errors
    ///
    /// Not in time, or another outcome.
    pub fn configure(&self, generation: u64, body: &str, within: Duration) -> Outcome {
        let file =
            pb::AgentConfigObject { body: Bytes::copy_from_slice(body.as_bytes()), ..Default::default() };
        let config = pb::AgentConfigMap { config_map: [(String::new(), file)].into() };
        let hash = ConfigHash::new(generation.to_be_bytes().to_vec());
        let desired =
            Desired { generation, remote_config: Some(RemoteConfigOffer::new(hash.clone(), &config)) };
        let (agent, _) = self.sees("an agent", within, |_| true)?;
        self.handle.set_desired(&agent.uid, desired);
        self.sees("APPLIED", within, |agent| {
            agent.remote_config.as_ref().is_some_and(|report| {
                report.hash == hash && report.status == pb::RemoteConfigStatuses::Applied as i32
            })
        })
        .map(drop)
    }
}
