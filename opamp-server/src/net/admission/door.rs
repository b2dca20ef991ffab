//! The way in of a listener: at the pace of the server, and while there are places.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use opamp_proto::Mono;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::core::Core;

/// Connections that were accepted and are not let in yet, in the order they came.
///
/// What waits here is a socket and an entry of the queue: no task, no future, no buffer. When the queue is full nothing is
/// accepted, and the listener's backlog holds the rest.
#[derive(Debug)]
pub(crate) struct Door {
    core: Arc<Core>,
    /// Connections that are no WebSocket yet.
    places: Arc<Semaphore>,
    places_max: usize,
    /// Somebody waits for a place, so that whoever has one gives it back with its next answer.
    crowded: Arc<AtomicBool>,
    queue: VecDeque<Waiting>,
    queue_max: usize,
}

#[derive(Debug)]
struct Waiting {
    stream: TcpStream,
    remote_addr: SocketAddr,
    since: Mono,
    /// It could not go in as soon as it came.
    deferred: bool,
}

/// A connection that is let in, and its place among those that are no WebSocket.
pub(crate) type Admitted = (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>);

impl Door {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let places_max = core.settings.http_connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let queue_max = core.settings.accept_queue_max.max(1);
        let places = Arc::new(Semaphore::new(places_max));
        Self { core, places, places_max, crowded: Arc::default(), queue: VecDeque::new(), queue_max }
    }

    /// Whether one more may come to wait.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < self.queue_max && !self.is_full()
    }

    /// Whether as many sockets are open as may. Nothing tells when that is over.
    pub(crate) fn is_full(&self) -> bool {
        let Some(max) = self.core.settings.sockets_max else { return false };
        // One that is being handed over counts twice for a moment.
        let websockets = usize::try_from(self.core.counters.websocket_active()).unwrap_or(usize::MAX);
        let others = self.places_max - self.places.available_permits() + self.queue.len();
        websockets.saturating_add(others) >= max.max(1)
    }

    /// Whether those who were let in should not keep their connections open, from now on.
    pub(crate) fn crowded(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.crowded)
    }

    /// Takes a connection in, to be let through by [`Door::next`].
    pub(crate) fn push(&mut self, stream: TcpStream, remote_addr: SocketAddr) {
        let since = self.core.now().mono;
        // Who goes in at once never meets another one here.
        let deferred = !self.queue.is_empty();
        self.queue.push_back(Waiting { stream, remote_addr, since, deferred });
        self.told(self.queue.len() - 1);
    }

    /// The next connection, once there is a place for it and its turn has come. Never, while nobody waits. Cancel safe.
    pub(crate) async fn next(&mut self) -> Admitted {
        let mut place = None;
        loop {
            self.skip_gone();
            let Some(first) = self.queue.front_mut() else {
                drop(place);
                self.crowded.store(false, Ordering::Relaxed);
                return std::future::pending().await;
            };
            if place.is_none() {
                place = Arc::clone(&self.places).try_acquire_owned().ok();
                self.crowded.store(place.is_none(), Ordering::Relaxed);
            }
            if place.is_none() {
                first.deferred = true;
                // Never closed, so there is always a permit to come. Who waited for it may have gone meanwhile.
                place = Arc::clone(&self.places).acquire_owned().await.ok();
                self.crowded.store(false, Ordering::Relaxed);
                continue;
            }
            let now = self.core.now().mono;
            let wait = {
                let accepts = &self.core.admission.accepts;
                let mut pace = accepts.lock().unwrap_or_else(PoisonError::into_inner);
                if pace.take(now) { Duration::ZERO } else { pace.wait(now).max(Duration::from_millis(1)) }
            };
            if wait.is_zero() {
                let Some(admitted) = self.queue.pop_front() else { continue };
                self.told(self.queue.len() + 1);
                self.shrink();
                let waited = admitted.deferred.then(|| now - admitted.since);
                self.core.admission.counters.admitted(waited);
                return (admitted.stream, admitted.remote_addr, place);
            }
            if let Some(first) = self.queue.front_mut() {
                first.deferred = true;
            }
            // The server's clock need not be the one that this sleeps by, so it is looked at again now and then.
            tokio::time::sleep(wait.min(self.core.settings.sweep_period())).await;
        }
    }

    /// Lets go of those in front whose peers went away: they cost nobody a turn.
    fn skip_gone(&mut self) {
        let before = self.queue.len();
        while let Some(first) = self.queue.front()
            && first.deferred
            && first.is_gone()
        {
            self.queue.pop_front();
            self.core.admission.counters.gone();
        }
        self.told(before);
    }

    /// A storm that is over must not leave its memory behind.
    fn shrink(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
    }

    fn told(&self, before: usize) {
        if before != self.queue.len() {
            self.core.admission.counters.waiting(before, self.queue.len());
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.core.admission.counters.waiting(self.queue.len(), 0);
    }
}

impl Waiting {
    /// Whether the peer has closed its side.
    fn is_gone(&self) -> bool {
        let ready = self.stream.ready(Interest::READABLE).now_or_never();
        ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}
