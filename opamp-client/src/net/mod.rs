//! Drivers over tokio: both transports, the way to the server, handlers and state in a file.

mod body;
pub(crate) mod builder;
mod classify;
pub(crate) mod client;
pub(crate) mod clock;
mod connector;
pub(crate) mod credentials;
mod driver;
pub(crate) mod endpoint;
mod exchange;
pub(crate) mod handler;
mod host;
mod lanes;
mod link;
mod polling;
pub(crate) mod proxy;
pub(crate) mod settings;
pub(crate) mod state_file;
mod state_text;
mod task;
pub(crate) mod tls;
mod tunnel;
mod websocket;
