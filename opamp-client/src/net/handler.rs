//! What an application may install: each handler is a capability, and there is no other way to have one.
//!
//! Handlers run in tasks of their own. None of them holds up heartbeats or the messages of the server, and all of
//! them may call anything of the [`Client`] they are given, [`Client::stop`] included. Closures will do. As anywhere in
//! async code, what blocks for long belongs into `tokio::task::spawn_blocking`.

use futures::future::BoxFuture;

use super::client::Client;
use crate::config::{EffectiveConfig, Rejected, RemoteConfig};
use crate::event::Event;

/// Applies remote configurations. Installing one announces AcceptsRemoteConfig and ReportsRemoteConfig.
pub trait RemoteConfigHandler: Send + Sync + 'static {
    /// Checks and applies a configuration, and ends when it is in use, or when it is clear that it never will be.
    /// Then the previous one stays in use (R-CONF-28).
    ///
    /// One is applied at a time; of those that arrive meanwhile only the newest follows. A panic counts as a failure.
    ///
    /// An agent that has to end for it calls [`Client::stop`] and returns: the outcome is saved before
    /// [`Client::stopped`] ends, which waits for it at most
    /// [`stop_timeout`](crate::session::SessionSettings::stop_timeout). A process that ends without having returned begins
    /// with the configuration again, three times at most.
    fn apply(&self, config: RemoteConfig, client: Client) -> BoxFuture<'_, Result<(), Rejected>>;
}

/// Restarts the agent. Installing one announces AcceptsRestartCommand.
pub trait RestartHandler: Send + Sync + 'static {
    /// Restarts the agent: usually [`Client::stop`], [`Client::stopped`], and then whatever starts it again. Further
    /// commands are ignored until this ends.
    fn restart(&self, client: Client) -> BoxFuture<'_, ()>;
}

/// Is told what happens to the connection, the identity and the server's opinion. Events are logged without one, too.
pub trait EventHandler: Send + Sync + 'static {
    /// Takes an event. One at a time, in order; while this runs, others wait, up to a bound.
    fn event(&self, event: Event, client: Client) -> BoxFuture<'_, ()>;
}

/// Knows the configuration that is in use. Installing one announces ReportsEffectiveConfig.
pub trait EffectiveConfigProvider: Send + Sync + 'static {
    /// The configuration in use now. Asked at the start, after each remote configuration that was applied or failed,
    /// and on [`Client::refresh_effective_config`].
    fn effective_config(&self) -> BoxFuture<'_, EffectiveConfig>;
}

impl<F, R> RemoteConfigHandler for F
where
    F: Fn(RemoteConfig, Client) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Rejected>> + Send + 'static,
{
    fn apply(&self, config: RemoteConfig, client: Client) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self(config, client))
    }
}

impl<F, R> RestartHandler for F
where
    F: Fn(Client) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn restart(&self, client: Client) -> BoxFuture<'_, ()> {
        Box::pin(self(client))
    }
}

impl<F, R> EventHandler for F
where
    F: Fn(Event, Client) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn event(&self, event: Event, client: Client) -> BoxFuture<'_, ()> {
        Box::pin(self(event, client))
    }
}

impl<F, R> EffectiveConfigProvider for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = EffectiveConfig> + Send + 'static,
{
    fn effective_config(&self) -> BoxFuture<'_, EffectiveConfig> {
        Box::pin(self())
    }
}
