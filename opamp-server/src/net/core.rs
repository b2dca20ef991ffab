//! What the two transports share: finding the agent, letting its session handle the message, counting.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opamp_proto::{AgentMessage, AgentToServerFlags, InstanceUid, Limits, Mono, Now, pb};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Authenticate;
use super::changes::{ChangeQueue, Refusal};
use super::clock::Clock;
use super::connection::Connection;
use super::directory::{Directory, Owner, Slot, SlotInner};
use super::settings::ServerSettings;
use super::stats::Counters;
use crate::desired::Desired;
use crate::refusal::{CloseCode, ErrorReply, RefusalReason, SessionError};
use crate::session::{Input, Outbox, Session};
use crate::snapshot::{
    ConnectionInfo, DisconnectReason, Dispatch, Liveness, Principal, PrincipalKind, Seed, Transport,
};

/// Outboxes kept for reuse.
const OUTBOXES_KEPT: usize = 64;

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
    pub(crate) connections: Mutex<HashMap<u64, Arc<Connection>>>,
    connection_ids: AtomicU64,
    outboxes: Mutex<Vec<Outbox>>,
}

/// Who sends a message: everything a session needs to know of its transport.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    Polling { principal: &'a Principal, remote_addr: Option<SocketAddr> },
    Socket(&'a Arc<Connection>),
}

impl Core {
    pub(crate) fn new(
        path: Option<String>,
        limits: Limits,
        settings: ServerSettings,
        auth: Arc<dyn Authenticate>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            path,
            limits,
            auth,
            clock,
            directory: Directory::new(),
            changes: Arc::new(ChangeQueue::new(settings.refusals_kept)),
            counters: Counters::default(),
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            sockets: TaskTracker::new(),
            events_taken: AtomicBool::new(false),
            connections: Mutex::default(),
            connection_ids: AtomicU64::new(1),
            outboxes: Mutex::default(),
            settings,
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    pub(crate) fn outbox(&self) -> Outbox {
        let reused = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        reused.unwrap_or_else(|| Outbox::new(self.settings.session))
    }

    pub(crate) fn reuse(&self, mut outbox: Outbox) {
        outbox.clear();
        let mut outboxes = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        if outboxes.len() < OUTBOXES_KEPT {
            outboxes.push(outbox);
        }
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

    /// Handles one decoded `AgentToServer`; the answer is in the outbox. Returns the slot for the caller to keep.
    pub(crate) fn receive(
        &self,
        message: &AgentMessage<'_>,
        sender: Sender<'_>,
        out: &mut Outbox,
    ) -> Result<(InstanceUid, Arc<Slot>), SessionError> {
        let uid = message.instance_uid()?;
        let now = self.now();
        if !self.auth.owns(sender.principal(), &uid) {
            return Err(SessionError::UidConflict { uid });
        }
        let slot = loop {
            let max = self.settings.agents_max;
            let slot = self
                .directory
                .find_or_insert(&uid, max, || Session::new(uid, &self.settings.session, now))
                .ok_or(SessionError::TooManyAgents { limit: max })?;
            let mut inner = slot.lock();
            if inner.forgotten {
                drop(inner);
                continue; // removed between the look-up and the lock
            }
            if is_second_with_temporary_uid(&inner, message, sender) {
                inner.session.adopt_assigned();
                self.directory.adopt(&uid, &inner.session.uid(), &slot);
                self.note_change(&slot, &inner.session);
                drop(inner);
                continue; // the uid is free for the newcomer now
            }
            let handled = inner
                .session
                .vet(message, &self.settings.session)
                .and_then(|()| self.attach(&mut inner, uid, sender, now, out))
                .and_then(|()| self.handle_message(&slot, &mut inner, message, now, out));
            if let Err(error) = handled {
                self.discard_unused(&slot, inner, uid);
                return Err(error);
            }
            drop(inner);
            break slot;
        };
        self.counters.effects(out.effects());
        Ok((uid, slot))
    }

    /// Feeds an input that is no message, tells what changed, and wakes the socket that has something to send.
    ///
    /// None if the agent was forgotten since the slot was found.
    pub(crate) fn dispatch(&self, slot: &Arc<Slot>, input: Input<'_>) -> Option<Dispatch> {
        let mut inner = slot.lock();
        if inner.forgotten {
            return None;
        }
        let mut out = self.outbox();
        let handled = inner.session.handle(input, self.now(), &mut out);
        debug_assert!(handled.is_ok(), "only messages are refused");
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
    pub(crate) fn set_desired(&self, uid: &InstanceUid, desired: &Desired) -> Dispatch {
        let now = self.now();
        let max = usize::MAX; // the application's own doing is not an attack
        loop {
            let make = || Session::new(*uid, &self.settings.session, now);
            let Some(slot) = self.directory.find_or_insert(uid, max, make) else {
                return Dispatch::NoSession;
            };
            if let Some(dispatch) = self.dispatch(&slot, Input::Desired(desired.clone())) {
                return dispatch;
            }
        }
    }

    pub(crate) fn restore(&self, seed: Seed) {
        let (uid, now) = (seed.uid, self.now());
        let session = Session::restore(seed, &self.settings.session, now);
        self.directory.find_or_insert(&uid, usize::MAX, || session);
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

    pub(crate) fn note_change(&self, slot: &Arc<Slot>, session: &Session) {
        if session.has_change() {
            self.changes.agent(slot);
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

    /// Counts a faulty message and writes its error response, if it gets one.
    pub(crate) fn fault(
        &self,
        error: &SessionError,
        uid: Option<&InstanceUid>,
        sender: Sender<'_>,
        out: &mut Outbox,
    ) {
        let consequence = error.consequence();
        let principal = sender.principal();
        let principal = (principal.kind != PrincipalKind::Anonymous).then(|| principal.to_string());
        self.refused(
            consequence.reason,
            error.to_string(),
            principal,
            sender.remote_addr(),
            Some(sender.transport()),
        );
        let (kind, retry) = match consequence.reply {
            ErrorReply::Nothing => return,
            ErrorReply::BadRequest => (pb::ServerErrorResponseType::BadRequest, None),
            ErrorReply::Unavailable => {
                let nanos = u64::try_from(self.retry_after().as_nanos()).unwrap_or(u64::MAX);
                (pb::ServerErrorResponseType::Unavailable, Some(nanos))
            }
        };
        out.clear();
        let message = out.begin(uid).error(kind, &error.to_string(), retry);
        out.push(message);
    }

    /// When a peer that is sent away for want of capacity should come back: the setting, up to twice as long.
    pub(crate) fn retry_after(&self) -> std::time::Duration {
        let jitter = getrandom::u32().unwrap_or(0);
        self.settings.retry_after.mul_f64(1.0 + f64::from(jitter) / f64::from(u32::MAX))
    }

    pub(crate) fn register(&self, connection: &Arc<Connection>) {
        self.lock_connections().insert(connection.id(), Arc::clone(connection));
        self.counters.websocket_opened();
        if self.draining.is_cancelled() {
            connection.close(CloseCode::GoingAway, DisconnectReason::ServerShutdown);
        }
    }

    pub(crate) fn unregister(&self, connection: &Connection, now: Mono) {
        if self.lock_connections().remove(&connection.id()).is_some() {
            self.counters.websocket_closed(now - connection.opened());
        }
    }

    pub(crate) fn lock_connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fresh version 7 identity (R-ID-10).
    pub(crate) fn fresh_uid(&self) -> Option<InstanceUid> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).ok()?;
        Some(InstanceUid::v7(self.now().wall.0, random))
    }

    /// Makes the sender the agent's owner if it is not yet.
    fn attach(
        &self,
        inner: &mut SlotInner,
        uid: InstanceUid,
        sender: Sender<'_>,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        let attached = match (&inner.owner, sender) {
            (Owner::Socket(_), Sender::Socket(connection)) => inner.is_owned_by(connection),
            (Owner::Polling, Sender::Polling { principal, .. }) => {
                inner.session.connection().is_some_and(|known| known.principal == *principal)
            }
            _ => false,
        };
        if attached && inner.session.liveness() != Liveness::Disconnected {
            return Ok(());
        }
        if !attached && is_conflict(inner, sender.principal()) {
            return Err(SessionError::UidConflict { uid });
        }
        let (owner, info) = match sender {
            Sender::Socket(connection) => {
                (Owner::Socket(Arc::clone(connection)), Arc::clone(&connection.info))
            }
            Sender::Polling { principal, remote_addr } => {
                (Owner::Polling, self.next_connection(Transport::Http, principal.clone(), remote_addr, now))
            }
        };
        let previous = inner.own(owner);
        if let (Owner::Socket(previous), false) = (previous, attached) {
            previous.release(inner.session.uid());
        }
        inner.session.handle(Input::Attached(info), now, out)
    }

    /// Removes a slot that was made for a message which was refused: a refusal makes no agent.
    fn discard_unused(&self, slot: &Arc<Slot>, mut inner: MutexGuard<'_, SlotInner>, uid: InstanceUid) {
        if inner.session.is_unused() {
            inner.forgotten = true;
            drop(inner);
            self.directory.remove(&uid, slot);
        }
    }

    fn handle_message(
        &self,
        slot: &Arc<Slot>,
        inner: &mut SlotInner,
        message: &AgentMessage<'_>,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        let wants_uid = message.flags().contains(AgentToServerFlags::REQUEST_INSTANCE_UID);
        let known_assignment = inner.session.assigned_uid();
        let assign = if wants_uid && known_assignment.is_none() { self.assign_uid(slot) } else { None };
        let before = inner.session.uid();
        let handled = inner.session.handle(Input::Message { message, assign }, now, out);
        let after = inner.session.uid();
        if inner.session.liveness() == Liveness::Disconnected {
            inner.own(Owner::Nobody); // it said good-bye: the association ends before the stream (R-LIFE-11)
        }
        if before != after {
            self.directory.adopt(&before, &after, slot);
        }
        if let Some(unused) = assign.filter(|assign| inner.session.assigned_uid() != Some(*assign)) {
            self.directory.remove(&unused, slot);
        }
        self.note_change(slot, &inner.session);
        handled
    }

    /// A fresh uid that already leads to the agent it is meant for.
    fn assign_uid(&self, slot: &Arc<Slot>) -> Option<InstanceUid> {
        (0..4).filter_map(|_| self.fresh_uid()).find(|uid| self.directory.assign(*uid, slot))
    }

    fn end_session(&self, slot: &Arc<Slot>, inner: &mut SlotInner, reason: DisconnectReason) {
        let mut out = self.outbox();
        let handled = inner.session.handle(Input::Detached(reason), self.now(), &mut out);
        debug_assert!(handled.is_ok(), "only messages are refused");
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

    fn remote_addr(self) -> Option<SocketAddr> {
        match self {
            Self::Polling { remote_addr, .. } => remote_addr,
            Self::Socket(connection) => connection.info.remote_addr,
        }
    }

    fn transport(self) -> Transport {
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

/// Whether this asks for an identity under a temporary uid that an agent on another live socket used to ask for its
/// own: two agents, which must not be told the same (R-ID-05, R-ID-07).
fn is_second_with_temporary_uid(inner: &SlotInner, message: &AgentMessage<'_>, sender: Sender<'_>) -> bool {
    let asks = message.flags().contains(AgentToServerFlags::REQUEST_INSTANCE_UID);
    let told = inner.session.assigned_uid().is_some();
    let elsewhere = match (&inner.owner, sender) {
        (Owner::Socket(owner), Sender::Socket(connection)) => owner.id() != connection.id(),
        (Owner::Socket(_), Sender::Polling { .. }) => true,
        (Owner::Polling | Owner::Nobody, _) => false,
    };
    asks && told && elsewhere
}

/// Whether these credentials may not take this agent over: its identity was proven by a certificate with another
/// name, or it is connected with other credentials now.
fn is_conflict(inner: &SlotInner, principal: &Principal) -> bool {
    let Some(known) = inner.session.principal() else {
        return false;
    };
    let bound = known.kind == PrincipalKind::Certificate;
    let live = inner.session.liveness() != Liveness::Disconnected;
    (bound || live) && known != principal
}
