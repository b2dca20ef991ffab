//! What every test begins and ends with.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::process::Directory;

/// Lines of the server's log that are shown with a failure.
const LOG_LINES: usize = 40;

/// Runs a test in a directory of its own. A failure comes with the end of the server's log.
///
/// # Errors
///
/// Those of the test.
pub fn scenario(name: &str, body: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let directory = Directory::new(name)?;
    body(directory.path()).map_err(|failure| {
        let log = fs::read_to_string(directory.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Failure::new(format!("{failure:?}\n--- end of the server's log ---\n{last}"))
    })
}
