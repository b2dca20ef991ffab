//! Rebuilding what follows from a rollout: what it touched is locked, what is in flight counts.

use super::rates::{Lately, MINUTE};
use super::{ClaimKind, Coordinator, Domain, Live, blast};
use crate::rollout::plan::ConflictPolicy;
use crate::rollout::{Engine, Flags, MemberState, RolloutState, Time};

impl Coordinator {
    /// Takes in a rollout as its records have it: what it touched is locked, what is in flight counts. What it offered
    /// lately is counted too high rather than too low: its rate starts from nothing, and all it touched within the hour or
    /// the minute counts as offered when it came into its present state.
    pub fn adopt(&mut self, engine: &Engine, now: Time) {
        let (plan, rollout) = (engine.plan(), engine.id());
        if self.is_live(rollout) {
            self.forget(rollout);
        }
        if engine.state().is_terminal() {
            return;
        }
        self.rollouts.insert(rollout, Live { slot: plan.slot, members: plan.members });
        self.know_sizes(engine);
        if has_not_begun(engine.state()) && plan.conflict != ConflictPolicy::Reject {
            self.waiting.wait(rollout, plan.overlaps.iter().map(|(other, _)| *other));
        }
        let members = &engine.state.members;
        let mut hour = blast::Hour::new(now);
        let mut lately: Option<Lately> = None;
        let rows = members.ids.iter().zip(&members.rows);
        for (agent, row) in rows.filter(|(_, row)| row.flags.contains(Flags::TOUCHED)) {
            self.locks.take(agent, plan.slot, rollout);
            let (since, offers) = (row.since.min(now), row.offer.max(1));
            hour.add(since, offers);
            if since + MINUTE > now {
                let known = lately.get_or_insert(Lately { offers: 0, first: since, last: since });
                known.offers = known.offers.saturating_add(offers);
                (known.first, known.last) = (known.first.min(since), known.last.max(since));
            }
            if row.state.in_flight() {
                let zone = members.zones.get(row.zone.index()).map(|zone| &**zone);
                let is_back = row.state == MemberState::RollbackOffered;
                let kind = if is_back { ClaimKind::Rollback } else { ClaimKind::Offer };
                self.flight.enter(agent, plan.slot, zone, rollout, plan.group, (kind, since));
            }
        }
        if self.locks.count(rollout) > 0 {
            self.rates.adopt(rollout, lately, now);
            self.hours.insert(rollout, hour);
        }
    }

    /// Sizes of fleet, group and failure domains as the rollout's plan knows them.
    fn know_sizes(&mut self, engine: &Engine) {
        let plan = engine.plan();
        if self.fleet == 0 {
            self.sized(&Domain::Fleet, plan.fleet.agents);
        }
        if let Some(group) = plan.group {
            self.flight.budgets.sized_at_least(&Domain::Group(group), plan.fleet.group);
        }
        let zones: Vec<_> = self.flight.budgets.zones().cloned().collect();
        for zone in zones {
            let Some(index) = plan.zones.iter().position(|name| *name == zone.0) else { continue };
            let rows = engine.state.members.rows.iter().filter(|row| row.zone.index() == index);
            let members = u32::try_from(rows.count()).unwrap_or(u32::MAX);
            self.flight.budgets.sized_at_least(&Domain::Zone(zone), members);
        }
    }
}

/// Whether nothing was offered yet.
const fn has_not_begun(state: RolloutState) -> bool {
    matches!(
        state,
        RolloutState::Draft
            | RolloutState::PendingApproval
            | RolloutState::Scheduled
            | RolloutState::Preflight
            | RolloutState::Ready
    )
}
