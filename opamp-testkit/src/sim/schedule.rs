//! The virtual clock: one heap of what happens when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use opamp_proto::Mono;

/// What happens next. What belongs to it is kept where it belongs; the heap holds numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The act of this number.
    Act(usize),
    /// The agent of this position: its session's deadline, or something it works on.
    Agent(usize),
    /// Messages to the agent of this position may have arrived.
    Down(usize),
    /// A hint about an agent reaches a replica.
    Hint {
        /// The replica.
        replica: usize,
        /// The agent's position.
        agent: usize,
    },
    /// The operators look after what they asked for.
    Operators,
    /// The answer of this number of a provider of verdicts arrives.
    Provider(usize),
    /// The replica of this position looks after its duties.
    Replica(usize),
    /// A request reaches the store.
    StoreDoes(usize),
    /// The store's answer to a request reaches who asked.
    StoreSays(usize),
    /// Messages from the agent of this position may have arrived.
    Up(usize),
}

/// The virtual clock. Of what happens at the same time the one that was put in first comes first.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<(Mono, u64, What)>>,
    number: u64,
}

impl Schedule {
    /// Puts something in.
    pub fn put(&mut self, at: Mono, what: What) {
        self.number += 1;
        self.heap.push(Reverse((at, self.number, what)));
    }

    /// Takes out what happens first.
    pub fn take(&mut self) -> Option<(Mono, What)> {
        self.heap.pop().map(|Reverse((at, _, what))| (at, what))
    }

    /// When something happens first.
    pub fn first(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}

/// A deadline of somebody in the heap: set again and again, put in only if it became earlier. What is in the heap too
/// early is harmless.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm(Option<Mono>);

impl Alarm {
    /// Sees to it that `what` happens at `at` at the latest.
    pub fn set(&mut self, at: Mono, what: What, schedule: &mut Schedule) {
        if self.0.is_none_or(|set| at < set) {
            self.0 = Some(at);
            schedule.put(at, what);
        }
    }

    /// What was put in has happened, or comes too late.
    pub fn rang(&mut self, now: Mono) {
        if self.0.is_some_and(|set| set <= now) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_of_equals_the_first_put_in() {
        let mut schedule = Schedule::default();
        schedule.put(Mono(5), What::Up(1));
        schedule.put(Mono(3), What::Act(9));
        schedule.put(Mono(3), What::Act(2));
        assert_eq!(schedule.first(), Some(Mono(3)));
        let order: Vec<What> = std::iter::from_fn(|| schedule.take()).map(|(_, what)| what).collect();
        assert_eq!(order, [What::Act(9), What::Act(2), What::Up(1)]);
    }

    #[test]
    fn an_alarm_is_put_in_again_only_if_it_is_earlier() {
        let (mut alarm, mut schedule) = (Alarm::default(), Schedule::default());
        alarm.set(Mono(9), What::Agent(0), &mut schedule);
        alarm.set(Mono(9), What::Agent(0), &mut schedule);
        alarm.set(Mono(4), What::Agent(0), &mut schedule);
        assert_eq!(std::iter::from_fn(|| schedule.take()).count(), 2);
        alarm.rang(Mono(4));
        alarm.set(Mono(7), What::Agent(0), &mut schedule);
        assert_eq!(schedule.first(), Some(Mono(7)));
    }
}
