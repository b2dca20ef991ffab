//! What leaves the server: one queue of agents that changed, coalescing, one of refusals, folding, and one
//! of custom messages, bounded.
//!
//! That something was offered is told with what the agent says to it, or after half a second: a fleet that is offered
//! something is told of once and not twice.
//!
//! An agent is in the queue at most once, so the queue is bounded by the number of agents and nothing is lost
//! however slow the reader is: it reads the state as it is when it gets there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opamp_proto::{InstanceUid, Wall};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::directory::Slot;
use super::settings::ServerSettings;
use crate::custom::CustomMessage;
use crate::refusal::RefusalReason;
use crate::snapshot::{AgentChange, Principal, Transport};

/// How long the news that something was offered may wait for the agent's answer.
const OFFERS_WAIT: Duration = Duration::from_millis(500);

/// Something the application may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// An agent changed. Changes of one agent that were not taken yet are merged.
    Agent(Box<AgentChange>),
    /// An agent sent a custom message of a capability this server announces. A change of that agent's identity is
    /// told before it.
    Custom(Box<ReceivedCustom>),
    /// Something was refused.
    Refused(Refusal),
}

/// A custom message of an agent. Each is told once (R-CUST-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedCustom {
    /// The agent, by the identity the events before this one told of.
    pub uid: InstanceUid,
    /// Who authenticated its connection.
    pub principal: Principal,
    /// When it came.
    pub at: Wall,
    /// The message.
    pub message: CustomMessage,
    /// Messages before this one, of whatever agent, that were dropped because nobody took them in time.
    pub dropped: u64,
}

/// One refusal, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: Wall,
    /// Why: the word that metrics use too.
    pub reason: RefusalReason,
    /// What exactly was wrong; no secret.
    pub detail: String,
    /// Whose credentials were presented, if that is known.
    pub principal: Option<String>,
    /// Where it came from, if the transport told.
    pub remote_addr: Option<SocketAddr>,
    /// On which transport, if it got that far.
    pub transport: Option<Transport>,
    /// Refusals before this one that were dropped because nobody took them in time.
    pub folded: u64,
}

/// The events of a server, for one reader.
#[derive(Debug)]
pub struct Events(pub(crate) Arc<ChangeQueue>);

impl Events {
    /// The next event; waits for one, and ends when the server has drained and everything is told.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let queue = Arc::clone(&self.0);
        loop {
            let notified = queue.notify.notified();
            // Asked first: what is queued before the end is still told.
            let closed = queue.lock().closed;
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if closed {
                return None;
            }
            let due = queue.lock().later.front().map(|(since, _)| *since + OFFERS_WAIT);
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, notified).await),
                None => notified.await,
            }
        }
    }

    /// Waits for something that should be taken at once by a reader that lets events gather: an agent uses another identity
    /// (R-ID-11). Cancel safe. What was hurried before it is called counts.
    pub async fn hurried(&self) {
        self.0.hurry.notified().await;
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            // The queue is not locked while a slot is.
            let queued = self.0.lock().next()?;
            match queued {
                Queued::Agent(slot) => {
                    if let Some(change) = slot.take_change() {
                        return Some(Event::Agent(Box::new(change)));
                    }
                }
                Queued::Custom(slot, custom) => return Some(self.introduce(&slot, custom)),
                Queued::Ready(custom) => return Some(Event::Custom(custom)),
                Queued::Refused(refusal) => return Some(Event::Refused(refusal)),
            }
        }
    }
}

impl Events {
    /// A custom message goes behind a change of its agent's identity, so that the reader knows the one it comes under
    /// (R-ID-11). The agent stays queued: what is told here is not told again.
    fn introduce(&self, slot: &Slot, mut custom: Box<ReceivedCustom>) -> Event {
        let mut inner = slot.lock();
        custom.uid = inner.session.uid();
        let change = if inner.session.has_moved() { inner.session.take_change() } else { None };
        drop(inner);
        match change {
            Some(change) => {
                self.0.lock().ready = Some(custom);
                Event::Agent(Box::new(change))
            }
            None => Event::Custom(custom),
        }
    }
}

/// The queue behind [`Events`].
#[derive(Debug)]
pub(crate) struct ChangeQueue {
    inner: Mutex<Queue>,
    notify: Notify,
    hurry: Notify,
    refusals_kept: usize,
    custom_kept: usize,
    custom_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    agents: VecDeque<Arc<Slot>>,
    /// Agents that were offered something, and since when that waits to be told.
    later: VecDeque<(Instant, Arc<Slot>)>,
    refusals: VecDeque<Refusal>,
    custom: VecDeque<(Arc<Slot>, Box<ReceivedCustom>)>,
    /// One whose agent was just told of: it is next, whoever's turn it is.
    ready: Option<Box<ReceivedCustom>>,
    custom_bytes: usize,
    custom_dropped: u64,
    /// Whose turn it is, of the four.
    turn: u8,
    folded: u64,
    closed: bool,
}

enum Queued {
    Agent(Arc<Slot>),
    Custom(Arc<Slot>, Box<ReceivedCustom>),
    Ready(Box<ReceivedCustom>),
    Refused(Refusal),
}

impl Queue {
    /// What is next: the kinds in turn, so that a flood of one does not starve the others.
    fn next(&mut self) -> Option<Queued> {
        if let Some(ready) = self.ready.take() {
            return Some(Queued::Ready(ready));
        }
        for _ in 0..4 {
            self.turn = (self.turn + 1) % 4;
            let next = match self.turn {
                0 => self.agents.pop_front().map(Queued::Agent),
                1 => self.refusals.pop_front().map(Queued::Refused),
                2 => self.next_later(),
                _ => self.custom.pop_front().map(|(slot, custom)| {
                    self.custom_bytes -= custom.message.len_bytes();
                    Queued::Custom(slot, custom)
                }),
            };
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// An agent whose offer has waited long enough; all of them at the end.
    fn next_later(&mut self) -> Option<Queued> {
        let (since, _) = self.later.front()?;
        if !self.closed && since.elapsed() < OFFERS_WAIT {
            return None;
        }
        let (_, slot) = self.later.pop_front()?;
        slot.set_told_later(false);
        Some(Queued::Agent(slot))
    }
}

impl ChangeQueue {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        Self {
            inner: Mutex::default(),
            notify: Notify::new(),
            hurry: Notify::new(),
            refusals_kept: settings.refusals_kept,
            custom_kept: settings.custom_events_kept,
            custom_bytes_max: settings.custom_events_bytes_max,
        }
    }

    /// Queues a custom message; false if it was dropped because too many wait.
    pub(crate) fn custom(&self, slot: &Arc<Slot>, mut received: ReceivedCustom) -> bool {
        let mut queue = self.lock();
        let bytes = queue.custom_bytes + received.message.len_bytes();
        if queue.custom.len() >= self.custom_kept || bytes > self.custom_bytes_max {
            queue.custom_dropped += 1;
            return false;
        }
        received.dropped = std::mem::take(&mut queue.custom_dropped);
        queue.custom_bytes = bytes;
        queue.custom.push_back((Arc::clone(slot), Box::new(received)));
        drop(queue);
        self.notify.notify_one();
        true
    }

    /// Queues an agent that is not queued yet; see [`Slot::mark_queued`].
    pub(crate) fn agent(&self, slot: &Arc<Slot>) {
        if slot.mark_queued() {
            self.lock().agents.push_back(Arc::clone(slot));
            self.notify.notify_one();
        }
    }

    /// Queues an agent of which nothing is new but that it was offered something.
    pub(crate) fn offered(&self, slot: &Arc<Slot>) {
        if slot.is_queued() || slot.set_told_later(true) {
            return;
        }
        let mut queue = self.lock();
        queue.later.push_back((Instant::now(), Arc::clone(slot)));
        let first = queue.later.len() == 1;
        drop(queue);
        if first {
            self.notify.notify_one(); // somebody has to look at the clock
        }
    }

    /// The reader is not to wait any longer.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(crate) fn refused(&self, mut refusal: Refusal) {
        let mut queue = self.lock();
        if queue.refusals.len() >= self.refusals_kept {
            queue.folded += 1;
            return;
        }
        refusal.folded = std::mem::take(&mut queue.folded);
        queue.refusals.push_back(refusal);
        drop(queue);
        self.notify.notify_one();
    }

    /// Lets the reader end once it has taken everything.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.notify.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::{AgentCapabilities, AgentMessage, Limits, Mono, Now, pb};
    use prost::Message as _;

    use super::*;
    use crate::desired::{Desired, RemoteConfigOffer};
    use crate::session::{Input, Outbox, Session};
    use crate::snapshot::{ChangedFacts, ConnectionInfo};

    const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };

    /// An agent of which everything was told, and that was offered something since.
    fn offered(settings: &ServerSettings) -> Arc<Slot> {
        let uid = InstanceUid::from_bytes([7; 16]);
        let (mut out, mut session) =
            (Outbox::new(settings.session.clone()), Session::new(uid, &settings.session, NOW));
        let (transport, principal) = (Transport::WebSocket, Principal::anonymous());
        let connection =
            ConnectionInfo { id: 1, transport, remote_addr: None, principal, connected_at: Wall(0) };
        session.handle(Input::Attached(Arc::new(connection)), NOW, &mut out).unwrap();
        let capabilities =
            AgentCapabilities::REPORTS_STATUS.bits() | AgentCapabilities::ACCEPTS_REMOTE_CONFIG.bits();
        let first = pb::AgentToServer {
            instance_uid: uid.as_bytes().to_vec().into(),
            sequence_num: 1,
            capabilities,
            ..Default::default()
        };
        let bytes = first.encode_to_vec();
        let message = AgentMessage::decode(&bytes, &Limits::default()).unwrap();
        session.handle(Input::Message { message: &message, assign: None }, NOW, &mut out).unwrap();
        session.take_change().unwrap();
        let offer = RemoteConfigOffer::new(Default::default(), &pb::AgentConfigMap::default());
        session.handle(Input::Desired(Desired::remote_config(1, offer)), NOW, &mut out).unwrap();
        session.handle(Input::Wake, NOW, &mut out).unwrap();
        assert!(session.has_change() && !session.has_news());
        Arc::new(Slot::new(session))
    }

    fn facts(event: Option<Event>) -> ChangedFacts {
        let Some(Event::Agent(change)) = event else { panic!("{event:?}") };
        change.facts
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_alone_is_told_after_half_a_second_and_at_the_end_at_once() {
        let settings = ServerSettings::default();
        let queue = Arc::new(ChangeQueue::new(&settings));
        let mut events = Events(Arc::clone(&queue));
        let began = Instant::now();
        queue.offered(&offered(&settings));
        assert!(events.try_next().is_none());
        assert_eq!(facts(events.next().await), ChangedFacts::OFFER);
        assert_eq!(began.elapsed(), OFFERS_WAIT);
        queue.offered(&offered(&settings));
        queue.close();
        assert_eq!(facts(events.next().await), ChangedFacts::OFFER);
        assert!(events.next().await.is_none());
        assert_eq!(began.elapsed(), OFFERS_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_is_told_once_together_with_what_the_agent_says_to_it() {
        let settings = ServerSettings::default();
        let queue = Arc::new(ChangeQueue::new(&settings));
        let (mut events, slot) = (Events(Arc::clone(&queue)), offered(&settings));
        queue.offered(&slot);
        let mut out = Outbox::new(settings.session.clone());
        slot.lock().session.handle(Input::UidConflict, NOW, &mut out).unwrap();
        queue.agent(&slot);
        assert_eq!(facts(events.next().await), ChangedFacts::OFFER | ChangedFacts::STICKY);
        tokio::time::advance(OFFERS_WAIT * 2).await;
        assert!(events.try_next().is_none(), "nothing is told twice");
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_that_waited_long_enough_is_told_however_much_else_there_is() {
        let settings = ServerSettings::default();
        let queue = Arc::new(ChangeQueue::new(&settings));
        let mut events = Events(Arc::clone(&queue));
        queue.offered(&offered(&settings));
        let (reason, detail) = (RefusalReason::Protocol, String::new());
        let refusal = Refusal {
            at: Wall(0),
            reason,
            detail,
            principal: None,
            remote_addr: None,
            transport: None,
            folded: 0,
        };
        for _ in 0..10 {
            queue.refused(refusal.clone());
        }
        for _ in 0..5 {
            assert!(matches!(events.try_next(), Some(Event::Refused(_))), "it is not due yet");
        }
        tokio::time::advance(OFFERS_WAIT).await;
        let next = [events.try_next(), events.try_next()];
        assert!(next.iter().any(|event| matches!(event, Some(Event::Agent(_)))), "{next:?}");
    }
}
