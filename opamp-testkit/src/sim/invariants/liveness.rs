//! Once nothing is broken any more, every rollout goes on until it ends, and nothing impossible has happened on the way. A
//! command is done once, however often it is given, and answered alike each time (R2).

use std::collections::BTreeMap;
use std::time::Duration;

use opamp_fleet::rollout::journal::CommandEntry;
use opamp_fleet::rollout::{
    CommandKey, Epoch, HandleError, MemberState, Outcome, Reason, RolloutId, RolloutState, Time, WaveState,
};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// So long after a member began to wait for another rollout, what that rollout holds is committed.
const HELD_AFTER: Duration = Duration::from_secs(600);
/// So long nothing may happen in a rollout that nobody has stopped: an hour until a limit of so many an hour lets more
/// through, and then what the slowest agent takes.
const STANDS_MAX: Duration = Duration::from_secs(75 * 60);

/// See the module.
#[derive(Debug, Default)]
pub struct Liveness {
    /// When each rollout moved last.
    moved: BTreeMap<RolloutId, Time>,
    /// How commands were answered that are not in the journal yet, and under which epoch.
    answered: BTreeMap<CommandKey, (Epoch, Result<(), HandleError>)>,
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if let Some(what) = seen.impossible.first() {
            return Err(what.clone());
        }
        self.commands(seen)?;
        seen.commits.iter().try_for_each(|commit| waits_for_somebody(world, commit))?;
        let leaders = world.replicas.iter().filter_map(|replica| replica.leader.as_ref());
        let surprised =
            leaders.flat_map(|leader| leader.rollouts.engines()).find(|engine| engine.surprises() > 0);
        ensure(surprised.is_none(), || {
            surprised
                .map_or_else(String::new, |engine| format!("rollout {} met what cannot happen", engine.id()))
        })?;
        self.goes_on(world, seen)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        for (id, row) in &world.store.rows().rollouts {
            let (story, away) =
                (&row.story, row.story.lines.iter().filter(|line| !line.state.settled()).count());
            ensure(story.state().is_terminal(), || {
                format!("rollout {id} is {} since {}, {away} members open", story.state(), story.entered)
            })?;
        }
        let asked = world.operators.asked.iter().find(|asked| !asked.made && asked.refused.is_none());
        ensure(asked.is_none(), || format!("a rollout was asked for and neither made nor refused: {asked:?}"))
    }
}

impl Liveness {
    /// Nothing is done by the second time, and the second answer is the first one, which is the journal's.
    fn commands(&mut self, seen: &StepSeen) -> Result<(), String> {
        for given in &seen.commands {
            let before = self.answered.insert(given.command.key.clone(), (given.epoch, given.result.clone()));
            let Some(entries) = given.repeated else { continue };
            ensure(entries == 0, || format!("a command was done twice: {given:?}"))?;
            ensure(before.as_ref().is_some_and(|(_, first)| *first == given.result), || {
                format!("a command was answered with {before:?}, and then otherwise: {given:?}")
            })?;
        }
        for commit in &seen.commits {
            for change in &commit.written.changes {
                let Change::Command(entry) = change else { continue };
                self.is_as_answered(entry, commit.batch.epoch)?;
            }
        }
        Ok(())
    }

    fn is_as_answered(&mut self, entry: &CommandEntry, epoch: Epoch) -> Result<(), String> {
        let Some((of, told)) = self.answered.remove(&entry.key).filter(|(of, _)| *of == epoch) else {
            return Ok(());
        };
        let written = entry.result.clone().map(|_| ()).map_err(HandleError::Refused);
        // Whose rollout was just being rebuilt was told nothing.
        ensure(told == written || told == Err(HandleError::UnknownRollout), || {
            format!("under epoch {of} it was answered {told:?}, and the journal has {entry:?}")
        })
    }

    /// No rollout stands that nobody has stopped and that waits for nobody.
    fn goes_on(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        let now = Time::from(world.now_of_world().wall);
        if seen.forgot {
            self.moved.clear();
        }
        for commit in &seen.commits {
            if commit.written.changes.iter().any(moves) {
                self.moved.insert(commit.batch.key.rollout, now);
            }
        }
        let Some(calm) = world.calm_since().map(|since| now_less(now, world.now() - since)) else {
            return Ok(());
        };
        let late = commits_without_progress(seen);
        ensure(now.since(calm) < STANDS_MAX || late.is_none(), || {
            format!(
                "rollout {late:?} paused because there was no progress, and nothing is broken since {calm}"
            )
        })?;
        for asked in world.operators.asked.iter().filter(|asked| asked.made) {
            let Some(story) = story(world, asked.id) else { continue };
            let moved = self.moved.get(&asked.id).copied().unwrap_or_default().max(calm);
            let stands = stands(story, moved, now, asked.spec.frozen());
            ensure(stands < STANDS_MAX, || {
                let (state, waves) = (story.state(), waves(story));
                format!("rollout {} is {state}, its waves {waves}, and stands since {moved}", asked.id)
            })?;
        }
        Ok(())
    }
}

fn now_less(now: Time, span: Duration) -> Time {
    Time(now.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

/// A rollout that paused because there was no progress.
fn commits_without_progress(seen: &StepSeen) -> Option<RolloutId> {
    let gave_up = |change: &Change| {
        matches!(change, Change::Rollout { entry, .. }
            if entry.to == RolloutState::Paused && entry.reason == Reason::NoProgress)
    };
    let mut commits = seen.commits.iter();
    commits.find(|commit| commit.written.changes.iter().any(gave_up)).map(|commit| commit.batch.key.rollout)
}

/// Whether a rollout has moved by this. What only notes something about a member is no step.
fn moves(change: &Change) -> bool {
    match change {
        Change::Joined { .. } => true,
        Change::Member { before, row_before, after, .. } => {
            *before != after.state || row_before.map_or(0, |row| row.offer) != after.offer
        }
        Change::Rollout { before, entry } => *before != entry.to,
        Change::Wave { before, after, .. } => before != after,
        Change::Command(_) | Change::Countdown { .. } | Change::Gate { .. } | Change::Limits(_) => false,
    }
}

/// For how long a rollout stands that should go on by itself.
fn stands(story: &Story, moved: Time, now: Time, frozen: Option<(Time, Time)>) -> Duration {
    let goes_on = matches!(
        story.state(),
        RolloutState::Running | RolloutState::Baking | RolloutState::Aborting | RolloutState::RollingBack
    );
    // Somebody has to decide, or another rollout has to end.
    let is_left_to_people = story.waves.iter().any(|wave| {
        wave.state == WaveState::Held
            || wave.state == WaveState::Waiting && matches!(wave.reason, Reason::Approval | Reason::Manual)
    });
    let is_locked = story.lines.iter().any(|line| {
        line.state == MemberState::Queued && line.row.is_some_and(|row| row.reason == Reason::Locked)
    });
    // Nobody was there: the rollout waits for the first of its members that comes.
    let is_known = |state: MemberState| {
        let well =
            matches!(state, MemberState::AlreadyCurrent | MemberState::Unverified | MemberState::Verified);
        let bad = state.outcome() == Outcome::Bad && state != MemberState::RollbackFailed;
        state.in_flight() || well || bad
    };
    let waits_for_the_first = story.lines.iter().any(|line| line.state == MemberState::Deferred)
        && !story.lines.iter().any(|line| is_known(line.state));
    if !goes_on || is_left_to_people || is_locked || waits_for_the_first {
        return Duration::ZERO;
    }
    let soaks = story.waves.iter().filter(|wave| wave.state == WaveState::Soaking);
    let watched = soaks.filter_map(|wave| wave.dwell.ends_at()).chain(story.bake.ends_at()).max();
    let thawed = frozen.filter(|(from, _)| *from <= now).map(|(_, until)| until);
    let since = [Some(moved), watched, thawed].into_iter().flatten().max().unwrap_or(moved);
    now.since(since)
}

fn waves(story: &Story) -> String {
    let waves: Vec<String> =
        story.waves.iter().map(|wave| format!("{} ({})", wave.state, wave.reason)).collect();
    waves.join(", ")
}

/// Who waits for another rollout to let go of an agent waits for one that has it.
fn waits_for_somebody(world: &World, commit: &Commit) -> Result<(), String> {
    let rollout = commit.batch.key.rollout;
    for change in &commit.written.changes {
        let Change::Member { agent, after, .. } = change else { continue };
        let waits = (after.state, after.reason) == (MemberState::Queued, Reason::Locked);
        if !waits || commit.batch.at.since(after.since) < HELD_AFTER {
            continue;
        }
        let others = world.store.rows().rollouts.iter().filter(|(id, _)| **id != rollout);
        let mut live = others.filter(|(_, row)| !row.story.state().is_terminal());
        let held = live.any(|(_, row)| row.story.line(agent).is_some_and(|line| line.offer() > 0));
        ensure(held, || format!("{agent} waits for another rollout since {}, and none has it", after.since))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::{Changed, Command, Do, First, Refused};

    use super::super::made::{ROLLOUT, commit, member, rollout, row, seen, world};
    use super::*;
    use crate::sim::world::CommandSeen;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_waits_for_nobody_is_found_once_that_is_certain() {
        let waits = |since| Changed { reason: Reason::Locked, since, ..row(MemberState::Queued, 0) };
        let look = |at: u64, since| {
            let waits = waits(Time(since));
            let made = commit(vec![member(waits, waits)], Vec::new());
            let batch = opamp_fleet::rollout::commit::Batch { at: Time(at), ..(*made.batch).clone() };
            waits_for_somebody(&world(), &Commit { batch: std::sync::Arc::new(batch), ..made })
        };
        assert_eq!(look(700_000, 200_000), Ok(()));
        assert!(look(800_001, 200_000).is_err());
    }

    #[test]
    fn what_cannot_happen_and_what_never_ends_are_found() {
        let impossible = vec!["a member is nobody".to_owned()];
        let seen = StepSeen { impossible, ..StepSeen::default() };
        let mut liveness = Liveness::default();
        assert!(liveness.after(&world(), &seen).is_err());
        assert_eq!(liveness.after(&world(), &StepSeen::default()), Ok(()));
        assert!(liveness.at_end(&world()).is_err(), "its rollouts were never made");
    }

    #[test]
    fn a_rollout_stands_that_waits_for_nobody_and_no_timer() {
        let mut world = world();
        let soaks = |story: &Story| {
            story.waves.iter().any(|wave| wave.state == WaveState::Soaking && wave.dwell.is_running())
        };
        let story = loop {
            world.step().unwrap();
            let rows = world.store.rows().rollouts.values();
            if let Some(row) = rows.into_iter().find(|row| soaks(&row.story)) {
                break row.story.clone();
            }
        };
        let moved = Time::from(world.now_of_world().wall);
        let ends = story.waves.iter().filter_map(|wave| wave.dwell.ends_at()).max().unwrap();
        assert_eq!(stands(&story, moved, ends, None), Duration::ZERO, "its wave is watched for so long");
        assert_eq!(stands(&story, moved, ends + MINUTE, None), MINUTE);
        let frozen = Some((moved, ends + 2 * MINUTE));
        assert_eq!(stands(&story, moved, ends + MINUTE, frozen), Duration::ZERO);
        let mut held = story.clone();
        held.waves[0].state = WaveState::Held;
        assert_eq!(stands(&held, moved, ends + MINUTE, None), Duration::ZERO, "it is left to people");
        let mut settling = story;
        settling.waves.iter_mut().for_each(|wave| wave.state = WaveState::Settling);
        assert_eq!(stands(&settling, moved, moved + STANDS_MAX, None), STANDS_MAX);
    }

    #[test]
    fn a_note_about_a_member_moves_nothing() {
        let verified = row(MemberState::Verified, 1);
        assert!(!moves(&member(verified, Changed { falls: 3, ..verified })));
        assert!(moves(&member(row(MemberState::Queued, 0), row(MemberState::Offered, 1))));
        assert!(moves(&rollout(RolloutState::Running, RolloutState::Baking, None)));
        let gave_up = rollout(RolloutState::Running, RolloutState::Paused, None);
        assert_eq!(commits_without_progress(&seen(vec![gave_up.clone()], Vec::new())), None);
        let Change::Rollout { before, mut entry } = gave_up else { unreachable!() };
        entry.reason = Reason::NoProgress;
        let seen = seen(vec![Change::Rollout { before, entry }], Vec::new());
        assert_eq!(commits_without_progress(&seen), Some(ROLLOUT));
    }

    #[test]
    fn a_command_is_answered_alike_each_time_and_as_the_journal_has_it() {
        let key = CommandKey::new("a").unwrap();
        let given = |result: Result<(), HandleError>, repeated| CommandSeen {
            rollout: ROLLOUT,
            epoch: Epoch(1),
            command: Command {
                key: key.clone(),
                actor: "test".into(),
                reason: "".into(),
                expected: None,
                do_: Do::Pause,
            },
            result,
            repeated,
        };
        let refused = || Err(HandleError::Refused(Refused::UnknownWave));
        let look = |first, second, journal: Result<First, Refused>| {
            let mut liveness = Liveness::default();
            let commands = vec![given(first, None), given(second, Some(0))];
            liveness.commands(&StepSeen { commands, ..StepSeen::default() })?;
            let entry = CommandEntry {
                key: key.clone(),
                actor: "test".into(),
                reason: "".into(),
                do_: Do::Pause,
                result: journal,
                at: Time(0),
            };
            liveness.commands(&seen(vec![Change::Command(Box::new(entry))], Vec::new()))
        };
        assert_eq!(look(Ok(()), Ok(()), Ok(First::Done)), Ok(()));
        assert_eq!(look(refused(), refused(), Err(Refused::UnknownWave)), Ok(()));
        assert!(look(Ok(()), refused(), Ok(First::Done)).is_err());
        assert!(look(Ok(()), Ok(()), Err(Refused::UnknownWave)).is_err());
    }
}
