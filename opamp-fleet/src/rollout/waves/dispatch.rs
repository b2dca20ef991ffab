//! Who is offered next, and the claims that an offer needs.
//!
//! Within a wave: first who is queued again, then who is planned, in order, then who came late. The last wave takes over
//! who is left of skipped ones.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::walked::Place;
use super::{Wave, waits, window};
use crate::coordinator::{Claim, ClaimKind, Denied};
use crate::faults::seeded;
use crate::rollout::engine::{Engine, Run};
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::windows::Opening;
use crate::rollout::{
    Limits, MemberIx, MemberState, PauseReason, Reason, RolloutState, Time, WaveIx, WaveState, Write, ZoneIx,
    member,
};

/// What came of looking at a candidate.
enum Looked {
    /// It was offered, or is no candidate any more.
    On,
    /// Its failure domain is full: others may still be offered.
    Full,
    /// Nobody can be offered now.
    Stop,
}

/// There are more to look at than one call may.
struct TooMany;

impl Engine {
    /// Most members that one call looks at for one whose failure domain has room.
    const SCAN_MAX: u32 = 1_024;

    /// Offers the configuration to as many members of a wave as may have it now.
    pub(super) fn dispatch(&mut self, ix: WaveIx, run: &mut Run<'_>) {
        if self.volatile.retry_at.is_some_and(|at| at > run.now) {
            return;
        }
        (self.volatile.retry_at, self.volatile.denied) = (None, None);
        while self.state.state == RolloutState::Running && self.has_room(ix) {
            let Some(candidate) = self.candidate(ix) else {
                let is_full = !self.volatile.full.is_empty() && !self.nobody_queued(ix);
                self.volatile.denied = is_full.then_some(Denied::Zone { until: None });
                return;
            };
            if !self.may_offer_more() {
                return;
            }
            match self.look_at(candidate, ix, run) {
                Looked::On => self.count_offer(),
                Looked::Full => {}
                Looked::Stop => return,
            }
        }
    }

    /// Offers to those who come late, while that may be done.
    pub(super) fn dispatch_tail(&mut self, run: &mut Run<'_>) {
        let any = self.state.tail.count(MemberState::Queued) > 0;
        if any && self.is_tail_dispatched() && self.closed_for(WaveIx::TAIL, run.now).is_none() {
            self.dispatch(WaveIx::TAIL, run);
        }
    }

    /// Whether those who come late may have it: the first wave that was not empty is over, and none is held.
    fn is_tail_dispatched(&self) -> bool {
        let is_judged = |wave: &Wave| wave.is_over() && wave.reason != Reason::EmptyWave;
        let is_first_over = self.state.current().is_none() || self.state.waves.iter().any(is_judged);
        self.held().is_none() && (is_first_over || seeded!(self.faults, JoinerEarly))
    }

    /// Whether somebody of the tail is still to be offered the configuration.
    pub(super) fn is_tail_awaited(&self) -> bool {
        let tail = &self.state.tail;
        // Of those that came late the first one came first; unless none but members are in time.
        let looked_at = if self.state.first_wave() == WaveIx::TAIL { usize::MAX } else { 1 };
        let first = tail.joined.iter().map(|(_, member)| member).take(looked_at);
        let mut queued = first.chain(&tail.requeued).chain(&tail.blocked);
        tail.count(MemberState::Backoff) > 0 || queued.any(|member| self.is_in_time(*member))
    }

    /// Whether the member came before the tail was closed: one window after the last wave has passed. Who comes later is left to
    /// the steady state, as in the bake, because where agents come all the time a rollout would never end otherwise. Who was
    /// offered it before is tried again nevertheless; and where all members were away when their wave had its turn, they are
    /// taken whenever they come, and so is whoever comes while nothing is known of the configuration.
    pub(crate) fn is_in_time(&self, ix: MemberIx) -> bool {
        let row = self.state.members.row(ix);
        if row.wave != WaveIx::TAIL || row.flags.contains(Flags::TOUCHED) || self.state.current().is_some() {
            return true;
        }
        let closes = self.state.wave(self.state.last_wave()).entered + self.longest_window();
        let is_planned = !row.flags.contains(Flags::JOINER);
        row.since <= closes
            || is_planned && self.state.first_wave() == WaveIx::TAIL
            || self.state.knows_nothing()
    }

    /// Why no offer may begin in this wave now, if so.
    pub(crate) fn closed_for(&mut self, ix: WaveIx, now: Time) -> Option<Reason> {
        let zone = self.plan.waves.get(ix.index()).and_then(|wave| wave.zone);
        let zone = zone.and_then(|zone| self.plan.zones.get(zone.index()));
        if !self.plan.calendar.holds_for(zone.map(|zone| &**zone)) {
            return None;
        }
        match self.opening(now) {
            Opening::Closed { by, .. } => Some(by),
            Opening::Open { .. } => None,
        }
    }

    /// Until when offers may not begin, if that ends by itself.
    pub(crate) fn closed_until(&mut self, now: Time) -> Option<Time> {
        match self.opening(now) {
            Opening::Closed { until, .. } => until,
            Opening::Open { .. } => None,
        }
    }

    /// What the calendar says. It is asked again only when what it said is over.
    fn opening(&mut self, now: Time) -> Opening {
        if let Some(known) = self.volatile.opening {
            let (Opening::Closed { until, .. } | Opening::Open { until }) = known;
            if until.is_none_or(|until| until > now) {
                return known;
            }
        }
        let opening = self.plan.calendar.at(now);
        self.volatile.opening = Some(opening);
        opening
    }

    fn has_room(&self, ix: WaveIx) -> bool {
        let wave = self.state.wave(ix);
        let cap = window::cap(&self.plan, &self.state, ix);
        let cap = if seeded!(self.faults, CapIgnored) { u32::MAX } else { cap };
        wave.in_flight < wave.window.min(cap)
    }

    /// The member whose turn it is, leaving out full failure domains.
    fn candidate(&mut self, ix: WaveIx) -> Option<MemberIx> {
        let own = self.candidate_of(ix);
        if own.is_some() || ix != self.state.last_wave() {
            return own;
        }
        let skipped = (0..self.state.waves.len()).map(|at| WaveIx(at as u16));
        let skipped = skipped.filter(|at| self.state.wave(*at).state == WaveState::Skipped);
        skipped.collect::<Vec<_>>().into_iter().find_map(|at| self.candidate_of(at))
    }

    /// The first member of a queue whose failure domain has room. One call looks at so many; the next one goes on from there.
    fn candidate_of(&mut self, ix: WaveIx) -> Option<MemberIx> {
        let mut walked = self.volatile.walked.remove(&ix).unwrap_or_default();
        let mut place = walked.start();
        let found = self.next_in(ix, &mut place, &mut walked.left);
        walked.walk(place, matches!(found, Ok(None)));
        if found.is_err() || !self.volatile.full.is_empty() || !walked.left.is_empty() {
            self.volatile.walked.insert(ix, walked);
        }
        self.volatile.unfinished |= found.is_err();
        found.unwrap_or_default()
    }

    /// The same from a place in the queue on, which moves over whoever has no room, and says of each full domain where its
    /// first one was left. An error if more is to be looked at.
    fn next_in(
        &self,
        ix: WaveIx,
        passed: &mut Place,
        left_at: &mut BTreeMap<ZoneIx, Place>,
    ) -> Result<Option<MemberIx>, TooMany> {
        let wave = self.state.wave(ix);
        let members = &self.state.members;
        // Whoever came after the tail was closed came after all others; unless none but members are in time.
        let is_in_order = self.state.first_wave() != WaveIx::TAIL;
        let mut has_room = |member: MemberIx, place: Place| {
            let zone = members.row(member).zone;
            let is_full = self.volatile.full.contains_key(&zone);
            if is_full {
                left_at.entry(zone).or_insert(place);
            }
            !is_full && (is_in_order || self.is_in_time(member))
        };
        let mut left = Self::SCAN_MAX;
        let mut pass = || {
            left = left.saturating_sub(1);
            if left == 0 { Err(TooMany) } else { Ok(()) }
        };
        let behind = |last: Option<MemberIx>| (last.map_or(Unbounded, Excluded), Unbounded);
        for member in wave.requeued.range(behind(passed.requeued)).copied() {
            if has_room(member, *passed) {
                return Ok(Some(member));
            }
            passed.requeued = Some(member);
            pass()?;
        }
        for member in (wave.cursor.max(passed.planned)..wave.end).map(MemberIx) {
            if waits(members.row(member), ix) && has_room(member, *passed) {
                return Ok(Some(member));
            }
            passed.planned = member.0 + 1;
            pass()?;
        }
        let behind = (passed.joined.map_or(Unbounded, Excluded), Unbounded);
        for (since, member) in wave.joined.range(behind).copied() {
            if is_in_order && !self.is_in_time(member) {
                break;
            }
            if has_room(member, *passed) {
                return Ok(Some(member));
            }
            passed.joined = Some((since, member));
            pass()?;
        }
        Ok(None)
    }

    fn look_at(&mut self, ix: MemberIx, wave: WaveIx, run: &mut Run<'_>) -> Looked {
        if self.state.members.row(ix).wave != wave {
            let row = self.state.members.row(ix).changed();
            self.move_to(ix, wave, row, run);
        }
        let row = *self.state.members.row(ix);
        if let Some(step) = member::before_claim(&row, &self.around(ix, run.now)) {
            self.step(ix, step, run);
            // A step that leaves the member where it was would be looked at for ever.
            let is_stuck = *self.state.members.row(ix) == row;
            return if is_stuck { Looked::Stop } else { Looked::On };
        }
        match self.claim(ix, ClaimKind::Offer, self.plan.target, run) {
            Ok(()) => {
                self.offer(ix, wave, run);
                Looked::On
            }
            Err(denied) => self.denied(ix, wave, denied, run),
        }
    }

    /// Asks the coordinator for what an offer needs.
    pub(crate) fn claim(
        &self,
        ix: MemberIx,
        kind: ClaimKind,
        config: opamp_proto::Fingerprint,
        run: &mut Run<'_>,
    ) -> Result<(), Denied> {
        let row = self.state.members.row(ix);
        if seeded!(self.faults, JoinerUngated) && row.flags.contains(Flags::JOINER) {
            return Ok(());
        }
        let domains = self.plan.domains.as_ref().map_or(u32::MAX, |domains| domains.in_flight_max);
        let limits = self.state.limits;
        let limits = Limits { zone_in_flight: limits.zone_in_flight.min(domains), ..limits };
        let claim = Claim {
            rollout: self.plan.id,
            agent: self.state.members.id(ix),
            slot: self.plan.slot,
            group: self.plan.group,
            zone: self.state.members.zones.get(row.zone.index()).map(|zone| &**zone),
            kind,
            limits: &limits,
        };
        run.shared.claim(&claim, config, run.now)
    }

    fn offer(&mut self, ix: MemberIx, wave: WaveIx, run: &mut Run<'_>) {
        if wave != WaveIx::TAIL && self.state.wave(wave).state == WaveState::Waiting {
            self.set_wave(wave, WaveState::Dispatching, Reason::Budget, run);
        }
        self.volatile.denied = None;
        let row = member::offered(self.state.members.row(ix), &self.around(ix, run.now));
        self.pin_previous(ix, run);
        self.desire(ix, row.offer, self.plan.target, false, run);
        self.change(ix, row, run);
    }

    /// What the member can go back to is kept as long as the rollout needs it (R71).
    fn pin_previous(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        if let Some(config) = self.newly_pinned(ix) {
            run.out.writes.push(Write::Pin { rollout: self.plan.id, config });
        }
    }

    fn denied(&mut self, ix: MemberIx, wave: WaveIx, denied: Denied, run: &mut Run<'_>) -> Looked {
        let row = *self.state.members.row(ix);
        match denied {
            // Nothing but another limit lets it go on.
            Denied::Blast { until: None }
                if self.has_touched_all(run) && !row.flags.contains(Flags::TOUCHED) =>
            {
                self.pause(PauseReason::BlastRadius, Reason::BlastRadius, None, run);
            }
            Denied::Blast { .. } | Denied::Breaker { .. } | Denied::Rate { .. } => {
                self.deny(ix, denied, run.now);
            }
            Denied::Budget => {
                self.deny(ix, denied, run.now);
                let of = self.state.wave(wave);
                let waits = wave != WaveIx::TAIL && of.state == WaveState::Dispatching && of.in_flight == 0;
                if waits {
                    self.set_wave(wave, WaveState::Waiting, Reason::Budget, run);
                }
            }
            Denied::Locked(_) => {
                self.blocked_by_lock(ix, &row, run);
                return Looked::On;
            }
            Denied::Quarantined { .. } => {
                let step = member::on_quarantine(&row, &self.around(ix, run.now));
                self.step(ix, step, run);
                return Looked::On;
            }
            Denied::Recalled => self.recalled(run),
            Denied::Zone { .. } => {
                self.deny(ix, denied, run.now);
                return Looked::Full;
            }
        }
        Looked::Stop
    }

    /// Nobody, or nobody of the member's failure domain, is offered anything before a time, or before something settles.
    pub(crate) fn deny(&mut self, ix: MemberIx, denied: Denied, now: Time) {
        let until = match denied {
            Denied::Blast { until } | Denied::Quarantined { until } | Denied::Zone { until } => until,
            Denied::Breaker { until } | Denied::Rate { until } => Some(until),
            Denied::Budget | Denied::Locked(_) | Denied::Recalled => None,
        };
        // A time that has come already would be asked for in a loop.
        let at = until.filter(|at| *at > now).unwrap_or(now + Self::RETRY_AFTER);
        if let Denied::Zone { .. } = denied {
            self.close_zone(self.state.members.row(ix).zone, at);
        } else {
            (self.volatile.denied, self.volatile.retry_at) = (Some(denied), Some(at));
        }
    }

    /// Whether as many members are touched as ever may be.
    pub(crate) fn has_touched_all(&self, run: &Run<'_>) -> bool {
        self.state.touched >= self.state.limits.touched_max.min(run.shared.settings().hard.touched_max)
    }

    fn blocked_by_lock(&mut self, ix: MemberIx, row: &Row, run: &mut Run<'_>) {
        let since = if row.reason == Reason::Locked { row.since } else { run.now };
        let deadline = run.now + run.shared.settings().lock_retry;
        let row = Changed { reason: Reason::Locked, since, deadline, ..row.changed() };
        self.change(ix, row, run);
    }

    /// A member that another rollout held is looked at again: it waits for its turn if nobody holds it any more, whether or
    /// not anybody may be offered anything now; after [`super::super::EngineSettings::lock_wait`] its wave goes on without it.
    pub(crate) fn look_at_lock_again(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        let row = *self.state.members.row(ix);
        let (id, slot) = (self.state.members.id(ix), self.plan.slot);
        if !run.shared.is_held_by_another(id, slot, self.plan.id) {
            self.unblock(ix, run);
        } else if run.now.since(row.since) >= self.plan.settings.lock_wait {
            let row = Changed {
                state: MemberState::Deferred,
                stage: MemberState::Queued,
                reason: Reason::Locked,
                since: run.now,
                deadline: run.now + self.plan.settings.deferred_ttl,
                ..row.changed()
            };
            self.change(ix, row, run);
        } else {
            self.blocked_by_lock(ix, &row, run);
        }
    }

    fn unblock(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        let row = self.state.members.row(ix).changed();
        self.change(ix, Changed { reason: Reason::Nothing, deadline: Time::NEVER, ..row }, run);
    }

    /// Members that another rollout held are in the queue again, those included that were left to the tail for it.
    pub(crate) fn unblock_all(&mut self, run: &mut Run<'_>) {
        let blocked: Vec<_> = self.state.queues().flat_map(|wave| wave.blocked.iter().copied()).collect();
        for ix in blocked {
            self.unblock(ix, run);
        }
        let deferred = self.state.members_in(MemberState::Deferred) > 0;
        for at in (0..self.state.members.len()).take_while(|_| deferred) {
            let ix = MemberIx(at as u32);
            let row = *self.state.members.row(ix);
            let waited = row.state == MemberState::Deferred && row.reason == Reason::Locked;
            if waited && row.flags.contains(Flags::CONNECTED) {
                let row = Changed {
                    state: MemberState::Queued,
                    stage: MemberState::Queued,
                    reason: Reason::Returned,
                    since: run.now,
                    deadline: Time::NEVER,
                    ..row.changed()
                };
                self.queue_again(ix, row, run);
            }
        }
    }

    /// A member has settled: what was denied for want of room may be granted now.
    pub(crate) fn room_again(&mut self, ix: MemberIx) {
        self.open_zone(self.state.members.row(ix).zone);
        if let Some(Denied::Blast { .. } | Denied::Budget) = self.volatile.denied {
            self.volatile.retry_at = None;
        }
    }

    /// Whatever was denied is asked for again.
    pub(crate) fn ask_again(&mut self) {
        self.volatile.retry_at = None;
        self.volatile.full.clear();
        self.volatile.walked.clear();
    }
}
