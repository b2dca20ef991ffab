//! A fleet on a virtual clock: real sessions, links, replicas and a store, with faults drawn from a seed (R79).
//!
//! ```text
//! agents ──bytes──► links ──bytes──► replicas ──facts, batches──► store
//!   ▲  profiles       delay, cuts      sessions, one leader          rows, fence, lease
//!   └────────────────────────────────── what they should run ◄───────┘
//! ```
//!
//! [`world::World`] runs a [`scenario::Scenario`]; after each step every [`invariants::Invariant`] looks at what agents
//! received and what the store has, not at what an engine thinks of itself. Everything random follows from the seed, by
//! subject ([`rng`]), so that leaving something out of a scenario shifts no random numbers of others.
//!
//! # Writing a scenario
//!
//! Draw one ([`scenario::Scenario::drawn`]), write it with `to_toml`, and change what should be otherwise: agents with
//! their [profiles](profiles::Profile), rollouts, [acts](scenario::Act) with the second they happen at, and what goes wrong by
//! itself ([`scenario::Faulty`]). Unknown keys are refused.

pub mod agents;
#[cfg(opamp_faults)]
pub mod bugs;
pub mod configs;
pub mod invariants;
pub mod ledger;
pub mod links;
pub mod model;
pub mod profiles;
pub mod quality;
pub mod replica;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod shrink;
pub mod store;
pub mod world;
