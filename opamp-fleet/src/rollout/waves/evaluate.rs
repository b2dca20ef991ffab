//! The verdict on a wave at its end, and on the rollout at the end of its bake (R40, R44, R48).

use super::answered;
use crate::rollout::control::ENGINE;
use crate::rollout::engine::{Engine, Run, index_of};
use crate::rollout::gates::{self, Evidence, GateConfig, GateKind, NoData, Severity, TestKind, Verdict};
use crate::rollout::journal::{CountdownIx, Entry};
use crate::rollout::members::Row;
use crate::rollout::{AlertKind, MemberState, PauseReason, Reason, RolloutState, Time, WaveIx, WaveState};

/// Where an undecided wave gets further members from.
enum Lender {
    /// Nowhere, though there are members left to protect.
    Cannot,
    /// The next wave.
    Next,
    /// Nobody is left to protect.
    Nobody,
}

impl Lender {
    const fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

impl Engine {
    /// Asks the gates at the end of a wave. Providers of verdicts are asked first and waited for.
    pub(super) fn evaluate(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        if self.state.wave(ix).waiting() > 0 {
            self.dwell_anew(ix, run);
            self.set_wave(ix, WaveState::Dispatching, Reason::MemberQueuedAgain, run);
            return;
        }
        if self.waits_for_others(ix) && self.is_nobody_well(ix) {
            return;
        }
        let since = self.state.wave(ix).entered;
        self.follow_leaving(ix, since);
        if self.waits_for_graces(ix) || self.asks(ix, since, run) {
            return;
        }
        let said = self.verdicts(ix, None, true, run.now);
        if self.waits_for_others(ix) && said.iter().any(|evidence| evidence.test == TestKind::Hard) {
            return;
        }
        if self.act_on_failures(&said, run) {
            return;
        }
        let acting: Vec<_> = said.into_iter().filter(|evidence| self.has_say(evidence)).collect();
        let gravest = |verdict| acting.iter().find(|evidence| evidence.verdict == verdict).cloned();
        if let Some(evidence) = gravest(Verdict::Error) {
            self.hold(ix, Reason::ProviderError, evidence, run);
        } else if let Some(evidence) = acting.iter().find(|evidence| self.holds_undecided(evidence)).cloned()
        {
            self.hold(ix, Reason::Inconclusive, evidence, run);
        } else if let Some(evidence) = gravest(Verdict::Inconclusive) {
            self.undecided_wave(ix, evidence, run);
        } else if let Some(evidence) = gravest(Verdict::NoData) {
            self.hold(ix, Reason::NoData, evidence, run);
        } else {
            self.pass(ix, run);
        }
    }

    /// Whether somebody of the first wave who came back, or was heard late, is in flight and may yet show that it works. If an
    /// operator has ended the dwell nobody is waited for once somebody has answered.
    pub(crate) fn waits_for_others(&self, ix: WaveIx) -> bool {
        let wave = self.state.wave(ix);
        let is_over = wave.state == WaveState::Evaluating
            && (wave.reason == Reason::DwellOver || answered(&wave.by_state) == 0);
        is_over && ix == self.state.first_wave() && wave.in_flight > wave.count(MemberState::RollbackOffered)
    }

    fn is_nobody_well(&self, ix: WaveIx) -> bool {
        let wave = self.state.wave(ix);
        wave.count(MemberState::Verified) + wave.count(MemberState::AlreadyCurrent) == 0
    }

    /// Whether answers of providers are outstanding. They are asked once for each evaluation.
    fn asks(&mut self, ix: WaveIx, since: Time, run: &mut Run<'_>) -> bool {
        let evaluation = (ix, since);
        if self.volatile.asked != Some(evaluation) {
            self.volatile.asked = Some(evaluation);
            self.volatile.readings.ask(&self.plan, ix, run.now, &mut run.out.acts);
        }
        self.volatile.readings.waits(&self.plan, ix)
    }

    /// Does what failed gates lead to, the gravest first; whether there was any that acts.
    fn act_on_failures(&mut self, said: &[Evidence], run: &mut Run<'_>) -> bool {
        let failed = said.iter().filter(|evidence| evidence.verdict == Verdict::Fail);
        let mut failed: Vec<_> = failed
            .map(|evidence| (self.severity(evidence), evidence))
            .filter(|(severity, evidence)| {
                *severity != Severity::Observe || self.said_before(evidence).is_none()
            })
            .collect();
        failed.sort_by_key(|(severity, _)| std::cmp::Reverse(severity.rank()));
        let acts = failed.iter().any(|(severity, _)| *severity != Severity::Observe);
        for (severity, evidence) in failed {
            self.act(evidence.clone(), severity, run);
        }
        acts
    }

    /// Whether what is no failure changes anything: an observing gate never does, one without data only if it is set to.
    fn has_say(&self, evidence: &Evidence) -> bool {
        let Some(config) = self.config(evidence) else { return evidence.verdict != Verdict::NoData };
        let observes = !config.acts() && config.kind != GateKind::Unverified;
        match evidence.verdict {
            Verdict::Pass | Verdict::Fail => false,
            Verdict::Inconclusive => !observes,
            Verdict::Error => !observes && config.on_error == NoData::Hold,
            Verdict::NoData => !observes && config.no_data == NoData::Hold,
        }
    }

    /// Whether an undecided gate asks for a decision at once, instead of for more members.
    fn holds_undecided(&self, evidence: &Evidence) -> bool {
        let stretches = || self.config(evidence).and_then(|config| gates::stretches(config, evidence));
        evidence.verdict == Verdict::Inconclusive && stretches().is_none()
    }

    fn config(&self, evidence: &Evidence) -> Option<&GateConfig> {
        index_of(&self.plan, evidence).and_then(|gate| self.plan.gates.get(gate.index()))
    }

    /// The wave waits for a decision.
    fn hold(&mut self, ix: WaveIx, reason: Reason, evidence: Evidence, run: &mut Run<'_>) {
        let line = evidence.to_string();
        self.record(Entry::Gate(Box::new(evidence)), run);
        self.set_wave(ix, WaveState::Held, reason, run);
        self.alert(AlertKind::Paused, Some(ix), &line, run);
    }

    /// What was seen is more like bad than like acceptable and decides nothing yet: further members join one at a time.
    fn undecided_wave(&mut self, ix: WaveIx, evidence: Evidence, run: &mut Run<'_>) {
        let most = self.config(&evidence).and_then(|config| gates::stretches(config, &evidence)).unwrap_or(0);
        let lent = self.state.wave(ix).lent;
        // What shows only some time after members have settled would be told by those who join when it is too late for them.
        let is_late = !gates::is_known_at_once(evidence.gate) && evidence.bad >= 2;
        match self.lender(ix) {
            Lender::Next if lent < most && !is_late => {
                if lent == 0 {
                    // Why the wave grows; nobody is asked to decide about it.
                    self.record(Entry::Gate(Box::new(evidence)), run);
                }
                self.record(Entry::Stretched { wave: ix, by: 1 }, run);
                self.record(Entry::Window { wave: ix, to: 1 }, run);
                self.dwell_anew(ix, run);
                self.set_wave(ix, WaveState::Dispatching, Reason::Stretched, run);
            }
            // Where nobody is left to protect, most of those who answered have to have failed.
            lender if evidence.bad >= 2 && (!lender.is_nobody() || evidence.bad > evidence.of / 2) => {
                self.hold(ix, Reason::Inconclusive, evidence, run);
            }
            Lender::Next | Lender::Cannot | Lender::Nobody => {
                let line = evidence.to_string();
                self.record(Entry::Gate(Box::new(evidence)), run);
                self.set_wave(ix, WaveState::Passed, Reason::Inconclusive, run);
                self.alert(AlertKind::PassedUndecided, Some(ix), &line, run);
            }
        }
    }

    fn lender(&self, ix: WaveIx) -> Lender {
        let later = self.state.waves.iter().skip(ix.index() + 1);
        let left: u32 = later.map(super::Wave::waiting).sum();
        if left == 0 {
            return Lender::Nobody;
        }
        let mut waves = self.state.waves.iter().zip(&self.plan.waves).skip(ix.index() + 1);
        // A wave of which all were lent before has nobody left to lend.
        let Some((next, plan)) = waves.find(|(wave, _)| wave.first < wave.end) else { return Lender::Cannot };
        let can = plan.zone.is_none() && plan.ring.is_none() && !plan.manual && !plan.approval;
        let has = next.state == WaveState::Pending && next.cursor < next.end && next.requeued.is_empty();
        if can && has { Lender::Next } else { Lender::Cannot }
    }

    fn pass(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        let wave = self.state.wave(ix);
        let (since, is_over) = (wave.entered, wave.reason == Reason::DwellOver);
        // Whoever it waited for has been watched by nobody yet.
        let is_watched =
            |row: &Row| row.wave != ix || row.state != MemberState::Verified || row.since <= since;
        let is_fresh =
            is_over && ix == self.state.first_wave() && !self.state.members.rows.iter().all(is_watched);
        if is_fresh || wave.lent > 0 && wave.reason == Reason::AllSettled {
            self.soak_for_window(ix, run);
        } else {
            self.set_wave(ix, WaveState::Passed, Reason::GatesPass, run);
        }
    }

    /// The bake: gates stay armed over all waves, and are asked once more at its end.
    pub(super) fn bake_step(&mut self, run: &mut Run<'_>) -> bool {
        self.offer_rollbacks_of_leavers(run);
        let bake = self.state.bake;
        if !bake.is_running() {
            self.countdown(CountdownIx::Bake, bake.run(run.now), run);
        }
        let is_open = self.state.in_flight() > 0 || self.state.members_in(MemberState::RollbackQueued) > 0;
        let over = self.state.bake.ends_at().filter(|at| *at <= run.now && !is_open);
        let Some(over) = over else { return false };
        self.follow_leaving(WaveIx::TAIL, over);
        if self.may_be_away(WaveIx::TAIL, over) {
            return false;
        }
        let since = self.state.entered;
        if self.asks(WaveIx::TAIL, since, run) {
            return false;
        }
        let said = self.verdicts(WaveIx::TAIL, None, true, run.now);
        if self.act_on_failures(&said, run) {
            return true;
        }
        // An undecided sequential test protects nobody any more: that was told when the last wave passed.
        let asks = |evidence: &Evidence| {
            evidence.verdict != Verdict::Inconclusive || evidence.test != TestKind::Sequential
        };
        let open = said.into_iter().find(|evidence| self.has_say(evidence) && asks(evidence));
        if let Some(evidence) = open {
            self.record(Entry::Gate(Box::new(evidence.clone())), run);
            self.pause(PauseReason::Inconclusive, Reason::Inconclusive, Some(evidence), run);
        } else {
            self.end(RolloutState::Succeeded, Reason::BakeOver, ENGINE, run);
        }
        true
    }
}
