//! The inventory as callers see it, and what can be done to one agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Now};
use opamp_server::{AgentSnapshot, CommandError, Dispatch};
use opamp_store::{
    AgentRecord, Blob, BlobId, CommitError, DesiredConfig, PAGE_MAX, Page, Precondition, WriteBatch,
};
use prost::Message;
use serde_json::json;

use super::audit::Deed;
use super::connection_settings::settings_value;
use super::error::{AgentCommandError, AgentError, StoreFailure};
use super::observe::new_agent_id;
use super::offers;
use super::package_sets::packages_value;
use super::state::{Newest, unchanged};
use super::types::{Actor, AgentDetail, AgentQuery, AgentSummary};
use super::{FleetManager, Inner, record};
use crate::{AgentFacts, IndexQuery, LabelScope, LabelValue, Labels, Liveness, check_server_labels};

/// Agents looked at under one lock: what a listing may keep others waiting for.
pub(super) const LOOKED_AT_ONCE: usize = 2_000;

impl FleetManager {
    /// Lists agents in the order of their ids. Answered from memory, with the store down too.
    pub fn agents(&self, query: &AgentQuery) -> Page<AgentSummary, AgentId> {
        let limit = query.limit.clamp(1, PAGE_MAX);
        let now = self.inner.now();
        let mut after = query.after;
        let mut found = Vec::new();
        loop {
            let state = self.inner.state();
            let part = IndexQuery {
                selector: query.selector.as_ref(),
                liveness: query.liveness,
                health: query.health,
                drift: query.drift,
                after,
            };
            // One more than asked for proves that there is a next page.
            let listing = state.index.list(&part, limit + 1 - found.len(), LOOKED_AT_ONCE);
            found.extend(listing.agents.into_iter().map(|facts| {
                let flapping = state.index.is_flapping(&facts.id, now);
                (facts, flapping)
            }));
            after = listing.resume;
            if found.len() > limit || after.is_none() {
                break;
            }
        }
        let summaries = found.into_iter().map(|(facts, flapping)| {
            let last_seen = self.inner.heard(&facts).map(|snapshot| snapshot.last_seen);
            AgentSummary { last_seen, ..summary(&facts, flapping) }
        });
        Page::cut(summaries.collect(), limit, |last| last.id)
    }

    /// Everything known of one agent; none if there is no such agent.
    ///
    /// # Errors
    /// [`StoreFailure`] if the record cannot be read.
    pub async fn agent(&self, id: &AgentId) -> Result<Option<AgentDetail>, StoreFailure> {
        let inner = &self.inner;
        if inner.is_in_doubt(id) {
            let _writer = inner.writer.lock().await;
            inner.record(id).await?;
        }
        // Record and inventory change under one lock, but reading the record may wait for the store. What the
        // inventory says after the wait must be what it said before, or the answer would be of two moments.
        let mut before = inner.state().index.facts(id);
        let (facts, Newest { record, blobs }) = loop {
            let Some(newest) = inner.peek(id).await? else { return Ok(None) };
            let after = inner.state().index.facts(id);
            match (before == after, after) {
                (_, None) => return Ok(None),
                (true, Some(facts)) => break (facts, newest),
                (false, after) => before = after,
            }
        };
        let flapping = inner.state().index.is_flapping(id, inner.now());
        let effective_config = inner.referred(&blobs, record.effective_config).await?;
        let components = inner.referred(&blobs, record.components).await?;
        let snapshot = inner.heard(&facts);
        let mut detail = detail(AgentRecord::clone(&record), summary(&facts, flapping), snapshot);
        detail.effective_config = effective_config.and_then(|bytes| Message::decode(bytes).ok());
        let components = components.and_then(|bytes| Message::decode(bytes).ok());
        detail.available_components = components.or(detail.available_components);
        Ok(Some(detail))
    }

    /// The agent that has this `instance_uid` now.
    pub fn agent_id(&self, uid: &InstanceUid) -> Option<AgentId> {
        self.inner.state().index.by_uid(uid)
    }

    /// Makes a record for an agent that is expected, so that it can be labelled and assigned to before it arrives.
    /// Until then it is `never_seen`.
    ///
    /// # Errors
    /// [`AgentError`]; on [`StoreFailure::OutcomeUnknown`] look the agent up by its identity.
    pub async fn expect_agent(
        &self,
        actor: &Actor,
        uid: InstanceUid,
        labels: BTreeMap<String, String>,
    ) -> Result<AgentId, AgentError> {
        check_server_labels(&labels)?;
        let actor = actor.clone();
        self.complete(|inner| async move { inner.expect_agent(&actor, uid, labels).await }).await
    }

    /// Replaces the labels operators set on an agent. Labels assign nothing by themselves.
    ///
    /// # Errors
    /// [`AgentError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn set_labels(
        &self,
        actor: &Actor,
        id: &AgentId,
        labels: BTreeMap<String, String>,
    ) -> Result<(), AgentError> {
        check_server_labels(&labels)?;
        let (actor, id) = (actor.clone(), *id);
        self.complete(|inner| async move { inner.set_labels(&actor, &id, labels).await }).await
    }

    /// Deletes an agent's record, its assignment and history with it, and closes its connection unless other agents
    /// share that. If the agent comes back it gets a new record.
    ///
    /// # Errors
    /// [`AgentError`]; nothing was changed, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn delete_agent(&self, actor: &Actor, id: &AgentId) -> Result<(), AgentError> {
        let (actor, id) = (actor.clone(), *id);
        self.complete(|inner| async move { inner.delete_agent(&actor, &id).await }).await
    }

    /// Orders a connected agent to restart. The order is in the audit log before it is given.
    ///
    /// # Errors
    /// [`AgentCommandError`]; the order was not given.
    pub async fn restart_agent(&self, actor: &Actor, id: &AgentId) -> Result<Dispatch, AgentCommandError> {
        let (actor, id) = (actor.clone(), *id);
        self.complete(|inner| async move { inner.restart_agent(&actor, &id).await }).await
    }

    /// Has a connected agent asked for its full state. The audit entry is written before the request is sent.
    ///
    /// # Errors
    /// [`AgentCommandError::NotFound`], [`AgentCommandError::NotConnected`], or the entry could not be written.
    pub async fn request_full_state(
        &self,
        actor: &Actor,
        id: &AgentId,
    ) -> Result<Dispatch, AgentCommandError> {
        let (actor, id) = (actor.clone(), *id);
        self.complete(|inner| async move { inner.request_full_state(&actor, &id).await }).await
    }
}

impl Inner {
    async fn expect_agent(
        self: Arc<Self>,
        actor: &Actor,
        uid: InstanceUid,
        labels: BTreeMap<String, String>,
    ) -> Result<AgentId, AgentError> {
        let _writer = self.writer.lock().await;
        let known = self.state().index.by_uid(&uid);
        if let Some(id) = known
            && (!self.is_in_doubt(&id) || self.record(&id).await?.is_some())
        {
            return Err(AgentError::AlreadyKnown { uid, id });
        }
        let now = self.now();
        let id = new_agent_id(now.wall).ok_or_else(|| AgentError::Random("none available".to_owned()))?;
        let agent = AgentRecord { labels, ..AgentRecord::new(id, uid, now.wall) };
        let after = json!({ "instance_uid": uid, "labels": agent.labels });
        let mut batch = WriteBatch::new();
        batch.require(Precondition::AgentAbsent(id)).require(Precondition::UidFree(uid));
        batch.put_agent(agent.clone());
        let deed = Deed::of_agent("agent.expect", &id, None, Some(after));
        batch.append_audit(self.audit_entry(actor, now.wall, deed));
        let outcome = self.commit_agent(batch, &id).await;
        if matches!(outcome, Ok(()) | Err(AgentError::Store(StoreFailure::OutcomeUnknown(_)))) {
            // Perhaps it is there: the agent must be found by it when it comes, and no second record be made.
            let (liveness, since) = record::resting(&agent, None);
            self.state().index.insert(&record::facts(&agent, liveness, since));
        }
        outcome.map(|()| id)
    }

    async fn set_labels(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
        labels: BTreeMap<String, String>,
    ) -> Result<(), AgentError> {
        let _writer = self.writer.lock().await;
        let base = self.record(id).await?.ok_or(AgentError::NotFound(*id))?;
        if base.record.labels == labels {
            return Ok(());
        }
        let now = self.now();
        let changed = AgentRecord { labels, ..AgentRecord::clone(&base.record) };
        let (before, after) = (json!({ "labels": base.record.labels }), json!({ "labels": changed.labels }));
        let mut batch = changed_record_batch(&base, changed.clone());
        let deed = Deed::of_agent("agent.label", id, Some(before), Some(after));
        batch.append_audit(self.audit_entry(actor, now.wall, deed));
        self.commit_agent(batch, id).await?;
        let mut state = self.state();
        state.unwritten.discard(id);
        state.index.set_labels(id, &record::labels(&changed));
        Ok(())
    }

    async fn delete_agent(self: Arc<Self>, actor: &Actor, id: &AgentId) -> Result<(), AgentError> {
        let _writer = self.writer.lock().await;
        let base = self.record(id).await?.ok_or(AgentError::NotFound(*id))?;
        let now = self.now();
        let before = json!({
            "instance_uid": base.record.uid,
            "identity": base.record.identity,
            "desired": super::audit::desired_value(base.record.desired.as_deref()),
            "connection_settings": settings_value(base.record.desired_settings.as_ref(), None),
            "packages": packages_value(base.record.desired_packages.as_ref()),
        });
        let mut batch = WriteBatch::new();
        batch.require(unchanged(&base.record));
        batch.delete_agent(*id);
        if let Some(settings) = &base.record.desired_settings {
            // They hold secrets, and do not wait for the next sweep.
            batch.delete_blob_if_unreferenced(settings.blob);
        }
        let deed = Deed::of_agent("agent.delete", id, Some(before), None);
        batch.append_audit(self.audit_entry(actor, now.wall, deed));
        self.commit_agent(batch, id).await?;
        // The session goes after the record: what it still tells finds no record and no session, and makes none.
        let uid = self.state().index.uid(id);
        self.state().forget(id);
        for uid in uid.into_iter().chain([base.record.uid]) {
            self.server.forget(&uid);
        }
        Ok(())
    }

    async fn restart_agent(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
    ) -> Result<Dispatch, AgentCommandError> {
        let now = self.now();
        let facts = self.state().index.facts(id).ok_or(AgentCommandError::NotFound(*id))?;
        if !facts.capabilities.contains(AgentCapabilities::ACCEPTS_RESTART_COMMAND)
            && facts.capabilities.bits() != 0
        {
            return Err(AgentCommandError::NotAccepted(*id));
        }
        if facts.liveness != Liveness::Connected {
            return Err(AgentCommandError::NotConnected(*id));
        }
        let mut batch = WriteBatch::new();
        batch.append_audit(self.audit_entry(
            actor,
            now.wall,
            Deed::of_agent("agent.restart", id, None, None),
        ));
        self.commit(batch, None).await.map_err(StoreFailure::from)?;
        self.server.restart_agent(&facts.uid).map_err(|error| match error {
            CommandError::NoSession => AgentCommandError::NotConnected(*id),
            CommandError::NotAccepted => AgentCommandError::NotAccepted(*id),
        })
    }

    async fn request_full_state(
        self: Arc<Self>,
        actor: &Actor,
        id: &AgentId,
    ) -> Result<Dispatch, AgentCommandError> {
        let facts = self.state().index.facts(id).ok_or(AgentCommandError::NotFound(*id))?;
        if matches!(facts.liveness, Liveness::Disconnected | Liveness::Expired | Liveness::NeverSeen) {
            return Err(AgentCommandError::NotConnected(*id));
        }
        let mut batch = WriteBatch::new();
        let deed = Deed::of_agent("agent.request_full_state", id, None, None);
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        self.commit(batch, None).await.map_err(StoreFailure::from)?;
        match self.server.request_full_state(&facts.uid) {
            Dispatch::NoSession => Err(AgentCommandError::NotConnected(*id)),
            dispatch => Ok(dispatch),
        }
    }

    async fn commit_agent(&self, batch: WriteBatch, id: &AgentId) -> Result<(), AgentError> {
        match self.commit(batch, None).await {
            Ok(_) => Ok(()),
            Err(CommitError::Precondition(_)) => Err(AgentError::Conflict(*id)),
            Err(CommitError::UidTaken { uid, owner }) => Err(AgentError::AlreadyKnown { uid, id: owner }),
            Err(error) => {
                if matches!(error, CommitError::OutcomeUnknown(_)) {
                    self.doubt(id);
                }
                Err(StoreFailure::from(error).into())
            }
        }
    }
}

/// A batch that replaces a record nobody else changed meanwhile.
pub(super) fn changed_record_batch(base: &Newest, changed: impl Into<Arc<AgentRecord>>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.require(unchanged(&base.record));
    Inner::put_changed(&mut batch, changed, &base.blobs);
    batch
}

fn summary(facts: &AgentFacts, flapping: bool) -> AgentSummary {
    let labels = facts.labels.iter().filter_map(|(scope, key, value)| match (scope, value) {
        (LabelScope::Server, LabelValue::Text(text)) => Some((key.to_owned(), text.clone())),
        _ => None,
    });
    AgentSummary {
        id: facts.id,
        uid: facts.uid,
        agent_type: facts.agent_type().to_owned(),
        version: facts.version().map(str::to_owned),
        host_name: own_label(&facts.labels, "host.name").map(str::to_owned),
        labels: labels.collect(),
        liveness: facts.liveness,
        liveness_since: facts.liveness_since,
        flapping,
        health: facts.health,
        drift: facts.drift,
        capabilities: facts.capabilities,
        last_seen: None,
    }
}

/// A label by the agent's own word.
fn own_label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    let scopes = [LabelScope::Identifying, LabelScope::NonIdentifying];
    scopes.into_iter().find_map(|scope| labels.value(Some(scope), key))?.as_text()
}

fn detail(record: AgentRecord, summary: AgentSummary, snapshot: Option<AgentSnapshot>) -> AgentDetail {
    let connection_settings = offers::settings_detail(&record, snapshot.as_ref());
    let packages = offers::packages_detail(&record, snapshot.as_ref());
    let parts = &record.parts;
    // The progress of a download is no change that is written, but it is shown.
    let newest_statuses =
        snapshot.as_ref().and_then(|snapshot| snapshot.state.part(opamp_proto::Part::PackageStatuses));
    let mut sticky = record.sticky;
    if let Some(snapshot) = &snapshot {
        // These count with every message and are written with the next change only.
        sticky.gaps = sticky.gaps.max(snapshot.sticky.gaps.into());
        sticky.full_state_requests =
            sticky.full_state_requests.max(snapshot.sticky.full_state_requests.into());
    }
    let last_seen = snapshot.as_ref().map(|snapshot| snapshot.last_seen);
    AgentDetail {
        summary: AgentSummary { last_seen, ..summary },
        description: decoded(parts.agent_description.as_ref()),
        health_report: decoded(parts.health.as_ref()),
        remote_config: record::remote_config(parts),
        effective_config: None,
        package_statuses: decoded(newest_statuses.or(parts.package_statuses.as_ref())),
        available_components: decoded(parts.available_components.as_ref()),
        custom_capabilities: decoded(parts.custom_capabilities.as_ref()),
        connection_settings_status: decoded(parts.connection_settings_status.as_ref()),
        previous_uids: record.previous_uids,
        identity: record.identity,
        first_seen: record.first_seen,
        connection: record.connection.map(Arc::unwrap_or_clone),
        effective_config_hash: record.effective_config_hash,
        desired: record.desired.map(Arc::unwrap_or_clone),
        desired_history: record
            .desired_history
            .iter()
            .map(|assigned| DesiredConfig::clone(assigned))
            .collect(),
        last_known_good: record.last_known_good,
        sticky,
        revision: record.revision,
        sequence_num: snapshot.as_ref().map(|snapshot| snapshot.sequence_num),
        offered: snapshot.as_ref().and_then(|snapshot| snapshot.remote_config.offered.clone()),
        offer_too_large: snapshot.as_ref().is_some_and(|snapshot| snapshot.remote_config.too_large),
        connection_settings,
        packages,
        ignored: snapshot.map_or(opamp_proto::PartSet::NONE, |snapshot| snapshot.ignored),
    }
}

fn decoded<T: Message + Default>(bytes: Option<&bytes::Bytes>) -> Option<T> {
    T::decode(bytes?.clone()).ok()
}

impl Inner {
    /// What the server knows of an agent it has heard of; for one that never came it may hold a session that says
    /// nothing.
    fn heard(&self, facts: &AgentFacts) -> Option<AgentSnapshot> {
        let heard = facts.liveness != crate::Liveness::NeverSeen;
        heard.then(|| self.server.agent(&facts.uid)).flatten()
    }

    /// What a record refers to, stored or waiting to be.
    async fn referred(&self, waiting: &[Blob], id: Option<BlobId>) -> Result<Option<Bytes>, StoreFailure> {
        let Some(id) = id else { return Ok(None) };
        match waiting.iter().find(|blob| blob.id() == id) {
            Some(blob) => Ok(Some(blob.bytes().clone())),
            None => Ok(self.store.blob(&id).await?),
        }
    }

    /// The time by the manager's clock.
    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }
}
