//! Running one seed: the world, the invariants after each step, the end.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opamp_fleet::faults::Faults;

use super::invariants::{self, Invariant};
use super::scenario::Scenario;
use super::world::World;

/// What the invariant of a run is called that ended in a panic.
pub const PANIC: &str = "no_panic";
/// What the invariant of a run is called that did not come to an end within its steps.
pub const ENDLESS: &str = "comes_to_an_end";

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct RunSettings {
    /// How the engine is broken on purpose, if it is.
    pub faults: Faults,
    /// Whether frames are kept.
    pub frames: bool,
    /// Most steps. Default 2,000,000: a hundred times what a seed takes.
    pub steps_max: u64,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { faults: Faults::default(), frames: false, steps_max: 2_000_000 }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Steps it took.
    pub steps: u64,
    /// Virtual time it took.
    pub length: Duration,
    /// A hash over all frames and journal entries: the same scenario gives the same.
    pub trace: u64,
    /// The first invariant that broke, if one did.
    pub breach: Option<Breach>,
    /// One line for each frame, if they were kept.
    pub frames: Vec<String>,
}

/// An invariant that broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Its name.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
    /// The step after which, from 1.
    pub step: u64,
    /// Virtual time since the beginning.
    pub at: Duration,
    /// The last journal entries before, one line each.
    pub recent: Vec<String>,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} broke at step {}, after {} ms: {}",
            self.invariant,
            self.step,
            self.at.as_millis(),
            self.found
        )?;
        for line in &self.recent {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// The command that runs a seed again with all its frames.
#[must_use]
pub fn replay_command(seed: u64) -> String {
    format!("cargo xtask sim --first-seed {seed} --seeds 1 --frames")
}

/// Runs a scenario to its end, or to the first invariant that breaks. A panic of anything in it is a breach like any other.
#[must_use]
pub fn run(scenario: &Scenario, settings: &RunSettings) -> Outcome {
    judged(scenario, settings, invariants::all())
}

fn judged(scenario: &Scenario, settings: &RunSettings, invariants: Vec<Box<dyn Invariant>>) -> Outcome {
    let mut outcome = Outcome {
        seed: scenario.seed(),
        steps: 0,
        length: Duration::ZERO,
        trace: 0,
        breach: None,
        frames: Vec::new(),
    };
    let mut world = None;
    // Of what a panic leaves behind only that is looked at which was written down before.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(scenario, settings.faults));
        watched(world, settings, invariants, &mut outcome)
    }));
    let broken = ended.unwrap_or_else(|payload| Some((PANIC, words(&*payload))));
    let recent = world.as_ref().map(World::recent).unwrap_or_default();
    if let Some(world) = &world {
        outcome.trace = world.trace();
        outcome.frames = world.frames().to_vec();
    }
    outcome.breach = broken.map(|(invariant, found)| Breach {
        invariant,
        found,
        step: outcome.steps,
        at: outcome.length,
        recent,
    });
    outcome
}

/// Runs a world to its end, or to the first invariant that breaks: its name, and what was found.
fn watched(
    world: &mut World,
    settings: &RunSettings,
    mut invariants: Vec<Box<dyn Invariant>>,
    outcome: &mut Outcome,
) -> Option<(&'static str, String)> {
    if settings.frames {
        world.keep_frames();
    }
    loop {
        let Some(seen) = world.step() else {
            return first_broken(&mut invariants, |one| one.at_end(world));
        };
        outcome.steps += 1;
        outcome.length = Duration::from_millis(world.now().0);
        let broken = first_broken(&mut invariants, |one| one.after(world, &seen));
        if broken.is_some() {
            return broken;
        }
        if outcome.steps >= settings.steps_max {
            return Some((ENDLESS, format!("{} steps were not enough", settings.steps_max)));
        }
    }
}

fn first_broken(
    invariants: &mut [Box<dyn Invariant>],
    mut look: impl FnMut(&mut dyn Invariant) -> Result<(), String>,
) -> Option<(&'static str, String)> {
    invariants.iter_mut().find_map(|one| look(one.as_mut()).err().map(|found| (one.name(), found)))
}

/// What a panic says.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&'static str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_one_another() {
        let of = |seed| run(&Scenario::drawn(seed), &RunSettings::default());
        let (first, again, other) = (of(11), of(11), of(12));
        assert_eq!(first, again);
        assert_ne!(first.trace, other.trace);
        assert_eq!(first.breach, None);
    }

    #[test]
    fn frames_are_kept_when_asked_for_and_change_nothing() {
        let without = run(&Scenario::drawn(3), &RunSettings::default());
        let with = run(&Scenario::drawn(3), &RunSettings { frames: true, ..RunSettings::default() });
        assert!(without.frames.is_empty() && !with.frames.is_empty());
        assert_eq!((without.trace, without.steps), (with.trace, with.steps));
    }

    #[test]
    fn a_run_that_comes_to_no_end_is_a_breach() {
        let outcome = run(&Scenario::drawn(3), &RunSettings { steps_max: 10, ..RunSettings::default() });
        assert_eq!(outcome.breach.map(|breach| (breach.invariant, breach.step)), Some((ENDLESS, 10)));
    }

    /// Panics after an hour.
    #[derive(Debug)]
    struct Panics;

    impl Invariant for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn after(&mut self, world: &World, _: &crate::sim::world::StepSeen) -> Result<(), String> {
            assert!(world.now().0 < 3_600_000, "an hour is over");
            Ok(())
        }

        fn at_end(&mut self, _: &World) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_leaves_all_that_happened_before() {
        let settings = RunSettings { frames: true, ..RunSettings::default() };
        let outcome = judged(&Scenario::drawn(3), &settings, vec![Box::new(Panics)]);
        let breach = outcome.breach.unwrap();
        assert_eq!((breach.invariant, &*breach.found), (PANIC, "an hour is over"));
        assert!(!breach.recent.is_empty() && !outcome.frames.is_empty() && outcome.trace != 0);
    }

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let told = |panic: fn()| words(&*catch_unwind(panic).unwrap_err());
        assert_eq!(told(|| panic!("plain")), "plain");
        assert_eq!(told(|| panic!("number {}", 7)), "number 7");
        assert_eq!(told(|| std::panic::panic_any(7_u8)), "a panic without words");
    }
}
