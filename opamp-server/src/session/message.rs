//! A message of the agent: what is taken from it, and what it starts.

use bytes::Bytes;
use opamp_proto::{
    AgentCapabilities, AgentMessage, AgentToServerFlags, ConfigHash, Fingerprint, InstanceUid, Now, Part,
    PartSet, SequenceNum, material, pb,
};
use prost::Message as _;

use super::outbox::ReceivedConfig;
use super::reports::{Outcome, Report};
use super::{Outbox, Session};
use crate::capability::{Negotiated, Received};
use crate::custom::CustomMessage;
use crate::refusal::SessionError;
use crate::snapshot::{ChangedFacts, ConnectionSettingsReport, DisconnectReason, Transport};

/// The circumstances under which a part came.
#[derive(Clone, Copy)]
struct Context {
    /// The capabilities before this message.
    before: Negotiated,
    /// The message was processed before.
    copy: bool,
    /// It is what is held as this part, byte for byte.
    repeated: bool,
    now: Now,
}

impl Session {
    pub(super) fn message(
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

        // A bare identity, as a poll may be, does not count: it says nothing about what was lost.
        let counted = message.sequence_num().0 != 0 || message.capabilities().bits() != 0;
        let copy = self.has_sequence && counted && message.sequence_num() == self.sequence;
        if copy && self.transport == Transport::Http {
            self.unwritten(out); // the answer to this very message did not arrive
        } else {
            self.written();
        }
        self.alive(now);
        self.checkpoint_due = true;
        if self.facts.assigned_uid == Some(uid) {
            self.facts.adopt_uid(self.uid);
            self.uid = uid;
        }
        let before = self.negotiated;
        if self.negotiated.agent() != agent {
            self.negotiated.set_agent(agent);
            self.facts.mark(ChangedFacts::CAPABILITIES);
        }
        if counted || !message.parts().is_empty() || !self.has_sequence {
            self.check_sequence(message.sequence_num(), accepted, agent);
        }
        for part in accepted.iter() {
            if let Some(encoded) = message.part(part) {
                let repeated = self.is_repeated(part, encoded, out);
                self.take_part(part, encoded, Context { before, copy, repeated, now }, out)?;
                if part == Part::Health {
                    self.facts.note_start_time(message.start_time_unix_nano());
                }
                if part.is_status() && !repeated {
                    self.store(part, encoded, message, out);
                }
            }
        }
        self.look_for_withheld_settings();
        if message.flags().contains(AgentToServerFlags::REQUEST_INSTANCE_UID)
            && self.facts.assigned_uid.is_none()
        {
            self.facts.assigned_uid = assign;
        }
        self.answer(uid, accepted, now, out);
        if accepted.contains(Part::AgentDisconnect) {
            self.detach(DisconnectReason::Graceful, now, out);
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

    fn check_sequence(&mut self, sequence: SequenceNum, accepted: PartSet, agent: AgentCapabilities) {
        let gap = self.has_sequence && !sequence.follows(self.sequence);
        let unknown = !self.has_sequence && !self.facts.known.contains(Part::AgentDescription);
        self.sequence = sequence;
        self.has_sequence = true;
        if gap {
            self.facts.count_quietly(|sticky| &mut sticky.gaps);
            self.offer.answer_may_be_lost();
            if let Some(extra) = &mut self.extra {
                extra.packages.answer_may_be_lost();
                extra.settings.answer_may_be_lost();
            }
        }
        // A socket breaks when a message is lost; a poll's answer vanishes unnoticed.
        let silent_losses = self.transport == Transport::Http;
        let incomplete = gap || unknown;
        let mut parts = accepted;
        if incomplete || !accepted.is_empty() {
            // What this server does not take is not missing.
            parts |= Part::ALL.into_iter().filter(|part| self.is_not_ours(*part)).collect();
        }
        self.resync.observe(incomplete, parts, agent, silent_losses);
    }

    fn is_not_ours(&self, part: Part) -> bool {
        self.negotiated.received(part) == Received::NotOurs
    }

    /// Whether a part is what is held already. It is compared once: a driver may have done so.
    fn is_repeated(&self, part: Part, encoded: &[u8], out: &mut Outbox) -> bool {
        match (part, &out.config) {
            (Part::EffectiveConfig, Some(ReceivedConfig::Repeated)) => {
                debug_assert!(self.facts.holds(part, encoded), "a driver says so of what is held");
                out.config = None;
                true
            }
            _ => self.facts.holds(part, encoded),
        }
    }

    /// Keeps a status that is not the one that is held.
    fn store(&mut self, part: Part, encoded: &[u8], message: &AgentMessage<'_>, out: &mut Outbox) {
        let shared = out.config.take_if(|config| part == Part::EffectiveConfig && config.is_of(encoded));
        match (part, shared) {
            (_, Some(ReceivedConfig::Shared { encoded, digest })) => self.facts.keep(part, encoded, digest),
            (Part::Health, _) => self.facts.store(part, encoded, message.health_digest()),
            _ => self.facts.store(part, encoded, material::digest(part, encoded)),
        }
    }

    /// Takes one accepted part in.
    fn take_part(
        &mut self,
        part: Part,
        encoded: &[u8],
        context: Context,
        out: &mut Outbox,
    ) -> Result<(), SessionError> {
        let Context { before, copy, repeated, now } = context;
        match part {
            Part::RemoteConfigStatus => self.remote_config_status(encoded, repeated, now)?,
            Part::ConnectionSettingsStatus => self.connection_settings_status(encoded, &before, now)?,
            Part::PackageStatuses => self.package_statuses(encoded, repeated, now)?,
            Part::AvailableComponents if self.extra.get_or_insert_default().components.reported(encoded) => {
                self.facts.mark(ChangedFacts::COMPONENTS);
            }
            Part::CustomMessage if self.is_first(part, encoded, copy) => self.custom_message(encoded, out),
            Part::ConnectionSettingsRequest if self.is_first(part, encoded, copy) => {
                self.connection_settings_request(encoded, out);
            }
            _ => {}
        }
        Ok(())
    }

    fn remote_config_status(&mut self, encoded: &[u8], repeated: bool, now: Now) -> Result<(), SessionError> {
        let offered_at = self.offer.offered_at();
        if self.facts.remote_config.take(encoded, repeated, offered_at, now.wall)? {
            self.facts.mark(ChangedFacts::REMOTE_CONFIG);
        }
        if let Some(reported) = self.facts.remote_config.reported() {
            self.offer.reported(reported);
        }
        Ok(())
    }

    fn connection_settings_status(
        &mut self,
        encoded: &[u8],
        before: &Negotiated,
        now: Now,
    ) -> Result<(), SessionError> {
        let report = ConnectionSettingsReport::read(encoded)?;
        let applied = report.outcome() == Outcome::Applied;
        // It was offered under the capabilities of before, if it had any.
        let then = if before.agent().is_empty() { &self.negotiated } else { before };
        let permitted = then.settings_permits().parts();
        let extra = self.extra.get_or_insert_default();
        let news = extra.settings_facts.note(report, extra.settings.offered_at(), now.wall);
        if let Some(reported) = extra.settings_facts.reported() {
            extra.settings.reported(reported);
            match extra.settings.desired() {
                Some(offer) if extra.settings.is_current() => {
                    extra.delivered.reported(offer, applied, permitted);
                }
                _ => extra.delivered.reported_other(reported.hash, applied),
            }
        }
        if news {
            self.facts.mark(ChangedFacts::CONNECTION_SETTINGS);
        }
        Ok(())
    }

    fn package_statuses(&mut self, encoded: &[u8], repeated: bool, now: Now) -> Result<(), SessionError> {
        let extra = self.extra.get_or_insert_default();
        let news = extra.packages_facts.take(encoded, repeated, extra.packages.offered_at(), now.wall)?;
        if let Some(reported) = extra.packages_facts.reported() {
            extra.packages.reported(reported);
        }
        if news {
            self.facts.mark(ChangedFacts::PACKAGES);
        }
        Ok(())
    }

    /// Settings the agent reports are offered again when it became able to take parts that were withheld.
    fn look_for_withheld_settings(&mut self) {
        let Some(extra) = self.extra.as_deref_mut() else { return };
        let Some(offer) = extra.settings.desired().filter(|_| !extra.settings.is_failed()) else { return };
        let permitted = self.negotiated.settings_permits().parts();
        let was_sent = extra.settings.is_current() || extra.settings.is_made();
        if was_sent && extra.delivered.lacks(offer, permitted) {
            extra.settings.renew();
        }
    }

    /// Whether an event part is to be processed: it is no copy of the one of its kind that was processed last (R-RETRY-04).
    fn is_first(&mut self, part: Part, encoded: &[u8], copy: bool) -> bool {
        let digest = digest(encoded);
        let extra = self.extra.get_or_insert_default();
        let of_kind = match part {
            Part::ConnectionSettingsRequest => &mut extra.last_request,
            _ => &mut extra.last_custom,
        };
        let last = of_kind.replace(digest);
        !copy || last != Some(digest)
    }

    fn custom_message(&mut self, encoded: &[u8], out: &mut Outbox) {
        // A part of an accepted message always decodes.
        let Ok(message) = pb::CustomMessage::decode(encoded) else { return };
        if out.settings.custom_capabilities.contains(&message.capability) {
            out.effects.custom_received += 1;
            out.custom = Some(CustomMessage::from_wire(message));
        } else {
            out.effects.custom_ignored += 1;
        }
    }

    fn connection_settings_request(&mut self, encoded: &[u8], out: &mut Outbox) {
        let Ok(request) = pb::ConnectionSettingsRequest::decode(encoded) else { return };
        // Without one of the two it asks for nothing (R-CSR-21, R-CSR-22).
        let Some(request) = request.opamp.and_then(|opamp| opamp.certificate_request) else { return };
        if self.extra.get_or_insert_default().certificate.request(digest(&request.csr)) {
            out.certificate_request = Some(Bytes::copy_from_slice(&request.csr));
        }
    }
}

/// Tells one request from another.
fn digest(bytes: &[u8]) -> Fingerprint {
    ConfigHash::new(Bytes::copy_from_slice(bytes)).fingerprint()
}
