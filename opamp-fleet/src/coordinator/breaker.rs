//! The breaker: failures over several rollouts stop all offers (R55).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::rollout::{RolloutId, Time};

/// When the breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many members that ended badly open it. Default 20. More than 65,536 are as many.
    pub failures: u32,
    /// … within this time. Default 10 min.
    pub within: Duration,
    /// … in at least so many rollouts. Default 2.
    pub rollouts_min: u32,
    /// How long it stays open. Default 30 min.
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 20,
            within: Duration::from_secs(600),
            rollouts_min: 2,
            open_for: Duration::from_secs(1_800),
        }
    }
}

/// The breaker, and the failures that may open it: one rollout's alone are that rollout's gates' business.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    open_until: Option<Time>,
    /// The oldest first.
    recent: VecDeque<(Time, RolloutId)>,
    by_rollout: BTreeMap<RolloutId, u32>,
}

impl Breaker {
    /// Most failures that are remembered; the oldest are dropped.
    pub(super) const RECENT_MAX: usize = 65_536;

    pub(super) fn new(settings: BreakerSettings, open_until: Option<Time>) -> Self {
        Self { settings, open_until, recent: VecDeque::new(), by_rollout: BTreeMap::new() }
    }

    /// Until when it is open, if it is.
    pub(super) fn open_until(&self, now: Time) -> Option<Time> {
        self.open_until.filter(|until| *until > now)
    }

    /// When it closes, as it was last told, even if that has passed.
    pub(super) fn closes_at(&self) -> Option<Time> {
        self.open_until
    }

    /// A member of the rollout has ended badly. Until when it is open, if that has opened it.
    pub(super) fn failed(&mut self, rollout: RolloutId, now: Time) -> Option<Time> {
        while self.recent.front().is_some_and(|(at, _)| now.since(*at) > self.settings.within)
            || self.recent.len() >= Self::RECENT_MAX
        {
            self.forget_oldest();
        }
        self.recent.push_back((now, rollout));
        *self.by_rollout.entry(rollout).or_default() += 1;
        let opens = self.open_until(now).is_none()
            && self.recent.len() >= (self.settings.failures as usize).min(Self::RECENT_MAX)
            && self.by_rollout.len() >= self.settings.rollouts_min as usize;
        if !opens {
            return None;
        }
        self.open_until = Some(now + self.settings.open_for);
        // What has opened it does not open it once more when it closes.
        self.recent.clear();
        self.by_rollout.clear();
        self.open_until
    }

    /// It closes if its time is over.
    pub(super) fn tick(&mut self, now: Time) {
        self.open_until = self.open_until(now);
    }

    /// Somebody closes it. Whether it was open.
    pub(super) fn close(&mut self) -> bool {
        self.open_until.take().is_some()
    }

    fn forget_oldest(&mut self) {
        let Some((_, rollout)) = self.recent.pop_front() else { return };
        if let Some(count) = self.by_rollout.get_mut(&rollout) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_rollout.remove(&rollout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        within: Duration::from_secs(10),
        rollouts_min: 2,
        open_for: Duration::from_secs(60),
    };

    fn rollout(number: u8) -> RolloutId {
        RolloutId::from_bytes([number; 16])
    }

    #[test]
    fn failures_of_several_rollouts_open_it_and_those_of_one_do_not() {
        let mut breaker = Breaker::new(SETTINGS, None);
        for at in 0..20 {
            assert_eq!(breaker.failed(rollout(1), Time(at)), None);
        }
        assert_eq!(breaker.failed(rollout(2), Time(20)), Some(Time(60_020)));
        assert_eq!(breaker.open_until(Time(60_019)), Some(Time(60_020)));
        assert_eq!(breaker.open_until(Time(60_020)), None);
    }

    #[test]
    fn more_failures_than_are_remembered_are_as_many_as_are() {
        let mut breaker = Breaker::new(BreakerSettings { failures: u32::MAX, ..SETTINGS }, None);
        let opened = (0..100_000_u32).find(|at| breaker.failed(rollout((at % 2) as u8), Time(1)).is_some());
        assert_eq!(opened, Some(65_535));
    }

    #[test]
    fn old_failures_do_not_count() {
        let mut breaker = Breaker::new(SETTINGS, None);
        breaker.failed(rollout(1), Time(0));
        breaker.failed(rollout(2), Time(0));
        assert_eq!(breaker.failed(rollout(1), Time(10_001)), None);
        assert_eq!(breaker.failed(rollout(2), Time(10_001)), None);
        assert!(breaker.failed(rollout(1), Time(10_002)).is_some());
    }

    #[test]
    fn once_closed_it_takes_new_failures_to_open_it() {
        let mut breaker = Breaker::new(SETTINGS, Some(Time(100)));
        assert_eq!(breaker.open_until(Time(99)), Some(Time(100)), "as the store had it");
        breaker.tick(Time(100));
        assert_eq!(breaker.closes_at(), None);
        for number in [1, 2] {
            assert_eq!(breaker.failed(rollout(number), Time(200)), None);
        }
        assert!(breaker.failed(rollout(1), Time(200)).is_some());
        assert!(breaker.close() && !breaker.close());
        assert_eq!(breaker.failed(rollout(2), Time(201)), None);
    }
}
