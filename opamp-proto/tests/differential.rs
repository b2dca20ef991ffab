//! The lazy decoder accepts what prost accepts, and reads what prost reads.
//!
//! Two exceptions, both on the strict side: an entry of a map with a wrong wire type, which prost reads whatever the type
//! says; and the last level before prost's own limit of nesting, which depends on what is there.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use bytes::Bytes;
use common::soup;
use opamp_proto::{AgentMessage, DecodeErrorKind, Limits, Part, pb};
use proptest::prelude::*;
use prost::Message;

/// No limits but prost's own.
fn no_limits() -> Limits {
    Limits {
        message_bytes_max: usize::MAX,
        nesting_max: u32::MAX,
        map_entries_max: u32::MAX,
        list_entries_max: u32::MAX,
        string_bytes_max: usize::MAX,
    }
}

/// What both decoders say of the same bytes.
fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (AgentMessage::decode(bytes, &no_limits()), pb::AgentToServer::decode(bytes)) {
        (Ok(lazy), Ok(full)) => same_content(&lazy, &full),
        (Err(_), Err(_)) => Ok(()),
        (Ok(_), Err(error)) => Err(TestCaseError::fail(format!("prost refuses: {error}"))),
        (Err(error), Ok(_)) => {
            let path = error.path();
            let excepted = match error.kind() {
                DecodeErrorKind::WireType => [
                    "config_map.config_map",
                    "component_health_map",
                    "packages",
                    "components",
                    "sub_component_map",
                ]
                .iter()
                .any(|map| path.ends_with(map)),
                DecodeErrorKind::Nesting { max } => *max == Limits::NESTING_CEILING,
                _ => false,
            };
            prop_assert!(excepted, "prost accepts, but: {}", error);
            Ok(())
        }
    }
}

/// Encodings are compared because a NaN is not equal to itself.
fn same_content(lazy: &AgentMessage<'_>, full: &pb::AgentToServer) -> Result<(), TestCaseError> {
    let decoded = lazy.to_full().map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(decoded.encode_to_vec(), full.encode_to_vec());
    prop_assert_eq!(lazy.instance_uid_bytes(), &full.instance_uid);
    prop_assert_eq!(lazy.sequence_num().0, full.sequence_num);
    prop_assert_eq!(lazy.capabilities().bits(), full.capabilities);
    prop_assert_eq!(lazy.flags().bits(), full.flags);
    for part in Part::ALL {
        let expected = encoded_part(full, part);
        let found = lazy.part(part).map(|bytes| reencoded_part(part, bytes)).transpose()?;
        prop_assert_eq!(found, expected, "{}", part);
        prop_assert_eq!(lazy.parts().contains(part), lazy.part(part).is_some());
    }
    Ok(())
}

fn encoded_part(full: &pb::AgentToServer, part: Part) -> Option<Vec<u8>> {
    fn encoded<M: Message>(message: Option<&M>) -> Option<Vec<u8>> {
        message.map(Message::encode_to_vec)
    }
    match part {
        Part::AgentDescription => encoded(full.agent_description.as_ref()),
        Part::Health => encoded(full.health.as_ref()),
        Part::EffectiveConfig => encoded(full.effective_config.as_ref()),
        Part::RemoteConfigStatus => encoded(full.remote_config_status.as_ref()),
        Part::PackageStatuses => encoded(full.package_statuses.as_ref()),
        Part::AgentDisconnect => encoded(full.agent_disconnect.as_ref()),
        Part::ConnectionSettingsRequest => encoded(full.connection_settings_request.as_ref()),
        Part::CustomCapabilities => encoded(full.custom_capabilities.as_ref()),
        Part::CustomMessage => encoded(full.custom_message.as_ref()),
        Part::AvailableComponents => encoded(full.available_components.as_ref()),
        Part::ConnectionSettingsStatus => encoded(full.connection_settings_status.as_ref()),
    }
}

/// A part on its own, decoded by prost and encoded again.
fn reencoded_part(part: Part, bytes: &[u8]) -> Result<Vec<u8>, TestCaseError> {
    fn again<M: Message + Default>(bytes: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
        M::decode(bytes).map(|message| message.encode_to_vec())
    }
    match part {
        Part::AgentDescription => again::<pb::AgentDescription>(bytes),
        Part::Health => again::<pb::ComponentHealth>(bytes),
        Part::EffectiveConfig => again::<pb::EffectiveConfig>(bytes),
        Part::RemoteConfigStatus => again::<pb::RemoteConfigStatus>(bytes),
        Part::PackageStatuses => again::<pb::PackageStatuses>(bytes),
        Part::AgentDisconnect => again::<pb::AgentDisconnect>(bytes),
        Part::ConnectionSettingsRequest => again::<pb::ConnectionSettingsRequest>(bytes),
        Part::CustomCapabilities => again::<pb::CustomCapabilities>(bytes),
        Part::CustomMessage => again::<pb::CustomMessage>(bytes),
        Part::AvailableComponents => again::<pb::AvailableComponents>(bytes),
        Part::ConnectionSettingsStatus => again::<pb::ConnectionSettingsStatus>(bytes),
    }
    .map_err(|error| TestCaseError::fail(format!("{part}: {error}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn well_formed_messages_are_accepted_by_both(bytes in soup::valid("AgentToServer")) {
        let lazy = AgentMessage::decode(&bytes, &Limits::default());
        prop_assert!(lazy.is_ok(), "{}", lazy.unwrap_err());
        compare(&bytes)?;
    }

    #[test]
    fn faulty_messages_are_judged_alike(bytes in soup::faulty("AgentToServer")) {
        compare(&bytes)?;
    }

    #[test]
    fn mutated_messages_are_judged_alike(bytes in soup::mutated(soup::valid("AgentToServer"))) {
        compare(&bytes)?;
    }

    #[test]
    fn concatenated_messages_are_merged_alike(
        first in soup::valid("AgentToServer"),
        second in soup::valid("AgentToServer"),
    ) {
        compare(&[first, second].concat())?;
    }

    #[test]
    fn arbitrary_bytes_are_judged_alike(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        compare(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_in_a_part_are_judged_alike(
        part in prop::sample::select(Part::ALL.to_vec()),
        content in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut bytes = Vec::new();
        opamp_proto::encode::bytes_field(part.field_number(), &content, &mut bytes);
        compare(&bytes)?;
    }

    #[test]
    fn whatever_the_limits_what_is_accepted_decodes_in_full(
        bytes in soup::mutated(soup::valid("AgentToServer")),
        nesting_max in 0..12_u32,
        map_entries_max in 0..6_u32,
        list_entries_max in 0..6_u32,
        string_bytes_max in 0..40_usize,
    ) {
        let limits = Limits {
            nesting_max, map_entries_max, list_entries_max, string_bytes_max, ..Limits::default()
        };
        if let Ok(lazy) = AgentMessage::decode(&bytes, &limits) {
            same_content(&lazy, &pb::AgentToServer::decode(&*bytes).expect("accepted"))?;
        }
    }

    #[test]
    fn messages_of_both_sides_round_trip(
        agent in soup::valid("AgentToServer"),
        server in soup::valid("ServerToAgent"),
    ) {
        let message = pb::AgentToServer::decode(&*agent).expect("well-formed");
        let again = pb::AgentToServer::decode(Bytes::from(message.encode_to_vec())).expect("own encoding");
        prop_assert_eq!(again.encode_to_vec(), message.encode_to_vec());
        let message = pb::ServerToAgent::decode(&*server).expect("well-formed");
        let again = pb::ServerToAgent::decode(Bytes::from(message.encode_to_vec())).expect("own encoding");
        // No double in this direction, so no NaN.
        prop_assert_eq!(again, message);
    }

    #[test]
    fn arbitrary_bytes_from_a_server_never_panic(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            soup::mutated(soup::faulty("ServerToAgent")).boxed(),
        ],
    ) {
        if let Ok(message) = pb::ServerToAgent::decode(&*bytes) {
            prop_assert_eq!(pb::ServerToAgent::decode(&*message.encode_to_vec()), Ok(message));
        }
    }
}
