//! Entries as bytes, one of each kind with all that it can say.

use std::time::Duration;

use opamp_proto::{AgentId, ConfigHash};

use super::{CommandEntry, CountdownIx, Entry, JoinedEntry, RolloutEntry, SampleEntry, WaivedEntry};
use crate::rollout::gates::{Evidence, GateKind, Limit, ScopeAt, TestKind, Verdict};
use crate::rollout::members::{Fell, Flags, Pace, Row};
use crate::rollout::stats::Ppm;
use crate::rollout::{
    CommandKey, ConfigIx, Countdown, Do, ExternalVerdict, First, GateIx, Limits, MemberIx, MemberState,
    PauseReason, Reading, Reason, Refused, RestoreError, Resume, RolloutId, RolloutState, Sample, Scope,
    Serial, Time, WaveIx, WaveState, ZoneIx,
};

const AT: Time = Time(1_700_000_000_000);

fn fingerprint() -> opamp_proto::Fingerprint {
    ConfigHash::new(vec![1, 2, 3]).fingerprint()
}

fn agent() -> AgentId {
    AgentId::from_bytes([9; 16])
}

fn evidence(scope: ScopeAt, limit: Limit) -> Evidence {
    Evidence {
        gate: GateKind::External,
        name: "prom".into(),
        scope,
        verdict: Verdict::Error,
        test: TestKind::External,
        bad: 1,
        of: u32::MAX,
        excused: 3,
        expected: 4,
        blind: 5,
        limit,
        window: Duration::new(600, 1),
        at: AT,
        text: "connection refused".into(),
    }
}

fn wishes() -> Vec<Do> {
    let (plan, gate, agent) = (fingerprint(), GateIx(15), agent());
    vec![
        Do::Abort,
        Do::Advance,
        Do::AllowHash { agent },
        Do::Approve { plan, wave: Some(WaveIx(3)) },
        Do::Cancel,
        Do::Exclude { agent },
        Do::Extend { by: Duration::from_millis(1_500) },
        Do::Pause,
        Do::Preflighted { plan, usable: false },
        Do::Reject,
        Do::ReleaseControlGroup,
        Do::Resume(Resume::Plain),
        Do::Resume(Resume::Raise { gate, over: Ppm::percent(7), count: 9 }),
        Do::Resume(Resume::Retry),
        Do::Resume(Resume::Skip),
        Do::Resume(Resume::Waive { gate }),
        Do::RollBack(Scope::All),
        Do::RollBack(Scope::Failed),
        Do::RollBack(Scope::Wave(WaveIx::TAIL)),
        Do::SetLimits(Limits::default()),
        Do::SkipGate { gate, wave: None },
        Do::SkipWave,
        Do::Start { plan },
        Do::Submit,
        Do::Supersede { by: RolloutId::from_bytes([4; 16]) },
    ]
}

fn results() -> Vec<Result<First, Refused>> {
    let refused = [
        Refused::Frozen { until: AT },
        Refused::HasHistory,
        Refused::KeyReused,
        Refused::NeedsDecision { gate: "apply-failed".to_owned() },
        Refused::NotApproved,
        Refused::LetsNobodyThrough { what: crate::rollout::control::needs::PER_HOUR },
        Refused::OverrideNeeded,
        Refused::PlanChanged,
        Refused::Recalled,
        Refused::SerialBehind { expected: Serial(3), found: Serial(u64::MAX) },
        Refused::Terminal(RolloutState::Superseded),
        Refused::UnknownAgent,
        Refused::UnknownGate,
        Refused::UnknownWave,
    ];
    refused.into_iter().map(Err).chain([Ok(First::Done), Ok(First::NothingToDo)]).collect()
}

fn rows() -> Vec<Row> {
    let queued = Row::queued(WaveIx(1), ZoneIx(2), ConfigIx(3), Flags::default(), Time(0));
    let full = Row {
        state: MemberState::Absent,
        reason: Reason::FailedTooOften,
        stage: MemberState::Applying,
        falls: 1,
        transport_tries: 2,
        failed_tries: 3,
        falls_before: 4,
        returns: 255,
        flags: Flags(u16::MAX),
        bad: u16::MAX,
        offer: u32::MAX,
        since: AT,
        deadline: Time(0),
        applied_at: Time(u64::MAX),
        fell: Fell::from_seconds(u32::MAX, 1),
        ..queued
    };
    vec![queued, full, Row { state: MemberState::Verified, stage: MemberState::Verified, ..full }]
}

fn entries() -> Vec<Entry> {
    let command = |do_, result| CommandEntry {
        key: CommandKey::new("key").expect("a short key"),
        actor: "operator".into(),
        reason: "because".into(),
        do_,
        result,
        at: AT,
    };
    let rollout = RolloutEntry {
        to: RolloutState::Paused,
        reason: Reason::GateFailed,
        pause: Some(PauseReason::Gate),
        from: Some(RolloutState::Baking),
        ending: Some(RolloutState::Failed),
        scope: Some(Scope::Failed),
        plan: Some(fingerprint()),
        actor: "engine".into(),
        evidence: Some(evidence(ScopeAt::All, Limit::None)),
        at: AT,
    };
    let joined = JoinedEntry {
        member: MemberIx(70_000),
        agent: agent(),
        wave: WaveIx::TAIL,
        zone: ZoneIx::NONE,
        previous: Some(fingerprint()),
        pace: Pace { interval_s: 30, spans: 2 },
        fell: Fell::from_seconds(3, 2),
        flags: Flags::JOINER,
        state: MemberState::Excluded,
        reason: Reason::Quarantined,
        at: AT,
    };
    let score = Limit::Score { score: 55, limit: -54, acceptable: Ppm::percent(2), bad: Ppm::percent(20) };
    let mean = Limit::Mean { treated_milli: i64::MIN, control_milli: 5, over: Ppm(1) };
    let sample = Sample { count: 7, sum_milli: -7 };
    let mut entries = vec![
        Entry::Countdown { which: CountdownIx::Bake, to: Countdown::stopped(Duration::from_secs(9)) },
        Entry::Countdown { which: CountdownIx::Dwell(WaveIx(2)), to: Countdown::from_parts(5, Some(AT)) },
        Entry::Countdown { which: CountdownIx::Progress, to: Countdown::default() },
        Entry::Gate(Box::new(evidence(ScopeAt::Wave(WaveIx(1)), score))),
        Entry::Gate(Box::new(evidence(ScopeAt::Zone("eu".into()), mean))),
        Entry::Gate(Box::new(evidence(ScopeAt::All, Limit::Ratio(Ppm::ALL)))),
        Entry::Gate(Box::new(evidence(ScopeAt::All, Limit::Count(3)))),
        Entry::Joined(Box::new(joined)),
        Entry::Limits(Box::new(Limits { per_minute: 3, ..Limits::default() })),
        Entry::Reading(Box::new(Reading::External {
            gate: GateIx(1),
            wave: None,
            ticket: u64::MAX,
            verdict: ExternalVerdict::Inconclusive,
            text: "".into(),
        })),
        Entry::Reading(Box::new(Reading::Telemetry {
            gate: GateIx(1),
            wave: WaveIx(0),
            treated: sample,
            control: Sample::default(),
        })),
        Entry::Rollout(Box::new(rollout)),
        Entry::Sampled(Box::new(SampleEntry { member: MemberIx(1), text: "no such exporter: ö".into() })),
        Entry::Stretched { wave: WaveIx(1), by: 24 },
        Entry::Waived(Box::new(WaivedEntry {
            gate: GateIx(2),
            wave: Some(WaveIx(1)),
            raised: Some((Ppm::percent(5), 3)),
            at: AT,
        })),
        Entry::Wave { wave: WaveIx(9), to: WaveState::Held, reason: Reason::Inconclusive, at: AT },
        Entry::Window { wave: WaveIx::TAIL, to: 1 },
    ];
    entries.extend(rows().iter().map(|row| Entry::Member { member: MemberIx(8), row: row.changed() }));
    let commands = wishes().into_iter().map(|wish| command(wish, Ok(First::Done)));
    let answers = results().into_iter().map(|result| command(Do::Pause, result));
    entries.extend(commands.chain(answers).map(|entry| Entry::Command(Box::new(entry))));
    entries
}

#[test]
fn every_entry_is_read_back_as_it_was_and_no_part_of_it_is_an_entry() {
    for entry in entries() {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let mut left = &bytes[..];
        assert_eq!(Entry::decode(&mut left).as_ref(), Ok(&entry));
        assert!(left.is_empty(), "{entry:?}");
        for end in 0..bytes.len() {
            assert!(Entry::decode(&mut &bytes[..end]).is_err(), "{entry:?} cut at {end}");
        }
    }
}

#[test]
fn what_is_not_by_default_is_what_an_entry_about_a_member_takes() {
    let length = |row: &Row| {
        let mut bytes = Vec::new();
        Entry::Member { member: MemberIx(8), row: row.changed() }.encode(&mut bytes);
        bytes.len()
    };
    let queued = Row { since: AT, ..rows()[0] };
    assert_eq!(length(&queued), 11, "tag, member, mask, state, reason, and six bytes of time");
    let offered = Row { offer: 1, deadline: AT + Duration::from_secs(60), applied_at: AT, ..queued };
    assert_eq!(
        length(&offered),
        11 + 1 + 1 + 3 + 1,
        "one more byte of mask, offer, deadline, offered at once"
    );
}

#[test]
fn an_entry_with_a_field_nobody_knows_is_refused() {
    let mut bytes = Vec::new();
    Entry::Member { member: MemberIx(8), row: rows()[0].changed() }.encode(&mut bytes);
    bytes[2] = 0xff;
    bytes.insert(3, 0x7f);
    let invalid = RestoreError::Invalid { what: "fields of a member" };
    assert_eq!(Entry::decode(&mut &bytes[..]), Err(invalid));
}
