//! Rows for the tests of gates.

use crate::rollout::members::{Flags, Row};
use crate::rollout::{ConfigIx, GateIx, MemberState, Reason, Time, WaveIx, ZoneIx};

use super::{GateKind, Participation, rules};

/// A member in a state, with everything else as after one offer at 1,000 s.
pub(super) fn row(state: MemberState, reason: Reason, flags: Flags) -> Row {
    Row {
        state,
        reason,
        stage: state,
        offer: 1,
        since: Time(1_000_000),
        applied_at: Time(1_000_000),
        ..Row::queued(WaveIx(0), ZoneIx::NONE, ConfigIx(0), flags, Time(0))
    }
}

/// How a member takes part in a gate that has not counted it yet, and whether it is against it.
pub(super) fn judged(kind: GateKind, row: &Row) -> (Participation, bool) {
    let rule = rules::of(kind).expect("a gate that counts members");
    (rule.participation(GateIx(0), row.view()), rule.is_bad(GateIx(0), row.view()))
}

/// The same for a member that is counted against the gate already.
pub(super) fn judged_again(kind: GateKind, row: &Row) -> (Participation, bool) {
    judged(kind, &Row { bad: 1, ..*row })
}
