//! A second implementation of the sequential test: where it says stop, a gate has said so too.
//!
//! It reads states of members from committed rows, in the order of the plan, and plays the score through them plainly. Where
//! the engine may see more successes than it does, it takes the side of the engine, so that it never asks for a stop that is
//! not due.

use std::collections::{BTreeMap, BTreeSet};

use opamp_fleet::rollout::gates::{Boundaries, GateConfig, GateKind, ScopeAt, Severity, Undecided, Verdict};
use opamp_fleet::rollout::plan::Plan;
use opamp_fleet::rollout::{
    Changed, Do, Flags, GateIx, MemberState, Reason, Resume, RolloutId, RolloutState, WaveIx,
};

use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Line, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// As many falls make a loop.
const FALLS: u8 = 3;

/// One rollout.
#[derive(Debug, Default)]
struct Judge {
    /// Gates that failed since somebody last decided about one, and in which wave; none over all waves.
    fired: BTreeSet<(GateKind, Option<WaveIx>)>,
    /// Gates that have no say any more, or other limits, by their position.
    let_be: BTreeSet<usize>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ReferenceVerdict {
    judges: BTreeMap<RolloutId, Judge>,
}

impl Invariant for ReferenceVerdict {
    fn name(&self) -> &'static str {
        "reference_verdict"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            self.judges.clear();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(story) = story(world, rollout) else { continue };
            let judge = self.judges.entry(rollout).or_default();
            judge.look(commit);
            judge
                .compare(story, story.state(), &commit.written.changes)
                .map_err(|why| format!("rollout {rollout}: {why}"))?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl Judge {
    fn look(&mut self, commit: &Commit) {
        for change in &commit.written.changes {
            match change {
                Change::Command(entry) if entry.result.is_ok() => self.command(&entry.do_),
                Change::Gate { evidence, .. } if evidence.verdict == Verdict::Fail => {
                    let scope = match evidence.scope {
                        ScopeAt::All => None,
                        ScopeAt::Wave(wave) => Some(wave),
                        ScopeAt::Zone(_) => continue,
                    };
                    self.fired.insert((evidence.gate, scope));
                }
                _ => {}
            }
        }
    }

    /// What an operator decided about gates holds here, too: what they said before is decided with that.
    fn command(&mut self, do_: &Do) {
        match do_ {
            Do::SkipGate { gate, .. } | Do::Resume(Resume::Waive { gate } | Resume::Raise { gate, .. }) => {
                self.let_be.insert(gate.index());
            }
            _ => {}
        }
        if matches!(do_, Do::Resume(_) | Do::SkipWave) {
            self.fired.clear();
        }
    }

    /// Where a member has begun to count against a gate, and with those beside it reaches the limit, the gate must have
    /// failed, as long as the rollout goes on.
    fn compare(&self, story: &Story, state: RolloutState, changes: &[Change]) -> Result<(), String> {
        if !state.may_offer() {
            return Ok(());
        }
        let plan = story.plan();
        for (gate, config, limits) in sequential(plan) {
            if self.let_be.contains(&gate) || config.severity == Severity::Observe {
                continue;
            }
            let bit = GateIx(u8::try_from(gate).unwrap_or(u8::MAX)).bit();
            let is_against = |row: &Changed| against(config.kind, bit, row) == Some(true);
            for change in changes {
                let Change::Member { agent, row_before, after, .. } = change else { continue };
                let begins = is_against(after) && !row_before.as_ref().is_some_and(is_against);
                let place = story.lines.iter().position(|line| line.agent == *agent);
                let Some(place) = place.filter(|_| begins) else { continue };
                self.compare_at(story, place, config, bit, limits)?;
            }
        }
        Ok(())
    }

    fn compare_at(
        &self,
        story: &Story,
        place: usize,
        config: &GateConfig,
        bit: u16,
        (weight, waves, all): Limits<'_>,
    ) -> Result<(), String> {
        let (plan, own) = (story.plan(), story.lines[place].wave);
        let lent = match config.undecided {
            Undecided::Hold => 0,
            Undecided::Stretch { max } => usize::from(max),
        };
        let of_wave = plan.waves.get(own.index()).zip(waves.get(own.index()));
        let wave = of_wave.map(|(wave, limit)| (Some(own), (wave.end - wave.first) as usize + lent, *limit));
        for (scope, planned, limit) in wave.into_iter().chain([(None, plan.members as usize, all)]) {
            let marks: Vec<Option<i32>> = story
                .lines
                .iter()
                .map(|line| {
                    mark(config.kind, bit, line).filter(|_| scope.is_none_or(|wave| line.wave == wave))
                })
                .map(|is_against| is_against.map(|is_against| if is_against { weight } else { -1 }))
                .collect();
            // Where more joined than were planned, limits are higher.
            if marks.iter().flatten().count() > planned || marks[place] != Some(weight) {
                continue;
            }
            let before = best(marks[..place].iter().rev(), limit);
            let score = weight + before + best(marks[place + 1..].iter(), limit);
            ensure(score < limit || self.fired.contains(&(config.kind, scope)), || {
                format!("{} should have stopped it in {scope:?}: score {score}, limit {limit}", config.kind)
            })?;
        }
        Ok(())
    }
}

/// The most that some of these add up to, from the first on. What costs as much as the limit is not crossed.
fn best<'a>(marks: impl Iterator<Item = &'a Option<i32>>, limit: i32) -> i32 {
    let (mut sum, mut best) = (0, 0);
    for mark in marks.flatten() {
        sum += mark;
        best = best.max(sum);
        if sum <= best - limit {
            break;
        }
    }
    best
}

/// Whether a member counts against a gate; none if it was never offered anything. Who takes no part any more is taken for
/// well, as if it had been when others began to count.
fn mark(kind: GateKind, bit: u16, line: &Line) -> Option<bool> {
    let row = line.row.as_ref().filter(|row| row.offer > 0)?;
    Some(against(kind, bit, row) == Some(true))
}

/// Whether a member counts against a gate by what it says; none if it says nothing of it.
fn against(kind: GateKind, bit: u16, row: &Changed) -> Option<bool> {
    let has = |flags| row.flags.contains(flags);
    let stage = if row.state == MemberState::Absent { row.stage } else { row.state };
    let has_applied = matches!(stage, MemberState::Applied | MemberState::Verified | MemberState::Unverified)
        || row.state == MemberState::TimedOut && row.reason == Reason::VerifyTimeout;
    match kind {
        GateKind::ApplyFailed => {
            let failed = row.state == MemberState::Failed && row.reason != Reason::LocalEdit;
            let waits = row.state == MemberState::Backoff && row.reason == Reason::ReportedFailed;
            // Who is tried again counts as before until that succeeds, unless it came into another queue.
            let is_open = !row.state.settled() && stage != MemberState::Applied;
            has(Flags::REPORTS_STATUS).then_some(failed || waits || is_open && row.bad & bit != 0)
        }
        GateKind::CrashLoop => Some(row.falls >= FALLS && row.bad & bit != 0),
        GateKind::Rejected => has(Flags::REPORTS_STATUS).then_some(row.state == MemberState::Rejected),
        GateKind::SelfRollback => {
            let edited = row.state == MemberState::Failed && row.reason == Reason::LocalEdit;
            has(Flags::REPORTS_STATUS).then_some(row.state == MemberState::SelfRolledBack || edited)
        }
        GateKind::Unhealthy if has(Flags::WAS_UNHEALTHY) || !has_applied => None,
        GateKind::Unhealthy => has(Flags::REPORTS_HEALTH).then_some(!has(Flags::HEALTHY)),
        _ => None,
    }
}

/// What a failure scores, limits by wave, and that over all of them.
type Limits<'a> = (i32, &'a [i32], i32);

/// Sequential tests of what agents say, whenever they say it, by position of the gate. Those that a control group takes
/// something off from are left out.
fn sequential(plan: &Plan) -> impl Iterator<Item = (usize, &GateConfig, Limits<'_>)> {
    let is_read = |gate: &GateConfig| match gate.kind {
        GateKind::ApplyFailed | GateKind::Rejected => true,
        GateKind::SelfRollback => gate.window.is_zero(),
        GateKind::CrashLoop | GateKind::Unhealthy => plan.control_group == 0 && gate.window.is_zero(),
        _ => false,
    };
    let gates = plan.gates.iter().enumerate().filter(move |(_, gate)| is_read(gate));
    gates.flat_map(|(gate, config)| {
        let tests = plan.boundaries.get(gate).into_iter().flatten();
        tests.filter_map(move |boundaries| match boundaries {
            Boundaries::Sequential { weight, waves, all, .. } => {
                Some((gate, config, (*weight, &**waves, *all)))
            }
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::made::{row, world};
    use super::*;

    #[test]
    fn failures_in_a_row_without_a_verdict_are_found_and_successes_between_them_make_up_for_few() {
        let mut world = world();
        while world.store.rows().rollouts.is_empty() {
            world.step().unwrap();
        }
        let story = &world.store.rows().rollouts.values().next().unwrap().story;
        let (gate, config, limits) = sequential(story.plan()).next().unwrap();
        let bit = GateIx(u8::try_from(gate).unwrap()).bit();
        let fails = |agent| {
            let flags = Flags::REPORTS_STATUS;
            let after = Changed { bad: bit, flags, ..row(MemberState::Failed, 1) };
            Line { agent, wave: WaveIx(0), state: MemberState::Failed, row: Some(after) }
        };
        let is_well = |agent| {
            let row = Changed { flags: Flags::REPORTS_STATUS, ..row(MemberState::Verified, 1) };
            Line { row: Some(row), state: MemberState::Verified, ..fails(agent) }
        };
        let agents: Vec<_> = story.lines.iter().map(|line| line.agent).collect();
        assert!(agents.len() >= 5, "{}", agents.len());
        let mut judge = Judge::default();
        let mut story = story.clone();
        story.lines = agents.iter().map(|agent| is_well(*agent)).collect();
        story.lines[2] = fails(agents[2]);
        assert_eq!(judge.compare_at(&story, 2, config, bit, limits), Ok(()));
        story.lines = agents.iter().map(|agent| fails(*agent)).collect();
        assert!(judge.compare_at(&story, 2, config, bit, limits).is_err());
        judge.fired = [(config.kind, None), (config.kind, Some(WaveIx(0)))].into();
        assert_eq!(judge.compare_at(&story, 2, config, bit, limits), Ok(()));
        judge.command(&Do::Resume(Resume::Retry));
        assert!(judge.compare_at(&story, 2, config, bit, limits).is_err(), "that was decided");
    }
}
