//! Opening: the file, its permissions, the schema.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _, query, raw_sql};

use super::fault::fault;
use super::sql;
use crate::{FaultKind, OpenError};

/// How an embedded store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// How long to wait for another process that holds the write lock. Default 5 s; then the write answers
    /// [`Unavailable`](crate::CommitError::Unavailable).
    pub busy_timeout: Duration,
    /// How many commits may wait for the writer before callers wait in line. Default 1,024.
    pub commits_queued_max: usize,
    /// How many reads run at once; each has a thread and about 2 MiB of page cache while in use. Default 4.
    pub readers_max: u32,
    /// The size the database file may reach; writes beyond it fail as on a full disk. `None`, the default, leaves it
    /// to the disk.
    pub size_max_bytes: Option<u64>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(5),
            commits_queued_max: 1_024,
            readers_max: 4,
            size_max_bytes: None,
        }
    }
}

/// Where the writer's connections come from.
#[derive(Debug)]
pub(super) enum Source {
    File(Box<SqliteConnectOptions>),
    /// A pool that belongs to the application; the writer takes one connection out of it.
    Pool(SqlitePool),
}

impl Source {
    pub(super) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        match self {
            Self::File(options) => options.connect().await,
            Self::Pool(pool) => {
                let mut connection = pool.acquire().await?.detach();
                raw_sql(sql::MAKE_DURABLE).execute(&mut connection).await?;
                Ok(connection)
            }
        }
    }

    /// The first connection, with the schema brought up to date.
    pub(super) async fn open(&self, patience: Duration) -> Result<SqliteConnection, OpenError> {
        let mut connection = self.connect_patiently(patience).await.map_err(|error| unavailable(&error))?;
        let row =
            query(sql::DURABILITY).fetch_one(&mut connection).await.map_err(|error| unavailable(&error))?;
        let mode: String = row.try_get("journal_mode").map_err(|error| unavailable(&error))?;
        let synchronous: i64 = row.try_get("synchronous").map_err(|error| unavailable(&error))?;
        const FULL: i64 = 2;
        if mode != "wal" || synchronous < FULL {
            let found = format!("journal mode {mode}, synchronous {synchronous}; it takes wal and {FULL}");
            return Err(OpenError::NotDurable(found));
        }
        migrate(&mut connection, sql::MIGRATIONS).await?;
        Ok(connection)
    }

    /// Changing a new file to a write-ahead log needs the file for itself, and does not wait for that by itself.
    async fn connect_patiently(&self, patience: Duration) -> Result<SqliteConnection, sqlx::Error> {
        const PAUSE: Duration = Duration::from_millis(10);
        let mut waited = Duration::ZERO;
        loop {
            match self.connect().await {
                Err(error) if fault(&error).kind == FaultKind::Busy && waited < patience => {
                    tokio::time::sleep(PAUSE).await;
                    waited += PAUSE;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Makes the file, or tightens its permissions, and describes how to connect to it.
pub(super) fn prepare(path: &Path, options: &SqliteOptions) -> Result<SqliteConnectOptions, OpenError> {
    prepare_file(path)
        .map_err(|error| OpenError::File { path: path.display().to_string(), reason: error.to_string() })?;
    let mut connect = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Only some systems tell a flush of the device from one of the operating system.
        .pragma("fullfsync", "ON")
        // After a burst, the log shrinks to this again.
        .pragma("journal_size_limit", (64 << 20).to_string())
        // What is deleted may be a secret. Overwriting it costs nothing where its page is written anyway; the pages of
        // large blobs are left to be reused.
        .pragma("secure_delete", "FAST")
        // sqlx and the database take milliseconds in 31 bits.
        .busy_timeout(options.busy_timeout.min(Duration::from_secs(1 << 20)))
        .disable_statement_logging();
    if let Some(bytes) = options.size_max_bytes {
        const PAGE_BYTES: u64 = 4_096;
        connect = connect.page_size(4_096).pragma("max_page_count", (bytes / PAGE_BYTES).max(1).to_string());
    }
    Ok(connect)
}

/// The pool of connections that only read.
pub(super) fn readers(connect: &SqliteConnectOptions, options: &SqliteOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(options.readers_max.max(1))
        .min_connections(0)
        // A file in the same machine does not go away between two reads.
        .test_before_acquire(false)
        .connect_lazy_with(connect.clone().pragma("query_only", "ON"))
}

/// Brings the schema up to date, once, however many processes open the file at the same time.
async fn migrate(connection: &mut SqliteConnection, migrations: &[&'static str]) -> Result<(), OpenError> {
    // The write lock is held from before the version is read until after it is written.
    query(sql::BEGIN_WRITE).execute(&mut *connection).await.map_err(|error| unavailable(&error))?;
    match migrate_locked(connection, migrations).await {
        Ok(()) => {
            query(sql::COMMIT).execute(connection).await.map_err(|error| unavailable(&error))?;
            Ok(())
        }
        Err(error) => {
            let _ = query(sql::ROLLBACK).execute(connection).await;
            Err(error)
        }
    }
}

async fn migrate_locked(
    connection: &mut SqliteConnection,
    migrations: &[&'static str],
) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| unavailable(&error);
    query(sql::SCHEMA_TABLE).execute(&mut *connection).await.map_err(failed)?;
    let row = query(sql::SCHEMA_VERSION).fetch_one(&mut *connection).await.map_err(failed)?;
    let found: u32 = row.try_get(0).map_err(failed)?;
    let supported = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > supported {
        return Err(OpenError::NewerSchema { found, supported });
    }
    for (version, step) in (1_u32..).zip(migrations).skip(found as usize) {
        raw_sql(*step).execute(&mut *connection).await.map_err(failed)?;
        query(sql::SCHEMA_APPLIED).bind(version).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

fn prepare_file(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing: Vec<_> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    if !missing.is_empty() {
        create_private_directory(directory)?;
        // Each new entry in its parent has to survive power loss, and a relative path ends in an empty one.
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new(".")))?;
        }
    }
    if !path.exists() {
        create_private_file(path)?;
        // The entry in the directory has to survive power loss as well.
        sync_directory(directory)?;
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        make_private(&PathBuf::from(file))?;
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(unix)]
fn create_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(unix)]
fn create_private_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?.sync_all()
}

/// Takes rights from everybody but the owner; the log and its index get theirs from the database file.
#[cfg(unix)]
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

// Elsewhere the rights of the directory decide.
#[cfg(not(unix))]
fn create_private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(not(unix))]
fn create_private_file(path: &Path) -> io::Result<()> {
    File::options().write(true).create(true).truncate(false).open(path)?.sync_all()
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> io::Result<()> {
    Ok(())
}

fn unavailable(error: &sqlx::Error) -> OpenError {
    OpenError::Unavailable(fault(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE one (x INTEGER) STRICT; INSERT INTO one (x) VALUES (1);";
    const TWO: &str = "UPDATE one SET x = x + 1; CREATE TABLE two (x INTEGER) STRICT;";
    const BAD: &str = "UPDATE one SET x = x + 1; CREATE TABLE one (x INTEGER) STRICT;";

    /// The only value of table `one`.
    async fn value(connection: &mut SqliteConnection) -> i64 {
        query("SELECT x FROM one").fetch_one(connection).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn every_migration_runs_once_and_in_order() {
        let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        migrate(&mut connection, &[ONE]).await.unwrap();
        assert_eq!(value(&mut connection).await, 1);
        for _ in 0..2 {
            migrate(&mut connection, &[ONE, TWO]).await.unwrap();
            assert_eq!(value(&mut connection).await, 2);
        }
        let error = migrate(&mut connection, &[ONE]).await.unwrap_err();
        assert_eq!(error, OpenError::NewerSchema { found: 2, supported: 1 });
    }

    #[tokio::test]
    async fn a_failed_migration_leaves_the_version_before() {
        let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        migrate(&mut connection, &[ONE]).await.unwrap();
        assert!(matches!(migrate(&mut connection, &[ONE, BAD]).await, Err(OpenError::Unavailable(_))));
        assert_eq!(value(&mut connection).await, 1);
        migrate(&mut connection, &[ONE, TWO]).await.unwrap();
        assert_eq!(value(&mut connection).await, 2);
    }
}
