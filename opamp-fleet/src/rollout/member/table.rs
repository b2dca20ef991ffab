//! The table of member states: what happens to a member in each state by each fact, deadline and command.
//!
//! ```text
//! queued ─claim─► offered ─► delivered ─► applying ─► applied ─evidence─► verified
//!   ▲ │ not connected  │         │            │          │
//!   │ └──► deferred ◄──┴─ absent(stage) ◄─────┴──────────┘      late evidence: timed-out, failed, unverified ─► applied
//!   └────────┘ back        backoff ─► queued      failed, rejected, timed-out, self-rolled-back, verified, unverified
//!                                                   └─► rollback-queued ─► rollback-offered ─► rolled-back, rollback-failed
//!                                                             └──► rollback-deferred ─back─┘
//! ```

use super::cell::{Act, Column};
use crate::rollout::MemberState as M;

/// The cell of a state and a column.
pub(super) const fn cell(state: M, column: Column) -> Act {
    use Column as C;
    match state {
        M::Queued => match column {
            C::Delivered | C::Applying | C::Other | C::Differs | C::Well | C::Ill | C::Gone | C::Back => {
                Act::Note
            }
            C::Applied => Act::Current,
            C::Failed => Act::FailedBefore,
            C::Equal => Act::CurrentByEffective,
            C::CapsLost => Act::NotApplicable,
            C::Left => Act::LeaveTried,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueueTried,
            C::Withheld | C::Stop => Act::Note,
        },
        M::Backoff => match column {
            C::Delivered | C::Applying | C::Differs | C::Well | C::Ill | C::Gone | C::Back => Act::Note,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::FailWhileBackingOff,
            C::Other => Act::WentBack,
            C::CapsLost => Act::NotApplicable,
            C::Withheld => Act::Refuse,
            C::Left => Act::LeaveTried,
            C::Removed => Act::Remove,
            C::Deadline => Act::BackoffOver,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
            C::Stop => Act::GiveUp,
        },
        M::Offered => match column {
            C::Delivered => Act::Delivered,
            C::Applying => Act::Applying,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::Refuse,
            C::Other | C::Differs | C::Well | C::Ill | C::Back | C::Stop => Act::Note,
            C::Gone => Act::Gone,
            C::CapsLost => Act::NotApplicableUndo,
            C::Withheld => Act::Withheld,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::OfferOver,
            C::Exclude => Act::ExcludeUndo,
            C::RollBack => Act::RollbackQueue,
        },
        M::Delivered => match column {
            C::Applying => Act::Applying,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::RefuseOrFail,
            C::Well => Act::AppliedByHealth,
            C::Delivered | C::Other | C::Differs | C::Ill | C::Back | C::CapsLost | C::Stop => Act::Note,
            C::Gone => Act::Gone,
            C::Withheld => Act::NotApplicable,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::ApplyOver,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
        },
        M::Applying => match column {
            C::Applying => Act::Extend,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::Fail,
            C::Other => Act::WentBack,
            C::Delivered | C::Differs | C::Well | C::Ill | C::Back | C::CapsLost => Act::Note,
            C::Withheld | C::Stop => Act::Note,
            C::Gone => Act::Gone,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::ApplyingOver,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
        },
        M::Applied => match column {
            C::Applied | C::Equal | C::Well => Act::Complete,
            C::Failed => Act::FailFinal,
            C::Other => Act::WentBackOrEdited,
            C::Delivered | C::Applying | C::Differs | C::Ill | C::Back | C::CapsLost => Act::Note,
            C::Withheld | C::Stop => Act::Note,
            C::Gone => Act::Gone,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::VerifyOver,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
        },
        M::Absent => match column {
            C::Delivered => Act::Delivered,
            C::Applying => Act::Applying,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::FailByStage,
            C::Other | C::Differs => Act::AsStage,
            C::Well | C::Ill | C::Gone | C::CapsLost | C::Withheld | C::Stop => Act::Note,
            C::Back => Act::BackToStage,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::GraceOver,
            C::Exclude => Act::ExcludeUndo,
            C::RollBack => Act::RollbackQueue,
        },
        M::Verified => match column {
            C::Failed => Act::FailFinal,
            C::Other => Act::WentBackOrEdited,
            C::Delivered | C::Applying | C::Applied | C::Equal | C::Differs | C::Well | C::Ill => Act::Note,
            C::CapsLost | C::Withheld | C::Stop => Act::Note,
            C::Gone => Act::GraceStarts,
            C::Back => Act::GraceEnds,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::AwayOver,
            C::Exclude => Act::Nothing,
            C::RollBack => Act::RollbackQueue,
        },
        M::Unverified => match column {
            C::Applying => Act::Applying,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::FailFinal,
            C::Other => Act::WentBack,
            C::Well => Act::AppliedByHealth,
            C::Delivered | C::Differs | C::Ill | C::CapsLost | C::Withheld | C::Stop => Act::Note,
            C::Gone => Act::GraceStarts,
            C::Back => Act::GraceEnds,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::AwayOver,
            C::Exclude => Act::Nothing,
            C::RollBack => Act::RollbackQueue,
        },
        M::AlreadyCurrent | M::NotApplicable => match column {
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Exclude,
            C::Delivered | C::Applying | C::Applied | C::Failed | C::Other | C::Equal | C::Differs => {
                Act::Note
            }
            C::Well | C::Ill | C::Gone | C::Back | C::CapsLost | C::Withheld | C::Left => Act::Note,
            C::RollBack | C::Stop => Act::Note,
        },
        M::Excluded => match column {
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Nothing,
            C::RollBack => Act::RollbackQueueTouched,
            C::Delivered | C::Applying | C::Applied | C::Failed | C::Other | C::Equal | C::Differs => {
                Act::Note
            }
            C::Well | C::Ill | C::Gone | C::Back | C::CapsLost | C::Withheld | C::Left | C::Stop => Act::Note,
        },
        M::Control => match column {
            C::Applied => Act::Current,
            C::Equal => Act::CurrentByEffective,
            // What is compared with who was offered it is watched in the same way.
            C::Gone => Act::GraceStarts,
            C::Back => Act::GraceEnds,
            C::CapsLost => Act::NotApplicable,
            C::Left => Act::LeaveQueue,
            C::Removed => Act::Remove,
            C::Deadline => Act::AwayOver,
            C::Exclude => Act::Exclude,
            C::Delivered | C::Applying | C::Failed | C::Other | C::Differs | C::Well | C::Ill => Act::Note,
            C::Withheld | C::RollBack | C::Stop => Act::Note,
        },
        M::Removed => match column {
            C::Removed | C::Exclude => Act::Nothing,
            C::Deadline => Act::Impossible,
            C::Delivered | C::Applying | C::Applied | C::Failed | C::Other | C::Equal | C::Differs => {
                Act::Note
            }
            C::Well | C::Ill | C::Gone | C::Back | C::CapsLost | C::Withheld | C::Left => Act::Note,
            C::RollBack | C::Stop => Act::Note,
        },
        M::Expired => match column {
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Nothing,
            C::RollBack => Act::RollbackDeferUndo,
            C::Delivered | C::Applying | C::Applied | C::Failed | C::Other | C::Equal | C::Differs => {
                Act::Note
            }
            C::Well | C::Ill | C::Gone | C::Back | C::CapsLost | C::Withheld | C::Left | C::Stop => Act::Note,
        },
        M::Failed => match column {
            C::Applied | C::Equal => Act::Applied,
            C::Other => Act::WentBack,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
            C::Delivered | C::Applying | C::Failed | C::Differs | C::Well | C::Ill | C::Gone => Act::Note,
            C::Back | C::CapsLost | C::Withheld | C::Stop => Act::Note,
        },
        M::Rejected | M::SelfRolledBack => match column {
            C::Applied | C::Equal => Act::Applied,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::AtPrevious,
            C::Delivered | C::Applying | C::Failed | C::Other | C::Differs | C::Well | C::Ill => Act::Note,
            C::Gone | C::Back | C::CapsLost | C::Withheld | C::Stop => Act::Note,
        },
        M::TimedOut => match column {
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::FailFinal,
            C::Other => Act::WentBack,
            C::Left => Act::Leave,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackQueue,
            C::Delivered | C::Applying | C::Differs | C::Well | C::Ill | C::Gone | C::Back => Act::Note,
            C::CapsLost | C::Withheld | C::Stop => Act::Note,
        },
        M::Deferred => match column {
            C::Delivered => Act::DeliveredLate,
            C::Applied | C::Equal => Act::Applied,
            C::Failed => Act::Fail,
            C::Other => Act::WentBack,
            C::Back => Act::BackLate,
            C::Left => Act::LeaveDeferred,
            C::Removed => Act::Remove,
            C::Deadline => Act::Expire,
            C::Exclude => Act::Exclude,
            C::RollBack => Act::RollbackDeferUndo,
            C::Applying | C::Differs | C::Well | C::Ill | C::Gone | C::CapsLost => Act::Note,
            C::Withheld | C::Stop => Act::Note,
        },
        M::RollbackQueued => match column {
            C::Applied | C::Other => Act::RolledBack,
            C::CapsLost => Act::RollbackFail,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::ExcludeWaiting,
            C::Stop => Act::Drop,
            C::Delivered | C::Applying | C::Failed | C::Equal | C::Differs | C::Well | C::Ill => Act::Note,
            C::Gone | C::Back | C::Withheld | C::Left | C::RollBack => Act::Note,
        },
        M::RollbackOffered => match column {
            C::Delivered | C::Applying => Act::RollbackExtend,
            C::Applied | C::Other => Act::RolledBack,
            C::Failed | C::CapsLost | C::Withheld => Act::RollbackFail,
            C::Equal => Act::RolledBackByEffective,
            C::Well => Act::RolledBackByHealth,
            C::Gone => Act::RollbackDefer,
            C::Removed => Act::Remove,
            C::Deadline => Act::RollbackOver,
            C::Exclude => Act::Nothing,
            C::Differs | C::Ill | C::Back | C::Left | C::RollBack | C::Stop => Act::Note,
        },
        M::RolledBack => match column {
            C::Failed => Act::RollbackFail,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude => Act::Nothing,
            C::Delivered | C::Applying | C::Applied | C::Other | C::Equal | C::Differs | C::Well => Act::Note,
            C::Ill | C::Gone | C::Back | C::CapsLost | C::Withheld | C::Left => Act::Note,
            C::RollBack | C::Stop => Act::Note,
        },
        M::RollbackFailed => match column {
            C::Applied | C::Other => Act::RolledBack,
            C::Equal => Act::RolledBackByEffective,
            C::Removed => Act::Remove,
            C::Deadline => Act::Impossible,
            C::Exclude | C::RollBack => Act::Nothing,
            C::Delivered | C::Applying | C::Failed | C::Differs | C::Well | C::Ill | C::Gone => Act::Note,
            C::Back | C::CapsLost | C::Withheld | C::Left | C::Stop => Act::Note,
        },
        M::RollbackDeferred => match column {
            C::Applied | C::Other => Act::RolledBack,
            C::Equal => Act::RolledBackByEffective,
            C::Failed => Act::RollbackFail,
            C::Back => Act::OfferRollback,
            C::Removed => Act::Remove,
            C::Deadline => Act::RollbackExpire,
            C::Exclude => Act::Nothing,
            C::Delivered | C::Applying | C::Differs | C::Well | C::Ill | C::Gone | C::CapsLost => Act::Note,
            C::Withheld | C::Left | C::RollBack | C::Stop => Act::Note,
        },
    }
}
