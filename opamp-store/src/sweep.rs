//! Retention of blobs.

use crate::{BlobId, Fence, PAGE_MAX, Store, SweepError, WriteBatch};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Unreferenced blobs found and handed to deletion. One that is referred to again by then is spared.
    pub blobs: u64,
}

/// Deletes every blob that nothing refers to, in bounded batches.
///
/// May run at any time beside other writers: references are judged again in the transaction that deletes. Put a blob
/// into the same batch as the record that refers to it, then no sweep can come between.
pub async fn sweep_unreferenced_blobs(store: &dyn Store, fence: Option<Fence>) -> Result<Swept, SweepError> {
    sweep_unreferenced_blobs_sparing(store, fence, &|_| false).await
}

/// The same, except for blobs that something outside the store is about to refer to: content that is put in several
/// batches before the record that refers to it.
pub async fn sweep_unreferenced_blobs_sparing(
    store: &dyn Store,
    fence: Option<Fence>,
    spares: &(dyn Fn(&BlobId) -> bool + Sync),
) -> Result<Swept, SweepError> {
    let mut swept = Swept::default();
    let mut after = None;
    loop {
        let page = store.unreferenced_blobs(after, PAGE_MAX).await?;
        let mut batch = WriteBatch::new();
        for id in page.items.iter().filter(|id| !spares(id)) {
            batch.delete_blob_if_unreferenced(*id);
        }
        if !batch.is_empty() {
            swept.blobs += batch.ops() as u64;
            store.commit(batch, fence.clone()).await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(swept);
        }
    }
}
