//! Plain HTTP: one request, one answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opamp_proto::{AgentMessage, InstanceUid};

use super::admission::stats::{AdmissionStage, SlowPeer};
use super::body::{self, BodyError, PROTOBUF};
use super::core::{Core, Sender};
use super::directory::Slot;
use super::peer::PeerInfo;
use super::receive::Received;
use super::service::{Body, Response, later, seconds, text};
use crate::refusal::{RefusalReason, SessionError};
use crate::session::{Input, Outbox};
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
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    core.counters.http_requests.fetch_add(1, Ordering::Relaxed);
    let limit = core.limits.message_bytes_max;
    let read = tokio::time::timeout(
        core.settings.body_timeout,
        body::read(headers, body, limit, &core.admission.budget),
    )
    .await;
    let sender = Sender::Polling { principal, remote_addr, headers, peer };
    let refuse = |reason, status: StatusCode, detail: String| {
        let (named, transport) = (principal.named(), Some(Transport::Http));
        core.refused(reason, detail.clone(), named, remote_addr, transport);
        text(status, detail)
    };
    let received = match read {
        Ok(Ok(received)) => received,
        Ok(Err(BodyError::NoRoom)) => {
            return later(core, AdmissionStage::Memory, Some(principal), (remote_addr, Transport::Http));
        }
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
            core.admission.counters.slow(SlowPeer::Body);
            let detail = "the body did not arrive in time".to_owned();
            return refuse(RefusalReason::Timeout, StatusCode::REQUEST_TIMEOUT, detail);
        }
    };
    let mut out = core.outbox();
    let exchanged = exchange(core, received, sender, &mut out).await;
    let response = respond(core, &exchanged, headers, &out);
    core.reuse(out);
    response.unwrap_or_else(|| {
        if let Some(slot) = exchanged.slot {
            core.unanswered(&slot);
        }
        later(core, AdmissionStage::Memory, Some(principal), (remote_addr, Transport::Http))
    })
}

/// How often it may turn out anew that a socket that lives has the agent, before the sender is sent away.
const CONTESTS_MAX: usize = 3;

/// What goes with the answer in the outbox.
struct Exchanged {
    status: u16,
    /// The agent it is for.
    slot: Option<Arc<Slot>>,
    retry_after: Option<Duration>,
}

impl Exchanged {
    fn answered(slot: Option<Arc<Slot>>) -> Self {
        Self { status: 200, slot, retry_after: None }
    }
}

/// Lets the session answer.
async fn exchange(
    core: &Arc<Core>,
    mut received: body::Body,
    sender: Sender<'_>,
    out: &mut Outbox,
) -> Exchanged {
    core.counters.frame_received();
    let mut verdict = None;
    let mut contests = 0;
    let (uid, error) = loop {
        let message = match AgentMessage::decode(&received.bytes, &core.limits) {
            Ok(message) => message,
            Err(error) => break (None::<InstanceUid>, SessionError::Decode(error)),
        };
        let uid = message.instance_uid().ok();
        let contest = match core.receive(&message, sender, None, verdict, core.now(), out) {
            Ok(Received::Contested(contest)) => contest,
            Ok(Received::Handled { slot, .. }) => return Exchanged::answered(Some(slot)),
            Ok(Received::SetAside | Received::Told(_)) => return Exchanged::answered(None),
            Err(error) => break (uid, error),
        };
        contests += 1;
        if contests > CONTESTS_MAX {
            break (uid, SessionError::Undecided);
        }
        if !received.keep() {
            break (uid, SessionError::NoRoom);
        }
        verdict = contest.decide_unless_draining(core).await;
        if verdict.is_none() {
            break (uid, SessionError::Throttled); // draining
        }
    };
    let retry_after = core.fault(&error, uid.as_ref(), sender, out);
    Exchanged { status: error.consequence().http_status, slot: None, retry_after }
}

/// The answer; none if there is no room for it to wait until the peer takes it.
fn respond(core: &Core, exchanged: &Exchanged, headers: &HeaderMap, out: &Outbox) -> Option<Response> {
    let status = StatusCode::from_u16(exchanged.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The first byte is the header of WebSocket messages, which plain HTTP does not have (R-HTTP-01).
    let message = out.messages().next().map(|framed| &framed[1..]).unwrap_or_default();
    let compress = message.len() >= core.settings.compress_min_bytes && body::accepts_gzip(headers);
    let body = if compress { body::gzip(message) } else { Bytes::copy_from_slice(message) };
    let body = body::charged(body, &core.admission.budget)?;
    core.counters.frame_sent();
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    if compress {
        answer_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        answer_headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if let Some(retry_after) = exchanged.retry_after {
        answer_headers.insert(header::RETRY_AFTER, seconds(retry_after).into());
    }
    Some(response)
}

impl Core {
    /// The answer to an agent that polls did not leave.
    fn unanswered(&self, slot: &Arc<Slot>) {
        let (mut out, now) = (self.outbox(), self.now());
        let mut inner = slot.lock();
        let told = inner.session.handle(Input::Unwritten, now, &mut out);
        debug_assert!(told.is_ok(), "only messages are refused");
        self.note_effects(slot, &out, now.mono);
        self.note_change(slot, &inner.session);
        drop(inner);
        self.reuse(out);
    }
}
