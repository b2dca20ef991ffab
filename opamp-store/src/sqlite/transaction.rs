//! One write transaction: its begin and end, what it looks up to judge batches, and what it counts.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{AgentId, InstanceUid};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Row as _, Sqlite, query};

use super::fault::WriteFault;
use super::found::Found;
use super::{codec, sql};
use crate::judge::{ExistingVersion, Wanted};
use crate::{BatchContents, BlobPins, Fence, PackageKey, Revision};

/// A transaction that holds the write lock. Dropped without [`Transaction::commit`], it stays open on its connection,
/// which then has to be closed.
pub(super) struct Transaction<'c> {
    connection: &'c mut SqliteConnection,
    /// The last revision given out.
    pub(super) revision: Revision,
    /// The `seq` of the last audit entry.
    pub(super) audit_seq: u64,
    begun_at: (Revision, u64),
    pub(super) counts: Counts,
}

/// What a transaction wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) commits: u64,
    pub(super) rows: u64,
    pub(super) checkpoint_rows: u64,
    pub(super) checkpoints: u64,
}

/// The columns of an agent that a write needs to know.
pub(super) struct FormerAgent {
    pub(super) uid: InstanceUid,
    pub(super) pins: BlobPins,
    pub(super) packages: BTreeSet<PackageKey>,
}

impl<'c> Transaction<'c> {
    /// Takes the write lock.
    pub(super) async fn begin(connection: &'c mut SqliteConnection) -> Result<Self, WriteFault> {
        query(sql::BEGIN_WRITE).execute(&mut *connection).await?;
        let meta = query(sql::META).fetch_one(&mut *connection).await?;
        let revision = codec::revision(&meta, "revision")?;
        let audit_seq = meta.try_get::<i64, _>("audit_seq")?.cast_unsigned();
        let begun_at = (revision, audit_seq);
        Ok(Self { connection, revision, audit_seq, begun_at, counts: Counts::default() })
    }

    /// Makes everything durable, or nothing.
    pub(super) async fn commit(mut self) -> Result<Counts, WriteFault> {
        if self.begun_at != (self.revision, self.audit_seq) {
            let meta = query(sql::SET_META).bind(self.revision.0.cast_signed());
            self.write(meta.bind(self.audit_seq.cast_signed())).await?;
        }
        let committed = query(sql::COMMIT).execute(&mut *self.connection).await;
        committed.map_err(|error| WriteFault::of_commit(&error))?;
        Ok(self.counts)
    }

    /// Runs a statement that writes, and counts its rows.
    pub(super) async fn write(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, WriteFault> {
        let rows = self.write_uncounted(query).await?;
        self.counts.rows += rows;
        Ok(rows)
    }

    pub(super) async fn write_uncounted(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<u64, WriteFault> {
        Ok(query.execute(&mut *self.connection).await?.rows_affected())
    }

    pub(super) async fn row(
        &mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<Option<SqliteRow>, WriteFault> {
        Ok(query.fetch_optional(&mut *self.connection).await?)
    }

    /// The revision of the batch that used this key.
    pub(super) async fn revision_of_key(&mut self, key: &str) -> Result<Option<Revision>, WriteFault> {
        let row = self.row(query(sql::KEY).bind(key)).await?;
        Ok(row.map(|row| codec::revision(&row, "revision")).transpose()?)
    }

    /// Looks up what a batch is judged by, and what writing its agents needs to know.
    pub(super) async fn existing(
        &mut self,
        wanted: &Wanted,
        contents: &BatchContents,
        fence: Option<&Fence>,
    ) -> Result<(Found, BTreeMap<AgentId, FormerAgent>), WriteFault> {
        let mut existing = Found::default();
        let mut former = BTreeMap::new();
        if let Some(fence) = fence {
            let row = self.row(query(sql::EPOCH).bind(&fence.role)).await?;
            existing.epoch = row.map_or(Ok(0), |row| row.try_get::<i64, _>("epoch"))?.cast_unsigned();
        }
        for row in self.rows_in(sql::EXISTING_AGENTS, &wanted.agents, AgentId::as_bytes).await? {
            let id = codec::id(&row, "id")?;
            let uid = codec::id(&row, "uid")?;
            existing.agents.insert(id, (uid, codec::revision(&row, "revision")?));
            let (pins, packages) = (codec::pins(&row)?, codec::package_pins(&row)?);
            former.insert(id, FormerAgent { uid, pins, packages });
        }
        for row in self.rows_in(sql::UID_OWNERS, &wanted.uids, InstanceUid::as_bytes).await? {
            existing.uid_owners.insert(codec::id(&row, "uid")?, codec::id(&row, "id")?);
        }
        for row in self.rows_in(sql::EXISTING_BLOBS, &wanted.blobs, |id| id.as_bytes()).await? {
            existing.blobs.insert(codec::id(&row, "id")?);
        }
        for (config, number) in &wanted.versions {
            let row = self.row(query(sql::VERSION).bind(config).bind(number)).await?;
            if let Some(version) = row.map(|row| codec::config_version(&row)).transpose()? {
                existing.versions.insert((config.clone(), *number), ExistingVersion::of(&version));
            }
        }
        if !wanted.packages.is_empty() {
            self.existing_packages(wanted, contents, &mut existing).await?;
        }
        if !wanted.server_secrets.is_empty() {
            let names = codec::text_list(&wanted.server_secrets);
            for row in query(sql::EXISTING_SECRETS).bind(names).fetch_all(&mut *self.connection).await? {
                existing.server_secrets.insert(row.try_get("name")?);
            }
            existing.server_secret_count = self.count(sql::SECRET_COUNT).await?;
        }
        if !wanted.tokens.is_empty() {
            self.existing_tokens(wanted, contents, &mut existing).await?;
        }
        Ok((existing, former))
    }

    /// Those of `ids` that have a record.
    pub(super) async fn agents_among(
        &mut self,
        ids: &BTreeSet<AgentId>,
    ) -> Result<BTreeSet<AgentId>, WriteFault> {
        let rows = self.rows_in(sql::EXISTING_AGENT_IDS, ids, AgentId::as_bytes).await?;
        Ok(rows.iter().map(|row| codec::id(row, "id")).collect::<Result<_, _>>()?)
    }

    async fn existing_packages(
        &mut self,
        wanted: &Wanted,
        contents: &BatchContents,
        existing: &mut Found,
    ) -> Result<(), WriteFault> {
        for key in &wanted.packages {
            let found = query(sql::EXISTING_PACKAGE).bind(&key.name).bind(&key.version);
            if let Some(row) = self.row(found).await? {
                existing.packages.insert(key.clone(), codec::revision(&row, "revision")?);
            }
        }
        for (key, package) in &contents.packages {
            let user = query(sql::PACKAGE_USER).bind(&key.name).bind(&key.version);
            if package.is_none()
                && let Some(row) = self.row(user).await?
            {
                existing.package_users.insert(key.clone(), codec::id(&row, "agent")?);
            }
        }
        if !contents.packages.is_empty() {
            existing.package_count = self.count(sql::PACKAGE_COUNT).await?;
        }
        Ok(())
    }

    async fn count(&mut self, sql: &'static str) -> Result<usize, WriteFault> {
        let count: i64 = query(sql).fetch_one(&mut *self.connection).await?.try_get(0)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    async fn existing_tokens(
        &mut self,
        wanted: &Wanted,
        contents: &BatchContents,
        existing: &mut Found,
    ) -> Result<(), WriteFault> {
        let ids = codec::text_list(&wanted.tokens);
        for row in query(sql::EXISTING_TOKENS).bind(ids).fetch_all(&mut *self.connection).await? {
            existing.tokens.insert(row.try_get("id")?);
        }
        if contents.tokens.keys().any(|id| !existing.tokens.contains(id)) {
            existing.token_count = self.count(sql::TOKEN_COUNT).await?;
        }
        for row in self.rows_in(sql::SECRET_OWNERS, &wanted.secrets, |secret| secret).await? {
            existing.secret_owners.insert(codec::digest(&row, "secret")?, row.try_get("id")?);
        }
        Ok(())
    }

    /// The rows of a statement that selects by a list of ids; none is asked for when the list is empty.
    async fn rows_in<T, const N: usize>(
        &mut self,
        sql: &'static str,
        ids: &BTreeSet<T>,
        bytes: impl Fn(&T) -> &[u8; N],
    ) -> Result<Vec<SqliteRow>, WriteFault> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = codec::hex_list(ids.iter().map(bytes));
        Ok(query(sql).bind(list).fetch_all(&mut *self.connection).await?)
    }
}
