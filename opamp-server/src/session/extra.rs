//! What only agents with more than a remote configuration have: allocated when one of it turns up.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{ConfigHash, Fingerprint, Mono, pb};
use prost::Message as _;

use super::offer::OfferState;
use super::reports::KindFacts;
use super::resync::Pacer;
use crate::custom::{CustomError, CustomMessage, QueueBound};
use crate::desired::{ConnectionSettingsOffer, PackagesOffer, SettingsParts};
use crate::session::SessionSettings;
use crate::snapshot::{ConnectionSettingsReport, PackagesReport};

#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) settings: OfferState<ConnectionSettingsOffer>,
    pub(super) settings_facts: KindFacts<ConnectionSettingsReport>,
    pub(super) delivered: Delivered,
    pub(super) packages: OfferState<PackagesOffer>,
    pub(super) packages_facts: KindFacts<PackagesReport>,
    pub(super) custom: CustomQueue,
    pub(super) components: Components,
    pub(super) certificate: Certificate,
    /// Digests of the last custom message and the last certificate request that were processed, so that copies are not
    /// processed again. One for each: a message may hold both.
    pub(super) last_custom: Option<Fingerprint>,
    pub(super) last_request: Option<Fingerprint>,
}

impl Extra {
    /// The outbox of before is done with: what was in it has left.
    pub(super) fn written(&mut self) {
        self.delivered.in_flight = false;
        self.custom.in_flight = 0;
        self.certificate.in_flight = None;
    }
}

/// Which parts of connection settings an agent has.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// The last offer the agent reported as applied in this process, and what it has of it.
    applied: Option<(ConnectionSettingsOffer, SettingsParts)>,
    /// What it was sent since then, of whatever offer: of that nobody knows what it has.
    unsettled: SettingsParts,
    /// What it has, or was sent, of the desired offer.
    parts: SettingsParts,
    /// The desired offer was sent in this process.
    sent: bool,
    /// It is in the outbox that was filled last.
    in_flight: bool,
}

impl Delivered {
    /// Other settings are desired.
    pub(super) fn desire(&mut self) {
        self.parts = SettingsParts::NONE;
        self.sent = false;
    }

    /// The agent got the desired offer from an earlier process: as far as it may have it.
    pub(super) fn assume(&mut self, offer: &ConnectionSettingsOffer, permitted: SettingsParts) {
        self.parts = offer.parts() & permitted;
    }

    /// The agent asks for settings: what it was thought to have it may not have.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What is to be sent of `offer`: the parts that may be sent, without those the agent is known to have (R-CONN-16). If it
    /// has them all, all of them: it has to learn of the hash.
    pub(super) fn to_send(&self, offer: &ConnectionSettingsOffer, permitted: SettingsParts) -> SettingsParts {
        let all = offer.parts() & permitted;
        let mut parts = all.without(self.held(offer));
        if parts.is_empty() {
            return all;
        }
        if parts.contains(SettingsParts::HEARTBEAT_INTERVAL) {
            // The interval travels inside the OpAMP settings, and those replace what is there as a whole.
            parts = parts | SettingsParts::OPAMP;
        } else if parts.contains(SettingsParts::OPAMP) {
            parts = parts | (offer.parts() & permitted & SettingsParts::HEARTBEAT_INTERVAL);
        }
        parts
    }

    /// Whether the agent may take parts of `offer`, which it reports, that it was not sent for want of a capability.
    pub(super) fn lacks(&self, offer: &ConnectionSettingsOffer, permitted: SettingsParts) -> bool {
        !(offer.parts() & permitted).without(self.parts | self.held(offer)).is_empty()
    }

    /// These parts were put into a message.
    pub(super) fn sent(&mut self, offer: &ConnectionSettingsOffer, parts: SettingsParts) {
        self.parts = self.parts | parts | (self.held(offer) & offer.parts());
        self.unsettled = self.unsettled | parts;
        self.sent = true;
        self.in_flight = true;
    }

    /// What was in the last outbox did not leave; says whether an offer was in it.
    pub(super) fn not_written(&mut self) -> bool {
        let lost = std::mem::take(&mut self.in_flight);
        if lost {
            self.desire();
        }
        lost
    }

    /// The agent reports the desired offer. `permitted` is what an earlier process may have sent of it.
    pub(super) fn reported(
        &mut self,
        offer: &ConnectionSettingsOffer,
        applied: bool,
        permitted: SettingsParts,
    ) {
        // What was permitted when it was sent is better than what is permitted now.
        if !self.sent && self.parts.is_empty() {
            self.assume(offer, permitted);
        }
        // Until it is applied, and if it fails, nobody knows what the agent has by now.
        self.applied = (self.sent && applied).then(|| (offer.clone(), self.parts));
        self.unsettled = SettingsParts::NONE;
    }

    /// The agent reports another hash than the desired one. Unless it is the one it applied last, and applied, nothing is
    /// known of what it has.
    pub(super) fn reported_other(&mut self, reported: &ConfigHash, applied: bool) {
        self.applied = self.applied.take().filter(|(offer, _)| applied && offer.hash() == reported);
        self.desire(); // of what is desired it has nothing, whatever it was sent
    }

    /// What the agent has from the offer it applied that is the same in `offer`.
    fn held(&self, offer: &ConnectionSettingsOffer) -> SettingsParts {
        let same = |(applied, parts): &(ConnectionSettingsOffer, SettingsParts)| {
            (applied.same_parts(offer) & *parts).without(self.unsettled)
        };
        self.applied.as_ref().map_or(SettingsParts::NONE, same)
    }
}

/// Custom messages that wait for the connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct CustomQueue {
    waiting: VecDeque<CustomMessage>,
    bytes: usize,
    /// Messages in the outbox that was filled last.
    in_flight: u32,
}

impl CustomQueue {
    /// Puts a message behind the others.
    pub(super) fn push(
        &mut self,
        message: CustomMessage,
        settings: &SessionSettings,
    ) -> Result<(), CustomError> {
        let bytes = message.len_bytes();
        self.has_room(bytes, settings)?;
        self.bytes += bytes;
        self.waiting.push_back(message);
        Ok(())
    }

    /// Whether a message of this size may wait too.
    pub(super) fn has_room(&self, bytes: usize, settings: &SessionSettings) -> Result<(), CustomError> {
        if self.waiting.len() >= settings.custom_queue_max {
            return Err(CustomError::Full { max: QueueBound::Messages(settings.custom_queue_max) });
        }
        if self.bytes + bytes > settings.custom_queue_bytes_max {
            return Err(CustomError::Full { max: QueueBound::Bytes(settings.custom_queue_bytes_max) });
        }
        Ok(())
    }

    /// The message that is next, if it fits.
    pub(super) fn pop(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<CustomMessage> {
        let bytes = self.waiting.front()?.len_bytes();
        if !fits(bytes) {
            return None;
        }
        self.bytes -= bytes;
        self.in_flight += 1;
        if self.waiting.len() == 1 {
            return std::mem::take(&mut self.waiting).pop_front();
        }
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What was in the last outbox did not leave; the number of messages lost with it.
    pub(super) fn lost(&mut self) -> u32 {
        std::mem::take(&mut self.in_flight)
    }

    /// The agent left; the number of messages that waited for it.
    pub(super) fn drop_all(&mut self) -> u32 {
        self.bytes = 0;
        u32::try_from(std::mem::take(&mut self.waiting).len()).unwrap_or(u32::MAX)
    }
}

/// The components of an agent: their hash, and the list if it is known.
#[derive(Debug, Default)]
pub(super) struct Components {
    /// The hash the agent reported last; empty if it reported none.
    hash: Bytes,
    /// The encoded `AvailableComponents` with the list, under that hash.
    list: Option<Bytes>,
    /// A list the driver knows, for the hash of the message that comes next.
    offered: Option<Bytes>,
    pacer: Pacer,
}

impl Components {
    /// A list from the server's cache, or from an earlier process.
    pub(super) fn offer(&mut self, list: Bytes) -> bool {
        let same = !self.hash.is_empty() && hash_of(&list) == self.hash;
        if same && self.list.as_ref() != Some(&list) {
            let news = self.list.is_none();
            self.list = Some(list);
            return news;
        }
        if same {
            self.list = Some(list); // the same bytes, shared with the cache
        } else {
            self.offered = Some(list);
        }
        false
    }

    pub(super) fn restore(&mut self, list: Bytes) {
        self.hash = hash_of(&list);
        self.list = Some(list);
    }

    /// Takes a report over; says whether the list became known or changed.
    pub(super) fn reported(&mut self, encoded: &[u8]) -> bool {
        let Ok(report) = pb::AvailableComponents::decode(encoded) else { return false };
        let offered =
            self.offered.take().filter(|list| !report.hash.is_empty() && hash_of(list) == report.hash);
        let unchanged = self.hash == report.hash;
        if !unchanged {
            self.hash = Bytes::copy_from_slice(&report.hash);
            self.pacer = Pacer::default();
        }
        let list = match report.components.is_empty() {
            false => Some(Bytes::copy_from_slice(encoded)),
            true => offered.or_else(|| self.list.take().filter(|_| unchanged)),
        };
        let changed = self.list != list && list.is_some();
        self.list = list;
        changed
    }

    /// Whether to ask for the list in the message being written (R-COMP-07).
    pub(super) fn ask(&mut self, now: Mono, spacing: Duration) -> bool {
        self.list.is_none() && !self.hash.is_empty() && self.pacer.ask(now, spacing)
    }

    pub(super) fn list(&self) -> Option<&Bytes> {
        self.list.as_ref()
    }
}

/// An agent's wish for a certificate.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    /// Digest of the request that is being decided.
    asked: Option<Fingerprint>,
    /// The refusal that is to be told.
    refused: Option<String>,
    /// The refusal that was put into the last outbox.
    in_flight: Option<String>,
    /// Answers the refusal was held back from because they acknowledge a status.
    held_back: u8,
}

/// Answers to status reports that go before a refusal, so that the agent does not take those reports for refused.
const HELD_BACK_MAX: u8 = 2;

impl Certificate {
    /// Takes a request; says whether it is to be decided. The same again while it is being decided is no other.
    pub(super) fn request(&mut self, digest: Fingerprint) -> bool {
        match self.asked {
            None => {
                self.asked = Some(digest);
                true
            }
            Some(asked) if asked == digest => false,
            Some(_) => {
                let why = "another certificate request of this agent is being decided; wait for its answer";
                self.refuse(why.to_owned());
                false
            }
        }
    }

    /// The request was decided.
    pub(super) fn decided(&mut self, refusal: Option<String>) {
        self.asked = None;
        if let Some(refusal) = refusal {
            self.refuse(refusal);
        }
    }

    /// The refusal to tell instead of an answer to a message with (`acknowledges`) or without a status.
    pub(super) fn instead_of_answer(&mut self, acknowledges: bool) -> Option<String> {
        if self.refused.is_some() && acknowledges && self.held_back < HELD_BACK_MAX {
            self.held_back += 1;
            return None;
        }
        self.tell()
    }

    /// The refusal to tell in a message of its own.
    pub(super) fn tell(&mut self) -> Option<String> {
        let refusal = self.refused.take()?;
        self.held_back = 0;
        self.in_flight = Some(refusal.clone());
        Some(refusal)
    }

    /// What was in the last outbox did not leave.
    pub(super) fn not_written(&mut self) {
        if let Some(refusal) = self.in_flight.take() {
            self.refused.get_or_insert(refusal);
        }
    }

    fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        self.held_back = 0;
    }
}

fn hash_of(encoded: &[u8]) -> Bytes {
    pb::AvailableComponents::decode(encoded).map(|components| components.hash).unwrap_or_default()
}
