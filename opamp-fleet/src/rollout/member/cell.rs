//! The columns of the table of member states, and what its cells do, beside the letters of its usual form.

/// What happens to a member: a fact about it, its deadline, or a command. All but commands, [`Column::Gone`],
/// [`Column::Back`], [`Column::CapsLost`], [`Column::Left`], [`Column::Removed`] and the deadline are about its present offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// The offer left the server.
    Delivered,
    /// It reports APPLYING for the offered hash.
    Applying,
    /// It reports APPLIED for the offered hash.
    Applied,
    /// It reports FAILED for the offered hash; while it goes back, for the previous one.
    Failed,
    /// It reports APPLIED for another hash.
    Other,
    /// Its effective configuration equals the desired one.
    Equal,
    /// Its effective configuration differs.
    Differs,
    /// It reports that it is well.
    Well,
    /// It reports that it is ill.
    Ill,
    /// It went away.
    Gone,
    /// It is there.
    Back,
    /// It lacks a capability the rollout needs.
    CapsLost,
    /// Its session will not send the offer.
    Withheld,
    /// It does not match the selector any more.
    Left,
    /// Its record is deleted.
    Removed,
    /// Its deadline has passed.
    Deadline,
    /// An operator excludes it.
    Exclude,
    /// The rollout rolls back, and it is in its scope.
    RollBack,
    /// The rollout is stopped.
    Stop,
}

/// What a cell of the table does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// `A`: applied, and verified at once if the evidence is complete.
    Applied,
    /// `A⁷`: the same, for an agent that can report nothing but its health.
    AppliedByHealth,
    /// `G`: applying.
    Applying,
    /// `T; no status: U`.
    ApplyOver,
    /// `T`, in `Applying`.
    ApplyingOver,
    /// `as stage`: what the stage before it went away would do.
    AsStage,
    /// `v u`: it runs its previous configuration already; that is written.
    AtPrevious,
    /// `bad(away)`.
    AwayOver,
    /// `s`: back to its stage.
    BackToStage,
    /// `Q`, or `D` if its offer had been delivered.
    BackLate,
    /// `Q`.
    BackoffOver,
    /// `V?`: verified if the evidence is complete.
    Complete,
    /// `N`: it runs the configuration already. A member that was offered it before: `A`.
    Current,
    /// `N³`: the same, by its effective configuration, if it does not report status.
    CurrentByEffective,
    /// `D`, if it has not come further.
    Delivered,
    /// `D`, if its offer is still the one that was delivered.
    DeliveredLate,
    /// `E`, or what it had failed as, because the rollout ended before its turn to go back came; it keeps what it has.
    Drop,
    /// `E` by an operator; the configuration stays.
    Exclude,
    /// `E` by an operator, who wants it left as it is: no later step of the rollback takes it up again.
    ExcludeWaiting,
    /// `E u`: `E`, and an offer that was not delivered is taken back.
    ExcludeUndo,
    /// `X`; whether its offer was delivered is remembered.
    Expire,
    /// `e once`.
    Extend,
    /// `F`: backing off, or failed.
    Fail,
    /// `F!`.
    FailFinal,
    /// `·⁴`: nothing, but `F!` if it backs off because of a time-out.
    FailWhileBackingOff,
    /// `J`, `F` or `F!` by the stage before it went away.
    FailByStage,
    /// `E²`: this configuration failed on it before. A member that was offered it by this rollout: `F!`.
    FailedBefore,
    /// `B`: absent, within its grace.
    Gone,
    /// `F!`, or `T!` after a time-out: its last failure is final.
    GiveUp,
    /// `Z`, `u` if its offer was not delivered.
    GraceOver,
    /// `e`: the grace begins.
    GraceStarts,
    /// `e clears`.
    GraceEnds,
    /// `!`
    Impossible,
    /// `L`: it finishes; whoever looks at the policy for leavers goes on from the flag.
    Leave,
    /// `E`: it left before anything happened.
    LeaveQueue,
    /// `E`, if nothing was delivered.
    LeaveDeferred,
    /// `E`; `K` if leavers go back and it may have, or yet get, what it was offered.
    LeaveTried,
    /// `C`.
    NotApplicable,
    /// `C u`.
    NotApplicableUndo,
    /// `=`
    Nothing,
    /// `·`: flags.
    Note,
    /// `T; away: Z u`.
    OfferOver,
    /// `k`.
    OfferRollback,
    /// `J`.
    Refuse,
    /// `J⁶`: refused if it stayed connected, else `F`.
    RefuseOrFail,
    /// `R`.
    Remove,
    /// `v¹⁰`, if it is the previous configuration that it runs; `u` if that was not written yet.
    RolledBack,
    /// `v`: its effective configuration is the previous one.
    RolledBackByEffective,
    /// `v⁷`.
    RolledBackByHealth,
    /// `d`.
    RollbackDefer,
    /// `d u`, if its offer was delivered.
    RollbackDeferUndo,
    /// `e`, once.
    RollbackExtend,
    /// `f`.
    RollbackFail,
    /// `f; no status: v`.
    RollbackOver,
    /// `f`, because it was away for too long.
    RollbackExpire,
    /// `K`.
    RollbackQueue,
    /// `K if touched`.
    RollbackQueueTouched,
    /// `K`, if it waits for a further try of an offer that still stands.
    RollbackQueueTried,
    /// `T (evidence missing: U)`.
    VerifyOver,
    /// `S⁵`.
    WentBack,
    /// `S⁵, F!⁹`.
    WentBackOrEdited,
    /// `J u` or `C u`, by why it is withheld.
    Withheld,
}
