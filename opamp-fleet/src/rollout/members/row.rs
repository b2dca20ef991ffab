//! One member in 56 bytes.

use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::time::Duration;

use crate::rollout::{ConfigIx, GateIx, MemberState, Reason, Time, WaveIx, ZoneIx};

/// One member. Rows stand in the order of dispatch, the first wave first; their name stands beside, by the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) state: MemberState,
    /// Why it is in its state.
    pub(crate) reason: Reason,
    /// In `Absent` the state before; in `Deferred` and `Expired` `Delivered`, `Applying` or `Applied` if its present offer
    /// was delivered before it went away, else `Queued`; in `RollbackQueued` what it has failed as, if it has and was
    /// not away since; in `Excluded` `RollbackQueued` if an operator took it out of a rollback; otherwise equal to `state`.
    pub(crate) stage: MemberState,
    /// How many of its falls since the offer, unannounced disconnects and turns from well to ill, lie within the window of the
    /// gate that asks; three stay three.
    pub(crate) falls: u8,
    /// Failures of the transport and time-outs so far, the last one included.
    pub(crate) transport_tries: u8,
    /// FAILED so far, the last one included.
    pub(crate) failed_tries: u8,
    /// Falls within the gate's window before the offer, two at most; and whether it stays with that, because an operator has
    /// let it be tried again.
    pub(crate) falls_before: u8,
    /// How often it came back within its grace under the present offer; while it goes back, how often it went away.
    pub(crate) returns: u8,
    pub(crate) flags: Flags,
    /// One bit for each gate it counts against.
    pub(crate) bad: u16,
    pub(crate) wave: WaveIx,
    pub(crate) zone: ZoneIx,
    /// Last known good configuration, else the one assigned before.
    pub(crate) previous: ConfigIx,
    /// Number of its present offer; 0 before the first.
    pub(crate) offer: u32,
    /// Since when it is in its state.
    pub(crate) since: Time,
    /// When time alone changes it; [`Time::NEVER`] without a deadline.
    pub(crate) deadline: Time,
    /// When the present offer was made, and from `Applied` on when it was applied.
    pub(crate) applied_at: Time,
    /// When it fell the last two times, whatever it was offered since.
    pub(crate) fell: Fell,
}

const _: () = assert!(std::mem::size_of::<Row>() == 56);

impl Row {
    /// A member that waits for its first offer.
    pub(crate) fn queued(wave: WaveIx, zone: ZoneIx, previous: ConfigIx, flags: Flags, since: Time) -> Self {
        Self {
            state: MemberState::Queued,
            reason: Reason::Nothing,
            stage: MemberState::Queued,
            falls: 0,
            transport_tries: 0,
            failed_tries: 0,
            falls_before: 0,
            returns: 0,
            flags,
            bad: 0,
            wave,
            zone,
            previous,
            offer: 0,
            since,
            deadline: Time::NEVER,
            applied_at: Time(0),
            fell: Fell::default(),
        }
    }

    /// What an entry about the member says: everything but wave, zone and previous.
    pub(crate) fn changed(&self) -> Changed {
        Changed {
            state: self.state,
            reason: self.reason,
            stage: self.stage,
            falls: self.falls,
            transport_tries: self.transport_tries,
            failed_tries: self.failed_tries,
            falls_before: self.falls_before,
            returns: self.returns,
            flags: self.flags,
            bad: self.bad,
            offer: self.offer,
            since: self.since,
            deadline: self.deadline,
            applied_at: self.applied_at,
            fell: self.fell,
        }
    }

    /// The row after an entry; wave, zone and previous stay.
    pub(crate) fn with(&self, changed: &Changed) -> Self {
        let Changed {
            state,
            reason,
            stage,
            falls,
            transport_tries,
            failed_tries,
            falls_before,
            returns,
            flags,
            bad,
            offer,
            since,
            deadline,
            applied_at,
            fell,
        } = *changed;
        Self {
            state,
            reason,
            stage,
            falls,
            transport_tries,
            failed_tries,
            falls_before,
            returns,
            flags,
            bad,
            offer,
            since,
            deadline,
            applied_at,
            fell,
            wave: self.wave,
            zone: self.zone,
            previous: self.previous,
        }
    }

    /// The row as gates see it.
    pub(crate) fn view(&self) -> RowView<'_> {
        RowView(self)
    }
}

/// The part of a member that its entries carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its state.
    pub state: MemberState,
    /// Why.
    pub reason: Reason,
    /// The stage at which it went away, while it is away; what it has failed as, while it waits to go back; otherwise its
    /// state.
    pub stage: MemberState,
    /// Falls since the offer that lie close together, three at most.
    pub falls: u8,
    /// Failures of the transport and time-outs so far.
    pub transport_tries: u8,
    /// FAILED so far.
    pub failed_tries: u8,
    /// Falls shortly before the offer, two at most; 128 more if an operator has let it be tried again.
    pub falls_before: u8,
    /// How often it came back under the present offer.
    pub returns: u8,
    /// Its flags.
    pub flags: Flags,
    /// One bit for each gate it counts against.
    pub bad: u16,
    /// Its present offer.
    pub offer: u32,
    /// Since when it is in its state.
    pub since: Time,
    /// Its deadline; [`Time::NEVER`] without one.
    pub deadline: Time,
    /// When the offer was made or applied.
    pub applied_at: Time,
    /// When it fell the last two times.
    pub fell: Fell,
}

const _: () = assert!(std::mem::size_of::<Changed>() == 48);

/// In [`Row::falls_before`]: an operator has let it be tried again. How it was before its first offer is what it stays
/// compared with.
pub(crate) const TRIED: u8 = 0x80;

/// When a member fell the last two times, in whole seconds of engine time; 0 for never. Two are enough to tell whether a third
/// one makes a loop, and whether it fell at that pace before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fell {
    last: u32,
    before: u32,
}

impl Fell {
    /// When it fell last, and when before that: unannounced disconnects, and turns from well to ill.
    pub fn new(last: Option<Time>, before: Option<Time>) -> Self {
        let at = |time: Option<Time>| time.map_or(0, |time| seconds(time).max(1));
        Self { last: at(last), before: at(before) }
    }

    /// The last fall and the one before, in seconds; 0 for none.
    pub(crate) const fn from_seconds(last: u32, before: u32) -> Self {
        Self { last, before }
    }

    /// The last fall and the one before, in seconds; 0 for none.
    pub(crate) const fn seconds(self) -> [u32; 2] {
        [self.last, self.before]
    }

    /// It falls now.
    pub(crate) fn again(self, now: Time) -> Self {
        Self { last: seconds(now).max(1), before: self.last }
    }

    /// What is known of it by two who have looked: what was seen last.
    pub(crate) fn latest(self, other: Self) -> Self {
        if other.last > self.last { other } else { self }
    }

    /// How many of the two were within the span up to now, both to the second.
    pub(crate) fn within(self, span: Duration, now: Time) -> u8 {
        let now = seconds(now);
        let is_within = |at: &u32| *at > 0 && *at <= now && u64::from(now - *at) <= span.as_secs();
        self.seconds().iter().filter(|at| is_within(at)).count() as u8
    }
}

fn seconds(at: Time) -> u32 {
    u32::try_from(at.0 / 1000).unwrap_or(u32::MAX)
}

/// A member as gates see it: what it is and did, without its deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowView<'a>(&'a Row);

impl RowView<'_> {
    pub(crate) const fn state(self) -> MemberState {
        self.0.state
    }

    pub(crate) const fn reason(self) -> Reason {
        self.0.reason
    }

    /// As in [`Row::stage`]: how far it was in states in which it waits, or has stopped waiting; otherwise the state.
    pub(crate) const fn stage(self) -> MemberState {
        self.0.stage
    }

    pub(crate) const fn has(self, flags: Flags) -> bool {
        self.0.flags.contains(flags)
    }

    pub(crate) const fn falls(self) -> u8 {
        self.0.falls
    }

    pub(crate) const fn falls_before(self) -> u8 {
        self.0.falls_before & !TRIED
    }

    /// What windows of gates run from: when the present offer was made, when it was applied, and, once it has settled well,
    /// since when it has.
    pub(crate) const fn window_from(self) -> Time {
        match self.0.state {
            MemberState::Unverified | MemberState::Verified => self.0.since,
            _ => self.0.applied_at,
        }
    }

    pub(crate) const fn counts_against(self, gate: GateIx) -> bool {
        self.0.bad & gate.bit() != 0
    }
}

/// What is known of a member, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// It is connected.
    pub const CONNECTED: Self = Self(1);
    /// Its last known health is well.
    pub const HEALTHY: Self = Self(1 << 1);
    /// It reports the status of remote configurations.
    pub const REPORTS_STATUS: Self = Self(1 << 2);
    /// It reports health.
    pub const REPORTS_HEALTH: Self = Self(1 << 3);
    /// Its effective configuration equalled the desired one before, so that a difference means something.
    pub const EXACT_EFFECTIVE: Self = Self(1 << 4);
    /// It polls over HTTP.
    pub const POLLING: Self = Self(1 << 5);
    /// It was ill at the offer.
    pub const WAS_UNHEALTHY: Self = Self(1 << 6);
    /// It was away at the offer.
    pub const WAS_AWAY: Self = Self(1 << 7);
    /// An offer was written for it.
    pub const TOUCHED: Self = Self(1 << 8);
    /// It joined after the plan was made.
    pub const JOINER: Self = Self(1 << 9);
    /// It does not match the selector any more.
    pub const LEFT: Self = Self(1 << 10);
    /// Its apply deadline was extended by APPLYING.
    pub const EXTENDED: Self = Self(1 << 11);
    /// It reported well under the present offer.
    pub const HEALTHY_SINCE: Self = Self(1 << 12);
    /// It reported APPLIED for the present offer.
    pub const APPLIED_SEEN: Self = Self(1 << 13);
    /// Its effective configuration equalled the offered one.
    pub const EFFECTIVE_SEEN: Self = Self(1 << 14);
    /// It reported FAILED for the present offer.
    pub const FAILED_SEEN: Self = Self(1 << 15);

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags with `flags` set, or not.
    #[must_use]
    pub const fn set(self, flags: Self, on: bool) -> Self {
        if on { Self(self.0 | flags.0) } else { Self(self.0 & !flags.0) }
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Flags {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_changes_everything_but_wave_zone_and_previous() {
        let row = Row::queued(WaveIx(1), ZoneIx(2), ConfigIx(3), Flags::CONNECTED, Time(4));
        let other = Row {
            state: MemberState::Offered,
            offer: 1,
            deadline: Time(9),
            wave: WaveIx(7),
            zone: ZoneIx(7),
            previous: ConfigIx(7),
            ..row
        };
        let after = row.with(&other.changed());
        assert_eq!(after, Row { wave: row.wave, zone: row.zone, previous: row.previous, ..other });
        assert_eq!(after.changed(), other.changed());
    }

    #[test]
    fn flags_are_set_and_taken_back_one_by_one() {
        let flags = Flags::CONNECTED | Flags::HEALTHY;
        assert!(flags.contains(Flags::HEALTHY) && !flags.contains(Flags::HEALTHY | Flags::LEFT));
        assert_eq!(flags.set(Flags::HEALTHY, false), Flags::CONNECTED);
        assert_eq!(flags & !Flags::CONNECTED, Flags::HEALTHY);
    }
}
