//! A disk that fails at a given step, and forgets what was not made durable.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use opamp_client::packages::{FileSystem, LocalFiles};

/// Counts what changes the disk, and fails where the test wants.
#[derive(Debug)]
pub(crate) struct Disk {
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// From this step on nothing happens any more.
    Dead(usize),
    /// This step fails, and others do not.
    Full(usize),
    /// From this step on nothing can be changed, and everything read.
    FullFrom(usize),
}

/// Which of the names that were not made durable survive a power loss.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    Kept,
    Lost,
    NewestKept,
}

#[derive(Debug, Default)]
struct State {
    steps: usize,
    /// Files whose content is not durable.
    soft_content: BTreeSet<PathBuf>,
    /// Names that are not durable, oldest first.
    soft_names: Vec<Name>,
}

#[derive(Debug)]
enum Name {
    Made(PathBuf),
    Moved { from: PathBuf, to: PathBuf, replaced: Option<Replaced> },
}

#[derive(Debug)]
enum Replaced {
    File(Vec<u8>),
    Link(PathBuf),
}

impl Disk {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, state: Mutex::default() }
    }

    /// Whether it came to the step at which it was to fail.
    pub(crate) fn has_failed(&self) -> bool {
        let steps = self.state.lock().unwrap().steps;
        match self.fault {
            Fault::None => false,
            Fault::Dead(at) | Fault::Full(at) | Fault::FullFrom(at) => steps >= at,
        }
    }

    /// The power is gone, and with it what was not durable: half of the content, and of the names what `names` says.
    pub(crate) fn lose(&self, names: Names) {
        let mut state = self.state.lock().unwrap();
        for path in std::mem::take(&mut state.soft_content) {
            // Its name may have been lost, or removed.
            let Ok(mut content) = std::fs::read(&path) else { continue };
            content.truncate(content.len() / 2);
            content.iter_mut().for_each(|byte| *byte = 0);
            std::fs::write(&path, content).unwrap();
        }
        let mut soft = std::mem::take(&mut state.soft_names);
        match names {
            Names::Kept => soft.clear(),
            Names::Lost => {}
            // A disk may write the last change first.
            Names::NewestKept => drop(soft.pop()),
        }
        for name in soft.into_iter().rev() {
            // What is not there any more cannot come back; all of it comes back in the order it went.
            match name {
                Name::Made(path) => drop(LocalFiles.remove(&path)),
                Name::Moved { from, to, replaced } => {
                    let _ = std::fs::rename(&to, &from);
                    match replaced {
                        None => {}
                        Some(Replaced::File(content)) => drop(std::fs::write(&to, content)),
                        Some(Replaced::Link(target)) => drop(std::os::unix::fs::symlink(target, &to)),
                    }
                }
            }
        }
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap();
        state.steps += 1;
        match self.fault {
            Fault::Dead(at) if state.steps >= at => Err(io::Error::other("the power is gone")),
            Fault::FullFrom(at) if state.steps >= at => Err(io::ErrorKind::StorageFull.into()),
            Fault::Full(at) if state.steps == at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(state),
        }
    }

    fn look(&self) -> io::Result<()> {
        match self.fault {
            Fault::Dead(_) if self.has_failed() => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }
}

impl FileSystem for Disk {
    fn append(&self, path: &Path, from: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_content.insert(path.to_owned());
        LocalFiles.append(path, from, data)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        if !path.exists() {
            state.soft_names.push(Name::Made(path.to_owned()));
        }
        LocalFiles.create_directory(path)
    }

    fn entries(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.look()?;
        LocalFiles.entries(path)
    }

    fn is_directory(&self, path: &Path) -> io::Result<bool> {
        self.look()?;
        LocalFiles.is_directory(path)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        self.look()?;
        LocalFiles.length(path)
    }

    fn link(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_names.push(Name::Made(path.to_owned()));
        LocalFiles.link(path, target)
    }

    fn linked(&self, path: &Path) -> io::Result<Option<OsString>> {
        self.look()?;
        LocalFiles.linked(path)
    }

    fn publish(&self, path: &Path, executable: bool) -> io::Result<()> {
        let _state = self.step()?;
        LocalFiles.publish(path, executable)
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        self.look()?;
        LocalFiles.read(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_content.retain(|soft| !soft.starts_with(path));
        LocalFiles.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let replaced = match std::fs::symlink_metadata(to) {
            Ok(there) if there.is_symlink() => Some(Replaced::Link(std::fs::read_link(to)?)),
            Ok(there) if there.is_file() => Some(Replaced::File(std::fs::read(to)?)),
            _ => None,
        };
        LocalFiles.rename(from, to)?;
        let moved = |soft: PathBuf| soft.strip_prefix(from).map(|rest| join(to, rest)).unwrap_or(soft);
        state.soft_content = std::mem::take(&mut state.soft_content).into_iter().map(moved).collect();
        for name in &mut state.soft_names {
            // What is in a directory that is moved is moved with it.
            let (Name::Made(path) | Name::Moved { to: path, .. }) = name;
            if path != from {
                *path = moved(std::mem::take(path));
            }
        }
        state.soft_names.push(Name::Moved { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_content.remove(path);
        state.soft_names.retain(|name| name.path().parent() != Some(path));
        Ok(())
    }

    fn sync_tree(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_content.retain(|soft| !soft.starts_with(path));
        state.soft_names.retain(|name| !name.path().parent().is_some_and(|parent| parent.starts_with(path)));
        Ok(())
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        state.soft_content.insert(path.to_owned());
        LocalFiles.write(path, data)
    }
}

impl Name {
    fn path(&self) -> &Path {
        match self {
            Self::Made(path) | Self::Moved { to: path, .. } => path,
        }
    }
}

/// `join` with nothing adds a slash, which makes a file's path another one.
fn join(to: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) }
}
