//! What a rollout of a scenario asks of the planner.

use std::time::Duration;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::gates::{self, GateConfig, GateKind};
use opamp_fleet::rollout::plan::{Domains, PlanRequest, Size, Step, Strategy, Target};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::windows::{Calendar, Freeze};
use opamp_fleet::rollout::{EngineSettings, Fit, GroupIx, Limits, Retries, RolloutId, Time};
use opamp_fleet::{ConfigMap, Selector};

use super::{RolloutSpec, Shape};
use crate::sim::world::BEGINS;

impl RolloutSpec {
    /// The rollout's name.
    pub fn id(&self) -> RolloutId {
        let mut random = [0x51; 10];
        random[6..].copy_from_slice(&self.number.to_be_bytes());
        RolloutId::v7(1_700_000_000_000 + u64::from(self.number), random)
    }

    /// Which agents: all whose ring is not `out`.
    pub fn selector() -> Selector {
        "ring!=out".parse().unwrap_or_default()
    }

    /// What is asked for. `faults` breaks planning on purpose.
    pub fn request<'a>(
        &self,
        config: &'a ConfigMap,
        selector: &'a Selector,
        faults: Faults,
    ) -> PlanRequest<'a> {
        let settings = EngineSettings {
            bake: seconds(self.bake_s),
            in_flight_max: self.in_flight_max,
            joiners: self.joiners,
            leavers: self.leavers,
            unverified: self.unverified,
            approval: self.approval,
            auto_resume: self.auto_resume,
            auto_start: false,
            // Only steps of a canary have dwells of their own.
            fit: if matches!(self.shape, Shape::Canary { .. }) { Fit::Refuse } else { Fit::Stretch },
            retries: Retries { failed: self.retries, ..Retries::default() },
            limits: Limits {
                touched_max: self.touched_max,
                per_minute: self.per_minute,
                ..Limits::default()
            },
            ..EngineSettings::default()
        };
        PlanRequest {
            title: format!("rollout {}", self.number).into(),
            group: Some(GroupIx(0)),
            strategy: self.strategy(),
            domains: (self.zone_max < u32::MAX).then(|| Domains {
                key: "zone".into(),
                in_flight_max: self.zone_max,
                anti_affinity: None,
            }),
            control_group: self.control_group,
            gates: self.gates().into(),
            settings,
            override_reason: Some("a simulated fleet".into()),
            calendar: self.calendar(),
            author: "operator".into(),
            conflict: self.conflict,
            faults,
            ..PlanRequest::new(self.id(), Target::new(config), selector)
        }
    }

    fn calendar(&self) -> Calendar {
        let freeze = self.frozen().map(|(from, until)| Freeze {
            from,
            until,
            reason: "nobody works".into(),
            override_: None,
        });
        Calendar { freezes: freeze.into_iter().collect(), ..Calendar::default() }
    }

    /// From when until when nothing new may be offered.
    pub fn frozen(&self) -> Option<(Time, Time)> {
        let at = |after: u32| Time::from(BEGINS) + seconds(after);
        self.frozen_s.map(|(from, until)| (at(from), at(until)))
    }

    fn strategy(&self) -> Strategy {
        match &self.shape {
            Shape::AllAtOnce => Strategy::AllAtOnce,
            Shape::Batches { size } => Strategy::Batches { size: *size },
            Shape::Canary { first } => {
                let step = |until, dwell_s| Step { until, dwell: seconds(dwell_s), approval: false };
                let second = step(Size::Percent(Ppm::percent(25)), self.dwell_later_s);
                let steps = [
                    step(Size::Count(*first), self.dwell_s),
                    Step { approval: self.wave_approval, ..second },
                    step(Size::Percent(Ppm::percent(50)), self.dwell_later_s),
                    step(Size::Percent(Ppm::ALL), self.dwell_later_s),
                ];
                Strategy::Canary { steps: steps.into() }
            }
            Shape::Exponential { first } => Strategy::Exponential { first: *first, factor: 2 },
            Shape::Manual { size } => Strategy::Manual { size: *size },
            Shape::Percentages { parts } => {
                Strategy::Percentages(parts.iter().map(|percent| Ppm::percent(*percent)).collect())
            }
            Shape::Rings => {
                Strategy::LabelRings { key: "ring".into(), rings: ["inner".into(), "early".into()].into() }
            }
            Shape::Zones => Strategy::ZoneByZone { key: "zone".into() },
        }
    }

    /// The default gates with the window of this rollout, and perhaps a provider of verdicts.
    fn gates(&self) -> Vec<GateConfig> {
        let window = seconds(self.window_s);
        let counting = gates::defaults().into_iter().map(|gate| GateConfig { window, ..gate });
        let probe = GateConfig { name: "probe".into(), ..GateConfig::of(GateKind::External) };
        counting.chain(self.external.then_some(probe)).collect()
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::Scenario;

    #[test]
    fn the_selector_asks_for_something_and_names_differ() {
        assert!(!RolloutSpec::selector().is_everything());
        let mut spec = Scenario::drawn(1).rollouts.swap_remove(0);
        let first = spec.id();
        spec.number += 1;
        assert_ne!(spec.id(), first);
    }
}
