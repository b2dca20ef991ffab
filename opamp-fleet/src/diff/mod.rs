//! What changes between two configurations, as text.

mod text;

pub use text::{BodyDiff, DIFF_BYTES_MAX, DIFF_LINES_MAX, FileChange, FileDiff, diff};
