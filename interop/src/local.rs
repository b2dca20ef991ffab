//! Our server library inside the test, for what needs no process of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, Part, pb};
use opamp_server::{
    AgentSnapshot, Authenticate, Desired, Event, InsecureAcceptEveryone, IssueCertificate, MutualTls,
    OpampServer, ReceivedCustom, RemoteConfigOffer, ServerHandle, ServerSettings, TlsSource,
};
use prost::Message;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Outcome};
use crate::wait::{Look, eventually};

/// A server on loopback. Dropping it ends it.
#[derive(Debug)]
pub struct LocalServer {
    runtime: Runtime,
    address: SocketAddr,
    handle: ServerHandle,
    custom: Arc<Mutex<Vec<ReceivedCustom>>>,
}

/// How a server is set up.
pub struct Setup {
    /// Who lets agents in.
    pub auth: Arc<dyn Authenticate>,
    /// Its settings.
    pub settings: ServerSettings,
    /// TLS, if it has any.
    pub tls: Option<ServerConfig>,
    /// Who issues certificates, if anybody does.
    pub issuer: Option<Arc<dyn IssueCertificate>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: Arc::new(InsecureAcceptEveryone),
            settings: ServerSettings::default(),
            tls: None,
            issuer: None,
        }
    }
}

impl LocalServer {
    /// Starts a server that lets everybody in.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn start(settings: ServerSettings, tls: Option<ServerConfig>) -> Outcome<Self> {
        Self::with(Setup { settings, tls, ..Setup::default() })
    }

    /// Starts a server that knows its agents by their certificates.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn mutual(settings: ServerSettings, tls: ServerConfig) -> Outcome<Self> {
        Self::with(Setup { auth: Arc::new(MutualTls), settings, tls: Some(tls), issuer: None })
    }

    /// Starts a server.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub fn with(setup: Setup) -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut builder = OpampServer::builder(setup.auth).settings(setup.settings).crypto_provider(provider);
        if let Some(issuer) = setup.issuer {
            builder = builder.issue_certificates(issuer);
        }
        let (service, handle, driver) = builder.build();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(driver.run());
        runtime.spawn(opamp_server::serve(listener, setup.tls.map(TlsSource::new), service));
        let custom = Arc::<Mutex<Vec<ReceivedCustom>>>::default();
        let (mut events, kept) = (handle.events(), Arc::clone(&custom));
        runtime.spawn(async move {
            while let Some(event) = async { events.as_mut()?.next().await }.await {
                if let Event::Custom(received) = event {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(*received);
                }
            }
        });
        Ok(Self { runtime, address, handle, custom })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint for agents, with `ws`, `wss`, `http` or `https`.
    #[must_use]
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}{}", self.address, opamp_server::DEFAULT_PATH)
    }

    /// What steers it.
    #[must_use]
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// The custom messages it received, in order.
    #[must_use]
    pub fn custom(&self) -> Vec<ReceivedCustom> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// All its agents, once they fit.
    ///
    /// # Errors
    ///
    /// Not in time.
    pub fn sees_all(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(&[AgentSnapshot]) -> bool,
    ) -> Outcome<Vec<AgentSnapshot>> {
        let (agents, _) = eventually(what, within, || {
            let agents = self.handle.agents();
            let shown = format!("{agents:#?}");
            Ok(Look::when(fits(&agents), agents, shown))
        })?;
        Ok(agents)
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
        let desired = Desired::remote_config(generation, RemoteConfigOffer::new(hash.clone(), &config));
        let (agent, _) = self.sees("an agent", within, |_| true)?;
        self.handle.set_desired(&agent.uid, desired);
        self.sees("APPLIED", within, |agent| {
            agent.remote_config.report.as_ref().is_some_and(|report| {
                report.hash == hash && report.status == pb::RemoteConfigStatuses::Applied as i32
            })
        })
        .map(drop)
    }
}

/// A part of what an agent reported last.
#[must_use]
pub fn reported<M: Message + Default>(agent: &AgentSnapshot, part: Part) -> Option<M> {
    M::decode(agent.state.part(part)?.clone()).ok()
}

/// The `service.name` an agent reported.
#[must_use]
pub fn name(agent: &AgentSnapshot) -> Option<String> {
    attribute(&reported::<pb::AgentDescription>(agent, Part::AgentDescription)?, "service.name")
}

/// An attribute of an agent's description.
#[must_use]
pub fn attribute(description: &pb::AgentDescription, key: &str) -> Option<String> {
    let all = description.identifying_attributes.iter().chain(&description.non_identifying_attributes);
    let value =
        all.filter(|attribute| attribute.key == key).find_map(|attribute| attribute.value.as_ref())?;
    match value.value.as_ref()? {
        pb::any_value::Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
