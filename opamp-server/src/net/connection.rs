//! One WebSocket, as the rest of the server sees it: an identity, a mailbox, and when it was last heard.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;
use opamp_proto::{InstanceUid, Mono};
use tokio::sync::Notify;

use super::admission::stats::SlowPeer;
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
    /// There are orders in the mailbox.
    mail: AtomicBool,
    /// The task, which alone waits for them.
    reader: AtomicWaker,
    /// Fired to end a write that takes too long.
    abort: Notify,
    aborted: AtomicBool,
    opened: Mono,
    last_heard: AtomicU64,
    last_ping: AtomicU64,
    writing_since: AtomicU64,
    /// Since when a part of a message is held whose rest is to come.
    receiving_since: AtomicU64,
    agents: AtomicUsize,
    /// It had several agents at a time once: a gateway.
    shared: AtomicBool,
    /// When the socket last had no agent on it, as long as it has none.
    empty_since: AtomicU64,
    /// Fired when a frame arrives while somebody waits for that, and when the connection ends.
    sign: Notify,
    awaited: AtomicUsize,
    ended: AtomicBool,
    /// Its task was told to close.
    closing: AtomicBool,
}

/// What the connection's task is to do; coalesced until it gets there.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Agents with something to send.
    pub(crate) wake: Wakes,
    /// Agents another connection has taken over.
    pub(crate) released: Vec<InstanceUid>,
    /// What became of newcomers whose messages wait.
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) ping: bool,
    pub(crate) close: Option<(CloseCode, DisconnectReason)>,
}

/// Agents of a connection: mostly the one it has.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    pub(crate) first: Option<Arc<Slot>>,
    pub(crate) others: Vec<Arc<Slot>>,
}

impl Wakes {
    fn push(&mut self, slot: Arc<Slot>) {
        match &self.first {
            None => self.first = Some(slot),
            Some(_) => self.others.push(slot),
        }
    }
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
            mail: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            abort: Notify::new(),
            aborted: AtomicBool::new(false),
            opened: now,
            last_heard: AtomicU64::new(now.0),
            last_ping: AtomicU64::new(now.0),
            writing_since: AtomicU64::new(NEVER),
            receiving_since: AtomicU64::new(NEVER),
            agents: AtomicUsize::new(0),
            shared: AtomicBool::new(false),
            empty_since: AtomicU64::new(now.0),
            sign: Notify::new(),
            awaited: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            closing: AtomicBool::new(false),
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

    /// Has the task close; the first reason stands. Whether this was the first.
    pub(crate) fn close(&self, code: CloseCode, reason: DisconnectReason) -> bool {
        !self.closing.swap(true, Ordering::AcqRel) && {
            self.order(|orders| orders.close = Some((code, reason)));
            true
        }
    }

    /// Waits until there are orders. Cancel safe. For one at a time: the connection's task.
    pub(crate) fn ordered(&self) -> impl Future<Output = ()> + '_ {
        // Looked at with every message, so it is a flag and not a list of those who wait.
        let has_mail = || self.mail.load(Ordering::Relaxed) && self.mail.swap(false, Ordering::AcqRel);
        poll_fn(move |context| {
            if has_mail() {
                return Poll::Ready(());
            }
            self.reader.register(context.waker());
            // It may have come before the waker was there.
            if has_mail() { Poll::Ready(()) } else { Poll::Pending }
        })
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

    /// The beginning of a message is there and the rest is not, or (`None`) nothing is held any more. A message has to become
    /// whole within the same time as the body of a request, counted from the first time this was told.
    pub(crate) fn receiving(&self, since: Option<Mono>) {
        match since {
            Some(since) => {
                let relaxed = Ordering::Relaxed;
                let _ = self.receiving_since.compare_exchange(NEVER, since.0, relaxed, relaxed);
            }
            None => self.receiving_since.store(NEVER, Ordering::Relaxed),
        }
    }

    /// How many agents speak through it from now on. Whether they are several where it was one, so that pings go by another
    /// rule and it has to be looked at earlier than [`Connection::next_look`] said.
    pub(crate) fn set_agents(&self, agents: usize, now: Mono) -> bool {
        let before = self.agents.swap(agents, Ordering::Relaxed);
        if agents > 1 {
            self.shared.store(true, Ordering::Relaxed);
        }
        self.empty_since.store(now.0, Ordering::Relaxed);
        agents > 1 && before <= 1
    }

    /// Whether its peer speaks for several agents, so that it lives although one of them may not.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Looks at the deadlines: orders a ping, ends a blocked write, closes a silent socket. What was too slow, once.
    pub(crate) fn sweep(&self, now: Mono, settings: &ServerSettings) -> Option<SlowPeer> {
        let waited = |since: &AtomicU64| now - Mono(since.load(Ordering::Relaxed));
        let expired = |since: &AtomicU64, limit| {
            let since = since.load(Ordering::Relaxed);
            since != NEVER && now - Mono(since) >= limit
        };
        if expired(&self.writing_since, settings.write_timeout) {
            let first = !self.aborted.swap(true, Ordering::AcqRel);
            self.abort.notify_one();
            return first.then_some(SlowPeer::Write);
        }
        let agents = self.agents.load(Ordering::Relaxed);
        // What is heard of one agent says nothing about the others behind the same socket; alone it does.
        // The next look comes a sweep later; a pong that came just after this one's ping must not put it off by another.
        let quiet = settings.ping_interval.saturating_sub(settings.sweep_period());
        let unheard = agents > 1 || waited(&self.last_heard) >= quiet;
        let slow = if agents == 0 && waited(&self.empty_since) >= settings.first_message_timeout {
            // Pongs alone do not keep a socket that carries no agent.
            Some(SlowPeer::FirstMessage)
        } else if expired(&self.receiving_since, settings.body_timeout) {
            Some(SlowPeer::Message)
        } else if waited(&self.last_heard) >= settings.read_timeout {
            Some(SlowPeer::Silent)
        } else {
            None
        };
        if let Some(slow) = slow {
            return self.close(CloseCode::Policy, DisconnectReason::Timeout).then_some(slow);
        }
        if unheard && waited(&self.last_ping) >= settings.ping_interval {
            self.last_ping.store(now.0, Ordering::Relaxed);
            self.order(|orders| orders.ping = true);
        }
        None
    }

    /// Until when [`Connection::sweep`] has nothing to do, whatever begins meanwhile; but see [`Connection::set_agents`].
    pub(crate) fn next_look(&self, now: Mono, settings: &ServerSettings) -> Mono {
        let load = |since: &AtomicU64| Mono(since.load(Ordering::Relaxed));
        let began = |since: &AtomicU64, limit| {
            let since = load(since);
            (since.0 != NEVER).then(|| since + limit)
        };
        // Of what begins after this look.
        let begins = settings.write_timeout.min(settings.body_timeout).min(settings.first_message_timeout);
        let agents = self.agents.load(Ordering::Relaxed);
        let (heard, pinged) = (load(&self.last_heard), load(&self.last_ping) + settings.ping_interval);
        let quiet = settings.ping_interval.saturating_sub(settings.sweep_period());
        let ping = if agents > 1 { pinged } else { pinged.max(heard + quiet) };
        let deadlines = [
            Some(now + begins),
            Some(ping),
            Some(heard + settings.read_timeout),
            began(&self.writing_since, settings.write_timeout),
            began(&self.receiving_since, settings.body_timeout),
            (agents == 0).then(|| load(&self.empty_since) + settings.first_message_timeout),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(now)
    }

    fn order(&self, write: impl FnOnce(&mut Orders)) {
        write(&mut self.mailbox.lock().unwrap_or_else(PoisonError::into_inner));
        self.mail.store(true, Ordering::Release);
        self.reader.wake();
    }
}
