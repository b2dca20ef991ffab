//! The example byte strings of the specification, in both directions: values encode to exactly these bytes, and the bytes
//! decode to these values.
//!
//! Only the encoding of an empty map key differs between encoders (some write it, some leave it out), so there the bytes
//! decode to the value, and the value's own encoding decodes to it again.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use bytes::Bytes;
use common::hex;
use opamp_proto::{AgentCapabilities, AgentMessage, InstanceUid, Limits, Part, PartSet, SequenceNum, pb};
use prost::Message;

const UID: &str = "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071";
const UID_FIELD: &str = "0a10 0190a0b0c0d07e0f8a1b2c3d4e5f6071";

fn uid() -> Bytes {
    let uid: InstanceUid = UID.parse().expect("a UUID");
    Bytes::copy_from_slice(uid.as_bytes())
}

fn from_agent(sequence_num: u64) -> pb::AgentToServer {
    pb::AgentToServer { instance_uid: uid(), sequence_num, ..Default::default() }
}

fn from_server() -> pb::ServerToAgent {
    pb::ServerToAgent { instance_uid: uid(), ..Default::default() }
}

/// Both directions, with the full decoder and, for messages of agents, with the lazy one.
fn check_agent(message: &pb::AgentToServer, digits: &str) {
    let bytes = hex(digits);
    assert_eq!(pb::AgentToServer::decode(&*bytes).as_ref(), Ok(message));
    assert_eq!(message.encode_to_vec(), bytes);
    let lazy = AgentMessage::decode(&bytes, &Limits::default()).expect("acceptable");
    assert_eq!(lazy.to_full().as_ref(), Ok(message));
    assert_eq!(lazy.sequence_num(), SequenceNum(message.sequence_num));
    assert_eq!(lazy.capabilities().bits(), message.capabilities);
    assert_eq!(lazy.flags().bits(), message.flags);
    assert_eq!(lazy.instance_uid_bytes(), message.instance_uid);
}

fn check_server(message: &pb::ServerToAgent, digits: &str) {
    let bytes = hex(digits);
    assert_eq!(pb::ServerToAgent::decode(&*bytes).as_ref(), Ok(message));
    assert_eq!(message.encode_to_vec(), bytes);
}

#[test]
fn agent_message_with_everything_unset() {
    check_agent(&pb::AgentToServer::default(), "");
    let message = AgentMessage::decode(&[], &Limits::default()).expect("acceptable");
    assert!(message.parts().is_empty());
    assert!(message.instance_uid().is_err());
}

#[test]
fn agent_message_with_only_the_identity() {
    check_agent(&from_agent(0), UID_FIELD);
    let bytes = hex(UID_FIELD);
    let message = AgentMessage::decode(&bytes, &Limits::default()).expect("acceptable");
    assert_eq!(message.instance_uid().map(|uid| uid.to_string()), Ok(UID.to_owned()));
}

#[test]
fn agent_message_with_description_and_capabilities() {
    let message = pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![pb::KeyValue {
                key: "service.name".to_owned(),
                value: Some(pb::AnyValue {
                    value: Some(pb::any_value::Value::StringValue("demo".to_owned())),
                }),
            }],
            non_identifying_attributes: vec![],
        }),
        capabilities: (AgentCapabilities::REPORTS_STATUS
            | AgentCapabilities::ACCEPTS_REMOTE_CONFIG
            | AgentCapabilities::REPORTS_EFFECTIVE_CONFIG
            | AgentCapabilities::REPORTS_HEALTH
            | AgentCapabilities::REPORTS_REMOTE_CONFIG)
            .bits(),
        ..from_agent(300)
    };
    assert_eq!(message.capabilities, 0x1807);
    check_agent(
        &message,
        &format!("{UID_FIELD} 10ac02 1a18 0a16 0a0c736572766963652e6e616d65 1206 0a0464656d6f 208730"),
    );
}

#[test]
fn agent_message_with_disconnect() {
    let message = pb::AgentToServer { agent_disconnect: Some(pb::AgentDisconnect {}), ..from_agent(2) };
    let digits = format!("{UID_FIELD} 1002 4a00");
    check_agent(&message, &digits);
    let bytes = hex(&digits);
    let lazy = AgentMessage::decode(&bytes, &Limits::default()).expect("acceptable");
    assert_eq!(lazy.parts(), PartSet::from(Part::AgentDisconnect));
    assert_eq!(lazy.part(Part::AgentDisconnect), Some(&[][..]));
    assert_eq!(lazy.part(Part::Health), None);
}

#[test]
fn agent_message_that_requests_an_identity() {
    let message = pb::AgentToServer { flags: 1, ..from_agent(0) };
    check_agent(&message, &format!("{UID_FIELD} 5001"));
}

#[test]
fn agent_message_with_remote_config_status() {
    let message = pb::AgentToServer {
        remote_config_status: Some(pb::RemoteConfigStatus {
            last_remote_config_hash: Bytes::from_static(&[1, 2, 3, 4]),
            status: pb::RemoteConfigStatuses::Applied.into(),
            error_message: String::new(),
        }),
        ..from_agent(3)
    };
    check_agent(&message, &format!("{UID_FIELD} 1003 3a08 0a0401020304 1001"));
}

#[test]
fn agent_message_with_health() {
    let part = pb::ComponentHealth { status: "ok".to_owned(), ..Default::default() };
    let message = pb::AgentToServer {
        health: Some(pb::ComponentHealth {
            healthy: true,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            component_health_map: [("p".to_owned(), part)].into(),
            ..Default::default()
        }),
        ..from_agent(4)
    };
    check_agent(
        &message,
        &format!("{UID_FIELD} 1004 2a16 0801 1100002a36fe9c9717 3209 0a0170 1204 22026f6b"),
    );
}

#[test]
fn agent_message_with_empty_custom_capabilities() {
    let message =
        pb::AgentToServer { custom_capabilities: Some(pb::CustomCapabilities::default()), ..from_agent(5) };
    check_agent(&message, &format!("{UID_FIELD} 1005 6200"));
}

#[test]
fn agent_message_with_package_download() {
    let package = pb::PackageStatus {
        name: "x".to_owned(),
        server_offered_hash: Bytes::from_static(&[0xaa]),
        status: pb::PackageStatusEnum::Downloading.into(),
        download_details: Some(pb::PackageDownloadDetails { download_percent: 50.0, ..Default::default() }),
        ..Default::default()
    };
    let message = pb::AgentToServer {
        package_statuses: Some(pb::PackageStatuses {
            packages: [("x".to_owned(), package)].into(),
            ..Default::default()
        }),
        ..from_agent(6)
    };
    check_agent(
        &message,
        &format!("{UID_FIELD} 1006 421a 0a18 0a0178 1213 0a0178 2a01aa 3004 4209 090000000000004940"),
    );
}

#[test]
fn server_acknowledgement_with_capabilities() {
    check_server(&pb::ServerToAgent { capabilities: 7, ..from_server() }, &format!("{UID_FIELD} 3807"));
}

#[test]
fn server_message_that_asks_for_full_state() {
    check_server(&pb::ServerToAgent { flags: 1, ..from_server() }, &format!("{UID_FIELD} 3001"));
}

#[test]
fn server_error_with_retry() {
    let message = pb::ServerToAgent {
        error_response: Some(pb::ServerErrorResponse {
            r#type: pb::ServerErrorResponseType::Unavailable.into(),
            error_message: "busy".to_owned(),
            details: Some(pb::server_error_response::Details::RetryInfo(pb::RetryInfo {
                retry_after_nanoseconds: 30_000_000_000,
            })),
        }),
        ..from_server()
    };
    check_server(&message, &format!("{UID_FIELD} 1210 0802 120462757379 1a06 0880d88ee16f"));
}

#[test]
fn server_restart_command() {
    let message = pb::ServerToAgent {
        command: Some(pb::ServerToAgentCommand { r#type: pb::CommandType::Restart.into() }),
        ..from_server()
    };
    check_server(&message, &format!("{UID_FIELD} 4a00"));
}

#[test]
fn server_message_with_a_new_identity() {
    let new_uid: InstanceUid = "0190a0b0-c0d1-7e0f-8a1b-2c3d4e5f6072".parse().expect("a UUID");
    let message = pb::ServerToAgent {
        agent_identification: Some(pb::AgentIdentification {
            new_instance_uid: Bytes::copy_from_slice(new_uid.as_bytes()),
        }),
        ..from_server()
    };
    check_server(&message, &format!("{UID_FIELD} 4212 0a10 0190a0b0c0d17e0f8a1b2c3d4e5f6072"));
}

#[test]
fn server_offer_of_one_object_under_the_empty_name() {
    let object = pb::AgentConfigObject {
        body: Bytes::from_static(b"a: 1\n"),
        content_type: "text/yaml".to_owned(),
        role: String::new(),
    };
    let message = pb::ServerToAgent {
        remote_config: Some(pb::AgentRemoteConfig {
            config: Some(pb::AgentConfigMap { config_map: [(String::new(), object)].into() }),
            config_hash: Bytes::from_static(&[1, 2, 3, 4]),
        }),
        ..from_server()
    };
    let explicit_key = hex(&format!(
        "{UID_FIELD} 1a20 0a18 0a16 0a00 1212 0a05613a20310a 1209746578742f79616d6c 120401020304"
    ));
    let absent_key =
        hex(&format!("{UID_FIELD} 1a1e 0a16 0a14 1212 0a05613a20310a 1209746578742f79616d6c 120401020304"));
    for bytes in [explicit_key, absent_key, message.encode_to_vec()] {
        assert_eq!(pb::ServerToAgent::decode(&*bytes).as_ref(), Ok(&message));
    }
}
