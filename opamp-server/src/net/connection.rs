//! One WebSocket, as the rest of the server sees it: an identity, a mailbox, and when it was last heard.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opamp_proto::{InstanceUid, Mono};
use tokio::sync::Notify;

use super::directory::Slot;
use super::duplicates::Verdict;
use super::presented::Presented;
use super::settings::ServerSettings;
use crate::refusal::CloseCode;
use crate::snapshot::{ConnectionInfo, DisconnectReason};

const NEVER: u64 = u64::MAX;
/// A frame may have waited in the buffers of a connection whose other end is gone already. Its end is noticed within this
/// time.
const END_NOTICED: Duration = Duration::from_millis(100);

/// A live WebSocket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) info: Arc<ConnectionInfo>,
    pub(crate) presented: Presented,
    mailbox: Mutex<Orders>,
    mail: Notify,
    /// Fired to end a write that takes too long.
    abort: Notify,
    aborted: AtomicBool,
    opened: Mono,
    last_heard: AtomicU64,
    last_ping: AtomicU64,
    writing_since: AtomicU64,
    agents: AtomicUsize,
    /// It had several agents at a time once: a gateway.
    shared: AtomicBool,
    /// When the socket last had no agent on it, as long as it has none.
    empty_since: AtomicU64,
    /// Fired when a frame arrives while somebody waits for that, and when the connection ends.
    sign: Notify,
    awaited: AtomicUsize,
    ended: AtomicBool,
}

/// What the connection's task is to do; coalesced until it gets there.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Agents with something to send.
    pub(crate) wake: Vec<Arc<Slot>>,
    /// Agents another connection has taken over.
    pub(crate) released: Vec<InstanceUid>,
    /// What became of newcomers whose messages wait.
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) ping: bool,
    pub(crate) close: Option<(CloseCode, DisconnectReason)>,
}

/// Somebody waits for a frame, until this is dropped.
struct Awaiting<'a>(&'a AtomicUsize);

impl<'a> Awaiting<'a> {
    fn new(awaited: &'a AtomicUsize) -> Self {
        awaited.fetch_add(1, Ordering::AcqRel);
        Self(awaited)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection {
    pub(crate) fn new(info: Arc<ConnectionInfo>, presented: Presented, now: Mono) -> Self {
        Self {
            info,
            presented,
            mailbox: Mutex::default(),
            mail: Notify::new(),
            abort: Notify::new(),
            aborted: AtomicBool::new(false),
            opened: now,
            last_heard: AtomicU64::new(now.0),
            last_ping: AtomicU64::new(now.0),
            writing_since: AtomicU64::new(NEVER),
            agents: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            empty_since: AtomicU64::new(now.0),
            sign: Notify::new(),
            awaited: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.info.id
    }

    pub(crate) fn opened(&self) -> Mono {
        self.opened
    }

    /// Has the task send what is due to this agent. The caller sees to it that an agent waits at most once.
    pub(crate) fn wake(&self, slot: &Arc<Slot>) {
        self.order(|orders| orders.wake.push(Arc::clone(slot)));
    }

    /// Tells the task that another connection took this agent over.
    pub(crate) fn release(&self, uid: InstanceUid) {
        self.order(|orders| orders.released.push(uid));
    }

    /// Tells the task whose identity it is that messages wait for.
    pub(crate) fn tell(&self, verdict: Verdict) {
        self.order(|orders| orders.verdicts.push(verdict));
    }

    /// Pings, and waits for any frame: whether one came in time and the connection did not end right behind it.
    pub(crate) async fn is_alive(&self, timeout: Duration) -> bool {
        let _awaiting = Awaiting::new(&self.awaited);
        let mut sign = std::pin::pin!(self.sign.notified());
        sign.as_mut().enable();
        if self.ended.load(Ordering::Acquire) {
            return false;
        }
        self.order(|orders| orders.ping = true);
        if tokio::time::timeout(timeout, sign).await.is_err() {
            return false;
        }
        let mut end = std::pin::pin!(self.sign.notified());
        end.as_mut().enable();
        let grace = tokio::time::sleep(END_NOTICED.min(timeout));
        tokio::pin!(grace);
        loop {
            if self.ended.load(Ordering::Acquire) {
                return false;
            }
            tokio::select! {
                () = &mut grace => return !self.ended.load(Ordering::Acquire),
                () = &mut end => end.set(self.sign.notified()),
            }
        }
    }

    /// A frame of the peer arrived.
    pub(crate) fn frame_arrived(&self, now: Mono) {
        self.heard(now);
        if self.awaited.load(Ordering::Acquire) > 0 {
            self.sign.notify_waiters();
        }
    }

    /// Nothing comes from this connection any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.sign.notify_waiters();
    }

    /// Has the task close; the first reason stands.
    pub(crate) fn close(&self, code: CloseCode, reason: DisconnectReason) {
        self.order(|orders| {
            orders.close.get_or_insert((code, reason));
        });
    }

    /// Waits until there are orders. Cancel safe.
    pub(crate) async fn ordered(&self) {
        self.mail.notified().await;
    }

    pub(crate) fn take_orders(&self) -> Orders {
        std::mem::take(&mut *self.mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the current write is to be given up.
    pub(crate) async fn write_aborted(&self) {
        while !self.aborted.load(Ordering::Acquire) {
            self.abort.notified().await;
        }
    }

    pub(crate) fn heard(&self, now: Mono) {
        self.last_heard.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn writing(&self, since: Option<Mono>) {
        self.writing_since.store(since.map_or(NEVER, |since| since.0), Ordering::Relaxed);
    }

    pub(crate) fn set_agents(&self, agents: usize, now: Mono) {
        self.agents.store(agents, Ordering::Relaxed);
        if agents > 1 {
            self.shared.store(true, Ordering::Relaxed);
        }
        self.empty_since.store(now.0, Ordering::Relaxed);
    }

    /// Whether its peer speaks for several agents, so that it lives although one of them may not.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Looks at the deadlines: orders a ping, ends a blocked write, closes a silent socket.
    pub(crate) fn sweep(&self, now: Mono, settings: &ServerSettings) {
        let waited = |since: &AtomicU64| now - Mono(since.load(Ordering::Relaxed));
        let writing_since = self.writing_since.load(Ordering::Relaxed);
        if writing_since != NEVER && now - Mono(writing_since) >= settings.write_timeout {
            self.aborted.store(true, Ordering::Release);
            self.abort.notify_one();
            return;
        }
        let agents = self.agents.load(Ordering::Relaxed);
        let silent = waited(&self.last_heard) >= settings.read_timeout;
        // Pongs alone do not keep a socket that carries no agent.
        let idle = agents == 0 && waited(&self.empty_since) >= settings.first_message_timeout;
        // What is heard of one agent says nothing about the others behind the same socket; alone it does.
        // The next look comes a sweep later; a pong that came just after this one's ping must not put it off by another.
        let quiet = settings.ping_interval.saturating_sub(settings.sweep_period());
        let unheard = agents > 1 || waited(&self.last_heard) >= quiet;
        if silent || idle {
            self.close(CloseCode::Policy, DisconnectReason::Timeout);
        } else if unheard && waited(&self.last_ping) >= settings.ping_interval {
            self.last_ping.store(now.0, Ordering::Relaxed);
            self.order(|orders| orders.ping = true);
        }
    }

    fn order(&self, write: impl FnOnce(&mut Orders)) {
        write(&mut self.mailbox.lock().unwrap_or_else(PoisonError::into_inner));
        self.mail.notify_one();
    }
}
