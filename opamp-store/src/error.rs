//! One error type per operation; each variant says what the caller can do.

use std::fmt;

use opamp_proto::{AgentId, InstanceUid};

use crate::{BlobId, PackageKey, Precondition};

/// Why [`commit`](crate::Store::commit) did not answer with a revision.
///
/// Except for [`CommitError::OutcomeUnknown`], nothing of the batch is in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A record refers to a blob that is neither stored nor in the batch. Put the blob into the same batch.
    #[error("blob {0} is neither stored nor in the batch")]
    BlobMissing(BlobId),
    /// The store was closed. Open it again.
    #[error("the store is closed")]
    Closed,
    /// The batch itself can never be committed. Correct it.
    #[error("{0}")]
    Invalid(#[from] InvalidWrite),
    /// The storage failed in a way that leaves open whether the batch was written. Read back, or commit the same
    /// batch again under the same idempotency key.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(StorageFault),
    /// A package version cannot be deleted, because an agent is meant to have it. Take it from the agent before.
    #[error("package version {key} is assigned to agent {agent}")]
    PackageInUse {
        /// The package version.
        key: PackageKey,
        /// One of the agents.
        agent: AgentId,
    },
    /// A record refers to a package version that is not there. Publish it before, or choose another one.
    #[error("there is no package version {0}")]
    PackageMissing(PackageKey),
    /// A precondition does not hold. Read again and decide again.
    #[error("precondition failed: {0}")]
    Precondition(Precondition),
    /// Somebody else holds the role by now. Stop acting in it.
    #[error("stale fence: epoch {presented} of role {role}, which is at epoch {current}")]
    StaleFence {
        /// The role of the fence.
        role: String,
        /// The epoch of the fence.
        presented: u64,
        /// The epoch of the role; 0 when nobody ever held it.
        current: u64,
    },
    /// Another agent's record has this uid.
    #[error("instance uid {uid} belongs to agent {owner}")]
    UidTaken {
        /// The uid in question.
        uid: InstanceUid,
        /// Whose it is.
        owner: AgentId,
    },
    /// The storage refused and nothing was written. Try again later; [`StorageFault::kind`] says what to look at.
    #[error("not written: {0}")]
    Unavailable(StorageFault),
}

/// A batch that no store accepts, whatever its state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWrite {
    /// Content or hash of a published version would change, or its state go back.
    #[error("version {version} of config {config} is published and cannot change")]
    Immutable {
        /// Name of the config.
        config: String,
        /// Its version.
        version: u32,
    },
    /// A name is empty or too long, or a number out of range.
    #[error("{what} must be within {min} and {max}, is {actual}")]
    OutOfRange {
        /// What.
        what: &'static str,
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
        /// The value.
        actual: u64,
    },
    /// There is a package version of this key already, and it cannot change.
    #[error("package version {0} exists and cannot change")]
    PackageExists(PackageKey),
    /// Two tokens would have the same secret.
    #[error("token {id} has the secret of another token")]
    SecretTaken {
        /// The token in the batch.
        id: String,
    },
    /// The batch, or what the store would hold after it, exceeds a bound. Split it, or delete something.
    #[error("too many {what}: {actual}, at most {limit}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// What was asked for.
        actual: usize,
    },
}

/// Why a read failed. A record that does not exist is not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store was closed. Open it again.
    #[error("the store is closed")]
    Closed,
    /// Stored bytes cannot be understood. Restore from a backup, or use the version that wrote them.
    #[error("{what} is unreadable: {reason}")]
    Corrupt {
        /// Which record.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The storage failed. Try again later.
    #[error("not readable: {0}")]
    Unavailable(StorageFault),
}

/// Why a store could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory or file cannot be made or its permissions cannot be set.
    #[error("cannot prepare {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// A newer version of this software wrote the data. Use that version, or a backup from before.
    #[error(
        "the data has schema version {found}, this software understands up to {supported}; use a newer release"
    )]
    NewerSchema {
        /// Version of the data.
        found: u32,
        /// Highest version understood.
        supported: u32,
    },
    /// The database cannot keep the promise that acknowledged commits survive power loss.
    #[error("the database is not durable: {0}")]
    NotDurable(String),
    /// The storage failed.
    #[error("cannot open: {0}")]
    Unavailable(StorageFault),
}

/// Why a lease operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A name is empty or too long.
    #[error("{0}")]
    Invalid(#[from] InvalidWrite),
    /// The lease is not this holder's any more. Stop acting in the role, then acquire again.
    #[error("role {role} is at epoch {current}, not {presented}, or was given up")]
    Lost {
        /// The role.
        role: String,
        /// The epoch of the lost lease.
        presented: u64,
        /// The epoch of the role now.
        current: u64,
    },
    /// The storage failed in a way that leaves open whether the change was written. Treat the lease as lost.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(StorageFault),
    /// The storage failed and nothing was written. Try again before the lease ends.
    #[error("not written: {0}")]
    Unavailable(StorageFault),
}

/// Why a sweep stopped; what it deleted before stays deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The deletion failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Looking for unreferenced blobs failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a store cannot do its work now; fit for a readiness probe. It recovers by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unhealthy {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Reading fails.
    #[error("store not readable: {0}")]
    NotReadable(StorageFault),
    /// Writing fails.
    #[error("store not writable: {0}")]
    NotWritable(StorageFault),
}

/// What the storage said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageFault {
    /// The class of fault.
    pub kind: FaultKind,
    /// The words of the database.
    pub detail: String,
}

impl fmt::Display for StorageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.as_str(), self.detail)
    }
}

/// Classes of storage faults, by what an operator does about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Another process holds the lock for longer than the busy timeout.
    Busy,
    /// The file is not a database, or is damaged.
    Corrupt,
    /// Disk, quota or size limit is exhausted.
    Full,
    /// Reading or writing the file failed.
    Io,
    /// Anything else.
    Other,
    /// The file or file system does not allow writing.
    ReadOnly,
}

impl FaultKind {
    /// Short text for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "the database is locked by another process",
            Self::Corrupt => "the database is damaged",
            Self::Full => "no space left for the database",
            Self::Io => "reading or writing the database failed",
            Self::Other => "the database failed",
            Self::ReadOnly => "the database is read-only",
        }
    }
}
