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
//! Configurations, connection settings and packages are offered by the same rules, each by its own hash and generation.
//!
//! Only custom messages and the restart order are queued. They go out at most once: what could not be written
//! ([`Input::Unwritten`]) is counted and not repeated (A-20).

mod compose;
mod extra;
mod facts;
mod liveness;
mod message;
mod offer;
mod outbox;
mod reports;
mod resync;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{
    AgentCapabilities, AgentMessage, Held, HeldPart, InstanceUid, Mono, Now, Part, SequenceNum, Wall, pb,
};
use prost::Message as _;

use crate::capability::{Negotiated, Received};
use crate::custom::{CustomError, CustomMessage};
use crate::desired::{ConnectionSettingsOffer, Desired, Offered, RemoteConfigOffer, Target};
use crate::refusal::SessionError;
use crate::snapshot::{
    AgentChange, AgentSnapshot, ChangedFacts, Checkpoint, ConnectionInfo, DisconnectReason, Liveness,
    OfferFacts, OfferSeed, Principal, PrincipalKind, Seed, Transport,
};

use self::compose::ENVELOPE_BYTES;
use self::extra::Extra;
use self::facts::Facts;
use self::offer::OfferState;
pub use self::outbox::{CapabilityMismatch, Effects, Outbox, SessionSettings};
use self::reports::{KindFacts, Report};
use self::resync::Resync;

/// What happens to a session.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// A sign of life that is no message: a WebSocket pong.
    Alive,
    /// The agent is on this connection from now on.
    Attached(Arc<ConnectionInfo>),
    /// The agent's certificate request was granted: this is what it should have from now on, and it asked for it. Under an
    /// older generation than what is desired already it is refused instead.
    CertificateIssued(Target<ConnectionSettingsOffer>),
    /// The agent's certificate request was refused, for this reason (R-CSR-14).
    CertificateRefused(String),
    /// A complete list of components the driver knows, encoded as `AvailableComponents`: either the one this agent
    /// reported, to share its memory, or the one under the hash in the message that comes next (R-COMP-07).
    Components(Bytes),
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
    /// Somebody else sent a message under this agent's identity.
    UidConflict,
    /// The messages of the last `Message` or `Wake` did not leave, or not all of them: the connection broke.
    Unwritten,
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
    /// Digest of the custom capabilities of the server that the agent was told on this connection; 0 for none.
    custom_told: u64,
    poll_interval_ms: u32,
    has_sequence: bool,
    liveness: Liveness,
    restart_due: bool,
    checkpoint_due: bool,
    transport: Transport,
    offer: OfferState<RemoteConfigOffer>,
    resync: Resync,
    facts: Box<Facts>,
    extra: Option<Box<Extra>>,
}

impl Session {
    /// A session for an agent nothing is known of.
    pub fn new(uid: InstanceUid, settings: &SessionSettings, now: Now) -> Self {
        Self {
            uid,
            negotiated: Negotiated::new(AgentCapabilities::NONE, settings.announced()),
            sequence: SequenceNum(0),
            last_seen: now,
            custom_told: 0,
            poll_interval_ms: liveness::millis(settings.http_interval_assumed),
            has_sequence: false,
            liveness: Liveness::Disconnected,
            restart_due: false,
            checkpoint_due: false,
            transport: Transport::WebSocket,
            offer: OfferState::default(),
            resync: Resync::default(),
            facts: Box::default(),
            extra: None,
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
        let Seed { desired, remote_config, connection_settings, packages, components, .. } = seed;
        let nothing = is_blank(&connection_settings) && is_blank(&packages) && components.is_none();
        let (settings_failed, settings_before) =
            (connection_settings.failed, connection_settings.offered.clone());
        let (packages_failed, packages_before) = (packages.failed, packages.offered.clone());
        if !nothing {
            let extra = session.extra.get_or_insert_default();
            extra.settings_facts = KindFacts::restore(connection_settings);
            extra.packages_facts = KindFacts::restore(packages);
            if let Some(list) = components {
                extra.components.restore(list);
            }
        }
        session.desire(desired);
        session.offer.restore(remote_config.failed, remote_config.offered.as_ref());
        if let Some(extra) = &mut session.extra {
            extra.settings.restore(settings_failed, settings_before.as_ref());
            if let Some(offer) = extra.settings.desired().filter(|_| extra.settings.is_made()) {
                extra.delivered.assume(offer, session.negotiated.settings_permits().parts());
            }
            extra.packages.restore(packages_failed, packages_before.as_ref());
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
            Input::Detached(reason) => self.detach(reason, now, out),
            Input::Desired(desired) => self.desire(desired),
            Input::Restart => self.restart_due = true,
            Input::RequestFullState => self.resync.request(true),
            Input::Components(list) => {
                if self.extra.get_or_insert_default().components.offer(list.clone()) {
                    self.facts.mark(ChangedFacts::COMPONENTS);
                }
                self.facts.share(Part::AvailableComponents, &list);
            }
            Input::CertificateIssued(target) => self.certificate_issued(target, out),
            Input::CertificateRefused(why) => {
                out.effects.certificates_refused += 1;
                self.extra.get_or_insert_default().certificate.decided(Some(why));
            }
            Input::UidConflict => self.facts.note_conflict(now.wall),
            Input::Unwritten => self.unwritten(out),
        }
        Ok(())
    }

    /// Queues a custom message for the agent; it goes out with the next messages, one in each, in order. It is sent at
    /// most once, and does not outlive the connection.
    ///
    /// # Errors
    ///
    /// [`CustomError`] says why it cannot be sent; nothing was queued then.
    pub fn queue_custom(
        &mut self,
        message: CustomMessage,
        settings: &SessionSettings,
    ) -> Result<(), CustomError> {
        self.check_custom(&message, settings)?;
        self.extra.get_or_insert_default().custom.push(message, settings)
    }

    /// Whether [`Session::queue_custom`] would take this message now.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn check_custom(
        &self,
        message: &CustomMessage,
        settings: &SessionSettings,
    ) -> Result<(), CustomError> {
        if self.liveness == Liveness::Disconnected {
            return Err(CustomError::NoSession);
        }
        let capability = || message.capability.clone();
        if !settings.custom_capabilities.contains(&message.capability) {
            return Err(CustomError::NotOurs { capability: capability() });
        }
        if !self.announced_custom(&message.capability) {
            return Err(CustomError::NotAnnounced { capability: capability() });
        }
        let (bytes, max) = (message.len_bytes(), settings.send_bytes());
        if bytes + ENVELOPE_BYTES > max {
            return Err(CustomError::TooLarge { bytes, max });
        }
        self.extra.as_ref().map_or(Ok(()), |extra| extra.custom.has_room(bytes, settings))
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

    /// Whether this session would use this part of a message, by what both sides announce as of that message.
    pub fn would_take(&self, message: &AgentMessage<'_>, part: Part) -> bool {
        let negotiated = Negotiated::new(self.announced(message), self.negotiated.server());
        negotiated.received(part) == Received::Use
    }

    /// Whether these very bytes are what the agent reported last as this part.
    pub fn holds(&self, part: Part, encoded: &[u8]) -> bool {
        self.facts.holds(part, encoded)
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

    /// The turn of this agent has come to be asked for full state, which it was deferred from
    /// ([`Effects::full_state_deferred`]). Whether it is going to be asked: on a WebSocket with [`Input::Wake`], on plain HTTP
    /// with its next answer. False if it need not be any more, or is not `there`.
    pub fn permit_full_state(&mut self, there: bool) -> bool {
        self.resync.permit(there)
    }

    /// Whether a message with this number comes right after the last one of this agent.
    pub fn is_continued_by(&self, sequence: SequenceNum) -> bool {
        self.has_sequence && sequence.follows(self.sequence)
    }

    /// The connection settings this agent was offered since they are desired, unless it reported that they failed.
    pub fn settings_offered(&self) -> Option<&ConnectionSettingsOffer> {
        let settings = &self.extra.as_ref()?.settings;
        settings.desired().filter(|_| settings.is_made() && !settings.is_failed())
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
        connected.or(self.facts.remembered.as_deref())
    }

    /// Last sign of life.
    pub fn last_seen(&self) -> Now {
        self.last_seen
    }

    /// Whether the session was made and nothing has become of it: no connection, nothing desired, nothing restored.
    pub fn is_unused(&self) -> bool {
        let known = self.principal().is_some() || self.has_sequence || !self.facts.known.is_empty();
        !known && !self.is_anything_desired()
    }

    /// Whether nothing is lost with this session but the need of one full report: the agent has been gone for
    /// `after`, that was told if anybody listens, nothing is desired of it, and its uid is not bound to a certificate.
    pub fn is_forgettable(&self, now: Wall, after: Duration, nobody_listens: bool) -> bool {
        if self.liveness != Liveness::Disconnected {
            return false;
        }
        let since = self.facts.disconnect.map_or(self.last_seen.wall, |(_, at)| at);
        let gone = now.0.saturating_sub(since.0) >= liveness::millis(after).into();
        let told = nobody_listens || !self.has_change();
        // A certificate binds the uid to its name; forgetting it would let somebody else have the uid.
        let bound = self.principal().is_some_and(|principal| principal.kind == PrincipalKind::Certificate);
        gone && told && !bound && !self.is_anything_desired()
    }

    /// Whether [`Session::take_change`] has anything to tell.
    pub fn has_change(&self) -> bool {
        self.facts.is_dirty()
    }

    /// Whether [`Session::take_change`] has more to tell than that something was offered, which can wait for the agent's answer.
    pub fn has_news(&self) -> bool {
        self.facts.has_news()
    }

    /// Whether the agent uses another identity than at the last [`Session::take_change`].
    pub fn has_moved(&self) -> bool {
        self.facts.has_moved()
    }

    /// What changed materially since the last call, if anything did.
    pub fn take_change(&mut self) -> Option<AgentChange> {
        let (changed, facts, previous_uid) = self.facts.take_dirty()?;
        Some(AgentChange { snapshot: self.snapshot(), changed, facts, previous_uid })
    }

    /// Everything known of the agent.
    pub fn snapshot(&self) -> AgentSnapshot {
        let (facts, extra) = (&self.facts, self.extra.as_deref());
        AgentSnapshot {
            uid: self.uid,
            liveness: self.liveness,
            disconnect: facts.disconnect,
            connection: facts.connection.clone(),
            capabilities: self.negotiated.agent(),
            sequence_num: self.sequence,
            last_seen: self.last_seen.wall,
            state: facts.state.clone(),
            remote_config: offer_facts(&self.offer, &facts.remote_config),
            connection_settings: extra
                .map(|extra| offer_facts(&extra.settings, &extra.settings_facts))
                .unwrap_or_default(),
            packages: extra
                .map(|extra| offer_facts(&extra.packages, &extra.packages_facts))
                .unwrap_or_default(),
            components: extra.and_then(|extra| extra.components.list().cloned()),
            sticky: facts.sticky.clone(),
            ignored: facts.ignored,
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

    /// Takes over what the agent should have, kind by kind.
    fn desire(&mut self, desired: Desired) {
        let Desired { remote_config, connection_settings, packages } = desired;
        self.offer.desire(remote_config, self.facts.remote_config.reported());
        if connection_settings.generation > 0 {
            let extra = self.extra.get_or_insert_default();
            if extra.settings.desire(connection_settings, extra.settings_facts.reported()) {
                extra.delivered.desire();
                if let Some(offer) = extra.settings.desired().filter(|_| extra.settings.is_current()) {
                    extra.delivered.assume(offer, self.negotiated.settings_permits().parts());
                }
            }
        }
        if packages.generation > 0 {
            let extra = self.extra.get_or_insert_default();
            extra.packages.desire(packages, extra.packages_facts.reported());
        }
    }

    fn certificate_issued(&mut self, target: Target<ConnectionSettingsOffer>, out: &mut Outbox) {
        let extra = self.extra.get_or_insert_default();
        if extra.settings.generation() > target.generation {
            // The agent would get those of the newer generation, without its certificate.
            let why = "other connection settings were set while the certificate was issued; ask again";
            extra.certificate.decided(Some(why.to_owned()));
            out.effects.certificates_refused += 1;
            return;
        }
        out.effects.certificates_issued += 1;
        self.desire(Desired { connection_settings: target, ..Desired::default() });
        let extra = self.extra.get_or_insert_default();
        extra.certificate.decided(None);
        // It asked, so it gets what is desired, whatever it got or failed at before.
        extra.settings.ask_again();
        extra.delivered.forget();
    }

    /// Whether the agent announced this custom capability in its last list (R-CUST-03, R-CUST-04).
    fn announced_custom(&self, capability: &str) -> bool {
        let list = self.facts.state.part(Part::CustomCapabilities);
        let list = list.and_then(|list| pb::CustomCapabilities::decode(list.clone()).ok());
        list.is_some_and(|list| list.capabilities.iter().any(|name| name == capability))
    }

    fn is_anything_desired(&self) -> bool {
        let extra = self.extra.as_ref();
        self.offer.generation() != 0
            || extra.is_some_and(|extra| extra.settings.generation() != 0 || extra.packages.generation() != 0)
    }

    /// What the agent can do as of this message (A-01: an unset field keeps what is known).
    fn announced(&self, message: &AgentMessage<'_>) -> AgentCapabilities {
        match message.capabilities() {
            unset if unset.bits() == 0 => self.negotiated.agent(),
            announced => announced,
        }
    }
}

/// What the agent reported in messages that were accepted.
impl Held for Session {
    fn part(&self, part: Part) -> Option<HeldPart<'_>> {
        self.facts.held(part)
    }
}

fn offer_facts<O: Offered + Clone, R: Report>(
    offer: &OfferState<O>,
    reports: &KindFacts<R>,
) -> OfferFacts<R> {
    reports.complete(OfferFacts {
        generation: offer.generation(),
        offered: offer.offered(),
        failed: offer.is_failed(),
        too_large: offer.is_too_large(),
        ..OfferFacts::default()
    })
}

/// Whether an earlier process knew nothing of this kind.
fn is_blank<R>(seed: &OfferSeed<R>) -> bool {
    let OfferSeed { report, offered, failed, last_failure, last_applied } = seed;
    report.is_none() && offered.is_none() && !failed && last_failure.is_none() && last_applied.is_none()
}
