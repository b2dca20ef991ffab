//! Why TLS handshakes fail.

use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::refusal::RefusalReason;

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
    /// The server has no memory to spare for what the client sent.
    NoRoom,
    /// No common version or cipher suite, no TLS at all, or the peer went away.
    Other,
}

impl TlsFailure {
    pub(crate) fn classify(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::OutOfMemory {
            return Self::NoRoom;
        }
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

    /// Whether the client failed to authenticate, or whatever else went wrong.
    pub(crate) fn reason(self) -> RefusalReason {
        match self {
            Self::ClientCertificateMissing
            | Self::ClientCertificateExpired
            | Self::ClientCertificateRejected => RefusalReason::AuthFailed,
            Self::NoRoom => RefusalReason::Unavailable,
            Self::ServerCertificateRejected | Self::Other => RefusalReason::Protocol,
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::ClientCertificateMissing => "client certificate missing",
            Self::ClientCertificateExpired => "client certificate expired or not yet valid",
            Self::ClientCertificateRejected => "client certificate not trusted",
            Self::ServerCertificateRejected => {
                "the client rejected the server certificate; give it the CA, and check name and dates"
            }
            Self::NoRoom => "no memory left for incomplete messages (buffered_bytes_max)",
            Self::Other => "TLS handshake failed",
        }
    }
}
