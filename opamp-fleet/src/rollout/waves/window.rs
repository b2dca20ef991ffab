//! Slow start: how many members of a wave may be in flight.
//!
//! The window begins at 1 and grows by 1 with each member that settled well, so that it doubles in each round when all is
//! well, and a configuration that fails everywhere touches one agent after the other. A failure never makes it grow.
//! Members that can say nothing make it grow as well, or a fleet of them would never be through. Who was well and is not any
//! more takes back what it gave, so that no member makes it grow twice. A stretched wave takes one member at a time.

use super::Wave;
use crate::rollout::engine::State;
use crate::rollout::plan::Plan;
use crate::rollout::{MemberState, WaveIx};

/// Most members of the wave in flight, however far the window has grown.
pub(super) fn cap(plan: &Plan, state: &State, wave: WaveIx) -> u32 {
    let planned = plan.waves.get(wave.index()).map_or(u32::MAX, |wave| wave.cap);
    planned.min(plan.settings.in_flight_max).min(state.limits.in_flight_max).max(1)
}

/// The window after a member's state has changed.
pub(super) fn after(wave: &Wave, cap: u32, before: MemberState, after: MemberState) -> u32 {
    if is_well(before) && !is_well(after) {
        return wave.window.saturating_sub(1).max(1);
    }
    let counts = before.in_flight() && is_well(after) && wave.lent == 0;
    if counts { wave.window.saturating_add(1).min(cap.max(wave.window)) } else { wave.window }
}

const fn is_well(state: MemberState) -> bool {
    matches!(state, MemberState::Verified | MemberState::Unverified)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rollout::Time;

    #[test]
    fn the_window_doubles_in_each_round_that_goes_well_up_to_the_cap() {
        let mut wave = Wave::new(0, 100, Duration::ZERO, 0, Time(0));
        let mut rounds = Vec::new();
        for _ in 0..5 {
            rounds.push(wave.window);
            for _ in 0..wave.window {
                wave.window = after(&wave, 12, MemberState::Applied, MemberState::Verified);
            }
        }
        assert_eq!(rounds, [1, 2, 4, 8, 12]);
    }

    #[test]
    fn failures_neutral_ends_and_lent_members_do_not_make_it_grow() {
        let mut wave = Wave::new(0, 100, Duration::ZERO, 0, Time(0));
        for to in [MemberState::Failed, MemberState::TimedOut, MemberState::Deferred, MemberState::Removed] {
            assert_eq!(after(&wave, 12, MemberState::Delivered, to), 1);
        }
        assert_eq!(after(&wave, 12, MemberState::Queued, MemberState::Verified), 1, "it was never offered");
        assert_eq!(after(&wave, 12, MemberState::Delivered, MemberState::Unverified), 2);
        wave.lent = 1;
        assert_eq!(after(&wave, 12, MemberState::Applied, MemberState::Verified), 1);
    }

    #[test]
    fn who_goes_back_and_comes_to_be_well_again_makes_it_grow_once() {
        let mut wave = Wave::new(0, 100, Duration::ZERO, 0, Time(0));
        for (from, to) in [
            (MemberState::Applied, MemberState::Verified),
            (MemberState::Verified, MemberState::SelfRolledBack),
            (MemberState::SelfRolledBack, MemberState::Applied),
            (MemberState::Applied, MemberState::Verified),
        ] {
            wave.window = after(&wave, 12, from, to);
        }
        assert_eq!(wave.window, 2);
        assert_eq!(after(&wave, 12, MemberState::Verified, MemberState::Unverified), 2);
    }
}
