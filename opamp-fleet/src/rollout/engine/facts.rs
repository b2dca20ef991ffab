//! Facts and readings: from what becomes known to the member's row, and to the coordinator.

use opamp_proto::AgentId;

use super::{Engine, Run};
use crate::coordinator::{Claim, ClaimKind};
use crate::faults::seeded;
use crate::rollout::journal::{Entry, JoinedEntry, SampleEntry};
use crate::rollout::member::{self, Around, Step};
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::{
    Act, AgentFact, FleetFact, Leavers, MemberIx, MemberState, OfferKey, Outcome, Reading, Reason,
    RolloutState, Time, WaveIx, WaveState, Write, gates,
};

impl Engine {
    /// What the tables look at besides a member's row.
    pub(crate) fn around(&self, ix: MemberIx, now: Time) -> Around<'_> {
        let wave = self.state.members.row(ix).wave;
        Around {
            plan: &self.plan,
            rollout: self.state.state,
            wave: if wave == WaveIx::TAIL { WaveState::Dispatching } else { self.state.wave(wave).state },
            pace: self.state.members.pace(ix),
            previous: self.state.members.previous(ix),
            now,
            faults: self.faults,
        }
    }

    pub(super) fn agent_fact(&mut self, agent: &AgentId, fact: &AgentFact<'_>, run: &mut Run<'_>) {
        if self.state.state.is_terminal() {
            return;
        }
        if let AgentFact::Joined(candidate) = fact {
            self.joined(agent, candidate, run);
            return;
        }
        let Some(ix) = self.state.members.find(agent) else { return };
        let step = member::on_fact(self.state.members.row(ix), fact, &self.around(ix, run.now));
        let before = self.state.members.row(ix).state;
        self.step(ix, step, run);
        let after = self.state.members.row(ix).state;
        if let AgentFact::Reported { text: Some(text), .. } = fact
            && before != after
            && (after.outcome() == Outcome::Bad || after == MemberState::Backoff)
        {
            let text = cut(text, SampleEntry::TEXT_BYTES_MAX);
            self.record(Entry::Sampled(Box::new(SampleEntry { member: ix, text: text.into() })), run);
        }
    }

    pub(super) fn fleet_fact(&mut self, fact: FleetFact, run: &mut Run<'_>) {
        match fact {
            FleetFact::LeadershipDoubtful(doubtful) => {
                self.outside.doubtful = doubtful;
                self.stand_still(run);
            }
            FleetFact::Outside { total, away } => (self.outside.total, self.outside.away) = (total, away),
            FleetFact::Recalled(config) => {
                if config == self.plan.target {
                    self.recalled(run);
                }
            }
            FleetFact::StoreDegraded(degraded) => {
                let since = self.outside.degraded_since.unwrap_or(run.now);
                self.outside.degraded_since = degraded.then_some(since);
                self.stand_still(run);
            }
        }
    }

    /// Whatever outside stands in the way pauses the rollout. Once that is gone, [`Engine::paused_step`] looks whether it
    /// may go on.
    fn stand_still(&mut self, run: &mut Run<'_>) {
        if let Some((pause, reason)) = self.outside.cause()
            && matches!(self.state.state, RolloutState::Running | RolloutState::Baking)
        {
            self.pause(pause, reason, None, run);
        }
    }

    pub(super) fn reading(&mut self, reading: &Reading, run: &mut Run<'_>) {
        let state = self.state.state;
        if !matches!(state, RolloutState::Running | RolloutState::Paused | RolloutState::Baking) {
            return;
        }
        if !self.volatile.readings.take(&self.plan, reading, run.now) {
            return;
        }
        self.record(Entry::Reading(Box::new(reading.clone())), run);
        let wave = match reading {
            Reading::External { wave, .. } => wave.unwrap_or(WaveIx::TAIL),
            Reading::Telemetry { wave, .. } => *wave,
        };
        self.judge_wave(wave, None, run);
    }

    /// Does what a table says: the row, the undo of an undelivered offer, an offer of the previous configuration.
    pub(crate) fn step(&mut self, ix: MemberIx, step: Step, run: &mut Run<'_>) {
        self.surprises += u64::from(step.surprise);
        let is_recalled = step.undo && self.is_previous_recalled(ix, run);
        if let Some(row) = step.row {
            // What cannot be taken back stays what the agent is to have.
            let offer = if is_recalled { self.state.members.row(ix).offer } else { row.offer };
            let row = Changed { offer, ..row };
            if step.requeue && row.state == MemberState::Queued {
                self.queue_again(ix, row, run);
            } else {
                self.change(ix, row, run);
            }
            if is_recalled {
                if matches!(row.state, MemberState::RolledBack | MemberState::RollbackDeferred) {
                    self.rollback_fails(ix, Reason::Recalled, run);
                }
            } else if step.undo && !seeded!(self.faults, UndoForgotten) {
                self.desire_previous(ix, row.offer, run);
            }
        }
        if step.offer_rollback {
            self.offer_rollback(ix, run);
        }
    }

    /// Records a member's new row with what its gates make of it, tells the coordinator what it frees, and asks the gates.
    pub(crate) fn change(&mut self, ix: MemberIx, row: Changed, run: &mut Run<'_>) {
        let before = *self.state.members.row(ix);
        if self.put(ix, row, run) {
            self.changed(ix, &before, run);
        }
    }

    /// Records a member's new row, and nothing follows from it. Whether it is another one.
    pub(crate) fn put(&mut self, ix: MemberIx, row: Changed, run: &mut Run<'_>) -> bool {
        let before = *self.state.members.row(ix);
        let row = self.seeded_rollback_loop(&before, row, run.now);
        let row = self.seeded_deferred_counted(row);
        let (pace, is_watched) = (self.state.members.pace(ix), self.state.watches(before.wave));
        let bad = gates::bad_bits(&self.plan, before.with(&row).view(), pace, run.now, is_watched);
        let row = Changed { bad, ..row };
        row != before.changed() && self.record(Entry::Member { member: ix, row }, run)
    }

    /// A member comes into the queue of a wave, or of the tail, by an entry of its own: the row keeps its tries.
    pub(crate) fn move_to(&mut self, ix: MemberIx, wave: WaveIx, row: Changed, run: &mut Run<'_>) {
        let before = *self.state.members.row(ix);
        let entry = JoinedEntry {
            member: ix,
            agent: *self.state.members.id(ix),
            wave,
            zone: before.zone,
            previous: self.state.members.previous(ix),
            pace: self.state.members.pace(ix),
            fell: row.fell,
            flags: row.flags,
            state: row.state,
            reason: row.reason,
            at: run.now,
        };
        if self.record(Entry::Joined(Box::new(entry)), run) {
            self.changed(ix, &before, run);
        }
    }

    fn changed(&mut self, ix: MemberIx, before: &Row, run: &mut Run<'_>) {
        let after = *self.state.members.row(ix);
        let agent = *self.state.members.id(ix);
        let (id, slot) = (self.plan.id, self.plan.slot);
        let outcome = after.state.outcome();
        if !before.state.in_flight() && after.state.in_flight() {
            self.resumed(ix, run);
        }
        if before.state.in_flight() && !after.state.in_flight() {
            run.shared.settle(id, &agent, slot, outcome, run.now);
            self.room_again(ix);
        }
        // Who has nothing to go back to was not even tried (R68). Who waits to go back has failed before, if it has.
        let was_tried = before.state != MemberState::RollbackQueued
            && (after.state != MemberState::RollbackFailed
                || !matches!(after.reason, Reason::NoTarget | Reason::Recalled));
        if before.state.outcome() != Outcome::Bad && outcome == Outcome::Bad && was_tried {
            run.shared.failure(id, &agent, run.now, &mut run.out.writes);
            if after.state == MemberState::RollbackFailed {
                run.shared.quarantine(&agent, after.reason, run.now, &mut run.out.writes);
                self.alert_quarantine(&agent, run);
            }
        }
        if before.state != after.state {
            self.known_bad(ix, run);
        }
        // Who counts against a gate is among the failed as well.
        if (before.state, before.reason, before.bad) != (after.state, after.reason, after.bad) {
            self.follow_rollback(ix);
        }
        self.seek(ix);
        if before.state != after.state && self.state.current().is_none() && self.state.knows_nothing() {
            // Who came too late before is in time now.
            self.volatile.walked.clear();
        }
        self.left_or_came(ix, before);
        self.revert_leaver(ix, run);
        if before.state != after.state || before.bad != after.bad {
            self.judge_wave(after.wave, Some(ix), run);
        }
    }

    /// A member is in flight, by an offer that was claimed, or again without one: who comes back counts as well.
    fn resumed(&self, ix: MemberIx, run: &mut Run<'_>) {
        let row = self.state.members.row(ix);
        let is_back = row.state == MemberState::RollbackOffered;
        let claim = Claim {
            rollout: self.plan.id,
            agent: self.state.members.id(ix),
            slot: self.plan.slot,
            group: self.plan.group,
            zone: self.state.members.zones.get(row.zone.index()).map(|zone| &**zone),
            kind: if is_back { ClaimKind::Rollback } else { ClaimKind::Offer },
            limits: &self.state.limits,
        };
        run.shared.resume(&claim, run.now);
    }

    /// A member that has left the selector goes back once it has settled, or instead of another try, if that is the policy
    /// (R22).
    fn revert_leaver(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        let row = self.state.members.row(ix);
        let may_have_it = row.state.outcome() == Outcome::Bad
            || matches!(
                row.state,
                MemberState::Verified
                    | MemberState::Unverified
                    | MemberState::Backoff
                    | MemberState::Deferred
            );
        let has_left = row.flags.contains(Flags::LEFT | Flags::TOUCHED);
        let around = self.around(ix, run.now);
        if around.goes_on() && has_left && may_have_it && self.plan.settings.leavers == Leavers::Revert {
            let step = member::on_roll_back(row, &around);
            self.step(ix, step, run);
        }
    }

    /// The agent gets its previous configuration instead of what was offered or what failed on it.
    pub(crate) fn desire_previous(&mut self, ix: MemberIx, offer: u32, run: &mut Run<'_>) {
        let Some(config) = self.rollback_target(ix) else { return };
        self.desire(ix, offer, config, true, run);
    }

    /// Writes what an agent should have, and hints at it.
    pub(crate) fn desire(
        &mut self,
        ix: MemberIx,
        offer: u32,
        config: opamp_proto::Fingerprint,
        rollback: bool,
        run: &mut Run<'_>,
    ) {
        let agent = *self.state.members.id(ix);
        let key = OfferKey { rollout: self.plan.id, agent, offer };
        run.out.writes.push(Write::Desire { key, slot: self.plan.slot, config, rollback });
        run.out.acts.push(Act::Hint { agent });
    }

    /// The seeded fault `RollbackLoop`: a rollback that fails is simply offered again.
    fn seeded_rollback_loop(&self, before: &Row, row: Changed, now: Time) -> Changed {
        let fails = row.state == MemberState::RollbackFailed && before.state == MemberState::RollbackOffered;
        if fails && seeded!(self.faults, RollbackLoop) {
            let deadline = now + self.plan.settings.deadlines.apply;
            return Changed { offer: row.offer + 1, deadline, ..before.changed() };
        }
        row
    }

    /// The seeded fault `DeferredCounted`: who was away counts as if it had gone away with the configuration.
    fn seeded_deferred_counted(&self, row: Changed) -> Changed {
        if row.state == MemberState::Deferred && seeded!(self.faults, DeferredCounted) {
            return Changed { reason: Reason::GraceOver, stage: MemberState::Delivered, ..row };
        }
        row
    }
}

/// The longest beginning of a text that has at most so many bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("größe", 99), "größe");
    }
}
