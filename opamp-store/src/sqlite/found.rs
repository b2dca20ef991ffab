//! What a transaction found of what a batch is judged by.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{AgentId, InstanceUid};

use crate::judge::{Existing, ExistingVersion};
use crate::{BlobId, PackageKey, Revision};

/// The answers to [`Wanted`](crate::judge::Wanted).
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) agents: BTreeMap<AgentId, (InstanceUid, Revision)>,
    pub(super) uid_owners: BTreeMap<InstanceUid, AgentId>,
    pub(super) versions: BTreeMap<(String, u32), ExistingVersion>,
    pub(super) tokens: BTreeSet<String>,
    pub(super) token_count: usize,
    pub(super) secret_owners: BTreeMap<[u8; 32], String>,
    pub(super) packages: BTreeMap<PackageKey, Revision>,
    pub(super) package_users: BTreeMap<PackageKey, AgentId>,
    pub(super) package_count: usize,
    pub(super) server_secrets: BTreeSet<String>,
    pub(super) server_secret_count: usize,
    pub(super) blobs: BTreeSet<BlobId>,
    /// Of the fence's role.
    pub(super) epoch: u64,
}

impl Existing for Found {
    fn agent(&self, id: &AgentId) -> Option<(InstanceUid, Revision)> {
        self.agents.get(id).copied()
    }

    fn uid_owner(&self, uid: &InstanceUid) -> Option<AgentId> {
        self.uid_owners.get(uid).copied()
    }

    fn config_version(&self, key: &(String, u32)) -> Option<ExistingVersion> {
        self.versions.get(key).cloned()
    }

    fn has_token(&self, id: &str) -> bool {
        self.tokens.contains(id)
    }

    fn token_count(&self) -> usize {
        self.token_count
    }

    fn secret_owner(&self, secret_sha256: &[u8; 32]) -> Option<&str> {
        self.secret_owners.get(secret_sha256).map(String::as_str)
    }

    fn package_version(&self, key: &PackageKey) -> Option<Revision> {
        self.packages.get(key).copied()
    }

    fn package_user(&self, key: &PackageKey) -> Option<AgentId> {
        self.package_users.get(key).copied()
    }

    fn package_count(&self) -> usize {
        self.package_count
    }

    fn has_server_secret(&self, name: &str) -> bool {
        self.server_secrets.contains(name)
    }

    fn server_secret_count(&self) -> usize {
        self.server_secret_count
    }

    fn has_blob(&self, id: &BlobId) -> bool {
        self.blobs.contains(id)
    }

    fn epoch(&self, _role: &str) -> u64 {
        self.epoch
    }
}
