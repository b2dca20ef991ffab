//! Custom capabilities and messages: extensions of the protocol that both sides agree on by name.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::custom::{CapabilityNameError, check_capability_name};
use opamp_proto::pb;
use prost::Message as _;

/// The custom capabilities a server supports: checked names, without repetition, in alphabetical order. Cheap to clone.
#[derive(Clone)]
pub struct CustomCapabilities(Arc<Inner>);

struct Inner {
    names: Vec<String>,
    /// The encoded `CustomCapabilities`.
    encoded: Bytes,
    /// Tells one list from another; 0 for the empty one.
    digest: u64,
}

impl CustomCapabilities {
    /// A list of names, each of the form reverse FQDN, dot, short name, and perhaps `/` and a version (R-CUST-05).
    ///
    /// # Errors
    ///
    /// What [`check_capability_name`] says about the first wrong one.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, CapabilityNameError> {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort();
        names.dedup();
        names.iter().try_for_each(|name| check_capability_name(name))?;
        Ok(Self::checked(names))
    }

    /// The names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.names.iter().map(String::as_str)
    }

    /// Whether this very name is among them, version included (R-CUST-09).
    pub fn contains(&self, name: &str) -> bool {
        self.0.names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.names.is_empty()
    }

    pub(crate) fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    pub(crate) fn digest(&self) -> u64 {
        self.0.digest
    }

    fn checked(names: Vec<String>) -> Self {
        let encoded = Bytes::from(pb::CustomCapabilities { capabilities: names.clone() }.encode_to_vec());
        let digest = match names.is_empty() {
            true => 0,
            false => opamp_proto::material::digest(opamp_proto::Part::CustomCapabilities, &encoded).max(1),
        };
        Self(Arc::new(Inner { names, encoded, digest }))
    }
}

impl Default for CustomCapabilities {
    /// None.
    fn default() -> Self {
        Self::checked(Vec::new())
    }
}

impl PartialEq for CustomCapabilities {
    fn eq(&self, other: &Self) -> bool {
        self.0.names == other.0.names
    }
}

impl Eq for CustomCapabilities {}

impl fmt::Debug for CustomCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.names).finish()
    }
}

/// One custom message, in either direction. Its data goes through untouched (R-CUST-11).
#[derive(Clone, PartialEq, Eq)]
pub struct CustomMessage {
    /// The capability it belongs to: one of the names both sides announced.
    pub capability: String,
    /// What kind of message, unique within its capability: `CustomMessage.type`.
    pub kind: String,
    /// The payload in the capability's own format.
    pub data: Bytes,
}

impl CustomMessage {
    /// The bytes it counts for in queues.
    pub(crate) fn len_bytes(&self) -> usize {
        self.capability.len() + self.kind.len() + self.data.len()
    }

    pub(crate) fn to_wire(&self) -> pb::CustomMessage {
        pb::CustomMessage {
            capability: self.capability.clone(),
            r#type: self.kind.clone(),
            data: self.data.clone(),
        }
    }

    pub(crate) fn from_wire(message: pb::CustomMessage) -> Self {
        // A copy of its own: a slice would keep the whole received message alive.
        let data = Bytes::copy_from_slice(&message.data);
        Self { capability: message.capability, kind: message.r#type, data }
    }
}

/// Shows how much data there is, not the data.
impl fmt::Debug for CustomMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomMessage")
            .field("capability", &self.capability)
            .field("kind", &self.kind)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}

/// Why a custom message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    /// Too many messages, or too many bytes, wait for this agent already. Nothing was thrown away; try again when it has
    /// taken some.
    #[error("{max} are the most that may wait for one agent; try again later")]
    Full {
        /// The bound that was reached, with its unit.
        max: QueueBound,
    },
    /// The agent is not there. Custom messages do not wait for agents.
    #[error("the agent is not connected")]
    NoSession,
    /// The agent did not announce the capability (R-CUST-09).
    #[error("the agent did not announce the custom capability {capability:?}")]
    NotAnnounced {
        /// The capability.
        capability: String,
    },
    /// This server does not announce the capability: it is missing in its settings.
    #[error("this server does not announce the custom capability {capability:?}")]
    NotOurs {
        /// The capability.
        capability: String,
    },
    /// The message alone is larger than what the server may send.
    #[error("the message has {bytes} bytes, and {max} are the most this server sends")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
}

/// A bound of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueBound {
    /// In bytes.
    Bytes(usize),
    /// In messages.
    Messages(usize),
}

impl fmt::Display for QueueBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(max) => write!(f, "{max} bytes"),
            Self::Messages(max) => write!(f, "{max} messages"),
        }
    }
}
