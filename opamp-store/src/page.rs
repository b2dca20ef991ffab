//! Revisions, pages and queries.

use std::fmt;

use opamp_proto::Wall;
use serde::{Deserialize, Serialize};

use crate::AgentRecord;

/// The most items one page can have. A limit of 0 counts as 1, one above this as this.
pub const PAGE_MAX: usize = 1_000;

/// Counts the commits of a store; 0 before the first. Every record carries the revision that wrote it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A bounded stretch of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The items, in the order of the listing.
    pub items: Vec<T>,
    /// What to pass as `after` to continue; `None` when there is nothing more.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// A page of at most `limit` from up to `limit + 1` items: the one too many proves that there is a next page.
    pub fn cut(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> C) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

impl<T, C> Default for Page<T, C> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

/// What [`changed_since`](crate::AgentStore::changed_since) answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed records, by ascending revision; never half of a commit.
    pub records: Vec<AgentRecord>,
    /// The revision up to which `records` is complete: what to ask with next.
    pub upto: Revision,
    /// Whether there already are changes beyond `upto`.
    pub more: bool,
}

/// Which audit entries to list. All conditions must hold; an absent one always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditQuery {
    /// Exact actor.
    pub actor: Option<String>,
    /// Exact action.
    pub action: Option<String>,
    /// Exact entity.
    pub entity: Option<String>,
    /// Not before this time.
    pub since: Option<Wall>,
    /// Before this time.
    pub until: Option<Wall>,
    /// Continue after the entry with this `seq`, in the direction of `order`.
    pub after: Option<u64>,
    /// Which end to start from.
    pub order: AuditOrder,
    /// At most so many, see [`PAGE_MAX`].
    pub limit: usize,
}

impl Default for AuditQuery {
    fn default() -> Self {
        Self {
            actor: None,
            action: None,
            entity: None,
            since: None,
            until: None,
            after: None,
            order: AuditOrder::OldestFirst,
            limit: 100,
        }
    }
}

/// The direction of an audit listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditOrder {
    /// By descending `seq`.
    NewestFirst,
    /// By ascending `seq`.
    #[default]
    OldestFirst,
}

/// Brings a caller's limit into 1..=[`PAGE_MAX`].
pub(crate) fn clamp_limit(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}
