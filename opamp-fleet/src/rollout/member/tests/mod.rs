//! The member table: a literal copy, its edges, and what facts do in order.

mod edges;
mod falls;
mod ladder;
mod literal;
mod silence;

use std::time::Duration;

use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, Fingerprint, InstanceUid, Wall, pb};

use super::{Around, Step, on_fact};
use crate::faults::Faults;
use crate::rollout::members::{Flags, Pace, Row};
use crate::rollout::plan::{Candidate, FleetSizes, Plan, PlanRequest, Target};
use crate::rollout::{
    AgentFact, ConfigIx, ConfigStatus, MemberState, RolloutId, RolloutState, Time, WaveIx, WaveState, ZoneIx,
};
use crate::{AgentFacts, ConfigLimits, ConfigMap, Liveness, Selector};

const NOW: Time = Time(1_700_000_000_000);

/// A plan for one agent, with default gates and settings.
fn plan() -> Plan {
    let file =
        pb::AgentConfigObject { body: "receivers:".to_owned().into(), ..pb::AgentConfigObject::default() };
    let map = pb::AgentConfigMap { config_map: [("main.yaml".to_owned(), file)].into() };
    let config = ConfigMap::new(map, &ConfigLimits::default()).unwrap();
    let selector = Selector::default();
    let capabilities = AgentCapabilities::ACCEPTS_REMOTE_CONFIG;
    let target = Target { capabilities, ..Target::new(&config) };
    let facts = AgentFacts {
        capabilities,
        liveness: Liveness::Connected,
        ..AgentFacts::expected(AgentId::from_bytes([1; 16]), InstanceUid::from_bytes([1; 16]), Wall(NOW.0))
    };
    let request = PlanRequest {
        override_reason: Some("a test".into()),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), target, &selector)
    };
    Plan::make(request, std::iter::once(Candidate::new(&facts)), FleetSizes::default(), NOW).unwrap().0
}

fn previous() -> Fingerprint {
    ConfigHash::new(b"previous".to_vec()).fingerprint()
}

fn foreign() -> Fingerprint {
    ConfigHash::new(b"foreign".to_vec()).fingerprint()
}

fn around(plan: &Plan) -> Around<'_> {
    Around {
        plan,
        rollout: RolloutState::Running,
        wave: WaveState::Dispatching,
        pace: Pace { interval_s: 30, spans: 0 },
        previous: Some(previous()),
        now: NOW,
        faults: Faults::default(),
    }
}

/// What agents can report.
const STATUS: Flags = Flags::REPORTS_STATUS;
const EFFECTIVE: Flags = Flags::EXACT_EFFECTIVE;
const HEALTH: Flags = Flags::REPORTS_HEALTH;

/// A member that waits for its first offer, connected and well.
fn queued(reports: Flags) -> Row {
    let flags = reports | Flags::CONNECTED | Flags::HEALTHY;
    Row::queued(WaveIx(0), ZoneIx::NONE, ConfigIx(0), flags, Time(NOW.0 - 1))
}

/// One member to which things happen.
struct Member {
    plan: Plan,
    row: Row,
    now: Time,
    rollout: RolloutState,
    last: Step,
}

impl Member {
    fn new(reports: Flags) -> Self {
        Self {
            plan: plan(),
            row: queued(reports),
            now: NOW,
            rollout: RolloutState::Running,
            last: Step::default(),
        }
    }

    /// One whose first offer is written.
    fn offered(reports: Flags) -> Self {
        let mut member = Self::new(reports);
        member.offer();
        member
    }

    /// One whose first offer is delivered.
    fn delivered(reports: Flags) -> Self {
        let mut member = Self::offered(reports);
        member.fact(AgentFact::Delivered { offer: 1 });
        member
    }

    fn offer(&mut self) {
        let changed = super::offered(&self.row, &self.around());
        self.row = self.row.with(&changed);
    }

    fn around(&self) -> Around<'_> {
        Around { now: self.now, rollout: self.rollout, ..around(&self.plan) }
    }

    fn step(&mut self, step: Step) -> MemberState {
        if let Some(changed) = &step.row {
            self.row = self.row.with(changed);
        }
        self.last = step;
        self.row.state
    }

    fn fact(&mut self, fact: AgentFact<'_>) -> MemberState {
        let step = on_fact(&self.row, &fact, &self.around());
        self.step(step)
    }

    /// A report under the present offer about the rollout's configuration.
    fn report(&mut self, status: ConfigStatus) -> MemberState {
        self.report_of(self.plan.target, status)
    }

    fn report_of(&mut self, hash: Fingerprint, status: ConfigStatus) -> MemberState {
        let offer = self.row.offer;
        self.fact(AgentFact::Reported { offer, hash, status, text: None })
    }

    fn health(&mut self, healthy: bool) -> MemberState {
        let offer = self.row.offer;
        self.fact(AgentFact::Health { offer, healthy })
    }

    fn gone(&mut self) -> MemberState {
        self.fact(AgentFact::Disconnected { announced: false })
    }

    /// Its deadline passes.
    fn expire(&mut self) -> MemberState {
        self.now = self.row.deadline;
        let step = super::on_deadline(&self.row, &self.around());
        self.step(step)
    }

    fn span(&self) -> Duration {
        self.row.deadline.since(self.now)
    }

    fn has(&self, flags: Flags) -> bool {
        self.row.flags.contains(flags)
    }
}
