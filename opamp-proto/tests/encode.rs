//! Fields written straight into a buffer are what prost writes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use bytes::Bytes;
use opamp_proto::encode::{self, server_to_agent as field};
use opamp_proto::{InstanceUid, ServerCapabilities, ServerToAgentFlags, pb};
use proptest::prelude::*;
use prost::Message;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

#[test]
fn an_acknowledgement_is_the_example_of_the_specification() {
    let uid: InstanceUid = "0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071".parse().expect("a UUID");
    let mut out = Vec::new();
    encode::uid_field(field::INSTANCE_UID, &uid, &mut out);
    encode::varint_field(field::CAPABILITIES, 7, &mut out);
    assert_eq!(out, common::hex("0a10 0190a0b0c0d07e0f8a1b2c3d4e5f6071 3807"));
}

#[test]
fn zero_leaves_no_bytes_and_an_empty_message_does() {
    let mut out = Vec::new();
    encode::varint_field(field::FLAGS, 0, &mut out);
    assert_eq!(out, []);
    encode::bytes_field(field::COMMAND, &[], &mut out);
    assert_eq!(out, [0x4a, 0]);
    out.clear();
    encode::message_field(field::COMMAND, &pb::ServerToAgentCommand::default(), &mut out);
    assert_eq!(out, [0x4a, 0]);
}

proptest! {
    #[test]
    fn spliced_fields_are_the_message_that_prost_writes(
        flags: u64,
        capabilities: u64,
        body: Vec<u8>,
        name: String,
    ) {
        let object = pb::AgentConfigObject { body: Bytes::from(body), ..Default::default() };
        let offer = pb::AgentRemoteConfig {
            config: Some(pb::AgentConfigMap { config_map: [(name, object)].into() }),
            config_hash: Bytes::from_static(&[1, 2]),
        };
        let encoded_offer = offer.encode_to_vec();
        let identification =
            pb::AgentIdentification { new_instance_uid: Bytes::copy_from_slice(UID.as_bytes()) };
        let expected = pb::ServerToAgent {
            instance_uid: Bytes::copy_from_slice(UID.as_bytes()),
            remote_config: Some(offer),
            flags: ServerToAgentFlags::from_bits(flags).bits(),
            capabilities: ServerCapabilities::from_bits(capabilities).bits(),
            agent_identification: Some(identification.clone()),
            ..Default::default()
        };
        let mut out = Vec::new();
        encode::uid_field(field::INSTANCE_UID, &UID, &mut out);
        let before = out.len();
        encode::bytes_field(field::REMOTE_CONFIG, &encoded_offer, &mut out);
        prop_assert_eq!(out.len() - before, encode::bytes_field_len(field::REMOTE_CONFIG, encoded_offer.len()));
        encode::varint_field(field::FLAGS, flags, &mut out);
        encode::varint_field(field::CAPABILITIES, capabilities, &mut out);
        encode::message_field(field::AGENT_IDENTIFICATION, &identification, &mut out);
        prop_assert_eq!(&out, &expected.encode_to_vec());
        prop_assert_eq!(pb::ServerToAgent::decode(&*out), Ok(expected));
    }

    #[test]
    fn numbers_take_as_few_bytes_as_prost_takes(value: u64, shift in 0..64_u32) {
        let value = value >> shift;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        encode::varint(value, &mut ours);
        prost::encoding::encode_varint(value, &mut theirs);
        prop_assert_eq!(ours.len(), encode::varint_len(value));
        prop_assert_eq!(ours, theirs);
    }
}
