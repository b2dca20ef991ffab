//! Serialised forms, under the feature `serde`.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

use opamp_proto::{
    AgentCapabilities, AgentId, AgentToServerFlags, ConfigHash, Fingerprint, InstanceUid, Part, PartSet,
    SequenceNum, ServerCapabilities, ServerToAgentFlags, Wall,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn check<T>(value: &T, expected: &serde_json::Value)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let form = serde_json::to_value(value).expect("serialisable");
    assert_eq!(&form, expected);
    let text = form.to_string();
    assert_eq!(serde_json::from_value::<T>(form).as_ref().ok(), Some(value), "from owned text");
    assert_eq!(serde_json::from_str::<T>(&text).as_ref().ok(), Some(value), "from borrowed text");
}

#[test]
fn identities_are_hyphenated_uuids() {
    let bytes =
        [0x01, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0x7e, 0x0f, 0x8a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f, 0x60, 0x71];
    let text = json!("0190a0b0-c0d0-7e0f-8a1b-2c3d4e5f6071");
    check(&InstanceUid::from_bytes(bytes), &text);
    check(&AgentId::from_bytes(bytes), &text);
}

#[test]
fn hashes_are_hexadecimal() {
    check(&ConfigHash::new(vec![0, 0xab]), &json!("00ab"));
    check(&ConfigHash::default(), &json!(""));
    check(&Fingerprint::from_bytes([0x1f; 16]), &json!("1f".repeat(16)));
}

#[test]
fn times_are_rfc_3339() {
    check(&Wall(1_700_000_000_000), &json!("2023-11-14T22:13:20.000Z"));
}

#[test]
fn bit_sets_and_counters_are_numbers_and_keep_unknown_bits() {
    check(&AgentCapabilities::from_bits(u64::MAX), &json!(u64::MAX));
    check(&ServerCapabilities::OFFERS_REMOTE_CONFIG, &json!(2));
    check(&AgentToServerFlags::REQUEST_INSTANCE_UID, &json!(1));
    check(&ServerToAgentFlags::REPORT_FULL_STATE, &json!(1));
    check(&SequenceNum(7), &json!(7));
}

#[test]
fn parts_are_names_and_sets_of_them_lists() {
    check(&Part::Health, &json!("health"));
    check(&PartSet::from_iter([Part::CustomMessage, Part::Health]), &json!(["health", "custom_message"]));
    check(&PartSet::NONE, &json!([]));
}

#[test]
fn other_text_is_refused_with_what_was_expected() {
    let error = serde_json::from_str::<InstanceUid>("\"x\"").expect_err("not a UUID");
    assert!(error.to_string().contains("a hyphenated UUID"), "{error}");
    assert!(serde_json::from_str::<InstanceUid>("1").is_err());
    assert!(serde_json::from_str::<ConfigHash>("\"0\"").is_err());
    assert!(serde_json::from_str::<Wall>("\"yesterday\"").is_err());
    assert!(serde_json::from_str::<Part>("\"flags\"").is_err());
    assert!(serde_json::from_str::<AgentCapabilities>("-1").is_err());
}

#[test]
fn identities_are_keys_of_maps() {
    let uid = InstanceUid::from_bytes([0; 16]);
    let map = std::collections::BTreeMap::from([(uid, 1)]);
    let text = serde_json::to_string(&map).expect("serialisable");
    assert_eq!(text, "{\"00000000-0000-0000-0000-000000000000\":1}");
    assert_eq!(serde_json::from_str::<std::collections::BTreeMap<InstanceUid, i32>>(&text).ok(), Some(map));
}
