//! Rolling back: targets, scopes, offers, endings (R66 to R69, R72).
//!
//! Each member goes back to its own last known good configuration. There is no canary and no dwell; claims, hence rates
//! and caps, hold. A member that fails to go back does not stop the others, and is never asked twice.

use opamp_proto::{AgentId, Fingerprint};

use super::{Done, First, Live, needs};
use crate::coordinator::{ClaimKind, Denied};
use crate::faults::seeded;
use crate::rollout::engine::{Engine, Run, State};
use crate::rollout::gates::{self, Evidence, GateState};
use crate::rollout::journal::RolloutEntry;
use crate::rollout::members::{Changed, Flags, Row};
use crate::rollout::{
    AlertKind, GateIx, MemberIx, MemberState, Outcome, Reason, Refused, RolloutState, Scope, Time, WaveIx,
    Write, member,
};

impl Engine {
    pub(super) fn roll_back_by(&mut self, live: Live, scope: Scope, actor: &str, run: &mut Run<'_>) -> Done {
        if let Scope::Wave(wave) = scope
            && wave.index() >= self.state.waves.len()
        {
            return Err(Refused::UnknownWave);
        }
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CANCEL))
            }
            Live::RollingBack if scope != Scope::All || self.state.scope == Some(Scope::All) => {
                Ok(First::NothingToDo)
            }
            Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack => {
                self.roll_back(scope, Reason::Operator, actor, None, run);
                Ok(First::Done)
            }
        }
    }

    /// Begins to put members back, or widens the scope.
    pub(crate) fn roll_back(
        &mut self,
        scope: Scope,
        reason: Reason,
        actor: &str,
        evidence: Option<Evidence>,
        run: &mut Run<'_>,
    ) {
        let line = evidence.as_ref().map_or_else(|| reason.to_string(), ToString::to_string);
        let entry = self.entry(RolloutState::RollingBack, reason, actor, run.now);
        self.enter(RolloutEntry { scope: Some(scope), evidence, ..entry }, run);
        self.fail_waves(run);
        self.volatile.scanned = 0;
        self.volatile.late.clear();
        self.ask_again();
        self.alert(AlertKind::RollingBack, None, &line, run);
    }

    /// One step of the rollback: members in scope are queued for it, offers are made, and it ends when nobody is left.
    pub(crate) fn rollback_step(&mut self, run: &mut Run<'_>) -> bool {
        self.queue_rollbacks(run);
        self.offer_rollbacks(run);
        // An offer may have changed a member that was looked at before.
        self.volatile.unfinished |= self.next_to_look_at().is_some();
        let open = self.state.members_in(MemberState::RollbackQueued) + self.state.in_flight();
        let open = open + self.state.restarting;
        if self.volatile.unfinished || open > 0 {
            return false;
        }
        let [back, failed, deferred] =
            [MemberState::RolledBack, MemberState::RollbackFailed, MemberState::RollbackDeferred]
                .map(|state| self.state.members_in(state));
        let to = match (back, failed, deferred) {
            (_, 0, 0) => RolloutState::RolledBack,
            (0, _, 0) => RolloutState::RollbackFailed,
            _ => RolloutState::PartiallyRolledBack,
        };
        self.alert_left_behind(run);
        self.end(to, Reason::RollbackDone, super::ENGINE, run);
        true
    }

    /// Queues members in scope, as many as one call may. After a restart it begins anew: a member that is on its way back
    /// already is in no scope.
    fn queue_rollbacks(&mut self, run: &mut Run<'_>) {
        let scope = self.state.scope.unwrap_or(Scope::All);
        while let Some(ix) = self.next_to_look_at() {
            let row = *self.state.members.row(ix);
            let goes_back = self.is_in_scope(&row, scope);
            if goes_back || row.state == MemberState::Backoff {
                if !self.may_offer_more() {
                    return;
                }
                self.count_offer();
                let around = self.around(ix, run.now);
                let step = if goes_back {
                    member::on_roll_back(&row, &around)
                } else {
                    member::on_stop(&row, &around)
                };
                self.step(ix, step, run);
                self.defer_rollback(ix, run);
            }
            // What it has become by that is no change that came late.
            self.volatile.late.remove(&ix);
            self.volatile.scanned = self.volatile.scanned.max(ix.0 + 1);
        }
    }

    /// The next member about which it is to be found out whether it goes back.
    fn next_to_look_at(&self) -> Option<MemberIx> {
        let next = MemberIx(self.volatile.scanned);
        self.volatile.late.first().copied().or(self.state.members.has(next).then_some(next))
    }

    /// Who is away needs no turn: what it is to go back to is written at once, so that it is the first that it gets (R69).
    fn defer_rollback(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        let row = *self.state.members.row(ix);
        if row.state == MemberState::RollbackQueued && !row.flags.contains(Flags::CONNECTED) {
            let _ = self.claim_rollback(ix, run);
        }
    }

    /// What was recalled is written for nobody, not even for who is away or went back to it alone.
    pub(crate) fn is_previous_recalled(&self, ix: MemberIx, run: &Run<'_>) -> bool {
        self.rollback_target(ix).is_some_and(|config| run.shared.is_recalled(&config))
    }

    /// Whether a member goes back. One that was ill before the rollout is left alone by rollbacks that nobody asked for
    /// (R72).
    fn is_in_scope(&self, row: &Row, scope: Scope) -> bool {
        let is_automatic = self.state.reason == Reason::GateFailed;
        let was_ill = row.flags.contains(Flags::WAS_UNHEALTHY);
        let is_touched = row.flags.contains(Flags::TOUCHED);
        // An operator has taken it out of the rollback.
        let is_spared = row.state == MemberState::Excluded && row.stage == MemberState::RollbackQueued;
        let is_in = match scope {
            Scope::All => true,
            Scope::Failed => {
                let is_tried_again = row.state == MemberState::Backoff || State::counts_again(row);
                let is_known = row.state.outcome() == Outcome::Bad || is_tried_again || has_vanished(row);
                is_known || self.counts_against_it(row)
            }
            Scope::Wave(wave) => row.wave == wave,
        };
        is_touched && is_in && !is_spared && !(is_automatic && was_ill)
    }

    /// Whether a member counts against a gate that acts and has a say: it has failed, as far as the rollout is concerned. Whom
    /// a gate excuses it does not count.
    fn counts_against_it(&self, row: &Row) -> bool {
        let gates = (0_u8..).map(GateIx).zip(&self.plan.gates).zip(&self.state.wave(row.wave).gates);
        let mut acting = gates.filter(|((gate, config), count)| {
            let is_waived = self.state.waived & gate.bit() != 0 || count.state == GateState::Waived;
            config.acts() && !is_waived
        });
        acting.any(|((gate, config), _)| gates::mark(gate, config, row.view()) == Some(true))
    }

    /// Offers previous configurations to members that are queued for them, as many as may be in flight.
    pub(crate) fn offer_rollbacks(&mut self, run: &mut Run<'_>) {
        if self.volatile.retry_at.is_some_and(|at| at > run.now) {
            return;
        }
        self.volatile.retry_at = None;
        let cap = self.plan.settings.in_flight_max.min(self.state.limits.in_flight_max).max(1);
        while self.state.members_in(MemberState::RollbackOffered) < cap {
            let Some(ix) = self.next_to_go_back() else { return };
            if !self.may_offer_more() {
                return;
            }
            match self.claim_rollback(ix, run) {
                Ok(()) => self.count_offer(),
                Err(denied) => {
                    self.deny(ix, denied, run.now);
                    if !matches!(denied, Denied::Zone { .. }) {
                        return;
                    }
                }
            }
        }
    }

    /// The first member that waits to go back, leaving out full failure domains.
    fn next_to_go_back(&self) -> Option<MemberIx> {
        let waiting = self.volatile.going_back.iter();
        let with_room = waiting.filter(|(zone, _)| !self.volatile.full.contains_key(*zone));
        with_room.filter_map(|(_, members)| members.first()).min().copied()
    }

    /// Offers its previous configuration to one member, or does what has to be done instead.
    fn claim_rollback(&mut self, ix: MemberIx, run: &mut Run<'_>) -> Result<(), Denied> {
        let row = *self.state.members.row(ix);
        if let Some(step) = member::before_claim(&row, &self.around(ix, run.now)) {
            self.step(ix, step, run);
            return Ok(());
        }
        let Some(config) = self.rollback_target(ix) else {
            self.rollback_fails(ix, Reason::NoTarget, run);
            return Ok(());
        };
        if seeded!(self.faults, RolledBackUnasked) {
            let state = MemberState::RolledBack;
            let row = Changed { state, stage: state, since: run.now, deadline: Time::NEVER, ..row.changed() };
            self.change(ix, row, run);
            return Ok(());
        }
        match self.claim(ix, ClaimKind::Rollback, config, run) {
            Ok(()) => {
                let row = member::offered(&row, &self.around(ix, run.now));
                self.desire(ix, row.offer, config, true, run);
                self.change(ix, row, run);
                Ok(())
            }
            // What was recalled is never assigned again, not even to go back to.
            Err(Denied::Recalled) => {
                self.rollback_fails(ix, Reason::Recalled, run);
                Ok(())
            }
            Err(denied) => Err(denied),
        }
    }

    pub(crate) fn rollback_fails(&mut self, ix: MemberIx, reason: Reason, run: &mut Run<'_>) {
        let state = MemberState::RollbackFailed;
        let row = self.state.members.row(ix).changed();
        let row = Changed { state, stage: state, reason, since: run.now, deadline: Time::NEVER, ..row };
        self.change(ix, row, run);
    }

    /// A member is back that was away when its turn to go back came. Its previous configuration is written already (R69);
    /// a denied claim, or a pause, puts it back into the queue. A rollout that ends offers nothing any more.
    pub(crate) fn offer_rollback(&mut self, ix: MemberIx, run: &mut Run<'_>) {
        let goes_on = matches!(
            self.state.state,
            RolloutState::RollingBack | RolloutState::Running | RolloutState::Baking
        );
        if !goes_on && self.state.state != RolloutState::Paused {
            return;
        }
        if !goes_on || self.claim_rollback(ix, run).is_err() {
            let state = MemberState::RollbackQueued;
            let row = self.state.members.row(ix).changed();
            let row = Changed { state, stage: state, since: run.now, deadline: Time::NEVER, ..row };
            self.change(ix, row, run);
        }
    }

    /// What a member goes back to: its own last known good configuration, else what it was assigned before.
    pub(crate) fn rollback_target(&self, ix: MemberIx) -> Option<Fingerprint> {
        if seeded!(self.faults, CommonRollbackTarget) {
            return self.state.members.configs.first().copied();
        }
        self.state.members.previous(ix)
    }

    /// Members that are verified have run the configuration well for as long as they were to be watched: those of a wave, or
    /// all (R66).
    pub(crate) fn known_good(&self, wave: Option<WaveIx>, run: &mut Run<'_>) {
        let (rollout, slot, config) = (self.plan.id, self.plan.slot, self.plan.target);
        run.out.writes.push(Write::KnownGood { rollout, slot, config, wave, at: run.now });
    }

    /// The configuration does not work on a member: it is not its last known good one, and what has failed is remembered
    /// (R31, R66).
    pub(crate) fn known_bad(&self, ix: MemberIx, run: &mut Run<'_>) {
        let row = self.state.members.row(ix);
        let remembered = match (row.state, row.reason) {
            (MemberState::Rejected | MemberState::SelfRolledBack, _) => true,
            (MemberState::Failed, Reason::ReportedFailed) => true,
            (MemberState::Failed, Reason::LocalEdit) | (MemberState::TimedOut, _) => false,
            _ => return,
        };
        let (agent, slot, config) = (*self.state.members.id(ix), self.plan.slot, self.plan.target);
        let previous = self.state.members.previous(ix);
        run.out.writes.push(Write::Failed { agent, slot, config, previous, remembered });
    }

    /// A member has changed. Who waits to go back is known by that; and while the rollout goes back, one that was looked at
    /// already is looked at again if it is in scope now, because it failed late, or because late evidence shows that it has
    /// what all go back from.
    pub(crate) fn follow_rollback(&mut self, ix: MemberIx) {
        let row = self.state.members.row(ix);
        let after = row.state;
        if after == MemberState::RollbackQueued {
            self.volatile.going_back.entry(row.zone).or_default().insert(ix);
            return;
        }
        if let Some(members) = self.volatile.going_back.get_mut(&row.zone) {
            members.remove(&ix);
        }
        if self.state.state != RolloutState::RollingBack || ix.0 >= self.volatile.scanned {
            return;
        }
        let is_on_its_way = matches!(
            after,
            MemberState::RollbackOffered | MemberState::RollbackFailed | MemberState::RolledBack
        );
        let has_it = after.in_flight() || matches!(after.outcome(), Outcome::Bad | Outcome::Well);
        let has_it = has_it || after == MemberState::Unverified || has_vanished(row);
        let goes_back = has_it && self.state.scope.is_some_and(|scope| self.is_in_scope(row, scope));
        if after == MemberState::Backoff || goes_back && !is_on_its_way {
            self.volatile.late.insert(ix);
        }
    }

    /// Those that could not even be tried keep what they have: somebody should know how many they are.
    fn alert_left_behind(&mut self, run: &mut Run<'_>) {
        let is_left = |row: &&Row| {
            row.state == MemberState::RollbackFailed
                && matches!(row.reason, Reason::NoTarget | Reason::Recalled)
        };
        let left = self.state.members.rows.iter().filter(is_left).count();
        if left > 0 {
            let text = format!("{left} members have nothing to go back to and keep what they have");
            self.alert(AlertKind::RollingBack, None, &text, run);
        }
        let away = self.state.members_in(MemberState::RollbackDeferred);
        if away > 0 {
            let text =
                format!("{away} members are away; what they are to go back to is the first that they get");
            self.alert(AlertKind::RollingBack, None, &text, run);
        }
    }

    pub(crate) fn alert_quarantine(&mut self, agent: &AgentId, run: &mut Run<'_>) {
        let text = format!("{agent} did not go back and is left alone");
        self.alert(AlertKind::Quarantined, None, &text, run);
    }
}

/// Whether a member went away with the configuration and stays away, which `disconnect-ratio` counts.
fn has_vanished(row: &Row) -> bool {
    let has_it = matches!(row.state, MemberState::Deferred | MemberState::Verified | MemberState::Unverified);
    has_it && row.reason == Reason::GraceOver
}
