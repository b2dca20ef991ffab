//! The conformance suite of the server: one module per area of requirements, every test through a real listener.
//!
//! Tests of what holds on both transports run once on each. A test names its requirement in its first line; the registry
//! names the test.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod common;
mod offers;

mod auth;
mod cap;
mod cmd;
mod comp;
mod conf;
mod conn;
mod csr;
mod cust;
mod desc;
mod duplicates;
mod err;
mod hb;
mod health;
mod http;
mod id;
mod interop;
mod life;
mod msg;
mod own;
mod pkg;
mod retry;
mod status;
mod throt;
mod tls;
mod trans;
mod ws;
