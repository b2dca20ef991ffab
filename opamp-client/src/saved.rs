//! What an agent keeps over its own restarts, and where: identity, where the sequence stands, what became of the
//! last offers, and the connections it was given.
//!
//! Without it a restarted agent is a new agent to its server, every configuration is applied anew, and it connects as it was
//! configured at first.

use std::collections::BTreeMap;
use std::sync::Arc;

use opamp_proto::{ConfigHash, InstanceUid, SequenceNum};

use crate::connection::{CertificateSigningRequest, OpampSettings, OtherSettings, Signal, TelemetrySettings};

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedState {
    /// The identity of the agent.
    pub uid: InstanceUid,
    /// Whether the server chose the identity, so that none has to be asked for.
    pub uid_assigned: bool,
    /// Number of the last message as of the last save. Saving is not done for each message: after a crash the count
    /// goes on from an older number, which costs nothing, since the first report of a process is complete.
    pub sequence_num: SequenceNum,
    /// What became of the remote configuration that was received last; `None` before the first.
    pub remote_config: Option<SavedOffer>,
    /// The connections that a server has set.
    pub connections: SavedConnections,
}

/// The connections that a server has set, and what became of its last offer of them. There are secrets in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedConnections {
    /// The address the agent was configured with when it was given all this, as events show it. An agent configured with
    /// another one begins without: what a person says comes before what a server said.
    pub configured: Option<String>,
    /// What became of the last offer.
    pub offer: Option<SavedOffer>,
    /// How the OpAMP server is reached, in place of what was configured.
    pub accepted: Option<Arc<OpampSettings>>,
    /// What is to be tried, or was being tried when the process ended; how often is counted in `offer`.
    pub candidate: Option<Arc<OpampSettings>>,
    /// Where own telemetry goes.
    pub telemetry: BTreeMap<Signal, Arc<TelemetrySettings>>,
    /// Other connections, by name.
    pub others: BTreeMap<String, Arc<OtherSettings>>,
    /// A certificate was asked for and has not come yet.
    pub request: Option<CertificateSigningRequest>,
}

/// What became of something that a server offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedOffer {
    /// The hash it was offered under.
    pub hash: ConfigHash,
    /// How far it got.
    pub status: OfferStatus,
    /// Why it failed; empty otherwise (R-CONF-27).
    pub error: String,
    /// How often it was begun, as long as it has not come to an end.
    pub attempts: u32,
}

/// How far an offer got (spec sections "RemoteConfigStatus" and "ConnectionSettingsStatus").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferStatus {
    /// In use.
    Applied,
    /// Being applied, or interrupted by the end of the agent.
    Applying,
    /// Tried and refused or failed; the previous one stays in use.
    Failed,
}

/// Where an agent keeps its state. Saving is rare: a new identity, a step of an offer, a stop.
///
/// Methods may block; the drivers call them where that is allowed.
pub trait StateStore: Send + Sync {
    /// What was saved last; `None` if nothing ever was.
    ///
    /// # Errors
    ///
    /// [`StateError`] if there is something and it cannot be read. An agent should not start as a new one then.
    fn load(&self) -> Result<Option<SavedState>, StateError>;

    /// Replaces what was saved, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it could not be made durable. The agent goes on and says so in an event.
    fn save(&self, state: &SavedState) -> Result<(), StateError>;

    /// Whether what is saved outlives the process. An agent without such a place takes no certificates from a server
    /// (R-CONN-15): the old one may be worth nothing by the next start. Yes, unless told otherwise.
    fn is_durable(&self) -> bool {
        true
    }
}

/// Why state could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// What is there is not a saved state. Remove it to start as a new agent, or restore it from a backup.
    #[error(
        "{location}: not a saved agent state: {what}; remove it to start as a new agent, or restore it from a backup"
    )]
    Corrupt {
        /// Where it is.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// Another agent uses it. Give each agent a place of its own.
    #[error("{location}: another running agent uses this state; each agent needs a place of its own")]
    InUse {
        /// Where it is.
        location: String,
    },
    /// Reading or writing failed. Check path, permissions and free space.
    #[error("{location}: {source}; check the path, its permissions and free space")]
    Io {
        /// Where it happened.
        location: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Keeps nothing: for agents whose identity may change with every start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl StateStore for Forgetful {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(None)
    }

    fn save(&self, _state: &SavedState) -> Result<(), StateError> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl SavedState {
    /// The state of an agent that starts for the first time.
    #[must_use]
    pub const fn new(uid: InstanceUid) -> Self {
        let connections = SavedConnections::new();
        Self { uid, uid_assigned: false, sequence_num: SequenceNum(0), remote_config: None, connections }
    }
}

impl SavedConnections {
    /// Nothing was ever offered.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            configured: None,
            offer: None,
            accepted: None,
            candidate: None,
            telemetry: BTreeMap::new(),
            others: BTreeMap::new(),
            request: None,
        }
    }
}

impl OfferStatus {
    /// The word for it: `applied`, `applying` or `failed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Applying => "applying",
            Self::Failed => "failed",
        }
    }
}
