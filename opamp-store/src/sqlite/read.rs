//! How the SQLite store answers: one statement a question, on a connection that only reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use opamp_proto::{AgentId, InstanceUid};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Row as _, Sqlite, query, query_with};

use super::{SqliteStore, codec, leaves, sql};
use crate::page::clamp_limit;
use crate::{
    AgentRecord, AgentStore, ApiToken, AuditEntry, AuditLog, AuditQuery, AuditReport, BlobId, BlobStore,
    ChainVerifier, Changes, Checkpoint, ConfigStore, ConfigVersion, CredentialStore, Lease, PackageKey,
    PackageStore, PackageVersion, Page, ReadError, Revision, ServerSecret,
};

type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

impl SqliteStore {
    pub(super) async fn read_lease(&self, role: String) -> Result<Option<Lease>, ReadError> {
        self.one(query(sql::LEASE).bind(role), codec::lease).await
    }

    pub(super) async fn check_reading(&self) -> Result<(), ReadError> {
        self.one(query(sql::META), |_| Ok(())).await.map(drop)
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, ReadError> {
        if self.shared.is_closed() {
            return Err(ReadError::Closed);
        }
        self.readers.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolClosed => ReadError::Closed,
            error => error.into(),
        })
    }

    async fn one<T>(
        &self,
        statement: Statement<'_>,
        decode: impl Fn(&SqliteRow) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let row = statement.fetch_optional(&mut *self.reader().await?).await?;
        row.map(|row| decode(&row)).transpose()
    }

    async fn all<T>(
        &self,
        statement: Statement<'_>,
        decode: impl Fn(&SqliteRow) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        // Decoding waits until the rows are there: the read transaction ends sooner.
        let rows = statement.fetch_all(&mut *self.reader().await?).await?;
        rows.iter().map(decode).collect()
    }

    async fn read_changes(&self, revision: Revision, limit: usize) -> Result<Changes, ReadError> {
        let statement =
            query(sql::CHANGES).bind(saturated(revision.0)).bind(saturated(clamp_limit(limit) as u64));
        let rows = statement.fetch_all(&mut *self.reader().await?).await?;
        let Some(first) = rows.first() else { return Ok(Changes { upto: revision, ..Changes::default() }) };
        let store_revision = codec::revision(first, "store_revision")?;
        let newest = first.try_get::<Option<i64>, _>("newest")?.unwrap_or_default().cast_unsigned();
        let with_record =
            rows.iter().filter(|row| !matches!(row.try_get::<Option<&[u8]>, _>("id"), Ok(None)));
        let records: Vec<_> = with_record.map(codec::agent).collect::<Result<_, _>>()?;
        let more = records.last().is_some_and(|last: &AgentRecord| last.revision.0 < newest);
        let upto = records.last().filter(|_| more).map_or(store_revision, |last| last.revision);
        Ok(Changes { records, upto, more })
    }

    async fn read_checkpoints(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> Result<Page<Checkpoint, AgentId>, ReadError> {
        let limit = clamp_limit(limit);
        let from = after.as_ref().map_or(&[][..], |after| after.as_bytes());
        let mut reader = self.reader().await?;
        let mut rows = query(sql::LEAVES_FROM).bind(from).fetch(&mut *reader);
        let mut checkpoints = Vec::new();
        while checkpoints.len() <= limit
            && let Some(row) = rows.try_next().await?
        {
            let entries = leaves::unpack(row.try_get("entries")?)?;
            checkpoints.extend(entries.filter(|entry| after.is_none_or(|after| entry.id > after)));
        }
        checkpoints.truncate(limit + 1);
        Ok(Page::cut(checkpoints, limit, |last| last.id))
    }

    async fn read_audit(&self, audit: AuditQuery) -> Result<Page<AuditEntry, u64>, ReadError> {
        let limit = clamp_limit(audit.limit);
        let (statement, arguments) = sql::audit_query(&audit, limit).map_err(sqlx::Error::Encode)?;
        let entries = self.all(query_with(statement, arguments), codec::audit_entry).await?;
        Ok(Page::cut(entries, limit, |last| last.seq))
    }

    async fn verify_audit(&self) -> Result<AuditReport, ReadError> {
        let mut reader = self.reader().await?;
        // Log and recorded ends must be of the same moment. Dropped half-way, the transaction ends by itself.
        let mut snapshot = reader.begin().await?;
        let report = walk_chains(&mut snapshot).await?;
        snapshot.rollback().await?;
        Ok(report)
    }
}

async fn walk_chains(reader: &mut SqliteConnection) -> Result<AuditReport, ReadError> {
    let mut verifier = ChainVerifier::default();
    let mut rows = query(sql::AUDIT_ALL).fetch(&mut *reader);
    while let Some(row) = rows.try_next().await? {
        verifier.entry(&codec::audit_entry(&row)?);
    }
    drop(rows);
    let rows = query(sql::CHAINS).fetch_all(&mut *reader).await?;
    let recorded: BTreeMap<_, _> = rows.iter().map(codec::chain).collect::<Result<_, _>>()?;
    Ok(verifier.finish(&recorded))
}

impl AgentStore for SqliteStore {
    fn agent(&self, id: &AgentId) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        Box::pin(self.one(query(sql::AGENT).bind(id.as_bytes().to_vec()), shared_agent))
    }

    fn agent_by_uid(&self, uid: &InstanceUid) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>> {
        Box::pin(self.one(query(sql::AGENT_BY_UID).bind(uid.as_bytes().to_vec()), shared_agent))
    }

    fn agents(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AgentRecord, AgentId>, ReadError>> {
        let limit = clamp_limit(limit);
        let from = after.map_or_else(Vec::new, |after| after.as_bytes().to_vec());
        Box::pin(async move {
            let records = self.all(query(sql::AGENTS).bind(from).bind(one_more(limit)), codec::agent).await?;
            Ok(Page::cut(records, limit, |last| last.id))
        })
    }

    fn changed_since(&self, revision: Revision, limit: usize) -> BoxFuture<'_, Result<Changes, ReadError>> {
        Box::pin(self.read_changes(revision, limit))
    }

    fn checkpoints(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Checkpoint, AgentId>, ReadError>> {
        Box::pin(self.read_checkpoints(after, limit))
    }
}

impl BlobStore for SqliteStore {
    fn blob(&self, id: &BlobId) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        let statement = query(sql::BLOB).bind(id.as_bytes().to_vec());
        Box::pin(self.one(statement, |row| Ok(Bytes::from(row.try_get::<Vec<u8>, _>("bytes")?))))
    }

    fn unreferenced_blobs(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<BlobId, BlobId>, ReadError>> {
        let limit = clamp_limit(limit);
        let from = after.map_or_else(Vec::new, |after| after.as_bytes().to_vec());
        Box::pin(async move {
            let statement = query(sql::UNREFERENCED_BLOBS).bind(from).bind(one_more(limit));
            let ids = self.all(statement, |row| codec::id(row, "id")).await?;
            Ok(Page::cut(ids, limit, |last| *last))
        })
    }
}

impl ConfigStore for SqliteStore {
    fn config_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<String, String>, ReadError>> {
        let limit = clamp_limit(limit);
        Box::pin(async move {
            // No name is empty, so every name is greater.
            let statement = query(sql::CONFIG_NAMES).bind(after.unwrap_or_default()).bind(one_more(limit));
            let names = self.all(statement, |row| Ok(row.try_get("config")?)).await?;
            Ok(Page::cut(names, limit, String::clone))
        })
    }

    fn versions(&self, config: &str) -> BoxFuture<'_, Result<Vec<ConfigVersion>, ReadError>> {
        Box::pin(self.all(query(sql::VERSIONS).bind(config.to_owned()), codec::config_version))
    }

    fn version(&self, config: &str, version: u32) -> BoxFuture<'_, Result<Option<ConfigVersion>, ReadError>> {
        let statement = query(sql::VERSION).bind(config.to_owned()).bind(version);
        Box::pin(self.one(statement, codec::config_version))
    }
}

impl PackageStore for SqliteStore {
    fn package(&self, key: &PackageKey) -> BoxFuture<'_, Result<Option<PackageVersion>, ReadError>> {
        let statement = query(sql::PACKAGE).bind(key.name.clone()).bind(key.version.clone());
        Box::pin(self.one(statement, codec::package))
    }

    fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<PackageVersion, PackageKey>, ReadError>> {
        let limit = clamp_limit(limit);
        // No version is empty, so every key is greater than the empty one.
        let PackageKey { name, version } = after.unwrap_or_else(|| PackageKey::new("", ""));
        Box::pin(async move {
            let statement = query(sql::PACKAGES).bind(name).bind(version).bind(one_more(limit));
            let packages = self.all(statement, codec::package).await?;
            Ok(Page::cut(packages, limit, |last| last.key.clone()))
        })
    }

    fn package_chunks(
        &self,
        key: &PackageKey,
        first: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, ReadError>> {
        let statement = query(sql::PACKAGE_CHUNKS).bind(key.name.clone()).bind(key.version.clone());
        let statement = statement.bind(saturated(first)).bind(saturated(clamp_limit(limit) as u64));
        Box::pin(self.all(statement, |row| codec::id(row, "blob")))
    }
}

impl AuditLog for SqliteStore {
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Page<AuditEntry, u64>, ReadError>> {
        Box::pin(self.read_audit(query))
    }

    fn verify(&self) -> BoxFuture<'_, Result<AuditReport, ReadError>> {
        Box::pin(self.verify_audit())
    }
}

impl CredentialStore for SqliteStore {
    fn token(&self, id: &str) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        Box::pin(self.one(query(sql::TOKEN).bind(id.to_owned()), codec::token))
    }

    fn token_by_secret_hash(
        &self,
        secret_sha256: &[u8; 32],
    ) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>> {
        Box::pin(self.one(query(sql::TOKEN_BY_SECRET).bind(secret_sha256.to_vec()), codec::token))
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Vec<ApiToken>, ReadError>> {
        Box::pin(self.all(query(sql::TOKENS), codec::token))
    }

    fn secret(&self, name: &str) -> BoxFuture<'_, Result<Option<ServerSecret>, ReadError>> {
        let statement = query(sql::SECRET).bind(name.to_owned());
        Box::pin(self.one(statement, |row| Ok(ServerSecret::new(row.try_get::<Vec<u8>, _>("bytes")?))))
    }
}

/// One row more than a page shows: it proves that there is a next page.
fn one_more(limit: usize) -> i64 {
    saturated(limit as u64 + 1)
}

/// A bound for comparison: must not wrap around to below everything.
fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn shared_agent(row: &SqliteRow) -> Result<Arc<AgentRecord>, ReadError> {
    codec::agent(row).map(Arc::new)
}
