//! One group's assignments: who waits, how many at a time, and when to stop.

use std::collections::BTreeSet;

use opamp_proto::{AgentId, Fingerprint};

use crate::rollout::{RolloutId, Time};

/// The steady state of one slot of a group, and the agents that are on their way to it.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) config: Fingerprint,
    /// Whose success made it so: assignments go under its name.
    pub(super) rollout: RolloutId,
    /// Connected agents that should have it and were not assigned yet.
    pub(super) queue: BTreeSet<AgentId>,
    pub(super) in_flight: u32,
    /// How many may be in flight: one at first, one more with each success.
    pub(super) window: u32,
    /// Rises with failures, falls with successes.
    score: u32,
    /// Nobody is assigned until somebody lets it go on.
    pub(super) held: bool,
    /// Nobody is assigned until it is known what this rollout, which has succeeded, made of the group.
    pub(super) awaits: Option<RolloutId>,
    pub(super) retry_at: Option<Time>,
    /// Up to here the queue was looked at in vain: the next look begins behind it.
    pub(super) passed_over: Option<AgentId>,
}

impl Group {
    /// One failure outweighs so many successes: of agents that fail at a rate of 2 % hardly any sequence stops a group, of
    /// those that fail at 20 % nearly each does.
    const WEIGHT: u32 = 11;
    /// Three failures in a row stop it.
    const LIMIT: u32 = 3 * Self::WEIGHT;

    pub(super) fn new(config: Fingerprint, rollout: RolloutId) -> Self {
        Self {
            config,
            rollout,
            queue: BTreeSet::new(),
            in_flight: 0,
            window: 1,
            score: 0,
            held: false,
            awaits: None,
            retry_at: None,
            passed_over: None,
        }
    }

    /// Another configuration from now on: slowly again, and nothing held against it.
    pub(super) fn desire(&mut self, config: Fingerprint, rollout: RolloutId) {
        (self.config, self.rollout, self.awaits) = (config, rollout, None);
        self.go_on();
    }

    /// Begins anew after failures.
    pub(super) fn go_on(&mut self) {
        (self.window, self.score, self.held, self.retry_at) = (1, 0, false, None);
    }

    /// Whether somebody may be assigned now.
    pub(super) fn has_room(&self) -> bool {
        !self.held && self.awaits.is_none() && self.in_flight < self.window
    }

    /// An assignment went well.
    pub(super) fn succeeded(&mut self, in_flight_max: u32) {
        self.score = self.score.saturating_sub(1);
        self.window = self.window.saturating_add(1).min(in_flight_max.max(1));
    }

    /// An assignment went badly. Whether that stops the group.
    pub(super) fn failed(&mut self) -> bool {
        self.score += Self::WEIGHT;
        let stops = !self.held && self.score >= Self::LIMIT;
        self.held |= stops;
        stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        Group::new(Fingerprint::from_bytes([1; 16]), RolloutId::from_bytes([2; 16]))
    }

    #[test]
    fn three_failures_in_a_row_stop_it_and_rare_ones_do_not() {
        let mut bad = group();
        assert_eq!([bad.failed(), bad.failed(), bad.failed(), bad.failed()], [false, false, true, false]);
        assert!(bad.held && !bad.has_room());
        bad.go_on();
        assert!(bad.has_room() && !bad.failed());
        let mut rare = group();
        for _ in 0..100 {
            assert!(!rare.failed());
            (0..11).for_each(|_| rare.succeeded(10));
        }
    }

    #[test]
    fn it_begins_with_one_and_grows_with_each_success_up_to_its_cap() {
        let mut group = group();
        let windows = [(); 4].map(|()| {
            group.succeeded(3);
            group.window
        });
        assert_eq!(windows, [2, 3, 3, 3]);
        group.desire(Fingerprint::from_bytes([3; 16]), RolloutId::from_bytes([4; 16]));
        assert_eq!(group.window, 1);
    }
}
