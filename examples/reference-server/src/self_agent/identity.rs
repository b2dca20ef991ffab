//! Who the Self-Agent is: an identity that lasts as long as the data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use opamp_client::{FileState, InstanceUid, SavedState, StateError, StateStore, Wall};

/// Identity and state of the Self-Agent: in a file, or with nothing but memory behind it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    saved: SavedState,
    file: Option<Arc<FileState>>,
}

impl Identity {
    /// What an earlier process left in this file; without it, or without a file, a new identity. A file that is damaged is
    /// put aside. One that cannot be read, which may be over at the next start, is left alone: this process has an identity
    /// of its own then, and the server starts all the same.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn load(path: Option<PathBuf>, now: Wall) -> Result<Self, getrandom::Error> {
        let mut file = path.as_ref().map(|path| Arc::new(FileState::new(path)));
        let saved = match file.as_ref().map_or(Ok(None), |file| file.load()) {
            Ok(saved) => saved,
            Err(error) => {
                let damaged = matches!(error, StateError::Corrupt { .. });
                match path.filter(|_| damaged).map(put_aside) {
                    Some(Ok(())) => {
                        tracing::warn!(%error, "the Self-Agent starts as a new agent: its state was put aside");
                    }
                    _ => {
                        tracing::warn!(%error, "the Self-Agent is a new agent until the next start");
                        file = None;
                    }
                }
                None
            }
        };
        let saved = match saved {
            Some(saved) => saved,
            None => {
                let mut random = [0; 10];
                getrandom::fill(&mut random)?;
                SavedState::new(InstanceUid::v7(now.0, random))
            }
        };
        Ok(Identity { saved, file })
    }

    /// The identity that an earlier process left in this file, if it can be read.
    pub(crate) fn left(path: &Path) -> Option<InstanceUid> {
        let left = path.exists().then(|| FileState::new(path).load().ok().flatten());
        left.flatten().map(|saved| saved.uid)
    }

    /// The identity on the wire.
    pub(crate) fn uid(&self) -> InstanceUid {
        self.saved.uid
    }
}

impl StateStore for Identity {
    /// As of the start of this process: whom the port lets in was decided then.
    fn load(&self) -> Result<Option<SavedState>, StateError> {
        Ok(Some(self.saved.clone()))
    }

    fn save(&self, state: &SavedState) -> Result<(), StateError> {
        self.file.as_ref().map_or(Ok(()), |file| file.save(state))
    }
}

/// Keeps a damaged file for whoever wants to know.
fn put_aside(path: PathBuf) -> io::Result<()> {
    let mut aside = path.clone().into_os_string();
    aside.push(".damaged");
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_700_000_000_000);

    /// A directory of this test alone, removed at its end, and the file in it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = Place(std::env::temp_dir().join(format!("self-agent-{name}-{}", std::process::id())));
            fs::create_dir_all(&place.0).unwrap();
            place
        }

        fn file(&self) -> PathBuf {
            self.0.join("state")
        }

        fn load(&self) -> Identity {
            Identity::load(Some(self.file()), NOW).unwrap()
        }

        /// What the agent does once it runs. The file belongs to one identity at a time, until that is dropped.
        fn saved(&self) -> InstanceUid {
            let identity = self.load();
            identity.save(&identity.saved).unwrap();
            identity.uid()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_identity_outlives_its_process_and_a_damaged_file_costs_only_the_identity() {
        let place = Place::new("damaged");
        assert_ne!(place.load().uid(), place.load().uid(), "nothing is written before it is used");
        let first = place.saved();
        assert_eq!(place.load().uid(), first);
        fs::write(place.file(), "garbage").unwrap();
        let second = place.saved();
        assert_ne!(second, first);
        assert_eq!(place.load().uid(), second, "the damaged file is replaced");
        assert_eq!(fs::read_to_string(place.0.join("state.damaged")).unwrap(), "garbage", "and kept");
    }

    #[test]
    fn an_identity_is_not_lost_to_a_fault_that_passes() {
        let place = Place::new("passing");
        let first = place.saved();
        // Another has it, for the moment.
        let holder = place.load();
        let meanwhile = place.saved();
        assert_ne!(meanwhile, first);
        drop(holder);
        assert_eq!(place.load().uid(), first);
        // It is there and cannot be read.
        fs::rename(place.file(), place.0.join("moved")).unwrap();
        fs::create_dir(place.file()).unwrap();
        assert_ne!(place.saved(), first);
        fs::remove_dir(place.file()).unwrap();
        fs::rename(place.0.join("moved"), place.file()).unwrap();
        assert_eq!(place.load().uid(), first);
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let load = || Identity::load(None, NOW).unwrap();
        let first = load();
        first.save(&first.saved).unwrap();
        assert_ne!(load().uid(), first.uid());
    }
}
