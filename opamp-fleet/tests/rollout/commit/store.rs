//! The records of one rollout, as a store keeps them.

use std::collections::BTreeMap;

use opamp_fleet::rollout::commit::{Batch, BatchKey, CommitOutcome};
use opamp_fleet::rollout::journal::{Entry, Snapshot};
use opamp_fleet::rollout::{Epoch, OfferKey, Serial, Write};
use opamp_proto::{AgentId, Fingerprint};

/// The records of one rollout, written as a store writes them: in one transaction, behind a fence, once for each key.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) epoch: Epoch,
    pub(crate) serial: Serial,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) tail: Vec<Entry>,
    pub(crate) desired: BTreeMap<AgentId, Desired>,
    pub(crate) answers: BTreeMap<BatchKey, CommitOutcome>,
}

#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) key: OfferKey,
    pub(crate) config: Fingerprint,
    /// How many offers there were.
    pub(crate) generation: u32,
}

impl Store {
    pub(crate) fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        if batch.epoch < self.epoch {
            return CommitOutcome::StaleEpoch { current: self.epoch };
        }
        if let Some(answer) = self.answers.get(&batch.key) {
            return *answer;
        }
        if batch.base != self.serial {
            return CommitOutcome::Conflict { found: self.serial };
        }
        self.epoch = batch.epoch;
        self.serial = Serial(batch.base.0 + 1);
        self.tail.extend(batch.entries.iter().cloned());
        if let Some(later) = &batch.snapshot {
            let snapshot = self.snapshot.take().unwrap_or_default();
            self.snapshot = Some(snapshot.overlaid(later.clone()));
            self.tail.clear();
        }
        for write in &batch.writes {
            if let Write::Desire { key, config, .. } = write {
                let row = self.desired.entry(key.agent);
                let row = row.or_insert(Desired { key: *key, config: *config, generation: 0 });
                if row.generation == 0 || row.key != *key {
                    *row = Desired { key: *key, config: *config, generation: row.generation + 1 };
                }
            }
        }
        let answer = CommitOutcome::Committed(self.serial);
        self.answers.insert(batch.key, answer);
        answer
    }
}
