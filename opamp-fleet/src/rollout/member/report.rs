//! What the cells about evidence, failures and absence do.

use super::Step;
use super::act::Case;
use super::cell::Column;
use super::retry::Class;
use super::{deadline, evidence, note};
use crate::faults::seeded;
use crate::rollout::members::{Changed, Flags};
use crate::rollout::{MemberState, Reason, Time};

impl Case<'_> {
    /// Evidence that it applied the offer: applied, and verified if nothing is missing. The same evidence twice is one.
    pub(super) fn applied(&self) -> Step {
        let (row, flags) = (self.row, self.noted.flags);
        if row.state == MemberState::Deferred && !note::is_delivered(row) {
            return self.note();
        }
        let is_complete = evidence::is_complete(flags);
        let is_new = flags != row.flags;
        let is_open = !row.state.settled();
        if !is_complete && !is_new && !is_open {
            return self.note();
        }
        let state = if is_complete { MemberState::Verified } else { MemberState::Applied };
        let applied =
            if is_complete { self.settled(state, self.said()) } else { self.in_stage(state, self.said()) };
        self.step(Changed { applied_at: self.around.now, ..applied })
    }

    /// Further evidence of an applied member.
    pub(super) fn complete(&self) -> Step {
        if evidence::is_complete(self.noted.flags) {
            self.step(self.settled(MemberState::Verified, self.said()))
        } else {
            self.note()
        }
    }

    pub(super) fn applying(&self) -> Step {
        let row = self.row;
        // The span of `Delivered` was running: this is its one extension.
        let is_extension = row.state == MemberState::Delivered && !row.flags.contains(Flags::EXTENDED);
        let applying = self.in_stage(MemberState::Applying, Reason::Reported);
        if is_extension {
            self.step(Changed { flags: applying.flags | Flags::EXTENDED, ..applying })
        } else if row.state == MemberState::Delivered {
            self.step(Changed { deadline: row.deadline, ..applying })
        } else {
            self.step(applying)
        }
    }

    /// The deadline moves by the span once, however often it says that it is at work.
    pub(super) fn extend(&self) -> Step {
        if self.row.flags.contains(Flags::EXTENDED) {
            return self.note();
        }
        let span = deadline::apply(self.noted.flags, self.around);
        let flags = self.noted.flags | Flags::EXTENDED;
        self.step(Changed { flags, deadline: self.row.deadline + span, ..self.noted })
    }

    pub(super) fn delivered(&self) -> Step {
        match self.row.stage {
            MemberState::Applying | MemberState::Applied => self.note(),
            _ => self.stage(MemberState::Delivered, Reason::Dispatched),
        }
    }

    /// FAILED from an agent that went away in between: it got further than refusing, unless it had not even got the offer.
    pub(super) fn fail_by_stage(&self) -> Step {
        match self.row.stage {
            MemberState::Offered => self.failed(Class::Refused, Reason::Refused),
            MemberState::Applied => self.fail_final(Reason::ReportedFailed),
            _ => self.failed(Class::Failed, Reason::ReportedFailed),
        }
    }

    /// FAILED while it is queued: by another way if it has no offer, else late.
    pub(super) fn failed_before(&self) -> Step {
        if !note::has_offer(self.row) {
            return self.step(self.to(MemberState::Excluded, Reason::HashFailedBefore));
        }
        if self.row.flags.contains(Flags::FAILED_SEEN) {
            return self.note();
        }
        self.fail_final(Reason::ReportedFailed)
    }

    /// APPLIED for another hash, or a different effective configuration, while it is away: as before it went.
    pub(super) fn as_stage(&self) -> Step {
        match (self.column, self.row.stage) {
            (Column::Other, MemberState::Applied) => self.went_back_or_edited(),
            (Column::Other, MemberState::Applying) if self.has_gone_back() => self.went_back(),
            _ => self.note(),
        }
    }

    /// Whether it applied its previous configuration after it had said something of the offered one.
    pub(super) fn has_gone_back(&self) -> bool {
        let flags = self.row.flags;
        self.is_previous() && (flags.contains(Flags::FAILED_SEEN) || flags.contains(Flags::APPLIED_SEEN))
    }

    pub(super) fn went_back(&self) -> Step {
        self.step(without_evidence(self.to(MemberState::SelfRolledBack, Reason::WentBack)))
    }

    /// It runs something else than it had applied: its previous configuration, or one that nobody offered.
    pub(super) fn went_back_or_edited(&self) -> Step {
        if self.has_gone_back() {
            return self.went_back();
        }
        // APPLIED for the previous configuration from who never said APPLIED for the offered one is the status from before.
        if self.is_previous() || !self.row.flags.contains(Flags::APPLIED_SEEN) {
            return self.note();
        }
        self.step(without_evidence(self.to(MemberState::Failed, Reason::LocalEdit)))
    }

    /// It is back within its grace: the span of its stage begins anew.
    pub(super) fn back_to_stage(&self) -> Step {
        self.step(self.in_stage(self.row.stage, Reason::Returned))
    }

    /// In a stage of the offer, whose span begins now. For one that was away within its grace, whatever shows that it is
    /// back, it begins anew a few times, and is over after that: who comes and goes is not waited for without an end.
    pub(super) fn in_stage(&self, state: MemberState, reason: Reason) -> Changed {
        let (came_back, returns) = match self.row.state {
            MemberState::Absent => (true, self.noted.returns.saturating_add(1)),
            _ => (false, self.noted.returns),
        };
        let is_over = came_back && returns > deadline::RETURNS_MAX;
        let deadline = if is_over { self.around.now } else { self.ends(state) };
        let deadline = if seeded!(self.around.faults, DeadlineForgotten) { Time::NEVER } else { deadline };
        Changed { returns, deadline, ..self.to(state, reason) }
    }

    /// It is back after its grace: its offer goes on if it had been delivered, else it waits for a new one, unless it has
    /// left.
    pub(super) fn back_late(&self) -> Step {
        if note::is_delivered(self.row) {
            self.stage(MemberState::Delivered, Reason::Returned)
        } else if self.row.flags.contains(Flags::LEFT) {
            self.step(self.to(MemberState::Excluded, Reason::LeftSelector))
        } else {
            self.requeue(Reason::Returned)
        }
    }

    pub(super) fn grace_starts(&self) -> Step {
        if !self.row.flags.contains(Flags::CONNECTED) {
            return self.note();
        }
        let reason = if self.detail.announced { Reason::AnnouncedLeave } else { Reason::NotConnected };
        let grace = deadline::grace_of(self.noted.flags, self.around);
        self.step(Changed { reason, deadline: self.around.now + grace, ..self.noted })
    }

    /// It was away for longer than its grace.
    pub(super) fn grace_over(&self) -> Step {
        let reason = if note::is_delivered(self.row) { self.away() } else { Reason::NotConnected };
        self.defer(self.row.stage, reason)
    }

    /// An offer that was not delivered is taken back; one that was, stays.
    pub(super) fn undelivered(&self, changed: Changed) -> Step {
        if self.row.stage == MemberState::Offered { self.undo(changed) } else { self.step(changed) }
    }

    /// Which evidence it was.
    fn said(&self) -> Reason {
        match self.column {
            Column::Equal => Reason::EffectiveEqual,
            Column::Well => Reason::ReportedWell,
            _ => Reason::Reported,
        }
    }
}

/// What it said of the offer holds no more.
fn without_evidence(changed: Changed) -> Changed {
    let seen = Flags::APPLIED_SEEN | Flags::EFFECTIVE_SEEN | Flags::HEALTHY_SINCE;
    Changed { flags: changed.flags.set(seen, false), ..changed }
}
