//! What becomes of the messages of one WebSocket: sessions handle them, without IO.

use std::sync::Arc;
use std::vec;

use opamp_proto::frame::{self, Framing};
use opamp_proto::{AgentMessage, InstanceUid, Now};

use super::agents::Agents;
use super::frames::{Incoming, Listener, StreamError};
use super::parked::{Newcomers, Parked};
use crate::net::connection::{Connection, Wakes};
use crate::net::core::{Core, Sender};
use crate::net::directory::Slot;
use crate::net::duplicates::{Contest, Verdict};
use crate::net::receive::Received;
use crate::refusal::{CloseCode, RefusalReason, SessionError};
use crate::session::{Input, Outbox};
use crate::snapshot::DisconnectReason;

pub(super) struct Desk {
    pub(super) core: Arc<Core>,
    pub(super) connection: Arc<Connection>,
    agents: Agents,
    newcomers: Newcomers,
    /// Whether its messages have headers, once one has come.
    pub(super) framing: Option<Framing>,
    faults: u32,
}

/// What is to be written because of something that happened, and whether it was the last.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) out: Option<Box<Outbox>>,
    /// Whose messages they are; the session learns if they could not be written.
    pub(super) slot: Option<Arc<Slot>>,
    pub(super) end: Option<End>,
}

/// How a connection ends.
#[derive(Debug)]
pub(super) struct End {
    pub(super) close: Option<CloseCode>,
    pub(super) reason: DisconnectReason,
    pub(super) text: &'static str,
}

impl End {
    pub(super) const CLOSED: Self = Self { close: None, reason: DisconnectReason::Closed, text: "" };
}

impl From<End> for Answer {
    fn from(end: End) -> Self {
        Self { end: Some(end), ..Self::default() }
    }
}

impl Listener for Desk {
    type Answer = Answer;

    fn incoming(&mut self, incoming: Incoming<'_>) -> Answer {
        let now = self.core.now();
        if incoming == Incoming::Closed {
            self.connection.heard(now.mono);
            return End::CLOSED.into();
        }
        self.connection.frame_arrived(now.mono);
        match incoming {
            Incoming::Binary(bytes) => self.message(bytes, None, now),
            Incoming::Text => self.refuse(&SessionError::TextMessage),
            Incoming::Control | Incoming::Closed => {
                self.alive();
                Answer::default()
            }
        }
    }

    fn holding(&mut self, holding: bool) {
        self.connection.receiving(holding.then(|| self.core.now().mono));
    }
}

/// Orders that are being carried out.
#[derive(Default)]
pub(super) struct Due {
    pub(super) ping: bool,
    wake_first: Option<Arc<Slot>>,
    wake: vec::IntoIter<Arc<Slot>>,
    verdicts: vec::IntoIter<Verdict>,
    /// Messages that waited for the verdict.
    judged: Option<(Verdict, vec::IntoIter<Parked>)>,
}

impl Desk {
    pub(super) fn new(core: Arc<Core>, connection: Arc<Connection>) -> Self {
        let (agents, newcomers) = (Agents::default(), Newcomers::default());
        Self { core, connection, agents, newcomers, framing: None, faults: 0 }
    }

    /// Nothing more can be read.
    pub(super) fn failed(&mut self, error: StreamError) -> Answer {
        self.connection.heard(self.core.now().mono);
        match error {
            StreamError::Io => End::CLOSED.into(),
            StreamError::NoRoom => self.refuse(&SessionError::NoRoom),
            StreamError::Oversize => {
                let limit_bytes = self.core.limits.message_bytes_max;
                self.refuse(&SessionError::Oversize { limit_bytes })
            }
            StreamError::Protocol => self.refuse(&SessionError::WebSocketProtocol),
        }
    }

    fn message(&mut self, bytes: &[u8], verdict: Option<Verdict>, now: Now) -> Answer {
        let mut out = self.core.outbox();
        let (slot, closing) = self.receive(bytes, verdict, now, &mut out);
        let end = closing.map(|error| self.ended_by(&error));
        Answer { out: Some(out), slot, end }
    }

    /// Handles one message; the agent it is of, and the error that ends the connection, if one does.
    fn receive(
        &mut self,
        bytes: &[u8],
        verdict: Option<Verdict>,
        now: Now,
        out: &mut Outbox,
    ) -> (Option<Arc<Slot>>, Option<SessionError>) {
        if verdict.is_none() {
            self.core.counters.frame_received();
        }
        let (uid, error) = match self.decode(bytes) {
            Err(error) => (None, error),
            Ok(message) => match self.hand_on(&message, bytes, verdict, now, out) {
                Ok(slot) => {
                    self.faults = 0;
                    return (slot, None);
                }
                Err(error) => (message.instance_uid().ok(), error),
            },
        };
        self.core.fault(&error, uid.as_ref(), Sender::Socket(&self.connection), out);
        if error.consequence().close.is_some() {
            return (None, Some(error));
        }
        // Only what is malformed is the sender's fault for sure; the rest may be one agent's among many.
        self.faults += u32::from(error.consequence().reason == RefusalReason::Malformed);
        let limit = self.core.settings.faults_max;
        (None, (self.faults >= limit).then_some(SessionError::TooManyFaults { limit }))
    }

    /// Decodes a message; the first of a socket decides whether it has headers.
    fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<AgentMessage<'a>, SessionError> {
        let (payload, framing) = match self.framing {
            Some(Framing::Headerless) => (bytes, Framing::Headerless),
            None if self.core.settings.accept_headerless => frame::decode_either(bytes)?,
            Some(Framing::Header) | None => (frame::decode(bytes)?, Framing::Header),
        };
        let message = self.core.decode(payload, |uid| self.agents.get(uid))?;
        self.framing = Some(framing);
        Ok(message)
    }

    fn hand_on(
        &mut self,
        message: &AgentMessage<'_>,
        bytes: &[u8],
        verdict: Option<Verdict>,
        now: Now,
        out: &mut Outbox,
    ) -> Result<Option<Arc<Slot>>, SessionError> {
        let uid = message.instance_uid()?;
        let limit = self.core.settings.agents_per_connection_max;
        if self.newcomers.waits(&uid) {
            self.newcomers.park(uid, bytes, &self.core.settings.duplicates, &self.core.admission.budget)?;
            return Ok(None);
        }
        if let Some(fresh) = self.newcomers.told(&uid) {
            if self.core.is_still_true(&uid, &fresh) {
                self.core.tell_again(&uid, fresh, out);
                return Ok(None);
            }
            self.newcomers.forget(&uid);
        }
        if self.agents.len() >= limit && self.agents.get(&uid).is_none() && !self.carries(&uid) {
            return Err(SessionError::TooManyAgentsOnConnection { limit });
        }
        let (sender, known) = (Sender::Socket(&self.connection), self.agents.get(&uid));
        let (slot, current, stays) = match self.core.receive(message, sender, known, verdict, now, out)? {
            Received::Handled { slot, uid, stays } => (slot, uid, stays),
            Received::SetAside => return Ok(None),
            Received::Told(fresh) => {
                self.newcomers.tell(uid, fresh, limit);
                return Ok(None);
            }
            Received::Contested(contest) => {
                self.newcomers.park(
                    uid,
                    bytes,
                    &self.core.settings.duplicates,
                    &self.core.admission.budget,
                )?;
                self.settle(contest);
                return Ok(None);
            }
        };
        self.newcomers.arrived(&uid);
        if !stays || self.agents.get(&uid).is_none_or(|known| !Arc::ptr_eq(known, &slot)) {
            // Under a new identity the agent is still one agent.
            self.agents.forget(&slot);
            if stays {
                self.agents.insert(current, Arc::clone(&slot));
            }
            self.note_agents(now);
        }
        Ok(Some(slot))
    }

    fn note_agents(&self, now: Now) {
        if self.connection.set_agents(self.agents.len(), now.mono) {
            self.core.connections.look_soon(&self.connection);
        }
    }

    /// Finds out whose identity it is, while other agents of the socket are served.
    fn settle(&self, contest: Contest) {
        let (core, connection) = (Arc::clone(&self.core), Arc::clone(&self.connection));
        self.core.sockets.spawn(async move {
            connection.tell(contest.decide(&core).await);
        });
    }

    /// Whether this uid leads to an agent that is here already, under the identity it had.
    fn carries(&self, uid: &InstanceUid) -> bool {
        let slot = self.core.directory.find(uid);
        slot.is_some_and(|slot| self.agents.slots().any(|known| Arc::ptr_eq(known, &slot)))
    }

    /// A frame that is no message is a sign of life of every agent behind the socket.
    fn alive(&mut self) {
        let (now, mut out) = (self.core.now(), self.core.outbox());
        for slot in self.agents.slots() {
            let mut inner = slot.lock();
            if inner.is_owned_by(&self.connection) {
                let handled = inner.session.handle(Input::Alive, now, &mut out);
                debug_assert!(handled.is_ok(), "only messages are refused");
                self.core.note_change(slot, &inner.session);
            }
        }
        self.core.reuse(out);
    }

    /// Takes the orders there are. What they end, ends at once; the rest comes bit by bit with [`Desk::next_due`].
    pub(super) fn take_orders(&mut self) -> Result<Due, End> {
        let orders = self.connection.take_orders();
        for uid in orders.released {
            // It may have come back meanwhile.
            let back = |slot: &Arc<Slot>| slot.lock().is_owned_by(&self.connection);
            if self.agents.get(&uid).is_none_or(back) {
                continue;
            }
            self.agents.remove(&uid);
            self.note_agents(self.core.now());
            if self.agents.is_empty() && self.newcomers.is_empty() {
                let (close, reason) = (Some(CloseCode::Normal), DisconnectReason::Replaced);
                return Err(End { close, reason, text: "another connection took over" });
            }
        }
        if let Some((code, reason)) = orders.close {
            return Err(End { close: Some(code), reason, text: reason.as_str() });
        }
        let Wakes { first: wake_first, others } = orders.wake;
        let (wake, verdicts) = (others.into_iter(), orders.verdicts.into_iter());
        Ok(Due { ping: orders.ping, wake_first, wake, verdicts, judged: None })
    }

    /// What is to be written next of what was ordered.
    pub(super) fn next_due(&mut self, due: &mut Due) -> Option<Answer> {
        if let Some(slot) = due.wake_first.take().or_else(|| due.wake.next()) {
            let mut out = self.core.outbox();
            self.wake(&slot, &mut out);
            return Some(Answer { out: Some(out), slot: Some(slot), end: None });
        }
        loop {
            if let Some((verdict, messages)) = &mut due.judged
                && let Some(parked) = messages.next()
            {
                return Some(self.message(&parked.bytes, Some(*verdict), self.core.now()));
            }
            let verdict = due.verdicts.next()?;
            due.judged = Some((verdict, self.newcomers.unpark(&verdict.uid).into_iter()));
        }
    }

    fn wake(&self, slot: &Arc<Slot>, out: &mut Outbox) {
        let mut inner = slot.lock();
        if !inner.is_owned_by(&self.connection) {
            return;
        }
        inner.clear_woken();
        let now = self.core.now();
        self.core.pace(out, now.mono);
        let handled = inner.session.handle(Input::Wake, now, out);
        debug_assert!(handled.is_ok(), "only messages are refused");
        self.core.note_change(slot, &inner.session);
        self.core.note_effects(slot, out, now.mono);
    }

    /// What an agent's session wanted sent was not written.
    pub(super) fn unwritten(&self, slot: &Arc<Slot>) {
        let mut inner = slot.lock();
        if inner.is_owned_by(&self.connection) {
            let mut effects = self.core.outbox();
            let told = inner.session.handle(Input::Unwritten, self.core.now(), &mut effects);
            debug_assert!(told.is_ok(), "only messages are refused");
            self.core.counters.effects(effects.effects());
            self.core.note_change(slot, &inner.session);
            drop(inner);
            self.core.reuse(effects);
        }
    }

    /// Refuses what cannot be told from the rest of the stream, so that the connection ends.
    fn refuse(&mut self, error: &SessionError) -> Answer {
        let mut out = self.core.outbox();
        self.core.fault(error, None, Sender::Socket(&self.connection), &mut out);
        Answer { out: Some(out), slot: None, end: Some(self.ended_by(error)) }
    }

    /// A peer that is slow to take what is written, while there is no room to have it wait.
    pub(super) fn slow_without_room(&self) -> End {
        let error = SessionError::NoRoom;
        let mut out = self.core.outbox();
        self.core.fault(&error, None, Sender::Socket(&self.connection), &mut out);
        self.core.reuse(out);
        End { close: None, ..self.ended_by(&error) }
    }

    fn ended_by(&self, error: &SessionError) -> End {
        let consequence = error.consequence();
        let text = match error {
            SessionError::NoRoom => "no room for this message now",
            SessionError::Oversize { .. } => "message too big",
            SessionError::TextMessage => "text messages are not OpAMP",
            SessionError::TooManyFaults { .. } => "too many faulty messages",
            _ => consequence.reason.as_str(),
        };
        End { close: consequence.close, reason: DisconnectReason::Refused(consequence.reason), text }
    }

    /// Tells sessions and server that the connection is over.
    pub(super) fn leave(&mut self, end: &End) {
        self.connection.end();
        if end.reason == DisconnectReason::Timeout {
            let mut out = self.core.outbox();
            self.core.fault(&SessionError::Timeout, None, Sender::Socket(&self.connection), &mut out);
            self.core.reuse(out);
        }
        for slot in self.agents.slots() {
            self.core.detach(slot, &self.connection, end.reason);
        }
        self.core.unregister(&self.connection, self.core.now().mono);
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::{Part, pb};
    use prost::Message as _;

    use super::*;
    use crate::net::auth::InsecureAcceptEveryone;
    use crate::net::builder::OpampServer;
    use crate::net::presented::Presented;
    use crate::snapshot::{Principal, Transport};

    const UID: InstanceUid = InstanceUid::from_bytes([1; 16]);

    fn desk(core: &Arc<Core>) -> Desk {
        let now = core.now();
        let info = core.next_connection(Transport::WebSocket, Principal::anonymous(), None, now);
        let connection = Arc::new(Connection::new(info, Presented::default(), now.mono));
        Desk::new(Arc::clone(core), connection)
    }

    fn described(text: &str) -> pb::AgentDescription {
        let value = pb::any_value::Value::StringValue(text.to_owned());
        let name =
            pb::KeyValue { key: "service.name".into(), value: Some(pb::AnyValue { value: Some(value) }) };
        pb::AgentDescription { identifying_attributes: vec![name], ..Default::default() }
    }

    fn message(uid: InstanceUid, sequence_num: u64, text: &str) -> Vec<u8> {
        let mut bytes = vec![0];
        let health = pb::ComponentHealth { status: text.to_owned(), ..Default::default() };
        let message = pb::AgentToServer {
            instance_uid: uid.as_bytes().to_vec().into(),
            sequence_num,
            capabilities: 0xffff,
            agent_description: Some(described(text)),
            health: Some(health),
            ..Default::default()
        };
        message.encode_raw(&mut bytes);
        bytes
    }

    /// Whether a message was refused.
    fn is_refused(desk: &mut Desk, bytes: &[u8]) -> bool {
        let answer = desk.incoming(Incoming::Binary(bytes));
        assert!(answer.end.is_none());
        let out = answer.out.unwrap();
        let answer = pb::ServerToAgent::decode(&out.messages().next().unwrap()[1..]).unwrap();
        answer.error_response.is_some()
    }

    /// An agent that another socket took over is still listed until the order to let go of it is looked at.
    #[test]
    fn an_agent_that_is_still_listed_is_compared_with_what_it_said_last_wherever_it_did() {
        let core = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).build().0.0;
        let (mut old, mut new) = (desk(&core), desk(&core));
        let held = || {
            let slot = core.directory.find(&UID).unwrap();
            let state = slot.lock().session.snapshot().state;
            state.part(Part::AgentDescription).unwrap().clone()
        };
        assert!(!is_refused(&mut old, &message(UID, 1, "of the old one")));
        assert!(!is_refused(&mut new, &message(UID, 2, "of the new one")));
        assert!(old.agents.get(&UID).is_some());
        for text in ["of the old one", "of the new one"] {
            let bytes = message(UID, 3, text);
            let texts: Vec<usize> =
                (0..bytes.len()).filter(|at| bytes[*at..].starts_with(text.as_bytes())).collect();
            assert_eq!(texts.len(), 2);
            for at in texts {
                let mut broken = bytes.clone();
                broken[at] = 0xff;
                assert!(is_refused(&mut old, &broken), "{text}");
            }
            assert_eq!(held(), described("of the new one").encode_to_vec());
        }
        assert!(old.agents.get(&UID).is_some());
        assert!(!is_refused(&mut old, &message(UID, 3, "of the new one")), "it goes on counting here");
        assert!(!is_refused(&mut old, &message(UID, 4, "of the old one")));
        assert_eq!(held(), described("of the old one").encode_to_vec());
    }
}
