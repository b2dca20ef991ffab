//! Running our servers and agents as processes that can be stopped, frozen and killed: against OpAMP implementations
//! that are not ours, and against each other.
//!
//! Tests that need Go 1.25 or newer are ignored by default; `cargo xtask interop` runs them, `cargo xtask test` runs
//! them where Go is there and counts them as skipped where it is not. Those with the OpenTelemetry Collector are run by
//! `cargo xtask interop --collector` alone, because it takes minutes to build.

pub mod agent;
pub mod authority;
pub mod cases;
pub mod certificates;
pub mod collector;
mod daemon;
pub mod failure;
pub mod go_server;
pub mod local;
pub mod ours;
pub mod process;
mod program;
pub mod rest;
pub mod scenario;
pub mod server;
pub mod supervisor;
pub mod wait;

pub use agent::Agent;
pub use authority::Authority;
pub use cases::each;
pub use certificates::Certificates;
pub use collector::Collector;
pub use failure::{Failure, Outcome};
pub use go_server::GoServer;
pub use local::{LocalServer, Setup};
pub use ours::{Extras, Kind, LibraryAgent, Ours, Plan, SelfAgent};
pub use program::Event;
pub use rest::Rest;
pub use scenario::scenario;
pub use server::{Record, Server};
pub use supervisor::Supervisor;
pub use wait::{Look, eventually};
