//! What an agent costs in the index, measured at the allocator.

use opamp_fleet::{AgentFacts, Drift, FleetIndex, Health, IndexSettings, Labels, Liveness};
use opamp_proto::pb::any_value::Value;
use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall, pb};

const BUDGET_BYTES: u64 = 400;

fn text(key: &str, value: String) -> pb::KeyValue {
    pb::KeyValue { key: key.to_owned(), value: Some(pb::AnyValue { value: Some(Value::StringValue(value)) }) }
}

/// A collector on a Kubernetes node, with what the supervisor and the resource detectors report, and two labels
/// of the operators: 14 labels, 4 of which no other agent shares.
fn collector(n: u64) -> AgentFacts {
    let random = |salt: u64| {
        let hash = (n * 4 + salt).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&hash.to_be_bytes());
        bytes
    };
    let uid = InstanceUid::v7(1_760_000_000_000 + n, random(0));
    let mut labels = Labels::from_description(&pb::AgentDescription {
        identifying_attributes: vec![
            text("service.name", "io.opentelemetry.collector".to_owned()),
            text("service.namespace", "observability".to_owned()),
            text("service.version", format!("0.{}.0", 120 + n % 12)),
            text("service.instance.id", uid.to_string()),
        ],
        non_identifying_attributes: vec![
            text("os.type", "linux".to_owned()),
            text("os.description", format!("Debian GNU/Linux {} (bookworm)", 10 + n % 3)),
            text("host.arch", if n.is_multiple_of(3) { "arm64" } else { "amd64" }.to_owned()),
            text("host.name", format!("ip-10-{}-{}-{}.eu-central-1", n % 7, n / 250, n % 250)),
            text("host.id", format!("i-{:017x}", n * 7919)),
            text("k8s.node.name", format!("node-{n:05}")),
            text("k8s.cluster.name", format!("cluster-{}", n % 20)),
            text("cloud.region", format!("eu-central-{}", n % 3)),
        ],
    });
    labels.set_server(
        &[("team".to_owned(), format!("team-{}", n % 30)), ("ring".to_owned(), (n % 4).to_string())].into(),
    );
    AgentFacts {
        id: AgentId::v7(1_760_000_000_000 + n, random(1)),
        uid,
        capabilities: AgentCapabilities::REPORTS_STATUS | AgentCapabilities::ACCEPTS_REMOTE_CONFIG,
        liveness: if n.is_multiple_of(50) { Liveness::Disconnected } else { Liveness::Connected },
        liveness_since: Wall(1_760_000_000_000 + n),
        health: Health::Healthy,
        drift: Drift::InSync,
        labels,
    }
}

#[test]
fn an_agent_in_the_index_takes_at_most_400_bytes() {
    // The second size is just above one at which the hash table doubles: its worst case.
    for agents in [10_000, 15_000] {
        let mut index = FleetIndex::new(IndexSettings::default());
        let grown = allocation_counter::measure(|| {
            for n in 0..agents {
                index.insert(&collector(n));
            }
        });
        assert_eq!(index.counts().registered(), agents);
        let per_agent = u64::try_from(grown.bytes_current).expect("it grew") / agents;
        println!("{per_agent} bytes per agent in a fleet of {agents}");
        assert!(per_agent <= BUDGET_BYTES, "{per_agent} bytes per agent, the budget is {BUDGET_BYTES}");
        assert!(per_agent > 100, "{per_agent} bytes cannot hold 14 labels: the measurement is broken");
    }
}

#[test]
fn updates_in_place_do_not_make_the_index_grow() {
    const AGENTS: u64 = 2_000;
    let mut index = FleetIndex::new(IndexSettings::default());
    let mut update = |rounds: u64| {
        allocation_counter::measure(|| {
            for n in 0..AGENTS * rounds {
                index.insert(&collector(n % AGENTS));
                index.set_labels(&collector(n % AGENTS).id, &collector((n + rounds) % AGENTS).labels);
            }
        })
        .bytes_current
    };
    update(1);
    let grown = update(3);
    assert!(grown < (AGENTS * 16) as i64, "{grown} bytes more");
}

#[test]
fn changing_counted_facts_allocates_nothing() {
    let mut index = FleetIndex::new(IndexSettings::default());
    let facts = collector(1);
    index.insert(&facts);
    let changed = allocation_counter::measure(|| {
        index.set_health(&facts.id, Health::Unhealthy);
        index.set_drift(&facts.id, Drift::Failed);
        index.set_capabilities(&facts.id, AgentCapabilities::NONE);
    });
    assert_eq!(changed.count_total, 0);
}
