//! What operators do in a simulated rollout.

use std::time::Duration;

use opamp_fleet::rollout::{Do, Resume, Scope};

/// What an operator does in a simulated rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    /// Commands by time since the start, ascending.
    pub acts: Vec<(Duration, Do)>,
    /// How long it takes until somebody approves or advances a wave that waits for it; none: nobody does.
    pub reacts_after: Option<Duration>,
}

/// The words of [`act_named`].
pub const ACTS: [&str; 10] = [
    "pause",
    "resume",
    "retry",
    "skip",
    "advance",
    "skip-wave",
    "abort",
    "roll-back",
    "roll-back-failed",
    "release-control-group",
];

/// The command of an operator by its word, one of [`ACTS`]: those that need nothing but a word.
#[must_use]
pub fn act_named(word: &str) -> Option<Do> {
    Some(match word {
        "abort" => Do::Abort,
        "advance" => Do::Advance,
        "pause" => Do::Pause,
        "release-control-group" => Do::ReleaseControlGroup,
        "resume" => Do::Resume(Resume::Plain),
        "retry" => Do::Resume(Resume::Retry),
        "roll-back" => Do::RollBack(Scope::All),
        "roll-back-failed" => Do::RollBack(Scope::Failed),
        "skip" => Do::Resume(Resume::Skip),
        "skip-wave" => Do::SkipWave,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_have_words_and_what_has_none_is_no_act() {
        assert_eq!(act_named("resume"), Some(Do::Resume(Resume::Plain)));
        assert_eq!(act_named("roll-back-failed"), Some(Do::RollBack(Scope::Failed)));
        assert_eq!(act_named("Pause"), None);
        let mut acts: Vec<Do> = ACTS.into_iter().filter_map(act_named).collect();
        acts.dedup();
        assert_eq!(acts.len(), ACTS.len());
    }
}
