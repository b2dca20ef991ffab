//! What a memory store holds, and how a batch changes it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map};

use bytes::Bytes;
use opamp_proto::{AgentId, InstanceUid};

use super::kept::{Assignments, Kept, Pins};
use crate::judge::{Existing, ExistingVersion, judge};
use crate::{
    AgentRecord, ApiToken, AuditEntry, BatchContents, BlobId, ChainHead, CommitError, ConfigVersion, Fence,
    Lease, NewAuditEntry, PackageContents, PackageKey, Revision, ServerSecret,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) agents: BTreeMap<AgentId, Box<Kept>>,
    pub(super) uids: HashMap<InstanceUid, AgentId>,
    pub(super) blobs: BTreeMap<BlobId, Bytes>,
    pub(super) versions: BTreeMap<(String, u32), ConfigVersion>,
    pub(super) packages: BTreeMap<PackageKey, PackageContents>,
    pub(super) server_secrets: BTreeMap<String, ServerSecret>,
    pub(super) tokens: BTreeMap<String, ApiToken>,
    pub(super) secrets: HashMap<[u8; 32], String>,
    pub(super) audit: Vec<AuditEntry>,
    pub(super) chains: BTreeMap<String, ChainHead>,
    pub(super) leases: BTreeMap<String, Lease>,
    assignments: Assignments,
    /// The agents that are meant to have a package version.
    package_users: BTreeSet<(PackageKey, AgentId)>,
    references: References,
    keys: HashMap<String, Revision>,
    keys_by_age: VecDeque<String>,
}

/// What became of an accepted batch.
pub(super) enum Outcome {
    /// It changed something.
    Applied {
        /// Where the change can be seen.
        revision: Revision,
        /// Records written or deleted.
        records: u64,
        /// Checkpoints written.
        checkpoints: u64,
    },
    /// It was empty or a replay.
    Unchanged(Revision),
}

impl State {
    pub(super) fn commit(
        &mut self,
        contents: BatchContents,
        fence: Option<&Fence>,
    ) -> Result<Outcome, CommitError> {
        if let Some(first) = contents.idempotency_key.as_ref().and_then(|key| self.keys.get(key)) {
            return Ok(Outcome::Unchanged(*first));
        }
        judge(&contents, self, fence)?;
        Ok(self.apply(contents))
    }

    pub(super) fn is_referenced(&self, id: &BlobId) -> bool {
        self.references.counts.contains_key(id)
    }

    /// Applies a batch that was judged: nothing here can fail.
    fn apply(&mut self, contents: BatchContents) -> Outcome {
        let makes_revision = !contents.only_checkpoints();
        if !makes_revision && contents.checkpoints.is_empty() {
            return Outcome::Unchanged(self.revision);
        }
        if makes_revision {
            self.revision = self.revision.next();
        }
        let mut records = u64::from(makes_revision);
        for (id, bytes) in &contents.blobs {
            // The bytes that are there stay: whoever shares them shares one copy.
            if let Entry::Vacant(place) = self.blobs.entry(*id) {
                place.insert(bytes.clone());
                records += 1;
            }
        }
        for (id, record) in contents.agents {
            records += u64::from(record.is_some());
            self.put_agent(id, record.as_deref());
        }
        let mut checkpoints = 0;
        for (id, checkpoint) in &contents.checkpoints {
            if let Some(kept) = self.agents.get_mut(id) {
                kept.set_checkpoint(checkpoint);
                checkpoints += 1;
            }
        }
        for (key, mut version) in contents.config_versions {
            records += 1;
            version.revision = self.revision;
            self.references.add([version.blob]);
            if let Some(before) = self.versions.insert(key, version) {
                self.references.subtract([before.blob]);
            }
        }
        for (key, package) in contents.packages {
            records += self.put_package(key, package);
        }
        records += (contents.tokens.len() + contents.secrets.len() + contents.audit.len()) as u64;
        self.server_secrets.extend(contents.secrets);
        self.put_tokens(contents.tokens);
        for entry in contents.audit {
            self.append(entry);
        }
        self.references.settle();
        for id in contents.blob_deletions {
            if !self.is_referenced(&id) && !contents.blobs.contains_key(&id) {
                records += u64::from(self.blobs.remove(&id).is_some());
            }
        }
        if let Some(key) = contents.idempotency_key {
            records += 1;
            self.remember(key);
        }
        Outcome::Applied { revision: self.revision, records, checkpoints }
    }

    fn put_agent(&mut self, id: AgentId, record: Option<&AgentRecord>) {
        let Some(record) = record else {
            self.delete_agent(&id);
            return;
        };
        let (mut before, mut packages_before, mut uid_before) = (Pins::default(), Vec::new(), None);
        let kept = match self.agents.entry(id) {
            Entry::Occupied(place) => {
                let kept = place.into_mut();
                before = kept.pins();
                packages_before.extend(kept.package_references().cloned());
                uid_before = Some(kept.uid);
                kept.update(record, self.revision, &mut self.assignments);
                kept
            }
            Entry::Vacant(place) => {
                place.insert(Box::new(Kept::new(record, self.revision, &mut self.assignments)))
            }
        };
        before.turn_into(&kept.pins(), &mut self.references);
        for key in packages_before {
            self.package_users.remove(&(key, id));
        }
        self.package_users.extend(kept.package_references().map(|key| (key.clone(), id)));
        if uid_before != Some(record.uid) {
            self.give_up_uid(uid_before, &id);
            self.uids.insert(record.uid, id);
        }
    }

    fn delete_agent(&mut self, id: &AgentId) {
        let Some(kept) = self.agents.remove(id) else { return };
        kept.pins().turn_into(&Pins::default(), &mut self.references);
        for key in kept.package_references() {
            self.package_users.remove(&(key.clone(), *id));
        }
        self.give_up_uid(Some(kept.uid), id);
    }

    /// Another record of the same batch may already have taken it over.
    fn give_up_uid(&mut self, uid: Option<InstanceUid>, id: &AgentId) {
        if let Some(uid) = uid.filter(|uid| self.uids.get(uid) == Some(id)) {
            self.uids.remove(&uid);
        }
    }

    /// Puts or deletes a package version; answers how many records that were.
    fn put_package(&mut self, key: PackageKey, package: Option<PackageContents>) -> u64 {
        let former = self.packages.remove(&key);
        let mut records = former.as_ref().map_or(0, |former| 1 + former.chunks.len() as u64);
        self.references.subtract(former.into_iter().flat_map(|former| former.chunks));
        if let Some(mut package) = package {
            package.version.revision = self.revision;
            records += 1 + package.chunks.len() as u64;
            self.references.add(package.chunks.iter().copied());
            self.packages.insert(key, package);
        }
        records
    }

    fn put_tokens(&mut self, tokens: BTreeMap<String, ApiToken>) {
        for id in tokens.keys() {
            if let Some(before) = self.tokens.remove(id) {
                self.secrets.remove(&before.secret_sha256);
            }
        }
        self.secrets.extend(tokens.iter().map(|(id, token)| (token.secret_sha256, id.clone())));
        self.tokens.extend(tokens);
    }

    fn append(&mut self, new: NewAuditEntry) {
        let seq = self.audit.len() as u64 + 1;
        let head = self.chains.get(&new.writer).copied().unwrap_or_default();
        let entry = AuditEntry::seal(new, seq, head.hash);
        let head = ChainHead { length: head.length + 1, seq, hash: entry.hash };
        self.chains.insert(entry.writer.clone(), head);
        self.audit.push(entry);
    }

    fn remember(&mut self, key: String) {
        self.keys_by_age.push_back(key.clone());
        self.keys.insert(key, self.revision);
        if self.keys_by_age.len() as u64 > BatchContents::KEYS_KEPT
            && let Some(oldest) = self.keys_by_age.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

/// How many records, versions and chunks refer to a blob.
#[derive(Default)]
pub(super) struct References {
    /// Absent for none.
    counts: HashMap<BlobId, i64>,
    /// What the batch that is applied adds and subtracts: mostly the same few blobs, once for each agent.
    moves: Vec<(BlobId, i64)>,
}

/// Moves among which one of the same blob is looked for.
const MOVES_COMPARED: usize = 8;

impl References {
    pub(super) fn add(&mut self, blobs: impl IntoIterator<Item = BlobId>) {
        blobs.into_iter().for_each(|blob| self.shift(blob, 1));
    }

    pub(super) fn subtract(&mut self, blobs: impl IntoIterator<Item = BlobId>) {
        blobs.into_iter().for_each(|blob| self.shift(blob, -1));
    }

    fn shift(&mut self, blob: BlobId, by: i64) {
        match self.moves.iter_mut().rev().take(MOVES_COMPARED).find(|(moved, _)| *moved == blob) {
            Some((_, sum)) => *sum += by,
            None => self.moves.push((blob, by)),
        }
    }

    /// The batch is applied. Before that nobody asks.
    fn settle(&mut self) {
        for (blob, by) in self.moves.drain(..).filter(|(_, by)| *by != 0) {
            match self.counts.entry(blob) {
                hash_map::Entry::Occupied(count) if *count.get() + by == 0 => _ = count.remove(),
                count => *count.or_default() += by,
            }
        }
        self.moves.shrink_to(MOVES_COMPARED);
    }
}

impl Existing for State {
    fn agent(&self, id: &AgentId) -> Option<(InstanceUid, Revision)> {
        self.agents.get(id).map(|kept| (kept.uid, kept.revision))
    }

    fn uid_owner(&self, uid: &InstanceUid) -> Option<AgentId> {
        self.uids.get(uid).copied()
    }

    fn config_version(&self, key: &(String, u32)) -> Option<ExistingVersion> {
        self.versions.get(key).map(ExistingVersion::of)
    }

    fn has_token(&self, id: &str) -> bool {
        self.tokens.contains_key(id)
    }

    fn token_count(&self) -> usize {
        self.tokens.len()
    }

    fn secret_owner(&self, secret_sha256: &[u8; 32]) -> Option<&str> {
        self.secrets.get(secret_sha256).map(String::as_str)
    }

    fn package_version(&self, key: &PackageKey) -> Option<Revision> {
        self.packages.get(key).map(|package| package.version.revision)
    }

    fn package_user(&self, key: &PackageKey) -> Option<AgentId> {
        let first = (key.clone(), AgentId::from_bytes([0; 16]));
        let (found, agent) = self.package_users.range(first..).next()?;
        (found == key).then_some(*agent)
    }

    fn package_count(&self) -> usize {
        self.packages.len()
    }

    fn has_server_secret(&self, name: &str) -> bool {
        self.server_secrets.contains_key(name)
    }

    fn server_secret_count(&self) -> usize {
        self.server_secrets.len()
    }

    fn has_blob(&self, id: &BlobId) -> bool {
        self.blobs.contains_key(id)
    }

    fn epoch(&self, role: &str) -> u64 {
        self.leases.get(role).map_or(0, |lease| lease.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WriteBatch;

    #[test]
    fn only_the_oldest_keys_are_forgotten() {
        let mut state = State::default();
        let mut commit = |key: u64| {
            let mut batch = WriteBatch::new();
            batch.idempotency_key(key.to_string());
            match state.commit(batch.into_contents().unwrap(), None).unwrap() {
                Outcome::Applied { revision, .. } => (revision.0, true),
                Outcome::Unchanged(revision) => (revision.0, false),
            }
        };
        for key in 1..=BatchContents::KEYS_KEPT + 1 {
            assert_eq!(commit(key), (key, true));
        }
        assert_eq!(commit(2), (2, false));
        assert_eq!(commit(1), (BatchContents::KEYS_KEPT + 2, true));
    }
}
