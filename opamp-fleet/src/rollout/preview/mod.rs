//! What a plan would do, before it does it (R11).

mod duration;
mod power;
#[cfg(feature = "collector")]
mod semantic;
mod text;

use std::collections::BTreeMap;

use opamp_proto::{AgentId, Fingerprint};

pub use duration::Lasting;
pub use power::{Chance, NOISE, Power};
#[cfg(feature = "collector")]
pub use semantic::{CurrentMeaning, semantic};
pub use text::{counted, grouped};

use super::gates::{self, GateKind};
use super::members::Row;
use super::plan::{Exclusion, Finding, Lint, Plan, PlannedMembers, WavePlan};
use super::stats::Ppm;
use super::{Flags, GateIx, MemberState, RolloutId, ZoneIx};
use crate::{ConfigMap, FileDiff, diff};

/// What a plan would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The plan's hash: what an approval is for.
    pub hash: Fingerprint,
    /// Members that are going to be offered something.
    pub members: u32,
    /// Those of them that are not connected now: they are offered it when they are back.
    pub away: u32,
    /// Those of them that have no failure domain, which limits of a domain leave alone; 0 if there are none.
    pub without_domain: u32,
    /// Members that run it already.
    pub current: u32,
    /// Members that are left as they are, to compare with.
    pub control: u32,
    /// Its waves, at most [`PreviewLimits::waves_max`], and how many there are beside these.
    pub waves: Vec<WavePreview>,
    /// See [`Preview::waves`].
    pub further_waves: u32,
    /// Who is left out, by reason.
    pub exclusions: Box<[Exclusion]>,
    /// Rollouts that have some of its agents, and how many (R61).
    pub overlaps: Box<[(RolloutId, u32)]>,
    /// What the members run now and what would change, the most frequent first, at most [`PreviewLimits::configs_max`].
    pub currents: Vec<CurrentConfig>,
    /// Configurations beside these.
    pub further_configs: u32,
    /// What there is to say about the configuration itself.
    pub findings: Vec<Finding>,
    /// How long it takes.
    pub lasting: Lasting,
    /// How far harm could reach.
    pub blast: Blast,
    /// Gates that some members say nothing to, and how many.
    pub blind: Vec<(GateIx, GateKind, u32)>,
    /// Which faults are seen and stopped.
    pub power: Vec<Power>,
    /// The chance that a rollout is stopped in which nothing but [`NOISE`] happens, at most; of tests that go on after 10,000
    /// members what comes later is left out.
    pub false_stop: Ppm,
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WavePreview {
    /// Its plan.
    pub plan: WavePlan,
    /// Members that are going to be offered something.
    pub members: u32,
    /// Those of them that are not connected now.
    pub away: u32,
    /// Some of them, at most [`PreviewLimits::examples_max`], in order.
    pub examples: Vec<AgentId>,
    /// Members by failure domain, in the order of names, at most [`PreviewLimits::zones_max`]; without those that have none.
    pub zones: Vec<(Box<str>, u32)>,
}

/// What some members run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentConfig {
    /// Its fingerprint; none if that is not known.
    pub config: Option<Fingerprint>,
    /// How many members run it.
    pub members: u32,
    /// What would change, file by file; none if it or the target cannot be read.
    pub files: Option<Vec<FileDiff>>,
}

/// How far harm could reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blast {
    /// Most members that are touched.
    pub touched: u32,
    /// That as a part of the fleet, rounded up; none if the fleet's size is not known.
    pub of_fleet: Option<Ppm>,
    /// Most members in flight at a time.
    pub in_flight: u32,
    /// Members that a fault touches which breaks every one of them; none if nothing is there that stops it.
    pub total_fault: Option<u32>,
}

/// How much a preview says.
#[derive(Clone, Copy, Debug)]
pub struct PreviewLimits<'a> {
    /// Most waves. Default 100.
    pub waves_max: usize,
    /// Most examples of a wave. Default 20.
    pub examples_max: usize,
    /// Most failure domains of a wave. Default 100.
    pub zones_max: usize,
    /// Most configurations that are compared. Default 10.
    pub configs_max: usize,
    /// What the configuration is checked for.
    pub lint: Lint<'a>,
}

impl Default for PreviewLimits<'_> {
    fn default() -> Self {
        Self { waves_max: 100, examples_max: 20, zones_max: 100, configs_max: 10, lint: Lint::default() }
    }
}

/// What a plan would do. `configs` reads a configuration by its fingerprint, the plan's target too; what it does not have is
/// not compared.
pub fn preview(
    plan: &Plan,
    members: &PlannedMembers,
    configs: &dyn Fn(Fingerprint) -> Option<ConfigMap>,
    limits: &PreviewLimits<'_>,
) -> Preview {
    let target = configs(plan.target);
    let queued = members.queued();
    let current = members.rows.iter().filter(|row| row.state == MemberState::AlreadyCurrent).count();
    let without_domain = |row: &&Row| row.state == MemberState::Queued && row.zone == ZoneIx::NONE;
    let without_domain = match plan.domains {
        Some(_) => members.rows.iter().filter(without_domain).count(),
        None => 0,
    };
    let shown = members.currents.iter().take(limits.configs_max);
    Preview {
        hash: plan.hash,
        members: queued,
        away: count(members.rows.iter().filter(is_away).count()),
        without_domain: count(without_domain),
        current: count(current),
        control: plan.control_group,
        waves: plan
            .waves
            .iter()
            .take(limits.waves_max)
            .map(|wave| wave_preview(plan, members, wave, limits))
            .collect(),
        further_waves: count(plan.waves.len().saturating_sub(limits.waves_max)),
        exclusions: plan.excluded.clone(),
        overlaps: plan.overlaps.clone(),
        currents: shown
            .map(|(config, members)| current_config(*config, *members, target.as_ref(), configs))
            .collect(),
        further_configs: count(members.currents.len().saturating_sub(limits.configs_max)),
        findings: target.as_ref().map(|target| limits.lint.check(target)).unwrap_or_default(),
        lasting: Lasting::of(plan, members),
        blast: blast(plan, queued),
        blind: blind(plan, members),
        power: power::powers(plan, members, queued),
        false_stop: power::false_stop(plan, queued, &by_zone(members)),
    }
}

/// Whether a member that is going to be offered something is not there now.
fn is_away(row: &&Row) -> bool {
    row.state == MemberState::Queued && !row.flags.contains(Flags::CONNECTED)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Members of a wave that are going to be offered something, the wave cut off where those begin that are not.
fn turns(wave: &WavePlan, queued: u32) -> u32 {
    wave.end.min(queued).saturating_sub(wave.first)
}

fn wave_preview(
    plan: &Plan,
    members: &PlannedMembers,
    wave: &WavePlan,
    limits: &PreviewLimits<'_>,
) -> WavePreview {
    let range = wave.first as usize..(wave.end as usize).min(members.rows.len());
    let rows = members.rows.get(range.clone()).unwrap_or_default();
    let mut zones: BTreeMap<ZoneIx, u32> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.state == MemberState::Queued && row.zone != ZoneIx::NONE) {
        *zones.entry(row.zone).or_default() += 1;
    }
    let named = zones
        .into_iter()
        .filter_map(|(zone, members)| Some((plan.zones.get(zone.index())?.clone(), members)));
    let queued = rows.iter().filter(|row| row.state == MemberState::Queued).count();
    let away = rows.iter().filter(is_away).count();
    let ids = members.ids.get(range).unwrap_or_default();
    WavePreview {
        plan: wave.clone(),
        members: count(queued),
        away: count(away),
        examples: ids.iter().take(queued.min(limits.examples_max)).copied().collect(),
        zones: named.take(limits.zones_max).collect(),
    }
}

/// Members that are going to be offered something, by failure domain.
fn by_zone(members: &PlannedMembers) -> Vec<u32> {
    let mut zones: BTreeMap<ZoneIx, u32> = BTreeMap::new();
    for row in members.rows.iter().filter(|row| row.state == MemberState::Queued && row.zone != ZoneIx::NONE)
    {
        *zones.entry(row.zone).or_default() += 1;
    }
    zones.into_values().collect()
}

fn current_config(
    config: Option<Fingerprint>,
    members: u32,
    target: Option<&ConfigMap>,
    configs: &dyn Fn(Fingerprint) -> Option<ConfigMap>,
) -> CurrentConfig {
    let current = config.and_then(configs);
    let files = current.zip(target).map(|(current, target)| diff(current.map(), target.map()));
    CurrentConfig { config, members, files }
}

fn blast(plan: &Plan, queued: u32) -> Blast {
    let limits = &plan.settings.limits;
    let touched = queued.min(limits.touched_max);
    let fleet = u64::from(plan.fleet.agents);
    let part = (u64::from(touched) * u64::from(Ppm::ALL.0)).div_ceil(fleet.max(1)).min(u64::from(Ppm::ALL.0));
    let of_fleet = (fleet > 0).then(|| Ppm(u32::try_from(part).unwrap_or(Ppm::ALL.0)));
    let by_wave = plan.waves.iter().map(|wave| turns(wave, queued).min(wave.cap)).max().unwrap_or(0);
    let by_fleet =
        if fleet == 0 { u32::MAX } else { limits.fleet_percent_in_flight.of(plan.fleet.agents).max(1) };
    Blast {
        touched,
        of_fleet,
        in_flight: by_wave.min(by_fleet),
        total_fault: gates::total_fault(&plan.gates).map(|failures| u32::from(failures).min(touched)),
    }
}

/// For each gate how many members cannot say what it asks; those to which all can are left out.
fn blind(plan: &Plan, members: &PlannedMembers) -> Vec<(GateIx, GateKind, u32)> {
    let without = |flags| {
        let rows = members.rows.iter().filter(|row| row.state == MemberState::Queued);
        count(rows.filter(|row| !row.flags.contains(flags)).count())
    };
    let gates = plan.gates.iter().zip(0..);
    gates
        .filter_map(|(gate, position)| Some((GateIx(position), gate.kind, without(needed(gate.kind)?))))
        .filter(|(_, _, blind)| *blind > 0)
        .collect()
}

/// What a member has to report for a gate to see it; none if the connection alone says enough.
fn needed(kind: GateKind) -> Option<Flags> {
    match kind {
        GateKind::ApplyFailed | GateKind::Rejected | GateKind::SelfRollback => Some(Flags::REPORTS_STATUS),
        GateKind::Unhealthy => Some(Flags::REPORTS_HEALTH),
        GateKind::EffectiveMismatch => Some(Flags::EXACT_EFFECTIVE),
        GateKind::CpuRise
        | GateKind::CrashLoop
        | GateKind::DisconnectRatio
        | GateKind::ExportFailures
        | GateKind::External
        | GateKind::MassDisconnect
        | GateKind::MemoryRise
        | GateKind::NothingSucceeds
        | GateKind::QueueFill
        | GateKind::ThroughputDrop
        | GateKind::TimedOut
        | GateKind::Unverified => None,
    }
}
