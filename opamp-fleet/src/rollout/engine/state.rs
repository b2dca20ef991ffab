//! The state of one rollout, which entries change and nothing else does.

use std::collections::VecDeque;
use std::time::Duration;

use opamp_proto::Fingerprint;

use super::{apply_member, apply_rollout, apply_wave};
use crate::rollout::gates::{self, Evidence, GateCount, Scopes};
use crate::rollout::journal::{Entry, SampleEntry};
use crate::rollout::members::{Flags, Members, Row};
use crate::rollout::plan::{Plan, PlannedMembers};
use crate::rollout::stats::Ppm;
use crate::rollout::waves::Wave;
use crate::rollout::{
    CommandKey, Countdown, First, GateIx, Limits, MemberIx, MemberState, PauseReason, Reading, Reason,
    Refused, RestoreError, RolloutState, Scope, Shown, Time, WaveIx, WaveState, ZoneIx,
};

/// What a rollout is at one moment. It follows from the plan and the entries.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) state: RolloutState,
    pub(crate) reason: Reason,
    /// Why it is paused, while it is.
    pub(crate) pause: Option<PauseReason>,
    /// What a pause returns to.
    pub(crate) from: RolloutState,
    /// What it ends as once nothing is in flight.
    pub(crate) ending: RolloutState,
    /// Which members go back.
    pub(crate) scope: Option<Scope>,
    /// When it came into its state.
    pub(crate) entered: Time,
    /// The hash of the plan that holds: another one than the first if the plan was made anew before the start.
    pub(crate) plan: Fingerprint,
    pub(crate) waves: Vec<Wave>,
    /// The queue of those who come late.
    pub(crate) tail: Wave,
    /// All waves and the tail together.
    pub(crate) total: Total,
    /// Gates over all waves, one for each gate of the plan.
    pub(crate) overall: Box<[GateCount]>,
    /// Gates by failure domain, one for each domain of the plan if a gate asks for it.
    pub(crate) zones: Vec<ZoneCount>,
    /// For each gate of the plan: members of the control group that can show what it looks for, and those that do (R43).
    pub(crate) control: Box<[(u32, u32)]>,
    pub(crate) members: Members,
    pub(crate) bake: Countdown,
    pub(crate) progress: Countdown,
    /// Members for whom an offer was ever written.
    pub(crate) touched: u32,
    /// Touched members that are not connected and have not failed: [`State::counts_away`].
    pub(crate) away: u32,
    /// Members whose last try failed and that are queued for another one: [`State::counts_again`].
    pub(crate) again: u32,
    /// Members that go back and may just be restarting: [`State::counts_restarting`].
    pub(crate) restarting: u32,
    /// Whether a member has ever had the configuration, and well as far as it says: also if it is gone since.
    pub(crate) has_shown: bool,
    /// One bit for each gate that observes only.
    pub(crate) waived: u16,
    /// Gates with another ratio and count than planned; at most one for each gate.
    pub(crate) raised: Vec<(GateIx, Ppm, u32)>,
    pub(crate) limits: Limits,
    /// The last [`State::COMMANDS_MAX`] commands.
    pub(crate) commands: VecDeque<Remembered>,
    /// Members settled in each of the last 60 minutes, by minute of the hour.
    pub(crate) minutes: [u32; 60],
    pub(crate) samples: Samples,
    /// Gates that stopped or hold it.
    pub(crate) fired: Vec<Evidence>,
    /// Engine time of the last entry.
    pub(crate) last: Time,
}

impl State {
    /// Most commands that are remembered.
    pub(crate) const COMMANDS_MAX: usize = 1_024;

    /// A draft of these members.
    pub(crate) fn new(plan: &Plan, members: PlannedMembers, now: Time) -> Self {
        let gates = plan.gates.len();
        let planned = members.len() as u32;
        let waves = plan.waves.iter().map(|wave| Wave::new(wave.first, wave.end, wave.dwell, gates, now));
        let tail =
            Wave { state: WaveState::Dispatching, ..Wave::new(planned, planned, Duration::ZERO, gates, now) };
        let asks_for_zones = plan.gates.iter().any(|gate| gate.scopes.contains(Scopes::ZONE));
        let zones = if asks_for_zones { plan.zones.len() } else { 0 };
        let counts = || vec![GateCount::default(); gates].into_boxed_slice();
        let mut state = Self {
            state: RolloutState::Draft,
            reason: Reason::Nothing,
            pause: None,
            from: RolloutState::Draft,
            ending: RolloutState::Draft,
            scope: None,
            entered: now,
            plan: plan.hash,
            waves: waves.collect(),
            tail,
            total: Total::default(),
            overall: counts(),
            zones: (0..zones).map(|zone| ZoneCount::new(ZoneIx(zone as u16), gates)).collect(),
            control: vec![(0, 0); gates].into(),
            members: Members::from_planned(members, &plan.zones),
            bake: Countdown::stopped(plan.settings.bake),
            progress: Countdown::stopped(plan.settings.progress),
            touched: 0,
            away: 0,
            again: 0,
            restarting: 0,
            has_shown: false,
            waived: 0,
            raised: Vec::new(),
            limits: plan.settings.limits,
            commands: VecDeque::new(),
            minutes: [0; 60],
            samples: Samples::default(),
            fired: Vec::new(),
            last: now,
        };
        for at in 0..state.members.len() {
            let row = *state.members.row(MemberIx(at as u32));
            apply_member::enter(&mut state, plan, &row);
        }
        state.pass_over();
        state
    }

    /// Changes the state as an entry says: the only way in which it changes.
    ///
    /// # Errors
    /// [`RestoreError`] if the entry does not fit, and then nothing has changed.
    pub(crate) fn apply(&mut self, plan: &Plan, entry: &Entry) -> Result<(), RestoreError> {
        let (last, settles) = (self.last, self.settles(entry));
        self.change(plan, entry)?;
        empty_minutes(&mut self.minutes, last, self.last);
        if settles {
            let minute = &mut self.minutes[minute_of(self.last) % 60];
            *minute = minute.saturating_add(1);
        }
        Ok(())
    }

    fn change(&mut self, plan: &Plan, entry: &Entry) -> Result<(), RestoreError> {
        match entry {
            Entry::Command(command) => apply_rollout::command(self, command),
            Entry::Countdown { which, to } => apply_wave::countdown(self, *which, *to),
            Entry::Gate(evidence) => apply_rollout::gate(self, plan, evidence),
            Entry::Joined(joined) => apply_member::joined(self, plan, joined),
            Entry::Limits(limits) => apply_rollout::limits(self, limits),
            Entry::Member { member, row } => apply_member::member(self, plan, *member, row),
            // What it means is decided by the engine, which asks again after a restart. It is kept as evidence.
            Entry::Reading(reading) => Self::reading(plan, reading),
            Entry::Rollout(entry) => apply_rollout::rollout(self, entry),
            Entry::Sampled(sample) => self.sampled(sample),
            Entry::Stretched { wave, by } => apply_member::stretched(self, plan, *wave, *by),
            Entry::Waived(entry) => apply_rollout::waived(self, plan, entry),
            Entry::Wave { wave, to, reason, at } => apply_wave::wave(self, plan, *wave, *to, *reason, *at),
            Entry::Window { wave, to } => apply_wave::window(self, *wave, *to),
        }
    }

    /// Whether a member settles by an entry.
    fn settles(&self, entry: &Entry) -> bool {
        let Entry::Member { member, row } = entry else { return false };
        let before = self.members.rows.get(member.index());
        row.state.settled() && before.is_some_and(|before| !before.state.settled())
    }

    /// Whether a member counts as disconnected since it was offered something.
    pub(crate) fn counts_away(row: &Row) -> bool {
        let is_away = matches!(
            row.state,
            MemberState::Absent | MemberState::Deferred | MemberState::Verified | MemberState::Unverified
        );
        is_away && row.flags.contains(Flags::TOUCHED) && !row.flags.contains(Flags::CONNECTED)
    }

    /// Whether a member is queued for another try because the last one failed.
    pub(crate) fn counts_again(row: &Row) -> bool {
        row.state == MemberState::Queued && (row.failed_tries > 0 || row.transport_tries > 0)
    }

    /// Whether a member that goes back went away within its grace.
    pub(crate) fn counts_restarting(row: &Row) -> bool {
        row.state == MemberState::RollbackDeferred && row.reason == Reason::NotConnected
    }

    /// Whether a member has the configuration, and well as far as it says.
    pub(crate) fn shows(row: &Row) -> bool {
        matches!(row.state, MemberState::Verified | MemberState::Unverified)
    }

    /// Members that settled in the last full minute before now, or in this one if there were more. Since the last entry
    /// none did.
    pub(crate) fn per_minute(&self, now: Time) -> u32 {
        let (now, last) = (minute_of(now.max(self.last)), minute_of(self.last));
        let settled = |minute: usize| if minute > last { 0 } else { self.minutes[minute % 60] };
        settled(now).max(now.checked_sub(1).map_or(0, settled))
    }

    /// What operators see of a member: its state together with its wave and the rollout. There has to be such a member.
    pub(crate) fn shown(&self, member: MemberIx) -> Shown {
        self.shown_as(self.members.row(member))
    }

    pub(crate) fn shown_as(&self, row: &Row) -> Shown {
        match row.state {
            MemberState::Queued => self.shown_queued(row),
            MemberState::Verified if self.state == RolloutState::Succeeded => Shown::Done,
            MemberState::Verified if self.is_watched() => Shown::Soaking,
            state => state.into(),
        }
    }

    fn shown_queued(&self, row: &Row) -> Shown {
        match self.state {
            RolloutState::Superseded => Shown::Superseded,
            RolloutState::Aborting if self.ending == RolloutState::Superseded => Shown::Superseded,
            RolloutState::Aborting | RolloutState::RollingBack => Shown::Dropped,
            state if state.is_terminal() => Shown::Dropped,
            _ if row.reason == Reason::Locked => Shown::Blocked,
            _ if row.wave != WaveIx::TAIL && self.wave(row.wave).state == WaveState::Waiting => {
                Shown::Blocked
            }
            _ => Shown::Queued,
        }
    }

    /// Whether it bakes, or did when it was paused: everything was offered by then, and its time to offer is not over any more.
    pub(crate) fn bakes(&self) -> bool {
        let paused_in_bake = self.state == RolloutState::Paused && self.from == RolloutState::Baking;
        self.state == RolloutState::Baking || paused_in_bake
    }

    /// Whether a wave of a running rollout waits for a decision.
    pub(crate) fn is_held(&self) -> bool {
        self.state == RolloutState::Running && self.waves.iter().any(|wave| wave.state == WaveState::Held)
    }

    /// Whether gates still look at members that have settled well.
    fn is_watched(&self) -> bool {
        matches!(self.state, RolloutState::Running | RolloutState::Paused | RolloutState::Baking)
    }

    /// Wave cursors at the first member that waits for an offer.
    fn pass_over(&mut self) {
        let rows = &self.members.rows;
        for wave in &mut self.waves {
            let queued = |at: &u32| rows.get(*at as usize).is_none_or(|row| row.state == MemberState::Queued);
            wave.cursor = (wave.first..wave.end).find(queued).unwrap_or(wave.end);
        }
    }

    /// What operators said about gates before the plan was made anew holds for the new one as well: it has the same gates.
    pub(crate) fn keep_waived(&mut self, old: &Self) {
        self.waived = old.waived;
        self.raised.clone_from(&old.raised);
        let counts = |state: &Self| -> Vec<Box<[GateCount]>> {
            state.waves.iter().map(|wave| wave.gates.clone()).collect()
        };
        let waves = self.waves.iter_mut().map(|wave| &mut wave.gates).zip(counts(old));
        let whole =
            [(&mut self.tail.gates, old.tail.gates.clone()), (&mut self.overall, old.overall.clone())];
        for (now, before) in waves.chain(whole) {
            for (now, before) in now.iter_mut().zip(before.iter()) {
                now.state = before.state;
            }
        }
        for zone in &mut self.zones {
            let before = old.zones.iter().find(|before| before.zone == zone.zone);
            let before = before.map_or(&[][..], |before| &*before.gates);
            for (now, before) in zone.gates.iter_mut().zip(before) {
                now.state = before.state;
            }
        }
    }

    fn reading(plan: &Plan, reading: &Reading) -> Result<(), RestoreError> {
        let gate = match reading {
            Reading::External { gate, .. } | Reading::Telemetry { gate, .. } => gate,
        };
        plan.gates.get(gate.index()).map(|_| ()).ok_or(RestoreError::Invalid { what: "gate" })
    }

    fn sampled(&mut self, sample: &SampleEntry) -> Result<(), RestoreError> {
        if !self.members.has(sample.member) {
            return Err(RestoreError::Invalid { what: "member" });
        }
        self.samples.add(&sample.text);
        Ok(())
    }
}

/// Empties the minutes after `last` up to `now`, of which nothing is known but from an hour before.
fn empty_minutes(minutes: &mut [u32; 60], last: Time, now: Time) {
    for minute in (minute_of(last) + 1..=minute_of(now)).take(60) {
        minutes[minute % 60] = 0;
    }
}

fn minute_of(time: Time) -> usize {
    (time.0 / 60_000) as usize
}

/// Members of all waves and the tail, by state: what would otherwise be added up again for each event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    by_state: [u32; MemberState::ALL.len()],
    in_flight: u32,
}

impl Total {
    /// What these queues add up to.
    pub(crate) fn of<'a>(queues: impl Iterator<Item = &'a Wave>) -> Self {
        let mut total = Self::default();
        for wave in queues {
            for (sum, count) in total.by_state.iter_mut().zip(wave.by_state) {
                *sum = sum.saturating_add(count);
            }
            total.in_flight = total.in_flight.saturating_add(wave.in_flight);
        }
        total
    }

    pub(crate) fn count(&self, state: MemberState) -> u32 {
        self.by_state[state.index()]
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(crate) fn by_state(&self) -> &[u32; MemberState::ALL.len()] {
        &self.by_state
    }

    pub(super) fn enter(&mut self, state: MemberState) {
        self.by_state[state.index()] += 1;
        self.in_flight += u32::from(state.in_flight());
    }

    pub(super) fn leave(&mut self, state: MemberState) {
        self.by_state[state.index()] = self.by_state[state.index()].saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(u32::from(state.in_flight()));
    }
}

/// Members by state and the counts of all gates in one failure domain.
#[derive(Clone, Debug)]
pub(crate) struct ZoneCount {
    pub(crate) zone: ZoneIx,
    pub(crate) by_state: [u32; MemberState::ALL.len()],
    pub(crate) gates: Box<[GateCount]>,
}

impl ZoneCount {
    fn new(zone: ZoneIx, gates: usize) -> Self {
        let gates = vec![GateCount::default(); gates].into();
        Self { zone, by_state: [0; MemberState::ALL.len()], gates }
    }

    /// A member of it changed, came (nothing before) or left (nothing after).
    pub(super) fn count(&mut self, plan: &Plan, before: Option<&Row>, after: Option<&Row>) {
        if let Some(row) = before {
            let count = &mut self.by_state[row.state.index()];
            *count = count.saturating_sub(1);
        }
        if let Some(row) = after {
            self.by_state[row.state.index()] += 1;
        }
        gates::count_zone(plan, &mut self.gates, before.map(Row::view), after.map(Row::view));
    }
}

/// A command that was handled.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) key: CommandKey,
    /// Hash of what it wanted, so that another wish under its key is noticed.
    pub(crate) asked: u64,
    pub(crate) result: Result<First, Refused>,
}

/// Agents' own words about failures, counted. What finds no place is counted as `other`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) texts: Vec<(u32, Box<str>)>,
    pub(crate) other: u32,
}

impl Samples {
    fn add(&mut self, text: &str) {
        let is_short = text.len() <= SampleEntry::TEXT_BYTES_MAX;
        if let Some((count, _)) = self.texts.iter_mut().find(|(_, known)| **known == *text) {
            *count = count.saturating_add(1);
        } else if is_short && self.texts.len() < SampleEntry::TEXTS_MAX {
            self.texts.push((1, text.into()));
        } else {
            self.other = self.other.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_counted_and_what_finds_no_place_is_other() {
        let mut samples = Samples::default();
        for n in 0..20 {
            samples.add(&format!("error {n}"));
        }
        samples.add("error 3");
        samples.add(&"x".repeat(SampleEntry::TEXT_BYTES_MAX + 1));
        assert_eq!(samples.texts.len(), SampleEntry::TEXTS_MAX);
        assert_eq!(samples.texts[3], (2, "error 3".into()));
        assert_eq!(samples.other, 5);
    }

    #[test]
    fn minutes_of_an_hour_ago_are_empty_when_they_come_again() {
        let minute = |n: u64| Time(n * 60_000);
        let mut minutes = [7; 60];
        empty_minutes(&mut minutes, minute(58), minute(61));
        assert_eq!([minutes[58], minutes[59], minutes[0], minutes[1], minutes[2]], [7, 0, 0, 0, 7]);
        empty_minutes(&mut minutes, minute(61), minute(61));
        assert_eq!(minutes[1], 0);
        assert_eq!(minutes[2], 7);
        empty_minutes(&mut minutes, minute(61), minute(1_000_000_000));
        assert_eq!(minutes, [0; 60]);
    }
}
