//! What becomes of a rollout that overlaps another one (R61, R62).

use std::collections::{BTreeMap, BTreeSet};

use crate::rollout::RolloutId;
use crate::rollout::plan::ConflictPolicy;

/// Other rollouts have the slot of some of the agents, and the policy is not to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} rollouts have the same slot of some of the agents", .with.len())]
pub struct Conflict {
    /// The others, and how many agents they have in common with it.
    pub with: Vec<(RolloutId, u32)>,
}

/// How a rollout begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// When the others have ended by themselves.
    AfterOthers,
    /// When the others have ended, which it wants of them: what they have in flight settles first.
    InPlaceOfOthers,
    /// As soon as it likes.
    Now,
}

/// | policy | overlaps none | overlaps others |
/// |---|---|---|
/// | reject | now | refused |
/// | queue | now | after the others |
/// | supersede | now | in place of the others |
pub(super) fn admit(policy: ConflictPolicy, overlaps: &[(RolloutId, u32)]) -> Result<Admission, Conflict> {
    match policy {
        _ if overlaps.is_empty() => Ok(Admission::Now),
        ConflictPolicy::Queue => Ok(Admission::AfterOthers),
        ConflictPolicy::Reject => Err(Conflict { with: overlaps.to_vec() }),
        ConflictPolicy::Supersede => Ok(Admission::InPlaceOfOthers),
    }
}

/// Who waits for whom. Nobody waits for a rollout that waits for it, be it behind others, so that nobody waits in a circle:
/// what a plan overlaps is counted without them.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    behind: BTreeMap<RolloutId, BTreeSet<RolloutId>>,
}

impl Waiting {
    /// The rollout waits for these as well. They may be over already: who is gone is not waited for.
    pub(super) fn wait(&mut self, rollout: RolloutId, others: impl IntoIterator<Item = RolloutId>) {
        let mut others = others.into_iter().filter(|other| *other != rollout).peekable();
        if others.peek().is_some() {
            self.behind.entry(rollout).or_default().extend(others);
        }
    }

    /// Whom it was told to wait for.
    pub(super) fn behind(&self, rollout: RolloutId) -> impl Iterator<Item = RolloutId> {
        self.behind.get(&rollout).into_iter().flatten().copied()
    }

    /// The rollout is over, or its engine was dropped: it waits for nobody. Others wait for it as long as it lives.
    pub(super) fn forget(&mut self, rollout: RolloutId) {
        self.behind.remove(&rollout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: (RolloutId, u32) = (RolloutId::from_bytes([7; 16]), 3);

    #[test]
    fn without_overlap_every_policy_lets_it_begin() {
        for policy in ConflictPolicy::ALL {
            assert_eq!(admit(policy, &[]), Ok(Admission::Now));
        }
    }

    #[test]
    fn with_overlap_the_policy_decides() {
        let admitted = ConflictPolicy::ALL.map(|policy| admit(policy, &[OTHER]));
        assert_eq!(
            admitted,
            [Ok(Admission::AfterOthers), Err(Conflict { with: vec![OTHER] }), Ok(Admission::InPlaceOfOthers)]
        );
    }

    #[test]
    fn nobody_waits_for_itself() {
        let mut waiting = Waiting::default();
        let rollout = RolloutId::from_bytes([1; 16]);
        waiting.wait(rollout, [rollout, OTHER.0]);
        assert_eq!(waiting.behind(rollout).collect::<Vec<_>>(), [OTHER.0]);
        waiting.forget(rollout);
        assert_eq!(waiting.behind(rollout).count(), 0);
    }
}
