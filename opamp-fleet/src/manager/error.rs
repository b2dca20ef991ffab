//! One error type for each family of operations; each variant says what the caller can do.

use opamp_proto::{AgentId, InstanceUid};
use opamp_server::{CustomError, InvalidOffer};
use opamp_store::{CommitError, PackageKey, ReadError};

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

/// Why an assignment to all agents of a selector was not made, or not to all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssignMatchingError {
    /// The selector is empty, so that every agent would match: a slip must not reach all of them. Say what they have in
    /// common.
    #[error(
        "an empty selector would reach every agent; say what they have in common, such as `capability=AcceptsRemoteConfig`"
    )]
    Everything,
    /// Agents were assigned to and the rest was not. Repeat the call when the cause is gone: those that have it are left as they are.
    #[error("stopped after {assigned} agents: {cause}")]
    Interrupted {
        /// How many should have the version by now.
        assigned: usize,
        /// Why not all.
        cause: AssignError,
    },
    /// The version cannot be assigned, whatever the agents are.
    #[error(transparent)]
    Refused(#[from] AssignError),
    /// More agents match than the caller thinks. Narrow the selector, or allow more.
    #[error("more than {at_most} agents match the selector")]
    TooMany {
        /// What the caller allowed.
        at_most: usize,
    },
}

/// Why connection settings were not set or not withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionSettingsError {
    /// Somebody changed the agent's record meanwhile. Read it and decide again.
    #[error("agent {0} was changed meanwhile")]
    Conflict(AgentId),
    /// The idempotency key is empty or too long: choose one of 1 to 64 bytes.
    #[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    IdempotencyKey,
    /// The agent announced its capabilities, and accepts no part of these settings. Enable that in the agent.
    #[error(
        "agent {0} does not accept any of these connection settings (its capabilities for them are missing)"
    )]
    NotAccepted(AgentId),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The settings are larger than one message may be: leave something out.
    #[error("the settings have {bytes} bytes, and at most {bytes_max} are kept")]
    TooLarge {
        /// Their size, encoded.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// Why a package version was not published or not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// An earlier call on this upload failed or was given up. Drop it and begin again.
    #[error("the upload was given up; begin it again")]
    Aborted,
    /// What was uploaded before is gone, because another process swept the store. Upload it again.
    #[error("what was uploaded is not in the store any more; upload it again")]
    ContentLost,
    /// There is nothing in it: a package has a file of at least one byte.
    #[error("the content is empty")]
    Empty,
    /// There is such a version, and it cannot change. Choose another version.
    #[error("there is a version {:?} of package {:?} already", .0.version, .0.name)]
    Exists(PackageKey),
    /// An agent is meant to have it. Take it away from all agents before.
    #[error("version {:?} of package {:?} is assigned, to agent {agent} among others", .key.version, .key.name)]
    InUse {
        /// The package version.
        key: PackageKey,
        /// One of the agents.
        agent: AgentId,
    },
    /// The name is refused: it is empty, or a letter or digit, then letters, digits, `.`, `_` and `-`.
    #[error(
        "a package's name is empty, or up to {PACKAGE_TEXT_BYTES_MAX} letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
    )]
    Name,
    /// All packages together have as many bytes as they may have, uploads under way included: delete some.
    #[error(
        "all packages together, uploads under way included, have no more than {bytes_max} bytes; delete some before"
    )]
    NoRoom {
        /// The bound.
        bytes_max: u64,
    },
    /// There is no such version.
    #[error("there is no version {:?} of package {:?}", .0.version, .0.name)]
    NotFound(PackageKey),
    /// The signature is too long.
    #[error("a signature has at most {bytes_max} bytes")]
    Signature {
        /// The bound.
        bytes_max: usize,
    },
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// The content is larger than packages may be.
    #[error("the content has more than {bytes_max} bytes")]
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// There are as many package versions as there may be: delete some.
    #[error("there are {max} package versions, as many as there may be; delete some before")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// So many uploads are under way. Try again when one has ended.
    #[error("{max} uploads are under way already; try again later")]
    TooManyUploads {
        /// The bound.
        max: usize,
    },
    /// The version is refused: a letter or digit, then letters, digits, `.`, `_`, `+`, `~` and `-`.
    #[error(
        "a package's version is up to {PACKAGE_TEXT_BYTES_MAX} letters, digits, `.`, `_`, `+`, `~` and `-`, and begins with a letter or digit"
    )]
    Version,
    /// The content is not the one that was meant: its SHA-256 differs.
    #[error("the content has SHA-256 {actual}, expected was {expected}")]
    WrongHash {
        /// In hexadecimal digits.
        expected: String,
        /// In hexadecimal digits.
        actual: String,
    },
}

/// Longest name and longest version of a package, in bytes.
pub const PACKAGE_TEXT_BYTES_MAX: usize = 128;

/// Why packages were not assigned or not withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssignPackagesError {
    /// Somebody changed the agent's record meanwhile. Read it and decide again.
    #[error("agent {0} was changed meanwhile")]
    Conflict(AgentId),
    /// The idempotency key is empty or too long: choose one of 1 to 64 bytes.
    #[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes")]
    IdempotencyKey,
    /// The packages make no valid offer.
    #[error(transparent)]
    InvalidOffer(#[from] InvalidOffer),
    /// The agent announced its capabilities, and AcceptsPackages is not among them (R-PKG-06). Enable it in the agent.
    #[error("agent {0} does not accept packages (capability AcceptsPackages is missing)")]
    NotAccepted(AgentId),
    /// It is not known where agents can download packages: set the URL base in the server's settings.
    #[error("no URL is configured from which agents can download packages")]
    NoUrlBase,
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// Only the sole top-level package may have the empty name (R-PKG-02): name the others, or leave them out.
    #[error("a package with the empty name must be top-level, and the only one that is")]
    NotSoleTopLevel,
    /// There is no such package version.
    #[error("there is no version {:?} of package {:?}", .0.version, .0.name)]
    PackageNotFound(PackageKey),
    /// The operating system has no random numbers, so that there is no key for download tokens.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The store could not do its part.
    #[error(transparent)]
    Store(#[from] StoreFailure),
    /// An agent cannot have so many packages.
    #[error("{count} packages were given, and an agent can have {max}")]
    TooMany {
        /// How many there were.
        count: usize,
        /// The bound.
        max: usize,
    },
}

/// Why a custom message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendCustomError {
    /// The server does not send it.
    #[error(transparent)]
    NotSent(#[from] CustomError),
    /// There is no such agent.
    #[error("there is no agent {0}")]
    NotFound(AgentId),
    /// The store could not do its part, so the message was not sent: it could not be audited.
    #[error(transparent)]
    Store(#[from] StoreFailure),
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
