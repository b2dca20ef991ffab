//! What an application may install: each handler is a capability, and there is no other way to have one.
//!
//! Handlers run in tasks of their own. None of them holds up heartbeats or the messages of the server, and all of
//! them may call anything of the [`Client`] they are given, [`Client::stop`] included. Closures will do. As anywhere in
//! async code, what blocks for long belongs into `tokio::task::spawn_blocking`.

use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_proto::InstanceUid;

use super::client::Client;
use crate::config::{EffectiveConfig, Rejected, RemoteConfig};
use crate::connection::{CertificateSigningRequest, OtherSettings, Signal, TelemetrySettings};
use crate::custom::CustomMessage;
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

/// Sends the agent's own telemetry where the server says. Installing one announces ReportsOwnMetrics, ReportsOwnTraces and
/// ReportsOwnLogs, as chosen.
///
/// The library hands destinations over and keeps them; what is sent there, and its resource
/// ([`Description::identifying_attributes`](crate::Description::identifying_attributes)), is the application's.
pub trait OwnTelemetryHandler: Send + Sync + 'static {
    /// Uses this destination for a signal from now on, in place of the one before. At the start of an agent that was given
    /// one earlier it is called with that, before anything new.
    ///
    /// One at a time. An error leaves the destination of before in use and is reported; a panic counts as one, and so does
    /// taking longer than [`handler_timeout`](crate::ClientSettings::handler_timeout).
    fn apply(
        &self,
        signal: Signal,
        settings: Arc<TelemetrySettings>,
        client: Client,
    ) -> BoxFuture<'_, Result<(), Rejected>>;
}

/// Takes settings of connections that only the application knows. Installing one announces
/// AcceptsOtherConnectionSettings.
pub trait OtherConnectionsHandler: Send + Sync + 'static {
    /// Uses these settings for the connection of this name from now on. They are complete: what the server left as it was is
    /// in them. At the start it is called with what was given earlier.
    ///
    /// A name that means nothing here is best ignored with `Ok` (R-CONN-38). Otherwise as
    /// [`OwnTelemetryHandler::apply`].
    fn apply(
        &self,
        name: String,
        settings: Arc<OtherSettings>,
        client: Client,
    ) -> BoxFuture<'_, Result<(), Rejected>>;
}

/// Takes the custom messages of one capability. Installing one announces the capability, all of whose messages it has to
/// understand (R-CUST-08).
pub trait CustomMessageHandler: Send + Sync + 'static {
    /// Takes a message. One at a time, in order; while this runs others wait, up to
    /// [`custom_kept`](crate::ClientSettings::custom_kept). A type that is not known is to be ignored (R-CUST-07).
    fn message(&self, message: CustomMessage, client: Client) -> BoxFuture<'_, ()>;
}

/// Makes keys and requests for client certificates. With one installed the agent asks its server for a certificate when it
/// has none from it, and again before that expires.
pub trait CertificateRequester: Send + Sync + 'static {
    /// Makes a new key, and a request for a certificate for the agent of this identity, signed with it. The key stays on this
    /// machine (R-CSR-03). The error is told in an event; it should say what to do.
    fn request(&self, uid: InstanceUid) -> BoxFuture<'_, Result<CertificateSigningRequest, Rejected>>;

    /// Whether the identity is in the request. Then another certificate is asked for when the server changes the identity
    /// (R-CSR-18). Yes, unless told otherwise.
    fn names_identity(&self) -> bool {
        true
    }
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

impl<F, R> OwnTelemetryHandler for F
where
    F: Fn(Signal, Arc<TelemetrySettings>, Client) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Rejected>> + Send + 'static,
{
    fn apply(
        &self,
        signal: Signal,
        settings: Arc<TelemetrySettings>,
        client: Client,
    ) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self(signal, settings, client))
    }
}

impl<F, R> OtherConnectionsHandler for F
where
    F: Fn(String, Arc<OtherSettings>, Client) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Rejected>> + Send + 'static,
{
    fn apply(
        &self,
        name: String,
        settings: Arc<OtherSettings>,
        client: Client,
    ) -> BoxFuture<'_, Result<(), Rejected>> {
        Box::pin(self(name, settings, client))
    }
}

impl<F, R> CustomMessageHandler for F
where
    F: Fn(CustomMessage, Client) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    fn message(&self, message: CustomMessage, client: Client) -> BoxFuture<'_, ()> {
        Box::pin(self(message, client))
    }
}

impl<F, R> CertificateRequester for F
where
    F: Fn(InstanceUid) -> R + Send + Sync + 'static,
    R: Future<Output = Result<CertificateSigningRequest, Rejected>> + Send + 'static,
{
    fn request(&self, uid: InstanceUid) -> BoxFuture<'_, Result<CertificateSigningRequest, Rejected>> {
        Box::pin(self(uid))
    }
}
