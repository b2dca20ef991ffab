//! What a gate's verdict leads to (R65): observe, hold, pause, abort, roll back.

use super::answered;
use crate::rollout::control::ENGINE;
use crate::rollout::engine::{Engine, Run, State, index_of};
use crate::rollout::gates::{
    self, Evidence, Facts, GateCount, GateKind, Neighbours, ScopeAt, Severity, TestKind, Verdict,
};
use crate::rollout::journal::Entry;
use crate::rollout::{
    Act, Alert, AlertKind, MemberIx, MemberState, Outcome, PauseReason, Reason, RolloutState, Scope, Time,
    UnverifiedPolicy, WaveIx, WaveState,
};

impl Engine {
    /// Asks the gates after a member of this wave has changed, or a value has come (no member).
    pub(crate) fn judge_wave(&mut self, wave: WaveIx, member: Option<MemberIx>, run: &mut Run<'_>) {
        let is_judged = matches!(
            self.state.state,
            RolloutState::Running | RolloutState::Paused | RolloutState::Baking | RolloutState::Aborting
        );
        // Without anything that counts against a gate no gate can fail.
        let is_quiet = self.state.overall.iter().all(|count| count.bad == 0) && member.is_some();
        if !is_judged || is_quiet {
            return;
        }
        for evidence in self.verdicts(wave, member, false, run.now) {
            let acts = match evidence.verdict {
                Verdict::Fail => true,
                Verdict::Inconclusive => evidence.gate == GateKind::MassDisconnect,
                Verdict::Pass | Verdict::NoData | Verdict::Error => false,
            };
            let severity = self.severity(&evidence);
            if acts && !self.stands(&evidence, severity) {
                self.act(evidence, severity, run);
            }
        }
    }

    /// What gates say that is not "pass": of a wave, of all waves, and of failure domains, that of the member if it is about
    /// one that has changed.
    pub(super) fn verdicts(
        &self,
        wave: WaveIx,
        member: Option<MemberIx>,
        at_end: bool,
        now: Time,
    ) -> Vec<Evidence> {
        let state = &self.state;
        let rows = &state.members.rows;
        let neighbours = member.map(|member| Neighbours { rows, at: member.index() });
        let zone = member.map(|member| state.members.row(member).zone);
        let mut said = Vec::new();
        let first = state.first_wave();
        let expected_overall = &*state.expected(&self.plan, None);
        if wave != WaveIx::TAIL {
            let of = state.wave(wave);
            let facts = self.facts(ScopeAt::Wave(wave), wave == first, &of.gates, &of.by_state, now);
            let expected = &*state.expected(&self.plan, Some(wave));
            let facts = Facts { expected, expected_overall, ..facts };
            said.extend(gates::judge(&Facts { wave: Some(wave), neighbours, at_end, ..facts }));
        }
        let at_end = at_end && wave == WaveIx::TAIL;
        let is_first = first == WaveIx::TAIL;
        let facts = self.facts(ScopeAt::All, is_first, &state.overall, state.total.by_state(), now);
        said.extend(gates::judge(&Facts { expected: expected_overall, neighbours, at_end, ..facts }));
        let zones = state.zones.iter().filter(|count| zone.is_none_or(|zone| count.zone == zone));
        for count in zones {
            if let Some(name) = state.members.zones.get(count.zone.index()) {
                let scope = ScopeAt::Zone(name.clone());
                let facts = self.facts(scope, false, &count.gates, &count.by_state, now);
                said.extend(gates::judge(&Facts { expected: expected_overall, neighbours, ..facts }));
            }
        }
        said
    }

    /// What gates are judged by in a scope with these counts and these members by state. In the first one nobody is well
    /// without evidence.
    fn facts<'a>(
        &'a self,
        scope: ScopeAt,
        is_first: bool,
        counts: &'a [GateCount],
        by_state: &[u32; MemberState::ALL.len()],
        now: Time,
    ) -> Facts<'a> {
        let state = &self.state;
        let count = |member: MemberState| by_state[member.index()];
        let unverified = count(MemberState::Unverified);
        let is_unverified_well = self.plan.settings.unverified == UnverifiedPolicy::Success && !is_first;
        Facts {
            plan: &self.plan,
            scope,
            wave: None,
            is_first,
            counts,
            overall: &state.overall,
            well: count(MemberState::Verified) + if is_unverified_well { unverified } else { 0 },
            settled: answered(by_state),
            shown: answered(by_state) + count(MemberState::AlreadyCurrent),
            neighbours: None,
            at_end: false,
            waived: state.waived,
            expected: &[],
            expected_overall: &[],
            outside: (self.outside.total, self.outside.away),
            raised: &state.raised,
            readings: &self.volatile.readings,
            now,
            faults: self.faults,
        }
    }

    /// Whether the gate has said this before, nobody has decided about it, and nothing is left to be done about it. Twice as
    /// many that count against it are said again: so much the journal has of how bad it was, however many fail in the end.
    fn stands(&self, evidence: &Evidence, severity: Severity) -> bool {
        self.said_before(evidence).is_some_and(|before| {
            let is_known = evidence.bad < before.bad.saturating_mul(2) && !self.has_effect(severity);
            evidence.bad <= before.bad || is_known
        })
    }

    /// What the gate said before in this scope, with the same verdict.
    pub(super) fn said_before(&self, evidence: &Evidence) -> Option<&Evidence> {
        self.state.fired.iter().find(|fired| {
            fired.gate == evidence.gate
                && fired.name == evidence.name
                && fired.scope == evidence.scope
                && fired.verdict == evidence.verdict
        })
    }

    /// Whether what a verdict leads to would change anything in the rollout's state.
    fn has_effect(&self, severity: Severity) -> bool {
        match severity {
            Severity::Observe => false,
            Severity::Hold => self.acts() && self.held().is_none(),
            Severity::Pause => self.acts(),
            Severity::Abort => self.acts() || self.is_paused_by_itself(),
            Severity::RollBack(_) | Severity::RollBackWave => {
                self.acts() || self.is_paused_by_itself() || self.state.state == RolloutState::Aborting
            }
        }
    }

    fn acts(&self) -> bool {
        matches!(self.state.state, RolloutState::Running | RolloutState::Baking)
    }

    /// While an operator has paused it, gates only tell.
    fn is_paused_by_itself(&self) -> bool {
        self.state.state == RolloutState::Paused && self.state.pause != Some(PauseReason::Operator)
    }

    /// What a verdict leads to.
    pub(crate) fn severity(&self, evidence: &Evidence) -> Severity {
        let gate = index_of(&self.plan, evidence);
        let first = self.state.first_wave();
        let is_first = evidence.scope == ScopeAt::Wave(first);
        let first = self.state.wave(first);
        // Once it has passed it speaks for the others no more: that all of it fail late is no total fault while they are well.
        let by_state = if first.is_over() { self.state.total.by_state() } else { &first.by_state };
        let of = |state: MemberState| by_state[state.index()];
        let bad = || MemberState::ALL.into_iter().filter(|state| state.outcome() == Outcome::Bad).map(of);
        let nobody_well = of(MemberState::Verified) + of(MemberState::Unverified) == 0
            && bad().sum::<u32>() + of(MemberState::Backoff) > 0;
        let shown = answered(by_state) + of(MemberState::AlreadyCurrent);
        // As many as stop a total fault, or all there are when nobody of it is waited for any more.
        let is_over = evidence.test == TestKind::Hard || first.is_settled();
        let enough = evidence.bad >= 3 || evidence.bad > 0 && is_over;
        let is_everybody = is_first && enough && evidence.bad == evidence.of && evidence.bad >= shown;
        // What cannot be verified is never enough for the first wave, whoever else is well in it.
        let all_failed = match evidence.gate {
            GateKind::Unverified => is_first,
            _ => nobody_well || is_everybody,
        };
        // `mass-disconnect` may speak without standing in the plan.
        gate.and_then(|gate| self.plan.gates.get(gate.index()))
            .map_or(Severity::Hold, |config| gates::severity(config, all_failed))
    }

    /// What gates said that somebody has to decide about before the rollout goes on.
    pub(crate) fn undecided(&self) -> Option<&Evidence> {
        self.all_undecided().next()
    }

    pub(crate) fn all_undecided(&self) -> impl Iterator<Item = &Evidence> {
        self.state.fired.iter().filter(|fired| {
            let observes = fired.verdict == Verdict::Fail && self.severity(fired) == Severity::Observe;
            let is_waived =
                index_of(&self.plan, fired).is_some_and(|gate| self.state.waived & gate.bit() != 0);
            !observes && !is_waived && !self.state.is_being_decided(fired)
        })
    }

    /// Records what a gate said, and does what that leads to in the rollout's state. Somebody is told when it begins.
    pub(super) fn act(&mut self, evidence: Evidence, severity: Severity, run: &mut Run<'_>) {
        let is_new = self.said_before(&evidence).is_none();
        self.record(Entry::Gate(Box::new(evidence.clone())), run);
        if is_new && severity != Severity::Observe {
            self.alert(AlertKind::Gate, self.state.current(), &evidence.to_string(), run);
        }
        if self.has_effect(severity) {
            self.act_at_once(evidence, severity, run);
        }
    }

    fn act_at_once(&mut self, evidence: Evidence, severity: Severity, run: &mut Run<'_>) {
        match severity {
            Severity::Observe => {}
            Severity::Hold => self.hold_or_pause(evidence, run),
            Severity::Pause => self.pause(PauseReason::Gate, Reason::GateFailed, Some(evidence), run),
            Severity::Abort => {
                let entry = self.winding_down(RolloutState::Aborted, Reason::GateFailed, ENGINE, run.now);
                let entry = super::super::journal::RolloutEntry { evidence: Some(evidence), ..entry };
                self.stop_with(entry, run);
            }
            Severity::RollBack(scope) => {
                self.roll_back(scope, Reason::GateFailed, ENGINE, Some(evidence), run);
            }
            Severity::RollBackWave => {
                let scope = match evidence.scope {
                    ScopeAt::Wave(wave) => Scope::Wave(wave),
                    ScopeAt::All | ScopeAt::Zone(_) => Scope::All,
                };
                self.roll_back(scope, Reason::GateFailed, ENGINE, Some(evidence), run);
            }
        }
    }

    /// A gate holds the wave whose turn it is; where there is none to hold, the rollout pauses. A wave that an operator
    /// leaves out is not held: it stays left out over a pause, and would not over a hold.
    fn hold_or_pause(&mut self, evidence: Evidence, run: &mut Run<'_>) {
        let wave = self.state.current().filter(|_| self.state.state == RolloutState::Running);
        let wave = wave.filter(|wave| !self.state.wave(*wave).is_left_out());
        let held = wave.map(|wave| (wave, self.state.wave(wave).state));
        match held {
            Some((_, WaveState::Held)) => {}
            Some((
                wave,
                WaveState::Dispatching | WaveState::Settling | WaveState::Soaking | WaveState::Evaluating,
            )) => {
                self.set_wave(wave, WaveState::Held, Reason::GateFailed, run);
            }
            _ => self.pause(PauseReason::Gate, Reason::GateFailed, Some(evidence), run),
        }
    }

    pub(crate) fn alert(&mut self, kind: AlertKind, wave: Option<WaveIx>, text: &str, run: &mut Run<'_>) {
        let alert = Alert { kind, rollout: self.plan.id, wave, at: run.now, text: text.into() };
        run.out.acts.push(Act::Alert(Box::new(alert)));
    }
}

impl State {
    /// Whether it is a test that was undecided at the end of a wave, and further members decide it, not people.
    pub(crate) fn is_being_decided(&self, fired: &Evidence) -> bool {
        let ScopeAt::Wave(wave) = fired.scope else { return false };
        let wave = self.wave(wave);
        let is_held = wave.state == WaveState::Held && wave.reason == Reason::Inconclusive;
        fired.verdict == Verdict::Inconclusive && fired.test == TestKind::Sequential && !is_held
    }
}
