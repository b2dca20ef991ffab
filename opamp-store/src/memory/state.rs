//! What a memory store holds, and how a batch changes it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use opamp_proto::{AgentId, InstanceUid};

use super::kept::{Assignments, Kept};
use crate::judge::{Existing, ExistingVersion, Wanted, judge};
use crate::{
    AgentRecord, ApiToken, AuditEntry, BatchContents, BlobId, ChainHead, CommitError, ConfigVersion, Fence,
    Lease, NewAuditEntry, PackageContents, PackageKey, Revision, ServerSecret,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) agents: BTreeMap<AgentId, Box<Kept>>,
    pub(super) uids: HashMap<InstanceUid, AgentId>,
    pub(super) by_revision: BTreeSet<(Revision, AgentId)>,
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
    /// How many records, versions and chunks refer to a blob; absent for none.
    references: HashMap<BlobId, u64>,
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
        let wanted = Wanted::by(&contents);
        judge(&contents, &wanted, &self.existing(&wanted, &contents, fence), fence)?;
        Ok(self.apply(contents))
    }

    pub(super) fn is_referenced(&self, id: &BlobId) -> bool {
        self.references.contains_key(id)
    }

    fn existing(&self, wanted: &Wanted, contents: &BatchContents, fence: Option<&Fence>) -> Existing {
        let epoch = fence.and_then(|fence| self.leases.get(&fence.role)).map_or(0, |lease| lease.epoch);
        Existing {
            agents: wanted
                .agents
                .iter()
                .filter_map(|id| Some((*id, self.agents.get(id)?.revision)))
                .collect(),
            uid_owners: wanted.uids.iter().filter_map(|uid| Some((*uid, *self.uids.get(uid)?))).collect(),
            versions: wanted
                .versions
                .iter()
                .filter_map(|key| Some((key.clone(), ExistingVersion::of(self.versions.get(key)?))))
                .collect(),
            tokens: wanted.tokens.iter().filter(|id| self.tokens.contains_key(*id)).cloned().collect(),
            token_count: self.tokens.len(),
            secret_owners: wanted
                .secrets
                .iter()
                .filter_map(|secret| Some((*secret, self.secrets.get(secret)?.clone())))
                .collect(),
            packages: wanted
                .packages
                .iter()
                .filter_map(|key| Some((key.clone(), self.packages.get(key)?.version.revision)))
                .collect(),
            package_users: contents
                .packages
                .iter()
                .filter_map(|(key, package)| {
                    let user = self.user_of(key).filter(|_| package.is_none())?;
                    Some((key.clone(), user))
                })
                .collect(),
            package_count: self.packages.len(),
            server_secrets: wanted
                .server_secrets
                .iter()
                .filter(|name| self.server_secrets.contains_key(*name))
                .cloned()
                .collect(),
            server_secret_count: self.server_secrets.len(),
            blobs: wanted.blobs.iter().filter(|id| self.blobs.contains_key(*id)).copied().collect(),
            epoch,
        }
    }

    /// One of the agents that are meant to have a package version.
    fn user_of(&self, key: &PackageKey) -> Option<AgentId> {
        let first = (key.clone(), AgentId::from_bytes([0; 16]));
        let (found, agent) = self.package_users.range(first..).next()?;
        (found == key).then_some(*agent)
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
            self.refer([version.blob]);
            if let Some(before) = self.versions.insert(key, version) {
                self.unrefer([before.blob]);
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
        let former = self.agents.get(&id);
        let pins_before = former.map(|former| former.pins()).unwrap_or_default();
        let kept = record.map(|record| {
            Kept::new(record, self.revision, former.map(|kept| &**kept), &mut self.assignments)
        });
        let same_uid = former.is_some_and(|former| kept.as_ref().is_some_and(|kept| kept.uid == former.uid));
        if let Some(former) = former {
            // Another record of the same batch may already have taken the uid over.
            if !same_uid && self.uids.get(&former.uid) == Some(&id) {
                self.uids.remove(&former.uid);
            }
            self.by_revision.remove(&(former.revision, id));
            for key in former.package_references() {
                self.package_users.remove(&(key.clone(), id));
            }
        }
        let Some(kept) = kept else {
            self.agents.remove(&id);
            self.unrefer(pins_before);
            return;
        };
        let pins = kept.pins();
        // Both are sorted; mostly nothing comes and nothing goes.
        self.refer(pins.iter().filter(|pin| pins_before.binary_search(pin).is_err()).copied());
        self.unrefer(pins_before.iter().filter(|pin| pins.binary_search(pin).is_err()).copied());
        if !same_uid {
            self.uids.insert(kept.uid, id);
        }
        self.by_revision.insert((self.revision, id));
        self.package_users.extend(kept.package_references().map(|key| (key.clone(), id)));
        match self.agents.get_mut(&id) {
            Some(place) => **place = kept,
            None => {
                self.agents.insert(id, Box::new(kept));
            }
        }
    }

    /// Puts or deletes a package version; answers how many records that were.
    fn put_package(&mut self, key: PackageKey, package: Option<PackageContents>) -> u64 {
        let former = self.packages.remove(&key);
        let mut records = former.as_ref().map_or(0, |former| 1 + former.chunks.len() as u64);
        self.unrefer(former.into_iter().flat_map(|former| former.chunks));
        if let Some(mut package) = package {
            package.version.revision = self.revision;
            records += 1 + package.chunks.len() as u64;
            self.refer(package.chunks.iter().copied());
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

    fn refer(&mut self, blobs: impl IntoIterator<Item = BlobId>) {
        for blob in blobs {
            *self.references.entry(blob).or_default() += 1;
        }
    }

    fn unrefer(&mut self, blobs: impl IntoIterator<Item = BlobId>) {
        for blob in blobs {
            if let Some(count) = self.references.get_mut(&blob) {
                *count -= 1;
                if *count == 0 {
                    self.references.remove(&blob);
                }
            }
        }
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
