//! Up to where the queue of a wave was looked through, so that nobody whose failure domain is full is looked at again and
//! again.

use std::collections::{BTreeMap, BTreeSet};

use super::Wave;
use crate::rollout::engine::Engine;
use crate::rollout::{MemberIx, MemberState, Reason, Time, ZoneIx};

/// A place in the queue of a wave: in each part of it, the last member before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) requeued: Option<MemberIx>,
    /// The planned member behind the last one.
    pub(crate) planned: u32,
    pub(crate) joined: Option<(Time, MemberIx)>,
}

impl Place {
    fn min(self, other: Self) -> Self {
        Self {
            requeued: self.requeued.min(other.requeued),
            planned: self.planned.min(other.planned),
            joined: self.joined.min(other.joined),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            requeued: self.requeued.max(other.requeued),
            planned: self.planned.max(other.planned),
            joined: self.joined.max(other.joined),
        }
    }

    /// Whether a member that waits in the queue of this wave stands before it.
    fn is_behind(self, wave: &Wave, ix: MemberIx, since: Time) -> bool {
        if wave.requeued.contains(&ix) {
            Some(ix) <= self.requeued
        } else if wave.joined.contains(&(since, ix)) {
            Some((since, ix)) <= self.joined
        } else {
            ix.0 < self.planned
        }
    }
}

/// Up to where the queue of a wave was looked through. Before that place nobody waits but members of domains that were full,
/// and of each of them nobody before a place of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walked {
    to: Place,
    pub(super) left: BTreeMap<ZoneIx, Place>,
    /// Those of the domains that have room again, as far as is known.
    open: BTreeSet<ZoneIx>,
}

impl Walked {
    /// Where to look for the next member that has room.
    pub(super) fn start(&self) -> Place {
        let open = self.open.iter().filter_map(|zone| self.left.get(zone));
        open.fold(self.to, |start, place| start.min(*place))
    }

    /// From the start to this place nobody has room; nowhere, if the end was reached.
    pub(super) fn walk(&mut self, to: Place, is_end: bool) {
        self.to = self.to.max(to);
        let Self { to: far, left, open } = self;
        open.retain(|zone| {
            let place = left.get(zone).map(|place| place.max(to));
            match place.filter(|place| !is_end && *place != *far) {
                Some(place) => left.insert(*zone, place).is_some(),
                None => left.remove(zone).is_some_and(|_| false),
            }
        });
    }
}

impl Engine {
    /// A failure domain has no room.
    pub(super) fn close_zone(&mut self, zone: ZoneIx, until: Time) {
        self.volatile.full.insert(zone, until);
        self.volatile.walked.values_mut().for_each(|walked| _ = walked.open.remove(&zone));
    }

    /// A failure domain may have room again: it is looked for from where its first member was passed over.
    pub(crate) fn open_zone(&mut self, zone: ZoneIx) {
        if self.volatile.full.remove(&zone).is_some() {
            let passed_over =
                self.volatile.walked.values_mut().filter(|walked| walked.left.contains_key(&zone));
            passed_over.for_each(|walked| _ = walked.open.insert(zone));
        }
    }

    /// A member has come into a queue: it is looked for even if its place was passed.
    pub(crate) fn seek(&mut self, ix: MemberIx) {
        let row = self.state.members.row(ix);
        let Some(walked) = self.volatile.walked.get_mut(&row.wave) else { return };
        if row.state != MemberState::Queued || row.reason == Reason::Locked {
            return;
        }
        let wave = self.state.wave(row.wave);
        let place = walked.left.entry(row.zone).or_insert(walked.to);
        if wave.requeued.contains(&ix) {
            place.requeued = place.requeued.min(wave.requeued.range(..ix).next_back().copied());
        } else if wave.joined.contains(&(row.since, ix)) {
            place.joined = place.joined.min(wave.joined.range(..(row.since, ix)).next_back().copied());
        } else {
            place.planned = place.planned.min(ix.0);
        }
        if !self.volatile.full.contains_key(&row.zone) {
            walked.open.insert(row.zone);
        }
    }

    /// Whether a member that waits is never looked at: its place was passed.
    pub(crate) fn is_lost(&self, ix: MemberIx) -> bool {
        let row = self.state.members.row(ix);
        let Some(walked) = self.volatile.walked.get(&row.wave) else { return false };
        let (left, is_full) = (walked.left.get(&row.zone), self.volatile.full.contains_key(&row.zone));
        let is_looked_for = is_full || left.is_none() || walked.open.contains(&row.zone);
        let place = left.copied().unwrap_or(walked.to);
        let waits = row.state == MemberState::Queued && row.reason != Reason::Locked;
        let waits = waits && self.is_in_time(ix);
        waits && (!is_looked_for || place.is_behind(self.state.wave(row.wave), ix, row.since))
    }
}
