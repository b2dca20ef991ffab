//! The rules of a session, one test each, without IO.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

#[macro_use]
mod bench;

mod cap;
mod cmd;
mod conf;
mod described;
mod endpoints;
mod err;
mod files;
mod heartbeat;
mod hostile;
mod id;
mod life;
mod pace;
mod schema;
mod size;
mod status;
mod throttle;
