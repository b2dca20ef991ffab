//! What gates say of counts and readings, in all scopes.

mod monte_carlo;
mod readings;
mod windows;

use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall, pb};

use super::*;
use crate::faults::Faults;
use crate::rollout::members::Row;
use crate::rollout::plan::{Candidate, FleetSizes, PlanRequest, Target, WavePlan};
use crate::rollout::stats::Ppm;
use crate::rollout::{GateIx, MemberState, Reason, RolloutId, Scope, WaveIx};
use crate::{AgentFacts, ConfigLimits, ConfigMap, Liveness, Selector};

const NOW: Time = Time(1_700_000_000_000);

/// A plan for waves of these sizes, of which only gates and their limits matter.
fn plan(gates: impl IntoIterator<Item = GateConfig>, waves: &[u32]) -> Plan {
    let object = pb::AgentConfigObject::default();
    let map = pb::AgentConfigMap { config_map: [("main.yaml".to_owned(), object)].into_iter().collect() };
    let config = ConfigMap::new(map, &ConfigLimits::default()).unwrap();
    let selector = Selector::default();
    let facts = AgentFacts {
        capabilities: AgentCapabilities::ACCEPTS_REMOTE_CONFIG,
        liveness: Liveness::Connected,
        ..AgentFacts::expected(AgentId::from_bytes([1; 16]), InstanceUid::from_bytes([1; 16]), Wall(NOW.0))
    };
    let request = PlanRequest {
        override_reason: Some("a test".into()),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    let one = std::iter::once(Candidate::new(&facts));
    let (plan, _) = Plan::make(request, one, FleetSizes::default(), NOW).unwrap();
    let gates: Box<[GateConfig]> = gates.into_iter().collect();
    let members = waves.iter().sum();
    let boundaries = boundaries(&gates, waves, members, 1);
    let mut end = 0;
    let planned = waves.iter().map(|size| {
        let first = end;
        end += size;
        WavePlan { first, end, ..plan.waves[0].clone() }
    });
    Plan { waves: planned.collect(), members, gates, boundaries, ..plan }
}

/// One gate with its counts; everything else is as if there were nothing.
#[derive(Clone)]
struct Scene {
    plan: Plan,
    counts: Vec<GateCount>,
    overall: Vec<GateCount>,
    /// Members in the order of the plan, of which the first has just changed.
    rows: Vec<Row>,
    readings: Readings,
    scope: ScopeAt,
    well: u32,
    shown: u32,
    at_end: bool,
    waived: u16,
    control: (u32, u32),
    outside: (u32, u32),
    raised: Vec<(GateIx, Ppm, u32)>,
}

impl Scene {
    fn new(gates: impl IntoIterator<Item = GateConfig>, waves: &[u32]) -> Self {
        let plan = plan(gates, waves);
        let counts = vec![GateCount::default(); plan.gates.len()];
        Self {
            overall: counts.clone(),
            counts,
            plan,
            rows: Vec::new(),
            readings: Readings::default(),
            scope: ScopeAt::Wave(WaveIx(0)),
            well: 1,
            shown: 3,
            at_end: false,
            waived: 0,
            control: (0, 0),
            outside: (0, 0),
            raised: Vec::new(),
        }
    }

    /// The first gate counts `bad` of `of`, in the wave and in all: they stand in a row.
    fn of(kind: GateKind, bad: u32, of: u32) -> Self {
        Self::new([GateConfig::of(kind)], &[40, 210, 250, 500]).counting(bad, of)
    }

    fn counting(mut self, bad: u32, of: u32) -> Self {
        let count = GateCount { bad, eligible: of, ..GateCount::default() };
        (self.counts[0], self.overall[0]) = (count, count);
        self.in_a_row(bad, of)
    }

    /// So many members in a row, of which so many are against the first gate: the first, the last, and others between them.
    fn in_a_row(mut self, bad: u32, of: u32) -> Self {
        let flags = Flags::REPORTS_STATUS | Flags::REPORTS_HEALTH | Flags::EXACT_EFFECTIVE;
        let well = testing::row(MemberState::Verified, Reason::Reported, flags);
        self.rows = vec![well; of as usize];
        for failure in 0..bad {
            let at = failure * of.saturating_sub(1) / (bad - 1).max(1);
            self.rows[at as usize].bad = 1;
        }
        self
    }

    fn said(&self) -> Vec<Evidence> {
        let expected = |counts: &[GateCount]| -> Vec<Expected> {
            counts.iter().map(|count| Expected::new(count, 0, self.control)).collect()
        };
        let wave = match self.scope {
            ScopeAt::Wave(wave) => Some(wave),
            ScopeAt::All | ScopeAt::Zone(_) => None,
        };
        judge(&Facts {
            plan: &self.plan,
            scope: self.scope.clone(),
            wave,
            counts: &self.counts,
            overall: &self.overall,
            is_first: wave == Some(WaveIx(0)),
            well: self.well,
            settled: self.counts.iter().map(|count| count.eligible).max().unwrap_or(0).max(3),
            shown: self.shown,
            neighbours: Some(Neighbours { rows: &self.rows, at: 0 }),
            at_end: self.at_end,
            waived: self.waived,
            expected: &expected(&self.counts),
            expected_overall: &expected(&self.overall),
            outside: self.outside,
            raised: &self.raised,
            readings: &self.readings,
            now: NOW,
            faults: Faults::default(),
        })
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.said().into_iter().map(|evidence| evidence.verdict).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.said().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn each_gate_that_counts_members_fires_at_a_total_fault_and_not_at_noise() {
    for kind in rules::KINDS {
        let total = Scene { well: 0, ..Scene::of(kind, 30, 30) };
        assert_eq!(total.verdicts(), [Verdict::Fail], "{kind}");
        let noise = Scene { at_end: true, ..Scene::of(kind, 1, 200) };
        assert_eq!(noise.verdicts(), [], "{kind}");
        let clean = Scene { at_end: true, ..Scene::of(kind, 0, 40) };
        assert_eq!(clean.verdicts(), [], "{kind}");
    }
}

#[test]
fn one_failure_of_four_stops_nobody() {
    for kind in rules::KINDS {
        assert_eq!(Scene::of(kind, 1, 4).verdicts(), [], "{kind}");
    }
}

#[test]
fn three_of_three_failures_stop_at_once_and_one_success_disarms_that() {
    let scene = Scene { well: 0, ..Scene::of(GateKind::NothingSucceeds, 3, 3) };
    assert_eq!(scene.lines(), ["nothing-succeeds: 3 of 3 failed"]);
    assert_eq!(Scene { well: 1, ..scene.clone() }.verdicts(), []);
    assert_eq!(scene.clone().counting(3, 4).verdicts(), [], "somebody gave no evidence");
    assert_eq!(scene.counting(2, 2).verdicts(), []);
}

#[test]
fn a_percentage_needs_its_ratio_its_number_and_its_sample() {
    let unhealthy = |bad, of| {
        let gate = GateConfig {
            tests: [Test::Percent { over: Ppm::percent(5), at_least: 3 }].into(),
            ..GateConfig::of(GateKind::Unhealthy)
        };
        Scene::new([gate], &[40]).counting(bad, of).verdicts()
    };
    assert_eq!(unhealthy(3, 59), [Verdict::Fail]);
    assert_eq!(unhealthy(3, 60), [], "5 % is not more than 5 %");
    assert_eq!(unhealthy(2, 30), [], "fewer than three");
    assert_eq!(unhealthy(19, 19), [], "fewer than twenty take part");
}

#[test]
fn a_number_needs_no_ratio() {
    let gate = GateConfig { tests: [Test::Count { over: 4 }].into(), ..GateConfig::of(GateKind::Rejected) };
    let scene = Scene::new([gate], &[40]);
    assert_eq!(scene.clone().counting(4, 9).verdicts(), []);
    assert_eq!(scene.counting(5, 90).lines(), ["rejected: 5 > 4 (5 of 90)"]);
}

#[test]
fn a_wave_is_stopped_at_its_limit_and_says_what_it_is_more_like() {
    let waves = [40, 2_460, 2_500, 5_000];
    let gate = GateConfig::of(GateKind::ApplyFailed);
    let mut scene = Scene::new([gate], &waves).counting(11, 120);
    scene.scope = ScopeAt::Wave(WaveIx(1));
    let scene = scene.in_a_row(5, 7);
    assert_eq!(scene.verdicts(), []);
    assert_eq!(
        scene.in_a_row(5, 5).lines(),
        ["apply-failed: 9 % is more like 20 % than 2 % (11 of 120, score 55, limit 54)"]
    );
}

#[test]
fn all_waves_together_have_a_limit_of_their_own() {
    let scene = Scene { scope: ScopeAt::All, ..Scene::of(GateKind::ApplyFailed, 9, 600) };
    assert_eq!(scene.clone().in_a_row(5, 11).verdicts(), []);
    assert_eq!(
        scene.in_a_row(5, 10).lines(),
        [
            "apply-failed over all waves: 2 %, among neighbours more like 20 % than 2 % (9 of 600, score 50, limit 50)"
        ]
    );
}

#[test]
fn a_bound_is_looked_at_over_all_waves() {
    let mut scene = Scene::of(GateKind::ApplyFailed, 16, 300);
    for counts in [&mut scene.counts, &mut scene.overall] {
        counts[0].bad = 18;
    }
    let mut scene = scene.in_a_row(0, 300);
    assert_eq!(scene.verdicts(), [], "not in a wave");
    scene.scope = ScopeAt::All;
    assert_eq!(scene.lines(), ["apply-failed over all waves: 6 % > 2 % (18 of 300)"]);
    let mut others_awaited = scene.clone();
    others_awaited.counts[0].awaited = 3;
    assert_eq!(
        others_awaited.verdicts(),
        [],
        "19 of 318 are: of those that were offered it, not of the quickest"
    );
    scene.counts[0].bad = 17;
    assert_eq!(scene.verdicts(), [], "18 of 302 are the least that show it");
}

#[test]
fn a_bound_stays_armed_when_more_join_than_were_planned() {
    let of = |bad| {
        let scene = Scene { scope: ScopeAt::All, ..Scene::of(GateKind::ApplyFailed, bad, 2_086) };
        scene.in_a_row(0, 2_086).verdicts()
    };
    assert_eq!(of(81), []);
    assert_eq!(of(82), [Verdict::Fail], "as 41 of 1,043");
}

#[test]
fn a_wave_ends_undecided_if_it_and_the_rollout_are_more_like_bad() {
    let scene = Scene { at_end: true, ..Scene::of(GateKind::ApplyFailed, 1, 5) };
    assert_eq!(scene.lines(), ["apply-failed: undecided at 20 % (1 of 5)"]);
    let said = &scene.said()[0];
    assert_eq!(stretches(&scene.plan.gates[0], said), Some(24));
    let holds = GateConfig { undecided: Undecided::Hold, ..scene.plan.gates[0].clone() };
    assert_eq!(stretches(&holds, said), None);

    assert_eq!(Scene { at_end: false, ..scene.clone() }.verdicts(), [], "only at its end");
    assert_eq!(scene.clone().counting(0, 5).verdicts(), [], "without a failure it passes");
    assert_eq!(scene.clone().counting(3, 40).verdicts(), [], "3 of 40 are more like 2 % than 20 %");
    let mut quiet_before = scene;
    quiet_before.overall[0] = GateCount { bad: 1, eligible: 45, ..GateCount::default() };
    assert_eq!(quiet_before.verdicts(), [], "the rollout so far is more like 2 %");
}

#[test]
fn what_the_control_group_lets_expect_is_taken_off() {
    let scene = Scene::of(GateKind::DisconnectRatio, 14, 40);
    assert_eq!(scene.lines(), ["disconnect-ratio: 35 % > 20 % (14 of 40, window 300 s)"]);
    assert_eq!(
        Scene { control: (20, 4), ..scene.clone() }.lines(),
        ["disconnect-ratio: 35 % > 20 % (14 of 40, 4 expected by control, window 300 s)"]
    );
    assert_eq!(Scene { control: (20, 6), ..scene.clone() }.verdicts(), [], "8 of 40 are left");
    let one = Scene { control: (20, 1), ..scene.clone() };
    assert_eq!(one.said()[0].expected, 0, "one of twenty is chance");
    assert_eq!(Scene { control: (19, 19), ..scene }.verdicts(), [Verdict::Fail], "nineteen tell nothing");
}

#[test]
fn what_the_control_group_lets_expect_lowers_the_score_as_well() {
    let scene = Scene::of(GateKind::CrashLoop, 5, 20);
    assert_eq!(scene.lines(), ["crash-loop: 25 % is more like 20 % than 2 % (5 of 20, score 40, limit 36)"]);
    assert_eq!(Scene { control: (40, 4), ..scene }.verdicts(), [], "score 28 of 36");
}

#[test]
fn of_those_whose_answer_is_awaited_the_control_group_lets_expect_nothing() {
    let mut scene = Scene { control: (40, 4), ..Scene::of(GateKind::CrashLoop, 5, 20) };
    let awaited = scene.rows.iter_mut().filter(|row| row.bad == 0);
    awaited.for_each(|row| (row.state, row.stage) = (MemberState::Offered, MemberState::Offered));
    let count = GateCount { bad: 5, eligible: 5, awaited: 15, ..GateCount::default() };
    (scene.counts[0], scene.overall[0]) = (count, count);
    assert_eq!(scene.verdicts(), [Verdict::Fail], "a quarter of one is expected, not one");
}

#[test]
fn agents_outside_that_go_away_as_well_explain_a_disconnect() {
    let gates = [GateConfig::of(GateKind::DisconnectRatio), GateConfig::of(GateKind::MassDisconnect)];
    let scene = Scene { outside: (1_000, 200), ..Scene::new(gates, &[40]).counting(14, 40) };
    assert_eq!(scene.lines(), ["mass-disconnect: undecided at 35 % (14 of 40)"]);
    assert_eq!(severity(&scene.plan.gates[1], false), Severity::Hold);
    assert_eq!(stretches(&scene.plan.gates[1], &scene.said()[0]), None, "more members decide nothing");
    assert_eq!(Scene { outside: (1_000, 100), ..scene.clone() }.verdicts(), [Verdict::Fail]);
    assert_eq!(Scene { waived: 2, ..scene }.verdicts(), [Verdict::Fail]);
}

#[test]
fn a_waived_gate_says_nothing() {
    let scene = Scene::of(GateKind::Rejected, 30, 30);
    assert_eq!(scene.verdicts(), [Verdict::Fail]);
    assert_eq!(Scene { waived: 1, ..scene.clone() }.verdicts(), []);
    let mut here = scene;
    here.counts[0].state = GateState::Waived;
    assert_eq!(here.verdicts(), []);
    here.counts[0].state = GateState::Fired;
    assert_eq!(here.verdicts(), [Verdict::Fail], "it goes on saying so");
}

#[test]
fn a_raised_gate_is_judged_by_its_new_ratio_and_number_alone() {
    let scene = Scene::of(GateKind::ApplyFailed, 20, 100);
    assert_eq!(scene.verdicts(), [Verdict::Fail]);
    let raised = Scene { raised: vec![(GateIx(0), Ppm::percent(30), 25)], ..scene };
    assert_eq!(raised.verdicts(), []);
    assert_eq!(raised.clone().counting(24, 40).verdicts(), [], "60 %, but fewer than 25");
    assert_eq!(raised.counting(25, 80).lines(), ["apply-failed: 31 % > 30 % (25 of 80)"]);
}

#[test]
fn a_fault_of_one_of_a_thousand_failure_domains_is_found_among_the_others() {
    let zoned = GateConfig { scopes: Scopes::ZONE, ..GateConfig::of(GateKind::Rejected) };
    let mut scene = Scene::new([zoned], &[40]).counting(30, 30).in_a_row(0, 30_000);
    scene.scope = ScopeAt::Zone("eu".into());
    for (at, row) in (0..).zip(&mut scene.rows) {
        row.zone = crate::rollout::ZoneIx(at % 1_000);
        row.bad = u16::from(at % 1_000 == 0);
    }
    assert_eq!(scene.verdicts(), [Verdict::Fail]);
}

#[test]
fn a_gate_is_judged_where_it_is_counted() {
    let zoned = GateConfig { scopes: Scopes::ZONE, ..GateConfig::of(GateKind::Rejected) };
    let mut scene = Scene::new([zoned], &[40]).counting(30, 30);
    assert_eq!(scene.verdicts(), []);
    scene.scope = ScopeAt::All;
    assert_eq!(scene.verdicts(), []);
    scene.scope = ScopeAt::Zone("eu".into());
    assert!(
        scene.lines()[0].starts_with("rejected in zone eu: 100 % is more like 20 % than 2 % (30 of 30, ")
    );
}

#[test]
fn a_first_wave_of_which_nobody_is_well_or_can_say_anything_has_no_data() {
    let scene = Scene { at_end: true, well: 0, ..Scene::of(GateKind::ApplyFailed, 0, 0) };
    assert_eq!(scene.lines(), ["apply-failed: no data (3 of 3 blind)"]);
    assert_eq!(Scene { well: 1, ..scene.clone() }.verdicts(), [], "by other evidence");
    assert_eq!(Scene { scope: ScopeAt::Wave(WaveIx(1)), ..scene.clone() }.verdicts(), []);
    assert_eq!(Scene { scope: ScopeAt::All, ..scene }.verdicts(), []);
    let passes = Scene { at_end: true, well: 0, ..Scene::of(GateKind::Rejected, 0, 0) };
    assert_eq!(passes.verdicts(), [], "its policy says so");
}

#[test]
fn a_first_wave_all_of_whom_have_failed_is_no_success_however_small_it_is() {
    for kind in rules::KINDS.into_iter().filter(|kind| *kind != GateKind::Unverified) {
        let scene = Scene { at_end: true, shown: 1, ..Scene::of(kind, 1, 1) };
        assert_eq!(scene.lines(), [format!("{kind}: 1 of 1 failed")]);
        let before = Scene { at_end: false, ..scene.clone() };
        assert_eq!(before.verdicts(), [], "{kind}: another one may succeed");
        let undecided = |scene: Scene| !scene.verdicts().contains(&Verdict::Fail);
        assert!(undecided(Scene { shown: 2, ..scene.clone() }), "{kind}: another one ran it already");
        assert!(
            undecided(Scene { scope: ScopeAt::Wave(WaveIx(1)), ..scene.clone() }),
            "{kind}: others are well"
        );
        let over_all = Scene { scope: ScopeAt::All, ..scene.clone() };
        assert_eq!(over_all.lines(), [format!("{kind} over all waves: 1 of 1 failed")]);
        let raised = vec![(GateIx(0), Ppm::ALL, 1)];
        assert!(undecided(Scene { raised, ..scene }), "{kind}: somebody has decided what is too many");
        let one_of_two = Scene { at_end: true, shown: 2, ..Scene::of(kind, 1, 2) };
        assert!(undecided(one_of_two), "{kind}: the other one gives no evidence");
    }
}

#[test]
fn unverified_members_never_make_a_first_wave_a_success() {
    let scene = Scene { at_end: true, well: 0, ..Scene::of(GateKind::Unverified, 1, 2) };
    assert_eq!(scene.verdicts(), [Verdict::NoData]);
    assert_eq!(Scene { well: 1, ..scene.clone() }.verdicts(), []);
    assert_eq!(Scene { scope: ScopeAt::Wave(WaveIx(1)), ..scene.clone() }.verdicts(), []);
    assert_eq!(severity(&scene.plan.gates[0], true), Severity::Hold);
    assert_eq!(severity(&scene.plan.gates[0], false), Severity::Observe);
}

#[test]
fn a_fault_of_every_canary_rolls_back_and_of_some_pauses() {
    for kind in [GateKind::ApplyFailed, GateKind::CrashLoop, GateKind::NothingSucceeds] {
        let gate = GateConfig::of(kind);
        assert_eq!(severity(&gate, true), Severity::RollBack(Scope::All), "{kind}");
        assert_eq!(severity(&gate, false), Severity::Pause, "{kind}");
    }
}
