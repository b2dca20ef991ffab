//! How long the fleet takes to come back after a restart of the server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use opamp_proto::Mono;

use super::stats::{FLEET_RETURN_PERCENT, FleetReturn};
use crate::snapshot::{DisconnectReason, Seed};

/// Counts the agents that an earlier process served as they come back. Looked at once for each, never by a message.
#[derive(Debug)]
pub(crate) struct Returning {
    started: Mono,
    state: Mutex<FleetReturn>,
}

impl Returning {
    pub(crate) fn new(started: Mono) -> Self {
        Self { started, state: Mutex::default() }
    }

    /// Whether the agent of this seed is expected back: it was there, and it did not leave before the server did. If so, one
    /// more is expected.
    pub(crate) fn expects(&self, seed: &Seed) -> bool {
        let was_there = seed.sequence_num.is_some() || seed.principal.is_some();
        let left_before =
            seed.disconnect.is_some_and(|(reason, _)| reason != DisconnectReason::ServerShutdown);
        let expected = was_there && !left_before;
        if expected {
            self.lock().expected += 1;
        }
        expected
    }

    /// One that is expected came back.
    pub(crate) fn returned(&self, now: Mono) {
        let mut state = self.lock();
        state.returned += 1;
        self.reached(&mut state, now);
    }

    /// One that is expected was forgotten: nobody waits for it any more.
    pub(crate) fn given_up(&self, now: Mono) {
        let mut state = self.lock();
        state.expected = state.expected.saturating_sub(1);
        self.reached(&mut state, now);
    }

    pub(crate) fn read(&self) -> FleetReturn {
        *self.lock()
    }

    fn reached(&self, state: &mut FleetReturn, now: Mono) {
        let FleetReturn { expected, returned, seconds } = state;
        for (percent, reached) in FLEET_RETURN_PERCENT.iter().zip(seconds) {
            if *returned > 0 && *returned * 100 >= *expected * u64::from(*percent) {
                reached.get_or_insert((now - self.started).as_secs_f64());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FleetReturn> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::{InstanceUid, SequenceNum, Wall};

    use super::*;

    fn seed(sequence_num: Option<u64>, disconnect: Option<DisconnectReason>) -> Seed {
        Seed {
            sequence_num: sequence_num.map(SequenceNum),
            disconnect: disconnect.map(|reason| (reason, Wall(1))),
            ..Seed::new(InstanceUid::from_bytes([1; 16]))
        }
    }

    #[test]
    fn the_shares_of_the_fleet_are_timed_as_they_return() {
        let returning = Returning::new(Mono(1_000));
        assert!((0..200).all(|_| returning.expects(&seed(Some(1), None))));
        for at in 1..=200u64 {
            returning.returned(Mono(1_000 + at * 100));
        }
        let read = returning.read();
        assert_eq!((read.expected, read.returned), (200, 200));
        assert_eq!(read.seconds, [Some(10.0), Some(18.0), Some(19.8), Some(20.0)]);
    }

    #[test]
    fn expected_is_who_was_there_when_the_server_went() {
        let returning = Returning::new(Mono(0));
        assert!(returning.expects(&seed(Some(1), Some(DisconnectReason::ServerShutdown))));
        assert!(!returning.expects(&seed(Some(1), Some(DisconnectReason::Graceful))));
        assert!(!returning.expects(&seed(Some(1), Some(DisconnectReason::Timeout))));
        assert!(!returning.expects(&seed(None, None)), "it was never there");
        assert_eq!(returning.read().expected, 1);
    }

    #[test]
    fn an_agent_that_is_forgotten_is_waited_for_no_longer() {
        let returning = Returning::new(Mono(0));
        (0..10).for_each(|_| assert!(returning.expects(&seed(Some(1), None))));
        (0..9).for_each(|_| returning.returned(Mono(5_000)));
        assert_eq!(returning.read().seconds, [Some(5.0), Some(5.0), None, None]);
        returning.given_up(Mono(60_000));
        assert_eq!(returning.read().seconds, [Some(5.0), Some(5.0), Some(60.0), Some(60.0)]);
    }

    #[test]
    fn a_server_that_restored_nobody_waits_for_nobody() {
        let returning = Returning::new(Mono(0));
        assert_eq!(returning.read(), FleetReturn::default());
    }
}
