//! What is refused, why, and how the refusal shows on the wire.
//!
//! One closed set of reasons is used everywhere: metric label, audit entry, API. One total function,
//! [`SessionError::consequence`], maps every error of a conversation to its wire consequence.

use std::fmt;

use opamp_proto::{DecodeError, InstanceUid, Part, UidError};

/// Why something was refused: the same word in metrics, audit entries and APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// Credentials missing, malformed, unknown, revoked or expired.
    AuthFailed,
    /// A field was sent without the capability that permits it.
    CapMismatch,
    /// Bytes that do not decode, or decode to something the protocol forbids.
    Malformed,
    /// Larger than a configured limit, before or after decompression.
    Oversize,
    /// Wrong method, content type, WebSocket version, text frame and the like.
    Protocol,
    /// More than this peer may do in a time.
    RateLimited,
    /// A deadline passed: headers, body, read or write.
    Timeout,
    /// An `instance_uid` that belongs to somebody else.
    UidConflict,
    /// The server cannot serve now: draining or at a limit.
    Unavailable,
}

impl RefusalReason {
    /// Every reason, in the order of [`RefusalReason::index`].
    pub const ALL: [Self; 9] = [
        Self::AuthFailed,
        Self::CapMismatch,
        Self::Malformed,
        Self::Oversize,
        Self::Protocol,
        Self::RateLimited,
        Self::Timeout,
        Self::UidConflict,
        Self::Unavailable,
    ];

    /// The reason as metric label and API value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthFailed => "auth_failed",
            Self::CapMismatch => "cap_mismatch",
            Self::Malformed => "malformed",
            Self::Oversize => "oversize",
            Self::Protocol => "protocol",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::UidConflict => "uid_conflict",
            Self::Unavailable => "unavailable",
        }
    }

    /// Position in [`RefusalReason::ALL`], for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that one received message caused in the conversation with its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The WebSocket message does not begin with a header of value 0 (R-WS-03, R-WS-04).
    #[error("{0}")]
    Frame(#[from] opamp_proto::frame::FrameError),
    /// The data part is no valid `AgentToServer` within the limits.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// `instance_uid` is absent or has a wrong length (R-ID-13).
    #[error("{0}")]
    Uid(#[from] UidError),
    /// The message is larger than the receive limit (R-WS-11, R-HTTP-22).
    #[error("message is larger than the limit of {limit_bytes} bytes")]
    Oversize {
        /// The limit that was exceeded, in bytes after decompression.
        limit_bytes: usize,
    },
    /// A field came without its capability, and the server is set to reject that.
    #[error("{part} was sent without the capability {capability}; set that bit or leave the field out", part = .part.name())]
    Capability {
        /// The field.
        part: Part,
        /// Name of the missing capability bit.
        capability: &'static str,
    },
    /// The credentials of this connection do not own the `instance_uid` (R-ID-16).
    #[error("instance_uid {uid} belongs to another identity")]
    UidConflict {
        /// The uid that was claimed.
        uid: InstanceUid,
    },
    /// The same, and the server is set to end such connections.
    #[error("instance_uid {uid} belongs to another identity; this connection is closed")]
    UidRejected {
        /// The uid that was claimed.
        uid: InstanceUid,
    },
    /// It is being found out whether the sender is a second agent under one `instance_uid`, and too much of it waits already.
    #[error(
        "more than {limit} messages wait until it is known whose instance_uid it is; send the next later"
    )]
    TooManyWaiting {
        /// The limit.
        limit: usize,
    },
    /// Whose `instance_uid` it is changed too often while it was being found out whether the sender is a second agent under it.
    #[error("it cannot be told whose instance_uid this is while others take it over; send it again later")]
    Undecided,
    /// The server holds as many bytes of incomplete or waiting messages as it may.
    #[error("the server has no room for this message now; send it again later")]
    NoRoom,
    /// The server sends everybody away for now.
    #[error("the server is overloaded; come back later")]
    Throttled,
    /// One connection carries more agents than the limit allows.
    #[error("more than {limit} agents on one connection")]
    TooManyAgentsOnConnection {
        /// The limit.
        limit: usize,
    },
    /// The server knows as many agents as it may.
    #[error("the server is at its limit of {limit} agents")]
    TooManyAgents {
        /// The limit.
        limit: usize,
    },
    /// A WebSocket text message, which OpAMP does not use (R-WS-01).
    #[error("text messages are not OpAMP; send binary messages")]
    TextMessage,
    /// The peer broke RFC 6455.
    #[error("WebSocket protocol violation")]
    WebSocketProtocol,
    /// Too many faulty messages in a row on one connection.
    #[error("{limit} faulty messages in a row")]
    TooManyFaults {
        /// The limit.
        limit: u32,
    },
    /// Nothing was received, or nothing could be written, within the deadline.
    #[error("deadline passed")]
    Timeout,
}

impl SessionError {
    /// What the peer sees of this error, on either transport, and the reason it is counted under.
    pub fn consequence(&self) -> Consequence {
        use ErrorReply::{BadRequest, Nothing, Unavailable};
        let (reply, close, http_status, reason) = match self {
            Self::Frame(_) => (BadRequest, None, 400, RefusalReason::Malformed),
            Self::Decode(_) => (BadRequest, None, 400, RefusalReason::Malformed),
            Self::Uid(_) => (BadRequest, None, 200, RefusalReason::Malformed),
            Self::Oversize { .. } => (Nothing, Some(CloseCode::TooBig), 413, RefusalReason::Oversize),
            Self::Capability { .. } => (BadRequest, None, 200, RefusalReason::CapMismatch),
            Self::UidConflict { .. } => (BadRequest, None, 200, RefusalReason::UidConflict),
            Self::UidRejected { .. } => {
                (BadRequest, Some(CloseCode::Policy), 403, RefusalReason::UidConflict)
            }
            Self::TooManyWaiting { .. } | Self::Undecided | Self::Throttled => {
                (Unavailable, None, 503, RefusalReason::Unavailable)
            }
            // What is left of the message cannot be told from the next one, so the connection ends with it.
            Self::NoRoom => (Unavailable, Some(CloseCode::TryAgainLater), 503, RefusalReason::Unavailable),
            Self::TooManyAgentsOnConnection { .. } => (BadRequest, None, 200, RefusalReason::RateLimited),
            Self::TooManyAgents { .. } => (Unavailable, None, 503, RefusalReason::Unavailable),
            Self::TextMessage => (Nothing, Some(CloseCode::Unsupported), 415, RefusalReason::Protocol),
            Self::WebSocketProtocol => (Nothing, Some(CloseCode::Protocol), 400, RefusalReason::Protocol),
            Self::TooManyFaults { .. } => (Nothing, Some(CloseCode::Policy), 400, RefusalReason::Malformed),
            Self::Timeout => (Nothing, Some(CloseCode::Policy), 408, RefusalReason::Timeout),
        };
        Consequence { reply, close, http_status, reason }
    }
}

/// The wire consequence of a [`SessionError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// The `error_response` to send, if any.
    pub reply: ErrorReply,
    /// The WebSocket close code, if the connection ends.
    pub close: Option<CloseCode>,
    /// The status on plain HTTP. 200 carries the `error_response` in its body.
    pub http_status: u16,
    /// What the refusal is counted under.
    pub reason: RefusalReason,
}

/// Which `ServerErrorResponse` answers a faulty message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// Type BadRequest (R-ERR-02).
    BadRequest,
    /// No answer; the connection ends or the HTTP status says it all.
    Nothing,
    /// Type Unavailable (R-ERR-08).
    Unavailable,
}

/// WebSocket close codes the server uses (RFC 6455 §7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// 1000: the purpose is fulfilled.
    Normal = 1000,
    /// 1001: the server goes away.
    GoingAway = 1001,
    /// 1002: protocol error.
    Protocol = 1002,
    /// 1003: a kind of data that is not accepted.
    Unsupported = 1003,
    /// 1008: a policy is violated.
    Policy = 1008,
    /// 1009: message too big (R-WS-12).
    TooBig = 1009,
    /// 1013: the server has no room now; come back later.
    TryAgainLater = 1013,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_error() -> Vec<SessionError> {
        let uid = InstanceUid::from_bytes([7; 16]);
        vec![
            SessionError::Frame(opamp_proto::frame::decode(&[1]).unwrap_err()),
            SessionError::Decode(
                opamp_proto::AgentMessage::decode(&[0xff], &opamp_proto::Limits::default()).unwrap_err(),
            ),
            SessionError::Uid(InstanceUid::try_from(&[0u8; 15][..]).unwrap_err()),
            SessionError::Oversize { limit_bytes: 1 },
            SessionError::Capability { part: Part::Health, capability: "ReportsHealth" },
            SessionError::UidConflict { uid },
            SessionError::UidRejected { uid },
            SessionError::TooManyWaiting { limit: 1 },
            SessionError::Throttled,
            SessionError::TooManyAgentsOnConnection { limit: 1 },
            SessionError::TooManyAgents { limit: 1 },
            SessionError::TextMessage,
            SessionError::WebSocketProtocol,
            SessionError::TooManyFaults { limit: 1 },
            SessionError::Timeout,
            SessionError::NoRoom,
            SessionError::Undecided,
        ]
    }

    /// Fails to compile when a variant is added, as a reminder to add it to [`every_error`].
    fn position(error: &SessionError) -> usize {
        match error {
            SessionError::Frame(_) => 0,
            SessionError::Decode(_) => 1,
            SessionError::Uid(_) => 2,
            SessionError::Oversize { .. } => 3,
            SessionError::Capability { .. } => 4,
            SessionError::UidConflict { .. } => 5,
            SessionError::UidRejected { .. } => 6,
            SessionError::TooManyWaiting { .. } => 7,
            SessionError::Throttled => 8,
            SessionError::TooManyAgentsOnConnection { .. } => 9,
            SessionError::TooManyAgents { .. } => 10,
            SessionError::TextMessage => 11,
            SessionError::WebSocketProtocol => 12,
            SessionError::TooManyFaults { .. } => 13,
            SessionError::Timeout => 14,
            SessionError::NoRoom => 15,
            SessionError::Undecided => 16,
        }
    }

    #[test]
    fn every_session_error_has_a_visible_consequence() {
        for (index, error) in every_error().into_iter().enumerate() {
            assert_eq!(position(&error), index);
            let consequence = error.consequence();
            assert!(
                consequence.reply != ErrorReply::Nothing || consequence.close.is_some(),
                "{error:?} would be swallowed on WebSocket"
            );
            assert!(
                consequence.http_status >= 400 || consequence.reply != ErrorReply::Nothing,
                "{error:?} would be swallowed on HTTP"
            );
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn reasons_are_a_closed_set_with_distinct_words() {
        let words: std::collections::BTreeSet<_> = RefusalReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), RefusalReason::ALL.len());
        for (index, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }
}
