//! What several test files need.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use opamp_proto::{AgentId, InstanceUid, Wall};
use opamp_store::conformance::Location;
use opamp_store::{AgentRecord, SqliteOptions, SqliteStore, Store, WriteBatch};

/// A directory that goes away with its owner.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A SQLite file in a directory of its own.
pub(crate) struct SqliteFile(pub(crate) TempDir);

impl SqliteFile {
    pub(crate) fn new() -> Self {
        Self(TempDir::new())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.file("store.sqlite")
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path(), SqliteOptions::default()).await.unwrap()
    }
}

impl Location for SqliteFile {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(async { Arc::new(self.store().await) as Arc<dyn Store> })
    }
}

pub(crate) fn agent_id(number: u64) -> AgentId {
    AgentId::v7(number, [7; 10])
}

pub(crate) fn agent(number: u64) -> AgentRecord {
    AgentRecord::new(agent_id(number), InstanceUid::v7(number, [8; 10]), Wall(number))
}

pub(crate) fn batch(build: impl FnOnce(&mut WriteBatch)) -> WriteBatch {
    let mut batch = WriteBatch::new();
    build(&mut batch);
    batch
}

/// A batch that puts one agent.
pub(crate) fn put(number: u64) -> WriteBatch {
    batch(|batch| {
        batch.put_agent(agent(number));
    })
}
