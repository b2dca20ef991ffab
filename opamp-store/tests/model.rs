//! Random batches: the SQLite store answers and holds exactly what the memory store does.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, InstanceUid, Wall};
use opamp_store::conformance::Dump;
use opamp_store::{
    Acquired, AgentRecord, AgentStore as _, ApiToken, AssignedPackage, BlobId, Checkpoint, ConfigState,
    ConfigStore as _, ConfigVersion, CredentialStore as _, DesiredConfig, DesiredPackages, DesiredSettings,
    Fence, LeaseStore as _, MemoryStore, NewAuditEntry, PackageKey, PackageKind, PackageStore as _,
    PackageVersion, Precondition, Revision, Role, ServerSecret, Store as _, WriteBatch,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use self::common::{SqliteFile, agent_id};

/// One thing that happens to both stores. Keys are few, so that operations meet.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>, Option<Fence>),
    /// Acquire the role, for no time or for long.
    Acquire(bool),
    Reopen,
}

#[derive(Clone, Debug)]
enum Change {
    PutAgent {
        number: u64,
        uid: u64,
        effective: Option<u64>,
        desired: Option<u64>,
        history: Vec<u64>,
        good: Option<u64>,
        /// Connection settings and components.
        settings: Option<u64>,
        packages: Option<Vec<u8>>,
    },
    PutPackage(u8, Vec<u64>),
    DeletePackage(u8),
    PutSecret(u8, u8),
    DeleteAgent(u64),
    Checkpoint(u64, u64),
    PutBlob(u64),
    DeleteBlob(u64),
    PutVersion {
        config: u64,
        version: u32,
        content: u64,
        state: u8,
    },
    PutToken {
        id: u64,
        secret: u8,
    },
    Audit {
        writer: u64,
        number: u64,
    },
    Key(u64),
    Require(Condition),
}

#[derive(Clone, Debug)]
enum Condition {
    AgentAbsent(u64),
    /// With the present revision, plus this.
    AgentAt(u64, u64),
    UidFree(u64),
    VersionAbsent(u64, u32),
    VersionAt(u64, u32, u64),
    TokenAbsent(u64),
    PackageAbsent(u8),
    /// With the present revision, plus this.
    PackageAt(u8, u64),
    SecretAbsent(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let fence = (prop::sample::select(vec!["leader", "other"]), 0..4_u64);
    let fence = fence.prop_map(|(role, epoch)| Fence { role: role.into(), epoch });
    prop_oneof![
        20 => (vec(change(), 0..7), option::weighted(0.1, fence)).prop_map(|(changes, fence)| Step::Commit(changes, fence)),
        2 => any::<bool>().prop_map(Step::Acquire),
        1 => Just(Step::Reopen),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let agent = (
        0..4_u64,
        0..5_u64,
        option::of(0..4_u64),
        option::of(0..4_u64),
        vec(0..4_u64, 0..3),
        option::of(0..4_u64),
        option::weighted(0.3, 0..4_u64),
        option::weighted(0.3, vec(0..4_u8, 0..3)),
    );
    prop_oneof![
        6 => agent.prop_map(|(number, uid, effective, desired, history, good, settings, packages)| {
            Change::PutAgent { number, uid, effective, desired, history, good, settings, packages }
        }),
        4 => (0..4_u8, vec(0..4_u64, 1..4)).prop_map(|(key, chunks)| Change::PutPackage(key, chunks)),
        3 => (0..4_u8).prop_map(Change::DeletePackage),
        1 => (0..3_u8, any::<u8>()).prop_map(|(name, secret)| Change::PutSecret(name, secret)),
        2 => (0..4_u64).prop_map(Change::DeleteAgent),
        3 => (0..5_u64, any::<u64>()).prop_map(|(number, sequence)| Change::Checkpoint(number, sequence)),
        8 => (0..4_u64).prop_map(Change::PutBlob),
        2 => (0..4_u64).prop_map(Change::DeleteBlob),
        3 => (0..3_u64, 1..4_u32, 0..4_u64, 0..3_u8)
            .prop_map(|(config, version, content, state)| Change::PutVersion { config, version, content, state }),
        2 => (0..3_u64, 0..4_u8).prop_map(|(id, secret)| Change::PutToken { id, secret }),
        3 => (0..3_u64, 0..9_u64).prop_map(|(writer, number)| Change::Audit { writer, number }),
        1 => (0..4_u64).prop_map(Change::Key),
        1 => condition().prop_map(Change::Require),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        (0..4_u64).prop_map(Condition::AgentAbsent),
        (0..4_u64, 0..2_u64).prop_map(|(number, off)| Condition::AgentAt(number, off)),
        (0..5_u64).prop_map(Condition::UidFree),
        (0..3_u64, 1..4_u32).prop_map(|(config, version)| Condition::VersionAbsent(config, version)),
        (0..3_u64, 1..4_u32, 0..2_u64)
            .prop_map(|(config, version, off)| Condition::VersionAt(config, version, off)),
        (0..3_u64).prop_map(Condition::TokenAbsent),
        (0..4_u8).prop_map(Condition::PackageAbsent),
        (0..4_u8, 0..2_u64).prop_map(|(number, off)| Condition::PackageAt(number, off)),
        (0..3_u8).prop_map(Condition::SecretAbsent),
    ]
}

fn content(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn hash(number: u64) -> ConfigHash {
    ConfigHash::new(content(number))
}

fn desired(number: u64) -> DesiredConfig {
    DesiredConfig {
        config: "edge".into(),
        version: 1,
        hash: hash(number),
        blob: BlobId::of(&content(number)),
        generation: number,
        assigned_by: "olga".into(),
        assigned_at: Wall(number),
    }
}

/// Keys with one name or one version in common.
fn key(number: u8) -> PackageKey {
    PackageKey::new(if number < 2 { "" } else { "add-on" }, (number % 2).to_string())
}

fn settings(number: u64) -> DesiredSettings {
    let (hash, blob) = (hash(number), BlobId::of(&content(number)));
    DesiredSettings { hash, blob, generation: number, assigned_by: "olga".into(), assigned_at: Wall(number) }
}

fn packages(numbers: Vec<u8>) -> DesiredPackages {
    let assigned = |number| AssignedPackage { key: key(number), content_sha256: [number; 32] };
    DesiredPackages {
        packages: numbers.into_iter().map(assigned).collect(),
        hash: hash(9),
        generation: 1,
        assigned_by: "olga".into(),
        assigned_at: Wall(9),
    }
}

fn package(number: u8, chunks: usize) -> PackageVersion {
    PackageVersion {
        key: key(number),
        kind: PackageKind::TopLevel,
        size_bytes: chunks as u64,
        content_sha256: [number; 32],
        signature: None,
        chunk_bytes: 1,
        created_at: Wall(1),
        created_by: "olga".into(),
        revision: Revision(0),
    }
}

/// The batch for some changes; conditions are filled in from the model.
async fn build(changes: Vec<Change>, model: &MemoryStore) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for change in changes {
        match change {
            Change::PutAgent {
                number,
                uid,
                effective,
                desired: assigned,
                history,
                good,
                settings: set,
                packages: given,
            } => {
                let record = AgentRecord::new(
                    agent_id(number),
                    InstanceUid::from_bytes([uid as u8; 16]),
                    Wall(number),
                );
                batch.put_agent(AgentRecord {
                    effective_config: effective.map(|number| BlobId::of(&content(number))),
                    desired: assigned.map(desired).map(Arc::new),
                    desired_history: history.into_iter().map(desired).map(Arc::new).collect(),
                    last_known_good: good.map(hash),
                    components: set.map(|number| BlobId::of(&content(3 - number))),
                    desired_settings: set.map(settings),
                    desired_packages: given.map(packages),
                    ..record
                });
            }
            Change::DeleteAgent(number) => {
                batch.delete_agent(agent_id(number));
            }
            Change::Checkpoint(number, sequence_num) => {
                batch.checkpoints([Checkpoint {
                    id: agent_id(number),
                    sequence_num,
                    last_seen: Wall(sequence_num),
                }]);
            }
            Change::PutPackage(number, chunks) => {
                let blobs = chunks.iter().map(|number| BlobId::of(&content(*number))).collect();
                batch.put_package(package(number, chunks.len()), blobs);
            }
            Change::DeletePackage(number) => {
                batch.delete_package(key(number));
            }
            Change::PutSecret(name, secret) => {
                batch.put_secret(name.to_string(), ServerSecret::new(vec![secret]));
            }
            Change::PutBlob(number) => {
                batch.put_blob(content(number));
            }
            Change::DeleteBlob(number) => {
                batch.delete_blob_if_unreferenced(BlobId::of(&content(number)));
            }
            Change::PutVersion { config, version, content: number, state } => {
                batch.put_config_version(ConfigVersion {
                    config: config.to_string(),
                    version,
                    state: [ConfigState::Draft, ConfigState::Published, ConfigState::Archived]
                        [usize::from(state)],
                    blob: BlobId::of(&content(number)),
                    hash: hash(number),
                    created_at: Wall(1),
                    created_by: "olga".into(),
                    published_at: None,
                    published_by: None,
                    comment: String::new(),
                    revision: Revision(0),
                });
            }
            Change::PutToken { id, secret } => {
                batch.put_token(ApiToken {
                    id: id.to_string(),
                    name: "token".into(),
                    role: Role::Admin,
                    secret_sha256: [secret; 32],
                    created_at: Wall(1),
                    created_by: "olga".into(),
                    expires_at: None,
                    revoked_at: None,
                });
            }
            Change::Audit { writer, number } => {
                let after = Some(serde_json::json!({ "number": number, "third": 1.0 / 3.0 }));
                let writer = writer.to_string();
                batch.append_audit(NewAuditEntry {
                    writer,
                    at: Wall(number),
                    after,
                    ..NewAuditEntry::default()
                });
            }
            Change::Key(key) => {
                batch.idempotency_key(key.to_string());
            }
            Change::Require(condition) => {
                batch.require(precondition(condition, model).await);
            }
        }
    }
    batch
}

async fn precondition(condition: Condition, model: &MemoryStore) -> Precondition {
    match condition {
        Condition::AgentAbsent(number) => Precondition::AgentAbsent(agent_id(number)),
        Condition::AgentAt(number, off) => {
            let record = model.agent(&agent_id(number)).await.unwrap();
            let revision = record.map_or(0, |record| record.revision.0) + off;
            Precondition::AgentAt(agent_id(number), Revision(revision))
        }
        Condition::UidFree(uid) => Precondition::UidFree(InstanceUid::from_bytes([uid as u8; 16])),
        Condition::VersionAbsent(config, version) => {
            Precondition::ConfigVersionAbsent { config: config.to_string(), version }
        }
        Condition::VersionAt(config, version, off) => {
            let record = model.version(&config.to_string(), version).await.unwrap();
            let revision = Revision(record.map_or(0, |record| record.revision.0) + off);
            Precondition::ConfigVersionAt { config: config.to_string(), version, revision }
        }
        Condition::TokenAbsent(id) => Precondition::TokenAbsent(id.to_string()),
        Condition::PackageAbsent(number) => Precondition::PackageAbsent(key(number)),
        Condition::PackageAt(number, off) => {
            let package = model.package(&key(number)).await.unwrap();
            let revision = package.map_or(0, |package| package.revision.0) + off;
            Precondition::PackageAt(key(number), Revision(revision))
        }
        Condition::SecretAbsent(name) => Precondition::SecretAbsent(name.to_string()),
    }
}

async fn compare(steps: Vec<Step>) {
    let file = SqliteFile::new();
    let model = MemoryStore::new();
    let mut store = file.store().await;
    for step in steps {
        match step {
            Step::Commit(changes, fence) => {
                let batch = build(changes, &model).await;
                let expected = model.commit(batch.clone(), fence.clone()).await;
                assert_eq!(store.commit(batch, fence).await, expected);
            }
            Step::Acquire(long) => {
                let ttl = if long { Duration::from_secs(3_600) } else { Duration::ZERO };
                let expected = model.acquire("leader", "me", ttl).await.unwrap();
                match (store.acquire("leader", "me", ttl).await.unwrap(), expected) {
                    (Acquired::Mine(lease), Acquired::Mine(expected))
                    | (Acquired::Taken(lease), Acquired::Taken(expected)) => {
                        assert_eq!(lease.epoch, expected.epoch)
                    }
                    (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
                }
            }
            Step::Reopen => {
                store.close().await;
                store = file.store().await;
            }
        }
        assert_eq!(Dump::of(&store, 2).await, Dump::of(&model, 3).await);
        for uid in 0..5 {
            let uid = InstanceUid::from_bytes([uid; 16]);
            assert_eq!(store.agent_by_uid(&uid).await, model.agent_by_uid(&uid).await);
        }
        for number in 0..4 {
            assert_eq!(store.package(&key(number)).await, model.package(&key(number)).await);
            let name = number.to_string();
            assert_eq!(store.secret(&name).await, model.secret(&name).await);
        }
        for secret in 0..4 {
            let secret = [secret; 32];
            assert_eq!(store.token_by_secret_hash(&secret).await, model.token_by_secret_hash(&secret).await);
        }
    }
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(steps in vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(steps));
    }
}
