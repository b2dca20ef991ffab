//! What can go wrong between an agent and its server, told apart, with a hint of what to do.
//!
//! One closed set of kinds is used everywhere: events, pace of retries, metric labels. Texts hold no credentials, so
//! they may be logged.

use std::fmt;
use std::time::Duration;

use crate::retry::Pace;

/// How much of a text that comes from a peer is kept, in bytes.
const PEER_TEXT_MAX: usize = 512;

/// One failed attempt to reach the server, or the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What exactly happened, in one line, without credentials.
    pub detail: String,
    /// How long the server asked to be left alone; `Retry-After` or `retry_info`.
    pub retry_after: Option<Duration>,
}

/// The kind of a [`Failure`]. It decides how soon the next attempt follows and what a person is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The server refused the credentials: 401 or 403.
    Auth,
    /// The connection ended or broke.
    Closed,
    /// The host name has no address.
    Dns,
    /// Something on this machine is missing: a certificate file, a token.
    Local,
    /// The server sent more than the limit; nothing of it was processed (R-WS-14, R-HTTP-26).
    Oversize,
    /// The server speaks, but not OpAMP.
    Protocol,
    /// The proxy refused the tunnel, or is none.
    Proxy,
    /// The proxy itself cannot be reached.
    ProxyUnreachable,
    /// A redirect that leads nowhere, in circles, or away from TLS.
    Redirect,
    /// Nothing accepts connections there.
    Refused,
    /// An HTTP status that no other kind covers.
    Status(u16),
    /// The server is overloaded: 429, 503 or error type Unavailable (spec section "Throttling").
    Throttled,
    /// Something did not happen within its deadline.
    Timeout,
    /// TLS failed.
    Tls(TlsProblem),
    /// The server refused a message of this agent for its size: 413, or a Close frame with code 1009.
    TooLarge,
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The server does not trust the client certificate.
    ClientCertificateRejected,
    /// The server wants a client certificate and got none.
    ClientCertificateRequired,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is for other names.
    NameMismatch,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// What answers does not speak TLS.
    NotTls,
    /// Anything else.
    Other,
    /// The server's certificate comes from a CA that is not trusted here.
    UnknownIssuer,
    /// No protocol version or cipher suite in common.
    Version,
}

impl Failure {
    /// A failure of a kind, with what exactly happened.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    /// The failure with the time the server asked for.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// The failure that an HTTP status other than success means, on either transport.
    #[must_use]
    pub fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        let kind = match status {
            401 | 403 => FailureKind::Auth,
            407 => FailureKind::Proxy,
            413 => FailureKind::TooLarge,
            429 | 503 => FailureKind::Throttled,
            other => FailureKind::Status(other),
        };
        Self::new(kind, format!("the server answered {status}")).with_retry_after(retry_after)
    }

    pub(crate) fn no_connection_within(timeout: Duration) -> Self {
        Self::new(FailureKind::Timeout, format!("no connection within {:.1} s", timeout.as_secs_f64()))
    }

    /// The failure that a Close frame of the server means (RFC 6455 §7.4.1).
    #[must_use]
    pub fn from_close(code: Option<u16>, reason: &str) -> Self {
        let kind = match code {
            Some(1009) => FailureKind::TooLarge,
            Some(1013) => FailureKind::Throttled,
            Some(1002 | 1003 | 1007) => FailureKind::Protocol,
            _ => FailureKind::Closed,
        };
        let what = match code {
            None => "the server closed the connection".to_owned(),
            Some(1001) => "the server is shutting down".to_owned(),
            Some(code) => format!("the server closed the connection with code {code}"),
        };
        let reason = peer_text(reason);
        Self::new(kind, if reason.is_empty() { what } else { format!("{what}: {reason}") })
    }

    /// What a person can do about it, in one clause.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        self.kind.hint()
    }
}

/// One line: what happened, and the hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.kind.as_str(), self.detail, self.hint())
    }
}

impl std::error::Error for Failure {}

impl FailureKind {
    /// The kind as metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Closed => "closed",
            Self::Dns => "dns",
            Self::Local => "local",
            Self::Oversize => "oversize",
            Self::Protocol => "protocol",
            Self::Proxy | Self::ProxyUnreachable => "proxy",
            Self::Redirect => "redirect",
            Self::Refused => "refused",
            Self::Status(_) => "status",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::TooLarge => "too_large",
        }
    }

    /// How soon the next attempt may follow: what passes by itself is tried again soon, what a person has to mend slowly.
    #[must_use]
    pub const fn pace(self) -> Pace {
        match self {
            Self::Closed | Self::Dns | Self::ProxyUnreachable | Self::Refused | Self::Timeout => Pace::Usual,
            Self::Status(status) if status >= 500 => Pace::Usual,
            Self::Throttled => Pace::Throttled,
            Self::Auth
            | Self::Local
            | Self::Oversize
            | Self::Protocol
            | Self::Proxy
            | Self::Redirect
            | Self::Status(_)
            | Self::Tls(_)
            | Self::TooLarge => Pace::Slow,
        }
    }

    /// What a person can do about it, in one clause.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Auth => "check the token or certificate this agent presents",
            Self::Closed => {
                "nothing to do unless it repeats; the server or something on the path ended the connection"
            }
            Self::Dns => "check the host name in the endpoint, and name resolution on this machine",
            Self::Local => "check what is named here on this machine: files, permissions, limits",
            Self::Oversize => "raise the receive limit of this agent, or make what the server sends smaller",
            Self::Protocol => {
                "check that the endpoint is an OpAMP server and that nothing on the path answers for it"
            }
            Self::Proxy => {
                "check the proxy's address, credentials and whether it allows CONNECT to this port"
            }
            Self::ProxyUnreachable => {
                "check that the proxy runs and its address, or leave it out for this server"
            }
            Self::Redirect => "set the endpoint to where the server really is",
            Self::Refused => "check that the server runs and listens on this host and port",
            Self::Status(404) => {
                "check the path of the endpoint; OpAMP servers use /v1/opamp unless told otherwise"
            }
            Self::Status(400 | 405 | 415 | 426) => {
                "check the path and whether the server offers this transport there"
            }
            Self::Status(500..) => "look into the server's log",
            Self::Status(_) => "check the endpoint and what answers there",
            Self::Throttled => "nothing to do; the agent waits and comes back",
            Self::Timeout => "check the network path, firewalls and the load of the server",
            Self::Tls(problem) => problem.hint(),
            Self::TooLarge => "raise the server's receive limit, or report a smaller effective configuration",
        }
    }
}

impl TlsProblem {
    /// What a person can do about it, in one clause.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::ClientCertificateRejected => {
                "use a client certificate of a CA that the server trusts and that has not expired"
            }
            Self::ClientCertificateRequired => "configure a client certificate and its key",
            Self::Expired => "renew the server's certificate, and check this machine's clock",
            Self::NameMismatch => "use a host name that is in the server's certificate",
            Self::NotYetValid => "check this machine's clock",
            Self::NotTls => "use ws:// or http:// if the server has no TLS, or the port that has",
            Self::Other => "look into the server's log for the other half of the story",
            Self::UnknownIssuer => {
                "give this agent the certificate of the CA that signed the server's certificate"
            }
            Self::Version => "allow a TLS version that both sides support",
        }
    }
}

/// Text from a peer made fit for a log line: no control characters, and not without end.
pub(crate) fn peer_text(text: &str) -> String {
    let mut clean = String::new();
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if clean.len() + character.len_utf8() > PEER_TEXT_MAX {
            clean.push('…');
            break;
        }
        clean.push(character);
    }
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let kind = |status| Failure::from_status(status, None).kind;
        assert_eq!(kind(401), FailureKind::Auth);
        assert_eq!(kind(403), FailureKind::Auth);
        assert_eq!(kind(404), FailureKind::Status(404));
        assert_eq!(kind(413), FailureKind::TooLarge);
        assert_eq!(kind(429), FailureKind::Throttled);
        assert_eq!(kind(503), FailureKind::Throttled);
        assert!(FailureKind::Status(404).hint().contains("/v1/opamp"));
    }

    #[test]
    fn what_passes_by_itself_is_retried_sooner_than_what_a_person_has_to_mend() {
        assert_eq!(FailureKind::Refused.pace(), Pace::Usual);
        assert_eq!(FailureKind::Status(502).pace(), Pace::Usual);
        assert_eq!(FailureKind::Status(404).pace(), Pace::Slow);
        assert_eq!(FailureKind::Auth.pace(), Pace::Slow);
        assert_eq!(FailureKind::Tls(TlsProblem::Expired).pace(), Pace::Slow);
        assert_eq!(FailureKind::Throttled.pace(), Pace::Throttled);
    }

    #[test]
    fn close_codes_are_told_apart() {
        assert_eq!(Failure::from_close(Some(1009), "").kind, FailureKind::TooLarge);
        assert_eq!(Failure::from_close(Some(1013), "").kind, FailureKind::Throttled);
        assert_eq!(Failure::from_close(None, "").kind, FailureKind::Closed);
        let failure = Failure::from_close(Some(1000), "another connection took over");
        assert!(failure.to_string().contains("another connection took over"), "{failure}");
    }

    #[test]
    fn text_of_a_peer_stays_one_bounded_line() {
        assert_eq!(peer_text("a\r\nb\u{1b}[31m\0"), "a  b [31m");
        let long = peer_text(&"ä".repeat(10_000));
        assert!(long.len() <= PEER_TEXT_MAX + '…'.len_utf8() && long.ends_with('…'));
    }
}
