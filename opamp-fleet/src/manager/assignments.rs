//! Assigning a published config version to one agent.

use std::sync::Arc;

use opamp_proto::{AgentCapabilities, AgentId};
use opamp_server::{Desired, RemoteConfigOffer};
use opamp_store::{AgentRecord, CommitError, ConfigState, DesiredConfig, Precondition, Revision};

use super::agents::changed_record_batch;
use super::audit::{Deed, desired_value};
use super::configs::version_state;
use super::error::{AssignError, IDEMPOTENCY_KEY_BYTES_MAX, StoreFailure};
use super::types::{Actor, Assigned};
use super::{FleetManager, Inner, record};

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
        let lengths = 1..=IDEMPOTENCY_KEY_BYTES_MAX;
        if idempotency_key.as_ref().is_some_and(|key| !lengths.contains(&key.len())) {
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
            Self::Version { config, version } => format!("assign/{agent}/{config}@{version}/{key}"),
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
            (desired_value(base.record.desired.as_ref()), desired_value(changed.desired.as_ref()));
        let mut batch = changed_record_batch(&base, changed.clone());
        if let (Some(desired), Some(revision)) = (&changed.desired, published) {
            let (config, version) = (desired.config.clone(), desired.version);
            batch.require(Precondition::ConfigVersionAt { config, version, revision });
        }
        batch.append_audit(self.audit_entry(actor, now.wall, Deed::of_agent(action, id, before, after)));

        let revision = match self.commit(batch, key).await {
            Ok(revision) => revision,
            Err(CommitError::Precondition(Precondition::ConfigVersionAt { config, version, .. })) => {
                // A published version changes in no other way.
                let state = crate::VersionState::Archived;
                return Err(AssignError::NotPublished { config, version, state });
            }
            Err(CommitError::Precondition(_)) => return Err(AssignError::Conflict(*id)),
            Err(error) => {
                if matches!(error, CommitError::OutcomeUnknown(_)) {
                    self.doubt(id);
                }
                return Err(StoreFailure::from(error).into());
            }
        };
        if base.record.revision >= revision {
            // The key was used before: the answer is the revision of then.
            return self.replayed(base.record).await;
        }
        {
            let mut state = self.state();
            state.unwritten.discard(id);
            state.index.set_drift(id, record::drift(&changed));
        }
        let dispatch = self.server.set_desired(&changed.uid, Desired { generation, remote_config: offer });
        Ok(Assigned { desired: changed.desired, dispatch, replayed: false })
    }

    /// The record with another desired configuration; the former one goes into its history.
    fn with_desired(
        &self,
        base: &AgentRecord,
        desired: Option<DesiredConfig>,
        generation: u64,
    ) -> AgentRecord {
        let mut changed = AgentRecord { desired, desired_generation: generation, ..base.clone() };
        changed.desired_history.extend(base.desired.clone());
        let excess = changed.desired_history.len().saturating_sub(self.settings.history_max);
        changed.desired_history.drain(..excess);
        changed
    }

    /// A published version, ready to be assigned and offered.
    async fn published(
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

    /// The answer to a repeated call. The first may have ended between the commit and what follows it, so that is
    /// done again, with what is desired by now.
    async fn replayed(&self, base: AgentRecord) -> Result<Assigned, AssignError> {
        let remote_config = match &base.desired {
            Some(desired) => self.offer(desired).await?,
            None => None,
        };
        self.state().index.set_drift(&base.id, record::drift(&base));
        let desired = Desired { generation: base.desired_generation, remote_config };
        let dispatch = self.server.set_desired(&base.uid, desired);
        Ok(Assigned { desired: base.desired, dispatch, replayed: true })
    }
}

/// An agent that announced its capabilities must be able to take a configuration (R-CONF-04); of one that never
/// came nobody knows.
fn check_accepts(agent: &AgentRecord) -> Result<(), AssignError> {
    let capabilities = AgentCapabilities::from_bits(agent.capabilities);
    if capabilities.bits() == 0 || capabilities.contains(AgentCapabilities::ACCEPTS_REMOTE_CONFIG) {
        return Ok(());
    }
    Err(AssignError::NotAccepted(agent.id))
}
