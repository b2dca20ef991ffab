//! One selected agent, as small as planning needs it.

use std::collections::{BTreeMap, BTreeSet};

use opamp_proto::{AgentCapabilities, AgentId, Fingerprint};

use super::order::Keys;
use super::strata::{Names, label, stratum};
use super::{Candidate, Exclusion, PlannedMembers, Strategy, StratumKey, Transport};
use crate::rollout::{Deadlines, Fell, Flags, Pace, Reason, ZoneIx};
use crate::{Health, Liveness};

/// One member that waits to be put into a wave. Numbers of texts are by order of arrival.
pub(super) struct Pick {
    pub(super) key: Box<[u8]>,
    pub(super) id: AgentId,
    pub(super) flags: Flags,
    pub(super) pace: Pace,
    pub(super) fell: Fell,
    pub(super) previous: Option<Fingerprint>,
    /// Whether it runs the target.
    pub(super) is_current: bool,
    /// Numbers in [`Texts::strata`], [`Texts::zones`], [`Texts::waves`] and [`Texts::apart`].
    pub(super) stratum: u32,
    pub(super) zone: Option<u32>,
    pub(super) wave: Option<u32>,
    pub(super) apart: Option<u32>,
}

/// Texts by which members are told apart, as numbers.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) strata: Names,
    pub(super) zones: Names,
    /// Values of the label that makes waves.
    pub(super) waves: Names,
    /// Values of the label whose agents should not be in one wave.
    pub(super) apart: Names,
}

/// What decides how an agent is picked.
pub(super) struct Picking<'a> {
    pub(super) keys: Keys<'a>,
    pub(super) target: Fingerprint,
    pub(super) deadlines: &'a Deadlines,
    pub(super) stratify: &'a [StratumKey],
    /// Labels, as far as there are such: of failure domains, of waves, of those that should not be together.
    pub(super) zone: Option<&'a str>,
    pub(super) wave: Option<&'a str>,
    pub(super) apart: Option<&'a str>,
}

impl Picking<'_> {
    pub(super) fn pick(&self, candidate: &Candidate<'_>, texts: &mut Texts) -> Pick {
        let facts = candidate.facts;
        let value = |name: Option<&str>| name.and_then(|name| label(facts, name));
        Pick {
            key: self.keys.of(facts, candidate.first_seen),
            id: facts.id,
            flags: flags(candidate),
            pace: pace(candidate, self.deadlines),
            fell: candidate.fell,
            previous: previous(candidate, self.target),
            is_current: candidate.current == Some(self.target),
            stratum: texts.strata.number(&stratum(self.stratify, facts)),
            zone: value(self.zone).map(|zone| texts.zones.number(zone)),
            wave: value(self.wave).map(|wave| texts.waves.number(wave)),
            apart: value(self.apart).map(|apart| texts.apart.number(apart)),
        }
    }
}

/// What is known of an agent at the beginning.
pub(super) fn flags(candidate: &Candidate<'_>) -> Flags {
    let facts = candidate.facts;
    let can = |capability| facts.capabilities.contains(capability);
    Flags::default()
        .set(Flags::CONNECTED, facts.liveness == Liveness::Connected)
        .set(Flags::HEALTHY, facts.health == Health::Healthy)
        .set(Flags::REPORTS_STATUS, can(AgentCapabilities::REPORTS_REMOTE_CONFIG))
        .set(Flags::REPORTS_HEALTH, can(AgentCapabilities::REPORTS_HEALTH))
        .set(Flags::EXACT_EFFECTIVE, candidate.exact_effective)
        .set(Flags::POLLING, candidate.transport == Transport::Http)
}

/// How often an agent is heard of, and which deadlines it has.
pub(super) fn pace(candidate: &Candidate<'_>, deadlines: &Deadlines) -> Pace {
    let agent_type = candidate.facts.agent_type();
    let spans = deadlines.by_agent_type.keys().position(|name| **name == *agent_type);
    Pace {
        interval_s: u16::try_from(candidate.interval.as_secs()).unwrap_or(u16::MAX),
        spans: spans.and_then(|position| u8::try_from(position + 1).ok()).unwrap_or(0),
    }
}

/// What an agent can go back to: its last known good configuration, else the one assigned to it. The target is neither.
pub(super) fn previous(candidate: &Candidate<'_>, target: Fingerprint) -> Option<Fingerprint> {
    [candidate.known_good, candidate.assigned].into_iter().flatten().find(|config| *config != target)
}

/// Those left out, by reason.
#[derive(Default)]
pub(super) struct Exclusions(BTreeMap<Reason, (u32, BTreeSet<AgentId>)>);

impl Exclusions {
    pub(super) fn add(&mut self, reason: Reason, agent: AgentId) {
        let (count, examples) = self.0.entry(reason).or_default();
        *count = count.saturating_add(1);
        examples.insert(agent);
        if examples.len() > Exclusion::EXAMPLES_MAX {
            examples.pop_last();
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.0.values().fold(0, |sum, (count, _)| sum.saturating_add(*count))
    }

    pub(super) fn into_list(self) -> Box<[Exclusion]> {
        let list = self.0.into_iter();
        list.map(|(reason, (count, examples))| Exclusion {
            reason,
            count,
            examples: examples.into_iter().collect(),
        })
        .collect()
    }
}

/// Configurations that members say they run, counted. Those beyond the bound are not told apart from the unknown.
#[derive(Default)]
pub(super) struct Currents(BTreeMap<Option<Fingerprint>, u32>);

impl Currents {
    pub(super) fn add(&mut self, current: Option<Fingerprint>) {
        *self.0.entry(current).or_default() += 1;
    }

    /// The most frequent first, then by fingerprint.
    pub(super) fn into_list(self) -> Vec<(Option<Fingerprint>, u32)> {
        let mut list: Vec<_> = self.0.into_iter().collect();
        list.sort_by_key(|(current, count)| (std::cmp::Reverse(*count), *current));
        if list.len() <= PlannedMembers::CURRENTS_MAX {
            return list;
        }
        let rest = list.split_off(PlannedMembers::CURRENTS_MAX - 1);
        let count = rest.iter().map(|(_, count)| count).sum::<u32>();
        match list.iter_mut().find(|(current, _)| current.is_none()) {
            Some((_, unknown)) => *unknown += count,
            None => list.push((None, count)),
        }
        list
    }
}

/// The label that names failure domains: as asked for, else the one that waves go by.
pub(super) fn zone_label<'a>(domains: Option<&'a super::Domains>, strategy: &'a Strategy) -> Option<&'a str> {
    match (domains, strategy) {
        (Some(domains), _) => Some(&domains.key),
        (None, Strategy::ZoneByZone { key }) => Some(key),
        (None, _) => None,
    }
}

/// The position of a failure domain among those of a plan, which are sorted.
pub(super) fn zone_ix(zones: &[Box<str>], name: Option<&str>) -> ZoneIx {
    let position = name.and_then(|name| zones.binary_search_by(|zone| (**zone).cmp(name)).ok());
    position.and_then(|position| u16::try_from(position).ok()).map_or(ZoneIx::NONE, ZoneIx)
}
