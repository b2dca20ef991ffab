//! The tests behind the gates, in integers at run time, and the errors they have (R42).
//!
//! | test | stops when | its error, for any number of looks |
//! |---|---|---|
//! | [`sequential`] | failures are more like a bad ratio than like an acceptable one | at most its share, exact, at any ratio up to the acceptable one, for offers in the order of the plan |
//! | [`bound`] | the lower confidence bound of the ratio exceeds a limit | at most its share, proven, at any ratio up to the limit |
//!
//! Both compare a number with a limit that was computed when the plan was made. What computes limits uses floats with
//! `+`, `−`, `×` and `÷` alone, which IEEE 754 defines to the last bit, so that a plan is the same on every platform
//! (x87 without SSE2 excepted); the one logarithm, [`log::weight`], is computed in integers.
//!
//! Neither asks when a member answers, for failures may be quicker than successes or slower: a score goes by the order of the
//! plan ([`run`]), a count is compared with the limit of all that were offered it, those without an answer included. Limits
//! are computed for the members of the plan; where more join, both grow ([`run::limit_of`], [`bound::limit_at`]).

pub mod binomial;
pub mod bound;
pub mod log;
mod ratio;
pub mod run;
pub mod sequential;

pub use ratio::{Observed, Ppm};

/// A ratio as a probability.
fn probability(ratio: Ppm) -> f64 {
    f64::from(ratio.0) / f64::from(Ppm::ALL.0)
}
