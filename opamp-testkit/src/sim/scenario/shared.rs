//! What the rollouts of a scenario share.

use opamp_fleet::coordinator::{BreakerSettings, Budget, CoordinatorSettings, Domain, QuarantineSettings};
use opamp_fleet::rollout::Limits;
use opamp_fleet::rollout::stats::Ppm;
use serde::{Deserialize, Serialize};

/// Bounds over all rollouts of a scenario; those that are left out limit nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedSpec {
    /// Most agents that are disturbed at a time, whoever disturbs them.
    pub at_once: u32,
    /// Most offers in a minute, of all rollouts together.
    pub per_minute: u32,
    /// Most offers of one rollout in an hour.
    pub per_hour: u32,
    /// Most members of one rollout in flight.
    pub in_flight_max: u32,
    /// Most members that one rollout touches.
    pub touched_max: u32,
    /// The largest part of the fleet in flight, in percent.
    pub fleet_percent: u32,
    /// So many failures of an agent quarantine it.
    pub quarantine_after: u32,
    /// So many failures within ten minutes open the breaker.
    pub breaker_after: u32,
    /// Whether what a rollout brought to the fleet is what all of it should have from then on: newcomers, and who is put in.
    pub steady: bool,
}

impl Default for SharedSpec {
    fn default() -> Self {
        Self {
            at_once: u32::MAX,
            per_minute: u32::MAX,
            per_hour: u32::MAX,
            in_flight_max: u32::MAX,
            touched_max: u32::MAX,
            fleet_percent: 100,
            quarantine_after: QuarantineSettings::default().failures,
            breaker_after: u32::MAX,
            steady: false,
        }
    }
}

impl SharedSpec {
    /// Whether it is as if nothing had been said.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What a coordinator is made with.
    pub fn settings(&self) -> CoordinatorSettings {
        let budget = Budget { at_once: self.at_once, percent: Ppm::ALL };
        let unlimited = Limits::default();
        CoordinatorSettings {
            hard: Limits {
                touched_max: self.touched_max,
                per_hour: self.per_hour,
                in_flight_max: self.in_flight_max.min(unlimited.in_flight_max),
                fleet_percent_in_flight: self.part_in_flight(),
                ..unlimited
            },
            disruption: if self.at_once < u32::MAX { vec![(Domain::Fleet, budget)] } else { Vec::new() },
            global_per_minute: self.per_minute,
            breaker: self.breaker(),
            quarantine: self.quarantine(),
            ..CoordinatorSettings::default()
        }
    }

    /// When the breaker opens. A single rollout can open it here, where there are few.
    pub fn breaker(&self) -> BreakerSettings {
        BreakerSettings { failures: self.breaker_after, rollouts_min: 1, ..BreakerSettings::default() }
    }

    /// When an agent is quarantined.
    pub fn quarantine(&self) -> QuarantineSettings {
        QuarantineSettings { failures: self.quarantine_after, ..QuarantineSettings::default() }
    }

    /// Most agents of a fleet of this size that may be in flight.
    pub fn most_in_flight(&self, fleet: u32) -> u32 {
        match self.part_in_flight() {
            Ppm::ALL => self.in_flight_max,
            part => self.in_flight_max.min(part.of(fleet).max(1)),
        }
    }

    fn part_in_flight(&self) -> Ppm {
        if self.fleet_percent >= 100 { Ppm::ALL } else { Ppm::percent(self.fleet_percent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_limits_nothing() {
        let (settings, usual) = (SharedSpec::default().settings(), CoordinatorSettings::default());
        assert_eq!((&settings.hard, &settings.disruption), (&usual.hard, &usual.disruption));
        assert_eq!((settings.global_per_minute, settings.quarantine), (u32::MAX, usual.quarantine));
        assert_eq!(SharedSpec::default().most_in_flight(40), u32::MAX);
    }

    #[test]
    fn a_part_of_a_small_fleet_is_at_least_one_agent() {
        let spec = SharedSpec { fleet_percent: 10, ..SharedSpec::default() };
        assert_eq!((spec.most_in_flight(4), spec.most_in_flight(40)), (1, 4));
    }
}
