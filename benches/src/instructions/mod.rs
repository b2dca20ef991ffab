//! Rounds of work whose instructions are counted: `cargo xtask instructions`.
//!
//! A scenario is prepared outside of what is counted, and then does the same round again and again. A count depends on
//! nothing but the program, the compiler and the C library, so it tells a change of one percent that a clock would not.

mod codec;
mod fleet;
mod rollout;
mod session;

/// One round of work, over and over.
pub struct Scenario {
    /// Its name in the baseline: the layer, and what a round is.
    pub name: &'static str,
    /// How many rounds are counted together.
    pub rounds: u32,
    prepare: fn(rounds: u32) -> Round,
}

/// Does the next round of so many that were prepared.
pub type Round = Box<dyn FnMut()>;

/// Rounds that run before anything is counted: buffers have their sizes then.
const WARM_UP: u32 = 8;

impl Scenario {
    /// Every scenario.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        [codec::SCENARIOS, fleet::SCENARIOS, rollout::SCENARIOS, session::SCENARIOS].into_iter().flatten()
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|scenario| scenario.name == name)
    }

    /// Prepares and warms up, and hands over what does all rounds that count.
    #[must_use]
    pub fn prepared(&self) -> Round {
        let mut round = (self.prepare)(WARM_UP + self.rounds);
        for _ in 0..WARM_UP {
            round();
        }
        let rounds = self.rounds;
        Box::new(move || (0..rounds).for_each(|_| round()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_runs_to_its_end() {
        let mut names: Vec<&str> = Scenario::all().map(|scenario| scenario.name).collect();
        for scenario in Scenario::all() {
            scenario.prepared()();
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Scenario::named("codec/decode_heartbeat").is_some() && Scenario::named("codec").is_none());
    }
}
