//! What an agent should have, kind by kind: composed from its record, and changed.
//!
//! Nothing of it is remembered beside the record. Whatever may have lost it (a restart, a new identity, a commit of
//! unknown outcome) is followed by composing it again; a session to which it is no news does nothing.

use bytes::Bytes;
use opamp_proto::AgentId;
use opamp_server::{Desired, Dispatch, Target};
use opamp_store::{AgentRecord, CommitError, Precondition};

use super::agents::changed_record_batch;
use super::audit::Deed;
use super::error::{IDEMPOTENCY_KEY_BYTES_MAX, StoreFailure};
use super::state::Newest;
use super::types::Actor;
use super::{Inner, record};

/// A decision about one agent, ready to be committed.
pub(super) struct Decision {
    /// The record as it shall be.
    pub(super) changed: AgentRecord,
    /// What it refers to and the store may not have.
    pub(super) blobs: Vec<Bytes>,
    /// What must hold beside that nobody changed the record.
    pub(super) require: Vec<Precondition>,
    /// For the audit log; without secrets.
    pub(super) deed: Deed,
    /// The kind that changes, for the agent's session.
    pub(super) desired: Desired,
}

/// What became of it.
pub(super) enum Decided {
    /// It is in the store, and on its way.
    Now(Dispatch),
    /// The idempotency key was used before; what is desired by now went out once more.
    Before(Dispatch),
}

impl Inner {
    /// Everything an agent should have.
    ///
    /// What cannot be offered because the store has lost a part of it is left out, and the log says why: that is no
    /// reason to leave the rest of the fleet alone.
    pub(super) async fn desired(&self, record: &AgentRecord) -> Result<Desired, StoreFailure> {
        let config = match &record.desired {
            Some(desired) => self.offer(desired).await?,
            None => None,
        };
        let settings = match &record.desired_settings {
            Some(desired) => self.settings_offer(&record.id, desired).await?,
            None => None,
        };
        let packages = match &record.desired_packages {
            Some(desired) => self.packages_offer(&record.id, desired).await?,
            None => None,
        };
        Ok(Desired {
            remote_config: Target::new(record.desired_generation, config),
            connection_settings: Target::new(record.settings_generation, settings),
            packages: Target::new(record.packages_generation, packages),
        })
    }

    /// Commits a decision together with its audit entry, then hands it to the agent's session. The writer lock is held
    /// by the caller, who read `base` under it.
    pub(super) async fn decide(
        &self,
        actor: &Actor,
        base: Newest,
        decision: Decision,
        key: Option<String>,
    ) -> Result<Decided, DecideError> {
        let Decision { changed, blobs, require, deed, desired } = decision;
        let id = changed.id;
        let mut batch = changed_record_batch(&base, changed.clone());
        for blob in blobs {
            batch.put_blob(blob);
        }
        // Connection settings hold secrets: those that are replaced do not wait for the next sweep.
        let former = base.record.desired_settings.as_ref().map(|settings| settings.blob);
        if let Some(former) = former.filter(|_| changed.desired_settings != base.record.desired_settings) {
            batch.delete_blob_if_unreferenced(former);
        }
        require.into_iter().for_each(|precondition| {
            batch.require(precondition);
        });
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        let revision = match self.commit(batch, key).await {
            Ok(revision) => revision,
            Err(error) => {
                if matches!(error, CommitError::OutcomeUnknown(_)) {
                    self.doubt(&id);
                }
                return Err(DecideError::Commit(error));
            }
        };
        if base.record.revision >= revision {
            // The key was used before: the answer is the revision of then. The first call may have ended between the
            // commit and what follows it, so that is done again, with what is desired by now.
            let desired = self.desired(&base.record).await.map_err(DecideError::Store)?;
            self.state().index.set_drift(&id, record::drift(&base.record));
            return Ok(Decided::Before(self.server.set_desired(&base.record.uid, desired)));
        }
        {
            let mut state = self.state();
            state.unwritten.discard(&id);
            state.index.set_drift(&id, record::drift(&changed));
        }
        Ok(Decided::Now(self.server.set_desired(&changed.uid, desired)))
    }
}

/// Why a decision was not committed; which of it is whose mistake is known to those who made it.
pub(super) enum DecideError {
    Commit(CommitError),
    Store(StoreFailure),
}

impl Decided {
    /// Where it went, and whether it was a repetition.
    pub(super) fn outcome(self) -> (Dispatch, bool) {
        match self {
            Self::Now(dispatch) => (dispatch, false),
            Self::Before(dispatch) => (dispatch, true),
        }
    }
}

/// Whether an idempotency key may be one.
pub(super) fn is_key(key: Option<&String>) -> bool {
    key.is_none_or(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()))
}

/// An idempotency key for one purpose: the same words used for another call are another key.
pub(super) fn scoped(purpose: &str, agent: &AgentId, what: &str, key: &str) -> String {
    format!("{purpose}/{agent}/{what}/{key}")
}
