//! What the tests of this package share.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part of it")]

mod agent;
mod document;
mod http;
mod process;
mod scripted;
mod server;
mod temp_dir;
mod wedge;

pub use agent::Agent;
pub use http::{Answer, Client};
pub use process::Process;
pub use scripted::{connect, path_of};
pub use server::{HandClock, TestServer, config};
pub use temp_dir::TempDir;
pub use wedge::{PLACES, Wedge, free_address, wall_clock};
