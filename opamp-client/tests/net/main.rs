//! The drivers over loopback: real sockets, with time in the test's hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

#[macro_use]
mod common;
mod stub;

mod agent;
mod cut;
mod dead;
mod failures;
mod handlers;
mod lanes;
mod lowered;
mod offered;
mod patience;
mod probe;
mod reach;
mod requests;
mod tls;
mod upgrade;
mod wire;
