//! A store with faults on demand.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use opamp_proto::{AgentId, InstanceUid};
use opamp_store::*;

/// A store that stops working on demand.
pub(crate) struct Flaky {
    store: MemoryStore,
    mode: AtomicU8,
    /// A record that cannot be understood.
    pub(crate) damaged: Mutex<Option<AgentId>>,
    /// How often an agent was asked for.
    pub(crate) reads: AtomicUsize,
    /// A record that is refused for what it says.
    pub(crate) refused: Mutex<Option<AgentId>>,
}

pub(crate) const WORKS: u8 = 0;
pub(crate) const DOWN: u8 = 1;
/// Writes, and then says that it does not know whether it did; once.
pub(crate) const FORGETS: u8 = 2;
pub(crate) const UNREADABLE: u8 = 3;
/// Writes, says that it does not know whether it did, and is down from then on.
pub(crate) const DIES: u8 = 4;
/// Somebody archives version 1 of config `edge` before the next batch.
pub(crate) const ARCHIVES: u8 = 5;
/// As `FORGETS` whenever it is asked, having written nothing.
pub(crate) const LOSES: u8 = 6;
/// Takes a second to say that it has written.
pub(crate) const SLOW: u8 = 7;

impl Flaky {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::new(),
            mode: AtomicU8::new(WORKS),
            damaged: Mutex::default(),
            reads: AtomicUsize::new(0),
            refused: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn is_down(&self) -> bool {
        self.mode.load(Ordering::SeqCst) == DOWN
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        read: BoxFuture<'a, Result<T, ReadError>>,
    ) -> BoxFuture<'a, Result<T, ReadError>> {
        if matches!(self.mode.load(Ordering::SeqCst), DOWN | UNREADABLE) {
            Box::pin(async { Err(ReadError::Unavailable(fault())) })
        } else {
            read
        }
    }
}

fn fault() -> StorageFault {
    StorageFault { kind: FaultKind::Io, detail: "unplugged".to_owned() }
}

impl Store for Flaky {
    fn commit(
        &self,
        batch: WriteBatch,
        fence: Option<Fence>,
    ) -> BoxFuture<'_, Result<Revision, CommitError>> {
        if self.is_down() {
            return Box::pin(async { Err(CommitError::Unavailable(fault())) });
        }
        let contents = batch.clone().into_contents().expect("within bounds");
        if self.refused.lock().expect("not poisoned").is_some_and(|id| contents.agents.contains_key(&id)) {
            let too_large = InvalidWrite::TooLarge { what: "words", limit: 1, actual: 2 };
            return Box::pin(async { Err(CommitError::Invalid(too_large)) });
        }
        if self.mode.load(Ordering::SeqCst) == LOSES {
            return Box::pin(async { Err(CommitError::OutcomeUnknown(fault())) });
        }
        let turns =
            |from, to| self.mode.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let forgets = turns(FORGETS, WORKS) || turns(DIES, DOWN);
        let archives = turns(ARCHIVES, WORKS);
        let slow = self.mode.load(Ordering::SeqCst) == SLOW;
        Box::pin(async move {
            if archives {
                let version = self.store.version("edge", 1).await.expect("readable").expect("it is there");
                let mut batch = WriteBatch::new();
                batch.put_config_version(ConfigVersion { state: ConfigState::Archived, ..version });
                self.store.commit(batch, None).await?;
            }
            let revision = self.store.commit(batch, fence).await?;
            if slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if forgets { Err(CommitError::OutcomeUnknown(fault())) } else { Ok(revision) }
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>> {
        if self.is_down() {
            return Box::pin(async { Err(Unhealthy::NotReadable(fault())) });
        }
        self.store.health()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}

impl AgentStore for Flaky {
    fn agent(&self, id: &AgentId) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if *self.damaged.lock().expect("not poisoned") == Some(*id) {
            let (what, reason) = (format!("agent {id}"), "cut short".to_owned());
            return Box::pin(async { Err(ReadError::Corrupt { what, reason }) });
        }
        self.read(self.store.agent(id))
    }
    fn agent_by_uid(&self, uid: &InstanceUid) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        self.read(self.store.agent_by_uid(uid))
    }
    fn agents(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AgentRecord, AgentId>, ReadError>> {
        self.read(self.store.agents(after, limit))
    }
    fn changed_since(&self, revision: Revision, limit: usize) -> BoxFuture<'_, Result<Changes, ReadError>> {
        self.read(self.store.changed_since(revision, limit))
    }
    fn checkpoints(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Checkpoint, AgentId>, ReadError>> {
        self.read(self.store.checkpoints(after, limit))
    }
}

impl BlobStore for Flaky {
    fn blob(&self, id: &BlobId) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        self.read(self.store.blob(id))
    }
    fn unreferenced_blobs(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<BlobId, BlobId>, ReadError>> {
        self.read(self.store.unreferenced_blobs(after, limit))
    }
}

impl ConfigStore for Flaky {
    fn config_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<String, String>, ReadError>> {
        self.read(self.store.config_names(after, limit))
    }
    fn versions(&self, config: &str) -> BoxFuture<'_, Result<Vec<ConfigVersion>, ReadError>> {
        self.read(self.store.versions(config))
    }
    fn version(&self, config: &str, version: u32) -> BoxFuture<'_, Result<Option<ConfigVersion>, ReadError>> {
        self.read(self.store.version(config, version))
    }
}

impl PackageStore for Flaky {
    fn package(&self, key: &PackageKey) -> BoxFuture<'_, Result<Option<PackageVersion>, ReadError>> {
        self.read(self.store.package(key))
    }
    fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<PackageVersion, PackageKey>, ReadError>> {
        self.read(self.store.packages(after, limit))
    }
    fn package_chunks(
        &self,
        key: &PackageKey,
        first: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, ReadError>> {
        self.read(self.store.package_chunks(key, first, limit))
    }
}

impl AuditLog for Flaky {
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Page<AuditEntry, u64>, ReadError>> {
        self.read(self.store.audit(query))
    }
    fn verify(&self) -> BoxFuture<'_, Result<AuditReport, ReadError>> {
        self.read(self.store.verify())
    }
}

impl CredentialStore for Flaky {
    fn token(&self, id: &str) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        self.read(self.store.token(id))
    }
    fn token_by_secret_hash(&self, secret: &[u8; 32]) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        self.read(self.store.token_by_secret_hash(secret))
    }
    fn tokens(&self) -> BoxFuture<'_, Result<Vec<ApiToken>, ReadError>> {
        self.read(self.store.tokens())
    }
    fn secret(&self, name: &str) -> BoxFuture<'_, Result<Option<ServerSecret>, ReadError>> {
        self.read(self.store.secret(name))
    }
}

impl LeaseStore for Flaky {
    fn acquire(
        &self,
        role: &str,
        holder: &str,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Acquired, LeaseError>> {
        self.store.acquire(role, holder, ttl)
    }
    fn renew(&self, lease: &Lease, ttl: Duration) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        self.store.renew(lease, ttl)
    }
    fn release(&self, lease: &Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.store.release(lease)
    }
    fn lease(&self, role: &str) -> BoxFuture<'_, Result<Option<Lease>, ReadError>> {
        self.store.lease(role)
    }
}
