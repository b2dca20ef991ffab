//! What every test begins and ends with.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::process::Directory;

/// Lines of each log that are shown with a failure.
const LOG_LINES: usize = 40;

/// Runs a test in a directory of its own. A failure comes with the end of every log in there.
///
/// # Errors
///
/// Those of the test.
pub fn scenario(name: &str, body: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let directory = Directory::new(name)?;
    body(directory.path())
        .map_err(|failure| Failure::new(format!("{failure:?}{}", last_words(directory.path()))))
}

fn last_words(directory: &Path) -> String {
    let mut shown = String::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            shown.push_str(&format!("\n--- end of {} ---\n{last}", entry.file_name().to_string_lossy()));
        }
    }
    shown
}
