//! What a fact does to a member: the table of member states and facts.
//!
//! A fact is put into a [`Column`], the table says which [`Act`](cell::Act) its cell is, and [`act`] carries it out. The
//! engine records the [`Step`] that comes of it.

mod act;
mod cell;
mod command;
mod deadline;
mod evidence;
mod expiry;
mod note;
mod report;
mod retry;
mod table;
#[cfg(test)]
mod tests;

use opamp_proto::Fingerprint;

use self::act::{Case, Detail};
use self::cell::Column;
pub(crate) use self::command::{
    before_claim, compared_anew, offered, on_allow, on_exclude, on_quarantine, on_release, on_retry,
    on_roll_back, on_stop,
};
pub(crate) use self::deadline::{ROLLBACK_RETURNS_MAX, grace};
pub(crate) use self::expiry::on_deadline;
pub(crate) use self::note::FALLS_BEFORE;
pub(crate) use self::note::has_been_tried;
use super::members::{Changed, Pace, Row};
use super::plan::Plan;
use super::{AgentFact, ConfigStatus, Effective, MemberState, RolloutState, Time, WaveState};
use crate::faults::{Faults, seeded};

/// What the tables look at besides the member's row and the fact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) plan: &'a Plan,
    /// State of the rollout.
    pub(crate) rollout: RolloutState,
    /// State of the member's wave; the tail is `Dispatching` while it may be offered.
    pub(crate) wave: WaveState,
    pub(crate) pace: Pace,
    /// What the member can go back to.
    pub(crate) previous: Option<Fingerprint>,
    pub(crate) now: Time,
    pub(crate) faults: Faults,
}

impl Around<'_> {
    /// Whether the rollout has neither ended nor begun to.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self.rollout, RolloutState::Running | RolloutState::Paused | RolloutState::Baking)
    }
}

/// What a fact or a deadline does to a member. The engine records it, counts it, and settles claims by comparing the
/// states before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The row as it is to be, with its deadline and without new `bad` bits; none if nothing changes.
    pub(crate) row: Option<Changed>,
    /// The undelivered offer is taken back: `Write::Desire` of the previous configuration under `row.offer`, which is a
    /// new number (`u` in the table).
    pub(crate) undo: bool,
    /// A claim is asked for and an offer made if it is granted: the member goes to `RollbackOffered` (`k`).
    pub(crate) offer_rollback: bool,
    /// The member belongs to the queue of its wave, or to the tail if that has settled (`Q` after `Deferred`, a retry).
    pub(crate) requeue: bool,
    /// This cell cannot be reached: counted in `Engine::surprises`.
    pub(crate) surprise: bool,
}

/// What a fact does to a member. Joining is not for here: it is a matter of waves.
pub(crate) fn on_fact(row: &Row, fact: &AgentFact<'_>, around: &Around<'_>) -> Step {
    let Some((column, detail)) = column(row, fact, around) else {
        return note::without_column(row, fact, around);
    };
    let noted = note::noted(row, column, fact, around);
    Case { row, noted, around, column, detail }.perform(table::cell(row.state, column))
}

/// The column a fact belongs to; none if it says nothing that the table looks at, as everything about an older offer.
fn column(row: &Row, fact: &AgentFact<'_>, around: &Around<'_>) -> Option<(Column, Detail)> {
    let detail = Detail::default();
    let of_offer = |offer: u32, column| {
        (offer == row.offer || seeded!(around.faults, StaleReportCounts)).then_some(column)
    };
    match *fact {
        AgentFact::Capabilities(capabilities) => {
            (!capabilities.contains(around.plan.capabilities)).then_some((Column::CapsLost, detail))
        }
        AgentFact::Connected => Some((Column::Back, detail)),
        AgentFact::Delivered { offer } => of_offer(offer, (Column::Delivered, detail)),
        AgentFact::Disconnected { announced } => Some((Column::Gone, Detail { announced, ..detail })),
        AgentFact::Effective { offer, relation } => match relation {
            Effective::Differs => of_offer(offer, (Column::Differs, detail)),
            Effective::Equal => of_offer(offer, (Column::Equal, detail)),
            Effective::Unknown => None,
        },
        AgentFact::Health { offer, healthy } => {
            of_offer(offer, (if healthy { Column::Well } else { Column::Ill }, detail))
        }
        AgentFact::Joined(_) => None,
        AgentFact::Left => Some((Column::Left, detail)),
        AgentFact::Removed => Some((Column::Removed, detail)),
        AgentFact::Reported { offer, hash, status, .. } => {
            let column = reported(row, hash, status, around)?;
            of_offer(offer, (column, Detail { hash: Some(hash), ..detail }))
        }
        AgentFact::Withheld { offer, why } => {
            of_offer(offer, (Column::Withheld, Detail { withheld: Some(why), ..detail }))
        }
    }
}

/// The column of a status: which configuration it speaks of decides.
fn reported(row: &Row, hash: Fingerprint, status: ConfigStatus, around: &Around<'_>) -> Option<Column> {
    let wanted = if is_going_back(row.state) { around.previous } else { Some(around.plan.target) };
    let is_wanted = wanted == Some(hash);
    match status {
        ConfigStatus::Applied if is_wanted || seeded!(around.faults, ForeignAppliedIsSuccess) => {
            Some(Column::Applied)
        }
        ConfigStatus::Applied => Some(Column::Other),
        ConfigStatus::Applying => is_wanted.then_some(Column::Applying),
        ConfigStatus::Failed if seeded!(around.faults, FailedIgnored) => None,
        ConfigStatus::Failed => is_wanted.then_some(Column::Failed),
        ConfigStatus::Unset => None,
    }
}

/// Whether the configuration that is waited for is the previous one.
const fn is_going_back(state: MemberState) -> bool {
    matches!(
        state,
        MemberState::RollbackQueued
            | MemberState::RollbackOffered
            | MemberState::RolledBack
            | MemberState::RollbackFailed
            | MemberState::RollbackDeferred
    )
}
