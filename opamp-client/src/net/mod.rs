//! Drivers over tokio: both transports, the way to the server, handlers and state in a file.

mod board;
mod body;
pub(crate) mod builder;
pub(crate) mod classify;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod connector;
pub(crate) mod credentials;
mod driver;
#[cfg(feature = "csr")]
pub(crate) mod ecdsa;
pub(crate) mod endpoint;
pub(crate) mod exchange;
pub mod fuzzing;
pub(crate) mod handler;
mod host;
mod lanes;
mod link;
mod offered;
pub(crate) mod polling;
pub(crate) mod proxy;
pub(crate) mod settings;
pub(crate) mod state_file;
mod state_text;
mod task;
pub(crate) mod telemetry;
pub(crate) mod tls;
mod tls_offered;
mod tunnel;
mod websocket;
