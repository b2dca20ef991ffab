//! The conformance suite: one test per numbered clause of the [trait documentation](crate::Store).
//!
//! An implementation outside this crate runs it like this, with tokio (`macros`, `rt`) among its dev-dependencies:
//!
//! ```
//! use std::sync::Arc;
//!
//! use futures::future::BoxFuture;
//! use opamp_store::conformance::Location;
//! use opamp_store::{MemoryStore, Store};
//!
//! /// Where one test keeps its data; empty at first.
//! struct MyLocation(MemoryStore);
//!
//! impl Location for MyLocation {
//!     fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
//!         Box::pin(async { Arc::new(self.0.clone()) as Arc<dyn Store> })
//!     }
//! }
//!
//! // The expression is evaluated once per test and may await.
//! opamp_store::conformance_suite!(MyLocation(MemoryStore::new()));
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and this is a suite of tests")]

mod agents;
mod audit;
mod batches;
mod blobs;
mod changes;
mod checkpoints;
mod commits;
mod configs;
mod dump;
mod fixtures;
mod handle;
mod leases;
mod packages;
mod tokens;

use std::future::ready;
use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::agents::*;
pub use self::audit::*;
pub use self::batches::*;
pub use self::blobs::*;
pub use self::changes::*;
pub use self::checkpoints::*;
pub use self::commits::*;
pub use self::configs::*;
pub use self::dump::Dump;
pub use self::handle::*;
pub use self::leases::*;
pub use self::packages::*;
pub use self::tokens::*;
use crate::{MemoryStore, Store};

/// A place that holds the data of one test; empty at first.
pub trait Location: Send + Sync {
    /// Opens a store on the data. May be called again after the last store was closed, and while one is open: two
    /// stores are two writers.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>>;
}

impl Location for MemoryStore {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        Box::pin(ready(Arc::new(self.clone()) as Arc<dyn Store>))
    }
}

/// Expands to one `#[tokio::test]` per clause of the contract of [`Store`](crate::Store), each on its own
/// [`Location`](crate::conformance::Location) made by the given expression.
#[macro_export]
macro_rules! conformance_suite {
    ($location:expr) => {
        $crate::conformance_suite! { @clauses $location;
            // Store::commit
            acknowledged_writes_are_visible_at_once
            revisions_grow_with_every_commit
            checkpoints_alone_make_no_revision
            failed_commit_leaves_nothing
            each_precondition_is_judged
            one_of_many_conflicting_commits_wins
            a_refused_commit_takes_no_other_with_it
            a_replayed_key_answers_the_first_revision
            a_failed_commit_leaves_its_key_free
            oversized_batches_are_refused
            a_stale_fence_is_refused
            a_reference_to_a_missing_blob_is_refused
            every_reference_of_many_records_is_judged
            a_reference_to_a_missing_package_is_refused
            // Store::health, stats, close
            an_open_store_is_healthy
            checkpoints_are_packed
            a_closed_store_says_so
            everything_is_there_after_reopening
            // AgentStore
            an_agent_reads_back_as_committed
            a_deleted_agent_is_gone
            only_the_present_uid_finds_an_agent
            the_uid_of_another_agent_is_refused
            uids_can_be_swapped_in_one_batch
            agents_are_paged_in_id_order
            agent_paging_is_stable_under_writes
            page_limits_are_clamped
            changes_come_in_revision_order
            changes_never_split_a_commit
            no_change_appears_behind_a_reader
            changes_catch_up_without_agents
            deleted_agents_are_not_among_the_changes
            checkpoints_read_back_in_id_order
            checkpoints_need_a_record
            // BlobStore
            a_blob_reads_back
            equal_blobs_are_stored_once
            every_kind_of_reference_pins_a_blob
            unreferenced_blobs_are_paged
            deletion_spares_referenced_blobs
            // ConfigStore
            config_names_are_paged
            versions_are_listed_in_order
            a_draft_can_be_replaced
            a_published_version_is_immutable
            // PackageStore
            a_package_reads_back
            a_package_version_is_immutable
            a_deleted_package_is_gone
            an_assigned_package_cannot_be_deleted
            too_many_packages_are_refused
            packages_are_paged_in_order
            chunks_are_read_by_range
            // AuditLog
            audit_entries_keep_their_order
            every_audit_filter_is_applied
            audit_is_paged_both_ways
            audit_chains_are_per_writer_and_verify
            // CredentialStore
            a_token_reads_back
            a_token_is_found_by_its_secret
            a_secret_belongs_to_one_token
            tokens_are_listed_in_order
            a_server_secret_reads_back
            // LeaseStore
            a_free_role_is_acquired
            a_held_role_is_taken
            an_ended_lease_is_claimable_with_the_next_epoch
            one_of_many_acquires_a_role
            renewal_keeps_the_epoch
            a_lost_lease_cannot_be_renewed
            a_released_role_is_claimable
            the_last_lease_is_visible
        }
    };
    (@clauses $location:expr; $($clause:ident)*) => {
        $(
            #[tokio::test]
            async fn $clause() {
                let location = $location;
                $crate::conformance::$clause(&location).await;
            }
        )*
    };
}
