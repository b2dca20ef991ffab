//! How things reach the store: one writer at a time, batches repeated until it is known what became of them.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opamp_store::{AgentRecord, Blob, CommitError, Precondition, Revision, WriteBatch};

use super::error::StoreFailure;
use super::{FleetManager, Inner};

/// How often a batch is repeated whose outcome is unknown. It carries an idempotency key, so that is harmless.
const REPEATS: usize = 3;
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// Audit entries in one batch.
const AUDIT_BATCH: usize = 256;

impl Inner {
    /// Commits a batch and remembers whether the store works.
    ///
    /// A batch whose outcome is unknown is repeated under its idempotency key; without one it gets one. Once it is
    /// unknown, only an answer that judges the batch ends that: that the store is away now says nothing about before.
    pub(super) async fn commit(
        &self,
        mut batch: WriteBatch,
        key: Option<String>,
    ) -> Result<Revision, CommitError> {
        if let Some(key) = key.or_else(random_key) {
            batch.idempotency_key(key);
        }
        self.commit_repeatable(batch).await
    }

    /// The same for a batch that may be repeated as it is, because it has a key or puts nothing but blobs.
    pub(super) async fn commit_repeatable(&self, batch: WriteBatch) -> Result<Revision, CommitError> {
        let mut repeats = 0;
        let mut unknown = None;
        loop {
            let outcome = self.store.commit(batch.clone(), None).await;
            let fault = match &outcome {
                Err(
                    error @ (CommitError::Unavailable(_)
                    | CommitError::OutcomeUnknown(_)
                    | CommitError::Closed),
                ) => Some(error.to_string()),
                _ => None,
            };
            let away = fault.is_some();
            self.note_write(fault);
            if let Err(CommitError::OutcomeUnknown(fault)) = &outcome {
                unknown = Some(fault.clone());
            }
            match unknown.clone() {
                Some(_) if away && repeats < REPEATS => {
                    repeats += 1;
                    tokio::time::sleep(REPEAT_AFTER).await;
                }
                Some(fault) if away => return Err(CommitError::OutcomeUnknown(fault)),
                _ => return outcome,
            }
        }
    }

    /// Puts a record a call changed into its batch, with what the record refers to and the store may not have.
    pub(super) fn put_changed(batch: &mut WriteBatch, record: impl Into<Arc<AgentRecord>>, blobs: &[Blob]) {
        for blob in blobs {
            batch.put_blob(blob.clone());
        }
        batch.put_agent(record);
    }

    /// Writes changed records that are due, or all of them. The writer lock is held by the caller.
    ///
    /// # Errors
    /// The store does not take them now; they wait.
    pub(super) async fn write_records(&self, all: bool) -> Result<(), StoreFailure> {
        let mut reread = BTreeSet::new();
        loop {
            let now = self.now();
            let Some(batch) = self.state().unwritten.take(now.mono, all) else { return Ok(()) };
            match self.store.commit(batch, None).await {
                Ok(_) => {
                    self.note_write(None);
                    self.state().unwritten.committed();
                }
                Err(CommitError::Precondition(
                    Precondition::AgentAt(id, _) | Precondition::AgentAbsent(id),
                )) => {
                    // Somebody else wrote the record, or a commit of unknown outcome did.
                    self.doubt(&id);
                    self.state().unwritten.failed(now.mono);
                    self.state().unwritten.hurry();
                    if reread.insert(id)
                        && let Err(error) = self.record(&id).await
                        && !matches!(error, StoreFailure::Damaged(_))
                    {
                        return Err(error);
                    }
                }
                Err(
                    error @ (CommitError::BlobMissing(_)
                    | CommitError::Invalid(_)
                    | CommitError::PackageMissing(_)
                    | CommitError::Precondition(_)
                    | CommitError::UidTaken { .. }),
                ) => {
                    // The store works, and repeating this is pointless: the good records go alone, the bad one goes.
                    let given_up = self.state().unwritten.refused(now.mono);
                    if let Some(record) = given_up {
                        // A position would stand for what is lost.
                        let mut state = self.state();
                        state.checkpoints.remove(&record.id);
                        state.given_up.insert(record.id);
                        drop(state);
                        tracing::error!(agent = %record.id, %error, "the store refuses an agent's record");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "changed records cannot be written; they wait");
                    self.note_write(Some(error.to_string()));
                    let taken = self.state().unwritten.in_flight();
                    self.state().unwritten.failed(now.mono);
                    if matches!(error, CommitError::OutcomeUnknown(_)) {
                        taken.iter().for_each(|id| self.doubt(id));
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Writes the audit entries that wait. The writer lock is held by the caller.
    pub(super) async fn write_audit(&self) -> Result<(), StoreFailure> {
        loop {
            let (entries, key) = self.state().audit.oldest(AUDIT_BATCH, random_key);
            if entries.is_empty() {
                return Ok(());
            }
            let count = entries.len();
            let mut batch = WriteBatch::new();
            for entry in entries {
                batch.append_audit(entry);
            }
            match self.commit(batch, key).await {
                Ok(_) => self.state().audit.settled(),
                Err(CommitError::Invalid(error)) => {
                    tracing::error!(%error, count, "the store refuses audit entries");
                    self.state().audit.settled();
                }
                Err(error) => {
                    tracing::warn!(%error, count, "audit entries cannot be written; they wait");
                    let until = self.now().mono + self.settings.write_behind.retry_delay;
                    self.state().audit.failed(until);
                    return Err(error.into());
                }
            }
        }
    }

    /// Stores where the conversations stand. Everything those conversations said must be in the store before, or a
    /// restarted server would believe it has what was lost. The writer lock is held by the caller, who has merged
    /// every change that came before the checkpoints were taken; agents of whom that failed are left out.
    pub(super) async fn write_checkpoints(&self) -> Result<(), StoreFailure> {
        self.write_records(true).await?;
        loop {
            let batch: Vec<_> = {
                let state = self.state();
                let complete = state
                    .checkpoints
                    .values()
                    .filter(|checkpoint| !state.missed.contains_key(&checkpoint.id));
                complete.take(WriteBatch::CHECKPOINTS_MAX).copied().collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            let mut write = WriteBatch::new();
            write.checkpoints(batch.iter().copied());
            let written = self.store.commit(write, None).await;
            self.note_write(written.as_ref().err().map(ToString::to_string));
            written?;
            let mut state = self.state();
            for checkpoint in batch {
                state.checkpoints.remove(&checkpoint.id);
            }
        }
    }

    /// Remembers whether the store could be read last time.
    pub(super) fn note_read(&self, fault: Option<String>) {
        let before = std::mem::replace(&mut self.state().read_fault, fault.clone());
        note_turn("read", before, fault);
    }

    /// Remembers whether the store could be written last time.
    pub(super) fn note_write(&self, fault: Option<String>) {
        let before = std::mem::replace(&mut self.state().write_fault, fault.clone());
        note_turn("written", before, fault);
    }
}

impl FleetManager {
    /// Runs a change to its end, even if the caller stops waiting: a commit cannot be taken back half way, and what
    /// follows it must follow.
    pub(super) async fn complete<T, F, R>(&self, change: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(std::sync::Arc<Inner>) -> R,
        R: Future<Output = T> + Send + 'static,
    {
        match tokio::spawn(change(std::sync::Arc::clone(&self.inner))).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels it, and then nobody waits for an answer.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Writes everything that waits: changed records and audit entries.
    ///
    /// # Errors
    /// [`StoreFailure`] if the store does not take them now; they wait further.
    pub async fn flush(&self) -> Result<(), StoreFailure> {
        self.complete(|inner| async move {
            let _writer = inner.writer.lock().await;
            inner.catch_up().await;
            inner.write_records(true).await?;
            inner.write_audit().await
        })
        .await
    }
}

/// Tells when a fault comes and when it goes, and nothing in between.
fn note_turn(what: &'static str, before: Option<String>, after: Option<String>) {
    match (before, after) {
        (None, Some(fault)) => tracing::warn!(fault, "the store cannot be {what}"),
        (Some(_), None) => tracing::info!("the store can be {what} again"),
        _ => {}
    }
}

/// A key nobody else has; none if the system has no random numbers, in which case a batch goes without.
fn random_key() -> Option<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(format!("auto/{}", data_encoding::HEXLOWER.encode(&random)))
}
