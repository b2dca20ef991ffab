//! Rollouts by topic: each module proves some of the requirements of `R`, in the public interface of the crate.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod actions;
mod bake;
mod baseline;
mod commands;
mod commit;
mod control_group;
mod coordinator;
mod decisions;
mod domains;
mod engine;
mod evidence;
mod first_wave;
mod gate_config;
mod gate_table;
mod gates;
mod identity;
mod joiners;
mod journal;
mod known_good;
mod leavers;
mod limits;
mod order;
mod overlap;
mod plan;
mod preflight;
mod preview;
mod retries;
mod rollback;
mod silence;
mod steady;
mod strategies;
mod summary;
mod support;
mod templates;
mod time;
mod windows;
