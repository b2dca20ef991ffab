//! One rollout at a time for each agent and slot (R60).

use std::collections::BTreeMap;

use opamp_proto::AgentId;

use crate::rollout::{RolloutId, Slot};

/// Who holds which agent for which slot. Only touched agents are in it; a lock lasts as long as its rollout.
///
/// A million touched agents are a million locks, so a lock names its rollout by a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<(AgentId, Slot), u16>,
    holders: BTreeMap<u16, Holder>,
    numbers: BTreeMap<RolloutId, u16>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    rollout: RolloutId,
    locks: u32,
}

impl Locks {
    /// Who holds it.
    pub(super) fn holder(&self, agent: &AgentId, slot: Slot) -> Option<RolloutId> {
        let number = self.held.get(&(*agent, slot))?;
        self.holders.get(number).map(|holder| holder.rollout)
    }

    /// Whether this rollout holds it. A lock of an earlier life of the rollout is not its own.
    pub(super) fn is_held_by(&self, agent: &AgentId, slot: Slot, rollout: RolloutId) -> bool {
        let own = self.numbers.get(&rollout);
        own.is_some() && self.held.get(&(*agent, slot)) == own
    }

    /// Whether another rollout, or an earlier life of this one, holds it.
    pub(super) fn in_the_way(&self, agent: &AgentId, slot: Slot, rollout: RolloutId) -> Option<RolloutId> {
        let holder = self.held.get(&(*agent, slot))?;
        let is_own = self.numbers.get(&rollout) == Some(holder);
        if is_own { None } else { self.holders.get(holder).map(|holder| holder.rollout) }
    }

    /// The rollout holds it from now on, whoever held it before. False if there are too many holders.
    pub(super) fn take(&mut self, agent: &AgentId, slot: Slot, rollout: RolloutId) -> bool {
        let Some(number) = self.number(rollout) else { return false };
        let before = self.held.insert((*agent, slot), number);
        if before != Some(number) {
            if let Some(holder) = self.holders.get_mut(&number) {
                holder.locks += 1;
            }
            if let Some(before) = before {
                self.one_less(before);
            }
        }
        true
    }

    /// Nobody holds it any more, if this rollout did.
    pub(super) fn release(&mut self, agent: &AgentId, slot: Slot, rollout: RolloutId) {
        if self.is_held_by(agent, slot, rollout)
            && let Some(number) = self.held.remove(&(*agent, slot))
        {
            self.one_less(number);
        }
    }

    /// The rollout holds nothing any more.
    pub(super) fn release_all(&mut self, rollout: RolloutId) {
        if let Some(number) = self.numbers.remove(&rollout) {
            self.held.retain(|_, holder| *holder != number);
            self.holders.remove(&number);
        }
    }

    /// The rollout is forgotten and its locks are not: what a leak would do.
    pub(super) fn leak(&mut self, rollout: RolloutId) {
        self.numbers.remove(&rollout);
    }

    /// How many it holds: agents it has touched, since it has one slot.
    pub(super) fn count(&self, rollout: RolloutId) -> u32 {
        let holder = self.numbers.get(&rollout).and_then(|number| self.holders.get(number));
        holder.map_or(0, |holder| holder.locks)
    }

    /// How many locks there are.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn number(&mut self, rollout: RolloutId) -> Option<u16> {
        if let Some(number) = self.numbers.get(&rollout) {
            return Some(*number);
        }
        let number = (0..=u16::MAX).find(|number| !self.holders.contains_key(number))?;
        self.holders.insert(number, Holder { rollout, locks: 0 });
        self.numbers.insert(rollout, number);
        Some(number)
    }

    /// A holder without locks is forgotten.
    fn one_less(&mut self, number: u16) {
        let Some(holder) = self.holders.get_mut(&number) else { return };
        holder.locks = holder.locks.saturating_sub(1);
        if holder.locks == 0 {
            let rollout = holder.rollout;
            self.holders.remove(&number);
            if self.numbers.get(&rollout) == Some(&number) {
                self.numbers.remove(&rollout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot::MainConfig;

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 16])
    }

    fn rollout(number: u8) -> RolloutId {
        RolloutId::from_bytes([number; 16])
    }

    #[test]
    fn a_lock_is_of_one_agent_and_one_slot() {
        let mut locks = Locks::default();
        assert!(locks.take(&agent(1), SLOT, rollout(1)));
        assert_eq!(locks.in_the_way(&agent(1), SLOT, rollout(2)), Some(rollout(1)));
        assert_eq!(locks.in_the_way(&agent(1), SLOT, rollout(1)), None);
        assert_eq!(locks.in_the_way(&agent(1), Slot::Restart, rollout(2)), None);
        assert_eq!(locks.in_the_way(&agent(2), SLOT, rollout(2)), None);
    }

    #[test]
    fn locks_are_counted_for_each_holder_and_taken_twice_they_are_one() {
        let mut locks = Locks::default();
        for number in [1, 2, 2, 3] {
            locks.take(&agent(number), SLOT, rollout(1));
        }
        assert_eq!((locks.count(rollout(1)), locks.len()), (3, 3));
        locks.take(&agent(3), SLOT, rollout(2));
        assert_eq!((locks.count(rollout(1)), locks.count(rollout(2))), (2, 1));
        locks.release(&agent(3), SLOT, rollout(1));
        assert_eq!(locks.count(rollout(2)), 1, "only the holder lets go");
        locks.release_all(rollout(1));
        assert_eq!((locks.count(rollout(1)), locks.len()), (0, 1));
    }

    #[test]
    fn nothing_stays_of_a_holder_without_locks() {
        let mut locks = Locks::default();
        locks.take(&agent(1), SLOT, rollout(1));
        locks.release(&agent(1), SLOT, rollout(1));
        assert!(locks.holders.is_empty() && locks.numbers.is_empty());
    }

    #[test]
    fn a_leaked_lock_is_in_the_way_of_its_own_rollout() {
        let mut locks = Locks::default();
        locks.take(&agent(1), SLOT, rollout(1));
        locks.leak(rollout(1));
        locks.take(&agent(2), SLOT, rollout(1));
        assert_eq!(locks.in_the_way(&agent(1), SLOT, rollout(1)), Some(rollout(1)));
        locks.release_all(rollout(1));
        assert_eq!(locks.len(), 1);
    }
}
