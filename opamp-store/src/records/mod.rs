//! What is stored: plain records with public fields, serialisable, without behaviour beyond their own invariants.

mod agent;
mod audit;
mod blob;
mod config;
mod hex_digest;
mod package;
mod parts;
mod secret;
mod token;

pub use agent::{
    AgentRecord, AssignedPackage, Checkpoint, ConnectionFacts, DesiredConfig, DesiredPackages,
    DesiredSettings, FailureRecord, OfferRecord, OffersRecord, StickyRecord,
};
pub use audit::{AuditEntry, NewAuditEntry};
pub use blob::{Blob, BlobId, BlobIdError};
pub use config::{ConfigState, ConfigVersion};
pub use package::{PackageKey, PackageKind, PackageVersion};
pub use parts::StoredParts;
pub use secret::ServerSecret;
pub use token::{ApiToken, Role, RoleError};
