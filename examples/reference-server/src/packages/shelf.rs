//! Where the files of packages come from, as far as downloads are concerned.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use opamp_proto::AgentId;
use opamp_store::PackageVersion;

/// What a request shows to get at a file.
#[derive(Clone)]
pub(crate) struct Presented<'a> {
    /// Whose package it is said to be.
    pub(super) agent: AgentId,
    /// SHA-256 of the file.
    pub(super) content: [u8; 32],
    /// The download token of the offer.
    pub(super) token: &'a str,
    /// Where the request comes from, for the audit log.
    pub(super) source: Option<String>,
}

/// The file, or none: no such agent, no such file, not assigned to the agent, or another token. Nobody is told which.
pub(crate) type Opened = Option<Arc<PackageVersion>>;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    /// A chunk has not the size that the catalogue says.
    #[error("a stored chunk of the file has the wrong size")]
    Damaged,
    /// It was deleted meanwhile.
    #[error("the file was deleted meanwhile")]
    Gone,
    /// The store takes too long.
    #[error("the store takes too long")]
    Slow,
    /// The store does not answer.
    #[error("the store does not answer: {0}")]
    Store(String),
}

/// The files that agents may download.
pub(crate) trait Shelf: Send + Sync + 'static {
    /// Looks a file up, if it is meant for whoever shows this.
    fn open<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Opened, ShelfError>>;

    /// Reads one of the chunks that the file is stored in.
    fn chunk(
        self: Arc<Self>,
        file: Arc<PackageVersion>,
        index: u64,
    ) -> BoxFuture<'static, Result<Bytes, ShelfError>>;
}
