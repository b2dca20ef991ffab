//! Counters of a store handle.

/// What a handle did since it was opened. Row counts are of committed transactions only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Batches acknowledged with a new revision or as checkpoints; replays are not among them.
    pub commits: u64,
    /// Batches refused or failed.
    pub commits_failed: u64,
    /// Transactions that carried those batches: fewer than `commits` when commits were grouped.
    pub transactions: u64,
    /// Rows inserted, updated or deleted, checkpoints aside, the store's own bookkeeping included.
    pub rows_written: u64,
    /// Packed checkpoint rows inserted, updated or deleted; each carries many agents.
    pub checkpoint_rows_written: u64,
    /// Agents whose checkpoint was written.
    pub checkpoints_written: u64,
}
