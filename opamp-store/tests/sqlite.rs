//! What is particular to the SQLite store: its file, its schema, its faults, its groups.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt as _, join_all};
use opamp_proto::Wall;
use opamp_store::{
    AgentRecord, AgentStore as _, AuditBreak, AuditLog as _, CommitError, FaultKind, NewAuditEntry,
    OpenError, ReadError, SqliteOptions, SqliteStore, Store, Unhealthy, sweep_unreferenced_blobs,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, query};

use self::common::{SqliteFile, agent, agent_id, batch, put};

/// Somebody who changes the file behind the store's back.
async fn intruder(file: &SqliteFile) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file.path()).create_if_missing(true).connect().await.unwrap()
}

async fn tamper(file: &SqliteFile, sql: &str) {
    let mut connection = intruder(file).await;
    query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = SqliteFile::new();
    let mode = |name: &str| fs::metadata(file.0.file(name)).unwrap().permissions().mode() & 0o777;
    let path = file.0.file("data/of/fleet.sqlite");
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    store.commit(put(1), None).await.unwrap();
    assert_eq!((mode("data"), mode("data/of")), (0o700, 0o700));
    for name in ["data/of/fleet.sqlite", "data/of/fleet.sqlite-wal", "data/of/fleet.sqlite-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    store.close().await;

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    assert_eq!(mode("data/of/fleet.sqlite"), 0o600);
    assert!(store.agent(&agent_id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn settings_that_were_swept_are_overwritten() {
    let file = SqliteFile::new();
    let store = file.store().await;
    let secret = b"Authorization: Bearer hunter2";
    let settings = Bytes::from(secret.repeat(3));
    let held = || fs::read(file.path()).unwrap().windows(secret.len()).any(|window| window == secret);
    let put = batch(|batch| {
        // Others on the same page, which stay.
        (2..10_u64).for_each(|number| {
            let blob = batch.put_blob(Bytes::from(number.to_string().repeat(30)));
            batch.put_agent(AgentRecord { components: Some(blob), ..agent(number) });
        });
        let blob = batch.put_blob(settings);
        batch.put_agent(AgentRecord { components: Some(blob), ..agent(1) });
    });
    store.commit(put, None).await.unwrap();
    store.close().await;
    assert!(held());
    let store = file.store().await;
    store.commit(self::put(1), None).await.unwrap();
    sweep_unreferenced_blobs(&store, None).await.unwrap();
    store.close().await;
    assert!(!held());
}

#[tokio::test]
async fn an_orderly_end_leaves_one_file() {
    let file = SqliteFile::new();
    let store = file.store().await;
    store.commit(put(1), None).await.unwrap();
    assert!(store.agent(&agent_id(1)).await.unwrap().is_some());
    store.close().await;
    let names: Vec<_> =
        fs::read_dir(file.0.file("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["store.sqlite"]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let file = SqliteFile::new();
    fs::write(file.0.file("file"), "").unwrap();
    let path = file.0.file("file/store.sqlite");
    let error = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::File { path: named, .. } if *named == path.display().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn data_of_a_newer_release_is_refused_and_left_alone() {
    let file = SqliteFile::new();
    let store = file.store().await;
    store.commit(put(1), None).await.unwrap();
    store.close().await;
    tamper(&file, "INSERT INTO opamp_schema (version, applied_at) VALUES (99, 0)").await;
    let before = fs::read(file.path()).unwrap();
    let error = SqliteStore::open(file.path(), SqliteOptions::default()).await.unwrap_err();
    assert_eq!(error, OpenError::NewerSchema { found: 99, supported: 2 });
    assert!(error.to_string().contains("newer release"), "{error}");
    assert_eq!(fs::read(file.path()).unwrap(), before);
}

#[tokio::test]
async fn processes_that_start_together_migrate_once() {
    let file = SqliteFile::new();
    let stores = join_all((0..8).map(|_| SqliteStore::open(file.path(), SqliteOptions::default()))).await;
    for (number, store) in (0..).zip(&stores) {
        store.as_ref().unwrap().commit(put(number), None).await.unwrap();
    }
    let applied =
        query("SELECT count(*) FROM opamp_schema").fetch_one(&mut intruder(&file).await).await.unwrap();
    assert_eq!(applied.get::<i64, _>(0), 2);
    assert_eq!(stores[0].as_ref().unwrap().agents(None, 100).await.unwrap().items.len(), 8);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let file = SqliteFile::new();
    fs::write(file.path(), "receivers: {otlp: {}}\n".repeat(1_000)).unwrap();
    match SqliteStore::open(file.path(), SqliteOptions::default()).await {
        Err(OpenError::Unavailable(fault)) => assert_eq!(fault.kind, FaultKind::Corrupt),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_database_without_a_write_ahead_log_is_refused() {
    let file = SqliteFile::new();
    drop(intruder(&file).await);
    let connect = SqliteConnectOptions::new().filename(file.path());
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(connect).await.unwrap();
    let error = SqliteStore::from_pool(pool, SqliteOptions::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::NotDurable(_)), "{error}");
}

#[tokio::test]
async fn the_writer_of_a_shared_pool_flushes_every_commit() {
    let file = SqliteFile::new();
    file.store().await.close().await;
    // The application itself is content with less.
    let connect = SqliteConnectOptions::new().filename(file.path()).pragma("synchronous", "OFF");
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(connect).await.unwrap();
    let store = SqliteStore::from_pool(pool.clone(), SqliteOptions::default()).await.unwrap();
    store.commit(put(1), None).await.unwrap();
    assert!(store.agent(&agent_id(1)).await.unwrap().is_some());
    store.close().await;
    // The pool is still the application's.
    let row = query("SELECT count(*) FROM opamp_agent").fetch_one(&pool).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 1);
}

#[tokio::test]
async fn tampering_with_the_audit_log_is_found() {
    let entry = |number: u64| NewAuditEntry {
        writer: ["a", "b"][number as usize % 2].into(),
        at: Wall(number),
        actor: "olga".into(),
        after: Some(serde_json::json!({ "version": number })),
        source: Some("192.0.2.1".into()),
        ..NewAuditEntry::default()
    };
    let altered = |seq| AuditBreak::Altered { writer: "a".into(), seq };
    let unlinked = |seq| AuditBreak::Unlinked { writer: "a".into(), seq };
    let end = |recorded, found| AuditBreak::WrongEnd { writer: "a".into(), recorded, found };
    let cases = [
        ("UPDATE opamp_audit SET actor = 'otto' WHERE seq = 5", altered(5)),
        ("UPDATE opamp_audit SET at = 0 WHERE seq = 5", altered(5)),
        ("UPDATE opamp_audit SET after = '{\"version\":5}' WHERE seq = 5", altered(5)),
        ("UPDATE opamp_audit SET after = NULL WHERE seq = 5", altered(5)),
        ("UPDATE opamp_audit SET source = NULL WHERE seq = 5", altered(5)),
        ("UPDATE opamp_audit SET seq = 50 WHERE seq = 5", unlinked(7)),
        ("DELETE FROM opamp_audit WHERE seq = 5", unlinked(7)),
        ("DELETE FROM opamp_audit WHERE seq >= 8", end(9, 7)),
        ("DELETE FROM opamp_audit WHERE writer = 'a'", end(9, 0)),
        ("UPDATE opamp_audit_chain SET length = 4 WHERE writer = 'a'", end(9, 9)),
        ("DELETE FROM opamp_audit_chain WHERE writer = 'a'", end(0, 9)),
    ];
    for (sql, broken) in cases {
        let file = SqliteFile::new();
        let store = file.store().await;
        for number in 0..10 {
            store
                .commit(
                    batch(|batch| {
                        batch.append_audit(entry(number));
                    }),
                    None,
                )
                .await
                .unwrap();
        }
        assert!(store.verify().await.unwrap().is_intact());
        tamper(&file, sql).await;
        assert_eq!(store.verify().await.unwrap().broken, Some(broken), "{sql}");
        store.close().await;
    }
}

#[tokio::test]
async fn concurrent_commits_share_transactions() {
    const COMMITS: u64 = 400;
    let file = SqliteFile::new();
    let store: Arc<dyn Store> = Arc::new(file.store().await);
    // Through tasks, as a server would.
    let commits = (0..COMMITS).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(put(number), None).await.unwrap() })
    });
    let mut revisions: Vec<_> = join_all(commits).await.into_iter().map(|commit| commit.unwrap().0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=COMMITS).collect::<Vec<_>>());
    let stats = store.stats();
    assert_eq!((stats.commits, stats.commits_failed), (COMMITS, 0));
    assert!(stats.transactions <= COMMITS / 10, "{stats:?}");
    // One row an agent, and one for the revision a transaction.
    assert_eq!(stats.rows_written, COMMITS + stats.transactions);
}

#[tokio::test]
async fn a_full_database_says_so_and_recovers() {
    let file = SqliteFile::new();
    let options = SqliteOptions { size_max_bytes: Some(1 << 20), ..SqliteOptions::default() };
    let store = SqliteStore::open(file.path(), options).await.unwrap();
    let blob = |number: u8, size: usize| {
        batch(|batch| {
            batch.put_blob(Bytes::from(vec![number; size]));
        })
    };
    for number in 0..3 {
        store.commit(blob(number, 200_000), None).await.unwrap();
    }
    // A batch that does not fit takes no other of its group with it.
    let large = store.commit(blob(99, 900_000), None);
    let results = join_all([store.commit(put(1), None), large, store.commit(put(2), None)]).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let is_full = |result: &Result<_, CommitError>| matches!(result, Err(CommitError::Unavailable(fault)) if fault.kind == FaultKind::Full);
    assert!(is_full(&results[1]), "{results:?}");
    assert_eq!(store.health().await, Ok(()));

    let mut fill = 100;
    while store.commit(blob(fill, 50_000), None).await.is_ok() {
        fill += 1;
    }
    assert!(is_full(&store.commit(blob(fill, 50_000), None).await));
    // A transaction that wrote nothing proves nothing.
    store.commit(batch(|_| ()), None).await.unwrap();
    let unhealthy = store.health().await.unwrap_err();
    assert!(
        matches!(&unhealthy, Unhealthy::NotWritable(fault) if fault.kind == FaultKind::Full),
        "{unhealthy}"
    );
    assert_eq!(store.agents(None, 10).await.unwrap().items.len(), 2);
    // Making room is enough.
    sweep_unreferenced_blobs(&store, None).await.unwrap();
    assert_eq!(store.health().await, Ok(()));
    store.commit(blob(fill, 50_000), None).await.unwrap();
}

#[tokio::test]
async fn a_foreign_write_lock_is_a_busy_fault_until_it_is_gone() {
    let file = SqliteFile::new();
    let options = SqliteOptions { busy_timeout: Duration::from_millis(30), ..SqliteOptions::default() };
    let store = SqliteStore::open(file.path(), options).await.unwrap();
    let mut other = intruder(&file).await;
    query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    for result in join_all([store.commit(put(1), None), store.commit(put(2), None)]).await {
        assert!(matches!(result, Err(CommitError::Unavailable(fault)) if fault.kind == FaultKind::Busy));
    }
    assert!(
        matches!(store.health().await, Err(Unhealthy::NotWritable(fault)) if fault.kind == FaultKind::Busy)
    );
    assert!(store.agents(None, 10).await.unwrap().items.is_empty());
    query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(store.health().await, Ok(()));
    store.commit(put(1), None).await.unwrap();
    assert_eq!(store.stats().commits_failed, 2);
}

#[tokio::test]
async fn records_that_cannot_be_read_are_named() {
    for (sql, reason) in [
        ("UPDATE opamp_agent SET format = 2", "format 2"),
        ("UPDATE opamp_agent SET body = '{}'", "missing field"),
        ("UPDATE opamp_agent SET parts = x'0102'", "cut short"),
    ] {
        let file = SqliteFile::new();
        let store = file.store().await;
        store.commit(put(1), None).await.unwrap();
        tamper(&file, sql).await;
        match store.agent(&agent_id(1)).await {
            Err(ReadError::Corrupt { what, reason: found }) => {
                assert!(what.contains(&agent_id(1).to_string()) && found.contains(reason), "{what}: {found}");
            }
            other => panic!("{sql}: {other:?}"),
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_fault_in_the_middle_of_a_transaction_ends_with_it() {
    let file = SqliteFile::new();
    let store = file.store().await;
    store.commit(put(1), None).await.unwrap();
    // Noticed after the write lock is taken, and the database does not roll back by itself for it.
    tamper(&file, "UPDATE opamp_agent SET pins = x'01'").await;
    let results =
        join_all([store.commit(put(2), None), store.commit(put(1), None), store.commit(put(3), None)]).await;
    assert!(matches!(&results[1], Err(CommitError::Unavailable(fault)) if fault.kind == FaultKind::Corrupt));
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(store.commit(put(1), None).await.is_err());
    store.commit(put(4), None).await.unwrap();
    assert_eq!(store.health().await, Ok(()));
    // Nor is the lock kept from others.
    file.store().await.commit(put(5), None).await.unwrap();
}

#[tokio::test]
async fn only_the_oldest_keys_are_forgotten() {
    let file = SqliteFile::new();
    let store = file.store().await;
    let repeat = |key: &str| {
        let key = key.to_owned();
        store.commit(
            batch(|batch| {
                batch.idempotency_key(key);
            }),
            None,
        )
    };
    let first = repeat("first").await.unwrap();
    let second = repeat("second").await.unwrap();
    // As many as fit beside the second and the third.
    let rest = opamp_store::BatchContents::KEYS_KEPT - 2;
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rest})");
    tamper(&file, &format!("{numbers} INSERT INTO opamp_idempotency_key (key, revision) SELECT i, 2 FROM n"))
        .await;
    assert_eq!(repeat("first").await, Ok(first));
    repeat("third").await.unwrap();
    assert_eq!(repeat("second").await, Ok(second));
    assert_ne!(repeat("first").await, Ok(first));
}

#[tokio::test]
async fn a_dropped_commit_holds_up_nobody() {
    let file = SqliteFile::new();
    let store = file.store().await;
    for number in 0..50 {
        let mut abandoned = store.commit(put(number), None);
        assert!(abandoned.as_mut().now_or_never().is_none());
        drop(abandoned);
    }
    store.commit(put(100), None).await.unwrap();
    assert_eq!(store.agents(None, 100).await.unwrap().items.len(), 51);
}

#[tokio::test]
async fn fixed_costs_of_a_record_stay_small() {
    const AGENTS: u64 = 1_000;
    let file = SqliteFile::new();
    let store = file.store().await;
    for chunk in 0..AGENTS / 500 {
        let records = (chunk * 500..).take(500).map(|number| AgentRecord {
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            ..agent(number)
        });
        store
            .commit(
                batch(|batch| {
                    records.for_each(|record| {
                        batch.put_agent(record);
                    })
                }),
                None,
            )
            .await
            .unwrap();
    }
    store.close().await;
    let bytes = fs::metadata(file.path()).unwrap().len();
    assert!(bytes / AGENTS < 1_500, "{} bytes a record", bytes / AGENTS);
}
