//! A rollout in the words operators know.

use super::engine::{Engine, State};
use super::gates::{Evidence, ScopeAt, Severity, Verdict};
use super::plan::Plan;
use super::{MemberState, RolloutState, Time, UnverifiedPolicy, WaveState};
use crate::words::closed_set;

closed_set! {
    /// The state of a rollout in the words operators know.
    pub enum OperatorState ("operator state") {
        /// It has not begun.
        Pending = "pending",
        /// It is under way.
        InProgress = "in-progress",
        /// It is paused, or a wave of it is held.
        Paused = "paused",
        /// It has succeeded.
        Completed = "completed",
        /// It has ended otherwise.
        Failed = "failed",
        /// It was rolled back, in whole or in part.
        RolledBack = "rolled-back",
    }
}

impl From<RolloutState> for OperatorState {
    fn from(state: RolloutState) -> Self {
        match state {
            RolloutState::Draft
            | RolloutState::PendingApproval
            | RolloutState::Scheduled
            | RolloutState::Preflight
            | RolloutState::Ready => Self::Pending,
            RolloutState::Running
            | RolloutState::Baking
            | RolloutState::Aborting
            | RolloutState::RollingBack => Self::InProgress,
            RolloutState::Paused => Self::Paused,
            RolloutState::Succeeded => Self::Completed,
            RolloutState::Aborted
            | RolloutState::Cancelled
            | RolloutState::Expired
            | RolloutState::Failed
            | RolloutState::Rejected
            | RolloutState::RollbackFailed
            | RolloutState::Superseded => Self::Failed,
            RolloutState::PartiallyRolledBack | RolloutState::RolledBack => Self::RolledBack,
        }
    }
}

/// A rollout in the words operators know. `pending`, `applying`, `applied` and `failed` are members of `total`;
/// `disconnected_since_push` is a count beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its state.
    pub state: OperatorState,
    /// The wave it is at, from 1; 0 before the first.
    pub batch: u16,
    /// Its waves.
    pub batches: u16,
    /// Not pushed.
    pub pending: u32,
    /// Pushed, without an answer.
    pub applying: u32,
    /// They have it.
    pub applied: u32,
    /// They failed, those included that will be tried again.
    pub failed: u32,
    /// Pushed, and not connected now.
    pub disconnected_since_push: u32,
    /// Neither success nor failure: left out, gone, gone back, and unverified unless the policy says otherwise.
    pub neutral: u32,
    /// Away, to be taken when they are back.
    pub deferred: u32,
    /// The denominator: without excluded, removed, neutral and deferred members.
    pub total: u32,
    /// Members that settled in the last full minute before now, or in this one if there were more.
    pub per_minute: u32,
    /// The gate that stopped or holds it, in one line.
    pub stopped_by: Option<String>,
    /// Agents' own words about failures, and how often, the most frequent first. What found no place is `other`.
    pub texts: Vec<(u32, Box<str>)>,
}

impl Engine {
    /// The rollout in the words operators know. Its cost depends on the number of waves alone.
    pub fn summary(&self, now: Time) -> Summary {
        let (state, plan) = (&self.state, &*self.plan);
        let mut summary = Summary {
            state: if state.is_held() { OperatorState::Paused } else { state.state.into() },
            batch: batch(state),
            batches: state.waves.len() as u16,
            pending: 0,
            applying: 0,
            applied: 0,
            failed: 0,
            disconnected_since_push: state.away,
            neutral: 0,
            deferred: 0,
            total: 0,
            per_minute: state.per_minute(now),
            stopped_by: stopped_by(state, plan).map(Evidence::to_string),
            texts: texts(state),
        };
        for member in MemberState::ALL {
            let count = state.members_in(member);
            *summary.class(member, plan.settings.unverified) += count;
        }
        // Their last answer was bad, and they were pushed: as long as no other try has begun they have failed.
        summary.pending = summary.pending.saturating_sub(state.again);
        summary.failed += state.again;
        if state.state == RolloutState::Succeeded {
            // The rollout offers them nothing any more.
            summary.neutral += std::mem::take(&mut summary.pending);
        }
        summary.first_wave(state, plan.settings.unverified);
        summary.total = summary.pending + summary.applying + summary.applied + summary.failed;
        summary
    }
}

impl Summary {
    /// In the first wave nobody succeeds without evidence, whatever the policy.
    fn first_wave(&mut self, state: &State, unverified: UnverifiedPolicy) {
        let first = state.wave(state.first_wave()).count(MemberState::Unverified);
        if unverified == UnverifiedPolicy::Success {
            self.applied = self.applied.saturating_sub(first);
            self.neutral += first;
        }
    }

    /// The number in which members of a state are counted.
    fn class(&mut self, member: MemberState, unverified: UnverifiedPolicy) -> &mut u32 {
        match member {
            MemberState::Queued | MemberState::RollbackQueued | MemberState::Control => &mut self.pending,
            MemberState::Offered
            | MemberState::Delivered
            | MemberState::Applying
            | MemberState::Applied
            | MemberState::Absent
            | MemberState::RollbackOffered => &mut self.applying,
            MemberState::Verified | MemberState::AlreadyCurrent => &mut self.applied,
            MemberState::Backoff
            | MemberState::Failed
            | MemberState::Rejected
            | MemberState::SelfRolledBack
            | MemberState::TimedOut
            | MemberState::RollbackFailed => &mut self.failed,
            MemberState::Unverified => match unverified {
                UnverifiedPolicy::Failure => &mut self.failed,
                UnverifiedPolicy::Neutral => &mut self.neutral,
                UnverifiedPolicy::Success => &mut self.applied,
            },
            MemberState::NotApplicable
            | MemberState::Excluded
            | MemberState::Removed
            | MemberState::Expired
            | MemberState::RolledBack => &mut self.neutral,
            MemberState::Deferred | MemberState::RollbackDeferred => &mut self.deferred,
        }
    }
}

/// The wave it is at, from 1.
fn batch(state: &State) -> u16 {
    let has_begun = state.waves.iter().any(|wave| wave.state != WaveState::Pending);
    match state.current() {
        Some(wave) if has_begun => wave.0 + 1,
        Some(_) => 0,
        None => state.waves.len() as u16,
    }
}

/// The gravest of what gates said that are not only watched; of equally grave ones the latest, and of those what was said
/// of one wave. Nothing while the rollout goes on.
pub(super) fn stopped_by<'a>(state: &'a State, plan: &Plan) -> Option<&'a Evidence> {
    let goes_on = matches!(state.state, RolloutState::Running | RolloutState::Baking) && !state.is_held();
    if goes_on || state.state == RolloutState::Succeeded {
        return None;
    }
    let acts = |evidence: &&Evidence| {
        let mut gates = plan.gates.iter();
        let gate = gates.find(|gate| gate.kind == evidence.gate && gate.name == evidence.name);
        gate.is_some_and(|gate| gate.severity != Severity::Observe || gate.all_failed.is_some())
    };
    let said = state.fired.iter().filter(|evidence| evidence.verdict != Verdict::Pass);
    let said = said.filter(|evidence| !state.is_being_decided(evidence));
    said.filter(acts).max_by_key(|evidence| {
        let is_of_wave = matches!(evidence.scope, ScopeAt::Wave(_));
        (evidence.verdict, evidence.at, is_of_wave)
    })
}

fn texts(state: &State) -> Vec<(u32, Box<str>)> {
    let mut texts = state.samples.texts.clone();
    texts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    if state.samples.other > 0 {
        texts.push((state.samples.other, "other".into()));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_member_is_counted_under_the_word_operators_know() {
        let words = |policy: UnverifiedPolicy| {
            let mut summary = Summary {
                state: OperatorState::Pending,
                batch: 0,
                batches: 0,
                pending: 0,
                applying: 0,
                applied: 0,
                failed: 0,
                disconnected_since_push: 0,
                neutral: 0,
                deferred: 0,
                total: 0,
                per_minute: 0,
                stopped_by: None,
                texts: Vec::new(),
            };
            for member in MemberState::ALL {
                *summary.class(member, policy) += 1;
            }
            let Summary { pending, applying, applied, failed, neutral, deferred, .. } = summary;
            [pending, applying, applied, failed, neutral, deferred]
        };
        assert_eq!(words(UnverifiedPolicy::Neutral), [3, 6, 2, 6, 6, 2]);
        assert_eq!(words(UnverifiedPolicy::Success), [3, 6, 3, 6, 5, 2]);
        assert_eq!(words(UnverifiedPolicy::Failure), [3, 6, 2, 7, 5, 2]);
    }

    #[test]
    fn the_states_of_a_rollout_have_six_words_for_operators() {
        let word = |state: RolloutState| OperatorState::from(state).as_str();
        let by_word = |wanted: &str| {
            RolloutState::ALL.into_iter().filter(|state| word(*state) == wanted).collect::<Vec<_>>()
        };
        assert_eq!(by_word("pending").len(), 5);
        assert_eq!(by_word("in-progress").len(), 4);
        assert_eq!(by_word("paused"), [RolloutState::Paused]);
        assert_eq!(by_word("completed"), [RolloutState::Succeeded]);
        assert_eq!(by_word("failed").len(), 7);
        assert_eq!(by_word("rolled-back"), [RolloutState::PartiallyRolledBack, RolloutState::RolledBack]);
    }
}
