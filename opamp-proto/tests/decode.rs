//! What the lazy decoder reads, what it refuses, and what it says about it.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use bytes::Bytes;
use common::hex;
use opamp_proto::{
    AgentCapabilities, AgentMessage, AgentToServerFlags, DecodeError, DecodeErrorKind, Limits, Part, PartSet,
    SequenceNum, UidError, encode, pb,
};
use prost::Message;

fn decode(bytes: &[u8]) -> Result<AgentMessage<'_>, DecodeError> {
    AgentMessage::decode(bytes, &Limits::default())
}

/// Path and text of the refusal of a message that consists of one part.
fn refusal_of_part(part: Part, content: &[u8]) -> (String, DecodeErrorKind) {
    let mut bytes = Vec::new();
    encode::bytes_field(part.field_number(), content, &mut bytes);
    refusal(&bytes)
}

fn refusal(bytes: &[u8]) -> (String, DecodeErrorKind) {
    let error = decode(bytes).expect_err("to be refused");
    assert!(pb::AgentToServer::decode(bytes).is_err(), "prost refuses it too");
    assert!(error.to_string().starts_with(&error.path()), "{error}");
    (error.path(), error.kind().clone())
}

fn text_value(text: &str) -> pb::AnyValue {
    pb::AnyValue { value: Some(pb::any_value::Value::StringValue(text.to_owned())) }
}

fn attribute(key: &str, value: &str) -> pb::KeyValue {
    pb::KeyValue { key: key.to_owned(), value: Some(text_value(value)) }
}

/// Health reports within health reports, so many below the first.
fn nested_health(levels: usize) -> Vec<u8> {
    (0..levels).fold(Vec::new(), |inner, _| {
        let (mut entry, mut outer) = (Vec::new(), Vec::new());
        encode::bytes_field(2, &inner, &mut entry);
        encode::bytes_field(6, &entry, &mut outer);
        outer
    })
}

fn health_message(levels: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::bytes_field(Part::Health.field_number(), &nested_health(levels), &mut bytes);
    bytes
}

#[test]
fn every_field_of_a_message_is_read() {
    let full = pb::AgentToServer {
        instance_uid: Bytes::from_static(&[7; 16]),
        sequence_num: u64::MAX,
        capabilities: 0x8000_0000_0000_1807,
        flags: 0x11,
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute("service.name", "demo")],
            non_identifying_attributes: vec![attribute("os.type", "linux")],
        }),
        health: Some(pb::ComponentHealth { healthy: true, ..Default::default() }),
        effective_config: Some(pb::EffectiveConfig {
            config_map: Some(pb::AgentConfigMap {
                config_map: [(String::new(), pb::AgentConfigObject::default())].into(),
            }),
        }),
        remote_config_status: Some(pb::RemoteConfigStatus { status: 99, ..Default::default() }),
        package_statuses: Some(pb::PackageStatuses::default()),
        agent_disconnect: Some(pb::AgentDisconnect {}),
        connection_settings_request: Some(pb::ConnectionSettingsRequest::default()),
        custom_capabilities: Some(pb::CustomCapabilities { capabilities: vec![String::new()] }),
        custom_message: Some(pb::CustomMessage {
            data: Bytes::from_static(&[0xff, 0]),
            ..Default::default()
        }),
        available_components: Some(pb::AvailableComponents::default()),
        connection_settings_status: Some(pb::ConnectionSettingsStatus { status: -1, ..Default::default() }),
    };
    let bytes = full.encode_to_vec();
    let message = decode(&bytes).expect("acceptable");
    assert_eq!(message.instance_uid().map(|uid| *uid.as_bytes()), Ok([7; 16]));
    assert_eq!(message.sequence_num(), SequenceNum(u64::MAX));
    assert_eq!(message.capabilities(), AgentCapabilities::from_bits(0x8000_0000_0000_1807));
    assert_eq!(message.capabilities().unknown(), 0x8000_0000_0000_0000);
    assert_eq!(message.flags(), AgentToServerFlags::from_bits(0x11));
    assert_eq!(message.parts(), Part::ALL.into_iter().collect::<PartSet>());
    for part in Part::ALL {
        let content = message.part(part).expect("present");
        let inside = content.is_empty() || bytes.windows(content.len()).any(|window| window == content);
        assert!(inside, "{part} is a piece of the message");
    }
    assert_eq!(message.to_full(), Ok(full));
}

#[test]
fn an_identity_of_another_length_is_readable_and_not_an_identity() {
    for length in [0, 1, 15, 17, 26, 200] {
        let bytes = pb::AgentToServer {
            instance_uid: vec![b'x'; length].into(),
            sequence_num: 1,
            ..Default::default()
        }
        .encode_to_vec();
        let message = decode(&bytes).expect("well-formed");
        assert_eq!(message.instance_uid(), Err(UidError::Length { found: length }));
        assert_eq!(message.instance_uid_bytes().len(), length);
    }
}

#[test]
fn of_a_repeated_scalar_the_last_counts() {
    let message = hex("0a0101 1005 2001 5001 0a020202 1006 2003 5000");
    let message = decode(&message).expect("acceptable");
    assert_eq!(message.instance_uid_bytes(), [2, 2]);
    assert_eq!(message.sequence_num(), SequenceNum(6));
    assert_eq!(message.capabilities().bits(), 3);
    assert_eq!(message.flags().bits(), 0);
}

#[test]
fn a_repeated_part_is_merged_and_not_replaced() {
    let first = pb::AgentToServer {
        sequence_num: 1,
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute("a", "1")],
            non_identifying_attributes: vec![],
        }),
        health: Some(pb::ComponentHealth {
            healthy: true,
            status: "first".to_owned(),
            component_health_map: [("x".to_owned(), pb::ComponentHealth::default())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let second = pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute("b", "2")],
            non_identifying_attributes: vec![],
        }),
        health: Some(pb::ComponentHealth {
            status: "second".to_owned(),
            component_health_map: [("y".to_owned(), pb::ComponentHealth::default())].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let message = decode(&bytes).expect("acceptable");
    assert_eq!(message.sequence_num(), SequenceNum(1));
    let description = pb::AgentDescription::decode(message.part(Part::AgentDescription).expect("present"));
    let attributes = description.expect("a description").identifying_attributes;
    assert_eq!(attributes, [attribute("a", "1"), attribute("b", "2")]);
    let health = pb::ComponentHealth::decode(message.part(Part::Health).expect("present")).expect("health");
    assert_eq!((health.healthy, &*health.status), (true, "second"));
    assert_eq!(health.component_health_map.keys().collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn of_a_repeated_map_key_the_last_entry_counts() {
    let entry = |body: &'static str| {
        let object = pb::AgentConfigObject { body: body.into(), ..Default::default() };
        pb::AgentConfigMap { config_map: [("f".to_owned(), object)].into() }.encode_to_vec()
    };
    let config = [entry("old"), entry("new")].concat();
    let (mut effective, mut bytes) = (Vec::new(), Vec::new());
    encode::bytes_field(1, &config, &mut effective);
    encode::bytes_field(Part::EffectiveConfig.field_number(), &effective, &mut bytes);
    let full = decode(&bytes).and_then(|message| message.to_full()).expect("acceptable");
    let map = full.effective_config.and_then(|config| config.config_map).expect("a map").config_map;
    assert_eq!(map.len(), 1);
    assert_eq!(map["f"].body, "new");
}

#[test]
fn unknown_fields_of_every_wire_type_are_skipped_at_every_level() {
    // Field 1000 as varint, fixed64, bytes, group (with a group of its own inside) and fixed32.
    let unknown = hex("c03e 05 c13e 0102030405060708 c23e 02 ffff c33e 0b 0805 0c c43e c53e 01020304");
    let with_unknown = |content: &[u8]| [&unknown, content, &unknown].concat();
    let mut value = Vec::new();
    encode::bytes_field(1, b"demo", &mut value);
    let mut attribute = Vec::new();
    encode::bytes_field(1, b"service.name", &mut attribute);
    encode::bytes_field(2, &with_unknown(&value), &mut attribute);
    let mut description = Vec::new();
    encode::bytes_field(1, &with_unknown(&attribute), &mut description);
    let mut health_entry = Vec::new();
    encode::bytes_field(1, b"p", &mut health_entry);
    encode::bytes_field(2, &with_unknown(&[]), &mut health_entry);
    let mut health = Vec::new();
    encode::bytes_field(6, &with_unknown(&health_entry), &mut health);
    let mut bytes = Vec::new();
    encode::varint_field(2, 9, &mut bytes);
    encode::bytes_field(3, &with_unknown(&description), &mut bytes);
    encode::bytes_field(5, &with_unknown(&health), &mut bytes);
    let bytes = with_unknown(&bytes);

    let message = decode(&bytes).expect("unknown fields are no error");
    assert_eq!(message.sequence_num(), SequenceNum(9));
    let full = message.to_full().expect("prost skips them too");
    let attributes = full.agent_description.expect("present").identifying_attributes;
    assert_eq!(attributes, [self::attribute("service.name", "demo")]);
    assert!(full.health.expect("present").component_health_map.contains_key("p"));
}

#[test]
fn unknown_enum_numbers_are_kept_in_every_status() {
    let full = pb::AgentToServer {
        remote_config_status: Some(pb::RemoteConfigStatus { status: 99, ..Default::default() }),
        connection_settings_status: Some(pb::ConnectionSettingsStatus { status: 99, ..Default::default() }),
        package_statuses: Some(pb::PackageStatuses {
            packages: [("p".to_owned(), pb::PackageStatus { status: 99, ..Default::default() })].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = full.encode_to_vec();
    assert_eq!(decode(&bytes).and_then(|message| message.to_full()), Ok(full));
}

#[test]
fn a_field_with_another_wire_type_than_its_own_is_refused_by_its_path() {
    let wrong = DecodeErrorKind::WireType;
    assert_eq!(refusal(&hex("08 01")), ("instance_uid".to_owned(), wrong.clone()));
    for other in ["11 0102030405060708", "12 00", "15 01020304"] {
        assert_eq!(refusal(&hex(other)), ("sequence_num".to_owned(), wrong.clone()));
    }
    for other in ["09 0102030405060708", "18 01", "30 01", "0d 01020304"] {
        let (path, kind) = refusal_of_part(Part::Health, &hex(other));
        assert!(path.starts_with("health.") && kind == wrong, "{other}: {path}: {kind}");
    }
    assert_eq!(refusal(&hex("18 01")), ("agent_description".to_owned(), wrong.clone()));
    assert_eq!(
        refusal_of_part(Part::Health, &hex("1001")),
        ("health.start_time_unix_nano".to_owned(), wrong.clone())
    );
    assert_eq!(refusal_of_part(Part::Health, &hex("1801")), ("health.last_error".to_owned(), wrong.clone()));
    let health = [hex("3206"), hex("0a00 12022001")].concat();
    assert_eq!(
        refusal_of_part(Part::Health, &health),
        ("health.component_health_map.value.status".to_owned(), wrong)
    );
}

#[test]
fn a_map_entry_with_another_wire_type_is_refused_where_prost_misreads_it() {
    // `component_health_map` as a number, whose value 0 prost takes for the length of an empty entry.
    let mut bytes = Vec::new();
    encode::bytes_field(Part::Health.field_number(), &hex("30 00"), &mut bytes);
    let error = decode(&bytes).expect_err("to be refused");
    assert_eq!(
        (error.path().as_str(), error.kind()),
        ("health.component_health_map", &DecodeErrorKind::WireType)
    );
    assert!(pb::AgentToServer::decode(&*bytes).is_ok());
}

#[test]
fn text_that_is_not_utf_8_is_refused_by_its_path() {
    assert_eq!(
        refusal_of_part(Part::CustomMessage, &hex("0a01 ff")),
        ("custom_message.capability".to_owned(), DecodeErrorKind::Text)
    );
    // A key of a map is text too.
    assert_eq!(
        refusal_of_part(Part::PackageStatuses, &hex("0a03 0a01 ff")),
        ("package_statuses.packages.key".to_owned(), DecodeErrorKind::Text)
    );
    // Data of a custom message is not.
    let mut bytes = Vec::new();
    encode::bytes_field(Part::CustomMessage.field_number(), &hex("1a01 ff"), &mut bytes);
    assert!(decode(&bytes).is_ok());
}

#[test]
fn a_message_that_ends_too_early_is_refused() {
    assert_eq!(refusal(&hex("0a")), ("instance_uid".to_owned(), DecodeErrorKind::Truncated));
    assert_eq!(refusal(&hex("0a02 01")), ("instance_uid".to_owned(), DecodeErrorKind::Truncated));
    assert_eq!(refusal(&hex("10 80")), ("sequence_num".to_owned(), DecodeErrorKind::Truncated));
    assert_eq!(refusal(&hex("80")), (String::new(), DecodeErrorKind::Truncated));
    // The part ends within its last field, although the message goes on.
    assert_eq!(refusal(&hex("2a02 2202 1001")), ("health.status".to_owned(), DecodeErrorKind::Truncated));
    assert_eq!(
        refusal_of_part(Part::Health, &hex("11 01020304050607")),
        ("health.start_time_unix_nano".to_owned(), DecodeErrorKind::Truncated)
    );
    for (field, unknown) in
        [("field 1000", "c13e 01020304050607"), ("field 1000", "c53e 010203"), ("field 1000", "c23e 01")]
    {
        assert_eq!(refusal(&hex(unknown)), (field.to_owned(), DecodeErrorKind::Truncated));
    }
}

#[test]
fn keys_that_mean_nothing_are_refused() {
    let cases = [
        ("00", "field number 0"),
        ("02 00", "field number 0 with length"),
        ("0e", "wire type 6"),
        ("0f", "wire type 7"),
        ("808080808010 00", "a field number of 30 bits"),
    ];
    for (digits, what) in cases {
        assert_eq!(refusal(&hex(digits)), (String::new(), DecodeErrorKind::Key), "{what}");
    }
    assert!(decode(&hex("f8ffffff0f 00")).is_ok(), "the largest field number");
}

#[test]
fn varints_beyond_64_bits_are_refused() {
    let overlong = DecodeErrorKind::Varint;
    assert_eq!(refusal(&hex("10 80808080808080808080 00")), ("sequence_num".to_owned(), overlong.clone()));
    assert_eq!(refusal(&hex("10 ffffffffffffffffff02")), ("sequence_num".to_owned(), overlong.clone()));
    assert_eq!(refusal(&hex("2a ffffffffffffffffff02")), ("health".to_owned(), overlong));
    let largest = hex("10 ffffffffffffffffff01");
    assert_eq!(decode(&largest).expect("acceptable").sequence_num(), SequenceNum(u64::MAX));
    let long_zero = hex("10 80808080808080808000");
    assert_eq!(decode(&long_zero).expect("acceptable").sequence_num(), SequenceNum(0));
}

#[test]
fn groups_that_do_not_match_are_refused() {
    let unmatched = DecodeErrorKind::GroupEnd;
    assert_eq!(refusal(&hex("c43e")), ("field 1000".to_owned(), unmatched.clone()));
    assert_eq!(refusal(&hex("c33e 0c")), ("field 1000".to_owned(), unmatched.clone()));
    assert_eq!(refusal(&hex("c33e 0801")), ("field 1000".to_owned(), DecodeErrorKind::Truncated));
    // A known field as a group is a wrong wire type.
    assert_eq!(refusal(&hex("2b 2c")), ("health".to_owned(), DecodeErrorKind::WireType));
    assert_eq!(refusal_of_part(Part::Health, &hex("c43e")), ("health.field 1000".to_owned(), unmatched));
}

#[test]
fn a_message_over_the_size_limit_is_refused_before_it_is_looked_at() {
    let limits = Limits { message_bytes_max: 4, ..Limits::default() };
    assert!(AgentMessage::decode(&hex("0a020102"), &limits).is_ok());
    let error = AgentMessage::decode(&[0xff; 5], &limits).expect_err("too long");
    assert_eq!(error.kind(), &DecodeErrorKind::MessageTooLong { len: 5, max: 4 });
    assert_eq!(error.to_string(), "message of 5 bytes, more than 4");
}

#[test]
fn strings_are_limited_and_bytes_are_not() {
    let limits = Limits { string_bytes_max: 3, ..Limits::default() };
    let message = |text: &str, data: &[u8]| {
        pb::AgentToServer {
            custom_message: Some(pb::CustomMessage {
                r#type: text.to_owned(),
                data: Bytes::copy_from_slice(data),
                ..Default::default()
            }),
            ..Default::default()
        }
        .encode_to_vec()
    };
    assert!(AgentMessage::decode(&message("abc", &[0; 1000]), &limits).is_ok());
    let error = AgentMessage::decode(&message("abcd", &[]), &limits).map(|_| ()).expect_err("too long");
    assert_eq!(error.kind(), &DecodeErrorKind::TextTooLong { len: 4, max: 3 });
    assert_eq!(error.to_string(), "custom_message.type: string of 4 bytes, more than 3");
}

#[test]
fn entries_of_all_maps_of_a_message_count_together() {
    let message = pb::AgentToServer {
        health: Some(pb::ComponentHealth {
            component_health_map: [
                ("a".to_owned(), pb::ComponentHealth::default()),
                ("b".to_owned(), pb::ComponentHealth::default()),
            ]
            .into(),
            ..Default::default()
        }),
        package_statuses: Some(pb::PackageStatuses {
            packages: [("p".to_owned(), pb::PackageStatus::default())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec();
    let limited = |max| AgentMessage::decode(&message, &Limits { map_entries_max: max, ..Limits::default() });
    assert!(limited(3).is_ok());
    let error = limited(2).expect_err("too many");
    assert_eq!(error.path(), "package_statuses.packages");
    assert_eq!(error.kind(), &DecodeErrorKind::MapEntries { max: 2 });
}

#[test]
fn elements_of_all_lists_of_a_message_count_together() {
    let list =
        pb::any_value::Value::ArrayValue(pb::ArrayValue { values: vec![text_value("x"), text_value("y")] });
    let message = pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![pb::KeyValue {
                key: "k".to_owned(),
                value: Some(pb::AnyValue { value: Some(list) }),
            }],
            ..Default::default()
        }),
        custom_capabilities: Some(pb::CustomCapabilities { capabilities: vec!["c".to_owned()] }),
        ..Default::default()
    }
    .encode_to_vec();
    let limited =
        |max| AgentMessage::decode(&message, &Limits { list_entries_max: max, ..Limits::default() });
    assert!(limited(4).is_ok());
    let error = limited(3).expect_err("too many");
    assert_eq!(error.path(), "custom_capabilities.capabilities");
    assert_eq!(error.kind(), &DecodeErrorKind::ListEntries { max: 3 });
    let path = limited(2).expect_err("too many").path();
    assert_eq!(path, "agent_description.identifying_attributes.value.array_value.values");
}

#[test]
fn nesting_is_limited_in_levels_of_messages_and_map_entries() {
    let limited = |levels, max| {
        AgentMessage::decode(&health_message(levels), &Limits { nesting_max: max, ..Limits::default() })
            .map(|_| ())
    };
    // The part itself is one level, each level of health below it two.
    assert!(limited(0, 1).is_ok());
    assert!(limited(0, 0).is_err());
    assert!(limited(3, 7).is_ok());
    assert_eq!(limited(3, 6).expect_err("too deep").kind(), &DecodeErrorKind::Nesting { max: 6 });
}

#[test]
fn ten_nested_levels_of_health_and_of_components_are_accepted() {
    assert!(decode(&health_message(10)).is_ok());
    assert!(decode(&health_message(31)).is_ok(), "what the default limit of 64 levels leaves room for");
    let components = (0..10).fold(pb::ComponentDetails::default(), |inner, _| pb::ComponentDetails {
        sub_component_map: [("c".to_owned(), inner)].into(),
        ..Default::default()
    });
    let message = pb::AgentToServer {
        available_components: Some(pb::AvailableComponents {
            components: [("top".to_owned(), components)].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(decode(&message.encode_to_vec()).and_then(|lazy| lazy.to_full()), Ok(message));
}

#[test]
fn ten_thousand_nested_levels_are_refused_and_the_path_stays_readable() {
    let error = decode(&health_message(10_000)).map(|_| ()).expect_err("too deep");
    assert_eq!(error.kind(), &DecodeErrorKind::Nesting { max: 64 });
    let path = error.path();
    assert!(
        path.len() < 200 && path.starts_with("health.component_health_map.value.") && path.contains('…'),
        "{path}"
    );
}

#[test]
fn nesting_beyond_what_prost_decodes_is_refused_whatever_the_limit() {
    let unlimited = Limits { nesting_max: u32::MAX, ..Limits::default() };
    let deepest =
        (0..200).filter(|&levels| AgentMessage::decode(&health_message(levels), &unlimited).is_ok()).max();
    assert_eq!(deepest, Some(49), "99 levels");
    assert!(pb::AgentToServer::decode(&*health_message(49)).is_ok());
    // An unknown field at the bottom is decoded by prost as well.
    let mut deep = hex("c03e 05");
    for _ in 0..49 {
        let (mut entry, mut outer) = (Vec::new(), Vec::new());
        encode::bytes_field(2, &deep, &mut entry);
        encode::bytes_field(6, &entry, &mut outer);
        deep = outer;
    }
    let mut bytes = Vec::new();
    encode::bytes_field(Part::Health.field_number(), &deep, &mut bytes);
    assert!(AgentMessage::decode(&bytes, &unlimited).is_ok());
    assert!(pb::AgentToServer::decode(&*bytes).is_ok());
}

#[test]
fn nested_groups_are_limited_like_messages() {
    let groups = |levels: usize| [[0xc3, 0x3e].repeat(levels), [0xc4, 0x3e].repeat(levels)].concat();
    assert!(decode(&groups(64)).is_ok());
    assert_eq!(decode(&groups(65)).expect_err("too deep").kind(), &DecodeErrorKind::Nesting { max: 64 });
    let unlimited = Limits { nesting_max: u32::MAX, ..Limits::default() };
    for levels in 90..110 {
        let bytes = groups(levels);
        if AgentMessage::decode(&bytes, &unlimited).is_ok() {
            assert!(pb::AgentToServer::decode(&*bytes).is_ok(), "{levels}");
        }
    }
    assert!(AgentMessage::decode(&groups(100_000), &unlimited).is_err());
}

#[test]
fn default_limits_are_those_of_the_documentation() {
    let limits = Limits::default();
    assert_eq!(limits.message_bytes_max, 67_108_864, "R-WS-08, R-HTTP-19");
    assert_eq!(limits.nesting_max, 64);
    assert_eq!(limits.map_entries_max, 100_000);
    assert_eq!(limits.list_entries_max, 100_000);
    assert_eq!(limits.string_bytes_max, 1_048_576);
}

#[test]
fn error_texts_hold_nothing_of_the_message() {
    let secret = "hunter2";
    let mut part = Vec::new();
    encode::bytes_field(2, secret.as_bytes(), &mut part);
    part.extend(hex("0a01ff"));
    let mut bytes = Vec::new();
    encode::bytes_field(Part::CustomMessage.field_number(), &part, &mut bytes);
    let error = decode(&bytes).expect_err("not UTF-8");
    assert!(!format!("{error} {error:?}").contains(secret));
    assert_eq!(error.to_string(), "custom_message.capability: not UTF-8");
}
