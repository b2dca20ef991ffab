//! The fleet manager with a real server and a real store, driven by polls on a virtual clock.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod after_assignment;
mod assign_matching;
mod assignment;
mod audit;
mod components;
mod configs;
mod connection_settings;
mod convergence;
mod custom;
mod doubt;
mod flaky;
mod heartbeat;
mod identity;
mod liveness;
mod memory;
mod outage;
mod packages;
mod recording;
mod restart;
mod support;
mod uploads;
