//! What agents of each kind say, word for word.

use opamp_fleet::rollout::stats::Ppm;

use super::*;
use crate::sim::model::fleet::{config, id_of};
use crate::sim::profiles::{Mix, Share};

const HOUR_MS: u64 = 3_600_000;

/// One agent of a kind, which is offered the target under number 1 at the beginning.
struct One<'a> {
    agents: Agents<'a>,
    begins: Time,
    before: Fingerprint,
    said: Vec<String>,
}

fn fleet(profile: Profile) -> FleetModel {
    let share = Share { profile, share: Ppm::ALL, apply: Span::seconds(5), fails_after: None };
    FleetModel::plain(1, 1, Mix::new(vec![share]).unwrap())
}

impl<'a> One<'a> {
    fn new(fleet: &'a FleetModel) -> Self {
        let target = config("target").unwrap().hash().fingerprint();
        let mut agents = Agents::new(fleet, target, fleet.begins);
        agents.desire(0, 1, target, fleet.begins);
        Self { agents, begins: fleet.begins, before: fleet.befores()[0], said: Vec::new() }
    }

    /// What it says until so many milliseconds have passed.
    fn until(&mut self, ms: u64) -> Vec<&str> {
        let Self { agents, begins, before, said } = self;
        while let Some(at) = agents.next().filter(|at| at.0 <= begins.0 + ms) {
            agents.act(at, &mut |_, fact| said.push(words(&fact, *before)));
        }
        said.iter().map(String::as_str).collect()
    }

    /// It is put back under a number.
    fn put_back(&mut self, offer: u32, ms: u64) {
        self.said.clear();
        self.agents.desire(0, offer, self.before, Time(self.begins.0 + ms));
    }

    fn runs_before(&self) -> bool {
        self.agents.runs(0) == Some(self.before)
    }
}

fn words(fact: &AgentFact<'_>, before: Fingerprint) -> String {
    match fact {
        AgentFact::Capabilities(_) => "capabilities".to_owned(),
        AgentFact::Connected => "there".to_owned(),
        AgentFact::Delivered { offer } => format!("{offer} delivered"),
        AgentFact::Disconnected { .. } => "gone".to_owned(),
        AgentFact::Effective { offer, relation } => format!("{offer} {relation}"),
        AgentFact::Health { offer, healthy } => format!("{offer} {}", if *healthy { "well" } else { "ill" }),
        AgentFact::Reported { offer, hash, status, .. } => {
            format!("{offer} {status} {}", if *hash == before { "before" } else { "target" })
        }
        AgentFact::Withheld { offer, why } => format!("{offer} withheld for {why}"),
        AgentFact::Joined(candidate) => format!("joins {}", candidate.facts.id == id_of(0)),
        AgentFact::Left => "leaves".to_owned(),
        AgentFact::Removed => "not by itself".to_owned(),
    }
}

/// What an agent of a kind says within an hour.
fn said(profile: Profile) -> Vec<String> {
    let fleet = fleet(profile);
    One::new(&fleet).until(HOUR_MS).into_iter().map(str::to_owned).collect()
}

const APPLIES: [&str; 4] = ["1 delivered", "1 applying target", "1 applied target", "1 equal"];

#[test]
fn an_agent_that_is_well_applies_what_it_is_offered_and_goes_back_when_told() {
    let fleet = fleet(Profile::Well);
    let mut one = One::new(&fleet);
    assert_eq!(one.until(HOUR_MS), APPLIES);
    assert!(!one.runs_before());
    one.put_back(2, HOUR_MS);
    assert_eq!(one.until(2 * HOUR_MS), ["2 delivered", "2 applying before", "2 applied before", "2 equal"]);
    assert!(one.runs_before());
}

#[test]
fn an_agent_that_fails_says_so_and_runs_what_it_ran() {
    let fleet = fleet(Profile::Fails { rate: Ppm::ALL });
    let mut one = One::new(&fleet);
    assert_eq!(one.until(HOUR_MS), ["1 delivered", "1 applying target", "1 failed target"]);
    assert!(one.runs_before());
    assert!(one.agents.first_fault().is_some());
    assert_eq!(said(Profile::Fails { rate: Ppm(0) }), APPLIES);
}

#[test]
fn a_silent_agent_stops_where_its_kind_says() {
    assert!(said(Profile::Silent { stage: Stage::Offered }).is_empty());
    assert_eq!(said(Profile::Silent { stage: Stage::Delivered }), APPLIES[..1]);
    assert_eq!(said(Profile::Silent { stage: Stage::Applying }), APPLIES[..2]);
}

#[test]
fn agents_leave_out_what_they_do_not_report() {
    assert_eq!(said(Profile::NoStatus), ["1 delivered", "1 equal"]);
    assert_eq!(said(Profile::Merges)[3], "1 differs");
    assert_eq!(said(Profile::Mute), ["1 delivered", "1 differs"]);
}

#[test]
fn an_agent_that_restarts_reports_when_it_is_back() {
    let expected = ["1 delivered", "1 applying target", "gone", "there", "1 applied target", "1 equal"];
    assert_eq!(said(Profile::RestartsOnApply), expected);
}

#[test]
fn an_agent_that_is_away_gets_its_offer_when_it_comes() {
    let returns = Span::seconds(600);
    let fleet = fleet(Profile::Offline { returns });
    let mut one = One::new(&fleet);
    assert!(one.until(599_999).is_empty());
    let mut expected = vec!["there"];
    expected.extend(APPLIES);
    assert_eq!(one.until(HOUR_MS), expected);
}

#[test]
fn a_crash_loop_begins_after_applying_and_ends_with_the_way_back() {
    let after = Span::seconds(60);
    let fleet = fleet(Profile::CrashLooping { after });
    let mut one = One::new(&fleet);
    let first = one.until(120_000);
    assert_eq!(first[..4], APPLIES);
    assert_eq!(first[4..8], ["gone", "there", "1 ill", "gone"]);
    one.until(HOUR_MS);
    one.put_back(2, HOUR_MS);
    let after = one.until(2 * HOUR_MS);
    assert!(after.ends_with(&["2 applied before", "2 equal", "2 well"]), "{after:?}");
    assert!(one.runs_before() && one.agents.next().is_none());
}

#[test]
fn an_agent_that_goes_back_by_itself_says_what_it_left_and_what_it_runs() {
    let expected = ["1 failed target", "1 applied before", "1 differs"];
    assert_eq!(said(Profile::SelfRollingBack { after: Span::seconds(60) })[4..], expected);
}

#[test]
fn an_agent_that_falls_ill_is_well_again_with_what_it_ran_before() {
    let fleet = fleet(Profile::FallsIll { after: Span::seconds(60) });
    let mut one = One::new(&fleet);
    let said = one.until(HOUR_MS);
    assert_eq!((&said[..4], &said[4..]), (&APPLIES[..], &["1 ill"][..]));
    one.put_back(2, HOUR_MS);
    assert!(one.until(2 * HOUR_MS).ends_with(&["2 equal", "2 well"]));
}

#[test]
fn an_agent_that_runs_something_else_says_so_of_the_new_configuration_alone() {
    let fleet = fleet(Profile::Mismatched);
    let mut one = One::new(&fleet);
    assert_eq!(one.until(HOUR_MS)[3], "1 differs");
    one.put_back(2, HOUR_MS);
    assert!(one.until(2 * HOUR_MS).ends_with(&["2 equal"]));
}

#[test]
fn a_slow_agent_takes_longer_than_one_that_is_well_by_its_delay() {
    let took = |profile| {
        let fleet = fleet(profile);
        let mut one = One::new(&fleet);
        (1..).map(|steps: u64| steps * 100).find(|ms| one.until(*ms).len() == APPLIES.len()).unwrap()
    };
    let slow = took(Profile::Slow { delay: Span::seconds(60) });
    assert_eq!(slow - took(Profile::Well), 60_000);
}

#[test]
fn an_agent_that_flaps_without_a_pause_lets_time_pass() {
    let fleet = fleet(Profile::Flapping { period: Span::seconds(0) });
    let mut one = One::new(&fleet);
    let said = one.until(100);
    assert!((50..=250).contains(&said.len()), "{}", said.len());
}

#[test]
fn an_agent_that_never_gets_a_fault_that_is_offered_to_it_has_one_all_the_same() {
    let fleet = fleet(Profile::Silent { stage: Stage::Offered });
    assert_eq!(One::new(&fleet).agents.first_fault(), Some(fleet.begins));
}

#[test]
fn who_joins_is_not_there_before_and_who_leaves_says_so_once() {
    let after = Span::seconds(600);
    let moves = Some(Movement { part: Ppm::ALL, after });
    let joins = FleetModel { joins: moves, leaves: moves, ..fleet(Profile::Well) };
    let mut there = 0;
    joins.each_candidate(&mut |_| there += 1);
    assert_eq!((there, One::new(&joins).until(HOUR_MS)), (0, vec!["joins true"]));
    let leaves = FleetModel { leaves: moves, ..fleet(Profile::Well) };
    let mut expected = APPLIES.to_vec();
    expected.push("leaves");
    assert_eq!(One::new(&leaves).until(HOUR_MS), expected);
}

#[test]
fn an_agent_that_withdraws_its_capability_receives_nothing() {
    assert_eq!(said(Profile::DropsCapability), ["capabilities", "1 withheld for capability"]);
}

#[test]
fn what_was_under_way_ends_with_a_newer_offer() {
    let fleet = fleet(Profile::Slow { delay: Span::seconds(600) });
    let mut one = One::new(&fleet);
    assert_eq!(one.until(10_000), APPLIES[..2]);
    one.put_back(2, 10_000);
    let said = one.until(HOUR_MS);
    assert!(said.iter().all(|line| line.starts_with("2 ")), "{said:?}");
}

#[test]
fn a_polling_agent_receives_within_its_interval() {
    let fleet = fleet(Profile::Polling { interval: Span::seconds(300) });
    let mut one = One::new(&fleet);
    assert_eq!(one.until(300_000)[0], "1 delivered");
    assert_eq!(one.until(HOUR_MS), APPLIES);
}
