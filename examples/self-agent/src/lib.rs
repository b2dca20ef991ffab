//! A standalone OpAMP agent: a program that reports who and how it is, takes a small remote configuration, and keeps
//! its identity over restarts.
//!
//! The program is `self-agent --config <file>`; its README documents the file. As a library it is for tests and for
//! programs that want the same agent inside themselves: [`run`] until told otherwise.
//!
//! It is for Unix: signals, file modes and the question whether it runs as root are those of such a system.

mod agent;
pub mod cli;
mod components;
pub mod config;
mod connection;
mod description;
pub mod diagnostics;
mod health;
mod live;
pub mod logging;
mod own_metrics;
mod packages;
mod privilege;
mod remote;
mod run;
pub mod sign;
mod storage;

pub use config::{Config, ConfigError};
pub use privilege::warn_of_root;
pub use run::{Order, RunError, check, run};
