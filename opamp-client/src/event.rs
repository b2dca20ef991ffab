//! What an agent is told about its connection and its server: one event per transition, one per failure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{InstanceUid, Part};

use crate::failure::Failure;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain HTTP: polling.
    Http,
    /// WebSocket.
    WebSocket,
}

/// Something an operator may want to know. Each prints as one line that says what happened and, if it is a failure,
/// what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// No request for a certificate could be made.
    CertificateNotRequested {
        /// Why.
        why: String,
    },
    /// The server refuses to issue a certificate (R-CSR-14). It is asked again after
    /// [`certificate_spacing`](crate::session::SessionSettings::certificate_spacing).
    CertificateRefused {
        /// What the server says, made fit for a log line.
        message: String,
    },
    /// An attempt to reach the server failed; the agent was not connected.
    ConnectFailed {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
        /// Why.
        failure: Failure,
        /// When the next attempt follows; `None` if another endpoint is tried at once.
        retry_in: Option<Duration>,
    },
    /// The server was reached: the WebSocket stands, or the first answer came over HTTP. Not repeated with every poll.
    Connected {
        /// The endpoint.
        endpoint: Arc<str>,
        /// How messages travel now.
        transport: Transport,
    },
    /// Settings of the connection to the server are in use and saved from now on: the server has answered on them.
    ConnectionSettingsApplied {
        /// The endpoint they lead to.
        endpoint: Arc<str>,
    },
    /// Settings of the connection to the server were tried, and the agent goes back to those before.
    ConnectionSettingsFailed {
        /// The endpoint they lead to.
        endpoint: Arc<str>,
        /// Why.
        failure: Failure,
    },
    /// Connection settings were not taken, in whole or in part; nothing of what was refused was tried.
    ConnectionSettingsRejected {
        /// Which, and why.
        why: String,
    },
    /// Custom messages got lost.
    CustomDropped {
        /// The capability.
        capability: String,
        /// Why.
        why: &'static str,
    },
    /// The connection is over, whoever ended it.
    Disconnected {
        /// The endpoint.
        endpoint: Arc<str>,
        /// Why.
        cause: DisconnectCause,
    },
    /// A part of a report is larger than what may be sent and stays unsent until it changes (R-WS-21, R-HTTP-33).
    Discarded {
        /// The part.
        part: Part,
        /// What the message would have had, in bytes.
        bytes: usize,
        /// What it may have, in bytes.
        limit: usize,
    },
    /// A handler of the application panicked, or did not end in time and was given up.
    HandlerFailed {
        /// Which one, such as `remote config`, `restart` or `effective config`.
        handler: &'static str,
        /// What happened.
        why: String,
    },
    /// The server gave this agent another identity, which is in use and saved from now on.
    IdentityAssigned {
        /// The identity before.
        from: InstanceUid,
        /// The identity now.
        to: InstanceUid,
    },
    /// The server answered a report with an error; the same content is not sent again (R-ERR-04, R-ERR-07).
    ServerError {
        /// The kind of error.
        kind: ServerErrorKind,
        /// What the server says, made fit for a log line.
        message: String,
    },
    /// A message of the server, or a part of it, made no sense and was ignored.
    ServerFault(ServerFault),
    /// What has to outlive a restart could not be saved.
    StateNotSaved {
        /// Why.
        why: String,
    },
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq)]
pub enum DisconnectCause {
    /// Something failed, or the server ended it. The next attempt follows after `retry_in`.
    Failed {
        /// What.
        failure: Failure,
        /// When the next attempt follows.
        retry_in: Duration,
    },
    /// The agent left it to connect anew.
    Reconnecting,
    /// The agent was stopped.
    Stopped,
}

/// The kind of an error that a server answers with (spec section "ServerErrorResponse"). Unavailable is a
/// [`FailureKind::Throttled`](crate::FailureKind::Throttled) instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerErrorKind {
    /// The server holds the report for malformed.
    BadRequest,
    /// The server does not know what is wrong.
    Unknown,
}

/// What was wrong with a message of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFault {
    /// The hash of connection settings is longer than what is kept.
    #[error(
        "the server offered connection settings with a hash of {length} bytes, more than {max}; they are ignored"
    )]
    ConnectionsHashLength {
        /// Its length in bytes.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// Connection settings came without their hash, so they could never be acknowledged.
    #[error("the server offered connection settings without a hash; they are ignored")]
    ConnectionsWithoutHash,
    /// Packages came without a usable hash, so they could never be acknowledged.
    #[error("the server offered packages without a hash that can be kept; they are ignored")]
    PackagesWithoutHash,
    /// The hash of a remote configuration is longer than what is kept.
    #[error(
        "the server offered a remote configuration with a hash of {length} bytes, more than {max}; it is ignored"
    )]
    ConfigHashLength {
        /// Its length in bytes.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// A remote configuration came without its hash, so it could never be acknowledged.
    #[error("the server offered a remote configuration without a hash; it is ignored")]
    ConfigWithoutHash,
    /// The identity given is not 16 bytes long (R-ID-12).
    #[error("the server assigned an instance uid of {length} bytes instead of 16; the old one stays")]
    IdentityLength {
        /// Its length in bytes.
        length: usize,
    },
    /// The message does not decode.
    #[error("the server sent a malformed message, which is ignored: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
}

impl Event {
    /// Whether somebody should look at it. What passes by itself, and what was asked for, is not.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::Connected { .. }
            | Self::ConnectionSettingsApplied { .. }
            | Self::IdentityAssigned { .. } => false,
            Self::Disconnected { cause, .. } => matches!(cause, DisconnectCause::Failed { .. }),
            Self::CertificateNotRequested { .. }
            | Self::CertificateRefused { .. }
            | Self::ConnectFailed { .. }
            | Self::ConnectionSettingsFailed { .. }
            | Self::ConnectionSettingsRejected { .. }
            | Self::CustomDropped { .. }
            | Self::Discarded { .. }
            | Self::HandlerFailed { .. }
            | Self::ServerError { .. }
            | Self::ServerFault(_)
            | Self::StateNotSaved { .. } => true,
        }
    }

    /// The failure in it, if there is one.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::ConnectFailed { failure, .. }
            | Self::ConnectionSettingsFailed { failure, .. }
            | Self::Disconnected { cause: DisconnectCause::Failed { failure, .. }, .. } => Some(failure),
            _ => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailed { endpoint, failure, retry_in: None } => {
                write!(f, "cannot connect to {endpoint}: {failure}; trying the next endpoint")
            }
            Self::ConnectFailed { endpoint, failure, retry_in: Some(retry_in) } => {
                write!(f, "cannot connect to {endpoint}: {failure}; next attempt in {}", Seconds(*retry_in))
            }
            Self::CertificateNotRequested { why } => {
                write!(f, "no certificate is asked for: {why}; look into the agent's own log")
            }
            Self::CertificateRefused { message } => write!(
                f,
                "the server refuses to issue a certificate: {message} (the agent asks again later; approve it at the server)"
            ),
            Self::ConnectionSettingsApplied { endpoint } => {
                write!(f, "connection settings of the server are in use: {endpoint}")
            }
            Self::ConnectionSettingsFailed { endpoint, failure } => write!(
                f,
                "connection settings of the server do not work, the agent returns to those before: {endpoint}: {failure}"
            ),
            Self::ConnectionSettingsRejected { why } => {
                write!(f, "connection settings of the server are not taken: {why}")
            }
            Self::CustomDropped { capability, why } => {
                write!(f, "custom messages of {capability} got lost: {why}")
            }
            Self::Connected { endpoint, transport } => {
                write!(f, "connected to {endpoint} over {}", transport.as_str())
            }
            Self::Disconnected { endpoint, cause } => match cause {
                DisconnectCause::Failed { failure, retry_in } => {
                    let next = Seconds(*retry_in);
                    write!(f, "disconnected from {endpoint}: {failure}; next attempt in {next}")
                }
                DisconnectCause::Reconnecting => write!(f, "left {endpoint} to connect anew"),
                DisconnectCause::Stopped => write!(f, "left {endpoint}, stopped"),
            },
            Self::Discarded { part, bytes, limit } => write!(
                f,
                "{part} is not reported: {bytes} bytes are more than the {limit} that may be sent; report less, or raise the send limit"
            ),
            Self::HandlerFailed { handler, why } => {
                write!(f, "the {handler} handler of this agent {why}; look into the agent's own log")
            }
            Self::IdentityAssigned { from, to } => {
                write!(f, "the server changed the instance uid from {from} to {to}")
            }
            Self::ServerError { kind, message } => {
                write!(f, "the server answered a report with {}: {message}", kind.as_str())
            }
            Self::ServerFault(fault) => fault.fmt(f),
            Self::StateNotSaved { why } => write!(
                f,
                "the agent's state could not be saved: {why} (until it is, a restart may lose the identity or apply a \
                 configuration again; check the disk and its permissions)"
            ),
        }
    }
}

impl Transport {
    /// The word for it: `http` or `websocket`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
        }
    }
}

impl ServerErrorKind {
    /// The name in the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unknown => "Unknown",
        }
    }
}

/// A span to a tenth of a second.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    #[test]
    fn a_failure_reads_as_one_line_with_what_to_do() {
        let failure = Failure::new(FailureKind::Refused, "connection refused");
        let retry_in = Some(Duration::from_millis(1_250));
        let event = Event::ConnectFailed { endpoint: "ws://h:4320/v1/opamp".into(), failure, retry_in };
        assert_eq!(
            event.to_string(),
            "cannot connect to ws://h:4320/v1/opamp: refused: connection refused (check that the server runs and listens on \
             this host and port); next attempt in 1.2 s"
        );
        assert!(event.is_warning());
    }
}
