//! Telling failures of sockets and TLS apart.

use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::failure::{Failure, FailureKind, TlsProblem};

/// The failure that an error of a socket, or of TLS on it, means.
pub(crate) fn io_failure(what: &str, error: &io::Error) -> Failure {
    if let Some(tls) = tls_error(error) {
        return tls_failure(tls);
    }
    let kind = match error.kind() {
        _ if is_out_of_resources(error) => FailureKind::Local,
        io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::PermissionDenied => FailureKind::Refused,
        io::ErrorKind::TimedOut => FailureKind::Timeout,
        _ => FailureKind::Closed,
    };
    Failure::new(kind, format!("{what}: {error}"))
}

/// Open files of the process or the system, or buffers, are used up.
fn is_out_of_resources(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    cfg!(target_os = "linux") && matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

/// The failure that an error of some library means: of the TLS or the socket below it, if it came from there.
pub(crate) fn source_failure(
    what: &str,
    otherwise: FailureKind,
    error: &(dyn std::error::Error + 'static),
) -> Failure {
    let mut source = Some(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return io_failure(what, error);
        }
        source = inner.source();
    }
    Failure::new(otherwise, format!("{what}: {error}"))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    // Streams within streams wrap the error of the innermost.
    tls_error(inner.downcast_ref::<io::Error>()?)
}

fn tls_failure(error: &rustls::Error) -> Failure {
    use rustls::Error;
    let (problem, detail) = match error {
        Error::InvalidCertificate(error) => certificate_problem(error),
        Error::AlertReceived(alert) => alert_problem(*alert),
        Error::InvalidMessage(_) => (TlsProblem::NotTls, "what answers does not speak TLS".to_owned()),
        Error::PeerIncompatible(what) => {
            (TlsProblem::Version, format!("nothing in common with the server: {what:?}"))
        }
        other => (TlsProblem::Other, other.to_string()),
    };
    Failure::new(FailureKind::Tls(problem), detail)
}

fn certificate_problem(error: &CertificateError) -> (TlsProblem, String) {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (TlsProblem::Expired, "the server's certificate has expired".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (TlsProblem::NotYetValid, "the server's certificate is not valid yet".to_owned())
        }
        CertificateError::NotValidForName => {
            (TlsProblem::NameMismatch, "the server's certificate is for another name".to_owned())
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let detail = format!(
                "the server's certificate is not for {} but for {}",
                expected.to_str(),
                presented.join(", ")
            );
            (TlsProblem::NameMismatch, detail)
        }
        CertificateError::UnknownIssuer => (
            TlsProblem::UnknownIssuer,
            "the server's certificate is from an authority not trusted here".to_owned(),
        ),
        other => (TlsProblem::Other, format!("the server's certificate is no good: {other}")),
    }
}

fn alert_problem(alert: AlertDescription) -> (TlsProblem, String) {
    match alert {
        AlertDescription::CertificateRequired => {
            (TlsProblem::ClientCertificateRequired, "the server wants a client certificate".to_owned())
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => {
            let detail = format!("the server rejects the client certificate: {alert:?}");
            (TlsProblem::ClientCertificateRejected, detail)
        }
        AlertDescription::ProtocolVersion | AlertDescription::InsufficientSecurity => {
            (TlsProblem::Version, format!("the server wants another TLS version or suite: {alert:?}"))
        }
        // What servers send up to TLS 1.2 when they miss a client certificate, among other things.
        AlertDescription::HandshakeFailure => (
            TlsProblem::ClientCertificateRequired,
            "the server ended the handshake; up to TLS 1.2 that is how a missing client certificate shows"
                .to_owned(),
        ),
        other => (TlsProblem::Other, format!("the server sent the alert {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: rustls::Error) -> FailureKind {
        io_failure("x", &io::Error::new(io::ErrorKind::InvalidData, error)).kind
    }

    #[test]
    fn tls_failures_are_told_apart() {
        use rustls::Error;
        for (error, problem) in [
            (Error::InvalidCertificate(CertificateError::Expired), TlsProblem::Expired),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), TlsProblem::UnknownIssuer),
            (Error::InvalidCertificate(CertificateError::NotValidForName), TlsProblem::NameMismatch),
            (Error::InvalidCertificate(CertificateError::NotValidYet), TlsProblem::NotYetValid),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                TlsProblem::ClientCertificateRequired,
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), TlsProblem::ClientCertificateRejected),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), TlsProblem::Version),
            (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), TlsProblem::NotTls),
            (Error::DecryptError, TlsProblem::Other),
        ] {
            assert_eq!(kind(error), FailureKind::Tls(problem));
        }
    }

    #[test]
    fn failures_of_sockets_are_told_apart_also_below_other_errors() {
        for (error, expected) in [
            (io::ErrorKind::ConnectionRefused, FailureKind::Refused),
            (io::ErrorKind::NetworkUnreachable, FailureKind::Refused),
            (io::ErrorKind::TimedOut, FailureKind::Timeout),
            (io::ErrorKind::ConnectionReset, FailureKind::Closed),
            (io::ErrorKind::UnexpectedEof, FailureKind::Closed),
        ] {
            assert_eq!(io_failure("x", &error.into()).kind, expected);
            let wrapped = tokio_tungstenite::tungstenite::Error::Io(error.into());
            assert_eq!(source_failure("x", FailureKind::Protocol, &wrapped).kind, expected);
        }
        if cfg!(target_os = "linux") {
            assert_eq!(io_failure("x", &io::Error::from_raw_os_error(24)).kind, FailureKind::Local);
        }
        let nested =
            io::Error::other(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError));
        assert_eq!(io_failure("x", &nested).kind, FailureKind::Tls(TlsProblem::Other));
    }
}
