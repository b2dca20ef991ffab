//! What happens for every message of every agent allocates nothing.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use bytes::Bytes;
use opamp_proto::encode::server_to_agent as field;
use opamp_proto::{AgentMessage, InstanceUid, Limits, Part, encode, frame, material, pb};
use prost::Message;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

fn attribute(key: &str, value: &str) -> pb::KeyValue {
    let value = pb::any_value::Value::StringValue(value.to_owned());
    pb::KeyValue { key: key.to_owned(), value: Some(pb::AnyValue { value: Some(value) }) }
}

fn heartbeat() -> Vec<u8> {
    let message = pb::AgentToServer {
        instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
        sequence_num: 1_000,
        capabilities: 0x3807,
        ..Default::default()
    };
    let mut framed = Vec::new();
    frame::encode(&message.encode_to_vec(), &mut framed);
    framed
}

/// A full state of some 10 KB: description, a tree of health, and a configuration.
fn full_state() -> Vec<u8> {
    let component = |at: usize| {
        let health = pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            status: "StatusOK".to_owned(),
            status_time_unix_nano: 1_700_000_000_000_000_000,
            attributes: vec![attribute("kind", "receiver")],
            ..Default::default()
        };
        (format!("pipeline:{at}"), health)
    };
    let object = pb::AgentConfigObject {
        body: Bytes::from(vec![b'x'; 6_700]),
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    pb::AgentToServer {
        instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
        sequence_num: 1,
        capabilities: 0x3807,
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: (0..5).map(|at| attribute(&format!("service.{at}"), "value")).collect(),
            non_identifying_attributes: (0..15).map(|at| attribute(&format!("host.{at}"), "value")).collect(),
        }),
        health: Some(pb::ComponentHealth {
            healthy: true,
            component_health_map: (0..45).map(component).collect(),
            ..Default::default()
        }),
        effective_config: Some(pb::EffectiveConfig {
            config_map: Some(pb::AgentConfigMap {
                config_map: [("collector.yaml".to_owned(), object)].into(),
            }),
        }),
        remote_config_status: Some(pb::RemoteConfigStatus::default()),
        ..Default::default()
    }
    .encode_to_vec()
}

#[test]
fn the_counter_counts() {
    let message = full_state();
    assert!(allocations(|| drop(std::hint::black_box(pb::AgentToServer::decode(&*message)))) > 50);
}

#[test]
fn decoding_a_heartbeat_costs_no_allocation() {
    let (framed, limits) = (heartbeat(), Limits::default());
    let count = allocations(|| {
        let payload = frame::decode(&framed).expect("a frame");
        let message = AgentMessage::decode(payload, &limits).expect("acceptable");
        assert_eq!(message.instance_uid(), Ok(UID));
        assert!(message.parts().is_empty());
    });
    assert_eq!(count, 0);
}

#[test]
fn decoding_a_message_of_10_kb_costs_no_allocation() {
    let (bytes, limits) = (full_state(), Limits::default());
    assert!((9_500..11_000).contains(&bytes.len()), "{}", bytes.len());
    let count = allocations(|| {
        let message = AgentMessage::decode(&bytes, &limits).expect("acceptable");
        assert!(message.part(Part::Health).is_some_and(|health| health.len() > 2_000));
    });
    assert_eq!(count, 0);
}

#[test]
fn digests_of_every_part_cost_no_allocation() {
    let (bytes, limits) = (full_state(), Limits::default());
    let count = allocations(|| {
        let message = AgentMessage::decode(&bytes, &limits).expect("acceptable");
        for part in message.parts().iter() {
            std::hint::black_box(message.part(part).map(|encoded| material::digest(part, encoded)));
        }
        let summary = message.part(Part::Health).map(material::health_summary);
        assert!(summary.is_some_and(|summary| summary.healthy));
    });
    assert_eq!(count, 0);
}

#[test]
fn writing_an_answer_into_a_reused_buffer_costs_no_allocation() {
    let offer = pb::AgentRemoteConfig { config_hash: Bytes::from_static(&[1; 32]), ..Default::default() };
    let encoded_offer = offer.encode_to_vec();
    let mut out = Vec::with_capacity(256);
    let count = allocations(|| {
        out.push(frame::HEADER);
        encode::uid_field(field::INSTANCE_UID, &UID, &mut out);
        encode::bytes_field(field::REMOTE_CONFIG, &encoded_offer, &mut out);
        encode::varint_field(field::CAPABILITIES, 7, &mut out);
        encode::message_field(field::COMMAND, &pb::ServerToAgentCommand::default(), &mut out);
    });
    assert_eq!(count, 0);
    assert!(out.len() > 50);
}

#[test]
fn a_refusal_costs_little_and_a_repeated_part_is_the_exception() {
    let limits = Limits::default();
    let bytes = full_state();
    let truncated = &bytes[..bytes.len() - 1];
    assert!(allocations(|| drop(AgentMessage::decode(truncated, &limits))) <= 3);
    let doubled = [&bytes[..], &bytes[..]].concat();
    assert!(allocations(|| drop(AgentMessage::decode(&doubled, &limits))) > 50);
}
