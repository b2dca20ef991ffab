//! An agent's session against the sessions of a fleet's servers: whatever happens between them, in the end the server's view
//! equals the agent's, and then there is nothing to say.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

mod anything;
mod limits;
mod quiet;
mod rest;
mod stories;
mod world;
