//! Publishing a package: its content comes in pieces and goes to the store chunk by chunk.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use opamp_store::{
    BlobId, CommitError, InvalidWrite, PAGE_MAX, PackageKey, PackageKind, PackageVersion, Precondition,
    Revision, WriteBatch, sweep_unreferenced_blobs_sparing,
};
use sha2::{Digest as _, Sha256};

use super::error::{PackageError, StoreFailure};
use super::packages::{check_name, check_version, of_package, package_value};
use super::state::UnderWay;
use super::types::Actor;
use super::{FleetManager, Inner};

/// Length of a chunk: what a download reads at once, and what an upload keeps in memory.
const CHUNK_BYTES: u32 = 1 << 20;

/// What is known of a package version before its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPackage {
    /// Name and version.
    pub key: PackageKey,
    /// Top-level or an add-on.
    pub kind: PackageKind,
    /// SHA-256 the content must have; none to take it as it comes.
    pub expected_sha256: Option<[u8; 32]>,
    /// A signature of the content, handed to agents as it is.
    pub signature: Option<Bytes>,
}

/// A package version whose content is on its way. It exists when [`finish`](PackageUpload::finish) says so; dropped
/// before, nothing of it stays.
#[derive(Debug)]
pub struct PackageUpload {
    manager: FleetManager,
    actor: Actor,
    package: NewPackage,
    content: Content,
    /// Set while a call is under way, and for good when it failed or was given up.
    broken: bool,
    claim: Claim,
}

/// The content so far.
struct Content {
    hasher: Sha256,
    size_bytes: u64,
    /// Less than one chunk between two calls.
    rest: BytesMut,
    chunks: Vec<BlobId>,
}

impl FleetManager {
    /// Begins to publish a package version.
    ///
    /// # Errors
    /// [`PackageError`]: nothing was begun.
    pub async fn begin_package(
        &self,
        actor: &Actor,
        package: NewPackage,
    ) -> Result<PackageUpload, PackageError> {
        check_name(&package.key.name)?;
        check_version(&package.key.version)?;
        let bytes_max = PackageVersion::SIGNATURE_BYTES_MAX;
        if package.signature.as_ref().is_some_and(|signature| signature.len() > bytes_max) {
            return Err(PackageError::Signature { bytes_max });
        }
        let claim = Claim::take(&self.inner)?;
        let found = self.inner.store.package(&package.key).await.map_err(StoreFailure::from)?;
        if found.is_some() {
            return Err(PackageError::Exists(package.key));
        }
        self.inner.check_room(1).await?;
        let content =
            Content { hasher: Sha256::new(), size_bytes: 0, rest: BytesMut::new(), chunks: Vec::new() };
        let (manager, actor) = (self.clone(), actor.clone());
        Ok(PackageUpload { manager, actor, package, content, broken: false, claim })
    }
}

impl PackageUpload {
    /// Takes the next bytes of the content, however many. What fills a chunk is in the store when this answers.
    ///
    /// Not cancel safe: a call that is given up half way ends the upload, as an error does.
    ///
    /// # Errors
    /// [`PackageError`]: the upload is over, drop it.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), PackageError> {
        self.enter()?;
        let content = &mut self.content;
        let inner = &self.manager.inner;
        let bytes_max = size_max(inner);
        content.size_bytes = content.size_bytes.saturating_add(bytes.len() as u64);
        if content.size_bytes > bytes_max {
            return Err(PackageError::TooLarge { bytes_max });
        }
        self.claim.grow(content.size_bytes);
        content.hasher.update(&bytes);
        while content.rest.len() + bytes.len() >= CHUNK_BYTES as usize {
            let taken = bytes.split_to(CHUNK_BYTES as usize - content.rest.len());
            content.rest.extend_from_slice(&taken);
            let chunk = std::mem::take(&mut content.rest).freeze();
            content.chunks.push(inner.put_chunk(&self.claim, chunk).await?);
        }
        content.rest.extend_from_slice(&bytes);
        self.broken = false;
        Ok(())
    }

    /// How many bytes came so far.
    pub fn size_bytes(&self) -> u64 {
        self.content.size_bytes
    }

    /// Publishes the version: from now on it can be assigned, and cannot change.
    ///
    /// # Errors
    /// [`PackageError`]; nothing was published, except perhaps on [`StoreFailure::OutcomeUnknown`].
    pub async fn finish(mut self) -> Result<PackageVersion, PackageError> {
        self.enter()?;
        let Content { hasher, size_bytes, rest, mut chunks } = self.content;
        if size_bytes == 0 {
            return Err(PackageError::Empty);
        }
        let content_sha256: [u8; 32] = hasher.finalize().into();
        if let Some(expected) = self.package.expected_sha256.filter(|expected| *expected != content_sha256) {
            let [expected, actual] = [expected, content_sha256].map(|hash| HEXLOWER.encode(&hash));
            return Err(PackageError::WrongHash { expected, actual });
        }
        let inner = &self.manager.inner;
        if !rest.is_empty() {
            chunks.push(inner.put_chunk(&self.claim, rest.freeze()).await?);
        }
        let version = PackageVersion {
            key: self.package.key,
            kind: self.package.kind,
            size_bytes,
            content_sha256,
            signature: self.package.signature,
            chunk_bytes: CHUNK_BYTES,
            created_at: inner.now().wall,
            created_by: self.actor.name.clone(),
            revision: Revision::default(),
        };
        let (actor, claim) = (self.actor, self.claim);
        // The claim goes along: its chunks are spared until they are referred to, or the commit failed.
        self.manager
            .complete(|inner| async move {
                let outcome = inner.publish_package(&actor, version, chunks).await;
                drop(claim);
                outcome
            })
            .await
    }

    /// Whether there was no mistake yet. One that is given up half way may have lost bytes.
    fn enter(&mut self) -> Result<(), PackageError> {
        match std::mem::replace(&mut self.broken, true) {
            true => Err(PackageError::Aborted),
            false => Ok(()),
        }
    }
}

impl Inner {
    /// Stores one chunk, which no sweep of this process takes away while the upload lasts. The upload has grown by it
    /// before.
    async fn put_chunk(&self, claim: &Claim, bytes: Bytes) -> Result<BlobId, PackageError> {
        self.check_bytes(0).await?;
        let _no_sweep = self.sweeping.read().await;
        let mut batch = WriteBatch::new();
        let id = batch.put_blob(bytes);
        self.state().uploads.entry(claim.number).or_default().chunks.insert(id);
        self.commit_repeatable(batch).await.map_err(StoreFailure::from)?;
        Ok(id)
    }

    async fn publish_package(
        &self,
        actor: &Actor,
        mut version: PackageVersion,
        chunks: Vec<BlobId>,
    ) -> Result<PackageVersion, PackageError> {
        let key = version.key.clone();
        let mut batch = WriteBatch::new();
        batch.require(Precondition::PackageAbsent(key.clone()));
        batch.put_package(version.clone(), chunks);
        let deed = of_package("package.publish", &key, None, Some(package_value(&version)));
        batch.append_audit(self.audit_entry(actor, self.now().wall, deed));
        match self.commit(batch, None).await {
            Ok(revision) => {
                version.revision = revision;
                Ok(version)
            }
            Err(CommitError::Precondition(_)) => Err(PackageError::Exists(key)),
            Err(CommitError::BlobMissing(_)) => Err(PackageError::ContentLost),
            Err(CommitError::Invalid(InvalidWrite::TooLarge { limit, .. })) => {
                Err(PackageError::TooMany { max: limit })
            }
            Err(error) => Err(StoreFailure::from(error).into()),
        }
    }

    /// Refuses one more package version of so many bytes if there is no room for it.
    async fn check_room(&self, more_bytes: u64) -> Result<(), PackageError> {
        let max = self.settings.packages.versions_max;
        if self.check_bytes(more_bytes).await? >= max {
            return Err(PackageError::TooMany { max });
        }
        Ok(())
    }

    /// Refuses that there are so many more bytes if all packages would have too many together, and tells how many
    /// versions there are.
    ///
    /// The catalogue is counted anew each time: other processes publish and delete too, and beside storing a chunk that
    /// costs little.
    async fn check_bytes(&self, more_bytes: u64) -> Result<usize, PackageError> {
        // Before the catalogue is read: what is published meanwhile is counted twice rather than not at all.
        let mut bytes = self.state().uploads.values().map(|upload| upload.size_bytes).sum::<u64>();
        let bytes_max = self.settings.packages.total_bytes_max;
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.store.packages(after, PAGE_MAX).await.map_err(StoreFailure::from)?;
            count += page.items.len();
            bytes = page.items.iter().fold(bytes, |bytes, version| bytes.saturating_add(version.size_bytes));
            after = page.next;
            if bytes.saturating_add(more_bytes) > bytes_max {
                return Err(PackageError::NoRoom { bytes_max });
            }
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Deletes blobs nothing refers to, except those of uploads that are under way.
    pub(super) async fn sweep_blobs(&self) {
        // No chunk is put between looking which are spared and deleting the others.
        let _no_chunks = self.sweeping.write().await;
        let spared: BTreeSet<BlobId> = {
            let state = self.state();
            state.uploads.values().flat_map(|upload| &upload.chunks).copied().collect()
        };
        let spares = |id: &BlobId| spared.contains(id);
        if let Err(error) = sweep_unreferenced_blobs_sparing(self.store.as_ref(), None, &spares).await {
            tracing::warn!(%error, "unreferenced blobs were not deleted");
        }
    }
}

/// A place among the uploads that may be under way, and the chunks they have stored.
struct Claim {
    inner: Arc<Inner>,
    number: u64,
}

impl Claim {
    fn take(inner: &Arc<Inner>) -> Result<Self, PackageError> {
        let max = inner.settings.packages.uploads_max;
        let mut state = inner.state();
        if state.uploads.len() >= max {
            return Err(PackageError::TooManyUploads { max });
        }
        let number = state.uploads.last_key_value().map_or(0, |(last, _)| last + 1);
        state.uploads.insert(number, UnderWay::default());
        drop(state);
        Ok(Self { inner: Arc::clone(inner), number })
    }

    /// Has others know how many bytes came so far.
    fn grow(&self, size_bytes: u64) {
        self.inner.state().uploads.entry(self.number).or_default().size_bytes = size_bytes;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.state().uploads.remove(&self.number);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.number).finish()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

/// Largest content: as set, and as much as chunks of a version can hold.
fn size_max(inner: &Inner) -> u64 {
    let chunks_max = PackageVersion::CHUNKS_MAX as u64 * u64::from(CHUNK_BYTES);
    inner.settings.packages.file_bytes_max.min(chunks_max)
}
