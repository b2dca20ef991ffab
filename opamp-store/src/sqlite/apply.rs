//! Writing a batch that was judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opamp_proto::AgentId;
use sqlx::query;

use super::codec::{self, EncodedAgent, FORMAT};
use super::fault::WriteFault;
use super::leaves::Leaf;
use super::sql;
use super::transaction::{FormerAgent, Transaction};
use crate::judge::{Wanted, judge};
use crate::{
    AgentRecord, ApiToken, AuditEntry, BatchContents, BlobId, BlobPins, ChainHead, Checkpoint, CommitError,
    ConfigVersion, Fence, NewAuditEntry, PackageContents, PackageKey, Revision, ServerSecret,
};

/// A batch with its records encoded, as it waits for the writer.
pub(super) struct Prepared {
    contents: BatchContents,
    encoded: BTreeMap<AgentId, EncodedAgent>,
    wanted: Wanted,
    fence: Option<Fence>,
    pub(super) bytes: usize,
}

impl Prepared {
    /// Encodes what needs encoding. Runs in the caller's task, so that callers encode in parallel.
    pub(super) fn of(contents: BatchContents, fence: Option<Fence>, bytes: usize) -> Self {
        let wanted = Wanted::by(&contents);
        let records = contents.agents.iter();
        let encoded =
            records.filter_map(|(id, record)| Some((*id, EncodedAgent::of(record.as_ref()?)))).collect();
        Self { contents, encoded, wanted, fence, bytes }
    }
}

impl Transaction<'_> {
    /// Judges a batch and writes it. A refusal (the inner error) comes before the first change; after a fault (the outer
    /// one) the transaction must be given up.
    pub(super) async fn apply(
        &mut self,
        batch: &Prepared,
    ) -> Result<Result<Revision, CommitError>, WriteFault> {
        let Prepared { contents, encoded, wanted, fence, .. } = batch;
        if let Some(key) = &contents.idempotency_key
            && let Some(first) = self.revision_of_key(key).await?
        {
            return Ok(Ok(first));
        }
        let (existing, former) = self.existing(wanted, contents, fence.as_ref()).await?;
        if let Err(refusal) = judge(contents, &existing, fence.as_ref()) {
            return Ok(Err(refusal));
        }
        if contents.only_checkpoints() && contents.checkpoints.is_empty() {
            return Ok(Ok(self.revision));
        }
        if !contents.only_checkpoints() {
            self.revision = self.revision.next();
        }
        self.counts.commits += 1;
        for (id, bytes) in &contents.blobs {
            self.write(query(sql::PUT_BLOB).bind(&id.as_bytes()[..]).bind(&bytes[..])).await?;
        }
        self.put_packages(&contents.packages).await?;
        self.put_agents(&contents.agents, encoded, &former).await?;
        self.put_checkpoints(contents, &former).await?;
        for version in contents.config_versions.values() {
            self.put_version(version).await?;
        }
        self.put_tokens(&contents.tokens).await?;
        self.put_secrets(&contents.secrets).await?;
        self.append_audit(&contents.audit).await?;
        let deletions = contents.blob_deletions.iter().filter(|id| !contents.blobs.contains_key(id));
        self.delete_blobs(deletions).await?;
        if let Some(key) = &contents.idempotency_key {
            self.write(query(sql::PUT_KEY).bind(key).bind(self.revision.0.cast_signed())).await?;
            self.write(query(sql::FORGET_KEYS).bind(BatchContents::KEYS_KEPT.cast_signed())).await?;
        }
        Ok(Ok(self.revision))
    }

    async fn put_agents(
        &mut self,
        agents: &BTreeMap<AgentId, Option<Arc<AgentRecord>>>,
        encoded: &BTreeMap<AgentId, EncodedAgent>,
        former: &BTreeMap<AgentId, FormerAgent>,
    ) -> Result<(), WriteFault> {
        // Rows that give up their uid go first: the uid may be taken over by another record of this batch.
        for (id, record) in agents {
            let Some(before) = former.get(id) else { continue };
            if record.as_ref().is_none_or(|record| record.uid != before.uid) {
                self.write(query(sql::DELETE_AGENT).bind(&id.as_bytes()[..])).await?;
            }
            if record.is_none() {
                self.move_pins(id, &before.pins.blobs, &BTreeSet::new()).await?;
                self.move_package_pins(id, &before.packages, &BTreeSet::new()).await?;
            }
        }
        let (nothing, no_packages) = (BlobPins::default(), BTreeSet::new());
        for (id, record) in agents {
            let (Some(record), Some(encoded)) = (record, encoded.get(id)) else { continue };
            let packages: BTreeSet<_> = record.package_references().cloned().collect();
            let packages_before = former.get(id).map_or(&no_packages, |before| &before.packages);
            let before = former.get(id).map_or(&nothing, |before| &before.pins);
            let pins = BlobPins::of(record, before.known_good.as_ref());
            let (hash, blob) =
                pins.known_good.as_ref().map(|(hash, blob)| (hash.as_bytes(), &blob.as_bytes()[..])).unzip();
            let put = query(sql::PUT_AGENT)
                .bind(&id.as_bytes()[..])
                .bind(&record.uid.as_bytes()[..])
                .bind(self.revision.0.cast_signed())
                .bind(FORMAT)
                .bind(&encoded.body)
                .bind(&encoded.parts[..])
                .bind(codec::pack_pins(&pins.blobs))
                .bind(hash)
                .bind(blob)
                .bind(codec::pack_package_pins(&packages));
            self.write(put).await?;
            self.move_pins(id, &before.blobs, &pins.blobs).await?;
            self.move_package_pins(id, packages_before, &packages).await?;
        }
        Ok(())
    }

    /// Writes the difference between two sets of pins; mostly there is none.
    async fn move_pins(
        &mut self,
        agent: &AgentId,
        before: &BTreeSet<BlobId>,
        after: &BTreeSet<BlobId>,
    ) -> Result<(), WriteFault> {
        for (sql, blobs) in [(sql::PIN, after.difference(before)), (sql::UNPIN, before.difference(after))] {
            for blob in blobs {
                self.write(query(sql).bind(&blob.as_bytes()[..]).bind(&agent.as_bytes()[..])).await?;
            }
        }
        Ok(())
    }

    async fn move_package_pins(
        &mut self,
        agent: &AgentId,
        before: &BTreeSet<PackageKey>,
        after: &BTreeSet<PackageKey>,
    ) -> Result<(), WriteFault> {
        let moves =
            [(sql::PIN_PACKAGE, after.difference(before)), (sql::UNPIN_PACKAGE, before.difference(after))];
        for (sql, keys) in moves {
            for PackageKey { name, version } in keys {
                self.write(query(sql).bind(name).bind(version).bind(&agent.as_bytes()[..])).await?;
            }
        }
        Ok(())
    }

    async fn put_packages(
        &mut self,
        packages: &BTreeMap<PackageKey, Option<PackageContents>>,
    ) -> Result<(), WriteFault> {
        for (key, package) in packages {
            let PackageKey { name, version } = key;
            let Some(package) = package else {
                for sql in [sql::DELETE_PACKAGE, sql::DELETE_PACKAGE_CHUNKS] {
                    self.write(query(sql).bind(name).bind(version)).await?;
                }
                continue;
            };
            let put = query(sql::PUT_PACKAGE).bind(name).bind(version);
            let put = put.bind(self.revision.0.cast_signed()).bind(FORMAT);
            self.write(put.bind(codec::encode_body(&package.version))).await?;
            let chunks = codec::hex_list(package.chunks.iter().map(BlobId::as_bytes));
            self.write(query(sql::PUT_PACKAGE_CHUNKS).bind(name).bind(version).bind(chunks)).await?;
        }
        Ok(())
    }

    async fn put_secrets(&mut self, secrets: &BTreeMap<String, ServerSecret>) -> Result<(), WriteFault> {
        for (name, secret) in secrets {
            self.write(query(sql::PUT_SECRET).bind(name).bind(secret.expose())).await?;
        }
        Ok(())
    }

    /// Replaces the checkpoints of the batch and removes those of the agents it deleted.
    async fn put_checkpoints(
        &mut self,
        contents: &BatchContents,
        former: &BTreeMap<AgentId, FormerAgent>,
    ) -> Result<(), WriteFault> {
        let deleted =
            contents.agents.iter().filter(|(id, record)| record.is_none() && former.contains_key(id));
        let mut changes: BTreeMap<AgentId, Option<Checkpoint>> = deleted.map(|(id, _)| (*id, None)).collect();
        let not_deleted = |id: &AgentId| !matches!(contents.agents.get(id), Some(None));
        let puts = contents.checkpoints.iter().filter(|(id, _)| not_deleted(id));
        changes.extend(puts.map(|(id, checkpoint)| (*id, Some(*checkpoint))));
        let mut leaves = self.leaves_of(changes.keys()).await?;

        // An entry that is there has a record, so only the new ones have to be looked up.
        let is_new = |id: &AgentId| {
            let place = leaves.partition_point(|leaf| leaf.first <= *id);
            !leaves[..place].last().is_some_and(|leaf| leaf.entries.contains_key(id))
        };
        let new =
            changes.iter().filter(|(id, change)| change.is_some() && is_new(id)).map(|(id, _)| *id).collect();
        let known = self.agents_among(&new).await?;
        changes.retain(|id, _| !new.contains(id) || known.contains(id));
        for leaf in &mut leaves {
            self.change_leaf(leaf, &mut changes).await?;
        }
        Ok(())
    }

    /// Takes the changes that belong to a leaf out of `changes` and writes it.
    async fn change_leaf(
        &mut self,
        leaf: &mut Leaf,
        changes: &mut BTreeMap<AgentId, Option<Checkpoint>>,
    ) -> Result<(), WriteFault> {
        let mut changed = false;
        while let Some(entry) = changes.first_entry().filter(|entry| leaf.covers(entry.key())) {
            match entry.remove_entry() {
                (_, Some(checkpoint)) => {
                    leaf.entries.insert(checkpoint.id, checkpoint);
                    self.counts.checkpoints += 1;
                    changed = true;
                }
                (id, None) => changed |= leaf.entries.remove(&id).is_some(),
            }
        }
        if !changed {
            return Ok(());
        }
        let first = leaf.first.as_bytes();
        let mut rows = 0;
        if leaf.stored && leaf.entries.is_empty() {
            rows += self.write_uncounted(query(sql::DELETE_LEAF).bind(&first[..])).await?;
        }
        for (first, entries) in leaf.rows() {
            rows +=
                self.write_uncounted(query(sql::PUT_LEAF).bind(&first.as_bytes()[..]).bind(entries)).await?;
        }
        self.counts.checkpoint_rows += rows;
        Ok(())
    }

    async fn put_version(&mut self, version: &ConfigVersion) -> Result<(), WriteFault> {
        let put = query(sql::PUT_VERSION)
            .bind(&version.config)
            .bind(version.version)
            .bind(self.revision.0.cast_signed())
            .bind(&version.blob.as_bytes()[..])
            .bind(FORMAT)
            .bind(codec::encode_body(version));
        self.write(put).await?;
        Ok(())
    }

    async fn put_tokens(&mut self, tokens: &BTreeMap<String, ApiToken>) -> Result<(), WriteFault> {
        if tokens.is_empty() {
            return Ok(());
        }
        // All old rows go first: a secret may move from one token of the batch to another.
        self.write_uncounted(query(sql::DELETE_TOKENS).bind(codec::text_list(tokens.keys()))).await?;
        for token in tokens.values() {
            let put = query(sql::PUT_TOKEN).bind(&token.id).bind(&token.secret_sha256[..]).bind(FORMAT);
            self.write(put.bind(codec::encode_body(token))).await?;
        }
        Ok(())
    }

    async fn append_audit(&mut self, entries: &[NewAuditEntry]) -> Result<(), WriteFault> {
        let mut chains = BTreeMap::new();
        for new in entries {
            let head = match chains.get(&new.writer) {
                Some(head) => *head,
                None => self.chain(&new.writer).await?,
            };
            self.audit_seq += 1;
            let entry = AuditEntry::seal(new.clone(), self.audit_seq, head.hash);
            let head = ChainHead { length: head.length + 1, seq: entry.seq, hash: entry.hash };
            chains.insert(entry.writer.clone(), head);
            self.put_audit(entry).await?;
        }
        for (writer, head) in chains {
            let put = query(sql::PUT_CHAIN).bind(writer).bind(head.length.cast_signed());
            self.write(put.bind(head.seq.cast_signed()).bind(&head.hash[..])).await?;
        }
        Ok(())
    }

    async fn chain(&mut self, writer: &str) -> Result<ChainHead, WriteFault> {
        let row = self.row(query(sql::CHAIN).bind(writer)).await?;
        Ok(row.map(|row| codec::chain(&row)).transpose()?.map(|(_, head)| head).unwrap_or_default())
    }

    async fn put_audit(&mut self, entry: AuditEntry) -> Result<(), WriteFault> {
        let put = query(sql::PUT_AUDIT)
            .bind(entry.seq.cast_signed())
            .bind(entry.writer)
            .bind(entry.at.0.cast_signed())
            .bind(entry.actor)
            .bind(entry.role)
            .bind(entry.action)
            .bind(entry.entity)
            .bind(entry.before.map(|before| before.to_string()))
            .bind(entry.after.map(|after| after.to_string()))
            .bind(entry.source)
            .bind(entry.trace_id)
            .bind(&entry.prev_hash[..])
            .bind(&entry.hash[..]);
        self.write(put).await?;
        Ok(())
    }

    async fn delete_blobs(&mut self, ids: impl Iterator<Item = &BlobId>) -> Result<(), WriteFault> {
        let list = codec::hex_list(ids.map(BlobId::as_bytes));
        if list.len() > 2 {
            self.write(query(sql::DELETE_BLOBS).bind(list)).await?;
        }
        Ok(())
    }
}
