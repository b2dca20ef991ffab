//! The admin port: accepts, TLS, one task per connection, bounded everywhere.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use crate::reload::AdminTls;

/// Connections served at once; further ones wait in the backlog of the operating system.
const CONNECTIONS_MAX: usize = 512;

/// After a failed accept (no file descriptors, usually) nothing is gained by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// While accepting fails, it is told this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: bool,
}

/// What the port needs.
pub(crate) struct AdminPort {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<AdminTls>,
    pub(crate) router: Router,
    /// Time for the TLS handshake, and for the headers of a request.
    pub(crate) request_timeout: Duration,
}

impl AdminPort {
    /// Serves until `stop`, then lets the requests in flight finish.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        let (mut failures, mut told) = (0_u64, None::<Instant>);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &permits) => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, addr, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    failures += 1;
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        tracing::warn!(%error, failures, "admin port: accept failed");
                        (failures, told) = (0, Some(Instant::now()));
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = Connection {
                peer: Peer { addr, tls: self.tls.is_some() },
                router: self.router.clone(),
                header_timeout: self.request_timeout,
                stop: stop.clone(),
                _permit: permit,
            };
            match self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current())) {
                None => connections.spawn(connection.run(stream)),
                Some(acceptor) => connections.spawn(async move {
                    match timeout(connection.header_timeout, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => connection.run(stream).await,
                        Ok(Err(error)) => tracing::debug!(%addr, %error, "admin port: TLS handshake failed"),
                        Err(_) => tracing::debug!(%addr, "admin port: TLS handshake took too long"),
                    }
                }),
            };
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, addr) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, addr, permit))
}

struct Connection {
    peer: Peer,
    router: Router,
    header_timeout: Duration,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let (peer, router) = (self.peer, self.router);
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.clone().call(request)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = self.stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(addr = %peer.addr, %error, "admin port: connection ended");
        }
    }
}
