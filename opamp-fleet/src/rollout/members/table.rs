//! From the name of an agent to its row: open addressing over 4-byte numbers.

use opamp_proto::AgentId;

use crate::rollout::MemberIx;

/// Rows by agent. Linear probing; a slot is a row's position plus one, 0 is free. Nothing is ever taken out: a removed
/// member keeps its row, so that its tries are remembered. Between 3/8 and 3/4 of the slots are taken once it has grown.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdTable {
    pub(super) slots: Vec<u32>,
    pub(super) len: usize,
}

impl IdTable {
    const SLOTS_MIN: usize = 16;

    /// A table of these agents, each at its position. A name that is there twice stands for its first position.
    pub(super) fn of(ids: &[AgentId]) -> Self {
        let mut table = Self { slots: vec![0; Self::slots_for(ids.len())], len: 0 };
        for at in 0..ids.len() {
            table.take(at, ids);
        }
        table
    }

    /// The position of an agent among `ids`, which are those the table was made of.
    pub(super) fn find(&self, id: &AgentId, ids: &[AgentId]) -> Option<MemberIx> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = home(id) & mask;
        loop {
            // At least a quarter of the slots is free: the search ends.
            let at = self.slots[slot].checked_sub(1)?;
            if ids[at as usize] == *id {
                return Some(MemberIx(at));
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Takes in the last of `ids`.
    pub(super) fn push(&mut self, ids: &[AgentId]) {
        if Self::slots_for(ids.len()) > self.slots.len() {
            *self = Self::of(ids);
        } else if let Some(last) = ids.len().checked_sub(1) {
            self.take(last, ids);
        }
    }

    fn take(&mut self, at: usize, ids: &[AgentId]) {
        let mask = self.slots.len() - 1;
        let mut slot = home(&ids[at]) & mask;
        while let Some(other) = self.slots[slot].checked_sub(1) {
            if ids[other as usize] == ids[at] {
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = at as u32 + 1;
        self.len += 1;
    }

    /// The least power of two of which so many are at most three quarters.
    fn slots_for(len: usize) -> usize {
        (len * 4).div_ceil(3).next_power_of_two().max(Self::SLOTS_MIN)
    }
}

/// Where the search for an agent begins: both halves of the name, multiplied and folded, so that names that differ only in
/// their time or only in their random part are spread alike.
fn home(id: &AgentId) -> usize {
    let bytes = u128::from_le_bytes(*id.as_bytes());
    let low = bytes as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let high = (bytes >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03;
    let product = u128::from(low) * u128::from(high);
    (product as u64 ^ (product >> 64) as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u64) -> Vec<AgentId> {
        let random = |n: u64| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            bytes
        };
        (0..count).map(|n| AgentId::v7(1_760_000_000_000 + n / 100, random(n))).collect()
    }

    #[test]
    fn every_agent_is_found_at_its_position_and_nobody_else() {
        let all = ids(5_000);
        let (members, strangers) = all.split_at(4_000);
        let table = IdTable::of(members);
        for (at, id) in members.iter().enumerate() {
            assert_eq!(table.find(id, members), Some(MemberIx(at as u32)));
        }
        assert!(strangers.iter().all(|id| table.find(id, members).is_none()));
        assert_eq!(IdTable::default().find(&all[0], &[]), None);
    }

    #[test]
    fn agents_that_come_one_by_one_are_found_as_well() {
        let all = ids(1_000);
        let mut table = IdTable::default();
        for end in 1..=all.len() {
            table.push(&all[..end]);
            assert_eq!(table.len, end);
        }
        for (at, id) in all.iter().enumerate() {
            assert_eq!(table.find(id, &all), Some(MemberIx(at as u32)));
        }
    }

    #[test]
    fn at_most_three_quarters_of_the_slots_are_taken() {
        for count in [1_u64, 12, 13, 96, 97, 3_000] {
            let all = ids(count);
            let table = IdTable::of(&all);
            assert!(table.slots.len().is_power_of_two());
            assert!(table.len * 4 <= table.slots.len() * 3, "{count} in {}", table.slots.len());
        }
        assert_eq!(IdTable::slots_for(1 << 20), 1 << 21, "8 bytes a member");
    }

    #[test]
    fn searches_are_short() {
        let all = ids(3_000);
        let table = IdTable::of(&all);
        let mask = table.slots.len() - 1;
        let steps = |id: &AgentId| {
            let mut slot = home(id) & mask;
            let mut steps = 0;
            while table.slots[slot] != 0 && all[table.slots[slot] as usize - 1] != *id {
                slot = (slot + 1) & mask;
                steps += 1;
            }
            steps
        };
        let sum: usize = all.iter().map(steps).sum();
        assert!(sum < all.len() * 3, "{sum} steps in all: 1.5 for each would be ideal at this load");
    }
}
