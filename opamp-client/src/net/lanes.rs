//! Where handlers run: apart from the driver, and apart from each other, so that none holds up another.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opamp_proto::ConfigHash;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::client::Shared;
use super::clock::Clock;
use super::handler::{EffectiveConfigProvider, EventHandler, RemoteConfigHandler, RestartHandler};
use super::settings::ClientSettings;
use crate::config::{EffectiveConfig, Rejected, RemoteConfig};
use crate::event::Event;

/// How long the outcome of a configuration waits for the effective one, to be reported with it.
const PROMPT: Duration = Duration::from_millis(100);

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
    common: Arc<Common>,
    /// At most one configuration at a time, which the session sees to, and what was asked beside.
    jobs: mpsc::UnboundedSender<Job>,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
}

/// What the tasks have in common.
struct Common {
    shared: Arc<Shared>,
    handlers: Handlers,
    clock: Arc<dyn Clock>,
    handler_timeout: Duration,
    provider_timeout: Duration,
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

/// Events that wait for a handler: bounded, the oldest go first.
struct EventQueue {
    waiting: Mutex<VecDeque<Event>>,
    capacity: usize,
    dropped: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl Lanes {
    pub(crate) fn start(
        handlers: Handlers,
        shared: &Arc<Shared>,
        clock: &Arc<dyn Clock>,
        settings: &ClientSettings,
    ) -> Self {
        let (jobs, received) = mpsc::unbounded_channel();
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let common = Arc::new(Common {
            shared: Arc::clone(shared),
            handlers,
            clock: Arc::clone(clock),
            handler_timeout: settings.handler_timeout,
            provider_timeout: settings.provider_timeout,
            events: EventQueue {
                waiting: Mutex::default(),
                capacity: settings.events_kept.max(1),
                dropped: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                changed: Notify::new(),
            },
            restarting: AtomicBool::new(false),
            refreshing: AtomicBool::new(false),
            stuck: Mutex::new(None),
        });
        tokio::spawn(Arc::clone(&common).work(received, outcome));
        if let Some(handler) = common.handlers.event.clone() {
            tokio::spawn(Arc::clone(&common).tell(handler));
        }
        Self { common, jobs, outcomes }
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
        self.common.events.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.common.events.closed.store(true, Ordering::Release);
        self.common.events.changed.notify_one();
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
