//! States of a rollout in which commands do something.

use crate::rollout::{Refused, RolloutState};

/// The states that are not final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    Draft,
    PendingApproval,
    Scheduled,
    Preflight,
    Ready,
    Running,
    Paused,
    Baking,
    Aborting,
    RollingBack,
}

impl Live {
    /// The state, unless it is final.
    pub(crate) const fn of(state: RolloutState) -> Option<Self> {
        match state {
            RolloutState::Draft => Some(Self::Draft),
            RolloutState::PendingApproval => Some(Self::PendingApproval),
            RolloutState::Scheduled => Some(Self::Scheduled),
            RolloutState::Preflight => Some(Self::Preflight),
            RolloutState::Ready => Some(Self::Ready),
            RolloutState::Running => Some(Self::Running),
            RolloutState::Paused => Some(Self::Paused),
            RolloutState::Baking => Some(Self::Baking),
            RolloutState::Aborting => Some(Self::Aborting),
            RolloutState::RollingBack => Some(Self::RollingBack),
            RolloutState::Aborted
            | RolloutState::Cancelled
            | RolloutState::Expired
            | RolloutState::Failed
            | RolloutState::PartiallyRolledBack
            | RolloutState::Rejected
            | RolloutState::RollbackFailed
            | RolloutState::RolledBack
            | RolloutState::Succeeded
            | RolloutState::Superseded => None,
        }
    }

    /// The state in the words of everybody.
    pub(crate) const fn state(self) -> RolloutState {
        match self {
            Self::Draft => RolloutState::Draft,
            Self::PendingApproval => RolloutState::PendingApproval,
            Self::Scheduled => RolloutState::Scheduled,
            Self::Preflight => RolloutState::Preflight,
            Self::Ready => RolloutState::Ready,
            Self::Running => RolloutState::Running,
            Self::Paused => RolloutState::Paused,
            Self::Baking => RolloutState::Baking,
            Self::Aborting => RolloutState::Aborting,
            Self::RollingBack => RolloutState::RollingBack,
        }
    }

    /// The command makes no sense in this state.
    pub(crate) const fn refuses(self, needs: &'static str) -> Refused {
        Refused::WrongState { state: self.state(), needs }
    }
}
