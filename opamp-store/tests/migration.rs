//! Databases of earlier releases: opened, brought up to date, nothing lost.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use bytes::Bytes;
use opamp_proto::{ConfigHash, InstanceUid, Wall};
use opamp_store::{
    AgentRecord, AgentStore as _, AssignedPackage, AuditLog as _, BlobId, BlobStore as _, CommitError,
    ConfigState, ConfigStore as _, CredentialStore as _, DesiredPackages, DesiredSettings, OffersRecord,
    PackageKey, PackageKind, PackageStore as _, PackageVersion, Revision, ServerSecret, SqliteStore,
    Store as _, sweep_unreferenced_blobs,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, query, raw_sql};

use self::common::{SqliteFile, agent_id, batch};

/// A file as the release with schema version 1 left it.
async fn file_of_schema_1() -> SqliteFile {
    let file = SqliteFile::new();
    let connect = SqliteConnectOptions::new().filename(file.path()).create_if_missing(true);
    let mut connection = connect.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap();
    raw_sql(include_str!("data/schema_1.sql")).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    file
}

async fn check_what_was_there(store: &SqliteStore) {
    let hash = ConfigHash::new(vec![1, 2, 3]);
    let record = store.agent(&agent_id(1)).await.unwrap().unwrap();
    assert_eq!(record.uid, InstanceUid::v7(1, [8; 10]));
    assert_eq!(record.identity.as_deref(), Some("token:edge"));
    assert_eq!(record.labels["env"], "prod");
    assert_eq!(record.parts.health, Some(Bytes::from_static(&[8, 1])));
    let desired = record.desired.as_ref().unwrap();
    assert_eq!((desired.config.as_str(), desired.version, desired.generation), ("edge", 1, 4));
    assert_eq!((&record.desired_history[0], record.last_known_good.as_ref()), (desired, Some(&hash)));
    assert_eq!((record.sticky.connects, &record.sticky.last_applied), (3, &Some((hash.clone(), Wall(8)))));
    assert_eq!(record.sticky.last_failure.as_ref().unwrap().error, "no such file");
    assert_eq!(record.connection.as_ref().unwrap().transport, "http");
    assert_eq!(store.blob(&desired.blob).await.unwrap().as_deref(), Some(&b"receivers: {}"[..]));
    assert_eq!(store.agents(None, 10).await.unwrap().items.len(), 2);
    assert_eq!(store.checkpoints(None, 10).await.unwrap().items[0].sequence_num, 9);
    let version = store.version("edge", 1).await.unwrap().unwrap();
    assert_eq!((version.state, version.hash), (ConfigState::Published, hash));
    assert_eq!(store.token_by_secret_hash(&[7; 32]).await.unwrap().unwrap().id, "a");
    let report = store.verify().await.unwrap();
    assert_eq!((report.entries, report.broken), (1, None));
}

#[tokio::test]
async fn a_database_of_schema_1_is_brought_up_to_date_and_loses_nothing() {
    let file = file_of_schema_1().await;
    let store = file.store().await;
    check_what_was_there(&store).await;
    let record = store.agent(&agent_id(1)).await.unwrap().unwrap();
    // What the old release did not know is not there.
    assert_eq!((&record.desired_settings, &record.desired_packages), (&None, &None));
    assert_eq!((record.settings_generation, record.packages_generation), (0, 0));
    assert_eq!((&record.offered, record.sticky.uid_conflicts), (&OffersRecord::default(), 0));
    assert!(store.packages(None, 10).await.unwrap().items.is_empty());
    // Keys and revisions go on where they were.
    let replay = batch(|batch| {
        batch.delete_agent(agent_id(1)).idempotency_key("once".into());
    });
    assert_eq!(store.commit(replay, None).await, Ok(Revision(1)));
    assert_eq!(sweep_unreferenced_blobs(&store, None).await.unwrap().blobs, 1);
    check_what_was_there(&store).await;
    store.close().await;

    let store = file.store().await;
    check_what_was_there(&store).await;
    let connect = SqliteConnectOptions::new().filename(file.path());
    let mut connection = connect.connect().await.unwrap();
    let applied = query("SELECT version FROM opamp_schema").fetch_all(&mut connection).await.unwrap();
    assert_eq!(applied.len(), 2, "each step ran once");
    connection.close().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn records_of_schema_1_take_what_is_new() {
    let file = file_of_schema_1().await;
    let store = file.store().await;
    let (settings, chunk) = (Bytes::from_static(b"settings"), Bytes::from_static(b"content"));
    let key = PackageKey::new("", "1.0");
    let package = PackageVersion {
        key: key.clone(),
        kind: PackageKind::TopLevel,
        size_bytes: 7,
        content_sha256: [7; 32],
        signature: None,
        chunk_bytes: 1 << 20,
        created_at: Wall(1),
        created_by: "olga".into(),
        revision: Revision(0),
    };
    let hash = ConfigHash::new(vec![9]);
    let (assigned_by, assigned_at) = ("olga".to_owned(), Wall(5));
    let before = store.agent(&agent_id(1)).await.unwrap().unwrap();
    let changed = AgentRecord {
        desired_settings: Some(DesiredSettings {
            hash: hash.clone(),
            blob: BlobId::of(&settings),
            generation: 1,
            assigned_by: assigned_by.clone(),
            assigned_at,
        }),
        desired_packages: Some(DesiredPackages {
            packages: vec![AssignedPackage { key: key.clone(), content_sha256: [7; 32] }],
            hash,
            generation: 1,
            assigned_by,
            assigned_at,
        }),
        ..AgentRecord::clone(&before)
    };
    let change = batch(|batch| {
        batch.put_blob(settings);
        let chunk = batch.put_blob(chunk);
        batch.put_package(package, vec![chunk]);
        batch.put_agent(changed.clone());
        batch.put_secret("downloads".into(), ServerSecret::new(vec![1]));
    });
    let revision = store.commit(change, None).await.unwrap();
    let expected = AgentRecord { revision, ..changed };
    assert_eq!(store.agent(&agent_id(1)).await.unwrap().as_deref(), Some(&expected));
    check_what_was_there(&store).await;
    let delete = || {
        batch(|batch| {
            batch.delete_package(key.clone());
        })
    };
    let refused = CommitError::PackageInUse { key: key.clone(), agent: agent_id(1) };
    assert_eq!(store.commit(delete(), None).await, Err(refused));
    let back = batch(|batch| {
        batch.put_agent(before);
    });
    store.commit(back, None).await.unwrap();
    store.commit(delete(), None).await.unwrap();
    assert_eq!(sweep_unreferenced_blobs(&store, None).await.unwrap().blobs, 3);
    check_what_was_there(&store).await;
    store.close().await;
}
