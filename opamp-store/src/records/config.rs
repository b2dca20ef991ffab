//! Named configs and their versions.

use opamp_proto::{ConfigHash, Wall};
use serde::{Deserialize, Serialize};

use super::BlobId;
use crate::Revision;

/// One version of a named config. Content and hash cannot change once it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigVersion {
    /// Name of the config, 1 to 255 bytes.
    pub config: String,
    /// Version within the config, from 1 to [`ConfigVersion::VERSION_MAX`].
    pub version: u32,
    /// How far it has come.
    pub state: ConfigState,
    /// The encoded `AgentConfigMap`: all files of the config.
    pub blob: BlobId,
    /// Canonical hash of the map; what agents report when they run it.
    pub hash: ConfigHash,
    /// When the version was made.
    pub created_at: Wall,
    /// By whom.
    pub created_by: String,
    /// When it was published.
    #[serde(default)]
    pub published_at: Option<Wall>,
    /// By whom.
    #[serde(default)]
    pub published_by: Option<String>,
    /// What the author said about it.
    #[serde(default)]
    pub comment: String,
    /// The commit that wrote this record last. Set by the store.
    #[serde(default)]
    pub revision: Revision,
}

impl ConfigVersion {
    /// The highest version number, which bounds what [`versions`](crate::ConfigStore::versions) can answer.
    pub const VERSION_MAX: u32 = 10_000;
}

/// The life of a config version: it only moves downwards in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigState {
    /// May be edited; is never offered to an agent.
    Draft,
    /// Immutable; may be assigned.
    Published,
    /// Immutable; no new assignments.
    Archived,
}

impl ConfigState {
    /// The name used in the API: `draft`, `published`, `archived`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Archived => "archived",
        }
    }
}
