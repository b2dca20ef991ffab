//! Agents whose stored record is not known for sure: it could not be read, or a commit did not say what became of it.

use std::sync::Arc;

use opamp_proto::{AgentId, Part};
use opamp_server::{AgentChange, ChangedFacts, Desired};
use opamp_store::{AgentRecord, ReadError, Revision};

use super::error::StoreFailure;
use super::observe::update_liveness;
use super::state::{Missed, Newest};
use super::{Inner, record};

impl Inner {
    /// The newest version of a record, written or not, to decide by. One that is in doubt is read again before. The
    /// writer lock is held by the caller.
    pub(super) async fn record(&self, id: &AgentId) -> Result<Option<Newest>, StoreFailure> {
        // What was kept with an assignment may be older than the store by now, and is older after the decision.
        let (in_doubt, _) = self.take_assigned(id);
        if in_doubt { self.reread(id).await } else { self.peek(id).await }
    }

    /// The same to merge a report into, which may be as it was written with an assignment, whatever another process made
    /// of it since: a merged record is written only if nobody did, and read again otherwise.
    pub(super) async fn record_to_merge_into(&self, id: &AgentId) -> Result<Option<Newest>, StoreFailure> {
        match self.take_assigned(id) {
            (true, _) => self.reread(id).await,
            (false, Some(assigned)) => Ok(Some(Newest::new(assigned))),
            (false, None) => self.peek(id).await,
        }
    }

    /// Whether a record is in doubt, and what was kept of it with an assignment.
    fn take_assigned(&self, id: &AgentId) -> (bool, Option<Arc<AgentRecord>>) {
        let mut state = self.state();
        (state.is_in_doubt(id), state.take_assigned(id))
    }

    /// The same as far as it is known, for those who only look.
    pub(super) async fn peek(&self, id: &AgentId) -> Result<Option<Newest>, StoreFailure> {
        if let Some(newest) = self.state().unwritten.get(id) {
            return Ok(Some(newest));
        }
        Ok(self.stored(id).await?.map(Newest::new))
    }

    pub(super) fn is_in_doubt(&self, id: &AgentId) -> bool {
        self.state().is_in_doubt(id)
    }

    /// Nobody knows what the store has of this agent: it is read again before anything is written over it.
    pub(super) fn doubt(&self, id: &AgentId) {
        let retry = self.now().mono + self.settings.write_behind.retry_delay;
        let mut state = self.state();
        state.unwritten.hold(id);
        state.miss(*id, Missed { uncertain: true, ..Missed::default() }, retry);
        self.sooner.notify_one();
    }

    /// Shows in the inventory what needs no record, and remembers that the rest is to be merged.
    pub(super) fn postpone(&self, id: &AgentId, change: &AgentChange, reason: &StoreFailure) {
        let now = self.now();
        let snapshot = &change.snapshot;
        {
            let mut state = self.state();
            state.index.set_capabilities(id, snapshot.capabilities);
            state.index.set_uid(id, snapshot.uid);
            if let Some(health) = snapshot.state.part(Part::Health) {
                let healthy = opamp_proto::material::health_summary(health).healthy;
                state.index.set_health(id, crate::Health::from_report(Some(healthy)));
            }
            let reconnected = change.facts.contains(ChangedFacts::CONNECTION);
            update_liveness(&mut state, id, snapshot, reconnected, now);
            state.miss(*id, Missed::of(change), now.mono + self.settings.write_behind.retry_delay);
        }
        self.note_damage(id, reason);
    }

    /// Reads again what is in doubt and merges what had to wait, with the values of now. Ends at the first sign that
    /// the store does not answer. The writer lock is held by the caller.
    pub(super) async fn catch_up(&self) {
        let waiting: Vec<AgentId> = self.state().missed.keys().copied().collect();
        for id in &waiting {
            match self.catch_up_with(id).await {
                Ok(()) => {}
                Err(error @ StoreFailure::Damaged(_)) => self.note_damage(id, &error),
                Err(error) => {
                    let waiting = self.state().missed.len();
                    tracing::warn!(%error, waiting, "changes of agents wait until the store can be read");
                    break;
                }
            }
        }
        let retry = self.now().mono + self.settings.write_behind.retry_delay;
        self.state().missed_retry = retry;
    }

    async fn catch_up_with(&self, id: &AgentId) -> Result<(), StoreFailure> {
        let newest = self.record(id).await?;
        let (missed, uid) = {
            let mut state = self.state();
            (state.missed.remove(id), state.index.uid(id))
        };
        let Some(Missed { changed, facts, previous_uid, .. }) = missed else { return Ok(()) };
        if changed.is_empty() && facts.is_empty() {
            return Ok(());
        }
        // An agent the server forgot meanwhile tells everything when it comes again.
        let Some(snapshot) = uid.and_then(|uid| self.server.agent(&uid)) else { return Ok(()) };
        self.take_in(id, newest, &AgentChange { snapshot, changed, facts, previous_uid }).await;
        Ok(())
    }

    /// Reads a record that is in doubt. What agents report is newer here, what operators decide is newer there.
    async fn reread(&self, id: &AgentId) -> Result<Option<Newest>, StoreFailure> {
        let stored = self.stored(id).await?;
        let desired = match &stored {
            Some(stored) => self.desired(stored).await?,
            None => Desired::default(),
        };
        let now = self.now();
        let mut state = self.state();
        if let Some(missed) = state.missed.get_mut(id) {
            missed.uncertain = false;
        }
        let waiting = state.unwritten.get(id);
        let Some(stored) = stored else {
            return match waiting {
                Some(Newest { record, blobs }) if record.revision == Revision::default() => {
                    state.unwritten.push(record, blobs, now.mono);
                    Ok(state.unwritten.get(id))
                }
                _ => {
                    // Deleted. Its session would go on to offer what was desired.
                    let uid = state.index.uid(id);
                    state.forget(id);
                    drop(state);
                    uid.map(|uid| self.server.forget(&uid));
                    Ok(None)
                }
            };
        };
        let newest = match waiting {
            None => Newest::new(stored),
            Some(Newest { record, blobs }) => {
                let mut record = AgentRecord {
                    labels: stored.labels.clone(),
                    desired: stored.desired.clone(),
                    desired_generation: stored.desired_generation,
                    desired_history: stored.desired_history.clone(),
                    desired_settings: stored.desired_settings.clone(),
                    settings_generation: stored.settings_generation,
                    desired_packages: stored.desired_packages.clone(),
                    packages_generation: stored.packages_generation,
                    revision: stored.revision,
                    ..AgentRecord::clone(&record)
                };
                record.sticky.absorb(&stored.sticky);
                let record = Arc::new(record);
                if record == stored {
                    state.unwritten.discard(id);
                } else {
                    state.unwritten.push(Arc::clone(&record), blobs.clone(), now.mono);
                }
                Newest { record, blobs }
            }
        };
        let record = &newest.record;
        if state.index.uid(id).is_none() {
            let (liveness, since) = record::resting(record, None);
            state.index.insert(&record::facts(record, liveness, since));
        }
        state.index.set_labels(id, &record::labels(record));
        state.index.set_drift(id, record::drift(record));
        drop(state);
        if record.desired_generation + record.settings_generation + record.packages_generation > 0 {
            self.server.set_desired(&record.uid, desired);
        }
        Ok(Some(newest))
    }

    async fn stored(&self, id: &AgentId) -> Result<Option<Arc<AgentRecord>>, StoreFailure> {
        let read = self.store.agent(id).await;
        self.note_read(match &read {
            // One damaged record is no outage.
            Ok(_) | Err(ReadError::Corrupt { .. }) => None,
            Err(error) => Some(error.to_string()),
        });
        Ok(read?)
    }

    /// Tells once that a record cannot be understood.
    fn note_damage(&self, id: &AgentId, reason: &StoreFailure) {
        let StoreFailure::Damaged(reason) = reason else { return };
        if let Some(missed) = self.state().missed.get_mut(id)
            && !std::mem::replace(&mut missed.damaged, true)
        {
            tracing::error!(agent = %id, reason, "an agent's record is damaged; its changes wait");
        }
    }
}
