//! Transports, dispatch and authentication over tokio.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod builder;
pub(crate) mod certificates;
pub(crate) mod changes;
pub(crate) mod clock;
pub(crate) mod components;
pub(crate) mod connection;
pub(crate) mod core;
mod csr;
pub(crate) mod directory;
pub(crate) mod driver;
pub(crate) mod duplicates;
pub(crate) mod handle;
pub(crate) mod network;
pub(crate) mod peer;
pub(crate) mod polling;
pub(crate) mod presented;
pub(crate) mod receive;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod stats;
pub(crate) mod throttle;
pub(crate) mod tls;
pub(crate) mod websocket;
pub(crate) mod write_deadline;
