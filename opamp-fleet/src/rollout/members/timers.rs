//! Deadlines of members: a heap whose outdated entries are dropped when they come up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::rollout::{MemberIx, Time};

/// Deadlines, the earliest first. An entry counts only if it is its row's present deadline: what a deadline is, the rows
/// say, and are asked through `deadline_of`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    pub(super) heap: BinaryHeap<Reverse<(Time, MemberIx)>>,
    /// Rows that have a deadline.
    pub(super) live: usize,
}

impl Timers {
    /// Outdated entries that are kept however few rows have a deadline.
    const OUTDATED_MAX: usize = 1_024;

    /// The deadline of a member has changed.
    pub(super) fn moved(&mut self, member: MemberIx, before: Time, after: Time) {
        if before == after {
            return;
        }
        if before != Time::NEVER {
            self.live = self.live.saturating_sub(1);
        }
        if after != Time::NEVER {
            self.live += 1;
            self.heap.push(Reverse((after, member)));
        }
    }

    /// Whether so many entries are outdated that the heap should be made anew.
    pub(super) fn is_bloated(&self) -> bool {
        self.heap.len() > 2 * self.live + Self::OUTDATED_MAX
    }

    /// The heap of these deadlines and no others.
    pub(super) fn rebuild(&mut self, deadlines: impl Iterator<Item = (MemberIx, Time)>) {
        self.heap.clear();
        let set = deadlines.filter(|(_, deadline)| *deadline != Time::NEVER);
        self.heap.extend(set.map(|(member, deadline)| Reverse((deadline, member))));
        self.live = self.heap.len();
    }

    /// Drops outdated entries. It costs what the heap has, however many rows there are.
    pub(super) fn drop_outdated(&mut self, deadline_of: impl Fn(MemberIx) -> Time) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse((deadline, member))| deadline_of(*member) == *deadline);
        entries.sort_unstable();
        // A deadline that was moved and moved back is there twice.
        entries.dedup();
        self.heap = entries.into();
    }

    /// All entries in no order, outdated ones among them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Time, MemberIx)> {
        self.heap.iter().map(|Reverse(entry)| *entry)
    }

    /// The earliest deadline, once outdated entries before it are dropped.
    pub(super) fn first(&mut self, deadline_of: impl Fn(MemberIx) -> Time) -> Option<(Time, MemberIx)> {
        while let Some(Reverse((deadline, member))) = self.heap.peek().copied() {
            if deadline_of(member) == deadline {
                return Some((deadline, member));
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the earliest deadline out if it has passed. Its row has to get another one, or none.
    pub(super) fn due(&mut self, now: Time, deadline_of: impl Fn(MemberIx) -> Time) -> Option<MemberIx> {
        let (_, member) = self.first(deadline_of).filter(|(deadline, _)| *deadline <= now)?;
        self.heap.pop();
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rows(Vec<Time>);

    impl Rows {
        fn set(&mut self, timers: &mut Timers, member: u32, to: Time) {
            timers.moved(MemberIx(member), self.0[member as usize], to);
            self.0[member as usize] = to;
        }

        fn due(&mut self, timers: &mut Timers, now: Time) -> Option<u32> {
            let member = timers.due(now, |member| self.0[member.index()])?.0;
            self.set(timers, member, Time::NEVER);
            Some(member)
        }
    }

    #[test]
    fn deadlines_come_in_order_and_those_that_moved_come_once() {
        let (mut timers, mut rows) = (Timers::default(), Rows(vec![Time::NEVER; 3]));
        rows.set(&mut timers, 0, Time(30));
        rows.set(&mut timers, 1, Time(20));
        rows.set(&mut timers, 2, Time(10));
        rows.set(&mut timers, 2, Time(40));
        rows.set(&mut timers, 1, Time(25));
        rows.set(&mut timers, 1, Time(20));
        assert_eq!(timers.live, 3);
        assert_eq!(rows.due(&mut timers, Time(19)), None);
        assert_eq!(rows.due(&mut timers, Time(30)), Some(1));
        assert_eq!(rows.due(&mut timers, Time(30)), Some(0));
        assert_eq!(rows.due(&mut timers, Time(30)), None);
        assert_eq!(timers.first(|member| rows.0[member.index()]), Some((Time(40), MemberIx(2))));
        assert_eq!(rows.due(&mut timers, Time(99)), Some(2));
        assert_eq!((timers.live, timers.heap.len()), (0, 0));
    }

    #[test]
    fn outdated_deadlines_do_not_pile_up() {
        let (mut timers, mut rows) = (Timers::default(), Rows(vec![Time::NEVER; 10]));
        for round in 0..10_000_u64 {
            rows.set(&mut timers, (round % 10) as u32, Time(1_000_000 - round));
            if timers.is_bloated() {
                timers.drop_outdated(|member| rows.0[member.index()]);
                assert_eq!(timers.heap.len(), 10);
            }
            assert!(timers.heap.len() <= 2 * timers.live + Timers::OUTDATED_MAX);
        }
        assert_eq!(timers.live, 10);
        let first = (0..10).map(|member| (rows.0[member as usize], MemberIx(member))).min();
        assert_eq!(timers.first(|member| rows.0[member.index()]), first);
    }

    #[test]
    fn a_deadline_that_was_moved_back_and_forth_is_kept_once() {
        let (mut timers, mut rows) = (Timers::default(), Rows(vec![Time::NEVER]));
        for at in [10, 20, 10, 20, 10] {
            rows.set(&mut timers, 0, Time(at));
        }
        timers.drop_outdated(|member| rows.0[member.index()]);
        assert_eq!((timers.heap.len(), timers.live), (1, 1));
        assert_eq!(rows.due(&mut timers, Time(10)), Some(0));
    }
}
