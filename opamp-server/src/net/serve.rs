//! A listener for those who own no HTTP stack.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::core::Core;
use super::peer::PeerInfo;
use super::service::OpampService;
use super::tls::{TlsFailure, TlsSource};
use crate::refusal::RefusalReason;

/// Wait after an accept that failed, so that running out of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections on `listener` and serves OpAMP on them until the server drains.
///
/// Returns once draining began ([`ServerHandle::drain`](crate::ServerHandle::drain)) and every HTTP connection has
/// ended; WebSockets are ended by the drain. Adds what a mounted service cannot do: deadlines for TLS handshakes and
/// slow headers, a bound on concurrent handshakes, classified TLS failures, [`PeerInfo`] for every request.
pub async fn serve(listener: TcpListener, tls: Option<TlsSource>, service: OpampService) {
    let core = Arc::clone(&service.0);
    let handshakes = semaphore(core.settings.handshakes_max);
    let places = semaphore(core.settings.http_connections_max);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.draining.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, remote_addr, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Messages are small and latency counts; a failure to set this changes nothing else.
        let _ = stream.set_nodelay(true);
        match &tls {
            None => {
                let peer = PeerInfo { remote_addr, tls: false, client_certificate: None };
                let http = http(service.clone(), stream, peer);
                tasks.spawn(async move {
                    http.await;
                    drop(place);
                });
            }
            Some(tls) => {
                let acceptor = TlsAcceptor::from(tls.current());
                let https = https(service.clone(), stream, remote_addr, acceptor, Arc::clone(&handshakes));
                tasks.spawn(async move {
                    https.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, Option<OwnedSemaphorePermit>)> {
    // Never closed, so there is always a permit to come.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let (stream, remote_addr) = listener.accept().await?;
    Ok((stream, remote_addr, place))
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)))
}

async fn https(
    service: OpampService,
    stream: TcpStream,
    remote_addr: SocketAddr,
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
) {
    let core = Arc::clone(&service.0);
    let handshake = async {
        // Who sends nothing must not keep others from their handshakes.
        stream.peek(&mut [0]).await?;
        let permit = handshakes.acquire().await;
        let stream = acceptor.accept(stream).await;
        drop(permit);
        stream
    };
    let stream = match tokio::time::timeout(core.settings.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tls_failed(&core, TlsFailure::classify(&error), remote_addr),
        Err(_) => {
            let detail = "TLS handshake took too long".to_owned();
            return core.refused(RefusalReason::Timeout, detail, None, Some(remote_addr), None);
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let client_certificate =
        certificates.and_then(|chain| chain.first()).map(|certificate| Arc::from(certificate.as_ref()));
    http(service, stream, PeerInfo { remote_addr, tls: true, client_certificate }).await;
}

async fn http<S>(service: OpampService, stream: S, peer: PeerInfo)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let core = Arc::clone(&service.0);
    let with_peer = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(core.settings.header_read_timeout)
        .serve_connection(TokioIo::new(stream), with_peer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What went wrong on one connection is the peer's affair; what was refused is counted where it was.
        _ = connection.as_mut() => return,
        () = core.draining.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(core.settings.close_timeout, connection).await;
}

fn tls_failed(core: &Core, failure: TlsFailure, remote_addr: SocketAddr) {
    let reason =
        if failure.is_authentication() { RefusalReason::AuthFailed } else { RefusalReason::Protocol };
    core.refused(reason, failure.describe().to_owned(), None, Some(remote_addr), None);
}
