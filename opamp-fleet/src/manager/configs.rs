//! Configs and their versions.

use std::sync::Arc;

use opamp_proto::{Wall, pb};
use opamp_store::{CommitError, ConfigState, ConfigVersion, Page, Precondition, Revision, WriteBatch};
use serde_json::{Value, json};

use super::audit::Deed;
use super::error::{ConfigOpError, StoreFailure};
use super::types::Actor;
use super::{FleetManager, Inner};
use crate::{ConfigMap, FileDiff, VersionState, diff};

/// How often a version number is chosen anew because somebody took it meanwhile.
const NUMBERING_REPEATS: usize = 5;

impl FleetManager {
    /// Makes a config with a draft as version 1.
    ///
    /// # Errors
    /// [`ConfigOpError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn create_config(
        &self,
        actor: &Actor,
        name: &str,
        files: pb::AgentConfigMap,
        comment: &str,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let draft = self.checked(actor, name, files, comment)?;
        let actor = actor.clone();
        self.complete(|inner| async move {
            let name = draft.version.config.clone();
            inner.put_new(&actor, "config.create", draft).await.map_err(|error| match error {
                ConfigOpError::Conflict { .. } => ConfigOpError::Exists(name),
                other => other,
            })
        })
        .await
    }

    /// Adds a draft as the next version of a config.
    ///
    /// # Errors
    /// [`ConfigOpError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn create_version(
        &self,
        actor: &Actor,
        name: &str,
        files: pb::AgentConfigMap,
        comment: &str,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let draft = self.checked(actor, name, files, comment)?;
        let actor = actor.clone();
        self.complete(|inner| async move { inner.create_version(&actor, draft).await }).await
    }

    /// Replaces files and comment of a draft that is at the expected revision.
    ///
    /// # Errors
    /// [`ConfigOpError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn update_draft(
        &self,
        actor: &Actor,
        name: &str,
        version: u32,
        files: pb::AgentConfigMap,
        comment: &str,
        expected_revision: Revision,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let draft = self.checked(actor, name, files, comment)?;
        let actor = actor.clone();
        self.complete(
            |inner| async move { inner.update_draft(&actor, version, draft, expected_revision).await },
        )
        .await
    }

    /// Publishes a draft: from now on it cannot change and can be assigned.
    ///
    /// # Errors
    /// [`ConfigOpError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn publish(
        &self,
        actor: &Actor,
        name: &str,
        version: u32,
        expected_revision: Option<Revision>,
    ) -> Result<ConfigVersion, ConfigOpError> {
        self.change_state(actor, name, version, VersionState::Published, expected_revision).await
    }

    /// Archives a published version: it cannot be assigned any more. Agents that have it keep it.
    ///
    /// # Errors
    /// [`ConfigOpError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn archive(
        &self,
        actor: &Actor,
        name: &str,
        version: u32,
        expected_revision: Option<Revision>,
    ) -> Result<ConfigVersion, ConfigOpError> {
        self.change_state(actor, name, version, VersionState::Archived, expected_revision).await
    }

    /// What changes from one version of a config to another, file by file.
    ///
    /// # Errors
    /// [`ConfigOpError`].
    pub async fn diff(&self, name: &str, from: u32, to: u32) -> Result<Vec<FileDiff>, ConfigOpError> {
        let (_, from) = self.config(name, from).await?;
        let (_, to) = self.config(name, to).await?;
        // Large texts take a while, which must not keep a runtime's worker from its sockets.
        let compared = tokio::task::spawn_blocking(move || diff(from.map(), to.map())).await;
        compared.map_err(|error| StoreFailure::Unavailable(error.to_string()).into())
    }

    /// Names of all configs, in order.
    ///
    /// # Errors
    /// [`StoreFailure`] if they cannot be read.
    pub async fn configs(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<String, String>, StoreFailure> {
        Ok(self.inner.store.config_names(after, limit).await?)
    }

    /// All versions of a config, in order; empty if there is no such config.
    ///
    /// # Errors
    /// [`StoreFailure`] if they cannot be read.
    pub async fn versions(&self, name: &str) -> Result<Vec<ConfigVersion>, StoreFailure> {
        Ok(self.inner.store.versions(name).await?)
    }

    /// A version with its files.
    ///
    /// # Errors
    /// [`ConfigOpError::NotFound`], or the store could not do its part.
    pub async fn config(
        &self,
        name: &str,
        version: u32,
    ) -> Result<(ConfigVersion, ConfigMap), ConfigOpError> {
        let store = &self.inner.store;
        let found = self.inner.version(name, version).await?;
        let bytes = store.blob(&found.blob).await.map_err(StoreFailure::from)?;
        let missing = || {
            StoreFailure::Damaged(format!("the files of version {version} of config {name:?} are missing"))
        };
        let files = ConfigMap::decode(bytes.ok_or_else(missing)?);
        Ok((found, files.map_err(|error| StoreFailure::Damaged(error.to_string()))?))
    }

    /// A draft of version 1 with checked contents, not stored yet.
    fn checked(
        &self,
        actor: &Actor,
        name: &str,
        files: pb::AgentConfigMap,
        comment: &str,
    ) -> Result<Draft, ConfigOpError> {
        let limits = &self.inner.settings.config;
        limits.check_name(name)?;
        limits.check_comment(comment)?;
        let files = ConfigMap::new(files, limits)?;
        let encoded = files.encode();
        let version = ConfigVersion {
            config: name.to_owned(),
            version: 1,
            state: ConfigState::Draft,
            blob: opamp_store::BlobId::of(&encoded),
            hash: files.hash().clone(),
            created_at: self.inner.now().wall,
            created_by: actor.name.clone(),
            published_at: None,
            published_by: None,
            comment: comment.to_owned(),
            revision: Revision::default(),
        };
        Ok(Draft { version, encoded })
    }

    async fn change_state(
        &self,
        actor: &Actor,
        name: &str,
        version: u32,
        to: VersionState,
        expected_revision: Option<Revision>,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let (actor, name) = (actor.clone(), name.to_owned());
        self.complete(|inner| async move {
            inner.change_state(&actor, &name, version, to, expected_revision).await
        })
        .await
    }
}

/// A version to be stored together with its files.
#[derive(Clone)]
struct Draft {
    version: ConfigVersion,
    encoded: bytes::Bytes,
}

impl Inner {
    async fn version(&self, name: &str, version: u32) -> Result<ConfigVersion, ConfigOpError> {
        let found = self.store.version(name, version).await.map_err(StoreFailure::from)?;
        found.ok_or_else(|| ConfigOpError::NotFound { config: name.to_owned(), version: Some(version) })
    }

    async fn create_version(
        self: Arc<Self>,
        actor: &Actor,
        mut draft: Draft,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let mut repeats = 0;
        loop {
            let versions = self.store.versions(&draft.version.config).await.map_err(StoreFailure::from)?;
            let Some(last) = versions.last() else {
                return Err(ConfigOpError::NotFound { config: draft.version.config, version: None });
            };
            if last.version >= ConfigVersion::VERSION_MAX {
                return Err(ConfigOpError::TooManyVersions(draft.version.config));
            }
            draft.version.version = last.version + 1;
            match self.put_new(actor, "config.create_version", draft.clone()).await {
                Err(ConfigOpError::Conflict { .. }) if repeats < NUMBERING_REPEATS => repeats += 1,
                outcome => return outcome,
            }
        }
    }

    async fn put_new(
        &self,
        actor: &Actor,
        action: &'static str,
        draft: Draft,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let Draft { version, encoded } = draft;
        let mut batch = WriteBatch::new();
        batch.require(Precondition::ConfigVersionAbsent {
            config: version.config.clone(),
            version: version.version,
        });
        batch.put_blob(encoded);
        self.put_version(actor, action, batch, None, version).await
    }

    async fn update_draft(
        self: Arc<Self>,
        actor: &Actor,
        version: u32,
        draft: Draft,
        expected_revision: Revision,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let before = self.version(&draft.version.config, version).await?;
        if before.state != ConfigState::Draft {
            return Err(wrong_state(&before, "be edited"));
        }
        let after = ConfigVersion {
            blob: draft.version.blob,
            hash: draft.version.hash,
            comment: draft.version.comment,
            ..before.clone()
        };
        let mut batch = WriteBatch::new();
        batch.put_blob(draft.encoded);
        self.replace_version(actor, "config.update", batch, &before, after, Some(expected_revision)).await
    }

    async fn change_state(
        self: Arc<Self>,
        actor: &Actor,
        name: &str,
        version: u32,
        to: VersionState,
        expected_revision: Option<Revision>,
    ) -> Result<ConfigVersion, ConfigOpError> {
        let before = self.version(name, version).await?;
        if !version_state(before.state).may_become(to) {
            return Err(wrong_state(&before, &format!("become {to}")));
        }
        let now: Wall = self.now().wall;
        let (action, after) = match to {
            VersionState::Published => {
                let published_by = Some(actor.name.clone());
                let state = ConfigState::Published;
                (
                    "config.publish",
                    ConfigVersion { state, published_at: Some(now), published_by, ..before.clone() },
                )
            }
            VersionState::Archived | VersionState::Draft => {
                ("config.archive", ConfigVersion { state: ConfigState::Archived, ..before.clone() })
            }
        };
        self.replace_version(actor, action, WriteBatch::new(), &before, after, expected_revision).await
    }

    async fn replace_version(
        &self,
        actor: &Actor,
        action: &'static str,
        mut batch: WriteBatch,
        before: &ConfigVersion,
        after: ConfigVersion,
        expected_revision: Option<Revision>,
    ) -> Result<ConfigVersion, ConfigOpError> {
        if expected_revision.is_some_and(|expected| expected != before.revision) {
            return Err(ConfigOpError::Conflict { config: after.config, version: after.version });
        }
        batch.require(Precondition::ConfigVersionAt {
            config: before.config.clone(),
            version: before.version,
            revision: before.revision,
        });
        self.put_version(actor, action, batch, Some(before), after).await
    }

    async fn put_version(
        &self,
        actor: &Actor,
        action: &'static str,
        mut batch: WriteBatch,
        before: Option<&ConfigVersion>,
        mut after: ConfigVersion,
    ) -> Result<ConfigVersion, ConfigOpError> {
        batch.put_config_version(after.clone());
        let deed = Deed::of_version(
            action,
            &after.config,
            after.version,
            before.map(version_value),
            Some(version_value(&after)),
        );
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        match self.commit(batch, None).await {
            Ok(revision) => {
                after.revision = revision;
                Ok(after)
            }
            Err(CommitError::Precondition(_)) => {
                Err(ConfigOpError::Conflict { config: after.config, version: after.version })
            }
            Err(error) => Err(StoreFailure::from(error).into()),
        }
    }
}

/// The state as the fleet names it.
pub(super) fn version_state(state: ConfigState) -> VersionState {
    match state {
        ConfigState::Draft => VersionState::Draft,
        ConfigState::Published => VersionState::Published,
        ConfigState::Archived => VersionState::Archived,
    }
}

fn wrong_state(version: &ConfigVersion, action: &str) -> ConfigOpError {
    ConfigOpError::WrongState {
        config: version.config.clone(),
        version: version.version,
        state: version_state(version.state),
        action: action.to_owned(),
    }
}

/// A version as the audit log shows it: without its files.
fn version_value(version: &ConfigVersion) -> Value {
    json!({
        "state": version.state,
        "hash": version.hash.to_hex(),
        "comment": version.comment,
    })
}
