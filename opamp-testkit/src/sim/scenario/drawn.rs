//! Scenarios drawn from a seed.

use opamp_fleet::rollout::plan::ConflictPolicy;
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{LateJoiners, Leavers, UnverifiedPolicy};

use super::{Act, ActAt, AgentSpec, Faulty, How, RolloutSpec, Scenario, Shape, SharedSpec};
use crate::sim::profiles::{Profile, Span, Stage};
use crate::sim::rng::{Rng, Subject};

/// Configurations that agents run at first; rollouts have those from here on.
pub(super) const FIRST_CONFIGS: u8 = 4;
/// When the last act happens at the latest, in seconds.
const ACTS_UNTIL_S: u64 = 3 * 3_600;
const VERSIONS: [&str; 3] = ["1.4.0", "1.5.0", "2.0.0"];
const RINGS: [&str; 4] = ["inner", "early", "rest", "rest"];
const HOW: [How; 3] = [How::Plain, How::Retry, How::Skip];
const ZONES: [&str; 3] = ["eu", "us", "ap"];

impl Scenario {
    /// The scenario of a seed: 8 to 40 agents, 1 to 3 replicas, 1 to 3 rollouts, acts of operators, and what breaks.
    pub fn drawn(seed: u64) -> Self {
        let seed = seed & (u64::MAX >> 1);
        let rng = Rng::new(seed);
        let mut draw = rng.fork(Subject::Scenario, 0);
        let replicas = 1 + small(draw.below(3));
        let agents: Vec<AgentSpec> = (0..8 + number(draw.below(33)))
            .map(|number| agent(number, &mut rng.fork(Subject::Scenario, 1_000 + u64::from(number))))
            .collect();
        let rollouts = rollouts(&mut rng.fork(Subject::Scenario, 1));
        let mut act = rng.fork(Subject::Scenario, 2);
        let count = act.below(13);
        let mut acts: Vec<ActAt> = (0..count)
            .map(|_| {
                let at_s = number(act.between(90, ACTS_UNTIL_S));
                ActAt { at_s, act: an_act(&mut act, replicas, number(agents.len() as u64), &rollouts) }
            })
            .collect();
        acts.sort_by_key(|act| act.at_s);
        let faults = faulty(&mut rng.fork(Subject::Scenario, 3));
        let steady = rng.fork(Subject::Scenario, 7).chance(Ppm::percent(33));
        let shared = SharedSpec { steady, ..shared(&mut rng.fork(Subject::Scenario, 6)) };
        Self { seed, replicas, faults, shared, agents, rollouts, acts }
    }
}

/// A drawn number as the type that is needed; all are small.
pub(super) fn number(drawn: u64) -> u32 {
    u32::try_from(drawn).unwrap_or(u32::MAX)
}

fn small(drawn: u64) -> u8 {
    u8::try_from(drawn).unwrap_or(u8::MAX)
}

fn agent(number: u32, rng: &mut Rng) -> AgentSpec {
    let apply = if rng.chance(Ppm::percent(80)) { Span::between(1, 20) } else { Span::between(20, 200) };
    AgentSpec {
        number,
        zone: rng.pick(&ZONES).into(),
        ring: if rng.chance(Ppm::percent(5)) { "out" } else { rng.pick(&RINGS) }.into(),
        version: rng.pick(&VERSIONS).into(),
        runs: small(rng.below(FIRST_CONFIGS.into())),
        apply,
        arrives_s: rng.chance(Ppm::percent(10)).then(|| self::number(rng.between(300, 9_000))),
        profile: if rng.chance(Ppm::percent(60)) { Profile::Well } else { profile(rng) },
    }
}

fn profile(rng: &mut Rng) -> Profile {
    match rng.below(17) {
        0 => Profile::Slow { delay: Span::between(60, 600) },
        1 => Profile::Silent { stage: rng.pick(&[Stage::Offered, Stage::Delivered, Stage::Applying]) },
        2 => Profile::Fails { rate: Ppm::percent(rng.pick(&[20, 50, 100])) },
        3 => Profile::FailsOnVersion {
            version: Some(rng.pick(&VERSIONS).into()),
            rate: Ppm::percent(rng.pick(&[50, 100])),
        },
        4 => Profile::Flapping { period: Span::between(40, 400) },
        5 => Profile::CrashLooping { after: Span::between(5, 60) },
        6 => Profile::SelfRollingBack { after: Span::between(5, 500) },
        7 => Profile::Polling { interval: Span::seconds(rng.pick(&[30, 300])) },
        8 => Profile::NoStatus,
        9 => Profile::NoHealth,
        10 => Profile::Merges,
        11 => Profile::IllBefore,
        12 => Profile::Offline { returns: Span::between(600, 9_000) },
        13 => Profile::RestartsOnApply,
        14 => Profile::FallsIll { after: Span::between(5, 300) },
        15 => Profile::Mismatched,
        _ => Profile::DropsCapability,
    }
}

fn rollouts(rng: &mut Rng) -> Vec<RolloutSpec> {
    let count = rng.pick(&[1, 1, 1, 2, 2, 3]);
    let mut at = 60;
    let mut specs: Vec<RolloutSpec> = Vec::new();
    for number in 0..count {
        let mut spec = rollout(number, at, rng);
        at += self::number(rng.between(300, 5_400));
        // What an earlier one brought, once more: some run it, on some it failed, some have gone back from it.
        let earlier: Vec<u8> = specs.iter().map(|spec| spec.config).collect();
        if !earlier.is_empty() && rng.chance(Ppm::percent(20)) {
            spec.config = rng.pick(&earlier);
        }
        specs.push(spec);
    }
    specs
}

fn rollout(number: u32, at_s: u32, rng: &mut Rng) -> RolloutSpec {
    // Drawn apart: whatever else a seed stands for is as it was.
    let bakes = !rng.fork(Subject::Scenario, u64::from(number)).chance(Ppm::percent(20));
    let window_s = rng.pick(&[60, 120, 300]);
    let shape = match rng.below(8) {
        0 => Shape::AllAtOnce,
        1 => Shape::Batches { size: self::number(rng.between(2, 12)) },
        2 => Shape::Exponential { first: self::number(rng.between(1, 3)) },
        3 => Shape::Manual { size: self::number(rng.between(4, 12)) },
        4 => Shape::Percentages { parts: vec![10, 50, 100] },
        5 => Shape::Rings,
        6 => Shape::Zones,
        _ => Shape::Canary { first: self::number(rng.between(1, 5)) },
    };
    RolloutSpec {
        number,
        at_s,
        config: FIRST_CONFIGS + small(number.into()),
        shape,
        dwell_s: window_s + self::number(rng.below(120)),
        dwell_later_s: window_s + self::number(rng.below(600)),
        bake_s: Some(rng.pick(&[300, 900])).filter(|_| bakes).unwrap_or(0),
        window_s,
        in_flight_max: rng.pick(&[1, 2, 5, 1_000]),
        touched_max: if rng.chance(Ppm::percent(15)) { self::number(rng.between(2, 12)) } else { u32::MAX },
        zone_max: if rng.chance(Ppm::percent(20)) { self::number(rng.between(1, 3)) } else { u32::MAX },
        per_minute: if rng.chance(Ppm::percent(20)) { self::number(rng.between(1, 10)) } else { u32::MAX },
        frozen_s: rng.chance(Ppm::percent(15)).then(|| {
            let from = at_s + self::number(rng.below(1_200));
            (from, from + self::number(rng.between(60, 3_600)))
        }),
        control_group: if rng.chance(Ppm::percent(15)) { self::number(rng.between(1, 6)) } else { 0 },
        retries: rng.pick(&[0, 1, 1, 2]),
        joiners: rng.pick(&LateJoiners::ALL),
        leavers: rng.pick(&Leavers::ALL),
        unverified: rng.pick(&UnverifiedPolicy::ALL),
        conflict: rng.pick(&ConflictPolicy::ALL),
        approval: rng.chance(Ppm::percent(30)),
        wave_approval: rng.chance(Ppm::percent(20)),
        auto_resume: rng.chance(Ppm::percent(50)),
        external: rng.chance(Ppm::percent(15)),
    }
}

fn an_act(rng: &mut Rng, replicas: u8, agents: u32, rollouts: &[RolloutSpec]) -> Act {
    let rollout =
        rollouts.get(usize::from(small(rng.below(rollouts.len() as u64)))).map_or(0, |spec| spec.number);
    let agent = number(rng.below(agents.into()));
    let replica = small(rng.below(replicas.into()));
    match rng.below(29) {
        0 => Act::Abort { rollout },
        1 => Act::Advance { rollout },
        2 => Act::AgentCrash { agent, back_s: number(rng.between(1, 300)) },
        3 => Act::Cut { agent, silently: rng.chance(Ppm::percent(50)) },
        4 => Act::Exclude { rollout, agent },
        5 => Act::Extend { rollout, by_s: number(rng.between(30, 600)) },
        6 => Act::Limit {
            rollout,
            in_flight: number(rng.between(1, 10)),
            touched: rng.chance(Ppm::percent(50)).then(|| number(rng.between(1, 40))),
            per_minute: rng.chance(Ppm::percent(30)).then(|| number(rng.between(1, 20))),
        },
        7 => Act::Outage { agent, for_s: number(rng.between(10, 900)) },
        8 => Act::Pause { rollout },
        9 => Act::Recall { config: rollouts.first().map_or(FIRST_CONFIGS, |spec| spec.config) },
        10 => Act::Relabel { agent, ring: rng.pick(&["inner", "rest", "out"]).into() },
        11 => Act::Remove { agent },
        12 | 13 => Act::ReplicaCrash { replica, back_s: number(rng.between(1, 120)) },
        14 => Act::ReplicaPause {
            replica,
            for_s: number(rng.between(1, 120)),
            at_write: rng.chance(Ppm::percent(50)),
        },
        15 => Act::Resume { rollout, how: rng.pick(&HOW) },
        16 => Act::RollBack { rollout },
        17 => Act::Skew { replica, by_s: i32::try_from(rng.below(1_201)).unwrap_or(0) - 600 },
        18 => Act::SkipWave { rollout },
        19 => Act::Interfere { rollout },
        20 => Act::AllowHash { rollout, agent },
        21 => Act::Cancel { rollout },
        22 => Act::Release { rollout },
        23 => Act::SkipGate { rollout, gate: small(rng.below(10)) },
        24 => Act::RollBackFailed { rollout },
        25 => Act::RollBackWave { rollout, wave: u16::from(small(rng.below(4))) },
        26 => Act::Raise { rollout, gate: small(rng.below(10)) },
        27 => Act::Waive { rollout, gate: small(rng.below(10)) },
        _ if rng.chance(Ppm::percent(15)) => Act::StoreForgets,
        _ => Act::StoreOutage { for_s: number(rng.between(1, 120)) },
    }
}

fn shared(rng: &mut Rng) -> SharedSpec {
    let none = SharedSpec::default();
    let mut some = |percent: u32, from: u64, until: u64, none: u32| {
        let (hit, drawn) = (rng.chance(Ppm::percent(percent)), number(rng.between(from, until)));
        if hit { drawn } else { none }
    };
    SharedSpec {
        at_once: some(20, 1, 6, none.at_once),
        per_minute: some(15, 2, 12, none.per_minute),
        per_hour: some(5, 8, 40, none.per_hour),
        in_flight_max: some(15, 1, 4, none.in_flight_max),
        touched_max: some(5, 4, 20, none.touched_max),
        fleet_percent: some(15, 5, 20, none.fleet_percent),
        quarantine_after: some(25, 1, 2, none.quarantine_after),
        breaker_after: some(15, 2, 6, none.breaker_after),
        steady: none.steady,
    }
}

fn faulty(rng: &mut Rng) -> Faulty {
    let mut some = |most: u64| if rng.chance(Ppm::percent(40)) { small(rng.between(1, most)) } else { 0 };
    Faulty {
        commit_lost: some(20),
        answer_lost: some(20),
        commit_slow: some(20),
        hint_lost: some(100),
        hint_doubled: some(50),
        command_doubled: some(50),
        message_slow: some(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_scenario_keeps_to_its_bounds_and_is_the_same_each_time() {
        for seed in 0..200 {
            let scenario = Scenario::drawn(seed);
            assert!((8..=40).contains(&scenario.agents.len()) && (1..=3).contains(&scenario.replicas));
            assert!((1..=3).contains(&scenario.rollouts.len()));
            assert!(scenario.rollouts.iter().all(|spec| spec.config >= FIRST_CONFIGS));
            assert!(
                scenario.rollouts.iter().all(|spec| spec.window_s <= spec.dwell_s.min(spec.dwell_later_s))
            );
            assert!(scenario.acts.is_sorted_by_key(|act| act.at_s));
            assert_eq!(Scenario::drawn(seed), scenario);
        }
    }

    #[test]
    fn some_rollouts_bake_and_some_do_not() {
        let scenarios: Vec<Scenario> = (0..100).map(Scenario::drawn).collect();
        let bakes = scenarios.iter().flat_map(|scenario| &scenario.rollouts).map(|spec| spec.bake_s);
        let bakes: std::collections::BTreeSet<u32> = bakes.collect();
        assert_eq!(Vec::from_iter(bakes), [0, 300, 900]);
    }

    #[test]
    fn every_profile_and_every_shape_comes_up() {
        let scenarios: Vec<Scenario> = (0..300).map(Scenario::drawn).collect();
        let agents = scenarios.iter().flat_map(|scenario| &scenario.agents);
        let kinds: std::collections::BTreeSet<_> = agents.map(|agent| agent.profile.kind()).collect();
        assert_eq!(kinds.len(), 18);
        let shapes: std::collections::BTreeSet<_> = scenarios
            .iter()
            .flat_map(|scenario| &scenario.rollouts)
            .map(|spec| std::mem::discriminant(&spec.shape))
            .map(|kind| format!("{kind:?}"))
            .collect();
        assert_eq!(shapes.len(), 8);
    }
}
