//! The package catalogue, and what is downloaded from it.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::AgentId;
use opamp_store::{
    AssignedPackage, CommitError, PackageKey, PackageKind, PackageVersion, Page, Precondition, ReadError,
    WriteBatch,
};
use serde_json::{Value, json};

use super::audit::Deed;
use super::error::{PACKAGE_TEXT_BYTES_MAX, PackageError, StoreFailure};
use super::types::Actor;
use super::{FleetManager, Inner};

impl FleetManager {
    /// Package versions, in the order of name and version.
    ///
    /// # Errors
    /// [`StoreFailure`] if they cannot be read.
    pub async fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> Result<Page<PackageVersion, PackageKey>, StoreFailure> {
        Ok(self.inner.store.packages(after, limit).await?)
    }

    /// One package version; none if there is no such version.
    ///
    /// # Errors
    /// [`StoreFailure`] if it cannot be read.
    pub async fn package(&self, key: &PackageKey) -> Result<Option<PackageVersion>, StoreFailure> {
        Ok(self.inner.store.package(key).await?)
    }

    /// Deletes a package version that no agent is meant to have. Its content goes with the next sweep.
    ///
    /// # Errors
    /// [`PackageError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn delete_package(&self, actor: &Actor, key: &PackageKey) -> Result<(), PackageError> {
        let (actor, key) = (actor.clone(), key.clone());
        self.complete(|inner| async move { inner.delete_package(&actor, &key).await }).await
    }

    /// The package version an agent may download by its content, shown a token from the agent's own offer. None alike if
    /// the token is not this server's for this agent and content, if there is no such agent, and if no such package is
    /// assigned to it (any more).
    ///
    /// # Errors
    /// [`StoreFailure`] if that cannot be looked up now.
    pub async fn open_package(
        &self,
        agent: &AgentId,
        content_sha256: &[u8; 32],
        token: &str,
    ) -> Result<Option<PackageVersion>, StoreFailure> {
        // The token first: who has none costs no look into the store.
        let Some(key) = self.inner.download_key().await? else { return Ok(None) };
        if !key.verify(agent, content_sha256, token) {
            return Ok(None);
        }
        let Some(newest) = self.inner.peek(agent).await? else { return Ok(None) };
        let mut assigned = newest.record.desired_packages.iter().flat_map(|desired| &desired.packages);
        let Some(package) = assigned.find(|package| package.content_sha256 == *content_sha256) else {
            return Ok(None);
        };
        // Not what is remembered: it may have been published anew since, and chunks are those of one revision.
        let found = self.inner.store.package(&package.key).await?;
        Ok(found.filter(|version| version.content_sha256 == *content_sha256))
    }

    /// One chunk of a package's content, counted from 0: [`PackageVersion::chunk_bytes`] bytes, the last one perhaps
    /// fewer. None beyond the end, or if the version was deleted meanwhile, perhaps to be published anew with another
    /// content.
    ///
    /// # Errors
    /// [`StoreFailure`] if it cannot be read.
    pub async fn package_chunk(
        &self,
        version: &PackageVersion,
        index: u64,
    ) -> Result<Option<Bytes>, StoreFailure> {
        let store = &self.inner.store;
        let Some(id) = store.package_chunks(&version.key, index, 1).await?.first().copied() else {
            return Ok(None);
        };
        let bytes = store.blob(&id).await?;
        // Looked at after the chunk was: if it is still this one, the chunk was of this one.
        match (store.package(&version.key).await?, bytes) {
            (Some(now), _) if now.revision != version.revision => Ok(None),
            (None, _) => Ok(None),
            (Some(_), Some(bytes)) => Ok(Some(bytes)),
            (Some(_), None) => {
                Err(StoreFailure::Damaged(format!("chunk {index} of package {} is missing", version.key)))
            }
        }
    }
}

impl Inner {
    async fn delete_package(self: Arc<Self>, actor: &Actor, key: &PackageKey) -> Result<(), PackageError> {
        let found = self.store.package(key).await.map_err(StoreFailure::from)?;
        let found = found.ok_or_else(|| PackageError::NotFound(key.clone()))?;
        let mut batch = WriteBatch::new();
        batch.require(Precondition::PackageAt(key.clone(), found.revision)).delete_package(key.clone());
        let deed = of_package("package.delete", key, Some(package_value(&found)), None);
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        match self.commit(batch, None).await {
            Ok(_) => Ok(()),
            Err(CommitError::Precondition(_)) => Err(PackageError::NotFound(key.clone())),
            Err(CommitError::PackageInUse { key, agent }) => Err(PackageError::InUse { key, agent }),
            Err(error) => Err(StoreFailure::from(error).into()),
        }
    }

    /// A package version an agent is meant to have, from memory if it was read before: it never changes, and stays as
    /// long as it is assigned.
    pub(super) async fn assigned_version(
        &self,
        assigned: &AssignedPackage,
    ) -> Result<Option<PackageVersion>, StoreFailure> {
        let known = self.state().package_versions.get(&assigned.key).cloned();
        // A version of before that was deleted and published anew has another content.
        let is_it = |version: &PackageVersion| version.content_sha256 == assigned.content_sha256;
        if let Some(known) = known.filter(is_it) {
            return Ok(Some(known));
        }
        let found = match self.store.package(&assigned.key).await {
            Ok(found) => found.filter(is_it),
            Err(error @ ReadError::Corrupt { .. }) => {
                tracing::error!(package = %assigned.key, %error, "a package version is unreadable");
                None
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(version) = &found {
            self.state().remember_package(version.clone());
        }
        Ok(found)
    }
}

/// Checks the name of a package.
pub(super) fn check_name(name: &str) -> Result<(), PackageError> {
    let fits = name.is_empty() || is_word(name, b"._-");
    if fits { Ok(()) } else { Err(PackageError::Name) }
}

/// Checks the version of a package.
pub(super) fn check_version(version: &str) -> Result<(), PackageError> {
    if is_word(version, b"._+~-") { Ok(()) } else { Err(PackageError::Version) }
}

/// A letter or digit, then letters, digits and some other characters.
fn is_word(text: &str, others: &[u8]) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte));
    first && rest && text.len() <= PACKAGE_TEXT_BYTES_MAX
}

pub(super) fn of_package(
    action: &'static str,
    key: &PackageKey,
    before: Option<Value>,
    after: Option<Value>,
) -> Deed {
    Deed { action: action.into(), entity: format!("package:{key}"), before, after }
}

/// A package version as the audit log shows it.
pub(super) fn package_value(version: &PackageVersion) -> Value {
    json!({
        "kind": version.kind.as_str(),
        "size_bytes": version.size_bytes,
        "content_sha256": data_encoding::HEXLOWER.encode(&version.content_sha256),
        "signed": version.signature.is_some(),
    })
}

/// The kind on the wire.
pub(super) fn wire_kind(kind: PackageKind) -> opamp_proto::pb::PackageType {
    match kind {
        PackageKind::AddOn => opamp_proto::pb::PackageType::Addon,
        PackageKind::TopLevel => opamp_proto::pb::PackageType::TopLevel,
    }
}
