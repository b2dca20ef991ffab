//! Messages that the benchmarks share: what a fleet of collectors sends, in the sizes that the performance budgets speak of.

pub mod instructions;
pub mod rollout;

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, InstanceUid, pb};
use prost::Message;

/// The identity that the messages carry.
pub const UID: InstanceUid = InstanceUid::from_bytes([
    0x01, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0x7e, 0x0f, 0x8a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71,
]);

/// What a collector with remote configuration announces.
pub const CAPABILITIES: AgentCapabilities = AgentCapabilities::REPORTS_STATUS
    .union(AgentCapabilities::ACCEPTS_REMOTE_CONFIG)
    .union(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG)
    .union(AgentCapabilities::REPORTS_HEALTH)
    .union(AgentCapabilities::REPORTS_REMOTE_CONFIG)
    .union(AgentCapabilities::REPORTS_HEARTBEAT);

/// A message with nothing but identity, counter and capabilities: some 25 bytes.
#[must_use]
pub fn heartbeat() -> Vec<u8> {
    message(1_000).encode_to_vec()
}

/// A status of about 2 KB: health of a collector with 30 components.
#[must_use]
pub fn status() -> Vec<u8> {
    pb::AgentToServer { health: Some(health(30, 1)), ..message(1_001) }.encode_to_vec()
}

/// A full state of about 10 KB, of this second: 16 attributes, health of 12 components, a configuration of 8.2 KB and its
/// outcome.
#[must_use]
pub fn full_state(seconds: u64) -> Vec<u8> {
    state(health(12, seconds), 8_200)
}

/// The same size made of many small parts: health of 60 components, a configuration of 4 KB.
#[must_use]
pub fn full_state_of_many(seconds: u64) -> Vec<u8> {
    state(health(60, seconds), 4_096)
}

fn state(health: pb::ComponentHealth, config_bytes: usize) -> Vec<u8> {
    pb::AgentToServer {
        agent_description: Some(description()),
        health: Some(health),
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config(config_bytes)) }),
        remote_config_status: Some(pb::RemoteConfigStatus {
            last_remote_config_hash: Bytes::from_static(&[0xab; 32]),
            status: pb::RemoteConfigStatuses::Applied.into(),
            error_message: String::new(),
        }),
        ..message(1)
    }
    .encode_to_vec()
}

/// A configuration of two objects, the first with a body of so many bytes of YAML.
#[must_use]
pub fn config(body_bytes: usize) -> pb::AgentConfigMap {
    let body: Vec<u8> = b"receivers:\n  otlp:\n    protocols:\n      grpc:\n"
        .iter()
        .copied()
        .cycle()
        .take(body_bytes)
        .collect();
    let object = |body: Bytes| pb::AgentConfigObject {
        body,
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    pb::AgentConfigMap {
        config_map: [
            (String::new(), object(Bytes::from(body))),
            ("extensions.yaml".to_owned(), object(Bytes::from_static(b"extensions: {}\n"))),
        ]
        .into(),
    }
}

/// Health of an agent with so many components, all seen at the same second.
#[must_use]
pub fn health(components: usize, seconds: u64) -> pb::ComponentHealth {
    let time = 1_700_000_000_000_000_000 + seconds * 1_000_000_000;
    let component = |at: usize| {
        let health = pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            status: "StatusOK".to_owned(),
            status_time_unix_nano: time,
            ..Default::default()
        };
        (format!("receiver:otlp/{at}/traces/production"), health)
    };
    pb::ComponentHealth {
        healthy: true,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        status: "StatusOK".to_owned(),
        status_time_unix_nano: time,
        component_health_map: (0..components).map(component).collect(),
        ..Default::default()
    }
}

fn message(sequence_num: u64) -> pb::AgentToServer {
    pb::AgentToServer {
        instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
        sequence_num,
        capabilities: CAPABILITIES.bits(),
        ..Default::default()
    }
}

fn description() -> pb::AgentDescription {
    let attribute = |(key, value): (&str, &str)| pb::KeyValue {
        key: key.to_owned(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::StringValue(value.to_owned())) }),
    };
    let identifying = [
        ("service.name", "io.opentelemetry.collector"),
        ("service.namespace", "production"),
        ("service.version", "0.142.0"),
        ("service.instance.id", "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071"),
    ];
    let other = [
        ("os.type", "linux"),
        ("os.version", "6.12.48"),
        ("os.description", "Debian GNU/Linux 13 (trixie)"),
        ("host.arch", "amd64"),
        ("host.name", "ip-10-20-30-40.eu-central-1.compute.internal"),
        ("host.id", "4a5b6c7d8e9f4a5b6c7d8e9f4a5b6c7d"),
        ("cloud.provider", "aws"),
        ("cloud.region", "eu-central-1"),
        ("k8s.cluster.name", "production-1"),
        ("k8s.namespace.name", "observability"),
        ("k8s.pod.name", "collector-7d9c6b5f4-x2x9k"),
        ("k8s.node.name", "ip-10-20-30-1.eu-central-1.compute.internal"),
    ];
    pb::AgentDescription {
        identifying_attributes: identifying.map(attribute).into(),
        non_identifying_attributes: other.map(attribute).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_sizes_that_the_budgets_speak_of() {
        assert!((20..40).contains(&heartbeat().len()), "{}", heartbeat().len());
        assert!((1_900..2_400).contains(&status().len()), "{}", status().len());
        for state in [full_state(1), full_state_of_many(1)] {
            assert!((9_000..11_000).contains(&state.len()), "{}", state.len());
        }
    }
}
