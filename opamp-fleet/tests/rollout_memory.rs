//! What a member of a rollout costs, measured at the allocator.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::sync::Arc;

use opamp_fleet::faults::Faults;
use opamp_fleet::rollout::plan::{Candidate, FleetSizes, Plan, PlanRequest, Strategy, Target};
use opamp_fleet::rollout::{Engine, RolloutId, Time};
use opamp_fleet::{AgentFacts, ConfigLimits, ConfigMap, Liveness, Selector};
use opamp_proto::{AgentCapabilities, AgentId, ConfigHash, InstanceUid, Wall, pb};

const BUDGET_BYTES: u64 = 96;
const NOW: Time = Time(1_760_000_000_000);

fn agent(n: u32) -> AgentFacts {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    AgentFacts {
        capabilities: AgentCapabilities::ACCEPTS_REMOTE_CONFIG | AgentCapabilities::REPORTS_REMOTE_CONFIG,
        liveness: Liveness::Connected,
        ..AgentFacts::expected(AgentId::from_bytes(bytes), InstanceUid::from_bytes(bytes), Wall(NOW.0))
    }
}

fn engine(members: u32) -> Engine {
    let file =
        pb::AgentConfigObject { body: "receivers:".to_owned().into(), ..pb::AgentConfigObject::default() };
    let map = pb::AgentConfigMap { config_map: [("main.yaml".to_owned(), file)].into() };
    let config = ConfigMap::new(map, &ConfigLimits::default()).unwrap();
    let selector = Selector::default();
    let request = PlanRequest {
        strategy: Strategy::canary(),
        ..PlanRequest::new(RolloutId::from_bytes([7; 16]), Target::new(&config), &selector)
    };
    let fleet: Vec<_> = (0..members).map(agent).collect();
    // A few configurations are shared by all, as in any fleet.
    let current = |n: usize| ConfigHash::new(vec![(n % 3) as u8]).fingerprint();
    let candidates = fleet.iter().enumerate().map(|(n, facts)| Candidate {
        current: Some(current(n)),
        known_good: Some(current(n)),
        ..Candidate::new(facts)
    });
    let sizes = FleetSizes { agents: members, group: 0 };
    let (plan, planned) = Plan::make(request, candidates, sizes, NOW).unwrap();
    assert_eq!(planned.len(), members as usize);
    Engine::new(Arc::new(plan), planned, NOW, Faults::default())
}

#[test]
fn a_queued_member_takes_at_most_96_bytes() {
    // The second size is just above one at which the table of names doubles: its worst case.
    for members in [20_000, 24_577] {
        let mut built = None;
        let measured = allocation_counter::measure(|| built = Some(engine(members)));
        let engine = built.unwrap();
        assert!(engine.summary(NOW).total == members);
        // What is left when planning is over: the engine and its plan.
        let bytes = u64::try_from(measured.bytes_current).unwrap();
        let fixed = 64 * 1024;
        assert!(
            bytes - fixed.min(bytes) <= BUDGET_BYTES * u64::from(members),
            "{} bytes a member",
            bytes / u64::from(members)
        );
        assert!(bytes >= 48 * u64::from(members), "nothing was measured: {bytes} bytes");
    }
}
