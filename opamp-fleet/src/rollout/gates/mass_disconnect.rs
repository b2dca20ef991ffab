//! `mass-disconnect`: agents outside the rollout go away as well, so that it is not the configuration.
//!
//! Where `disconnect-ratio` fails while at least half that share of the agents outside went away within its window, its
//! verdict is replaced by an undecided one of this gate: somebody has to decide, and nothing is blamed on the rollout.
//! Without enough agents outside, or without this gate in the plan, `disconnect-ratio` speaks for itself.

use super::judge::Facts;
use super::{Evidence, GateKind, Verdict, numbered};

/// Fewer agents outside than these tell nothing.
const OUTSIDE_MIN: u32 = 20;

/// Replaces what `disconnect-ratio` says if agents outside went away as well.
pub(super) fn explain(facts: &Facts<'_>, said: &mut [Evidence]) {
    let this = numbered(facts.plan).find(|(_, config)| config.kind == GateKind::MassDisconnect);
    let Some((gate, config)) = this else { return };
    if facts.waived & gate.bit() != 0 {
        return;
    }
    let fails = |one: &&mut Evidence| one.gate == GateKind::DisconnectRatio && one.verdict == Verdict::Fail;
    if let Some(evidence) = said.iter_mut().find(fails)
        && is_everywhere(facts.outside, evidence.bad, evidence.of)
    {
        evidence.gate = config.kind;
        evidence.verdict = Verdict::Inconclusive;
        evidence.window = config.window;
    }
}

/// Whether the share of agents outside that went away is at least half that of members.
fn is_everywhere((total, away): (u32, u32), bad: u32, of: u32) -> bool {
    let [total, away, bad, of] = [total, away, bad, of].map(u128::from);
    total >= u128::from(OUTSIDE_MIN) && 2 * away * of >= bad * total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_share_outside_explains_it() {
        assert!(is_everywhere((100, 18), 14, 40), "17.5 % of 35 %");
        assert!(!is_everywhere((100, 17), 14, 40));
    }

    #[test]
    fn few_agents_outside_explain_nothing() {
        assert!(!is_everywhere((19, 19), 14, 40));
        assert!(!is_everywhere((0, 0), 14, 40));
        assert!(is_everywhere((u32::MAX, u32::MAX), u32::MAX, u32::MAX));
    }
}
