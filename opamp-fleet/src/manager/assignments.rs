//! Assigning a published config version to one agent.

use std::sync::Arc;

use opamp_proto::{AgentCapabilities, AgentId};
use opamp_server::{Desired, RemoteConfigOffer};
use opamp_store::{AgentRecord, CommitError, ConfigState, DesiredConfig, Precondition, Revision};

use super::audit::{Deed, desired_value};
use super::configs::version_state;
use super::desire::{DecideError, Decided, Decision, is_key, scoped};
use super::error::{AssignError, StoreFailure};
use super::types::{Actor, Assigned};
use super::{FleetManager, Inner};

impl FleetManager {
    /// Assigns a published version to one agent. Committed together with its audit entry before it is offered; an
    /// agent that is away, or never came, gets it when it comes.
    ///
    /// Assigning the same version again starts a new generation, in which it is offered once more even if the agent
    /// failed it before. A call repeated under the same idempotency key changes nothing.
    ///
    /// # Errors
    /// [`AssignError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn assign(
        &self,
        actor: &Actor,
        agent: &AgentId,
        config: &str,
        version: u32,
        idempotency_key: Option<String>,
    ) -> Result<Assigned, AssignError> {
        let wanted = Wanted::Version { config: config.to_owned(), version };
        self.change_desired(actor, agent, wanted, idempotency_key).await
    }

    /// Removes an agent's assignment: from now on it is left alone. What it runs stays.
    ///
    /// # Errors
    /// [`AssignError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn unassign(
        &self,
        actor: &Actor,
        agent: &AgentId,
        idempotency_key: Option<String>,
    ) -> Result<Assigned, AssignError> {
        self.change_desired(actor, agent, Wanted::Nothing, idempotency_key).await
    }

    async fn change_desired(
        &self,
        actor: &Actor,
        agent: &AgentId,
        wanted: Wanted,
        idempotency_key: Option<String>,
    ) -> Result<Assigned, AssignError> {
        if !is_key(idempotency_key.as_ref()) {
            return Err(AssignError::IdempotencyKey);
        }
        let key = idempotency_key.map(|key| wanted.scoped(agent, &key));
        let (actor, agent) = (actor.clone(), *agent);
        self.complete(|inner| async move { inner.change_desired(&actor, &agent, wanted, key).await }).await
    }
}

enum Wanted {
    Nothing,
    Version { config: String, version: u32 },
}

impl Wanted {
    /// A key for one purpose: the same words used for another call are another key.
    fn scoped(&self, agent: &AgentId, key: &str) -> String {
        match self {
            Self::Nothing => format!("unassign/{agent}/{key}"),
            Self::Version { config, version } => scoped("assign", agent, &format!("{config}@{version}"), key),
        }
    }
}

impl Inner {
    async fn change_desired(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
        wanted: Wanted,
        key: Option<String>,
    ) -> Result<Assigned, AssignError> {
        let _writer = self.writer.lock().await;
        let base = self.record(id).await?.ok_or(AssignError::NotFound(*id))?;
        let now = self.now();
        let generation = base.record.desired_generation + 1;
        let (desired, offer, published) = match wanted {
            Wanted::Nothing => (None, None, None),
            Wanted::Version { config, version } => {
                check_accepts(&base.record)?;
                let (mut desired, offer, revision) = self.published(config, version).await?;
                desired.generation = generation;
                desired.assigned_by.clone_from(&actor.name);
                desired.assigned_at = now.wall;
                (Some(desired), offer, Some(revision))
            }
        };
        let changed = self.with_desired(&base.record, desired, generation);
        let action = if changed.desired.is_some() { "agent.assign" } else { "agent.unassign" };
        let (before, after) =
            (desired_value(base.record.desired.as_deref()), desired_value(changed.desired.as_deref()));
        let mut require = Vec::new();
        if let (Some(desired), Some(revision)) = (&changed.desired, published) {
            let (config, version) = (desired.config.clone(), desired.version);
            require.push(Precondition::ConfigVersionAt { config, version, revision });
        }
        let decision = Decision {
            blobs: Vec::new(),
            require,
            deed: Deed::of_agent(action, id, before, after),
            desired: Desired::remote_config(generation, offer),
            changed: changed.clone(),
        };
        let former = base.record.desired.clone();
        match self.decide(actor, base, decision, key).await {
            Ok(decided) => {
                let desired = if matches!(decided, Decided::Now(_)) { changed.desired } else { former };
                let (dispatch, replayed) = decided.outcome();
                Ok(Assigned { desired: desired.map(Arc::unwrap_or_clone), dispatch, replayed })
            }
            Err(DecideError::Commit(CommitError::Precondition(Precondition::ConfigVersionAt {
                config,
                version,
                ..
            }))) => {
                // A published version changes in no other way.
                Err(AssignError::NotPublished { config, version, state: crate::VersionState::Archived })
            }
            Err(DecideError::Commit(CommitError::Precondition(_))) => Err(AssignError::Conflict(*id)),
            Err(DecideError::Commit(error)) => Err(StoreFailure::from(error).into()),
            Err(DecideError::Store(failure)) => Err(failure.into()),
        }
    }

    /// The record with another desired configuration; the former one goes into its history.
    pub(super) fn with_desired(
        &self,
        base: &AgentRecord,
        desired: Option<DesiredConfig>,
        generation: u64,
    ) -> AgentRecord {
        AgentRecord {
            desired: desired.map(Arc::new),
            desired_generation: generation,
            desired_history: self.history_after(base),
            ..base.clone()
        }
    }

    /// The history of an agent that is assigned something else.
    pub(super) fn history_after(&self, base: &AgentRecord) -> Arc<[Arc<DesiredConfig>]> {
        let length = base.desired_history.len() + usize::from(base.desired.is_some());
        let excess = length.saturating_sub(self.settings.history_max);
        base.desired_history.iter().chain(&base.desired).skip(excess).cloned().collect()
    }

    /// A published version, ready to be assigned and offered.
    pub(super) async fn published(
        &self,
        config: String,
        version: u32,
    ) -> Result<(DesiredConfig, Option<RemoteConfigOffer>, Revision), AssignError> {
        let Some(found) = self.store.version(&config, version).await.map_err(StoreFailure::from)? else {
            return Err(AssignError::VersionNotFound { config, version });
        };
        if found.state != ConfigState::Published {
            return Err(AssignError::NotPublished { config, version, state: version_state(found.state) });
        }
        let desired = DesiredConfig {
            config,
            version,
            hash: found.hash,
            blob: found.blob,
            generation: 0,
            assigned_by: String::new(),
            assigned_at: opamp_proto::Wall(0),
        };
        let Some(offer) = self.offer(&desired).await? else {
            let missing =
                format!("the files of version {version} of config {:?} are unusable", desired.config);
            return Err(StoreFailure::Damaged(missing).into());
        };
        Ok((desired, Some(offer), found.revision))
    }
}

/// An agent that announced its capabilities must be able to take a configuration (R-CONF-04); of one that never
/// came nobody knows.
pub(super) fn check_accepts(agent: &AgentRecord) -> Result<(), AssignError> {
    let capabilities = AgentCapabilities::from_bits(agent.capabilities);
    if capabilities.bits() == 0 || capabilities.contains(AgentCapabilities::ACCEPTS_REMOTE_CONFIG) {
        return Ok(());
    }
    Err(AssignError::NotAccepted(agent.id))
}
