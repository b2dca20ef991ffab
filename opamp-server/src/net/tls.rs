//! TLS of the listener: configurations that can be replaced, failures that are told apart.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::{AlertDescription, CertificateError, ServerConfig};

/// The TLS configuration of a listener, replaceable while it runs: certificates reload without a restart.
///
/// Handshakes that begin after [`TlsSource::replace`] use the new one; open connections keep theirs. ALPN is set to
/// `http/1.1` only, because WebSocket upgrades need it.
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

/// Why a TLS handshake failed, as far as the server can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// The client sent no certificate although one is required.
    ClientCertificateMissing,
    /// The client's certificate has expired or is not valid yet.
    ClientCertificateExpired,
    /// The client's certificate is from a CA that is not trusted here, or is otherwise no good.
    ClientCertificateRejected,
    /// The client rejected the server's certificate.
    ServerCertificateRejected,
    /// No common version or cipher suite, no TLS at all, or the peer went away.
    Other,
}

impl TlsFailure {
    pub(crate) fn classify(error: &std::io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Other;
        };
        match error {
            rustls::Error::NoCertificatesPresented => Self::ClientCertificateMissing,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::ClientCertificateExpired,
            rustls::Error::InvalidCertificate(_) => Self::ClientCertificateRejected,
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA,
            ) => Self::ServerCertificateRejected,
            _ => Self::Other,
        }
    }

    /// Whether the client failed to authenticate, as opposed to anything else going wrong.
    pub(crate) fn is_authentication(self) -> bool {
        matches!(
            self,
            Self::ClientCertificateMissing | Self::ClientCertificateExpired | Self::ClientCertificateRejected
        )
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::ClientCertificateMissing => "client certificate missing",
            Self::ClientCertificateExpired => "client certificate expired or not yet valid",
            Self::ClientCertificateRejected => "client certificate not trusted",
            Self::ServerCertificateRejected => {
                "the client rejected the server certificate; give it the CA, and check name and dates"
            }
            Self::Other => "TLS handshake failed",
        }
    }
}

fn prepared(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
