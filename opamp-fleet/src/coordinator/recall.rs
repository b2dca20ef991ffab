//! Recalled configurations are never offered again (R57).

use std::collections::BTreeSet;

use opamp_proto::Fingerprint;

/// Configurations that are never offered again: not by a rollout, not by a rollback, not by a steady state.
#[derive(Clone, Debug, Default)]
pub(super) struct Recalls {
    recalled: BTreeSet<Fingerprint>,
}

impl Recalls {
    /// Most of them. None is ever forgotten, so that more than these are refused.
    pub(super) const MAX: usize = 1_000_000;

    pub(super) fn new(rows: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { recalled: rows.into_iter().collect() }
    }

    /// Whether it is recalled.
    pub(super) fn contains(&self, config: &Fingerprint) -> bool {
        self.recalled.contains(config)
    }

    /// It is recalled from now on. None if there are too many, else whether that is new.
    pub(super) fn add(&mut self, config: Fingerprint) -> Option<bool> {
        if self.recalled.len() >= Self::MAX && !self.contains(&config) {
            return None;
        }
        Some(self.recalled.insert(config))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.recalled.len()
    }
}
