//! Waiting for what another process will do. There is no clock to inject into a foreign process, so this looks again
//! and again; how long it took is part of the answer.

use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is an answer, at most for `within`. Returns the answer and how long it took.
///
/// # Errors
///
/// There was none in time, or looking failed; the text says what was awaited and what the last look found.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Outcome<Look<T>>,
) -> Outcome<(T, Duration)> {
    let begun = Instant::now();
    loop {
        match look()? {
            Look::Found(answer) => return Ok((answer, begun.elapsed())),
            Look::NotYet(instead) if begun.elapsed() >= within => {
                return Err(Failure::new(format!("{what}: not within {within:?}; last seen: {instead}")));
            }
            Look::NotYet(_) => thread::sleep(PAUSE),
        }
    }
}

/// What one look found.
#[derive(Debug)]
pub enum Look<T> {
    /// It is there.
    Found(T),
    /// It is not; this is there instead.
    NotYet(String),
}

impl<T> Look<T> {
    /// `Found` if the condition holds.
    pub fn when(condition: bool, found: T, instead: impl Into<String>) -> Self {
        if condition { Self::Found(found) } else { Self::NotYet(instead.into()) }
    }
}
