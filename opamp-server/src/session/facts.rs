//! What is known of an agent and rarely changes: boxed, encoded, with a note of what changed.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{HeldPart, InstanceUid, Part, PartSet, Wall, material};

use super::reports::KindFacts;
use crate::reported::ReportedState;
use crate::snapshot::{
    ChangedFacts, ConnectionInfo, DisconnectReason, Principal, RemoteConfigReport, Seed, StickyFacts,
    status_index,
};

/// Conflicts closer to the one that was told last are counted only.
const CONFLICT_SPACING_MS: u64 = 60_000;

/// The cold part of a session.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) state: ReportedState,
    /// Parts held here or by whoever restored the session.
    pub(super) known: PartSet,
    pub(super) remote_config: KindFacts<RemoteConfigReport>,
    pub(super) connection: Option<Arc<ConnectionInfo>>,
    /// Who authenticated the last connection of an earlier process.
    pub(super) remembered: Option<Box<Principal>>,
    pub(super) disconnect: Option<(DisconnectReason, Wall)>,
    pub(super) sticky: StickyFacts,
    pub(super) ignored: PartSet,
    pub(super) assigned_uid: Option<InstanceUid>,
    previous_uid: Option<InstanceUid>,
    digests: [u64; 8],
    start_time_unix_nano: u64,
    changed: PartSet,
    dirty: ChangedFacts,
}

impl Facts {
    pub(super) fn restore(&mut self, seed: &Seed) {
        self.known = seed.known;
        for (part, digest) in &seed.digests {
            if let Some(index) = status_index(*part) {
                self.digests[index] = *digest;
            }
        }
        self.remote_config = KindFacts::restore(seed.remote_config.clone());
        if let Some(announced) = &seed.custom_capabilities {
            self.hold(Part::CustomCapabilities, announced.clone());
        }
        self.sticky = seed.sticky.clone();
        self.disconnect = seed.disconnect;
        self.start_time_unix_nano = seed.start_time_unix_nano;
        self.remembered = seed.principal.clone().map(Box::new);
    }

    /// Whether these very bytes are held as this part.
    pub(super) fn holds(&self, part: Part, encoded: &[u8]) -> bool {
        self.known.contains(part) && self.state.part(part).is_some_and(|held| held == encoded)
    }

    /// What is held of a part that came with a message. Custom capabilities may have come with a seed.
    pub(super) fn held(&self, part: Part) -> Option<HeldPart<'_>> {
        let index = status_index(part).filter(|_| part != Part::CustomCapabilities)?;
        let encoded = self.state.part(part).filter(|_| self.known.contains(part))?;
        Some(HeldPart { encoded, digest: self.digests[index] })
    }

    /// Replaces a status sub-message as a whole (R-STATUS-10) and notes whether it changed materially.
    pub(super) fn store(&mut self, part: Part, encoded: &[u8], digest: u64) {
        self.note_digest(part, digest);
        self.state.copy(part, encoded);
    }

    /// The same, with a copy that is shared with other agents.
    pub(super) fn keep(&mut self, part: Part, encoded: Bytes, digest: u64) {
        self.note_digest(part, digest);
        self.state.set(part, encoded);
    }

    fn note_digest(&mut self, part: Part, digest: u64) {
        let Some(index) = status_index(part) else { return };
        if !self.known.contains(part) || self.digests[index] != digest {
            self.known.insert(part);
            self.digests[index] = digest;
            self.changed.insert(part);
        }
    }

    /// Holds a part that is known already, without a word about a change.
    pub(super) fn hold(&mut self, part: Part, encoded: Bytes) {
        if let Some(index) = status_index(part) {
            self.known.insert(part);
            self.digests[index] = material::digest(part, &encoded);
            self.state.set(part, encoded);
        }
    }

    /// Shares the bytes of a part with others that hold the same.
    pub(super) fn share(&mut self, part: Part, encoded: &Bytes) {
        let differs = |held: &Bytes| held == encoded && held.as_ptr() != encoded.as_ptr();
        if self.state.part(part).is_some_and(differs) {
            self.state.set(part, encoded.clone());
        }
    }

    pub(super) fn note_ignored(&mut self, ignored: PartSet) {
        let count = u32::try_from(ignored.iter().count()).unwrap_or(u32::MAX);
        self.sticky.ignored_parts = self.sticky.ignored_parts.saturating_add(count);
        if self.ignored != ignored {
            self.ignored = ignored;
            self.mark(ChangedFacts::STICKY);
        }
    }

    /// The agent uses its assigned identity for the first time (R-ID-11).
    pub(super) fn adopt_uid(&mut self, old: InstanceUid) {
        self.assigned_uid = None;
        self.previous_uid.get_or_insert(old);
        self.mark(ChangedFacts::UID);
    }

    pub(super) fn attach(&mut self, connection: Arc<ConnectionInfo>) {
        self.connection = Some(connection);
        self.disconnect = None;
        self.count(|sticky| &mut sticky.connects);
        self.mark(ChangedFacts::CONNECTION | ChangedFacts::LIVENESS);
    }

    pub(super) fn detach(&mut self, reason: DisconnectReason, now: Wall) {
        self.disconnect = Some((reason, now));
        self.count(|sticky| &mut sticky.disconnects);
        self.mark(ChangedFacts::CONNECTION | ChangedFacts::LIVENESS);
    }

    /// Somebody else speaks under this identity, perhaps with every heartbeat: that is news once in a while.
    pub(super) fn note_conflict(&mut self, now: Wall) {
        let last = self.sticky.last_uid_conflict;
        if last.is_some_and(|last| now.0.abs_diff(last.0) < CONFLICT_SPACING_MS) {
            return self.count_quietly(|sticky| &mut sticky.uid_conflicts);
        }
        self.sticky.last_uid_conflict = Some(now);
        self.count(|sticky| &mut sticky.uid_conflicts);
    }

    pub(super) fn count(&mut self, counter: impl FnOnce(&mut StickyFacts) -> &mut u32) {
        let counter = counter(&mut self.sticky);
        *counter = counter.saturating_add(1);
        self.mark(ChangedFacts::STICKY);
    }

    /// Counts what comes with messages and is no reason to tell anybody: it travels with the next change.
    pub(super) fn count_quietly(&mut self, counter: impl FnOnce(&mut StickyFacts) -> &mut u32) {
        let counter = counter(&mut self.sticky);
        *counter = counter.saturating_add(1);
    }

    pub(super) fn mark(&mut self, facts: ChangedFacts) {
        self.dirty.insert(facts);
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.changed.is_empty()
    }

    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty() || !ChangedFacts::OFFER.contains(self.dirty)
    }

    pub(super) fn has_moved(&self) -> bool {
        self.previous_uid.is_some()
    }

    pub(super) fn take_dirty(&mut self) -> Option<(PartSet, ChangedFacts, Option<InstanceUid>)> {
        if !self.is_dirty() {
            return None;
        }
        let changed = std::mem::replace(&mut self.changed, PartSet::NONE);
        Some((changed, std::mem::take(&mut self.dirty), self.previous_uid.take()))
    }

    /// A start time that moved means that the agent restarted; a newest-wins view would hide how often.
    pub(super) fn note_start_time(&mut self, start: u64) {
        if start != 0 && start != self.start_time_unix_nano {
            if self.start_time_unix_nano != 0 {
                self.count(|sticky| &mut sticky.start_time_changes);
            }
            self.start_time_unix_nano = start;
        }
    }
}
