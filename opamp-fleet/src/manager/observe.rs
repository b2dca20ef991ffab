//! From what the server reports to records and inventory.

use std::sync::Arc;

use opamp_proto::{AgentId, InstanceUid, Now, Part, PartSet, Wall};
use opamp_server::{
    AgentChange, AgentSnapshot, ChangedFacts, Event, Liveness as SessionLiveness, RefusalReason,
};
use opamp_store::{AgentRecord, NewAuditEntry};
use serde_json::{Value, json};

use super::audit::Deed;
use super::state::{Newest, State};
use super::types::Actor;
use super::{Inner, record};
use crate::{AgentFacts, Liveness, LivenessEvent};

pub(super) const FIRST_SEEN: &str = "agent.first_seen";
const CHANGE_IDENTITY: &str = "agent.change_identity";

/// What agents can cause entries by as often as they like.
const ARRIVALS: [&str; 2] = [FIRST_SEEN, CHANGE_IDENTITY];

impl Inner {
    /// Takes one event in. The writer lock is held by the caller.
    pub(super) async fn observe(&self, event: Event) {
        match event {
            Event::Agent(change) => self.observe_agent(change).await,
            Event::Custom(received) => self.observe_custom(*received),
            Event::Refused(refusal) => {
                // Every failure to prove who one is belongs into the log; the rest is counted by the server.
                if matches!(refusal.reason, RefusalReason::AuthFailed | RefusalReason::UidConflict) {
                    let now = self.now();
                    let mut state = self.state();
                    if let Some(folded) = state.throttle.admit(refusal.folded, now.mono) {
                        state.audit.push(self.refusal_entry(&refusal, folded), now.mono);
                    }
                }
            }
            _ => tracing::debug!("an event of an unknown kind is ignored"),
        }
    }

    async fn observe_agent(&self, change: Box<AgentChange>) {
        let uid = change.snapshot.uid;
        let Some(id) = self.locate(uid, change.previous_uid) else {
            self.admit(uid);
            return;
        };
        match self.record_to_merge_into(&id).await {
            Ok(newest) => self.take_in(&id, newest, &change).await,
            Err(error) => {
                tracing::debug!(agent = %id, %error, "a change waits until the record can be read");
                self.postpone(&id, &change, &error);
            }
        }
    }

    /// Merges a change into the record that was found for it, or makes a new one.
    pub(super) async fn take_in(&self, id: &AgentId, newest: Option<Newest>, change: &AgentChange) {
        let Some(newest) = newest else {
            // Deleted by another process.
            self.state().forget(id);
            self.admit(change.snapshot.uid);
            return;
        };
        let moved_from = Some(newest.record.uid).filter(|former| *former != change.snapshot.uid);
        let record = moved_from.map(|_| Arc::clone(&newest.record));
        self.merge(newest, change);
        if let (Some(former), Some(record)) = (moved_from, record) {
            self.follow(&former, &change.snapshot.uid, &record).await;
        }
    }

    /// What was decided for an agent while its identity changed may have gone to the former one, where it would wait
    /// for ever in a session nobody comes for.
    async fn follow(&self, former: &InstanceUid, present: &InstanceUid, record: &AgentRecord) {
        match self.desired(record).await {
            Ok(desired) => {
                self.server.set_desired(present, desired);
            }
            // The session took along what it had.
            Err(error) => tracing::warn!(uid = %present, %error, "desired state was not set again"),
        }
        let nobodys = |snapshot: AgentSnapshot| snapshot.uid == *former && snapshot.connection.is_none();
        if self.server.agent(former).is_some_and(nobodys) {
            self.server.forget(former);
        }
    }

    /// The record of an agent that reports, by the identity it has or had before.
    fn locate(&self, uid: InstanceUid, previous_uid: Option<InstanceUid>) -> Option<AgentId> {
        let state = self.state();
        let previous = previous_uid.and_then(|previous| state.index.by_uid(&previous));
        match (previous, state.index.by_uid(&uid)) {
            (Some(previous), Some(present)) if previous != present => {
                // The server hands out fresh identities only, so this is somebody else's doing.
                tracing::error!(%uid, from = %previous, to = %present, "an identity moved onto another agent's");
                Some(present)
            }
            (previous, present) => previous.or(present),
        }
    }

    /// Makes a record for an agent nobody knows.
    pub(super) fn admit(&self, uid: InstanceUid) {
        // As it is now: the change may tell of a session that was forgotten since.
        let Some(snapshot) = self.server.agent(&uid) else { return };
        let Some(first_seen) = snapshot.connection.as_ref().map(|connection| connection.connected_at) else {
            return;
        };
        let Some(id) = new_agent_id(self.now().wall) else {
            tracing::error!(%uid, "no random numbers: the agent gets no record until its next change");
            return;
        };
        let record = AgentRecord::new(id, uid, first_seen);
        self.state().index.insert(&AgentFacts::expected(id, uid, first_seen));
        let change =
            AgentChange { changed: reported(&snapshot), snapshot, facts: everything(), previous_uid: None };
        self.merge(Newest::new(record), &change);
    }

    /// Merges a change into a record and the inventory.
    fn merge(&self, newest: Newest, change: &AgentChange) {
        let now = self.now();
        let snapshot = &change.snapshot;
        let Newest { record: mut shared, blobs } = newest;
        // Nobody else has it, unless it waits to be written.
        let record = Arc::make_mut(&mut shared);
        let former_uid = record.uid;
        let connected_before = record.connection.as_ref().map(|connection| connection.connected_at);
        let moved = former_uid != snapshot.uid;
        if moved {
            record.previous_uids.push((former_uid, now.wall));
            let excess = record.previous_uids.len().saturating_sub(self.settings.previous_uids_max);
            record.previous_uids.drain(..excess);
            record.uid = snapshot.uid;
        }
        let mut state = self.state();
        let mut earlier = state.earlier.remove(&record.id);
        let absorbed = record::absorb(record, change, &mut earlier, &mut state.effective);
        // Health is looked at once, however much is judged by it.
        let known_health = state.index.health(&record.id).filter(|_| !change.changed.contains(Part::Health));
        let health = known_health.unwrap_or_else(|| record::health(record));
        let changed = absorbed.changed | record::note_known_good(record, health);
        state.earlier.extend(earlier.map(|earlier| (record.id, earlier)));
        let arrived = connected_before.is_none() && record.connection.is_some();
        let former_identity = absorbed.former_identity.as_deref();
        for mut entry in self.notable(former_uid, record, arrived, former_identity, snapshot, now) {
            if ARRIVALS.contains(&entry.action.as_str()) {
                let Some(folded) = state.arrivals.admit(0, now.mono) else { continue };
                if let Some(Value::Object(after)) = &mut entry.after
                    && folded > 0
                {
                    after.insert("left_out_before".to_owned(), folded.into());
                }
            }
            state.audit.push(entry, now.mono);
        }
        if moved {
            state.index.set_uid(&record.id, record.uid);
            // The new identity must not be lost with what waits: a crash would make the agent a stranger.
            state.unwritten.hurry();
        }
        if absorbed.relabelled {
            state.index.set_labels(&record.id, &record::labels(record));
        }
        let drift = record::drift(record);
        state.index.set_status(&record.id, snapshot.capabilities, health, drift);
        let reconnected =
            record.connection.as_ref().map(|connection| connection.connected_at) != connected_before;
        update_liveness(&mut state, &record.id, snapshot, reconnected, now);
        if let Some(took) = absorbed.applied_in {
            let State { index, durations, .. } = &mut *state;
            durations.observe(index.agent_type(&record.id), took);
        }
        if changed || moved {
            let blobs = absorbed.blobs.into_iter().chain(blobs).collect();
            state.unwritten.push(shared, blobs, now.mono);
        }
    }

    /// What the audit log keeps of a change.
    fn notable(
        &self,
        former_uid: InstanceUid,
        after: &AgentRecord,
        arrived: bool,
        former_identity: Option<&str>,
        snapshot: &AgentSnapshot,
        now: Now,
    ) -> Vec<NewAuditEntry> {
        let mut deeds = Vec::new();
        if arrived {
            let seen = json!({ "instance_uid": after.uid, "identity": after.identity });
            deeds.push(Deed::of_agent(FIRST_SEEN, &after.id, None, Some(seen)));
        }
        if former_uid != after.uid {
            let uid = |uid| Some(json!({ "instance_uid": uid }));
            deeds.push(Deed::of_agent("agent.change_uid", &after.id, uid(former_uid), uid(after.uid)));
        }
        if let Some(former) = former_identity {
            let identity = |identity| Some(json!({ "identity": identity }));
            let (former, present) = (identity(Some(former)), identity(after.identity.as_deref()));
            deeds.push(Deed::of_agent(CHANGE_IDENTITY, &after.id, former, present));
        }
        if deeds.is_empty() {
            return Vec::new();
        }
        let connection = snapshot.connection.as_ref();
        let actor = Actor {
            name: after.identity.clone().unwrap_or_else(|| "anonymous".to_owned()),
            role: "agent".to_owned(),
            source: connection.and_then(|connection| connection.remote_addr).map(|addr| addr.to_string()),
            trace_id: None,
        };
        deeds.into_iter().map(|deed| self.audit_entry(&actor, now.wall, deed)).collect()
    }
}

/// Walks the inventory's liveness to the session's. Changes of one agent are merged before they get here, so that
/// an agent may have been there in between.
pub(super) fn update_liveness(
    state: &mut State,
    id: &AgentId,
    snapshot: &AgentSnapshot,
    reconnected: bool,
    now: Now,
) {
    use LivenessEvent::{Closed, Seen, Silent};
    let Some(before) = state.index.liveness(id) else { return };
    if before == Liveness::Connected && snapshot.liveness == SessionLiveness::Connected && !reconnected {
        return;
    }
    let was_there = before != Liveness::Connected && reconnected;
    let events: &[LivenessEvent] = match snapshot.liveness {
        SessionLiveness::Connected if before == Liveness::Connected && reconnected => &[Closed, Seen],
        SessionLiveness::Connected => &[Seen],
        SessionLiveness::Stale if before == Liveness::Connected || before == Liveness::Stale => &[Silent],
        SessionLiveness::Stale => &[Seen, Silent],
        SessionLiveness::Disconnected if was_there => &[Seen, Closed],
        SessionLiveness::Disconnected => &[Closed],
    };
    for event in events {
        let wall = match (event, snapshot.disconnect) {
            (Closed, Some((_, at))) => at,
            _ => now.wall,
        };
        state.index.observe(id, *event, Now { mono: now.mono, wall });
    }
}

/// The status parts the server holds of an agent.
fn reported(snapshot: &AgentSnapshot) -> PartSet {
    let mut parts = PartSet::NONE;
    for part in Part::ALL.into_iter().filter(|part| snapshot.state.part(*part).is_some()) {
        parts.insert(part);
    }
    parts
}

fn everything() -> ChangedFacts {
    ChangedFacts::CONNECTION
        | ChangedFacts::LIVENESS
        | ChangedFacts::CAPABILITIES
        | ChangedFacts::REMOTE_CONFIG
        | ChangedFacts::CONNECTION_SETTINGS
        | ChangedFacts::PACKAGES
        | ChangedFacts::COMPONENTS
        | ChangedFacts::OFFER
        | ChangedFacts::STICKY
}

/// A fresh key for a record; none if the system has no random numbers.
pub(super) fn new_agent_id(now: Wall) -> Option<AgentId> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).ok()?;
    Some(AgentId::v7(now.0, random))
}
