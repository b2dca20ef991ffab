//! A message is accepted and read alike, whatever is held of its agent.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;

use std::cell::Cell;

use bytes::Bytes;
use common::soup;
use opamp_proto::{AgentMessage, DecodeErrorKind, Held, HeldPart, InstanceUid, Limits, Part, material, pb};
use proptest::prelude::*;
use prost::Message;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);
const SECOND: u64 = 1_000_000_000;

/// The parts of an accepted message.
struct Before(Vec<(Part, Vec<u8>, u64)>);

impl Before {
    fn of(bytes: &[u8]) -> Self {
        let message = AgentMessage::decode(bytes, &Limits::default()).expect("acceptable");
        let held =
            |part| message.part(part).map(|bytes| (part, bytes.to_vec(), material::digest(part, bytes)));
        Self(Part::ALL.into_iter().filter_map(held).collect())
    }
}

impl Held for Before {
    fn part(&self, part: Part) -> Option<HeldPart<'_>> {
        let found = self.0.iter().find(|(held, ..)| *held == part);
        found.map(|(_, encoded, digest)| HeldPart { encoded, digest: *digest })
    }
}

/// Decodes with and without what is held, and compares what comes out.
fn agree(bytes: &[u8], held: &Before, limits: &Limits) -> Result<(), TestCaseError> {
    let plain = AgentMessage::decode(bytes, limits);
    let knowing = AgentMessage::decode_knowing(bytes, limits, |_| Some(held));
    match (plain, knowing) {
        (Ok(plain), Ok(knowing)) => {
            prop_assert_eq!(plain.instance_uid_bytes(), knowing.instance_uid_bytes());
            prop_assert_eq!(plain.parts(), knowing.parts());
            for part in Part::ALL {
                prop_assert_eq!(plain.part(part), knowing.part(part), "{}", part);
            }
            let health = plain.part(Part::Health);
            let digest = health.map_or(0, material::health_digest);
            prop_assert_eq!((plain.health_digest(), knowing.health_digest()), (digest, digest));
            let start = health.map_or(0, |health| material::health_summary(health).start_time_unix_nano);
            prop_assert_eq!((plain.start_time_unix_nano(), knowing.start_time_unix_nano()), (start, start));
        }
        (Err(plain), Err(knowing)) => prop_assert_eq!(plain, knowing),
        (plain, knowing) => {
            return Err(TestCaseError::fail(format!("alone: {plain:?}, beside what is held: {knowing:?}")));
        }
    }
    Ok(())
}

fn attribute(key: &str, value: &str) -> pb::KeyValue {
    let value = pb::any_value::Value::StringValue(value.to_owned());
    pb::KeyValue { key: key.to_owned(), value: Some(pb::AnyValue { value: Some(value) }) }
}

/// Health of a tree of components, all of this second.
fn health(seconds: u64, levels: u32) -> pb::ComponentHealth {
    let below = |name: &str| (name.to_owned(), health(seconds, levels - 1));
    pb::ComponentHealth {
        healthy: true,
        start_time_unix_nano: 1_700_000_000 * SECOND,
        last_error: "é".to_owned(),
        status: "StatusOK".to_owned(),
        status_time_unix_nano: (1_700_000_000 + seconds) * SECOND,
        component_health_map: if levels == 0 { [].into() } else { ["a", "b"].map(below).into() },
        attributes: vec![attribute("kind", "receiver")],
    }
}

fn message(health: Option<pb::ComponentHealth>) -> pb::AgentToServer {
    pb::AgentToServer { instance_uid: Bytes::copy_from_slice(UID.as_bytes()), health, ..Default::default() }
}

/// A message with this encoded health.
fn whole(health: &[u8]) -> Vec<u8> {
    let mut bytes = message(None).encode_to_vec();
    opamp_proto::encode::bytes_field(Part::Health.field_number(), health, &mut bytes);
    bytes
}

fn full_state(seconds: u64) -> Vec<u8> {
    let mut package = pb::PackageStatus { name: "p".to_owned(), ..Default::default() };
    package.set_status(pb::PackageStatusEnum::Installed);
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription {
            identifying_attributes: vec![attribute("service.name", "collector")],
            non_identifying_attributes: vec![attribute("os.type", "linux"), attribute("os.type", "")],
        }),
        package_statuses: Some(pb::PackageStatuses {
            packages: [("p".to_owned(), package)].into(),
            ..Default::default()
        }),
        remote_config_status: Some(pb::RemoteConfigStatus::default()),
        ..message(Some(health(seconds, 2)))
    }
    .encode_to_vec()
}

#[test]
fn no_bit_of_a_repeated_message_changes_unnoticed() {
    let held = Before::of(&full_state(1));
    let limits = Limits::default();
    for seconds in [1, 2] {
        let bytes = full_state(seconds);
        agree(&bytes, &held, &limits).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            agree(&changed, &held, &limits).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        }
        for byte in 0..bytes.len() {
            for value in [0, 0x11, 0x29, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[byte] = value;
                agree(&changed, &held, &limits).unwrap_or_else(|error| panic!("byte {byte}: {error}"));
            }
            agree(&bytes[..byte], &held, &limits).unwrap();
        }
    }
}

#[test]
fn what_is_invalid_is_refused_although_it_is_as_long_as_what_is_held() {
    let held = Before::of(&full_state(1));
    for text in ["collector", "StatusOK", "receiver", "p"] {
        let mut bytes = full_state(2);
        let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
        bytes[at] = 0xff;
        let refused = AgentMessage::decode_knowing(&bytes, &Limits::default(), |_| Some(&held));
        assert_eq!(refused.unwrap_err().kind(), &DecodeErrorKind::Text, "{text}");
    }
}

#[test]
fn what_a_length_hides_is_no_time() {
    // Of the same length: a status that reads like a time from its first byte on, and a time.
    let forms = [
        "2209 29 0102030405060708",
        "0801 29 0102030405060708",
        "2203 616263 2204 29010203",
        "220912 290102030405060708",
    ];
    let forms = forms.map(|hex| whole(&common::hex(hex)));
    for held in forms.iter().filter(|held| AgentMessage::decode(held, &Limits::default()).is_ok()) {
        let held = Before::of(held);
        for form in &forms {
            agree(form, &held, &Limits::default()).unwrap();
        }
    }
    // A time that runs over the end of the message around it.
    let held = Before::of(&whole(&common::hex("3204 1202 0801 29 0102030405060708")));
    agree(&whole(&common::hex("3204 1202 2901 29 0102030405060708")), &held, &Limits::default()).unwrap();
}

#[test]
fn times_move_at_every_level_without_news_and_a_start_is_told() {
    let held = Before::of(&message(Some(health(1, 3))).encode_to_vec());
    let digest = held.part(Part::Health).unwrap().digest;
    let mut moved = health(9, 3);
    moved.start_time_unix_nano += 1;
    let bytes = message(Some(moved.clone())).encode_to_vec();
    let decoded = AgentMessage::decode_knowing(&bytes, &Limits::default(), |_| Some(&held)).unwrap();
    assert_eq!(decoded.health_digest(), digest);
    assert_eq!(decoded.start_time_unix_nano(), moved.start_time_unix_nano);
    moved.component_health_map.get_mut("b").unwrap().healthy = false;
    let bytes = message(Some(moved)).encode_to_vec();
    let decoded = AgentMessage::decode_knowing(&bytes, &Limits::default(), |_| Some(&held)).unwrap();
    assert_ne!(decoded.health_digest(), digest);
}

#[test]
fn a_part_that_occurs_twice_is_merged_although_each_occurrence_is_what_is_held() {
    let one = full_state(1);
    let held = Before::of(&one);
    let twice = [one.clone(), one].concat();
    agree(&twice, &held, &Limits::default()).unwrap();
    let merged = AgentMessage::decode_knowing(&twice, &Limits::default(), |_| Some(&held)).unwrap();
    assert_ne!(
        merged.part(Part::AgentDescription),
        held.part(Part::AgentDescription).map(|held| held.encoded)
    );
    assert_eq!(merged.to_full().unwrap().agent_description.unwrap().identifying_attributes.len(), 2);
    // The first occurrence is as good as absent to who looks at the last alone.
    let mut broken = twice;
    let at = broken.windows(9).position(|window| window == b"collector").unwrap();
    broken[at] = 0xff;
    let refused = AgentMessage::decode_knowing(&broken, &Limits::default(), |_| Some(&held));
    assert_eq!(refused.unwrap_err().kind(), &DecodeErrorKind::Text);
}

#[test]
fn levels_beyond_those_that_are_compared_are_checked() {
    let deep = |seconds| {
        let leaf = health(seconds, 0);
        let nested = (0..20).fold(leaf, |inner, _| pb::ComponentHealth {
            component_health_map: [("below".to_owned(), inner)].into(),
            ..health(seconds, 0)
        });
        message(Some(nested)).encode_to_vec()
    };
    let held = Before::of(&deep(1));
    agree(&deep(2), &held, &Limits::default()).unwrap();
    agree(&deep(1), &held, &Limits::default()).unwrap();
    agree(&deep(2), &held, &Limits { nesting_max: 10, ..Limits::default() }).unwrap();
}

#[test]
fn entries_count_together_however_many_are_held() {
    let bytes = full_state(1);
    let held = Before::of(&bytes);
    for max in 0..20 {
        agree(&bytes, &held, &Limits { map_entries_max: max, ..Limits::default() }).unwrap();
        agree(&bytes, &held, &Limits { list_entries_max: max, ..Limits::default() }).unwrap();
    }
}

#[test]
fn fields_in_any_order_and_in_long_forms_are_compared_or_checked() {
    for hex in [
        // The status time before the start time, `healthy` behind both.
        "29 0102030405060708 11 0102030405060708 0801",
        // `healthy` in two bytes, the second like the key of a time; a length in two and in three.
        "088100 29 0102030405060708 2200",
        "088029 2206 616263646566",
        "29 0102030405060708 228100 41",
        "29 0102030405060708 22818000 41",
        // The value of an entry before its key, neither of them, another field, and the value twice.
        "320f 1209 29 0102030405060708 0a02 6162",
        "3200 29 0102030405060708",
        "3202 1800 29 0102030405060708",
        "3216 1209 29 0102030405060708 1209 29 0102030405060708",
        // A start time twice, and an unknown field and group.
        "11 0102030405060708 11 0102030405060709",
        "c03e05 0801 11 0102030405060708",
        "c33ec43e 29 0102030405060708",
    ] {
        let health = common::hex(hex);
        let held = Before::of(&whole(&health));
        for bit in 0..health.len() * 8 {
            let mut after = health.clone();
            after[bit / 8] ^= 1 << (bit % 8);
            agree(&whole(&after), &held, &Limits::default())
                .unwrap_or_else(|error| panic!("{hex}, bit {bit}: {error}"));
        }
    }
}

#[test]
fn a_text_of_some_length_is_stepped_over_as_a_whole() {
    let text = |len: usize| [&b"b".repeat(len)[..], b")bbbbbbbb"].concat();
    for len in [0, 118, 119, 125, 255, 256, 16_383] {
        let mut health = Vec::new();
        opamp_proto::encode::bytes_field(4, &b"a".repeat(128), &mut health);
        opamp_proto::encode::bytes_field(3, &text(len), &mut health);
        let held = Before::of(&whole(&health));
        // The last ones may look like a time, and so may what is around 128 or 256 bytes.
        for at in (0..health.len().min(600)).chain(health.len() - 20..health.len()) {
            let mut changed = health.clone();
            changed[at] = 0xff;
            agree(&whole(&changed), &held, &Limits::default())
                .unwrap_or_else(|error| panic!("{len}: {error}"));
        }
    }
}

#[test]
fn health_that_ends_where_what_is_held_goes_on_is_something_else() {
    let long = health(1, 2).encode_to_vec();
    let held = Before::of(&whole(&long));
    for len in 0..long.len() {
        agree(&whole(&long[..len]), &held, &Limits::default()).unwrap();
        if AgentMessage::decode(&whole(&long[..len]), &Limits::default()).is_ok() {
            let short = Before::of(&whole(&long[..len]));
            agree(&whole(&long), &short, &Limits::default()).unwrap();
        }
    }
}

#[test]
fn nesting_without_end_is_refused_whatever_is_held() {
    let deep = (0..2_000).fold(Vec::new(), |inner, _| {
        let (mut entry, mut outer) = (Vec::new(), Vec::new());
        opamp_proto::encode::bytes_field(2, &inner, &mut entry);
        opamp_proto::encode::bytes_field(6, &entry, &mut outer);
        outer
    });
    let mut flat = Vec::new();
    opamp_proto::encode::bytes_field(3, &vec![b'a'; deep.len() - 3], &mut flat);
    assert_eq!(flat.len(), deep.len());
    let held = Before::of(&whole(&flat));
    let deep = whole(&deep);
    agree(&deep, &held, &Limits::default()).unwrap();
    let refused = AgentMessage::decode_knowing(&deep, &Limits::default(), |_| Some(&held));
    assert!(matches!(refused.unwrap_err().kind(), DecodeErrorKind::Nesting { .. }));
}

#[test]
fn nobody_asks_what_is_held_unless_there_is_something_to_compare() {
    let asked = Cell::new(None);
    let decode = |bytes: &[u8]| {
        asked.set(None);
        let held = |uid| {
            asked.set(Some(uid));
            None::<&Before>
        };
        AgentMessage::decode_knowing(bytes, &Limits::default(), held).unwrap();
        asked.get()
    };
    assert_eq!(decode(&full_state(1)), Some(UID));
    assert_eq!(decode(&message(None).encode_to_vec()), None);
    let status = pb::RemoteConfigStatus::default();
    let short = pb::AgentToServer { remote_config_status: Some(status), ..message(None) };
    assert_eq!(decode(&short.encode_to_vec()), None);
    let nobody = pb::AgentToServer { instance_uid: Bytes::new(), ..message(Some(health(1, 0))) };
    assert_eq!(decode(&nobody.encode_to_vec()), None, "an identity of another length is nobody's");
}

/// What is compared is not counted.
#[test]
fn nobody_asks_what_is_held_where_there_is_room_for_more_entries_than_are_allowed() {
    let bytes = full_state(1);
    let held = Before::of(&bytes);
    let asks = |limits: Limits| {
        let asked = Cell::new(false);
        let held = |_| {
            asked.set(true);
            Some(&held)
        };
        AgentMessage::decode_knowing(&bytes, &limits, held).unwrap();
        asked.get()
    };
    let room = u32::try_from(bytes.len() / 2).unwrap();
    for (max, worthwhile) in [(room + 1, true), (room, true), (room - 1, false)] {
        assert_eq!(asks(Limits { map_entries_max: max, ..Limits::default() }), worthwhile, "{max}");
        assert_eq!(asks(Limits { list_entries_max: max, ..Limits::default() }), worthwhile, "{max}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_is_held_a_message_is_judged_and_read_alike(
        before in soup::valid("AgentToServer"),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        nesting_max in 2..12_u32,
        map_entries_max in prop_oneof![0..6_u32, Just(u32::MAX)],
        list_entries_max in prop_oneof![0..6_u32, Just(u32::MAX)],
    ) {
        // With an identity, so that what is held is asked for.
        let before = [before, message(None).encode_to_vec()].concat();
        let limits = Limits { nesting_max, map_entries_max, list_entries_max, ..Limits::default() };
        prop_assume!(AgentMessage::decode(&before, &limits).is_ok());
        let held = Before::of(&before);
        agree(&before, &held, &limits)?;
        let mut after = before;
        for (place, value) in edits {
            let at = place.index(after.len());
            after[at] = value;
        }
        agree(&after, &held, &limits)?;
    }

    #[test]
    fn whatever_is_held_of_health_it_is_judged_and_read_alike(
        before in soup::valid("ComponentHealth"),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let held = Before::of(&whole(&before));
        let mut after = before.clone();
        for (place, value) in edits {
            if let Some(byte) = after.len().checked_sub(1).map(|_| place.index(before.len())) {
                after[byte] = value;
            }
        }
        agree(&whole(&after), &held, &Limits::default())?;
    }
}
