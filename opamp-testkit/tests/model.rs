//! Whole rollouts over model fleets: what operators of other systems have learnt the hard way, each as a rule that holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opamp_fleet::rollout::plan::{PlanRequest, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{Do, EngineSettings, Fit, Resume, RolloutState, Scope, WaveIx, WaveState};
use opamp_testkit::sim::model::draw::Purpose;
use opamp_testkit::sim::model::fleet::{FleetModel, Movement, Weights, agent_of, id_of};
use opamp_testkit::sim::model::planned::{Planned, Subject};
use opamp_testkit::sim::model::timeline::{Mark, MarkKind};
use opamp_testkit::sim::model::{Model, Operator, RunEnd, Tally};
use opamp_testkit::sim::profiles::{Mix, Profile, Share, Span, Stage};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How a rollout ended.
struct Ended {
    end: RunEnd,
    state: RolloutState,
    tally: Tally,
    applied: u32,
    failed: u32,
    length: Duration,
}

fn share(profile: Profile, share: Ppm) -> Share {
    Share { profile, share, apply: Span::between(2, 20), fails_after: None }
}

fn fleet(seed: u64, agents: u32, shares: Vec<Share>) -> FleetModel {
    FleetModel::plain(seed, agents, Mix::new(shares).unwrap())
}

fn stretched() -> EngineSettings {
    EngineSettings { fit: Fit::Stretch, ..EngineSettings::default() }
}

fn planned(fleet: &FleetModel, strategy: Strategy) -> Planned {
    let subject = Subject::new(fleet.seed, "v2").unwrap();
    let request = PlanRequest {
        strategy,
        settings: stretched(),
        override_reason: Some("a test".into()),
        ..subject.request()
    };
    Planned::make(fleet, request).unwrap()
}

fn rollout(fleet: &FleetModel, strategy: Strategy) -> Ended {
    let Planned { plan, members } = planned(fleet, strategy);
    let mut model = Model::new(fleet, plan, members, Operator::default());
    let end = model.run(14 * DAY);
    ended(&model, end)
}

fn ended(model: &Model<'_>, end: RunEnd) -> Ended {
    assert_eq!(model.engine().surprises(), 0);
    let summary = model.summary();
    Ended {
        end,
        state: model.engine().state(),
        tally: model.tally(),
        applied: summary.applied,
        failed: summary.failed,
        length: model.passed(),
    }
}

#[test]
fn a_rollout_in_which_nothing_goes_wrong_reaches_everybody() {
    let fleet = fleet(1, 200, vec![share(Profile::Well, Ppm::ALL)]);
    for strategy in [Strategy::AllAtOnce, Strategy::canary(), Strategy::Batches { size: 50 }] {
        let ended = rollout(&fleet, strategy.clone());
        assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded), "{strategy:?}");
        assert_eq!((ended.applied, ended.tally.offers), (200, 200), "{strategy:?}");
    }
}

#[test]
fn one_failure_of_four_stops_no_rollout() {
    let rate = Ppm::percent(5);
    let of = |seed| fleet(seed, 20, vec![share(Profile::Fails { rate }, Ppm::ALL)]);
    let one = (0..1_000).map(of).find(|fleet| (0..20).filter(|&agent| fleet.is_faulty(agent)).count() == 1);
    let ended = rollout(&one.unwrap(), Strategy::Batches { size: 4 });
    assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded));
    assert_eq!((ended.applied, ended.failed), (19, 1));
}

#[test]
fn a_silent_agent_blocks_no_wave() {
    for stage in [Stage::Offered, Stage::Delivered, Stage::Applying] {
        let shares =
            vec![share(Profile::Well, Ppm::percent(97)), share(Profile::Silent { stage }, Ppm::percent(3))];
        let ended = rollout(&fleet(2, 200, shares), Strategy::canary());
        assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded), "{stage:?}");
        assert!(
            ended.failed > 0 && ended.length < 12 * HOUR,
            "{stage:?}: {} after {:?}",
            ended.failed,
            ended.length
        );
    }
}

#[test]
fn agents_that_report_no_status_are_judged_by_what_they_run() {
    let ended = rollout(&fleet(3, 100, vec![share(Profile::NoStatus, Ppm::ALL)]), Strategy::canary());
    assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded));
    assert_eq!(ended.applied, 100);
}

#[test]
fn each_agent_goes_back_to_what_it_ran_before() {
    let half = |name: &str| (name.into(), Ppm::percent(50));
    let mut fleet = fleet(4, 100, vec![share(Profile::Well, Ppm::ALL)]);
    fleet.before = Weights::new(vec![half("a"), half("b")]).unwrap();
    let Planned { plan, members } = planned(&fleet, Strategy::AllAtOnce);
    let acts = vec![(HOUR / 4, Do::RollBack(Scope::All))];
    let mut model = Model::new(&fleet, plan.clone(), members, Operator { acts, reacts_after: None });
    model.run(HOUR / 5);
    assert_eq!(model.runs(&id_of(0)), Some(plan.target));
    let end = model.run(14 * DAY);
    let befores = fleet.befores();
    let mut there: BTreeMap<_, u32> = BTreeMap::new();
    for agent in 0..fleet.agents {
        let before = befores[fleet.before_of(agent)];
        assert_eq!(model.runs(&id_of(agent)), Some(before), "agent {agent}");
        *there.entry(before).or_default() += 1;
    }
    assert_eq!(there.len(), 2, "both were there");
    assert_eq!((end, model.engine().state()), (RunEnd::Ended, RolloutState::RolledBack));
}

#[test]
fn what_an_agent_went_back_from_is_not_offered_to_it_again() {
    let after = Span::seconds(30);
    let shares = vec![
        share(Profile::SelfRollingBack { after }, Ppm::percent(40)),
        share(Profile::Well, Ppm::percent(60)),
    ];
    let fleet = fleet(5, 100, shares);
    let Planned { plan, members } = planned(&fleet, Strategy::canary());
    // Gates stop it, and somebody lets it go on, again and again and in every way.
    let ways = [Resume::Retry, Resume::Skip, Resume::Plain];
    let acts = (1..60).map(|hour| (HOUR * hour, Do::Resume(ways[hour as usize % ways.len()])));
    let operator = Operator { acts: acts.collect(), reacts_after: None };
    let mut model = Model::new(&fleet, plan, members, operator);
    model.run(4 * HOUR / 5);
    let (stopped, touched) = (model.tally().first_stop, model.tally().touched);
    let end = model.run(14 * DAY);
    let ended = ended(&model, end);
    assert!(stopped.is_some() && ended.tally.touched > touched, "it went on: {touched} of {:?}", ended.tally);
    assert_eq!(ended.tally.offers, u64::from(ended.tally.touched));
}

#[test]
fn agents_that_are_away_do_not_hold_a_rollout_up() {
    let returns = Span::between(3 * 86_400, 5 * 86_400);
    let shares =
        vec![share(Profile::Well, Ppm::percent(90)), share(Profile::Offline { returns }, Ppm::percent(10))];
    let ended = rollout(&fleet(6, 200, shares), Strategy::canary());
    assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded));
    assert!(ended.length < DAY && ended.applied < 200, "{:?}", ended.length);
}

#[test]
fn agents_that_come_back_all_the_time_do_not_hold_a_rollout_up() {
    // Ten of them are in flight at any time for ten hours.
    let shares = [
        (Profile::Well, Ppm::percent(20), Span::between(2, 20)),
        (Profile::Offline { returns: Span::between(60, 36_000) }, Ppm::percent(80), Span::between(60, 120)),
    ];
    let shares = shares.map(|(profile, share, apply)| Share { profile, share, apply, fails_after: None });
    let ended = rollout(&fleet(12, 5_000, shares.into()), Strategy::canary());
    assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded));
    assert!(ended.length < 6 * HOUR, "{:?}", ended.length);
}

#[test]
fn a_total_fault_touches_three_agents_at_most_in_a_fleet_of_any_size() {
    // Canaries: one, five, 40, 40.
    for (agents, touched) in [(10, 1), (100, 3), (1_000, 3), (10_000, 3)] {
        let all = vec![share(Profile::Fails { rate: Ppm::ALL }, Ppm::ALL)];
        let ended = rollout(&fleet(7, agents, all), Strategy::canary());
        assert_eq!(ended.tally.touched, touched, "{agents} agents");
    }
}

#[test]
fn agents_that_restart_to_apply_or_poll_slowly_are_no_failures() {
    let interval = Span::seconds(300);
    for profile in
        [Profile::RestartsOnApply, Profile::Polling { interval }, Profile::Merges, Profile::NoHealth]
    {
        let ended = rollout(&fleet(8, 60, vec![share(profile.clone(), Ppm::ALL)]), Strategy::canary());
        assert_eq!((ended.end, ended.state), (RunEnd::Ended, RolloutState::Succeeded), "{profile:?}");
        assert_eq!((ended.applied, ended.failed), (60, 0), "{profile:?}");
    }
}

#[test]
fn crashes_after_applying_stop_a_rollout_and_illness_from_before_does_not() {
    let after = Span::seconds(40);
    let crashing = fleet(9, 400, vec![share(Profile::CrashLooping { after }, Ppm::ALL)]);
    let Planned { plan, members } = planned(&crashing, Strategy::canary());
    let mut model = Model::new(&crashing, plan, members, Operator::default());
    assert_eq!(model.run_until_stopped(DAY), RunEnd::Stopped);
    assert!(model.tally().touched <= 100, "{}", model.tally().touched);
    let ill = rollout(&fleet(9, 400, vec![share(Profile::IllBefore, Ppm::ALL)]), Strategy::canary());
    assert_eq!((ill.end, ill.state, ill.failed), (RunEnd::Ended, RolloutState::Succeeded, 0));
}

#[test]
fn who_reacts_to_a_wave_does_nothing_to_one_that_was_begun_already() {
    let minute = HOUR / 60;
    let fleet = fleet(13, 60, vec![share(Profile::Well, Ppm::ALL)]);
    let Planned { plan, members } = planned(&fleet, Strategy::Manual { size: 20 });
    let acts = vec![(5 * minute, Do::Advance)];
    let mut model =
        Model::new(&fleet, plan.clone(), members, Operator { acts, reacts_after: Some(10 * minute) });
    model.watch();
    assert_eq!(model.run(DAY), RunEnd::Ended);
    assert_eq!((model.engine().state(), model.tally().refused), (RolloutState::Succeeded, 0));
    let at = |wanted| {
        let is_first = |mark: &&Mark| mark.kind == MarkKind::Wave(WaveIx(0), wanted);
        model.timeline().unwrap().marks().iter().find(is_first).unwrap().at_ms
    };
    assert_eq!(at(WaveState::Dispatching), 300_000);
    let dwell = u128::from(at(WaveState::Passed) - at(WaveState::Soaking));
    assert!(dwell >= plan.waves[0].dwell.as_millis(), "{dwell} of {:?}", plan.waves[0].dwell);
}

#[test]
fn who_finds_a_rollout_paused_reacts_when_it_goes_on() {
    let minute = HOUR / 60;
    let fleet = fleet(14, 60, vec![share(Profile::Well, Ppm::ALL)]);
    let Planned { plan, members } = planned(&fleet, Strategy::Manual { size: 20 });
    let acts = vec![(5 * minute, Do::Pause), (30 * minute, Do::Resume(Resume::Plain))];
    let mut model = Model::new(&fleet, plan, members, Operator { acts, reacts_after: Some(10 * minute) });
    assert_eq!(model.run(DAY), RunEnd::Ended);
    assert_eq!((model.engine().state(), model.tally().refused), (RolloutState::Succeeded, 0));
}

#[test]
fn who_joins_while_a_rollout_runs_is_taken_in_and_who_leaves_keeps_what_it_got() {
    let moves = |percent| Some(Movement { part: Ppm::percent(percent), after: Span::between(60, 1_200) });
    let plain = fleet(15, 200, vec![share(Profile::Well, Ppm::ALL)]);
    let joined = rollout(&FleetModel { joins: moves(20), ..plain.clone() }, Strategy::canary());
    assert_eq!((joined.state, joined.applied), (RolloutState::Succeeded, 200));
    let left = FleetModel { leaves: moves(20), ..plain };
    let leavers = (0..200).filter(|&agent| left.leaves_later(agent)).count();
    assert!((20..=60).contains(&leavers), "{leavers}");
    let ended = rollout(&left, Strategy::canary());
    assert_eq!((ended.state, ended.tally.offers_back), (RolloutState::Succeeded, 0));
}

#[test]
fn who_joins_without_being_selected_is_offered_nothing() {
    let zones = [("a".into(), Ppm::percent(50)), ("b".into(), Ppm::percent(50))];
    let joins = Some(Movement { part: Ppm::percent(40), after: Span::seconds(60) });
    let plain = fleet(17, 200, vec![share(Profile::Well, Ppm::ALL)]);
    let fleet = FleetModel { zones: Weights::new(zones.into()).unwrap(), joins, ..plain };
    let is_selected = |agent: u32| fleet.zones.pick(fleet.draw().bits(agent, Purpose::Zone, 0)) == Some(0);
    let subject = Subject::new(fleet.seed, "v2").unwrap().for_agents("zone=a".parse().unwrap());
    let request = PlanRequest { settings: stretched(), ..subject.request() };
    let Planned { plan, members } = Planned::make(&fleet, request).unwrap();
    let planned = plan.members;
    let mut model = Model::new(&fleet, plan, members, Operator::default());
    assert_eq!(model.run(DAY), RunEnd::Ended);
    let touched: Vec<u32> = model.engine().touched().map(|(id, _)| agent_of(id)).collect();
    let selected: Vec<u32> = (0..200).filter(|&agent| is_selected(agent)).collect();
    assert!(planned < model.tally().touched, "some of them joined");
    assert_eq!(BTreeSet::from_iter(touched), BTreeSet::from_iter(selected));
}

#[test]
fn agents_that_give_no_evidence_hold_the_first_wave() {
    let ended = rollout(&fleet(16, 100, vec![share(Profile::Mute, Ppm::ALL)]), Strategy::canary());
    assert!(ended.tally.held && ended.tally.touched <= 5, "{:?}", ended.tally);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let of = |seed| {
        let profile = Profile::Fails { rate: Ppm::percent(2) };
        let ended = rollout(&fleet(seed, 300, vec![share(profile, Ppm::ALL)]), Strategy::canary());
        (ended.tally, ended.length)
    };
    assert_eq!(of(10), of(10));
    assert_ne!(of(10), of(11));
}
