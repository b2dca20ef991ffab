//! What a request gets when it fails: `{"error": {"code", "message", "hint"}}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use opamp_store::{CommitError, ReadError};

use super::schema::reply;

reply! {
    /// Every answer with a status of 400 or above.
    pub(crate) struct ErrorReply {
        /// What went wrong.
        error: ErrorBody,
    }
}

reply! {
    /// What went wrong and what to do about it.
    pub(crate) struct ErrorBody {
        /// A fixed word for programs, such as `not_found`.
        code: &'static str,
        /// A sentence for people.
        message: String,
        /// What to do, if there is something.
        hint: Option<String>,
    }
}

/// A failed request.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $status:ident, $code:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name(message: impl Into<String>) -> Self {
            ApiError { status: StatusCode::$status, code: $code, message: message.into(), hint: None }
        })*
    };
}

impl ApiError {
    constructors! {
        bad_request => BAD_REQUEST, "bad_request";
        conflict => CONFLICT, "conflict";
        forbidden => FORBIDDEN, "forbidden";
        internal => INTERNAL_SERVER_ERROR, "internal";
        invalid_json => BAD_REQUEST, "invalid_json";
        invalid_selector => BAD_REQUEST, "invalid_selector";
        method_not_allowed => METHOD_NOT_ALLOWED, "method_not_allowed";
        not_found => NOT_FOUND, "not_found";
        precondition_failed => PRECONDITION_FAILED, "precondition_failed";
        precondition_required => PRECONDITION_REQUIRED, "precondition_required";
        timeout => REQUEST_TIMEOUT, "timeout";
        too_large => PAYLOAD_TOO_LARGE, "payload_too_large";
        too_many => TOO_MANY_REQUESTS, "too_many_requests";
        unauthorized => UNAUTHORIZED, "unauthorized";
        unavailable => SERVICE_UNAVAILABLE, "unavailable";
        unknown_field => BAD_REQUEST, "unknown_field";
        unknown_parameter => BAD_REQUEST, "unknown_parameter";
        unsupported_media_type => UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type";
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { code: self.code, message: self.message, hint: self.hint };
        let mut response = (self.status, Json(ErrorReply { error: body })).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt { .. } => {
                tracing::error!(%error, "stored data is unreadable");
                ApiError::internal(error.to_string())
            }
            _ => ApiError::unavailable(error.to_string()),
        }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            CommitError::Precondition(_) | CommitError::UidTaken { .. } => {
                ApiError::conflict(text).hint("somebody else was faster: read it again and decide anew")
            }
            CommitError::Invalid(_) | CommitError::BlobMissing(_) => ApiError::bad_request(text),
            CommitError::OutcomeUnknown(_) => {
                ApiError::unavailable(text).hint("it may have been written: look before you repeat it")
            }
            _ => ApiError::unavailable(text),
        }
    }
}
