//! API tokens and roles.

use std::fmt;
use std::str::FromStr;

use opamp_proto::Wall;
use serde::{Deserialize, Serialize};

use super::hex_digest;

/// An operator's API token. The secret itself is never stored, only its SHA-256; `Debug` hides that too.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Public identifier, 1 to 255 bytes.
    pub id: String,
    /// What the operator calls it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the secret; no two tokens share one.
    #[serde(with = "hex_digest")]
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created_at: Wall,
    /// By whom.
    pub created_by: String,
    /// From when on it is no longer valid.
    #[serde(default)]
    pub expires_at: Option<Wall>,
    /// When it was revoked.
    #[serde(default)]
    pub revoked_at: Option<Wall>,
}

impl ApiToken {
    /// How many tokens a store keeps, revoked ones included; one more is refused.
    pub const TOKENS_MAX: usize = 10_000;
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiToken")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("role", &self.role)
            .field("created_at", &self.created_at)
            .field("created_by", &self.created_by)
            .field("expires_at", &self.expires_at)
            .field("revoked_at", &self.revoked_at)
            .finish_non_exhaustive()
    }
}

/// What an operator may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Change what agents run.
    Operator,
    /// Everything, tokens included.
    Admin,
}

impl Role {
    /// `viewer`, `operator` or `admin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(RoleError),
        }
    }
}

/// Text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of viewer, operator, admin")]
pub struct RoleError;
