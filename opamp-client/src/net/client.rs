//! The application's side of a running agent.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_proto::{InstanceUid, Mono};
use tokio::sync::{Notify, watch};

use super::board::Board;
use super::builder::Builder;
use super::clock::Clock;
use super::handler::CustomMessageHandler;
use crate::components::Components;
use crate::config::EffectiveConfig;
use crate::custom::{CustomCapabilityError, CustomMessage, SendCustomError};
use crate::description::Description;
use crate::health::Health;
use crate::session::{SessionSettings, Stopped};
use crate::stats::Stats;

/// A running agent, as the application sees it. Cheap to clone.
///
/// What it is told is kept until it can be reported, newest first: nothing here waits for the network, and nothing
/// is queued without bound. When the last clone outside of handlers is dropped the agent stops, as with [`Client::stop`].
#[derive(Clone)]
#[must_use = "dropping the last clone stops the agent"]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    /// Clones inside handlers have none: they alone do not keep the agent running.
    _lease: Option<Arc<Lease>>,
}

/// What client and driver share.
pub(crate) struct Shared {
    pending: Mutex<Pending>,
    changed: Notify,
    published: Mutex<Published>,
    finished: watch::Sender<bool>,
    pub(crate) custom: Board,
    clock: Arc<dyn Clock>,
}

/// What the driver has not taken yet: the newest of each kind.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) certificate: bool,
    pub(crate) components: Option<Components>,
    pub(crate) description: Option<Description>,
    pub(crate) effective: Option<EffectiveConfig>,
    pub(crate) health: Option<Health>,
    pub(crate) reconnect: bool,
    pub(crate) refresh: bool,
    pub(crate) stop: bool,
    /// Taken over by the driver: nothing is accepted after it.
    pub(crate) stopped: bool,
}

struct Published {
    uid: InstanceUid,
    stats: Stats,
    at: Mono,
}

struct Lease(Arc<Shared>);

impl Client {
    /// Begins an agent that reports to an endpoint: a URL of scheme ws, wss, http or https. Its path is `/v1/opamp`
    /// unless it has another.
    ///
    /// What else the agent is and can do follows from what is installed on the builder.
    pub fn builder(endpoint: &str, description: Description) -> Builder {
        Builder::new(endpoint, description)
    }

    /// Describes the agent anew.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is reported any more.
    pub fn set_description(&self, description: Description) -> Result<(), Stopped> {
        self.tell(|pending| pending.description = Some(description))
    }

    /// Says how the agent is. From the first time on the capability ReportsHealth is announced. Changes that follow each
    /// other closely are reported as one, see
    /// [`SessionSettings::health_debounce`](crate::session::SessionSettings::health_debounce).
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is reported any more.
    pub fn set_health(&self, health: Health) -> Result<(), Stopped> {
        self.tell(|pending| pending.health = Some(health))
    }

    /// Says which configuration is in use, for agents that learn of it by being told. From the first time on the
    /// capability ReportsEffectiveConfig is announced.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is reported any more.
    pub fn set_effective_config(&self, config: EffectiveConfig) -> Result<(), Stopped> {
        self.tell(|pending| pending.effective = Some(config))
    }

    /// Asks the installed [`EffectiveConfigProvider`](crate::EffectiveConfigProvider) again; without one, nothing.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is reported any more.
    pub fn refresh_effective_config(&self) -> Result<(), Stopped> {
        self.tell(|pending| pending.refresh = true)
    }

    /// Says what is built into the agent. From the first time on the capability ReportsAvailableComponents is announced. A
    /// list too large for a message is told in an [`Event::Discarded`](crate::Event::Discarded) when the server asks for it.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is reported any more.
    pub fn set_available_components(&self, components: Components) -> Result<(), Stopped> {
        self.tell(|pending| pending.components = Some(components))
    }

    /// Sends a custom message, after those that wait already, one with each message of the agent. At most once: what was
    /// under way when a connection ended is not sent again if it may have arrived.
    ///
    /// # Errors
    ///
    /// [`SendCustomError`]: it will not be sent.
    pub fn send_custom(&self, message: CustomMessage) -> Result<(), SendCustomError> {
        let mut sent = Ok(());
        self.tell(|_| sent = self.shared.custom.send(message))?;
        sent
    }

    /// Announces one more custom capability, or changes the handler of one.
    ///
    /// # Errors
    ///
    /// [`CustomCapabilityError`]: it is not announced.
    pub fn add_custom_capability(
        &self,
        name: impl Into<String>,
        handler: impl CustomMessageHandler,
    ) -> Result<(), CustomCapabilityError> {
        let name = checked_name(name.into())?;
        self.tell(|_| self.shared.custom.change(name, Some(Arc::new(handler))))?;
        Ok(())
    }

    /// Announces a custom capability no longer. What has arrived is still handed to its handler.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is announced any more.
    pub fn remove_custom_capability(&self, name: &str) -> Result<(), Stopped> {
        self.tell(|_| self.shared.custom.change(name.to_owned(), None))
    }

    /// Asks the server for a client certificate, as soon as it can be asked: when it is reached and announces
    /// AcceptsConnectionSettingsRequest. Nothing without a
    /// [`CertificateRequester`](crate::CertificateRequester).
    ///
    /// # Errors
    ///
    /// [`Stopped`]: nothing is asked for any more.
    pub fn request_certificate(&self) -> Result<(), Stopped> {
        self.tell(|pending| pending.certificate = true)
    }

    /// Leaves the server in good order and connects anew, with what certificates and tokens are now. An agent that waits for
    /// its next attempt makes it now, unless the server is overloaded and asked to be left alone.
    ///
    /// # Errors
    ///
    /// [`Stopped`]: there is nothing to reconnect.
    pub fn reconnect(&self) -> Result<(), Stopped> {
        self.tell(|pending| pending.reconnect = true)
    }

    /// Stops the agent: it reports what has changed, says goodbye, closes its connection and ends, within
    /// [`SessionSettings::stop_timeout`](crate::session::SessionSettings::stop_timeout) and
    /// [`close_timeout`](crate::session::SessionSettings::close_timeout). Does not wait for that; see
    /// [`Client::stopped`]. Works from anywhere, also from within a handler, and more than once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits until the agent has ended. Handlers that are still running are not waited for.
    pub async fn stopped(&self) {
        let mut finished = self.shared.finished.subscribe();
        // The sender lives as long as `self`.
        let _ = finished.wait_for(|finished| *finished).await;
    }

    /// The identity in use. The server may change it.
    #[must_use]
    pub fn uid(&self) -> InstanceUid {
        self.shared.published().uid
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let published = self.shared.published();
        let mut stats = published.stats;
        if stats.is_connected {
            stats.connected += self.shared.clock.now().mono - published.at;
        }
        stats
    }

    /// A client, and what it shares with its driver.
    pub(crate) fn new(uid: InstanceUid, clock: Arc<dyn Clock>, settings: &SessionSettings) -> Self {
        let published = Published { uid, stats: Stats::default(), at: clock.now().mono };
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            changed: Notify::new(),
            published: Mutex::new(published),
            finished: watch::Sender::new(false),
            custom: Board::new(settings),
            clock,
        });
        Self { _lease: Some(Arc::new(Lease(Arc::clone(&shared)))), shared }
    }

    fn tell(&self, change: impl FnOnce(&mut Pending)) -> Result<(), Stopped> {
        let mut pending = self.shared.pending();
        if pending.stop || pending.stopped {
            return Err(Stopped);
        }
        change(&mut pending);
        drop(pending);
        self.shared.changed.notify_one();
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("uid", &self.uid()).field("stats", &self.stats()).finish()
    }
}

impl Shared {
    /// A client for handlers, which does not keep the agent running.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        Client { shared: Arc::clone(self), _lease: None }
    }

    /// Ends when there is something to take.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes what is there; after a stop nothing more is accepted.
    pub(crate) fn take(&self) -> Pending {
        let mut pending = self.pending();
        let stopped = pending.stopped || pending.stop;
        std::mem::replace(&mut *pending, Pending { stopped, ..Pending::default() })
    }

    pub(crate) fn publish(&self, uid: InstanceUid, stats: Stats, at: Mono) {
        *self.published() = Published { uid, stats, at };
    }

    /// The driver has ended.
    pub(crate) fn finish(&self) {
        self.pending().stopped = true;
        self.finished.send_replace(true);
    }

    fn stop(&self) {
        self.pending().stop = true;
        self.changed.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that a custom capability may have (R-CUST-05).
pub(crate) fn checked_name(name: String) -> Result<String, CustomCapabilityError> {
    match opamp_proto::custom::check_capability_name(&name) {
        Ok(()) => Ok(name),
        Err(why) => Err(CustomCapabilityError::Name { name, why }),
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.stop();
    }
}
