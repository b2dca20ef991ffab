//! The agent's state in a file: readable, replaced as a whole, for the owner's eyes only, and for one agent at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::state_text::{parse, print};
use crate::saved::{SavedState, StateError, StateStore};

/// The largest file that is read; what is in it has bounds of its own, which the application may raise.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Keeps an agent's state in one file.
///
/// A save writes a new file beside it, makes that durable and puts it into place, so that a crash at any moment
/// leaves the old state or the new one. On Unix only the owner may read it. A missing directory is made. A second file,
/// with `.lock` after its name, is locked as long as this exists, so that no two agents share an identity.
#[derive(Debug)]
pub struct FileState {
    path: PathBuf,
    /// One at a time, and the lock once it is taken.
    lock: Mutex<Option<File>>,
}

impl FileState {
    /// State in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), lock: Mutex::new(None) }
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn io(&self, source: io::Error) -> StateError {
        StateError::Io { location: self.location(), source }
    }

    /// Makes the file ours, if it is not yet.
    fn own(&self) -> Result<MutexGuard<'_, Option<File>>, StateError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            make_directory(directory(&self.path)).map_err(|error| self.io(error))?;
            let file = private().truncate(false).open(beside(&self.path, ".lock"));
            let file = file.map_err(|error| self.io(error))?;
            match file.try_lock() {
                Ok(()) => {}
                // Some network file systems have no locks; what can be had without is had.
                Err(TryLockError::Error(error)) if has_no_locks(&error) => {}
                Err(TryLockError::Error(error)) => return Err(self.io(error)),
                Err(TryLockError::WouldBlock) => return Err(StateError::InUse { location: self.location() }),
            }
            *lock = Some(file);
        }
        Ok(lock)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = beside(&self.path, ".new");
        // Whatever is left there from before, and whoever it is open to: it is not written through.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = write_durably(&new, text).and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // What is half written is of no use to anybody.
            let _ = fs::remove_file(&new);
        }
        written?;
        make_durable(directory(&self.path))
    }
}

/// Unlocks in so many words: a child process that is just being started holds a copy of every descriptor for a moment, and
/// a lock goes away by itself only with the last copy.
impl Drop for FileState {
    fn drop(&mut self) {
        if let Some(file) = self.lock.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = file.unlock(); // at the latest the process's end does it
        }
    }
}

impl StateStore for FileState {
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        let _lock = self.own()?;
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mut text = Zeroizing::new(String::new());
        let corrupt = |what| StateError::Corrupt { location: self.location(), what };
        match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(corrupt("it is not text".to_owned()));
            }
            read => read.map_err(|error| self.io(error))?,
        };
        parse(&text).map(Some).map_err(corrupt)
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        let _lock = self.own()?;
        self.replace(&print(state)).map_err(|error| self.io(error))
    }
}

fn has_no_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = 37;
    error.kind() == io::ErrorKind::Unsupported
        || (cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Opens for writing what only the owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = private().create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The new name is durable when its directory is.
fn make_durable(directory: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::state_text::tests::state;
    use super::*;

    /// A directory of this test alone, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("opamp-state-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn state(&self) -> FileState {
            FileState::new(self.0.join("state"))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_the_newest_counts() {
        let directory = Directory::new("newest");
        let file = directory.state();
        assert_eq!(file.load().unwrap(), None, "nothing was saved yet");
        for number in [1, 2] {
            file.save(&state(number)).unwrap();
            assert_eq!(file.load().unwrap(), Some(state(number)));
        }
        drop(file);
        assert_eq!(directory.state().load().unwrap(), Some(state(2)));
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 2, "state and lock");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = Directory::new("mode");
        // Left over from a crash, and open to everybody.
        let left = directory.0.join("state.new");
        fs::write(&left, "half").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        directory.state().save(&state(1)).unwrap();
        let mode = fs::metadata(directory.0.join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_save_that_fails_leaves_the_old_state() {
        let directory = Directory::new("fails");
        let file = directory.state();
        file.save(&state(1)).unwrap();
        // The place of the new file is taken by something that is no file.
        fs::create_dir(directory.0.join("state.new")).unwrap();
        assert!(matches!(file.save(&state(2)), Err(StateError::Io { .. })));
        assert_eq!(file.load().unwrap(), Some(state(1)));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_somebody_planted_is_not_written_through() {
        let directory = Directory::new("link");
        let victim = directory.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.0.join("state.new")).unwrap();
        let file = directory.state();
        file.save(&state(1)).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!fs::symlink_metadata(directory.0.join("state")).unwrap().is_symlink());
        assert_eq!(file.load().unwrap(), Some(state(1)));
    }

    #[test]
    fn no_two_agents_share_a_state() {
        let directory = Directory::new("two");
        let first = directory.state();
        first.save(&state(1)).unwrap();
        let second = directory.state();
        assert!(matches!(second.load(), Err(StateError::InUse { .. })));
        assert!(matches!(second.save(&state(2)), Err(StateError::InUse { .. })));
        drop(first);
        assert_eq!(second.load().unwrap(), Some(state(1)));
    }

    #[cfg(unix)]
    #[test]
    fn a_state_is_free_at_once_also_while_the_process_starts_others() {
        let directory = Directory::new("fork");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        std::process::Command::new("true").status().unwrap();
                    }
                });
            }
            let refused = (0..500).filter(|_| directory.state().load().is_err()).count();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(refused, 0);
        });
    }

    #[test]
    fn what_is_no_text_is_no_state() {
        let directory = Directory::new("binary");
        fs::write(directory.0.join("state"), b"opamp-agent-state 1\n\xff\xfe").unwrap();
        assert!(matches!(directory.state().load(), Err(StateError::Corrupt { .. })));
    }

    #[test]
    fn a_missing_directory_is_made() {
        let directory = Directory::new("missing");
        let file = FileState::new(directory.0.join("a/b/state"));
        assert_eq!(file.load().unwrap(), None);
        file.save(&state(1)).unwrap();
        let nowhere = FileState::new(directory.0.join("a/b/state/c"));
        assert!(matches!(nowhere.load(), Err(StateError::Io { .. })), "a file is no directory");
    }
}
