//! One event of a rollout, from the agent's fact to the journal's entry, and a tick with nothing to do.

use std::hint::black_box;

use opamp_fleet::rollout::{Effects, Event};

use super::{Round, Scenario};
use crate::rollout::{Fleet, Prepared};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "rollout/event", rounds: 1_000, prepare: |_| events(Fleet::Well) },
    Scenario { name: "rollout/event_beside_failures", rounds: 1_000, prepare: |_| events(Fleet::Noisy) },
    Scenario { name: "rollout/idle_tick_1000_agents", rounds: 1_000, prepare: |_| idle_ticks(1_000) },
    Scenario { name: "rollout/idle_tick_16000_agents", rounds: 1_000, prepare: |_| idle_ticks(16_000) },
];

/// Agents of the fleet: enough that the rollout is under way through all rounds.
const AGENTS: u32 = 4_000;
/// Events before anything is counted: agents of the first waves are done then, and dozens are under way.
const EVENTS: usize = 2_000;

fn events(behaviour: Fleet) -> Round {
    let prepared = Prepared::new(AGENTS, behaviour);
    let script = prepared.script();
    let (mut engine, mut shared, _) = prepared.engine();
    let mut effects = Effects::default();
    let mut at = 0;
    let mut next = move || {
        // Nothing is refused in a rollout that nobody interferes with.
        let told = script.tell(at, &mut engine, &mut shared, &mut effects);
        effects.clear();
        at += 1;
        told
    };
    for _ in 0..EVENTS {
        let _ = next();
    }
    Box::new(move || {
        if !matches!(black_box(next()), Ok(true)) {
            unreachable!("the rollout is longer than its rounds");
        }
    })
}

/// The same however many members there are.
fn idle_ticks(agents: u32) -> Round {
    let prepared = Prepared::new(agents, Fleet::Well);
    let mut model = prepared.model();
    for _ in 0..EVENTS {
        model.step();
    }
    let (mut engine, mut shared, now) = model.into_engine();
    let mut effects = Effects::default();
    Box::new(move || {
        // A tick is never refused.
        let _ = engine.handle(Event::Tick, black_box(now), &mut shared, &mut effects);
        effects.clear();
    })
}
