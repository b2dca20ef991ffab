//! Plain HTTP: one request at a time, over a connection that is kept while it lasts.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use opamp_proto::InstanceUid;

use super::body::{self, BodyError};
use super::classify::source_failure;
use super::connector::{Connector, Reached, Refusal, Trail};
use super::endpoint::Endpoint;
use super::exchange;
use super::link::LinkEvent;
use super::task::OwnedTask;
use crate::failure::{Failure, FailureKind, peer_text};
use crate::session::Unusable;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// The agent's identity in a header, for what lies between (R-HTTP-16).
const INSTANCE_UID: HeaderName = HeaderName::from_static("opamp-instance-uid");
/// How much of the body of a refusal is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// The polls of one connection.
pub(crate) struct Polling {
    idle: Option<Box<Wire>>,
    exchange: Option<BoxFuture<'static, Exchanged>>,
}

/// What an exchange ends in: the way back, and the body of the answer.
type Exchanged = (Box<Wire>, Result<Bytes, ExchangeError>);

/// Where requests go.
struct Wire {
    connector: Arc<Connector>,
    trail: Trail,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    through_proxy: Option<Option<HeaderValue>>,
    /// It has answered before, so it may have been closed since.
    used: bool,
    _task: OwnedTask,
}

/// Why a request got no usable answer.
enum ExchangeError {
    Failed(Failure),
    Unusable(Unusable),
}

impl Polling {
    /// Takes over a stream.
    pub(crate) async fn new(
        connector: Arc<Connector>,
        trail: Trail,
        reached: Reached,
    ) -> Result<Self, Failure> {
        let connection = Some(Connection::new(reached).await?);
        Ok(Self { idle: Some(Box::new(Wire { connector, trail, connection })), exchange: None })
    }

    /// Begins an exchange. There is never a second one at a time (R-HTTP-07).
    pub(crate) fn send(&mut self, uid: &InstanceUid, message: &[u8]) {
        let (uid, message) = (uid.to_string(), Bytes::copy_from_slice(message));
        if let Some(mut wire) = self.idle.take() {
            self.exchange = Some(Box::pin(async move {
                let answer = wire.exchange(&uid, message).await;
                (wire, answer)
            }));
        }
    }

    /// What happens next. Nothing is lost if the caller gives up waiting.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let (wire, answer) = ready!(exchange.poll_unpin(cx));
        self.exchange = None;
        self.idle = Some(wire);
        Poll::Ready(match answer {
            Ok(bytes) => LinkEvent::Received(bytes),
            Err(ExchangeError::Failed(failure)) => LinkEvent::Failed(failure),
            Err(ExchangeError::Unusable(what)) => LinkEvent::Unusable(what),
        })
    }
}

impl Wire {
    /// One request and its answer; redirects are followed with the same request.
    async fn exchange(&mut self, uid: &str, message: Bytes) -> Result<Bytes, ExchangeError> {
        self.trail.arrived();
        let settings = &self.connector.settings;
        let (limit, compress) = (settings.receive_bytes_max, settings.compress);
        let compressed = if compress && message.len() >= settings.compress_min_bytes {
            body::gzip(&message)
        } else {
            None
        };
        let content = Content { uid, gzip: compressed.is_some(), bytes: compressed.unwrap_or(message) };
        loop {
            let answer = self.request(&content).await;
            let answer = answer.map_err(|failure| ExchangeError::Failed(self.trail.told(failure)))?;
            let (parts, body) = answer.into_parts();
            if parts.status.is_success() {
                check_type(&parts.headers)
                    .map_err(|failure| ExchangeError::Failed(self.trail.told(failure)))?;
                let read = body::read(&parts.headers, body, limit).await;
                return read.map(Bytes::from).map_err(|error| unreadable(error, limit));
            }
            let body = body::read(&parts.headers, body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
            let refusal = Refusal { status: parts.status, headers: parts.headers, body };
            self.connector.refused(&mut self.trail, &refusal).map_err(ExchangeError::Failed)?;
            // Another server, another connection.
            self.connection = None;
        }
    }

    /// Sends the request, over a new connection if the last one is gone.
    async fn request(&mut self, content: &Content<'_>) -> Result<Response<Incoming>, Failure> {
        loop {
            let headers = self.connector.headers(&self.trail).await?;
            let mut connection = match self.connection.take().filter(|kept| !kept.sender.is_closed()) {
                Some(kept) => kept,
                None => Connection::new(self.connector.reach(&self.trail.target).await?).await?,
            };
            let request = content.request(&self.trail.target, connection.through_proxy.as_ref(), headers)?;
            match connection.send(request).await {
                Ok(response) => {
                    connection.used = true;
                    self.connection = Some(connection);
                    return Ok(response);
                }
                // Closed while it was idle, just as this was sent: that is no failure of anything. If the server did get
                // it, it knows it again by its number.
                Err(error) if connection.used && was_closed(&error) => {}
                Err(error) => return Err(request_failure(&error)),
            }
        }
    }
}

/// What is sent, wherever it is sent to.
struct Content<'a> {
    uid: &'a str,
    gzip: bool,
    bytes: Bytes,
}

impl Content<'_> {
    fn request(
        &self,
        target: &Endpoint,
        through_proxy: Option<&Option<HeaderValue>>,
        headers: HeaderMap,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let request = Request::post(uri(target, through_proxy)).body(Full::new(self.bytes.clone()));
        let mut request = addressed(request, target, through_proxy, headers)?;
        let all = request.headers_mut();
        all.insert(header::CONTENT_TYPE, PROTOBUF);
        all.insert(header::ACCEPT_ENCODING, GZIP);
        if self.gzip {
            all.insert(header::CONTENT_ENCODING, GZIP);
        }
        if let Ok(uid) = HeaderValue::from_str(self.uid) {
            all.insert(INSTANCE_UID, uid);
        }
        Ok(request)
    }
}

impl Connection {
    async fn new(reached: Reached) -> Result<Self, Failure> {
        let Reached { io, through_proxy } = reached;
        let handshake = http1::handshake(TokioIo::new(io)).await;
        let (sender, connection) = handshake.map_err(|error| request_failure(&error))?;
        let task = OwnedTask::spawn(async move {
            // How it went shows in the requests.
            let _ = connection.await;
        });
        Ok(Self { sender, through_proxy, used: false, _task: task })
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// A GET of the endpoint: whether somebody is there, and whether the credentials are good.
pub(crate) fn question(
    target: &Endpoint,
    through_proxy: Option<&Option<HeaderValue>>,
    headers: HeaderMap,
) -> Result<Request<Empty<Bytes>>, Failure> {
    addressed(Request::get(uri(target, through_proxy)).body(Empty::new()), target, through_proxy, headers)
}

pub(crate) fn uri(target: &Endpoint, through_proxy: Option<&Option<HeaderValue>>) -> String {
    if through_proxy.is_some() { target.http_url() } else { target.path_and_query.clone() }
}

/// The request with what every one has: credentials, host, and what the proxy wants.
pub(crate) fn addressed<B>(
    request: http::Result<Request<B>>,
    target: &Endpoint,
    through_proxy: Option<&Option<HeaderValue>>,
    headers: HeaderMap,
) -> Result<Request<B>, Failure> {
    let malformed = |error: http::Error| Failure::new(FailureKind::Local, error.to_string());
    let mut request = request.map_err(malformed)?;
    let all = request.headers_mut();
    *all = headers;
    let host = HeaderValue::from_str(&target.host_header()).map_err(|error| malformed(error.into()))?;
    all.insert(header::HOST, host);
    if let Some(Some(authorization)) = through_proxy {
        all.insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}

/// The connection ended before anything of an answer came.
fn was_closed(error: &hyper::Error) -> bool {
    let broken = |error: &std::io::Error| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
    };
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    error.is_canceled() || error.is_closed() || error.is_incomplete_message() || source.is_some_and(broken)
}

/// What answers in another language is not the server, such as the page of a gateway that wants somebody to log in.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = given.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/x-protobuf") {
        return Ok(());
    }
    let detail = format!("what answers speaks {:?} instead of OpAMP", peer_text(media));
    Err(Failure::new(FailureKind::Protocol, detail))
}

fn request_failure(error: &hyper::Error) -> Failure {
    exchange::failure("the request failed", FailureKind::Protocol, FailureKind::Closed, error)
}

fn unreadable(error: BodyError, limit: usize) -> ExchangeError {
    match error {
        BodyError::Broken(error) => {
            ExchangeError::Failed(source_failure("the answer broke off", FailureKind::Closed, &error))
        }
        BodyError::Coding(what) => ExchangeError::Failed(Failure::new(FailureKind::Protocol, what)),
        BodyError::Oversize => ExchangeError::Unusable(Unusable::Oversize { limit }),
    }
}
