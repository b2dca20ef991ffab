//! No gate is asked before its window is over: windows are within dwells (R39).

use std::time::Duration;

use opamp_fleet::rollout::MemberState;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity};
use opamp_fleet::rollout::plan::Plan;

use super::{Invariant, ensure, is_planned_anew, story};
use crate::sim::ledger::Story;
use crate::sim::world::{StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct WindowWithinDwell;

impl Invariant for WindowWithinDwell {
    fn name(&self) -> &'static str {
        "window_within_dwell"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        let anew = seen.commits.iter().filter(|commit| is_planned_anew(commit));
        let ids = seen.created.iter().copied().chain(anew.map(|commit| commit.batch.key.rollout));
        // Where all have it already nobody is watched.
        let has_turns = |story: &&Story| story.lines.iter().any(|line| line.state == MemberState::Queued);
        let stories = ids.filter_map(|id| story(world, id)).filter(has_turns);
        stories.map(Story::plan).try_for_each(check)
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

fn check(plan: &Plan) -> Result<(), String> {
    let last = plan.waves.len().saturating_sub(1);
    for gate in plan.gates.iter().filter(|gate| counts_within_window(gate)) {
        for (number, wave) in plan.waves.iter().enumerate() {
            let bake = if number == last { plan.settings.bake } else { Duration::ZERO };
            ensure(gate.window <= wave.dwell + bake, || {
                let (window, dwell) = (gate.window.as_secs(), wave.dwell.as_secs());
                format!("{} looks at {window} s, wave {number} is watched for {dwell} s", gate.kind)
            })?;
        }
    }
    Ok(())
}

/// Whether a gate acts, and counts members within a window of their own: not those that are judged through the bake.
fn counts_within_window(gate: &GateConfig) -> bool {
    let whole = matches!(gate.kind, GateKind::SelfRollback | GateKind::NothingSucceeds | GateKind::External);
    gate.severity != Severity::Observe && !whole
}
