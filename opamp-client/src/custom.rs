//! Custom messages: what the protocol carries without understanding it.

use std::fmt;

use bytes::Bytes;
use opamp_proto::custom::CapabilityNameError;
use opamp_proto::pb;

/// One custom message, either way (spec section "CustomMessage").
#[derive(Clone, PartialEq, Eq)]
pub struct CustomMessage {
    /// The capability it belongs to, exactly as announced, version included (R-CUST-09).
    pub capability: String,
    /// Its type within the capability.
    pub kind: String,
    /// Its content, which nobody in between looks at (R-CUST-11).
    pub data: Bytes,
}

/// Why a custom message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendCustomError {
    /// As many as may wait do. Send it again when some have left.
    #[error("{messages} custom messages with {bytes} bytes wait to be sent; try again later")]
    Full {
        /// How many wait.
        messages: usize,
        /// How large they are together.
        bytes: usize,
    },
    /// The server has not announced this capability, so it would ignore the message (R-CUST-04, R-CUST-09).
    #[error("the server has not announced the custom capability {0:?}")]
    NotAnnounced(String),
    /// The agent has not announced this capability itself; install a handler for it.
    #[error("this agent has not announced the custom capability {0:?}")]
    NotOurs(String),
    /// The agent was stopped.
    #[error(transparent)]
    Stopped(#[from] crate::session::Stopped),
    /// It is larger than what may be sent.
    #[error("a custom message of {bytes} bytes is larger than the {max} that may be sent")]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Why a custom capability cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustomCapabilityError {
    /// It is not named as a custom capability is (R-CUST-05).
    #[error("{name:?} is no name for a custom capability: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: CapabilityNameError,
    },
    /// The agent was stopped.
    #[error(transparent)]
    Stopped(#[from] crate::session::Stopped),
}

impl CustomMessage {
    /// A message.
    pub fn new(capability: impl Into<String>, kind: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self { capability: capability.into(), kind: kind.into(), data: data.into() }
    }

    pub(crate) fn to_message(&self) -> pb::CustomMessage {
        pb::CustomMessage {
            capability: self.capability.clone(),
            r#type: self.kind.clone(),
            data: self.data.clone(),
        }
    }
}

impl From<pb::CustomMessage> for CustomMessage {
    fn from(message: pb::CustomMessage) -> Self {
        Self { capability: message.capability, kind: message.r#type, data: message.data }
    }
}

/// Shows how large it is, and nothing of its content.
impl fmt::Debug for CustomMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomMessage")
            .field("capability", &self.capability)
            .field("kind", &self.kind)
            .field("data_bytes", &self.data.len())
            .finish()
    }
}
