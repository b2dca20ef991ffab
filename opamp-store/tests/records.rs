//! Records outside the store: as JSON, and in logs.

mod common;

use bytes::Bytes;
use futures::future::FutureExt as _;
use opamp_proto::{ConfigHash, InstanceUid, Mono, Part, Wall};
use opamp_store::{
    AgentRecord, ApiToken, AssignedPackage, AuditEntry, BlobId, MemoryStore, NewAuditEntry, PackageKey,
    PackageKind, PackageVersion, Revision, Role, ServerSecret, StickyRecord, Store as _, StoredParts,
    WriteBatch, WriteBehind,
};
use proptest::prelude::*;
use serde_json::json;

use self::common::agent;

fn token() -> ApiToken {
    ApiToken {
        id: "a".into(),
        name: "laptop".into(),
        role: Role::Admin,
        secret_sha256: [0xab; 32],
        created_at: Wall(0),
        created_by: "olga".into(),
        expires_at: None,
        revoked_at: None,
    }
}

#[test]
fn an_agent_record_survives_json_with_all_its_parts() {
    let mut record = agent(1);
    for (index, part) in (0_u8..).zip(StoredParts::PARTS) {
        assert!(record.parts.set(part, Some(Bytes::from(vec![index; index.into()]))));
    }
    record.last_known_good = Some(ConfigHash::new(vec![1, 2]));
    record.previous_uids = vec![(InstanceUid::v7(5, [0; 10]), Wall(6))];
    record.sticky.last_applied = Some((ConfigHash::new(vec![3]), Wall(9)));
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<AgentRecord>(&text).unwrap(), record);
    assert!(text.contains(r#""health":"AQ==""#), "{text}");
}

#[test]
fn a_record_of_an_earlier_release_lacks_fields_and_still_reads() {
    let text = json!({ "id": agent(1).id, "uid": agent(1).uid, "first_seen": Wall(1) }).to_string();
    assert_eq!(serde_json::from_str::<AgentRecord>(&text).unwrap(), agent(1));
}

#[test]
fn a_package_survives_json_with_its_key_beside_the_rest() {
    for signature in [None, Some(Bytes::from_static(&[0, 255]))] {
        let package = PackageVersion {
            key: PackageKey::new("", "1.0"),
            kind: PackageKind::AddOn,
            size_bytes: u64::MAX,
            content_sha256: [0xab; 32],
            signature,
            chunk_bytes: u32::MAX,
            created_at: Wall(1),
            created_by: "olga".into(),
            revision: Revision(7),
        };
        let text = serde_json::to_string(&package).unwrap();
        assert_eq!(serde_json::from_str::<PackageVersion>(&text).unwrap(), package);
        assert!(text.starts_with(r#"{"name":"","version":"1.0","kind":"add_on""#), "{text}");
    }
    let assigned = AssignedPackage { key: PackageKey::new("a", "1"), content_sha256: [1; 32] };
    let text = serde_json::to_string(&assigned).unwrap();
    assert_eq!(serde_json::from_str::<AssignedPackage>(&text).unwrap(), assigned);
}

#[test]
fn parts_that_are_blobs_or_commands_have_no_place_in_a_record() {
    let mut parts = StoredParts::default();
    for part in Part::ALL {
        assert_eq!(
            parts.set(part, Some(Bytes::from_static(b"x"))),
            StoredParts::PARTS.contains(&part),
            "{part:?}"
        );
    }
    assert_eq!((parts.len_bytes(), parts.part(Part::EffectiveConfig)), (7, None));
}

#[test]
fn blob_ids_and_roles_have_one_spelling() {
    let id = BlobId::of(b"");
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!((id.to_string().as_str(), text.parse(), json!(id)), (text, Ok(id), json!(text)));
    assert_eq!(text.to_uppercase().parse(), Ok(id));
    for wrong in ["", &text[1..], &text[2..], &format!("{text}00"), &text.replace('e', "g")] {
        assert!(wrong.parse::<BlobId>().is_err(), "{wrong}");
    }
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        assert_eq!((role.as_str().parse(), json!(role)), (Ok(role), json!(role.as_str())));
    }
    assert!("Admin".parse::<Role>().is_err());
}

#[test]
fn debug_shows_no_secret_and_no_content() {
    let shown = format!("{:?}", token());
    assert!(shown.contains("laptop") && !shown.contains("171") && !shown.contains("abab"), "{shown}");
    let mut record = agent(1);
    record.parts.health = Some(Bytes::from_static(b"password=hunter2"));
    let mut batch = WriteBatch::new();
    batch.put_blob(Bytes::from_static(b"password=hunter2"));
    batch.put_agent(record).put_token(token());
    batch.put_secret("downloads".into(), ServerSecret::new(&b"password=hunter2"[..]));
    let mut behind = WriteBehind::default();
    behind.push_with_blobs(
        AgentRecord { effective_config: Some(BlobId::of(b"password=hunter2")), ..agent(2) },
        [Bytes::from_static(b"password=hunter2")],
        Mono(0),
    );
    let store = MemoryStore::new();
    store.commit(batch.clone(), None).now_or_never().unwrap().unwrap();
    let shown = format!("{batch:?} {behind:?} {store:?}");
    assert!(shown.contains("health") && !shown.contains("hunter2") && !shown.contains("171"), "{shown}");
}

#[test]
fn an_audit_entry_survives_json_with_its_hash() {
    let after = Some(json!({ "b": [1, 2.5, -0.0, 1e-7, 123_456_789.123_456_78], "a": null }));
    let entry = AuditEntry::seal(NewAuditEntry { after, ..NewAuditEntry::default() }, 1, [7; 32]);
    let read: AuditEntry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
    assert_eq!((&read, read.computed_hash()), (&entry, entry.hash));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_hash_of_an_audit_entry_survives_any_number(number: f64) {
        let after = Some(json!({ "number": number }));
        let entry = AuditEntry::seal(NewAuditEntry { after, ..NewAuditEntry::default() }, 1, [0; 32]);
        let read: AuditEntry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        prop_assert_eq!(read.computed_hash(), entry.hash);
    }

    #[test]
    fn absorbing_keeps_the_higher_counters_whatever_the_order(a: [u64; 6], b: [u64; 6]) {
        let sticky = |counters: [u64; 6]| {
            let [connects, disconnects, gaps, start_time_changes, full_state_requests, uid_conflicts] = counters;
            StickyRecord {
                connects, disconnects, gaps, start_time_changes, full_state_requests, uid_conflicts,
                last_uid_conflict: Some(Wall(uid_conflicts)),
                ..StickyRecord::default()
            }
        };
        let higher = std::array::from_fn(|index| a[index].max(b[index]));
        for (mut newer, older) in [(sticky(a), sticky(b)), (sticky(b), sticky(a))] {
            newer.absorb(&older);
            prop_assert_eq!(newer, sticky(higher));
        }
    }
}
