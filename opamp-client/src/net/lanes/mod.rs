//! Where handlers run: apart from the driver, and apart from each other, so that none holds up another.

mod certificates;
mod connections;
mod custom;
mod events;
mod packages;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opamp_proto::ConfigHash;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::connections::ConnectionJob;
use self::custom::CustomLanes;
use self::events::EventQueue;
use self::packages::PackageLane;
use super::client::Shared;
use super::clock::Clock;
use super::handler::{
    CertificateRequester, CustomMessageHandler, EffectiveConfigProvider, EventHandler,
    OtherConnectionsHandler, OwnTelemetryHandler, RemoteConfigHandler, RestartHandler,
};
use super::settings::ClientSettings;
use crate::config::{EffectiveConfig, Rejected, RemoteConfig};
use crate::connection::CertificateSigningRequest;
use crate::event::Event;
use crate::packages::{PackageHandler, PackageStatuses, PackagesRejected};
use crate::session::ConnectionPart;

/// How long the outcome of a configuration waits for the effective one, to be reported with it.
const PROMPT: Duration = Duration::from_millis(100);

/// The handlers that are installed.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) certificates: Option<Arc<dyn CertificateRequester>>,
    pub(crate) custom: BTreeMap<String, Arc<dyn CustomMessageHandler>>,
    pub(crate) effective_config: Option<Arc<dyn EffectiveConfigProvider>>,
    pub(crate) event: Option<Arc<dyn EventHandler>>,
    pub(crate) other_connections: Option<Arc<dyn OtherConnectionsHandler>>,
    pub(crate) own_telemetry: Option<Arc<dyn OwnTelemetryHandler>>,
    pub(crate) packages: Option<Arc<dyn PackageHandler>>,
    pub(crate) remote_config: Option<Arc<dyn RemoteConfigHandler>>,
    pub(crate) restart: Option<Arc<dyn RestartHandler>>,
}

/// What handlers came to.
pub(crate) enum Outcome {
    Certificate(Result<CertificateSigningRequest, Rejected>),
    Config {
        hash: ConfigHash,
        result: Result<(), Rejected>,
        effective: Option<EffectiveConfig>,
    },
    Connections {
        hash: ConfigHash,
        failed: Vec<(ConnectionPart, Rejected)>,
    },
    Effective(EffectiveConfig),
    /// What is installed at the start, if anybody knows.
    Installed(Option<PackageStatuses>),
    PackageStatuses(PackageStatuses),
    Packages {
        hash: ConfigHash,
        result: Result<(), PackagesRejected>,
    },
    /// The provider was asked and has failed.
    NoEffective,
}

/// The tasks of the handlers. They end when this is dropped and what they are doing is done.
pub(crate) struct Lanes {
    common: Arc<Common>,
    /// At most one configuration at a time, which the session sees to, and what was asked beside.
    jobs: mpsc::UnboundedSender<Job>,
    /// At most one at a time, which the session sees to, and what was there at the start.
    connections: mpsc::UnboundedSender<ConnectionJob>,
    custom: CustomLanes,
    packages: PackageLane,
    told: mpsc::UnboundedSender<Outcome>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
}

/// What the tasks have in common.
struct Common {
    shared: Arc<Shared>,
    handlers: Handlers,
    clock: Arc<dyn Clock>,
    handler_timeout: Duration,
    provider_timeout: Duration,
    package_timeout: Duration,
    events: EventQueue,
    restarting: AtomicBool,
    refreshing: AtomicBool,
    /// A configuration handler that was given up and has not ended, because it blocks instead of waiting.
    stuck: Mutex<Option<JoinHandle<Result<(), Rejected>>>>,
}

enum Job {
    Apply(RemoteConfig),
    Refresh,
}

impl Lanes {
    pub(crate) fn start(
        mut handlers: Handlers,
        shared: &Arc<Shared>,
        clock: &Arc<dyn Clock>,
        settings: &ClientSettings,
    ) -> Self {
        let packages = PackageLane::new(handlers.packages.take());
        let (jobs, received) = mpsc::unbounded_channel();
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let common = Arc::new(Common {
            shared: Arc::clone(shared),
            handlers,
            clock: Arc::clone(clock),
            handler_timeout: settings.handler_timeout,
            provider_timeout: settings.provider_timeout,
            package_timeout: settings.package_timeout,
            events: EventQueue::new(settings.events_kept),
            restarting: AtomicBool::new(false),
            refreshing: AtomicBool::new(false),
            stuck: Mutex::new(None),
        });
        let (connections, changes) = mpsc::unbounded_channel();
        let told = outcome.clone();
        tokio::spawn(Arc::clone(&common).connect(changes, outcome.clone()));
        tokio::spawn(Arc::clone(&common).work(received, outcome));
        if let Some(handler) = common.handlers.event.clone() {
            tokio::spawn(Arc::clone(&common).tell(handler));
        }
        let custom = CustomLanes::new(settings.custom_kept, settings.custom_kept_bytes);
        Self { common, jobs, connections, custom, packages, told, outcomes }
    }

    pub(crate) fn apply(&self, config: RemoteConfig) {
        // The task lives as long as this.
        let _ = self.jobs.send(Job::Apply(config));
    }

    /// Asks for the effective configuration; whether there is anybody to ask.
    pub(crate) fn refresh(&self) -> bool {
        if self.common.handlers.effective_config.is_none() {
            return false;
        }
        if !self.common.refreshing.swap(true, Ordering::AcqRel) {
            let _ = self.jobs.send(Job::Refresh);
        }
        true
    }

    pub(crate) fn restart(&self) {
        let Some(handler) = self.common.handlers.restart.clone() else { return };
        if self.common.restarting.swap(true, Ordering::AcqRel) {
            return;
        }
        let common = Arc::clone(&self.common);
        tokio::spawn(async move {
            let client = common.shared.client();
            let restarting = async move { handler.restart(client).await };
            // How it ended is told already, if it was not as it should.
            let (_, left) = common.run("restart", common.handler_timeout, restarting).await;
            if let Some(left) = left {
                // It blocks; another one beside it would do no good.
                let _ = left.await;
            }
            common.restarting.store(false, Ordering::Release);
        });
    }

    pub(crate) fn event(&self, event: Event) {
        self.common.event(event);
    }

    pub(crate) fn events_dropped(&self) -> u64 {
        self.common.events.dropped()
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.common.events.close();
    }
}

impl Common {
    fn event(&self, event: Event) {
        if event.is_warning() {
            tracing::warn!("{event}");
        } else {
            tracing::info!("{event}");
        }
        if self.handlers.event.is_some() {
            self.events.push(event);
        }
    }

    async fn tell(self: Arc<Self>, handler: Arc<dyn EventHandler>) {
        while let Some(event) = self.events.next().await {
            let (handler, client) = (Arc::clone(&handler), self.shared.client());
            if tokio::spawn(async move { handler.event(event, client).await }).await.is_err() {
                // Not told to the one who panics at what he is told.
                tracing::error!("the event handler of this agent panicked");
            }
        }
    }

    async fn work(
        self: Arc<Self>,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        outcomes: mpsc::UnboundedSender<Outcome>,
    ) {
        // The driver may end meanwhile; then nobody is interested.
        let tell = |outcome| drop(outcomes.send(outcome));
        while let Some(job) = jobs.recv().await {
            if outcomes.is_closed() {
                return;
            }
            match job {
                Job::Apply(config) => {
                    let hash = config.hash().clone();
                    let result = self.apply(config, &outcomes).await;
                    // In one report if the provider is quick; but what became of the configuration waits for nobody.
                    let mut effective = pin!(self.effective());
                    let prompt = self.clock.sleep_until(self.clock.now().mono + PROMPT);
                    tokio::select! {
                        biased;
                        effective = &mut effective => tell(Outcome::Config { hash, result, effective }),
                        () = prompt => {
                            tell(Outcome::Config { hash, result, effective: None });
                            effective.await.map(Outcome::Effective).map(tell);
                        }
                    }
                }
                Job::Refresh => {
                    self.refreshing.store(false, Ordering::Release);
                    tell(self.effective().await.map_or(Outcome::NoEffective, Outcome::Effective));
                }
            }
        }
    }

    async fn apply(
        &self,
        config: RemoteConfig,
        outcomes: &mpsc::UnboundedSender<Outcome>,
    ) -> Result<(), Rejected> {
        let Some(handler) = self.handlers.remote_config.clone() else {
            return Err(Rejected::new("this agent takes no remote configuration"));
        };
        let failed = |why: &str| {
            Rejected::new(format!("the agent failed while it applied the configuration: it {why}"))
        };
        let too_late = self.clock.sleep_until(self.clock.now().mono + self.handler_timeout);
        // One at a time, also if the one before cannot be stopped.
        let before = self.stuck().take();
        if let Some(mut before) = before {
            tokio::select! {
                biased;
                // The agent has ended, and another may apply this by now.
                () = outcomes.closed() => return Err(failed("has ended")),
                _ = &mut before => {}
                () = too_late => {
                    *self.stuck() = Some(before);
                    return Err(failed("is still at work on an earlier one"));
                }
            }
        }
        let client = self.shared.client();
        let applying = async move { handler.apply(config, client).await };
        let (ended, task) = self.run("remote config", self.handler_timeout, applying).await;
        *self.stuck() = task;
        ended.unwrap_or_else(|why| Err(failed(&why)))
    }

    fn stuck(&self) -> MutexGuard<'_, Option<JoinHandle<Result<(), Rejected>>>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn effective(&self) -> Option<EffectiveConfig> {
        let provider = self.handlers.effective_config.clone()?;
        let providing = async move { provider.effective_config().await };
        self.run("effective config", self.provider_timeout, providing).await.0.ok()
    }

    /// Runs a handler in a task of its own, so that neither its panic nor its silence is ours. A task that was given up ends
    /// where it waits next, and is returned.
    async fn run<T: Send + 'static>(
        &self,
        handler: &'static str,
        timeout: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> (Result<T, String>, Option<JoinHandle<T>>) {
        let mut task = tokio::spawn(future);
        let too_late = self.clock.sleep_until(self.clock.now().mono + timeout);
        let (why, left) = tokio::select! {
            biased;
            done = &mut task => match done {
                Ok(done) => return (Ok(done), None),
                Err(_) => ("panicked".to_owned(), None),
            },
            () = too_late => {
                task.abort();
                (format!("did not end within {} s", timeout.as_secs()), Some(task))
            }
        };
        self.event(Event::HandlerFailed { handler, why: why.clone() });
        (Err(why), left)
    }
}
