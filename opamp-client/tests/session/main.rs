//! The rules of a session, one test each, without IO.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

#[macro_use]
mod bench;

mod cap;
mod certificates;
mod cmd;
mod components;
mod conf;
mod custom;
#[cfg(feature = "net")]
mod described;
mod endpoints;
mod err;
mod files;
mod headerless;
mod heartbeat;
mod hostile;
mod id;
mod life;
mod pace;
mod packages;
mod schema;
mod settings;
mod settings_crash;
mod settings_failed;
mod settings_parts;
mod size;
mod status;
mod throttle;
