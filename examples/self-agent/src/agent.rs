//! One run of an agent, from a configuration to its goodbye.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opamp_client::connection::Signal;
use opamp_client::packages::Installer;
use opamp_client::{
    Builder, Client, Clock as _, Description, EffectiveConfig, OfferStatus, SavedOffer, StartError,
    StateError, SystemClock, TlsSource,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::components::components;
use crate::config::{Config, ConfigError};
use crate::connection::TokenFile;
use crate::description::description;
use crate::diagnostics::{self, Diagnostics};
use crate::health;
use crate::live::{Live, Troubles};
use crate::logging::LogLevel;
use crate::own_metrics::{Destination, OwnMetrics};
use crate::packages;
use crate::remote::RemoteSettings;
use crate::storage::{Outcome, Storage};

/// How long packages may take to come to rest before somebody is told.
const AT_REST_SOON: Duration = Duration::from_secs(1);

/// A configuration that has been read with all its files.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) config: Config,
    tls: Option<TlsSource>,
}

/// An agent that runs.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) live: Arc<Live>,
    tasks: Vec<JoinHandle<()>>,
    packages: Option<Installer>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// What an earlier run left.
struct Inherited {
    effective: Config,
    remote_trouble: Option<String>,
    outcome: Outcome,
}

impl Plan {
    pub(crate) fn read(file: &std::path::Path) -> Result<Self, ConfigError> {
        let config = Config::load(file)?;
        let tls = config.tls()?;
        Ok(Self { config, tls })
    }

    /// Whether an agent could start by it, and connect. A token may come later, which the start waits for and this does not.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        if let Some(file) = &self.config.server.bearer_token_file {
            let usable = TokenFile(file.clone()).read();
            usable.map_err(|why| self.config.error("server.bearer_token_file", why))?;
        }
        if self.config.capabilities.packages {
            self.config.package_policy()?;
        }
        Ok(self.reaching(description(&self.config))?.check()?)
    }

    /// An agent that knows how to reach its server, and nothing else yet.
    fn reaching(&self, description: Description) -> Result<Builder, ConfigError> {
        let (config, server) = (&self.config, &self.config.server);
        let mut builder = Client::builder(server.endpoint.reveal(), description)
            .settings(config.client_settings())
            .proxy(config.proxy()?);
        for fallback in &server.fallback_endpoints {
            builder = builder.fallback(fallback.reveal());
        }
        for (name, value) in &server.headers {
            builder = builder.header(name, value.reveal());
        }
        if let Some(file) = &server.bearer_token_file {
            builder = builder.token_source(TokenFile(file.clone()));
        }
        if let Some(tls) = &self.tls {
            builder = builder.tls(tls.clone());
        }
        Ok(builder)
    }
}

impl Agent {
    /// Starts an agent. `restarts` is told when the server wants it to start anew.
    pub(crate) async fn start(
        plan: &Plan,
        storage: &Arc<Storage>,
        log: &LogLevel,
        file_trouble: Option<String>,
        restarts: mpsc::Sender<()>,
    ) -> Result<Self, AgentError> {
        let config = &plan.config;
        config.warn_of_plain_text();
        let Inherited { effective, remote_trouble, outcome } = inherit(config, storage)?;
        let troubles = Troubles { configuration: file_trouble, remote_config: remote_trouble };
        let started = SystemClock::new().now().wall;
        let description = description(&effective);
        let (local, tls, storage) = (config.clone(), plan.tls.clone(), Arc::clone(storage));
        let live = Arc::new(Live::new(local, effective, tls, storage, log.clone(), started, troubles));

        let mut builder = plan.reaching(description)?.state(live.storage.state(outcome));
        let capabilities = &config.capabilities;
        if capabilities.effective_config {
            let live = Arc::clone(&live);
            builder = builder.effective_config(move || {
                let document: EffectiveConfig = live.effective_document();
                async move { document }
            });
        }
        if capabilities.remote_config {
            builder = builder.on_remote_config(RemoteSettings(Arc::clone(&live)));
        }
        if capabilities.restart {
            builder = builder.on_restart(move |_: Client| {
                // One that waits already is enough.
                let _ = restarts.try_send(());
                async {}
            });
        }
        if capabilities.health {
            builder = builder.health(health::check(&live));
        }
        let policy = config.settings_policy();
        builder = builder.connection_policy(policy);
        if capabilities.opamp_settings {
            builder = builder.accept_connection_settings(policy);
        }
        let own_metrics = if capabilities.own_metrics {
            let own = OwnMetrics::new(plan.tls.clone(), config.proxy()?, policy);
            builder = builder.on_own_telemetry([Signal::Metrics], Destination(Arc::clone(&own)));
            Some(own)
        } else {
            None
        };
        let mut installer = None;
        if capabilities.packages {
            let opened = packages::open(config, plan.tls.as_ref()).await?;
            builder = builder.on_packages(opened.clone());
            installer = Some(opened);
        }
        if capabilities.components {
            builder = builder.available_components(components(config));
        }
        if capabilities.diagnostics {
            builder = builder.custom_capability(diagnostics::CAPABILITY, Diagnostics);
        }
        let client = builder.start()?;
        tracing::info!("agent {} started", client.uid());
        let mut tasks = Vec::new();
        if capabilities.health {
            tasks.push(tokio::spawn(health::watch(Arc::clone(&live), client.clone())));
        }
        if let Some(own) = own_metrics {
            tasks.push(tokio::spawn(own.run(Arc::clone(&live), client.clone())));
        }
        Ok(Self { client, live, tasks, packages: installer })
    }

    /// Says goodbye and waits until that is done, which is bounded by `server.timeouts.stop`. An installation that is being
    /// taken back goes on after that.
    pub(crate) async fn stop(&self) {
        self.client.stop();
        self.client.stopped().await;
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Waits, after the goodbye, until nothing is done to packages any more, and lets go of them: the commands in the
    /// configuration file may take their time to put the version before back into use.
    pub(crate) async fn release(self) {
        let Some(installer) = self.packages else { return };
        let mut resting = pin!(installer.statuses());
        if tokio::time::timeout(AT_REST_SOON, &mut resting).await.is_err() {
            tracing::info!(
                "packages are still being put back as they were; waiting for that before starting anew"
            );
            resting.await;
        }
    }
}

/// What the storage directory says about the last remote configuration, and whether it is still true.
fn inherit(config: &Config, storage: &Storage) -> Result<Inherited, AgentError> {
    let saved = storage.saved()?;
    if saved.is_none() && !matches!(storage.remote(), Ok(None)) {
        tracing::info!("this is a new agent; the remote configuration of the one before is removed");
        if let Err(error) = storage.forget_remote() {
            tracing::warn!("it cannot be removed, and counts nevertheless as none: {error}");
            return Ok(Inherited {
                effective: config.clone(),
                remote_trouble: None,
                outcome: Outcome::Forgotten,
            });
        }
    }
    let status = saved.and_then(|saved| saved.remote_config);
    let mut inherited =
        Inherited { effective: config.clone(), remote_trouble: None, outcome: Outcome::AsSaved };
    let kept = storage.remote();
    if !config.capabilities.remote_config {
        if matches!(kept, Ok(Some(_))) {
            tracing::info!(
                "the remote configuration kept from before is not used: remote configuration is off"
            );
        }
        return Ok(inherited);
    }
    let mut in_force = None;
    match kept {
        Ok(None) => {}
        Ok(Some(kept)) => match config.with_remote(&kept.text) {
            Ok(effective) => {
                inherited.effective = effective;
                in_force = Some(kept.hash);
            }
            Err(error) => {
                inherited.remote_trouble = Some(format!("the one kept from before cannot be used: {error}"));
            }
        },
        Err(why) => {
            inherited.remote_trouble = Some(format!("the one kept from before cannot be read: {why}"))
        }
    }
    if let Some(why) = &inherited.remote_trouble {
        tracing::warn!(
            "remote configuration: {why}; the agent runs by its file alone until the server sends it again"
        );
        inherited.outcome = Outcome::Forgotten;
    }
    match status {
        // Keeping it was what put it in force; the run ended before it could save that.
        Some(saved) if in_force.as_ref() == Some(&saved.hash) => {
            inherited.outcome = Outcome::Applied;
            if saved.status != OfferStatus::Applied {
                tracing::info!(
                    "remote configuration {} was kept when the last run ended; it is applied",
                    saved.hash
                );
            }
        }
        Some(SavedOffer { status: OfferStatus::Applied, .. }) => inherited.outcome = Outcome::Forgotten,
        Some(SavedOffer { status: OfferStatus::Failed, error, .. })
            if inherited.outcome == Outcome::AsSaved =>
        {
            inherited.remote_trouble = Some(error);
        }
        _ => {}
    }
    Ok(inherited)
}
