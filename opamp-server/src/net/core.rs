//! What the two transports share: finding the agent, letting its session handle the message, counting.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use opamp_proto::{InstanceUid, Limits, Mono, Now, pb};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::admission::stats::AdmissionStage;
use super::auth::Authenticate;
use super::certificates::Issuer;
use super::changes::{ChangeQueue, Refusal};
use super::clock::Clock;
use super::components::ComponentCache;
use super::configs::ConfigTable;
use super::connection::Connection;
use super::connections::Connections;
use super::directory::{Directory, Owner, Slot, SlotInner};
use super::outboxes::Outboxes;
use super::peer::PeerInfo;
use super::presented::Presented;
use super::settings::ServerSettings;
use super::stats::Counters;
use super::throttle::ThrottleState;
use crate::custom::{CustomCapabilities, CustomError, CustomMessage};
use crate::desired::Desired;
use crate::refusal::{CloseCode, ErrorReply, RefusalReason, SessionError};
use crate::session::{Input, Outbox, Session, SessionSettings};
use crate::snapshot::{ConnectionInfo, DisconnectReason, Dispatch, Liveness, Principal, Seed, Transport};

pub(crate) struct Core {
    pub(crate) path: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) settings: ServerSettings,
    pub(crate) auth: Arc<dyn Authenticate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) directory: Directory,
    pub(crate) changes: Arc<ChangeQueue>,
    pub(crate) counters: Counters,
    /// Cancelled when draining begins.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the driver has nothing left to do.
    pub(crate) drained: CancellationToken,
    /// The tasks of WebSockets, which a drain waits for.
    pub(crate) sockets: TaskTracker,
    pub(crate) events_taken: AtomicBool,
    pub(crate) connections: Connections,
    pub(crate) issuer: Option<Issuer>,
    pub(crate) components: ComponentCache,
    pub(crate) configs: ConfigTable,
    pub(crate) throttle: ThrottleState,
    /// Budgets, paces and limits of who may come in.
    pub(crate) admission: Admission,
    custom: Mutex<CustomCapabilities>,
    /// The digest of `custom`, so that kept outboxes notice a change without a lock.
    custom_digest: AtomicU64,
    connection_ids: AtomicU64,
    outboxes: Outboxes,
}

/// Who sends a message: everything a session needs to know of its transport.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    Polling {
        principal: &'a Principal,
        remote_addr: Option<SocketAddr>,
        headers: &'a HeaderMap,
        peer: Option<&'a PeerInfo>,
    },
    Socket(&'a Arc<Connection>),
}

impl Core {
    pub(crate) fn new(
        path: Option<String>,
        limits: Limits,
        settings: ServerSettings,
        auth: Arc<dyn Authenticate>,
        clock: Arc<dyn Clock>,
        issuer: Option<Issuer>,
    ) -> Self {
        Self {
            issuer,
            components: ComponentCache::new(&settings),
            configs: ConfigTable::new(&settings),
            throttle: ThrottleState::default(),
            admission: Admission::new(&settings, clock.now().mono),
            custom_digest: AtomicU64::new(settings.session.custom_capabilities.digest()),
            custom: Mutex::new(settings.session.custom_capabilities.clone()),
            path,
            limits,
            auth,
            clock,
            directory: Directory::new(),
            changes: Arc::new(ChangeQueue::new(&settings)),
            counters: Counters::default(),
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            sockets: TaskTracker::new(),
            events_taken: AtomicBool::new(false),
            connections: Connections::new(),
            connection_ids: AtomicU64::new(1),
            outboxes: Outboxes::new(),
            settings,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(crate) fn outbox(&self) -> Box<Outbox> {
        let Some(mut outbox) = self.outboxes.take() else {
            return Box::new(Outbox::new(self.session_settings()));
        };
        if outbox.settings().custom_capabilities.digest() != self.custom_digest.load(Ordering::Acquire) {
            outbox.set_custom_capabilities(self.lock_custom().clone());
        }
        outbox
    }

    pub(crate) fn reuse(&self, outbox: Box<Outbox>) {
        self.outboxes.put(outbox);
    }

    pub(crate) fn next_connection(
        &self,
        transport: Transport,
        principal: Principal,
        remote_addr: Option<SocketAddr>,
        now: Now,
    ) -> Arc<ConnectionInfo> {
        let id = self.connection_ids.fetch_add(1, Ordering::Relaxed);
        Arc::new(ConnectionInfo { id, transport, remote_addr, principal, connected_at: now.wall })
    }

    /// Feeds an input that is no message, tells what changed, and wakes the socket that has something to send.
    ///
    /// None if the agent was forgotten since the slot was found; the input is not made then. It is made while the agent is
    /// locked, so that it must lock nothing.
    pub(crate) fn dispatch<'a>(
        &self,
        slot: &Arc<Slot>,
        input: impl FnOnce() -> Input<'a>,
    ) -> Option<Dispatch> {
        let mut inner = slot.lock();
        if inner.forgotten {
            return None;
        }
        let (mut out, now) = (self.outbox(), self.now());
        self.pace(&mut out, now.mono);
        let handled = inner.session.handle(input(), now, &mut out);
        debug_assert!(handled.is_ok(), "only messages are refused");
        self.note_effects(slot, &out, now.mono);
        self.note_change(slot, &inner.session);
        let wake = inner.mark_woken();
        let dispatch = match &inner.owner {
            Owner::Socket(connection) => {
                if wake {
                    connection.wake(slot);
                }
                Dispatch::Pushed
            }
            Owner::Polling if inner.session.liveness() != Liveness::Disconnected => Dispatch::NextPoll,
            Owner::Polling | Owner::Nobody => Dispatch::NoSession,
        };
        drop(inner);
        self.reuse(out);
        Some(dispatch)
    }

    /// Sets the desired state of an agent, known or not: it waits for the agent to come.
    pub(crate) fn set_desired(&self, uid: &InstanceUid, mut desired: Desired) -> Dispatch {
        let max = usize::MAX; // the application's own doing is not an attack
        loop {
            let make = || Session::new(*uid, &self.settings.session, self.now());
            let Some(slot) = self.directory.find_or_insert(uid, max, make) else {
                return Dispatch::NoSession;
            };
            if let Some(dispatch) = self.dispatch(&slot, || Input::Desired(std::mem::take(&mut desired))) {
                return dispatch;
            }
        }
    }

    pub(crate) fn restore(&self, mut seed: Seed) {
        let (uid, now) = (seed.uid, self.now());
        let expected = self.directory.find(&uid).is_none() && self.admission.returning.expects(&seed);
        seed.components = seed.components.map(|list| self.components.prime(&list).unwrap_or(list));
        let session = Session::restore(seed, &self.settings.session, now);
        let slot = self.directory.find_or_insert(&uid, usize::MAX, || session);
        if let Some(slot) = slot.filter(|_| expected) {
            slot.lock().expected = true;
        }
    }

    /// Ends the attachment of an agent to a socket, unless another connection has it by now.
    pub(crate) fn detach(&self, slot: &Arc<Slot>, connection: &Connection, reason: DisconnectReason) {
        let mut inner = slot.lock();
        if inner.is_owned_by(connection) {
            inner.own(Owner::Nobody);
            self.end_session(slot, &mut inner, reason);
        }
    }

    /// Forgets an agent altogether.
    pub(crate) fn forget(&self, uid: &InstanceUid) -> bool {
        let Some(slot) = self.directory.find(uid) else {
            return false;
        };
        let mut inner = slot.lock();
        inner.forgotten = true;
        self.no_longer_expected(&mut inner);
        let assigned = inner.session.assigned_uid();
        let current = inner.session.uid();
        if let Owner::Socket(connection) = inner.own(Owner::Nobody) {
            connection.release(current);
        }
        drop(inner);
        for uid in [Some(*uid), Some(current), assigned].into_iter().flatten() {
            self.directory.remove(&uid, &slot);
        }
        true
    }

    /// An agent that was expected back is not waited for any more.
    pub(crate) fn no_longer_expected(&self, inner: &mut SlotInner) {
        if std::mem::take(&mut inner.expected) {
            self.admission.returning.given_up(self.now().mono);
        }
    }

    /// Tells a session, before it handles anything, whether the fleet's pace of full-state requests leaves room for one.
    pub(crate) fn pace(&self, out: &mut Outbox, now: Mono) {
        out.allow_full_state(self.admission.resyncs.is_open(now));
    }

    /// Counts what a session did, and remembers what it has to leave for later.
    pub(crate) fn note_effects(&self, slot: &Arc<Slot>, out: &Outbox, now: Mono) {
        let effects = out.effects();
        self.counters.effects(effects);
        self.admission.resyncs.note(slot, effects, now);
    }

    pub(crate) fn note_change(&self, slot: &Arc<Slot>, session: &Session) {
        if session.has_news() {
            self.changes.agent(slot);
            if session.has_moved() {
                self.changes.hurry();
            }
        } else if session.has_change() {
            self.changes.offered(slot);
        }
    }

    /// Counts a refusal and puts it into the event queue.
    pub(crate) fn refused(
        &self,
        reason: RefusalReason,
        detail: String,
        principal: Option<String>,
        remote_addr: Option<SocketAddr>,
        transport: Option<Transport>,
    ) {
        self.counters.rejected(reason, 1);
        tracing::debug!(%reason, detail, ?remote_addr, "refused");
        let at = self.now().wall;
        self.changes.refused(Refusal { at, reason, detail, principal, remote_addr, transport, folded: 0 });
    }

    /// Counts a faulty message and writes its error response, if it gets one; when to come back, if the sender is sent away.
    pub(crate) fn fault(
        &self,
        error: &SessionError,
        uid: Option<&InstanceUid>,
        sender: Sender<'_>,
        out: &mut Outbox,
    ) -> Option<Duration> {
        let stage = self.stage(error);
        if let Some(stage) = stage {
            self.admission.counters.rejected(stage);
        }
        let consequence = error.consequence();
        self.refused(
            consequence.reason,
            error.to_string(),
            sender.principal().named(),
            sender.remote_addr(),
            Some(sender.transport()),
        );
        let (kind, retry) = match consequence.reply {
            ErrorReply::Nothing => return None,
            ErrorReply::BadRequest => (pb::ServerErrorResponseType::BadRequest, None),
            ErrorReply::Unavailable => {
                // Who stays on its socket need not be let in again.
                let leaves = sender.transport() == Transport::Http || consequence.close.is_some();
                let retry = self.retry_after(stage.filter(|_| leaves));
                (pb::ServerErrorResponseType::Unavailable, Some(retry))
            }
        };
        let nanos = retry.map(|retry| u64::try_from(retry.as_nanos()).unwrap_or(u64::MAX));
        out.clear();
        let message = out.begin(uid).error(kind, &error.to_string(), nanos);
        out.push(message);
        retry
    }

    /// Where a message is sent away, if it is for want of capacity.
    fn stage(&self, error: &SessionError) -> Option<AdmissionStage> {
        match error {
            SessionError::NoRoom => Some(AdmissionStage::Memory),
            SessionError::Throttled if self.draining.is_cancelled() => Some(AdmissionStage::Drain),
            SessionError::Throttled => Some(AdmissionStage::Throttle),
            SessionError::TooManyAgents { .. } => Some(AdmissionStage::Agents),
            _ => None,
        }
    }

    /// When a peer that is sent away at this stage, or at none, should come back: as the throttle or the settings have it, or,
    /// where it is for want of room, when those are through who are to come before; up to twice as long at random, so that they
    /// do not come together.
    pub(crate) fn retry_after(&self, stage: Option<AdmissionStage>) -> Duration {
        let jitter = getrandom::u32().unwrap_or(0);
        let least = self.throttle.get().map_or(self.settings.retry_after, |throttle| throttle.retry_after);
        let retry_after = match stage {
            Some(stage) if stage.is_for_want_of_room() => self.admission.send_away(least, self.now().mono),
            Some(_) | None => least,
        };
        retry_after.mul_f64(1.0 + f64::from(jitter) / f64::from(u32::MAX))
    }

    pub(crate) fn register(&self, connection: &Arc<Connection>) {
        self.connections.insert(connection);
        self.counters.websocket_opened();
        if self.draining.is_cancelled() {
            connection.close(CloseCode::GoingAway, DisconnectReason::ServerShutdown);
        }
    }

    pub(crate) fn unregister(&self, connection: &Connection, now: Mono) {
        if self.connections.remove(connection) {
            self.counters.websocket_closed(now - connection.opened());
            self.admission.identities.leave(&connection.info.principal);
        }
    }

    pub(crate) fn lock_custom(&self) -> MutexGuard<'_, CustomCapabilities> {
        self.custom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces another list of custom capabilities from now on, to sockets at once.
    pub(crate) fn set_custom_capabilities(&self, capabilities: CustomCapabilities) {
        let mut custom = self.lock_custom();
        self.custom_digest.store(capabilities.digest(), Ordering::Release);
        *custom = capabilities;
        drop(custom);
        self.directory.for_each(|slot| {
            let mut inner = slot.lock();
            if matches!(inner.owner, Owner::Socket(_))
                && inner.mark_woken()
                && let Owner::Socket(connection) = &inner.owner
            {
                connection.wake(slot);
            }
        });
    }

    /// The settings of sessions, with the custom capabilities of now.
    fn session_settings(&self) -> SessionSettings {
        let custom_capabilities = self.lock_custom().clone();
        SessionSettings { custom_capabilities, ..self.settings.session.clone() }
    }

    /// Whether [`Core::send_custom`] would take this message now.
    pub(crate) fn check_custom(&self, uid: &InstanceUid, message: &CustomMessage) -> Result<(), CustomError> {
        let slot = self.directory.find(uid).ok_or(CustomError::NoSession)?;
        slot.lock().session.check_custom(message, &self.session_settings())
    }

    /// Queues a custom message for a connected agent and wakes its socket.
    pub(crate) fn send_custom(
        &self,
        uid: &InstanceUid,
        message: CustomMessage,
    ) -> Result<Dispatch, CustomError> {
        let slot = self.directory.find(uid).ok_or(CustomError::NoSession)?;
        let settings = self.session_settings();
        let mut inner = slot.lock();
        if inner.forgotten {
            return Err(CustomError::NoSession);
        }
        inner.session.queue_custom(message, &settings)?;
        let wake = inner.mark_woken();
        match &inner.owner {
            Owner::Socket(connection) => {
                if wake {
                    connection.wake(&slot);
                }
                Ok(Dispatch::Pushed)
            }
            Owner::Polling | Owner::Nobody => Ok(Dispatch::NextPoll),
        }
    }

    /// A fresh version 7 identity (R-ID-10).
    pub(crate) fn fresh_uid(&self) -> Option<InstanceUid> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).ok()?;
        Some(InstanceUid::v7(self.now().wall.0, random))
    }

    fn end_session(&self, slot: &Arc<Slot>, inner: &mut SlotInner, reason: DisconnectReason) {
        let mut out = self.outbox();
        let handled = inner.session.handle(Input::Detached(reason), self.now(), &mut out);
        debug_assert!(handled.is_ok(), "only messages are refused");
        self.counters.effects(out.effects());
        self.note_change(slot, &inner.session);
        self.reuse(out);
    }
}

impl<'a> Sender<'a> {
    pub(crate) fn principal(self) -> &'a Principal {
        match self {
            Self::Polling { principal, .. } => principal,
            Self::Socket(connection) => &connection.info.principal,
        }
    }

    /// The credentials themselves, as far as they can be offered.
    pub(crate) fn presented(self) -> Presented {
        match self {
            Self::Polling { headers, peer, .. } => Presented::of(headers, peer),
            Self::Socket(connection) => connection.presented,
        }
    }

    pub(crate) fn remote_addr(self) -> Option<SocketAddr> {
        match self {
            Self::Polling { remote_addr, .. } => remote_addr,
            Self::Socket(connection) => connection.info.remote_addr,
        }
    }

    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::Polling { .. } => Transport::Http,
            Self::Socket(_) => Transport::WebSocket,
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("path", &self.path)
            .field("agents", &self.directory.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InsecureAcceptEveryone, OpampServer};

    #[test]
    fn what_is_meant_for_an_agent_that_was_just_forgotten_stays_for_its_next_session() {
        let (_service, handle, _driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).build();
        let (core, uid) = (&handle.0, InstanceUid::from_bytes([7; 16]));
        core.set_desired(&uid, Desired::default());
        let slot = core.directory.find(&uid).expect("something was desired of it");
        assert!(core.forget(&uid));
        assert_eq!(core.dispatch(&slot, || unreachable!("it is for the next session")), None);
    }
}
