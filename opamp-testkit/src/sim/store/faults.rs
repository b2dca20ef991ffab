//! What goes wrong between a replica and the store.

use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;

use crate::sim::profiles::Span;
use crate::sim::rng::Rng;
use crate::sim::scenario::Faulty;

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How long it takes to the store.
    pub there: Duration,
    /// How long the answer takes.
    pub back: Duration,
    /// Whether it reaches the store.
    pub arrives: bool,
    /// Whether the answer says anything.
    pub answered: bool,
}

/// How long a request takes one way.
const USUAL: Span = Span { from: Duration::from_millis(1), until: Duration::from_millis(20) };
/// How long a slow one takes.
const SLOW: Span = Span::between(0, 5);
/// How long somebody waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Draws what becomes of a request.
pub fn fate(faulty: &Faulty, unreachable: bool, rng: &mut Rng) -> Fate {
    // All draws are made whatever they lead to, so that one kind that is off shifts nothing else.
    let mut hit = |percent: u8| rng.chance(Ppm::percent(percent.into()));
    let (lost, unanswered, slow) =
        (hit(faulty.commit_lost), hit(faulty.answer_lost), hit(faulty.commit_slow));
    let (there, back) = (rng.span(USUAL), rng.span(USUAL));
    let (slow_there, slow_back) = (rng.span(SLOW), rng.span(SLOW));
    let (there, back) = if slow { (slow_there, slow_back) } else { (there, back) };
    let arrives = !unreachable && !lost;
    let answered = arrives && !unanswered;
    Fate { there, back: if answered { back } else { PATIENCE }, arrives, answered }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_faults_every_request_is_answered_soon() {
        let mut rng = Rng::new(1);
        for _ in 0..100 {
            let fate = fate(&Faulty::default(), false, &mut rng);
            assert!(fate.arrives && fate.answered);
            assert!(fate.there <= USUAL.until && fate.back <= USUAL.until);
        }
    }

    #[test]
    fn what_does_not_arrive_is_not_answered() {
        let mut rng = Rng::new(1);
        let all = Faulty { commit_lost: 100, ..Faulty::default() };
        assert!(!fate(&all, false, &mut rng).answered);
        assert!(!fate(&Faulty::default(), true, &mut rng).arrives);
        let unanswered = fate(&Faulty { answer_lost: 100, ..Faulty::default() }, false, &mut rng);
        assert!(unanswered.arrives && !unanswered.answered);
    }

    #[test]
    fn a_kind_of_fault_that_is_off_shifts_no_other() {
        let (mut with, mut without) = (Rng::new(9), Rng::new(9));
        for _ in 0..50 {
            fate(&Faulty { commit_slow: 50, ..Faulty::default() }, false, &mut with);
            fate(&Faulty::default(), false, &mut without);
        }
        assert_eq!(with.draw(), without.draw());
    }
}
