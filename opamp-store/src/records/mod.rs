//! What is stored: plain records with public fields, serialisable, without behaviour beyond their own invariants.

mod agent;
mod audit;
mod blob;
mod config;
mod hex_digest;
mod parts;
mod token;

pub use agent::{AgentRecord, Checkpoint, ConnectionFacts, DesiredConfig, FailureRecord, StickyRecord};
pub use audit::{AuditEntry, NewAuditEntry};
pub use blob::{BlobId, BlobIdError};
pub use config::{ConfigState, ConfigVersion};
pub use parts::StoredParts;
pub use token::{ApiToken, Role, RoleError};
