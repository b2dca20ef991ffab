//! What the gates that count members count, seen from one member: the table of all of them, and the words they share.

use super::apply_failed::ApplyFailed;
use super::crash_loop::CrashLoop;
use super::disconnect_ratio::DisconnectRatio;
use super::effective_mismatch::EffectiveMismatch;
use super::nothing_succeeds::NothingSucceeds;
use super::rejected::Rejected;
use super::self_rollback::SelfRollback;
use super::timed_out::TimedOut;
use super::unhealthy::Unhealthy;
use super::unverified::Unverified;
use super::{GateKind, Participation};
use crate::rollout::members::{Flags, RowView};
use crate::rollout::{GateIx, MemberState, Reason};

/// What a gate counts. All of it follows from the row alone, so that counts can be kept while rows change and be recounted
/// at any time. `bad` is asked when a fact or a deadline is handled; what it said, windows considered, is stored in the
/// row, and that is what counts.
pub(super) trait Rule {
    /// Which gate.
    const KIND: GateKind;

    /// Whether the member takes part. `counted`: it counts against the gate.
    fn eligible(row: RowView<'_>, counted: bool) -> bool;

    /// Whether a member that takes part is against the gate. `counted`: it was so before.
    fn bad(row: RowView<'_>, counted: bool) -> bool;

    /// Whether it could say what the gate looks for, once it has answered.
    fn tells(_row: RowView<'_>) -> bool {
        true
    }

    /// Whether it takes part and is not held against the rollout, because it was so before (R41).
    fn excused(_row: RowView<'_>) -> bool {
        false
    }

    /// Whether it counts whenever it comes, because it came of the offer, or because the gate's window is another one.
    const ALWAYS_IN_TIME: bool = false;

    /// Whether a member of the control group can show what the gate looks for (R43).
    fn comparable(_row: RowView<'_>) -> bool {
        false
    }
}

/// The gates that count members, in the order of [`GateKind::index`].
pub(super) const KINDS: [GateKind; RULES.len()] = {
    let mut kinds = [GateKind::ApplyFailed; RULES.len()];
    let mut at = 0;
    while at < RULES.len() {
        kinds[at] = RULES[at].kind;
        at += 1;
    }
    kinds
};

const RULES: [Functions; 10] = [
    Functions::of::<ApplyFailed>(),
    Functions::of::<Rejected>(),
    Functions::of::<TimedOut>(),
    Functions::of::<DisconnectRatio>(),
    Functions::of::<Unhealthy>(),
    Functions::of::<EffectiveMismatch>(),
    Functions::of::<CrashLoop>(),
    Functions::of::<SelfRollback>(),
    Functions::of::<Unverified>(),
    Functions::of::<NothingSucceeds>(),
];

/// The rule of a gate; none if it counts no members.
pub(super) fn of(kind: GateKind) -> Option<&'static Functions> {
    const TABLE: &[Functions] = &RULES;
    TABLE.get(kind.index()).filter(|rule| rule.kind == kind)
}

/// The functions of a rule.
pub(super) struct Functions {
    kind: GateKind,
    eligible: fn(RowView<'_>, bool) -> bool,
    bad: fn(RowView<'_>, bool) -> bool,
    tells: fn(RowView<'_>) -> bool,
    excused: fn(RowView<'_>) -> bool,
    always_in_time: bool,
    comparable: fn(RowView<'_>) -> bool,
}

impl Functions {
    const fn of<R: Rule>() -> Self {
        Self {
            kind: R::KIND,
            eligible: R::eligible,
            bad: R::bad,
            tells: R::tells,
            excused: R::excused,
            always_in_time: R::ALWAYS_IN_TIME,
            comparable: R::comparable,
        }
    }

    /// Whether and how a member takes part.
    pub(super) fn participation(&self, gate: GateIx, row: RowView<'_>) -> Participation {
        if !self.takes_part(gate, row) {
            Participation::Out
        } else if (self.excused)(row) {
            Participation::Excused
        } else {
            Participation::In
        }
    }

    /// Whether a member that takes no part was offered it, and takes part once it answers.
    pub(super) fn is_awaited(&self, gate: GateIx, row: RowView<'_>) -> bool {
        let is_open = has_offer_in_flight(row) || is_offered_again(row);
        is_open
            && (self.tells)(row)
            && self.participation(gate, row) == Participation::Out
            && !(self.excused)(row)
    }

    /// Whether a member is against the gate, windows aside; of the control group, whether it shows the same.
    pub(super) fn is_bad(&self, gate: GateIx, row: RowView<'_>) -> bool {
        let counted = row.counts_against(gate);
        match row.state() {
            MemberState::Control => (self.comparable)(row) && (self.bad)(row, counted),
            _ => self.takes_part(gate, row) && (self.bad)(row, counted),
        }
    }

    /// Whether a member belongs in the ratio. Once its rollback has been stopped it does not: those that had it and were well
    /// are not in it any more either.
    fn takes_part(&self, gate: GateIx, row: RowView<'_>) -> bool {
        row.reason() != Reason::RolloutEnded && (self.eligible)(row, row.counts_against(gate))
    }

    /// Whether a member of the control group can show what the gate looks for: it was well before, and reports it.
    pub(super) fn is_comparable(&self, row: RowView<'_>) -> bool {
        (self.comparable)(row)
    }

    /// Whether members count within the gate's window only.
    pub(super) fn has_window(&self) -> bool {
        !self.always_in_time
    }

    /// Whether it counts whatever the gate's window is. The control group is compared anew with each wave instead.
    pub(super) fn is_always_in_time(&self, row: RowView<'_>) -> bool {
        self.always_in_time || row.state() == MemberState::Control
    }
}

/// Whether it has an offer and has not answered.
fn has_offer_in_flight(row: RowView<'_>) -> bool {
    row.state().in_flight() && row.state() != MemberState::RollbackOffered
}

/// Whether it was offered it, is not in flight any more, and may answer yet: it is tried again, or waited for.
fn is_offered_again(row: RowView<'_>) -> bool {
    let waits = matches!(row.state(), MemberState::Backoff | MemberState::Deferred | MemberState::Queued);
    waits && row.has(Flags::TOUCHED)
}

/// Whether the rollout has an answer from the member that belongs in ratios.
pub(super) fn has_settled(row: RowView<'_>) -> bool {
    is_settled(row.state())
}

/// Whether it is an answer that belongs in ratios.
pub(crate) const fn is_settled(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::Verified
            | MemberState::Unverified
            | MemberState::Failed
            | MemberState::Rejected
            | MemberState::SelfRolledBack
            | MemberState::TimedOut
    )
}

/// Whether the present offer has reached it. Members that went away meanwhile are among these, as long as they are waited
/// for and after that.
pub(super) fn has_received(row: RowView<'_>) -> bool {
    match row.state() {
        MemberState::Absent => was_received(row.stage()),
        MemberState::Deferred => row.reason() == Reason::GraceOver && was_received(row.stage()),
        MemberState::TimedOut => row.reason() != Reason::OfferTimeout,
        state => was_received(state) || is_settled(state),
    }
}

const fn was_received(state: MemberState) -> bool {
    matches!(state, MemberState::Delivered | MemberState::Applying | MemberState::Applied)
}

/// Whether it applied the present offer, as far as anybody can tell.
pub(super) fn has_applied(row: RowView<'_>) -> bool {
    match row.state() {
        MemberState::Applied | MemberState::Verified | MemberState::Unverified => true,
        MemberState::Absent => row.stage() == MemberState::Applied,
        MemberState::TimedOut => row.reason() == Reason::VerifyTimeout,
        _ => false,
    }
}

/// Whether it failed and is, or will be, tried again. It counts until that succeeds: otherwise a total fault whose failures
/// are slow would never have enough of them at a time.
pub(super) fn is_tried_again(row: RowView<'_>) -> bool {
    let open = match row.state() {
        MemberState::Queued
        | MemberState::Backoff
        | MemberState::Offered
        | MemberState::Delivered
        | MemberState::Applying => true,
        MemberState::Absent => row.stage() != MemberState::Applied,
        _ => false,
    };
    open && !row.has(Flags::APPLIED_SEEN)
}

/// Whether it waits for another try after FAILED.
pub(super) fn failed_and_waits(row: RowView<'_>) -> bool {
    row.state() == MemberState::Backoff && row.reason() == Reason::ReportedFailed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_that_counts_members_has_its_own_rule_and_no_other_gate_has_one() {
        for kind in GateKind::ALL {
            let found = of(kind).map(|rule| rule.kind);
            assert_eq!(found, KINDS.contains(&kind).then_some(kind));
        }
        assert_eq!(KINDS.map(GateKind::index), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_answer_of_whoever_was_offered_it_is_awaited_if_it_can_say_anything_and_was_well_before() {
        use crate::rollout::gates::testing::row;
        const STATUS: Flags = Flags(Flags::REPORTS_STATUS.0 | Flags::TOUCHED.0);
        let awaited = |kind, state, flags| {
            let row = row(state, Reason::ApplyTimeout, flags);
            of(kind).is_some_and(|rule| rule.is_awaited(GateIx(0), row.view()))
        };
        for state in [
            MemberState::Applying,
            MemberState::Backoff,
            MemberState::Deferred,
            MemberState::Offered,
            MemberState::Queued,
        ] {
            assert!(awaited(GateKind::ApplyFailed, state, STATUS), "{state}");
            assert!(!awaited(GateKind::ApplyFailed, state, Flags::TOUCHED), "{state}");
            let health = Flags::REPORTS_HEALTH | Flags::TOUCHED;
            assert!(awaited(GateKind::Unhealthy, state, health), "{state}");
            assert!(!awaited(GateKind::Unhealthy, state, health | Flags::WAS_UNHEALTHY), "{state}");
        }
        assert!(!awaited(GateKind::ApplyFailed, MemberState::Queued, Flags::REPORTS_STATUS), "never offered");
        assert!(!awaited(GateKind::ApplyFailed, MemberState::Verified, STATUS), "it has answered");
        assert!(!awaited(GateKind::ApplyFailed, MemberState::Removed, STATUS), "it never will");
    }

    #[test]
    fn whoever_has_not_been_reached_is_in_no_ratio() {
        use crate::rollout::gates::testing::row;
        for kind in KINDS {
            for state in
                [MemberState::Queued, MemberState::Deferred, MemberState::Removed, MemberState::Excluded]
            {
                let row = row(state, Reason::NotConnected, Flags(u16::MAX));
                let found = of(kind).map(|rule| rule.participation(GateIx(0), row.view()));
                assert_eq!(found, Some(Participation::Out), "{kind} {state}");
            }
        }
    }
}
