//! Putting an agent together.

use std::fmt;
use std::sync::Arc;

use opamp_proto::InstanceUid;

use super::client::Client;
use super::clock::{Clock, SystemClock};
use super::connector::{Connector, Rigour};
use super::credentials::{Credentials, HeaderError, TokenSource};
use super::driver::Driver;
use super::endpoint::{Endpoint, EndpointError};
use super::handler::{
    CertificateRequester, CustomMessageHandler, EffectiveConfigProvider, EventHandler,
    OtherConnectionsHandler, OwnTelemetryHandler, RemoteConfigHandler, RestartHandler,
};
use super::lanes::{Handlers, Lanes};
use super::offered::Offered;
use super::proxy::Proxy;
use super::settings::ClientSettings;
use super::tls::TlsSource;
use crate::components::Components;
use crate::config::EffectiveConfig;
use crate::connection::{SettingsPolicy, Signal};
use crate::custom::CustomCapabilityError;
use crate::description::Description;
use crate::failure::Failure;
use crate::health::Health;
use crate::packages::PackageHandler;
use crate::saved::{Forgetful, SavedState, StateError, StateStore};
use crate::session::{Abilities, EndpointInfo, Input, Outbox, Session, Setup};

/// An agent to be. There is no way to announce a capability but to install what it takes.
#[must_use = "an agent begins with `start`"]
pub struct Builder {
    endpoint: String,
    fallbacks: Vec<String>,
    description: Description,
    health: Option<Health>,
    effective: Option<EffectiveConfig>,
    components: Option<Components>,
    signals: Vec<Signal>,
    opamp_settings: bool,
    policy: SettingsPolicy,
    capabilities: Result<(), CustomCapabilityError>,
    handlers: Handlers,
    headers: Vec<(String, String)>,
    basic: Option<(String, String)>,
    tokens: Option<Arc<dyn TokenSource>>,
    tls: Option<TlsSource>,
    proxy: Option<Proxy>,
    state: Option<Arc<dyn StateStore>>,
    settings: ClientSettings,
    clock: Option<Arc<dyn Clock>>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A custom capability has no name that it may have. Correct it.
    #[error(transparent)]
    CustomCapability(#[from] CustomCapabilityError),
    /// An endpoint is not one. Correct it.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A header cannot be sent. Correct it.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The system gave no random numbers. Try again.
    #[error("no random numbers: {0}")]
    Random(String),
    /// There is no tokio runtime here. Start the agent within one.
    #[error("an agent needs a tokio runtime to run in")]
    Runtime,
    /// The saved state cannot be read, or that of a new agent not written; its identity would be lost.
    #[error(transparent)]
    State(#[from] StateError),
    /// An endpoint has TLS, and nothing says whom to trust. Use [`Builder::tls`].
    #[error("{0} needs TLS; say which authorities are trusted")]
    TlsMissing(String),
}

/// Why [`Builder::probe`] did not reach the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The attempt failed. The failure says what to do.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It can never work as configured.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Builder {
    pub(crate) fn new(endpoint: &str, description: Description) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            fallbacks: Vec::new(),
            description,
            health: None,
            effective: None,
            components: None,
            signals: Vec::new(),
            opamp_settings: false,
            policy: SettingsPolicy::strict(),
            capabilities: Ok(()),
            handlers: Handlers::default(),
            headers: Vec::new(),
            basic: None,
            tokens: None,
            tls: None,
            proxy: None,
            state: None,
            settings: ClientSettings::default(),
            clock: None,
        }
    }

    /// Another endpoint, for when those before cannot be reached. The agent returns to the first when that is back; it does
    /// not look after others in between.
    pub fn fallback(mut self, endpoint: &str) -> Self {
        self.fallbacks.push(endpoint.to_owned());
        self
    }

    /// How the agent is at the start; announces ReportsHealth.
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// Who knows the configuration in use; announces ReportsEffectiveConfig.
    pub fn effective_config(mut self, provider: impl EffectiveConfigProvider) -> Self {
        self.handlers.effective_config = Some(Arc::new(provider));
        self
    }

    /// The configuration in use at the start, for agents that are told of changes and tell them on with
    /// [`Client::set_effective_config`]; announces ReportsEffectiveConfig.
    pub fn initial_effective_config(mut self, config: EffectiveConfig) -> Self {
        self.effective = Some(config);
        self
    }

    /// Who applies remote configurations; announces AcceptsRemoteConfig and ReportsRemoteConfig. Off without (R-SEC-09).
    pub fn on_remote_config(mut self, handler: impl RemoteConfigHandler) -> Self {
        self.handlers.remote_config = Some(Arc::new(handler));
        self
    }

    /// Who restarts the agent; announces AcceptsRestartCommand.
    pub fn on_restart(mut self, handler: impl RestartHandler) -> Self {
        self.handlers.restart = Some(Arc::new(handler));
        self
    }

    /// Takes settings of its connection to the server; announces AcceptsOpAMPConnectionSettings and
    /// ReportsConnectionSettingsStatus. Off without.
    ///
    /// Settings are tried by really connecting with them, and are in use only once the server has answered; whatever else
    /// happens, the agent goes back to those before (R-CONN-14). They are kept in the [state](Self::state) and used from the
    /// next start on, in place of the first endpoint, its credentials, TLS and proxy; fallbacks stay as they are. An agent
    /// that is configured with another first endpoint than when it was given them begins without them.
    pub fn accept_connection_settings(mut self, policy: SettingsPolicy) -> Self {
        self.opamp_settings = true;
        self.policy = policy;
        self
    }

    /// What no server may change about connections, for agents that take other settings than those of
    /// [`Builder::accept_connection_settings`]. Default: [`SettingsPolicy::strict`].
    pub fn connection_policy(mut self, policy: SettingsPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Who sends these signals of the agent's own telemetry where the server says; announces ReportsOwnMetrics,
    /// ReportsOwnTraces and ReportsOwnLogs accordingly.
    pub fn on_own_telemetry(
        mut self,
        signals: impl IntoIterator<Item = Signal>,
        handler: impl OwnTelemetryHandler,
    ) -> Self {
        self.signals = signals.into_iter().collect();
        self.handlers.own_telemetry = Some(Arc::new(handler));
        self
    }

    /// Who takes settings of connections that only the application knows; announces AcceptsOtherConnectionSettings.
    pub fn on_other_connections(mut self, handler: impl OtherConnectionsHandler) -> Self {
        self.handlers.other_connections = Some(Arc::new(handler));
        self
    }

    /// Who installs packages; announces AcceptsPackages and ReportsPackageStatuses.
    pub fn on_packages(mut self, handler: impl PackageHandler) -> Self {
        self.handlers.packages = Some(Arc::new(handler));
        self
    }

    /// Announces a custom capability, named by the reverse domain name of its owner, a dot and a short name, and perhaps `/`
    /// and a version (R-CUST-05); `handler` takes its messages.
    pub fn custom_capability(mut self, name: impl Into<String>, handler: impl CustomMessageHandler) -> Self {
        match super::client::checked_name(name.into()) {
            Ok(name) => {
                self.handlers.custom.insert(name, Arc::new(handler));
            }
            Err(error) => self.capabilities = self.capabilities.and(Err(error)),
        }
        self
    }

    /// What is built into the agent; announces ReportsAvailableComponents.
    pub fn available_components(mut self, components: Components) -> Self {
        self.components = Some(components);
        self
    }

    /// Who makes keys and requests for client certificates. The agent asks for one when the server takes requests and has
    /// not given one yet, before that expires, and on [`Client::request_certificate`](crate::Client::request_certificate). It
    /// needs [`Builder::accept_connection_settings`] to take the certificate.
    pub fn certificate_requests(mut self, requester: impl CertificateRequester) -> Self {
        self.handlers.certificates = Some(Arc::new(requester));
        self
    }

    /// Who is told what happens.
    pub fn on_event(mut self, handler: impl EventHandler) -> Self {
        self.handlers.event = Some(Arc::new(handler));
        self
    }

    /// A header sent with each request for a connection, and over HTTP with each request. It may hold a secret: it
    /// is never shown.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A bearer token that lasts (RFC 6750).
    pub fn bearer_token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// User name and password (RFC 7617).
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.basic = Some((user.into(), password.into()));
        self
    }

    /// Where bearer tokens come from that do not last. Asked again when the server refuses one.
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(Arc::new(source));
        self
    }

    /// Whom to trust, and what certificate to show. Needed for wss and https.
    pub fn tls(mut self, tls: TlsSource) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The proxy. Default: what the environment says, see [`Proxy::from_env`].
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Where identity and last configuration are kept over a restart, for example a [`FileState`](crate::FileState).
    /// Default: nowhere, so that each start is that of a new agent.
    pub fn state(mut self, store: impl StateStore + 'static) -> Self {
        self.state = Some(Arc::new(store));
        self
    }

    /// Intervals, limits and habits.
    pub fn settings(mut self, settings: ClientSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Where the time comes from. Default: the machine's clocks.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Starts the agent in the background. It goes on trying to reach its server until it is stopped.
    ///
    /// Reads the saved state, which may block for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`StartError`] if something about it can never work. That a server cannot be reached is not among it.
    pub fn start(mut self) -> Result<Client, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::Runtime)?;
        let connector = self.connector()?;
        let clock = Arc::clone(&connector.clock);
        let state = self.state.take().unwrap_or_else(|| Arc::new(Forgetful));
        let saved = match state.load()? {
            Some(saved) => saved,
            None => {
                let saved = SavedState::new(InstanceUid::v7(clock.now().wall.0, random()?));
                // Better no agent than one that is another with each start.
                state.save(&saved)?;
                saved
            }
        };

        let info = |endpoint: &Endpoint| {
            EndpointInfo::new(endpoint.to_string(), endpoint.transport).with_address(endpoint.url())
        };
        let uid = saved.uid;
        let session = Session::new(Setup {
            endpoint: info(&connector.endpoints[0]),
            fallbacks: connector.endpoints[1..].iter().map(info).collect(),
            abilities: Abilities {
                shows_certificate: connector.tls.as_ref().is_some_and(TlsSource::has_identity),
                ..self.abilities(state.is_durable())
            },
            description: self.description,
            saved,
            settings: self.settings.session.clone(),
            seed: u64::from_le_bytes(random()?),
        });
        let known = [
            self.health.map(Input::Health),
            self.effective.map(Input::EffectiveConfig),
            self.components.map(Input::AvailableComponents),
        ];
        let session = begin(session, known, &*clock);
        let client = Client::new(uid, Arc::clone(&clock), &self.settings.session);
        let shared = Arc::clone(&client.shared);
        for (name, handler) in std::mem::take(&mut self.handlers.custom) {
            shared.custom.change(name, Some(handler));
        }
        let lanes = Lanes::start(self.handlers, &shared, &connector.clock, &connector.settings);
        let connector = Offered::new(connector, self.policy);
        runtime.spawn(Driver::new(session, lanes, shared, connector, state).run());
        Ok(client)
    }

    /// Tries once whether the endpoint takes this agent, with everything it would use: name, proxy, TLS, credentials, and
    /// the upgrade over WebSocket, after which the connection is closed again. Over HTTP it is asked with GET. Nothing is
    /// said of the agent.
    ///
    /// Over TLS the handshake is a whole one, in which certificates are verified, whatever earlier sessions left behind.
    ///
    /// Takes at most [`connect_timeout`](crate::session::SessionSettings::connect_timeout) and
    /// [`close_timeout`](crate::session::SessionSettings::close_timeout). Fallbacks are not tried.
    ///
    /// # Errors
    ///
    /// [`ProbeError`]: why not.
    pub async fn probe(mut self) -> Result<(), ProbeError> {
        tokio::runtime::Handle::try_current().map_err(|_| StartError::Runtime)?;
        if let Some(source) = self.tls.take() {
            let clock = self.clock.get_or_insert_with(|| Arc::new(SystemClock::new()));
            let timeout = self.settings.session.connect_timeout;
            let too_late = clock.sleep_until(clock.now().mono + timeout);
            self.tls = Some(tokio::select! {
                source = source.without_resumption() => source,
                () = too_late => return Err(Failure::no_connection_within(timeout).into()),
            });
        }
        Ok(Arc::new(self.connector()?).try_out(0, Rigour::TakesTheAgent).await?)
    }

    /// Whether everything about reaching the server can work: what [`Builder::start`] would refuse, it refuses here.
    ///
    /// # Errors
    ///
    /// [`StartError`]: what is wrong.
    pub fn check(&self) -> Result<(), StartError> {
        self.addressed().map(drop)
    }

    fn abilities(&self, durable: bool) -> Abilities {
        let handlers = &self.handlers;
        let takes = |signal| handlers.own_telemetry.is_some() && self.signals.contains(&signal);
        Abilities {
            certificates: handlers.certificates.is_some() && self.opamp_settings,
            certificates_name_identity: handlers
                .certificates
                .as_ref()
                .is_some_and(|made| made.names_identity()),
            durable,
            opamp_settings: self.opamp_settings,
            other_connections: handlers.other_connections.is_some(),
            own_logs: takes(Signal::Logs),
            own_metrics: takes(Signal::Metrics),
            own_traces: takes(Signal::Traces),
            packages: handlers.packages.is_some(),
            policy: self.policy,
            remote_config: handlers.remote_config.is_some(),
            restart: handlers.restart.is_some(),
            shows_certificate: false,
        }
    }

    fn addressed(&self) -> Result<(Vec<Endpoint>, Credentials), StartError> {
        self.capabilities.clone()?;
        let mut endpoints = vec![Endpoint::parse(&self.endpoint)?];
        for fallback in &self.fallbacks {
            endpoints.push(Endpoint::parse(fallback)?);
        }
        if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.tls && self.tls.is_none()) {
            return Err(StartError::TlsMissing(endpoint.to_string()));
        }
        let mut credentials = Credentials::new();
        for (name, value) in &self.headers {
            credentials.add(name, value)?;
        }
        if let Some((user, password)) = &self.basic {
            credentials.add_basic(user, password)?;
        }
        Ok((endpoints, credentials))
    }

    /// How the server is reached. Takes what it needs out of the builder.
    fn connector(&mut self) -> Result<Connector, StartError> {
        let (endpoints, mut credentials) = self.addressed()?;
        if let Some(tokens) = self.tokens.take() {
            credentials.set_tokens(tokens);
        }
        Ok(Connector {
            endpoints,
            tls: self.tls.take(),
            proxy: self.proxy.take().unwrap_or_default(),
            credentials,
            settings: self.settings.clone(),
            clock: self.clock.take().unwrap_or_else(|| Arc::new(SystemClock::new())),
        })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("endpoint", &Endpoint::parse(&self.endpoint))
            .field("description", &self.description)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Tells a session what is known before it starts; nothing comes of it yet.
fn begin<'a>(
    mut session: Session,
    known: impl IntoIterator<Item = Option<Input<'a>>>,
    clock: &dyn Clock,
) -> Session {
    let mut out = Outbox::new();
    for input in known.into_iter().flatten() {
        // A session that has not begun has not stopped.
        let _ = session.handle(input, clock.now(), &mut out);
    }
    session
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Random(error.to_string()))?;
    Ok(bytes)
}
