//! Leases in the database, by its clock.

use std::time::Duration;

use sqlx::query;
use tokio::sync::oneshot;

use super::fault::WriteFault;
use super::transaction::Transaction;
use super::writer::Writer;
use super::{codec, sql};
use crate::{Acquired, Lease, LeaseError};

pub(super) struct LeaseRequest {
    pub(super) change: LeaseChange,
    pub(super) answer: oneshot::Sender<Result<Acquired, LeaseError>>,
}

pub(super) enum LeaseChange {
    Acquire { role: String, holder: String, ttl: Duration },
    Release(Lease),
    Renew(Lease, Duration),
}

impl Writer {
    pub(super) async fn serve_lease(&mut self, request: LeaseRequest) {
        let outcome = self.change_lease(&request.change).await;
        let end = outcome.as_ref().map(|(_, wrote)| *wrote).map_err(|fault| fault.fault().clone());
        self.settle(end).await;
        let answer = outcome.map_or_else(|fault| Err(fault.into()), |(result, _)| result);
        let _ = request.answer.send(answer);
    }

    /// The answer, and whether anything was written.
    async fn change_lease(
        &mut self,
        change: &LeaseChange,
    ) -> Result<(Result<Acquired, LeaseError>, bool), WriteFault> {
        let mut transaction = Transaction::begin(self.connection().await?).await?;
        let result = transaction.change_lease(change).await?;
        let counts = transaction.commit().await?;
        self.shared.count(&counts);
        Ok((result, counts.rows > 0))
    }
}

impl Transaction<'_> {
    async fn change_lease(
        &mut self,
        change: &LeaseChange,
    ) -> Result<Result<Acquired, LeaseError>, WriteFault> {
        let (role, changed) = match change {
            LeaseChange::Acquire { role, holder, ttl } => {
                let acquire = query(sql::ACQUIRE).bind(role).bind(holder).bind(whole_ms(*ttl));
                (role, self.row(acquire).await?)
            }
            LeaseChange::Release(lease) => {
                let release = query(sql::RELEASE).bind(&lease.role).bind(&lease.holder);
                (&lease.role, self.row(release.bind(lease.epoch.cast_signed())).await?)
            }
            LeaseChange::Renew(lease, ttl) => {
                let renew = query(sql::RENEW).bind(&lease.role).bind(&lease.holder);
                let renew = renew.bind(lease.epoch.cast_signed()).bind(whole_ms(*ttl));
                (&lease.role, self.row(renew).await?)
            }
        };
        if let Some(row) = changed {
            self.counts.rows += 1;
            return Ok(Ok(Acquired::Mine(codec::lease(&row)?)));
        }
        let row = self.row(query(sql::LEASE).bind(role)).await?;
        let current = row.map(|row| codec::lease(&row)).transpose()?;
        Ok(match change {
            // It was not acquired because it is there.
            LeaseChange::Acquire { .. } => Ok(Acquired::Taken(current.ok_or(sqlx::Error::RowNotFound)?)),
            LeaseChange::Release(lease) | LeaseChange::Renew(lease, _) => Err(LeaseError::Lost {
                role: role.clone(),
                presented: lease.epoch,
                current: current.map_or(0, |current| current.epoch),
            }),
        })
    }
}

fn whole_ms(span: Duration) -> i64 {
    // Half of the range leaves room for adding the time of day.
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 2)
}
