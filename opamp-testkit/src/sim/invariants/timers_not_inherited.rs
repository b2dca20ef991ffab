//! A timer belongs to what it was started for: each wave is watched for its own dwell, from when it has settled (R47), no
//! deadline of a member is older than the state it is for, and what stands still keeps what remains of it.

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::rollout::journal::CountdownIx;
use opamp_fleet::rollout::{Countdown, Do, RolloutId, RolloutState, Time, WaveState};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// See the module.
#[derive(Debug, Default)]
pub struct TimersNotInherited {
    /// The time of each rollout's last transaction.
    last: BTreeMap<RolloutId, Time>,
}

impl Invariant for TimersNotInherited {
    fn name(&self) -> &'static str {
        "timers_not_inherited"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            self.last.clear();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(story) = story(world, rollout) else { continue };
            let last = self.last.insert(rollout, commit.batch.at).unwrap_or(story.plan().made_at);
            for change in &commit.written.changes {
                match change {
                    Change::Countdown { which, before, to } if !may_end_early(story, commit, *which) => {
                        keeps_what_remains(*before, *to, last, commit.batch.at)
                            .map_err(|why| format!("{which:?} of rollout {rollout} {why}"))?;
                    }
                    Change::Member { .. } => of_member(change)?,
                    Change::Wave { after: WaveState::Soaking, before, .. } if *before != WaveState::Held => {
                        soaks(story, commit, change)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

/// No deadline is from before the state it is for.
fn of_member(change: &Change) -> Result<(), String> {
    let Change::Member { agent, after, .. } = change else { return Ok(()) };
    ensure(after.deadline == Time::NEVER || after.deadline >= after.since, || {
        format!("{agent} is {} since {}, until {}", after.state, after.since, after.deadline)
    })
}

/// Whether a timer may become shorter: somebody ended it, or it is another one, for a wave that was stretched.
fn may_end_early(story: &Story, commit: &Commit, which: CountdownIx) -> bool {
    let is_advanced = |change: &Change| matches!(change, Change::Command(entry) if entry.do_ == Do::Advance);
    match which {
        CountdownIx::Bake | CountdownIx::Progress => commit.written.changes.iter().any(is_advanced),
        CountdownIx::Dwell(wave) => story.waves.get(wave.index()).is_none_or(|line| line.stretched),
    }
}

/// A timer that changes has no less to go than before: one that stands still lost nothing since the transaction before this
/// one, which was written after it had been stopped, and one that is stopped no more than the time that has passed.
fn keeps_what_remains(before: Countdown, to: Countdown, last: Time, at: Time) -> Result<(), String> {
    let (kept, needed) = match (before.ends_at(), to.ends_at()) {
        (Some(ended), Some(ends)) => (ends.since(Time(0)), ended.since(Time(0))),
        (Some(_), None) => (to.remaining(at), before.remaining(at)),
        (None, Some(ends)) => (ends.since(last), before.remaining(last)),
        (None, None) => (to.remaining(at), before.remaining(at)),
    };
    ensure(kept >= needed, || {
        let missing = (needed - kept).as_millis();
        format!("lost {missing} ms between {last} and {at}: {before:?}, and then {to:?}")
    })
}

/// A wave that begins to soak is watched for as long as its plan says: more if somebody extended it, less only if it was
/// stretched, or soaks again because of whom it waited for, and then for the longest window of a gate.
fn soaks(story: &Story, commit: &Commit, change: &Change) -> Result<(), String> {
    let Change::Wave { wave, before, at, .. } = change else { return Ok(()) };
    let (Some(line), Some(plan)) = (story.waves.get(wave.index()), story.plan().waves.get(wave.index()))
    else {
        return Err(format!("wave {wave} is none"));
    };
    let started = commit.written.changes.iter().find_map(|change| match change {
        Change::Countdown { which: CountdownIx::Dwell(of), to, .. } if of == wave && to.is_running() => {
            Some(*to)
        }
        _ => None,
    });
    if story.state() != RolloutState::Running || line.state != WaveState::Soaking {
        // It has been stopped or gone on in the same transaction.
        return Ok(());
    }
    let dwell = if line.stretched || *before == WaveState::Evaluating {
        let windows = story.plan().gates.iter().map(|gate| gate.window);
        windows.max().unwrap_or(Duration::ZERO).min(plan.dwell)
    } else {
        plan.dwell
    };
    let Some(ends) = started.and_then(|dwell| dwell.ends_at()) else {
        return ensure(dwell.is_zero(), || format!("wave {wave} soaks without a timer of its own"));
    };
    ensure(ends >= *at + dwell, || {
        format!("wave {wave} soaks from {at} until {ends}, which is less than {} s", dwell.as_secs())
    })
}

#[cfg(test)]
mod tests {
    use super::super::made::{member, row};
    use super::*;
    use opamp_fleet::rollout::{Changed, MemberState};

    #[test]
    fn a_deadline_before_its_state_is_found() {
        let offered = |deadline| Changed { deadline: Time(deadline), ..row(MemberState::Offered, 1) };
        let change = |deadline| member(row(MemberState::Queued, 0), offered(deadline));
        assert_eq!(of_member(&change(10)), Ok(()));
        assert!(of_member(&change(9)).is_err());
    }

    #[test]
    fn what_stands_still_keeps_what_remains() {
        let second = Duration::from_secs(1);
        let runs = Countdown::stopped(10 * second).run(Time(0));
        let stands = runs.stop(Time(4_000));
        let (last, at) = (Time(4_000), Time(90_000));
        assert_eq!(keeps_what_remains(runs, stands, Time(0), Time(4_000)), Ok(()));
        assert!(keeps_what_remains(runs, Countdown::stopped(5 * second), Time(0), Time(4_000)).is_err());
        assert_eq!(keeps_what_remains(stands, stands.run(Time(80_000)), last, at), Ok(()));
        assert!(keeps_what_remains(stands, Countdown::stopped(second).run(Time(4_000)), last, at).is_err());
        assert_eq!(keeps_what_remains(runs, runs.extend(second), last, at), Ok(()));
        assert!(keeps_what_remains(runs, Countdown::stopped(second).run(Time(0)), last, at).is_err());
    }
}
