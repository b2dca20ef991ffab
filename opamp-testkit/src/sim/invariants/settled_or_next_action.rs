//! Every member has settled, waits for its turn, or has a time at which something happens; every rollout says what it waits
//! for (R76).

use std::time::Duration;

use opamp_fleet::rollout::{Engine, MemberState, MemberView, NextAction, Time};

use super::{Invariant, ensure};
use crate::sim::replica::leader::Leader;
use crate::sim::world::{StepSeen, World};

/// So many steps after everybody was asked, they are asked again.
const EVERY: u64 = 128;
/// So late something may be: a leader looks at the time once in a while, and pauses.
const LATE: Duration = Duration::from_secs(180);

/// See the module.
#[derive(Debug, Default)]
pub struct SettledOrNextAction {
    steps: u64,
}

impl Invariant for SettledOrNextAction {
    fn name(&self) -> &'static str {
        "settled_or_next_action"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        self.steps += 1;
        // Only who has just led: others may stand still.
        if self.steps < EVERY || seen.times.is_empty() {
            return Ok(());
        }
        self.steps = 0;
        for (replica, epoch, time, _) in &seen.times {
            let leader = world.replicas[*replica].leader.as_ref();
            if let Some(leader) = leader.filter(|leader| leader.epoch == *epoch) {
                asked(leader, *time)?;
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

fn asked(leader: &Leader, now: Time) -> Result<(), String> {
    for engine in leader.rollouts.engines().filter(|engine| !engine.state().is_terminal()) {
        let why = engine.why_not_moving(now, leader.rollouts.coordinator());
        let id = engine.id();
        match why.next {
            NextAction::Never => return Err(format!("rollout {id} is {} and waits for nothing", why.state)),
            NextAction::At(at, what) => ensure(now.since(at) <= LATE, || {
                format!("rollout {id} waits for {what} at {at}, and it is {now}")
            })?,
            NextAction::Needs(_) => {}
        }
        ensure(!why.reason.is_empty(), || format!("rollout {id} does not say why it is {}", why.state))?;
        members(engine, now)?;
    }
    Ok(())
}

fn members(engine: &Engine, now: Time) -> Result<(), String> {
    for view in engine.members(None, None, usize::MAX) {
        ensure(!needs_a_time(&view) || view.next.is_some(), || {
            format!(
                "{} is {} since {}, and nothing will happen by itself",
                view.agent, view.state, view.since
            )
        })?;
        let late = view.next.is_some_and(|next| now.since(next) > LATE);
        ensure(!late || !needs_a_time(&view), || {
            format!("{} is {}, and something was to happen at {:?}", view.agent, view.state, view.next)
        })?;
    }
    Ok(())
}

/// Whether a state of a member must not last for ever.
fn needs_a_time(view: &MemberView<'_>) -> bool {
    view.state.in_flight()
        || matches!(view.state, MemberState::Backoff | MemberState::Deferred | MemberState::RollbackDeferred)
}

#[cfg(test)]
mod tests {
    use super::super::made::world;
    use super::*;

    #[test]
    fn what_should_have_happened_an_hour_ago_is_found() {
        let mut world = world();
        let in_flight = |world: &World| {
            let leaders = world.replicas.iter().filter_map(|replica| replica.leader.as_ref());
            let mut engines = leaders.flat_map(|leader| leader.rollouts.engines());
            engines.any(|engine| engine.summary(Time(0)).applying > 0)
        };
        while !in_flight(&world) {
            world.step().unwrap();
        }
        let leader = world.replicas.iter().find_map(|replica| replica.leader.as_ref()).unwrap();
        let now = Time::from(world.now_of_world().wall);
        assert_eq!(asked(leader, now), Ok(()));
        assert!(asked(leader, now + Duration::from_secs(3_600)).is_err());
    }
}
