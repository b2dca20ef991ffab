//! Everything a store can tell, for comparison.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    AgentRecord, ApiToken, AuditEntry, AuditQuery, AuditReport, BlobId, Changes, Checkpoint, ConfigVersion,
    PackageVersion, Revision, Store,
};

/// Everything that can be read from a store, except leases and the server's secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// All agents.
    pub agents: Vec<AgentRecord>,
    /// All changes.
    pub changes: Changes,
    /// All checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// All blobs that are referred to, and those that are not.
    pub blobs: BTreeMap<BlobId, Bytes>,
    /// Which blobs nothing refers to.
    pub unreferenced: Vec<BlobId>,
    /// All config versions by name.
    pub configs: BTreeMap<String, Vec<ConfigVersion>>,
    /// All package versions with their chunks.
    pub packages: Vec<(PackageVersion, Vec<BlobId>)>,
    /// The audit log.
    pub audit: Vec<AuditEntry>,
    /// What verifying it said.
    pub report: AuditReport,
    /// All tokens.
    pub tokens: Vec<ApiToken>,
}

impl Dump {
    /// Reads everything, in pages of `limit`. Meaningful only while nobody writes.
    pub async fn of(store: &dyn Store, limit: usize) -> Self {
        let mut dump = Self {
            agents: Vec::new(),
            changes: store.changed_since(Revision::default(), usize::MAX).await.unwrap(),
            checkpoints: Vec::new(),
            blobs: BTreeMap::new(),
            unreferenced: Vec::new(),
            configs: BTreeMap::new(),
            packages: Vec::new(),
            audit: Vec::new(),
            report: store.verify().await.unwrap(),
            tokens: store.tokens().await.unwrap(),
        };
        dump.read_pages(store, limit).await;
        dump.read_packages(store, limit).await;
        dump.read_blobs(store).await;
        dump
    }

    async fn read_pages(&mut self, store: &dyn Store, limit: usize) {
        let mut after = None;
        loop {
            let page = store.agents(after, limit).await.unwrap();
            self.agents.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        loop {
            let page = store.checkpoints(after, limit).await.unwrap();
            self.checkpoints.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = store.unreferenced_blobs(after, limit).await.unwrap();
            self.unreferenced.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut query = AuditQuery { limit, ..AuditQuery::default() };
        loop {
            let page = store.audit(query.clone()).await.unwrap();
            self.audit.extend(page.items);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        let mut after = None;
        loop {
            let page = store.config_names(after, limit).await.unwrap();
            for name in page.items {
                let versions = store.versions(&name).await.unwrap();
                self.configs.insert(name, versions);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }

    async fn read_packages(&mut self, store: &dyn Store, limit: usize) {
        let mut after = None;
        loop {
            let page = store.packages(after, limit).await.unwrap();
            for package in page.items {
                let mut chunks: Vec<BlobId> = Vec::new();
                loop {
                    let more = store.package_chunks(&package.key, chunks.len() as u64, limit).await.unwrap();
                    if more.is_empty() {
                        break;
                    }
                    chunks.extend(more);
                }
                self.packages.push((package, chunks));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }

    async fn read_blobs(&mut self, store: &dyn Store) {
        let agents = self.agents.iter().flat_map(AgentRecord::blob_references);
        let versions = self.configs.values().flatten().map(|version| version.blob);
        let chunks = self.packages.iter().flat_map(|(_, chunks)| chunks.iter().copied());
        let ids: BTreeSet<_> =
            agents.chain(versions).chain(chunks).chain(self.unreferenced.iter().copied()).collect();
        for id in ids {
            // A blob that something refers to is always there.
            self.blobs.insert(id, store.blob(&id).await.unwrap().unwrap());
        }
    }
}
