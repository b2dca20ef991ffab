//! All live rollouts with what they share: routing of events, overlap at creation (R61).

mod event;
mod overlap;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opamp_proto::{AgentId, Fingerprint};

pub use event::{CreateError, FleetEvent, HandleError, RolloutEffects};

use super::plan::{Candidate, ConflictPolicy, FleetSizes, Plan, PlanRequest};
use super::steady::{Placed, Steady, SteadySettings};
use super::{
    Act, Alert, AlertKind, Command, Do, Engine, Event, Flags, FleetFact, GroupIx, MemberState, Outcome,
    Reason, Refused, RolloutId, RolloutState, Scope, Serial, Slot, Time,
};
use crate::coordinator::{Admission, Coordinator, CoordinatorRows, CoordinatorSettings, Domain};
use crate::faults::Faults;

/// All live rollouts, at most [`Rollouts::LIVE_MAX`], what they share, and what is left of those that have succeeded.
#[derive(Clone, Debug)]
pub struct Rollouts {
    pub(crate) coordinator: Coordinator,
    pub(crate) engines: BTreeMap<RolloutId, Engine>,
    /// Those whose end was not seen yet.
    going_on: BTreeSet<RolloutId>,
    pub(crate) steady: Steady,
    /// Names of configurations and package sets, in the order of the numbers in [`super::Slot`].
    pub(crate) slots: Vec<Box<str>>,
    faults: Faults,
}

impl Rollouts {
    /// Most rollouts at a time, those included that have ended and were not dropped yet.
    pub const LIVE_MAX: usize = 64;
    /// Most names of slots.
    pub const SLOTS_MAX: usize = 1_024;
    /// Longest reason of a recall, in bytes; the rest is cut off.
    const REASON_BYTES_MAX: usize = 1_024;

    /// No rollout yet.
    pub fn new(settings: CoordinatorSettings, rows: CoordinatorRows, faults: Faults) -> Self {
        let steady = Steady::new(SteadySettings::default(), settings.alternations_max, faults);
        Self {
            coordinator: Coordinator::new(settings, rows, faults),
            engines: BTreeMap::new(),
            going_on: BTreeSet::new(),
            steady,
            slots: Vec::new(),
            faults,
        }
    }

    /// The same with other settings of steady states. Called before the first group is told.
    #[must_use]
    pub fn with_steady(mut self, settings: SteadySettings) -> Self {
        self.steady = Steady::new(settings, self.coordinator.settings().alternations_max, self.faults);
        self
    }

    /// What they share.
    pub fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// One rollout.
    pub fn engine(&self, id: RolloutId) -> Option<&Engine> {
        self.engines.get(&id)
    }

    /// All of them, by name.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.engines.values()
    }

    /// The steady states of groups.
    pub fn steady(&self) -> &Steady {
        &self.steady
    }

    /// The number of a named configuration or package set, for [`super::Slot`]; a new one if the name is new. Numbers are the
    /// order of [`Rollouts::slots`]: the caller keeps them and asks in the same order after a restart. None if there are too
    /// many.
    pub fn slot_number(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.slots.iter().position(|known| **known == *name) {
            return u16::try_from(number).ok();
        }
        if self.slots.len() >= Self::SLOTS_MAX {
            return None;
        }
        self.slots.push(name.into());
        u16::try_from(self.slots.len() - 1).ok()
    }

    /// The names of slots, by number.
    pub fn slots(&self) -> &[Box<str>] {
        &self.slots
    }

    /// Makes a plan and a rollout of it, as a draft; says what it will wait for once it is agreed to. Candidates are looked up
    /// here for locks and quarantine. The caller stores the plan and a snapshot of the engine before it goes on.
    ///
    /// # Errors
    /// [`CreateError`], and then nothing has changed.
    pub fn create<'c>(
        &mut self,
        request: PlanRequest<'_>,
        candidates: impl Iterator<Item = Candidate<'c>>,
        fleet: FleetSizes,
        now: Time,
    ) -> Result<Admission, CreateError> {
        let (id, slot, policy) = (request.id, request.slot, request.conflict);
        if self.engines.contains_key(&id) {
            return Err(CreateError::Exists);
        }
        if self.engines.len() >= Self::LIVE_MAX {
            return Err(CreateError::TooMany { limit: Self::LIVE_MAX });
        }
        let (plan, members) = self.plan(request, candidates, fleet, now)?;
        let admitted = self.coordinator.register(id, slot, policy, &plan.overlaps);
        let admission = admitted.map_err(|conflict| CreateError::Overlaps(conflict.with))?;
        let engine = Engine::new(Arc::new(plan), members, now, self.faults);
        self.coordinator.adopt(&engine, now);
        self.engines.insert(id, engine);
        self.going_on.insert(id);
        Ok(admission)
    }

    /// Compares a rollout's plan with the fleet as it is now, which it asks for in [`RolloutState::Preflight`]: makes the
    /// plan anew and tells the rollout. Gives the new plan if it is another one, for the caller to store. If there can be none
    /// any more, the reason of the command says why.
    ///
    /// A rollout of the policy to wait finds out here that another one came to have some of its agents since it was created:
    /// then nothing is told, and it wants this again when that one has ended.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn preflight<'c>(
        &mut self,
        request: PlanRequest<'_>,
        candidates: impl Iterator<Item = Candidate<'c>>,
        fleet: FleetSizes,
        command: impl FnOnce(Do) -> Command,
        now: Time,
        out: &mut RolloutEffects,
    ) -> Result<Option<Arc<Plan>>, HandleError> {
        let id = request.id;
        let engine = self.engines.get(&id).ok_or(HandleError::UnknownRollout)?;
        let (state, before) = (engine.state(), engine.plan().hash);
        let planned = self.plan(request, candidates, fleet, now);
        let command = match &planned {
            Ok((plan, _)) => {
                if state == RolloutState::Preflight && plan.conflict != ConflictPolicy::Reject {
                    self.coordinator.wait(id, &plan.overlaps);
                }
                if self.coordinator.waits_for(id).is_some() {
                    self.supersede(now, out);
                    return Ok(None);
                }
                command(Do::Preflighted { plan: plan.hash, usable: true })
            }
            Err(error) => Command {
                reason: error.to_string().into(),
                ..command(Do::Preflighted { plan: before, usable: false })
            },
        };
        self.handle(FleetEvent::Command { rollout: id, command: &command }, now, out)?;
        let planned = planned.ok().filter(|(plan, _)| plan.hash != before);
        let Some((plan, members)) = planned else { return Ok(None) };
        let engine = self.engines.get_mut(&id).ok_or(HandleError::UnknownRollout)?;
        let plan = Arc::new(plan);
        engine.replan(Arc::clone(&plan), members, now)?;
        self.coordinator.adopt(engine, now);
        Ok(Some(plan))
    }

    /// Rollouts that want [`Rollouts::preflight`] and wait for nobody: neither for another rollout to end, nor for the end
    /// of one to be committed, since until then records say what was true before it.
    pub fn want_preflight(&self) -> impl Iterator<Item = RolloutId> {
        let ended = self.engines.values().filter(|engine| engine.state().is_terminal());
        let ended: BTreeSet<_> = ended.map(|engine| engine.plan().slot).collect();
        let wanting = self.engines.values().filter(|engine| engine.state() == RolloutState::Preflight);
        wanting
            .filter(move |engine| !ended.contains(&engine.plan().slot))
            .map(Engine::id)
            .filter(|id| self.coordinator.waits_for(*id).is_none())
    }

    /// Routes an event: a fact to every engine that has the agent, a command to its rollout, a recall to all it concerns.
    ///
    /// # Errors
    /// [`HandleError`]: of commands, and of a recall if there are too many. Other events are always taken.
    pub fn handle(
        &mut self,
        event: FleetEvent<'_>,
        now: Time,
        out: &mut RolloutEffects,
    ) -> Result<(), HandleError> {
        let result = match event {
            FleetEvent::Agent { rollout, agent, fact } => {
                self.tell(rollout, Event::Agent { agent, fact }, now, out);
                Ok(())
            }
            FleetEvent::CloseBreaker => {
                self.coordinator.close_breaker(&mut out.shared.writes);
                self.steady.ask_again();
                for (id, engine) in &mut self.engines {
                    engine.breaker_closed(now, &mut self.coordinator, out.of(*id));
                }
                Ok(())
            }
            FleetEvent::Command { rollout, command } => self.command(rollout, command, now, out),
            FleetEvent::Fleet { rollout, fact } => {
                self.know_fleet(rollout, fact);
                self.tell(rollout, Event::Fleet(fact), now, out);
                Ok(())
            }
            FleetEvent::GroupDesired { group, slot, config, rollout } => {
                let unused = self.steady.desire(group, slot, config, rollout);
                if let Some(unused) = unused.filter(|unused| !self.coordinator.is_live(*unused)) {
                    self.coordinator.retire(unused);
                }
                Ok(())
            }
            FleetEvent::GroupGoesOn { group, slot } => {
                self.steady.go_on(group, slot);
                Ok(())
            }
            FleetEvent::Placed(placed) => {
                let kept = placed.kept || self.is_left(placed);
                let placed = &Placed { kept, ..*placed };
                let is_ending = is_ending(&self.engines, placed.agent, placed.slot);
                self.steady.placed((placed, is_ending), now, &mut self.coordinator, &mut out.shared);
                Ok(())
            }
            FleetEvent::Reading { rollout, reading } => {
                self.tell(Some(rollout), Event::Reading(reading), now, out);
                Ok(())
            }
            FleetEvent::Recall { config, actor, reason } => self.recall(config, (actor, reason), now, out),
            FleetEvent::Release { agent } => {
                self.coordinator.release(agent, &mut out.shared.writes);
                Ok(())
            }
            FleetEvent::Tick => {
                self.coordinator.tick(now);
                self.tell(None, Event::Tick, now, out);
                Ok(())
            }
        };
        self.free_what_has_ended(now, out);
        self.supersede(now, out);
        let engines = &self.engines;
        let is_ending = |agent: &AgentId, slot| is_ending(engines, agent, slot);
        self.steady.dispatch(is_ending, now, &mut self.coordinator, &mut out.shared);
        if let Some((rollout, until)) = self.coordinator.take_opened() {
            let text = format!("failures of several rollouts stop all offers until {until}").into();
            let alert = Alert { kind: AlertKind::BreakerOpen, rollout, wave: None, at: now, text };
            out.shared.acts.push(Act::Alert(Box::new(alert)));
        }
        result
    }

    /// Tells one engine, or all. Only commands can be refused, and they do not come this way.
    fn tell(&mut self, rollout: Option<RolloutId>, event: Event<'_>, now: Time, out: &mut RolloutEffects) {
        let told = self.engines.iter_mut().filter(|(id, _)| rollout.is_none_or(|rollout| rollout == **id));
        for (id, engine) in told {
            let handled = engine.handle(event, now, &mut self.coordinator, out.of(*id));
            debug_assert_eq!(handled, Ok(()));
        }
    }

    fn command(
        &mut self,
        rollout: RolloutId,
        command: &Command,
        now: Time,
        out: &mut RolloutEffects,
    ) -> Result<(), HandleError> {
        let engine = self.engines.get_mut(&rollout).ok_or(HandleError::UnknownRollout)?;
        let begins = match command.do_ {
            Do::Preflighted { .. } => !engine.state().is_terminal(),
            // Before that it leads to the preflight, which waits.
            Do::Start { .. } => engine.state() == RolloutState::Ready,
            _ => false,
        };
        if begins && self.coordinator.waits_for(rollout).is_some() {
            let needs = "the end of the rollouts that have its agents";
            return Err(Refused::WrongState { state: engine.state(), needs }.into());
        }
        let handled = engine.handle(Event::Command(command), now, &mut self.coordinator, out.of(rollout));
        handled.map_err(HandleError::from)
    }

    /// How large the fleet is follows from what is outside a rollout, and the rollout.
    fn know_fleet(&mut self, rollout: Option<RolloutId>, fact: FleetFact) {
        if let (Some(id), FleetFact::Outside { total, .. }) = (rollout, fact)
            && let Some(engine) = self.engines.get(&id)
        {
            self.coordinator.sized(&Domain::Fleet, total.saturating_add(engine.plan().members));
        }
    }

    fn recall(
        &mut self,
        config: Fingerprint,
        (actor, reason): (&str, &str),
        now: Time,
        out: &mut RolloutEffects,
    ) -> Result<(), HandleError> {
        let mut text = format!("{actor}: {reason}");
        text.truncate(text.floor_char_boundary(Self::REASON_BYTES_MAX));
        if !self.coordinator.recall(config, &text, &mut out.shared.writes) {
            return Err(HandleError::TooManyRecalled);
        }
        self.steady.recalled(config, now, &mut out.shared);
        self.tell(None, Event::Fleet(FleetFact::Recalled(config)), now, out);
        Ok(())
    }

    /// What rollouts held that have ended is free, and those that waited for it look again.
    fn free_what_has_ended(&mut self, now: Time, out: &mut RolloutEffects) {
        let has_ended =
            |id: &&RolloutId| self.engines.get(*id).is_none_or(|engine| engine.state().is_terminal());
        let ended: Vec<RolloutId> = self.going_on.iter().filter(has_ended).copied().collect();
        for id in ended {
            self.going_on.remove(&id);
            let Some(engine) = self.engines.get(&id) else { continue };
            let (slot, group, leaves) = (engine.plan().slot, engine.plan().group, leaves(engine));
            let succeeded = engine.state() == RolloutState::Succeeded;
            self.coordinator.finish(id);
            if let Some(group) = group.filter(|_| succeeded) {
                self.steady.awaits(group, slot, id);
            }
            if leaves {
                // Its record may have been told last before the offer was written.
                let is_left = |agent: &AgentId, of: GroupIx, recorded| {
                    group.is_none_or(|group| group == of) && is_left_to(engine, agent, recorded)
                };
                self.steady.left_by(is_left, slot, now, &mut self.coordinator, &mut out.shared);
            }
            self.free_for_steady();
            let waiting = self.engines.values_mut().filter(|engine| engine.plan().slot == slot);
            for engine in waiting.filter(|engine| !engine.state().is_terminal()) {
                let other = engine.id();
                engine.retry_locked(now, &mut self.coordinator, out.of(other));
            }
        }
    }

    /// Whom no rollout holds any more may be assigned what its group should have. Until the end of a rollout is committed,
    /// and it is dropped, its agents are its own: whoever leads next may find it as it was before.
    fn free_for_steady(&mut self) {
        let engines = &self.engines;
        self.steady.freed(&self.coordinator, |agent, slot| is_ending(engines, agent, slot));
    }

    /// Whether the agent has what a rollout left it that has ended and was not dropped yet.
    fn is_left(&self, placed: &Placed<'_>) -> bool {
        let engine = placed.offer.and_then(|offer| self.engines.get(&offer.rollout));
        engine.is_some_and(|engine| {
            let is_of_group = engine.plan().group.is_none_or(|group| placed.group == Some(group));
            let is_of_slot = engine.plan().slot == placed.slot;
            is_of_group && is_of_slot && leaves(engine) && is_left_to(engine, placed.agent, placed.assigned)
        })
    }

    /// A batch of the rollout is committed: its records have this serial.
    pub fn committed(&mut self, id: RolloutId, serial: Serial) {
        if let Some(engine) = self.engines.get_mut(&id) {
            engine.committed(serial);
        }
    }

    /// The engine is dropped, with all that follows from it: after a conflict, or because it has ended and is committed, and
    /// then its agents may be assigned what their groups should have. One
    /// that is rebuilt is [restored](Rollouts::restore) before the next event, its records read before it is dropped: in
    /// between nobody knows what it holds.
    pub fn drop_engine(&mut self, id: RolloutId) {
        // What has ended is free already, and what its name holds since are assignments of a steady state.
        if self.coordinator.is_live(id) {
            self.coordinator.forget(id);
        }
        self.going_on.remove(&id);
        self.engines.remove(&id);
        self.free_for_steady();
    }

    /// Takes in a rollout that was rebuilt from its records.
    pub fn restore(&mut self, engine: Engine, now: Time) {
        self.coordinator.adopt(&engine, now);
        // What follows from its end, if that is what its records say, follows at the next event.
        if engine.state() != RolloutState::Succeeded {
            self.going_on.insert(engine.id());
            self.steady.awaits_no_more(engine.id());
        }
        self.engines.insert(engine.id(), engine);
    }

    /// When time alone changes something.
    pub fn next_deadline(&self) -> Option<Time> {
        let engines = self.engines.values().filter_map(Engine::next_deadline);
        let shared = self.coordinator.next_deadline().into_iter().chain(self.steady.next_deadline());
        engines.chain(shared).filter(|at| *at != Time::NEVER).min()
    }
}

/// Whether a rollout that has ended and was not dropped yet has touched the agent.
fn is_ending(engines: &BTreeMap<RolloutId, Engine>, agent: &AgentId, slot: Slot) -> bool {
    let mut ended =
        engines.values().filter(|engine| engine.plan().slot == slot && engine.state().is_terminal());
    ended.any(|engine| has_touched(engine, agent))
}

fn has_touched(engine: &Engine, agent: &AgentId) -> bool {
    let members = &engine.state.members;
    members.find(agent).is_some_and(|member| members.row(member).flags.contains(Flags::TOUCHED))
}

/// Whether the rollout has ended and its members keep what it brought them, although no group should have it.
fn leaves(engine: &Engine) -> bool {
    match engine.state() {
        RolloutState::Aborted | RolloutState::Expired | RolloutState::Failed | RolloutState::Superseded => {
            true
        }
        RolloutState::PartiallyRolledBack | RolloutState::RollbackFailed | RolloutState::RolledBack => {
            engine.state.scope.is_some_and(|scope| scope != Scope::All)
        }
        RolloutState::Succeeded => engine.plan().group.is_none(),
        RolloutState::Draft
        | RolloutState::PendingApproval
        | RolloutState::Scheduled
        | RolloutState::Preflight
        | RolloutState::Ready
        | RolloutState::Running
        | RolloutState::Paused
        | RolloutState::Baking
        | RolloutState::Aborting
        | RolloutState::RollingBack
        | RolloutState::Cancelled
        | RolloutState::Rejected => false,
    }
}

/// Whether a rollout that `leaves` something has left it to this agent: whoever it has touched, and after a rollback
/// who should have its target still. `recorded`: what its record says, as told last.
fn is_left_to(engine: &Engine, agent: &AgentId, recorded: Option<Fingerprint>) -> bool {
    let members = &engine.state.members;
    let member = members.find(agent).map(|member| members.row(member));
    let Some(row) = member.filter(|row| row.flags.contains(Flags::TOUCHED)) else { return false };
    match row.state {
        _ if engine.state.scope.is_none() => true,
        MemberState::RolledBack | MemberState::RollbackDeferred => false,
        MemberState::RollbackFailed => matches!(row.reason, Reason::NoTarget | Reason::Recalled),
        MemberState::Unverified => true,
        state => {
            matches!(state.outcome(), Outcome::Bad | Outcome::Well) || recorded == Some(engine.plan().target)
        }
    }
}
