//! The task of one WebSocket: it reads, lets sessions answer, writes, and ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use opamp_proto::frame::{self, Framing};
use opamp_proto::{AgentMessage, InstanceUid};

use super::frames::{Incoming, MessageStream, StreamError};
use super::parked::Newcomers;
use crate::net::connection::Connection;
use crate::net::core::{Core, Sender};
use crate::net::directory::Slot;
use crate::net::duplicates::{Contest, Verdict};
use crate::net::receive::Received;
use crate::refusal::{CloseCode, RefusalReason, SessionError};
use crate::session::{Input, Outbox};
use crate::snapshot::DisconnectReason;

/// Runs a connection to its end. Fixed order of polling: mailbox, then socket.
pub(super) async fn run<S: MessageStream>(core: Arc<Core>, stream: S, connection: Arc<Connection>) {
    let (agents, newcomers) = (HashMap::new(), Newcomers::default());
    let mut task = Task { core, stream, connection, agents, newcomers, framing: None, faults: 0 };
    let end = loop {
        let step = tokio::select! {
            biased;
            () = task.connection.ordered() => task.orders().await,
            incoming = task.stream.read() => task.incoming(incoming).await,
        };
        if let Err(end) = step {
            break end;
        }
    };
    task.end(end).await;
}

struct Task<S> {
    core: Arc<Core>,
    stream: S,
    connection: Arc<Connection>,
    agents: HashMap<InstanceUid, Arc<Slot>>,
    newcomers: Newcomers,
    /// Whether its messages have headers, once one has come.
    framing: Option<Framing>,
    faults: u32,
}

/// How a connection ends.
struct End {
    close: Option<CloseCode>,
    reason: DisconnectReason,
    text: &'static str,
}

impl End {
    const CLOSED: Self = Self { close: None, reason: DisconnectReason::Closed, text: "" };
}

impl<S: MessageStream> Task<S> {
    async fn incoming(&mut self, incoming: Result<Incoming, StreamError>) -> Result<(), End> {
        let now = self.core.now();
        match incoming {
            Ok(Incoming::Closed) | Err(_) => self.connection.heard(now.mono),
            Ok(_) => self.connection.frame_arrived(now.mono),
        }
        match incoming {
            Ok(Incoming::Binary(bytes)) => self.message(bytes, None).await,
            Ok(Incoming::Control) => {
                self.alive();
                Ok(())
            }
            Ok(Incoming::Closed) | Err(StreamError::Io) => Err(End::CLOSED),
            Ok(Incoming::Text) => Err(self.refuse(&SessionError::TextMessage)),
            Err(StreamError::Protocol) => Err(self.refuse(&SessionError::WebSocketProtocol)),
            Err(StreamError::Oversize) => {
                let limit_bytes = self.core.limits.message_bytes_max;
                Err(self.refuse(&SessionError::Oversize { limit_bytes }))
            }
        }
    }

    async fn message(&mut self, bytes: Bytes, verdict: Option<Verdict>) -> Result<(), End> {
        let mut out = self.core.outbox();
        let (slot, closing) = self.receive(&bytes, verdict, &mut out);
        let written = self.write_all(slot.as_ref(), &out).await;
        self.core.reuse(out);
        written?;
        closing.map_or(Ok(()), |error| Err(self.ended_by(&error)))
    }

    /// Handles one message; the agent it is of, and the error that ends the connection, if one does.
    fn receive(
        &mut self,
        bytes: &Bytes,
        verdict: Option<Verdict>,
        out: &mut Outbox,
    ) -> (Option<Arc<Slot>>, Option<SessionError>) {
        if verdict.is_none() {
            self.core.counters.frames_received.fetch_add(1, Ordering::Relaxed);
        }
        let (uid, error) = match self.decode(bytes) {
            Err(error) => (None, error),
            Ok(message) => match self.hand_on(&message, bytes, verdict, out) {
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
        let message = AgentMessage::decode(payload, &self.core.limits)?;
        self.framing = Some(framing);
        Ok(message)
    }

    fn hand_on(
        &mut self,
        message: &AgentMessage<'_>,
        bytes: &Bytes,
        verdict: Option<Verdict>,
        out: &mut Outbox,
    ) -> Result<Option<Arc<Slot>>, SessionError> {
        let uid = message.instance_uid()?;
        let limit = self.core.settings.agents_per_connection_max;
        if self.newcomers.waits(&uid) {
            self.newcomers.park(uid, bytes.clone(), &self.core.settings.duplicates)?;
            return Ok(None);
        }
        if let Some(fresh) = self.newcomers.told(&uid) {
            if self.core.is_still_true(&uid, &fresh) {
                self.core.tell_again(&uid, fresh, out);
                return Ok(None);
            }
            self.newcomers.forget(&uid);
        }
        if self.agents.len() >= limit && !self.agents.contains_key(&uid) && !self.carries(&uid) {
            return Err(SessionError::TooManyAgentsOnConnection { limit });
        }
        let slot = match self.core.receive(message, Sender::Socket(&self.connection), verdict, out)? {
            Received::Handled(slot) => slot,
            Received::SetAside => return Ok(None),
            Received::Told(fresh) => {
                self.newcomers.tell(uid, fresh, limit);
                return Ok(None);
            }
            Received::Contested(contest) => {
                self.newcomers.park(uid, bytes.clone(), &self.core.settings.duplicates)?;
                self.settle(contest);
                return Ok(None);
            }
        };
        self.newcomers.arrived(&uid);
        let (current, stays) = {
            let inner = slot.lock();
            (inner.session.uid(), inner.is_owned_by(&self.connection))
        };
        if !stays || self.agents.get(&uid).is_none_or(|known| !Arc::ptr_eq(known, &slot)) {
            // Under a new identity the agent is still one agent.
            self.agents.retain(|_, known| !Arc::ptr_eq(known, &slot));
            if stays {
                self.agents.insert(current, Arc::clone(&slot));
            }
            self.connection.set_agents(self.agents.len(), self.core.now().mono);
        }
        Ok(Some(slot))
    }

    /// Finds out whose identity it is, while this task goes on with other agents.
    fn settle(&self, contest: Contest) {
        let (core, connection) = (Arc::clone(&self.core), Arc::clone(&self.connection));
        self.core.sockets.spawn(async move {
            if let Some(verdict) = contest.decide(&core).await {
                connection.tell(verdict);
            }
        });
    }

    /// Whether this uid leads to an agent that is here already, under the identity it had.
    fn carries(&self, uid: &InstanceUid) -> bool {
        let slot = self.core.directory.find(uid);
        slot.is_some_and(|slot| self.agents.values().any(|known| Arc::ptr_eq(known, &slot)))
    }

    /// A frame that is no message is a sign of life of every agent behind the socket.
    fn alive(&mut self) {
        let (now, mut out) = (self.core.now(), self.core.outbox());
        for slot in self.agents.values() {
            let mut inner = slot.lock();
            if inner.is_owned_by(&self.connection) {
                let handled = inner.session.handle(Input::Alive, now, &mut out);
                debug_assert!(handled.is_ok(), "only messages are refused");
                self.core.note_change(slot, &inner.session);
            }
        }
        self.core.reuse(out);
    }

    async fn orders(&mut self) -> Result<(), End> {
        let orders = self.connection.take_orders();
        for uid in orders.released {
            // It may have come back meanwhile.
            let back = |slot: &Arc<Slot>| slot.lock().is_owned_by(&self.connection);
            if self.agents.get(&uid).is_none_or(back) {
                continue;
            }
            self.agents.remove(&uid);
            self.connection.set_agents(self.agents.len(), self.core.now().mono);
            if self.agents.is_empty() && self.newcomers.is_empty() {
                let (close, reason) = (Some(CloseCode::Normal), DisconnectReason::Replaced);
                return Err(End { close, reason, text: "another connection took over" });
            }
        }
        if let Some((code, reason)) = orders.close {
            return Err(End { close: Some(code), reason, text: reason.as_str() });
        }
        if orders.ping {
            let ping = self.stream.ping();
            bounded(&self.core, &self.connection, ping).await?;
        }
        for slot in orders.wake {
            let mut out = self.core.outbox();
            self.wake(&slot, &mut out);
            let written = self.write_all(Some(&slot), &out).await;
            self.core.reuse(out);
            written?;
        }
        for verdict in orders.verdicts {
            for bytes in self.newcomers.unpark(&verdict.uid) {
                // On the heap: it is rare, and the idle task must not carry it.
                Box::pin(self.message(bytes, Some(verdict))).await?;
            }
        }
        Ok(())
    }

    fn wake(&self, slot: &Arc<Slot>, out: &mut Outbox) {
        let mut inner = slot.lock();
        if !inner.is_owned_by(&self.connection) {
            return;
        }
        inner.clear_woken();
        let handled = inner.session.handle(Input::Wake, self.core.now(), out);
        debug_assert!(handled.is_ok(), "only messages are refused");
        self.core.note_change(slot, &inner.session);
        self.core.counters.effects(out.effects());
    }

    /// Writes what an agent's session wants sent; the session learns if it could not be written.
    async fn write_all(&mut self, slot: Option<&Arc<Slot>>, out: &Outbox) -> Result<(), End> {
        let written = self.write_messages(out).await;
        if let (Err(_), Some(slot)) = (&written, slot) {
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
        written
    }

    async fn write_messages(&mut self, out: &Outbox) -> Result<(), End> {
        for message in out.messages() {
            let message = match self.framing {
                Some(Framing::Headerless) => message.get(1..).unwrap_or_default(),
                Some(Framing::Header) | None => message,
            };
            let progress = || {
                // A peer that takes what is written is alive, and its deadline begins anew.
                let now = self.core.now().mono;
                self.connection.writing(Some(now));
                self.connection.heard(now);
            };
            let write = self.stream.write(message, progress);
            bounded(&self.core, &self.connection, write).await?;
            self.core.counters.frames_sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn refuse(&mut self, error: &SessionError) -> End {
        let mut out = self.core.outbox();
        self.core.fault(error, None, Sender::Socket(&self.connection), &mut out);
        self.core.reuse(out);
        self.ended_by(error)
    }

    fn ended_by(&self, error: &SessionError) -> End {
        let consequence = error.consequence();
        let text = match error {
            SessionError::Oversize { .. } => "message too big",
            SessionError::TextMessage => "text messages are not OpAMP",
            SessionError::TooManyFaults { .. } => "too many faulty messages",
            _ => consequence.reason.as_str(),
        };
        End { close: consequence.close, reason: DisconnectReason::Refused(consequence.reason), text }
    }

    async fn end(mut self, end: End) {
        self.connection.end();
        if end.reason == DisconnectReason::Timeout {
            let mut out = self.core.outbox();
            self.core.fault(&SessionError::Timeout, None, Sender::Socket(&self.connection), &mut out);
            self.core.reuse(out);
        }
        for slot in self.agents.values() {
            self.core.detach(slot, &self.connection, end.reason);
        }
        self.core.unregister(&self.connection, self.core.now().mono);
        let last = async {
            match end.close {
                Some(code) => self.stream.close(code, end.text).await,
                None => self.stream.shutdown().await,
            }
        };
        // A peer that does not play along is dropped.
        let _ = tokio::time::timeout(self.core.settings.close_timeout, last).await;
    }
}

/// A write that the sweep can end when the peer takes nothing for too long.
async fn bounded(
    core: &Core,
    connection: &Connection,
    write: impl Future<Output = Result<(), StreamError>>,
) -> Result<(), End> {
    connection.writing(Some(core.now().mono));
    let written = tokio::select! {
        biased;
        written = write => written.map_err(|_| End::CLOSED),
        () = connection.write_aborted() => {
            Err(End { close: None, reason: DisconnectReason::Timeout, text: "" })
        }
    };
    connection.writing(None);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::websocket::tungstenite::Tungstenite;

    /// The size of what a function returns, without calling it.
    fn size_of_returned<A, B, C, R>(_function: fn(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn the_task_of_a_plain_socket_fits_its_budget() {
        let bytes = size_of_returned(run::<Tungstenite<tokio::net::TcpStream>>);
        assert!(bytes <= 2048, "{bytes} bytes");
    }
}
