//! The TLS configuration of a listener, which can be replaced while it runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

/// The TLS configuration of a listener, replaceable while it runs: certificates reload without a restart.
///
/// Handshakes that begin after [`TlsSource::replace`] use the new one; open connections keep theirs. ALPN is set to
/// `http/1.1` only, because WebSocket upgrades need it, and data before the end of the handshake (0-RTT) is refused, because it
/// can be replayed.
#[derive(Clone)]
pub struct TlsSource(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsSource {
    /// Serves with `config`, which carries certificate, key, client verification and crypto provider.
    pub fn new(config: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(prepared(config))))
    }

    /// Serves with `config` from the next handshake on.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = prepared(config);
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}

fn prepared(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // What comes before the handshake is over can be replayed (RFC 8446 §8).
    config.max_early_data_size = 0;
    Arc::new(config)
}
