//! What the gates say in one scope: counts and readings compared with limits, in integers.

use super::{
    Boundaries, Evidence, Expected, GateConfig, GateCount, GateKind, GateState, Limit, NoData, Readings,
    ScopeAt, Scopes, Test, TestKind, Undecided, Verdict, expected::THOUSANDTHS, external, limits, mark,
    mass_disconnect, numbered, rules, telemetry,
};
use crate::faults::{Faults, seeded};
use crate::rollout::members::Row;
use crate::rollout::plan::Plan;
use crate::rollout::stats::run::{Run, is_more_like_bad, limit_of};
use crate::rollout::stats::{Ppm, bound};
use crate::rollout::{GateIx, Time, WaveIx};

/// So far from a member others of its failure domain are looked for.
const ROWS_MAX: usize = 65_536;

/// What a test compares with that has no limits of its own.
static PLAIN: Boundaries = Boundaries::Plain;

/// What gates are judged by in one scope: counts, and what is known of others.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) scope: ScopeAt,
    /// The wave whose limits of sequential tests hold; none over all waves.
    pub(crate) wave: Option<WaveIx>,
    /// One for each gate of the plan.
    pub(crate) counts: &'a [GateCount],
    /// One for each gate of the plan: the same over all waves, which an undecided wave is compared with.
    pub(crate) overall: &'a [GateCount],
    /// Whether it is the first wave of which anything is known, or all members of whom anything is known came late.
    pub(crate) is_first: bool,
    /// Members of the scope that are well.
    pub(crate) well: u32,
    /// Members of the scope that have settled and belong in ratios.
    pub(crate) settled: u32,
    /// The same, and those that ran it already.
    pub(crate) shown: u32,
    /// The member that has just changed, of which sequential tests speak; none if nobody has.
    pub(crate) neighbours: Option<Neighbours<'a>>,
    /// Whether the scope is evaluated at its end, so that undecided and no-data are verdicts.
    pub(crate) at_end: bool,
    /// One bit for each gate that observes only.
    pub(crate) waived: u16,
    /// For each gate what the control group lets expect here; nothing without one.
    pub(crate) expected: &'a [Expected],
    /// The same over all waves.
    pub(crate) expected_overall: &'a [Expected],
    /// Agents outside the rollout, and those of them that went away within the disconnect window.
    pub(crate) outside: (u32, u32),
    /// Gates with a ratio and a least number of their own, which replace their tests.
    pub(crate) raised: &'a [(GateIx, Ppm, u32)],
    /// What telemetry and external gates go by.
    pub(crate) readings: &'a Readings,
    pub(crate) now: Time,
    pub(crate) faults: Faults,
}

/// A member that has just changed, among all members in the order of the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbours<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) at: usize,
}

impl Neighbours<'_> {
    /// The run around the member in a scope that it is in, if it counts against the gate.
    fn run(
        self,
        facts: &Facts<'_>,
        gate: GateIx,
        config: &GateConfig,
        weight: i32,
        limit: i32,
    ) -> Option<Run> {
        let row = self.rows.get(self.at)?;
        if mark(gate, config, row.view()) != Some(true) {
            return None;
        }
        let is_of_zone = matches!(facts.scope, ScopeAt::Zone(_));
        let is_of_wave = matches!(facts.scope, ScopeAt::Wave(_));
        // Members of other failure domains stand between those of one, and say nothing of how far a run goes.
        let is_here = |other: &&Row| !is_of_zone || other.zone == row.zone;
        let marked =
            |other: &Row| mark(gate, config, other.view()).filter(|_| !is_of_wave || other.wave == row.wave);
        let (before, after) = (&self.rows[..self.at], &self.rows[self.at + 1..]);
        let before = before.iter().rev().take(ROWS_MAX).filter(is_here).map(marked);
        let after = after.iter().take(ROWS_MAX).filter(is_here).map(marked);
        Some(Run::around(before, after, weight, limit))
    }
}

/// What the gates that are counted in this scope say, in the order of the plan: everything but "pass". Waived gates say
/// nothing.
///
/// Missing data and undecided tests are said at the end of a wave only; missing data of gates that count members in the
/// first wave only, if none of it is well.
pub(crate) fn judge(facts: &Facts<'_>) -> Vec<Evidence> {
    let mut said = Vec::new();
    for (gate, config) in numbered(facts.plan) {
        if !facts.has_say(gate, config) {
            continue;
        }
        let evidence = match config.kind {
            kind if kind.is_telemetry() => telemetry::judge(facts, gate, config),
            GateKind::External => external::judge(facts, gate, config),
            GateKind::MassDisconnect => None,
            // No test fails without anybody against it, and before the end nothing else is said.
            _ if !facts.at_end && facts.has_nobody_against(gate) => None,
            _ => Judged::of(facts, gate, config).and_then(|judged| judged.verdict()),
        };
        said.extend(evidence);
    }
    mass_disconnect::explain(facts, &mut said);
    said
}

impl Facts<'_> {
    /// Whether the gate is counted in this scope and not waived.
    pub(super) fn has_say(&self, gate: GateIx, config: &GateConfig) -> bool {
        let scope = match self.scope {
            ScopeAt::All => Scopes::CUMULATIVE,
            ScopeAt::Wave(_) => Scopes::WAVE,
            ScopeAt::Zone(_) => Scopes::ZONE,
        };
        let waived_here = self.counts.get(gate.index()).is_some_and(|count| count.state == GateState::Waived);
        config.scopes.contains(scope) && self.waived & gate.bit() == 0 && !waived_here
    }

    fn has_nobody_against(&self, gate: GateIx) -> bool {
        self.counts.get(gate.index()).is_none_or(|count| count.bad == 0)
    }

    /// Evidence about a gate without anything in it yet.
    pub(super) fn evidence(&self, config: &GateConfig, verdict: Verdict, test: TestKind) -> Evidence {
        Evidence {
            gate: config.kind,
            name: config.name.clone(),
            scope: self.scope.clone(),
            verdict,
            test,
            bad: 0,
            of: 0,
            excused: 0,
            expected: 0,
            blind: 0,
            limit: Limit::None,
            window: config.window,
            at: self.now,
            text: "".into(),
        }
    }
}

/// How many of some members are expected to be against a gate, whole ones.
fn among(expected: &[Expected], gate: GateIx, members: u32) -> u32 {
    let expected = expected.get(gate.index()).copied().unwrap_or_default();
    u32::try_from(expected.among(members) / THOUSANDTHS).unwrap_or(u32::MAX)
}

/// One gate that counts members, with its numbers.
struct Judged<'a> {
    facts: &'a Facts<'a>,
    gate: GateIx,
    config: &'a GateConfig,
    count: GateCount,
    /// `k` without what the control group lets expect.
    bad: u32,
    expected: u32,
}

/// What one test says.
enum Said {
    Fails(Limit),
    /// It has too little to say anything.
    Nothing,
    Passes,
    Undecided(Limit),
}

impl<'a> Judged<'a> {
    fn of(facts: &'a Facts<'a>, gate: GateIx, config: &'a GateConfig) -> Option<Self> {
        rules::of(config.kind)?;
        let count = *facts.counts.get(gate.index())?;
        let expected = among(facts.expected, gate, count.eligible).min(count.bad);
        let bad = count.bad - expected;
        Some(Self { facts, gate, config, count, bad, expected })
    }

    fn verdict(&self) -> Option<Evidence> {
        if self.is_everybody() {
            return Some(self.evidence(Verdict::Fail, TestKind::Hard, Limit::None));
        }
        let mut undecided = None;
        let mut speaks = false;
        for (test, boundaries) in self.tests() {
            match self.test(&test, boundaries) {
                Said::Fails(limit) => return Some(self.evidence(Verdict::Fail, test.kind(), limit)),
                Said::Undecided(limit) => undecided = undecided.or(Some((test.kind(), limit))),
                Said::Passes => speaks = true,
                Said::Nothing => {}
            }
        }
        match undecided {
            _ if self.is_most() => Some(self.evidence(Verdict::Fail, TestKind::Hard, Limit::None)),
            Some((test, limit)) => Some(self.evidence(Verdict::Inconclusive, test, limit)),
            None => self.without_data(speaks),
        }
    }

    /// Whether everybody who has answered counts against the gate, at the end of the first wave or of the rollout: however few
    /// they are, that is no success, and nobody is left who could show that it works. Who gives no evidence has its own gate.
    fn is_everybody(&self) -> bool {
        let facts = self.facts;
        let is_over = facts.at_end && (facts.is_first || facts.scope == ScopeAt::All);
        let is_raised = facts.raised.iter().any(|(gate, ..)| *gate == self.gate);
        let is_asked = super::counts_members(self.config.kind) && !is_raised;
        let all = self.bad > 0 && self.bad == self.count.eligible && self.bad >= facts.shown;
        is_over && is_asked && all && !seeded!(facts.faults, SmallFaultPasses)
    }

    /// Whether most of those who have answered count against the gate then, more than its ratio allows, and are too few for it
    /// all the same: two of three are no success either. In a wave a score decides that by itself, and asks further members if
    /// it cannot.
    fn is_most(&self) -> bool {
        let (facts, bad, of) = (self.facts, self.bad, self.count.eligible);
        if !facts.at_end || !facts.is_first && facts.scope != ScopeAt::All {
            return false;
        }
        let is_raised = facts.raised.iter().any(|(gate, ..)| *gate == self.gate);
        let most = bad >= 2 && bad > of / 2 && bad > facts.shown / 2;
        let too_few = |test| match test {
            Test::Percent { over, at_least } => {
                over.is_exceeded_by(bad, of) && (bad < at_least || of < self.config.min_sample)
            }
            _ => false,
        };
        let mut tests = self.tests().map(|(test, _)| test);
        let is_asked = super::counts_members(self.config.kind) && !is_raised;
        let asks = if facts.scope == ScopeAt::All { tests.any(too_few) } else { tests.all(too_few) };
        is_asked && most && asks
    }

    /// The gate's tests, or what replaces them.
    fn tests(&self) -> impl Iterator<Item = (Test, &'a Boundaries)> {
        let raised = self.facts.raised.iter().find(|(gate, _, _)| *gate == self.gate);
        let raised =
            raised.map(|(_, over, at_least)| (Test::Percent { over: *over, at_least: *at_least }, &PLAIN));
        let own_ones = if raised.is_some() { 0 } else { usize::MAX };
        let boundaries = self.facts.plan.boundaries.get(self.gate.index());
        let boundaries = boundaries.map_or(&[][..], |boundaries| &**boundaries);
        let own = self.config.tests.iter().copied().zip(boundaries);
        raised.into_iter().chain(own.take(own_ones))
    }

    fn test(&self, test: &Test, boundaries: &Boundaries) -> Said {
        let (bad, of) = (self.bad, self.count.eligible);
        let said = |fails, limit| if fails { Said::Fails(limit) } else { Said::Passes };
        match *test {
            _ if of == 0 => Said::Nothing,
            Test::Count { over } => said(bad > over, Limit::Count(over)),
            Test::Hard { failures } => {
                let all = self.count.bad == of && of >= u32::from(failures) && self.facts.well == 0;
                said(all, Limit::None)
            }
            Test::Percent { .. } if seeded!(self.facts.faults, PercentIgnored) => Said::Passes,
            Test::Percent { over, at_least } if of >= self.config.min_sample => {
                said(over.is_exceeded_by(bad, of) && bad >= at_least, Limit::Ratio(over))
            }
            Test::Bound { over, .. } if of >= self.config.min_sample => {
                self.bound(boundaries).map_or(Said::Nothing, |limit| said(bad >= limit, Limit::Ratio(over)))
            }
            Test::Sequential { acceptable, bad, .. } => self.sequential(acceptable, bad, boundaries),
            Test::Bound { .. } | Test::Compare { .. } | Test::Percent { .. } => Said::Nothing,
        }
    }

    /// The least `k` that fails; none where the bound is not looked at.
    fn bound(&self, boundaries: &Boundaries) -> Option<u32> {
        let Boundaries::Bound { sizes, limits } = boundaries else { return None };
        let is_elsewhere = self.facts.wave.is_some() && limits::bound_is_cumulative(self.config);
        if is_elsewhere {
            return None;
        }
        bound::limit_at(sizes, limits, self.offered())
    }

    fn sequential(&self, acceptable: Ppm, bad: Ppm, boundaries: &Boundaries) -> Said {
        let Boundaries::Sequential { weight, waves, all, grown } = boundaries else { return Said::Nothing };
        let limit = match self.facts.wave {
            Some(wave) => waves.get(wave.index()).copied(),
            None => Some(*all),
        };
        let Some(limit) = limit else { return Said::Nothing };
        let limit = limit_of(self.offered(), self.planned(), limit, grown, *weight);
        let score = self.score(*weight, limit);
        let told = Limit::Score { score, limit, acceptable, bad };
        let was_clear = self.count.eligible.saturating_sub(self.count.bad) >= 40;
        if score >= limit && !(seeded!(self.facts.faults, AbsorbingClear) && was_clear) {
            return Said::Fails(told);
        }
        if self.is_undecided(*weight) { Said::Undecided(told) } else { Said::Passes }
    }

    /// The score of the run around who has just changed: only who begins to count against a gate raises one. Had those been
    /// well that the control group lets expect in it, each would have taken off one instead of adding its weight. Of those whose
    /// answer is awaited nothing is expected: at most so many of a run are counted as have answered in the scope.
    fn score(&self, weight: i32, limit: i32) -> i32 {
        let run = self
            .facts
            .neighbours
            .and_then(|neighbours| neighbours.run(self.facts, self.gate, self.config, weight, limit));
        let Some(run) = run else { return 0 };
        let expected = self.facts.expected.get(self.gate.index()).copied().unwrap_or_default();
        run.score_beyond(weight, expected.among(run.members.min(expected.of))).max(0)
    }

    /// Members that take part, and those that will once they answer.
    fn offered(&self) -> u32 {
        self.count.eligible.saturating_add(self.count.awaited)
    }

    /// Members whom the limit was computed for.
    fn planned(&self) -> u32 {
        let wave = self.facts.wave.and_then(|wave| self.facts.plan.waves.get(wave.index()));
        let Some(wave) = wave else { return self.facts.plan.members };
        let lent = match self.config.undecided {
            Undecided::Hold => 0,
            Undecided::Stretch { max } => u32::from(max),
        };
        (wave.end - wave.first).saturating_add(lent)
    }

    /// Whether a wave ends with what is more like bad than like acceptable, in it and in the rollout so far.
    fn is_undecided(&self, weight: i32) -> bool {
        let Some(overall) = self.facts.overall.get(self.gate.index()) else { return false };
        let expected = among(self.facts.expected_overall, self.gate, overall.eligible);
        self.facts.at_end
            && self.facts.wave.is_some()
            && is_more_like_bad(self.bad, self.count.eligible, weight)
            && is_more_like_bad(overall.bad.saturating_sub(expected), overall.eligible, weight)
    }

    /// What it means that nobody can say anything. A first wave whose members are unverified, none of them well, is no
    /// success whatever the ratio is (R29).
    fn without_data(&self, speaks: bool) -> Option<Evidence> {
        let facts = self.facts;
        let is_first = facts.at_end && facts.is_first && facts.well == 0 && facts.settled > 0;
        let is_blind = match self.config.kind {
            GateKind::Unverified => self.count.bad > 0,
            _ => !speaks,
        };
        if !is_first || !is_blind || self.config.no_data == NoData::Pass {
            return None;
        }
        let blind = match self.config.kind {
            GateKind::Unverified => self.count.bad,
            _ => facts.settled.saturating_sub(self.count.eligible),
        };
        let test = self.config.tests.first().map_or(TestKind::Percent, Test::kind);
        let evidence = self.evidence(Verdict::NoData, test, Limit::None);
        Some(Evidence { blind, of: facts.settled, ..evidence })
    }

    fn evidence(&self, verdict: Verdict, test: TestKind, limit: Limit) -> Evidence {
        Evidence {
            bad: self.count.bad,
            of: self.count.eligible,
            excused: self.count.excused,
            expected: self.expected,
            limit,
            ..self.facts.evidence(self.config, verdict, test)
        }
    }
}
