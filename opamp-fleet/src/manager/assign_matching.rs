//! Assigning a published config version to all agents that a selector matches.

use std::sync::Arc;

use opamp_proto::AgentId;
use opamp_server::Desired;
use opamp_store::{AgentRecord, Blob, CommitError, DesiredConfig, Precondition, Revision, WriteBatch};
use serde_json::{Value, json};

use super::agents::LOOKED_AT_ONCE;
use super::assignments::check_accepts;
use super::audit::{Deed, ENTRY_BYTES_MAX};
use super::error::{AssignError, AssignMatchingError, StoreFailure};
use super::state::{Newest, unchanged};
use super::types::{Actor, AssignedMatching};
use super::{FleetManager, Inner, record};
use crate::{IndexQuery, Selector, VersionState};

/// Agents in one commit: as many as one audit entry names, and as long as other changes wait for it.
const BATCH_AGENTS: usize = 256;

/// How often a batch is made anew because somebody changed one of its records meanwhile.
const REPEATS: usize = 3;

impl FleetManager {
    /// Assigns a published version to every agent that the selector matches now, some hundred in one commit, each commit with
    /// an audit entry that names its agents. Agents that come to match later get nothing by it.
    ///
    /// An agent to which this very version is assigned already is left as it is, also if it failed, so that a call that was cut
    /// short can be repeated. One that announced that it takes no configuration is left out and counted.
    ///
    /// # Errors
    /// [`AssignMatchingError`]; nothing was changed but what [`AssignMatchingError::Interrupted`] says.
    pub async fn assign_matching(
        &self,
        actor: &Actor,
        selector: &Selector,
        at_most: usize,
        config: &str,
        version: u32,
    ) -> Result<AssignedMatching, AssignMatchingError> {
        if selector.is_everything() {
            return Err(AssignMatchingError::Everything);
        }
        // What cannot be assigned is said before anything is done.
        self.inner.published(config.to_owned(), version).await?;
        let agents = self.inner.matching(selector, at_most).await?;
        let wanted =
            Wanted { actor: actor.clone(), selector: selector.clone(), config: config.to_owned(), version };
        self.complete(|inner| async move { inner.assign_to_all(&wanted, &agents).await }).await
    }
}

/// What the agents of one commit share: those that had the same so far have the same from now on.
#[derive(Default)]
struct Shared {
    desired: Option<Arc<DesiredConfig>>,
    /// What an agent had, and the history of one that had that.
    history: Option<(Option<Arc<DesiredConfig>>, History, History)>,
}

type History = Arc<[Arc<DesiredConfig>]>;

impl Shared {
    fn desired(&mut self, generation: u64, make: impl Fn(u64) -> DesiredConfig) -> Arc<DesiredConfig> {
        match &self.desired {
            Some(last) if last.generation == generation => Arc::clone(last),
            _ => Arc::clone(self.desired.insert(Arc::new(make(generation)))),
        }
    }

    fn history(&mut self, base: &AgentRecord, make: impl Fn(&AgentRecord) -> History) -> History {
        let (desired, history) = (&base.desired, &base.desired_history);
        if let Some((last_desired, last_history, after)) = &self.history
            && Arc::ptr_eq(last_history, history)
            && last_desired == desired
        {
            return Arc::clone(after);
        }
        let after = make(base);
        self.history = Some((desired.clone(), Arc::clone(history), Arc::clone(&after)));
        after
    }
}

struct Wanted {
    actor: Actor,
    selector: Selector,
    config: String,
    version: u32,
}

impl Inner {
    /// The agents that match, unless there are more than `at_most`.
    async fn matching(
        &self,
        selector: &Selector,
        at_most: usize,
    ) -> Result<Vec<AgentId>, AssignMatchingError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let query = IndexQuery { selector: Some(selector), after, ..IndexQuery::default() };
            let part = self.state().index.ids(&query, LOOKED_AT_ONCE);
            found.extend(part.ids);
            if found.len() > at_most {
                return Err(AssignMatchingError::TooMany { at_most });
            }
            after = part.resume;
            if after.is_none() {
                return Ok(found);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn assign_to_all(
        self: Arc<Self>,
        wanted: &Wanted,
        agents: &[AgentId],
    ) -> Result<AssignedMatching, AssignMatchingError> {
        let mut done = AssignedMatching { matched: agents.len(), ..AssignedMatching::default() };
        let mut rest = agents;
        let mut repeats = 0;
        while !rest.is_empty() {
            match self.assign_to_some(wanted, rest, &mut done).await {
                Ok(looked_at) => {
                    rest = &rest[looked_at..];
                    repeats = 0;
                }
                Err(AssignError::Conflict(_)) if repeats < REPEATS => repeats += 1,
                Err(cause) => {
                    return Err(AssignMatchingError::Interrupted { assigned: done.assigned, cause });
                }
            }
            // A store in memory answers at once, and there are others with something to do.
            tokio::task::yield_now().await;
        }
        Ok(done)
    }

    /// The first of these agents, as many as one commit takes; answers how many were looked at.
    async fn assign_to_some(
        &self,
        wanted: &Wanted,
        agents: &[AgentId],
        done: &mut AssignedMatching,
    ) -> Result<usize, AssignError> {
        if *self.stop.borrow() {
            return Err(StoreFailure::Unavailable("the manager stops".to_owned()).into());
        }
        let _writer = self.writer.lock().await;
        let Wanted { actor, config, version, .. } = wanted;
        let (version_wanted, offer, revision) = self.published(config.clone(), *version).await?;
        let now = self.now();
        let mut batch = WriteBatch::new();
        let (config, version) = (config.clone(), *version);
        batch.require(Precondition::ConfigVersionAt { config, version, revision });
        // The audit entry comes last, and must find room.
        let bytes_max = self.settings.write_behind.bytes_max.min(WriteBatch::BYTES_MAX - ENTRY_BYTES_MAX);
        let mut changed: Vec<Arc<AgentRecord>> = Vec::new();
        let mut shared = Shared::default();
        let (mut looked_at, mut same, mut not_accepted, mut damaged) = (0, 0, 0, 0);
        for id in agents.iter().take(BATCH_AGENTS) {
            looked_at += 1;
            let base = match self.record(id).await {
                Ok(Some(base)) => base,
                // Deleted since it matched, and counted as nothing else.
                Ok(None) => continue,
                Err(StoreFailure::Damaged(_)) => {
                    damaged += 1;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            if base.record.desired.as_ref().is_some_and(|desired| is_same(desired, &version_wanted)) {
                same += 1;
                continue;
            }
            if check_accepts(&base.record).is_err() {
                not_accepted += 1;
                continue;
            }
            let generation = base.record.desired_generation + 1;
            let desired = |generation| DesiredConfig {
                generation,
                assigned_by: actor.name.clone(),
                assigned_at: now.wall,
                ..version_wanted.clone()
            };
            let desired = shared.desired(generation, desired);
            let desired_history = shared.history(&base.record, |base| self.history_after(base));
            let condition = unchanged(&base.record);
            let Newest { mut record, blobs } = base;
            // Nobody else has it, unless it waits to be written.
            let changing = Arc::make_mut(&mut record);
            changing.desired = Some(desired);
            changing.desired_generation = generation;
            changing.desired_history = desired_history;
            // As it is written: the history may have made it larger.
            let weight = record.weight() + blobs.iter().map(Blob::weight).sum::<usize>();
            if !changed.is_empty() && batch.bytes() + weight > bytes_max {
                looked_at -= 1; // the next commit begins with it
                break;
            }
            batch.require(condition);
            Self::put_changed(&mut batch, Arc::clone(&record), &blobs);
            changed.push(record);
        }
        if !changed.is_empty() {
            batch.append_audit(self.audit_entry(actor, now.wall, deed(wanted, &version_wanted, &changed)));
            let revision = self.commit_assigned(batch, &changed).await?;
            changed.iter_mut().for_each(|record| Arc::make_mut(record).revision = revision);
        }
        {
            let mut state = self.state();
            for record in &changed {
                state.unwritten.discard(&record.id);
                state.index.set_drift(&record.id, record::drift(record));
                state.remember_assigned(Arc::clone(record));
            }
        }
        done.assigned += changed.len();
        done.unchanged += same;
        done.not_accepted += not_accepted;
        done.damaged += damaged;
        for record in changed {
            let desired = Desired::remote_config(record.desired_generation, offer.clone());
            self.server.set_desired(&record.uid, desired);
        }
        Ok(looked_at)
    }

    async fn commit_assigned(
        &self,
        batch: WriteBatch,
        changed: &[Arc<AgentRecord>],
    ) -> Result<Revision, AssignError> {
        match self.commit(batch, None).await {
            Ok(revision) => Ok(revision),
            Err(CommitError::Precondition(Precondition::ConfigVersionAt { config, version, .. })) => {
                // A published version changes in no other way.
                Err(AssignError::NotPublished { config, version, state: VersionState::Archived })
            }
            Err(CommitError::Precondition(Precondition::AgentAt(id, _) | Precondition::AgentAbsent(id))) => {
                // Read anew before the next attempt.
                self.doubt(&id);
                Err(AssignError::Conflict(id))
            }
            Err(error) => {
                if matches!(error, CommitError::OutcomeUnknown(_)) {
                    changed.iter().for_each(|record| self.doubt(&record.id));
                }
                Err(StoreFailure::from(error).into())
            }
        }
    }
}

fn is_same(desired: &DesiredConfig, wanted: &DesiredConfig) -> bool {
    desired.config == wanted.config && desired.version == wanted.version && desired.hash == wanted.hash
}

fn deed(wanted: &Wanted, version: &DesiredConfig, changed: &[Arc<AgentRecord>]) -> Deed {
    let agents = changed.iter().map(|record| Value::String(record.id.to_string())).collect();
    let mut after = json!({ "selector": wanted.selector.to_string(), "hash": version.hash.to_hex() });
    after["agents"] = Value::Array(agents);
    Deed::of_version("config.assign", &wanted.config, wanted.version, None, Some(after))
}
