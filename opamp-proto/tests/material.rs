//! A digest changes when something material does, and not otherwise.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::collections::HashSet;

use bytes::Bytes;
use common::{shuffle, soup, strategies};
use opamp_proto::any_value::{attributes_eq, canonical_attributes};
use opamp_proto::material::{
    HealthSummary, RemoteConfigSummary, digest, health_digest, health_summary, remote_config_summary,
};
use opamp_proto::{AgentMessage, Limits, Part, pb};
use proptest::prelude::*;
use prost::Message;
use protox::prost_reflect::Kind;

fn health() -> pb::ComponentHealth {
    let component = pb::ComponentHealth { healthy: true, status: "ok".to_owned(), ..Default::default() };
    pb::ComponentHealth {
        healthy: true,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        status: "running".to_owned(),
        status_time_unix_nano: 1_700_000_000_000_000_001,
        component_health_map: [("a".to_owned(), component.clone()), ("b".to_owned(), component)].into(),
        ..Default::default()
    }
}

fn of_health(health: &pb::ComponentHealth) -> u64 {
    health_digest(&health.encode_to_vec())
}

#[test]
fn times_and_attributes_of_health_are_immaterial_at_every_level() {
    let mut ticking = health();
    ticking.start_time_unix_nano += 1;
    ticking.status_time_unix_nano += 1_000_000_000;
    let component = ticking.component_health_map.get_mut("a").expect("a component");
    component.start_time_unix_nano = 5;
    component.status_time_unix_nano = 6;
    component.attributes = vec![pb::KeyValue { key: "uptime".to_owned(), value: None }];
    ticking.attributes = component.attributes.clone();
    assert_eq!(of_health(&ticking), of_health(&health()));
}

#[test]
fn every_material_field_of_health_counts_at_every_level() {
    let changes: [fn(&mut pb::ComponentHealth); 5] = [
        |health| health.healthy = !health.healthy,
        |health| health.status.push('x'),
        |health| health.last_error.push('x'),
        |health| {
            health.component_health_map.insert("c".to_owned(), pb::ComponentHealth::default());
        },
        |health| health.component_health_map.clear(),
    ];
    let mut digests = HashSet::from([of_health(&health())]);
    for change in changes {
        let mut changed = health();
        change(&mut changed);
        assert!(digests.insert(of_health(&changed)));
    }
    // The last change has nothing to clear in a component.
    for change in &changes[..4] {
        for name in ["a", "b"] {
            let mut changed = health();
            change(changed.component_health_map.get_mut(name).expect("a component"));
            assert!(digests.insert(of_health(&changed)));
        }
    }
}

#[test]
fn components_that_swap_states_are_a_change() {
    let mut one = health();
    one.component_health_map.get_mut("a").expect("a component").healthy = false;
    let mut other = health();
    other.component_health_map.get_mut("b").expect("a component").healthy = false;
    assert_ne!(of_health(&one), of_health(&other));
}

#[test]
fn a_missing_key_is_the_empty_one_and_a_missing_value_the_empty_message() {
    let entry = |content: &str| [vec![0x32, (content.len() / 2) as u8], common::hex(content)].concat();
    let forms = ["", "0a00", "1200", "0a001200", "12000a00"].map(|content| health_digest(&entry(content)));
    assert!(forms.iter().all(|&form| form == forms[0]));
    assert_ne!(forms[0], health_digest(&[]), "an entry is more than none");
}

#[test]
fn defaults_and_absent_fields_are_the_same_but_presence_of_a_part_of_it_is_not() {
    // `healthy` false and `status` "", written out.
    assert_eq!(health_digest(&common::hex("0800 2200 1a00")), health_digest(&[]));
    // `EffectiveConfig` without a map, and with an empty one.
    assert_ne!(digest(Part::EffectiveConfig, &[]), digest(Part::EffectiveConfig, &[0x0a, 0]));
    // Attribute values keep their type even when empty: null, "", false, 0.
    let values = ["", "0a00", "1000", "1800"];
    let digests: HashSet<_> = values
        .into_iter()
        .map(|value| {
            let pair = format!("0a016b 12{:02x} {value}", value.len() / 2);
            let pair = common::hex(&pair);
            let description = [vec![0x0a, pair.len() as u8], pair].concat();
            digest(Part::AgentDescription, &description)
        })
        .collect();
    assert_eq!(digests.len(), values.len());
}

#[test]
fn progress_of_a_download_is_immaterial_and_the_rest_of_a_package_is_not() {
    let package = |percent: f64, status: pb::PackageStatusEnum| {
        let package = pb::PackageStatus {
            name: "p".to_owned(),
            status: status.into(),
            download_details: Some(pb::PackageDownloadDetails {
                download_percent: percent,
                download_bytes_per_second: percent * 7.0,
            }),
            ..Default::default()
        };
        let statuses =
            pb::PackageStatuses { packages: [("p".to_owned(), package)].into(), ..Default::default() };
        digest(Part::PackageStatuses, &statuses.encode_to_vec())
    };
    use pb::PackageStatusEnum::{Downloading, Installing};
    assert_eq!(package(1.0, Downloading), package(99.0, Downloading));
    assert_ne!(package(1.0, Downloading), package(1.0, Installing));
}

#[test]
fn names_of_custom_capabilities_are_a_set() {
    let of = |names: &[&str]| {
        let capabilities = names.iter().map(|&name| name.to_owned()).collect();
        digest(Part::CustomCapabilities, &pb::CustomCapabilities { capabilities }.encode_to_vec())
    };
    assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
    assert_ne!(of(&["a", "b"]), of(&["ab"]));
    assert_ne!(of(&["a", "a"]), of(&[]), "a name that is repeated does not cancel itself");
    assert_ne!(of(&[""]), of(&[]));
}

#[test]
fn elements_of_arrays_are_in_order() {
    let of = |numbers: [i64; 3]| {
        let values =
            numbers.map(|number| pb::AnyValue { value: Some(pb::any_value::Value::IntValue(number)) });
        let array = pb::any_value::Value::ArrayValue(pb::ArrayValue { values: values.into() });
        let pair = pb::KeyValue { key: "k".to_owned(), value: Some(pb::AnyValue { value: Some(array) }) };
        let description =
            pb::AgentDescription { identifying_attributes: vec![pair], non_identifying_attributes: vec![] };
        digest(Part::AgentDescription, &description.encode_to_vec())
    };
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]].map(of);
    assert_eq!(HashSet::from(orders).len(), orders.len());
}

#[test]
fn identifying_and_other_attributes_are_told_apart() {
    let pair = pb::KeyValue { key: "k".to_owned(), value: None };
    let one = pb::AgentDescription { identifying_attributes: vec![pair.clone()], ..Default::default() };
    let other = pb::AgentDescription { non_identifying_attributes: vec![pair], ..Default::default() };
    assert_ne!(
        digest(Part::AgentDescription, &one.encode_to_vec()),
        digest(Part::AgentDescription, &other.encode_to_vec())
    );
}

#[test]
fn unknown_fields_are_immaterial() {
    let encoded = health().encode_to_vec();
    let unknown = common::hex("c03e05 c23e01ff c33e0805c43e");
    assert_eq!(health_digest(&[encoded.clone(), unknown].concat()), health_digest(&encoded));
}

#[test]
fn every_bit_and_the_length_of_a_body_count() {
    let of = |body: &[u8]| {
        let object = pb::AgentConfigObject { body: Bytes::copy_from_slice(body), ..Default::default() };
        let config = pb::EffectiveConfig {
            config_map: Some(pb::AgentConfigMap { config_map: [("f".to_owned(), object)].into() }),
        };
        digest(Part::EffectiveConfig, &config.encode_to_vec())
    };
    for fill in [0, 0x55, 0xff] {
        let body = [fill; 100];
        let mut digests = HashSet::new();
        for length in 0..=body.len() {
            assert!(digests.insert(of(&body[..length])), "length {length}");
        }
        for bit in 0..body.len() * 8 {
            let mut changed = body;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(digests.insert(of(&changed)), "bit {bit}");
        }
    }
}

#[test]
fn the_digest_of_health_is_that_of_the_part() {
    let encoded = health().encode_to_vec();
    assert_eq!(health_digest(&encoded), digest(Part::Health, &encoded));
}

#[test]
fn digests_are_the_same_in_every_version() {
    assert_eq!(of_health(&health()), GOLDEN_HEALTH);
    let config = pb::EffectiveConfig {
        config_map: Some(pb::AgentConfigMap {
            config_map: [(
                "collector.yaml".to_owned(),
                pb::AgentConfigObject {
                    body: Bytes::from_static(b"receivers: {otlp: {}}\n"),
                    content_type: "text/yaml".to_owned(),
                    role: String::new(),
                },
            )]
            .into(),
        }),
    };
    assert_eq!(digest(Part::EffectiveConfig, &config.encode_to_vec()), GOLDEN_CONFIG);
    assert_eq!(digest(Part::AgentDisconnect, &[]), GOLDEN_EMPTY);
}

// Computed by an independent implementation of the same digest.
const GOLDEN_HEALTH: u64 = 0xc835_c560_00e5_ae0c;
const GOLDEN_CONFIG: u64 = 0x5b6b_d15e_f54d_a9c8;
const GOLDEN_EMPTY: u64 = 0x54ff_7cc7_3997_d165;

#[test]
fn the_summary_is_the_top_of_the_report() {
    let encoded = pb::ComponentHealth { last_error: "none".to_owned(), ..health() }.encode_to_vec();
    let expected = HealthSummary {
        healthy: true,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        status: "running",
        last_error: "none",
    };
    assert_eq!(health_summary(&encoded), expected);
    assert_eq!(health_summary(&[]), HealthSummary::default());
}

/// What is material of a health report, without the help of the digest.
fn material(mut health: pb::ComponentHealth) -> pb::ComponentHealth {
    health.start_time_unix_nano = 0;
    health.status_time_unix_nano = 0;
    health.attributes.clear();
    for component in health.component_health_map.values_mut() {
        *component = material(std::mem::take(component));
    }
    health
}

fn health_strategy() -> impl Strategy<Value = pb::ComponentHealth> {
    let leaf = (any::<bool>(), 0..2_u64, "[ab]?", "[ab]?", 0..2_u64).prop_map(
        |(healthy, start_time_unix_nano, last_error, status, status_time_unix_nano)| pb::ComponentHealth {
            healthy,
            start_time_unix_nano,
            last_error,
            status,
            status_time_unix_nano,
            ..Default::default()
        },
    );
    leaf.clone().prop_recursive(3, 8, 2, move |inner| {
        (leaf.clone(), prop::collection::btree_map("[xy]?", inner, 0..2))
            .prop_map(|(top, component_health_map)| pb::ComponentHealth { component_health_map, ..top })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_order_of_maps_and_lists_is_immaterial(bytes in soup::valid("AgentToServer")) {
        let message = pb::AgentToServer::decode(&*bytes).expect("well-formed").encode_to_vec();
        let lazy = AgentMessage::decode(&message, &Limits::default()).expect("acceptable");
        let descriptor = common::message("AgentToServer");
        for part in lazy.parts().iter() {
            let field = descriptor.get_field(part.field_number()).expect("a field");
            let Kind::Message(below) = field.kind() else { panic!("{part} is a message") };
            let encoded = lazy.part(part).expect("present");
            let reversed = shuffle::reversed(&below, encoded);
            prop_assert_eq!(reversed.len(), encoded.len());
            prop_assert_eq!(digest(part, &reversed), digest(part, encoded), "{}", part);
        }
    }

    #[test]
    fn health_digests_are_equal_exactly_when_nothing_material_differs(
        a in health_strategy(),
        b in health_strategy(),
    ) {
        prop_assert_eq!(of_health(&a) == of_health(&b), material(a.clone()) == material(b.clone()));
        prop_assert_eq!(of_health(&material(a.clone())), of_health(&a));
    }

    #[test]
    fn description_digests_are_equal_exactly_when_the_attributes_are(
        a in strategies::attributes(),
        b in strategies::attributes(),
    ) {
        // Each key once: a digest sees all pairs of a repeated key, where equality sees the last.
        let of = |attributes: &[pb::KeyValue]| {
            let description = pb::AgentDescription {
                identifying_attributes: canonical_attributes(attributes),
                ..Default::default()
            };
            digest(Part::AgentDescription, &description.encode_to_vec())
        };
        prop_assert_eq!(of(&a) == of(&b), attributes_eq(&a, &b));
    }

    #[test]
    fn malformed_bytes_have_a_digest_and_a_summary_too(
        part in prop::sample::select(Part::ALL.to_vec()),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            soup::faulty("ComponentHealth").boxed(),
        ],
    ) {
        prop_assert_eq!(digest(part, &bytes), digest(part, &bytes));
        let _ = health_summary(&bytes);
    }

    #[test]
    fn a_remote_config_summary_is_what_the_whole_decoder_reads(
        bytes in prop_oneof![
            soup::valid("RemoteConfigStatus").boxed(),
            soup::faulty("RemoteConfigStatus").boxed(),
            prop::collection::vec(any::<u8>(), 0..64).boxed(),
        ],
    ) {
        let summary = remote_config_summary(&bytes);
        if let Ok(read) = pb::RemoteConfigStatus::decode(&*bytes) {
            let expected = RemoteConfigSummary { hash: &read.last_remote_config_hash, status: read.status };
            prop_assert_eq!(summary, Some(expected));
        }
    }
}

#[test]
fn a_remote_config_status_that_breaks_off_has_no_summary() {
    let malformed: [&[u8]; 8] = [
        b"\x0a\x03ab",        // a hash that is cut
        b"\x10",              // a status that is cut
        b"\x10\x01\x80",      // a key that is cut
        b"\x10\x01\x00\x00",  // no field is 0
        b"\x08\x01",          // a hash that is a number
        b"\x12\x01a",         // a status that is bytes
        b"\x10\x01\x0c",      // the end of no group
        b"\x10\x01\x1a\x02a", // an error message that is cut
    ];
    for bytes in malformed {
        assert_eq!(remote_config_summary(bytes), None, "{bytes:x?}");
        assert!(pb::RemoteConfigStatus::decode(bytes).is_err(), "{bytes:x?}");
    }
}

#[test]
fn nesting_without_end_does_not_overflow_the_stack() {
    let deep = (0..20_000).fold(Vec::new(), |inner, _| {
        let (mut entry, mut outer) = (Vec::new(), Vec::new());
        opamp_proto::encode::bytes_field(2, &inner, &mut entry);
        opamp_proto::encode::bytes_field(6, &entry, &mut outer);
        outer
    });
    assert_ne!(health_digest(&deep), health_digest(&deep[1..]));
    let groups = [[0xc3, 0x3e].repeat(200_000), [0xc4, 0x3e].repeat(200_000)].concat();
    assert_eq!(health_digest(&groups), health_digest(&[]));
}
