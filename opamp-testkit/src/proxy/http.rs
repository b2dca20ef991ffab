//! An HTTP proxy: tunnels opened with CONNECT, and requests for whole addresses (RFC 9110 §9.3.6, RFC 9112 §3.2.2).

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, copy_bidirectional, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Mode;
use super::relay::Relay;

/// Requests that are remembered. A test that needs more counts instead.
const ASKED_MAX: usize = 1_024;

/// Bytes on the way between the part that follows the mode and the part that speaks HTTP.
const INNER_BYTES: usize = 16 << 10;

type Body = Either<Incoming, Full<Bytes>>;

/// A running proxy. What its [`Mode`] holds or counts are the bytes between agent and proxy, those of TLS included.
#[derive(Debug)]
pub struct HttpProxy {
    relay: Relay,
    shared: Arc<Shared>,
    tls: bool,
    /// Dropping it ends what is behind the relay.
    _inner: Arc<Mutex<JoinSet<()>>>,
}

/// A proxy to be.
#[derive(Debug, Default)]
#[must_use = "a proxy begins with `start`"]
pub struct HttpProxyBuilder {
    rules: Rules,
    tls: Option<ServerConfig>,
}

/// A request as the proxy got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its method, `CONNECT` for a tunnel.
    pub method: String,
    /// Its target: `host:port` for a tunnel, a whole address otherwise.
    pub target: String,
    headers: HeaderMap,
}

#[derive(Debug, Default)]
struct Rules {
    required: Option<Required>,
    routes: HashMap<String, SocketAddr>,
}

#[derive(Debug)]
struct Required {
    name: HeaderName,
    value: HeaderValue,
    refusal: StatusCode,
}

#[derive(Debug)]
struct Shared {
    rules: Rules,
    asked: Mutex<Vec<Asked>>,
    forwarded: AtomicUsize,
    refused: AtomicUsize,
    tunnels: AtomicUsize,
}

impl HttpProxy {
    /// A proxy that serves everybody, unless told otherwise.
    pub fn builder() -> HttpProxyBuilder {
        HttpProxyBuilder::default()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.relay.addr()
    }

    /// Its address as `HTTPS_PROXY` has it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.addr())
    }

    /// Changes its manners.
    pub fn set(&self, mode: Mode) {
        self.relay.set(mode);
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.relay.connections()
    }

    /// How many tunnels were opened so far.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.tunnels.load(Ordering::SeqCst)
    }

    /// How many requests for whole addresses were forwarded so far.
    #[must_use]
    pub fn forwarded(&self) -> usize {
        self.shared.forwarded.load(Ordering::SeqCst)
    }

    /// How many requests lacked the required header so far.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// The first 1,024 requests, refused ones included.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked().clone()
    }
}

#[expect(clippy::expect_used, reason = "a test with an impossible header says so at once")]
impl HttpProxyBuilder {
    /// Refuses requests without this header and exactly this value with a status: 407, which asks for Basic
    /// authentication, or any other, such as 403. The header does not reach the server.
    ///
    /// # Panics
    ///
    /// If name, value or status cannot stand in HTTP.
    pub fn require(mut self, name: &str, value: &str, refusal: u16) -> Self {
        self.rules.required = Some(Required {
            name: name.parse().expect("a header's name"),
            value: value.parse().expect("a header's value"),
            refusal: StatusCode::from_u16(refusal).expect("a status"),
        });
        self
    }

    /// Sends what is for `authority`, as in `opamp.test:443`, to `addr`: a name that the proxy alone can resolve.
    pub fn route(mut self, authority: &str, addr: SocketAddr) -> Self {
        self.rules.routes.insert(authority.to_owned(), addr);
        self
    }

    /// Wants TLS from agents, before they ask for anything.
    pub fn tls(mut self, config: ServerConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Starts it on a free loopback port.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub async fn start(self) -> io::Result<HttpProxy> {
        let shared = Arc::new(Shared {
            rules: self.rules,
            asked: Mutex::default(),
            forwarded: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
        });
        let acceptor = self.tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let tls = acceptor.is_some();
        let inner: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let (tasks, served) = (Arc::downgrade(&inner), Arc::clone(&shared));
        let onward = move || {
            let (near, far) = duplex(INNER_BYTES);
            if let Some(tasks) = tasks.upgrade() {
                let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
                while tasks.try_join_next().is_some() {}
                tasks.spawn(serve(far, acceptor.clone(), Arc::clone(&served)));
            }
            std::future::ready(Ok(near))
        };
        Ok(HttpProxy { relay: Relay::start(onward).await?, shared, tls, _inner: inner })
    }
}

impl Asked {
    /// A header's value as text; what is no text is empty.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or_default())
    }
}

/// Serves one connection. What fails here shows at its two ends.
async fn serve(stream: DuplexStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    match tls {
        None => converse(stream, &shared).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, &shared).await;
            }
        }
    }
}

/// Answers requests, up to one for a tunnel, which is what the connection is from then on.
async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, shared: &Shared) {
    let onward = tokio::sync::Mutex::new(None);
    let tunnel = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let (onward, tunnel) = (&onward, &tunnel);
        async move { Ok::<_, Infallible>(shared.answer(request, onward, tunnel).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
    let opened = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Tunnel { agent, mut server }) = opened
        && let Ok(agent) = agent.await
    {
        let _ = copy_bidirectional(&mut TokioIo::new(agent), &mut server).await;
    }
}

/// A tunnel that was promised.
struct Tunnel {
    agent: hyper::upgrade::OnUpgrade,
    server: TcpStream,
}

/// A connection to a server, kept for the next request.
struct Onward {
    authority: String,
    sender: SendRequest<Incoming>,
    _driver: JoinSet<()>,
}

impl Shared {
    async fn answer(
        &self,
        request: Request<Incoming>,
        onward: &tokio::sync::Mutex<Option<Onward>>,
        tunnel: &Mutex<Option<Tunnel>>,
    ) -> Response<Body> {
        self.note(&request);
        if let Some(required) = &self.rules.required
            && request.headers().get(&required.name) != Some(&required.value)
        {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return refusal(required);
        }
        let Some(authority) = request.uri().authority().map(ToString::to_string) else {
            return said(StatusCode::BAD_REQUEST, "this is a proxy: name a host");
        };
        let outcome = if request.method() == Method::CONNECT {
            self.connect(&authority).await.map(|server| {
                let agent = hyper::upgrade::on(request);
                *tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Tunnel { agent, server });
                self.tunnels.fetch_add(1, Ordering::SeqCst);
                Response::new(Either::Right(Full::default()))
            })
        } else {
            self.forward(request, authority, &mut *onward.lock().await).await
        };
        outcome.unwrap_or_else(|error| said(StatusCode::BAD_GATEWAY, &error.to_string()))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        authority: String,
        kept: &mut Option<Onward>,
    ) -> io::Result<Response<Body>> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        let headers = request.headers_mut();
        headers.remove(CONNECTION);
        headers.remove(PROXY_AUTHORIZATION);
        if let Some(required) = &self.rules.required {
            headers.remove(&required.name);
        }
        headers.insert(HOST, HeaderValue::from_str(&authority).map_err(io::Error::other)?);
        let mut onward = match kept.take() {
            Some(onward) if onward.authority == authority && !onward.sender.is_closed() => onward,
            _ => self.open(authority).await?,
        };
        onward.sender.ready().await.map_err(io::Error::other)?;
        let mut response = onward.sender.send_request(request).await.map_err(io::Error::other)?;
        self.forwarded.fetch_add(1, Ordering::SeqCst);
        *kept = Some(onward);
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(Either::Left))
    }

    async fn open(&self, authority: String) -> io::Result<Onward> {
        let stream = self.connect(&authority).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it went shows in the answer.
            let _ = connection.await;
        });
        Ok(Onward { authority, sender, _driver: driver })
    }

    async fn connect(&self, authority: &str) -> io::Result<TcpStream> {
        let stream = match self.rules.routes.get(authority) {
            Some(addr) => TcpStream::connect(addr).await?,
            None if authority.contains(':') => TcpStream::connect(authority).await?,
            None => TcpStream::connect((authority, 80)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn note(&self, request: &Request<Incoming>) {
        let mut asked = self.asked();
        if asked.len() < ASKED_MAX {
            asked.push(Asked {
                method: request.method().to_string(),
                target: request.uri().to_string(),
                headers: request.headers().clone(),
            });
        }
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(required: &Required) -> Response<Body> {
    let mut response = said(required.refusal, &format!("the header {} is wanted", required.name));
    if required.refusal == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        response.headers_mut().insert(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"test\""));
    }
    response
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(text.to_owned())));
    *response.status_mut() = status;
    response
}
