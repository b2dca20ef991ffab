//! The store in memory: everything under one lock, nothing outlives the last handle.

mod kept;
mod leases;
mod query;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use opamp_proto::{AgentId, InstanceUid, Wall};

use self::state::{Outcome, State};
use crate::batch::name_fits;
use crate::page::clamp_limit;
use crate::{
    Acquired, AgentRecord, AgentStore, ApiToken, AuditEntry, AuditLog, AuditQuery, AuditReport, BlobId,
    BlobStore, Changes, Checkpoint, CommitError, ConfigStore, ConfigVersion, CredentialStore, Fence, Lease,
    LeaseError, LeaseStore, PackageKey, PackageStore, PackageVersion, Page, ReadError, Revision,
    ServerSecret, Store, StoreStats, Unhealthy, WriteBatch,
};

/// A store that keeps nothing beyond the process. Futures are ready at once; the model other stores are compared with.
///
/// A clone is another handle on the same data, with its own counters and its own `close`.
#[derive(Default)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
    stats: Mutex<StoreStats>,
    closed: AtomicBool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(RwLockReadGuard<'_, State>) -> T,
    ) -> BoxFuture<'a, Result<T, ReadError>> {
        let result = if self.is_closed() {
            Err(ReadError::Closed)
        } else {
            Ok(read(self.state.read().unwrap_or_else(PoisonError::into_inner)))
        };
        Box::pin(ready(result))
    }

    fn lease_write<'a, T: Send + 'a>(
        &'a self,
        names: &[&str],
        write: impl FnOnce(RwLockWriteGuard<'_, State>) -> Result<T, LeaseError>,
    ) -> BoxFuture<'a, Result<T, LeaseError>> {
        let valid = names.iter().try_for_each(|name| name_fits("length of a role or holder", name));
        let result = match valid {
            _ if self.is_closed() => Err(LeaseError::Closed),
            Err(invalid) => Err(invalid.into()),
            Ok(()) => write(self.write()),
        };
        Box::pin(ready(result))
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> MutexGuard<'_, StoreStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn commit_now(&self, batch: WriteBatch, fence: Option<&Fence>) -> Result<Revision, CommitError> {
        if self.is_closed() {
            return Err(CommitError::Closed);
        }
        let contents = batch.into_contents()?;
        // The guard lives until the counters are updated, so that they never lag behind what a reader can see.
        let mut state = self.write();
        match state.commit(contents, fence)? {
            Outcome::Unchanged(revision) => Ok(revision),
            Outcome::Applied { revision, records, checkpoints } => {
                let mut stats = self.counters();
                stats.commits += 1;
                stats.transactions += 1;
                stats.rows_written += records;
                stats.checkpoint_rows_written += u64::from(checkpoints > 0);
                stats.checkpoints_written += checkpoints;
                Ok(revision)
            }
        }
    }
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), ..Self::default() }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn commit(
        &self,
        batch: WriteBatch,
        fence: Option<Fence>,
    ) -> BoxFuture<'_, Result<Revision, CommitError>> {
        let result = self.commit_now(batch, fence.as_ref());
        self.counters().commits_failed += u64::from(result.is_err());
        Box::pin(ready(result))
    }

    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>> {
        Box::pin(ready(if self.is_closed() { Err(Unhealthy::Closed) } else { Ok(()) }))
    }

    fn stats(&self) -> StoreStats {
        *self.counters()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.closed.store(true, Ordering::Release) })
    }
}

impl AgentStore for MemoryStore {
    fn agent(&self, id: &AgentId) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        // Made where it is asked for, and not moved there: a record is large.
        let id = *id;
        Box::pin(async move {
            if self.is_closed() {
                return Err(ReadError::Closed);
            }
            Ok(self.state.read().unwrap_or_else(PoisonError::into_inner).shared_agent(&id))
        })
    }

    fn agent_by_uid(&self, uid: &InstanceUid) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        self.read(|state| state.agent_by_uid(uid).map(Arc::new))
    }

    fn agents(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AgentRecord, AgentId>, ReadError>> {
        self.read(|state| state.agents(after, clamp_limit(limit)))
    }

    fn changed_since(&self, revision: Revision, limit: usize) -> BoxFuture<'_, Result<Changes, ReadError>> {
        self.read(|state| state.changed_since(revision, clamp_limit(limit)))
    }

    fn checkpoints(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Checkpoint, AgentId>, ReadError>> {
        self.read(|state| state.checkpoints(after, clamp_limit(limit)))
    }
}

impl BlobStore for MemoryStore {
    fn blob(&self, id: &BlobId) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        self.read(|state| state.blob(id))
    }

    fn unreferenced_blobs(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<BlobId, BlobId>, ReadError>> {
        self.read(|state| state.unreferenced_blobs(after, clamp_limit(limit)))
    }
}

impl ConfigStore for MemoryStore {
    fn config_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<String, String>, ReadError>> {
        self.read(|state| state.config_names(after, clamp_limit(limit)))
    }

    fn versions(&self, config: &str) -> BoxFuture<'_, Result<Vec<ConfigVersion>, ReadError>> {
        self.read(|state| state.versions(config))
    }

    fn version(&self, config: &str, version: u32) -> BoxFuture<'_, Result<Option<ConfigVersion>, ReadError>> {
        self.read(|state| state.version(config, version))
    }
}

impl PackageStore for MemoryStore {
    fn package(&self, key: &PackageKey) -> BoxFuture<'_, Result<Option<PackageVersion>, ReadError>> {
        self.read(|state| state.package(key))
    }

    fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<PackageVersion, PackageKey>, ReadError>> {
        self.read(|state| state.packages(after, clamp_limit(limit)))
    }

    fn package_chunks(
        &self,
        key: &PackageKey,
        first: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, ReadError>> {
        self.read(|state| state.package_chunks(key, first, clamp_limit(limit)))
    }
}

impl AuditLog for MemoryStore {
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Page<AuditEntry, u64>, ReadError>> {
        self.read(|state| state.audit(&query))
    }

    fn verify(&self) -> BoxFuture<'_, Result<AuditReport, ReadError>> {
        self.read(|state| state.verify())
    }
}

impl CredentialStore for MemoryStore {
    fn token(&self, id: &str) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        self.read(|state| state.token(id))
    }

    fn token_by_secret_hash(
        &self,
        secret_sha256: &[u8; 32],
    ) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        self.read(|state| state.token_by_secret_hash(secret_sha256))
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Vec<ApiToken>, ReadError>> {
        self.read(|state| state.tokens())
    }

    fn secret(&self, name: &str) -> BoxFuture<'_, Result<Option<ServerSecret>, ReadError>> {
        self.read(|state| state.secret(name))
    }
}

impl LeaseStore for MemoryStore {
    fn acquire(
        &self,
        role: &str,
        holder: &str,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Acquired, LeaseError>> {
        self.lease_write(&[role, holder], |mut state| Ok(state.acquire(role, holder, ttl, now())))
    }

    fn renew(&self, lease: &Lease, ttl: Duration) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        self.lease_write(&[&lease.role, &lease.holder], |mut state| state.renew(lease, ttl, now()))
    }

    fn release(&self, lease: &Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.lease_write(&[&lease.role, &lease.holder], |mut state| state.release(lease))
    }

    fn lease(&self, role: &str) -> BoxFuture<'_, Result<Option<Lease>, ReadError>> {
        self.read(|state| state.lease(role, now()))
    }
}

/// The clock of this store: leases end by it.
fn now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
