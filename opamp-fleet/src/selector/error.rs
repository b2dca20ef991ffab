//! What is wrong with a selector, and where.

/// A selector that cannot be used: where, what stands there, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector, character {column}: found {found}, expected {expected}")]
pub struct SelectorError {
    /// Byte offset into the text.
    pub offset: usize,
    /// The same place for people: characters, counted from 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What could stand there.
    pub expected: String,
}

impl SelectorError {
    pub(super) fn new(text: &str, offset: usize, found: String, expected: impl Into<String>) -> Self {
        let column = text[..offset].chars().count() + 1;
        Self { offset, column, found, expected: expected.into() }
    }
}
