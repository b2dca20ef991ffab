//! Why a server does not start.

use std::{io, net::SocketAddr};

use opamp_fleet::manager::StartError as FleetError;
use opamp_store::OpenError;

use crate::{config::ConfigError, data_dir::DataDirError, tls::TlsError, tokens::TokenError};

/// A server that did not start. The text says why and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used, or would expose what it must not.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDir(#[from] DataDirError),
    /// The fleet cannot be loaded from the store.
    #[error("the fleet cannot be loaded: {0}")]
    Fleet(#[from] FleetError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} (`{key}`): {}", explain_listen(.source, .key))]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The database cannot be opened.
    #[error("the database cannot be opened: {0}")]
    Store(#[from] OpenError),
    /// A certificate or key file cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The first admin token cannot be made.
    #[error("API tokens: {0}")]
    Token(#[from] TokenError),
}

fn explain_listen(source: &io::Error, key: &str) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the port is in use by another program; stop that one or set `{key}` to another port")
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::PermissionDenied => "not permitted; ports below 1024 need privileges".into(),
        _ => source.to_string(),
    }
}
