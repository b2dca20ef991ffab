//! A listener for those who own no HTTP stack.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::core::Core;
use super::peer::PeerInfo;
use super::service::OpampService;
use super::tls::{TlsFailure, TlsSource};
use super::write_deadline::WriteDeadline;
use crate::refusal::RefusalReason;

/// Wait after an accept that failed, so that running out of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections on `listener` and serves OpAMP on them until the server drains.
///
/// Returns once draining began ([`ServerHandle::drain`](crate::ServerHandle::drain)) and every HTTP connection has
/// ended; WebSockets are ended by the drain. Adds what a mounted service cannot do: deadlines for TLS handshakes and
/// slow headers, and for peers that do not take their answers, a bound on concurrent handshakes, classified TLS failures,
/// [`PeerInfo`] for every request.
pub async fn serve(listener: TcpListener, tls: Option<TlsSource>, service: OpampService) {
    let opamp = service.clone();
    serve_with(listener, tls, &opamp, service).await;
}

/// [`serve`] for an application that has more to answer on the same port: every request goes to `service`, which hands
/// to `opamp` what belongs there.
///
/// Bounds, deadlines and the drain are those of `opamp`. An answer whose peer takes none of it for
/// [`ServerSettings::write_timeout`](crate::ServerSettings::write_timeout) is given up with its connection; other than
/// that an answer may take as long as it likes, so how many there are at once is for `service` to bound.
pub async fn serve_with<S, B>(listener: TcpListener, tls: Option<TlsSource>, opamp: &OpampService, service: S)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let core = Arc::clone(&opamp.0);
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
                let http = http(Arc::clone(&core), service.clone(), stream, peer);
                tasks.spawn(async move {
                    http.await;
                    drop(place);
                });
            }
            Some(tls) => {
                let acceptor = TlsAcceptor::from(tls.current());
                let handshake = handshake(Arc::clone(&core), stream, acceptor, Arc::clone(&handshakes));
                let (core, service) = (Arc::clone(&core), service.clone());
                tasks.spawn(async move {
                    match handshake.await {
                        Ok((stream, client_certificate)) => {
                            let peer = PeerInfo { remote_addr, tls: true, client_certificate };
                            http(core, service, stream, peer).await;
                        }
                        Err((reason, detail)) => core.refused(reason, detail, None, Some(remote_addr), None),
                    }
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

/// The TLS handshake: the stream and the client's certificate, or what to say of the failure.
async fn handshake(
    core: Arc<Core>,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
) -> Result<(TlsStream<TcpStream>, Option<Arc<[u8]>>), (RefusalReason, String)> {
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
        Ok(Err(error)) => {
            let failure = TlsFailure::classify(&error);
            let authentication = failure.is_authentication();
            let reason = if authentication { RefusalReason::AuthFailed } else { RefusalReason::Protocol };
            return Err((reason, failure.describe().to_owned()));
        }
        Err(_) => return Err((RefusalReason::Timeout, "TLS handshake took too long".to_owned())),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|chain| chain.first());
    let certificate = certificate.map(|certificate| Arc::from(certificate.as_ref()));
    Ok((stream, certificate))
}

async fn http<S, B, IO>(core: Arc<Core>, service: S, stream: IO, peer: PeerInfo)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Clone + Send,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let with_peer = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().call(request)
    });
    let stream = WriteDeadline::new(stream, core.settings.write_timeout);
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
