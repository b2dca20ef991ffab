//! The directory an agent keeps its state in: private, its own, and never half written.
//!
//! | file | what it is |
//! |---|---|
//! | `opamp-state` | identity, sequence, what became of the last remote configuration |
//! | `opamp-state.lock` | held while an agent runs here |
//! | `remote-config.yaml` | the remote configuration in use, with its hash in the first line |

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opamp_client::{ConfigHash, FileState, OfferStatus, SavedOffer, SavedState, StateError, StateStore};

const HASH_LINE: &str = "# hash ";
const PROBE_FILE: &str = "write-check";
const REMOTE_FILE: &str = "remote-config.yaml";
const STATE_FILE: &str = "opamp-state";

/// A directory that belongs to this agent until it is dropped.
#[derive(Debug)]
pub(crate) struct Storage {
    directory: PathBuf,
    /// Identity and status, kept by the client. One for all runs of the agent, because it holds the lock.
    state: Arc<FileState>,
}

/// Why a directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// Two agents with one identity would take turns in throwing each other out.
    #[error(
        "storage directory {} is in use by another agent; stop that one, or set `storage.directory`",
        .0.display()
    )]
    InUse(PathBuf),
    /// It cannot be made or written.
    #[error(
        "storage directory {} cannot be written: {source}; check its owner and mode, or set `storage.directory`",
        .path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in there is no state.
    #[error(transparent)]
    State(StateError),
}

/// What became of the last remote configuration, next to what the saved state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in force, whatever was saved: the end of the last run came between keeping it and saving that.
    Applied,
    /// What was saved.
    AsSaved,
    /// It is not there any more; the server has to offer it again.
    Forgotten,
}

/// A remote configuration as it is kept.
pub(crate) struct Kept {
    pub(crate) hash: ConfigHash,
    pub(crate) text: String,
}

impl Storage {
    /// Makes the directory if it is missing, for the owner alone, and takes its lock.
    pub(crate) fn open(directory: &Path) -> Result<Self, StorageError> {
        let state = Arc::new(FileState::new(directory.join(STATE_FILE)));
        let storage = Self { directory: directory.into(), state };
        let path = || directory.to_owned();
        storage.state.load().map_err(|error| match error {
            StateError::InUse { .. } => StorageError::InUse(path()),
            StateError::Io { source, .. } => StorageError::NotWritable { path: path(), source },
            other => StorageError::State(other),
        })?;
        storage.probe().map_err(|source| StorageError::NotWritable { path: path(), source })?;
        Ok(storage)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What an earlier run left.
    pub(crate) fn saved(&self) -> Result<Option<SavedState>, StateError> {
        self.state.load()
    }

    /// The state for a client, with what became of the last remote configuration as it is in truth.
    pub(crate) fn state(&self, config: Outcome) -> impl StateStore + use<> {
        AgentState { file: Arc::clone(&self.state), config }
    }

    /// The remote configuration that was applied last; `None` if there was none. One that cannot be read is an error
    /// in words.
    pub(crate) fn remote(&self) -> Result<Option<Kept>, String> {
        let path = self.directory.join(REMOTE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let first = text.lines().next().and_then(|line| line.strip_prefix(HASH_LINE));
        let hash = first.and_then(|hash| ConfigHash::from_hex(hash).ok());
        let hash = hash.ok_or_else(|| format!("{}: the first line is not `{HASH_LINE}…`", path.display()))?;
        Ok(Some(Kept { hash, text }))
    }

    /// Removes the remote configuration: it was another agent's.
    pub(crate) fn forget_remote(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(REMOTE_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces the remote configuration, as a whole or not at all. From the new name on it is the one in force, also
    /// after a crash: see [`Outcome::Applied`].
    pub(crate) fn keep_remote(&self, hash: &ConfigHash, text: &str) -> io::Result<()> {
        let path = self.directory.join(REMOTE_FILE);
        let new = path.with_extension("new");
        let content = format!("{HASH_LINE}{hash}\n{text}");
        let written = write_durably(&new, &content).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // What is half written is of no use to anybody.
            let _ = fs::remove_file(&new);
        }
        written?;
        // The new name is durable when its directory is. If it gets lost with the power, the server offers it again.
        if let Err(error) = File::open(&self.directory).and_then(|directory| directory.sync_all()) {
            tracing::warn!("{} may lose its last change with the power: {error}", self.directory.display());
        }
        Ok(())
    }

    /// Whether a file can be written here now.
    pub(crate) fn probe(&self) -> io::Result<()> {
        let path = self.directory.join(PROBE_FILE);
        write_durably(&path, "ok\n")?;
        fs::remove_file(path)
    }
}

/// The client's state, with a status that is true.
struct AgentState {
    file: Arc<FileState>,
    config: Outcome,
}

impl StateStore for AgentState {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        let mut saved = self.file.load()?;
        if let Some(saved) = &mut saved {
            let config = saved.remote_config.take();
            saved.remote_config = match self.config {
                Outcome::Applied => config.map(|SavedOffer { hash, .. }| SavedOffer {
                    hash,
                    status: OfferStatus::Applied,
                    error: String::new(),
                    attempts: 0,
                }),
                Outcome::AsSaved => config,
                Outcome::Forgotten => None,
            };
        }
        Ok(saved)
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        self.file.save(state)
    }
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    // What a crash left behind may be open to others.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
