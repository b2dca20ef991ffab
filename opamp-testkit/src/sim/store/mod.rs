//! The simulated store: rows, preconditions, fence, idempotency keys, lease.

pub mod faults;
mod rows;

use std::time::Duration;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::commit::{Batch, CommitOutcome};
use opamp_fleet::rollout::{Epoch, OfferKey, RolloutId, Serial, Time, Write};
use opamp_proto::{AgentId, Fingerprint, Wall};

pub use rows::{AgentRow, CreateRow, Lease, RolloutRow, Rows};

use super::ledger::Change;
use super::replica::facts::Facts;

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(30);

/// The store. What it has is in [`Rows`]; everything it does is a transaction, done as a whole.
#[derive(Debug)]
pub struct SimStore {
    rows: Rows,
    /// What it had a while ago, which it goes back to when it forgets.
    copy: Option<Box<Rows>>,
    /// How often it has forgotten.
    generation: u32,
    /// What made no sense in the last transaction that was refused as invalid.
    refusal: Option<String>,
    faults: Faults,
}

/// A transaction that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The rollout's serial now.
    pub serial: Serial,
    /// What its entries changed, in order.
    pub changes: Vec<Change>,
    /// Desired configurations that were written, and those that were there already.
    pub desires: Vec<Desired>,
}

/// A desired configuration of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The agent.
    pub agent: AgentId,
    /// Its configuration.
    pub config: Fingerprint,
    /// Whether it puts the agent back.
    pub rollback: bool,
    /// Whether it was written before under the same key.
    pub repeated: bool,
    /// The number of the offer within its rollout and agent.
    pub offer: u32,
    /// What the agent should have before, and the offer that had made it so.
    pub before: (Option<Fingerprint>, Option<OfferKey>),
}

impl SimStore {
    /// An empty store.
    pub fn new(faults: Faults) -> Self {
        Self { rows: Rows::default(), copy: None, generation: 0, refusal: None, faults }
    }

    /// What it has.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// How often it has forgotten.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// What made no sense in the last transaction that was refused as invalid.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Puts an agent's record in, or replaces it.
    pub fn put_agent(&mut self, id: AgentId, row: AgentRow) {
        self.rows.cursor += 1;
        let row = AgentRow { changed: self.rows.cursor, ..row };
        self.rows.agents.insert(id, row);
    }

    /// Changes an agent's record. False if there is none.
    pub fn change_agent(&mut self, id: &AgentId, change: impl FnOnce(&mut AgentRow)) -> bool {
        let Some(row) = self.rows.agents.get_mut(id) else { return false };
        change(row);
        self.rows.cursor += 1;
        row.changed = self.rows.cursor;
        true
    }

    /// Writes what is known of an agent; what is of an older connection is no news.
    pub fn put_facts(&mut self, id: &AgentId, facts: &Facts) {
        let is_news = |row: &AgentRow| {
            row.facts.as_ref().is_none_or(|held| held.connection <= facts.connection && held != facts)
        };
        if self.rows.agents.get(id).is_some_and(is_news) {
            self.change_agent(id, |row| {
                row.sent = row.sent.max(facts.sent);
                row.facts = Some(facts.clone());
            });
        }
    }

    /// Asks for the lease, or, with the epoch of a lease it holds, for more of it. The epoch, if the replica has it now.
    pub fn lease(&mut self, replica: usize, held: Epoch, now: Wall) -> Option<Epoch> {
        let lease = &mut self.rows.lease;
        if lease.holder.is_some_and(|holder| holder != replica) && now < lease.until {
            return None;
        }
        // A holder that let it run out, or has forgotten that it leads, begins a new epoch, too: what it sent before must
        // not be taken for what it sends from now on.
        if lease.holder != Some(replica) || held != lease.epoch || now >= lease.until {
            lease.epoch = Epoch(lease.epoch.0 + 1);
            lease.holder = Some(replica);
        }
        lease.until = now + LEASE;
        Some(lease.epoch)
    }

    /// Writes a new rollout.
    ///
    /// # Errors
    /// As for a batch.
    pub fn create(&mut self, epoch: Epoch, row: CreateRow) -> Result<(), CommitOutcome> {
        self.fence(epoch)?;
        let id = row.plan.id;
        if let Some(there) = self.rows.rollouts.get(&id) {
            return Err(CommitOutcome::Conflict { found: there.serial });
        }
        self.rows.rollouts.insert(id, RolloutRow::new(row));
        Ok(())
    }

    /// Writes a transaction, or none of it. A plan that was made anew is written with it.
    ///
    /// # Errors
    /// Why nothing was written. [`CommitOutcome::Committed`] is no error: the same batch was written before.
    pub fn commit(&mut self, batch: &Batch, replanned: Option<&CreateRow>) -> Result<Written, CommitOutcome> {
        self.fence(batch.epoch)?;
        let Some(rollout) = self.rows.rollouts.get_mut(&batch.key.rollout) else {
            return Err(CommitOutcome::Refused);
        };
        if let Some(serial) = rollout.known(batch.key) {
            return Err(CommitOutcome::Committed(serial));
        }
        if rollout.serial != batch.base || batch.key.base != batch.base {
            return Err(CommitOutcome::Conflict { found: rollout.serial });
        }
        if batch.entries.len() + batch.writes.len() > Batch::CHANGES_MAX {
            return Err(CommitOutcome::Refused);
        }
        let changes = match rollout.append(batch, replanned) {
            Ok(changes) => changes,
            Err(why) => {
                self.refusal = Some(why);
                return Err(CommitOutcome::Refused);
            }
        };
        let serial = rollout.serial;
        self.rows.note_joined(batch.key.rollout, &changes);
        let desires = self.write(&batch.writes);
        self.note_assigned(&desires, batch.at);
        Ok(Written { serial, changes, desires })
    }

    /// Writes what belongs to no rollout, under the fence.
    ///
    /// # Errors
    /// [`CommitOutcome::StaleEpoch`].
    pub fn commit_shared(&mut self, epoch: Epoch, writes: &[Write]) -> Result<Vec<Desired>, CommitOutcome> {
        self.fence(epoch)?;
        Ok(self.write(writes))
    }

    /// What agents should run was written then.
    pub fn note_assigned(&mut self, desires: &[Desired], at: Time) {
        for desired in desires.iter().filter(|desired| !desired.repeated) {
            if let Some(row) = self.rows.agents.get_mut(&desired.agent) {
                row.assigned_at = Some(at);
            }
        }
    }

    /// Somebody who is not the leader writes the record of a rollout: nothing but its serial is another one.
    pub fn interfere(&mut self, rollout: RolloutId) {
        if let Some(row) = self.rows.rollouts.get_mut(&rollout) {
            row.serial = Serial(row.serial.0 + 1);
        }
    }

    /// Whether there is a copy to go back to.
    pub fn keeps_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Keeps a copy of what it has, to go back to.
    pub fn keep_copy(&mut self) {
        self.copy = Some(Box::new(self.rows.clone()));
    }

    /// Goes back to the copy: what was written since is lost. Epochs and generations go on, so that nobody takes what is
    /// written from now on for what was lost. False without a copy.
    pub fn forget(&mut self) -> bool {
        let Some(copy) = self.copy.take() else { return false };
        let epoch = Epoch(self.rows.lease.epoch.0 + 1);
        self.rows = *copy;
        self.generation += 1;
        self.rows.lease = Lease { holder: None, epoch, until: Wall(0) };
        self.rows.cursor += 1_000_000;
        let (base, cursor) = (u64::from(self.generation) << 32, self.rows.cursor);
        for row in self.rows.agents.values_mut() {
            row.changed = cursor;
            if row.desired.is_some() {
                // The same again under a generation that no session has seen.
                row.generation = row.generation.max(base) + 1;
                let last = row.offers.last().map(|(_, key)| *key);
                row.offers.extend(last.map(|key| (row.generation, key)));
            }
        }
        true
    }

    fn fence(&self, epoch: Epoch) -> Result<(), CommitOutcome> {
        let current = self.rows.lease.epoch;
        if epoch < current && !self.faults.takes_stale_epochs() {
            return Err(CommitOutcome::StaleEpoch { current });
        }
        Ok(())
    }

    fn write(&mut self, writes: &[Write]) -> Vec<Desired> {
        let mut desires = Vec::new();
        for write in writes {
            desires.extend(self.rows.write(write));
        }
        desires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> SimStore {
        SimStore::new(Faults::default())
    }

    #[test]
    fn a_lease_is_one_replicas_until_it_runs_out_and_each_holding_has_its_epoch() {
        let mut store = store();
        let none = Epoch(0);
        assert_eq!(store.lease(0, none, Wall(0)), Some(Epoch(1)));
        assert_eq!(store.lease(1, none, Wall(29_999)), None);
        assert_eq!(store.lease(0, Epoch(1), Wall(20_000)), Some(Epoch(1)));
        assert_eq!(store.lease(1, none, Wall(49_999)), None);
        assert_eq!(store.lease(1, none, Wall(50_000)), Some(Epoch(2)));
        assert_eq!(store.lease(1, Epoch(2), Wall(90_000)), Some(Epoch(3)), "it had run out in between");
        assert_eq!(store.lease(1, none, Wall(90_001)), Some(Epoch(4)), "it has started anew");
    }

    #[test]
    fn an_older_epoch_writes_nothing() {
        let mut store = store();
        store.lease(0, Epoch(0), Wall(0));
        store.lease(1, Epoch(0), Wall(30_000));
        let stale = store.commit_shared(Epoch(1), &[Write::Breaker { open_until: None }]);
        assert_eq!(stale, Err(CommitOutcome::StaleEpoch { current: Epoch(2) }));
        assert!(store.commit_shared(Epoch(2), &[]).is_ok());
    }

    #[test]
    fn facts_of_an_older_connection_are_no_news() {
        let (mut store, id) = (store(), AgentId::from_bytes([1; 16]));
        store.put_agent(id, AgentRow::default());
        let facts = |connection, connected| Facts { connection, connected, ..Facts::default() };
        store.put_facts(&id, &facts(2, true));
        store.put_facts(&id, &facts(1, false));
        assert!(store.rows().agents[&id].facts.as_ref().unwrap().connected);
        let cursor = store.rows().cursor;
        store.put_facts(&id, &facts(2, true));
        assert_eq!(store.rows().cursor, cursor, "the same again is no news either");
    }

    #[test]
    fn a_store_that_forgets_goes_on_with_later_epochs_and_generations() {
        let (mut store, id) = (store(), AgentId::from_bytes([1; 16]));
        let config = Fingerprint::from_bytes([3; 16]);
        store.put_agent(id, AgentRow { desired: Some(config), generation: 4, ..AgentRow::default() });
        assert!(!store.forget());
        store.keep_copy();
        store.lease(0, Epoch(0), Wall(0));
        store.change_agent(&id, |row| row.generation = 5);
        assert!(store.forget());
        let row = &store.rows().agents[&id];
        assert!(row.generation > 5 && row.desired == Some(config));
        assert!(store.lease(0, Epoch(1), Wall(1)) > Some(Epoch(1)));
    }
}
