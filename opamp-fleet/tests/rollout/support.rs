//! A small fleet, a plan for it, and an engine driven by hand: what the topics are told with.

#![allow(dead_code, reason = "each topic uses what it needs")]

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::coordinator::{Coordinator, CoordinatorRows, CoordinatorSettings};
use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::gates::GateConfig;
use opamp_fleet::rollout::journal::{Entry, Snapshot};
use opamp_fleet::rollout::plan::{
    Candidate, FleetSizes, Order, Plan, PlanRequest, PlannedMembers, Strategy, Target, Transport,
};
use opamp_fleet::rollout::{
    Act, AgentFact, Command, CommandKey, CommandOutcome, ConfigStatus, Do, Effective, Effects, Engine,
    EngineSettings, Event, Fell, MemberState, Refused, RolloutId, Time, Write,
};
use opamp_fleet::{AgentFacts, ConfigLimits, ConfigMap, Health, Liveness, Selector};
use opamp_proto::{AgentCapabilities, AgentId, Fingerprint, InstanceUid, Wall, pb};

/// When everything begins.
pub(crate) const START: Time = Time(1_700_000_000_000);

/// One agent as planning sees it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) facts: AgentFacts,
    pub(crate) current: Option<Fingerprint>,
    pub(crate) assigned: Option<Fingerprint>,
    pub(crate) known_good: Option<Fingerprint>,
    pub(crate) exact_effective: bool,
    pub(crate) failed: Vec<Fingerprint>,
    pub(crate) transport: Transport,
    pub(crate) interval: Duration,
    pub(crate) fell: Fell,
    pub(crate) quarantined: bool,
    pub(crate) locked_by: Option<RolloutId>,
}

impl Known {
    /// A connected, healthy agent that reports everything and runs `config("old")`.
    pub(crate) fn new(number: u32) -> Self {
        let capabilities = AgentCapabilities::REPORTS_STATUS
            | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG
            | AgentCapabilities::REPORTS_HEALTH
            | AgentCapabilities::REPORTS_REMOTE_CONFIG;
        let mut bytes = [0; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        let (id, uid) = (AgentId::from_bytes(bytes), InstanceUid::from_bytes(bytes));
        let old = fingerprint("old");
        Self {
            facts: AgentFacts {
                capabilities,
                liveness: Liveness::Connected,
                health: Health::Healthy,
                ..AgentFacts::expected(id, uid, Wall(START.0))
            },
            current: Some(old),
            assigned: Some(old),
            known_good: Some(old),
            exact_effective: true,
            failed: Vec::new(),
            transport: Transport::WebSocket,
            interval: Duration::from_secs(30),
            fell: Fell::default(),
            quarantined: false,
            locked_by: None,
        }
    }

    /// An agent that reports nothing: neither status nor health nor its effective configuration.
    pub(crate) fn mute(number: u32) -> Self {
        let mut known = Self::new(number);
        known.facts.capabilities =
            AgentCapabilities::REPORTS_STATUS | AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
        known.facts.health = Health::Unknown;
        known.exact_effective = false;
        known
    }

    pub(crate) fn id(&self) -> AgentId {
        self.facts.id
    }

    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate {
            facts: &self.facts,
            current: self.current,
            assigned: self.assigned,
            known_good: self.known_good,
            exact_effective: self.exact_effective,
            failed: &self.failed,
            first_seen: Wall(START.0),
            transport: self.transport,
            interval: self.interval,
            components: None,
            send_bytes_max: 64 * 1024 * 1024,
            fell: self.fell,
            quarantined: self.quarantined,
            locked_by: self.locked_by,
        }
    }
}

/// So many agents, numbered from 0.
pub(crate) fn agents(count: u32) -> Vec<Known> {
    (0..count).map(Known::new).collect()
}

/// A configuration of one file.
pub(crate) fn config(body: &str) -> ConfigMap {
    let file = pb::AgentConfigObject { body: body.to_owned().into(), ..pb::AgentConfigObject::default() };
    let map = pb::AgentConfigMap { config_map: [("main.yaml".to_owned(), file)].into_iter().collect() };
    ConfigMap::new(map, &ConfigLimits::default()).expect("one small file")
}

/// The fingerprint of [`config`].
pub(crate) fn fingerprint(body: &str) -> Fingerprint {
    config(body).hash().fingerprint()
}

/// The order of agents is the order of their numbers.
pub(crate) fn by_number(fleet: &[Known]) -> Order {
    Order::Explicit(fleet.iter().map(Known::id).collect())
}

/// A rollout of `config` with an override, without gates; no bake, no dwell but what the strategy says.
pub(crate) fn request<'a>(
    config: &'a ConfigMap,
    selector: &'a Selector,
    strategy: Strategy,
) -> PlanRequest<'a> {
    let target = Target { capabilities: AgentCapabilities::ACCEPTS_REMOTE_CONFIG, ..Target::new(config) };
    PlanRequest {
        title: "test".into(),
        strategy,
        gates: Box::default(),
        settings: EngineSettings { bake: Duration::ZERO, ..EngineSettings::default() },
        override_reason: Some("a test".into()),
        author: "author".into(),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), target, selector)
    }
}

/// A coordinator that limits nothing and remembers no failures.
pub(crate) fn permissive() -> Coordinator {
    let mut settings = CoordinatorSettings::default();
    settings.quarantine.failures = u32::MAX;
    settings.breaker.failures = u32::MAX;
    Coordinator::new(settings, CoordinatorRows::default(), Faults::default())
}

/// One engine with everything it said so far.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) shared: Coordinator,
    pub(crate) now: Time,
    pub(crate) plan: Arc<Plan>,
    pub(crate) members: PlannedMembers,
    /// The draft, before anything happened.
    pub(crate) first: Arc<Snapshot>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) writes: Vec<Write>,
    pub(crate) acts: Vec<Act>,
    /// Agents by number.
    pub(crate) agents: Vec<AgentId>,
    /// How many commands there were.
    pub(crate) commands: u32,
}

impl Driver {
    /// A draft of the plan.
    pub(crate) fn new(request: PlanRequest<'_>, fleet: &[Known]) -> Self {
        let sizes = FleetSizes { agents: fleet.len() as u32, group: 0 };
        let made = Plan::make(request, fleet.iter().map(Known::candidate), sizes, START);
        let (plan, members) = made.expect("a plan");
        let plan = Arc::new(plan);
        let mut shared = permissive();
        shared.register(plan.id, plan.slot, plan.conflict, &[]).expect("the only rollout");
        let engine = Engine::new(Arc::clone(&plan), members.clone(), START, Faults::default());
        Self {
            first: Arc::new(engine.snapshot()),
            engine,
            shared,
            now: START,
            plan,
            members,
            entries: Vec::new(),
            writes: Vec::new(),
            acts: Vec::new(),
            agents: fleet.iter().map(Known::id).collect(),
            commands: 0,
        }
    }

    /// A running rollout of the plan.
    pub(crate) fn started(request: PlanRequest<'_>, fleet: &[Known]) -> Self {
        let mut driver = Self::new(request, fleet);
        driver.start();
        driver
    }

    /// Submits, confirms and starts the plan.
    pub(crate) fn start(&mut self) {
        let plan = self.plan.hash;
        self.command(Do::Submit).expect("it is a draft");
        let _ = self.command(Do::Preflighted { plan, usable: true });
        self.command(Do::Start { plan }).expect("it is ready");
        let _ = self.command(Do::Preflighted { plan, usable: true });
    }

    pub(crate) fn event(&mut self, event: Event<'_>) -> Result<Option<CommandOutcome>, Refused> {
        let mut out = Effects::default();
        let result = self.engine.handle(event, self.now, &mut self.shared, &mut out);
        let answer = out.answer();
        let (entries, writes, acts) = out.take();
        self.entries.extend(entries);
        self.writes.extend(writes);
        self.acts.extend(acts);
        self.engine.check().expect("invariants");
        result.map(|()| answer)
    }

    pub(crate) fn fact(&mut self, agent: usize, fact: AgentFact<'_>) {
        let agent = self.agents[agent];
        self.event(Event::Agent { agent: &agent, fact }).expect("a fact is not refused");
    }

    /// A command under a key of its own.
    pub(crate) fn command(&mut self, do_: Do) -> Result<CommandOutcome, Refused> {
        self.commands += 1;
        let key = CommandKey::new(&format!("key {}", self.commands)).expect("a short key");
        self.command_as(key, do_)
    }

    pub(crate) fn command_as(&mut self, key: CommandKey, do_: Do) -> Result<CommandOutcome, Refused> {
        let command = Command { key, actor: "operator".into(), reason: "a test".into(), expected: None, do_ };
        self.event(Event::Command(&command)).map(|answer| answer.expect("a command has an answer"))
    }

    pub(crate) fn tick(&mut self) {
        self.event(Event::Tick).expect("a tick is not refused");
    }

    /// Time goes on by this much, with a tick at each deadline on the way and one at the end.
    pub(crate) fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..10_000 {
            match self.engine.next_deadline().filter(|next| *next < end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
            self.tick();
        }
        self.now = end;
        self.tick();
    }

    pub(crate) fn offer_of(&self, agent: usize) -> u32 {
        self.engine.member(&self.agents[agent]).expect("a member").offer
    }

    pub(crate) fn state_of(&self, agent: usize) -> MemberState {
        self.engine.member(&self.agents[agent]).expect("a member").state
    }

    /// Members in this state, by number.
    pub(crate) fn in_state(&self, state: MemberState) -> Vec<usize> {
        (0..self.agents.len())
            .filter(|agent| self.engine.member(&self.agents[*agent]).is_some_and(|view| view.state == state))
            .collect()
    }

    pub(crate) fn deliver(&mut self, agent: usize) {
        let offer = self.offer_of(agent);
        self.fact(agent, AgentFact::Delivered { offer });
    }

    /// A report about the rollout's configuration under the present offer.
    pub(crate) fn report(&mut self, agent: usize, status: ConfigStatus) {
        let offer = self.offer_of(agent);
        self.report_of(agent, offer, self.plan.target, status);
    }

    pub(crate) fn report_of(&mut self, agent: usize, offer: u32, hash: Fingerprint, status: ConfigStatus) {
        let text = (status == ConfigStatus::Failed).then_some("no such exporter");
        self.fact(agent, AgentFact::Reported { offer, hash, status, text });
    }

    /// The offer arrives, and all evidence of success.
    pub(crate) fn succeed(&mut self, agent: usize) {
        let offer = self.offer_of(agent);
        self.deliver(agent);
        self.report(agent, ConfigStatus::Applied);
        self.fact(agent, AgentFact::Effective { offer, relation: Effective::Equal });
        self.fact(agent, AgentFact::Health { offer, healthy: true });
    }

    /// The offer arrives, is begun, and fails.
    pub(crate) fn fail(&mut self, agent: usize) {
        self.deliver(agent);
        self.report(agent, ConfigStatus::Applying);
        self.report(agent, ConfigStatus::Failed);
    }

    /// The engine that its records lead to: the first snapshot, and all entries since.
    pub(crate) fn rebuilt(&self) -> Engine {
        let (plan, members) = (Arc::clone(&self.plan), self.members.clone());
        let tail = self.entries.iter().cloned();
        Engine::restore(plan, members, Some(&self.first), tail, Faults::default()).expect("its own records")
    }
}

/// A gate with all its defaults.
pub(crate) fn gate(kind: opamp_fleet::rollout::gates::GateKind) -> GateConfig {
    GateConfig::of(kind)
}
