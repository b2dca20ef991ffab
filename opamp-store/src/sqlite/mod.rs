//! The store in one SQLite file.

mod apply;
mod codec;
mod fault;
mod found;
mod leases;
mod leaves;
mod open;
mod read;
mod shared;
mod sql;
mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use self::apply::Prepared;
use self::leases::{LeaseChange, LeaseRequest};
use self::open::Source;
pub use self::open::SqliteOptions;
use self::shared::Shared;
use self::writer::{CommitRequest, Request, Writer};
use crate::batch::name_fits;
use crate::{
    Acquired, CommitError, FaultKind, Fence, Lease, LeaseError, LeaseStore, OpenError, ReadError, Revision,
    StorageFault, Store, StoreStats, Unhealthy, WriteBatch,
};

/// A store in one SQLite file: write-ahead log, flushed to the device before a commit is acknowledged.
///
/// One task writes, and commits that arrive while it flushes share the next transaction; reads run beside it on
/// connections of their own. Several processes may open the same file, they then take turns in writing.
///
/// Must be used within a tokio runtime. Dropping the last reference finishes what was accepted, but only
/// [`close`](Store::close) waits for it.
///
/// SQLite is linked through sqlx: a binary cannot contain another, different copy of it.
#[derive(Debug)]
pub struct SqliteStore {
    requests: mpsc::Sender<Request>,
    readers: SqlitePool,
    readers_are_ours: bool,
    shared: Arc<Shared>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it, with mode 0600, and the directory it is in, with mode 0700. An existing
    /// file that others may read is tightened: it holds configs, the hashes of tokens, connection settings with their
    /// headers and private keys, and the server's own secrets, none of them encrypted. What is deleted is overwritten where
    /// that costs nothing; copies of the file are as secret as the file.
    ///
    /// Brings the schema up to date; data of a newer release is refused with [`OpenError::NewerSchema`].
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let connect = open::prepare(path.as_ref(), &options)?;
        let readers = open::readers(&connect, &options);
        let source = Source::File(Box::new(connect));
        let connection = source.open(options.busy_timeout).await?;
        Ok(Self::start(source, connection, readers, true, &options))
    }

    /// Shares a pool, and so the database, with the application. All tables of the store begin with `opamp_`.
    ///
    /// The database must be in WAL mode, else [`OpenError::NotDurable`]. One connection is taken out of the pool for
    /// writing; of `options` only `commits_queued_max` and, for opening, `busy_timeout` count, the rest is the pool's.
    /// [`close`](Store::close) leaves the pool open.
    pub async fn from_pool(pool: SqlitePool, options: SqliteOptions) -> Result<Self, OpenError> {
        let source = Source::Pool(pool.clone());
        let connection = source.open(options.busy_timeout).await?;
        Ok(Self::start(source, connection, pool, false, &options))
    }

    fn start(
        source: Source,
        connection: SqliteConnection,
        readers: SqlitePool,
        readers_are_ours: bool,
        options: &SqliteOptions,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let (requests, queue) = mpsc::channel(options.commits_queued_max.max(1));
        tokio::spawn(Writer::new(source, connection, queue, Arc::clone(&shared)).run());
        Self { requests, readers, readers_are_ours, shared }
    }

    async fn commit_batch(&self, batch: WriteBatch, fence: Option<Fence>) -> Result<Revision, CommitError> {
        if self.shared.is_closed() {
            return Err(CommitError::Closed);
        }
        let bytes = batch.bytes();
        let batch = batch.into_contents().inspect_err(|_| self.shared.count_failure())?;
        let batch = Box::new(Prepared::of(batch, fence, bytes));
        let (answer, outcome) = oneshot::channel();
        let request = Request::Commit(CommitRequest { batch, answer });
        self.requests.send(request).await.map_err(|_| CommitError::Closed)?;
        outcome.await.unwrap_or_else(|_| Err(CommitError::OutcomeUnknown(writer_gone())))
    }

    async fn change_lease(&self, change: LeaseChange) -> Result<Acquired, LeaseError> {
        if self.shared.is_closed() {
            return Err(LeaseError::Closed);
        }
        let (role, holder) = match &change {
            LeaseChange::Acquire { role, holder, .. } => (role, holder),
            LeaseChange::Release(lease) | LeaseChange::Renew(lease, _) => (&lease.role, &lease.holder),
        };
        name_fits("length of a role or holder", role)?;
        name_fits("length of a role or holder", holder)?;
        let (answer, outcome) = oneshot::channel();
        let request = Request::Lease(LeaseRequest { change, answer });
        self.requests.send(request).await.map_err(|_| LeaseError::Closed)?;
        outcome.await.unwrap_or_else(|_| Err(LeaseError::OutcomeUnknown(writer_gone())))
    }

    async fn check_health(&self) -> Result<(), Unhealthy> {
        if self.shared.is_closed() {
            return Err(Unhealthy::Closed);
        }
        self.check_reading().await.map_err(|error| match error {
            ReadError::Closed => Unhealthy::Closed,
            ReadError::Unavailable(fault) => Unhealthy::NotReadable(fault),
            ReadError::Corrupt { .. } => {
                Unhealthy::NotReadable(StorageFault { kind: FaultKind::Corrupt, detail: error.to_string() })
            }
        })?;
        if self.shared.write_fault().is_none() {
            return Ok(());
        }
        let (answer, outcome) = oneshot::channel();
        self.requests.send(Request::Probe(answer)).await.map_err(|_| Unhealthy::Closed)?;
        outcome.await.unwrap_or_else(|_| Err(writer_gone())).map_err(Unhealthy::NotWritable)
    }
}

impl Store for SqliteStore {
    fn commit(
        &self,
        batch: WriteBatch,
        fence: Option<Fence>,
    ) -> BoxFuture<'_, Result<Revision, CommitError>> {
        Box::pin(self.commit_batch(batch, fence))
    }

    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>> {
        Box::pin(self.check_health())
    }

    fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if !self.shared.set_closed() {
                return;
            }
            if self.readers_are_ours {
                self.readers.close().await;
            }
            let (answer, closed) = oneshot::channel();
            if self.requests.send(Request::Close(answer)).await.is_ok() {
                let _ = closed.await;
            }
        })
    }
}

impl LeaseStore for SqliteStore {
    fn acquire(
        &self,
        role: &str,
        holder: &str,
        ttl: Duration,
    ) -> BoxFuture<'_, Result<Acquired, LeaseError>> {
        let (role, holder) = (role.to_owned(), holder.to_owned());
        Box::pin(self.change_lease(LeaseChange::Acquire { role, holder, ttl }))
    }

    fn renew(&self, lease: &Lease, ttl: Duration) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        let change = LeaseChange::Renew(lease.clone(), ttl);
        Box::pin(async {
            let (Acquired::Mine(lease) | Acquired::Taken(lease)) = self.change_lease(change).await?;
            Ok(lease)
        })
    }

    fn release(&self, lease: &Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        let change = LeaseChange::Release(lease.clone());
        Box::pin(async { self.change_lease(change).await.map(drop) })
    }

    fn lease(&self, role: &str) -> BoxFuture<'_, Result<Option<Lease>, ReadError>> {
        let role = role.to_owned();
        Box::pin(self.read_lease(role))
    }
}

/// The writer ends only with the runtime it was started on.
fn writer_gone() -> StorageFault {
    StorageFault {
        kind: FaultKind::Other,
        detail: "the writing task was stopped with its runtime".to_owned(),
    }
}
