//! The one thing that writes: a bounded, atomic batch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, InstanceUid};

use crate::{
    AgentRecord, ApiToken, Blob, BlobId, Checkpoint, CommitError, ConfigVersion, InvalidWrite, NewAuditEntry,
    PackageKey, PackageVersion, Revision, ServerSecret,
};

/// Changes over any aggregates that land together or not at all.
///
/// A batch says what the state shall be afterwards, so the order of calls does not matter; two changes of the same key
/// leave the last. Preconditions are judged on the state before the batch.
///
/// ```
/// use bytes::Bytes;
/// use opamp_store::WriteBatch;
///
/// let mut batch = WriteBatch::new();
/// let blob = batch.put_blob(Bytes::from_static(b"receivers: {}"));
/// batch.idempotency_key("import-42".into());
/// assert_eq!(blob, opamp_store::BlobId::of(b"receivers: {}"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteBatch {
    contents: BatchContents,
    weight: usize,
}

impl WriteBatch {
    /// The most changes and preconditions one batch can carry, checkpoints aside.
    pub const OPS_MAX: usize = 4_096;
    /// The most bytes one batch can carry, records counted roughly: 64 MiB.
    pub const BYTES_MAX: usize = 64 << 20;
    /// The most checkpoints one batch can carry.
    pub const CHECKPOINTS_MAX: usize = 65_536;
    /// The longest idempotency key, name of a config, package, version or secret, or id of a token, in bytes.
    pub const NAME_BYTES_MAX: usize = 255;

    /// An empty batch. Committing one changes nothing, but its preconditions and fence are judged.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; the batch is refused as a whole when it does not hold.
    pub fn require(&mut self, precondition: Precondition) -> &mut Self {
        self.contents.preconditions.push(precondition);
        self
    }

    /// Inserts or replaces an agent's record. One that is shared is not copied.
    pub fn put_agent(&mut self, record: impl Into<Arc<AgentRecord>>) -> &mut Self {
        let record = record.into();
        let weight = record.weight();
        self.put_weighed(record, weight)
    }

    /// The same for a record whose weight is known.
    pub(crate) fn put_weighed(&mut self, record: Arc<AgentRecord>, weight: usize) -> &mut Self {
        self.weight += weight;
        self.contents.agents.insert(record.id, Some(record));
        self
    }

    /// Deletes an agent's record and checkpoint. An absent one is no error.
    pub fn delete_agent(&mut self, id: AgentId) -> &mut Self {
        self.contents.agents.insert(id, None);
        self
    }

    /// Replaces checkpoints. Those of agents without a record are dropped.
    pub fn checkpoints(&mut self, checkpoints: impl IntoIterator<Item = Checkpoint>) -> &mut Self {
        self.contents
            .checkpoints
            .extend(checkpoints.into_iter().map(|checkpoint| (checkpoint.id, checkpoint)));
        self
    }

    /// Stores bytes under their content address. Bytes that are there already cost nothing but the comparison, a [`Blob`]
    /// not even the computation of its address.
    pub fn put_blob(&mut self, blob: impl Into<Blob>) -> BlobId {
        let Blob { id, bytes } = blob.into();
        let size = Self::blob_weight(&bytes);
        if self.contents.blobs.insert(id, bytes).is_none() {
            self.weight += size;
        }
        id
    }

    /// Deletes a blob, unless something refers to it when the batch is committed or the batch itself puts it: then it
    /// stays, and that is no error.
    pub fn delete_blob_if_unreferenced(&mut self, id: BlobId) -> &mut Self {
        self.contents.blob_deletions.insert(id);
        self
    }

    /// Inserts or replaces a config version. A published one can only be archived.
    pub fn put_config_version(&mut self, version: ConfigVersion) -> &mut Self {
        self.weight += 512 + version.comment.len();
        self.contents.config_versions.insert((version.config.clone(), version.version), version);
        self
    }

    /// Inserts or replaces an API token.
    pub fn put_token(&mut self, token: ApiToken) -> &mut Self {
        self.weight += 256 + token.name.len();
        self.contents.tokens.insert(token.id.clone(), token);
        self
    }

    /// Inserts a package version whose content is the given blobs, one after the other. There must be none of its key.
    pub fn put_package(&mut self, version: PackageVersion, chunks: Vec<BlobId>) -> &mut Self {
        let signature = version.signature.as_ref().map_or(0, Bytes::len);
        self.weight += 512 + version.key.len_bytes() + signature + chunks.len() * 64;
        self.contents.packages.insert(version.key.clone(), Some(PackageContents { version, chunks }));
        self
    }

    /// Deletes a package version; its content goes with the next sweep. An absent one is no error.
    pub fn delete_package(&mut self, key: PackageKey) -> &mut Self {
        self.contents.packages.insert(key, None);
        self
    }

    /// Inserts or replaces a secret of the server's own.
    pub fn put_secret(&mut self, name: String, secret: ServerSecret) -> &mut Self {
        self.weight += 64 + name.len() + secret.expose().len();
        self.contents.secrets.insert(name, secret);
        self
    }

    /// Appends to the audit log; entries of one batch keep their order.
    pub fn append_audit(&mut self, entry: NewAuditEntry) -> &mut Self {
        self.weight += entry.weight();
        self.contents.audit.push(entry);
        self
    }

    /// Makes repetition harmless: a batch whose key was committed before changes nothing and answers the revision of
    /// the first. A store remembers at least the last [`BatchContents::KEYS_KEPT`] keys.
    pub fn idempotency_key(&mut self, key: String) -> &mut Self {
        self.contents.idempotency_key = Some(key);
        self
    }

    /// The records to put.
    pub fn agents(&self) -> impl Iterator<Item = &AgentRecord> {
        self.contents.agents.values().flatten().map(|record| &**record)
    }

    /// Changes and preconditions so far, checkpoints aside.
    pub fn ops(&self) -> usize {
        let c = &self.contents;
        c.preconditions.len()
            + c.agents.len()
            + c.blobs.len()
            + c.blob_deletions.len()
            + c.config_versions.len()
            + c.packages.len()
            + c.tokens.len()
            + c.secrets.len()
            + c.audit.len()
    }

    /// Bytes so far, records counted roughly.
    pub fn bytes(&self) -> usize {
        self.weight
    }

    /// Whether there is nothing in it at all.
    pub fn is_empty(&self) -> bool {
        self.ops() == 0 && self.contents.checkpoints.is_empty()
    }

    /// Checks all bounds and hands the contents to a store.
    pub fn into_contents(self) -> Result<BatchContents, CommitError> {
        within("changes in a batch", Self::OPS_MAX, self.ops())?;
        within("bytes in a batch", Self::BYTES_MAX, self.weight)?;
        within("checkpoints in a batch", Self::CHECKPOINTS_MAX, self.contents.checkpoints.len())?;
        if let Some(key) = &self.contents.idempotency_key {
            name_fits("length of an idempotency key", key)?;
        }
        for version in self.contents.config_versions.values() {
            name_fits("length of a config name", &version.config)?;
            in_range("config version", 1, ConfigVersion::VERSION_MAX.into(), version.version.into())?;
        }
        for (key, package) in &self.contents.packages {
            in_range("length of a package name", 0, Self::NAME_BYTES_MAX as u64, key.name.len() as u64)?;
            name_fits("length of a package version", &key.version)?;
            if let Some(package) = package {
                package.check()?;
            }
        }
        for token in self.contents.tokens.values() {
            name_fits("length of a token id", &token.id)?;
        }
        for (name, secret) in &self.contents.secrets {
            name_fits("length of the name of a secret", name)?;
            let length = secret.expose().len() as u64;
            in_range("length of a secret", 1, ServerSecret::BYTES_MAX as u64, length)?;
        }
        Ok(self.contents)
    }

    /// What a blob counts for in [`WriteBatch::bytes`].
    pub(crate) fn blob_weight(bytes: &Bytes) -> usize {
        64 + bytes.len()
    }

    pub(crate) fn has_blob(&self, id: &BlobId) -> bool {
        self.contents.blobs.contains_key(id)
    }
}

/// The contents of a batch, for those who implement a store.
///
/// `Debug` shows the lengths of blobs, not their bytes.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct BatchContents {
    /// Conditions on the state before.
    pub preconditions: Vec<Precondition>,
    /// Agents to put, or with `None` to delete.
    pub agents: BTreeMap<AgentId, Option<Arc<AgentRecord>>>,
    /// Checkpoints to replace.
    pub checkpoints: BTreeMap<AgentId, Checkpoint>,
    /// Blobs to put.
    pub blobs: BTreeMap<BlobId, Bytes>,
    /// Blobs to delete if nothing refers to them after the batch.
    pub blob_deletions: BTreeSet<BlobId>,
    /// Config versions to put, by name and version.
    pub config_versions: BTreeMap<(String, u32), ConfigVersion>,
    /// Package versions to put, or with `None` to delete.
    pub packages: BTreeMap<PackageKey, Option<PackageContents>>,
    /// Tokens to put, by id.
    pub tokens: BTreeMap<String, ApiToken>,
    /// Secrets to put, by name.
    pub secrets: BTreeMap<String, ServerSecret>,
    /// Audit entries to append, in order.
    pub audit: Vec<NewAuditEntry>,
    /// The key under which a repetition is recognised.
    pub idempotency_key: Option<String>,
}

impl BatchContents {
    /// How many of the last idempotency keys a store remembers at least.
    pub const KEYS_KEPT: u64 = 65_536;

    /// Whether there is nothing but checkpoints: such a batch makes no new revision.
    pub fn only_checkpoints(&self) -> bool {
        self.agents.is_empty()
            && self.blobs.is_empty()
            && self.blob_deletions.is_empty()
            && self.config_versions.is_empty()
            && self.packages.is_empty()
            && self.tokens.is_empty()
            && self.secrets.is_empty()
            && self.audit.is_empty()
            && self.idempotency_key.is_none()
    }
}

impl fmt::Debug for BatchContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blobs: BTreeMap<_, _> = self.blobs.iter().map(|(id, bytes)| (id, bytes.len())).collect();
        f.debug_struct("BatchContents")
            .field("preconditions", &self.preconditions)
            .field("agents", &self.agents)
            .field("checkpoints", &self.checkpoints)
            .field("blobs", &blobs)
            .field("blob_deletions", &self.blob_deletions)
            .field("config_versions", &self.config_versions)
            .field("packages", &self.packages)
            .field("tokens", &self.tokens)
            .field("secrets", &self.secrets)
            .field("audit", &self.audit)
            .field("idempotency_key", &self.idempotency_key)
            .finish()
    }
}

/// A package version to put.
#[derive(Clone, PartialEq, Eq)]
pub struct PackageContents {
    /// The version.
    pub version: PackageVersion,
    /// The blobs of its content, in order.
    pub chunks: Vec<BlobId>,
}

impl PackageContents {
    /// Refuses records whose numbers contradict each other, and what is too large.
    fn check(&self) -> Result<(), InvalidWrite> {
        let Self { version, chunks } = self;
        let signature = version.signature.as_ref().map_or(0, Bytes::len) as u64;
        in_range("length of a package", 1, u64::MAX, version.size_bytes)?;
        in_range("length of a signature", 0, PackageVersion::SIGNATURE_BYTES_MAX as u64, signature)?;
        within("chunks of a package", PackageVersion::CHUNKS_MAX, chunks.len())?;
        let count = version.chunk_count();
        in_range("chunks of a package", count, count, chunks.len() as u64)
    }
}

impl fmt::Debug for PackageContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageContents")
            .field("version", &self.version)
            .field("chunks", &self.chunks.len())
            .finish()
    }
}

/// A condition on the state before a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precondition {
    /// There is no record with this id.
    AgentAbsent(AgentId),
    /// There is a record with this id, last written at this revision.
    AgentAt(AgentId, Revision),
    /// There is no such version.
    ConfigVersionAbsent {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
    },
    /// There is such a version, last written at this revision.
    ConfigVersionAt {
        /// Name of the config.
        config: String,
        /// The version.
        version: u32,
        /// When it was written last.
        revision: Revision,
    },
    /// There is no such package version.
    PackageAbsent(PackageKey),
    /// There is such a package version, written at this revision: it was not deleted and published anew.
    PackageAt(PackageKey, Revision),
    /// There is no secret of this name.
    SecretAbsent(String),
    /// There is no token with this id.
    TokenAbsent(String),
    /// No agent's record has this uid.
    UidFree(InstanceUid),
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentAbsent(id) => write!(f, "agent {id} must not exist"),
            Self::AgentAt(id, revision) => write!(f, "agent {id} must be at revision {revision}"),
            Self::ConfigVersionAbsent { config, version } => {
                write!(f, "version {version} of config {config} must not exist")
            }
            Self::ConfigVersionAt { config, version, revision } => {
                write!(f, "version {version} of config {config} must be at revision {revision}")
            }
            Self::PackageAbsent(key) => write!(f, "package version {key} must not exist"),
            Self::PackageAt(key, revision) => {
                write!(f, "package version {key} must be at revision {revision}")
            }
            Self::SecretAbsent(name) => write!(f, "secret {name} must not exist"),
            Self::TokenAbsent(id) => write!(f, "token {id} must not exist"),
            Self::UidFree(uid) => write!(f, "instance uid {uid} must be free"),
        }
    }
}

/// Refuses names that are empty or too long.
pub(crate) fn name_fits(what: &'static str, name: &str) -> Result<(), InvalidWrite> {
    in_range(what, 1, WriteBatch::NAME_BYTES_MAX as u64, name.len() as u64)
}

fn in_range(what: &'static str, min: u64, max: u64, actual: u64) -> Result<(), InvalidWrite> {
    if (min..=max).contains(&actual) {
        Ok(())
    } else {
        Err(InvalidWrite::OutOfRange { what, min, max, actual })
    }
}

fn within(what: &'static str, limit: usize, actual: usize) -> Result<(), InvalidWrite> {
    if actual <= limit { Ok(()) } else { Err(InvalidWrite::TooLarge { what, limit, actual }) }
}
