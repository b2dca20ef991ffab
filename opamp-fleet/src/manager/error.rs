//! One error type for each family of operations; each variant says what the caller can do.

use opamp_proto::{AgentId, InstanceUid};
use opamp_store::{CommitError, ReadError};

use crate::{ConfigError, LabelError, VersionState};

/// The store could not do its part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFailure {
    /// What is stored cannot be understood. Restore from a backup.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A rule of the store forbids it: a mistake in this program.
    #[error("the store refuses the change: {0}")]
    Refused(String),
    /// It may or may not have been written. Look, or repeat the call with the same idempotency key.
    #[error("it is not known whether the change was written: {0}")]
    OutcomeUnknown(String),
    /// Nothing was written or read. Try again later; agents stay connected meanwhile.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

impl From<ReadError> for StoreFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt { .. } => Self::Damaged(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Preconditions are the concern of the operation that set them and are mapped before.
impl From<CommitError> for StoreFailure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::OutcomeUnknown(_) => Self::OutcomeUnknown(error.to_string()),
            CommitError::Unavailable(_) | CommitError::Closed | CommitError::StaleFence { .. } => {
                Self::Unavailable(error.to_string())
            }
            other => Self::Refused(other.to_string()),
        }
    }
}

/// Why a manager does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Somebody has the events of this server already. Give each server one manager.
    #[error("the events of this server are taken already")]
    EventsTaken,
    /// The fleet cannot be read from the store. Start again when the store works.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// Why an agent's record could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// An agent with this identity is known already: use that record.
    #[error("instance_uid {uid} belongs to agent {id}")]
    AlreadyKnown {
        /// The identity.
        uid: InstanceUid,
        /// Whose it is.
        id: AgentId,
    },
    /// Somebody changed the record meanwhile. Read it and decide again.
    #[error("agent {0} was changed meanwhile")]
    Conflict(AgentId),
    /// The labels are refused: change them.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// The operating system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// Why an assignment was not made or not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssignError {
    /// Somebody changed the agent's record meanwhile. Read it and decide again.
    #[error("agent {0} was changed meanwhile")]
    Conflict(AgentId),
    /// The idempotency key is empty or too long: choose one of 1 to 64 bytes.
    #[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    IdempotencyKey,
    /// The agent announced its capabilities, and AcceptsRemoteConfig is not among them (R-CONF-04). Enable it in
    /// the agent.
    #[error("agent {0} does not accept remote configuration (capability AcceptsRemoteConfig is missing)")]
    NotAccepted(AgentId),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// Only published versions can be assigned: publish it, or choose another one.
    #[error("version {version} of config {config:?} is {state}; only published versions can be assigned")]
    NotPublished {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
        /// What it is.
        state: VersionState,
    },
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// There is no such version.
    #[error("there is no version {version} of config {config:?}")]
    VersionNotFound {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
    },
}

/// Longest idempotency key a caller may give, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// Why a command was not given to an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentCommandError {
    /// The agent announced its capabilities, and the one for this command is not among them (R-CAP-24).
    #[error("agent {0} does not accept this command (capability AcceptsRestartCommand is missing)")]
    NotAccepted(AgentId),
    /// The agent is not connected. Commands do not wait; repeat it when the agent is back.
    #[error("agent {0} is not connected")]
    NotConnected(AgentId),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// The store could not do its part, so the command was not given: it could not be audited.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// Why a config version was not made or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigOpError {
    /// Somebody changed it meanwhile, or it is not at the expected revision. Read it and decide again.
    #[error("version {version} of config {config:?} was changed meanwhile")]
    Conflict {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
    },
    /// There is a config of this name: add a version to it, or choose another name.
    #[error("there is a config {0:?} already")]
    Exists(String),
    /// Name, files or comment are refused: change them.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// There is no such config, or no such version of it.
    #[error("there is no {}", match .version { Some(version) => format!("version {version} of config {config:?}"), None => format!("config {config:?}") })]
    NotFound {
        /// Name of the config.
        config: String,
        /// The version that was asked for.
        version: Option<u32>,
    },
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The config has as many versions as it may have: make another config.
    #[error("config {0:?} has as many versions as it may have")]
    TooManyVersions(String),
    /// The version's state does not allow it.
    #[error("version {version} of config {config:?} is {state} and cannot {action}")]
    WrongState {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
        /// What it is.
        state: VersionState,
        /// What was to happen: `be edited`, `become published`, …
        action: String,
    },
}

/// Why the manager cannot do its work now; fit for a readiness probe. It recovers by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The driver has ended, or was never run.
    #[error("the fleet manager does not run")]
    NotRunning,
    /// The store does not work: changes of agents wait, calls that change something fail.
    #[error("{0}")]
    Store(String),
}
