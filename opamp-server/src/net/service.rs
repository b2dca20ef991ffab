//! One `tower::Service` for both transports at one path.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;

use super::admission::stats::AdmissionStage;
use super::auth::{AuthRequest, Denied, DeniedReason};
use super::body;
use super::core::Core;
use super::peer::PeerInfo;
use super::{polling, websocket};
use crate::refusal::RefusalReason;
use crate::snapshot::{Principal, Transport};

pub(crate) type Body = Full<Bytes>;
pub(crate) type Response = http::Response<Body>;

/// The OpAMP endpoint: WebSocket upgrades and polls, told apart as the specification says (R-HTTP-10, R-HTTP-11).
///
/// Mounts wherever a `tower::Service` of HTTP requests does; it never fails and panics on no request. To be
/// reachable for WebSockets the HTTP stack must support upgrades (hyper: `with_upgrades`). Put a [`PeerInfo`] into
/// the request's extensions if addresses and client certificates are wanted. What only [`serve`](crate::serve)
/// does: the pace at which connections are let in, deadlines for slow headers and answers that are not taken, a bound on
/// TLS handshakes, classified TLS failures.
#[derive(Clone, Debug)]
pub struct OpampService(pub(crate) Arc<Core>);

impl<B> tower_service::Service<http::Request<B>> for OpampService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let core = Arc::clone(&self.0);
        Box::pin(async move { Ok(respond(core, request).await) })
    }
}

/// A short plain-text answer for humans with curl.
pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Response {
    let mut message = message.into();
    message.push('\n');
    let mut response = Response::new(Body::new(Bytes::from(message)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

async fn respond<B>(core: Arc<Core>, request: http::Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let poll = parts.method == Method::POST && body::is_protobuf(&parts.headers);
    let transport = if poll { Transport::Http } else { Transport::WebSocket };
    let peer = parts.extensions.get::<PeerInfo>().cloned();
    let remote_addr =
        peer.as_ref().map(|peer| peer.client_addr(&parts.headers, &core.settings.trusted_proxies));
    let refuse = |reason: RefusalReason, detail: &str| {
        core.refused(reason, detail.to_owned(), None, remote_addr, Some(transport));
    };
    if let Some(path) = core.path.as_deref().filter(|path| *path != parts.uri.path()) {
        refuse(RefusalReason::Protocol, "no such path");
        return text(StatusCode::NOT_FOUND, format!("no such path; OpAMP is at {path}"));
    }
    let sender = (remote_addr, transport);
    if core.draining.is_cancelled() {
        return later(&core, AdmissionStage::Drain, None, sender);
    }
    if core.throttle.get().is_some() {
        core.counters.throttled.fetch_add(1, Ordering::Relaxed);
        return later(&core, AdmissionStage::Throttle, None, sender);
    }
    let request = AuthRequest { headers: &parts.headers, peer: peer.as_ref(), transport };
    let principal = match authenticate(&core, request).await {
        Ok(principal) => principal,
        Err(denied) => {
            let reason = match denied.reason {
                DeniedReason::Unavailable => RefusalReason::Unavailable,
                _ => RefusalReason::AuthFailed,
            };
            core.admission.counters.rejected(AdmissionStage::Authentication);
            core.refused(reason, denied.reason.to_string(), denied.claimed, remote_addr, Some(transport));
            let mut response = text(denied.status, denied.status.canonical_reason().unwrap_or("denied"));
            response.headers_mut().extend(denied.headers);
            return response;
        }
    };
    if poll {
        let Some(_place) = core.admission.identities.place(&principal) else {
            return later(&core, AdmissionStage::Identity, Some(&principal), sender);
        };
        return polling::answer(&core, &parts.headers, body, &principal, remote_addr, peer.as_ref()).await;
    }
    match parts.method {
        Method::GET => {}
        Method::POST => {
            let detail = "Content-Type must be application/x-protobuf";
            refuse(RefusalReason::Protocol, detail);
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
        }
        _ => {
            refuse(RefusalReason::Protocol, "method not allowed");
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use POST, or GET to open a WebSocket");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
            return response;
        }
    }
    websocket::upgrade(&core, &mut parts, principal, remote_addr)
}

/// Sends a peer away until there is room for it: 503, or 429 where it takes more than its share; counted and told as a refusal
/// of `stage`.
pub(crate) fn later(
    core: &Core,
    stage: AdmissionStage,
    principal: Option<&Principal>,
    (remote_addr, transport): (Option<SocketAddr>, Transport),
) -> Response {
    let (message, detail) = match stage {
        AdmissionStage::Drain => ("the server is shutting down", "draining"),
        AdmissionStage::Throttle => ("the server is overloaded; come back later", "throttled"),
        AdmissionStage::Identity => {
            ("these credentials have as many connections as they may", "too many connections of one identity")
        }
        AdmissionStage::Connections => ("the server is at its limit of connections", "too many connections"),
        AdmissionStage::Memory => ("the server has no room for this now; send it again later", "no room"),
        AdmissionStage::Agents | AdmissionStage::Authentication | AdmissionStage::Handshake => {
            ("the server cannot serve this now", stage.as_str())
        }
    };
    let (status, reason) = match stage {
        AdmissionStage::Identity => (StatusCode::TOO_MANY_REQUESTS, RefusalReason::RateLimited),
        _ => (StatusCode::SERVICE_UNAVAILABLE, RefusalReason::Unavailable),
    };
    core.admission.counters.rejected(stage);
    let principal = principal.and_then(Principal::named);
    core.refused(reason, detail.to_owned(), principal, remote_addr, Some(transport));
    let mut response = text(status, message);
    response.headers_mut().insert(header::RETRY_AFTER, seconds(core.retry_after(Some(stage))).into());
    response
}

/// Whole seconds for `Retry-After`, rounded up: 0 would be an invitation.
pub(crate) fn seconds(retry_after: Duration) -> u64 {
    (retry_after + Duration::from_millis(999)).as_secs().max(1)
}

async fn authenticate(core: &Core, request: AuthRequest<'_>) -> Result<Principal, Denied> {
    let answer = tokio::time::timeout(core.settings.handshake_timeout, core.auth.authenticate(request)).await;
    answer.unwrap_or_else(|_| Err(DeniedReason::Unavailable.into()))
}
