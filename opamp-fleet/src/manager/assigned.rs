//! Records as they were written with an assignment, for a moment.

use std::sync::Arc;

use opamp_proto::AgentId;
use opamp_store::AgentRecord;

/// Records kept, whatever they weigh: [`AgentRecord::weight`] leaves out some 700 bytes of a small one.
const RECORDS_MAX: usize = 16_384;

/// Spares the one who merges what an agent says to its assignment from reading the record that was just written.
///
/// Another process may have written since, so that nothing may be decided by what is kept here. A report that is merged
/// into it is safe: it is written under the condition that the record is still the one it was merged into.
#[derive(Debug)]
pub(super) struct Assigned {
    /// Each with its weight, by a key that the server made.
    records: foldhash::HashMap<AgentId, (Arc<AgentRecord>, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl Assigned {
    /// Keeps at most `bytes_max` bytes, records counted roughly.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { records: foldhash::HashMap::default(), bytes: 0, bytes_max }
    }

    /// When there is no room, those that wait longer are kept: they are about to be asked for.
    pub(super) fn remember(&mut self, record: Arc<AgentRecord>) {
        self.take(&record.id);
        let weight = record.weight();
        if self.records.len() < RECORDS_MAX && self.bytes + weight <= self.bytes_max {
            self.bytes += weight;
            self.records.insert(record.id, (record, weight));
        }
    }

    pub(super) fn take(&mut self, id: &AgentId) -> Option<Arc<AgentRecord>> {
        let (record, weight) = self.records.remove(id)?;
        self.bytes -= weight;
        Some(record)
    }

    /// Everything, which takes a while to free.
    #[must_use = "it is to be freed when no lock is held"]
    pub(super) fn take_all(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::{InstanceUid, Wall};

    use super::*;

    fn record(number: u8, label_bytes: usize) -> Arc<AgentRecord> {
        let id = AgentId::from_bytes([number; 16]);
        let mut record = AgentRecord::new(id, InstanceUid::from_bytes([number; 16]), Wall(1));
        record.labels.insert("x".to_owned(), "y".repeat(label_bytes));
        Arc::new(record)
    }

    #[test]
    fn what_is_taken_or_replaced_makes_room_for_as_much() {
        let (small, large) = (record(1, 10), record(2, 1_000));
        let mut assigned = Assigned::new(small.weight() + large.weight());
        for _ in 0..3 {
            assigned.remember(Arc::clone(&small));
            assigned.remember(Arc::clone(&large));
            assigned.remember(record(3, 10));
            assert_eq!(assigned.records.len(), 2, "the third finds no room");
            assert_eq!(assigned.take(&large.id), Some(Arc::clone(&large)));
        }
        assigned.remember(record(1, 11));
        assert_eq!(assigned.bytes, small.weight() + 1);
        let all = assigned.take_all();
        assert_eq!((all.records.len(), assigned.bytes, assigned.bytes_max), (1, 0, all.bytes_max));
    }
}
