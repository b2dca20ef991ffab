//! Rollouts that have the same slot of the same agents: counted at creation, taken over if that is wanted (R61, R62).

use std::collections::BTreeMap;

use opamp_proto::AgentId;

use super::{RolloutEffects, Rollouts};
use crate::rollout::plan::{Candidate, ConflictPolicy, FleetSizes, Plan, PlanRequest, PlannedMembers};
use crate::rollout::{
    Command, CommandKey, Do, Engine, Event, Flags, MemberState, PlanError, RolloutId, RolloutState, Slot,
    Time,
};

impl Rollouts {
    /// Makes a plan of candidates as this place knows them, and counts its overlaps.
    pub(super) fn plan<'c>(
        &self,
        request: PlanRequest<'_>,
        candidates: impl Iterator<Item = Candidate<'c>>,
        fleet: FleetSizes,
        now: Time,
    ) -> Result<(Plan, PlannedMembers), PlanError> {
        let request = PlanRequest { faults: self.faults, ..request };
        let (id, slot) = (request.id, request.slot);
        if self.coordinator.is_recalled(&request.target.config.hash().fingerprint()) {
            return Err(PlanError::Recalled);
        }
        if let Some((what, limit, found)) = self.coordinator.beyond_hard(&request.settings.limits) {
            return Err(PlanError::BeyondHardLimit { what, limit, found });
        }
        let rivals: Vec<&Engine> = self.rivals(id, slot).collect();
        let known = candidates.map(|candidate| {
            let agent = &candidate.facts.id;
            let holder = rivals.iter().find(|other| has(other, agent)).map(|other| other.id());
            Candidate {
                locked_by: holder.or(candidate.locked_by),
                quarantined: candidate.quarantined || self.coordinator.quarantined(agent, now).is_some(),
                ..candidate
            }
        });
        let (mut plan, members) = Plan::make(request, known, fleet, now)?;
        plan.overlaps = overlaps(&plan, &members, &rivals);
        Ok((plan, members))
    }

    /// Rollouts that want to take the place of others tell them so, until these end. Who rolls back is left to it.
    pub(super) fn supersede(&mut self, now: Time, out: &mut RolloutEffects) {
        for (other, by) in self.superseding() {
            let Ok(key) = CommandKey::new(&format!("supersede:{by}")) else { continue };
            let actor = self.engines.get(&by).map(|engine| engine.plan().author.clone()).unwrap_or_default();
            let reason = format!("superseded by {by}").into();
            let command = Command { key, actor, reason, expected: None, do_: Do::Supersede { by } };
            if let Some(engine) = self.engines.get_mut(&other) {
                // It refuses only what it will end by itself.
                let _ = engine.handle(Event::Command(&command), now, &mut self.coordinator, out.of(other));
            }
        }
        self.free_what_has_ended(now, out);
    }

    /// Whom to tell that it is superseded, and by whom: by one that is agreed to and whose time has come. A draft ends nobody.
    fn superseding(&self) -> Vec<(RolloutId, RolloutId)> {
        let mut wishes = Vec::new();
        for by in self.engines.values().filter(|engine| wants_to_supersede(engine)) {
            let others = self.coordinator.waits_for_all(by.id()).filter_map(|other| self.engines.get(&other));
            let others = others.filter(|other| takes_superseding(other));
            wishes.extend(others.map(|other| (other.id(), by.id())));
        }
        wishes
    }

    /// Live rollouts of the slot other than this one that may be in its way. Those that wait for it, be it behind others,
    /// are not: they are compared with it once more when their turn comes.
    fn rivals(&self, id: RolloutId, slot: Slot) -> impl Iterator<Item = &Engine> {
        self.engines.values().filter(move |other| {
            let is_live = other.plan().slot == slot && !other.state().is_terminal();
            is_live && other.id() != id && !self.coordinator.is_behind(other.id(), id)
        })
    }
}

/// Rollouts that have some of the members, and how many. What planning left out because another rollout has it counts as
/// planning has counted it.
fn overlaps(plan: &Plan, members: &PlannedMembers, rivals: &[&Engine]) -> Box<[(RolloutId, u32)]> {
    let mut overlaps: BTreeMap<RolloutId, u32> = plan.overlaps.iter().copied().collect();
    for other in rivals {
        let common = members.ids().iter().filter(|agent| has(other, agent)).count();
        let common = u32::try_from(common).unwrap_or(u32::MAX);
        let counted = overlaps.entry(other.id()).or_default();
        *counted = common.max(*counted);
    }
    overlaps.into_iter().filter(|(_, common)| *common > 0).collect()
}

/// Whether the rollout may still move the agent.
fn has(engine: &Engine, agent: &AgentId) -> bool {
    let members = &engine.state.members;
    members.find(agent).is_some_and(|member| {
        use MemberState::{Excluded, Expired, NotApplicable, Removed};
        let row = members.row(member);
        let is_out = matches!(row.state, Excluded | Expired | NotApplicable | Removed);
        !is_out || row.flags.contains(Flags::TOUCHED)
    })
}

/// Whether it takes the place of others as soon as they end.
fn wants_to_supersede(engine: &Engine) -> bool {
    let is_agreed = matches!(engine.state(), RolloutState::Preflight | RolloutState::Ready);
    is_agreed && engine.plan().conflict == ConflictPolicy::Supersede
}

/// Whether telling it changes something.
fn takes_superseding(engine: &Engine) -> bool {
    match engine.state() {
        RolloutState::RollingBack => false,
        RolloutState::Aborting => engine.state.ending != RolloutState::Superseded,
        state => !state.is_terminal(),
    }
}
