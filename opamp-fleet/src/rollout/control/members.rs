//! Commands about single members: exclude, allow a hash again, release the control group.

use opamp_proto::AgentId;

use super::{Done, First, Live, needs};
use crate::rollout::engine::{Engine, Run};
use crate::rollout::member::{self, Step};
use crate::rollout::{MemberIx, MemberState, Reason, Refused, RolloutState, WaveState};

impl Engine {
    pub(super) fn exclude(&mut self, live: Live, agent: &AgentId, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CHANGE_PLAN))
            }
            Live::Running | Live::Paused | Live::Baking | Live::Aborting | Live::RollingBack => {
                let ix = self.state.members.find(agent).ok_or(Refused::UnknownAgent)?;
                let step = member::on_exclude(self.state.members.row(ix), &self.around(ix, run.now));
                Ok(self.done(ix, step, run))
            }
        }
    }

    /// The configuration may be offered again to a member on which it failed, or had failed before (R31).
    pub(super) fn allow_hash(&mut self, live: Live, agent: &AgentId, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft => Err(Refused::UnknownAgent),
            Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CHANGE_PLAN))
            }
            Live::Running | Live::Paused | Live::Baking => {
                let ix = self.state.members.find(agent).ok_or(Refused::UnknownAgent)?;
                let step = member::on_allow(self.state.members.row(ix), &self.around(ix, run.now));
                Ok(self.done(ix, Step { requeue: true, ..step }, run))
            }
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::RUNNING)),
        }
    }

    fn done(&mut self, ix: MemberIx, step: Step, run: &mut Run<'_>) -> First {
        let before = *self.state.members.row(ix);
        self.step(ix, step, run);
        if *self.state.members.row(ix) == before { First::NothingToDo } else { First::Done }
    }

    /// The control group gets the configuration with the last wave (R43).
    pub(super) fn release_control_group(&mut self, live: Live, actor: &str, run: &mut Run<'_>) -> Done {
        match live {
            Live::Draft | Live::PendingApproval | Live::Scheduled | Live::Preflight | Live::Ready => {
                Err(live.refuses(needs::CHANGE_PLAN))
            }
            Live::Paused => Err(live.refuses(needs::RESUME_FIRST)),
            Live::Aborting | Live::RollingBack => Err(live.refuses(needs::RUNNING)),
            Live::Running | Live::Baking => {
                if self.state.members_in(MemberState::Control) == 0 {
                    return Ok(First::NothingToDo);
                }
                self.release(live, actor, run);
                Ok(First::Done)
            }
        }
    }

    fn release(&mut self, live: Live, actor: &str, run: &mut Run<'_>) {
        let last = self.state.last_wave();
        for at in 0..self.state.members.len() {
            let ix = MemberIx(at as u32);
            if self.state.members.row(ix).state != MemberState::Control {
                continue;
            }
            let step = member::on_release(self.state.members.row(ix), &self.around(ix, run.now));
            let Some(row) = step.row else { continue };
            if self.state.members.row(ix).wave == last {
                self.change(ix, row, run);
            } else {
                self.move_to(ix, last, row, run);
            }
        }
        if live == Live::Baking {
            self.stop_countdowns(run);
            self.transition(RolloutState::Running, Reason::Operator, actor, run);
        }
        let wave = self.state.wave(last);
        if wave.is_over() {
            self.dwell_anew(last, run);
            self.set_wave(last, WaveState::Dispatching, Reason::MemberQueuedAgain, run);
        }
    }
}
