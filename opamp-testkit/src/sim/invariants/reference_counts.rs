//! A second, simple reading of the tests that compare numbers: where it says stop, a gate has said so, and no gate has said so
//! without cause.
//!
//! It goes by the states of committed rows, not by what engines noted in them. Where an engine may see fewer who count against a
//! gate than it does, or more who do not, it takes the side of the engine, so that it never asks for a stop that is not due.

mod ends;

use std::collections::{BTreeMap, BTreeSet};

use opamp_fleet::rollout::gates::{
    Boundaries, Evidence, GateConfig, GateKind, Limit, ScopeAt, Scopes, Severity, Test, TestKind, Verdict,
};
use opamp_fleet::rollout::plan::Plan;
use opamp_fleet::rollout::{
    Changed, Do, Flags, MemberState, Reason, Resume, RolloutId, RolloutState, WaveIx,
};
use opamp_proto::AgentId;

use self::ends::Ends;
use super::{Invariant, ensure, story};
use crate::sim::ledger::{Change, Story};
use crate::sim::world::{Commit, StepSeen, World};

/// A gate by its position, in a wave, or over all of them.
type At = (usize, Option<WaveIx>);

/// One rollout.
#[derive(Debug, Default)]
struct Judge {
    /// Who counts against which gate.
    against: BTreeSet<(usize, AgentId)>,
    /// Gates that failed, and about which nobody has decided since.
    fired: BTreeSet<At>,
    /// Gates that have no say any more, or other limits.
    let_be: BTreeSet<usize>,
    /// Where a member has come to count against a gate.
    worse: BTreeSet<At>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ReferenceCounts {
    judges: BTreeMap<RolloutId, Judge>,
}

impl Invariant for ReferenceCounts {
    fn name(&self) -> &'static str {
        "reference_counts"
    }

    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String> {
        if seen.forgot {
            self.judges.clear();
        }
        for commit in &seen.commits {
            let rollout = commit.batch.key.rollout;
            let Some(story) = story(world, rollout) else { continue };
            let judge = self.judges.entry(rollout).or_default();
            let judged = judge.look(story, commit).and_then(|()| judge.compare(story));
            judged.map_err(|why| format!("rollout {rollout}: {why}"))?;
        }
        Ok(())
    }

    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

impl Judge {
    fn look(&mut self, story: &Story, commit: &Commit) -> Result<(), String> {
        let (plan, changes) = (story.plan(), &commit.written.changes);
        for (place, change) in changes.iter().enumerate() {
            match change {
                Change::Command(entry) if entry.result.is_ok() => self.command(&entry.do_),
                Change::Gate { evidence, .. } if evidence.verdict == Verdict::Fail => {
                    self.failed(plan, evidence, |scope| Ends::at(story, changes, place).is_end_of(scope))?;
                }
                Change::Joined { agent, .. } => self.against.retain(|(_, of)| of != agent),
                Change::Member { agent, wave, after, .. } => self.member(plan, *agent, *wave, after),
                _ => {}
            }
        }
        Ok(())
    }

    /// What an operator decided about gates holds here, too: those that failed are to say it again if somebody else comes to
    /// count against them.
    fn command(&mut self, do_: &Do) {
        match do_ {
            Do::SkipGate { gate, .. } | Do::Resume(Resume::Waive { gate } | Resume::Raise { gate, .. }) => {
                self.let_be.insert(gate.index());
            }
            Do::Resume(_) => self.fired.clear(),
            _ => {}
        }
    }

    /// `is_end_of`: whether a wave, or all of them, is asked for the last time here.
    fn failed(
        &mut self,
        plan: &Plan,
        evidence: &Evidence,
        is_end_of: impl Fn(Option<WaveIx>) -> bool,
    ) -> Result<(), String> {
        let mut gates = plan.gates.iter().enumerate();
        let gate = gates.find(|(_, gate)| gate.kind == evidence.gate && gate.name == evidence.name);
        let Some((number, config)) = gate else { return Ok(()) };
        let scope = match evidence.scope {
            ScopeAt::All => Some(None),
            ScopeAt::Wave(wave) => Some(Some(wave)),
            ScopeAt::Zone(_) => None,
        };
        self.fired.extend(scope.map(|scope| (number, scope)));
        let all_or_most = is_everybody(config, evidence) || is_most(config, evidence);
        let at_end = all_or_most && scope.is_some_and(is_end_of);
        let has_cause = self.let_be.contains(&number) || at_end || has_cause(plan, number, evidence);
        ensure(has_cause, || format!("`{evidence}` is no reason to stop: {config:?}"))
    }

    fn member(&mut self, plan: &Plan, agent: AgentId, wave: WaveIx, after: &Changed) {
        for (gate, config) in plan.gates.iter().enumerate() {
            let was = self.against.contains(&(gate, agent));
            let is = is_against(config, after, was);
            if is && !was {
                self.against.insert((gate, agent));
                self.worse.extend([(gate, None), (gate, Some(wave))]);
            } else if !is {
                self.against.remove(&(gate, agent));
            }
        }
    }

    /// Where one more counts against a gate, and that is too many, the gate has failed.
    fn compare(&mut self, story: &Story) -> Result<(), String> {
        let is_judged =
            matches!(story.state(), RolloutState::Running | RolloutState::Paused | RolloutState::Baking);
        for (gate, wave) in std::mem::take(&mut self.worse) {
            let Some(config) = story.plan().gates.get(gate).filter(|_| is_judged) else { continue };
            let scope = if wave.is_some() { Scopes::WAVE } else { Scopes::CUMULATIVE };
            let has_say = config.scopes.contains(scope)
                && config.severity != Severity::Observe
                && wave != Some(WaveIx::TAIL)
                && !self.let_be.contains(&gate);
            if !has_say || self.fired.contains(&(gate, wave)) {
                continue;
            }
            let counts = self.counts(story, gate, wave);
            ensure(!is_too_much(story.plan(), gate, config, counts, wave.is_none()), || {
                let scope = wave.map_or("over all waves".to_owned(), |wave| format!("in wave {wave}"));
                format!("{} should have stopped it {scope}: {counts:?}", config.kind)
            })?;
        }
        Ok(())
    }

    fn counts(&self, story: &Story, gate: usize, wave: Option<WaveIx>) -> Counts {
        let mut counts = Counts::default();
        for line in story.lines.iter().filter(|line| wave.is_none_or(|wave| line.wave == wave)) {
            if self.against.contains(&(gate, line.agent)) {
                counts.against += 1;
            } else if is_an_answer(line.state) {
                counts.others += 1;
            }
            counts.touched += u32::from(line.offer() > 0);
        }
        counts
    }
}

/// Members of a scope.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// They count against a gate, at least.
    against: u32,
    /// They have answered otherwise.
    others: u32,
    /// They were offered it, whatever came of it.
    touched: u32,
}

/// Whether a gate counts a member against the rollout. Of gates that look at more than states nothing is said. `was`: it
/// counted before.
fn is_against(config: &GateConfig, after: &Changed, was: bool) -> bool {
    let says = after.flags.contains(Flags::REPORTS_STATUS);
    // Who is tried again counts until that succeeds, unless an operator wants it to be tried as if nothing had happened.
    let is_forgiven = after.state == MemberState::Queued && after.reason == Reason::Operator;
    let tried_again = was && !is_forgiven && is_tried_again(after);
    let reported = after.reason == Reason::ReportedFailed;
    match config.kind {
        GateKind::ApplyFailed => {
            let failed = matches!(after.state, MemberState::Failed | MemberState::Backoff) && reported;
            says && (failed || tried_again)
        }
        GateKind::Rejected => says && after.state == MemberState::Rejected,
        GateKind::TimedOut => after.state == MemberState::TimedOut && !after.flags.contains(Flags::WAS_AWAY),
        GateKind::NothingSucceeds => {
            let failed = match after.state {
                MemberState::Failed => reported,
                MemberState::Backoff
                | MemberState::Rejected
                | MemberState::SelfRolledBack
                | MemberState::TimedOut => true,
                _ => false,
            };
            failed || tried_again
        }
        _ => false,
    }
}

fn is_tried_again(row: &Changed) -> bool {
    let is_open = match row.state {
        MemberState::Queued
        | MemberState::Backoff
        | MemberState::Offered
        | MemberState::Delivered
        | MemberState::Applying => true,
        MemberState::Absent => row.stage != MemberState::Applied,
        _ => false,
    };
    is_open && !row.flags.contains(Flags::APPLIED_SEEN)
}

/// Whether a member has answered, as far as any ratio is concerned.
fn is_an_answer(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::Verified
            | MemberState::Unverified
            | MemberState::Failed
            | MemberState::Rejected
            | MemberState::SelfRolledBack
            | MemberState::TimedOut
    )
}

/// Whether a test fails whoever else takes part in it.
fn is_too_much(plan: &Plan, gate: usize, config: &GateConfig, counts: Counts, is_all: bool) -> bool {
    let Counts { against, others, touched } = counts;
    let tests = config.tests.iter().zip(boundaries(plan, gate));
    tests.into_iter().any(|(test, boundaries)| match *test {
        Test::Count { over } => against > over,
        Test::Hard { failures } => others == 0 && against >= u32::from(failures),
        Test::Percent { over, at_least } => {
            let sample = against >= config.min_sample;
            sample && against >= at_least && over.is_exceeded_by(against, touched.max(against))
        }
        Test::Bound { .. } if is_all && against >= config.min_sample => {
            limit_at(boundaries, touched).is_some_and(|limit| against >= limit)
        }
        Test::Bound { .. } | Test::Compare { .. } | Test::Sequential { .. } => false,
    })
}

/// Whether everybody who has answered counts against a gate that counts members. Who gives no evidence has its own gate.
fn is_everybody(config: &GateConfig, evidence: &Evidence) -> bool {
    let counts = !config.kind.is_telemetry()
        && !matches!(config.kind, GateKind::External | GateKind::MassDisconnect | GateKind::Unverified);
    counts && evidence.test == TestKind::Hard && evidence.bad == evidence.of && evidence.of > 0
}

/// Whether the numbers of a verdict say that most of those who answered count against a gate, more than its ratio allows, and
/// too few for it.
fn is_most(config: &GateConfig, evidence: &Evidence) -> bool {
    let (bad, of) = (evidence.bad.saturating_sub(evidence.expected), evidence.of);
    let too_few = |test: &Test| match *test {
        Test::Percent { over, at_least } => {
            over.is_exceeded_by(bad, of) && (bad < at_least || of < config.min_sample)
        }
        _ => false,
    };
    evidence.test == TestKind::Hard && bad >= 2 && bad > of / 2 && config.tests.iter().any(too_few)
}

/// Whether the numbers of a verdict fail the test that it names.
fn has_cause(plan: &Plan, gate: usize, evidence: &Evidence) -> bool {
    let (config, all, of) = (&plan.gates[gate], evidence.bad, evidence.of);
    let bad = all.saturating_sub(evidence.expected);
    let mut tests = config.tests.iter().zip(boundaries(plan, gate));
    // Providers say what they like.
    let is_told = config.tests.is_empty() || config.kind.is_telemetry();
    is_told
        || tests.any(|(test, boundaries)| match *test {
            _ if test.kind() != evidence.test => false,
            Test::Count { over } => bad > over,
            Test::Hard { failures } => all == of && of >= u32::from(failures),
            Test::Percent { over, at_least } => {
                of >= config.min_sample && bad >= at_least && over.is_exceeded_by(bad, of)
            }
            Test::Bound { over, .. } => {
                of >= config.min_sample
                    && limit_at(boundaries, of).map_or(over.is_exceeded_by(bad, of), |limit| bad >= limit)
            }
            Test::Sequential { .. } => scores(boundaries, evidence),
            Test::Compare { .. } => true,
        })
}

/// Whether a score is one that so many can have, and reaches the limit of its scope; where more have joined than were planned
/// that is further away.
fn scores(boundaries: &Boundaries, evidence: &Evidence) -> bool {
    let Boundaries::Sequential { weight, waves, all, .. } = boundaries else { return false };
    let Limit::Score { score, limit, .. } = evidence.limit else { return false };
    let planned = match evidence.scope {
        ScopeAt::Wave(wave) => waves.get(wave.index()).copied(),
        ScopeAt::All | ScopeAt::Zone(_) => Some(*all),
    };
    let most = i64::from(*weight) * i64::from(evidence.bad);
    score >= limit && i64::from(score) <= most && planned.is_some_and(|planned| limit >= planned)
}

/// The least number that fails a bound test of so many.
fn limit_at(boundaries: &Boundaries, of: u32) -> Option<u32> {
    let Boundaries::Bound { sizes, limits } = boundaries else { return None };
    let next = sizes.iter().position(|size| *size >= of)?;
    limits.get(next).copied()
}

fn boundaries(plan: &Plan, gate: usize) -> impl Iterator<Item = &Boundaries> {
    plan.boundaries.get(gate).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::WaveState;

    use super::super::made::{AGENT, commit, member, row, world};
    use super::*;

    /// A rollout, and the position of a gate of its plan.
    fn planned(kind: GateKind) -> (Story, usize) {
        let mut world = world();
        let runs = |story: &Story| story.waves.iter().any(|wave| wave.state == WaveState::Dispatching);
        let story = loop {
            world.step().unwrap();
            let mut rows = world.store.rows().rollouts.values();
            if let Some(row) = rows.find(|row| runs(&row.story)) {
                break row.story.clone();
            }
        };
        let gate = story.plan().gates.iter().position(|gate| gate.kind == kind).unwrap();
        (story, gate)
    }

    /// Everybody of the first wave, at most so many, is in a state.
    fn all_are(story: &mut Story, judge: &mut Judge, state: MemberState, most: usize) -> usize {
        let plan = story.plan().clone();
        let lines = story.lines.iter_mut().filter(|line| line.wave == WaveIx(0)).take(most);
        lines
            .map(|line| {
                let after = Changed { flags: Flags::REPORTS_STATUS, ..row(state, 1) };
                (line.state, line.row) = (state, Some(after));
                judge.member(&plan, line.agent, line.wave, &after);
            })
            .count()
    }

    #[test]
    fn where_nobody_succeeds_the_gate_has_to_say_so_until_somebody_decides_and_then_again() {
        let (mut story, gate) = planned(GateKind::NothingSucceeds);
        story.lines.iter_mut().take(8).for_each(|line| line.wave = WaveIx(0));
        let mut judge = Judge::default();
        assert_eq!(all_are(&mut story, &mut judge, MemberState::Rejected, 2), 2);
        judge.let_be.extend((0..story.plan().gates.len()).filter(|other| *other != gate));
        assert_eq!(judge.compare(&story), Ok(()), "two are not enough");
        assert_eq!(all_are(&mut story, &mut judge, MemberState::Rejected, 3), 3);
        judge.fired.extend([(gate, None), (gate, Some(WaveIx(0)))]);
        assert_eq!(judge.compare(&story), Ok(()), "it has said so");
        judge.command(&Do::Resume(Resume::Skip));
        assert_eq!(judge.compare(&story), Ok(()), "nobody else has failed");
        all_are(&mut story, &mut judge, MemberState::Rejected, 4);
        assert!(judge.compare(&story).is_err());
        all_are(&mut story, &mut judge, MemberState::Verified, 1);
        all_are(&mut story, &mut judge, MemberState::Verified, 1);
        judge.worse.insert((gate, None));
        assert_eq!(judge.compare(&story), Ok(()), "somebody is well");
    }

    #[test]
    fn a_gate_that_fails_has_numbers_that_fail_a_test_of_its_own() {
        let (story, gate) = planned(GateKind::TimedOut);
        let said = |bad, of| Evidence {
            gate: GateKind::TimedOut,
            name: "".into(),
            scope: ScopeAt::All,
            verdict: Verdict::Fail,
            test: TestKind::Percent,
            bad,
            of,
            excused: 0,
            expected: 0,
            blind: 0,
            limit: Limit::None,
            window: std::time::Duration::ZERO,
            at: opamp_fleet::rollout::Time(0),
            text: "".into(),
        };
        let look = |bad, of| Judge::default().failed(story.plan(), &said(bad, of), |_| false);
        assert_eq!(look(3, 10), Ok(()));
        assert!(look(2, 10).is_err(), "20 % is not more than 20 %");
        assert!(look(2, 4).is_err(), "it takes three");
        let all = |bad, of, is_end| {
            let evidence = Evidence { test: TestKind::Hard, ..said(bad, of) };
            Judge::default().failed(story.plan(), &evidence, |_| is_end)
        };
        assert_eq!(all(1, 1, true), Ok(()), "nobody is left who could succeed");
        assert!(all(1, 1, false).is_err() && all(3, 3, false).is_err(), "it has no such test of its own");
        assert!(all(1, 2, true).is_err() && all(0, 0, true).is_err());
        let evidence = Box::new(said(2, 10));
        let made = commit(vec![Change::Gate { evidence, countable: 10, against: 2 }], Vec::new());
        assert!(Judge::default().look(&story, &made).is_err());
        let waived = Judge { let_be: [gate].into(), ..Judge::default() };
        assert_eq!({ waived }.look(&story, &made), Ok(()));
    }

    #[test]
    fn who_is_tried_again_counts_until_that_succeeds() {
        let (story, gate) = planned(GateKind::ApplyFailed);
        let mut judge = Judge::default();
        let failed =
            |state| Changed { flags: Flags::REPORTS_STATUS, reason: Reason::ReportedFailed, ..row(state, 1) };
        let mut goes = |before, after: Changed| {
            let changes = vec![member(before, after)];
            judge.look(&story, &commit(changes, Vec::new())).unwrap();
            judge.against.contains(&(gate, AGENT))
        };
        let (backs_off, tries) = (failed(MemberState::Backoff), row(MemberState::Offered, 2));
        let tries = Changed { flags: Flags::REPORTS_STATUS, ..tries };
        assert!(goes(row(MemberState::Applying, 1), backs_off));
        assert!(goes(backs_off, tries));
        let applied = Flags::REPORTS_STATUS | Flags::APPLIED_SEEN;
        assert!(!goes(tries, Changed { flags: applied, ..row(MemberState::Verified, 2) }));
        assert!(goes(row(MemberState::Verified, 2), failed(MemberState::Failed)));
        let again = Changed { reason: Reason::Operator, ..failed(MemberState::Queued) };
        assert!(!goes(failed(MemberState::Failed), again), "an operator wants it to be forgotten");
    }
}
