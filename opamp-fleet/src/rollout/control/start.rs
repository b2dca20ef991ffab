//! Commands before a rollout runs: submit, approve, reject, preflight, start, cancel.

use opamp_proto::Fingerprint;

use super::{Done, First, Live, needs};
use crate::rollout::engine::{Engine, Run};
use crate::rollout::journal::RolloutEntry;
use crate::rollout::{PauseReason, Reason, Refused, RolloutState, WaveIx, WaveState, Write};

impl Engine {
    pub(super) fn submit(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft if self.plan.settings.approval => {
                self.transition(RolloutState::PendingApproval, Reason::Approval, actor, run);
                Ok(First::Done)
            }
            Live::Draft => {
                self.agreed(actor, run);
                Ok(First::Done)
            }
            Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => Ok(First::NothingToDo),
            Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack => {
                Err(live.refuses(needs::DRAFT))
            }
        }
    }

    /// Nobody has to agree any more: it waits for its time, or the preflight begins.
    fn agreed(&mut self, actor: &str, run: &mut Run<'_>) {
        if self.plan.start_at.is_some_and(|at| at > run.now) {
            self.transition(RolloutState::Scheduled, Reason::Approved, actor, run);
        } else {
            self.begin_preflight(self.plan.start_at.is_some(), Reason::Approved, actor, run);
        }
    }

    /// The plan is compared with the fleet. Whether it is to run right after that is kept in `from`.
    pub(crate) fn begin_preflight(&mut self, starts: bool, reason: Reason, actor: &str, run: &mut Run<'_>) {
        let entry = self.entry(RolloutState::Preflight, reason, actor, run.now);
        let from = starts.then_some(RolloutState::Running);
        self.enter(RolloutEntry { from, ..entry }, run);
    }

    pub(super) fn approve(
        &mut self,
        live: Live,
        plan: Fingerprint,
        wave: Option<WaveIx>,
        actor: &str,
        run: &mut Run<'_>,
    ) -> Done {
        match live {
            Live::Draft => return Err(live.refuses(needs::SUBMITTED)),
            Live::Aborting | Live::RollingBack => return Err(live.refuses(needs::APPROVAL_GIVEN)),
            Live::PendingApproval
            | Live::Scheduled
            | Live::Preflight
            | Live::Ready
            | Live::Running
            | Live::Paused
            | Live::Baking => {}
        }
        self.same_plan(plan)?;
        if wave.is_some_and(|wave| wave.index() >= self.state.waves.len()) {
            return Err(Refused::UnknownWave);
        }
        let waiting = self.state.current().filter(|at| {
            let of = self.state.wave(*at);
            // Who agrees to the plan has not agreed to whichever wave waits by the time that is heard.
            of.state == WaveState::Waiting && of.reason == Reason::Approval && wave == Some(*at)
        });
        match (live, waiting) {
            (Live::PendingApproval, _) => self.agreed(actor, run),
            (Live::Running, Some(at)) => self.approved(at, run),
            _ => return Ok(First::NothingToDo),
        }
        Ok(First::Done)
    }

    /// Whoever agrees or starts has looked at the plan that holds.
    fn same_plan(&self, plan: Fingerprint) -> Result<(), Refused> {
        let holds = plan == self.state.plan && plan == self.plan.hash;
        if holds { Ok(()) } else { Err(Refused::PlanChanged) }
    }

    pub(super) fn reject(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft => Err(live.refuses(needs::SUBMITTED)),
            Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                self.end(RolloutState::Rejected, Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack => {
                Err(live.refuses(needs::ABORT))
            }
        }
    }

    /// The plan as it would be made now has come; anywhere but in the preflight it is of no interest.
    pub(super) fn preflighted(
        &mut self,
        live: Live,
        plan: Fingerprint,
        usable: bool,
        actor: &str,
        run: &mut Run<'_>,
    ) -> First {
        if live != Live::Preflight {
            return First::NothingToDo;
        }
        let is_wanted = self.state.from == RolloutState::Running;
        let auto_start = self.plan.settings.auto_start;
        if !usable {
            self.end(RolloutState::Rejected, Reason::PlanUnusable, actor, run);
        } else if plan == self.plan.hash {
            self.transition(RolloutState::Ready, Reason::PlanConfirmed, actor, run);
            if is_wanted || auto_start {
                self.begin_running(Reason::Due, actor, run);
            }
        } else {
            let needs_approval = self.plan.settings.approval;
            let to = if needs_approval { RolloutState::PendingApproval } else { RolloutState::Ready };
            // Whoever starts a rollout by hand has looked at the plan that holds no more (R12); a date and a setting mean
            // whatever plan holds (R53).
            let starts = auto_start || is_wanted && self.state.reason != Reason::Operator;
            let from = (starts && !needs_approval).then_some(RolloutState::Running);
            let entry = self.entry(to, Reason::PlanChanged, actor, run.now);
            self.enter(RolloutEntry { from, plan: Some(plan), ..entry }, run);
        }
        First::Done
    }

    pub(super) fn start(&mut self, live: Live, plan: Fingerprint, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval => Err(Refused::NotApproved),
            Live::Scheduled => {
                self.same_plan(plan)?;
                self.begin_preflight(true, Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Preflight => {
                self.same_plan(plan)?;
                if self.state.from == RolloutState::Running {
                    return Ok(First::NothingToDo);
                }
                self.begin_preflight(true, Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Ready => {
                self.same_plan(plan)?;
                self.begin_running(Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Running | Live::Paused | Live::Baking => Ok(First::NothingToDo),
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::NOT_BEGUN)),
        }
    }

    /// Whether it begins as soon as its new plan is there.
    pub(crate) fn begins(&self) -> bool {
        let state = &self.state;
        let is_wanted = state.state == RolloutState::Ready && state.from == RolloutState::Running;
        is_wanted && self.plan.hash == state.plan
    }

    /// The rollout runs: what it offers is kept from now on (R71).
    pub(crate) fn begin_running(&mut self, reason: Reason, actor: &str, run: &mut Run<'_>) {
        run.out.writes.push(Write::Pin { rollout: self.plan.id, config: self.plan.target });
        self.transition(RolloutState::Running, reason, actor, run);
    }

    pub(super) fn cancel(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                self.end(RolloutState::Cancelled, Reason::Operator, actor, run);
                Ok(First::Done)
            }
            Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack => {
                Err(live.refuses(needs::ABORT))
            }
        }
    }

    pub(super) fn pause_by(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CANCEL))
            }
            Live::Paused if self.state.pause == Some(PauseReason::Operator) => Ok(First::NothingToDo),
            Live::Running | Live::Paused | Live::Baking => {
                let entry = self.pausing(PauseReason::Operator, Reason::Operator, actor, run.now);
                self.pause_with(entry, run);
                Ok(First::Done)
            }
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::ABORT_ENDS)),
        }
    }
}
