//! What an agent keeps over its own restarts, and where: identity, where the sequence stands, what became of the
//! last remote configuration.
//!
//! Without it a restarted agent is a new agent to its server, and every configuration is applied anew.

use opamp_proto::{ConfigHash, InstanceUid, SequenceNum};

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
    pub remote_config: Option<SavedConfig>,
}

/// What became of a remote configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedConfig {
    /// The hash it was offered under.
    pub hash: ConfigHash,
    /// How far it got.
    pub status: ConfigStatus,
    /// Why it failed; empty otherwise (R-CONF-27).
    pub error: String,
    /// How often the application began with it, as long as it has not come to an end.
    pub attempts: u32,
}

/// How far a remote configuration got (spec section "RemoteConfigStatus").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigStatus {
    /// In use.
    Applied,
    /// Being applied, or interrupted by the end of the agent.
    Applying,
    /// Tried and refused or failed; the previous one stays in use.
    Failed,
}

/// Where an agent keeps its state. Saving is rare: a new identity, a step of a remote configuration, a stop.
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
}

impl SavedState {
    /// The state of an agent that starts for the first time.
    #[must_use]
    pub const fn new(uid: InstanceUid) -> Self {
        Self { uid, uid_assigned: false, sequence_num: SequenceNum(0), remote_config: None }
    }
}

impl ConfigStatus {
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
