//! Getting from an endpoint to a connection: name, TCP, proxy, TLS, upgrade; redirects on the way.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::classify::{io_failure, source_failure};
use super::clock::Clock;
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::polling::Polling;
use super::proxy::Proxy;
use super::settings::ClientSettings;
use super::tls::TlsSource;
use super::{exchange, polling, tunnel, websocket};
use crate::event::Transport;
use crate::failure::{Failure, FailureKind, peer_text};
use crate::retry;
use crate::session::CloseCode;

/// How long one address may keep the next one waiting (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// What an OpAMP server says to a request that is no message.
const NOT_ASKED_LIKE_THIS: [StatusCode; 5] = [
    StatusCode::BAD_REQUEST,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UPGRADE_REQUIRED,
];

/// A stream to a server, whatever lies between.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

pub(crate) type BoxedIo = Box<dyn Io>;

/// Everything needed to reach a server.
pub(crate) struct Connector {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) tls: Option<TlsSource>,
    pub(crate) proxy: Proxy,
    pub(crate) credentials: Credentials,
    pub(crate) settings: ClientSettings,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A stream, and how requests are written on it.
pub(crate) struct Reached {
    pub(crate) io: BoxedIo,
    /// Plain HTTP through a proxy: requests name the whole address, and carry the proxy's own authorization.
    pub(crate) through_proxy: Option<Option<http::HeaderValue>>,
}

/// What [`Connector::connect`] ends in.
pub(crate) enum Connected {
    Http(Polling),
    WebSocket(Box<websocket::Socket>),
}

/// An answer that is not the one hoped for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What [`Connector::try_out`] takes for an answer over HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rigour {
    /// Whatever comes from a server. Some things on the way let POST pass to this path and nothing else.
    SomebodyIsThere,
    /// What an OpAMP server says that would take this agent's reports.
    TakesTheAgent,
}

/// Redirects followed so far.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The endpoint as configured, whose credentials are shown to nobody else.
    origin: Endpoint,
    pub(crate) target: Endpoint,
    seen: Vec<Endpoint>,
}

impl Connector {
    /// Connects to an endpoint. Over HTTP that is the connection requests will use.
    pub(crate) async fn connect(self: Arc<Self>, endpoint: usize) -> Result<Connected, Failure> {
        let mut trail = Trail::new(self.endpoints[endpoint].clone());
        if trail.target.transport == Transport::Http {
            let reached = self.reach(&trail.target).await?;
            return Ok(Connected::Http(Polling::new(self, trail, reached).await?));
        }
        loop {
            let headers = self.headers(&trail).await?;
            let reached = self.reach(&trail.target).await.map_err(|failure| trail.told(failure))?;
            let upgraded = websocket::upgrade(reached.io, &trail.target, headers, &self.settings).await;
            match upgraded.map_err(|failure| trail.told(failure))? {
                Ok(socket) => return Ok(Connected::WebSocket(Box::new(socket))),
                Err(refusal) => self.refused(&mut trail, &refusal)?,
            }
        }
    }

    /// Whether an endpoint takes this agent: connects as the agent does, and leaves again. Over HTTP it is asked with GET,
    /// which no OpAMP server takes for a message.
    pub(crate) async fn try_out(self: Arc<Self>, endpoint: usize, with: Rigour) -> Result<(), Failure> {
        let (clock, settings) = (Arc::clone(&self.clock), self.settings.session.clone());
        let after = |wait: Duration| clock.sleep_until(clock.now().mono + wait);
        let connected = tokio::select! {
            connected = self.ask_or_connect(endpoint, with) => connected?,
            () = after(settings.connect_timeout) => return Err(Failure::no_connection_within(settings.connect_timeout)),
        };
        if let Some(mut socket) = connected {
            socket.close(CloseCode::Normal);
            // It was reached; how it takes the goodbye does not matter.
            tokio::select! {
                _ = poll_fn(|cx| socket.poll_event(cx)) => {}
                () = after(settings.close_timeout) => {}
            }
        }
        Ok(())
    }

    async fn ask_or_connect(
        self: Arc<Self>,
        endpoint: usize,
        with: Rigour,
    ) -> Result<Option<Box<websocket::Socket>>, Failure> {
        let mut trail = Trail::new(self.endpoints[endpoint].clone());
        if trail.target.transport == Transport::WebSocket {
            return match self.connect(endpoint).await? {
                Connected::WebSocket(socket) => Ok(Some(socket)),
                Connected::Http(_) => Ok(None),
            };
        }
        loop {
            let headers = self.headers(&trail).await?;
            let reached = self.reach(&trail.target).await?;
            let request = polling::question(&trail.target, reached.through_proxy.as_ref(), headers)?;
            let failed =
                |error| source_failure("the request failed", FailureKind::Closed, &error as &hyper::Error);
            let answer = exchange::ask(reached.io, request).await.map_err(failed)?;
            let status = answer.response.status();
            let says_nothing = with == Rigour::SomebodyIsThere
                && matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
            if NOT_ASKED_LIKE_THIS.contains(&status) || says_nothing {
                return Ok(None);
            }
            if status.is_success() {
                return polling::check_type(answer.response.headers()).map(|()| None);
            }
            if !is_redirect(status) {
                return Err(trail.told(answer.into_refusal().await.failure(&*self.clock)));
            }
            self.refused(&mut trail, &answer.into_refusal().await)?;
        }
    }

    /// What is shown to the server at the end of a trail: everything, or only the agent's kind if it is another server.
    pub(crate) async fn headers(&self, trail: &Trail) -> Result<HeaderMap, Failure> {
        if trail.target.is_same_origin(&trail.origin) {
            self.credentials.headers().await
        } else {
            Ok(self.credentials.public())
        }
    }

    /// Follows a redirect, or says what another status means.
    pub(crate) fn refused(&self, trail: &mut Trail, refusal: &Refusal) -> Result<(), Failure> {
        if is_redirect(refusal.status) {
            return trail.follow(refusal, self.settings.redirects_max);
        }
        let shown = trail.target.is_same_origin(&trail.origin);
        if shown && matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.credentials.refuse();
        }
        Err(trail.told(refusal.failure(&*self.clock)))
    }

    /// A stream to a server, through the proxy and with TLS where that is wanted.
    pub(crate) async fn reach(&self, target: &Endpoint) -> Result<Reached, Failure> {
        let proxy_failure = |what: String| Failure::new(FailureKind::Proxy, what);
        let Some(hop) = self.proxy.hop(target).map_err(proxy_failure)? else {
            let io = tcp(&target.host, target.port).await?;
            return Ok(Reached {
                io: self.secured(target.tls, &target.host, io).await?,
                through_proxy: None,
            });
        };
        let of_proxy = |mut failure: Failure| {
            failure.detail = format!("proxy {}:{}: {}", hop.host, hop.port, failure.detail);
            if matches!(failure.kind, FailureKind::Closed | FailureKind::Dns | FailureKind::Refused) {
                failure.kind = FailureKind::ProxyUnreachable;
            }
            failure
        };
        let io = tcp(&hop.host, hop.port).await.map_err(of_proxy)?;
        let source = if hop.tls { self.proxy.tls_source(self.tls.as_ref()).await } else { None };
        let io = self.secured_with(source, hop.tls, &hop.host, io).await.map_err(of_proxy)?;
        if target.transport == Transport::Http && !target.tls {
            return Ok(Reached { io, through_proxy: Some(hop.authorization) });
        }
        let io =
            tunnel::open(io, target, hop.authorization.as_ref(), self.proxy.connect_headers(), &*self.clock)
                .await?;
        Ok(Reached { io: self.secured(target.tls, &target.host, io).await?, through_proxy: None })
    }

    async fn secured(&self, tls: bool, host: &str, io: BoxedIo) -> Result<BoxedIo, Failure> {
        self.secured_with(self.tls.clone(), tls, host, io).await
    }

    async fn secured_with(
        &self,
        source: Option<TlsSource>,
        tls: bool,
        host: &str,
        io: BoxedIo,
    ) -> Result<BoxedIo, Failure> {
        if !tls {
            return Ok(io);
        }
        let Some(source) = source else {
            return Err(Failure::new(FailureKind::Local, "no TLS configuration was given to this agent"));
        };
        let name = rustls_pki_types::ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::new(FailureKind::Dns, format!("{host:?} is no host name")))?;
        let connector = TlsConnector::from(source.current().await);
        let failed = |error: io::Error| match io_failure("the TLS handshake failed", &error) {
            // A server that is just starting or stopping does this too.
            Failure { kind: FailureKind::Closed, detail, .. } => Failure::new(
                FailureKind::Closed,
                format!("{detail}; if it always ends here, it may have no TLS"),
            ),
            failure => failure,
        };
        Ok(Box::new(connector.connect(name, io).await.map_err(failed)?))
    }
}

impl Trail {
    pub(crate) fn new(origin: Endpoint) -> Self {
        Self { target: origin.clone(), seen: vec![origin.clone()], origin }
    }

    fn follow(&mut self, refusal: &Refusal, redirects_max: u32) -> Result<(), Failure> {
        let failure = |what: String| Failure::new(FailureKind::Redirect, what);
        let location = refusal.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(location) = location else {
            return Err(failure(format!(
                "the server answered {} without a location",
                refusal.status.as_u16()
            )));
        };
        let target = self.target.redirected(location).map_err(failure)?;
        if self.seen.contains(&target) {
            return Err(failure(format!("redirects lead in circles, back to {target}")));
        }
        if self.seen.len() > redirects_max as usize {
            return Err(failure(format!("more than {redirects_max} redirects, the last one to {target}")));
        }
        self.seen.push(target.clone());
        self.target = target;
        Ok(())
    }

    /// A failure at the end of the trail: behind a redirect it is not the endpoint of the configuration that failed.
    pub(crate) fn told(&self, mut failure: Failure) -> Failure {
        if self.target != self.origin {
            failure.detail = format!("redirected to {}: {}", self.target, failure.detail);
        }
        failure
    }

    /// The next request begins a new count, from where the last one ended.
    pub(crate) fn arrived(&mut self) {
        self.seen = vec![self.target.clone()];
    }
}

impl Refusal {
    /// The failure it means, with the time the server asked for.
    pub(crate) fn failure(&self, clock: &dyn Clock) -> Failure {
        let after = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry::retry_after(value, clock.now().wall));
        let mut failure = Failure::from_status(self.status.as_u16(), after);
        if let Some(text) = self.text() {
            failure.detail = format!("{}: {text}", failure.detail);
        }
        failure
    }

    /// What the server says about it, if that is short text for people.
    fn text(&self) -> Option<String> {
        let plain = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?.starts_with("text/plain");
        let text = std::str::from_utf8(&self.body).ok().map(peer_text)?;
        (plain && !text.is_empty()).then_some(text)
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 307 | 308)
}

/// Connects to the first address of a name that answers; each further one is tried when the ones before take their time.
async fn tcp(host: &str, port: u16) -> Result<BoxedIo, Failure> {
    let unknown = |what: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Dns, format!("the host name {host:?} cannot be resolved: {what}"))
    };
    let addresses: Vec<_> =
        tokio::net::lookup_host((host, port)).await.map_err(|error| unknown(&error))?.collect();
    let mut attempts = FuturesUnordered::new();
    for (number, address) in (0..).zip(addresses) {
        attempts.push(async move {
            if number > 0 {
                tokio::time::sleep(NEXT_ADDRESS_AFTER * number).await;
            }
            TcpStream::connect(address).await
        });
    }
    let mut last = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(stream) => {
                // Messages are small and latency counts; a failure to set this changes nothing else.
                let _ = stream.set_nodelay(true);
                return Ok(Box::new(stream));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| unknown(&"it has no address"), |error| io_failure("cannot connect", &error)))
}
