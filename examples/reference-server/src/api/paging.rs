//! Lists in pages: how many items, and after which one.

use super::{
    error::ApiError,
    extract::{self, Parameters},
};

/// Items of one page, if not said otherwise.
pub(super) const PAGE_DEFAULT: usize = 100;

/// Most items of one page.
const PAGE_MAX: usize = 1_000;

/// The query parameters of a list that has no others.
pub(super) struct Paging<C> {
    pub(super) after: Option<C>,
    pub(super) limit: usize,
}

/// What `cursor` is of a list.
pub(super) trait Cursor: Sized {
    /// Reads one that an earlier page gave.
    fn read(value: &str) -> Result<Self, ApiError>;
}

impl Cursor for String {
    fn read(value: &str) -> Result<Self, ApiError> {
        Ok(value.to_owned())
    }
}

impl<C> Default for Paging<C> {
    fn default() -> Self {
        Paging { after: None, limit: PAGE_DEFAULT }
    }
}

impl<C: Cursor> Parameters for Paging<C> {
    const NAMES: &'static [&'static str] = &["limit", "cursor"];

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        match name {
            "limit" => self.limit = limit(value)?,
            _ => self.after = Some(C::read(value)?),
        }
        Ok(())
    }
}

/// Reads the `limit` of a page.
pub(super) fn limit(value: &str) -> Result<usize, ApiError> {
    let limit: usize = extract::parse("limit", value)?;
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::bad_request(format!("query parameter `limit` is 1 to {PAGE_MAX}")))
}
