//! The control group is as old as the wave that it is compared with (R43).
//!
//! Who is offered it in a wave is compared with how it was then; what it suffered from before excuses it (R41). So it is with
//! the control group: at each wave's turn it is compared anew, and whoever is ill, away or falling by then is left out. A
//! host that was shut down on the first evening explains nothing on the third.
//!
//! What it has explained of earlier waves by then stays explained there, as long as so many still count against the gate: who
//! went away with everybody else in the second wave is not held against the rollout in the third.

use crate::rollout::engine::{Engine, Run, State};
use crate::rollout::gates::Expected;
use crate::rollout::plan::Plan;
use crate::rollout::waves::Wave;
use crate::rollout::{MemberIx, MemberState, WaveIx, member};

impl Engine {
    /// The control group is compared with this wave from now on.
    pub(super) fn compare_anew(&mut self, run: &mut Run<'_>) {
        // They stand behind all other planned members.
        let end = self.plan.members;
        for at in end.saturating_sub(self.plan.control_group)..end {
            let ix = MemberIx(at);
            if self.state.members.row(ix).state == MemberState::Control {
                let row = member::compared_anew(self.state.members.row(ix), &self.around(ix, run.now));
                self.put(ix, row, run);
            }
        }
    }
}

impl State {
    /// Whether the control group is compared with a wave when it is dispatched: it has not begun before.
    pub(crate) fn is_compared_anew(&self, wave: WaveIx) -> bool {
        wave != WaveIx::TAIL && !self.wave(wave).has_answers()
    }

    /// What the control group explains of all waves is kept, because it is compared anew.
    pub(crate) fn keep_explained(&mut self) {
        let Self { waves, tail, control, .. } = self;
        for wave in waves.iter_mut().chain([tail]) {
            wave.explained = wave.expected(control).iter().map(|expected| expected.thousandths).collect();
        }
    }

    /// What the control group lets expect of a wave by gate; of all waves for none. Nothing without a control group.
    pub(crate) fn expected(&self, plan: &Plan, wave: Option<WaveIx>) -> Vec<Expected> {
        if plan.control_group == 0 {
            return Vec::new();
        }
        let of = |wave: &Wave| wave.expected(&self.control);
        wave.map_or_else(
            || {
                let nothing = vec![Expected::default(); self.control.len()];
                self.queues().fold(nothing, |sum, wave| {
                    sum.into_iter().zip(of(wave)).map(|(sum, of)| sum.and(of)).collect()
                })
            },
            |wave| of(self.wave(wave)),
        )
    }
}

impl Wave {
    fn expected(&self, control: &[(u32, u32)]) -> Vec<Expected> {
        let explained = self.explained.iter().copied().chain(std::iter::repeat(0));
        let gates = self.gates.iter().zip(control).zip(explained);
        gates.map(|((count, control), explained)| Expected::new(count, explained, *control)).collect()
    }
}
