//! The download endpoint: who may have which file, and how much of it.
//!
//! `GET` and `HEAD` of `/v1/packages/{agent id}/{SHA-256 of the content}` on the OpAMP port. The offer to the agent
//! has this address and, as a header, the token that opens it. A request without a token is answered 401; with one that
//! does not open the file 404, whatever the reason is, so that nobody learns what there is for others.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use opamp_server::{Network, PeerInfo};

use super::{
    body::FileBody,
    counts::DownloadCounts,
    places::{Places, Refused},
    range::{Selection, Span, select},
    shelf::{Presented, Shelf},
};
use crate::{admin::source, exposure};

/// Where downloads are, on the OpAMP port. Nothing else is served below it.
pub(crate) const PREFIX: &str = "/v1/packages/";

/// The body of an answer.
pub(crate) type Body = Either<Full<Bytes>, FileBody>;

/// How downloads are bounded.
#[derive(Clone, Debug)]
pub(crate) struct DownloadSettings {
    /// Downloads at once, all agents together.
    pub(crate) downloads_max: usize,
    /// How long the store may take: to look a file up, and for each chunk of it.
    pub(crate) store_timeout: Duration,
    /// `Retry-After` where there is no place, at least; up to twice as long at random.
    pub(crate) retry_after: Duration,
    /// Whether plain connections may come from trusted proxies and this machine only: on a port beyond loopback without TLS.
    pub(crate) plain_through_proxies_only: bool,
    /// Proxies that terminate TLS, and whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// The download endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Downloads(Arc<Inner>);

struct Inner {
    shelf: Arc<dyn Shelf>,
    settings: DownloadSettings,
    places: Places,
    counts: Arc<DownloadCounts>,
}

impl Downloads {
    pub(crate) fn new(
        shelf: Arc<dyn Shelf>,
        counts: Arc<DownloadCounts>,
        settings: DownloadSettings,
    ) -> Self {
        let places = Places::new(settings.downloads_max);
        Downloads(Arc::new(Inner { shelf, settings, places, counts }))
    }

    /// Answers a request for a path below [`PREFIX`]. The body of the request is not looked at.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let (head, _body) = request.into_parts();
        let inner = &*self.0;
        let peer = head.extensions.get::<PeerInfo>();
        if !inner.may_connect(peer) {
            inner.counts.refuse();
            return text(StatusCode::FORBIDDEN, "plain connections are accepted from trusted proxies only");
        }
        let with_content = match head.method {
            Method::GET => true,
            Method::HEAD => false,
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                return response;
            }
        };
        let Some((agent, content)) = place(head.uri.path()) else {
            inner.counts.refuse();
            return not_found();
        };
        let Some(token) = bearer(&head.headers) else {
            inner.counts.refuse();
            let mut response = text(StatusCode::UNAUTHORIZED, "the token of the offer is required");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        };
        let source =
            peer.map(|peer| source(peer.remote_addr, &head.headers, &inner.settings.trusted_proxies));
        let presented = Presented { agent, content, token, source };
        let opened = tokio::time::timeout(inner.settings.store_timeout, inner.shelf.open(presented)).await;
        let file = match opened {
            Ok(Ok(Some(file))) => file,
            Ok(Ok(None)) => {
                inner.counts.refuse();
                return not_found();
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "package not served");
                return inner.unavailable("the store does not answer");
            }
            Err(_) => return inner.unavailable("the store takes too long"),
        };
        let answer = Answer::new(file.size_bytes, &content, &head.headers, with_content);
        match answer.span.filter(|_| with_content) {
            None => answer.head.map(|()| Either::Left(Full::default())),
            Some(span) => match inner.places.take(agent) {
                Ok(place) => {
                    let running = inner.counts.start(place, span.length());
                    let body = FileBody::new(
                        Arc::clone(&inner.shelf),
                        file,
                        span,
                        inner.settings.store_timeout,
                        running,
                    );
                    answer.head.map(|()| Either::Right(body))
                }
                Err(Refused::All) => inner.unavailable("too many downloads at once"),
                Err(Refused::Agent) => inner.unavailable("too many downloads of this agent at once"),
            },
        }
    }

    /// The answer while agents are told to come later.
    pub(crate) fn later(&self, least: Duration) -> Response<Body> {
        self.0.come_back(least, "the server is overloaded")
    }
}

impl Inner {
    fn may_connect(&self, peer: Option<&PeerInfo>) -> bool {
        let proxies = &self.settings.trusted_proxies;
        let allowed =
            |peer: &PeerInfo| peer.tls || exposure::plain_peer_allowed(peer.remote_addr.ip(), proxies);
        !self.settings.plain_through_proxies_only || peer.is_some_and(allowed)
    }

    fn unavailable(&self, message: &str) -> Response<Body> {
        self.come_back(self.settings.retry_after, message)
    }

    fn come_back(&self, least: Duration, message: &str) -> Response<Body> {
        self.counts.refuse();
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, message);
        let wait = jittered(least).as_secs().max(1);
        response.headers_mut().insert(header::RETRY_AFTER, wait.into());
        response
    }
}

/// Status and headers of an answer, and which bytes go with it.
struct Answer {
    head: Response<()>,
    span: Option<Span>,
}

impl Answer {
    fn new(size: u64, content: &[u8; 32], request: &HeaderMap, with_content: bool) -> Self {
        let etag = etag(content);
        // Ranges are defined for GET only (RFC 9110 §14.2).
        let selection = if with_content { select(request, size, &etag) } else { Selection::Whole };
        let (status, span, range) = match selection {
            Selection::Whole => (StatusCode::OK, Some(Span::whole(size)), None),
            Selection::Part(span) => {
                (StatusCode::PARTIAL_CONTENT, Some(span), Some(span.content_range(size)))
            }
            Selection::Unsatisfiable => {
                (StatusCode::RANGE_NOT_SATISFIABLE, None, Some(format!("bytes */{size}")))
            }
        };
        let mut head = Response::new(());
        *head.status_mut() = status;
        let headers = head.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, etag);
        // No shared cache keeps what a token opened, and no proxy changes what a hash is compared with.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-transform"));
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if let Some(span) = span {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(header::CONTENT_LENGTH, span.length().into());
        }
        Answer { head, span }
    }
}

/// The agent and the content that a path names.
fn place(path: &str) -> Option<(opamp_proto::AgentId, [u8; 32])> {
    let (agent, content) = path.strip_prefix(PREFIX)?.split_once('/')?;
    let content = HEXLOWER.decode(content.as_bytes()).ok()?.try_into().ok()?;
    Some((agent.parse().ok()?, content))
}

/// The token of exactly one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn etag(content: &[u8; 32]) -> HeaderValue {
    // Hexadecimal digits in quotes are always a valid header value.
    HeaderValue::try_from(format!("\"{}\"", HEXLOWER.encode(content)))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

fn not_found() -> Response<Body> {
    text(
        StatusCode::NOT_FOUND,
        "there is no such package for this agent, or the token is not that of its offer",
    )
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(format!("{message}\n"))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Between once and twice as long, so that not all come back at once.
fn jittered(least: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random numbers everybody waits the least time.
    let share = getrandom::fill(&mut random).map_or(0, |()| u32::from_le_bytes(random));
    least + least.mul_f64(f64::from(share) / f64::from(u32::MAX))
}
