//! Custom messages: a bounded queue, one of them in each message, each at most once (R-CUST-12, A-20).

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{Part, encode, pb};
use prost::Message as _;

use super::outbox::{Outbox, Output};
use super::{Session, SessionSettings};
use crate::custom::{CustomMessage, SendCustomError};
use crate::event::{Event, Transport};
use crate::failure::{Failure, FailureKind};

/// What a message has at most beside its parts, in bytes.
pub(super) const ENVELOPE_BYTES: usize = 64;

/// What the application may leave waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CustomLimits {
    message_bytes: usize,
    messages: usize,
    bytes: usize,
}

impl CustomLimits {
    pub(crate) fn of(settings: &SessionSettings) -> Self {
        let (messages, bytes) = (settings.custom_messages_max, settings.custom_bytes_max);
        let message_bytes = settings.send_limit().saturating_sub(ENVELOPE_BYTES).min(bytes);
        Self { message_bytes, messages, bytes }
    }

    /// The size of one more message, if so many of such a size may wait.
    pub(crate) fn admit(
        self,
        message: &CustomMessage,
        (messages, bytes): (usize, usize),
    ) -> Result<usize, SendCustomError> {
        let len = message.to_message().encoded_len();
        let size = encode::bytes_field_len(Part::CustomMessage.field_number(), len);
        if size > self.message_bytes {
            return Err(SendCustomError::TooLarge { bytes: size, max: self.message_bytes });
        }
        if messages >= self.messages || bytes + size > self.bytes {
            return Err(SendCustomError::Full { messages, bytes });
        }
        Ok(size)
    }
}

/// The custom messages that wait, and who may be sent which.
#[derive(Debug, Default)]
pub(super) struct Custom {
    ours: BTreeSet<String>,
    theirs: Arc<BTreeSet<String>>,
    /// Counts the changes of `theirs`.
    changes: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    in_flight: Option<Waiting>,
}

/// An encoded message.
struct Waiting {
    capability: String,
    encoded: Bytes,
}

/// Shows how large it is, and nothing of its content.
impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.capability, self.encoded.len())
    }
}

impl Waiting {
    fn size(&self) -> usize {
        encode::bytes_field_len(Part::CustomMessage.field_number(), self.encoded.len())
    }
}

impl Custom {
    /// Another server: what the one before could do is not known of it.
    pub(super) fn forget_server(&mut self) {
        if !self.theirs.is_empty() {
            self.announced(BTreeSet::new());
        }
    }

    fn announced(&mut self, theirs: BTreeSet<String>) {
        self.theirs = Arc::new(theirs);
        self.changes += 1;
    }
}

impl Session {
    /// Whether a custom message can be sent; what is sent nevertheless is dropped.
    ///
    /// # Errors
    ///
    /// [`SendCustomError`]: why not.
    pub fn check_custom(&self, message: &CustomMessage) -> Result<(), SendCustomError> {
        if !self.custom.ours.contains(&message.capability) {
            return Err(SendCustomError::NotOurs(message.capability.clone()));
        }
        if !self.custom.theirs.contains(&message.capability) {
            return Err(SendCustomError::NotAnnounced(message.capability.clone()));
        }
        CustomLimits::of(&self.settings).admit(message, self.custom_waiting()).map(drop)
    }

    /// How many custom messages wait to be sent, and their size in bytes.
    #[must_use]
    pub fn custom_waiting(&self) -> (usize, usize) {
        (self.custom.waiting.len() + usize::from(self.custom.in_flight.is_some()), self.custom.bytes)
    }

    /// The custom capabilities of the server, and a number that is another one when they have changed.
    #[must_use]
    pub const fn server_custom_capabilities(&self) -> (u64, &Arc<BTreeSet<String>>) {
        (self.custom.changes, &self.custom.theirs)
    }

    /// The custom capabilities of this agent.
    pub(super) fn set_custom(&mut self, names: Vec<String>) {
        let message = pb::CustomCapabilities { capabilities: names.clone() };
        self.custom.ours = names.into_iter().collect();
        self.report.set(Part::CustomCapabilities, message.encode_to_vec().into());
    }

    pub(super) fn queue_custom(&mut self, message: &CustomMessage, out: &mut Outbox) {
        match self.check_custom(message) {
            Ok(()) => {
                let encoded = message.to_message().encode_to_vec().into();
                let waiting = Waiting { capability: message.capability.clone(), encoded };
                self.custom.bytes += waiting.size();
                self.custom.waiting.push_back(waiting);
            }
            Err(_) => self.drop_custom(message.capability.clone(), "it cannot be sent", out),
        }
    }

    /// The server has said what it can do; nothing replaces the list like an empty one (R-CUST-03).
    pub(super) fn learn_custom<'a>(&mut self, theirs: impl Iterator<Item = &'a str>) {
        // A name that nothing can have is nobody's.
        let known = theirs.filter(|name| opamp_proto::custom::check_capability_name(name).is_ok());
        let known: BTreeSet<_> = known.map(str::to_owned).collect();
        if *self.custom.theirs != known {
            self.custom.announced(known);
        }
    }

    /// A custom message of the server; for a capability nobody has, nothing happens (R-CUST-06).
    pub(super) fn received_custom(&mut self, message: pb::CustomMessage, out: &mut Outbox) {
        if self.custom.ours.contains(&message.capability) {
            self.stats.custom_received += 1;
            out.push(Output::Custom(message.into()));
        }
    }

    /// Whether this agent has custom capabilities at all.
    pub(super) fn has_custom(&self) -> bool {
        !self.custom.ours.is_empty()
    }

    /// The next message, on its way from now on.
    pub(super) fn next_custom(&mut self, out: &mut Outbox) -> Option<Bytes> {
        // Whether the server wants it is known once it has said what it is.
        self.server?;
        loop {
            let next = self.custom.waiting.pop_front()?;
            if self.custom.ours.contains(&next.capability) && self.custom.theirs.contains(&next.capability) {
                let encoded = next.encoded.clone();
                self.custom.in_flight = Some(next);
                return Some(encoded);
            }
            self.custom.bytes -= next.size();
            self.drop_custom(next.capability, "the capability is not announced any more", out);
        }
    }

    /// The message under way has arrived.
    pub(super) fn custom_sent(&mut self) {
        if let Some(sent) = self.custom.in_flight.take() {
            self.custom.bytes -= sent.size();
            self.stats.custom_sent += 1;
        }
    }

    /// The message under way got stuck. It is sent again only if it cannot have arrived: a WebSocket message that was not
    /// written to its end, a request that was refused or never made.
    pub(super) fn custom_lost(&mut self, failure: &Failure, out: &mut Outbox) {
        let Some(lost) = self.custom.in_flight.take() else { return };
        let never_arrived = self.endpoints.transport() == Transport::WebSocket
            || matches!(
                failure.kind,
                FailureKind::Auth
                    | FailureKind::Dns
                    | FailureKind::Local
                    | FailureKind::Proxy
                    | FailureKind::ProxyUnreachable
                    | FailureKind::Redirect
                    | FailureKind::Refused
                    | FailureKind::Throttled
                    | FailureKind::Tls(_)
            );
        // A server that takes no such size will not take it the next time.
        if never_arrived && failure.kind != FailureKind::TooLarge {
            self.custom.waiting.push_front(lost);
        } else {
            self.custom.bytes -= lost.size();
            self.drop_custom(lost.capability, "the request ended without an answer", out);
        }
    }

    fn drop_custom(&mut self, capability: String, why: &'static str, out: &mut Outbox) {
        self.stats.custom_dropped += 1;
        out.event(Event::CustomDropped { capability, why });
    }
}
