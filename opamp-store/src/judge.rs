//! Whether a batch may be committed: the rules every implementation in this crate shares.
//!
//! A store looks up what [`Wanted`] names, in the transaction that will write, and asks [`judge`]. All refusals come
//! from here and before the first change, so that a refused batch never has to be undone.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{AgentId, ConfigHash, InstanceUid};

use crate::{
    ApiToken, BatchContents, BlobId, CommitError, ConfigState, ConfigVersion, Fence, InvalidWrite,
    PackageKey, PackageVersion, Precondition, Revision, ServerSecret,
};

/// What has to be looked up to judge a batch.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) agents: BTreeSet<AgentId>,
    pub(crate) uids: BTreeSet<InstanceUid>,
    pub(crate) versions: BTreeSet<(String, u32)>,
    pub(crate) tokens: BTreeSet<String>,
    /// Of tokens.
    pub(crate) secrets: BTreeSet<[u8; 32]>,
    pub(crate) packages: BTreeSet<PackageKey>,
    /// Of the server's own.
    pub(crate) server_secrets: BTreeSet<String>,
    pub(crate) blobs: BTreeSet<BlobId>,
}

/// What was found of it.
#[derive(Debug, Default)]
pub(crate) struct Existing {
    pub(crate) agents: BTreeMap<AgentId, Revision>,
    pub(crate) uid_owners: BTreeMap<InstanceUid, AgentId>,
    pub(crate) versions: BTreeMap<(String, u32), ExistingVersion>,
    pub(crate) tokens: BTreeSet<String>,
    /// All tokens of the store; only looked at when the batch brings new ones.
    pub(crate) token_count: usize,
    pub(crate) secret_owners: BTreeMap<[u8; 32], String>,
    pub(crate) packages: BTreeMap<PackageKey, Revision>,
    /// Of the packages that the batch deletes, those that records refer to, each with one of the agents.
    pub(crate) package_users: BTreeMap<PackageKey, AgentId>,
    /// All package versions of the store; only looked at when the batch brings new ones.
    pub(crate) package_count: usize,
    pub(crate) server_secrets: BTreeSet<String>,
    /// All secrets of the store; only looked at when the batch brings new ones.
    pub(crate) server_secret_count: usize,
    pub(crate) blobs: BTreeSet<BlobId>,
    /// Present epoch of the fence's role.
    pub(crate) epoch: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ExistingVersion {
    pub(crate) revision: Revision,
    pub(crate) state: ConfigState,
    pub(crate) blob: BlobId,
    pub(crate) hash: ConfigHash,
}

impl ExistingVersion {
    pub(crate) fn of(version: &ConfigVersion) -> Self {
        Self {
            revision: version.revision,
            state: version.state,
            blob: version.blob,
            hash: version.hash.clone(),
        }
    }
}

impl Wanted {
    pub(crate) fn by(contents: &BatchContents) -> Self {
        let mut wanted = Self::default();
        for precondition in &contents.preconditions {
            match precondition {
                Precondition::AgentAbsent(id) | Precondition::AgentAt(id, _) => {
                    wanted.agents.insert(*id);
                }
                Precondition::ConfigVersionAbsent { config, version }
                | Precondition::ConfigVersionAt { config, version, .. } => {
                    wanted.versions.insert((config.clone(), *version));
                }
                Precondition::PackageAbsent(key) | Precondition::PackageAt(key, _) => {
                    wanted.packages.insert(key.clone());
                }
                Precondition::SecretAbsent(name) => {
                    wanted.server_secrets.insert(name.clone());
                }
                Precondition::TokenAbsent(id) => {
                    wanted.tokens.insert(id.clone());
                }
                Precondition::UidFree(uid) => {
                    wanted.uids.insert(*uid);
                }
            }
        }
        for (id, record) in &contents.agents {
            wanted.agents.insert(*id);
            if let Some(record) = record {
                wanted.uids.insert(record.uid);
                wanted.blobs.extend(record.blob_references());
                wanted.packages.extend(record.package_references().cloned());
            }
        }
        for (key, version) in &contents.config_versions {
            wanted.versions.insert(key.clone());
            wanted.blobs.insert(version.blob);
        }
        for (key, package) in &contents.packages {
            wanted.packages.insert(key.clone());
            wanted.blobs.extend(package.iter().flat_map(|package| &package.chunks));
        }
        wanted.server_secrets.extend(contents.secrets.keys().cloned());
        for token in contents.tokens.values() {
            wanted.tokens.insert(token.id.clone());
            wanted.secrets.insert(token.secret_sha256);
        }
        wanted.blobs.retain(|id| !contents.blobs.contains_key(id));
        wanted
    }
}

/// Refuses a batch that may not be committed on top of what exists.
pub(crate) fn judge(
    contents: &BatchContents,
    wanted: &Wanted,
    existing: &Existing,
    fence: Option<&Fence>,
) -> Result<(), CommitError> {
    if let Some(fence) = fence.filter(|fence| fence.epoch != existing.epoch || fence.epoch == 0) {
        return Err(CommitError::StaleFence {
            role: fence.role.clone(),
            presented: fence.epoch,
            current: existing.epoch,
        });
    }
    if let Some(failed) = contents.preconditions.iter().find(|precondition| !existing.satisfies(precondition))
    {
        return Err(CommitError::Precondition(failed.clone()));
    }
    judge_uids(contents, existing)?;
    judge_versions(contents, existing)?;
    judge_packages(contents, existing)?;
    judge_tokens(contents, existing)?;
    let new = contents.secrets.keys().filter(|name| !existing.server_secrets.contains(*name)).count();
    bounded("secrets", ServerSecret::SECRETS_MAX, existing.server_secret_count, new)?;
    match wanted.blobs.difference(&existing.blobs).next() {
        Some(missing) => Err(CommitError::BlobMissing(*missing)),
        None => Ok(()),
    }
}

impl Existing {
    fn satisfies(&self, precondition: &Precondition) -> bool {
        match precondition {
            Precondition::AgentAbsent(id) => !self.agents.contains_key(id),
            Precondition::AgentAt(id, revision) => self.agents.get(id) == Some(revision),
            Precondition::ConfigVersionAbsent { config, version } => {
                !self.versions.contains_key(&(config.clone(), *version))
            }
            Precondition::ConfigVersionAt { config, version, revision } => self
                .versions
                .get(&(config.clone(), *version))
                .is_some_and(|existing| existing.revision == *revision),
            Precondition::PackageAbsent(key) => !self.packages.contains_key(key),
            Precondition::PackageAt(key, revision) => self.packages.get(key) == Some(revision),
            Precondition::SecretAbsent(name) => !self.server_secrets.contains(name),
            Precondition::TokenAbsent(id) => !self.tokens.contains(id),
            Precondition::UidFree(uid) => !self.uid_owners.contains_key(uid),
        }
    }
}

fn judge_uids(contents: &BatchContents, existing: &Existing) -> Result<(), CommitError> {
    let mut taken = BTreeMap::new();
    for record in contents.agents.values().flatten() {
        let owner = existing.uid_owners.get(&record.uid).copied();
        // An owner that the batch itself deletes or moves to another uid is out of the way.
        let stays = owner.filter(|owner| *owner != record.id && !contents.agents.contains_key(owner));
        if let Some(owner) = stays.or(taken.insert(record.uid, record.id)) {
            return Err(CommitError::UidTaken { uid: record.uid, owner });
        }
    }
    Ok(())
}

fn judge_versions(contents: &BatchContents, existing: &Existing) -> Result<(), CommitError> {
    for (key, version) in &contents.config_versions {
        let Some(before) = existing.versions.get(key) else { continue };
        let same_content = version.blob == before.blob && version.hash == before.hash;
        if version.state < before.state || (before.state != ConfigState::Draft && !same_content) {
            let (config, version) = key.clone();
            return Err(InvalidWrite::Immutable { config, version }.into());
        }
    }
    Ok(())
}

fn judge_tokens(contents: &BatchContents, existing: &Existing) -> Result<(), CommitError> {
    let mut secrets = BTreeSet::new();
    for token in contents.tokens.values() {
        let owner = existing.secret_owners.get(&token.secret_sha256);
        let stays = owner.is_some_and(|owner| !contents.tokens.contains_key(owner));
        if stays || !secrets.insert(token.secret_sha256) {
            return Err(InvalidWrite::SecretTaken { id: token.id.clone() }.into());
        }
    }
    let new = contents.tokens.keys().filter(|id| !existing.tokens.contains(*id)).count();
    bounded("API tokens", ApiToken::TOKENS_MAX, existing.token_count, new)
}

fn judge_packages(contents: &BatchContents, existing: &Existing) -> Result<(), CommitError> {
    let mut new = 0;
    for (key, package) in &contents.packages {
        match package {
            Some(_) if existing.packages.contains_key(key) => {
                return Err(InvalidWrite::PackageExists(key.clone()).into());
            }
            Some(_) => new += 1,
            None => {
                if let Some(agent) = existing.package_users.get(key) {
                    return Err(CommitError::PackageInUse { key: key.clone(), agent: *agent });
                }
            }
        }
    }
    bounded("package versions", PackageVersion::PACKAGES_MAX, existing.package_count, new)?;
    let records = contents.agents.values().flatten();
    let references = records.flat_map(|record| record.package_references().map(|key| (record.id, key)));
    for (agent, key) in references {
        match contents.packages.get(key) {
            Some(Some(_)) => {}
            Some(None) if existing.packages.contains_key(key) => {
                return Err(CommitError::PackageInUse { key: key.clone(), agent });
            }
            None if existing.packages.contains_key(key) => {}
            Some(None) | None => return Err(CommitError::PackageMissing(key.clone())),
        }
    }
    Ok(())
}

/// Refuses what would exceed the number of records a store keeps.
fn bounded(what: &'static str, limit: usize, existing: usize, new: usize) -> Result<(), CommitError> {
    let actual = existing + new;
    if new > 0 && actual > limit {
        return Err(InvalidWrite::TooLarge { what, limit, actual }.into());
    }
    Ok(())
}
