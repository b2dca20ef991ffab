//! Making a plan: selects, excludes, orders, cuts into waves, computes boundaries.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{ConfigHash, Fingerprint};

use super::fill::{Filled, FilledWave, fill};
use super::order::Keys;
use super::pick::{Currents, Exclusions, Pick, Picking, Texts, zone_ix, zone_label};
use super::preflight::{Needs, Selected, Selection, capabilities};
use super::{Candidate, Domains, FleetSizes, Plan, PlanRequest, PlannedMembers, WavePlan, check};
use crate::rollout::gates;
use crate::rollout::journal::plan_hash;
use crate::rollout::members::Row;
use crate::rollout::{
    ConfigIx, Fell, Flags, MemberState, Pace, PlanError, Reason, RolloutId, Time, WaveIx, ZoneIx,
};

impl Plan {
    /// Selects, excludes, orders, cuts into waves, and computes boundaries. Candidates in any order give the same plan. Who runs
    /// the configuration already is a member without a turn; a candidate that is given twice counts once.
    ///
    /// # Errors
    /// [`PlanError`] says what is wrong with what is asked for, or that nobody is left. Nothing has changed then.
    pub fn make<'c>(
        request: PlanRequest<'_>,
        candidates: impl Iterator<Item = Candidate<'c>>,
        fleet: FleetSizes,
        now: Time,
    ) -> Result<(Self, PlannedMembers), PlanError> {
        Self::make_of(request, |take| candidates.for_each(take), fleet, now)
    }

    /// The same of candidates that are handed over one after the other, none of which has to outlast its call: a fleet that is
    /// read page by page is never in memory as a whole.
    ///
    /// # Errors
    /// As [`Plan::make`].
    pub fn make_of(
        request: PlanRequest<'_>,
        each: impl FnOnce(&mut dyn FnMut(Candidate<'_>)),
        fleet: FleetSizes,
        now: Time,
    ) -> Result<(Self, PlannedMembers), PlanError> {
        check::request(&request, now)?;
        let findings = request.target.lint.check(request.target.config);
        if findings.iter().any(|finding| finding.forbids) {
            return Err(PlanError::Lint(findings));
        }
        // A copy, because the hash may be a slice of a whole message.
        let target_hash = ConfigHash::new(request.target.config.hash().as_bytes().to_vec());
        let target = target_hash.fingerprint();
        let target_bytes = request.target.config.encode().len() as u64;
        let Gathered { picks, texts, exclusions, overlaps, currents } =
            gather(&request, each, target, target_bytes)?;
        if picks.is_empty() {
            return Err(PlanError::NoMembers { excluded: exclusions.count() });
        }
        let zones: Box<[Box<str>]> = texts.zones.sorted().map(Box::<str>::from).collect();
        if zones.len() > usize::from(Self::ZONES_MAX) {
            return Err(PlanError::Strategy { what: "there are more failure domains than 1,024" });
        }
        let filled = fill(&request, picks, &texts)?;
        let sizes: Vec<u32> = filled.waves.iter().map(|wave| count(wave.members.len())).collect();
        let queued: u32 = sizes.iter().sum();
        let control_group = count(filled.control.len());
        let mut waves = waves(&request, &filled, &zones);
        if queued > 0 {
            check::windows(&request, &mut waves)?;
        }
        let members = planned(filled, &texts, currents, now);
        let boundaries = gates::boundaries(&request.gates, &sizes, queued, count(zones.len()));
        let default = request.default;
        let plan = Self {
            id: request.id,
            title: request.title,
            slot: request.slot,
            group: request.group,
            target_hash,
            target,
            target_bytes,
            agent_type: request.target.agent_type,
            components: request.target.components,
            capabilities: capabilities(request.slot, request.target.capabilities),
            selector: request.selector.clone(),
            strategy: request.strategy,
            order: request.order,
            stratify: request.stratify,
            domains: request.domains,
            control_group,
            gates: request.gates,
            boundaries,
            settings: request.settings,
            calendar: request.calendar,
            start_at: request.start_at,
            expires_at: request.expires_at,
            override_reason: request.override_reason,
            author: request.author,
            conflict: request.conflict,
            waves: waves.into(),
            zones,
            members: count(members.len()),
            excluded: exclusions.into_list(),
            overlaps: overlaps.into_iter().collect(),
            fleet,
            made_at: now,
            hash: Fingerprint::from_bytes([0; 16]),
        };
        if let Some(template) = default {
            template.check(&plan, &members)?;
        }
        let hash = hash(&plan, &members);
        Ok((Self { hash, ..plan }, members))
    }
}

/// What comes of the candidates.
struct Gathered {
    picks: Vec<Pick>,
    texts: Texts,
    exclusions: Exclusions,
    overlaps: BTreeMap<RolloutId, u32>,
    currents: Currents,
}

fn gather(
    request: &PlanRequest<'_>,
    each: impl FnOnce(&mut dyn FnMut(Candidate<'_>)),
    target: Fingerprint,
    target_bytes: u64,
) -> Result<Gathered, PlanError> {
    let needs = Needs::of_request(request, target, target_bytes);
    let selection = Selection::new(request.selector);
    let picking = Picking {
        keys: Keys::new(&request.order, request.id),
        target,
        deadlines: &request.settings.deadlines,
        stratify: &request.stratify,
        zone: zone_label(request.domains.as_ref(), &request.strategy),
        wave: request.strategy.label(),
        apart: request.domains.as_ref().and_then(|domains| domains.anti_affinity.as_deref()),
    };
    let mut seen = BTreeSet::new();
    let mut gathered = Gathered {
        picks: Vec::new(),
        texts: Texts::default(),
        exclusions: Exclusions::default(),
        overlaps: BTreeMap::new(),
        currents: Currents::default(),
    };
    let mut too_many = false;
    each(&mut |candidate| {
        let agent = candidate.facts.id;
        let selected = selection.of(candidate.facts);
        if too_many || selected == Selected::No || !seen.insert(agent) {
            return;
        }
        if let Some(other) = needs.overlap(&candidate) {
            *gathered.overlaps.entry(other).or_default() += 1;
        }
        let unknown = (selected == Selected::Unknown).then_some(Reason::LabelsUnknown);
        if let Some(reason) = unknown.or_else(|| needs.exclusion(&candidate)) {
            gathered.exclusions.add(reason, agent);
            return;
        }
        if gathered.picks.len() >= Plan::MEMBERS_MAX as usize {
            too_many = true;
            return;
        }
        gathered.picks.push(picking.pick(&candidate, &mut gathered.texts));
        gathered.currents.add(candidate.current);
    });
    if too_many { Err(PlanError::TooManyMembers { limit: Plan::MEMBERS_MAX }) } else { Ok(gathered) }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The waves as planned. The last one has those as well that have no turn.
fn waves(request: &PlanRequest<'_>, filled: &Filled, zones: &[Box<str>]) -> Vec<WavePlan> {
    let settings = &request.settings;
    let cap = settings.in_flight_max.min(settings.limits.in_flight_max).max(1);
    let is_by_zone = zone_label(request.domains.as_ref(), &request.strategy) == request.strategy.label();
    let mut first = 0;
    let mut waves: Vec<WavePlan> = Vec::with_capacity(filled.waves.len());
    for FilledWave { cut, members, last_key } in &filled.waves {
        let zone = cut.value.as_deref().filter(|_| is_by_zone).map(|value| zone_ix(zones, Some(value)));
        let zone = zone.filter(|zone| *zone != ZoneIx::NONE);
        let end = first + count(members.len());
        waves.push(WavePlan {
            name: cut.name.clone(),
            first,
            end,
            dwell: cut.dwell,
            cap: zone.map_or(cap, |_| cap.min(cap_of_zone(request))),
            approval: cut.approval,
            manual: cut.manual,
            zone,
            ring: cut.value.clone(),
            last_key: last_key.clone(),
        });
        first = end;
    }
    if let Some(last) = waves.last_mut() {
        last.end += count(filled.current.len() + filled.control.len());
    }
    waves
}

/// Most members in flight in one failure domain.
fn cap_of_zone(request: &PlanRequest<'_>) -> u32 {
    let of_domains =
        request.domains.as_ref().map_or(u32::MAX, |Domains { in_flight_max, .. }| *in_flight_max);
    of_domains.min(request.settings.limits.zone_in_flight).max(1)
}

/// The rows of all members, those without a turn at the end.
fn planned(filled: Filled, texts: &Texts, currents: Currents, now: Time) -> PlannedMembers {
    let ranks = texts.zones.ranks();
    let last = WaveIx(u16::try_from(filled.waves.len().saturating_sub(1)).unwrap_or(u16::MAX - 1));
    let mut members = PlannedMembers { currents: currents.into_list(), ..PlannedMembers::default() };
    let mut configs = BTreeMap::new();
    let mut push = |pick: Pick, wave: WaveIx, state: MemberState, reason: Reason| {
        let previous = pick.previous.map_or(ConfigIx::NONE, |config| {
            *configs.entry(config).or_insert_with(|| {
                members.configs.push(config);
                ConfigIx(count(members.configs.len() - 1))
            })
        });
        let rank = pick.zone.and_then(|zone| u16::try_from(ranks[zone as usize]).ok());
        let row = Row::queued(wave, rank.map_or(ZoneIx::NONE, ZoneIx), previous, pick.flags, now);
        members.rows.push(Row { state, reason, stage: state, fell: pick.fell, ..row });
        members.ids.push(pick.id);
        members.paces.push(pick.pace);
    };
    for (wave, position) in filled.waves.into_iter().zip(0..) {
        for pick in wave.members {
            push(pick, WaveIx(position), MemberState::Queued, Reason::Nothing);
        }
    }
    for pick in filled.current {
        push(pick, last, MemberState::AlreadyCurrent, Reason::AlreadyEqual);
    }
    for mut pick in filled.control {
        // What it suffers from already says nothing of those who are treated.
        let flags = pick.flags;
        let ill = flags.contains(Flags::REPORTS_HEALTH) && !flags.contains(Flags::HEALTHY);
        let away = !flags.contains(Flags::CONNECTED);
        pick.flags = flags.set(Flags::WAS_UNHEALTHY, ill).set(Flags::WAS_AWAY, away);
        push(pick, last, MemberState::Control, Reason::ControlGroup);
    }
    members
}

/// The hash of what is agreed to (R12): everything but what changes by itself from one moment to the next, such as who is
/// connected or fell, how large the fleet is, or who else is at work.
fn hash(plan: &Plan, members: &PlannedMembers) -> Fingerprint {
    let plan = Plan { fleet: FleetSizes::default(), overlaps: Box::default(), ..plan.clone() };
    let lasting = |row: &Row| Row { flags: Flags::default(), since: Time(0), fell: Fell::default(), ..*row };
    let members = PlannedMembers {
        rows: members.rows.iter().map(lasting).collect(),
        ids: members.ids.clone(),
        paces: vec![Pace::default(); members.paces.len()],
        configs: members.configs.clone(),
        currents: Vec::new(),
    };
    plan_hash(&plan, &members)
}
