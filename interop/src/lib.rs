//! Running the reference server against OpAMP implementations that are not ours, as processes that can be stopped,
//! frozen and killed.
//!
//! Tests that need Go 1.25 or newer are ignored by default; `cargo xtask interop` runs them, `cargo xtask test` runs
//! them where Go is there and counts them as skipped where it is not.

pub mod agent;
pub mod certificates;
pub mod failure;
pub mod process;
pub mod rest;
pub mod scenario;
pub mod server;
pub mod wait;

pub use agent::Agent;
pub use certificates::Certificates;
pub use failure::{Failure, Outcome};
pub use rest::Rest;
pub use scenario::scenario;
pub use server::{Record, Server};
pub use wait::{Look, eventually};
