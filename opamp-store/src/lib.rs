//! Storage for OpAMP fleets: small traits that read, one method that writes, two implementations and the
//! suite that proves them.
//!
//! Everything that changes goes through [`Store::commit`]: a bounded, atomic [`WriteBatch`] with preconditions,
//! an optional idempotency key and an optional [`Fence`]. Reading is split by aggregate ([`AgentStore`],
//! [`BlobStore`], [`ConfigStore`], [`PackageStore`], [`AuditLog`], [`CredentialStore`], [`LeaseStore`]). All traits are
//! object-safe; an application holds one `Arc<dyn Store>`.
//!
//! | implementation | for |
//! |---|---|
//! | [`MemoryStore`] | tests, and services that keep nothing; the model the others are compared with |
//! | `SqliteStore` (feature `sqlite`) | one process with an embedded file; every acknowledged commit survives power loss |
//!
//! Somebody with a database of their own implements the traits and runs `conformance_suite!` (feature
//! `conformance`) on it: one named test per numbered clause of the trait documentation.
//!
//! Secrets: connection settings that agents shall have lie in the store with their headers and private keys, and so do
//! the server's own [`ServerSecret`]s. Whoever can read the store has them; the embedded file is for its owner only. Settings
//! that no record refers to any more are removed by the next [`sweep_unreferenced_blobs`].
//!
//! What the store does not know: selectors, liveness, who is connected, why anything is written. Last-seen
//! times are [`Checkpoint`]s in packed batches, so a steady fleet of any size writes no row per heartbeat;
//! changed records are grouped by [`WriteBehind`].

mod audit_chain;
mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod judge;
mod lease;
mod memory;
mod page;
mod pins;
mod records;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod sweep;
mod traits;
mod write_behind;

pub use audit_chain::{AuditBreak, AuditReport, ChainHead, ChainVerifier};
pub use batch::{BatchContents, PackageContents, Precondition, WriteBatch};
pub use error::{
    CommitError, FaultKind, InvalidWrite, LeaseError, OpenError, ReadError, StorageFault, SweepError,
    Unhealthy,
};
pub use lease::{Acquired, Fence, Lease};
pub use memory::MemoryStore;
pub use page::{AuditOrder, AuditQuery, Changes, PAGE_MAX, Page, Revision};
pub use pins::BlobPins;
pub use records::{
    AgentRecord, ApiToken, AssignedPackage, AuditEntry, Blob, BlobId, BlobIdError, Checkpoint, ConfigState,
    ConfigVersion, ConnectionFacts, DesiredConfig, DesiredPackages, DesiredSettings, FailureRecord,
    NewAuditEntry, OfferRecord, OffersRecord, PackageKey, PackageKind, PackageVersion, Role, RoleError,
    ServerSecret, StickyRecord, StoredParts,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
pub use stats::StoreStats;
pub use sweep::{Swept, sweep_unreferenced_blobs, sweep_unreferenced_blobs_sparing};
pub use traits::{
    AgentStore, AuditLog, BlobStore, ConfigStore, CredentialStore, LeaseStore, PackageStore, Store,
};
pub use write_behind::{WriteBehind, WriteBehindLimits};
