//! What must always hold, judged by what agents received and the store contains.

pub mod allowed_edges;
mod assigned;
pub mod blast_cap;
pub mod in_flight_cap;
pub mod joiners_gated;
pub mod known_good;
pub mod liveness;
pub mod lkg_pinned;
#[cfg(test)]
mod made;
pub mod no_failed_hash_again;
pub mod no_lost_effect;
pub mod nothing_after_stop;
pub mod one_offer_per_slot;
pub mod pinned_config;
pub mod ratio_denominator;
pub mod reference_counts;
pub mod reference_verdict;
pub mod replay;
pub mod reports_are_heard;
pub mod rollback_ends;
pub mod settled_or_next_action;
pub mod shared_limits;
pub mod stale_epoch;
pub mod steady_state;
pub mod success_is_shown;
pub mod time_is_store_time;
pub mod timers_not_inherited;
pub mod window_within_dwell;

use opamp_fleet::rollout::{Changed, MemberState, RolloutId, Time};
use opamp_proto::AgentId;

use super::ledger::{Change, Story};
use super::store::Desired;
use super::world::{Commit, StepSeen, World};

/// Something that must hold after each step, and at the end of a run.
pub trait Invariant {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Looks at what one step did.
    ///
    /// # Errors
    /// What does not hold, in one line.
    fn after(&mut self, world: &World, seen: &StepSeen) -> Result<(), String>;

    /// Looks at what is left at the end.
    ///
    /// # Errors
    /// What does not hold, in one line.
    fn at_end(&mut self, world: &World) -> Result<(), String>;
}

/// All of them, fresh.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<in_flight_cap::InFlightCap>::default(),
        Box::<one_offer_per_slot::OneOfferPerSlot>::default(),
        Box::<nothing_after_stop::NothingAfterStop>::default(),
        Box::<pinned_config::PinnedConfig>::default(),
        Box::<allowed_edges::AllowedEdges>::default(),
        Box::<stale_epoch::StaleEpoch>::default(),
        Box::<blast_cap::BlastCap>::default(),
        Box::<rollback_ends::RollbackEnds>::default(),
        Box::<replay::Replay>::default(),
        Box::<liveness::Liveness>::default(),
        Box::<joiners_gated::JoinersGated>::default(),
        Box::<ratio_denominator::RatioDenominator>::default(),
        Box::<timers_not_inherited::TimersNotInherited>::default(),
        Box::<window_within_dwell::WindowWithinDwell>::default(),
        Box::<no_lost_effect::NoLostEffect>::default(),
        Box::<no_failed_hash_again::NoFailedHashAgain>::default(),
        Box::<time_is_store_time::TimeIsStoreTime>::default(),
        Box::<lkg_pinned::LkgPinned>::default(),
        Box::<known_good::KnownGood>::default(),
        Box::<shared_limits::SharedLimits>::default(),
        Box::<settled_or_next_action::SettledOrNextAction>::default(),
        Box::<reference_counts::ReferenceCounts>::default(),
        Box::<reference_verdict::ReferenceVerdict>::default(),
        Box::<reports_are_heard::ReportsAreHeard>::default(),
        Box::<steady_state::SteadyState>::default(),
        Box::<success_is_shown::SuccessIsShown>::default(),
    ]
}

/// A new offer that was committed: a member became offered, or was offered again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewOffer {
    pub(crate) agent: AgentId,
    pub(crate) offer: u32,
    /// It puts the member back.
    pub(crate) back: bool,
    /// The member's state before.
    pub(crate) from: MemberState,
    /// The member's row before.
    pub(crate) before: Option<Changed>,
    /// When it was made.
    pub(crate) at: Time,
}

/// New offers of a transaction, in order.
pub(crate) fn new_offers(changes: &[Change]) -> impl Iterator<Item = NewOffer> {
    changes.iter().filter_map(|change| {
        let Change::Member { agent, before, row_before, after, .. } = change else { return None };
        let is_new = row_before.map_or(0, |row| row.offer) < after.offer;
        let back = after.state == MemberState::RollbackOffered;
        let offered = back || after.state == MemberState::Offered;
        (is_new && offered).then_some(NewOffer {
            agent: *agent,
            offer: after.offer,
            back,
            from: *before,
            before: *row_before,
            at: after.since,
        })
    })
}

/// The desired configuration that a transaction wrote for an offer.
pub(crate) fn desire_of(commit: &Commit, agent: &AgentId, offer: u32) -> Option<Desired> {
    commit.written.desires.iter().find(|desired| desired.agent == *agent && desired.offer == offer).copied()
}

/// Whether a transaction brings a plan that was made anew before the start.
pub(crate) fn is_planned_anew(commit: &Commit) -> bool {
    let brings_plan =
        |change: &Change| matches!(change, Change::Rollout { entry, .. } if entry.plan.is_some());
    commit.written.changes.iter().any(brings_plan)
}

/// What is written of a rollout, read plainly.
pub(crate) fn story(world: &World, rollout: RolloutId) -> Option<&Story> {
    world.store.rows().rollouts.get(&rollout).map(|row| &row.story)
}

/// Fails with a text unless something holds.
pub(crate) fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = all().iter().map(|invariant| invariant.name()).collect();
        assert_eq!(names.len(), all().len());
    }
}
