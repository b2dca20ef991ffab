//! The small scope: its plan, and what can happen next in a state.

use std::time::Duration;

use opamp_fleet::Selector;
use opamp_fleet::rollout::gates::{GateConfig, GateKind, Severity, Test};
use opamp_fleet::rollout::plan::{Size, Step, Strategy};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{
    AgentFact, ConfigStatus, Do, Engine, GateIx, LateJoiners, Leavers, MemberState, Resume, Retries,
    Scope as Back,
};
use opamp_proto::{AgentCapabilities, AgentId};

use crate::support::{Driver, Known, by_number, config, fingerprint, request};

/// All spans of the scope are a few of these; so is the time after which a denied claim is asked for again.
const UNIT: Duration = Duration::from_secs(15);

/// What the agents of a scope report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// Status and health.
    Open,
    /// Nothing.
    Mute,
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// One in the first wave, one in the second, the others in the third.
    pub(crate) agents: u32,
    pub(crate) profile: Profile,
    /// Whether one failure holds a wave, in place of gates that pause and put members back by ratios and scores.
    pub(crate) holds: bool,
    /// Whether records of agents are deleted.
    pub(crate) removals: bool,
    /// Whether agents leave the selector, and go back by that, and operators exclude them.
    pub(crate) leavers: bool,
    /// How often each kind of disturbance may happen on one way.
    pub(crate) bounds: Bounds,
    /// More states than this are a failure: what cannot be searched is not called searched.
    pub(crate) states_max: usize,
}

/// How often disturbances may happen; what agents say of the offer in flight, time and returns are not bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Orders of operators.
    pub(crate) commands: u8,
    /// Agents that go away, turn ill, leave, or whose records are deleted.
    pub(crate) losses: u8,
    /// Agents that say something else when they have settled already.
    pub(crate) late: u8,
}

impl Bounds {
    pub(crate) const fn of(commands: u8, losses: u8, late: u8) -> Self {
        Self { commands, losses, late }
    }

    /// What is left after this; none if it may not happen any more.
    fn after(mut self, happens: Happens, engine: &Engine, agents: &[AgentId]) -> Option<Self> {
        let left = match happens {
            Happens::Tick | Happens::Said(_, Said::Back) => return Some(self),
            Happens::Command(_) => &mut self.commands,
            Happens::Said(_, Said::Gone | Said::Ill | Said::Left | Said::Removed) => &mut self.losses,
            Happens::Said(agent, _) => {
                let member = engine.member(&agents[agent]).expect("a member of the plan");
                if !is_late(member.state) {
                    return Some(self);
                }
                &mut self.late
            }
        };
        *left = left.checked_sub(1)?;
        Some(self)
    }
}

/// Whether nothing is expected of a member in this state.
fn is_late(state: MemberState) -> bool {
    match state {
        MemberState::Offered
        | MemberState::Delivered
        | MemberState::Applying
        | MemberState::Applied
        | MemberState::Absent
        | MemberState::RollbackOffered => false,
        MemberState::Queued
        | MemberState::Backoff
        | MemberState::Verified
        | MemberState::Unverified
        | MemberState::AlreadyCurrent
        | MemberState::NotApplicable
        | MemberState::Excluded
        | MemberState::Control
        | MemberState::Removed
        | MemberState::Expired
        | MemberState::Failed
        | MemberState::Rejected
        | MemberState::SelfRolledBack
        | MemberState::TimedOut
        | MemberState::Deferred
        | MemberState::RollbackQueued
        | MemberState::RolledBack
        | MemberState::RollbackFailed
        | MemberState::RollbackDeferred => true,
    }
}

impl Scope {
    /// The rollout, started.
    pub(crate) fn begin(&self) -> Driver {
        let (new, selector) = (config("new"), Selector::default());
        let fleet: Vec<Known> = (0..self.agents).map(|number| self.agent(number)).collect();
        let step = |until| Step { until, dwell: UNIT, approval: false };
        let steps = [step(Size::Count(1)), step(Size::Count(2)), step(Size::Percent(Ppm::ALL))];
        let steps = &steps[..(self.agents as usize).min(steps.len())];
        let mut asked = request(&new, &selector, Strategy::Canary { steps: steps.into() });
        asked.order = by_number(&fleet);
        asked.gates = if self.holds { holding_gates() } else { gates() };
        let settings = &mut asked.settings;
        settings.bake = UNIT;
        settings.in_flight_max = 2;
        settings.limits.in_flight_max = 2;
        settings.progress = 3 * UNIT;
        settings.deferred_ttl = 2 * UNIT;
        settings.joiners = LateJoiners::Snapshot;
        settings.leavers = if self.leavers { Leavers::Revert } else { Leavers::Finish };
        settings.retries =
            Retries { transport: 1, timeout: 1, failed: 1, first_after: UNIT, after_max: UNIT };
        let deadlines = &mut settings.deadlines;
        (deadlines.offer, deadlines.apply, deadlines.verify) = (UNIT, UNIT, UNIT);
        (deadlines.grace_min, deadlines.grace_heartbeats) = (UNIT, 1);
        Driver::started(asked, &fleet)
    }

    fn agent(&self, number: u32) -> Known {
        let mut known = match self.profile {
            Profile::Open => Known::new(number),
            Profile::Mute => Known::mute(number),
        };
        // Effective configurations are left out: they lead where status and health lead.
        known.exact_effective = false;
        known.facts.capabilities.remove(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG);
        known.interval = Duration::from_secs(1);
        known
    }

    /// What can happen next, and what may happen after that.
    pub(crate) fn next(&self, engine: &Engine, agents: &[AgentId], left: Bounds) -> Vec<(Happens, Bounds)> {
        let all = self.all(engine, agents).into_iter();
        all.filter_map(|happens| Some((happens, left.after(happens, engine, agents)?))).collect()
    }

    fn all(&self, engine: &Engine, agents: &[AgentId]) -> Vec<Happens> {
        let mut next = vec![Happens::Tick];
        next.extend(Happens::orders());
        let excluded = if self.leavers { agents.len() } else { 0 };
        next.extend((0..excluded).map(|agent| Happens::Command(Order::Exclude(agent))));
        for (number, agent) in agents.iter().enumerate() {
            let member = engine.member(agent).expect("a member of the plan");
            let said = self.said(member.state, member.offer > 0);
            next.extend(said.into_iter().map(|said| Happens::Said(number, said)));
        }
        next
    }

    /// What an agent can say, as far as it can matter in a state of its member.
    fn said(&self, state: MemberState, is_touched: bool) -> Vec<Said> {
        use Said::{Applied, Applying, Back, Delivered, Failed, Gone, Ill, Left, Previous, Removed, Well};
        let reports = matches!(self.profile, Profile::Open);
        let mut said: Vec<Said> = match state {
            MemberState::Offered
            | MemberState::Delivered
            | MemberState::Applying
            | MemberState::Applied
            | MemberState::Absent
            | MemberState::RollbackOffered => {
                vec![Delivered, Applying, Applied, Failed, Previous, Well, Ill, Gone, Back, Left, Removed]
            }
            MemberState::Verified
            | MemberState::Unverified
            | MemberState::Failed
            | MemberState::TimedOut
            | MemberState::Rejected
            | MemberState::SelfRolledBack => {
                vec![Applying, Applied, Failed, Previous, Well, Ill, Gone, Back, Left]
            }
            MemberState::Backoff | MemberState::Deferred | MemberState::RollbackQueued => {
                vec![Delivered, Applied, Failed, Previous, Gone, Back, Left]
            }
            MemberState::RollbackDeferred | MemberState::RolledBack | MemberState::RollbackFailed => {
                vec![Delivered, Failed, Previous, Gone, Back]
            }
            MemberState::Queued if is_touched => vec![Applied, Failed, Gone, Back, Left],
            MemberState::Queued => vec![Gone, Back, Left],
            MemberState::AlreadyCurrent
            | MemberState::NotApplicable
            | MemberState::Excluded
            | MemberState::Control
            | MemberState::Removed
            | MemberState::Expired => Vec::new(),
        };
        said.retain(|said| match said {
            Applied | Applying | Failed | Previous | Ill | Well => reports,
            Back | Delivered | Gone => true,
            Left => self.leavers,
            Removed => self.removals,
        });
        said
    }
}

/// One gate of each kind of test.
fn gates() -> Box<[GateConfig]> {
    let gate =
        |kind, test| GateConfig { tests: [test].into(), window: UNIT, min_sample: 1, ..GateConfig::of(kind) };
    let sequential =
        Test::Sequential { acceptable: Ppm::percent(10), bad: Ppm::percent(50), error: Ppm::percent(20) };
    let percent = Test::Percent { over: Ppm::percent(40), at_least: 1 };
    [
        gate(GateKind::ApplyFailed, sequential),
        gate(GateKind::TimedOut, percent),
        gate(GateKind::NothingSucceeds, Test::Hard { failures: 2 }),
    ]
    .into()
}

/// Gates that hold at the first failure, whatever its kind.
fn holding_gates() -> Box<[GateConfig]> {
    let gate = |kind| GateConfig {
        tests: [Test::Count { over: 0 }].into(),
        window: UNIT,
        severity: Severity::Hold,
        all_failed: None,
        ..GateConfig::of(kind)
    };
    [gate(GateKind::ApplyFailed), gate(GateKind::TimedOut)].into()
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happens {
    Command(Order),
    Said(usize, Said),
    /// Time goes on to the next deadline.
    Tick,
}

/// What an agent says, or what becomes known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    Applied,
    Applying,
    Back,
    Delivered,
    Failed,
    Gone,
    Ill,
    Left,
    Previous,
    Removed,
    Well,
}

/// What an operator orders.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Abort,
    Advance,
    /// Of one agent.
    Exclude(usize),
    Pause,
    Plain,
    Raise,
    Retry,
    RollBack,
    RollBackFailed,
    Skip,
    SkipWave,
    Waive,
}

const COMMANDS: [Order; 11] = [
    Order::Abort,
    Order::Advance,
    Order::Pause,
    Order::Plain,
    Order::Raise,
    Order::Retry,
    Order::RollBack,
    Order::RollBackFailed,
    Order::Skip,
    Order::SkipWave,
    Order::Waive,
];

impl Happens {
    /// Everything that an operator can order of the rollout.
    pub(crate) fn orders() -> impl Iterator<Item = Self> {
        COMMANDS.into_iter().map(Self::Command)
    }

    /// Whether it ends or stops the rollout because somebody wants that: no way out that may be counted on.
    pub(crate) fn gives_up(self) -> bool {
        matches!(
            self,
            Self::Command(
                Order::Abort | Order::Exclude(_) | Order::Pause | Order::RollBack | Order::RollBackFailed
            )
        )
    }

    /// Lets it happen.
    pub(crate) fn to(self, driver: &mut Driver) {
        match self {
            Self::Command(order) => {
                // What is refused changes nothing, and that is checked like everything else.
                let _ = driver.command(order.what(driver));
            }
            Self::Said(agent, said) => said.of(agent, driver),
            Self::Tick => {
                if let Some(next) = driver.engine.next_deadline() {
                    driver.now = driver.now.max(next);
                }
                driver.tick();
            }
        }
    }
}

impl Order {
    fn what(self, driver: &Driver) -> Do {
        // Decisions are about the gate that waits for one.
        let fired = driver.engine.fired();
        let gates = || driver.plan.gates.iter();
        let gate = fired.first().and_then(|said| gates().position(|gate| gate.kind == said.gate));
        let gate = GateIx(gate.unwrap_or(0) as u8);
        match self {
            Self::Abort => Do::Abort,
            Self::Advance => Do::Advance,
            Self::Exclude(agent) => Do::Exclude { agent: driver.agents[agent] },
            Self::Pause => Do::Pause,
            Self::Plain => Do::Resume(Resume::Plain),
            Self::Raise => Do::Resume(Resume::Raise { gate, over: Ppm::percent(90), count: 4 }),
            Self::Retry => Do::Resume(Resume::Retry),
            Self::RollBack => Do::RollBack(Back::All),
            Self::RollBackFailed => Do::RollBack(Back::Failed),
            Self::Skip => Do::Resume(Resume::Skip),
            Self::SkipWave => Do::SkipWave,
            Self::Waive => Do::Resume(Resume::Waive { gate }),
        }
    }
}

impl Said {
    fn of(self, agent: usize, driver: &mut Driver) {
        let offer = driver.offer_of(agent);
        match self {
            Self::Applied => driver.report(agent, ConfigStatus::Applied),
            Self::Applying => driver.report(agent, ConfigStatus::Applying),
            Self::Back => driver.fact(agent, AgentFact::Connected),
            Self::Delivered => driver.deliver(agent),
            Self::Failed => driver.report(agent, ConfigStatus::Failed),
            Self::Gone => driver.fact(agent, AgentFact::Disconnected { announced: false }),
            Self::Left => driver.fact(agent, AgentFact::Left),
            Self::Ill => driver.fact(agent, AgentFact::Health { offer, healthy: false }),
            Self::Previous => driver.report_of(agent, offer, fingerprint("old"), ConfigStatus::Applied),
            Self::Removed => driver.fact(agent, AgentFact::Removed),
            Self::Well => driver.fact(agent, AgentFact::Health { offer, healthy: true }),
        }
    }
}
