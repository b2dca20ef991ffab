//! What operators do in a simulated rollout.

use std::time::Duration;

use opamp_fleet::rollout::gates::GateConfig;
use opamp_fleet::rollout::{Do, GateIx, Resume, Scope};

use crate::sim::profiles::Span;

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

/// A command in the words of a plan file, such as `waive apply-failed`; `gates` are those of the rollout.
#[must_use]
pub fn act_words(wanted: &Do, gates: &[GateConfig]) -> String {
    let named = |gate: &GateIx| gates.get(gate.index()).map_or("a gate", |gate| gate.kind.as_str());
    let word = match wanted {
        Do::Extend { by } => return format!("extend by {}", Span { from: *by, until: *by }),
        Do::Resume(Resume::Raise { gate, over, count }) => {
            return format!("raise {} to {over}, at least {count}", named(gate));
        }
        Do::Resume(Resume::Waive { gate }) => return format!("waive {}", named(gate)),
        Do::SkipGate { gate, .. } => return format!("skip-gate {}", named(gate)),
        Do::Abort => "abort",
        Do::Advance => "advance",
        Do::AllowHash { .. } => "allow-hash",
        Do::Approve { .. } => "approve",
        Do::Cancel => "cancel",
        Do::Exclude { .. } => "exclude",
        Do::Pause => "pause",
        Do::Preflighted { .. } => "preflighted",
        Do::Reject => "reject",
        Do::ReleaseControlGroup => "release-control-group",
        Do::Resume(Resume::Plain) => "resume",
        Do::Resume(Resume::Retry) => "retry",
        Do::Resume(Resume::Skip) => "skip",
        Do::RollBack(Scope::All) => "roll-back",
        Do::RollBack(Scope::Failed) => "roll-back-failed",
        Do::RollBack(Scope::Wave(_)) => "roll-back-wave",
        Do::SetLimits(_) => "set-limits",
        Do::SkipWave => "skip-wave",
        Do::Start { .. } => "start",
        Do::Submit => "submit",
        Do::Supersede { .. } => "supersede",
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opamp_fleet::rollout::gates::{GateKind, defaults};
    use opamp_fleet::rollout::stats::Ppm;

    use super::*;

    #[test]
    fn an_act_is_told_in_the_words_of_a_plan() {
        let gates = defaults();
        let at = gates.iter().position(|gate| gate.kind == GateKind::Unhealthy).unwrap();
        let gate = GateIx(u8::try_from(at).unwrap());
        for word in ACTS {
            assert_eq!(act_words(&act_named(word).unwrap(), &gates), word);
        }
        let raise = Resume::Raise { gate, over: Ppm::percent(30), count: 5 };
        for (wanted, expected) in [
            (Do::Extend { by: Duration::from_secs(5_400) }, "extend by 90 min"),
            (Do::Resume(raise), "raise unhealthy to 30 %, at least 5"),
            (Do::Resume(Resume::Waive { gate }), "waive unhealthy"),
            (Do::SkipGate { gate, wave: None }, "skip-gate unhealthy"),
        ] {
            assert_eq!(act_words(&wanted, &gates), expected);
        }
    }

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
