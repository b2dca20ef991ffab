//! Named strategies, and the default that a group enforces (R19).

use std::time::Duration;

use super::strategy::{Cut, by_count};
use super::{Plan, PlannedMembers, Strategy, WavePlan};
use crate::rollout::PlanError;
use crate::rollout::gates::{GateConfig, Undecided};
use crate::rollout::stats::Ppm;

/// How careful rollouts are, by name. As a group's default it is the least that each rollout of the group has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What it is called.
    pub name: Box<str>,
    /// In which waves.
    pub strategy: Strategy,
    /// What stops a rollout. Of gates that only observe nothing is asked.
    pub gates: Box<[GateConfig]>,
    /// The shortest bake.
    pub bake: Duration,
    /// Whether a rollout with a reason may be less careful.
    pub waivable: bool,
}

impl Template {
    /// The templates that are always there, with these gates: the default canary, parts of 5, 25, 50 and 100 %, batches of
    /// five, and waves that double.
    pub fn built_in(gates: &[GateConfig]) -> Vec<Self> {
        let percents = [5, 25, 50, 100].map(Ppm::percent);
        let strategies = [
            ("canary", Strategy::canary()),
            ("percentages", Strategy::Percentages(percents.into())),
            ("batches", Strategy::Batches { size: 5 }),
            ("exponential", Strategy::Exponential { first: 1, factor: 2 }),
        ];
        let template = |(name, strategy): (&str, Strategy)| Self {
            name: name.into(),
            strategy,
            gates: gates.into(),
            bake: Duration::from_secs(30 * 60),
            waivable: false,
        };
        strategies.into_iter().map(template).collect()
    }

    /// Whether a plan is at least as careful as this.
    ///
    /// # Errors
    /// [`PlanError::Strategy`] says in which way it is not.
    pub fn check(&self, plan: &Plan, members: &PlannedMembers) -> Result<(), PlanError> {
        let has_reason = plan.override_reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
        if self.waivable && has_reason {
            return Ok(());
        }
        let weaker = |what| Err(PlanError::Strategy { what });
        if plan.settings.bake < self.bake {
            return weaker("the bake is shorter than the group's default");
        }
        let has = |gate: &GateConfig| plan.gates.iter().any(|own| is_as_strict(own, gate));
        if !self.gates.iter().filter(|gate| gate.acts()).all(has) {
            return weaker("a gate of the group's default is missing or weaker");
        }
        if !self.is_as_slow(plan, members.queued())? {
            return weaker("more members sooner than by the group's default");
        }
        Ok(())
    }

    /// Whether at no time more members have it than by this template: whoever goes beyond one of its waves has waited for
    /// as long as this would have, and for as many people.
    fn is_as_slow(&self, plan: &Plan, queued: u32) -> Result<bool, PlanError> {
        if self.strategy.label().is_some() {
            return Ok(self.strategy == plan.strategy);
        }
        let planned = stages(plan.waves.iter().map(|wave| Stage::of(wave, queued)));
        let own = stages(by_count(&self.strategy, queued)?.iter().map(Stage::of_cut));
        let ends = own.iter().map(|stage| stage.end).filter(|end| *end < queued);
        // Nobody is beyond nobody: that compares what comes before the first member.
        Ok(std::iter::once(0).chain(ends).all(|end| {
            let [(asked_wait, asked_people), (wait, people)] = [&own, &planned].map(|list| beyond(list, end));
            wait >= asked_wait && people >= asked_people
        }))
    }
}

/// A wave as far as care is concerned.
struct Stage {
    end: u32,
    dwell: Duration,
    asks: bool,
}

impl Stage {
    fn of(wave: &WavePlan, queued: u32) -> Self {
        Self { end: wave.end.min(queued), dwell: wave.dwell, asks: wave.approval || wave.manual }
    }

    fn of_cut(cut: &Cut) -> Self {
        Self { end: cut.end, dwell: cut.dwell, asks: cut.approval || cut.manual }
    }
}

/// Those with members: the others pass at once, without a wait and without anybody's consent.
fn stages(all: impl Iterator<Item = Stage>) -> Vec<Stage> {
    let mut end = 0;
    all.filter(|stage| std::mem::replace(&mut end, stage.end) < stage.end).collect()
}

/// How long one waits, and for how many people, before more than `members` have it.
fn beyond(stages: &[Stage], members: u32) -> (Duration, u32) {
    let before = stages.iter().take_while(|stage| stage.end <= members);
    let waited = before.clone().fold(Duration::ZERO, |sum, stage| sum.saturating_add(stage.dwell));
    let first_beyond = stages.iter().find(|stage| stage.end > members);
    let asked = before.chain(first_beyond).filter(|stage| stage.asks).count();
    (waited, u32::try_from(asked).unwrap_or(u32::MAX))
}

/// Whether a gate stops whatever the other one stops, and does no less then.
fn is_as_strict(own: &GateConfig, asked: &GateConfig) -> bool {
    let all_failed = |gate: &GateConfig| gate.all_failed.unwrap_or(gate.severity).rank();
    own.kind == asked.kind
        && own.name == asked.name
        && asked.tests.iter().all(|test| own.tests.contains(test))
        && own.min_sample <= asked.min_sample
        && lent(own) <= lent(asked)
        && reach(own) >= reach(asked)
        && own.scopes.contains(asked.scopes)
        && own.no_data <= asked.no_data
        && own.on_error <= asked.on_error
        && own.severity.rank() >= asked.severity.rank()
        && all_failed(own) >= all_failed(asked)
        && own.waivable <= asked.waivable
}

/// How many members an undecided wave of the gate may still be lent before somebody has to decide.
fn lent(gate: &GateConfig) -> u8 {
    match gate.undecided {
        Undecided::Hold => 0,
        Undecided::Stretch { max } => max,
    }
}

/// How long a member can count against a gate: without a window, until the rollout ends.
fn reach(gate: &GateConfig) -> Duration {
    if gate.window.is_zero() { Duration::MAX } else { gate.window }
}
