//! One agent's conversation, seen from the server: no IO, no clock, no randomness.
//!
//! # Contract of the driver
//!
//! Feed every event to [`Session::handle`] with the time it happened, send every message of the outbox, and call
//! `handle(Input::Tick, ..)` when [`Session::deadline`] has passed. Nothing else is needed: the session is the
//! same on both transports.
//!
//! # States
//!
//! ```text
//!               Attached(connection)                 Tick after the stale threshold
//! Detached ─────────────────────────► Connected ─────────────────────────────────► Stale
//!    ▲                                 │   ▲                                         │
//!    │  Detached(reason),              │   └───────────── Message or Alive ──────────┤
//!    └─ agent_disconnect ◄─────────────┘◄──── Detached(reason), HTTP: Tick after twice the threshold
//! ```
//!
//! # Level-triggered
//!
//! The session holds what the agent *should* have ([`Desired`]) and what it *reports*, and sends the difference:
//! with the answer to a message, or unsolicited on [`Input::Wake`]. Losing a wake-up, a connection or an answer
//! loses nothing; the next comparison repairs it. An offer whose hash the agent reported as FAILED is not
//! repeated until the desired generation changes, or server and a self-rolled-back agent would chase each other.

mod facts;
mod offer;
mod outbox;
mod resync;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use opamp_proto::{
    AgentCapabilities, AgentMessage, AgentToServerFlags, InstanceUid, Mono, Now, Part, PartSet, SequenceNum,
    Wall,
};

use crate::capability::{Negotiated, Received};
use crate::desired::Desired;
use crate::refusal::SessionError;
use crate::snapshot::{
    AgentChange, AgentSnapshot, ChangedFacts, Checkpoint, ConnectionInfo, DisconnectReason, Liveness,
    Principal, PrincipalKind, Seed, Transport,
};

use self::facts::Facts;
use self::offer::OfferState;
pub use self::outbox::{CapabilityMismatch, Effects, Outbox, SessionSettings};
use self::resync::Resync;

/// The slowest pace that is learned from an agent that polls.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// What happens to a session.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// A sign of life that is no message: a WebSocket pong.
    Alive,
    /// The agent is on this connection from now on.
    Attached(Arc<ConnectionInfo>),
    /// What the agent should have changed.
    Desired(Desired),
    /// The connection is gone, or the agent left it.
    Detached(DisconnectReason),
    /// A message of this agent. Its uid is the session's, or the one the session assigned.
    Message {
        /// The message.
        message: &'a AgentMessage<'a>,
        /// A fresh identity, required if the message asks for one (flag RequestInstanceUid).
        assign: Option<InstanceUid>,
    },
    /// Ask for full state with the next message, unsolicited if the transport can.
    RequestFullState,
    /// Order a restart.
    Restart,
    /// [`Session::deadline`] has passed.
    Tick,
    /// A WebSocket can be written: send what is due without being asked.
    Wake,
}

/// The server's half of the conversation with one agent.
///
/// What changes with every heartbeat is inline; the rest is boxed. Status sub-messages stay encoded.
#[derive(Debug)]
pub struct Session {
    uid: InstanceUid,
    negotiated: Negotiated,
    sequence: SequenceNum,
    last_seen: Now,
    poll_interval_ms: u32,
    has_sequence: bool,
    liveness: Liveness,
    restart_due: bool,
    checkpoint_due: bool,
    transport: Transport,
    offer: OfferState,
    resync: Resync,
    facts: Box<Facts>,
}

impl Session {
    /// A session for an agent nothing is known of.
    pub fn new(uid: InstanceUid, settings: &SessionSettings, now: Now) -> Self {
        Self {
            uid,
            negotiated: Negotiated::new(AgentCapabilities::NONE, settings.announced()),
            sequence: SequenceNum(0),
            last_seen: now,
            poll_interval_ms: millis(settings.http_interval_assumed),
            has_sequence: false,
            liveness: Liveness::Disconnected,
            restart_due: false,
            checkpoint_due: false,
            transport: Transport::WebSocket,
            offer: OfferState::default(),
            resync: Resync::default(),
            facts: Box::default(),
        }
    }

    /// A session for an agent that an earlier process knew, so that nothing it left out need be asked again.
    pub fn restore(seed: Seed, settings: &SessionSettings, now: Now) -> Self {
        let mut session = Self::new(seed.uid, settings, now);
        session.negotiated.set_agent(seed.capabilities);
        session.last_seen = Now { mono: now.mono, wall: seed.last_seen };
        if let Some(sequence) = seed.sequence_num {
            session.sequence = sequence;
            session.has_sequence = true;
        }
        session.facts.restore(&seed);
        session.offer.desire(seed.desired, session.facts.remote_config.as_ref());
        if seed.desired_failed {
            session.offer.restore_failure();
        }
        session
    }

    /// Takes one event in and puts what is to be sent into `out`.
    ///
    /// # Errors
    ///
    /// A message that is refused as a whole leaves the session as it was; the caller answers with the error's
    /// [consequence](SessionError::consequence). No other input fails.
    pub fn handle(&mut self, input: Input<'_>, now: Now, out: &mut Outbox) -> Result<(), SessionError> {
        match input {
            Input::Message { message, assign } => return self.message(message, assign, now, out),
            Input::Wake => self.wake(now, out),
            Input::Alive => self.alive(now),
            Input::Tick => self.tick(now, out),
            Input::Attached(connection) => self.attach(connection, now),
            Input::Detached(reason) => self.detach(reason, now),
            Input::Desired(desired) => self.offer.desire(desired, self.facts.remote_config.as_ref()),
            Input::Restart => self.restart_due = true,
            Input::RequestFullState => self.resync.request(true),
        }
        Ok(())
    }

    /// Whether this session would refuse a message as a whole, without changing anything. `handle` asks the same;
    /// a driver asks before it attaches a connection, so that a refused message makes no agent.
    ///
    /// # Errors
    ///
    /// What `handle` would return.
    pub fn vet(&self, message: &AgentMessage<'_>, settings: &SessionSettings) -> Result<(), SessionError> {
        message.instance_uid()?;
        if settings.capability_mismatch == CapabilityMismatch::Ignore {
            return Ok(());
        }
        let negotiated = Negotiated::new(self.announced(message), self.negotiated.server());
        for part in message.parts().iter() {
            if let Received::Missing(capability) = negotiated.received(part) {
                return Err(SessionError::Capability { part, capability });
            }
        }
        Ok(())
    }

    /// When to call `handle(Input::Tick, ..)` next, if time alone can change anything.
    pub fn deadline(&self, settings: &SessionSettings) -> Option<Mono> {
        let after = self.stale_after(settings);
        match self.liveness {
            Liveness::Connected => Some(self.last_seen.mono + after),
            Liveness::Stale if self.transport == Transport::Http => Some(self.last_seen.mono + after * 2),
            Liveness::Stale | Liveness::Disconnected => None,
        }
    }

    /// The identity on the wire.
    pub fn uid(&self) -> InstanceUid {
        self.uid
    }

    /// Takes the agent to use the identity it was told, because its old one is used by another from now on. For
    /// drivers that find two agents asking under one temporary uid.
    pub fn adopt_assigned(&mut self) {
        if let Some(assigned) = self.facts.assigned_uid {
            self.facts.adopt_uid(self.uid);
            self.uid = assigned;
        }
    }

    /// The identity the agent was told to take over and has not used yet.
    pub fn assigned_uid(&self) -> Option<InstanceUid> {
        self.facts.assigned_uid
    }

    /// What both sides announced; permits borrow from it.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether the agent is there.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// The connection the agent has, or had last.
    pub fn connection(&self) -> Option<&Arc<ConnectionInfo>> {
        self.facts.connection.as_ref()
    }

    /// Who authenticated the connection the agent has, or had last.
    pub fn principal(&self) -> Option<&Principal> {
        let connected = self.facts.connection.as_ref().map(|connection| &connection.principal);
        connected.or(self.facts.remembered.as_ref())
    }

    /// Last sign of life.
    pub fn last_seen(&self) -> Now {
        self.last_seen
    }

    /// Whether the session was made and nothing has become of it: no connection, nothing desired, nothing restored.
    pub fn is_unused(&self) -> bool {
        let known = self.principal().is_some() || self.has_sequence || !self.facts.known.is_empty();
        !known && self.offer.generation() == 0
    }

    /// Whether nothing is lost with this session but the need of one full report: the agent has been gone for
    /// `after`, that was told if anybody listens, nothing is desired of it, and its uid is not bound to a certificate.
    pub fn is_forgettable(&self, now: Wall, after: Duration, nobody_listens: bool) -> bool {
        if self.liveness != Liveness::Disconnected {
            return false;
        }
        let since = self.facts.disconnect.map_or(self.last_seen.wall, |(_, at)| at);
        let gone = now.0.saturating_sub(since.0) >= millis(after).into();
        let told = nobody_listens || !self.has_change();
        // A certificate binds the uid to its name; forgetting it would let somebody else have the uid.
        let bound = self.principal().is_some_and(|principal| principal.kind == PrincipalKind::Certificate);
        gone && told && !bound && self.offer.generation() == 0
    }

    /// Whether [`Session::take_change`] has anything to tell.
    pub fn has_change(&self) -> bool {
        self.facts.is_dirty()
    }

    /// What changed materially since the last call, if anything did.
    pub fn take_change(&mut self) -> Option<AgentChange> {
        let (changed, facts, previous_uid) = self.facts.take_dirty()?;
        Some(AgentChange { snapshot: self.snapshot(), changed, facts, previous_uid })
    }

    /// Everything known of the agent.
    pub fn snapshot(&self) -> AgentSnapshot {
        let facts = &self.facts;
        AgentSnapshot {
            uid: self.uid,
            liveness: self.liveness,
            disconnect: facts.disconnect,
            connection: facts.connection.as_deref().cloned(),
            capabilities: self.negotiated.agent(),
            sequence_num: self.sequence,
            last_seen: self.last_seen.wall,
            state: facts.state.clone(),
            remote_config: facts.remote_config.clone(),
            offered: self.offer.offered(),
            desired_generation: self.offer.generation(),
            sticky: facts.sticky.clone(),
            ignored: facts.ignored,
            offer_too_large: self.offer.is_too_large(),
        }
    }

    /// Where the conversation stands, if it moved since the last call.
    pub fn take_checkpoint(&mut self) -> Option<Checkpoint> {
        if !self.checkpoint_due || !self.has_sequence {
            return None;
        }
        self.checkpoint_due = false;
        Some(Checkpoint { uid: self.uid, sequence_num: self.sequence, last_seen: self.last_seen.wall })
    }

    fn message(
        &mut self,
        message: &AgentMessage<'_>,
        assign: Option<InstanceUid>,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        let uid = message.instance_uid()?;
        self.vet(message, &out.settings)?;
        let agent = self.announced(message);
        let accepted = self.accepted_parts(message.parts(), agent, out);

        self.alive(now);
        self.checkpoint_due = true;
        if self.facts.assigned_uid == Some(uid) {
            self.facts.adopt_uid(self.uid);
            self.uid = uid;
        }
        if self.negotiated.agent() != agent {
            self.negotiated.set_agent(agent);
            self.facts.mark(ChangedFacts::CAPABILITIES);
        }
        // A bare identity, as a poll may be, does not count (A-01): it says nothing about what was lost.
        let counted = message.sequence_num().0 != 0 || message.capabilities().bits() != 0;
        if counted || !message.parts().is_empty() || !self.has_sequence {
            self.check_sequence(message.sequence_num(), accepted, agent);
        }
        let offered_at = self.offer.offered_at();
        for part in accepted.iter().filter(|part| part.is_status()) {
            if let Some(bytes) = message.part(part) {
                self.facts.store(part, bytes, offered_at, now.wall)?;
            }
        }
        if accepted.contains(Part::RemoteConfigStatus)
            && let Some(report) = &self.facts.remote_config
        {
            self.offer.reported(report);
        }
        if message.flags().contains(AgentToServerFlags::REQUEST_INSTANCE_UID)
            && self.facts.assigned_uid.is_none()
        {
            self.facts.assigned_uid = assign;
        }
        self.answer(uid, accepted.contains(Part::RemoteConfigStatus), now, out);
        if accepted.contains(Part::AgentDisconnect) {
            self.detach(DisconnectReason::Graceful, now);
        }
        Ok(())
    }

    /// The parts that may be used. The message was vetted: what is not announced is to be ignored.
    fn accepted_parts(&mut self, parts: PartSet, agent: AgentCapabilities, out: &mut Outbox) -> PartSet {
        if parts.is_empty() {
            return parts;
        }
        let negotiated = Negotiated::new(agent, self.negotiated.server());
        let (mut accepted, mut ignored) = (parts, PartSet::NONE);
        for part in parts.iter() {
            match negotiated.received(part) {
                Received::Use => {}
                // The first message is sent before the agent can know the server's bits: no fault of its own.
                Received::NotOurs => {
                    accepted.remove(part);
                }
                Received::Missing(_) => {
                    accepted.remove(part);
                    ignored.insert(part);
                    out.effects.ignored_parts += 1;
                }
            }
        }
        self.facts.note_ignored(ignored);
        accepted
    }

    /// What the agent can do as of this message (A-01: an unset field keeps what is known).
    fn announced(&self, message: &AgentMessage<'_>) -> AgentCapabilities {
        match message.capabilities() {
            unset if unset.bits() == 0 => self.negotiated.agent(),
            announced => announced,
        }
    }

    fn check_sequence(&mut self, sequence: SequenceNum, accepted: PartSet, agent: AgentCapabilities) {
        let gap = self.has_sequence && !sequence.follows(self.sequence);
        let unknown = !self.has_sequence && !self.facts.known.contains(Part::AgentDescription);
        self.sequence = sequence;
        self.has_sequence = true;
        if gap {
            self.facts.count_quietly(|sticky| &mut sticky.gaps);
            self.offer.answer_may_be_lost();
        }
        self.resync.observe(gap || unknown, accepted, agent);
    }

    /// Answers a message that was processed: one message, or on a WebSocket a command behind it.
    fn answer(&mut self, uid: InstanceUid, reports_config: bool, now: Now, out: &mut Outbox) {
        let settings = out.settings;
        let ask = self.resync.ask(now.mono, settings.repeat_after);
        let offer = self.offer.due(
            &self.negotiated,
            reports_config,
            self.transport,
            now,
            &settings,
            &mut out.effects,
        );
        let assigned = self.facts.assigned_uid.filter(|assigned| *assigned != uid);
        let restart = self.restart_due.then(|| self.negotiated.permit()).flatten();
        self.restart_due = restart.is_some(); // withdrawn capability: the order is void
        let alone = !ask && offer.is_none() && assigned.is_none();

        let mut reply = out.begin(Some(&uid));
        if let Some((permit, offer)) = &offer {
            reply.remote_config(permit, offer);
        }
        if ask {
            reply.report_full_state();
        }
        reply.capabilities(self.negotiated.server());
        if let Some(assigned) = &assigned {
            reply.agent_identification(assigned);
        }
        let message = match restart {
            Some(permit) if alone => {
                self.restart_due = false;
                let message = reply.restart(&permit);
                out.effects.restarts += 1;
                message
            }
            _ => reply.finish(),
        };
        out.push(message);
        Self::note_sent(&mut self.facts, offer.is_some(), ask, out);
        drop(offer);
        if self.transport == Transport::WebSocket {
            self.send_restart(out);
        }
    }

    /// Sends what is due without being asked; WebSocket only.
    fn wake(&mut self, now: Now, out: &mut Outbox) {
        if self.transport == Transport::Http || self.liveness == Liveness::Disconnected {
            return;
        }
        let settings = out.settings;
        let ask = self.resync.ask_unsolicited(now.mono);
        let offer = self.offer.due(&self.negotiated, false, self.transport, now, &settings, &mut out.effects);
        if offer.is_some() || ask {
            let mut message = out.begin(Some(&self.uid));
            if let Some((permit, offer)) = &offer {
                message.remote_config(permit, offer);
            }
            if ask {
                message.report_full_state();
            }
            message.capabilities(self.negotiated.server());
            let message = message.finish();
            out.push(message);
        }
        Self::note_sent(&mut self.facts, offer.is_some(), ask, out);
        drop(offer);
        self.send_restart(out);
    }

    /// The restart command in a message of its own (R-CMD-01); dropped if the agent withdrew the capability.
    fn send_restart(&mut self, out: &mut Outbox) {
        if !std::mem::take(&mut self.restart_due) {
            return;
        }
        let Some(permit) = self.negotiated.permit() else {
            return;
        };
        let mut message = out.begin(Some(&self.uid));
        message.capabilities(self.negotiated.server());
        let message = message.restart(&permit);
        out.push(message);
        out.effects.restarts += 1;
    }

    fn note_sent(facts: &mut Facts, offered: bool, asked: bool, out: &mut Outbox) {
        if offered {
            out.effects.offers += 1;
            facts.mark(ChangedFacts::OFFER);
        }
        if asked {
            out.effects.full_state_requests += 1;
            facts.count_quietly(|sticky| &mut sticky.full_state_requests);
        }
        if out.effects.discarded_oversize > 0 {
            facts.mark(ChangedFacts::OFFER);
        }
    }

    fn attach(&mut self, connection: Arc<ConnectionInfo>, now: Now) {
        if self.liveness != Liveness::Disconnected {
            // Taken over from a connection whose end nobody noticed.
            self.facts.count(|sticky| &mut sticky.disconnects);
        }
        let gave_up = matches!(self.facts.disconnect, Some((DisconnectReason::Timeout, _)));
        if gave_up && self.transport == Transport::Http && connection.transport == Transport::Http {
            // It may poll more slowly than was thought, or it was away: learn in steps, or a long absence would make
            // the next one invisible.
            let known = Duration::from_millis(self.poll_interval_ms.into());
            self.observe_gap((now.mono - self.last_seen.mono).min(known * 2));
        }
        self.transport = connection.transport;
        self.liveness = Liveness::Connected;
        self.last_seen = now;
        self.offer.reconnected();
        self.facts.attach(connection);
    }

    fn detach(&mut self, reason: DisconnectReason, now: Now) {
        if self.liveness == Liveness::Disconnected {
            return;
        }
        self.liveness = Liveness::Disconnected;
        self.restart_due = false; // commands do not wait for agents
        self.facts.detach(reason, now.wall);
    }

    fn alive(&mut self, now: Now) {
        if self.transport == Transport::Http && self.liveness != Liveness::Disconnected {
            self.observe_gap(now.mono - self.last_seen.mono);
        }
        self.last_seen = now;
        if self.liveness == Liveness::Stale {
            self.liveness = Liveness::Connected;
            self.facts.mark(ChangedFacts::LIVENESS);
        }
    }

    /// Learns the polling interval. A longer gap counts at once; shorter ones count by the time they cover, so that
    /// a burst of reports is not taken for a pace.
    fn observe_gap(&mut self, gap: Duration) {
        let (gap, known) =
            (u64::from(millis(gap.min(POLL_INTERVAL_MAX))), u64::from(self.poll_interval_ms).max(1));
        let learned = if gap >= known { gap } else { known - (known - gap) * gap / (4 * known) };
        self.poll_interval_ms = u32::try_from(learned).unwrap_or(u32::MAX);
    }

    fn tick(&mut self, now: Now, out: &Outbox) {
        while self.deadline(&out.settings).is_some_and(|deadline| deadline <= now.mono) {
            match self.liveness {
                Liveness::Connected => {
                    self.liveness = Liveness::Stale;
                    self.facts.mark(ChangedFacts::LIVENESS);
                }
                Liveness::Stale | Liveness::Disconnected => self.detach(DisconnectReason::Timeout, now),
            }
        }
    }

    fn stale_after(&self, settings: &SessionSettings) -> Duration {
        match self.transport {
            Transport::WebSocket => settings.websocket_stale_after,
            Transport::Http => {
                (Duration::from_millis(self.poll_interval_ms.into()) * 3).max(settings.http_stale_min)
            }
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
