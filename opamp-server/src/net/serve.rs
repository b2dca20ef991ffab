//! A listener for those who own no HTTP stack.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::admission::door::Door;
use super::admission::stats::{AdmissionStage, SlowPeer};
use super::core::Core;
use super::peer::PeerInfo;
use super::service::OpampService;
use super::tls::{TlsSource, handshake};
use super::write_deadline::{NoRoom, WriteDeadline};
use crate::refusal::RefusalReason;

/// Wait after an accept that failed, so that running out of file descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Wait until it is looked again whether a socket may be opened, if there were as many as may.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Failures to accept come many at a time: they are logged no more often than this.
const ACCEPT_FAILURES_TOLD: Duration = Duration::from_secs(10);

/// Accepts connections on `listener` and serves OpAMP on them until the server drains.
///
/// Returns once draining began ([`ServerHandle::drain`](crate::ServerHandle::drain)) and every HTTP connection has
/// ended; WebSockets are ended by the drain. Adds what a mounted service cannot do: a pace at which connections are let in
/// ([`ServerSettings::accept_rate`](crate::ServerSettings::accept_rate)), deadlines for TLS handshakes and slow headers, and
/// for peers that do not take their answers, a bound on concurrent handshakes, classified TLS failures, [`PeerInfo`] for
/// every request.
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
    let handshakes = core.settings.handshakes_max.clamp(1, Semaphore::MAX_PERMITS);
    let handshakes = Arc::new(Semaphore::new(handshakes));
    let mut door = Door::new(Arc::clone(&core));
    let mut failures = AcceptFailures::default();
    let crowded = door.crowded();
    let tasks = TaskTracker::new();
    loop {
        let (stream, remote_addr, place) = tokio::select! {
            biased;
            () = core.draining.cancelled() => break,
            admitted = door.next() => admitted,
            () = failures.pause() => continue,
            () = tokio::time::sleep(FULL_PAUSE), if door.is_full() => continue,
            accepted = listener.accept(), if door.has_room() && !failures.is_paused() => {
                match accepted {
                    Ok((stream, remote_addr)) => door.push(stream, remote_addr),
                    Err(error) => failures.note(&core, &error),
                }
                continue;
            }
        };
        // Messages are small and latency counts; a failure to set this changes nothing else.
        let _ = stream.set_nodelay(true);
        let (core, service, crowded) = (Arc::clone(&core), service.clone(), Arc::clone(&crowded));
        match &tls {
            None => {
                let peer = PeerInfo { remote_addr, tls: false, client_certificate: None };
                tasks.spawn(async move {
                    if has_begun(&core, &stream, remote_addr).await {
                        // On the heap, so that who says nothing costs little.
                        Box::pin(http(core, service, stream, peer, crowded)).await;
                    }
                    drop(place);
                });
            }
            Some(tls) => {
                let handshake = handshake(Arc::clone(&core), stream, tls.current(), Arc::clone(&handshakes));
                tasks.spawn(async move {
                    let shaken = tokio::select! {
                        shaken = handshake => Some(shaken),
                        () = core.draining.cancelled() => None,
                    };
                    match shaken {
                        Some(Ok((stream, client_certificate))) => {
                            let peer = PeerInfo { remote_addr, tls: true, client_certificate };
                            Box::pin(http(core, service, stream, peer, crowded)).await;
                        }
                        Some(Err((reason, detail))) => handshake_failed(&core, reason, detail, remote_addr),
                        None => {}
                    }
                    drop(place);
                });
            }
        }
    }
    drop((listener, door));
    tasks.close();
    tasks.wait().await;
}

/// Waits for the first byte of a connection; false if none comes in time, or is going to come.
async fn has_begun(core: &Core, stream: &TcpStream, remote_addr: SocketAddr) -> bool {
    let mut byte = [0];
    let begun = tokio::select! {
        // That it is readable would not do: a new socket is taken to be until the first look.
        begun = tokio::time::timeout(core.settings.handshake_timeout, stream.peek(&mut byte)) => begun,
        () = core.draining.cancelled() => return false,
    };
    if begun.is_err() {
        let detail = "nothing was sent in time".to_owned();
        handshake_failed(core, RefusalReason::Timeout, detail, remote_addr);
    }
    matches!(begun, Ok(Ok(1..)))
}

fn handshake_failed(core: &Core, reason: RefusalReason, detail: String, remote_addr: SocketAddr) {
    let counters = &core.admission.counters;
    counters.rejected(AdmissionStage::Handshake);
    if reason == RefusalReason::Timeout {
        counters.slow(SlowPeer::Handshake);
    }
    core.refused(reason, detail, None, Some(remote_addr), None);
}

/// What went wrong with accepting, and until when nothing is accepted for it.
#[derive(Debug, Default)]
struct AcceptFailures {
    until: Option<Instant>,
    untold: u64,
    told: Option<Instant>,
}

impl AcceptFailures {
    fn note(&mut self, core: &Core, error: &std::io::Error) {
        if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
            return; // of the one connection, which is gone
        }
        let now = Instant::now();
        core.admission.counters.accept_failed();
        self.until = Some(now + ACCEPT_PAUSE);
        self.untold += 1;
        if self.told.is_none_or(|told| now - told >= ACCEPT_FAILURES_TOLD) {
            let failures = std::mem::take(&mut self.untold);
            tracing::warn!(%error, failures, "connections cannot be accepted; raise the limit of open files if it is that");
            self.told = Some(now);
        }
    }

    fn is_paused(&self) -> bool {
        self.until.is_some()
    }

    /// Ends the pause when it is over. Never, if there is none.
    async fn pause(&mut self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.until = None;
    }
}

/// Serves one connection to its end. While the door is `crowded` it ends with the next answer.
async fn http<S, B, IO>(core: Arc<Core>, service: S, stream: IO, peer: PeerInfo, crowded: Arc<AtomicBool>)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Clone + Send,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let remote_addr = peer.remote_addr;
    let served = &AtomicBool::new(false);
    let no_room = NoRoom::default();
    let (told, crowded) = (&no_room, &*crowded);
    let with_peer = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        served.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        let answer = service.clone().call(request);
        async move {
            let mut answer = answer.await;
            // If there was none for its body, the answer says so, and whoever gave it has counted it.
            told.answered();
            if let Ok(answer) = &mut answer
                && answer.status() != StatusCode::SWITCHING_PROTOCOLS
                && crowded.load(Ordering::Relaxed)
            {
                // Who polls often enough would keep its place for ever, and those at the door out.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    });
    let stream = WriteDeadline::new(stream, core.settings.write_timeout, no_room.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(core.settings.header_read_timeout)
        .max_buf_size(core.settings.http_buffer_bytes.max(HTTP_BUFFER_MIN))
        .serve_connection(TokioIo::new(stream), with_peer)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = core.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(core.settings.close_timeout, connection).await;
            return;
        }
    };
    if no_room.is_unanswered() {
        // For the head of a request: nobody has been asked yet, and nobody can be answered.
        core.admission.counters.rejected(AdmissionStage::Memory);
        core.refused(RefusalReason::Unavailable, "no room".to_owned(), None, Some(remote_addr), None);
        return;
    }
    // What else went wrong on one connection is the peer's affair; what was refused is counted where it was.
    let Err(error) = ended else { return };
    let slow = if takes_nothing(&error) {
        Some((SlowPeer::Write, "the answer was not taken in time"))
    } else {
        // A connection that rests between two requests may end like that; one that has had none was too slow.
        let headers = error.is_timeout() && !served.load(Ordering::Relaxed);
        headers.then_some((SlowPeer::Headers, "the request headers did not arrive in time"))
    };
    if let Some((slow, detail)) = slow {
        core.admission.counters.slow(slow);
        core.refused(RefusalReason::Timeout, detail.to_owned(), None, Some(remote_addr), None);
    }
}

/// The least that hyper does with.
const HTTP_BUFFER_MIN: usize = 8 << 10;

/// Whether it is the failure of [`WriteDeadline`]. Who has been answered and does not close took what there was.
fn takes_nothing(error: &hyper::Error) -> bool {
    if error.is_shutdown() {
        return false;
    }
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == ErrorKind::TimedOut)
}
