//! One request on a stream of its own: what opens tunnels and WebSockets.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::body;
use super::classify::source_failure;
use super::connector::{BoxedIo, Refusal};
use super::task::OwnedTask;
use crate::failure::{Failure, FailureKind};

/// How much of the body of an answer that is not the one hoped for is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// An answer, and what keeps the connection going while it is read.
pub(crate) struct Answer {
    pub(crate) response: http::Response<Incoming>,
    _connection: OwnedTask,
}

/// Asks what is at the other end of `io`. What happens is told to nobody's log: requests hold credentials.
pub(crate) async fn ask(io: BoxedIo, request: Request<Empty<Bytes>>) -> hyper::Result<Answer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let connection = OwnedTask::spawn(async move {
        // How it went shows in the answer.
        let _ = connection.with_upgrades().await;
    });
    Ok(Answer { response: sender.send_request(request).await?, _connection: connection })
}

/// What a failed request means: nonsense for an answer, or a connection that ended before there was one, as servers do it
/// that are just starting or stopping.
pub(crate) fn failure(
    what: &str,
    nonsense: FailureKind,
    ended: FailureKind,
    error: &hyper::Error,
) -> Failure {
    let kind = if error.is_parse() || error.is_user() { nonsense } else { ended };
    source_failure(what, kind, error)
}

impl Answer {
    /// The stream behind an answer that gives it away.
    pub(crate) async fn into_stream(self) -> hyper::Result<BoxedIo> {
        Ok(Box::new(TokioIo::new(hyper::upgrade::on(self.response).await?)))
    }

    pub(crate) async fn into_refusal(self) -> Refusal {
        let (parts, body) = self.response.into_parts();
        let body = body::read(&parts.headers, body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Refusal { status: parts.status, headers: parts.headers, body }
    }
}
