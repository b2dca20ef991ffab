//! The messages themselves, as a collector sends them, with markers where agents differ.

use bytes::Bytes;
use opamp_proto::{AgentCapabilities, pb};
use prost::Message as _;

/// Stands where the number of the agent goes, as 8 digits.
pub(super) const INDEX: &str = "@@INDEX@";
/// Stands where the identity goes, as text.
pub(super) const UID_TEXT: &str = "@@UID-TEXT-UID-TEXT-UID-TEXT-UID-@@@";
/// Stands where the identity goes, as bytes.
pub(super) const UID: [u8; 16] = *b"@@UID-BYTES-UID@";

/// What a collector with remote configuration announces. All messages of all agents say the same: capabilities that change from message
/// to message would be news to the server each time.
const CAPABILITIES: AgentCapabilities = AgentCapabilities::REPORTS_STATUS
    .union(AgentCapabilities::ACCEPTS_REMOTE_CONFIG)
    .union(AgentCapabilities::REPORTS_EFFECTIVE_CONFIG)
    .union(AgentCapabilities::REPORTS_HEALTH)
    .union(AgentCapabilities::REPORTS_REMOTE_CONFIG)
    .union(AgentCapabilities::REPORTS_HEARTBEAT);

pub(super) fn heartbeat() -> Vec<u8> {
    message().encode_to_vec()
}

pub(super) fn minimal() -> Vec<u8> {
    let name = attribute("service.name", "fleet-load");
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![name],
            non_identifying_attributes: Vec::new(),
        }),
        ..message()
    }
    .encode_to_vec()
}

pub(super) fn unkept() -> Vec<u8> {
    pb::AgentToServer {
        custom_message: Some(pb::CustomMessage {
            capability: "com.example.fleet-load.unannounced".to_owned(),
            r#type: "ballast".to_owned(),
            data: Bytes::from(vec![0x5a; 10_000]),
        }),
        ..message()
    }
    .encode_to_vec()
}

/// Health of 20 components.
pub(super) fn status(variant: u64) -> Vec<u8> {
    pb::AgentToServer { health: Some(health(20, Names::Long, variant)), ..message() }.encode_to_vec()
}

/// A full state with little of each part, so that no server has to ask for more.
pub(super) fn kib2(variant: u64) -> Vec<u8> {
    let state = pb::AgentToServer {
        agent_description: Some(description()),
        health: Some(health(13, Names::Long, variant)),
        ..message()
    };
    with_config(&state, &[], &config(128, &format!("# agent {INDEX}")).encode_to_vec())
}

/// The full state with the agent's own configuration, or one that was offered: its hash and the encoded `AgentConfigMap`.
pub(super) fn kib10(variant: u64, offered: Option<(&[u8], &[u8])>) -> Vec<u8> {
    full(health(12, Names::Short, variant), 8_200, offered)
}

/// The same size made of many small parts: 60 components and a configuration of 4 KB.
pub(super) fn kib10_many(variant: u64, offered: Option<(&[u8], &[u8])>) -> Vec<u8> {
    full(health(60, Names::Short, variant), 4_096, offered)
}

fn full(health: pb::ComponentHealth, config_bytes: usize, offered: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let state =
        pb::AgentToServer { agent_description: Some(description()), health: Some(health), ..message() };
    let own = config(config_bytes, &format!("# agent {INDEX}")).encode_to_vec();
    let (hash, config) = offered.unwrap_or((&[0xab; 32], &own));
    with_config(&state, hash, config)
}

pub(super) fn applied((hash, config): (&[u8], &[u8])) -> Vec<u8> {
    with_config(&message(), hash, config)
}

fn with_config(message: &pb::AgentToServer, hash: &[u8], config: &[u8]) -> Vec<u8> {
    let mut out = message.encode_to_vec();
    // The offered map goes back byte for byte, whatever it holds.
    let mut effective = Vec::with_capacity(config.len() + 8);
    opamp_proto::encode::bytes_field(1, config, &mut effective);
    opamp_proto::encode::bytes_field(6, &effective, &mut out);
    let status = pb::RemoteConfigStatus {
        last_remote_config_hash: Bytes::copy_from_slice(hash),
        // Without a hash nothing was ever offered.
        status: if hash.is_empty() {
            pb::RemoteConfigStatuses::Unset
        } else {
            pb::RemoteConfigStatuses::Applied
        }
        .into(),
        error_message: String::new(),
    };
    opamp_proto::encode::message_field(7, &status, &mut out);
    out
}

/// A configuration of one file with a body of so many bytes, which begins with a line of its own.
pub(crate) fn config(body_bytes: usize, first_line: &str) -> pb::AgentConfigMap {
    let yaml = b"receivers:\n  otlp:\n    protocols:\n      grpc:\n";
    let body: Vec<u8> = format!("{first_line}\n")
        .into_bytes()
        .into_iter()
        .chain(yaml.iter().copied().cycle())
        .take(body_bytes)
        .collect();
    let object = pb::AgentConfigObject {
        body: Bytes::from(body),
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    pb::AgentConfigMap { config_map: [(String::new(), object)].into() }
}

fn message() -> pb::AgentToServer {
    pb::AgentToServer {
        instance_uid: Bytes::from_static(&UID),
        capabilities: CAPABILITIES.bits(),
        ..Default::default()
    }
}

/// How components are called.
#[derive(Clone, Copy)]
enum Names {
    /// Some 35 bytes.
    Short,
    /// Some 60 bytes.
    Long,
}

/// Health of an agent with so many components, all seen at the same second.
fn health(components: usize, names: Names, seconds: u64) -> pb::ComponentHealth {
    const START: u64 = 1_700_000_000_000_000_000;
    let one = pb::ComponentHealth {
        healthy: true,
        start_time_unix_nano: START,
        status: "StatusOK".to_owned(),
        status_time_unix_nano: START + seconds * 1_000_000_000,
        ..Default::default()
    };
    let pipeline = match names {
        Names::Short => "traces/production",
        Names::Long => "traces/production-eu-central-1-tenant-0042",
    };
    let component = |at: usize| (format!("receiver:otlp/{at}/{pipeline}"), one.clone());
    pb::ComponentHealth { component_health_map: (0..components).map(component).collect(), ..one.clone() }
}

fn attribute(key: &str, value: &str) -> pb::KeyValue {
    pb::KeyValue {
        key: key.to_owned(),
        value: Some(pb::AnyValue { value: Some(pb::any_value::Value::StringValue(value.to_owned())) }),
    }
}

fn description() -> pb::AgentDescription {
    let name = |prefix: &str, suffix: &str| format!("{prefix}{INDEX}{suffix}");
    pb::AgentDescription {
        identifying_attributes: vec![
            attribute("service.name", "io.opentelemetry.collector"),
            attribute("service.namespace", "production"),
            attribute("service.version", "0.142.0"),
            attribute("service.instance.id", UID_TEXT),
        ],
        non_identifying_attributes: vec![
            attribute("os.type", "linux"),
            attribute("os.version", "6.12.48"),
            attribute("os.description", "Debian GNU/Linux 13 (trixie)"),
            attribute("host.arch", "amd64"),
            attribute("host.name", &name("ip-", ".eu-central-1.compute.internal")),
            attribute("host.id", &name("4a5b6c7d8e9f4a5b6c7d8e9f", "")),
            attribute("cloud.provider", "aws"),
            attribute("cloud.region", "eu-central-1"),
            attribute("k8s.cluster.name", "production-1"),
            attribute("k8s.namespace.name", "observability"),
            attribute("k8s.pod.name", &name("collector-", "")),
            attribute("k8s.node.name", "ip-10-20-30-1.eu-central-1.compute.internal"),
        ],
    }
}
