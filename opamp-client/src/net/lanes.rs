//! Where handlers run: apart from the driver, and apart from each other, so that none holds up another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use opamp_proto::ConfigHash;
use tokio::sync::{Notify, mpsc};

use super::client::Shared;
use super::handler::{EffectiveConfigProvider, EventHandler, RemoteConfigHandler, RestartHandler};
use crate::config::{EffectiveConfig, Rejected, RemoteConfig};
use crate::event::Event;

/// The handlers that are installed.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) effective_config: Option<Arc<dyn EffectiveConfigProvider>>,
    pub(crate) event: Option<Arc<dyn EventHandler>>,
    pub(crate) remote_config: Option<Arc<dyn RemoteConfigHandler>>,
    pub(crate) restart: Option<Arc<dyn RestartHandler>>,
}

/// What handlers came to.
pub(crate) enum Outcome {
    Config {
        hash: ConfigHash,
        result: Result<(), Rejected>,
        effective: Option<EffectiveConfig>,
    },
    Effective(EffectiveConfig),
    /// The provider was asked and has failed.
    NoEffective,
}

/// The tasks of the handlers. They end when this is dropped and what they are doing is done.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    handlers: Handlers,
    /// At most one configuration at a time, which the session sees to, and what was asked beside.
    jobs: mpsc::UnboundedSender<Job>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
    events: Arc<EventQueue>,
    restarting: Arc<AtomicBool>,
    refreshing: Arc<AtomicBool>,
}

enum Job {
    Apply(RemoteConfig),
    Refresh,
}

/// Events that wait for a handler: bounded, the oldest go first.
struct EventQueue {
    waiting: Mutex<VecDeque<Event>>,
    capacity: usize,
    dropped: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl Lanes {
    pub(crate) fn start(handlers: Handlers, shared: &Arc<Shared>, events_kept: usize) -> Self {
        let (jobs, received) = mpsc::unbounded_channel();
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let refreshing = Arc::new(AtomicBool::new(false));
        tokio::spawn(work(handlers.clone(), Arc::clone(shared), received, outcome, Arc::clone(&refreshing)));
        let events = Arc::new(EventQueue {
            waiting: Mutex::default(),
            capacity: events_kept.max(1),
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        });
        if let Some(handler) = &handlers.event {
            tokio::spawn(tell(Arc::clone(handler), Arc::clone(shared), Arc::clone(&events)));
        }
        let (shared, restarting) = (Arc::clone(shared), Arc::default());
        Self { shared, handlers, jobs, outcomes, events, restarting, refreshing }
    }

    pub(crate) fn apply(&self, config: RemoteConfig) {
        // The task lives as long as this.
        let _ = self.jobs.send(Job::Apply(config));
    }

    /// Asks for the effective configuration; whether there is anybody to ask.
    pub(crate) fn refresh(&self) -> bool {
        if self.handlers.effective_config.is_none() {
            return false;
        }
        if !self.refreshing.swap(true, Ordering::AcqRel) {
            let _ = self.jobs.send(Job::Refresh);
        }
        true
    }

    pub(crate) fn restart(&self) {
        let Some(handler) = self.handlers.restart.clone() else { return };
        if self.restarting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (client, restarting) = (self.shared.client(), Arc::clone(&self.restarting));
        tokio::spawn(async move {
            let done = tokio::spawn(async move { handler.restart(client).await }).await;
            if done.is_err() {
                tracing::error!("the restart handler panicked");
            }
            restarting.store(false, Ordering::Release);
        });
    }

    pub(crate) fn event(&self, event: Event) {
        if event.is_warning() {
            tracing::warn!("{event}");
        } else {
            tracing::info!("{event}");
        }
        if self.handlers.event.is_some() {
            self.events.push(event);
        }
    }

    pub(crate) fn events_dropped(&self) -> u64 {
        self.events.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.events.closed.store(true, Ordering::Release);
        self.events.changed.notify_one();
    }
}

impl EventQueue {
    fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.capacity {
            waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(event);
        drop(waiting);
        self.changed.notify_one();
    }

    /// The next event; `None` when there will be no more.
    async fn next(&self) -> Option<Event> {
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if next.is_some() || closed {
                return next;
            }
            self.changed.notified().await;
        }
    }
}

async fn tell(handler: Arc<dyn EventHandler>, shared: Arc<Shared>, events: Arc<EventQueue>) {
    while let Some(event) = events.next().await {
        let (handler, client) = (Arc::clone(&handler), shared.client());
        if tokio::spawn(async move { handler.event(event, client).await }).await.is_err() {
            tracing::error!("the event handler panicked");
        }
    }
}

async fn work(
    handlers: Handlers,
    shared: Arc<Shared>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    refreshing: Arc<AtomicBool>,
) {
    while let Some(job) = jobs.recv().await {
        let outcome = match job {
            Job::Apply(config) => {
                let hash = config.hash().clone();
                let result = apply(&handlers, config, &shared).await;
                Outcome::Config { hash, result, effective: effective(&handlers).await }
            }
            Job::Refresh => {
                refreshing.store(false, Ordering::Release);
                effective(&handlers).await.map_or(Outcome::NoEffective, Outcome::Effective)
            }
        };
        // The driver may have ended meanwhile; then nobody is interested.
        let _ = outcomes.send(outcome);
    }
}

async fn apply(handlers: &Handlers, config: RemoteConfig, shared: &Arc<Shared>) -> Result<(), Rejected> {
    let Some(handler) = handlers.remote_config.clone() else {
        return Err(Rejected::new("this agent takes no remote configuration"));
    };
    let client = shared.client();
    let applied = tokio::spawn(async move { handler.apply(config, client).await }).await;
    applied.unwrap_or_else(|_| Err(Rejected::new("the agent failed while it applied the configuration")))
}

async fn effective(handlers: &Handlers) -> Option<EffectiveConfig> {
    let provider = handlers.effective_config.clone()?;
    let provided = tokio::spawn(async move { provider.effective_config().await }).await;
    if provided.is_err() {
        tracing::error!("the provider of the effective configuration panicked");
    }
    provided.ok()
}
