//! Rollouts that benchmarks run: model fleets of agents, and what an engine was told in one of them.

use std::env;
use std::time::Duration;

use opamp_fleet::coordinator::Coordinator;
use opamp_fleet::rollout::plan::PlanRequest;
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{Engine, Time};
use opamp_testkit::sim::model::fleet::FleetModel;
use opamp_testkit::sim::model::planned::{Planned, Subject};
use opamp_testkit::sim::model::{Model, Operator, RunEnd, Script};
use opamp_testkit::sim::profiles::{Mix, Profile, Share, Span};

/// Longer than any of the rollouts, in virtual time.
pub const LENGTH: Duration = Duration::from_secs(30 * 24 * 3_600);

/// These sizes of fleets, or only the first one where nothing is measured: tests run each benchmark once.
#[must_use]
pub fn sizes(all: &[u32]) -> &[u32] {
    let is_measured = env::args().any(|word| word == "--bench");
    &all[..if is_measured { all.len() } else { all.len().min(1) }]
}

/// How the agents behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// One in 200 reports FAILED, and fails again when it is tried again.
    Noisy,
    /// Nobody fails.
    Well,
}

/// A fleet with the plan of a rollout over all of it.
#[derive(Debug)]
pub struct Prepared {
    fleet: FleetModel,
    planned: Planned,
}

impl Prepared {
    /// The default canary over so many agents.
    #[must_use]
    pub fn new(agents: u32, behaviour: Fleet) -> Self {
        let profile = match behaviour {
            Fleet::Noisy => Profile::Fails { rate: Ppm(5_000) },
            Fleet::Well => Profile::Well,
        };
        let share = Share { profile, share: Ppm::ALL, apply: Span::between(2, 20), fails_after: None };
        let made = Mix::new(vec![share]).ok().and_then(|mix| {
            let fleet = FleetModel::plain(1, agents, mix);
            let subject = Subject::new(1, "target").ok()?;
            let request = PlanRequest { title: "measured".into(), ..subject.request() };
            let planned = Planned::make(&fleet, request).ok()?;
            Some(Self { fleet, planned })
        });
        made.unwrap_or_else(|| unreachable!("this fleet has a plan"))
    }

    /// A rollout of it, in draft.
    #[must_use]
    pub fn model(&self) -> Model<'_> {
        let Planned { plan, members } = self.planned.clone();
        Model::new(&self.fleet, plan, members, Operator::default())
    }

    /// The engine of such a rollout, with what it shares.
    #[must_use]
    pub fn engine(&self) -> (Engine, Coordinator, Time) {
        self.model().into_engine()
    }

    /// Everything the engine is told until the rollout has ended.
    #[must_use]
    pub fn script(&self) -> Script {
        let mut model = self.model();
        model.write_script();
        match (model.run(LENGTH), model.script()) {
            (RunEnd::Ended, Some(script)) => script.clone(),
            _ => unreachable!("a fleet that is well, or nearly, comes to an end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::RolloutState;

    use super::*;

    #[test]
    fn the_rollouts_that_are_measured_succeed() {
        for (behaviour, agents) in [(Fleet::Well, 100), (Fleet::Noisy, 1_000)] {
            let prepared = Prepared::new(agents, behaviour);
            let script = prepared.script();
            assert!(script.len() > 4 * agents as usize, "{behaviour:?}: {}", script.len());
            let (mut engine, mut shared, _) = prepared.engine();
            script.play(0, &mut engine, &mut shared);
            let summary = engine.summary(Time(0));
            assert_eq!(engine.state(), RolloutState::Succeeded, "{behaviour:?}: {summary:?}");
            assert_eq!(summary.failed > 0, behaviour == Fleet::Noisy, "{summary:?}");
        }
    }
}
