//! What the cells of the table do.

use opamp_proto::Fingerprint;

use super::cell::{Act, Column};
use super::retry::{self, Class};
use super::{Around, Step, deadline, evidence, note};
use crate::faults::seeded;
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::{Leavers, MemberState, Outcome, Reason, Time, Withheld};

/// A member in a state, something that happens to it, and all that decides what comes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) row: &'a Row,
    /// The row with what the fact tells, in the state it is in.
    pub(super) noted: Changed,
    pub(super) around: &'a Around<'a>,
    pub(super) column: Column,
    pub(super) detail: Detail,
}

/// What a fact says besides its column.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detail {
    /// The configuration that a status speaks of.
    pub(super) hash: Option<Fingerprint>,
    /// Whether it said that it leaves.
    pub(super) announced: bool,
    /// Why its session will not send the offer.
    pub(super) withheld: Option<Withheld>,
}

impl Case<'_> {
    /// Does what a cell says.
    pub(super) fn perform(&self, act: Act) -> Step {
        let row = self.row;
        match act {
            Act::Applied => self.applied(),
            Act::AppliedByHealth if evidence::is_health_alone(self.noted.flags) => self.applied(),
            Act::AppliedByHealth => self.note(),
            Act::Applying => self.applying(),
            Act::ApplyOver if row.flags.contains(Flags::REPORTS_STATUS) => {
                self.failed(Class::TimedOut, Reason::ApplyTimeout)
            }
            Act::ApplyOver => self.unverified(Reason::NoEvidence),
            Act::ApplyingOver => self.failed(Class::TimedOut, Reason::ApplyTimeout),
            Act::AsStage => self.as_stage(),
            Act::AtPrevious => self.undo(self.to(MemberState::RolledBack, Reason::WentBack)),
            Act::AwayOver => self.step(Changed { reason: self.away(), deadline: Time::NEVER, ..self.noted }),
            Act::BackToStage => self.back_to_stage(),
            Act::BackLate => self.back_late(),
            Act::BackoffOver => self.requeue(Reason::RetryDue),
            Act::Complete => self.complete(),
            Act::Current if self.is_tried_again() => self.applied(),
            Act::Current if self.is_queued_after_an_offer() => self.note(),
            Act::CurrentByEffective if row.flags.contains(Flags::REPORTS_STATUS) => self.note(),
            Act::CurrentByEffective if self.is_tried_again() => self.applied(),
            Act::CurrentByEffective if self.is_queued_after_an_offer() => self.note(),
            Act::Current | Act::CurrentByEffective => {
                self.step(self.to(MemberState::AlreadyCurrent, Reason::AlreadyEqual))
            }
            Act::Delivered => self.delivered(),
            Act::DeliveredLate if note::is_delivered(row) => {
                self.stage(MemberState::Delivered, Reason::Returned)
            }
            Act::DeliveredLate => self.note(),
            Act::Drop if row.stage.outcome() == Outcome::Bad => {
                self.step(self.to(row.stage, Reason::RolloutEnded))
            }
            Act::Drop => self.step(self.to(MemberState::Excluded, Reason::RolloutEnded)),
            Act::ExcludeWaiting => {
                let excluded = self.to(MemberState::Excluded, Reason::ExcludedByOperator);
                self.step(Changed { stage: row.state, ..excluded })
            }
            Act::Exclude => self.step(self.to(MemberState::Excluded, Reason::ExcludedByOperator)),
            Act::ExcludeUndo => self.undelivered(self.to(MemberState::Excluded, Reason::ExcludedByOperator)),
            Act::Expire => {
                let expired = self.to(MemberState::Expired, Reason::AwayTooLong);
                self.step(Changed { stage: row.stage, ..expired })
            }
            Act::Extend => self.extend(),
            Act::Fail if row.state == MemberState::Deferred && !note::is_delivered(row) => self.note(),
            Act::Fail => self.failed(Class::Failed, Reason::ReportedFailed),
            Act::FailFinal => self.fail_final(Reason::ReportedFailed),
            Act::FailWhileBackingOff if row.reason == Reason::ReportedFailed => self.note(),
            Act::FailWhileBackingOff => self.fail_final(Reason::ReportedFailed),
            Act::FailByStage => self.fail_by_stage(),
            Act::FailedBefore => self.failed_before(),
            Act::Gone => {
                let reason =
                    if self.detail.announced { Reason::AnnouncedLeave } else { Reason::NotConnected };
                let absent = self.to(MemberState::Absent, reason);
                self.step(Changed { stage: row.state, deadline: self.ends(MemberState::Absent), ..absent })
            }
            Act::GiveUp => {
                let is_silent = matches!(row.reason, Reason::OfferTimeout | Reason::ApplyTimeout);
                let state = if is_silent { MemberState::TimedOut } else { MemberState::Failed };
                self.step(self.to(state, row.reason))
            }
            Act::GraceOver => self.grace_over(),
            Act::GraceStarts => self.grace_starts(),
            Act::GraceEnds if row.flags.contains(Flags::CONNECTED) => self.note(),
            Act::GraceEnds => {
                self.step(Changed { reason: Reason::Returned, deadline: Time::NEVER, ..self.noted })
            }
            Act::Impossible => Step { surprise: true, ..Step::default() },
            Act::Leave => self.leave(),
            Act::LeaveDeferred if note::is_delivered(row) => self.leave(),
            Act::LeaveTried if self.reverts() => self.left(self.going_back()),
            Act::LeaveQueue | Act::LeaveDeferred | Act::LeaveTried => {
                self.left(self.to(MemberState::Excluded, Reason::LeftSelector))
            }
            Act::NotApplicable => self.step(self.not_applicable()),
            Act::NotApplicableUndo => self.undo(self.not_applicable()),
            Act::Nothing => Step::default(),
            Act::Note => self.note(),
            Act::OfferOver if row.flags.contains(Flags::CONNECTED) => {
                self.failed(Class::Transport, Reason::OfferTimeout)
            }
            Act::OfferOver => self.defer(MemberState::Offered, Reason::NotConnected),
            Act::OfferRollback => Step { offer_rollback: true, ..self.note() },
            Act::Refuse => self.failed(Class::Refused, Reason::Refused),
            Act::RefuseOrFail if row.returns > 0 => self.failed(Class::Failed, Reason::ReportedFailed),
            Act::RefuseOrFail => self.failed(Class::Refused, Reason::Refused),
            Act::Remove => {
                let removed = self.to(MemberState::Removed, Reason::AgentRemoved);
                self.step(Changed { flags: removed.flags.set(Flags::CONNECTED, false), ..removed })
            }
            Act::RolledBack if self.is_previous() && self.is_given_back() => {
                self.step(self.to(MemberState::RolledBack, Reason::Reported))
            }
            // It would be given again what it went back from.
            Act::RolledBack if self.is_previous() && row.reason != Reason::Recalled => {
                self.undo(self.to(MemberState::RolledBack, Reason::Reported))
            }
            Act::RolledBack => self.note(),
            Act::RolledBackByEffective if self.is_given_back() => {
                self.step(self.to(MemberState::RolledBack, Reason::EffectiveEqual))
            }
            Act::RolledBackByEffective => self.note(),
            Act::RolledBackByHealth if evidence::is_health_alone(row.flags) => {
                self.step(self.to(MemberState::RolledBack, Reason::ReportedWell))
            }
            Act::RolledBackByHealth => self.note(),
            Act::RollbackDefer => self.step(self.rollback_deferral()),
            Act::RollbackDeferUndo if note::is_delivered(row) => self.undo(self.rollback_deferral()),
            Act::RollbackDeferUndo => self.note(),
            Act::RollbackExtend => self.extend(),
            Act::RollbackFail => self.step(self.to(MemberState::RollbackFailed, self.rollback_failure())),
            Act::RollbackOver if row.flags.contains(Flags::REPORTS_STATUS) => {
                self.step(self.to(MemberState::RollbackFailed, Reason::RollbackTimeout))
            }
            Act::RollbackOver => self.step(self.to(MemberState::RolledBack, Reason::NoEvidence)),
            Act::RollbackExpire if row.reason == Reason::NotConnected => {
                self.step(self.left_alone(self.noted))
            }
            Act::RollbackExpire => self.step(self.to(MemberState::RollbackFailed, Reason::AwayTooLong)),
            Act::RollbackQueueTouched if !row.flags.contains(Flags::TOUCHED) => self.note(),
            Act::RollbackQueueTried if !self.is_tried_again() => self.note(),
            Act::RollbackQueue | Act::RollbackQueueTouched | Act::RollbackQueueTried => {
                self.step(self.going_back())
            }
            Act::VerifyOver if evidence::is_ill(row.flags) => {
                let tries = row.transport_tries.saturating_add(1);
                let over = self.to(MemberState::TimedOut, Reason::VerifyTimeout);
                self.step(Changed { transport_tries: tries, ..over })
            }
            Act::VerifyOver => self.unverified(Reason::VerifyTimeout),
            Act::WentBack if self.has_gone_back() => self.went_back(),
            Act::WentBack => self.note(),
            Act::WentBackOrEdited => self.went_back_or_edited(),
            Act::Withheld => match self.detail.withheld {
                Some(Withheld::TooLarge) => self.undo(self.to(MemberState::Rejected, Reason::TooLarge)),
                Some(Withheld::Capability) | None => self.undo(self.not_applicable()),
            },
        }
    }

    /// Whether it waits for a further offer. What it reports is no proof then that it needs none. The control group has no
    /// offers.
    fn is_queued_after_an_offer(&self) -> bool {
        self.row.state == MemberState::Queued && note::has_offer(self.row)
    }

    /// Whether it waits for a further try of an offer that still stands: what it reports late answers that one. Who waits
    /// for anything else may have been offered its previous configuration since, under the present number.
    fn is_tried_again(&self) -> bool {
        self.is_queued_after_an_offer() && matches!(self.row.reason, Reason::RetryDue | Reason::Operator)
    }

    /// Whether its previous configuration is written under its present offer: what it reports is about that one then.
    fn is_given_back(&self) -> bool {
        let is_not = [Reason::CapabilityWithdrawn, Reason::NoTarget, Reason::Recalled];
        match self.row.state {
            MemberState::RollbackQueued => false,
            MemberState::RollbackFailed => !is_not.contains(&self.row.reason),
            _ => true,
        }
    }

    /// The member in another state, without a deadline.
    pub(super) fn to(&self, state: MemberState, reason: Reason) -> Changed {
        Changed { state, reason, stage: state, since: self.around.now, deadline: Time::NEVER, ..self.noted }
    }

    /// When the span of a stage that begins now is over.
    pub(super) fn ends(&self, stage: MemberState) -> Time {
        deadline::of_stage(stage, self.noted.flags, self.around)
            .map_or(Time::NEVER, |span| self.around.now + span)
    }

    /// The row as it is to be, if that is another one.
    pub(super) fn step(&self, changed: Changed) -> Step {
        Step { row: (changed != self.row.changed()).then_some(changed), ..Step::default() }
    }

    /// The same under a new offer number, with which the previous configuration is written. Without a previous one
    /// nothing can be taken back.
    pub(super) fn undo(&self, changed: Changed) -> Step {
        if self.around.previous.is_none() || seeded!(self.around.faults, UndoForgotten) {
            return self.step(changed);
        }
        let changed = Changed { offer: self.row.offer.saturating_add(1), ..changed };
        Step { undo: true, ..self.step(changed) }
    }

    /// Waits for its offer again.
    pub(super) fn requeue(&self, reason: Reason) -> Step {
        let step = self.step(self.to(MemberState::Queued, reason));
        Step { requeue: true, ..step }
    }

    /// Waits for the agent: the offer is taken back if it was not delivered when the agent went away at `stage`.
    pub(super) fn defer(&self, stage: MemberState, reason: Reason) -> Step {
        let deferred = self.to(MemberState::Deferred, reason);
        let deferred = Changed { deadline: self.ends(MemberState::Deferred), ..deferred };
        match stage {
            MemberState::Delivered | MemberState::Applying | MemberState::Applied => {
                self.step(Changed { stage, ..deferred })
            }
            _ if note::has_offer(self.row) => self.undo(Changed { stage: MemberState::Queued, ..deferred }),
            _ => self.step(Changed { stage: MemberState::Queued, ..deferred }),
        }
    }

    /// Waits for its turn to go back. What it has failed as stays known: should the rollback be stopped before, it has.
    fn going_back(&self) -> Changed {
        let row = self.row;
        let queued = self.to(MemberState::RollbackQueued, Reason::RolledBackByPlan);
        let stage = match row.state {
            MemberState::Failed | MemberState::TimedOut => row.state,
            MemberState::Backoff | MemberState::Queued if row.failed_tries > 0 => MemberState::Failed,
            MemberState::Backoff | MemberState::Queued if row.transport_tries > 0 => MemberState::TimedOut,
            _ => queued.stage,
        };
        // Who has been away for longer than its grace is not just restarting.
        let is_over = match row.reason {
            Reason::GraceOver => true,
            Reason::AnnouncedLeave => row.deadline == Time::NEVER,
            _ => false,
        };
        let is_gone = is_over && !self.noted.flags.contains(Flags::CONNECTED);
        let returns = if is_gone { deadline::AWAY_BEFORE } else { 0 };
        Changed { stage, returns, ..queued }
    }

    /// Waits for the agent, with its previous configuration written. The rollback waits with it for one grace: the agent may
    /// just be restarting, above all if that is why it goes back. It does so some times, and not for who is known to be away.
    pub(super) fn rollback_deferral(&self) -> Changed {
        let deferred = self.to(MemberState::RollbackDeferred, Reason::NotConnected);
        let is_known = matches!(self.row.state, MemberState::Deferred | MemberState::Expired);
        if is_known || deferred.returns == deadline::AWAY_BEFORE {
            return self.left_alone(Changed { returns: 0, ..deferred });
        }
        let returns = deferred.returns.saturating_add(1);
        if returns > deadline::ROLLBACK_RETURNS_MAX {
            return self.left_alone(deferred);
        }
        Changed { returns, deadline: self.ends(MemberState::RollbackDeferred), ..deferred }
    }

    /// The rollback does not wait for it any more; the member does.
    fn left_alone(&self, deferred: Changed) -> Changed {
        let deadline = self.around.now + self.around.plan.settings.deferred_ttl;
        Changed { reason: Reason::GraceOver, deadline, ..deferred }
    }

    pub(super) fn note(&self) -> Step {
        self.step(self.noted)
    }

    /// A stage of the offer.
    pub(super) fn stage(&self, state: MemberState, reason: Reason) -> Step {
        self.step(self.in_stage(state, reason))
    }

    pub(super) fn failed(&self, class: Class, reason: Reason) -> Step {
        self.step(retry::after(class, self.noted, self.row, reason, self.around))
    }

    pub(super) fn fail_final(&self, reason: Reason) -> Step {
        let tries = self.row.failed_tries.saturating_add(1);
        self.step(Changed { failed_tries: tries, ..self.to(MemberState::Failed, reason) })
    }

    pub(super) fn unverified(&self, reason: Reason) -> Step {
        self.step(self.settled(MemberState::Unverified, reason))
    }

    /// Settled, and watched: if it is away, its grace runs.
    pub(super) fn settled(&self, state: MemberState, reason: Reason) -> Changed {
        let flags = self.noted.flags;
        let deadline = note::grace_if_away(flags, deadline::grace_of(flags, self.around), self.around.now);
        Changed { deadline, ..self.to(state, reason) }
    }

    pub(super) fn is_previous(&self) -> bool {
        self.detail.hash.is_some() && self.detail.hash == self.around.previous
    }

    fn not_applicable(&self) -> Changed {
        let reason = match self.detail.withheld {
            Some(Withheld::TooLarge) => Reason::TooLarge,
            Some(Withheld::Capability) | None => Reason::CapabilityWithdrawn,
        };
        self.to(MemberState::NotApplicable, reason)
    }

    pub(super) fn leave(&self) -> Step {
        self.left(self.noted)
    }

    fn left(&self, changed: Changed) -> Step {
        self.step(Changed { flags: changed.flags | Flags::LEFT, ..changed })
    }

    /// Whether it goes back when it leaves (R22): an offer of this rollout still stands, and would be applied outside of it.
    fn reverts(&self) -> bool {
        let stands = note::has_offer(self.row) && self.row.reason != Reason::Returned;
        stands && self.around.plan.settings.leavers == Leavers::Revert && self.around.goes_on()
    }

    fn rollback_failure(&self) -> Reason {
        match self.column {
            Column::Failed => Reason::ReportedFailed,
            Column::CapsLost | Column::Withheld => self.not_applicable().reason,
            _ => Reason::RollbackTimeout,
        }
    }

    /// What an absence counts as that has become longer than the grace. Who announced it is not held against the rollout.
    pub(super) fn away(&self) -> Reason {
        if self.row.reason == Reason::AnnouncedLeave { self.row.reason } else { Reason::GraceOver }
    }
}
