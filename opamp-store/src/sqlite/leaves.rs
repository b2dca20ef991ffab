//! Packed checkpoints: many agents in one row.
//!
//! Checkpoints are kept in leaves ordered by agent id, like the leaves of a B-tree: a leaf holds every agent from its
//! own first id up to the first id of the next leaf, at most [`ENTRIES_MAX`]. A steady fleet of n agents writes about
//! n / 400 rows per round, and a walk in id order reads the leaves one after the other. An entry is 32 bytes: agent id
//! (16), sequence number (8), last seen (8), big endian.

use std::collections::BTreeMap;

use opamp_proto::{AgentId, Wall};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, query};

use super::codec::{self, corrupt};
use super::fault::WriteFault;
use super::sql;
use super::transaction::Transaction;
use crate::{Checkpoint, ReadError};

/// The most entries in a leaf: 16 KiB, which is what one agent's checkpoint costs to write alone.
const ENTRIES_MAX: usize = 512;
const ENTRY_BYTES: usize = 32;

/// The lowest id: where the first leaf begins.
const LOWEST: AgentId = AgentId::from_bytes([0; 16]);

/// A leaf being changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Where it begins.
    pub(super) first: AgentId,
    /// Where the next begins.
    pub(super) upper: Option<AgentId>,
    /// Whether there is a row for it.
    pub(super) stored: bool,
    pub(super) entries: BTreeMap<AgentId, Checkpoint>,
}

impl Leaf {
    /// Whether it is the place of this id.
    pub(super) fn covers(&self, id: &AgentId) -> bool {
        self.first <= *id && self.upper.is_none_or(|upper| *id < upper)
    }

    /// The rows to write in its place: split evenly where there are too many entries, none when there are none.
    pub(super) fn rows(&self) -> Vec<(AgentId, Vec<u8>)> {
        let count = self.entries.len();
        if count == 0 {
            return Vec::new();
        }
        let per_row = count.div_ceil(count.div_ceil(ENTRIES_MAX));
        let entries: Vec<_> = self.entries.values().copied().collect();
        let rows = entries.chunks(per_row).enumerate().map(|(index, entries)| {
            // The first keeps the leaf's own begin, so that no id falls between two leaves.
            let first = if index == 0 { self.first } else { entries[0].id };
            (first, pack(entries))
        });
        rows.collect()
    }
}

impl Transaction<'_> {
    /// The leaves that ids in ascending order belong to, ascending.
    pub(super) async fn leaves_of(
        &mut self,
        ids: impl Iterator<Item = &AgentId>,
    ) -> Result<Vec<Leaf>, WriteFault> {
        let mut leaves: Vec<Leaf> = Vec::new();
        for id in ids {
            if !leaves.last().is_some_and(|leaf| leaf.covers(id)) {
                leaves.push(self.leaf_of(id).await?);
            }
        }
        Ok(leaves)
    }

    async fn leaf_of(&mut self, id: &AgentId) -> Result<Leaf, WriteFault> {
        if let Some(row) = self.row(query(sql::LEAF).bind(&id.as_bytes()[..])).await? {
            let entries = unpack(row.try_get("entries")?)?.map(|entry| (entry.id, entry)).collect();
            return Ok(Leaf { first: codec::id(&row, "first")?, upper: upper(&row)?, stored: true, entries });
        }
        let row = self.row(query(sql::FIRST_LEAF)).await?;
        let upper = row.map_or(Ok(None), |row| upper(&row))?;
        Ok(Leaf { first: LOWEST, upper, stored: false, entries: BTreeMap::new() })
    }
}

/// The entries of one row, in id order.
pub(super) fn unpack(packed: &[u8]) -> Result<impl Iterator<Item = Checkpoint>, ReadError> {
    let (entries, rest) = packed.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(corrupt("checkpoints", "cut short"));
    }
    Ok(entries.iter().map(|entry| {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let mut id = [0; 16];
        id.copy_from_slice(&entry[..16]);
        Checkpoint { id: AgentId::from_bytes(id), sequence_num: number(16), last_seen: Wall(number(24)) }
    }))
}

fn upper(row: &SqliteRow) -> Result<Option<AgentId>, ReadError> {
    let upper: Option<&[u8]> = row.try_get("upper")?;
    upper.map(AgentId::try_from).transpose().map_err(|error| corrupt("checkpoints", &error))
}

fn pack(entries: &[Checkpoint]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        packed.extend(entry.id.as_bytes());
        packed.extend(entry.sequence_num.to_be_bytes());
        packed.extend(entry.last_seen.0.to_be_bytes());
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(number: u64) -> Checkpoint {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Checkpoint { id: AgentId::from_bytes(id), sequence_num: number * 3, last_seen: Wall(number * 7) }
    }

    fn leaf(numbers: std::ops::Range<u64>) -> Leaf {
        let entries = numbers.map(checkpoint).map(|entry| (entry.id, entry)).collect();
        Leaf { first: LOWEST, upper: None, stored: false, entries }
    }

    #[test]
    fn rows_read_back_and_are_evenly_filled() {
        for count in [1, 2, 511, 512, 513, 1_024, 1_025, 5_000] {
            let rows = leaf(10..10 + count).rows();
            assert_eq!(rows[0].0, LOWEST);
            let mut read = Vec::new();
            for (index, (first, packed)) in rows.iter().enumerate() {
                let entries: Vec<_> = unpack(packed).unwrap().collect();
                assert!(
                    entries.len() <= ENTRIES_MAX && entries.len() * rows.len() + rows.len() > count as usize
                );
                assert!(index == 0 || *first == entries[0].id);
                read.extend(entries);
            }
            assert_eq!(read, (10..10 + count).map(checkpoint).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_leaf_has_no_row() {
        assert_eq!(leaf(0..0).rows(), []);
    }

    #[test]
    fn a_leaf_covers_its_range_only() {
        let middle = Leaf { first: checkpoint(5).id, upper: Some(checkpoint(9).id), ..leaf(5..9) };
        let covered: Vec<_> = (0..12).filter(|number| middle.covers(&checkpoint(*number).id)).collect();
        assert_eq!(covered, [5, 6, 7, 8]);
    }

    #[test]
    fn a_cut_row_is_corrupt() {
        assert!(matches!(unpack(&[0; 33]).map(Iterator::count), Err(ReadError::Corrupt { .. })));
    }
}
