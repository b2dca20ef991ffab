//! Which faults the gates of a plan see, and how often they stop a good rollout.
//!
//! Probabilities are for people: nothing is decided by them.

use super::turns;
use crate::rollout::gates::{self, Boundaries, GateConfig, GateKind, Scopes, Test};
use crate::rollout::plan::{Plan, PlannedMembers, WavePlan};
use crate::rollout::stats::sequential::{self, Ending};
use crate::rollout::stats::{Ppm, binomial, bound};
use crate::rollout::{Flags, MemberState};

/// The part of members that fail for reasons of their own in a good rollout.
pub const NOISE: Ppm = Ppm(5_000);

/// Faults of which the power is told, by the part of the members that they break.
const FAULTS: [Ppm; 5] =
    [Ppm::percent(1), Ppm::percent(5), Ppm::percent(20), Ppm::percent(50), Ppm::percent(100)];

/// Waves whose power is told: a fault that these do not see is rare, or comes late.
const WAVES_MAX: usize = 8;

/// Members up to which the end of a wave is followed exactly.
const EXACT_MAX: u32 = 100;

/// Members up to which tests are followed. What comes later hardly ever stops for noise alone.
const FOLLOWED_MAX: u32 = 10_000;

/// What becomes of a fault of some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Power {
    /// The part of members that it breaks.
    pub fault: Ppm,
    /// For each of the first waves, by itself. Empty waves are left out.
    pub waves: Vec<Chance>,
}

/// What one wave makes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// Members of the wave.
    pub members: u32,
    /// The chance that at least one of them fails and says so.
    pub seen: Ppm,
    /// The chance that the rollout is stopped when the wave ends at the latest, at least.
    pub stopped: Ppm,
    /// The chance that it is not and the wave is stretched or held, at least.
    pub stretched: Ppm,
}

pub(super) fn powers(plan: &Plan, members: &PlannedMembers, queued: u32) -> Vec<Power> {
    let sizes = (0..).zip(plan.waves.iter().map(|wave| (turns(wave, queued), telling(wave, members))));
    let sizes = sizes.filter(|(_, (members, _))| *members > 0).take(WAVES_MAX);
    let sizes: Vec<(usize, (u32, u32))> = sizes.collect();
    let first = sizes.first().map(|(wave, _)| *wave);
    let chance_of = |wave: usize, members, tell, fault| {
        let is_first = first == Some(wave);
        let all = if is_first && tell == members { binomial::at_least(tell, fault, tell) } else { 0.0 };
        chance(plan, wave, members, tell, fault, all)
    };
    let power = |fault| Power {
        fault,
        waves: sizes.iter().map(|(wave, (members, tell))| chance_of(*wave, *members, *tell, fault)).collect(),
    };
    FAULTS.into_iter().map(power).collect()
}

/// Members of a wave that say so if they cannot apply a configuration.
fn telling(wave: &WavePlan, members: &PlannedMembers) -> u32 {
    let rows = members.rows.get(wave.first as usize..(wave.end as usize).min(members.rows.len()));
    let rows = rows.unwrap_or_default().iter();
    let tell =
        rows.filter(|row| row.state == MemberState::Queued && row.flags.contains(Flags::REPORTS_STATUS));
    u32::try_from(tell.count()).unwrap_or(u32::MAX)
}

/// Of the gates those that a member counts against which cannot apply the configuration, where they are counted in each wave.
/// `tell`: so many members would say so. The others are in no ratio, and one of them disarms a hard stop. `all`: the chance that
/// the wave is the first one and all of it fail, which stops it at its end.
fn chance(plan: &Plan, wave: usize, members: u32, tell: u32, fault: Ppm, all: f64) -> Chance {
    let (mut stopped, mut undecided) = (0.0f64, 0.0f64);
    for (gate, test, boundaries) in acting_tests(plan) {
        let is_against = matches!(gate.kind, GateKind::ApplyFailed | GateKind::NothingSucceeds);
        if !is_against || !gate.scopes.contains(Scopes::WAVE) {
            continue;
        }
        stopped = stopped.max(all);
        match (test, boundaries) {
            (_, Boundaries::Sequential { weight, waves, .. }) => {
                let Some(limit) = waves.get(wave) else { continue };
                let ending = ending(*weight, *limit, fault, tell);
                // If all of so few fail that is undecided for the score, and stops it at the end of the wave.
                let is_told_twice = i64::from(*weight) * i64::from(tell) < i64::from(*limit);
                let twice = if is_told_twice { all } else { 0.0 };
                stopped = stopped.max(ending.stopped);
                undecided = undecided.max(ending.undecided - twice);
            }
            (Test::Hard { .. }, _) if tell < members => {}
            (test, _) => stopped = stopped.max(plain(gate, test, 0, tell, fault)),
        }
    }
    Chance {
        members,
        seen: ppm(binomial::at_least(tell, fault, 1)),
        stopped: ppm(stopped),
        stretched: ppm(undecided.min(1.0 - stopped)),
    }
}

/// How a wave ends for a sequential test; of a large one, what is undecided is told as far as it is more than what stops.
fn ending(weight: i32, limit: i32, fault: Ppm, members: u32) -> Ending {
    if members <= EXACT_MAX {
        return sequential::ending(weight, limit, fault, members);
    }
    let stopped = sequential::stopped(weight, limit, fault, members);
    let enough = members / u32::try_from(weight.max(0)).unwrap_or(0).saturating_add(1) + 1;
    let undecided = (binomial::at_least(members, fault, enough) - stopped).max(0.0);
    Ending { stopped, undecided }
}

/// Members by the scopes in which gates are counted.
struct Sizes<'a> {
    waves: Vec<u32>,
    zones: &'a [u32],
    all: u32,
}

/// The chance that one of all tests stops a rollout in which each gate sees nothing but noise: the sum over tests and
/// scopes, which is at least that as far as tests are followed. `zones`: members by failure domain.
pub(super) fn false_stop(plan: &Plan, queued: u32, zones: &[u32]) -> Ppm {
    let waves = plan.waves.iter().map(|wave| turns(wave, queued)).filter(|members| *members > 0);
    let sizes = Sizes { waves: waves.collect(), zones, all: queued };
    let limits = |waves: &[i32]| -> Vec<i32> {
        let with_members = plan.waves.iter().zip(waves).filter(|(wave, _)| turns(wave, queued) > 0);
        with_members.map(|(_, limit)| *limit).collect()
    };
    // At the end of the first wave all of it stop it: those that fail for reasons of their own are the same for each gate.
    let first = sizes.waves.first().copied().unwrap_or(0);
    let mut counting = plan.gates.iter().filter(|gate| gate.acts() && gates::counts_members(gate.kind));
    let is_asked = counting.any(|gate| gate.scopes.contains(Scopes::WAVE));
    let mut sum = if is_asked { binomial::at_least(first, NOISE, first.max(1)) } else { 0.0 };
    for (gate, test, boundaries) in acting_tests(plan) {
        sum += match boundaries {
            Boundaries::Bound { sizes: grid, limits } => {
                // Where it is looked at over all waves it is not looked at in each.
                let looks =
                    if gate.scopes.contains(Scopes::CUMULATIVE) { &[sizes.all][..] } else { &sizes.waves };
                let zones = if gate.scopes.contains(Scopes::ZONE) { sizes.zones } else { &[] };
                let each = looks.iter().chain(zones);
                each.map(|members| bound::stopped(grid, limits, NOISE, (*members).min(FOLLOWED_MAX))).sum()
            }
            Boundaries::Sequential { weight, waves, all, .. } => {
                let stopped = |limit, members| sequential::stopped(*weight, limit, NOISE, members);
                let by_wave =
                    sizes.waves.iter().zip(limits(waves)).map(|(members, limit)| stopped(limit, *members));
                let in_zones = sizes.zones.iter().map(|members| stopped(*all, *members));
                in_scopes(gate, || by_wave.sum(), || stopped(*all, sizes.all), || in_zones.sum())
            }
            Boundaries::Plain => {
                let of = |members: &u32| plain(gate, test, 0, *members, NOISE);
                // Over all waves the first one looks as it does in the wave itself.
                let is_twice = gate.scopes.contains(Scopes::WAVE);
                let before = sizes.waves.first().copied().filter(|_| is_twice).unwrap_or(0);
                let over_all = || plain(gate, test, before, sizes.all, NOISE);
                in_scopes(
                    gate,
                    || sizes.waves.iter().map(of).sum(),
                    over_all,
                    || sizes.zones.iter().map(of).sum(),
                )
            }
        };
    }
    ppm(sum)
}

/// The sum over the scopes in which a gate is counted: each wave, all of them, failure domains.
fn in_scopes(
    gate: &GateConfig,
    waves: impl FnOnce() -> f64,
    all: impl FnOnce() -> f64,
    zones: impl FnOnce() -> f64,
) -> f64 {
    let waves = if gate.scopes.contains(Scopes::WAVE) { waves() } else { 0.0 };
    let all = if gate.scopes.contains(Scopes::CUMULATIVE) { all() } else { 0.0 };
    let zones = if gate.scopes.contains(Scopes::ZONE) { zones() } else { 0.0 };
    waves + all + zones
}

/// The tests of gates that act, with what they compare with.
fn acting_tests(plan: &Plan) -> impl Iterator<Item = (&GateConfig, &Test, &Boundaries)> {
    let gates = plan.gates.iter().zip(&plan.boundaries).filter(|(gate, _)| gate.acts());
    gates.flat_map(|(gate, each)| {
        gate.tests.iter().zip(each).map(move |(test, boundaries)| (gate, test, boundaries))
    })
}

/// The chance that a test without boundaries of its own stops after the first `before` of so many members. Telemetry and
/// verdicts from outside are not known.
fn plain(gate: &GateConfig, test: &Test, before: u32, members: u32, truth: Ppm) -> f64 {
    match *test {
        Test::Count { over } => {
            let reached = |members| binomial::at_least(members, truth, over.saturating_add(1));
            (reached(members) - reached(before.min(members))).max(0.0)
        }
        Test::Hard { failures } => {
            let failures = u32::from(failures);
            let can = failures > before && failures <= members;
            if can { binomial::at_least(failures, truth, failures) } else { 0.0 }
        }
        Test::Percent { over, at_least } => {
            let least = |finished: u32| {
                let beyond = over.of(finished).saturating_add(1);
                if finished <= before || finished < gate.min_sample { u32::MAX } else { beyond.max(at_least) }
            };
            binomial::stopped(members.min(FOLLOWED_MAX), truth, least)
        }
        Test::Bound { .. } | Test::Compare { .. } | Test::Sequential { .. } => 0.0,
    }
}

/// A probability in millionths: rounded up, so that a small one is not none, but one that is not certain stays below all.
fn ppm(probability: f64) -> Ppm {
    /// What a probability may be off by the rounding of its computation, and what a millionth may.
    const ROUNDING: [f64; 2] = [1e-9, 1e-6];
    let all = f64::from(Ppm::ALL.0);
    if probability > 1.0 - ROUNDING[0] {
        return Ppm::ALL;
    }
    // In range by then, so that the cast keeps the value.
    let millionths = (probability * all - ROUNDING[1]).clamp(0.0, all).ceil() as u32;
    Ppm(millionths.min(Ppm::ALL.0 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_none_or_certain_only_if_it_is() {
        assert_eq!([0.0, 1e-9, 0.5, 1.0, 1.7].map(ppm), [0, 1, 500_000, 1_000_000, 1_000_000].map(Ppm));
        assert_eq!([-1e-15, 0.3, 0.999_999_9].map(ppm), [0, 300_000, 999_999].map(Ppm));
    }
}
