//! The messages of the protocol, as generated from the schema in `proto/` for OpAMP v0.20.0.
//!
//! `bytes` fields are [`bytes::Bytes`] and maps are ordered. The code is committed, so that users need no generator; a test
//! generates it anew and compares. Types whose `Debug` would show contents or secrets print lengths instead, see
//! `redact.rs`.

#[rustfmt::skip]
mod generated;
mod redact;

pub use generated::*;
