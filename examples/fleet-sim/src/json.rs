//! The run as JSON: `plan`, `preview`, `changes`, `timeline`, `marks`, `acts`, `verdicts`, `gates`, `result`. The page on rollouts says
//! what they are.

use std::time::Duration;

use opamp_fleet::rollout::gates::ScopeAt;
use opamp_fleet::rollout::preview::{CurrentMeaning, Power, Preview};
use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{NextAction, Summary};
use opamp_testkit::sim::model::RunEnd;
use opamp_testkit::sim::model::timeline::{Mark, MarkKind, Sample};
use serde_json::{Value, json};

use crate::{GateCounts, Simulation};

/// What the run cost the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Real time.
    pub took: Duration,
    /// Most resident memory of the process, in KiB; none where the system does not say.
    pub peak_rss_kib: Option<u64>,
}

/// The run as one JSON object. Times are milliseconds since the rollout was planned.
#[must_use]
pub fn json(run: &Simulation, cost: Cost) -> Value {
    let marks = run.timeline.marks();
    json!({
        "plan": plan(run),
        "preview": preview(&run.preview),
        "changes": run.meanings.iter().map(meaning).collect::<Vec<_>>(),
        "timeline": run.timeline.samples().iter().map(sample).collect::<Vec<_>>(),
        "marks": marks.iter().map(mark).collect::<Vec<_>>(),
        "acts": marks.iter().filter_map(act).collect::<Vec<_>>(),
        "verdicts": marks.iter().filter_map(verdict).collect::<Vec<_>>(),
        "gates": run.gates.iter().map(gate).collect::<Vec<_>>(),
        "result": result(run, cost),
    })
}

fn plan(run: &Simulation) -> Value {
    let waves: Vec<Value> = run
        .plan
        .waves
        .iter()
        .map(|wave| {
            json!({
                "name": wave.name,
                "members": wave.end - wave.first,
                "dwell_s": wave.dwell.as_secs(),
                "cap": wave.cap,
                "approval": wave.approval,
                "manual": wave.manual,
            })
        })
        .collect();
    json!({
        "id": run.plan.id.to_string(),
        "title": run.plan.title,
        "hash": run.plan.hash.to_string(),
        "members": run.plan.members,
        "waves": waves,
        "gates": run.plan.gates.iter().map(|gate| gate.kind.as_str()).collect::<Vec<_>>(),
    })
}

/// What could be said beforehand. Chances are in millionths.
fn preview(preview: &Preview) -> Value {
    let waves = preview.waves.iter().map(|wave| {
        let zones: Vec<Value> =
            wave.zones.iter().map(|(zone, members)| json!({ "zone": zone, "members": members })).collect();
        json!({ "name": wave.plan.name, "members": wave.members, "away": wave.away, "zones": zones })
    });
    let exclusions =
        preview.exclusions.iter().map(|one| json!({ "reason": one.reason.as_str(), "count": one.count }));
    let blind =
        preview.blind.iter().map(|(_, gate, count)| json!({ "gate": gate.as_str(), "members": count }));
    json!({
        "text": preview.to_text(),
        "members": preview.members,
        "away": preview.away,
        "without_domain": preview.without_domain,
        "already_current": preview.current,
        "control_group": preview.control,
        "waves": waves.collect::<Vec<_>>(),
        "excluded": exclusions.collect::<Vec<_>>(),
        "blind": blind.collect::<Vec<_>>(),
        "takes_at_best_s": preview.lasting.at_best.as_secs(),
        "takes_by_deadlines_s": preview.lasting.by_deadlines.as_secs(),
        "touched_max": preview.blast.touched,
        "in_flight_max": preview.blast.in_flight,
        "total_fault_touches": preview.blast.total_fault,
        "detection": preview.power.iter().map(power).collect::<Vec<_>>(),
        "false_stop_ppm": preview.false_stop.0,
    })
}

/// What changes for the members that run one configuration.
fn meaning(meaning: &CurrentMeaning) -> Value {
    let (config, members) = (meaning.config.to_string(), meaning.members);
    match &meaning.changes {
        Ok(diff) => {
            json!({ "config": config, "members": members, "changes": diff.changes, "more": diff.more })
        }
        Err(error) => json!({ "config": config, "members": members, "error": error.to_string() }),
    }
}

fn power(power: &Power) -> Value {
    let ppm = |Ppm(ppm): Ppm| ppm;
    let waves = power.waves.iter().map(|wave| {
        json!({
            "members": wave.members,
            "seen_ppm": ppm(wave.seen),
            "stopped_ppm": ppm(wave.stopped),
            "stretched_ppm": ppm(wave.stretched),
        })
    });
    json!({ "fault_ppm": ppm(power.fault), "waves": waves.collect::<Vec<_>>() })
}

fn sample(sample: &Sample) -> Value {
    let Sample { pending, applying, applied, failed, neutral, deferred, .. } = *sample;
    json!({
        "at_ms": sample.at_ms,
        "wave": sample.wave,
        "state": sample.state.as_str(),
        "operator_state": sample.operator_state.as_str(),
        "counts": counts([pending, applying, applied, failed, neutral, deferred]),
    })
}

/// Members by operators' words; together they are all members.
fn counts([pending, applying, applied, failed, neutral, deferred]: [u32; 6]) -> Value {
    json!({
        "pending": pending,
        "applying": applying,
        "applied": applied,
        "failed": failed,
        "neutral": neutral,
        "deferred": deferred,
    })
}

fn mark(mark: &Mark) -> Value {
    json!({ "at_ms": mark.at_ms, "what": mark.what, "details": mark.details })
}

/// What an operator did, or would have.
fn act(mark: &Mark) -> Option<Value> {
    let MarkKind::Act { act, answer } = &mark.kind else { return None };
    Some(json!({ "at_ms": mark.at_ms, "act": act, "answer": answer.as_str(), "why": answer.why() }))
}

/// What a gate said.
fn verdict(mark: &Mark) -> Option<Value> {
    let MarkKind::Gate(evidence) = &mark.kind else { return None };
    Some(json!({
        "at_ms": mark.at_ms,
        "kind": evidence.gate.as_str(),
        "name": evidence.name,
        "scope": scope(&evidence.scope),
        "bad": evidence.bad,
        "eligible": evidence.of,
        "verdict": evidence.verdict.as_str(),
        "line": mark.details,
    }))
}

/// What a gate counted over all waves.
fn gate(gate: &GateCounts) -> Value {
    json!({
        "kind": gate.kind.as_str(),
        "bad": gate.bad,
        "eligible": gate.of,
        "blind": gate.blind,
        "verdicts": gate.verdicts,
    })
}

fn scope(scope: &ScopeAt) -> String {
    match scope {
        ScopeAt::All => "all waves".to_owned(),
        ScopeAt::Wave(wave) => format!("wave {}", wave.index() + 1),
        ScopeAt::Zone(zone) => format!("zone {zone}"),
    }
}

fn result(run: &Simulation, cost: Cost) -> Value {
    let ms = |length: Option<Duration>| length.map(|length| length.as_millis() as u64);
    let tally = &run.tally;
    let Summary { pending, applying, applied, failed, neutral, deferred, .. } = run.summary;
    let micros = u64::try_from(cost.took.as_micros()).unwrap_or(u64::MAX).max(1);
    json!({
        "state": run.state.as_str(),
        "end": end(run.end),
        "waits": run.why.as_ref().map(|why| json!({
            "for": match &why.next {
                NextAction::Needs(who) => who.as_str(),
                NextAction::At(_, what) => what,
                NextAction::Never => "nothing",
            },
            "since_ms": ms(Some(why.since.since(run.begins))),
            "reason": why.reason,
        })),
        "operator_state": run.summary.state.as_str(),
        "counts": counts([pending, applying, applied, failed, neutral, deferred]),
        "length_ms": ms(Some(run.length)),
        "first_fault_ms": ms(tally.first_fault.map(|at| at.since(run.begins))),
        "first_stop_ms": ms(tally.first_stop.map(|at| at.since(run.begins))),
        "time_to_detect_ms": ms(run.time_to_detect()),
        "time_to_roll_back_ms": ms(run.time_to_roll_back()),
        "touched": tally.touched,
        "offers": tally.offers,
        "offers_back": tally.offers_back,
        "rolled_back": run.rolled_back,
        "refused": tally.refused,
        "commits": tally.commits,
        "entries": tally.entries,
        "events": tally.events,
        "events_per_s": tally.events.saturating_mul(1_000_000) / micros,
        "peak_rss_kib": cost.peak_rss_kib,
    })
}

const fn end(end: RunEnd) -> &'static str {
    match end {
        RunEnd::Ended => "ended",
        RunEnd::Stopped | RunEnd::Waits => "waits",
        RunEnd::Stuck => "stuck",
        RunEnd::Time => "time",
    }
}
