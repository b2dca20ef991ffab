//! From a failing scenario to a smaller one that fails alike.
//!
//! Parts are left out by halves, quarters and so on down to single ones, kind by kind, and whatever still breaks the same
//! invariant is kept, until nothing more can be left out. Agents, hints about them, requests of replicas and operators of
//! rollouts draw each from a stream of their own, so that what is left out takes no random numbers from the others.

use std::ops::Range;

use super::run::{Breach, Outcome, RunSettings, run};
use super::scenario::{Part, Scenario};

/// Most runs of one shrinking.
pub const RUNS_MAX: u32 = 400;

/// In which order kinds of parts are left out: first what makes runs short.
const ORDER: [Part; 6] =
    [Part::Rollouts, Part::Acts, Part::Agents, Part::Replicas, Part::Profiles, Part::Faults];

/// Something that is made of parts which can be left out.
pub trait Reducible: Clone {
    /// Kinds of parts.
    type Kind: Copy;

    /// How many parts of a kind it has.
    fn parts(&self, kind: Self::Kind) -> usize;

    /// It without some of them; none if that changes nothing, or nothing would be left.
    fn without(&self, kind: Self::Kind, parts: Range<usize>) -> Option<Self>;
}

impl Reducible for Scenario {
    type Kind = Part;

    fn parts(&self, kind: Part) -> usize {
        Self::parts(self, kind)
    }

    fn without(&self, kind: Part, parts: Range<usize>) -> Option<Self> {
        Self::without(self, kind, parts)
    }
}

/// A scenario that cannot be made smaller.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The scenario.
    pub scenario: Scenario,
    /// How it breaks.
    pub breach: Breach,
    /// Runs that it took.
    pub runs: u32,
}

/// Makes a scenario smaller that breaks an invariant: what comes out breaks the same one. At most [`RUNS_MAX`] runs.
#[must_use]
pub fn shrink(scenario: Scenario, breach: Breach, settings: &RunSettings) -> Shrunk {
    let mut latest = breach;
    let invariant = latest.invariant;
    let mut runs = 0;
    let smallest = smallest(scenario, &ORDER, &mut |candidate| {
        if runs == RUNS_MAX {
            return Verdict::Enough;
        }
        runs += 1;
        match run(candidate, settings) {
            Outcome { breach: Some(breach), .. } if breach.invariant == invariant => {
                latest = breach;
                Verdict::FailsAlike
            }
            _ => Verdict::Other,
        }
    });
    Shrunk { scenario: smallest, breach: latest, runs }
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// No more candidates.
    Enough,
    /// It fails as the original does: it takes its place.
    FailsAlike,
    /// It does not.
    Other,
}

/// The smallest that is found by leaving out parts, until no single part of any kind can be left out.
fn smallest<R: Reducible>(from: R, kinds: &[R::Kind], judge: &mut dyn FnMut(&R) -> Verdict) -> R {
    let mut best = from;
    loop {
        let mut smaller = false;
        for &kind in kinds {
            let mut length = best.parts(kind);
            while length > 0 {
                match pass(&mut best, kind, length, judge) {
                    Passed::Enough => return best,
                    Passed::Smaller => smaller = true,
                    Passed::Same => {}
                }
                length /= 2;
            }
        }
        if !smaller {
            return best;
        }
    }
}

/// What came of leaving out pieces of one length.
enum Passed {
    Enough,
    Same,
    Smaller,
}

fn pass<R: Reducible>(
    best: &mut R,
    kind: R::Kind,
    length: usize,
    judge: &mut dyn FnMut(&R) -> Verdict,
) -> Passed {
    let mut passed = Passed::Same;
    let mut begin = 0;
    while begin < best.parts(kind) {
        let end = (begin + length).min(best.parts(kind));
        let candidate = best.without(kind, begin..end);
        let (parts, verdict) = match &candidate {
            Some(candidate) => (candidate.parts(kind), judge(candidate)),
            None => (best.parts(kind), Verdict::Other),
        };
        match (verdict, candidate) {
            (Verdict::Enough, _) => return Passed::Enough,
            (Verdict::FailsAlike, Some(candidate)) => {
                // Parts that are changed instead of removed stay where they are: on to the next ones.
                let removed = parts < best.parts(kind);
                *best = candidate;
                passed = Passed::Smaller;
                if !removed {
                    begin = end;
                }
            }
            (Verdict::FailsAlike | Verdict::Other, _) => begin = end,
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that can be removed, and others that can be made 0.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Sample {
        removed: Vec<u32>,
        zeroed: Vec<u32>,
    }

    #[derive(Clone, Copy)]
    enum Kind {
        Removed,
        Zeroed,
    }

    impl Reducible for Sample {
        type Kind = Kind;

        fn parts(&self, kind: Kind) -> usize {
            match kind {
                Kind::Removed => self.removed.len(),
                Kind::Zeroed => self.zeroed.len(),
            }
        }

        fn without(&self, kind: Kind, parts: Range<usize>) -> Option<Self> {
            let mut less = self.clone();
            match kind {
                Kind::Removed => _ = less.removed.drain(parts),
                Kind::Zeroed => less.zeroed[parts].fill(0),
            }
            (less != *self).then_some(less)
        }
    }

    fn sample() -> Sample {
        Sample { removed: (0..100).collect(), zeroed: (1..=50).collect() }
    }

    fn shrunk(fails: impl Fn(&Sample) -> bool, runs_max: u32) -> (Sample, u32) {
        let mut runs = 0;
        let smallest = smallest(sample(), &[Kind::Removed, Kind::Zeroed], &mut |candidate| {
            if runs == runs_max {
                return Verdict::Enough;
            }
            runs += 1;
            if fails(candidate) { Verdict::FailsAlike } else { Verdict::Other }
        });
        (smallest, runs)
    }

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let fails = |s: &Sample| s.removed.contains(&7) && s.removed.contains(&93) && s.zeroed[20] != 0;
        let (smallest, runs) = shrunk(fails, RUNS_MAX);
        assert_eq!(smallest.removed, [7, 93]);
        let left: Vec<u32> = smallest.zeroed.into_iter().filter(|&number| number != 0).collect();
        assert_eq!(left, [21]);
        assert!(runs < RUNS_MAX, "{runs}");
    }

    #[test]
    fn a_failure_that_needs_nothing_is_found_at_once() {
        let (smallest, runs) = shrunk(|_| true, RUNS_MAX);
        assert!(smallest.removed.is_empty() && smallest.zeroed.iter().all(|&number| number == 0));
        assert!(runs < 10, "{runs}");
    }

    #[test]
    fn after_so_many_runs_the_smallest_so_far_is_taken() {
        let fails = |s: &Sample| s.removed.contains(&7);
        let (smallest, runs) = shrunk(fails, 3);
        assert_eq!(runs, 3);
        assert!(fails(&smallest) && smallest.removed.len() < 100);
    }
}
