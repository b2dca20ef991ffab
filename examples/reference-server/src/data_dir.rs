//! The data directory: created private, locked against a second server.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

const LOCK_FILE: &str = "server.lock";
const DATABASE_FILE: &str = "opamp.db";
const SELF_AGENT_FILE: &str = "self-agent.state";

/// A data directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Held for its lock.
    _lock: File,
}

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another server runs on it: stop that one, or set `data_dir` to another directory.
    #[error(
        "data directory {} is in use by a running server: stop it first, or set `data_dir` to another directory",
        .0.display()
    )]
    InUse(PathBuf),
    /// It cannot be created or written: check owner and mode, or set `data_dir` to another directory.
    #[error(
        "data directory {} cannot be written: {source}; check its owner and mode, or set `data_dir`",
        .path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl DataDir {
    /// Creates the directory if it is missing (mode 0700) and takes its lock.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let not_writable = |source| DataDirError::NotWritable { path: path.into(), source };
        create_private(path).map_err(not_writable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir { path: path.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.into())),
            Err(TryLockError::Error(source)) => Err(not_writable(source)),
        }
    }

    /// Path of the database file.
    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Path of the file with the Self-Agent's identity.
    pub fn self_agent(&self) -> PathBuf {
        self.path.join(SELF_AGENT_FILE)
    }
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
