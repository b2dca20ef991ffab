//! Waiting until it is known who is away (R27, R28, R39).
//!
//! Who goes away counts against `disconnect-ratio` once it has been away for its grace, and where agents poll seldom that is
//! after the dwell is over. The wave is judged when it is known, if the gate fails should all of them stay away. Who goes
//! away after the dwell is not waited for: the wait ends with the longest grace.

use crate::rollout::engine::{Engine, Leaving};
use crate::rollout::gates::{GateConfig, GateCount, GateKind, Scopes, Test};
use crate::rollout::members::{Flags, Row};
use crate::rollout::stats::Ppm;
use crate::rollout::{GateIx, MemberIx, MemberState, Reason, Time, WaveIx, member};

impl Engine {
    /// Whether a wave whose dwell is over cannot be judged yet. If an operator has ended the dwell nobody is waited for.
    pub(crate) fn waits_for_graces(&self, ix: WaveIx) -> bool {
        let wave = self.state.wave(ix);
        wave.reason == Reason::DwellOver && self.may_be_away(ix, wave.entered)
    }

    /// Whether `disconnect-ratio` fails should those of the wave stay away who went away before that time; of all for the
    /// tail.
    pub(crate) fn may_be_away(&self, ix: WaveIx, before: Time) -> bool {
        // Who leaves is away: as a rule that answers it.
        self.fails_with(ix, self.state.away) && self.fails_with(ix, self.leaving(ix, before))
    }

    /// From now on it is known how many of the wave leave, whoever changes. To find it out anew costs a look at everybody.
    pub(super) fn follow_leaving(&mut self, ix: WaveIx, before: Time) {
        let is_known = self.volatile.leaving.is_some_and(|known| known.is_of(ix, before));
        if !is_known && self.fails_with(ix, self.state.away) {
            self.volatile.leaving = Some(Leaving { wave: ix, before, members: self.leaving(ix, before) });
        }
    }

    /// A member has changed, and may leave, or may not any more.
    pub(crate) fn left_or_came(&mut self, ix: MemberIx, before: &Row) {
        let Some(known) = self.volatile.leaving else { return };
        let leaves = |row: &Row| u32::from(self.leaves(known.wave, ix, row, known.before));
        let members = known.members + leaves(self.state.members.row(ix)) - leaves(before);
        self.volatile.leaving = Some(Leaving { members, ..known });
    }

    /// How many of the wave went away before that time and may stay away.
    fn leaving(&self, ix: WaveIx, before: Time) -> u32 {
        if let Some(known) = self.volatile.leaving.filter(|known| known.is_of(ix, before)) {
            return known.members;
        }
        self.count_leaving(ix, before)
    }

    fn count_leaving(&self, ix: WaveIx, before: Time) -> u32 {
        let rows = (0..).map(MemberIx).zip(&self.state.members.rows);
        rows.map(|(member, row)| u32::from(self.leaves(ix, member, row, before))).sum()
    }

    /// How many may stay away, as followed and as counted, where they differ.
    pub(crate) fn miscounted_leaving(&self) -> Option<(u32, u32)> {
        let known = self.volatile.leaving?;
        let counted = self.count_leaving(known.wave, known.before);
        (known.members != counted).then_some((known.members, counted))
    }

    /// Whether `disconnect-ratio` fails with so many more members of the wave against it; of all for the tail.
    fn fails_with(&self, ix: WaveIx, leaving: u32) -> bool {
        let state = &self.state;
        let mut gates = (0_u8..).map(GateIx).zip(&self.plan.gates);
        let Some((gate, config)) = gates.find(|(_, config)| config.kind == GateKind::DisconnectRatio) else {
            return false;
        };
        if leaving == 0 || state.waived & gate.bit() != 0 || !config.acts() {
            return false;
        }
        let raised = state.raised.iter().find(|(raised, ..)| *raised == gate);
        let raised = raised.map(|(_, over, at_least)| (*over, *at_least));
        let fails = |counts: &[GateCount]| {
            counts.get(gate.index()).is_some_and(|count| fails(config, raised, count, leaving))
        };
        // At the end of the first wave and of the rollout so few are enough as are most of them.
        let most = |counts: &[GateCount]| {
            let count = counts.get(gate.index()).filter(|_| raised.is_none());
            count.is_some_and(|count| {
                let bad = count.bad.saturating_add(leaving);
                bad >= count.eligible || bad >= 2 && bad > count.eligible / 2
            })
        };
        let is_end = ix == WaveIx::TAIL || ix == state.first_wave();
        config.scopes.contains(Scopes::ZONE)
            || fails(&state.wave(ix).gates)
            || fails(&state.overall)
            || is_end && (most(&state.wave(ix).gates) || most(&state.overall))
    }

    /// Whether a member of the wave that has settled went away before that time, unannounced, and its grace is not over.
    fn leaves(&self, wave: WaveIx, ix: MemberIx, row: &Row, before: Time) -> bool {
        let is_watched = matches!(row.state, MemberState::Verified | MemberState::Unverified);
        if !is_watched || wave != WaveIx::TAIL && row.wave != wave {
            return false;
        }
        let polls = row.flags.contains(Flags::POLLING);
        let grace = member::grace(&self.plan.settings.deadlines, self.state.members.pace(ix), polls);
        row.reason != Reason::AnnouncedLeave
            && !row.flags.contains(Flags::WAS_AWAY)
            && row.deadline <= before + grace
    }
}

/// Whether a gate may fail with so many more members against it. `raised` replaces its tests.
fn fails(config: &GateConfig, raised: Option<(Ppm, u32)>, count: &GateCount, more: u32) -> bool {
    let (bad, of) = (count.bad.saturating_add(more), count.eligible);
    let ratio = |over: Ppm, at_least| over.is_exceeded_by(bad, of) && bad >= at_least;
    if let Some((over, at_least)) = raised {
        return ratio(over, at_least);
    }
    config.tests.iter().any(|test| match *test {
        Test::Count { over } => bad > over,
        Test::Percent { over, at_least } => of >= config.min_sample && ratio(over, at_least),
        Test::Hard { .. } | Test::Bound { .. } | Test::Sequential { .. } => true,
        Test::Compare { .. } => false,
    })
}
