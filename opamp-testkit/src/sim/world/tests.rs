use opamp_fleet::faults::Faults;

use super::*;
use crate::sim::agents::Happened;
use crate::sim::invariants;
use crate::sim::profiles::{Profile, Span, Stage};
use crate::sim::scenario::{Act, ActAt, AgentSpec};

const MINUTE: Duration = Duration::from_secs(60);

/// A fleet of these profiles, on two replicas, without rollouts, acts or faults.
fn quiet(profiles: &[Profile]) -> Scenario {
    let drawn = Scenario::drawn(1);
    let agents = profiles.iter().enumerate().map(|(number, profile)| AgentSpec {
        number: u32::try_from(number).unwrap(),
        ring: "inner".into(),
        runs: 0,
        apply: Span::between(1, 5),
        arrives_s: None,
        profile: profile.clone(),
        ..drawn.agents[0].clone()
    });
    let faults = Faulty::default();
    Scenario {
        replicas: 2,
        agents: agents.collect(),
        rollouts: Vec::new(),
        acts: Vec::new(),
        faults,
        ..drawn
    }
}

impl World {
    /// Lets time pass, whether the run is over or not.
    fn run(&mut self, span: Duration) -> Vec<StepSeen> {
        let target = self.mono + span;
        let mut seen = Vec::new();
        while self.schedule.first().is_some_and(|at| at <= target) {
            let (at, what) = self.schedule.take().unwrap();
            self.mono = self.mono.max(at);
            self.happens(what);
            seen.push(std::mem::take(&mut self.seen));
            assert!(seen.len() < 1_000_000, "it never comes to rest");
        }
        self.mono = target;
        seen
    }

    /// Wants a configuration of everybody, without a rollout.
    fn assign(&mut self, number: u8) {
        self.configs = Configs::new([0, number]);
        let config = self.configs.fingerprint(number).unwrap();
        self.kept.insert(config);
        for agent in 0..self.agents.len() {
            let id = self.agents[agent].id;
            self.store
                .change_agent(&id, |row| (row.desired, row.generation) = (Some(config), row.generation + 1));
            self.hint(agent);
        }
    }

    fn run_numbers(&self) -> Vec<u8> {
        self.agents.iter().map(|agent| agent.truth.runs).collect()
    }

    fn facts_of(&self, agent: usize) -> &crate::sim::replica::facts::Facts {
        self.store.rows().agents[&self.agents[agent].id].facts.as_ref().unwrap()
    }
}

#[test]
fn agents_connect_and_what_they_say_is_known() {
    let mut world =
        World::new(&quiet(&[Profile::Well, Profile::NoHealth, Profile::IllBefore]), Faults::default());
    world.run(2 * MINUTE);
    for agent in 0..3 {
        assert!(world.facts_of(agent).connected, "agent {agent}");
        assert_eq!(
            world.facts_of(agent).effective.map(|(config, _)| world.configs.number(config)),
            Some(Some(0))
        );
    }
    let healthy = [0, 1, 2].map(|agent| world.facts_of(agent).healthy.map(|(healthy, _)| healthy));
    assert_eq!(healthy, [Some(true), None, Some(false)]);
}

#[test]
fn a_configuration_assigned_by_hand_reaches_everybody_who_takes_one() {
    let obedient = [
        Profile::Well,
        Profile::Slow { delay: Span::seconds(30) },
        Profile::Polling { interval: Span::seconds(30) },
        Profile::NoStatus,
        Profile::Merges,
        Profile::RestartsOnApply,
    ];
    let mut world = World::new(&quiet(&obedient), Faults::default());
    world.run(2 * MINUTE);
    world.assign(9);
    world.run(10 * MINUTE);
    assert_eq!(world.run_numbers(), vec![9; obedient.len()]);
    let reported = world.facts_of(0).report.clone().unwrap();
    assert_eq!(world.configs.number(reported.hash), Some(9));
    assert!(world.facts_of(3).report.is_none(), "who says nothing of it is heard nothing of");
}

#[test]
fn profiles_that_do_harm_do_it_with_what_is_new_to_them() {
    let harmful = [
        Profile::Fails { rate: opamp_fleet::rollout::stats::Ppm::ALL },
        Profile::Silent { stage: Stage::Applying },
        Profile::Silent { stage: Stage::Delivered },
        Profile::Silent { stage: Stage::Offered },
        Profile::SelfRollingBack { after: Span::seconds(20) },
        Profile::DropsCapability,
        Profile::FallsIll { after: Span::seconds(20) },
        Profile::Mismatched,
    ];
    let mut world = World::new(&quiet(&harmful), Faults::default());
    world.run(2 * MINUTE);
    world.assign(9);
    world.run(10 * MINUTE);
    assert!(world.agents[0].truth.history.iter().any(|(_, what)| *what == Happened::Failed(9)));
    assert_eq!(world.run_numbers()[1..4], [0, 0, 0]);
    assert!(!world.facts_of(2).connected, "who hangs is missed");
    assert!(world.agents[4].truth.history.iter().any(|(_, what)| *what == Happened::WentBack(0)));
    assert!(!world.facts_of(5).capabilities.contains(opamp_proto::AgentCapabilities::ACCEPTS_REMOTE_CONFIG));
    assert_eq!(world.facts_of(6).healthy.map(|(healthy, _)| healthy), Some(false));
    let number = |config| world.configs.number(config);
    let mismatched = world.facts_of(7);
    assert_eq!(mismatched.report.as_ref().map(|report| number(report.hash)), Some(Some(9)));
    assert_eq!(mismatched.effective.map(|(config, _)| number(config)), Some(None), "it says what it runs");
    world.assign(0);
    world.run(10 * MINUTE);
    assert_eq!(world.facts_of(6).healthy.map(|(healthy, _)| healthy), Some(true));
    assert_eq!(world.facts_of(7).effective.map(|(config, _)| world.configs.number(config)), Some(Some(0)));
}

#[test]
fn a_replica_that_ends_loses_nobody() {
    let mut scenario =
        quiet(&[Profile::Well, Profile::Well, Profile::Polling { interval: Span::seconds(30) }]);
    scenario.acts = vec![ActAt { at_s: 60, act: Act::ReplicaCrash { replica: 0, back_s: 30 } }];
    let mut world = World::new(&scenario, Faults::default());
    world.run(5 * MINUTE);
    assert!((0..3).all(|agent| world.facts_of(agent).connected));
}

#[test]
fn there_is_one_leader_after_another() {
    let mut scenario = quiet(&[Profile::Well]);
    scenario.acts =
        vec![ActAt { at_s: 60, act: Act::ReplicaPause { replica: 0, for_s: 90, at_write: false } }];
    let mut world = World::new(&scenario, Faults::default());
    world.run(MINUTE - Duration::from_secs(1));
    let leads = |world: &World| -> Vec<usize> {
        let leading = world.replicas.iter().filter(|replica| replica.leader.is_some());
        leading.map(|replica| replica.position).collect()
    };
    assert_eq!(leads(&world), [0], "it asks first");
    let first = world.store.rows().lease.epoch;
    world.run(5 * MINUTE);
    assert_eq!(leads(&world), [1], "it stood still for longer than a lease lasts");
    assert!(world.store.rows().lease.epoch > first);
}

#[test]
fn whoever_is_in_conflict_rebuilds_its_engine_from_the_records() {
    let scenario = Scenario::drawn(1);
    let acts = (100..1_000).step_by(20).map(|at_s| ActAt { at_s, act: Act::Interfere { rollout: 0 } });
    let scenario = Scenario { acts: acts.collect(), faults: Faulty::default(), ..scenario };
    let (mut world, mut invariants) = (World::new(&scenario, Faults::default()), invariants::all());
    let (mut rebuilt, mut leaders) = (0, std::collections::BTreeSet::new());
    while let Some(seen) = world.step() {
        rebuilt += seen.rebuilt.len();
        leaders.extend(seen.times.iter().map(|(_, epoch, ..)| *epoch));
        for invariant in &mut invariants {
            assert_eq!(invariant.after(&world, &seen), Ok(()), "{}, at {:?}", invariant.name(), world.now());
        }
    }
    assert!(rebuilt > 3, "{rebuilt}");
    assert_eq!(leaders.len(), 1, "nobody else has led");
}

#[test]
fn a_plan_is_made_anew_before_the_start_if_the_fleet_has_changed() {
    let drawn = Scenario::drawn(1);
    let spec = crate::sim::scenario::RolloutSpec {
        at_s: 60,
        approval: true,
        shape: crate::sim::scenario::Shape::AllAtOnce,
        control_group: 0,
        in_flight_max: 1_000,
        touched_max: u32::MAX,
        zone_max: u32::MAX,
        per_minute: u32::MAX,
        frozen_s: None,
        ..drawn.rollouts[0].clone()
    };
    let mut scenario = quiet(&[Profile::Well, Profile::Well, Profile::Well]);
    scenario.rollouts = vec![spec];
    // One agent comes between the plan and its approval.
    scenario.agents[2].arrives_s = Some(61);
    let mut world = World::new(&scenario, Faults::default());
    let planned = |world: &World| -> Vec<(usize, Fingerprint)> {
        let rows = world.store.rows().rollouts.values();
        rows.map(|row| (row.story.lines.len(), row.story.plan().hash)).collect()
    };
    let mut seen = Vec::new();
    while world.step().is_some() {
        let now = planned(&world);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    let members: Vec<Vec<usize>> =
        seen.iter().map(|plans| plans.iter().map(|(members, _)| *members).collect()).collect();
    assert_eq!(members, [vec![], vec![2], vec![3]]);
    assert_ne!(seen[1][0].1, seen[2][0].1);
    assert_eq!(world.run_numbers(), vec![scenario.rollouts[0].config; 3]);
}

#[test]
fn the_same_scenario_is_the_same_run() {
    let trace = |seed| {
        let mut world = World::new(&Scenario::drawn(seed), Faults::default());
        let steps = std::iter::from_fn(|| world.step()).take(5_000).count();
        (steps, world.trace())
    };
    for seed in 1..4 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1).1, trace(2).1);
}

#[test]
fn whole_runs_keep_every_invariant() {
    for seed in 1..6 {
        let scenario = Scenario::drawn(seed);
        let (mut world, mut invariants) = (World::new(&scenario, Faults::default()), invariants::all());
        while let Some(seen) = world.step() {
            for invariant in &mut invariants {
                let held = invariant.after(&world, &seen);
                assert_eq!(held, Ok(()), "seed {seed}, {}, at {:?}", invariant.name(), world.now());
            }
        }
        for invariant in &mut invariants {
            assert_eq!(invariant.at_end(&world), Ok(()), "seed {seed}, {}", invariant.name());
        }
    }
}
