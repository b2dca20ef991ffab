//! A message of an agent on its way to the session: whose it is, and whether it may be.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use opamp_proto::{
    AgentMessage, AgentToServerFlags, DecodeError, Held, HeldPart, InstanceUid, Now, Part, SequenceNum,
};

use super::certificates;
use super::changes::ReceivedCustom;
use super::core::{Core, Sender};
use super::directory::{Owner, Slot, SlotInner};
use super::duplicates::{Contest, Verdict};
use super::presented::Match;
use super::settings::{OtherCredential, SameCredential};
use crate::refusal::{RefusalReason, SessionError};
use crate::session::{Input, Outbox, Session};
use crate::snapshot::{Liveness, PrincipalKind, Transport};

/// What became of a message. The answer, if there is one now, is in the outbox.
pub(crate) enum Received {
    /// It is not known yet whose it is; nothing was done. Ask again with the verdict.
    Contested(Contest),
    /// Its session handled it.
    Handled {
        slot: Arc<Slot>,
        /// The agent's identity by now.
        uid: InstanceUid,
        /// The sender's socket is the agent's, as it is unless the agent said good-bye.
        stays: bool,
    },
    /// It was answered and not processed: the agent is somebody else's, and this sender has left it, or never was it.
    SetAside,
    /// Its sender was told to take over this identity; nothing else of it was processed.
    Told(InstanceUid),
}

/// What the agent in a slot said before.
struct Known<'a>(MutexGuard<'a, SlotInner>);

impl Held for Known<'_> {
    fn part(&self, part: Part) -> Option<HeldPart<'_>> {
        self.0.session.part(part)
    }
}

/// Whether a sender may speak as the agent it says it is.
enum Judgement {
    Ask(Contest),
    Leave,
    Refuse(SessionError),
    Rekey,
    /// It replaces somebody else, as the settings have it.
    TakeOver,
    Welcome,
}

impl Core {
    /// Decodes a message. `find` leads to the agent of an identity, as far as its sender is concerned: what that one repeats of what
    /// it said before is compared instead of checked.
    pub(crate) fn decode<'m, 's>(
        &self,
        bytes: &'m [u8],
        find: impl FnOnce(&InstanceUid) -> Option<&'s Arc<Slot>>,
    ) -> Result<AgentMessage<'m>, DecodeError> {
        AgentMessage::decode_knowing(bytes, &self.limits, |uid| find(&uid).map(|slot| Known(slot.lock())))
    }

    /// Handles one decoded `AgentToServer`. `known` is the agent its sender sent last under this identity, if that is known: mostly
    /// it is still the one.
    pub(crate) fn receive(
        self: &Arc<Self>,
        message: &AgentMessage<'_>,
        sender: Sender<'_>,
        known: Option<&Arc<Slot>>,
        verdict: Option<Verdict>,
        now: Now,
        out: &mut Outbox,
    ) -> Result<Received, SessionError> {
        let uid = message.instance_uid()?;
        if self.throttle.get().is_some() && !message.parts().contains(Part::AgentDisconnect) {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
            return Err(SessionError::Throttled);
        }
        if !self.auth.owns(sender.principal(), &uid) {
            return Err(SessionError::UidConflict { uid });
        }
        let mut known = known.cloned();
        let (slot, uid_now, stays) = loop {
            let max = self.settings.agents_max;
            let by_sender = known.is_some();
            let slot = match known.take() {
                Some(slot) => slot,
                None => self
                    .directory
                    .find_or_insert(&uid, max, || Session::new(uid, &self.settings.session, now))
                    .ok_or(SessionError::TooManyAgents { limit: max })?,
            };
            let mut inner = slot.lock();
            // One the sender knew is under its own identity in the directory, or is not there any more.
            if inner.forgotten || (by_sender && inner.session.uid() != uid) {
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
            if let Err(error) = inner.session.vet(message, &self.settings.session) {
                self.discard_unused(&slot, inner, uid);
                return Err(error);
            }
            match self.judge(&mut inner, uid, message, sender, verdict) {
                Judgement::Welcome => {}
                Judgement::TakeOver => {
                    self.note_conflict(&slot, &mut inner, now, out);
                    let detail = format!("instance_uid {uid} was taken over with other credentials");
                    self.conflict_told(detail, sender);
                }
                Judgement::Ask(contest) => return Ok(Received::Contested(contest)),
                Judgement::Leave => {
                    drop(inner);
                    self.acknowledge(&uid, out);
                    return Ok(Received::SetAside);
                }
                Judgement::Refuse(error) => {
                    self.note_conflict(&slot, &mut inner, now, out);
                    return Err(error);
                }
                Judgement::Rekey => return self.rekey(&slot, inner, uid, sender, out),
            }
            self.pace(out, now.mono);
            let handled = self
                .attach(&mut inner, sender, message.sequence_num(), now, out)
                .and_then(|()| self.handle_message(&slot, &mut inner, message, now, out));
            if let Err(error) = handled {
                self.discard_unused(&slot, inner, uid);
                return Err(error);
            }
            let stays = matches!(sender, Sender::Socket(connection) if inner.is_owned_by(connection));
            let uid_now = inner.session.uid();
            drop(inner);
            break (slot, uid_now, stays);
        };
        self.note_effects(&slot, out, now.mono);
        if let Some(message) = out.take_custom() {
            let principal = sender.principal().clone();
            let received = ReceivedCustom { uid, principal, at: now.wall, message, dropped: 0 };
            if !self.changes.custom(&slot, received) {
                self.counters.custom_dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(csr) = out.take_certificate_request() {
            certificates::decide(self, &slot, uid, sender, csr);
        }
        Ok(Received::Handled { slot, uid: uid_now, stays })
    }

    /// Whether a newcomer under `uid` that was told to take over `fresh` would still be: somebody else is there under the one,
    /// and nobody under the other.
    pub(crate) fn is_still_true(&self, uid: &InstanceUid, fresh: &InstanceUid) -> bool {
        let live = |slot: Arc<Slot>| slot.lock().session.liveness() != Liveness::Disconnected;
        self.directory.find(fresh).is_none() && self.directory.find(uid).is_some_and(live)
    }

    /// Repeats to a sender what it was told: to take over this identity.
    pub(crate) fn tell_again(&self, uid: &InstanceUid, fresh: InstanceUid, out: &mut Outbox) {
        self.counters.rekeyed.fetch_add(1, Ordering::Relaxed);
        let mut reply = out.begin(Some(uid));
        reply.capabilities(self.settings.session.announced());
        reply.agent_identification(&fresh);
        let message = reply.finish();
        out.push(message);
    }

    /// Whether the sender may go on with this agent.
    fn judge(
        &self,
        inner: &mut SlotInner,
        uid: InstanceUid,
        message: &AgentMessage<'_>,
        sender: Sender<'_>,
        verdict: Option<Verdict>,
    ) -> Judgement {
        let settings = self.settings.duplicates;
        let number = message.sequence_num();
        if is_attached(inner, sender) {
            // A bare identity says nothing about whose it is.
            let counted = number.0 != 0 || message.capabilities().bits() != 0;
            let second = sender.transport() == Transport::Http
                && settings.same_credential == SameCredential::PingThenRekey
                && counted
                && inner.polled.get_or_insert_default().is_second(number);
            return if second { Judgement::Rekey } else { Judgement::Welcome };
        }
        let live = inner.session.liveness() != Liveness::Disconnected;
        if let Some(known) = inner.session.principal()
            && known != sender.principal()
        {
            let bound = known.kind == PrincipalKind::Certificate;
            let offered = inner.session.settings_offered();
            // The agent may have moved to the credentials this server gave it before its old connection is over.
            let moved = offered.map_or(Match::Nothing, |offer| sender.presented().matched(offer));
            if moved == Match::Certificate {
                return Judgement::Welcome;
            }
            // A header may be the fleet's: it is worth as much as the same credentials are, and nothing against a certificate.
            if bound || (live && moved == Match::Nothing) {
                return match settings.other_credential {
                    OtherCredential::NewestWins if !bound => Judgement::TakeOver,
                    OtherCredential::NewestWins | OtherCredential::Flag => {
                        Judgement::Refuse(SessionError::UidConflict { uid })
                    }
                    OtherCredential::Reject => Judgement::Refuse(SessionError::UidRejected { uid }),
                    OtherCredential::Rekey => Judgement::Rekey,
                };
            }
        }
        let Owner::Socket(incumbent) = &inner.owner else { return Judgement::Welcome };
        if !live
            || settings.same_credential == SameCredential::NewestWins
            || inner.session.is_continued_by(number)
        {
            return Judgement::Welcome;
        }
        if message.parts().contains(Part::AgentDisconnect) {
            // The good-bye of a connection that another one has followed already.
            return Judgement::Leave;
        }
        if incumbent.is_shared() {
            // What is heard from there says nothing about this one agent, which may have come back another way.
            return Judgement::Welcome;
        }
        match verdict.filter(|verdict| verdict.incumbent == incumbent.id() && verdict.uid == uid) {
            Some(verdict) if verdict.alive => Judgement::Rekey,
            Some(_) => Judgement::Welcome,
            None => Judgement::Ask(Contest { uid, incumbent: Arc::clone(incumbent) }),
        }
    }

    /// Tells the sender to take over a fresh identity. Nothing is kept of it: under that identity it is an agent nobody knows.
    fn rekey(
        &self,
        slot: &Arc<Slot>,
        mut inner: MutexGuard<'_, SlotInner>,
        uid: InstanceUid,
        sender: Sender<'_>,
        out: &mut Outbox,
    ) -> Result<Received, SessionError> {
        let now = self.now();
        let from = sender.remote_addr().map(|addr| addr.ip());
        let polls = sender.transport() == Transport::Http;
        self.note_conflict(slot, &mut inner, now, out);
        let told = inner.polled.as_ref().filter(|_| polls).and_then(|polled| polled.told(from));
        drop(inner); // the application is asked below
        let unused = |fresh: &InstanceUid| self.directory.find(fresh).is_none();
        let fresh = told
            .filter(unused)
            .or_else(|| (0..4).filter_map(|_| self.fresh_uid()).find(unused))
            // It would be refused under that identity.
            .filter(|fresh| self.auth.owns(sender.principal(), fresh))
            .ok_or(SessionError::UidConflict { uid })?;
        if polls {
            let mut inner = slot.lock();
            inner.polled.get_or_insert_default().tell(from, fresh);
            if matches!(inner.owner, Owner::Polling) {
                // What the two said until it was noticed is mixed up.
                let asked = inner.session.handle(Input::RequestFullState, now, out);
                debug_assert!(asked.is_ok(), "only messages are refused");
            }
        }
        let detail = format!("instance_uid {uid} is in use; the newcomer was told to take over {fresh}");
        self.conflict_told(detail, sender);
        self.tell_again(&uid, fresh, out);
        Ok(Received::Told(fresh))
    }

    /// Acknowledges a message that nothing becomes of.
    fn acknowledge(&self, uid: &InstanceUid, out: &mut Outbox) {
        let mut reply = out.begin(Some(uid));
        reply.capabilities(self.settings.session.announced());
        let message = reply.finish();
        out.push(message);
    }

    /// The agent that is there gets a mark for good: somebody else spoke in its name.
    fn note_conflict(&self, slot: &Arc<Slot>, inner: &mut SlotInner, now: Now, out: &mut Outbox) {
        self.counters.uid_conflicts.fetch_add(1, Ordering::Relaxed);
        let noted = inner.session.handle(Input::UidConflict, now, out);
        debug_assert!(noted.is_ok(), "only messages are refused");
        self.note_change(slot, &inner.session);
    }

    /// A conflict that ends without an error: it is told all the same.
    fn conflict_told(&self, detail: String, sender: Sender<'_>) {
        let named = sender.principal().named();
        let (from, transport) = (sender.remote_addr(), Some(sender.transport()));
        self.refused(RefusalReason::UidConflict, detail, named, from, transport);
    }

    /// Makes the sender the agent's owner if it is not yet.
    fn attach(
        &self,
        inner: &mut SlotInner,
        sender: Sender<'_>,
        number: SequenceNum,
        now: Now,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        if std::mem::take(&mut inner.expected) {
            self.admission.returning.returned(now.mono);
        }
        let attached = is_attached(inner, sender);
        if attached && inner.session.liveness() != Liveness::Disconnected {
            return Ok(());
        }
        let (owner, info) = match sender {
            Sender::Socket(connection) => {
                (Owner::Socket(Arc::clone(connection)), Arc::clone(&connection.info))
            }
            Sender::Polling { principal, remote_addr, .. } => {
                (Owner::Polling, self.next_connection(Transport::Http, principal.clone(), remote_addr, now))
            }
        };
        let previous = inner.own(owner);
        if let (Owner::Socket(previous), false) = (previous, attached) {
            previous.release(inner.session.uid());
        }
        if sender.transport() == Transport::Http {
            inner.polled.get_or_insert_default().is_second(number);
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
        let report = message.part(Part::AvailableComponents);
        // What the session is not going to take is not remembered either.
        let report = report.filter(|_| inner.session.would_take(message, Part::AvailableComponents));
        let list = report.and_then(|report| self.components.resolve(report));
        let tell = |session: &mut Session, out: &mut Outbox| {
            if let Some(list) = list.clone() {
                let told = session.handle(Input::Components(list), now, out);
                debug_assert!(told.is_ok(), "only messages are refused");
            }
        };
        let config = message.part(Part::EffectiveConfig);
        match config.filter(|_| inner.session.would_take(message, Part::EffectiveConfig)) {
            Some(config) if inner.session.holds(Part::EffectiveConfig, config) => {
                out.repeat_effective_config()
            }
            Some(config) => {
                let shared = self.configs.share(config);
                out.share_effective_config(shared.bytes, shared.digest);
            }
            None => {}
        }
        // Before, so that a hash alone need not be asked about; after, so that equal lists share their memory.
        tell(&mut inner.session, out);
        let handled = inner.session.handle(Input::Message { message, assign }, now, out);
        tell(&mut inner.session, out);
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
}

/// Whether the agent is on this very connection, or polls with these credentials.
fn is_attached(inner: &SlotInner, sender: Sender<'_>) -> bool {
    match (&inner.owner, sender) {
        (Owner::Socket(_), Sender::Socket(connection)) => inner.is_owned_by(connection),
        (Owner::Polling, Sender::Polling { principal, .. }) => {
            inner.session.connection().is_some_and(|known| known.principal == *principal)
        }
        _ => false,
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
