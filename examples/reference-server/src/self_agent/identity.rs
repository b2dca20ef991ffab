//! Who the Self-Agent is: an identity that lasts as long as the data directory.

use std::{path::PathBuf, sync::Arc};

use opamp_client::{FileState, InstanceUid, SavedState, StateError, StateStore, Wall};

/// Identity and state of the Self-Agent: in a file, or with nothing but memory behind it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    saved: SavedState,
    file: Option<Arc<FileState>>,
}

impl Identity {
    /// What an earlier process left in this file; without it, or without a file, a new identity. That a file cannot be
    /// read costs the identity, not the server its start.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn load(path: Option<PathBuf>, now: Wall) -> Result<Self, getrandom::Error> {
        let file = path.map(|path| Arc::new(FileState::new(path)));
        let saved = match file.as_ref().map_or(Ok(None), |file| file.load()) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(%error, "the Self-Agent starts as a new agent: its state cannot be read");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_outlives_its_process_and_a_damaged_file_costs_only_the_identity() {
        let directory = std::env::temp_dir().join(format!("self-agent-{}", std::process::id()));
        let path = directory.join("state");
        // The file belongs to one identity at a time, until that is dropped.
        let load = || Identity::load(Some(path.clone()), Wall(1_700_000_000_000)).unwrap();
        let saved = || {
            let identity = load();
            identity.save(&identity.saved).unwrap();
            identity.uid()
        };
        assert_ne!(load().uid(), load().uid(), "nothing is written before it is used");
        let first = saved();
        assert_eq!(load().uid(), first);
        std::fs::write(&path, "garbage").unwrap();
        let second = saved();
        assert_ne!(second, first);
        assert_eq!(load().uid(), second, "the damaged file is replaced");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let load = || Identity::load(None, Wall(1_700_000_000_000)).unwrap();
        let first = load();
        first.save(&first.saved).unwrap();
        assert_ne!(load().uid(), first.uid());
    }
}
