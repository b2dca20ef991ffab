//! Whether a plan makes sense as a whole: windows and dwells, caps, gates (R38, R39).

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Domains, Order, Plan, PlanRequest, Size, Step, Strategy, StratumKey, Target, WavePlan};
use crate::faults::seeded;
use crate::labels::LABEL_KEY_BYTES_MAX;
use crate::rollout::gates;
use crate::rollout::stats::Ppm;
use crate::rollout::windows::Calendar;
use crate::rollout::{Deadlines, EngineSettings, Fit, PlanError, SPAN_MAX, Time};

/// Largest control group. Telling two groups apart needs no more, and it is compared as a whole.
const CONTROL_GROUP_MAX: u32 = 10_000;

/// Failures after which the first members' total failure stops a rollout at the latest, if nobody asks for another one.
const TOTAL_FAULT_MAX: u16 = 10;

/// What can be said before anybody is selected.
pub(super) fn request(request: &PlanRequest<'_>, now: Time) -> Result<(), PlanError> {
    texts(request)?;
    target(&request.target)?;
    strategy(&request.strategy)?;
    members(request)?;
    calendar(&request.calendar)?;
    settings(&request.settings)?;
    gates::check(&request.gates)?;
    times(request, now)?;
    overrides(request)
}

/// That no gate is asked before its window is over (R39). The last wave has the bake as well. With [`Fit::Stretch`] dwells
/// become longer where they have to.
pub(super) fn windows(request: &PlanRequest<'_>, waves: &mut [WavePlan]) -> Result<(), PlanError> {
    let Some((gate, window)) = gates::longest_window(&request.gates) else { return Ok(()) };
    let last = waves.len().saturating_sub(1);
    for (position, wave) in waves.iter_mut().enumerate() {
        let bake = if position == last { request.settings.bake } else { Duration::ZERO };
        let needed = window.saturating_sub(bake);
        if wave.dwell >= needed {
            continue;
        }
        match request.settings.fit {
            Fit::Stretch => wave.dwell = needed,
            Fit::Refuse if seeded!(request.faults, WindowPastDwell) => {}
            Fit::Refuse => return Err(PlanError::WindowPastDwell { gate, window, dwell: wave.dwell + bake }),
        }
    }
    Ok(())
}

fn invalid(what: &'static str) -> PlanError {
    PlanError::Strategy { what }
}

fn ensure(holds: bool, what: &'static str) -> Result<(), PlanError> {
    if holds { Ok(()) } else { Err(invalid(what)) }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), PlanError> {
    let [found, limit] = [found, limit].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    if found > limit { Err(PlanError::BeyondHardLimit { what, limit, found }) } else { Ok(()) }
}

fn texts(request: &PlanRequest<'_>) -> Result<(), PlanError> {
    at_most("bytes of the title", request.title.len(), PlanRequest::TEXT_BYTES_MAX)?;
    at_most("bytes of the author", request.author.len(), PlanRequest::TEXT_BYTES_MAX)?;
    let reason = request.override_reason.as_deref().unwrap_or_default();
    at_most("bytes of the reason", reason.len(), PlanRequest::TEXT_BYTES_MAX)
}

fn target(target: &Target<'_>) -> Result<(), PlanError> {
    at_most("components", target.components.len(), Target::COMPONENTS_MAX)?;
    for component in &target.components {
        at_most("bytes of a component", component.len(), Target::COMPONENT_BYTES_MAX)?;
    }
    Ok(())
}

fn strategy(strategy: &Strategy) -> Result<(), PlanError> {
    match strategy {
        Strategy::AllAtOnce => Ok(()),
        Strategy::Batches { size } | Strategy::Manual { size } => ensure(*size > 0, "a batch needs a member"),
        Strategy::Canary { steps } => canary(steps),
        Strategy::Exponential { first, factor } => {
            ensure(*first > 0, "the first wave needs a member")?;
            ensure(*factor >= 2, "the factor is at least 2")
        }
        Strategy::LabelRings { key, rings } => {
            label(key)?;
            waves(rings.len())?;
            ensure(!rings.is_empty(), "rings need a value")?;
            ensure(rings.iter().collect::<BTreeSet<_>>().len() == rings.len(), "a ring is named twice")
        }
        Strategy::Percentages(parts) => {
            waves(parts.len())?;
            ensure(!parts.is_empty(), "percentages need one")?;
            ensure(parts.iter().all(|part| is_part(*part)), "a percentage is above 0 and at most 100")?;
            ensure(parts.is_sorted_by(|a, b| a < b), "percentages ascend")
        }
        Strategy::ZoneByZone { key } => label(key),
    }
}

fn canary(steps: &[Step]) -> Result<(), PlanError> {
    waves(steps.len())?;
    ensure(!steps.is_empty(), "a canary needs a step")?;
    for step in steps {
        let is_sound = match step.until {
            Size::AtMost { count, percent } => count > 0 && is_part(percent),
            Size::Count(count) => count > 0,
            Size::Percent(percent) => is_part(percent),
        };
        ensure(is_sound, "a step reaches at least one member and at most all")?;
        ensure(step.dwell <= SPAN_MAX, "a dwell is at most a year")?;
    }
    let percents = steps.iter().filter_map(|step| match step.until {
        Size::Percent(percent) => Some(percent),
        Size::AtMost { .. } | Size::Count(_) => None,
    });
    ensure(percents.is_sorted_by(|a, b| a < b), "percentages ascend")
}

fn waves(count: usize) -> Result<(), PlanError> {
    // One more may follow for those who are left.
    if count < usize::from(Plan::WAVES_MAX) {
        return Ok(());
    }
    Err(PlanError::TooManyWaves { limit: Plan::WAVES_MAX })
}

fn is_part(part: Ppm) -> bool {
    part.0 > 0 && part <= Ppm::ALL
}

fn label(key: &str) -> Result<(), PlanError> {
    ensure(!key.is_empty() && key.len() <= LABEL_KEY_BYTES_MAX, "a label has 1 to 256 bytes")
}

fn members(request: &PlanRequest<'_>) -> Result<(), PlanError> {
    at_most("members of the control group", request.control_group as usize, CONTROL_GROUP_MAX as usize)?;
    at_most("strata keys", request.stratify.len(), PlanRequest::STRATA_KEYS_MAX)?;
    for key in &request.stratify {
        if let StratumKey::Label(name) = key {
            label(name)?;
        }
    }
    match &request.order {
        Order::Explicit(agents) => at_most("members of the order", agents.len(), Plan::MEMBERS_MAX as usize)?,
        Order::LeastCritical { label: name } => label(name)?,
        Order::Hash | Order::Hostname | Order::Oldest => {}
    }
    let Some(Domains { key, in_flight_max, anti_affinity }) = &request.domains else { return Ok(()) };
    label(key)?;
    ensure(*in_flight_max > 0, "a failure domain has at least one member in flight")?;
    let Some(apart) = anti_affinity.as_deref() else { return Ok(()) };
    label(apart)?;
    ensure(request.strategy.label().is_none(), "agents cannot be kept apart in waves that a label makes")
}

fn calendar(calendar: &Calendar) -> Result<(), PlanError> {
    at_most("windows", calendar.windows.len(), Calendar::WINDOWS_MAX)?;
    at_most("freezes", calendar.freezes.len(), Calendar::FREEZES_MAX)?;
    at_most("failure domains of the calendar", calendar.zones.len(), usize::from(Plan::ZONES_MAX))?;
    for window in &calendar.windows {
        if !window.has_known_zone() {
            let name = window.zone.chars().take(64).collect::<String>().into();
            return Err(PlanError::TimeZone { name });
        }
        ensure(window.is_sound(), "a window begins on some day, within the day")?;
    }
    for freeze in &calendar.freezes {
        ensure(freeze.from < freeze.until, "a freeze ends after it begins")?;
        let override_ = freeze.override_.as_ref();
        let texts = override_.map(|given| [&given.reason, &given.by, &given.second]);
        for text in texts.into_iter().flatten().chain([&freeze.reason]) {
            at_most("bytes of a freeze's texts", text.len(), PlanRequest::TEXT_BYTES_MAX)?;
        }
        ensure(
            override_.is_none_or(|given| given.is_complete()),
            "overriding a freeze takes a reason and two people",
        )?;
    }
    Ok(())
}

fn settings(settings: &EngineSettings) -> Result<(), PlanError> {
    ensure(settings.in_flight_max > 0 && settings.limits.in_flight_max > 0, "somebody has to be in flight")?;
    ensure(settings.offers_at_once > 0, "at least one member is offered at once")?;
    let limits = &settings.limits;
    let moves = [limits.touched_max, limits.per_hour, limits.per_minute, limits.zone_in_flight];
    ensure(moves.iter().all(|limit| *limit > 0), "a limit of 0 lets nobody through")?;
    ensure(is_part(limits.fleet_percent_in_flight), "a part of the fleet is above 0 and at most all of it")?;
    let Deadlines { offer, apply, verify, polls: _, grace_min, grace_heartbeats: _, by_agent_type } =
        &settings.deadlines;
    at_most("agent types with deadlines of their own", by_agent_type.len(), Deadlines::AGENT_TYPES_MAX)?;
    let by_type = by_agent_type.values().flat_map(|spans| [spans.offer, spans.apply, spans.verify]);
    let deadlines: Vec<Duration> = by_type.chain([*offer, *apply, *verify]).collect();
    ensure(deadlines.iter().all(|span| !span.is_zero()), "a deadline of 0 is over before it begins")?;
    ensure(
        !settings.progress.is_zero() && !settings.deferred_ttl.is_zero(),
        "a deadline of 0 is over before it begins",
    )?;
    let retries = &settings.retries;
    ensure(!retries.first_after.is_zero(), "a retry waits")?;
    let spans = [
        settings.bake,
        settings.progress,
        settings.deferred_ttl,
        settings.lock_wait,
        *grace_min,
        retries.first_after,
        retries.after_max,
    ];
    ensure(deadlines.iter().chain(&spans).all(|span| *span <= SPAN_MAX), "a span is at most a year")
}

fn times(request: &PlanRequest<'_>, now: Time) -> Result<(), PlanError> {
    let Some(end) = request.expires_at else { return Ok(()) };
    ensure(end > now && request.start_at.is_none_or(|start| start < end), "it is over before it begins")
}

/// What is dangerous needs a reason.
fn overrides(request: &PlanRequest<'_>) -> Result<(), PlanError> {
    let stops_total_failure =
        gates::total_fault(&request.gates).is_some_and(|failures| failures <= TOTAL_FAULT_MAX);
    let is_dangerous = request.strategy == Strategy::AllAtOnce || !stops_total_failure;
    let has_reason = request.override_reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    if is_dangerous && !has_reason { Err(PlanError::OverrideNeeded) } else { Ok(()) }
}
