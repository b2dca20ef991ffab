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
    /// nobody is there any more. A drain changes nothing in that: sockets are served until their turn has come.
    pub(crate) async fn decide(&self, core: &Core) -> Verdict {
        let alive = self.incumbent.is_alive(core.settings.duplicates.ping_timeout).await;
        Verdict { uid: self.uid, incumbent: self.incumbent.id(), alive }
    }

    /// The same for a sender that need not be served to the end: none if the server drains meanwhile.
    pub(crate) async fn decide_unless_draining(&self, core: &Core) -> Option<Verdict> {
        tokio::select! {
            biased;
            () = core.draining.cancelled() => None,
            verdict = self.decide(core) => Some(verdict),
        }
    }
}

/// Sequence numbers under one identity that polls: one run of them, or two that alternate.
///
/// ```text
/// one agent, restarted          5 6 7 | 1 2 3 4        the first run never goes on
/// two agents                    5 1 6 2 7              after 1 comes 6: back to the first run; then 2: back to the second
/// ```
#[derive(Debug, Default)]
pub(crate) struct Polled {
    runs: [Option<Run>; 2],
    active: usize,
    began: u32,
    returns: u8,
    calm: u8,
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
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::presented::Presented;
    use crate::snapshot::{Principal, Transport};
    use proptest::prelude::*;

    #[tokio::test(start_paused = true)]
    async fn while_the_server_drains_messages_on_sockets_still_get_their_verdict_and_polls_do_not_wait_for_it()
     {
        let core = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).build().0.0;
        core.draining.cancel();
        let now = core.now();
        let info = core.next_connection(Transport::WebSocket, Principal::anonymous(), None, now);
        let incumbent = Arc::new(Connection::new(info, Presented::default(), now.mono));
        let contest = Contest { uid: InstanceUid::from_bytes([1; 16]), incumbent: Arc::clone(&incumbent) };
        assert_eq!(contest.decide_unless_draining(&core).await, None);
        let verdict = |alive| Verdict { uid: contest.uid, incumbent: incumbent.id(), alive };
        assert_eq!(contest.decide(&core).await, verdict(false), "silent for the whole time");
        let answers = async {
            incumbent.ordered().await;
            incumbent.frame_arrived(now.mono);
        };
        let (decided, ()) = tokio::join!(contest.decide(&core), answers);
        assert_eq!(decided, verdict(true));
    }

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
