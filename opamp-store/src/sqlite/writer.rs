//! The one task that writes, with group commit.
//!
//! Commits queue up while a transaction is being made durable; the next transaction takes all that wait. Each is judged
//! and applied in turn, so a refused one leaves no trace and takes no other with it, and all are acknowledged only after
//! the one COMMIT they share.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, query};
use tokio::sync::{mpsc, oneshot};

use super::apply::Prepared;
use super::fault::WriteFault;
use super::leases::LeaseRequest;
use super::open::Source;
use super::shared::Shared;
use super::sql;
use super::transaction::{Counts, Transaction};
use crate::{CommitError, Revision, StorageFault};

/// The most batches in one transaction.
const GROUP_MAX: usize = 256;
/// No batch joins a group that has so many bytes already: bounds the log written by one transaction.
const GROUP_BYTES: usize = 16 << 20;

/// What the writer can be asked to do, in the order of asking.
pub(super) enum Request {
    Commit(CommitRequest),
    Lease(LeaseRequest),
    /// Write something, to see whether writing works again.
    Probe(oneshot::Sender<Result<(), StorageFault>>),
    /// Finish.
    Close(oneshot::Sender<()>),
}

pub(super) struct CommitRequest {
    pub(super) batch: Box<Prepared>,
    pub(super) answer: oneshot::Sender<Result<Revision, CommitError>>,
}

pub(super) struct Writer {
    source: Source,
    /// `None` after a fault: the next transaction starts on a fresh connection.
    connection: Option<SqliteConnection>,
    requests: mpsc::Receiver<Request>,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(
        source: Source,
        connection: SqliteConnection,
        requests: mpsc::Receiver<Request>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { source, connection: Some(connection), requests, shared }
    }

    /// Serves requests until closed, or until the last handle is gone and the queue is empty.
    pub(super) async fn run(mut self) {
        let mut next = self.requests.recv().await;
        let mut closed = None;
        while let Some(request) = next.take() {
            match request {
                Request::Commit(first) => {
                    let group;
                    (group, next) = self.group(first);
                    self.commit_group(group).await;
                }
                Request::Lease(request) => self.serve_lease(request).await,
                Request::Probe(answer) => {
                    let result = self.probe().await.map_err(|fault| fault.fault().clone());
                    let _ = answer.send(result);
                }
                Request::Close(answer) => {
                    // Nobody can ask any more; what was asked before is still served.
                    self.requests.close();
                    closed = Some(answer);
                }
            }
            if next.is_none() {
                next = self.requests.recv().await;
            }
        }
        self.finish().await;
        if let Some(answer) = closed {
            let _ = answer.send(());
        }
    }

    /// The batches that share a transaction, and the request that comes after them, if it was already taken.
    fn group(&mut self, first: CommitRequest) -> (Vec<CommitRequest>, Option<Request>) {
        let mut bytes = first.batch.bytes;
        let mut group = vec![first];
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES {
            match self.requests.try_recv() {
                Ok(Request::Commit(request)) => {
                    bytes += request.batch.bytes;
                    group.push(request);
                }
                Ok(other) => return (group, Some(other)),
                Err(_) => break,
            }
        }
        (group, None)
    }

    async fn commit_group(&mut self, group: Vec<CommitRequest>) {
        match self.try_group(&group).await {
            Ok(results) => self.answer(group, results),
            // One batch may be too large for what is left of the disk, and the others not.
            Err(GroupFault::Applying(_)) if group.len() > 1 => {
                for request in group {
                    let result = match self.try_group(std::slice::from_ref(&request)).await {
                        Ok(results) => results,
                        Err(fault) => vec![Err(fault.into_fault().into())],
                    };
                    self.answer(vec![request], result);
                }
            }
            Err(fault) => {
                let fault = fault.into_fault();
                let results = group.iter().map(|_| Err(fault.clone().into())).collect();
                self.answer(group, results);
            }
        }
    }

    fn answer(&self, group: Vec<CommitRequest>, results: Vec<Result<Revision, CommitError>>) {
        for (request, result) in group.into_iter().zip(results) {
            if result.is_err() {
                self.shared.count_failure();
            }
            // Whoever dropped the future does not want to know.
            let _ = request.answer.send(result);
        }
    }

    /// Applies batches in one transaction and makes it durable.
    async fn try_group(
        &mut self,
        group: &[CommitRequest],
    ) -> Result<Vec<Result<Revision, CommitError>>, GroupFault> {
        let outcome = self.in_group(group).await;
        let end = match &outcome {
            Ok((_, Ok(counts))) => Ok(counts.commits > 0),
            Ok((_, Err(fault))) => Err(fault.fault().clone()),
            Err(fault) => Err(fault.fault().clone()),
        };
        self.settle(end).await;
        let (mut results, committed) = outcome?;
        match committed {
            Ok(counts) => self.shared.count(&counts),
            Err(fault) => {
                // A refusal stands whatever became of the others.
                for result in results.iter_mut().filter(|result| result.is_ok()) {
                    *result = Err(fault.clone().into());
                }
            }
        }
        Ok(results)
    }

    async fn in_group(&mut self, group: &[CommitRequest]) -> Result<GroupOutcome, GroupFault> {
        let connection = self.connection().await.map_err(GroupFault::Beginning)?;
        let mut transaction = Transaction::begin(connection).await.map_err(GroupFault::Beginning)?;
        let mut results = Vec::with_capacity(group.len());
        for request in group {
            results.push(transaction.apply(&request.batch).await.map_err(GroupFault::Applying)?);
        }
        Ok((results, transaction.commit().await))
    }

    async fn probe(&mut self) -> Result<(), WriteFault> {
        let outcome = self.try_probe().await;
        self.settle(outcome.as_ref().map(|()| true).map_err(|fault| fault.fault().clone())).await;
        outcome
    }

    async fn try_probe(&mut self) -> Result<(), WriteFault> {
        let mut transaction = Transaction::begin(self.connection().await?).await?;
        transaction.write_uncounted(query(sql::PROBE)).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The connection, made anew after a fault.
    pub(super) async fn connection(&mut self) -> Result<&mut SqliteConnection, WriteFault> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.source.connect().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Remembers how the last transaction ended: whether it wrote anything, or its fault. One that wrote nothing is no
    /// proof that writing works again. After a fault the connection is given up, whatever state it is in.
    pub(super) async fn settle(&mut self, end: Result<bool, StorageFault>) {
        if end.is_err()
            && let Some(connection) = self.connection.take()
        {
            let _ = connection.close_hard().await;
        }
        match end {
            Ok(true) => self.shared.set_write_fault(None),
            Ok(false) => {}
            Err(fault) => self.shared.set_write_fault(Some(fault)),
        }
    }

    /// Moves the log into the database file, so that what is left is one file, and closes.
    async fn finish(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // Not needed for durability; another process may hold the log open.
            let _ = query(sql::TRUNCATE_WAL).execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }
}

/// The answer for each batch, and whether they were committed.
type GroupOutcome = (Vec<Result<Revision, CommitError>>, Result<Counts, WriteFault>);

/// Where a transaction failed before COMMIT.
enum GroupFault {
    Applying(WriteFault),
    Beginning(WriteFault),
}

impl GroupFault {
    fn fault(&self) -> &StorageFault {
        match self {
            Self::Applying(fault) | Self::Beginning(fault) => fault.fault(),
        }
    }

    fn into_fault(self) -> WriteFault {
        match self {
            Self::Applying(fault) | Self::Beginning(fault) => fault,
        }
    }
}
