//! What tests compare with, computed when the plan is made.

use super::{Boundaries, GateConfig, Scopes, Test, Undecided};
use crate::rollout::stats::{Ppm, bound, log, sequential};

/// For each gate, for each of its tests: what it compares with. `waves` are the sizes of the waves, `members` all of them
/// together, `zones` how many failure domains there are.
///
/// The error of a test is shared by all scopes in which it is looked at: waves, all waves together, failure domains. A
/// wave's sequential test counts on the members that the next wave may lend it.
#[must_use]
pub fn boundaries(gates: &[GateConfig], waves: &[u32], members: u32, zones: u32) -> Box<[Box<[Boundaries]>]> {
    let shape = Shape { waves, members, zones };
    // Several gates have the same test, and limits are the dear part of a plan.
    let mut known: Vec<(Test, Scopes, Undecided, Boundaries)> = Vec::new();
    let mut of_test = |gate: &GateConfig, test: &Test| {
        let is_same = |(other, scopes, undecided, _): &&(Test, Scopes, Undecided, Boundaries)| {
            other == test && *scopes == gate.scopes && *undecided == gate.undecided
        };
        if let Some((.., same)) = known.iter().find(is_same) {
            return same.clone();
        }
        let computed = shape.of_test(gate, test);
        known.push((*test, gate.scopes, gate.undecided, computed.clone()));
        computed
    };
    let mut found = Vec::with_capacity(gates.len());
    for gate in gates {
        let tests: Box<[Boundaries]> = gate.tests.iter().map(|test| of_test(gate, test)).collect();
        found.push(tests);
    }
    found.into()
}

/// Whether the bound of this gate is looked at over all waves and not in each.
pub(super) fn bound_is_cumulative(gate: &GateConfig) -> bool {
    gate.scopes.contains(Scopes::CUMULATIVE)
}

struct Shape<'a> {
    waves: &'a [u32],
    members: u32,
    zones: u32,
}

impl Shape<'_> {
    fn of_test(&self, gate: &GateConfig, test: &Test) -> Boundaries {
        match *test {
            Test::Bound { over, error } => self.bound(gate, over, error),
            Test::Sequential { acceptable, bad, error } => self.sequential(gate, acceptable, bad, error),
            Test::Compare { .. } | Test::Count { .. } | Test::Hard { .. } | Test::Percent { .. } => {
                Boundaries::Plain
            }
        }
    }

    fn bound(&self, gate: &GateConfig, over: Ppm, error: Ppm) -> Boundaries {
        let looks = if bound_is_cumulative(gate) { 1 } else { self.waves_if_counted(gate) };
        let share = bound::share(error, looks + self.zones_if_counted(gate));
        let sizes = bound::sizes(self.members);
        let limits = bound::limits(&sizes, over, share);
        Boundaries::Bound { sizes: sizes.into(), limits: limits.into() }
    }

    fn sequential(&self, gate: &GateConfig, acceptable: Ppm, bad: Ppm, error: Ppm) -> Boundaries {
        // Checked when the plan is; a gate that cannot be counted is one whose test never stops.
        let Some(weight) = log::weight(acceptable, bad) else { return Boundaries::Plain };
        let all_waves = u32::from(gate.scopes.contains(Scopes::CUMULATIVE));
        let scopes = self.waves_if_counted(gate) + all_waves + self.zones_if_counted(gate);
        let share = bound::share(error, scopes);
        let lent = match gate.undecided {
            Undecided::Hold => 0,
            Undecided::Stretch { max } => u32::from(max),
        };
        let stretched: Vec<u32> = self.waves.iter().map(|size| size.saturating_add(lent)).collect();
        let waves = sequential::limits(weight, acceptable, &stretched, share);
        let all = sequential::limits(weight, acceptable, &[self.members], share);
        let grown = sequential::limits(weight, acceptable, &powers(self.members), share);
        let all = all.first().copied().unwrap_or(i32::MAX);
        Boundaries::Sequential { weight, waves: waves.into(), all, grown: grown.into() }
    }

    fn waves_if_counted(&self, gate: &GateConfig) -> u32 {
        if gate.scopes.contains(Scopes::WAVE) { self.waves.len() as u32 } else { 0 }
    }

    fn zones_if_counted(&self, gate: &GateConfig) -> u32 {
        if gate.scopes.contains(Scopes::ZONE) { self.zones } else { 0 }
    }
}

/// Powers of two from 1 on, up to eight times the members of the plan: more rarely join.
fn powers(members: u32) -> Vec<u32> {
    const MOST: u32 = 22;
    let last = members.next_power_of_two().trailing_zeros().saturating_add(3).min(MOST);
    (0..=last).map(|power| 1 << power).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::gates::GateKind;

    const WAVES: [u32; 4] = [40, 210, 250, 500];

    fn of(gate: GateConfig) -> Box<[Boundaries]> {
        let mut all = boundaries(&[gate], &WAVES, 1_000, 3).into_vec();
        all.remove(0)
    }

    #[test]
    fn the_default_canary_over_a_thousand_has_the_published_limits() {
        let found = of(GateConfig::of(GateKind::ApplyFailed));
        let (waves, grown) = ([36, 43, 43, 47], [23, 23, 23, 23, 27, 32, 36, 40, 43, 47, 50, 53, 57, 60]);
        let limits = Boundaries::Sequential { weight: 11, waves: waves.into(), all: 50, grown: grown.into() };
        assert_eq!(found[0], limits);
        let Boundaries::Bound { sizes, limits } = &found[1] else { panic!("{found:?}") };
        assert_eq!((sizes.len(), limits.len()), (74, 74));
        assert_eq!((sizes[0], limits[0]), (20, 5));
        assert_eq!((sizes[72], limits[72]), (993, 40));
    }

    #[test]
    fn more_scopes_share_the_same_error() {
        let gate = GateConfig::of(GateKind::ApplyFailed);
        let zoned = of(GateConfig { scopes: gate.scopes.and(Scopes::ZONE), ..gate.clone() });
        let only_waves = of(GateConfig { scopes: Scopes::WAVE, ..gate });
        let (Boundaries::Sequential { all: zoned, .. }, Boundaries::Sequential { all: only_waves, .. }) =
            (&zoned[0], &only_waves[0])
        else {
            panic!("{zoned:?} {only_waves:?}")
        };
        assert!(*zoned > 50 && *only_waves <= 50);
    }

    #[test]
    fn a_test_without_limits_of_its_own_keeps_none() {
        assert_eq!(*of(GateConfig::of(GateKind::NothingSucceeds)), [Boundaries::Plain]);
        assert!(of(GateConfig::of(GateKind::MassDisconnect)).is_empty());
    }
}
