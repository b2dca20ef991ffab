//! How a memory store answers.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, InstanceUid};

use super::state::State;
use crate::page::clamp_limit;
use crate::{
    AgentRecord, ApiToken, AuditEntry, AuditOrder, AuditQuery, AuditReport, BlobId, ChainVerifier, Changes,
    Checkpoint, ConfigVersion, PackageKey, PackageVersion, Page, Revision, ServerSecret,
};

impl State {
    pub(super) fn agent(&self, id: &AgentId) -> Option<AgentRecord> {
        self.agents.get(id).map(|kept| kept.record(*id))
    }

    pub(super) fn shared_agent(&self, id: &AgentId) -> Option<Arc<AgentRecord>> {
        self.agents.get(id).map(|kept| Arc::new(kept.record(*id)))
    }

    pub(super) fn agent_by_uid(&self, uid: &InstanceUid) -> Option<AgentRecord> {
        self.agent(self.uids.get(uid)?)
    }

    pub(super) fn agents(&self, after: Option<AgentId>, limit: usize) -> Page<AgentRecord, AgentId> {
        let records = self.agents.range((beyond(after), Bound::Unbounded));
        let records = records.take(limit + 1).map(|(id, kept)| kept.record(*id));
        Page::cut(records.collect(), limit, |record: &AgentRecord| record.id)
    }

    pub(super) fn changed_since(&self, revision: Revision, limit: usize) -> Changes {
        // Nothing keeps them in this order: each write would pay for it, and reading takes one look at each agent.
        let changed = self.agents.iter().filter(|(_, kept)| kept.revision > revision);
        let mut changed: Vec<_> = changed.map(|(id, kept)| (kept.revision, *id)).collect();
        changed.sort_unstable();
        let mut end = changed.len().min(limit);
        while let Some((next, _)) = changed.get(end)
            && end.checked_sub(1).and_then(|last| changed.get(last)).is_some_and(|(last, _)| last == next)
        {
            end += 1;
        }
        let more = end < changed.len();
        changed.truncate(end);
        let upto = changed.last().filter(|_| more).map_or(self.revision, |(last, _)| *last);
        let records = changed.iter().filter_map(|(_, id)| self.agent(id)).collect();
        Changes { records, upto, more }
    }

    pub(super) fn checkpoints(&self, after: Option<AgentId>, limit: usize) -> Page<Checkpoint, AgentId> {
        let agents = self.agents.range((beyond(after), Bound::Unbounded));
        let checkpoints = agents.filter_map(|(id, kept)| kept.checkpoint(*id));
        Page::cut(checkpoints.take(limit + 1).collect(), limit, |last: &Checkpoint| last.id)
    }

    pub(super) fn blob(&self, id: &BlobId) -> Option<Bytes> {
        self.blobs.get(id).cloned()
    }

    pub(super) fn unreferenced_blobs(&self, after: Option<BlobId>, limit: usize) -> Page<BlobId, BlobId> {
        let blobs = self.blobs.range((beyond(after), Bound::Unbounded)).map(|(id, _)| *id);
        Page::cut(blobs.filter(|id| !self.is_referenced(id)).take(limit + 1).collect(), limit, |last| *last)
    }

    pub(super) fn config_names(&self, after: Option<String>, limit: usize) -> Page<String, String> {
        let mut names: Vec<String> = Vec::new();
        let mut next =
            self.versions.range((beyond(after.map(|name| (name, u32::MAX))), Bound::Unbounded)).next();
        while let Some(((name, _), _)) = next.filter(|_| names.len() <= limit) {
            names.push(name.clone());
            next = self.versions.range((beyond(Some((name.clone(), u32::MAX))), Bound::Unbounded)).next();
        }
        Page::cut(names, limit, String::clone)
    }

    pub(super) fn versions(&self, config: &str) -> Vec<ConfigVersion> {
        let range = (config.to_owned(), 0)..=(config.to_owned(), u32::MAX);
        self.versions.range(range).map(|(_, version)| version.clone()).collect()
    }

    pub(super) fn version(&self, config: &str, version: u32) -> Option<ConfigVersion> {
        self.versions.get(&(config.to_owned(), version)).cloned()
    }

    pub(super) fn package(&self, key: &PackageKey) -> Option<PackageVersion> {
        self.packages.get(key).map(|package| package.version.clone())
    }

    pub(super) fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> Page<PackageVersion, PackageKey> {
        let packages = self.packages.range((beyond(after), Bound::Unbounded));
        let versions = packages.take(limit + 1).map(|(_, package)| package.version.clone());
        Page::cut(versions.collect(), limit, |last| last.key.clone())
    }

    pub(super) fn package_chunks(&self, key: &PackageKey, first: u64, limit: usize) -> Vec<BlobId> {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let package = self.packages.get(key);
        package.iter().flat_map(|package| package.chunks.iter().skip(first).take(limit)).copied().collect()
    }

    pub(super) fn secret(&self, name: &str) -> Option<ServerSecret> {
        self.server_secrets.get(name).cloned()
    }

    pub(super) fn audit(&self, query: &AuditQuery) -> Page<AuditEntry, u64> {
        let limit = clamp_limit(query.limit);
        let matches = |entry: &&AuditEntry| query.admits(entry);
        let entries = match query.order {
            AuditOrder::NewestFirst => {
                self.audit.iter().rev().filter(matches).take(limit + 1).cloned().collect()
            }
            AuditOrder::OldestFirst => self.audit.iter().filter(matches).take(limit + 1).cloned().collect(),
        };
        Page::cut(entries, limit, |last: &AuditEntry| last.seq)
    }

    pub(super) fn verify(&self) -> AuditReport {
        let mut verifier = ChainVerifier::default();
        self.audit.iter().for_each(|entry| verifier.entry(entry));
        verifier.finish(&self.chains)
    }

    pub(super) fn token(&self, id: &str) -> Option<ApiToken> {
        self.tokens.get(id).cloned()
    }

    pub(super) fn token_by_secret_hash(&self, secret_sha256: &[u8; 32]) -> Option<ApiToken> {
        self.token(self.secrets.get(secret_sha256)?)
    }

    pub(super) fn tokens(&self) -> Vec<ApiToken> {
        self.tokens.values().cloned().collect()
    }
}

impl AuditQuery {
    fn admits(&self, entry: &AuditEntry) -> bool {
        let equals =
            |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        equals(&self.actor, &entry.actor)
            && equals(&self.action, &entry.action)
            && equals(&self.entity, &entry.entity)
            && self.since.is_none_or(|since| since <= entry.at)
            && self.until.is_none_or(|until| entry.at < until)
            && self.after.is_none_or(|after| match self.order {
                AuditOrder::NewestFirst => entry.seq < after,
                AuditOrder::OldestFirst => entry.seq > after,
            })
    }
}

/// The lower bound of a listing that continues after a cursor.
fn beyond<T>(after: Option<T>) -> Bound<T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}
