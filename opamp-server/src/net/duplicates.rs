//! Telling an agent that came back from a second one under the same `instance_uid` (R-ID-14 to R-ID-17).

use std::net::IpAddr;
use std::sync::Arc;

use opamp_proto::{InstanceUid, SequenceNum};

use super::connection::Connection;
use super::core::Core;

/// Returns to a sequence that was left, after which it is not one agent that restarted but two that take turns.
const RETURNS: u8 = 2;
/// Messages in a row after which earlier returns count no more.
const CALM: u8 = 8;

/// Numbers in a row, each of which came twice, after which it is not one agent that repeats itself but two that count alike.
/// Many, since a path that loses one answer after another makes an agent look the same.
const PAIRS: u8 = 30;

/// A newcomer under the identity of an agent whose socket is still open: that socket has to show whether it lives.
#[derive(Debug)]
pub(crate) struct Contest {
    pub(crate) uid: InstanceUid,
    pub(crate) incumbent: Arc<Connection>,
}

/// What became of a [`Contest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) uid: InstanceUid,
    /// The connection that was asked. About another one it says nothing.
    pub(crate) incumbent: u64,
    pub(crate) alive: bool,
}

impl Contest {
    /// Pings the incumbent and waits for any frame of it; silence for the whole time, or the end of the connection, means that
    /// nobody is there any more. None if the server drains meanwhile.
    pub(crate) async fn decide(&self, core: &Core) -> Option<Verdict> {
        let timeout = core.settings.duplicates.ping_timeout;
        let alive = tokio::select! {
            biased;
            () = core.draining.cancelled() => return None,
            alive = self.incumbent.is_alive(timeout) => alive,
        };
        Some(Verdict { uid: self.uid, incumbent: self.incumbent.id(), alive })
    }
}

/// Sequence numbers under one identity that polls: one run of them, or two that alternate.
///
/// ```text
/// one agent, restarted          5 6 7 | 1 2 3 4        the first run never goes on
/// two agents                    5 1 6 2 7              after 1 comes 6: back to the first run; then 2: back to the second
/// two agents that count alike   5 5 6 6 7 7 8 8 ...    one that repeats a message now and then is soon beyond that
/// ```
#[derive(Debug, Default)]
pub(crate) struct Polled {
    runs: [Option<Run>; 2],
    active: usize,
    began: u32,
    returns: u8,
    calm: u8,
    /// Numbers in a row that came twice, and whether the last one did.
    pairs: u8,
    paired: bool,
    /// The identity the newcomer was told to take over, and where it asked from.
    told: Option<(Option<IpAddr>, InstanceUid)>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    last: SequenceNum,
    began: u32,
}

impl Polled {
    /// Takes the number of a message in; says whether it is of the younger of two agents.
    pub(crate) fn is_second(&mut self, number: SequenceNum) -> bool {
        let other = 1 - self.active;
        let of = |run: Option<Run>| run.is_some_and(|run| number == run.last || number.follows(run.last));
        if self.is_paired(number) {
            return true;
        }
        if of(self.runs[self.active]) {
            self.calm = self.calm.saturating_add(1);
            if self.calm >= CALM {
                self.returns = 0;
            }
        } else if of(self.runs[other]) {
            self.returns = self.returns.saturating_add(1);
            self.calm = 0;
            self.active = other;
        } else {
            self.began += 1;
            self.runs[other] = Some(Run { last: number, began: self.began });
            self.active = other;
            (self.returns, self.calm) = (0, 0);
            return false;
        }
        if let Some(run) = &mut self.runs[self.active] {
            run.last = number;
        }
        let began = |index: usize| self.runs[index].map_or(0, |run| run.began);
        self.returns >= RETURNS && began(self.active) > began(1 - self.active)
    }

    /// Whether this number comes a second time, as those before it did.
    fn is_paired(&mut self, number: SequenceNum) -> bool {
        let last = self.runs[self.active].map(|run| run.last);
        if last == Some(number) {
            self.pairs = self.pairs.saturating_add(u8::from(!self.paired));
            self.paired = true;
            return self.pairs >= PAIRS;
        }
        let goes_on = self.paired && last.is_some_and(|last| number.follows(last));
        self.pairs = if goes_on { self.pairs } else { 0 };
        self.paired = false;
        false
    }

    /// The identity that a newcomer from there was told.
    pub(crate) fn told(&self, from: Option<IpAddr>) -> Option<InstanceUid> {
        self.told.filter(|(address, _)| *address == from).map(|(_, uid)| uid)
    }

    pub(crate) fn tell(&mut self, from: Option<IpAddr>, uid: InstanceUid) {
        self.told = Some((from, uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(numbers: &[u64]) -> Vec<bool> {
        let mut polled = Polled::default();
        numbers.iter().map(|number| polled.is_second(SequenceNum(*number))).collect()
    }

    #[test]
    fn two_agents_that_take_turns_are_noticed_and_the_later_one_is_told() {
        assert_eq!(seconds(&[5, 100, 6, 101, 7, 102]), [false, false, false, true, false, true]);
    }

    #[test]
    fn two_agents_of_different_pace_are_noticed_too() {
        let told = seconds(&[5, 100, 101, 102, 6, 103, 104, 7, 105]);
        assert_eq!(told, [false, false, false, false, false, true, true, false, true]);
    }

    #[test]
    fn an_agent_that_restarts_loses_an_answer_or_repeats_a_message_is_one_agent() {
        assert!(!seconds(&[5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]).contains(&true));
        assert!(!seconds(&[5, 5, 6, 6, 7, 9, 9, 10, 12, 13]).contains(&true));
        assert!(!seconds(&[0, 0, 0, 0]).contains(&true), "it does not count");
    }

    #[test]
    fn two_agents_that_count_alike_are_noticed_and_one_that_repeats_itself_is_not() {
        let pairs = u64::from(PAIRS);
        let alike: Vec<u64> = (0..pairs + 4).flat_map(|number| [number, number]).collect();
        let told = seconds(&alike);
        let first = 2 * usize::from(PAIRS) - 1;
        assert!(!told[..first].contains(&true), "the second of the last pair is the first proof");
        assert_eq!(told[first..].iter().filter(|told| **told).count(), 5, "and of each pair from there on");
        let mut clumsy: Vec<u64> = (0..pairs - 1).flat_map(|number| [number, number]).collect();
        clumsy.extend([pairs - 1, pairs, pairs, pairs + 1]);
        clumsy.extend([pairs + 1; 100]);
        assert!(!seconds(&clumsy).contains(&true));
    }

    proptest! {
        /// One agent at a time, however often it restarts or loses messages, is never told.
        #[test]
        fn one_agent_is_never_taken_for_two(runs in proptest::collection::vec((1_000u64..1 << 40, 1usize..20), 1..20)) {
            let mut polled = Polled::default();
            for (start, length) in runs {
                for number in start..start + length as u64 {
                    prop_assert!(!polled.is_second(SequenceNum(number)));
                }
            }
        }

        /// Two agents, neither of which restarts, are always noticed once both have taken turns.
        #[test]
        fn two_agents_are_always_noticed(turns in proptest::collection::vec(any::<bool>(), 8..40)) {
            let mut polled = Polled::default();
            let mut numbers = [1_000u64, 1 << 32];
            let mut switches = 0;
            let mut before = None;
            let mut told = 0;
            for turn in turns {
                let number = &mut numbers[usize::from(turn)];
                *number += 1;
                told += u32::from(polled.is_second(SequenceNum(*number)));
                switches += u32::from(before.is_some_and(|before| before != turn));
                before = Some(turn);
            }
            prop_assert!(told > 0 || switches < 12, "{switches} turns and nobody was told");
        }
    }
}
