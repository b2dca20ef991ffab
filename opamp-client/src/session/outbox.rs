//! Where a session puts what it wants done.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use opamp_proto::{ConfigHash, InstanceUid};

use crate::config::RemoteConfig;
use crate::connection::{OpampSettings, OtherSettings, Signal, TelemetrySettings};
use crate::custom::CustomMessage;
use crate::event::Event;
use crate::packages::PackagesOffer;

/// Memory an outbox keeps from one message to the next, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// One thing a session wants done. Do them in the order they come.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Drop whatever connection, attempt or exchange there is, without ceremony.
    Abort,
    /// Apply this configuration, apart from the loop that drives the session; then
    /// [`Input::ConfigOutcome`](super::Input::ConfigOutcome). There is never more than one at a time.
    Apply(RemoteConfig),
    /// The offer of [`Output::SyncPackages`] is not wanted any more; its outcome is waited for.
    CancelPackages,
    /// Send a Close frame with this code and wait for the peer's; then [`Input::Closed`](super::Input::Closed). WebSocket
    /// only.
    Close(CloseCode),
    /// Connect to the endpoint of this index; then [`Input::Connected`](super::Input::Connected) or
    /// [`Input::Failed`](super::Input::Failed). Over HTTP this opens the connection that requests will use.
    Connect {
        /// Index of the endpoint.
        endpoint: usize,
    },
    /// Connect with these settings in place of what was configured; then as with [`Output::Connect`]. Nothing of them is to
    /// be used for any other connection.
    ConnectOffered(Arc<OpampSettings>),
    /// Hand these connections to the application, and examine those for OpAMP, apart from the loop that drives the session;
    /// then [`Input::ConnectionsOutcome`](super::Input::ConnectionsOutcome). There is never more than one at a time.
    Connections(Box<ConnectionsChange>),
    /// Hand this custom message to the application.
    Custom(CustomMessage),
    /// Tell the application.
    Event(Event),
    /// Save [`Session::saved`](super::Session::saved), before anything that comes after this.
    Persist,
    /// Send a ping. WebSocket only.
    Ping,
    /// See whether the endpoint of this index can be connected to, without asking it anything, and hang up; then
    /// [`Input::Probed`](super::Input::Probed).
    Probe {
        /// Index of the endpoint.
        endpoint: usize,
    },
    /// The same with the endpoint of these settings.
    ProbeOffered(Arc<OpampSettings>),
    /// Make a key and a signing request for a client certificate of the agent with this identity; then
    /// [`Input::CertificateRequest`](super::Input::CertificateRequest). There is never more than one at a time.
    RequestCertificate(InstanceUid),
    /// Restart the agent.
    Restart,
    /// Send [`Outbox::message`]: as one binary WebSocket message, then [`Input::Written`](super::Input::Written); or
    /// as the body of a POST, then [`Input::Received`](super::Input::Received) with the body of the answer. Or
    /// [`Input::Failed`](super::Input::Failed).
    Send,
    /// Do what this offer wants, apart from the loop that drives the session, with
    /// [`Input::PackageStatuses`](super::Input::PackageStatuses) whenever there is news; then
    /// [`Input::PackagesOutcome`](super::Input::PackagesOutcome). There is never more than one at a time.
    SyncPackages(PackagesOffer),
}

/// Connections that have changed, complete: with what the offer left as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionsChange {
    /// The hash of the offer.
    pub hash: ConfigHash,
    /// To be examined: whether certificates, TLS, proxy and headers can be used at all. Not to be used yet.
    pub opamp: Option<Arc<OpampSettings>>,
    /// Destinations of own telemetry.
    pub telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
    /// Other connections, by name.
    pub others: BTreeMap<String, Arc<OtherSettings>>,
}

/// Codes of Close frames that an agent sends (RFC 6455 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// 1000: the purpose is fulfilled.
    Normal = 1000,
    /// 1002: the server broke the protocol.
    Protocol = 1002,
    /// 1003: a kind of data that is not accepted.
    Unsupported = 1003,
    /// 1009: message too big (R-WS-15).
    TooBig = 1009,
}

/// What a session wants done, in order, and the one message among it; reused from one call to the next.
#[derive(Default)]
pub struct Outbox {
    outputs: VecDeque<Output>,
    message: Vec<u8>,
}

/// Shows nothing of the message but its length.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("outputs", &self.outputs)
            .field("message_bytes", &self.message.len())
            .finish()
    }
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out the next thing to do.
    pub fn take(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The message of [`Output::Send`]: with the frame header in front for a WebSocket, without for HTTP. It stays until
    /// the next message is composed, which is not before this one was written or failed.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    /// Room for a new message.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        if self.message.capacity() > KEPT_BYTES {
            self.message = Vec::new();
        }
        self.message.clear();
        &mut self.message
    }
}
