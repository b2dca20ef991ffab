//! Steady states of groups in whole worlds: newcomers, moves and restarts between rollouts (R22b, R24, R80).

use opamp_fleet::faults::Faults;
use opamp_testkit::sim::invariants;
use opamp_testkit::sim::scenario::Scenario;
use opamp_testkit::sim::world::World;

/// Runs a drawn scenario whose fleet has a steady state, with all invariants; gives how many assignments were written.
fn run(seed: u64) -> usize {
    let mut scenario = Scenario::drawn(seed);
    scenario.shared.steady = true;
    let (mut world, mut all) = (World::new(&scenario, Faults::default()), invariants::all());
    let mut assigned = 0;
    while let Some(seen) = world.step() {
        assigned += seen.shared.iter().filter(|desired| !desired.repeated).count();
        for invariant in &mut all {
            let found = invariant.after(&world, &seen);
            assert_eq!(found, Ok(()), "{} of seed {seed}, at {:?}", invariant.name(), world.now());
        }
    }
    for invariant in &mut all {
        assert_eq!(invariant.at_end(&world), Ok(()), "{} at the end of seed {seed}", invariant.name());
    }
    assigned
}

#[test]
fn groups_are_kept_where_their_rollouts_brought_them() {
    let assigned: Vec<usize> = (0..12).map(run).collect();
    assert!(assigned.iter().sum::<usize>() > 20, "{assigned:?}");
}
