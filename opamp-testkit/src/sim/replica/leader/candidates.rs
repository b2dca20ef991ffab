//! Records of agents as planning and selectors see them.

use std::time::Duration;

use opamp_fleet::rollout::ConfigStatus;
use opamp_fleet::rollout::plan::{Candidate, FleetSizes, Transport};
use opamp_fleet::{AgentFacts, Health, LabelScope, LabelValue, Liveness};
use opamp_proto::{AgentCapabilities, AgentId, InstanceUid, Wall};

use crate::sim::store::{AgentRow, Rows};

impl AgentRow {
    /// Whether enough is known of it to plan with.
    pub(super) fn is_candidate(&self) -> bool {
        !self.removed && self.facts.is_some()
    }
}

/// Agents of which enough is known to plan with.
#[derive(Debug)]
pub(super) struct Known<'a> {
    rows: &'a Rows,
    agents: Vec<(&'a AgentId, &'a AgentRow, AgentFacts)>,
}

impl<'a> Known<'a> {
    /// Those of the store.
    pub(super) fn of(rows: &'a Rows) -> Self {
        let candidates = rows.agents.iter().filter(|(_, row)| row.is_candidate());
        Self { rows, agents: candidates.map(|(id, row)| (id, row, agent_facts(id, row))).collect() }
    }

    /// Their records.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&AgentId, &AgentRow)> {
        self.agents.iter().map(|(id, row, _)| (*id, *row))
    }

    /// What planning looks at.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.agents
            .iter()
            .map(|(id, row, facts)| candidate(row, facts, self.rows.quarantined.contains_key(*id)))
    }

    /// How many they are: all of one group.
    pub(super) fn sizes(&self) -> FleetSizes {
        let agents = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        FleetSizes { agents, group: agents }
    }
}

/// What selectors look at.
pub(in crate::sim::replica) fn agent_facts(id: &AgentId, row: &AgentRow) -> AgentFacts {
    let mut facts = AgentFacts::expected(*id, InstanceUid::from_bytes(*id.as_bytes()), Wall(0));
    let known = row.facts.as_ref();
    facts.capabilities = known.map_or(AgentCapabilities::NONE, |known| known.capabilities);
    facts.liveness = match known {
        Some(known) if known.connected => Liveness::Connected,
        Some(_) => Liveness::Disconnected,
        None => Liveness::NeverSeen,
    };
    facts.health = Health::from_report(known.and_then(|known| known.healthy).map(|(healthy, _)| healthy));
    facts.labels.set_server(&row.labels);
    for (key, value) in [("service.name", "com.example.collector"), ("service.version", &*row.version)] {
        let value = LabelValue::Text(value.to_owned());
        facts.labels.insert(LabelScope::Identifying, key.to_owned(), value);
    }
    facts
}

/// What planning looks at.
pub(super) fn candidate<'a>(row: &'a AgentRow, facts: &'a AgentFacts, quarantined: bool) -> Candidate<'a> {
    let known = row.facts.as_ref();
    let report = known.and_then(|known| known.report.as_ref());
    let applied = report.filter(|report| report.status == ConfigStatus::Applied);
    let effective = known.and_then(|known| known.effective).map(|(config, _)| config);
    let polls = known.is_some_and(|known| known.polls);
    Candidate {
        current: applied.map(|report| report.hash).or(effective),
        assigned: row.desired,
        known_good: row.known_good,
        exact_effective: effective.is_some() && effective == row.desired,
        failed: &row.failed,
        first_seen: row.first_seen,
        transport: if polls { Transport::Http } else { Transport::WebSocket },
        interval: Duration::from_secs(if polls { 300 } else { 30 }),
        quarantined,
        ..Candidate::new(facts)
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::Fingerprint;

    use super::*;
    use crate::sim::replica::facts::{Facts, Report};
    use crate::sim::scenario::RolloutSpec;

    fn row(ring: &str) -> AgentRow {
        let labels = [("ring".to_owned(), ring.to_owned())].into();
        AgentRow { labels, version: "1.4.0".into(), facts: Some(Facts::default()), ..AgentRow::default() }
    }

    #[test]
    fn the_ring_out_is_selected_by_no_rollout() {
        let matches =
            |ring| RolloutSpec::selector().matches(&agent_facts(&AgentId::from_bytes([1; 16]), &row(ring)));
        assert!(matches("inner"));
        assert!(!matches("out"));
    }

    #[test]
    fn only_what_was_applied_is_current_whatever_was_reported() {
        let hash = Fingerprint::from_bytes([9; 16]);
        let mut row = row("inner");
        let report = |status| Some(Report { hash, status, text: "".into(), sent: 1 });
        for (status, current) in [(ConfigStatus::Applied, Some(hash)), (ConfigStatus::Failed, None)] {
            row.facts.as_mut().unwrap().report = report(status);
            let facts = agent_facts(&AgentId::from_bytes([1; 16]), &row);
            assert_eq!(candidate(&row, &facts, false).current, current);
        }
    }

    #[test]
    fn an_effective_configuration_is_exact_if_it_was_what_was_desired() {
        let hash = Fingerprint::from_bytes([9; 16]);
        let mut row = row("inner");
        row.facts.as_mut().unwrap().effective = Some((hash, 0));
        let exact = |row: &AgentRow| {
            candidate(row, &agent_facts(&AgentId::from_bytes([1; 16]), row), false).exact_effective
        };
        assert!(!exact(&row));
        row.desired = Some(hash);
        assert!(exact(&row));
    }
}
