//! A complete OpAMP fleet server in one binary, and the same server as a library.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use reference_server::{Config, Server};
//!
//! let server = Server::start(Config::default()).await?;
//! println!("agents connect to {}, the API is at {}", server.opamp_addr(), server.admin_addr());
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod admin;
mod agent_auth;
mod api;
pub mod cli;
pub mod config;
pub mod data_dir;
mod error;
pub mod exposure;
pub mod logging;
mod metrics;
pub mod offline;
mod packages;
pub mod process;
mod reload;
mod scrape;
mod self_agent;
mod server;
mod settings;
pub mod tls;
pub mod token;
mod tokens;
pub mod welcome;

pub use config::Config;
pub use error::StartError;
pub use server::{RunningServer, Server};
pub use tokens::TokenError;

/// Version of the OpAMP specification that is spoken.
const OPAMP_VERSION: &str = "0.20.0";

/// Whose chain of the audit log this process continues.
const AUDIT_WRITER: &str = "reference-server";

/// The OpenAPI document of the REST API, as the server itself serves it at `/api/v1/openapi.json`.
pub fn openapi_document() -> serde_json::Value {
    api::openapi::document()
}
