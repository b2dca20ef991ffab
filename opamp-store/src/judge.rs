//! Whether a batch may be committed: the rules every implementation in this crate shares.
//!
//! [`judge`] asks what [`Existing`] answers: a store that has everything at hand answers from there, another looks up before
//! what [`Wanted`] names, in the transaction that will write. All refusals come from here and before the first change, so
//! that a refused batch never has to be undone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opamp_proto::{AgentId, ConfigHash, InstanceUid};

use crate::{
    AgentRecord, ApiToken, BatchContents, BlobId, CommitError, ConfigState, ConfigVersion, DesiredConfig,
    Fence, InvalidWrite, PackageKey, PackageVersion, Precondition, Revision, ServerSecret,
};

/// What is in a store before a batch.
pub(crate) trait Existing {
    /// The uid of an agent's record, and when the record was written last.
    fn agent(&self, id: &AgentId) -> Option<(InstanceUid, Revision)>;
    /// The agent whose record has this uid.
    fn uid_owner(&self, uid: &InstanceUid) -> Option<AgentId>;
    fn config_version(&self, key: &(String, u32)) -> Option<ExistingVersion>;
    fn has_token(&self, id: &str) -> bool;
    /// All tokens; only asked for when the batch brings new ones.
    fn token_count(&self) -> usize;
    /// The token with this secret.
    fn secret_owner(&self, secret_sha256: &[u8; 32]) -> Option<&str>;
    fn package_version(&self, key: &PackageKey) -> Option<Revision>;
    /// One of the agents that are meant to have a package version; only asked for when the batch deletes it.
    fn package_user(&self, key: &PackageKey) -> Option<AgentId>;
    /// All package versions; only asked for when the batch brings new ones.
    fn package_count(&self) -> usize;
    fn has_server_secret(&self, name: &str) -> bool;
    /// All secrets of the server's own; only asked for when the batch brings new ones.
    fn server_secret_count(&self) -> usize;
    fn has_blob(&self, id: &BlobId) -> bool;
    /// The present epoch of a role, 0 if it was never held.
    fn epoch(&self, role: &str) -> u64;
}

/// What has to be looked up to judge a batch.
#[cfg(feature = "sqlite")]
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

#[cfg(feature = "sqlite")]
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
                wanted.packages.extend(record.package_references().cloned());
            }
        }
        let mut references = NewReferences::default();
        for record in contents.agents.values().flatten() {
            references.of(record, |blob| _ = wanted.blobs.insert(*blob));
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
    existing: &impl Existing,
    fence: Option<&Fence>,
) -> Result<(), CommitError> {
    if let Some(fence) = fence {
        let current = existing.epoch(&fence.role);
        if fence.epoch != current || fence.epoch == 0 {
            let (role, presented) = (fence.role.clone(), fence.epoch);
            return Err(CommitError::StaleFence { role, presented, current });
        }
    }
    if let Some(failed) = contents.preconditions.iter().find(|condition| !holds(condition, existing)) {
        return Err(CommitError::Precondition(failed.clone()));
    }
    judge_uids(contents, existing)?;
    judge_versions(contents, existing)?;
    judge_packages(contents, existing)?;
    judge_tokens(contents, existing)?;
    let new = contents.secrets.keys().filter(|name| !existing.has_server_secret(name)).count();
    bounded("secrets", ServerSecret::SECRETS_MAX, || existing.server_secret_count(), new)?;
    judge_blobs(contents, existing)
}

fn holds(precondition: &Precondition, existing: &impl Existing) -> bool {
    match precondition {
        Precondition::AgentAbsent(id) => existing.agent(id).is_none(),
        Precondition::AgentAt(id, revision) => {
            existing.agent(id).is_some_and(|(_, written)| written == *revision)
        }
        Precondition::ConfigVersionAbsent { config, version } => {
            existing.config_version(&(config.clone(), *version)).is_none()
        }
        Precondition::ConfigVersionAt { config, version, revision } => existing
            .config_version(&(config.clone(), *version))
            .is_some_and(|existing| existing.revision == *revision),
        Precondition::PackageAbsent(key) => existing.package_version(key).is_none(),
        Precondition::PackageAt(key, revision) => existing.package_version(key) == Some(*revision),
        Precondition::SecretAbsent(name) => !existing.has_server_secret(name),
        Precondition::TokenAbsent(id) => !existing.has_token(id),
        Precondition::UidFree(uid) => existing.uid_owner(uid).is_none(),
    }
}

fn judge_uids(contents: &BatchContents, existing: &impl Existing) -> Result<(), CommitError> {
    let mut taken = BTreeMap::new();
    for record in contents.agents.values().flatten() {
        let uid = record.uid;
        if existing.agent(&record.id).is_some_and(|(before, _)| before == uid) {
            continue; // mostly: nobody else had it before
        }
        let owner = existing.uid_owner(&uid).filter(|owner| match contents.agents.get(owner) {
            // An owner that the batch itself deletes or moves to another uid is out of the way.
            Some(changed) => changed.as_ref().is_some_and(|changed| changed.uid == uid),
            None => true,
        });
        if let Some(owner) = owner.or(taken.insert(uid, record.id)) {
            return Err(CommitError::UidTaken { uid, owner });
        }
    }
    Ok(())
}

fn judge_versions(contents: &BatchContents, existing: &impl Existing) -> Result<(), CommitError> {
    for (key, version) in &contents.config_versions {
        let Some(before) = existing.config_version(key) else { continue };
        let same_content = version.blob == before.blob && version.hash == before.hash;
        if version.state < before.state || (before.state != ConfigState::Draft && !same_content) {
            let (config, version) = key.clone();
            return Err(InvalidWrite::Immutable { config, version }.into());
        }
    }
    Ok(())
}

fn judge_tokens(contents: &BatchContents, existing: &impl Existing) -> Result<(), CommitError> {
    let mut secrets = BTreeSet::new();
    for token in contents.tokens.values() {
        let owner = existing.secret_owner(&token.secret_sha256);
        let stays = owner.is_some_and(|owner| !contents.tokens.contains_key(owner));
        if stays || !secrets.insert(token.secret_sha256) {
            return Err(InvalidWrite::SecretTaken { id: token.id.clone() }.into());
        }
    }
    let new = contents.tokens.keys().filter(|id| !existing.has_token(id)).count();
    bounded("API tokens", ApiToken::TOKENS_MAX, || existing.token_count(), new)
}

fn judge_packages(contents: &BatchContents, existing: &impl Existing) -> Result<(), CommitError> {
    let mut new = 0;
    for (key, package) in &contents.packages {
        match package {
            Some(_) if existing.package_version(key).is_some() => {
                return Err(InvalidWrite::PackageExists(key.clone()).into());
            }
            Some(_) => new += 1,
            None => {
                if let Some(agent) = existing.package_user(key) {
                    return Err(CommitError::PackageInUse { key: key.clone(), agent });
                }
            }
        }
    }
    bounded("package versions", PackageVersion::PACKAGES_MAX, || existing.package_count(), new)?;
    let records = contents.agents.values().flatten();
    let references = records.flat_map(|record| record.package_references().map(|key| (record.id, key)));
    for (agent, key) in references {
        match contents.packages.get(key) {
            Some(Some(_)) => {}
            Some(None) if existing.package_version(key).is_some() => {
                return Err(CommitError::PackageInUse { key: key.clone(), agent });
            }
            None if existing.package_version(key).is_some() => {}
            Some(None) | None => return Err(CommitError::PackageMissing(key.clone())),
        }
    }
    Ok(())
}

fn judge_blobs(contents: &BatchContents, existing: &impl Existing) -> Result<(), CommitError> {
    let mut missing = None;
    let mut check = |id: &BlobId| {
        if missing.is_none() && !contents.blobs.contains_key(id) && !existing.has_blob(id) {
            missing = Some(*id);
        }
    };
    let mut references = NewReferences::default();
    for record in contents.agents.values().flatten() {
        references.of(record, &mut check);
    }
    contents.config_versions.values().for_each(|version| check(&version.blob));
    contents.packages.values().flatten().flat_map(|package| &package.chunks).for_each(check);
    missing.map_or(Ok(()), |missing| Err(CommitError::BlobMissing(missing)))
}

/// The blobs that records refer to one after the other, but for those that the record before refers to in the same place:
/// in a batch for many agents that is nearly all.
#[derive(Default)]
struct NewReferences<'a> {
    single: [Option<BlobId>; 4],
    history: Option<&'a Arc<[Arc<DesiredConfig>]>>,
}

impl<'a> NewReferences<'a> {
    fn of(&mut self, record: &'a AgentRecord, mut found: impl FnMut(&BlobId)) {
        let single = record.single_blob_references();
        for (present, before) in single.iter().zip(&self.single) {
            if let Some(blob) = present
                && present != before
            {
                found(blob);
            }
        }
        self.single = single;
        let history = &record.desired_history;
        if !self.history.is_some_and(|before| Arc::ptr_eq(before, history)) {
            history.iter().for_each(|assigned| found(&assigned.blob));
            self.history = Some(history);
        }
    }
}

/// Refuses what would exceed the number of records a store keeps.
fn bounded(
    what: &'static str,
    limit: usize,
    existing: impl FnOnce() -> usize,
    new: usize,
) -> Result<(), CommitError> {
    if new == 0 {
        return Ok(());
    }
    let actual = existing() + new;
    if actual > limit { Err(InvalidWrite::TooLarge { what, limit, actual }.into()) } else { Ok(()) }
}
