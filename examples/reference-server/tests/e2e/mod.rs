//! Support of the end-to-end tests: a whole server with its database, started as its users start it, and clients that are
//! not made of its code.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test file uses a part"
)]

pub mod dir;
pub mod harness;
pub mod metrics;
pub mod pki;
pub mod process;
pub mod rest;
pub mod swarm;
pub mod wire;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// Long enough for a loaded machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is something to see; fails with what was seen last.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) if Instant::now() > deadline => {
                panic!("never happened: {what}; last seen: {instead}")
            }
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// What [`until`] looks for: a condition, and what to show where it does not hold.
pub fn when<T>(condition: bool, found: T, instead: impl std::fmt::Display) -> Result<T, String> {
    if condition { Ok(found) } else { Err(instead.to_string()) }
}
