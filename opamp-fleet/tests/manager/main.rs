//! The fleet manager with a real server and a real store, driven by polls on a virtual clock.

#![expect(clippy::expect_used, reason = "a helper that fails is a failed test")]

mod assignment;
mod audit;
mod configs;
mod doubt;
mod flaky;
mod heartbeat;
mod identity;
mod liveness;
mod outage;
mod recording;
mod restart;
mod support;
