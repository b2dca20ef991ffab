//! Which blobs an agent's record keeps alive.

use std::collections::BTreeSet;

use opamp_proto::ConfigHash;

use crate::{AgentRecord, BlobId};

/// The blobs one record refers to: desired config, history, connection settings, effective config, components and last
/// known good.
///
/// The record names its last known good config by hash only. The blob is that of the desired or earlier desired config
/// with this hash; once found it stays pinned while the hash stays, even when the history has moved on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobPins {
    /// All of them.
    pub blobs: BTreeSet<BlobId>,
    /// The last known good config and its blob, as far as known.
    pub known_good: Option<(ConfigHash, BlobId)>,
}

impl BlobPins {
    /// The pins of `record`, whose former version had the last known good blob `known_good`.
    pub fn of(record: &AgentRecord, known_good: Option<&(ConfigHash, BlobId)>) -> Self {
        let known_good = known_good.map(|(hash, blob)| (hash, *blob));
        let known_good = Self::known_good(record, known_good).map(|(hash, blob)| (hash.clone(), blob));
        let mut blobs: BTreeSet<_> = record.blob_references().collect();
        blobs.extend(known_good.as_ref().map(|(_, blob)| *blob));
        Self { blobs, known_good }
    }

    /// The last known good config of `record` and its blob, if that is known; `before` is what its former version had.
    pub(crate) fn known_good<'a>(
        record: &'a AgentRecord,
        before: Option<(&ConfigHash, BlobId)>,
    ) -> Option<(&'a ConfigHash, BlobId)> {
        let hash = record.last_known_good.as_ref()?;
        let mut assigned = record.desired.iter().chain(record.desired_history.iter().rev());
        let assigned = assigned.find(|assigned| assigned.hash == *hash).map(|assigned| assigned.blob);
        let blob = assigned.or_else(|| before.filter(|known| known.0 == hash).map(|known| known.1))?;
        Some((hash, blob))
    }
}
