//! The file system as the installer uses it: few operations, each whole in itself, so that a power loss between any two of
//! them can be tried out.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// What an [`Installer`](super::Installer) does to the disk. [`LocalFiles`] is the one to use; another may sit between to
/// count, to limit, or to fail.
///
/// Methods block; they are called where that is allowed. What is not synced may be gone after a power loss.
pub trait FileSystem: Send + Sync + 'static {
    /// Cuts the file to `from` bytes and writes data after them. A missing file is made, for its owner only.
    ///
    /// # Errors
    ///
    /// What the system says, here and below.
    fn append(&self, path: &Path, from: u64, data: &[u8]) -> io::Result<()>;

    /// Makes a directory, and those above it.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory; none if there is no such directory.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn entries(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Whether there is a directory of this name, and no link to one.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn is_directory(&self, path: &Path) -> io::Result<bool>;

    /// Length of a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn length(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Makes a link to something beside it. Where links need privileges it is a file that holds the name.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn link(&self, path: &Path, target: &OsStr) -> io::Result<()>;

    /// Where a link leads; `None` if there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn linked(&self, path: &Path) -> io::Result<Option<OsString>>;

    /// Lets others than the owner read a file, and execute it if it may be.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn publish(&self, path: &Path, executable: bool) -> io::Result<()>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Removes a file, a link, or a directory with all that is in it. What is not there is removed.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file, link or directory another name; a file or link of that name is replaced in the same moment.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a file's content, or a directory's names, durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory with all that is in it durable. Links in it are not followed.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn sync_tree(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file with this content, for its owner only; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()>;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl FileSystem for LocalFiles {
    fn append(&self, path: &Path, from: u64, data: &[u8]) -> io::Result<()> {
        let mut file = private().create(true).truncate(false).open(path)?;
        file.set_len(from)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(data)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let Some(entries) = present(fs::read_dir(path))? else { return Ok(Vec::new()) };
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn is_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(present(fs::symlink_metadata(path))?.is_some_and(|metadata| metadata.is_dir()))
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(present(fs::metadata(path))?.map(|metadata| metadata.len()))
    }

    fn link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        #[cfg(unix)]
        return std::os::unix::fs::symlink(target, path);
        #[cfg(not(unix))]
        return fs::write(path, target.as_encoded_bytes());
    }

    fn linked(&self, path: &Path) -> io::Result<Option<OsString>> {
        #[cfg(unix)]
        return Ok(present(fs::read_link(path))?.map(Into::into));
        #[cfg(not(unix))]
        return Ok(present(fs::read_to_string(path))?.map(Into::into));
    }

    fn publish(&self, path: &Path, executable: bool) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
        }
        #[cfg(not(unix))]
        {
            let _ = (path, executable); // a matter of names and inherited rights there
            Ok(())
        }
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        present(removed).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        if cfg!(not(unix)) && fs::metadata(path)?.is_dir() {
            return Ok(());
        }
        File::open(path)?.sync_all()
    }

    fn sync_tree(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.sync_tree(&entry.path())?;
            } else if kind.is_file() {
                self.sync(&entry.path())?;
            }
        }
        self.sync(path)
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        // Whatever is there, and whoever it is open to: it is not written through.
        self.remove(path)?;
        private().create_new(true).open(path)?.write_all(data)
    }
}

/// Opens for writing what only the owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// What is there.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}
