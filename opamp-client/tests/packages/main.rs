//! The installer of packages against servers, disks and moments that mean no good.
//!
//! What holds in every test: a package is whole, in the old version or the new one, and what is reported of it is true.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

mod common;
mod disk;
mod server;

mod cancel;
mod content;
mod hooks;
mod offers;
mod power;
mod redirects;
mod resume;
mod sequences;
mod signatures;
mod slow;
