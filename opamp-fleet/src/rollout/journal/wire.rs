//! Journal entries as bytes: a tag, then the fields; in the entry about a member only those that are not as they are by
//! default.

use super::codec::{Wire, choices, records, unzigzag, words, zigzag};
use super::{CommandEntry, CountdownIx, Entry, JoinedEntry, RolloutEntry, SampleEntry, WaivedEntry, texts};
use crate::rollout::gates::{Evidence, GateKind, Limit, ScopeAt, TestKind, Verdict};
use crate::rollout::members::{Changed, Fell, Flags};
use crate::rollout::{
    Countdown, Do, ExternalVerdict, First, Limits, MemberState, PauseReason, Reading, Reason, Refused,
    RestoreError, Resume, RolloutState, Sample, Scope, Serial, Time, WaveState,
};

impl Entry {
    /// Appends the entry's bytes. They say where they end, so that entries can follow one another.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.put(out);
    }

    /// Takes one entry from the front of `bytes`.
    ///
    /// # Errors
    /// [`RestoreError`] if the bytes are no entry, or one of a later version; then `bytes` is of no further use.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Self::take(bytes)
    }

    /// All entries of a record, in order.
    ///
    /// # Errors
    /// [`RestoreError`] if the bytes are not entries and nothing else.
    pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, RestoreError> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            entries.push(Self::take(&mut bytes)?);
        }
        Ok(entries)
    }
}

impl Do {
    /// What it wants, as it stands in the records.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
}

impl Wire for Entry {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Command(entry) => tagged(1, &**entry, out),
            Self::Countdown { which, to } => {
                tagged(2, which, out);
                to.put(out);
            }
            Self::Gate(evidence) => tagged(3, &**evidence, out),
            Self::Joined(entry) => tagged(4, &**entry, out),
            Self::Limits(limits) => tagged(5, &**limits, out),
            Self::Member { member, row } => {
                tagged(6, member, out);
                row.put(out);
            }
            Self::Reading(reading) => tagged(7, &**reading, out),
            Self::Rollout(entry) => tagged(8, &**entry, out),
            Self::Sampled(entry) => tagged(9, &**entry, out),
            Self::Stretched { wave, by } => {
                tagged(10, wave, out);
                by.put(out);
            }
            Self::Waived(entry) => tagged(11, &**entry, out),
            Self::Wave { wave, to, reason, at } => {
                tagged(12, wave, out);
                to.put(out);
                reason.put(out);
                at.put(out);
            }
            Self::Window { wave, to } => {
                tagged(13, wave, out);
                to.put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok(match u8::take(bytes)? {
            1 => Self::Command(boxed(bytes)?),
            2 => Self::Countdown { which: Wire::take(bytes)?, to: Wire::take(bytes)? },
            3 => Self::Gate(boxed(bytes)?),
            4 => Self::Joined(boxed(bytes)?),
            5 => Self::Limits(boxed(bytes)?),
            6 => Self::Member { member: Wire::take(bytes)?, row: Wire::take(bytes)? },
            7 => Self::Reading(boxed(bytes)?),
            8 => Self::Rollout(boxed(bytes)?),
            9 => Self::Sampled(boxed(bytes)?),
            10 => Self::Stretched { wave: Wire::take(bytes)?, by: Wire::take(bytes)? },
            11 => Self::Waived(boxed(bytes)?),
            12 => Self::Wave {
                wave: Wire::take(bytes)?,
                to: Wire::take(bytes)?,
                reason: Wire::take(bytes)?,
                at: Wire::take(bytes)?,
            },
            13 => Self::Window { wave: Wire::take(bytes)?, to: Wire::take(bytes)? },
            tag => return Err(RestoreError::UnknownTag { tag }),
        })
    }
}

fn tagged(tag: u8, first: &impl Wire, out: &mut Vec<u8>) {
    out.push(tag);
    first.put(out);
}

fn boxed<T: Wire>(bytes: &mut &[u8]) -> Result<Box<T>, RestoreError> {
    T::take(bytes).map(Box::new)
}

/// Which fields of a member differ from what they are for one that was never offered; the others are not written. State,
/// reason, `since` and the deadline always are, the times after `since` as differences to it.
#[derive(Clone, Copy)]
struct Mask(u16);

impl Mask {
    const STAGE: u16 = 1;
    const FALLS: u16 = 1 << 1;
    const TRANSPORT_TRIES: u16 = 1 << 2;
    const FAILED_TRIES: u16 = 1 << 3;
    const FALLS_BEFORE: u16 = 1 << 4;
    const RETURNS: u16 = 1 << 5;
    const FLAGS: u16 = 1 << 6;
    const BAD: u16 = 1 << 7;
    const OFFER: u16 = 1 << 8;
    const DEADLINE: u16 = 1 << 9;
    const APPLIED_AT: u16 = 1 << 10;
    const FELL: u16 = 1 << 11;
    const ALL: u16 = (1 << 12) - 1;

    fn of(row: &Changed) -> Self {
        let bits = [
            (row.stage != row.state, Self::STAGE),
            (row.falls != 0, Self::FALLS),
            (row.transport_tries != 0, Self::TRANSPORT_TRIES),
            (row.failed_tries != 0, Self::FAILED_TRIES),
            (row.falls_before != 0, Self::FALLS_BEFORE),
            (row.returns != 0, Self::RETURNS),
            (row.flags != Flags::default(), Self::FLAGS),
            (row.bad != 0, Self::BAD),
            (row.offer != 0, Self::OFFER),
            (row.deadline != Time::NEVER, Self::DEADLINE),
            (row.applied_at != Time(0), Self::APPLIED_AT),
            (row.fell != Fell::default(), Self::FELL),
        ];
        Self(bits.into_iter().filter(|(differs, _)| *differs).map(|(_, bit)| bit).sum())
    }

    const fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    fn put<T: Wire>(self, bit: u16, value: &T, out: &mut Vec<u8>) {
        if self.has(bit) {
            value.put(out);
        }
    }

    fn take<T: Wire>(self, bit: u16, otherwise: T, bytes: &mut &[u8]) -> Result<T, RestoreError> {
        if self.has(bit) { T::take(bytes) } else { Ok(otherwise) }
    }
}

/// The way from one time to another as a signed number, wrapping: every pair has one.
pub(super) const fn way(from: Time, to: Time) -> u64 {
    zigzag(to.0.wrapping_sub(from.0) as i64)
}

/// The time at the end of a [`way`].
pub(super) const fn along(from: Time, way: u64) -> Time {
    Time(from.0.wrapping_add(unzigzag(way) as u64))
}

impl Wire for Fell {
    fn put(&self, out: &mut Vec<u8>) {
        self.seconds().into_iter().for_each(|at| at.put(out));
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok(Self::from_seconds(u32::take(bytes)?, u32::take(bytes)?))
    }
}

impl Wire for Changed {
    fn put(&self, out: &mut Vec<u8>) {
        let mask = Mask::of(self);
        mask.0.put(out);
        self.state.put(out);
        self.reason.put(out);
        mask.put(Mask::STAGE, &self.stage, out);
        mask.put(Mask::FALLS, &self.falls, out);
        mask.put(Mask::TRANSPORT_TRIES, &self.transport_tries, out);
        mask.put(Mask::FAILED_TRIES, &self.failed_tries, out);
        mask.put(Mask::FALLS_BEFORE, &self.falls_before, out);
        mask.put(Mask::RETURNS, &self.returns, out);
        mask.put(Mask::FLAGS, &self.flags, out);
        mask.put(Mask::BAD, &self.bad, out);
        mask.put(Mask::OFFER, &self.offer, out);
        self.since.put(out);
        mask.put(Mask::DEADLINE, &way(self.since, self.deadline), out);
        mask.put(Mask::APPLIED_AT, &way(self.since, self.applied_at), out);
        mask.put(Mask::FELL, &self.fell, out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        let mask = Mask(u16::take(bytes)?);
        if mask.0 & !Mask::ALL != 0 {
            return Err(RestoreError::Invalid { what: "fields of a member" });
        }
        let state = MemberState::take(bytes)?;
        let reason = Reason::take(bytes)?;
        let stage = mask.take(Mask::STAGE, state, bytes)?;
        let falls = mask.take(Mask::FALLS, 0, bytes)?;
        let transport_tries = mask.take(Mask::TRANSPORT_TRIES, 0, bytes)?;
        let failed_tries = mask.take(Mask::FAILED_TRIES, 0, bytes)?;
        let falls_before = mask.take(Mask::FALLS_BEFORE, 0, bytes)?;
        let returns = mask.take(Mask::RETURNS, 0, bytes)?;
        let flags = mask.take(Mask::FLAGS, Flags::default(), bytes)?;
        let bad = mask.take(Mask::BAD, 0, bytes)?;
        let offer = mask.take(Mask::OFFER, 0, bytes)?;
        let since = Time::take(bytes)?;
        let deadline = mask.take(Mask::DEADLINE, way(since, Time::NEVER), bytes)?;
        let applied_at = mask.take(Mask::APPLIED_AT, way(since, Time(0)), bytes)?;
        let fell = mask.take(Mask::FELL, Fell::default(), bytes)?;
        Ok(Self {
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
            deadline: along(since, deadline),
            applied_at: along(since, applied_at),
            fell,
        })
    }
}

impl Wire for Countdown {
    fn put(&self, out: &mut Vec<u8>) {
        self.parts().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        let (remaining_ms, running_since) = Wire::take(bytes)?;
        Ok(Self::from_parts(remaining_ms, running_since))
    }
}

words! {
    ExternalVerdict = "error fail inconclusive pass";
    GateKind = "apply-failed rejected timed-out disconnect-ratio unhealthy effective-mismatch crash-loop \
        self-rollback unverified nothing-succeeds mass-disconnect throughput-drop export-failures queue-fill \
        memory-rise cpu-rise external";
    MemberState = "queued backoff offered delivered applying applied absent verified unverified \
        already-current not-applicable excluded control removed expired failed rejected self-rolled-back \
        timed-out deferred rollback-queued rollback-offered rolled-back rollback-failed rollback-deferred";
    PauseReason = "blast-radius gate inconclusive operator split-leader-suspected storage-degraded";
    Reason = "none already-equal agent-removed away-too-long capability-missing capability-withdrawn \
        component-missing control-group excluded-by-operator hash-failed-before labels-unknown left-selector \
        locked not-connected no-target opted-out quarantined too-large wrong-type announced-leave \
        effective-differs grace-over reported-failed refused local-edit went-back offer-timeout \
        apply-timeout verify-timeout rollback-timeout no-evidence transport-failed dispatched reported \
        effective-equal reported-well returned joined retry-due rolled-back-by-plan turn all-offered \
        all-settled dwell-over empty-wave stretched member-queued-again gates-pass gate-failed inconclusive \
        no-data provider-error approval budget blast-radius manual window freeze policy rollout-ended \
        operator approved due time-over plan-changed plan-unusable plan-confirmed all-waves-passed bake-over \
        nothing-in-flight rollback-done no-progress recalled superseded storage-degraded \
        split-leader-suspected cause-gone loop failed-too-often";
    RolloutState = "draft pending-approval scheduled preflight ready running paused baking aborting \
        rolling-back aborted cancelled expired failed partially-rolled-back rejected rollback-failed \
        rolled-back succeeded superseded";
    TestKind = "bound compare count external hard percent sequential";
    Verdict = "pass no-data inconclusive error fail";
    WaveState = "pending waiting dispatching settling soaking evaluating held passed failed skipped";
}

records! {
    CommandEntry { key, actor, reason, do_, result, at }
    Evidence {
        gate, name, scope, verdict, test, bad, of, excused, expected, blind, limit, window, at, text,
    }
    JoinedEntry { member, agent, wave, zone, previous, pace, fell, flags, state, reason, at }
    Limits { touched_max, fleet_percent_in_flight, per_hour, per_minute, in_flight_max, zone_in_flight }
    RolloutEntry { to, reason, pause, from, ending, scope, plan, actor, evidence, at }
    Sample { count, sum_milli }
    SampleEntry { member, text }
    WaivedEntry { gate, wave, raised, at }
}

choices! {
    CountdownIx { 1 = Bake, 2 = Dwell(wave), 3 = Progress }
    Do {
        1 = Abort,
        2 = Advance,
        3 = AllowHash { agent },
        4 = Approve { plan, wave },
        5 = Cancel,
        6 = Exclude { agent },
        7 = Extend { by },
        8 = Pause,
        9 = Preflighted { plan, usable },
        10 = Reject,
        11 = ReleaseControlGroup,
        12 = Resume(how),
        13 = RollBack(scope),
        14 = SetLimits(limits),
        15 = SkipGate { gate, wave },
        16 = SkipWave,
        17 = Start { plan },
        18 = Submit,
        19 = Supersede { by },
    }
    First { 1 = Done, 2 = NothingToDo }
    Limit {
        1 = Count(over),
        2 = Mean { treated_milli, control_milli, over },
        3 = None,
        4 = Ratio(over),
        5 = Score { score, limit, acceptable, bad },
    }
    Reading {
        1 = External { gate, wave, ticket, verdict, text },
        2 = Telemetry { gate, wave, treated, control },
    }
    Resume { 1 = Plain, 2 = Raise { gate, over, count }, 3 = Retry, 4 = Skip, 5 = Waive { gate } }
    Scope { 1 = All, 2 = Failed, 3 = Wave(wave) }
    ScopeAt { 1 = All, 2 = Wave(wave), 3 = Zone(name) }
}

/// A refusal is remembered with the command it answered. Its texts are known ones: see [`texts`].
impl Wire for Refused {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::BeyondHardLimit { what, limit } => {
                out.push(1);
                texts::put(what, out);
                limit.put(out);
            }
            Self::Frozen { until } => tagged(2, until, out),
            Self::HasHistory => out.push(3),
            Self::KeyReused => out.push(4),
            Self::NeedsDecision { gate } => tagged(5, gate, out),
            Self::NotApproved => out.push(6),
            Self::OverrideNeeded => out.push(7),
            Self::PlanChanged => out.push(8),
            Self::Recalled => out.push(9),
            Self::SerialBehind { expected, found } => {
                tagged(10, expected, out);
                found.put(out);
            }
            Self::Terminal(state) => tagged(11, state, out),
            Self::UnknownAgent => out.push(12),
            Self::UnknownGate => out.push(13),
            Self::UnknownWave => out.push(14),
            Self::WrongState { state, needs } => {
                tagged(15, state, out);
                texts::put(needs, out);
            }
            Self::LetsNobodyThrough { what } => {
                out.push(16);
                texts::put(what, out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Result<Self, RestoreError> {
        Ok(match u8::take(bytes)? {
            1 => Self::BeyondHardLimit { what: texts::take(bytes)?, limit: Wire::take(bytes)? },
            2 => Self::Frozen { until: Wire::take(bytes)? },
            3 => Self::HasHistory,
            4 => Self::KeyReused,
            5 => Self::NeedsDecision { gate: Wire::take(bytes)? },
            6 => Self::NotApproved,
            7 => Self::OverrideNeeded,
            8 => Self::PlanChanged,
            9 => Self::Recalled,
            10 => Self::SerialBehind { expected: Serial::take(bytes)?, found: Serial::take(bytes)? },
            11 => Self::Terminal(Wire::take(bytes)?),
            12 => Self::UnknownAgent,
            13 => Self::UnknownGate,
            14 => Self::UnknownWave,
            15 => Self::WrongState { state: Wire::take(bytes)?, needs: texts::take(bytes)? },
            16 => Self::LetsNobodyThrough { what: texts::take(bytes)? },
            _ => return Err(RestoreError::Invalid { what: "refusal" }),
        })
    }
}
