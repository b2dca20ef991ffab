//! The rules of a session, one test each, without IO.

#[macro_use]
mod bench;

mod cap;
mod cmd;
mod conf;
mod endpoints;
mod err;
mod heartbeat;
mod id;
mod life;
mod size;
mod status;
mod throttle;
