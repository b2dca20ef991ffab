//! The contract of a store.
//!
//! Every method lists numbered clauses; the name behind a clause is the test of the conformance suite that proves it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use opamp_proto::{AgentId, InstanceUid};

use crate::{
    Acquired, AgentRecord, ApiToken, AuditEntry, AuditQuery, AuditReport, BlobId, Changes, Checkpoint,
    CommitError, ConfigVersion, Fence, Lease, LeaseError, Page, ReadError, Revision, StoreStats, Unhealthy,
    WriteBatch,
};
use crate::{PackageKey, PackageVersion, ServerSecret};

/// A complete store: everything readable, and the one method that writes.
///
/// Futures borrow the store only, so arguments need not outlive the call. Errors are values of the operation that
/// failed; a store never panics for what it reads.
pub trait Store:
    AgentStore + AuditLog + BlobStore + ConfigStore + CredentialStore + LeaseStore + PackageStore
{
    /// Writes a batch as a whole and answers the revision at which it can be seen.
    ///
    /// Dropping the future does not take the batch back: it is then unknown whether it was written.
    ///
    /// 1. Acknowledged means durable and visible to every later read through any handle.
    ///    `acknowledged_writes_are_visible_at_once`
    /// 2. Revisions grow by one with every commit, whichever handle made it, and every record carries the one of the
    ///    commit that wrote it. `revisions_grow_with_every_commit`
    /// 3. A batch of nothing or of checkpoints alone makes no revision and answers the present one.
    ///    `checkpoints_alone_make_no_revision`
    /// 4. A failed batch leaves nothing behind, of no aggregate. `failed_commit_leaves_nothing`
    /// 5. Every precondition is judged on the state before the batch, and the refusal names it.
    ///    `each_precondition_is_judged`
    /// 6. Of concurrent commits that each require the same revision, exactly one wins.
    ///    `one_of_many_conflicting_commits_wins`
    /// 7. Concurrent commits fail one by one: a refused one takes no other with it.
    ///    `a_refused_commit_takes_no_other_with_it`
    /// 8. A repeated idempotency key changes nothing and answers the first revision, before preconditions and fence are
    ///    looked at. `a_replayed_key_answers_the_first_revision`
    /// 9. A failed batch does not use up its idempotency key. `a_failed_commit_leaves_its_key_free`
    /// 10. A batch beyond the bounds of [`WriteBatch`] is refused. `oversized_batches_are_refused`
    /// 11. A fence of another epoch than the role's present one is refused; a role never held is at epoch 0, which no
    ///     fence has. `a_stale_fence_is_refused`
    /// 12. A record may only newly refer to a blob that is stored or in the batch.
    ///     `a_reference_to_a_missing_blob_is_refused`
    /// 13. That is judged of every record of a batch, whatever those beside it refer to.
    ///     `every_reference_of_many_records_is_judged`
    /// 14. A record may only refer to package versions that are there after the batch.
    ///     `a_reference_to_a_missing_package_is_refused`
    fn commit(&self, batch: WriteBatch, fence: Option<Fence>)
    -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// Whether the store can do its work now: reads something, and after a failed write tries one of its own.
    ///
    /// 1. An open store that works is healthy. `an_open_store_is_healthy`
    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>>;

    /// Counters of this handle.
    ///
    /// 1. A batch of checkpoints writes no other row, and far fewer rows than agents.
    ///    `checkpoints_are_packed`
    fn stats(&self) -> StoreStats;

    /// Finishes what was accepted, then closes this handle. Closing twice does nothing.
    ///
    /// 1. Every operation on a closed handle answers that it is closed. `a_closed_store_says_so`
    /// 2. Everything acknowledged is there when the store is opened again. `everything_is_there_after_reopening`
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Agent records and checkpoints.
pub trait AgentStore: Send + Sync {
    /// The record with this id, perhaps shared with others who read it.
    ///
    /// 1. It reads back as it was committed, field for field. `an_agent_reads_back_as_committed`
    /// 2. A deleted one is gone, and so is its checkpoint. `a_deleted_agent_is_gone`
    fn agent(&self, id: &AgentId) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>>;

    /// The record whose present uid this is.
    ///
    /// 1. Only the uid in use finds an agent, not one it had before. `only_the_present_uid_finds_an_agent`
    /// 2. A batch after which two agents would have one uid is refused. `the_uid_of_another_agent_is_refused`
    /// 3. Agents may exchange uids in one batch. `uids_can_be_swapped_in_one_batch`
    fn agent_by_uid(&self, uid: &InstanceUid) -> BoxFuture<'_, Result<Option<Arc<AgentRecord>>, ReadError>>;

    /// All records.
    ///
    /// 1. Ascending by id, each once, at most `limit` a page. `agents_are_paged_in_id_order`
    /// 2. A record that exists during a whole walk is in exactly one of its pages, whatever is written meanwhile.
    ///    `agent_paging_is_stable_under_writes`
    /// 3. Limits outside 1..=[`PAGE_MAX`](crate::PAGE_MAX) are brought within. `page_limits_are_clamped`
    fn agents(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AgentRecord, AgentId>, ReadError>>;

    /// The records written after a revision.
    ///
    /// 1. Exactly those with a higher revision, ascending by it. `changes_come_in_revision_order`
    /// 2. An answer never ends within a commit, and may exceed `limit` to keep that. `changes_never_split_a_commit`
    /// 3. No record with a revision at or below an answered `upto` becomes visible later, however many write.
    ///    `no_change_appears_behind_a_reader`
    /// 4. `upto` reaches the store's revision even when no agent changed. `changes_catch_up_without_agents`
    /// 5. Deleted agents are not among the changes; who follows the store compares ids now and then.
    ///    `deleted_agents_are_not_among_the_changes`
    fn changed_since(&self, revision: Revision, limit: usize) -> BoxFuture<'_, Result<Changes, ReadError>>;

    /// All checkpoints.
    ///
    /// 1. Ascending by id, each once, at most `limit` a page, the last committed one of each agent.
    ///    `checkpoints_read_back_in_id_order`
    /// 2. Those of agents without a record are not kept. `checkpoints_need_a_record`
    fn checkpoints(
        &self,
        after: Option<AgentId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Checkpoint, AgentId>, ReadError>>;
}

/// Content-addressed bytes.
pub trait BlobStore: Send + Sync {
    /// The bytes with this id.
    ///
    /// 1. They read back as they were put. `a_blob_reads_back`
    /// 2. Equal bytes are stored once. `equal_blobs_are_stored_once`
    fn blob(&self, id: &BlobId) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>>;

    /// Blobs nothing refers to, ascending by id.
    ///
    /// 1. A config version, a package version, an agent's desired config, its history, its last known good, its
    ///    connection settings, its effective config and its components pin their blobs; everything else is listed.
    ///    `every_kind_of_reference_pins_a_blob`
    /// 2. At most `limit` a page. `unreferenced_blobs_are_paged`
    /// 3. [`WriteBatch::delete_blob_if_unreferenced`] spares what is referred to when it is committed.
    ///    `deletion_spares_referenced_blobs`
    fn unreferenced_blobs(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<BlobId, BlobId>, ReadError>>;
}

/// Named configs and their versions.
pub trait ConfigStore: Send + Sync {
    /// Names of all configs.
    ///
    /// 1. Ascending by bytes, each once, at most `limit` a page. `config_names_are_paged`
    fn config_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<String, String>, ReadError>>;

    /// All versions of a config, ascending; empty for an unknown one. Bounded by [`ConfigVersion::VERSION_MAX`].
    ///
    /// 1. Ascending by version, as committed. `versions_are_listed_in_order`
    fn versions(&self, config: &str) -> BoxFuture<'_, Result<Vec<ConfigVersion>, ReadError>>;

    /// One version.
    ///
    /// 1. A draft can be replaced. `a_draft_can_be_replaced`
    /// 2. A published version can be archived; otherwise content, hash and state stay. `a_published_version_is_immutable`
    fn version(&self, config: &str, version: u32) -> BoxFuture<'_, Result<Option<ConfigVersion>, ReadError>>;
}

/// The package catalogue.
pub trait PackageStore: Send + Sync {
    /// One package version.
    ///
    /// 1. It reads back as it was committed. `a_package_reads_back`
    /// 2. It cannot be put again, changed or not. `a_package_version_is_immutable`
    /// 3. A deleted one is gone, its content is unreferenced, and its key is free. `a_deleted_package_is_gone`
    /// 4. One that a record refers to before or after the batch cannot be deleted.
    ///    `an_assigned_package_cannot_be_deleted`
    /// 5. There is an end to them: one more than [`PackageVersion::PACKAGES_MAX`] is refused.
    ///    `too_many_packages_are_refused`
    fn package(&self, key: &PackageKey) -> BoxFuture<'_, Result<Option<PackageVersion>, ReadError>>;

    /// All package versions.
    ///
    /// 1. Ascending by key, each once, at most `limit` a page. `packages_are_paged_in_order`
    fn packages(
        &self,
        after: Option<PackageKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<PackageVersion, PackageKey>, ReadError>>;

    /// The chunks of a package's content from the one at place `first`, counted from 0, at most `limit`.
    ///
    /// 1. In the order they were put, equal ones repeated; none beyond the end or for an unknown package.
    ///    `chunks_are_read_by_range`
    fn package_chunks(
        &self,
        key: &PackageKey,
        first: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, ReadError>>;
}

/// The append-only, hash-chained log of who did what.
pub trait AuditLog: Send + Sync {
    /// Entries that match a query.
    ///
    /// 1. `seq` grows with the order of commits and, within a batch, of appending; entries read back as appended.
    ///    `audit_entries_keep_their_order`
    /// 2. Every filter is applied, `since` inclusive, `until` exclusive. `every_audit_filter_is_applied`
    /// 3. Both orders page to the end without gap or repetition. `audit_is_paged_both_ways`
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Page<AuditEntry, u64>, ReadError>>;

    /// Walks the whole log and checks every chain. Takes time and a read snapshot in proportion to the log.
    ///
    /// 1. An untouched log is intact, and every writer has a chain of its own. `audit_chains_are_per_writer_and_verify`
    fn verify(&self) -> BoxFuture<'_, Result<AuditReport, ReadError>>;
}

/// API tokens, and secrets of the server's own.
pub trait CredentialStore: Send + Sync {
    /// The token with this id, revoked and expired ones included.
    ///
    /// 1. It reads back as it was put; putting it again replaces it. `a_token_reads_back`
    fn token(&self, id: &str) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>>;

    /// The token whose secret has this SHA-256, revoked and expired ones included.
    ///
    /// 1. Found by the present secret only. `a_token_is_found_by_its_secret`
    /// 2. A batch after which two tokens would share a secret is refused. `a_secret_belongs_to_one_token`
    fn token_by_secret_hash(
        &self,
        secret_sha256: &[u8; 32],
    ) -> BoxFuture<'_, Result<Option<ApiToken>, ReadError>>;

    /// All tokens, ascending by id. Bounded by [`ApiToken::TOKENS_MAX`].
    ///
    /// 1. Ascending by id, each once. `tokens_are_listed_in_order`
    fn tokens(&self) -> BoxFuture<'_, Result<Vec<ApiToken>, ReadError>>;

    /// A secret the server keeps under this name.
    ///
    /// 1. It reads back as it was put; putting it again replaces it. `a_server_secret_reads_back`
    fn secret(&self, name: &str) -> BoxFuture<'_, Result<Option<ServerSecret>, ReadError>>;
}

/// Who may act in a role, decided by the store's clock.
pub trait LeaseStore: Send + Sync {
    /// Takes a role that is free or whose lease has ended.
    ///
    /// 1. A role never held is acquired with epoch 1. `a_free_role_is_acquired`
    /// 2. A held one is not, not even by its holder's name: that may be a former self. `a_held_role_is_taken`
    /// 3. One past its end is claimable at once, with epoch + 1. `an_ended_lease_is_claimable_with_the_next_epoch`
    /// 4. Of concurrent attempts exactly one succeeds. `one_of_many_acquires_a_role`
    fn acquire(&self, role: &str, holder: &str, ttl: Duration)
    -> BoxFuture<'_, Result<Acquired, LeaseError>>;

    /// Prolongs a lease from now on. One past its end can still be renewed while nobody else took the role.
    ///
    /// 1. It keeps the epoch and moves the end. `renewal_keeps_the_epoch`
    /// 2. A lease that somebody else took, or that was released, is lost. `a_lost_lease_cannot_be_renewed`
    fn renew(&self, lease: &Lease, ttl: Duration) -> BoxFuture<'_, Result<Lease, LeaseError>>;

    /// Gives a role up, so that another need not wait for its end. Fences of the epoch stay valid until then.
    ///
    /// 1. The role is claimable at once, with epoch + 1. `a_released_role_is_claimable`
    fn release(&self, lease: &Lease) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// The last lease of a role, ended or not; `None` when nobody ever held it.
    ///
    /// 1. Shows holder, epoch and end. `the_last_lease_is_visible`
    fn lease(&self, role: &str) -> BoxFuture<'_, Result<Option<Lease>, ReadError>>;
}
