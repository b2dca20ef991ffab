//! Where a session puts what it wants sent.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{InstanceUid, ServerCapabilities};

use crate::custom::{CustomCapabilities, CustomMessage};
use crate::reply::Reply;

/// What a server does with a field whose capability bit the agent did not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CapabilityMismatch {
    /// Leave the field out, process the rest, count `cap_mismatch`. The default: one sloppy bit does not make
    /// an agent unmanageable, and the snapshot names the fields that were ignored.
    #[default]
    Ignore,
    /// Answer BadRequest naming field and bit, and process nothing of the message.
    Reject,
}

/// What every session of one server has in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Capabilities the server announces; AcceptsStatus is always added (R-CAP-08). Default: everything but
    /// AcceptsConnectionSettingsRequest, which a server announces exactly when it has a
    /// certificate issuer.
    pub capabilities: ServerCapabilities,
    /// What happens to fields without their capability. Default: ignore.
    pub capability_mismatch: CapabilityMismatch,
    /// Largest message the server sends, in bytes before compression (R-WS-16, R-HTTP-28). An offer beyond it
    /// is never sent and shows in the snapshot. Default 64 MiB; less than 512 counts as 512, which every answer fits
    /// without its offers.
    pub send_bytes_max: usize,
    /// A WebSocket agent without any frame for this long is stale. Default 60 s: two ping intervals.
    pub websocket_stale_after: Duration,
    /// The polling interval assumed of an agent that has not shown its own yet. Default 30 s (R-HTTP-04).
    pub http_interval_assumed: Duration,
    /// A polling agent is never stale before this, however fast it polls. Default 15 s. It is stale after three
    /// of its observed intervals, and disconnected after six.
    pub http_stale_min: Duration,
    /// How long a polling agent may stay silent about an offer before it is offered again, doubling each time;
    /// also the least distance of repeated requests after the first three. Default 30 s.
    pub repeat_after: Duration,
    /// Custom capabilities the server announces (R-CUST-01). Default: none. Messages of others are ignored.
    pub custom_capabilities: CustomCapabilities,
    /// Custom messages that may wait for one agent. Default 64; further ones are refused to the application as full.
    pub custom_queue_max: usize,
    /// Bytes of custom messages that may wait for one agent. Default 1 MiB. Every agent can hold that much, as long as it is
    /// connected and takes nothing.
    pub custom_queue_bytes_max: usize,
}

impl SessionSettings {
    /// The send limit that holds.
    pub(super) fn send_bytes(&self) -> usize {
        self.send_bytes_max.max(512)
    }

    /// The announced capabilities, AcceptsStatus included.
    pub fn announced(&self) -> ServerCapabilities {
        self.capabilities.known() | ServerCapabilities::ACCEPTS_STATUS
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            capabilities: ServerCapabilities::ACCEPTS_STATUS
                | ServerCapabilities::OFFERS_REMOTE_CONFIG
                | ServerCapabilities::ACCEPTS_EFFECTIVE_CONFIG
                | ServerCapabilities::OFFERS_PACKAGES
                | ServerCapabilities::ACCEPTS_PACKAGES_STATUS
                | ServerCapabilities::OFFERS_CONNECTION_SETTINGS,
            capability_mismatch: CapabilityMismatch::Ignore,
            send_bytes_max: 64 << 20,
            websocket_stale_after: Duration::from_secs(60),
            http_interval_assumed: Duration::from_secs(30),
            http_stale_min: Duration::from_secs(15),
            repeat_after: Duration::from_secs(30),
            custom_capabilities: CustomCapabilities::default(),
            custom_queue_max: 64,
            custom_queue_bytes_max: 1 << 20,
        }
    }
}

/// The messages a session wants sent, in order, and what happened beside; reused from one call to the next.
///
/// The caller's contract: call [`Outbox::clear`] before each `handle`, then send every message of
/// [`Outbox::messages`]. On plain HTTP there is at most one, because a response carries one.
pub struct Outbox {
    pub(super) settings: SessionSettings,
    bytes: Vec<u8>,
    messages: Vec<Range<usize>>,
    pub(super) effects: Effects,
    /// What the agent sent that is not the session's to answer.
    pub(super) custom: Option<CustomMessage>,
    pub(super) certificate_request: Option<Bytes>,
    /// What is known of the effective configuration that comes with the next message.
    pub(super) config: Option<ReceivedConfig>,
    /// Whether full state may be asked for now.
    pub(super) full_state_allowed: bool,
}

/// What a driver found out about an effective configuration.
pub(super) enum ReceivedConfig {
    /// It is what the session holds.
    #[cfg_attr(not(any(test, feature = "net")), expect(dead_code, reason = "only a driver says so"))]
    Repeated,
    /// A copy to be kept, and its material digest.
    Shared { encoded: Bytes, digest: u64 },
}

impl ReceivedConfig {
    /// Whether it was found out about these bytes.
    pub(super) fn is_of(&self, received: &[u8]) -> bool {
        matches!(self, Self::Shared { encoded, .. } if encoded == received)
    }
}

/// Shows how much there is to send: offers may hold secrets.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("messages", &self.messages)
            .field("effects", &self.effects)
            .finish_non_exhaustive()
    }
}

/// Countable things one `handle` call did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Remote configurations offered.
    pub offers: u32,
    /// Full-state requests sent.
    pub full_state_requests: u32,
    /// Of those, sent by permission ([`Session::permit_full_state`](super::Session::permit_full_state)).
    pub full_state_permitted: u32,
    /// Full state is wanted and may not be asked for now: the driver is to permit it later, once for each of these.
    pub full_state_deferred: u32,
    /// Connection settings offered.
    pub settings_offers: u32,
    /// Packages offered.
    pub package_offers: u32,
    /// Requests for the list of components sent.
    pub component_requests: u32,
    /// Certificate requests decided by an offer of the certificate.
    pub certificates_issued: u32,
    /// Certificate requests decided by a refusal.
    pub certificates_refused: u32,
    /// Restart commands sent.
    pub restarts: u32,
    /// Custom messages put into messages.
    pub custom_sent: u32,
    /// Custom messages received and handed on.
    pub custom_received: u32,
    /// Custom messages received and ignored: of a capability the server does not announce (R-CUST-06).
    pub custom_ignored: u32,
    /// Custom messages that were accepted for sending and not sent, because the connection ended.
    pub custom_undelivered: u32,
    /// Offers withheld because they exceed the send limit (R-WS-18, R-HTTP-30).
    pub discarded_oversize: u32,
    /// Received parts ignored because their capability was not announced.
    pub ignored_parts: u32,
}

impl Outbox {
    /// An empty outbox for sessions with these settings.
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            settings,
            bytes: Vec::new(),
            messages: Vec::new(),
            effects: Effects::default(),
            custom: None,
            certificate_request: None,
            config: None,
            full_state_allowed: true,
        }
    }

    /// Forgets messages and effects, keeps the memory unless it grew beyond 64 KiB.
    pub fn clear(&mut self) {
        self.messages.clear();
        if self.bytes.capacity() > 64 << 10 {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.effects = Effects::default();
        self.custom = None;
        self.certificate_request = None;
        self.config = None;
        self.full_state_allowed = true;
    }

    /// Says before a `handle` whether the session may ask for full state in it; it may unless a driver that paces the whole
    /// fleet says no. What the session does not ask it defers ([`Effects::full_state_deferred`]).
    pub fn allow_full_state(&mut self, allowed: bool) {
        self.full_state_allowed = allowed;
    }

    /// The messages as WebSocket payloads: header 0, then `ServerToAgent`. Plain HTTP leaves the first byte out.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.messages.iter().map(|range| &self.bytes[range.clone()])
    }

    /// What happened beside.
    pub fn effects(&self) -> Effects {
        self.effects
    }

    /// The custom message the agent sent, for the application. Ask once per `handle`.
    pub fn take_custom(&mut self) -> Option<CustomMessage> {
        self.custom.take()
    }

    /// The certificate signing request the agent sent, in PEM as it came. Whoever decides it answers with
    /// [`Input::CertificateIssued`](super::Input) or [`Input::CertificateRefused`](super::Input). Ask once per `handle`.
    pub fn take_certificate_request(&mut self) -> Option<Bytes> {
        self.certificate_request.take()
    }

    /// Hands in a copy of the effective configuration that comes with the next message, and its
    /// [material digest](opamp_proto::material::digest): the session keeps this one instead of making its own, so that agents
    /// with equal configurations share one.
    pub fn share_effective_config(&mut self, encoded: Bytes, digest: u64) {
        self.config = Some(ReceivedConfig::Shared { encoded, digest });
    }

    /// Says that the effective configuration that comes with the next message is the one its session
    /// [holds](super::Session::holds), so that it is not compared again. A driver may say so as long as it lets nothing else change
    /// the session in between.
    #[cfg(any(test, feature = "net"))]
    pub(crate) fn repeat_effective_config(&mut self) {
        self.config = Some(ReceivedConfig::Repeated);
    }

    /// Replaces the custom capabilities that sessions announce from now on.
    pub fn set_custom_capabilities(&mut self, capabilities: CustomCapabilities) {
        self.settings.custom_capabilities = capabilities;
    }

    /// The settings every session that uses this outbox works with.
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// Begins a message to `uid`; end it with [`Outbox::push`].
    pub(crate) fn begin(&mut self, uid: Option<&InstanceUid>) -> Reply<'_> {
        Reply::new(&mut self.bytes, uid)
    }

    pub(crate) fn push(&mut self, message: Range<usize>) {
        self.messages.push(message);
    }
}
