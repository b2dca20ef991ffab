//! Several rollouts, driven by hand.

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::coordinator::{Admission, CoordinatorRows, CoordinatorSettings};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::{ConflictPolicy, FleetSizes, Plan, PlanRequest, Strategy};
use opamp_fleet::rollout::{
    AgentFact, Command, CommandKey, ConfigStatus, CreateError, Do, Effective, FleetEvent, GroupIx,
    HandleError, RolloutEffects, RolloutId, RolloutState, Rollouts, Slot, Time, Write,
};
use opamp_fleet::{ConfigMap, Selector};
use opamp_proto::{AgentId, Fingerprint};

use crate::support::{Known, START, by_number, config, fingerprint, request};

/// All rollouts of a fleet, driven by hand.
#[derive(Clone)]
pub(crate) struct Several {
    pub(crate) rollouts: Rollouts,
    pub(crate) out: RolloutEffects,
    pub(crate) now: Time,
    commands: u32,
}

/// What is asked for: a rollout of this name for these agents.
pub(crate) struct Wanted<'a> {
    pub(crate) id: RolloutId,
    pub(crate) body: &'a str,
    pub(crate) fleet: &'a [Known],
    pub(crate) policy: ConflictPolicy,
    pub(crate) slot: Slot,
    pub(crate) group: Option<GroupIx>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(id: RolloutId, body: &'a str, fleet: &'a [Known], policy: ConflictPolicy) -> Self {
        Self { id, body, fleet, policy, slot: Slot::MainConfig, group: None }
    }

    fn request<'r>(&'r self, target: &'r ConfigMap, selector: &'r Selector) -> PlanRequest<'r> {
        PlanRequest {
            id: self.id,
            slot: self.slot,
            group: self.group,
            conflict: self.policy,
            order: by_number(self.fleet),
            ..request(target, selector, Strategy::AllAtOnce)
        }
    }
}

impl Several {
    pub(crate) fn new() -> Self {
        let settings = CoordinatorSettings::default();
        let rollouts = Rollouts::new(settings, CoordinatorRows::default(), Faults::default());
        Self { rollouts, out: RolloutEffects::default(), now: START, commands: 0 }
    }

    pub(crate) fn create(&mut self, wanted: &Wanted<'_>) -> Result<Admission, CreateError> {
        let (target, selector) = (config(wanted.body), Selector::default());
        let candidates = wanted.fleet.iter().map(Known::candidate);
        let request = wanted.request(&target, &selector);
        self.rollouts.create(request, candidates, FleetSizes::default(), self.now)
    }

    /// The plan is compared with these agents, as the one who drives it does when it is asked to.
    pub(crate) fn preflight(&mut self, wanted: &Wanted<'_>) -> Result<Option<Arc<Plan>>, HandleError> {
        let (target, selector) = (config(wanted.body), Selector::default());
        let candidates = wanted.fleet.iter().map(Known::candidate);
        let request = wanted.request(&target, &selector);
        self.commands += 1;
        let key = CommandKey::new(&format!("key {}", self.commands)).unwrap();
        let command =
            |do_| Command { key, actor: "driver".into(), reason: "preflight".into(), expected: None, do_ };
        let (now, sizes) = (self.now, FleetSizes::default());
        self.rollouts.preflight(request, candidates, sizes, command, now, &mut self.out)
    }

    pub(crate) fn tell(&mut self, event: FleetEvent<'_>) -> Result<(), HandleError> {
        self.rollouts.handle(event, self.now, &mut self.out)
    }

    pub(crate) fn command(&mut self, rollout: RolloutId, do_: Do) -> Result<(), HandleError> {
        self.commands += 1;
        let key = CommandKey::new(&format!("key {}", self.commands)).unwrap();
        let command = Command { key, actor: "operator".into(), reason: "a test".into(), expected: None, do_ };
        self.tell(FleetEvent::Command { rollout, command: &command })
    }

    /// From draft to running, as far as nothing is in the way.
    pub(crate) fn start(&mut self, rollout: RolloutId) -> Result<(), HandleError> {
        let plan = self.rollouts.engine(rollout).unwrap().plan().hash;
        if self.state(rollout) == RolloutState::Draft {
            self.command(rollout, Do::Submit)?;
        }
        if self.state(rollout) == RolloutState::Scheduled {
            self.command(rollout, Do::Start { plan })?;
        }
        self.command(rollout, Do::Preflighted { plan, usable: true })?;
        self.command(rollout, Do::Start { plan })
    }

    pub(crate) fn state(&self, rollout: RolloutId) -> RolloutState {
        self.rollouts.engine(rollout).unwrap().state()
    }

    pub(crate) fn fact(&mut self, rollout: Option<RolloutId>, agent: &AgentId, fact: AgentFact<'_>) {
        self.tell(FleetEvent::Agent { rollout, agent, fact }).unwrap();
    }

    /// Agents that this rollout has in flight.
    pub(crate) fn in_flight(&self, rollout: RolloutId) -> Vec<AgentId> {
        let engine = self.rollouts.engine(rollout).unwrap();
        let members = engine.members(None, None, 1_000);
        members.iter().filter(|member| member.state.in_flight()).map(|member| *member.agent).collect()
    }

    /// All that is in flight succeeds, until nothing is.
    pub(crate) fn succeed(&mut self, rollout: RolloutId) {
        let target = self.rollouts.engine(rollout).unwrap().plan().target;
        self.apply(rollout, target);
    }

    /// All that is in flight takes back what it had.
    pub(crate) fn put_back(&mut self, rollout: RolloutId) {
        self.apply(rollout, fingerprint("old"));
    }

    fn apply(&mut self, rollout: RolloutId, target: Fingerprint) {
        for _ in 0..1_000 {
            let Some(agent) = self.in_flight(rollout).first().copied() else { return };
            let offer = self.rollouts.engine(rollout).unwrap().member(&agent).unwrap().offer;
            let applied =
                AgentFact::Reported { offer, hash: target, status: ConfigStatus::Applied, text: None };
            self.fact(Some(rollout), &agent, AgentFact::Delivered { offer });
            self.fact(Some(rollout), &agent, applied);
            self.fact(Some(rollout), &agent, AgentFact::Effective { offer, relation: Effective::Equal });
            self.fact(Some(rollout), &agent, AgentFact::Health { offer, healthy: true });
        }
        panic!("it goes on for ever");
    }

    /// What is in flight refuses it.
    pub(crate) fn refuse(&mut self, rollout: RolloutId) {
        let hash = self.rollouts.engine(rollout).unwrap().plan().target;
        for agent in self.in_flight(rollout) {
            let offer = self.rollouts.engine(rollout).unwrap().member(&agent).unwrap().offer;
            let failed = AgentFact::Reported { offer, hash, status: ConfigStatus::Failed, text: Some("no") };
            self.fact(Some(rollout), &agent, AgentFact::Delivered { offer });
            self.fact(Some(rollout), &agent, failed);
        }
    }

    /// Time goes on, with a tick at each deadline.
    pub(crate) fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            let Some(next) = self.rollouts.next_deadline().filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            self.tell(FleetEvent::Tick).unwrap();
        }
        self.now = end;
        self.tell(FleetEvent::Tick).unwrap();
    }

    /// Writes of a rollout so far.
    pub(crate) fn writes(&mut self, rollout: RolloutId) -> Vec<Write> {
        self.out.of(rollout).writes().to_vec()
    }
}
