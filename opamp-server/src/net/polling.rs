//! Plain HTTP: one request, one answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opamp_proto::{AgentMessage, InstanceUid};

use super::body::{self, BodyError, PROTOBUF};
use super::core::{Core, Sender};
use super::peer::PeerInfo;
use super::receive::Received;
use super::service::{Body, Response, seconds, text};
use crate::refusal::{RefusalReason, SessionError};
use crate::session::Outbox;
use crate::snapshot::{Principal, Transport};

/// Answers one poll.
pub(crate) async fn answer<B>(
    core: &Arc<Core>,
    headers: &HeaderMap,
    body: B,
    principal: &Principal,
    remote_addr: Option<SocketAddr>,
    peer: Option<&PeerInfo>,
) -> Response
where
    B: http_body::Body<Data = Bytes>,
{
    core.counters.http_requests.fetch_add(1, Ordering::Relaxed);
    let limit = core.limits.message_bytes_max;
    let read = tokio::time::timeout(core.settings.body_timeout, body::read(headers, body, limit)).await;
    let sender = Sender::Polling { principal, remote_addr, headers, peer };
    let refuse = |reason, status: StatusCode, detail: String| {
        core.refused(reason, detail.clone(), None, remote_addr, Some(Transport::Http));
        text(status, detail)
    };
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(BodyError::Oversize)) => {
            let error = SessionError::Oversize { limit_bytes: limit };
            return refuse(RefusalReason::Oversize, StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
        }
        Ok(Err(BodyError::UnknownCoding(name))) => {
            let detail = format!("Content-Encoding {name:?} is not supported; use gzip or identity");
            return refuse(RefusalReason::Protocol, StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
        }
        Ok(Err(BodyError::NotGzip)) => {
            let detail = "the body is not the gzip that Content-Encoding says".to_owned();
            return refuse(RefusalReason::Malformed, StatusCode::BAD_REQUEST, detail);
        }
        Ok(Err(BodyError::Broken)) => {
            let detail = "the body ended before its time".to_owned();
            return refuse(RefusalReason::Protocol, StatusCode::BAD_REQUEST, detail);
        }
        Err(_) => {
            let detail = "the body did not arrive in time".to_owned();
            return refuse(RefusalReason::Timeout, StatusCode::REQUEST_TIMEOUT, detail);
        }
    };
    let mut out = core.outbox();
    let status = exchange(core, &bytes, sender, &mut out).await;
    let response = respond(core, status, headers, &out);
    core.reuse(out);
    response
}

/// How often it may turn out anew that a socket that lives has the agent, before the sender is sent away.
const CONTESTS_MAX: usize = 3;

/// Lets the session answer; the status that goes with what is in the outbox.
async fn exchange(core: &Arc<Core>, bytes: &[u8], sender: Sender<'_>, out: &mut Outbox) -> u16 {
    core.counters.frames_received.fetch_add(1, Ordering::Relaxed);
    let (uid, error) = match AgentMessage::decode(bytes, &core.limits) {
        Ok(message) => {
            let mut verdict = None;
            let mut contests = 0;
            let error = loop {
                match core.receive(&message, sender, verdict, out) {
                    Ok(Received::Contested(contest)) if contests < CONTESTS_MAX => {
                        contests += 1;
                        verdict = contest.decide(core).await;
                        if verdict.is_none() {
                            break SessionError::Throttled; // draining
                        }
                    }
                    Ok(Received::Contested(_)) => break SessionError::Throttled,
                    Ok(Received::Handled(_) | Received::SetAside | Received::Told(_)) => return 200,
                    Err(error) => break error,
                }
            };
            (message.instance_uid().ok(), error)
        }
        Err(error) => (None::<InstanceUid>, SessionError::Decode(error)),
    };
    core.fault(&error, uid.as_ref(), sender, out);
    error.consequence().http_status
}

fn respond(core: &Core, status: u16, headers: &HeaderMap, out: &Outbox) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The first byte is the header of WebSocket messages, which plain HTTP does not have (R-HTTP-01).
    let message = out.messages().next().map(|framed| &framed[1..]).unwrap_or_default();
    core.counters.frames_sent.fetch_add(1, Ordering::Relaxed);
    let compress = message.len() >= core.settings.compress_min_bytes && body::accepts_gzip(headers);
    let body = if compress { body::gzip(message) } else { Bytes::copy_from_slice(message) };
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    if compress {
        answer_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        answer_headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer_headers.insert(header::RETRY_AFTER, seconds(core.retry_after()).into());
    }
    response
}
